"""What may be stored, what of it, what updates it, and what makes it go: values in, decisions out."""

from __future__ import annotations

import pytest

from regcache.http.directives import of_response
from regcache.http.fields import format_date
from regcache.http.held import Held, slot_of
from regcache.http.messages import Headers
from regcache.http.paths import led_back
from regcache.http.storing import (
    answers_for,
    changes,
    confirms,
    end_to_end,
    may_store,
    speaks_of,
    storable_fields,
    travelling,
    updated,
)

NOW = 1_700_000_000.0
URL = "http://host.example/a/b"


def fields(*pairs: tuple[str, str]) -> Headers:
    """Header fields."""
    return Headers.of(pairs)


def stored(said: str = "", *pairs: tuple[str, str], status: int = 200, method: str = "GET", auth: bool = False) -> bool:
    """Whether a response with that Cache-Control may be stored."""
    headers = fields(("cache-control", said), *pairs)
    request = fields(("authorization", "x")) if auth else fields()
    return may_store(method, request, status, headers, of_response(headers))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "M-SEARCH"])
def test_methods(method: str) -> None:
    """RFC 9111 section 3: the method has to be one that is understood, and kept for."""
    assert stored("max-age=60")
    assert not stored("max-age=60", method=method)


@pytest.mark.parametrize(
    ("status", "silent", "stated"),
    [
        *((status, True, True) for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)),
        *((status, False, True) for status in (201, 202, 299, 302, 303, 307, 400, 401, 403, 429, 499, 500, 502)),
        *((status, False, True) for status in (503, 504, 599)),
        *((status, False, False) for status in (100, 102, 103, 199, 304)),
        # They are of the fields of one request.
        *((status, False, False) for status in (412, 416, 417, 431)),
    ],
)
def test_statuses(status: int, silent: bool, stated: bool) -> None:
    """RFC 9111 section 3: final, and cacheable by its status or by what is said."""
    assert stored(status=status) is silent
    for said in ("max-age=60", "s-maxage=60", "public"):
        assert stored(said, status=status) is stated
    assert stored("", ("expires", "0"), status=status) is stated


@pytest.mark.parametrize("said", ["no-store", "No-StOrE, max-age=60", "max-age=60, no-store", "no-store=foo"])
def test_no_store(said: str) -> None:
    """RFC 9111 section 5.2.2.5: nothing of it, whatever else is said."""
    assert not stored(said, ("expires", format_date(NOW + 60)))


@pytest.mark.parametrize(("status", "kept"), [(200, True), (404, True), (299, False), (599, False)])
def test_must_understand(status: int, kept: bool) -> None:
    """RFC 9111 section 5.2.2.3: beside it no-store is for those alone who do not know the status."""
    assert stored("max-age=60, no-store, must-understand", status=status) is kept
    assert stored("max-age=60, must-understand", status=status) is kept


def test_private() -> None:
    """RFC 9111 section 5.2.2.7: not what is one client's; what speaks of some fields keeps but these."""
    assert not stored("private, max-age=60")
    assert not stored('private="a", private, max-age=60')
    assert stored('private="a", max-age=60')


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("max-age=60", False),
        ("", False),
        ("proxy-revalidate, max-age=60", False),
        ("public", True),
        ("s-maxage=60", True),
        ("must-revalidate, max-age=60", True),
    ],
)
def test_authorization(said: str, kept: bool) -> None:
    """RFC 9111 section 3.5: what was asked for with credentials is stored only where that is said to be right."""
    assert stored(said, auth=True) is kept


@pytest.mark.parametrize("vary", ["*", "*, *", ", *", "*, foo", "foo, *"])
def test_vary_on_anything(vary: str) -> None:
    """RFC 9111 section 4.1: no request can select it."""
    assert not stored("max-age=60", ("vary", vary))
    assert not stored("max-age=60", *(("vary", part) for part in vary.split(",")))


