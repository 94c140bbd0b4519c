"""Which stored response a request selects, and whether it may be used: values in, decisions out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.http.directives import of_request
from regcache.http.fields import format_date
from regcache.http.held import FOLLOWED, Followed, Held, chosen, demanded, held, rules_of
from regcache.http.messages import Headers, Kind, Stored
from regcache.http.policy import Decision, Refuse, Revalidate, Rules, UseStored, decide
from regcache.http.variants import normal, selecting, vary_names

NOW = 1_700_000_000.0
RULES = Rules(upstream_timeout=5.0, cold_timeout=14.0)
HIT, OFFLINE, BESIDE = UseStored(), UseStored(stale=True), UseStored(stale=True, refresh=True)
ASKED, FORBIDDEN = Revalidate(5.0, stale=True), Revalidate(14.0, stale=True, usable=False)


def fields(*pairs: tuple[str, str]) -> Headers:
    """Header fields."""
    return Headers.of(pairs)


def entry(one: Held) -> Stored:
    """A response as it is stored."""
    return Stored(
        key="r/a",
        registry="r",
        kind=Kind.ARTIFACT,
        headers=one.packed,
        digest="",
        size=3,
        stored_at=NOW,
        validated_at=one.received,
    )


def made(said: str = "", *more: tuple[str, str], status: int = 200, age: float = 0) -> Held:
    """A response that came at ``NOW``."""
    headers = fields(("date", format_date(NOW)), ("cache-control", said), *more)
    return Held(status=status, headers=headers, selecting=(), age=age, received=NOW)


def at(
    seconds: float,
    said: str,
    *more: tuple[str, str],
    request: str = "",
    age: float = 0,
    offline: bool = False,
    spared: bool = False,
    followed: Followed = FOLLOWED,
) -> Decision:
    """What is done for a request so many seconds after a response came."""
    one = made(said, *more, age=age)
    asked = fields(("cache-control", request)) if request else fields()
    rules = demanded(rules_of(Rules(offline=offline), one, followed), of_request(asked), age)
    return decide(entry(one), rules, now=NOW + seconds, mutable=True, spared=spared)


@pytest.mark.parametrize(
    ("said", "seconds", "found"),
    [
        ("max-age=10", 0, HIT),
        ("max-age=10", 9.9, HIT),
        ("max-age=10", 10, ASKED),
        ("max-age=10", -1, ASKED),
        ("max-age=0", 0, ASKED),
        ("", 0, ASKED),
        ("max-age=10, must-revalidate", 9.9, HIT),
        ("max-age=10, must-revalidate", 10, FORBIDDEN),
        ("max-age=10, proxy-revalidate", 10, FORBIDDEN),
        ("s-maxage=10", 9.9, HIT),
        ("s-maxage=10", 10, FORBIDDEN),
        ("no-cache, max-age=10", 0, FORBIDDEN),
        ('no-cache="a", max-age=10', 9.9, HIT),
        ("immutable, max-age=10", 10, ASKED),
        ("public", 0, ASKED),
    ],
)
def test_fresh_or_not(said: str, seconds: float, found: Decision) -> None:
    """RFC 9111 sections 4.2, 4.2.4 and 5.2.2: fresh is used; stale is asked for, and is the spare unless forbidden."""
    assert at(seconds, said) == found


def test_age_counts() -> None:
    """RFC 9111 section 4.2.3: what a response was old when it came is taken off its lifetime."""
    assert at(0, "max-age=10", age=10) == ASKED
    assert at(4, "max-age=10", age=5) == HIT
    assert at(5, "max-age=10", age=5) == ASKED


@pytest.mark.parametrize(
    ("said", "seconds", "found"),
    [
        ("max-age=10, stale-while-revalidate=5", 12, BESIDE),
        ("max-age=10, stale-while-revalidate=5", 15, ASKED),
        ("max-age=10, stale-while-revalidate=5, must-revalidate", 12, FORBIDDEN),
        ("s-maxage=10, stale-while-revalidate=5", 12, FORBIDDEN),
        ("max-age=10, stale-while-revalidate", 12, ASKED),
    ],
)
def test_stale_while_revalidate(said: str, seconds: float, found: Decision) -> None:
    """RFC 5861 section 3: for so long it answers while it is asked for; never where stale is forbidden."""
    assert at(seconds, said) == found
    if "must" not in said and "s-max" not in said:
        assert at(seconds + 5, said, age=-5) == found


@pytest.mark.parametrize(
    ("said", "seconds", "usable"),
    [
        ("max-age=10, stale-if-error=5", 14, True),
        ("max-age=10, stale-if-error=5", 16, False),
        ("max-age=10, stale-if-error=0", 11, False),
        ("max-age=10", 1e9, True),
        ("max-age=10, stale-if-error=5, must-revalidate", 11, False),
    ],
)
def test_stale_if_error(said: str, seconds: float, usable: bool) -> None:
    """RFC 5861 section 4 and RFC 9111 section 4.2.4: for as long as is stated, else as the operator says."""
    found = at(seconds, said)
    assert isinstance(found, Revalidate)
    assert found.usable is usable
    if "stale-if-error" not in said:
        none, some = Followed(stale_if_error=-math.inf), Followed(stale_if_error=60)
        assert at(seconds, said, followed=none) == FORBIDDEN
        assert at(69, said, followed=some) == ASKED
        assert at(71, said, followed=some) == FORBIDDEN


@pytest.mark.parametrize(
    ("said", "found"), [("max-age=10", OFFLINE), ("max-age=10, must-revalidate", Refuse()), ("no-cache", Refuse())]
)
def test_disconnected(said: str, found: Decision) -> None:
    """RFC 9111 sections 4.2.4 and 5.2.2.2: stale is used when nobody can be asked, unless forbidden: an error then."""
    assert at(60, said, offline=True) == found
    assert at(1, "max-age=10, must-revalidate", offline=True) == HIT
    assert at(60, "max-age=10", spared=True) == OFFLINE
    assert at(60, "max-age=10, must-revalidate", spared=True) == FORBIDDEN, "who may not answer has to ask"


@pytest.mark.parametrize(
    ("request_", "seconds", "hit"),
    [
        ("", 50, True),
        ("max-age=60", 50, True),
        ("max-age=40", 50, False),
        ("max-age=0", 0, False),
        ("min-fresh=49", 50, True),
        ("min-fresh=51", 50, False),
        ("max-stale", 1e6, True),
        ("max-stale=20", 119, True),
        ("max-stale=20", 121, False),
        ("no-cache", 0, False),
        ("foo=1", 50, True),
    ],
)
def test_demands(request_: str, seconds: float, hit: bool) -> None:
    """RFC 9111 section 5.2.1: what a client demands makes its answer fresher, or lets it be staler."""
    assert isinstance(at(seconds, "max-age=100", request=request_), UseStored) is hit


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=100", "no-cache"])
def test_max_stale_is_not_above_the_origin(said: str) -> None:
    """RFC 9111 section 4.2.4: what the origin forbids no client can allow."""
    assert at(150, f"max-age=100, {said}", request="max-stale") == FORBIDDEN


def test_demands_count_from_age() -> None:
    """RFC 9111 section 5.2.1.1: max-age speaks of the response's age, which it had some of when it came."""
    assert not isinstance(at(0, "max-age=3600", request="max-age=600", age=1800), UseStored)
    assert isinstance(at(0, "max-age=3600", request="max-age=2000", age=1800), UseStored)
    beside = "max-age=10, stale-while-revalidate=60"
    assert isinstance(at(0, beside, request="max-age=0"), Revalidate), "who insists does not get it beside"


