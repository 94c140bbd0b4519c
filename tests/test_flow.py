"""The cache's decisions from end to end, in memory, with a clock that the test moves."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regcache.errors import (
    CutShort,
    DigestMismatch,
    NotFound,
    Offline,
    RegCacheError,
    TooBusy,
    UpstreamError,
    UpstreamTimeout,
    Withdrawn,
)
from regcache.flow.documents import Documents
from regcache.flow.reply import How, Reply, cache_status
from regcache.flow.representations import Representations
from regcache.http.policy import Rules
from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import Kit, Page, body_of, make_cache

INDEX = "http://registry.test/index"
FILE = "http://registry.test/files/a.bin"
BODY = bytes(range(256)) * 100
DAY = 86400


def publish(kit: Kit, body: bytes = BODY, **more: bytes) -> None:
    """An index that names one file, and the file."""
    names = {"a.bin": body, **more}
    index = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in names.items()})
    kit.upstream.pages[INDEX] = Page(
        body=index.encode(), headers={"etag": f'"{len(index)}-{zlib.crc32(index.encode())}"'}
    )
    kit.upstream.pages[FILE] = Page(body=body)


def failure_of(waiting: Deferred[Reply]) -> RegCacheError:
    """The error that an answer came to."""
    failure = settled(waiting)
    assert isinstance(failure, Failure)
    assert isinstance(failure.value, RegCacheError)
    return failure.value


def settled(waiting: Deferred[Reply]) -> object:
    """What an answer came to, which it must have by now."""
    results: list[object] = []
    waiting.addBoth(results.append)
    return results[0]


def reply_of(waiting: Deferred[Reply]) -> Reply:
    """The reply that an answer came to; raises what it failed with."""
    reply = settled(waiting)
    if isinstance(reply, Failure):
        reply.raiseException()
    assert isinstance(reply, Reply)
    return reply


@pytest.fixture
def kit() -> Kit:
    """A cache before a registry with something in it."""
    made = make_cache()
    publish(made)
    return made


def test_a_miss_is_stored_and_the_next_is_a_hit(kit: Kit) -> None:
    """The upstream is asked once; the same bytes come, and now with validators that last."""
    reply, body = kit.get("/files/a.bin")
    assert (reply.how, body) == (How.MISS, BODY)
    assert "immutable" not in reply.headers.get("cache-control")
    assert "last-modified" not in reply.headers
    again, body = kit.get("/files/a.bin")
    assert (again.how, body) == (How.HIT, BODY)
    assert "immutable" in again.headers.get("cache-control")
    assert reply.headers.get("etag") != again.headers.get("etag")
    assert kit.upstream.urls().count(FILE) == 1


def test_all_who_ask_meanwhile_join_one_request(kit: Kit) -> None:
    """One upstream request a key, whatever number asks, and it says so to those who joined."""
    kit.upstream.hangs = True
    waiting = [kit.ask("/files/a.bin") for _ in range(10)]
    kit.upstream.release()
    kit.upstream.release()
    replies = [reply_of(deferred) for deferred in waiting]
    assert [body_of(reply) for reply in replies] == [BODY] * 10
    assert kit.upstream.urls().count(FILE) == 1
    assert kit.upstream.urls().count(INDEX) == 1
    assert ["collapsed" in cache_status(reply) for reply in replies] == [False] + [True] * 9


def test_a_body_that_its_index_contradicts_is_refused(kit: Kit) -> None:
    """A mismatch is an error for the client, nothing is stored, and the next request tries again."""
    kit.upstream.pages[FILE] = Page(body=BODY[::-1])
    with pytest.raises(DigestMismatch):
        kit.get("/files/a.bin")
    assert "fake/files/a.bin" not in kit.store.entries
    publish(kit)
    assert kit.get("/files/a.bin")[1] == BODY


def test_a_cut_body_is_refused(kit: Kit) -> None:
    """Fewer bytes than announced are no artifact, however the connection ended."""
    kit.upstream.pages[FILE] = Page(body=BODY, cut=100)
    with pytest.raises(CutShort):
        kit.get("/files/a.bin")
    assert "fake/files/a.bin" not in kit.store.entries


def test_an_artifact_is_for_ever(kit: Kit) -> None:
    """Stored once, it is served for years without asking, the upstream up or down."""
    kit.get("/files/a.bin")
    kit.upstream.down = True
    kit.advance(1000 * DAY)
    assert kit.get("/files/a.bin")[1] == BODY


def test_an_index_is_fresh_then_revalidated_then_stale(kit: Kit) -> None:
    """Ten minutes without a question; then a conditional one; and in an outage the stored copy, marked."""
    assert kit.get("/index")[0].how is How.MISS
    kit.advance(599)
    assert kit.get("/index")[0].how is How.HIT
    kit.advance(2)
    kit.upstream.pages[INDEX] = Page(status=304)
    assert kit.get("/index")[0].how is How.REVALIDATED
    assert "if-none-match" in kit.upstream.asked[-1][2]
    kit.advance(601)
    kit.upstream.down = True
    assert kit.get("/index")[0].how is How.HIT
    kit.advance(DAY)
    reply, body = kit.get("/index")
    assert reply.how is How.STALE
    assert b"a.bin" in body


def test_a_slow_upstream_costs_a_fresh_index_a_moment(kit: Kit) -> None:
    """Within the ttl a client waits 0.3 s for the revalidation, and the answer that comes later is kept."""
    kit.get("/index")
    kit.advance(700)
    publish(kit, more=b"more")
    kit.upstream.hangs = True
    waiting = kit.ask("/index")
    kit.advance(0.29)
    assert not waiting.called
    kit.advance(0.02)
    assert reply_of(waiting).how is How.HIT
    kit.upstream.release()
    assert b"more" in kit.get("/index")[1]


def test_a_hanging_upstream_costs_a_stale_index_the_timeout_once(kit: Kit) -> None:
    """After the ttl the first client waits for the upstream timeout; those behind it not at all."""
    kit.get("/index")
    kit.advance(DAY + 1)
    kit.upstream.hangs = True
    waiting = kit.ask("/index")
    kit.advance(4.9)
    assert not waiting.called
    kit.advance(0.2)
    assert reply_of(waiting).how is How.STALE
    for _ in range(30):
        assert kit.get("/index")[0].how is How.STALE
        kit.advance(1)


def test_an_upstream_that_recovers_is_noticed(kit: Kit) -> None:
    """While it is in trouble one request in ten seconds asks beside being answered, and one success ends it."""
    kit.get("/index")
    kit.advance(DAY + 1)
    kit.upstream.down = True
    assert kit.get("/index")[0].how is How.STALE
    kit.upstream.down = False
    publish(kit, more=b"more")
    kit.advance(11)
    kit.get("/index")
    assert b"more" in kit.get("/index")[1]


def test_nothing_stored_and_a_hanging_upstream(kit: Kit) -> None:
    """Pip gives up at 15 s: the answer that there is none comes before."""
    kit.upstream.hangs = True
    waiting = kit.ask("/index")
    kit.advance(13.9)
    assert not waiting.called
    kit.advance(0.2)
    assert isinstance(failure_of(waiting), UpstreamTimeout)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 401, 403, 407, 418])
def test_an_error_of_the_upstream_is_not_an_answer(kit: Kit, status: int) -> None:
    """With a stored copy it is served; without one it is a 5xx, never a 404."""
    kit.upstream.pages[INDEX] = Page(status=status)
    with pytest.raises(UpstreamError) as caught:
        kit.get("/index")
    assert caught.value.status in (502, 503, 504)
    publish(kit)
    kit.advance(60)
    kit.get("/index")
    kit.advance(DAY + 1)
    kit.upstream.pages[INDEX] = Page(status=status)
    assert kit.get("/index")[0].how is How.STALE


def test_a_page_that_is_no_index_is_an_error(kit: Kit) -> None:
    """A login page with status 200 is neither stored nor served."""
    kit.upstream.pages[INDEX] = Page(body=b"<html>Log in</html>")
    with pytest.raises(UpstreamError):
        kit.get("/index")
    assert not kit.store.entries


@pytest.mark.parametrize("status", [404, 410, 451])
def test_withdrawn_and_restored(kit: Kit, status: int) -> None:
    """What the upstream takes down is hidden at the next look, kept, and comes back when the upstream says so."""
    kit.get("/index")
    kit.upstream.pages[INDEX] = Page(status=status)
    kit.advance(601)
    with pytest.raises(NotFound):
        kit.get("/index")
    with pytest.raises(Withdrawn):
        kit.get("/index")
    assert "fake/index" in kit.store.entries
    kit.upstream.down = True
    kit.advance(61)
    with pytest.raises(Withdrawn):
        kit.get("/index")
    kit.upstream.down = False
    publish(kit)
    kit.advance(61)
    assert b"a.bin" in kit.get("/index")[1]


def test_there_is_none_is_remembered_for_a_while(kit: Kit) -> None:
    """A 404 of the upstream holds for the negative ttl, then it is asked again."""
    del kit.upstream.pages[INDEX]
    for _ in range(3):
        with pytest.raises(NotFound):
            kit.get("/index")
    assert kit.upstream.urls().count(INDEX) == 1
    publish(kit)
    kit.advance(61)
    assert kit.get("/index")[0].how is How.MISS


def test_offline_never_asks() -> None:
    """Stored or refused: not a single request leaves."""
    kit = make_cache(rules=Rules(offline=True))
    publish(kit)
    with pytest.raises(Offline):
        kit.get("/index")
    with pytest.raises(Offline):
        kit.get("/files/a.bin")
    assert kit.upstream.asked == []


def test_a_file_that_the_index_does_not_name_yet(kit: Kit) -> None:
    """The stored index is revalidated once, and what it says now is the proof."""
    kit.upstream.pages[INDEX] = Page(body=b"{}")
    kit.get("/index")
    publish(kit)
    assert kit.get("/files/a.bin")[1] == BODY
    assert kit.upstream.urls().count(INDEX) == 2
    assert kit.store.entries["fake/files/a.bin"].verified


def test_a_new_index_that_contradicts_a_stored_artifact(kit: Kit) -> None:
    """The registry now vouches for other bytes: the old ones go, and the new are fetched."""
    kit.get("/files/a.bin")
    publish(kit, BODY[::-1])
    kit.advance(601)
    kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY[::-1]


def test_an_index_that_comes_while_a_body_does(kit: Kit) -> None:
    """What it says by the end of the body counts, not what was known at its beginning."""
    kit.get("/index")
    kit.advance(601)
    kit.upstream.hangs = True
    waiting = kit.ask("/files/a.bin")
    file = kit.upstream.pages[FILE]
    publish(kit, BODY[::-1])
    index = kit.ask("/index")
    kit.upstream.release(INDEX)
    assert reply_of(index).how is How.MISS
    kit.upstream.pages[FILE] = file
    kit.upstream.hangs = False
    kit.upstream.release(FILE)
    with pytest.raises(DigestMismatch):
        body_of(reply_of(waiting))
    assert "fake/files/a.bin" not in kit.store.entries


def test_an_index_that_comes_while_the_disk_is_slow(kit: Kit) -> None:
    """A body that nothing had vouched for is shared until it is stored; what contradicts it by then ends that."""
    publish(kit, BODY[::-1])
    good = kit.upstream.pages[INDEX]
    publish(kit)
    kit.upstream.pages[INDEX] = Page(status=503)
    kit.store.holds = True
    assert kit.get("/files/a.bin")[0].how is How.MISS
    assert kit.get("/files/a.bin")[1] == BODY
    assert kit.upstream.urls().count(FILE) == 1
    kit.upstream.pages[INDEX] = good
    kit.advance(601)
    kit.get("/index")
    with pytest.raises(DigestMismatch):
        kit.get("/files/a.bin")
    kit.store.release()
    assert "fake/files/a.bin" not in kit.store.entries
    publish(kit, BODY[::-1])
    assert kit.get("/files/a.bin")[1] == BODY[::-1]


def disproved(kit: Kit, body: bytes) -> None:
    """A body that nothing had vouched for waits for the disk, and an index has come that names another."""
    publish(kit, body)
    pages = kit.upstream.pages
    index, file = pages[INDEX], pages[FILE]
    publish(kit)
    pages[INDEX] = Page(status=503)
    kit.store.holds = True
    assert kit.get("/files/a.bin")[1] == BODY
    pages[INDEX], pages[FILE] = index, file
    kit.advance(601)
    kit.get("/index")


def test_an_index_that_comes_after_the_one_that_vouched(kit: Kit) -> None:
    """Also what an index has vouched for is shared with nobody once the next says otherwise, before it is stored."""
    kit.get("/index")
    kit.store.holds = True
    assert [kit.get("/files/a.bin")[1] for _ in range(2)] == [BODY] * 2
    kit.advance(601)
    kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY
    assert kit.upstream.urls().count(FILE) == 1
    publish(kit, BODY[::-1])
    kit.advance(601)
    kit.get("/index")
    assert [kit.get("/files/a.bin")[1] for _ in range(2)] == [BODY[::-1]] * 2
    assert kit.upstream.urls().count(FILE) == 2


def test_what_was_disproved_takes_nothing_with_it(kit: Kit) -> None:
    """It goes as soon as it is stored, however many are stored at once; the good one that came meanwhile stays."""
    disproved(kit, BODY[::-1])
    assert kit.get("/files/a.bin")[1] == BODY[::-1]
    held, kit.store._held, kit.store.holds = kit.store._held, [], False
    for entry, body, _ in held:
        kit.store.put(entry, body)
    for _, _, waiter in held:
        waiter.callback(None)
    assert kit.store.entries["fake/files/a.bin"].verified
    assert kit.get("/files/a.bin")[0].how is How.HIT
    assert kit.get("/files/a.bin")[1] == BODY[::-1]
    assert kit.cache._artifacts._filling._disproved == {}


def test_a_third_body_is_stored_behind_the_first(kit: Kit) -> None:
    """Also where the second, that came between, was cut."""
    disproved(kit, BODY[::-1])
    good = kit.upstream.pages[FILE]
    kit.upstream.pages[FILE] = Page(body=BODY[::-1], cut=1)
    with pytest.raises(UpstreamError):
        kit.get("/files/a.bin")
    kit.upstream.pages[FILE] = good
    assert kit.get("/files/a.bin")[1] == BODY[::-1]
    assert [entry.verified for entry, _, _ in kit.store._held if entry.key == "fake/files/a.bin"] == [False]
    kit.store.release()
    assert kit.store.entries["fake/files/a.bin"].verified


def test_the_head_of_a_body_that_is_disproved(kit: Kit) -> None:
    """Its length is not told either."""
    disproved(kit, BODY[:-5])
    assert kit.get("/files/a.bin", "HEAD")[0].length == len(BODY) - 5


def test_a_disproved_body_beside_a_stored_one(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it joined by whoever has the stored copy revalidated, as long as that is not compared with the index."""
    pages = kit.upstream.pages
    pages[INDEX], pages[FILE] = Page(status=503), Page(body=b"at first")
    kit.get("/files/a.bin")
    kit.advance(61)
    monkeypatch.setattr(kit.store, "children", lambda _parent: Deferred())
    disproved(kit, BODY[::-1])
    assert kit.store.entries["fake/files/a.bin"].size == len(b"at first")
    assert kit.get("/files/a.bin")[1] == BODY[::-1]