@pytest.mark.parametrize(
    ("content_range", "kept"),
    [("bytes 0-4/10", True), ("bytes 0-4/*", False), ("lines 0-4/10", False), ("", False), ("bytes 4-0/10", False)],
)
def test_parts(content_range: str, kept: bool) -> None:
    """RFC 9111 section 3.3: only of the unit that is understood."""
    assert stored("max-age=60", ("content-range", content_range), status=206) is kept


def test_kept_fields() -> None:
    """RFC 9111 section 3.1: all of them, unknown ones and cookies too, but those of the connection or of one client."""
    headers = fields(
        *(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("x-unknown", "5"), ("set-cookie", "6")),
        *(("connection", "a, close"), ("keep-alive", "7"), ("te", "8"), ("upgrade", "9"), ("trailer", "10")),
        *(("proxy-authenticate", "11"), ("proxy-authentication-info", "12"), ("transfer-encoding", "chunked")),
        ("cache-control", 'no-cache="b", private="c"'),
    )
    kept = storable_fields(headers, of_response(headers))
    assert {name for name, _ in kept} == {"d", "x-unknown", "set-cookie", "cache-control"}


def test_fields_of_the_connection() -> None:
    """RFC 9110 section 7.6.1: also those that Connection names, however it is written."""
    headers = fields(("Connection", "A ,, b"), ("connection", "C"), ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))
    assert end_to_end(headers) == fields(("d", "4"))


def test_fields_that_travel() -> None:
    """RFC 9110 section 7.6: what a client sends goes on, but not what says who it is, or where it comes from."""
    headers = fields(
        *(("host", "x"), ("cookie", "x"), ("forwarded", "x"), ("x-forwarded-for", "x"), ("x-forwarded-proto", "x")),
        *(("x-real-ip", "x"), ("connection", "foo"), ("foo", "x"), ("content-length", "3"), ("expect", "x")),
        *(("true-client-ip", "x"), ("x_forwarded_for", "x"), ("x-http-method-override", "x"), ("x-original-url", "x")),
        *(("x_rewrite_url", "x"), ("proxy", "x")),
        *(("accept", "y"), ("authorization", "y"), ("range", "y"), ("x-unknown", "y"), ("cache-control", "y")),
    )
    names = [name for name, _ in travelling(headers, authorization=True)]
    assert names == ["accept", "authorization", "range", "x-unknown", "cache-control"]
    assert [name for name, _ in travelling(headers, authorization=False)] == [one for one in names if one[:4] != "auth"]


def test_a_304_updates() -> None:
    """RFC 9111 section 3.2: each field that came, and no other; never those that describe the stored bytes."""
    before = fields(
        *(("a", "1"), ("b", "1"), ("b", "2"), ("age", "5"), ("content-length", "36"), ("content-encoding", "gzip")),
        *(("content-range", "x"), ("content-type", "text/plain"), ("cache-control", "max-age=1")),
    )
    new = fields(
        *(("b", "3"), ("b", "4"), ("d", "5"), ("content-length", "10"), ("content-encoding", "br")),
        *(("content-range", "y"), ("content-type", "text/html"), ("connection", "e"), ("e", "6")),
    )
    found = updated(before, new, of_response(new))
    assert found.get("b") == "3, 4"
    assert {name: found.get(name) for name, _ in found} == {
        "a": "1",
        "b": "3, 4",
        "d": "5",
        "content-length": "36",
        "content-encoding": "gzip",
        "content-range": "x",
        "content-type": "text/html",
        "cache-control": "max-age=1",
    }


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"a"', '"a"', True),
        ('"a"', '"b"', False),
        ("", '"b"', False),
        ('W/"a"', '"a"', False),
        ('"a"', "", True),
        ('W/"a"', 'W/"a"', True),
    ],
)
def test_a_304_of_something_else(old: str, new: str, same: bool) -> None:
    """RFC 9111 section 4.3.4: one that names another strong validator updates nothing."""
    headers = {"old": old, "new": new}
    before, after = (fields(*([("etag", headers[name])] if headers[name] else [])) for name in ("old", "new"))
    assert confirms(before, after) is same


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ((), True),
        ((("etag", '"a"'), ("content-length", "3")), True),
        ((("etag", '"b"'),), False),
        ((("last-modified", "x"),), False),
        ((("content-length", "4"),), False),
        ((("content-length", "x"),), False),
    ],
)
def test_what_head_tells(new: tuple[tuple[str, str], ...], same: bool) -> None:
    """RFC 9111 section 4.3.5: of the stored bytes, if neither a validator nor the length says otherwise."""
    assert speaks_of(fields(("etag", '"a"')), 3, fields(*new)) is same


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "X-UNHEARD-OF"])
@pytest.mark.parametrize(("status", "changed"), [(200, True), (204, True), (303, True), (400, False), (500, False)])
def test_invalidation(method: str, status: int, changed: bool) -> None:
    """RFC 9111 section 4.4: a success of whatever may change something makes what is stored of it go; a failure not."""
    assert changes(method, status, fields(), URL) == ((URL,) if changed else ())
    for safe in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert changes(safe, status, fields(), URL) == ()


