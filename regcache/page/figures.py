"""What the page says in numbers, taken from what the service counts."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from regcache.counts import SPARED
from regcache.flow.context import Context
from regcache.flow.upstream import origins_of
from regcache.interfaces import IRegistry

__all__ = ["STATES", "Figures", "Outcomes", "Upstream", "figures"]

#: The states of an upstream, each with a word for people.
STATES = {
    "ok": "answering",
    "slow": "slow",
    "trouble": "in trouble",
    "unknown": "not asked yet",
    "offline": "not asked: offline",
}


@frozen(kw_only=True)
class Outcomes:
    """
    How requests were answered since the service started.

    :ivar stored: from the store alone, or after the registry said that what is there still holds.
    :ivar stale: from the store, since the registry failed.
    :ivar missed: from the registry.
    :ivar spared: bytes sent that the registry did not have to send.
    """

    stored: int = 0
    stale: int = 0
    missed: int = 0
    spared: int = 0

    @property
    def number(self) -> int:
        """All of them."""
        return self.stored + self.stale + self.missed

    @property
    def share(self) -> float | None:
        """The part that needed no body from the registry; None before there was any."""
        return (self.stored + self.stale) / self.number if self.number else None

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            stored=self.stored + other.stored,
            stale=self.stale + other.stale,
            missed=self.missed + other.missed,
            spared=self.spared + other.spared,
        )


@frozen(kw_only=True)
class Upstream:
    """
    Where a registry is asked.

    :ivar state: one of :data:`STATES`.
    :ivar succeeded: seconds since it answered well; None for never. Likewise ``failed``.
    """

    origin: str
    state: str
    succeeded: float | None
    failed: float | None
    errors: int


@frozen
class Figures:
    """Of each registry that may be told of, by name."""

    outcomes: Mapping[str, Outcomes]
    upstreams: Mapping[str, tuple[Upstream, ...]]


def figures(context: Context, registries: Mapping[str, IRegistry]) -> Figures:
    """How things are now."""
    return Figures(
        {name: _outcomes(context, name) for name in registries},
        {name: tuple(_upstream(context, one) for one in origins_of(made)) for name, made in registries.items()},
    )


def _outcomes(context: Context, name: str) -> Outcomes:
    counts = context.upstream.counts
    return Outcomes(
        stored=counts.number(name, *(outcome for outcome in SPARED if outcome != "stale")),
        stale=counts.number(name, "stale"),
        missed=counts.number(name, "miss"),
        spared=counts.spared(name),
    )


def _upstream(context: Context, origin: str) -> Upstream:
    asked, now = context.upstream.counts.upstream(origin), context.clock.seconds()
    if context.rules.offline:
        state = "offline"
    elif context.breaker.is_open(origin):
        state = "trouble"
    elif context.breaker.is_slow(origin):
        state = "slow"
    else:
        state = "unknown" if asked.succeeded_at is None and asked.failed_at is None else "ok"
    return Upstream(
        origin=origin,
        state=state,
        succeeded=None if asked.succeeded_at is None else now - asked.succeeded_at,
        failed=None if asked.failed_at is None else now - asked.failed_at,
        errors=asked.errors,
    )
