"""A cache that follows its upstream, in memory: what is asked, stored, shared and told."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regcache.errors import MethodNotAllowed, Offline, RegCacheError, UpstreamError
from regcache.flow.reply import How, Reply, cache_status
from regcache.http.fields import format_date
from regcache.http.messages import Headers, RequestHead
from regcache.limits import Limits
from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import Page
from regcache.testing.kit import BASE, Kit, body_of, make_cache

UPSTREAM = "http://host.example/"
URL = f"{UPSTREAM}a"
LASTING = {"cache-control": "max-age=60"}


def kit(page: Page | None = None, **options: Any) -> Kit:
    """A cache in front of one page."""
    made = make_cache(make(RegistryOptions(name="t", type="generic", url=UPSTREAM, follows=True, **options)))
    made.upstream.pages[URL] = page or Page(body=b"one", headers=LASTING)
    return made


def page(body: bytes = b"one", status: int = 200, **fields: str) -> Page:
    """An answer; underscores in names of fields stand for hyphens."""
    return Page(body=body, status=status, headers={name.replace("_", "-"): value for name, value in fields.items()})


def got(cache: Kit, path: str = "/a", method: str = "GET", **fields: str) -> tuple[How, bytes]:
    """How a request was answered, and with what."""
    reply, body = cache.get(path, method, **fields)
    return reply.how, body


def test_fresh_then_stale_then_new() -> None:
    """RFC 9111 section 4: fresh is answered without asking, stale is asked for, and what comes is used."""
    cache = kit()
    assert got(cache) == (How.MISS, b"one")
    cache.advance(59)
    assert got(cache) == (How.HIT, b"one")
    assert len(cache.upstream.asked) == 1
    cache.upstream.pages[URL] = page(b"two", cache_control="max-age=60")
    cache.advance(1)
    assert got(cache) == (How.MISS, b"two")
    assert got(cache) == (How.HIT, b"two")


def test_age_and_date() -> None:
    """RFC 9111 section 4: Age tells how old the answer is; RFC 9110 section 6.6.1: Date is the origin's."""
    cache = kit(page(cache_control="max-age=60", age="5", date=format_date(1_700_000_000)))
    cache.get("/a")
    cache.advance(7)
    reply, _ = cache.get("/a")
    assert reply.headers.get("age") == "12"
    assert reply.headers.get("date") == format_date(1_700_000_000)
    assert reply.relayed


def test_validation() -> None:
    """RFC 9111 sections 4.3.1, 4.3.3 and 4.3.4: asked for by its validators; a 304 makes it fresh, with new fields."""
    cache = kit(page(cache_control="max-age=60", etag='"a"', last_modified=format_date(1), x="1", y="1"))
    cache.get("/a")
    cache.advance(60)
    cache.upstream.pages[URL] = page(b"", 304, etag='"a"', x="2", cache_control="max-age=90", content_length="9")
    reply, body = cache.get("/a")
    asked = cache.upstream.asked[-1][2]
    assert (asked.get("if-none-match"), asked.get("if-modified-since")) == ('"a"', format_date(1))
    assert (reply.status, reply.how, body) == (200, How.REVALIDATED, b"one")
    assert (reply.headers.get("x"), reply.headers.get("y"), reply.length) == ("2", "1", 3)
    cache.advance(89)
    assert got(cache) == (How.HIT, b"one")


def test_a_304_of_another_version() -> None:
    """RFC 9111 section 4.3.4: it updates nothing; the whole is asked for without conditions."""
    cache = kit(page(cache_control="max-age=60", etag='"a"'))
    cache.get("/a")
    cache.advance(60)
    cache.upstream.pages[URL] = page(b"", 304, etag='"b"')
    # Whoever answers an unconditional question by 304 has nothing to say: it is passed on.
    assert cache.get("/a")[0].status == 304
    assert "if-none-match" not in cache.upstream.asked[-1][2]


def test_no_store() -> None:
    """RFC 9111 section 5.2.2.5: nothing of it reaches the store."""
    cache = kit(page(cache_control="no-store"))
    for _ in range(2):
        assert got(cache) == (How.MISS, b"one")
    assert cache.store.entries == {}
    assert cache.store.blobs == {}


