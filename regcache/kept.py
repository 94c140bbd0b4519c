"""Stored files that are kept open for the answers that are ready: their bytes leave through the kernel, uncopied."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regcache.errors import RegCacheError
from regcache.flow.sending import read_at_once
from regcache.flow.sockets import PlainSocket
from regcache.interfaces import IBody, IStoredBody

__all__ = ["Kept", "OpenFiles"]

#: Bytes of a body for which it pays: fewer are sent sooner from memory, with their head.
_LEAST = 24 << 10
#: Seconds between two looks for files that nobody has asked for since the last one.
_EVERY = 30.0
#: Seconds for which bytes that are sent over and over are taken to stay in the kernel's memory.
_WARM_SECONDS = 1.0


class Kept:
    """
    The body of an answer, in a file.

    States: *closed* (its file is opened when it is next asked for), *open*.

    :param body: the stored body; it stays with whoever has it.
    :param start: the first byte that is sent of it.
    :ivar used: whether it was asked for since the last look.
    """

    def __init__(self, files: OpenFiles, body: Any, start: int, length: int) -> None:
        self.used = False
        self._files, self._again = files, body.again
        self._start, self._length = start, length
        self._body: Any = None
        self._warm_from = -math.inf

    def __len__(self) -> int:
        return self._length

    def is_at_hand(self, now: float) -> bool:
        """
        Whether it can be sent at once. If not, its answer is not ready: the slow way opens the file, and waits for it.

        :param now: by the wall clock.
        """
        self.used = True
        if self._warm_from <= now < self._warm_from + _WARM_SECONDS:
            return True
        if self._body is None and not self._open():
            return False
        self._warm_from = now if self._body.is_warm(self._start, self._length) else -math.inf
        return self._warm_from == now

    def _open(self) -> bool:
        if not self._files.have_room:
            return False
        try:
            self._body = self._again()
        except RegCacheError:
            return False
        self._files.opened(self)
        return True

    def put(self, socket: PlainSocket, head: bytes) -> int:
        """Write a head and what the socket takes of the body behind it: how many bytes of both."""
        return socket.put_before(head, self._body, self._start, self._length)

    def read(self, at: int) -> bytes | None:
        """The bytes from there on, if they can be had at once."""
        return read_at_once(self._body, self._start + at, self._length - at)

    def rest(self, at: int) -> tuple[IBody, int, int]:
        """The body, from where on and as far as it is to be sent; to be closed by whoever gets it, who may wait."""
        body, self._body = self._body, None
        self.close()
        return body, self._start + at, self._start + self._length

    def close(self) -> None:
        """The file is let go. Harmless when repeated."""
        body, self._body = self._body, None
        self._warm_from = -math.inf
        self._files.closed(self)
        if body is not None:
            body.close()


class OpenFiles:
    """
    Those files, so many at most.

    One that nobody has asked for since the last look is closed at the next: what was evicted, or replaced, takes no
    room on the disk for longer than a minute.

    :param most: descriptors.
    """

    def __init__(self, most: int, clock: IReactorTime) -> None:
        self._most, self._clock = most, clock
        self._open: set[Kept] = set()
        self._timer: IDelayedCall | None = None

    @property
    def have_room(self) -> bool:
        """Whether one more may be opened."""
        return len(self._open) < self._most

    def keep(self, body: object, start: int, length: int) -> Kept | None:
        """A part of a stored body to be sent from its file, if that pays and can be done; nothing is opened yet."""
        if length < _LEAST or not self.have_room or not IStoredBody.providedBy(body):
            return None
        stored: Any = body
        return Kept(self, stored, start, length) if stored.is_warm(start, length) else None

    def opened(self, one: Kept) -> None:
        """One has opened its file."""
        self._open.add(one)
        if self._timer is None:
            self._timer = self._clock.callLater(_EVERY, self._look)

    def closed(self, one: Kept) -> None:
        """One has closed it."""
        self._open.discard(one)

    def _look(self) -> None:
        self._timer = None
        for one in list(self._open):
            if not one.used:
                one.close()
            one.used = False
        if self._open:
            self._timer = self._clock.callLater(_EVERY, self._look)

    def close(self) -> None:
        """Close all of them, and let no more be opened."""
        self._most = 0
        for one in list(self._open):
            one.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
