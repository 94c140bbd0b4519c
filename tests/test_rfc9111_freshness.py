"""How old a response is, how long it is fresh, and how its directives and dates are read: values in, values out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.http.dates import http_date
from regcache.http.directives import MOST_SECONDS, of_request, of_response
from regcache.http.fields import format_date
from regcache.http.freshness import dated, initial_age, lifetime
from regcache.http.messages import Headers

NOW = 1_700_000_000.0
DATE = format_date(NOW)
TARGETS = ("cdn-cache-control",)


def fields(*pairs: tuple[str, str]) -> Headers:
    """Header fields."""
    return Headers.of(pairs)


def life(*pairs: tuple[str, str], status: int = 200) -> float:
    """For how long a response with these fields, made now, is fresh."""
    headers = fields(("date", DATE), *pairs)
    return lifetime(status, headers, of_response(headers, TARGETS), NOW).seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("max-age=60", 60),
        ("MaX-aGe=60", 60),
        ("max-age=0060", 60),
        ('max-age="60"', 60),
        ("foo, max-age=60, bar=baz", 60),
        (', ,max-age=60,,"', 60),
        ("max-age=60, max-age=60", 60),
        ("max-age=60, s-maxage=10", 10),
        ("s-maxage=10, max-age=60", 10),
        ("max-age=0, s-maxage=60", 60),
        ('extension="max-age=60", max-age=1', 1),
        ('max-age=1, extension="max-age=60"', 1),
        ("max-age=2147483648", MOST_SECONDS),
        ("max-age=99999999999", MOST_SECONDS),
        (f"max-age={'9' * 5000}", MOST_SECONDS),
    ],
)
def test_stated_lifetimes(text: str, seconds: float) -> None:
    """RFC 9111 sections 1.2.2, 4.2.1, 5.2.2.1 and 5.2.2.10: s-maxage before max-age, in any case, never past 2**31."""
    assert life(("cache-control", text), ("expires", "0")) == seconds
    assert life(*[("cache-control", part) for part in text.split(", ")]) == seconds or '"' in text


@pytest.mark.parametrize(
    "text",
    [
        *("max-age", "max-age=", "max-age=-60", "max-age=60.0", "max-age=6x", "max-age=x6", "max-age='60'"),
        *("max-age =60", "max-age= 60", "max-age=60, max-age=61", "max-age=60, max-age=x", "max-age=\u0666\u0660"),
    ],
)
def test_malformed_lifetimes(text: str) -> None:
    """RFC 9111 section 4.2.1: what contradicts itself, or is no number, makes a response stale."""
    assert life(("cache-control", text), ("expires", format_date(NOW + 60))) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (format_date(NOW + 60), 60),
        (format_date(NOW), 0),
        (format_date(NOW - 60), 0),
        ("0", 0),
        ("-1", 0),
        ("", 0),
        ("Tue, 14 Nov 2023 22:14:20 UTC", 0),
        ("tue, 14 nov 2023 22:14:20 gmt", 60),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60),
        ("Tue Nov 14 22:14:20 2023", 60),
    ],
)
def test_expires(text: str, seconds: float) -> None:
    """RFC 9111 section 5.3: an invalid date, "0" above all, lies in the past; max-age and s-maxage come before it."""
    assert life(("expires", text)) == seconds
    assert life(("expires", text), ("cache-control", "max-age=5")) == 5
    assert life(("expires", text), ("cache-control", "s-maxage=5")) == 5


def test_several_expires() -> None:
    """RFC 9111 section 4.2.1: several that are not alike say nothing that can be trusted; one said twice does."""
    one, other = format_date(NOW + 60), format_date(NOW + 61)
    assert life(("expires", one), ("expires", other)) == 0
    assert life(("expires", one), ("expires", one)) == 60


def test_expires_counts_from_date() -> None:
    """RFC 9111 section 4.2.1: from the origin's clock to the origin's clock; from ours where it tells none."""
    soon = format_date(NOW + 100)
    for date, seconds in ((format_date(NOW + 40), 60), ("foo", 100)):
        headers = fields(("date", date), ("expires", soon))
        assert lifetime(200, headers, of_response(headers), NOW).seconds == seconds


@pytest.mark.parametrize(
    ("status", "more", "seconds"),
    [
        *((status, "", 100) for status in (200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501)),
        *((status, "", 0) for status in (201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599)),
        (599, "public", 100),
    ],
)
def test_heuristics(status: int, more: str, seconds: float) -> None:
    """RFC 9111 section 4.2.2: a tenth of the time since the last change, for the statuses of RFC 9110 section 15.1."""
    changed = ("last-modified", format_date(NOW - 1000))
    assert life(changed, ("cache-control", more), status=status) == seconds
    assert life(changed, ("cache-control", f"{more}, max-age=7"), status=status) == 7
    assert life(changed, ("expires", "0"), status=status) == 0, "what is stated is never guessed at"
    headers = fields(("date", DATE), changed, ("cache-control", more))
    assert lifetime(status, headers, of_response(headers), NOW, 50).seconds == min(seconds, 50)


@pytest.mark.parametrize("text", ["", "0", "yesterday", format_date(NOW + 60)])
def test_nothing_to_guess_from(text: str) -> None:
    """RFC 9111 section 4.2.2: without a date in the past there is nothing to guess from."""
    assert life(("last-modified", text)) == 0
    assert life() == 0


@pytest.mark.parametrize(
    ("lines", "age"),
    [
        (["7"], 7),
        (["007"], 7),
        (["7, 9"], 7),
        (["7", "9"], 7),
        (["9", "7"], 9),
        (["0, 7200"], 0),
        *(([text], 0) for text in ("abc", "-7", "7.0", "7;foo=1", "", "\u0667")),
        (["2147483647"], 2**31 - 1),
        (["2147483649"], MOST_SECONDS),
        (["9" * 5000], MOST_SECONDS),
    ],
)
def test_age(lines: list[str], age: float) -> None:
    """RFC 9111 section 5.1: the first of several counts; what is no number of seconds says nothing."""
    headers = fields(("date", DATE), *(("age", line) for line in lines))
    assert initial_age(headers, NOW, NOW) == age


def test_age_when_it_came() -> None:
    """RFC 9111 section 4.2.3: what Age says and the time it took, or what Date says if that is more; never below 0."""
    assert initial_age(fields(("date", DATE), ("age", "10")), NOW - 3, NOW) == 13
    assert initial_age(fields(("date", format_date(NOW - 60)), ("age", "10")), NOW - 3, NOW) == 60
    assert initial_age(fields(("date", format_date(NOW + 60))), NOW, NOW) == 0
    assert initial_age(fields(), NOW + 5, NOW) == 0, "a clock that was set back"


def test_date_is_given() -> None:
    """RFC 9110 section 6.6.1: who passes on a response without a Date, or with none that can be read, gives it one."""
    for headers in (fields(), fields(("date", "foo")), fields(("date", DATE), ("date", format_date(NOW - 1)))):
        assert dated(headers, NOW).lines("date") == [DATE]
    old = fields(("date", format_date(NOW - 60)))
    assert dated(old, NOW) == old


@pytest.mark.parametrize(
    ("text", "cdn", "seconds"),
    [
        ("max-age=1", "max-age=60", 60),
        ("max-age=60", "max-age=1", 1),
        ("no-store", "max-age=60", 60),
        ("max-age=5", "", 5),
        ("max-age=5", "max-age=60, &&&", 5),
        ("max-age=5", 'max-age="60"', 5),
        ("max-age=5", "max-age=60.5", 5),
        ("max-age=5", "MAX-AGE=60", 5),
        ("max-age=5", "max-age =60", 5),
        ("max-age=5", "max-age=60,", 5),
        ("max-age=5", "foo;a=1, max-age=60;b", 60),
        ("max-age=5", "max-age=1, max-age=60", 60),
        ("max-age=5", "foo", 0),
    ],
)
def test_targeted(text: str, cdn: str, seconds: float) -> None:
    """RFC 9213 section 2: a well-formed field that is meant for this cache counts alone; another one does not exist."""
    assert life(("cache-control", text), ("cdn-cache-control", cdn)) == seconds
    if seconds == 60:
        assert life(("cdn-cache-control", cdn), ("expires", "0")) == 60


@pytest.mark.parametrize(("cdn", "there"), [("no-store", True), ("no-store=?1", True), ("no-store=?0", False)])
def test_targeted_without_values(cdn: str, there: bool) -> None:
    """RFC 9213 section 2.1: a directive without a value is the boolean true."""
    assert ("no-store" in of_response(fields(("cdn-cache-control", f"max-age=1, {cdn}")), TARGETS)) is there


def test_field_names() -> None:
    """RFC 9111 sections 5.2.2.4 and 5.2.2.7: with an argument no-cache and private are of these fields alone."""
    said = of_response(fields(("cache-control", 'no-cache="Set-Cookie, A", private=b, private')))
    assert (said.fields("no-cache"), said.unqualified("no-cache")) == (frozenset({"set-cookie", "a"}), False)
    assert (said.fields("private"), said.unqualified("private")) == (frozenset({"b"}), True)


def test_pragma() -> None:
    """RFC 9111 section 5.4: a request's ``Pragma: no-cache`` counts where there is no Cache-Control."""
    assert "no-cache" in of_request(fields(("pragma", "No-Cache")))
    assert "no-cache" not in of_request(fields(("pragma", "no-cache"), ("cache-control", "max-age=1")))
    assert "no-cache" not in of_response(fields(("pragma", "no-cache")))