def test_replaced_by_what_may_not_be_stored() -> None:
    """RFC 9111 section 4.3.3: the new answer is used, and the old one has no use any more."""
    cache = kit()
    cache.get("/a")
    cache.advance(60)
    cache.upstream.pages[URL] = page(b"two", cache_control="no-store")
    assert got(cache) == (How.MISS, b"two")
    cache.upstream.down = True
    with pytest.raises(UpstreamError):
        cache.get("/a")


@pytest.mark.parametrize("trouble", ["down", "500", "502", "503", "504", "slow"])
@pytest.mark.parametrize(
    ("said", "stale"),
    [
        *(("max-age=60", True), ("max-age=60, stale-if-error=30", True), ("max-age=60, stale-if-error=5", False)),
        *((f"max-age=60, {one}", False) for one in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=60")),
    ],
)
def test_stale_in_trouble(trouble: str, said: str, stale: bool) -> None:
    """RFC 9111 section 4.2.4 and RFC 5861 section 4: the stale copy answers, unless it may not: an error then."""
    cache = kit(page(cache_control=said))
    cache.get("/a")
    cache.advance(70)
    cache.upstream.down, cache.upstream.hangs = trouble == "down", trouble == "slow"
    cache.upstream.pages[URL] = page(b"no", int(trouble) if trouble.isdigit() else 200)
    found: list[Any] = []
    cache.ask("/a").addBoth(found.append)
    cache.advance(15)
    if stale:
        assert (found[0].how, body_of(found[0])) == (How.STALE, b"one")
        assert "stale-if-error" in cache_status(found[0])
    elif trouble.isdigit():
        assert found[0].status == int(trouble)
    else:
        assert isinstance(found[0], Failure)
        assert getattr(found[0].value, "status", 0) in (502, 504)


def test_stale_if_error_can_be_off() -> None:
    """RFC 9111 section 4.2.4: the operator may want an error rather than something stale."""
    cache = kit(stale_if_error=0.0)
    cache.get("/a")
    cache.advance(60)
    cache.upstream.down = True
    with pytest.raises(UpstreamError):
        cache.get("/a")


def test_stale_while_revalidate() -> None:
    """RFC 5861 section 3: the stale copy answers at once; the next request gets what was asked for beside."""
    cache = kit(page(cache_control="max-age=60, stale-while-revalidate=60"))
    cache.get("/a")
    cache.advance(61)
    cache.upstream.pages[URL] = page(b"two", cache_control="max-age=60")
    assert got(cache) == (How.STALE, b"one")
    assert len(cache.upstream.asked) == 2
    assert got(cache) == (How.HIT, b"two")


def test_one_asks_beside() -> None:
    """RFC 5861 section 3: however many are answered meanwhile."""
    cache = kit(page(cache_control="max-age=60, stale-while-revalidate=60"))
    cache.get("/a")
    cache.advance(61)
    cache.upstream.hangs = True
    for _ in range(5):
        assert got(cache) == (How.STALE, b"one")
    assert len(cache.upstream.asked) == 2


def asked_at_once(cache: Kit, number: int, **fields: str) -> list[Any]:
    """What becomes of some requests that come while the upstream has not answered yet."""
    found: list[Any] = []
    cache.upstream.hangs = True
    for _ in range(number):
        cache.ask("/a", **fields).addBoth(found.append)
    cache.upstream.hangs = False
    cache.upstream.release()
    return found


def test_one_request_for_all_who_wait() -> None:
    """RFC 9111 section 4: what may be used again is asked for once, whoever waits for it."""
    cache = kit()
    found = asked_at_once(cache, 5)
    assert [body_of(reply) for reply in found] == [b"one"] * 5
    assert len(cache.upstream.asked) == 1
    assert sum("collapsed" in cache_status(reply) or "hit" in cache_status(reply) for reply in found) == 4


def test_one_validation_for_all_who_wait() -> None:
    """RFC 9111 section 4.3: one question, and its answer for all."""
    cache = kit(page(cache_control="max-age=60", etag='"a"'))
    cache.get("/a")
    cache.advance(60)
    cache.upstream.pages[URL] = page(b"", 304, etag='"a"')
    found = asked_at_once(cache, 5)
    assert [body_of(reply) for reply in found] == [b"one"] * 5
    assert len(cache.upstream.asked) == 2


@pytest.mark.parametrize("said", ["no-store", "private", "no-cache", "max-age=0"])
def test_what_may_not_be_used_again_is_not_shared(said: str) -> None:
    """RFC 9111 sections 4 and 5.2.2: also not among those who wait at the same time."""
    cache = kit(page(cache_control=said))
    found = asked_at_once(cache, 3)
    assert [body_of(reply) for reply in found] == [b"one"] * 3
    assert len(cache.upstream.asked) == 3


def test_who_waits_for_another_variant() -> None:
    """RFC 9111 section 4.1: what was waited for may turn out to be for others."""
    cache = kit(page(cache_control="max-age=60", vary="foo"))
    found: list[Any] = []
    cache.upstream.hangs = True
    for value in ("1", "2", "1"):
        cache.ask("/a", foo=value).addBoth(found.append)
    cache.upstream.hangs = False
    cache.upstream.release()
    assert len(found) == 3
    assert [fields.get("foo") for _, _, fields in cache.upstream.asked] == ["1", "2"]


def test_trouble_is_shared() -> None:
    """RFC 9111 section 4: who waited for a request that failed does not ask once more each."""
    cache = kit()
    cache.upstream.hangs = True
    found: list[Any] = []
    for _ in range(3):
        cache.ask("/a").addBoth(found.append)
    cache.advance(15)
    assert [failure.value.status for failure in found] == [504] * 3
    assert len(cache.upstream.asked) == 1


def test_variants_lie_side_by_side() -> None:
    """RFC 9111 section 4.1: as many as there is room for, the oldest making room."""
    cache = kit()
    for number in range(10):
        cache.upstream.pages[URL] = page(str(number).encode(), cache_control="max-age=600", vary="foo")
        assert got(cache, foo=str(number)) == (How.MISS, str(number).encode())
        cache.advance(1)
    for number in range(9, 1, -1):
        assert got(cache, foo=str(number)) == (How.HIT, str(number).encode())
    assert len(cache.store.entries) == 8
    assert got(cache, foo="0")[0] is How.MISS
    assert got(cache)[0] is How.MISS


def test_vary_by_what_never_goes_upstream() -> None:
    """RFC 9111 section 4.1: a field that is not sent on cannot have selected anything."""
    cache = kit(page(cache_control="max-age=60", vary="cookie"))
    assert got(cache, cookie="a=b")[0] is How.MISS
    assert got(cache, cookie="a=c")[0] is How.HIT
    assert "cookie" not in cache.upstream.asked[0][2]


def test_validation_carries_what_selects() -> None:
    """RFC 9111 section 4.3.1: the fields that Vary names go along; a client's own conditions do not."""
    cache = kit(page(cache_control="max-age=60", vary="foo", etag='"a"'))
    cache.get("/a", foo="1")
    cache.advance(60)
    cache.get("/a", foo="1", If_None_Match='"b"', If_Modified_Since=format_date(1))
    asked = cache.upstream.asked[-1][2]
    assert (asked.get("foo"), asked.get("if-none-match")) == ("1", '"a"')
    assert "if-modified-since" not in asked


def test_conditions_of_clients() -> None:
    """RFC 9111 section 4.3.2: If-None-Match before If-Modified-Since, weak tags, lists and ``*``."""
    cache = kit(page(cache_control="max-age=60", etag='W/"a"', last_modified=format_date(1000), x="1"))
    cache.get("/a")
    for tags, status in (('"a"', 304), ('W/"a"', 304), ('"b", W/"a"', 304), ("*", 304), ('"b"', 200), ("a", 200)):
        reply, body = cache.get("/a", If_None_Match=tags, If_Modified_Since=format_date(2000))
        assert (reply.status, body) == (status, b"" if status == 304 else b"one"), tags
    for since, status in ((1000, 304), (2000, 304), (999, 200)):
        assert cache.get("/a", If_Modified_Since=format_date(since))[0].status == status
    reply, _ = cache.get("/a", If_None_Match="*")
    assert (reply.headers.get("etag"), "x" in reply.headers) == ('W/"a"', False)
    assert len(cache.upstream.asked) == 1


def test_conditions_without_a_date_of_change() -> None:
    """RFC 9111 section 4.3.2: Date takes its place."""
    cache = kit(page(cache_control="max-age=60", date=format_date(1_700_000_000)))
    cache.get("/a")
    for since, status in ((1_700_000_000, 304), (1_699_999_999, 200)):
        assert cache.get("/a", If_Modified_Since=format_date(since))[0].status == status


def test_conditions_where_nothing_is_stored() -> None:
    """RFC 9111 section 4.3.2: they are the origin's to judge, and its 304 is passed on and not stored."""
    cache = kit(page(b"", 304, etag='"a"', cache_control="max-age=60"))
    reply, body = cache.get("/a", If_None_Match='"a"')
    assert (reply.status, body, cache.store.entries) == (304, b"", {})
    assert cache.upstream.asked[0][2].get("if-none-match") == '"a"'


def test_conditions_are_of_success() -> None:
    """RFC 9110 section 13.2.1: what is stored as an error is not made a 304 of."""
    cache = kit(page(b"none", 404, cache_control="max-age=60", etag='"a"'))
    cache.get("/a")
    reply, body = cache.get("/a", If_None_Match="*", Range="bytes=0-1")
    assert (reply.status, reply.how, body) == (404, How.HIT, b"none")


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-1", 206, b"01"),
        ("bytes=3-", 206, b"345"),
        ("bytes=-2", 206, b"45"),
        ("bytes=-9", 206, b"012345"),
        ("bytes=4-99", 206, b"45"),
        ("bytes=9-", 416, b""),
        ("bytes=2-1", 200, b"012345"),
        ("bytes=0-1,3-4", 200, b"012345"),
        ("lines=0-1", 200, b"012345"),
    ],
)
def test_ranges_of_a_stored_whole(wanted: str, status: int, body: bytes) -> None:
    """RFC 9110 section 14.2: from what is stored, without asking; what cannot be read is passed over."""
    cache = kit(page(b"012345", cache_control="max-age=60", etag='"a"', last_modified=format_date(1)))
    cache.get("/a")
    reply, found = cache.get("/a", Range=wanted)
    assert (reply.status, found) == (status, body)
    assert (
        reply.headers.get("content-range")
        == {
            206: f"bytes {b'012345'.find(body)}-{b'012345'.find(body) + len(body) - 1}/6",
            416: "bytes */6",
            200: "",
        }[status]
    )
    if status == 206:
        for condition, part in (('"a"', True), ('"b"', False), ('W/"a"', False), (format_date(1), True)):
            assert (cache.get("/a", Range=wanted, If_Range=condition)[0].status == 206) is part
    assert len(cache.upstream.asked) == 1