def test_what_is_found_to_hold_while_a_body_comes() -> None:
    """Of two documents that name a file, the one counts that the registry has vouched for last by the end of it."""
    there = "http://registry.test/"
    kit = make_cache(make(RegistryOptions(name="npm", type="npm", url=there)))
    tarball = f"{there}p/-/p-1.0.0.tgz"

    def packument(body: bytes) -> bytes:
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode()
        version = {"name": "p", "version": "1.0.0", "dist": {"tarball": tarball, "integrity": integrity}}
        return json.dumps({"name": "p", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}).encode()

    kit.upstream.pages[f"{there}p"] = Page(body=packument(BODY), headers={"etag": '"1"'})
    kit.get("/p")
    kit.advance(601)
    kit.upstream.pages[f"{there}p"] = Page(body=packument(BODY[::-1]), headers={"etag": '"2"'})
    kit.get("/p", accept="application/vnd.npm.install-v1+json")
    kit.advance(1)
    kit.upstream.pages[tarball] = Page(body=BODY[::-1])
    kit.upstream.hangs = True
    waiting = kit.ask("/p/-/p-1.0.0.tgz")
    kit.upstream.pages[f"{there}p"] = Page(status=304)
    index = kit.ask("/p")
    kit.upstream.release(f"{there}p")
    assert reply_of(index).how is How.REVALIDATED
    kit.upstream.hangs = False
    kit.upstream.release(tarball)
    with pytest.raises(DigestMismatch):
        body_of(reply_of(waiting))


