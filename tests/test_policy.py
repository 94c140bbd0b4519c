"""The cache's decisions."""

from __future__ import annotations

import math

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from regcache.http.messages import Kind, Stored
from regcache.http.policy import Decision, Fetch, Gone, Refuse, Revalidate, Rules, UseStored, age_of, decide

RULES = Rules(ttl=100, refresh_after=10, negative_ttl=5)
BRIEF, LONG = Revalidate(0.3), Revalidate(5.0, stale=True)
ENTRY = Stored(
    key="pypi/simple/a", registry="pypi", kind=Kind.DOCUMENT, digest="0" * 64, size=1, stored_at=900, validated_at=1000
)


def at(age: float, rules: Rules = RULES, *, mutable: bool = True, spared: bool = False, withdrawn: int = 0) -> Decision:
    """The decision on an entry that the upstream vouched for ``age`` seconds ago."""
    stored = replace(ENTRY, withdrawn=withdrawn)
    return decide(stored, rules, now=ENTRY.validated_at + age, mutable=mutable, spared=spared)


def test_nothing_stored() -> None:
    """Without a copy the upstream is asked, in trouble or not, and offline nobody is."""
    for mutable in (True, False):
        for spared in (True, False):
            assert decide(None, RULES, now=0, mutable=mutable, spared=spared) == Fetch()
            assert decide(None, evolve(RULES, offline=True), now=0, mutable=mutable, spared=spared) == Refuse()


@pytest.mark.parametrize(
    ("age", "decision"),
    [
        (0, UseStored()),
        (9.999, UseStored()),
        (10, BRIEF),
        (99.999, BRIEF),
        (100, LONG),
        (1e12, LONG),
        (-0.001, LONG),
        (-1e12, LONG),
    ],
)
def test_ages(age: float, decision: Decision) -> None:
    """A copy is used, then revalidated briefly, then with patience; one from the future is as old as can be."""
    assert at(age) == decision


@pytest.mark.parametrize("age", [0, 10, 100, 1e9, -1])
def test_immutable(age: float) -> None:
    """What cannot change is used for ever, by whatever clock, online and off."""
    assert at(age, mutable=False) == UseStored()
    assert at(age, mutable=False, spared=True) == UseStored()
    assert at(age, evolve(RULES, offline=True), mutable=False) == UseStored()


@pytest.mark.parametrize(("age", "stale"), [(0, False), (10, False), (99.9, False), (100, True), (-1, True)])
def test_spared_and_offline(age: float, stale: bool) -> None:
    """While its upstream is in trouble, or nobody may be asked, a copy answers alone and says when it is stale."""
    assert at(age, spared=True) == UseStored(stale=stale)
    assert at(age, evolve(RULES, offline=True)) == UseStored(stale=stale)


def test_refresh_off() -> None:
    """Without a time to refresh after, a copy answers alone until the end of its lifetime."""
    rules = evolve(RULES, refresh_after=None)
    assert at(99.9, rules) == UseStored()
    assert at(100, rules) == LONG


def test_refresh_later_than_lifetime() -> None:
    """A time to refresh after that lies past the lifetime does not lengthen it."""
    rules = evolve(RULES, refresh_after=1000)
    assert at(99.9, rules) == UseStored()
    assert at(100, rules) == LONG


def test_no_time_at_all() -> None:
    """A time to refresh after of nought asks at every request; a lifetime of nought trusts no copy alone."""
    assert at(0, evolve(RULES, refresh_after=0)) == BRIEF
    assert at(0, evolve(RULES, ttl=0)) == LONG


@pytest.mark.parametrize("status", [404, 410, 451])
def test_withdrawn(status: int) -> None:
    """What was withdrawn is gone for the negative lifetime, and asked for again after it."""
    assert at(0, withdrawn=status) == Gone(status)
    assert at(4.999, withdrawn=status) == Gone(status)
    assert at(5, withdrawn=status) == LONG
    assert at(-1, withdrawn=status) == LONG
    assert at(5, withdrawn=status, mutable=False) == LONG
    assert at(0, evolve(RULES, negative_ttl=0), withdrawn=status) == LONG


def test_withdrawn_stays_so_until_the_upstream_says_else() -> None:
    """A withdrawn copy answers nothing, offline or not; so an upstream in trouble is still asked for it."""
    assert at(1e6, spared=True, withdrawn=404) == LONG
    assert at(1e6, evolve(RULES, offline=True), withdrawn=404) == Gone(404)


def test_age() -> None:
    """The age counts from when the upstream last vouched for the entry, not from when it was stored."""
    assert age_of(ENTRY, 1003) == 3
    assert age_of(ENTRY, 1000) == 0
    assert age_of(ENTRY, 999.5) == math.inf


SECONDS = st.floats(0, 1e7)
EVERY_RULE = st.builds(
    Rules, ttl=SECONDS, refresh_after=st.none() | SECONDS, negative_ttl=SECONDS, offline=st.booleans()
)


@given(EVERY_RULE, st.floats(-1e7, 1e7), st.booleans(), st.booleans(), st.sampled_from([0, 404, 410, 451]))
def test_what_always_holds(rules: Rules, age: float, mutable: bool, spared: bool, withdrawn: int) -> None:
    """Whatever the rules: no fetch while there is a copy, no question offline, staleness is told, waits are bounded."""
    decision = at(age, rules, mutable=mutable, spared=spared, withdrawn=withdrawn)
    assert isinstance(decision, (UseStored, Revalidate, Gone))
    if rules.offline or (spared and not withdrawn):
        assert not isinstance(decision, Revalidate)
    if isinstance(decision, Gone):
        assert decision.status == withdrawn
    else:
        assert mutable or withdrawn or decision == UseStored()
    if mutable and not withdrawn and isinstance(decision, (UseStored, Revalidate)):
        actual = ENTRY.validated_at + age - ENTRY.validated_at  # the difference as the clock can tell it
        assert decision.stale is (actual < 0 or actual >= rules.ttl)
    if isinstance(decision, Revalidate):
        assert decision.wait == (rules.upstream_timeout if decision.stale else rules.brief_wait)


@given(EVERY_RULE, st.floats(0, 1e7), st.floats(0, 1e7))
def test_older_is_never_trusted_more(rules: Rules, one: float, other: float) -> None:
    """As a copy ages, it is only ever trusted less."""

    def rank(age: float) -> tuple[bool, bool]:
        decision = at(age, rules)
        assert isinstance(decision, (UseStored, Revalidate))
        return isinstance(decision, Revalidate), decision.stale

    younger, older = sorted((one, other))
    assert rank(younger) <= rank(older)