def test_parts() -> None:
    """RFC 9111 section 3.3: a part answers for what is within it, and never for the whole."""
    cache = kit(page(b"34567", 206, cache_control="max-age=60", content_range="bytes 3-7/10"))
    reply, body = cache.get("/a", Range="bytes=3-7")
    assert (reply.status, body) == (206, b"34567")
    assert cache.upstream.asked[0][2].get("range") == "bytes=3-7"
    for wanted, found in (("bytes=4-5", b"45"), ("bytes=3-7", b"34567"), ("bytes=7-7", b"7")):
        reply, body = cache.get("/a", Range=wanted)
        assert (reply.status, reply.how, body) == (206, How.HIT, found)
        assert reply.headers.get("content-range").endswith("/10")
    cache.upstream.pages[URL] = page(b"0123456789", cache_control="max-age=60")
    for fields in ({}, {"Range": "bytes=0-3"}):
        assert cache.get("/a", **fields)[0].status in (200, 206)
    assert len(cache.upstream.asked) == 2, "the whole was asked for, and holds all parts"


def test_a_part_that_is_none() -> None:
    """RFC 9110 section 14.4: one that is not as long as it says is passed on, and not kept."""
    cache = kit(page(b"34567", 206, cache_control="max-age=60", content_range="bytes 3-8/10"))
    cache.get("/a", Range="bytes=3-8")
    assert cache.store.entries == {}


