"""
The cache's decisions, as values: what to do for a request, given what is stored and what time it is.

Nothing here waits, reads or writes: :func:`decide` says what should happen and :mod:`regcache.flow` makes it happen.
"""

from __future__ import annotations

import math

from attrs import frozen

from regcache.http.messages import Stored

__all__ = [
    "Decision",
    "Fetch",
    "Gone",
    "Refuse",
    "Revalidate",
    "Rules",
    "UseStored",
    "age_of",
    "decide",
    "settled_until",
]


@frozen(kw_only=True, cache_hash=True)
class Rules:
    """
    What the operator allows, all in seconds.

    :ivar ttl: how long a mutable entry can answer without the upstream.
    :ivar refresh_after: the age past which it is revalidated beside answering; None for never before ``ttl``.
    :ivar negative_ttl: how long "there is none" holds.
    :ivar upstream_timeout: the most a client waits when a stored copy could answer.
    :ivar cold_timeout: the most a client waits for the first byte when none could.
    :ivar brief_wait: the most a client waits for the revalidation of an entry that is still fresh.
    :ivar offline: whether the upstream must never be asked.
    :ivar beside_for: the age up to which an entry that is past ``ttl`` answers while it is revalidated beside (RFC 5861
        section 3).
    :ivar usable_for: the age up to which an entry may answer when the upstream does not (RFC 9111 section 4.2.4).
    """

    ttl: float = 86400.0
    refresh_after: float | None = 600.0
    negative_ttl: float = 60.0
    upstream_timeout: float = 5.0
    cold_timeout: float = 14.0
    brief_wait: float = 0.3
    offline: bool = False
    beside_for: float = 0.0
    usable_for: float = math.inf


@frozen
class UseStored:
    """
    Answer from the store.

    :ivar stale: whether the entry is past its lifetime, which the client is told.
    :ivar refresh: whether the upstream is to be asked beside.
    """

    stale: bool = False
    refresh: bool = False


@frozen
class Revalidate:
    """
    Ask the upstream whether the stored copy still holds, and answer with the copy when it does not say in time.

    :ivar wait: seconds a client waits for the complete answer, counted from when the asking began.
    :ivar stale: whether the copy is past its lifetime.
    :ivar usable: whether the copy may answer at all when the upstream does not.
    """

    wait: float
    stale: bool = False
    usable: bool = True


@frozen
class Fetch:
    """Ask the upstream; there is nothing to answer with otherwise."""


@frozen
class Refuse:
    """Nothing is stored and nobody may be asked."""


@frozen
class Gone:
    """
    The upstream has withdrawn what is stored.

    :ivar status: 404, 410 or 451, as it said.
    """

    status: int


Decision = UseStored | Revalidate | Fetch | Refuse | Gone


def age_of(stored: Stored, now: float) -> float:
    """
    Seconds since the upstream last vouched for the entry.

    A time that lies in the future says that a clock was wrong; such an entry is as old as can be.
    """
    age = now - stored.validated_at
    return age if age >= 0 else math.inf


def decide(stored: Stored | None, rules: Rules, *, now: float, mutable: bool, spared: bool) -> Decision:
    """
    What to do for a request.

    :param stored: the entry for it, if there is one.
    :param now: the wall clock.
    :param mutable: whether the upstream may change it under the same name. What may not change needs no
        revalidation, ever (RFC 8246).
    :param spared: whether the upstream is known to be in trouble, so that a request that can be answered without
        it is.
    """
    if stored is None:
        return Refuse() if rules.offline else Fetch()
    age = age_of(stored, now)
    expired = age >= rules.ttl
    if stored.withdrawn:
        # A withdrawn copy cannot answer, so nothing would be spared by not asking.
        silent = rules.offline or age < rules.negative_ttl
        return Gone(stored.withdrawn) if silent else Revalidate(rules.upstream_timeout, stale=True)
    if not mutable:
        return UseStored()
    refresh_after = rules.ttl if rules.refresh_after is None else min(rules.refresh_after, rules.ttl)
    usable = not expired or age <= rules.usable_for
    if age < refresh_after or ((rules.offline or spared) and usable):
        return UseStored(stale=expired)
    if rules.offline:
        return Refuse()
    if age < rules.beside_for:
        return UseStored(stale=expired, refresh=True)
    if not usable:
        return Revalidate(rules.cold_timeout, stale=True, usable=False)
    return Revalidate(rules.upstream_timeout if expired else rules.brief_wait, stale=expired)


def settled_until(stored: Stored, rules: Rules, *, mutable: bool) -> float:
    """
    Until when :func:`decide` says to use an entry, and not as a stale one, whatever the upstream does meanwhile.

    It says so from when the upstream vouched for the entry on, unless it is withdrawn.

    :returns: seconds by the wall clock.
    """
    if stored.withdrawn:
        return -math.inf
    if not mutable:
        return math.inf
    first = rules.ttl if rules.offline or rules.refresh_after is None else min(rules.refresh_after, rules.ttl)
    return stored.validated_at + first
