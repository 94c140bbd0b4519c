"""Commits on their way to the writer: gathered while a burst lasts, so that many share one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regcache.errors import CannotStore
from regcache.http.messages import Stored
from regcache.store.placing import Commit
from regcache.store.writer import Outcome

__all__ = ["Gathering"]

#: Seconds: the pause that ends a burst, and the longest burst. No client waits for a commit, and every job of the
#: writer costs the reactor's thread its turn many times.
_PAUSE, _LONGEST = 0.1, 5.0
_MOST_BYTES = 8 << 20
#: Seconds for which what comes waits for a disk that is behind.
_PATIENCE = 1.0
#: Bytes that each takes beside its body: who waits for it, and its entry.
_EACH = 1 << 12

_Waiting = list[tuple[Commit, Deferred[None]]]


def _weight(commit: Commit) -> int:
    return 0 if commit.body is None else len(commit.body) + _EACH


class Gathering:
    """
    States: *resting* (nothing waits), *gathering* (a timer runs), *writing* (a batch is with the writer; what comes
    meanwhile makes up the next).

    :param write: gives a batch to the writer.
    :param written: told of the entries that can be found now, and of the keys that had to make room.
    :ivar waiting_bytes: of what is held in memory until it is written.
    """

    def __init__(
        self,
        clock: IReactorTime,
        write: Callable[[list[Commit]], Deferred[Outcome]],
        written: Callable[[list[Stored], list[str]], None],
    ) -> None:
        self.waiting_bytes = 0
        self._clock = clock
        self._write = write
        self._tell = written
        self._waiting: _Waiting = []
        self._writing = False
        self._draining = False
        self._timer: IDelayedCall | None = None
        self._began = 0.0
        self._held_up: list[Deferred[None]] = []
        self._limit: IDelayedCall | None = None
        self._slow = False
        self._drained: Deferred[None] | None = None

    def add(self, commit: Commit) -> Deferred[None]:
        """Fires when it is an entry; fails with CannotStore."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((commit, waiter))
        self.waiting_bytes += _weight(commit)
        if self.waiting_bytes >= _MOST_BYTES or self._draining:
            self._flush()
        elif not self._writing:
            self._wait()
        return waiter

    def _wait(self) -> None:
        """Flush once nothing has come for a moment, or something has waited long."""
        now = self._clock.seconds()
        if self._timer is None:
            self._began = now
            self._timer = self._clock.callLater(_PAUSE, self._flush)
        else:
            self._timer.reset(max(min(_PAUSE, self._began + _LONGEST - now), 0))

    def caught_up(self) -> Deferred[None]:
        """
        Fires once a batch has been written, and within a second.

        While one takes longer, nobody else waits: a slow disk costs a second for each batch, and not for each body.
        """
        if self._slow or not self._writing:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._held_up.append(waiter)
        if self._limit is None:
            self._limit = self._clock.callLater(_PATIENCE, self._is_slow)
        return waiter

    def _is_slow(self) -> None:
        self._slow = True
        self._go_on()

    def _go_on(self) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._limit = None
        waiting, self._held_up = self._held_up, []
        for waiter in waiting:
            waiter.callback(None)

    def drain(self) -> Deferred[None]:
        """Write what waits, without delay, now and from now on; fires when nothing waits."""
        self._draining = True
        self._flush()
        if not self._writing:
            return succeed(None)
        self._drained = Deferred()
        return self._drained

    def _flush(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._writing or not self._waiting:
            return
        self._writing = True
        batch, self._waiting = self._waiting, []
        work = self._write([commit for commit, _ in batch])
        work.addCallbacks(self._written, self._unwritten, callbackArgs=(batch,), errbackArgs=(batch,))

    def _written(self, outcome: Outcome, batch: _Waiting) -> None:
        good = [commit.entry for (commit, _), error in zip(batch, outcome.failed, strict=True) if error is None]
        self._tell(good, outcome.dropped)
        self._settle(batch, outcome.failed)

    def _unwritten(self, failure: Any, batch: _Waiting) -> None:
        error = failure.value if isinstance(failure.value, CannotStore) else CannotStore(str(failure.value))
        self._settle(batch, [error] * len(batch))

    def _settle(self, batch: _Waiting, errors: Sequence[CannotStore | None]) -> None:
        self.waiting_bytes -= sum(_weight(commit) for commit, _ in batch)
        self._writing = self._slow = False
        if self._draining or self.waiting_bytes >= _MOST_BYTES:
            self._flush()
        elif self._waiting:
            self._wait()
        for (_, waiter), error in zip(batch, errors, strict=True):
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)
        self._go_on()
        if self._drained is not None and not self._writing:
            # Once: what comes behind the drain may still be refused.
            drained, self._drained = self._drained, None
            drained.callback(None)