def test_invalidation_of_others() -> None:
    """RFC 9111 section 4.4: Location and Content-Location too, if they are of the same origin."""
    headers = fields(("location", "c#d"), ("content-location", "/e?f"))
    assert changes("POST", 201, headers, URL) == (URL, "http://host.example/a/c", "http://host.example/e?f")
    for other in ("http://other.example/a", "https://host.example/a", "http://host.example:81/a", "//other.example/"):
        assert changes("POST", 201, fields(("location", other)), URL) == (URL,)
    assert changes("POST", 201, fields(("location", "http://[")), URL) == (URL,)


@pytest.mark.parametrize(
    ("method", "status", "said", "location", "kept"),
    [
        ("POST", 200, "max-age=60", URL, True),
        ("POST", 200, "max-age=60", "/a/b", True),
        ("POST", 200, "", URL, False),
        ("POST", 200, "max-age=60", "/a/c", False),
        ("POST", 201, "max-age=60", URL, False),
        ("PUT", 200, "max-age=60", URL, False),
    ],
)
def test_what_post_brings(method: str, status: int, said: str, location: str, kept: bool) -> None:
    """RFC 9110 section 9.3.3: it can be what GET would bring, if it says so, and for how long."""
    headers = fields(("cache-control", said), ("content-location", location))
    assert answers_for(method, status, headers, of_response(headers), URL) is kept


def held(when: float, *selecting: tuple[str, str | None], status: int = 200) -> Held:
    """A stored response."""
    return Held(status=status, headers=fields(), selecting=selecting, age=0, received=when)


def test_places() -> None:
    """RFC 9111 section 4.1: variants lie side by side; the same one is replaced, and the oldest when all are taken."""
    one, other, third = held(5, ("a", "1")), held(3, ("a", "2")), held(9, ("a", None))
    assert slot_of(one, [None, None]) == 0
    assert slot_of(one, [other, None]) == 1
    assert slot_of(one, [other, held(1, ("a", "1"))]) == 1
    assert slot_of(third, [one, other]) == 1


@pytest.mark.parametrize(
    ("location", "back"),
    [
        ("http://host.example/dist/x?y", "https://cache.example/t/x?y"),
        ("/dist/x", "/t/x"),
        ("/other", "http://host.example/other"),
        ("/distant", "http://host.example/distant"),
        ("x", "x"),
        ("//other.example/x", "//other.example/x"),
        ("http://other.example/dist/x", "http://other.example/dist/x"),
        ("", ""),
    ],
)
def test_redirects_lead_back(location: str, back: str) -> None:
    """RFC 9110 section 10.2.2: to where they would lead, through the cache if that can be."""
    assert led_back(location, "http://host.example/dist/", "https://cache.example/t/") == back
