"""
The circuit breaker: which upstreams are in trouble, so that requests that can do without them are spared the wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

__all__ = ["MOST_HOLD", "Breaker"]

#: Errors in a row that open the breaker, where one is not proof enough.
_STREAK = 3
#: Seconds between probes while it is open.
_PROBE_EVERY = 10.0
#: Seconds for which an error on one key holds that key only.
_KEY_HOLD = 10.0
#: The longest that an upstream's Retry-After is believed.
MOST_HOLD = 600.0
_MOST_KEYS = 10_000
#: Hosts whose trouble is remembered: a page may name as many as it likes below an allowed domain.
_MOST_ORIGINS = 1000


@define
class _Origin:
    streak: int = 0
    open: bool = False
    next_probe: float = 0.0


@define
class Breaker:
    """
    One state an origin: *closed* (all is well), or *open* after a connect failure, a timeout or three errors in a
    row, until one success.

    While it is open, a probe is due every ten seconds; requests that have no stored copy are never held. An error on
    one key alone holds that key for ten seconds. An origin that is merely *slow* is not waited for by requests whose
    stored copy is fresh, for ten seconds.

    :ivar now: a monotonic clock, in seconds.
    """

    now: Callable[[], float]
    _origins: dict[str, _Origin] = field(factory=dict)
    _held: dict[str, float] = field(factory=dict)
    _slow: dict[str, float] = field(factory=dict)

    def spares(self, origin: str, key: str) -> bool:
        """Whether a request that has a stored copy should do without this origin now."""
        now = self.now()
        held = self._held.get(key)
        if held is not None:
            if now < held:
                return True
            del self._held[key]
        return self.is_open(origin)

    def probe(self, origin: str) -> bool:
        """Whether it is time to see if the origin has recovered; whoever asks is the one to do it."""
        state, now = self._origins.get(origin), self.now()
        if state is None or not state.open or now < state.next_probe:
            return False
        state.next_probe = now + _PROBE_EVERY
        return True

    def is_open(self, origin: str) -> bool:
        """Whether this origin is known to be in trouble."""
        state = self._origins.get(origin)
        return state is not None and state.open

    def is_slow(self, origin: str) -> bool:
        """Whether somebody waited for this origin in vain a moment ago."""
        until = self._slow.get(origin)
        if until is not None and self.now() >= until:
            del self._slow[origin]
        return origin in self._slow

    def lagged(self, origin: str) -> None:
        """The origin took longer than a request with a fresh copy waits."""
        _make_room(self._slow, origin, _MOST_ORIGINS)
        self._slow[origin] = self.now() + _KEY_HOLD

    def succeeded(self, origin: str) -> None:
        """The origin answered: whatever was wrong with it is over."""
        self._origins.pop(origin, None)

    def broke(self, origin: str) -> bool:
        """No connection, or no answer in time. True if that opened the breaker."""
        state = self._state(origin)
        opened = not state.open
        state.open = True
        state.next_probe = self.now() + _PROBE_EVERY
        return opened

    def erred(self, origin: str, key: str, hold: float | None = None) -> bool:
        """An error status for one key. True if that was the one too many that opened the breaker."""
        _make_room(self._held, key, _MOST_KEYS)
        self._held[key] = self.now() + min(max(hold or 0.0, _KEY_HOLD), MOST_HOLD)
        state = self._state(origin)
        state.streak += 1
        return self.broke(origin) if state.streak >= _STREAK and not state.open else False

    def _state(self, origin: str) -> _Origin:
        _make_room(self._origins, origin, _MOST_ORIGINS)
        return self._origins.setdefault(origin, _Origin())


def _make_room(table: dict[str, Any], name: str, most: int) -> None:
    """See that one more fits in: what was put there first is forgotten."""
    if name not in table and len(table) >= most:
        del table[next(iter(table))]
