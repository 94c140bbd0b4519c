"""Bodies as files: written once, named by their digest, readable while they grow and after they are gone."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from regcache.errors import BlobDamaged, CannotStore
from regcache.interfaces import IBody, IPartial, ISendable, IStoredBody
from regcache.store.files import Files
from regcache.store.space import Space

__all__ = ["File", "FileBody", "Partial", "blob_name", "blob_path", "read_whole", "standing"]

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


def _look_into(fd: int, look: Callable[[BinaryIO], T]) -> T:
    # All others name their offsets, so nobody minds that the two descriptors share one.
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        return look(file)


def _put(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


def read_whole(name: str, size: int) -> bytes | None:
    """The bytes of a file, if it has that size and the kernel has all of them in memory."""
    buffer = bytearray(size + 1)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # One byte more than there should be tells whether there are more.
            got = os.preadv(fd, (buffer,), 0, _NOWAIT) if _NOWAIT else -1
        finally:
            os.close(fd)
    except OSError:
        # Whoever opens it finds out why.
        return None
    return bytes(memoryview(buffer)[:size]) if got == size else None


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
            return _put(fd, memoryview(self.held)[offset : offset + length])
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
        return self._in_thread(_look_into, self._file.fd, look).addBoth(self._file.let_go)

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
