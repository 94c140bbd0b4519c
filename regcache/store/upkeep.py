"""What is done to a store every now and then while it runs, so that it can run for years."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regcache.store.holding import Holding
from regcache.store.writer import Writer

__all__ = ["Upkeep"]

_FIRST_BACKUP, _BACKUP_EVERY = 600.0, 86400.0
_SWEEP_EVERY = 60.0
_SETTLE_EVERY = 60.0
_REST_EVERY = 60.0
#: Seconds between two jobs that look at what a damaged index has left.
_PAUSE = 0.02
#: How many directories the bodies lie in.
_DIRECTORIES = 256


class Upkeep:
    """
    Backs the index up, keeps its log short, looks through the bodies, and puts together what damage has left.

    :param restored: told the keys of entries of a damaged index that are entries again.
    :param failed: told why a job failed.
    """

    def __init__(
        self,
        reactor: Any,
        hold: Holding,
        restored: Callable[[list[str]], None],
        failed: Callable[[Any], None],
    ) -> None:
        self._reactor, self._hold, self._restored, self._failed = reactor, hold, restored, failed
        self._timers: list[Any] = []
        self._sweeps = 0
        self._running = False

    @property
    def has_swept(self) -> bool:
        """Whether all bodies have been looked through since the index was opened."""
        return self._sweeps >= _DIRECTORIES

    def start(self) -> None:
        """Begin."""
        self._running = True
        # It reads the whole index: not while a build may be waiting for the service to come back.
        self._later(_FIRST_BACKUP, self._back_up)
        self.every(_BACKUP_EVERY, self._back_up)
        self.every(_SWEEP_EVERY, self._sweep)
        self.every(_SETTLE_EVERY, self._settle)
        self.every(_REST_EVERY, self._rest)

    def stop(self) -> None:
        """Begin nothing more."""
        self._running = False
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """Do that again and again, until the stop."""

        def again() -> None:
            work()
            if self._running:
                self._later(seconds, again)

        self._later(seconds, again)

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._reactor.callLater(seconds, work))

    def begin_anew(self) -> None:
        """The index is another one: look at what a damaged one has left, and through all bodies."""
        self._sweeps = 0
        self._restore()

    def _restore(self) -> None:
        if self._running and self._hold.writer is not None:
            self._hold.write(Writer.restore).addCallbacks(self._has_restored, self._failed)

    def _has_restored(self, result: tuple[list[str], bool]) -> None:
        keys, more = result
        self._restored(keys)
        if more and self._running:
            self._later(_PAUSE, self._restore)
        else:
            self._swept(False)

    def _back_up(self) -> None:
        self._hold.write(Writer.back_up).addErrback(self._failed)

    def _settle(self) -> None:
        self._hold.write(Writer.settle).addErrback(self._failed)

    def _rest(self) -> None:
        self._hold.write(Writer.rest).addErrback(self._failed)

    def _sweep(self) -> None:
        """Look through one of the directories of bodies, so that all are seen in a few hours."""
        name = f"{self._sweeps % _DIRECTORIES:02x}"
        self._hold.write(Writer.sweep, name).addCallbacks(self._swept, self._failed)

    def _swept(self, whole: bool) -> None:
        self._sweeps += whole
        if self._running and self._hold.partly and not self.has_swept:
            # What lies there without a name may be asked for soon.
            self._later(_PAUSE, self._sweep)