def test_head() -> None:
    """RFC 9111 section 4: a stored GET answers HEAD; RFC 9110 section 9.3.2: else it is passed on, and fetches none."""
    cache = kit()
    reply, _ = cache.get("/a", "HEAD")
    assert (reply.length, [method for method, _, _ in cache.upstream.asked]) == (3, ["HEAD"])
    cache.get("/a")
    assert got(cache, method="HEAD")[0] is How.HIT
    assert len(cache.upstream.asked) == 2


@pytest.mark.parametrize("trouble", ["down", "503"])
def test_head_in_trouble(trouble: str) -> None:
    """RFC 9111 section 4.2.4: the stale copy's head, unless it may not be used."""
    cache = kit()
    cache.get("/a")
    cache.advance(60)
    cache.upstream.down = trouble == "down"
    cache.upstream.pages[URL] = page(b"", 503)
    assert got(cache, method="HEAD")[0] is How.STALE


def test_a_crowd_costs_nothing_that_is_stored() -> None:
    """RFC 9111 section 4.2.4: who cannot ask for its turn is as good as disconnected."""
    cache = kit()
    cache.get("/a")
    cache.advance(60)
    cache.cache.context.limits = Limits(transfers=0)
    assert got(cache)[0] is How.STALE


def test_head_freshens() -> None:
    """RFC 9111 section 4.3.5: what HEAD says of the stored bytes is theirs; of others, they are not used any more."""
    cache = kit(page(cache_control="max-age=60", etag='"a"', x="1"))
    cache.get("/a")
    cache.advance(60)
    cache.upstream.heads[URL] = page(cache_control="max-age=90", etag='"a"', x="2")
    cache.get("/a", "HEAD")
    reply, _ = cache.get("/a")
    assert (reply.how, reply.headers.get("x")) == (How.HIT, "2")
    cache.advance(90)
    cache.upstream.heads[URL] = page(etag='"b"')
    cache.get("/a", "HEAD")
    assert cache.store.entries == {}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "M-SEARCH"])
