"""The cache's decisions."""

from __future__ import annotations

from attrs import evolve

from regcache.http.messages import Kind, Stored
from regcache.http.policy import Fetch, Gone, Refuse, Revalidate, Rules, UseStored, decide

RULES = Rules(ttl=100, refresh_after=10, negative_ttl=5)
ENTRY = Stored(
    key="pypi/simple/a", registry="pypi", kind=Kind.DOCUMENT, digest="0" * 64, size=1, stored_at=1000, validated_at=1000
)


def test_nothing_stored() -> None:
    """Without a copy the upstream is asked, and offline nobody is."""
    assert decide(None, RULES, now=0, mutable=True, spared=False) == Fetch()
    assert decide(None, evolve(RULES, offline=True), now=0, mutable=True, spared=False) == Refuse()


def test_ages() -> None:
    """A copy is used, then revalidated briefly, then revalidated with patience, as it ages."""
    assert decide(ENTRY, RULES, now=1009, mutable=True, spared=False) == UseStored()
    assert decide(ENTRY, RULES, now=1010, mutable=True, spared=False) == Revalidate(0.3)
    assert decide(ENTRY, RULES, now=1100, mutable=True, spared=False) == Revalidate(5.0, stale=True)


def test_spared_and_immutable() -> None:
    """A copy answers alone while its upstream is in trouble, and always when it cannot change."""
    assert decide(ENTRY, RULES, now=1100, mutable=True, spared=True) == UseStored(stale=True)
    assert decide(ENTRY, RULES, now=9999, mutable=False, spared=False) == UseStored()


def test_the_future_is_expired() -> None:
    """A copy stored in the future is as old as can be."""
    assert decide(ENTRY, RULES, now=10, mutable=True, spared=False) == Revalidate(5.0, stale=True)


def test_withdrawn() -> None:
    """What was withdrawn is gone for the negative lifetime, and asked for again after it."""
    gone = evolve(ENTRY, withdrawn=404)
    assert decide(gone, RULES, now=1004, mutable=True, spared=False) == Gone(404)
    assert decide(gone, RULES, now=1006, mutable=True, spared=False) == Revalidate(5.0, stale=True)
