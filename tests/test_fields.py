"""The grammar of header fields."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.http.fields import (
    accepts_gzip,
    cache_control,
    date_as_sent,
    etags,
    format_date,
    hop_by_hop,
    members,
    negotiate,
    parse_date,
    parse_digests,
    parse_sri,
    same_strong,
    same_weak,
    seconds,
)
from regcache.http.messages import Digest, Headers

LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
ETAG = st.builds(
    lambda weak, text: f'{weak}"{text}"',
    st.sampled_from(["", "W/"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'), max_size=12),
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "text/html"),
        ("*/*", "text/html"),
        ("text/*", "text/html"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/json;q=0.5, text/html;q=0.4", "application/json"),
        ("application/json ; q=0.5 , text/html ; q=0.6", "text/html"),
        ("application/json, */*;q=0.1", "application/json"),
        ("text/html;q=0, */*", "application/json"),
        ("text/*;q=0, */*;q=0.1", "application/json"),
        ("application/json;charset=utf-8;q=0.9, text/html;q=0.1", "application/json"),
        ("text/html, application/json", "text/html"),
        ("application/json, */*", "application/json"),
        ("application/*, */*", "application/json"),
        ("application/json;q=nan, text/html;q=0.1", "text/html"),
        ("application/json;q=inf, text/html;q=0.1", "text/html"),
        ("application/json;q=1e9, text/html;q=0.1", "text/html"),
        ("application/json;q=-1, text/html;q=0.1", "text/html"),
        ("application/json;q=, text/html;q=0.1", "text/html"),
        (" , ,application/json", "application/json"),
        ("application/json;q=0, text/html;q=0.000", None),
        ("image/png", None),
        ("*/*;q=0", None),
    ],
)
def test_negotiation(accept: str, chosen: str | None) -> None:
    """The offer of the highest quality wins, among equals the one that is named, then the first; nought refuses."""
    assert negotiate(accept, ["text/html", "application/json"]) == chosen


@given(LATIN)
def test_negotiation_of_anything(accept: str) -> None:
    """Whatever the field holds, the answer is one of the offers or none."""
    assert negotiate(accept, ["a/b", "c/d"]) in ("a/b", "c/d", None)


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP, deflate", True),
        ("x-gzip", True),
        ("gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("br, zstd", False),
        ("zstd,gzip,deflate", True),
    ],
)
def test_gzip(field: str, wanted: bool) -> None:
    """Gzip is sent to whoever names it, or takes anything, and does not refuse it."""
    assert accepts_gzip(field) is wanted


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 13:49:37 +0500",
    ],
)
def test_dates(text: str) -> None:
    """The three forms of an HTTP date say the same, and a zone that should not be there is honoured."""
    assert parse_date(text) == 784111777.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "soon",
        "Sun, 06 Nov 1994",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Sun, 30 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Nov 1994 08:61:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
    ],
)
def test_no_dates(text: str) -> None:
    """What is no date, or a day that never was, is none."""
    assert parse_date(text) is None


def test_leap_second() -> None:
    """A leap second counts as the second before it."""
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT") == parse_date("Sat, 31 Dec 2016 23:59:59 GMT")


@given(st.integers(0, 4102444800))
def test_dates_come_back(when: int) -> None:
    """A date that was written is read as the same second."""
    assert parse_date(format_date(when)) == when


@given(LATIN | st.text("SunMonNov 0123456789:,-+GMT", max_size=40))
def test_any_date(text: str) -> None:
    """Reading a date never fails; it may find none."""
    found = parse_date(text)
    assert found is None or isinstance(found, float)


def as_sent(text: str) -> str | None:
    """What :func:`date_as_sent` is to say of it."""
    when = parse_date(text)
    return None if when is None else format_date(when)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun, 06 Nov 0094 08:49:37 GMT",
        "Fri, 06 Nov 1964 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 30 Feb 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 +0100",
    ],
)
def test_a_date_is_sent_in_one_form(text: str) -> None:
    """That of a date that is written anew, also where it is passed on as it came."""
    assert date_as_sent(text) == as_sent(text)


@given(
    st.builds(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT".format,
        st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]),
        st.integers(0, 32),
        st.sampled_from(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]),
        st.integers(0, 9999),
        st.integers(0, 24),
        st.integers(0, 60),
        st.integers(0, 60),
    )
    | st.integers(0, 4102444800).map(format_date)
)
def test_any_date_is_sent_in_one_form(text: str) -> None:
    """As above."""
    assert date_as_sent(text) == as_sent(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"a"', ['"a"']),
        ('"a", W/"b",  "c d"', ['"a"', 'W/"b"']),
        ('"a","b"', ['"a"', '"b"']),
        ("*", ["*"]),
        ('"a,b", "c"', ['"a,b"', '"c"']),
        (', ,"a",,"b",', ['"a"', '"b"']),
        ('"a" "b"', []),
        ("a, b", []),
        ('w/"a"', []),
        ('""', ['""']),
        ("", []),
    ],
)
def test_etag_lists(text: str, found: list[str]) -> None:
    """A list of entity tags is split at commas outside the quotes; what is malformed ends it."""
    assert etags(text) == found


@given(st.lists(ETAG, max_size=6))
def test_etags_come_back(tags: list[str]) -> None:
    """A list of entity tags is read as it was written."""
    assert etags(", ".join(tags)) == tags


@given(LATIN)
def test_any_etags(text: str) -> None:
    """Reading entity tags never fails, and finds only what is in the text."""
    assert all(tag in text for tag in etags(text))


def test_comparisons() -> None:
    """Two weak tags never match strongly; weakly, only what is between the quotes counts (RFC 9110 table 3)."""
    assert not same_strong('W/"1"', 'W/"1"')
    assert not same_strong('W/"1"', '"1"')
    assert same_strong('"1"', '"1"')
    assert not same_strong('"1"', '"2"')
    assert same_weak('W/"1"', 'W/"1"')
    assert same_weak('W/"1"', '"1"')
    assert not same_weak('W/"1"', 'W/"2"')
    assert not same_strong("", "")
    assert not same_weak("", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("no-cache", {"no-cache": None}),
        ("No-Cache, MAX-AGE=0", {"no-cache": None, "max-age": "0"}),
        ('private="set-cookie, x", max-age=5', {"private": "set-cookie, x", "max-age": "5"}),
        ("max-age = 7", {"max-age": "7"}),
        ("max-age=1, max-age=2", {"max-age": "1"}),
        ("max-age=", {"max-age": None}),
        (",,no-store;", {"no-store": None}),
    ],
)
def test_cache_control(text: str, found: dict[str, str | None]) -> None:
    """Directives are found by lower-case name, with their value unquoted; the first of a repeated one counts."""
    assert cache_control(text) == found


@given(LATIN)
def test_any_cache_control(text: str) -> None:
    """Reading directives never fails, and their names are in lower case."""
    assert all(name == name.lower() for name in cache_control(text))


def sri(algorithm: str, data: bytes) -> str:
    """An integrity value."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


