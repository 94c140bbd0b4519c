"""
What is counted while requests are answered: plain numbers, which cost a hit next to nothing.

They are made into samples when somebody asks for them, see :mod:`regcache.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from attrs import define, field

from regcache.failures import Failures

__all__ = ["OTHER", "SPARED", "Answers", "Asked", "Counts", "Histogram"]

#: What takes the place of an upstream that is not configured: a host of artifacts, or one that a redirect led to.
OTHER = "other"
#: The outcomes that cost the upstream no body.
SPARED = ("hit", "stale", "revalidated")
#: Upper bounds in seconds: of what comes from memory up to what waits for the whole of a cold timeout.
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
_LAGS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@define
class Histogram:
    """
    How many values fell into which range.

    :ivar bounds: the upper bound of each range, which belongs to it; one more range has none.
    :ivar counts: how many values each range has.
    :ivar total: their sum.
    """

    bounds: tuple[float, ...] = _SECONDS
    counts: list[int] = field(init=False)
    total: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@define
class Answers:
    """
    The requests of one registry that ended in one way.

    :ivar seconds: how long each took, from its head to the last byte.
    :ivar sent: bytes of their bodies.
    """

    seconds: Histogram = field(factory=Histogram)
    sent: int = 0

    def add(self, seconds: float, sent: int) -> None:
        """One more is over."""
        times = self.seconds
        times.counts[bisect_left(times.bounds, seconds)] += 1
        times.total += seconds
        self.sent += sent


@define
class Asked:
    """
    The requests to one upstream.

    :ivar seconds: how long each took from when it was sent until the head of its answer; failures are not among them.
    :ivar errors: how many had no answer, or 429, or a status from 500 on.
    :ivar received: bytes of bodies that came.
    :ivar succeeded_at: when one had another answer, by the monotonic clock; None for never.
    :ivar failed_at: likewise, when one of the errors was.
    """

    seconds: Histogram = field(factory=Histogram)
    errors: int = 0
    received: int = 0
    succeeded_at: float | None = None
    failed_at: float | None = None

    def failed(self, now: float) -> None:
        """There was no answer, or no good one."""
        self.errors += 1
        self.failed_at = now

    def answered(self, status: int, seconds: float, now: float) -> None:
        """An answer's head came after so many seconds."""
        self.seconds.observe(seconds)
        if status >= 500 or status == 429:
            self.failed(now)
        else:
            self.succeeded_at = now


@define(eq=False)
class Counts:
    """
    The numbers of one service, from its start on.

    :param origins: the upstreams that are told apart.
    :ivar answers: by registry and outcome.
    :ivar coalesced: requests that waited for what another had asked the upstream for, by registry.
    :ivar upstreams: by origin, with one for all others.
    :ivar unverified: bodies that were not what the registry vouches for, when they came.
    :ivar damaged: stored bodies that were found damaged.
    :ivar evicted: entries that made room for others.
    :ivar lag: seconds by which the reactor was late.
    :ivar failures: what could not be had from registries lately.
    """

    origins: Iterable[str] = ()
    answers: dict[tuple[str, str], Answers] = field(factory=dict, init=False)
    coalesced: Counter[str] = field(factory=Counter, init=False)
    upstreams: dict[str, Asked] = field(init=False)
    unverified: int = field(default=0, init=False)
    damaged: int = field(default=0, init=False)
    evicted: int = field(default=0, init=False)
    lag: Histogram = field(factory=lambda: Histogram(_LAGS), init=False)
    failures: Failures = field(factory=Failures, init=False)

    def __attrs_post_init__(self) -> None:
        self.upstreams = {origin: Asked() for origin in (*self.origins, OTHER)}

    def answers_of(self, registry: str, outcome: str) -> Answers:
        """
        Where the requests of a registry are counted that end in one way.

        :param registry: one that is served; all else would make numbers without bound.
        """
        found = self.answers.get((registry, outcome))
        if found is None:
            found = self.answers[registry, outcome] = Answers()
        return found

    def follow(self, origins: Iterable[str]) -> None:
        """Tell these upstreams apart from now on, and forget those that are not configured any more."""
        self.upstreams = {origin: self.upstreams.get(origin) or Asked() for origin in (*origins, OTHER)}

    def number(self, registry: str, *outcomes: str) -> int:
        """How many requests of a registry ended in one of these ways."""
        found = (self.answers.get((registry, outcome)) for outcome in outcomes)
        return sum(sum(one.seconds.counts) for one in found if one is not None)

    def spared(self, registry: str) -> int:
        """Bytes sent to clients that a registry's upstream did not have to send."""
        found = (self.answers.get((registry, outcome)) for outcome in SPARED)
        return sum(one.sent for one in found if one is not None)

    def upstream(self, origin: str) -> Asked:
        """The numbers of the upstream at an origin."""
        return self.upstreams.get(origin) or self.upstreams[OTHER]