def test_unsafe_methods(method: str) -> None:
    """RFC 9111 sections 4 and 4.4: written through; a success makes what is stored go, an error does not."""
    cache = kit(methods=(method,))
    cache.get("/a")
    head = RequestHead(method=method, path="/a", base=BASE, body=b"abc")
    cache.upstream.pages[URL] = page(b"no", 500)
    assert cache.get_head(head)[0].status == 500
    assert got(cache) == (How.HIT, b"one")
    cache.upstream.pages[URL] = page(b"done", 201)
    reply, body = cache.get_head(head)
    assert (reply.status, body, cache.upstream.bodies[-1]) == (201, b"done", b"abc")
    assert "fwd=method" in cache_status(reply)
    cache.upstream.pages[URL] = page(b"two", cache_control="max-age=60")
    assert got(cache) == (How.MISS, b"two")


def test_methods_that_are_not_named() -> None:
    """RFC 9110 section 15.5.6: nothing but GET and HEAD is passed on unless the operator names it."""
    cache = kit(methods=("PUT",))
    for method in ("POST", "DELETE", "OPTIONS"):
        with pytest.raises(MethodNotAllowed):
            cache.get("/a", method)
    assert cache.upstream.asked == []


def test_invalidation_of_what_is_named() -> None:
    """RFC 9111 section 4.4: Location and Content-Location below the same upstream."""
    cache = kit(methods=("POST",))
    for name in ("b", "c", "d"):
        cache.upstream.pages[f"{UPSTREAM}{name}"] = page(cache_control="max-age=60")
        cache.get(f"/{name}")
    cache.upstream.pages[URL] = page(b"", 201, location="b", content_location=f"{UPSTREAM}c")
    cache.get("/a", "POST")
    assert [got(cache, f"/{name}")[0] for name in ("b", "c", "d")] == [How.MISS, How.MISS, How.HIT]


def test_what_changes_under_way() -> None:
    """RFC 9111 section 4.4: what was asked for before a change is not stored after it."""
    cache = kit(methods=("PUT",))
    found: list[Any] = []
    cache.upstream.hangs = True
    cache.ask("/a").addBoth(found.append)
    (waiting,) = cache.upstream._waiting
    cache.upstream._waiting.clear()
    cache.upstream.hangs = False
    cache.get("/a", "PUT")
    cache.upstream._waiting.append(waiting)
    cache.upstream.release()
    assert body_of(found[0]) == b"one"
    assert cache.store.entries == {}


def test_what_changes_while_it_is_stored() -> None:
    """RFC 9111 section 4.4: what the disk was not done with when a change came is not found after it."""
    cache = kit(methods=("PUT",))
    cache.store.holds = True
    cache.get("/a")
    cache.get("/a", "PUT")
    cache.store.release()
    assert cache.store.entries == {}
    assert got(cache)[0] is How.MISS


