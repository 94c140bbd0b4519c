"""Preconditions and ranges (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.http.fields import format_date
from regcache.http.messages import Headers
from regcache.http.ranges import (
    NotModified,
    Part,
    PreconditionFailed,
    Unsatisfiable,
    Verdict,
    Whole,
    content_range,
    evaluate,
    wants_whole,
)

DAY = 784111777
BEFORE, AT, AFTER = (format_date(DAY + by) for by in (-1, 0, 1))


def of(size: int | None = 10, /, method: str = "GET", **fields: str) -> Verdict:
    """The verdict on a request for a representation of that size, tagged ``"a"`` and dated DAY."""
    headers = Headers.of((name.replace("_", "-"), value) for name, value in fields.items())
    return evaluate(method, headers, etag='"a"', last_modified=DAY, size=size)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-9", Part(0, 10)),
        ("bytes=0-", Part(0, 10)),
        ("bytes=9-9", Part(9, 10)),
        ("bytes=9-", Part(9, 10)),
        ("bytes=2-5", Part(2, 6)),
        ("BYTES=2-5", Part(2, 6)),
        ("bytes= 2-5 ", Part(2, 6)),
        ("bytes=2-100", Part(2, 10)),
        ("bytes=0-18446744073709551615", Part(0, 10)),
        ("bytes=-1", Part(9, 10)),
        ("bytes=-10", Part(0, 10)),
        ("bytes=-11", Part(0, 10)),
        ("bytes=-18446744073709551616", Part(0, 10)),
        ("bytes=10-", Unsatisfiable()),
        ("bytes=10-12", Unsatisfiable()),
        ("bytes=99-100", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=5-4", Whole()),
        ("bytes=99-98", Whole()),
        ("bytes=-", Whole()),
        ("bytes=", Whole()),
        ("bytes", Whole()),
        ("", Whole()),
        ("bytes=0--1", Whole()),
        ("bytes=--1", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=0x1-2", Whole()),
        ("bytes=1.0-2", Whole()),
        ("bytes=+1-2", Whole()),
        ("bytes=\u0661-", Whole()),
        ("bytes=0-1,3-4", Whole()),
        ("items=0-1", Whole()),
        ("0-1", Whole()),
        ("bytes=0-1 x", Whole()),
        ("bytes=" + "9" * 5000 + "-", Whole()),
    ],
)
def test_ranges(text: str, verdict: Verdict) -> None:
    """One range of bytes gives a part; what is malformed or several is ignored; what is past the end is told."""
    assert of(range=text) == verdict


def test_no_range_without_a_length() -> None:
    """While the length is not known, and for anything but GET, a range is ignored."""
    assert of(None, range="bytes=0-1") == Whole()
    assert of(method="HEAD", range="bytes=0-1") == Whole()


@pytest.mark.parametrize("text", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"])
def test_nothing_has_no_part(text: str) -> None:
    """An empty body has no byte to give a part of."""
    assert of(0, range=text) == Unsatisfiable()


@given(st.integers(0, 50), st.integers(0, 60), st.none() | st.integers(0, 60))
def test_parts_are_what_slices_are(size: int, first: int, last: int | None) -> None:
    """The part of a range is the bytes of it that exist."""
    body = bytes(range(size))
    verdict = of(size, range=f"bytes={first}-{'' if last is None else last}")
    wanted = body[first:] if last is None else body[first : last + 1]
    if last is not None and last < first:
        assert verdict == Whole()
    elif isinstance(verdict, Part):
        assert body[verdict.start : verdict.stop] == wanted
        assert 0 <= verdict.start < verdict.stop <= size
    else:
        assert (verdict, wanted) == (Unsatisfiable(), b"")


@given(st.integers(1, 50), st.integers(1, 60))
def test_suffixes_are_what_slices_are(size: int, length: int) -> None:
    """The part of a suffix range is the last bytes."""
    body = bytes(range(size))
    verdict = of(size, range=f"bytes=-{length}")
    assert isinstance(verdict, Part)
    assert body[verdict.start : verdict.stop] == body[-length:]


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_range(text: str) -> None:
    """Whatever a Range field holds, there is a verdict."""
    assert isinstance(of(range="bytes=" + text), (Whole, Part, Unsatisfiable))


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ('"a"', Part(0, 2)),
        (AT, Part(0, 2)),
        ('"b"', Whole()),
        ('W/"a"', Whole()),
        (BEFORE, Whole()),
        (AFTER, Whole()),
        ("", Whole()),
        ("soon", Whole()),
        ("*", Whole()),
    ],
)
def test_if_range(condition: str, verdict: Verdict) -> None:
    """A part is given only of the very representation that the client holds the rest of."""
    assert of(range="bytes=0-1", if_range=condition) == verdict


def test_if_range_without_validators() -> None:
    """What has no validator matches none, so that no part of it is ever grafted on another."""
    for condition in ('""', '"a"', AT, ""):
        headers = Headers.of({"range": "bytes=0-1", "if-range": condition})
        assert evaluate("GET", headers, size=10) == Whole()


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ('"a"', NotModified()),
        ('W/"a"', NotModified()),
        ('"b", "a"', NotModified()),
        ('"b",,W/"a"', NotModified()),
        ("*", NotModified()),
        ('"b"', Whole()),
        ("a", Whole()),
        ("", Whole()),
    ],
)
def test_if_none_match(condition: str, verdict: Verdict) -> None:
    """A client that holds one of the tags, compared weakly, is told so; GET and HEAD alike."""
    assert of(if_none_match=condition) == verdict
    assert of(method="HEAD", if_none_match=condition) == verdict


def test_if_none_match_beats_the_date() -> None:
    """Where there is a list of tags, the date does not count."""
    assert of(if_none_match='"b"', if_modified_since=AFTER) == Whole()
    assert of(if_none_match='"a"', if_modified_since=BEFORE) == NotModified()


def test_if_modified_since() -> None:
    """A client whose copy is not older is told so, to the second."""
    assert of(if_modified_since=AT) == NotModified()
    assert of(if_modified_since=AFTER) == NotModified()
    assert of(if_modified_since=BEFORE) == Whole()
    assert of(if_modified_since="soon") == Whole()
    headers = Headers.of({"if-modified-since": AT})
    assert evaluate("GET", headers, last_modified=DAY + 0.9, size=1) == NotModified()
    assert evaluate("GET", headers, size=1) == Whole()


def test_if_match() -> None:
    """A client that wants another version is refused; only a strong match is one."""
    assert of(if_match='"a"') == Whole()
    assert of(if_match='"b", "a"') == Whole()
    assert of(if_match="*") == Whole()
    assert of(if_match='W/"a"') == PreconditionFailed()
    assert of(if_match='"b"') == PreconditionFailed()
    assert of(if_match='"b"', if_none_match='"a"') == PreconditionFailed()
    assert of(if_match='"a"', if_none_match='"a"') == NotModified()
    assert of(if_match='"a"', range="bytes=0-1") == Part(0, 2)


def test_if_unmodified_since() -> None:
    """A client that wants a version no newer than its own is refused a newer one, unless it named a tag."""
    assert of(if_unmodified_since=BEFORE) == PreconditionFailed()
    assert of(if_unmodified_since=AT, range="bytes=0-1") == Part(0, 2)
    assert of(if_unmodified_since="soon") == Whole()
    assert of(if_unmodified_since=BEFORE, if_match='"a"') == Whole()
    assert evaluate("GET", Headers.of({"if-unmodified-since": BEFORE}), size=1) == Whole()


def test_not_modified_beats_range() -> None:
    """A client that holds it already gets no part of it."""
    assert of(if_none_match='"a"', range="bytes=0-1") == NotModified()
    assert of(if_none_match='"a"', range="bytes=99-") == NotModified()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-0/1", (Part(0, 1), 1)),
        ("bytes 5-9/10", (Part(5, 10), 10)),
        (" Bytes  5-7/10 ", (Part(5, 8), 10)),
        ("", None),
        ("bytes */10", None),
        ("bytes 5-9/*", None),
        ("bytes 5-10/10", None),
        ("bytes 9-5/10", None),
        ("items 0-0/1", None),
        ("bytes=0-0/1", None),
        ("bytes 0-0/1, bytes 0-0/1", None),
    ],
)
def test_content_range(text: str, found: tuple[Part, int] | None) -> None:
    """The part and the length of the whole, where both are told and agree."""
    assert content_range(text) == found


@given(
    st.dictionaries(
        st.sampled_from(["accept", "if_match", "if_none_match", "if_modified_since", "if_range", "range", "te"]),
        st.sampled_from(['"a"', '"b"', "*", BEFORE, AT, AFTER, "bytes=0-3", ""]),
    ),
    st.sampled_from(["GET", "HEAD"]),
)
def test_what_wants_the_whole_gets_it(fields: dict[str, str], method: str) -> None:
    """Nothing has to be known of the representation for that."""
    headers = Headers.of((name.replace("_", "-"), value) for name, value in fields.items())
    if wants_whole(headers):
        assert of(method=method, **fields) == Whole()
    assert wants_whole(headers) == fields.keys().isdisjoint(
        {"if_match", "if_none_match", "if_modified_since", "if_range", "range"}
    )