# Variants.


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("foo", "1, 2", "1,2", True),
        ("foo", " 1,\t2 ", "1,2", True),
        ("foo", "1,,2,", "1,2", True),
        ("foo", '"a,  b"', '"a,b"', False),
        ("foo", '"a, b"', '"a,b"', False),
        ("foo", "1,2", "2,1", False),
        ("foo", "a", "A", False),
        ("foo", "1  2", "1 2", True),
        ("accept-language", "en, de", "de,eN", True),
        ("accept-language", "en;q=0.5, de", "en, de;q=0.5", False),
        ("accept-language", "en;q=0.50, de;q=1", "de;Q=1.0,en;q=.5", False),
        ("accept-language", "en;q=0.50, de;q=1", "de;Q=1.0,en;q=0.5", True),
        ("accept-encoding", "gzip, br", "br,gzip;q=1", True),
        ("accept", "text/html;level=1", "text/html;level=2", False),
        ("accept", "", "*/*", False),
    ],
)
def test_normal_forms(name: str, one: str, other: str, same: bool) -> None:
    """RFC 9111 section 4.1: values that mean the same select the same."""
    assert (normal(name, one) == normal(name, other)) is same


@given(st.sampled_from(("foo", "accept", "accept-language")), st.text("abA,;q=.01 \t", max_size=30))
def test_normal_forms_are_normal(name: str, text: str) -> None:
    """RFC 9111 section 4.1: what is in normal form already is not changed."""
    assert normal(name, normal(name, text)) == normal(name, text)


