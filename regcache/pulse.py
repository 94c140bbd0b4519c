"""A timer that shows that the reactor turns, and how late."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Pulse"]


class Pulse:
    """
    Beats as long as the reactor turns; whoever starts it has to stop it.

    :param clock: timers and monotonic seconds.
    :param every: seconds between two beats.
    :param beat: told at each one by how many seconds it is late.
    """

    def __init__(self, clock: IReactorTime, every: float, beat: Callable[[float], object]) -> None:
        self._clock, self._every, self._beat = clock, every, beat
        self._due = 0.0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Beat from now on, the first time after one interval."""
        self._due = self._clock.seconds() + self._every
        self._timer = self._clock.callLater(self._every, self._now)

    def _now(self) -> None:
        late = self._clock.seconds() - self._due
        self.start()
        self._beat(max(late, 0.0))

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
