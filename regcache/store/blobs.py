"""Bodies as files: written once, named by their digest, readable while they grow and after they are gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from regcache.errors import BlobDamaged
from regcache.interfaces import IBody, IStoredBody

__all__ = ["File", "FileBody", "InThread", "SmallFiles", "blob_name", "blob_path", "look_into", "put"]

_MOST_READ = 1 << 18
_PIECE = 1 << 20
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
#: Bytes between two looks whether a file is in memory, which the kernel forgets in large parts.
_LOOK_EVERY = 1 << 19
#: Bytes from which on a piece is hashed and written by itself: to join larger ones takes longer than calling more.
_WORTH_A_CALL = 1 << 15
InThread = Callable[..., Deferred[Any]]
T = TypeVar("T")


def blob_name(blobs: Path | str, digest: str) -> str:
    """Where the body with that SHA-256 lies, as text: a path takes longer to make than its file to open."""
    return f"{blobs}/{digest[:2]}/{digest[2:]}"


def blob_path(blobs: Path, digest: str) -> Path:
    """Where the body with that SHA-256 lies."""
    return Path(blob_name(blobs, digest))


def look_into(fd: int, look: Callable[[BinaryIO], T]) -> T:
    """What a look into the file of a descriptor finds, which stays open."""
    # All others name their offsets, so nobody minds that the two descriptors share one.
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        return look(file)


def put(fd: int, data: memoryview) -> int:
    """Write what a socket takes at once: how many bytes."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


class SmallFiles:
    """
    Reads files whole, one after the other: into one buffer, since to make one takes as long as to read.

    :param most: bytes that one may have.
    """

    def __init__(self, most: int) -> None:
        # One byte more than there should be tells whether there are more.
        self._buffer = memoryview(bytearray(most + 1))
        self._most, self._into = most, (self._buffer,)

    def read(self, name: str, size: int) -> bytes | None:
        """The bytes of a file, if it has that size and the kernel has all of them in memory."""
        if size > self._most:
            return None
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                got = os.preadv(fd, self._into, 0, _NOWAIT) if _NOWAIT else -1
            finally:
                os.close(fd)
        except OSError:
            # Whoever opens it finds out why.
            return None
        return bytes(self._buffer[:size]) if got == size else None


class File:
    """
    An open file that many read: closed when the last who uses it lets go.

    Every thread job holds it too, so that no descriptor is closed, and perhaps given to another file, under a read.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._uses = 1

    def hold(self) -> None:
        """One more uses it."""
        self._uses += 1

    def let_go(self, _result: Any = None) -> Any:
        """One less does."""
        self._uses -= 1
        if self._uses == 0:
            os.close(self.fd)
        return _result

    def read(self, in_thread: InThread, offset: int, length: int) -> bytes | Deferred[bytes]:
        """Bytes at once if the kernel has them in memory, else by a thread."""
        length = min(length, _MOST_READ)
        if _NOWAIT:
            buffer = bytearray(length)
            try:
                got = os.preadv(self.fd, [buffer], offset, _NOWAIT)
                if got > 0:
                    return bytes(memoryview(buffer)[:got])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                    raise BlobDamaged(f"It cannot be read: {error.strerror}.") from None
        self.hold()
        return in_thread(os.pread, self.fd, length, offset).addBoth(self.let_go)

    def is_warm(self, offset: int, length: int) -> bool:
        """Whether the kernel seems to have these bytes in memory."""
        try:
            places = range(offset, offset + length, _LOOK_EVERY)
            return all(os.preadv(self.fd, [bytearray(1)], at, _NOWAIT) for at in (*places, offset + length - 1))
        except OSError:
            return False

    def warm(self, in_thread: InThread, offset: int, length: int) -> Deferred[None]:
        """Have the kernel read these bytes into memory."""
        self.hold()
        return in_thread(self._warm, offset, offset + length).addBoth(self.let_go)

    def send(self, in_thread: InThread, fd: int, offset: int, length: int, *, warm: bool) -> int | Deferred[Any]:
        """
        As ISendable.send.

        :param warm: whether these bytes have just been read.
        """
        if not warm and not self.is_warm(offset, length):
            return self.warm(in_thread, offset, length)
        try:
            sent = os.sendfile(fd, self.fd, offset, length)
        except BlockingIOError:
            return 0
        if not sent:
            raise BlobDamaged("It has become shorter.")
        return sent

    def _warm(self, at: int, end: int) -> None:
        while at < end and (piece := os.pread(self.fd, min(_PIECE, end - at), at)):
            at += len(piece)


@implementer(IBody, IStoredBody)
class FileBody:
    """
    A stored body, open for one reader.

    :param again: opens it for another one.
    """

    def __init__(self, file: File, size: int, in_thread: InThread, again: Callable[[], IBody]) -> None:
        self.size: int | None = size
        self.again = again
        self._file: File | None = file
        self._in_thread = in_thread
        self._warm_until = 0

    def read(self, offset: int, length: int) -> bytes | Deferred[bytes]:
        if self._file is None:
            raise BlobDamaged("It was closed.")
        return self._file.read(self._in_thread, offset, length)

    def is_warm(self, offset: int, length: int) -> bool:
        warm = self._file is not None and self._file.is_warm(offset, length)
        self._warm_until = offset + length if warm else 0
        return warm

    def send(self, fd: int, offset: int, length: int) -> int | Deferred[Any]:
        if self._file is None:
            raise BlobDamaged("It was closed.")
        sent = self._file.send(self._in_thread, fd, offset, length, warm=offset + length <= self._warm_until)
        if isinstance(sent, Deferred):
            self._warm_until = offset + length
        return sent

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.let_go()