def variant(when: float, vary: str, *request: tuple[str, str], status: int = 200, part: str = "") -> Held:
    """A response to a request with these fields, made and received then."""
    pairs = [("date", format_date(when)), ("vary", vary)]
    headers = fields(*pairs, *([("content-range", part)] if part else []))
    return Held.of(status, headers, fields(*request), when, when)


def test_selecting() -> None:
    """RFC 9111 section 4.1: all fields that Vary names have to match; one that is absent is not one that is empty."""
    one = variant(NOW, "Foo, BAR", ("foo", "1"), ("baz", "9"))
    assert vary_names(one.headers) == ("bar", "foo")
    assert one.selecting == (("bar", None), ("foo", "1"))
    for request, match in (
        ((("foo", "1"),), True),
        ((("foo", "1"), ("baz", "7")), True),
        ((("foo", "2"),), False),
        ((), False),
        ((("foo", "1"), ("bar", "")), False),
    ):
        assert one.matches(fields(*request)) is match
    assert selecting(("foo",), fields(("foo", "1"), ("foo", "2"))) == (("foo", "1,2"),)


def test_the_latest_of_several() -> None:
    """RFC 9111 section 4: of several that a request selects the one with the latest Date."""
    old, new = variant(NOW, "", status=200), variant(NOW + 9, "foo", ("foo", "1"))
    both = fields(("foo", "1"))
    assert chosen([old, new], both) is new
    assert chosen([new, old], both) is new
    assert chosen([old, new], fields()) is old
    assert chosen([], fields()) is None


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("", False),
        ("bytes=4-8", True),
        ("bytes=5-6", True),
        ("bytes=-3", False),
        ("bytes=3-5", False),
        ("bytes=4-9", False),
        ("bytes=8-", False),
        ("bytes=20-", False),
        ("bytes=4-5,7-8", False),
        ("lines=4-5", False),
    ],
)
def test_a_part_is_no_whole(wanted: str, fits: bool) -> None:
    """RFC 9111 section 3.3: a part answers only for bytes that are all within it."""
    part = variant(NOW, "", status=206, part="bytes 4-8/10")
    request = fields(("range", wanted)) if wanted else fields()
    assert (chosen([part], request) is part) is fits
    for condition in ("if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"):
        assert chosen([part], fields(*request, (condition, '"a"'))) is None, "it may be of another version"


@given(
    st.sampled_from((200, 206, 404)),
    st.lists(st.tuples(st.sampled_from(("a", "b", "vary")), st.text("a:b ,\xe9", max_size=9)), max_size=6),
    st.lists(st.tuples(st.sampled_from(("a", "b")), st.text("a:b ,", max_size=9)), max_size=3),
    st.floats(0, 1e9),
)
def test_what_is_stored_comes_back(
    status: int, headers: list[tuple[str, str]], request: list[tuple[str, str]], age: float
) -> None:
    """RFC 9111 section 3: an entry of the store holds all of a response."""
    one = Held.of(status, fields(*headers), fields(*request), NOW - age, NOW)
    back = held(entry(one))
    assert (back.status, back.headers, back.selecting, back.received) == (
        one.status,
        one.headers,
        one.selecting,
        one.received,
    )
    assert back.age == pytest.approx(one.age, abs=0.001)
    assert back.size == 3