@pytest.mark.parametrize(
    "text",
    [
        *("Thu, 18 Aug 50 02:01:18 GMT", "Thu 18 Aug 2050 02:01:18 GMT", "Thu, 18  Aug  2050 02:01:18 GMT"),
        *("Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 02.01.18 GMT", "Thu, 18 Aug 2050 2:01:18 GMT"),
        *("Thu, 18 Aug 2050 02:01:18 AEST", "Thu, 18 Aug 2050 02:01:18 +0000", "Thu, 18 Aug 2050 02:01:18"),
        *("Thu, 31 Feb 2050 02:01:18 GMT", "Thu, 18 Aug 2050 25:01:18 GMT", "x" * 5000, "", "0"),
    ],
)
def test_no_dates(text: str) -> None:
    """RFC 9110 section 5.6.7: three forms and no other; of zones there is GMT (RFC 9111 section 4.2)."""
    assert http_date(text, NOW) is None


def test_short_years() -> None:
    """RFC 9110 section 5.6.7: a year of two digits that seems more than 50 years ahead lies in the past."""
    for short, year in (("23", "2023"), ("73", "2073"), ("74", "1974")):
        long = http_date(f"Mon, 06 Nov {year} 08:49:37 GMT", NOW)
        assert http_date(f"Monday, 06-Nov-{short} 08:49:37 GMT", NOW) == long is not None


@given(st.integers(0, 4_000_000_000))
def test_dates_come_back(when: int) -> None:
    """RFC 9110 section 5.6.7: what is sent as a date is read as that date."""
    assert http_date(format_date(when), NOW) == when


@given(st.text('max-age=," \t\\;?019no-cachestore', max_size=40), st.text("=\"',;?10a-b *&", max_size=30))
def test_anything_can_be_read(text: str, cdn: str) -> None:
    """RFC 9111 section 5.2.3: whatever comes is read, and nothing of it is fresh without an end."""
    seconds = life(("cache-control", text), ("cdn-cache-control", cdn))
    assert 0 <= seconds <= MOST_SECONDS
    assert math.isfinite(seconds)