def test_an_index_that_cannot_be_read_while_a_body_comes(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be readable again by the end of the body, and then it counts."""
    kit.get("/index")
    facts, busy = Representations.facts, True

    async def reading(*args: Any) -> Any:
        if busy:
            raise TooBusy("Too many open files.")
        return await facts(*args)

    monkeypatch.setattr(Representations, "facts", reading)
    kit.upstream.pages[FILE] = Page(body=BODY[::-1])
    kit.upstream.hangs = True
    waiting = kit.ask("/files/a.bin")
    # It is asked again before the file and beside it.
    for _ in range(2):
        kit.upstream.release(INDEX)
    busy = kit.upstream.hangs = False
    kit.upstream.release(FILE)
    with pytest.raises(DigestMismatch):
        body_of(reply_of(waiting))
    assert "fake/files/a.bin" not in kit.store.entries


def test_what_is_known_is_looked_up_once(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as no other index comes, an artifact's digest is read once, whatever has to be compared with it."""
    kit.get("/index")
    asked = []
    facts = Documents.facts_at_hand

    def counted(*args: Any) -> Any:
        asked.append(args)
        return facts(*args)

    monkeypatch.setattr(Documents, "facts_at_hand", counted)
    assert kit.get("/files/a.bin")[1] == BODY
    assert len(asked) == 1


def test_a_store_that_refuses_costs_only_the_copy(kit: Kit) -> None:
    """A full disk: everything is still served, from upstream each time."""
    kit.store.refuses = True
    for _ in range(2):
        assert kit.get("/files/a.bin")[1] == BODY
        assert b"a.bin" in kit.get("/index")[1]
    assert not kit.store.entries


def test_a_damaged_body_is_fetched_again(kit: Kit) -> None:
    """What the disk lost is asked for again; the client never sees the damage."""
    kit.get("/files/a.bin")
    kit.store.blobs.clear()
    reply, body = kit.get("/files/a.bin")
    assert (reply.how, body) == (How.MISS, BODY)


def test_a_client_that_leaves_ends_nothing(kit: Kit) -> None:
    """Cancelling a request cancels its waiting; the fetch that it began is stored."""
    kit.upstream.hangs = True
    waiting = kit.ask("/files/a.bin")
    waiting.cancel()
    assert isinstance(settled(waiting), Failure)
    kit.upstream.release()
    kit.upstream.release()
    assert kit.get("/files/a.bin")[0].how is How.HIT


def test_conditions_and_ranges_of_what_is_stored(kit: Kit) -> None:
    """Own comparison, own slices."""
    kit.get("/files/a.bin")
    etag = kit.get("/files/a.bin")[0].headers.get("etag")
    reply, body = kit.get("/files/a.bin", If_None_Match=f'"other", {etag}')
    assert (reply.status, body) == (304, b"")
    reply, body = kit.get("/files/a.bin", Range="bytes=10-19")
    assert (reply.status, body) == (206, BODY[10:20])
    reply, body = kit.get("/files/a.bin", Range="bytes=10-19", If_Range='"other"')
    assert (reply.status, body) == (200, BODY)
    reply, body = kit.get("/files/a.bin", Range=f"bytes={len(BODY)}-")
    assert (reply.status, reply.headers.get("content-range")) == (416, f"bytes */{len(BODY)}")


def test_gzip_where_the_client_takes_it(kit: Kit) -> None:
    """An index goes out compressed, with an entity tag of its own and a Vary that says so."""
    plain, body = kit.get("/index")
    packed, zipped = kit.get("/index", Accept_Encoding="gzip")
    assert packed.headers.get("content-encoding") == "gzip"
    assert zlib.decompress(zipped, 31) == body
    assert plain.headers.get("etag") != packed.headers.get("etag")
    assert "accept-encoding" in plain.headers.get("vary").lower()


def test_redirects_are_followed_only_where_the_registry_allows(kit: Kit) -> None:
    """To another allowed address the request goes on; to a foreign host never."""
    kit.upstream.pages[FILE] = Page(status=302, headers={"location": "/elsewhere/a.bin"})
    kit.upstream.pages["http://registry.test/elsewhere/a.bin"] = Page(body=BODY)
    assert kit.get("/files/a.bin")[1] == BODY
    kit.upstream.pages[INDEX] = Page(status=302, headers={"location": "http://other.test/index"})
    kit.advance(DAY + 1)
    assert kit.get("/index")[0].how is How.STALE
    assert not any("other.test" in url for url in kit.upstream.urls())
