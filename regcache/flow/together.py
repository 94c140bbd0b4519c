"""
What is done together at the end of a turn of the reactor's.

Between two things of one kind the kernel and others push out of the processor's own memory what the next one needs; and
what is asked of the index at once takes less than what is asked one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

from regcache.logs import Log

__all__ = ["Together", "each"]

_log = Log()
#: What is done together: nobody waits for more others than that.
_MOST = 32
T = TypeVar("T")


class Together(Generic[T]):
    """
    What is to be done in this turn.

    :param clock: calls back at the end of the turn.
    :param work: does it, in the order in which it came.
    """

    def __init__(self, clock: IReactorTime, work: Callable[[list[T]], object]) -> None:
        self._clock, self._work = clock, work
        self._waiting: list[T] = []
        self._timed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: T) -> None:
        """Have that done, with others."""
        self._waiting.append(one)
        if len(self._waiting) >= _MOST:
            self.finish()
        elif not self._timed:
            self._timed = True
            self._clock.callLater(0, self._turned)

    def _turned(self) -> None:
        self._timed = False
        self.finish()

    def finish(self) -> None:
        """Do what there is now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._work(waiting)


def each(calls: Iterable[tuple[Callable[..., object], tuple[Any, ...]]]) -> None:
    """Call each with what it is to be told: a bug in one, which the log tells, keeps no other waiting."""
    for call, told in calls:
        try:
            call(*told)
        except Exception:
            _log.failure("A bug ended what was done together with others.")
