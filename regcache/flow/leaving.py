"""
What leaves together, at the end of a turn of the reactor's: answers to clients, and requests to registries.

Each that leaves wakes whoever waits for it, and what the kernel does then pushes out of the processor's own memory what
the next one needs: sent one by one, answers from the store took a quarter more. So where there are several by the time
that the reactor looks, they are found one after the other, and sent after that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from regcache.flow.together import Together, each

__all__ = ["Leaver", "Leaving"]


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
        self._waiting: Together[tuple[Callable[..., None], tuple[bytes, ...]]] = Together(clock, each)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, leaver: Leaver, *pieces: bytes) -> None:
        """
        Have that sent, which is small.

        Whoever is to do something else there before the turn is over has all of it sent first.
        """
        self._waiting.add((leaver.leave, pieces))

    def send(self) -> None:
        """Send what there is."""
        self._waiting.finish()