def test_sri() -> None:
    """Each known digest of an integrity value is found, options are cut off, and the strongest is told."""
    text = f"{sri('sha256', b'x')}  {sri('sha512', b'x')}?ct=a/b md5-??? sha1-AAAA sha999-AAAA {sri('sha1', b'x')}"
    found = parse_sri(text)
    assert [digest.algorithm for digest in found] == ["sha256", "sha512", "sha1"]
    assert Digest.strongest(found) == Digest("sha512", hashlib.sha512(b"x").hexdigest())


@given(LATIN | st.builds(lambda text: f"sha512-{text}", st.text(max_size=40)))
def test_any_sri(text: str) -> None:
    """Reading an integrity value never fails."""
    assert isinstance(parse_sri(text), tuple)


@pytest.mark.parametrize("value", ["A" * 64, "a" * 63, "g" * 64, "", "0" * 65, "\u0660" * 64])
def test_digests_have_one_spelling(value: str) -> None:
    """A digest that is not lower-case hexadecimal of the right length is none."""
    with pytest.raises(ValueError, match="not a sha256 digest"):
        Digest("sha256", value)


def test_hop_by_hop() -> None:
    """Fields of one connection are the known ones and those that Connection names."""
    names = hop_by_hop(Headers.of([("Connection", "Upgrade, X-One"), ("connection", "x-two, ,")]))
    assert {"connection", "upgrade", "x-one", "x-two", "transfer-encoding", "te"} <= names
    assert "" not in names
    assert "etag" not in names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after(text: str, found: float | None) -> None:
    """Retry-After is a number of seconds or a date; one that is past asks for no wait."""
    assert seconds(text, 100.0) == found


def test_headers() -> None:
    """Names are found in any case they came in, lines are joined in order, and replacing leaves the others."""
    headers = Headers.of([("Accept", "a"), ("X", "1"), ("ACCEPT", "b")])
    assert headers.get("accept") == "a, b"
    assert headers.lines("accept") == ["a", "b"]
    assert "x" in headers
    assert list(headers.replacing({"Accept": "c"})) == [("x", "1"), ("accept", "c")]
    assert list(headers.without("accept")) == [("x", "1")]
    assert headers.get("none", "?") == "?"


SHA256 = hashlib.sha256(b"x")
IN_BASE64 = base64.b64encode(SHA256.digest()).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"sha-256=:{IN_BASE64}:",
        f"SHA-256={IN_BASE64}",
        f'sha-256="{IN_BASE64}"',
        f" crc32c=:AAAA:, sha-256=:{IN_BASE64}: ;q=1 ,",
        f"sha-512=:short:,sha-256=:{IN_BASE64}:",
        f"unixsum=30637,SHA-256={IN_BASE64};x",
    ],
)
def test_digest_fields(text: str) -> None:
    """Those of RFC 9530, of RFC 3230, and what the public gem index makes of them; what is unknown is passed over."""
    assert parse_digests(text) == (Digest("sha256", SHA256.hexdigest()),)


@pytest.mark.parametrize("text", ["", ",", "sha-256", "sha-256=", "sha-256=:::", "sha-256=:\u00e9:", "=:AAAA:", "id=1"])
def test_what_is_no_digest_field(text: str) -> None:
    """Nothing is read out of it, and nothing breaks."""
    assert parse_digests(text) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [""]),
        ("a,b", ["a", "b"]),
        ('a="x,y", b', ['a="x,y"', " b"]),
        (r'"x\",y",b', [r'"x\",y"', "b"]),
        ('a, b="x, c', ["a", ' b="x', " c"]),
        (',"', ["", '"']),
    ],
)
def test_members(text: str, found: list[str]) -> None:
    """RFC 9110 section 5.6.1: commas in quoted strings part nothing; a quote without an end is like any sign."""
    assert members(text) == found


def test_members_of_a_hostile_list() -> None:
    """Quotes without an end are not sought for the end of again and again, which would take hours."""
    assert members('"' + '\\"' * 500_000 + ",x")[1:] == ["x"]