def test_what_post_brings() -> None:
    """RFC 9110 section 9.3.3: an answer to POST that is what GET would bring is kept as that."""
    cache = kit(page(b"new", cache_control="max-age=60", content_location="/a"), methods=("POST",))
    cache.get("/a", "POST")
    assert got(cache) == (How.HIT, b"new")


@pytest.mark.parametrize(
    ("forwards", "said", "shared"), [(True, "max-age=60", False), (True, "public, max-age=60", True)]
)
def test_authorization(forwards: bool, said: str, shared: bool) -> None:
    """RFC 9111 section 3.5: it goes on if the operator says so; what came for it is others' if the origin says so."""
    cache = kit(page(cache_control=said), forward_authorization=forwards)
    cache.get("/a", Authorization="x")
    assert cache.upstream.asked[0][2].get("authorization") == "x"
    assert (got(cache)[0] is How.HIT) is shared


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("said", "who", "kept"), [("private, max-age=60", {}, 0), ("max-age=60", {"Authorization": "x"}, 1)]
)
def test_what_freshens_for_one_alone(method: str, said: str, who: dict[str, str], kept: int) -> None:
    """RFC 9111 sections 3.5 and 5.2.2.7: what may not be stored is no part of what others are sent, fields included."""
    cache = kit(page(cache_control="max-age=60", etag='"a"', x="1"), forward_authorization=True)
    cache.get("/a")
    cache.advance(60)
    cache.upstream.heads[URL] = page(cache_control=said, etag='"a"', x="mine")
    cache.upstream.pages[URL] = page(b"", 304, cache_control=said, etag='"a"', x="mine")
    assert cache.get("/a", method, **who)[0].headers.get("x") == "mine"
    assert len(cache.store.entries) == kept
    assert all(entry.headers.get("x") == "1" for entry in cache.store.entries.values())


