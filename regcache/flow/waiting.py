"""Waiting for one thing by many: a Deferred each, so that nobody's cancelling disturbs another."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from regcache.logs import Log

__all__ = ["Deadlines", "Outcome", "spawn", "within"]

T = TypeVar("T")
_log = Log()


class Outcome(Generic[T]):
    """
    A result that is known once and waited for by any number.

    States: *open* (nothing known; waiters are kept), *known* (a value or a failure; waiters are answered at once).
    """

    # There are several of each body that comes, most of which nobody waits for.
    __slots__ = ("_known", "_told", "_waiters")

    def __init__(self) -> None:
        self._waiters: list[Deferred[T]] | None = None
        self._told: list[Callable[[T | None, Failure | None], object]] | None = None
        self._known: tuple[T | None, Failure | None] | None = None

    @classmethod
    def of(cls, value: T) -> Outcome[T]:
        """One that is known."""
        made = cls()
        made._known = (value, None)
        return made

    @property
    def succeeded(self) -> bool:
        """Whether there is a value."""
        return self._known is not None and self._known[1] is None

    @property
    def value(self) -> T | None:
        """The value if there is one; None as long as nothing is known, and after a failure."""
        return None if self._known is None else self._known[0]

    @property
    def known(self) -> bool:
        """Whether there is a result."""
        return self._known is not None

    def wait(self) -> Deferred[T]:
        """The result, on a Deferred of the caller's own; cancelling it only ends the waiting."""
        if self._known is not None:
            value, failure = self._known
            return fail(failure) if failure is not None else succeed(value)  # type: ignore[arg-type]
        waiter: Deferred[T] = Deferred(self._forget)
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def tell(self, told: Callable[[T | None, Failure | None], object]) -> None:
        """Have a function told the value or the failure, once there is one: for who wants to know, and not to wait."""
        if self._known is not None:
            told(*self._known)
        elif self._told is None:
            self._told = [told]
        else:
            self._told.append(told)

    def succeed(self, value: T) -> None:
        """Make the result known. Only the first result counts."""
        if self._waiters is None and self._told is None and self._known is None:
            # As for most.
            self._known = (value, None)
        else:
            self._settle(value, None)

    def fail(self, reason: Failure | BaseException) -> None:
        """Make known that there will be none. Only the first result counts."""
        self._settle(None, reason if isinstance(reason, Failure) else Failure(reason))

    def _settle(self, value: T | None, failure: Failure | None) -> None:
        if self._known is not None:
            return
        self._known = (value, failure)
        told, self._told = self._told, None
        for one in told or ():
            one(value, failure)
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if failure is not None:
                waiter.errback(failure)
            else:
                waiter.callback(value)  # type: ignore[arg-type]

    def _forget(self, waiter: Deferred[T]) -> None:
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)


def spawn(work: Coroutine[Any, Any, T]) -> Outcome[T]:
    """Start a coroutine that belongs to nobody in particular; its result can be waited for by many, or by none."""
    outcome: Outcome[T] = Outcome()
    Deferred.fromCoroutine(work).addCallbacks(outcome.succeed, outcome.fail)
    return outcome


class Deadlines:
    """
    Ends waits that take too long: one timer for all of them, since nearly all are over before their time.

    There is a timer as long as anybody waits.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # When each is late, by the clock.
        self._ends: dict[Deferred[Any], float] = {}
        self._timer: IDelayedCall | None = None
        # When the timer is due: no later than the first of them is late.
        self._due = math.inf

    async def within(self, seconds: float, waiting: Deferred[T]) -> T:
        """
        What ``waiting`` fires with, if it does within that many seconds.

        :raises TimeoutError: if not; the waiting is cancelled, not the work.
        """
        if waiting.called:
            return await waiting
        seconds = max(seconds, 0)
        ends, end = self._ends, self._clock.seconds() + seconds
        ends[waiting] = end
        if end < self._due:
            self._wake(end, seconds)
        try:
            return await waiting
        except Exception:
            if waiting not in ends:
                raise TimeoutError from None
            raise
        finally:
            ends.pop(waiting, None)
            if not ends:
                self._rest()

    def _wake(self, due: float, seconds: float) -> None:
        self._rest()
        self._due, self._timer = due, self._clock.callLater(seconds, self._look)

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer, self._due = None, math.inf

    def _look(self) -> None:
        """Give up what is late, and look again when the next is."""
        ends, now = self._ends, self._clock.seconds()
        self._rest()
        try:
            for waiting in [waiting for waiting, end in ends.items() if end <= now]:
                # What one of them ends may be another.
                if ends.pop(waiting, None) is not None:
                    waiting.cancel()
        finally:
            # Where one cannot be ended, the others are late in the next turn.
            first = min(ends.values(), default=math.inf)
            if first < self._due:
                self._wake(first, max(first - now, 0))


async def within(clock: IReactorTime, seconds: float, waiting: Deferred[T]) -> T:
    """As :meth:`Deadlines.within`, of one that few others wait beside."""
    return await Deadlines(clock).within(seconds, waiting)
