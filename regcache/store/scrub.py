"""
Reading stored bodies again, on a budget, to find those that the disk has changed.

A hit pays nothing for it: a body found wrong is cut to nothing in its place, so that even who is reading it sees a
failed transfer, and its entries go.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regcache.errors import CannotStore
from regcache.logs import Log

__all__ = ["Reading", "Scrubber"]

_log = Log()
#: Bytes a job, and the fewest that a body counts for.
_SLICE, _LEAST = 1 << 20, 4096
#: Seconds between two looks at a cache with nothing in it, and the longest pause between two slices.
_LONGEST = 600.0
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


@define
class Reading:
    """
    A body that is being read, a slice at a time; in threads.

    :ivar inode: of its file; 0 if there is none.
    :ivar over: whether there is no more to read.
    :ivar wrong: what is wrong with it, if anything.
    """

    path: Path
    digest: str
    size: int
    inode: int = 0
    over: bool = False
    wrong: str = ""
    _fd: int = -1
    _at: int = 0
    _made: Any = field(factory=hashlib.sha256)

    def step(self) -> int:
        """Read the next slice; how many bytes that was."""
        data = b""
        try:
            if self._fd < 0:
                self._open()
            if not self.wrong:
                data = self._read()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                # That says nothing about it.
                self.over = True
                return 0
            self.wrong = f"{error.strerror}."
        self._made.update(data)
        self._at += len(data)
        self.over = not data or self._at >= self.size
        if self.over and not self.wrong and self._made.hexdigest() != self.digest:
            self.wrong = "Its bytes have changed."
        return len(data)

    def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        if self._fd < 0:
            self.wrong = "It is missing."
            return
        found = os.fstat(self._fd)
        self.inode = found.st_ino
        if found.st_size != self.size:
            self.wrong = f"It has {found.st_size} bytes in place of {self.size}."

    def _read(self) -> bytes:
        """Bytes that the kernel has are left there; what comes from the disk for this alone does not stay."""
        if _NOWAIT:
            buffer = bytearray(_SLICE)
            with contextlib.suppress(OSError):
                got = os.preadv(self._fd, [buffer], self._at, _NOWAIT)
                if got > 0:
                    return bytes(memoryview(buffer)[:got])
        data = os.pread(self._fd, _SLICE, self._at)
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, self._at, len(data), os.POSIX_FADV_DONTNEED)
        return data

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Scrubber:
    """
    Reads every body once in a period, evenly, and has those go that are wrong.

    States: *resting* (a timer runs), *reading* (a job runs), *stopped*.

    :param period: seconds that it takes for all of them.
    :param in_thread: runs a job on a file.
    :param next_body: the body to read after that with a digest, or None after the last.
    :param allocated: bytes of all bodies.
    :param condemn: has a body go, and its entries; given what was read of it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        period: float,
        in_thread: Callable[..., Deferred[Any]],
        next_body: Callable[[str], Deferred[Reading | None]],
        allocated: Callable[[], int],
        condemn: Callable[[Reading], Deferred[None]],
    ) -> None:
        self._clock, self._period, self._in_thread = clock, period, in_thread
        self._next_body, self._allocated, self._condemn = next_body, allocated, condemn
        self._last = ""
        self._reading: Reading | None = None
        self._timer: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._busy = False

    def start(self) -> None:
        """Go on where it was left."""
        self._rest(_LEAST)

    def stop(self) -> Deferred[None]:
        """Fires when no job runs any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._stopped = Deferred()
        if not self._busy:
            self._end()
        return self._stopped

    def _end(self) -> None:
        if self._reading is not None:
            self._reading.close()
        if self._stopped is not None:
            self._stopped.callback(None)

    def _rest(self, done: int) -> None:
        share = max(done, _LEAST) / max(self._allocated(), _LEAST)
        self._timer = self._clock.callLater(min(self._period * share, _LONGEST), self._go_on)

    def _go_on(self) -> None:
        self._busy = True
        work = Deferred.fromCoroutine(self._step())
        work.addErrback(self._failed).addCallback(self._stepped)

    @staticmethod
    def _failed(failure: Any) -> int:
        # While nothing can be stored, that has been said.
        if not failure.check(CannotStore):
            _log.warn("A stored body could not be read again: {why}", why=failure.getErrorMessage())
        return 0

    def _stepped(self, done: int) -> None:
        self._busy = False
        if self._stopped is not None:
            self._end()
        else:
            self._rest(done)

    async def _step(self) -> int:
        """Read a slice of a body; how many bytes that was."""
        reading = self._reading
        if reading is None:
            reading = self._reading = await self._next_body(self._last)
        if reading is None:
            self._last = ""
            return 0
        done: int = await self._in_thread(reading.step)
        if reading.over:
            self._reading, self._last = None, reading.digest
            try:
                # While it is open, no other file can be given its number.
                if reading.wrong:
                    await self._condemn(reading)
            finally:
                reading.close()
        return done