def test_a_get_takes_no_body_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110 section 9.3.1: an upstream that expects none would take it for another request."""
    cache = kit(client_directives=True)
    request = RequestHead(
        method="GET", path="/a", headers=Headers.of({"cache-control": "no-store"}), base=BASE, body=b"GET /b HTTP/1.1"
    )
    taken: list[Any] = []
    ask = cache.cache.context.upstream.ask

    def noting(asked: Any, *args: Any, **more: Any) -> Any:
        taken.append(asked.body)
        return ask(asked, *args, **more)

    monkeypatch.setattr(cache.cache.context.upstream, "ask", noting)
    Deferred.fromCoroutine(cache.cache.answer(cache.registry, request))
    assert taken == [b""]


def test_authorization_stays_here() -> None:
    """RFC 9110 section 11.6.2: unless it is to go on, it is for this cache, and changes nothing behind it."""
    cache = kit()
    cache.get("/a", Authorization="x")
    assert "authorization" not in cache.upstream.asked[0][2]
    assert got(cache)[0] is How.HIT


def test_demands_count_where_they_may() -> None:
    """RFC 9111 section 5.2.1: they are advice, which is taken where the operator says so."""
    for heeded in (False, True):
        cache = kit(client_directives=heeded)
        cache.get("/a")
        assert (got(cache, Cache_Control="no-cache")[0] is How.MISS) is heeded
        assert (got(cache, Pragma="no-cache")[0] is How.MISS) is heeded
        before = len(cache.store.entries)
        cache.get("/a", Cache_Control="no-store")
        assert len(cache.store.entries) == before
    with pytest.raises(Offline):
        cache.get("/b", Cache_Control="only-if-cached")
    assert got(cache, Cache_Control="only-if-cached")[0] is How.HIT


def test_offline() -> None:
    """RFC 9111 section 4.2.4: without anybody to ask, what may answer does, and nothing else."""
    cache = kit()
    cache.get("/a")
    cache.upstream.pages[f"{UPSTREAM}b"] = page(cache_control="max-age=60, must-revalidate")
    cache.get("/b")
    cache.advance(70)
    cache.cache.context.rules = evolve(cache.cache.context.rules, offline=True)
    assert got(cache) == (How.STALE, b"one")
    for path in ("/b", "/c"):
        with pytest.raises(Offline):
            cache.get(path)


def test_redirects_are_answers() -> None:
    """RFC 9110 section 15.4: passed on and kept as long as they say, and they lead back through the cache."""
    cache = kit(page(b"", 301, location=f"{UPSTREAM}b?c", cache_control="max-age=60"))
    for how in (How.MISS, How.HIT):
        reply, _ = cache.get("/a")
        assert (reply.status, reply.how, reply.headers.get("location")) == (301, how, f"{BASE}b?c")
    cache.advance(60)
    for location, back in (("/b", "/fake/b"), ("b", "b"), ("//other.example/", "//other.example/")):
        cache.upstream.pages[URL] = page(b"", 302, location=location)
        assert cache.get("/a")[0].headers.get("location") == back
    cache.upstream.pages[URL] = page(b"", 302, location="http://other.example/x")
    assert cache.get("/a")[0].headers.get("location") == "http://other.example/x"


def test_damaged_bodies_are_fetched_again() -> None:
    """RFC 9111 section 4: what cannot be read is not there."""
    cache = kit()
    cache.get("/a")
    cache.store.blobs.clear()
    assert got(cache) == (How.MISS, b"one")


def test_what_cannot_be_stored_is_passed_on() -> None:
    """RFC 9111 section 3: storing is an option, answering is not."""
    cache = kit()
    cache.store.refuses = True
    for _ in range(2):
        assert got(cache) == (How.MISS, b"one")


def test_what_is_being_stored_is_used() -> None:
    """RFC 9111 section 4: what has come whole answers before the disk is done, and is validated after."""
    cache = kit(page(cache_control="max-age=60", etag='"a"'))
    cache.store.holds = True
    cache.get("/a")
    reply, body = cache.get("/a")
    assert (reply.how, body) == (How.HIT, b"one")
    assert "collapsed" in cache_status(reply)
    cache.advance(60)
    found: list[Any] = []
    cache.ask("/a").addBoth(found.append)
    assert found == []
    cache.upstream.pages[URL] = page(b"", 304, etag='"a"')
    cache.store.release()
    assert found[0].how is How.REVALIDATED


def test_cut_bodies_are_not_stored() -> None:
    """RFC 9111 section 3.3: an incomplete response is no response."""
    cache = kit(Page(body=b"one two three", headers=LASTING, cut=5))
    found: list[Any] = []
    cache.ask("/a").addBoth(found.append)
    with pytest.raises(RegCacheError):
        body_of(found[0])
    assert cache.store.entries == {}


def test_the_operator_limits_what_is_guessed() -> None:
    """RFC 9111 section 4.2.2: nothing that says nothing is fresh for longer than ``ttl``."""
    cache = kit(page(last_modified=format_date(0)), ttl=100.0)
    cache.get("/a")
    cache.advance(99)
    assert got(cache)[0] is How.HIT
    cache.advance(1)
    assert got(cache)[0] is How.MISS


def status_of(cache: Kit, **fields: str) -> str:
    """The Cache-Status of an answer."""
    return cache_status(cache.get("/a", **fields)[0])


def test_cache_status() -> None:
    """RFC 9211 section 2: whether it was a hit, for how long yet, why it was forwarded, and what became of it."""
    cache = kit(page(cache_control="max-age=60", etag='"a"'))
    assert status_of(cache) == "regcache; fwd=uri-miss; fwd-status=200; stored"
    cache.advance(10)
    assert status_of(cache) == "regcache; hit; ttl=50"
    cache.advance(60)
    cache.upstream.pages[URL] = page(b"", 304)
    assert status_of(cache) == "regcache; hit; fwd=stale; fwd-status=304"
    cache.advance(60)
    cache.upstream.pages[URL] = page(b"", 503)
    assert status_of(cache) == "regcache; hit; fwd=stale; fwd-status=503; detail=stale-if-error"


def test_interim_answers_are_no_answers() -> None:
    """RFC 9110 section 15.2: they go to who waits, and nothing of them is kept; see also through sockets."""
    heard: list[tuple[int, Headers]] = []
    cache = kit()
    head = RequestHead(method="GET", path="/a", base=BASE)
    waiting: Deferred[Reply] = Deferred.fromCoroutine(
        cache.cache.answer(cache.registry, head, lambda status, fields: heard.append((status, fields)))
    )
    found: list[Reply] = []
    waiting.addCallback(found.append)
    assert (found[0].status, heard) == (200, [])
