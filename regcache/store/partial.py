"""A body while it is written, and until it has its place: in memory as long as it is small, else in a file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from regcache.errors import BlobDamaged, CannotStore
from regcache.interfaces import IPartial, ISendable
from regcache.store.blobs import File, InThread, blob_path, look_into, put
from regcache.store.files import Files
from regcache.store.space import Space

__all__ = ["Partial", "ended", "given_up", "standing"]

_PIECE = 1 << 20
#: Bytes from which on a piece is hashed and written by itself: to join larger ones takes longer than calling more.
_WORTH_A_CALL = 1 << 15
T = TypeVar("T")


@implementer(IPartial, ISendable)
class Partial:
    """
    A body being written: held in memory while it is small, so that it costs one job of the writer; else in a file.

    :param room: what has been taken of the room for it.
    :param most: bytes that it may have; 0 for any.
    :ivar path: the file, which need not be there yet.
    :ivar held: the body, or the beginning of it that is not known to be in the file.
    """

    def __init__(
        self,
        path: Path,
        observe: Callable[[bytes], object],
        in_thread: InThread,
        space: Space,
        files: Files | None = None,
        *,
        room: int = 0,
        most: int = 0,
        most_held: int = 0,
    ) -> None:
        self.path = path
        self._files = Files() if files is None else files
        self._space, self._room, self._most = space, room, most
        self.written = 0
        self.held = b""
        self._observe = observe
        self._in_thread = in_thread
        self._most_held = most_held
        self._file: File | None = None
        self._over = False
        self._readers = 0
        self._busy = False
        self._unwanted = False
        self._warm_from = -1
        # What was written last, and just before: while more comes, the kernel has hardly forgotten that.
        self._fresh = range(0)
        self._last = 0

    @property
    def fd(self) -> int | None:
        """The descriptor of the open file; None while all is held in memory."""
        return None if self._file is None else self._file.fd

    @property
    def counted(self) -> bool:
        """Whether it waits in memory, where there is an end of room."""
        return self._file is None

    def write(self, *pieces: bytes) -> Deferred[None]:
        size = self.written + sum(map(len, pieces))
        try:
            self._take_room(size)
        except CannotStore:
            self._observe_all(pieces)
            return fail()
        if self._file is None and size <= self._most_held:
            self._observe_all(pieces)
            self.held = b"".join((self.held, *pieces))
            self.written = size
            return succeed(None)
        assert not self._busy
        self._busy = True
        return self._in_thread(self._append, pieces).addBoth(self._rested).addCallback(self._appended)

    def _observe_all(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._observe(piece)

    def _take_room(self, size: int) -> None:
        if self._most and size > self._most:
            raise CannotStore(f"It has more than {self._most} bytes (--max-file-size).")
        if size > self._room:
            self._space.take(size - self._room)
            self._room = size

    def _rested(self, result: Any) -> Any:
        self._busy = False
        if self._unwanted:
            self.abort()
        self._close_if_unused()
        return result

    def _appended(self, result: tuple[int, CannotStore | None]) -> None:
        on_disk, error = result
        self._fresh, self._last = range(self._last, on_disk), self.written
        self.written = max(on_disk, self.written)
        if error is not None:
            raise error
        self.held = b""

    def read(self, offset: int, length: int) -> bytes | Deferred[bytes]:
        if offset < len(self.held):
            return self.held[offset : offset + length]
        if self._file is None:
            raise BlobDamaged("It was given up.")
        return self._file.read(self._in_thread, offset, length)

    def send(self, fd: int, offset: int, length: int) -> int | Deferred[Any] | None:
        if offset < len(self.held):
            return put(fd, memoryview(self.held)[offset : offset + length])
        if self._file is None:
            return None
        warm = offset in self._fresh or offset == self._warm_from
        sent = self._file.send(self._in_thread, fd, offset, length, warm=warm)
        self._warm_from = offset if isinstance(sent, Deferred) else -1
        return sent

    def examine(self, look: Callable[[BinaryIO], T]) -> Deferred[T]:
        if self._file is None:
            return self._in_thread(look, io.BytesIO(self.held))
        self._file.hold()
        return self._in_thread(look_into, self._file.fd, look).addBoth(self._file.let_go)

    def retain(self) -> None:
        self._readers += 1

    def release(self) -> None:
        self._readers -= 1
        self._close_if_unused()

    def abort(self) -> None:
        self._unwanted = self._busy
        if not self._over and not self._busy:
            if self._file is not None:
                self._in_thread(self._unlink).addErrback(lambda _: None)
            self.end()

    def end(self) -> None:
        """Its file has another name now, or none; the descriptor goes with the last reader."""
        if not self._over:
            self._space.give_back(self._room)
        self._over = True
        self._fresh = range(0)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._over and not self._busy and self._readers <= 0 and self._file is not None:
            file, self._file = self._file, None
            file.let_go()

    # In a thread.

    def _append(self, pieces: tuple[bytes, ...]) -> tuple[int, CannotStore | None]:
        if sum(map(len, pieces)) < len(pieces) * _WORTH_A_CALL:
            pieces = (b"".join(pieces),)
        self._observe_all(pieces)
        at = self.written
        try:
            if self._file is None:
                at, pieces = 0, (self.held, *pieces)
                self._file = File(self._files.create(self.path))
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    done = self._files.write(self._file.fd, view, at)
                    at += done
                    view = view[done:]
        except OSError as error:
            return at, CannotStore(f"{error.strerror}: {self.path.parent}")
        return at, None

    def _unlink(self) -> None:
        self._files.remove(self.path)


class _Standing(Partial):
    """
    A body that stands in its place already, as good as one just written: what gives it up leaves it there.

    :param fd: of the open file; closed with the last reader.
    """

    def __init__(self, path: Path, fd: int, in_thread: InThread, space: Space) -> None:
        super().__init__(path, bool, in_thread, space)
        self._file = File(fd)
        self.written = os.fstat(fd).st_size

    def _unlink(self) -> None:
        """Nothing: it may be another entry's by now."""


def standing(
    blobs: Path, digest: str, observe: Callable[[bytes], object], in_thread: InThread, space: Space
) -> Partial | None:
    """
    The body with that SHA-256 if it stands there, read whole and found right; for a thread.

    :param observe: given each piece of it in turn.
    """
    path = blob_path(blobs, digest)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    made, at = hashlib.sha256(), 0
    try:
        while piece := os.pread(fd, _PIECE, at):
            made.update(piece)
            observe(piece)
            at += len(piece)
    except OSError:
        made = hashlib.sha256(b"unreadable")
    if made.hexdigest() == digest:
        return _Standing(path, fd, in_thread, space)
    os.close(fd)
    return None


def ended(result: Any, partial: Partial) -> Any:
    """A body was committed: its file is not written to any more."""
    partial.end()
    return result


def given_up(failure: Any, partial: Partial) -> Any:
    """A body could not be committed: what is on disk of it goes."""
    partial.abort()
    return failure
