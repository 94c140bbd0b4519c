"""
What leaves together, at the end of a turn of the reactor's: answers to clients, and requests to registries.

Each that leaves wakes whoever waits for it, and what the kernel does then pushes out of the processor's own memory what
the next one needs: sent one by one, answers from the store took a quarter more. So where there are several by the time
that the reactor looks, they are found one after the other, and sent after that.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from regcache.logs import Log

__all__ = ["Leaver", "Leaving"]

_log = Log()
#: What leaves together: nobody waits for more others than that.
_MOST = 16


class Leaver(Protocol):
    """Who has something to send, on a connection on which nothing else is under way."""

    def leave(self, *pieces: bytes) -> None:
        """Send it now, if there is still somebody to send it to."""


class Leaving:
    """
    What is to leave in this turn.

    :param clock: calls back at the end of the turn.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[tuple[Leaver, tuple[bytes, ...]]] = []
        self._timed = False

    def add(self, leaver: Leaver, *pieces: bytes) -> None:
        """
        Have that sent, which is small.

        Whoever is to do something else there before the turn is over has all of it sent first.
        """
        self._waiting.append((leaver, pieces))
        if len(self._waiting) >= _MOST:
            self.send()
        elif not self._timed:
            self._timed = True
            self._clock.callLater(0, self._turned)

    def _turned(self) -> None:
        self._timed = False
        self.send()

    def send(self) -> None:
        """Send what there is."""
        waiting, self._waiting = self._waiting, []
        for leaver, pieces in waiting:
            try:
                leaver.leave(*pieces)
            except Exception:
                # The others wait for nothing else.
                _log.failure("A bug ended what was to leave.")
