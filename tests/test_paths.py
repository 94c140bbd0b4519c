"""Raw request paths and queries."""

from __future__ import annotations

from urllib.parse import quote as url_quote
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regcache.errors import BadRequest
from regcache.http.messages import RequestHead
from regcache.http.paths import quote, segments, tidied

PRINTABLE = st.characters(min_codepoint=32, exclude_characters="\\\x7f", exclude_categories=["Cs", "Cc"])
SEGMENT = st.text(PRINTABLE, max_size=12).filter(
    lambda text: all(part.partition(";")[0] not in (".", "..") for part in text.split("/"))
)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("/", ("",)),
        ("/a", ("a",)),
        ("/a/", ("a", "")),
        ("//a", ("", "a")),
        ("/a//b", ("a", "", "b")),
        ("/%61%2Bb%7e", ("a+b~",)),
        ("/a+b", ("a+b",)),
        ("/%40s", ("@s",)),
        ("/%2525", ("%25",)),
        ("/%252e%252e", ("%2e%2e",)),
        ("/%C3%A9", ("é",)),
        ("/\xc3\xa9", ("é",)),
        ("/...", ("...",)),
        ("/.a/..b", (".a", "..b")),
        ("/a;b", ("a;b",)),
    ],
)
def test_segments(raw: str, found: tuple[str, ...]) -> None:
    """A path is split first and decoded once afterwards."""
    assert segments(raw) == found


@given(st.text("aZ09_-.~+%;", min_size=1, max_size=8))
def test_what_stands_for_itself_is_read_as_all_else(piece: str) -> None:
    """The shorter way for plain segments finds what the longer one finds."""
    try:
        found = segments(f"/{piece}")
    except BadRequest:
        assert "%" in piece or any(part.partition(";")[0] in (".", "..") for part in piece.split("/"))
        return
    assert found == (unquote(piece),)
    assert quote(piece) == url_quote(piece, safe="!$&'()*,;=:@~")


def test_encoded_slash() -> None:
    """An encoded slash stays within its segment where one may stand, and is refused elsewhere."""
    assert segments("/@s%2fn/x", keep_slash=True) == ("@s/n", "x")
    assert segments("/@s%2Fn", keep_slash=True) == ("@s/n",)
    with pytest.raises(BadRequest, match="encoded slash"):
        segments("/@s%2fn")


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a",
        "*",
        "http://host/a",
        "/..",
        "/a/../b",
        "/./a",
        "/%2e%2e/a",
        "/.%2E/a",
        "/%2e",
        "/..;/a",
        "/..;x=1/a",
        "/.%3b/a",
        "/a%2f..%2fb",
        "/@s%2f..",
        "/@s%2f..;x",
        "/a%5c..",
        "/a\\b",
        "/a%00b",
        "/a%0d%0aSet-Cookie:x",
        "/a\tb",
        "/a%7f",
        "/%",
        "/%1",
        "/%zz",
        "/%u0041",
        "/%ff",
        "/%c0%ae",
        "/\xff",
        "/%ed%a0%80",
        "/\N{SNOWMAN}",
    ],
)
def test_refused(raw: str) -> None:
    """What climbs, is malformed, or could be read in two ways is refused, however it is spelled."""
    with pytest.raises(BadRequest):
        segments(raw, keep_slash=True)


@given(st.lists(SEGMENT, min_size=1, max_size=5))
@example(["/a", "b"])
def test_come_back(parts: list[str]) -> None:
    """Segments that are encoded and put together come apart as they were."""
    assert segments("/" + "/".join(map(quote, parts)), keep_slash=True) == tuple(parts)


@given(st.text("/.;a0+-_~%2f", max_size=12), st.booleans())
@example("a/b-1.0_c", False)
@example("a//b/", False)
def test_tidied(text: str, keep_slash: bool) -> None:
    """A path and its segments, as if each were read and encoded by itself; what is refused still is."""
    try:
        parts = [part for part in segments(f"/{text}", keep_slash) if part]
    except BadRequest:
        with pytest.raises(BadRequest):
            tidied(f"/{text}", keep_slash)
        return
    assert tidied(f"/{text}", keep_slash) == ("/".join(map(quote, parts)), parts)


@given(SEGMENT)
@example("/a")
@example("/a+b/c")
def test_one_spelling(text: str) -> None:
    """Encoding yields one spelling, of plain ASCII, that cannot break out of its place in a URL."""
    spelled = quote(text)
    assert spelled.isascii()
    assert not set(spelled) & set(' /?#\\"<>%+') - {"%"}
    assert [quote(part) for part in segments("/" + spelled, keep_slash=True)] == [spelled]


@given(st.text("/.;a0+-_~:@%", max_size=12))
def test_what_stands_for_itself(text: str) -> None:
    """A path in which nothing is encoded is read like the same path with all of it encoded."""
    plain = text.replace("%", "")
    encoded = "".join(char if char == "/" else f"%{ord(char):02X}" for char in plain)
    assert _read("/" + plain) == _read("/" + encoded)


def _read(path: str) -> tuple[str, ...] | None:
    try:
        return segments(path)
    except BadRequest:
        return None


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_anything(text: str) -> None:
    """Whatever a client sends is segments or a refusal, and what passes does not climb."""
    try:
        found = segments("/" + text)
    except BadRequest:
        return
    assert not {".", ".."} & set(found)
    assert not any("/" in part or "\\" in part for part in found)


@pytest.mark.parametrize("query", ["", "a=b&c=%20d", "x", "a[]=1", "q=^1|2", "%zz", "?", "a='b'"])
def test_queries(query: str) -> None:
    """A query is passed on as it came."""
    assert RequestHead(method="GET", path="/", query=query).query == query


@pytest.mark.parametrize("query", ["a b", "a\0", "a\r\nHost: x", "a#b", "\x7f", "é", "<a>", "\t"])
def test_bad_queries(query: str) -> None:
    """A query that could end the request line, or hide a fragment, is refused."""
    with pytest.raises(BadRequest):
        RequestHead(method="GET", path="/", query=query)


@pytest.mark.parametrize(("segment", "found"), [("/a", "%2Fa"), ("/a/b", "%2Fa%2Fb"), ("/a+b", "%2Fa%2Bb")])
def test_a_segment_is_no_path(segment: str, found: str) -> None:
    """What begins with a slash stands in a URL as one segment all the same."""
    assert quote(segment) == found
