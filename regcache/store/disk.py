"""
The store on disk: joins the blobs and the index, and keeps the promises of :class:`regcache.interfaces.IStore`.

Threads: jobs on files run in a pool; everything that decides about names (rename, unlink, rows) runs in one writer
thread, one after the other, so that a body is never unlinked while another commit is about to name it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from regcache.errors import BlobDamaged, CannotStore, ConfigError, TooBusy
from regcache.http.messages import Stored
from regcache.interfaces import IBody, IPartial, IStore
from regcache.logs import Log
from regcache.store.blobs import File, FileBody, Partial, blob_path, sync_directory
from regcache.store.gather import Gathering
from regcache.store.index import Index, connect, read_entry
from regcache.store.records import Records
from regcache.store.space import Space
from regcache.store.writer import SUSPECT, Commit, Writer

__all__ = ["DiskStore"]

_log = Log()
_MOST_USES = 1000
_USES_EVERY = 10.0
_SPACE_EVERY = 5.0
_FIRST_BACKUP, _BACKUP_EVERY = 600.0, 86400.0
_SWEEP_EVERY = 60.0
#: Bytes up to which a body stays in memory until the writer takes it, and of all that wait for the writer.
_MOST_HELD = 1 << 17
_MOST_WAITING = 16 << 20
_SELECT = (
    "SELECT key, registry, kind, parent, source, url, headers, digest, size, digests, verified, stored_at,"
    " validated_at, withdrawn FROM entries WHERE key IN ("
)


#: What keeps SQLite from using a file and says nothing about it: above all a disk that is full.
_OUTER = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
#: What keeps a file from being opened and says nothing about it.
_NOT_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})


def _nothing(_data: bytes) -> None:
    """Nobody wants to see what is written."""


def _index_at(path: Path) -> Index:
    # SQLite gives the files beside the index the mode that the index has when it is opened.
    path.touch(mode=0o600)
    path.chmod(0o600)
    return Index(connect(path))


@implementer(IStore)
class DiskStore:
    """
    A store in a directory.

    :param reactor: for timers and for coming back from threads.
    :param max_size: allocated bytes to stay below; 0 for any.
    :param min_free: bytes of the file system to leave free.
    :param now: the wall clock.
    :param steps: told each step of a commit, in the thread that does it; tests stop the process there.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        reactor: Any,
        max_size: int = 10 << 30,
        min_free: int = 1 << 30,
        now: Callable[[], float] = time.time,
        steps: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._directory = Path(directory).absolute()
        self._reactor = reactor
        self._max_size, self._min_free, self._now, self._steps = max_size, min_free, now, steps
        self._space = Space(max_size, min_free, lambda: self._writer.index.allocated, self._make_room)
        self._evicting = False
        self._files = ThreadPool(0, 4, "regcache-files")
        self._writing = ThreadPool(0, 1, "regcache-writer")
        self._records = Records()
        self._names = (f"{os.getpid()}-{number}" for number in itertools.count())
        self._sweeps = itertools.count()
        self._uses: dict[str, tuple[float, int]] = {}
        self._commits = Gathering(reactor, lambda batch: self._write(self._writer.commit, batch), self._committed)
        self._running = False
        self._closing = False
        self._timers: list[Any] = []
        self._lock = -1
        self._writer: Writer
        self._reader: sqlite3.Connection

    # Life.

    def open_directory(self) -> None:
        """
        Take the directory: lock it, make what is missing, open the index.

        :raises regcache.errors.ConfigError: with one line for a person, if it cannot be used.
        """
        directory = self._directory
        try:
            for path in (directory, directory / "blobs", directory / "partial"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
            self._take_lock()
            with contextlib.ExitStack() as undo:
                undo.callback(os.close, self._lock)
                self._make_directories()
                for leftover in (directory / "partial").iterdir():
                    leftover.unlink()
                self._open_index()
                undo.pop_all()
        except (OSError, sqlite3.Error) as error:
            why = "Not a directory" if isinstance(error, FileExistsError) else getattr(error, "strerror", error)
            raise ConfigError(
                f"The cache directory {directory} cannot be used ({why}): see that this user can write there and that"
                " the disk is not full, or name another with --cache-dir."
            ) from None

    def _make_directories(self) -> None:
        """Those of the bodies, all at once, so that no commit has to make one."""
        blobs = self._directory / "blobs"
        missing = {f"{number:02x}" for number in range(256)} - set(os.listdir(blobs))
        for name in missing:
            (blobs / name).mkdir(mode=0o700)
        if missing:
            sync_directory(blobs)
            sync_directory(self._directory)

    def _take_lock(self) -> None:
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise ConfigError(
                f"The cache directory {self._directory} is in use by process {holder or '?'}: stop it,"
                " or name another with --cache-dir."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _open_index(self) -> None:
        path, suspect = self._directory / "index.sqlite3", self._directory / SUSPECT
        try:
            if suspect.exists():
                raise sqlite3.DatabaseError("it was found so before")
            index = _index_at(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTER:
                raise
            # A start that does not come to the end of this begins with it again.
            suspect.touch(mode=0o600)
            backup, fresh = path.with_name("index.backup.sqlite3"), path.with_suffix(".new")
            if backup.exists():
                shutil.copy(backup, fresh)
            aside = path.with_name(f"index.damaged-{int(self._now())}.sqlite3")
            _log.error("The index is damaged ({why}); it is set aside as {aside}.", why=str(error), aside=aside.name)
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            if path.exists():
                path.rename(aside)
            if backup.exists():
                fresh.rename(path)
            index = _index_at(path)
            suspect.unlink(missing_ok=True)
        self._writer = Writer(index, self._directory, self._max_size, self._min_free, self._now, self._steps)
        self._reader = connect(path, readonly=True)

    def start(self) -> None:
        """Begin to serve; :meth:`open_directory` must have been called."""
        self._files.start()
        self._writing.start()
        self._running = True
        self._measure()
        # It reads the whole index: not while a build may be waiting for the service to come back.
        self._timers.append(self._reactor.callLater(_FIRST_BACKUP, self._back_up))
        self._later(_SPACE_EVERY, self._measure)
        self._later(_USES_EVERY, self._flush_uses)
        self._later(_BACKUP_EVERY, self._back_up)
        self._later(_SWEEP_EVERY, self._sweep)

    def _back_up(self) -> None:
        self._write(self._writer.back_up).addErrback(self._failed)

    def _sweep(self) -> None:
        """Look through one of the 256 directories of bodies, so that all are seen in a few hours."""
        self._write(self._writer.sweep, f"{next(self._sweeps) % 256:02x}").addErrback(self._failed)

    def stop(self) -> Deferred[None]:
        """Write what is left, back the index up, and let the directory go."""
        if not self._running:
            return succeed(None)
        self._running = False
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._note_uses()
        return self._commits.drain().addCallback(self._close).addBoth(self._stopped)

    def _close(self, _none: object) -> Deferred[None]:
        # Whoever closes last takes the log into the index.
        self._reader.close()
        closed = self._write(self._writer.close)
        self._closing = True
        return closed

    def _stopped(self, result: Any) -> Any:
        # Joining is safe: the last job of the writer has just ended, and no request is left that could add one.
        self._writing.stop()
        self._files.stop()
        os.close(self._lock)
        return result

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        def again() -> None:
            work()
            if self._running:
                self._timers = [timer for timer in self._timers if timer.active()]
                self._timers.append(self._reactor.callLater(seconds, again))

        self._timers.append(self._reactor.callLater(seconds, again))

    def _measure(self) -> None:
        measuring = self._in_thread(lambda: shutil.disk_usage(self._directory).free)
        measuring.addCallbacks(self._space.measured, lambda _: None)

    # Looking up.

    def peek(self, key: str) -> Stored | None:
        if not self._running:
            return None
        known = self._records.get(key)
        return self._look_up([key]).get(key) if known is None else known.entry

    def find(self, key: str, beside: Sequence[str] = ()) -> Deferred[Stored | None]:
        if self._running and self._records.get(key) is None:
            return succeed(self._look_up([key, *beside]).get(key))
        return succeed(self.peek(key))

    def find_all(self, keys: Sequence[str]) -> Deferred[dict[str, Stored]]:
        known = {key: self._records.get(key) for key in keys}
        found = {key: one.entry for key, one in known.items() if one is not None and one.entry is not None}
        unknown = [key for key, one in known.items() if one is None]
        if unknown and self._running:
            found |= self._look_up(unknown)
        return succeed(found)

    def _look_up(self, keys: Sequence[str]) -> dict[str, Stored]:
        try:
            rows = self._reader.execute(_SELECT + ", ".join("?" * len(keys)) + ")", keys).fetchall()
        except sqlite3.Error as error:
            _log.error("The index cannot be read: {why}", why=str(error))
            return {}
        found = {entry.key: entry for entry in map(read_entry, rows)}
        for key in keys:
            self._records.put(key, found.get(key))
        return found

    def children(self, parent: str) -> Deferred[list[Stored]]:
        return self._write(self._writer.index.children, parent)

    def open(self, entry: Stored) -> IBody:
        try:
            fd = os.open(blob_path(self._directory / "blobs", entry.digest), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NOT_NOW:
                raise TooBusy(f"{error.strerror}.") from None
            if error.errno == errno.ENOENT:
                self.drop(entry.key)
            raise BlobDamaged(f"{entry.key}: {error.strerror}.") from None
        if os.fstat(fd).st_size != entry.size:
            os.close(fd)
            self.drop(entry.key)
            raise BlobDamaged(f"{entry.key}: it does not have the size it was stored with.")
        return FileBody(File(fd), entry.size, self._in_thread)

    # Writing.

    def create(
        self, observe: Callable[[bytes], object] = _nothing, expected: int | None = None, most: int = 0
    ) -> IPartial:
        self._see_that_it_runs()
        room = expected or 0
        if most and room > most:
            raise CannotStore(f"It has {room} bytes; at most {most} are stored (--max-file-size).")
        self._space.take(room)
        # While the disk is behind, bodies do not gather in memory.
        held = 0 if self._commits.waiting_bytes > _MOST_WAITING else _MOST_HELD
        return Partial(self._new_path(), observe, self._in_thread, self._space, room=room, most=most, most_held=held)

    def _see_that_it_runs(self) -> None:
        if not self._running:
            raise CannotStore("The cache is stopped.")

    def _make_room(self, size: int) -> None:
        """Evict beside what goes on, once at a time."""
        if not self._evicting and self._running:
            self._evicting = True
            making = self._write(self._writer.evict, size).addBoth(self._rested)
            making.addCallbacks(self._made_room, self._failed)

    def _rested(self, result: Any) -> Any:
        self._evicting = False
        return result

    def _made_room(self, keys: list[str]) -> None:
        self._evicted(keys)
        if keys:
            self._measure()

    def _new_path(self) -> Path:
        return self._directory / "partial" / next(self._names)

    def commit(self, partial: IPartial, entry: Stored) -> Deferred[None]:
        assert isinstance(partial, Partial)
        fd = partial.fd
        if fd is None:
            done = self._commits.add(Commit(partial.path, entry, partial.held))
        else:
            done = self._in_thread(self._sync, fd).addCallback(lambda _: self._commits.add(Commit(partial.path, entry)))
        return done.addCallbacks(self._ended, self._given_up, callbackArgs=(partial,), errbackArgs=(partial,))

    def _sync(self, fd: int) -> None:
        self._steps("written")
        try:
            os.fsync(fd)
        except OSError as error:
            raise CannotStore(f"{error.strerror}.") from None
        self._steps("synced")

    @staticmethod
    def _ended(result: Any, partial: Partial) -> Any:
        partial.end()
        return result

    @staticmethod
    def _given_up(failure: Any, partial: Partial) -> Any:
        partial.abort()
        return failure

    def put(self, entry: Stored, body: bytes) -> Deferred[None]:
        try:
            self._see_that_it_runs()
            self._space.take(len(body))
        except CannotStore:
            return fail()
        return self._commits.add(Commit(self._new_path(), entry, body)).addBoth(self._put_down, len(body))

    def _put_down(self, result: Any, size: int) -> Any:
        self._space.give_back(size)
        return result

    def _committed(self, entries: list[Stored], dropped: list[str]) -> None:
        for entry in entries:
            self._records.put(entry.key, entry)
        self._evicted(dropped)

    def _evicted(self, keys: list[str]) -> None:
        for key in keys:
            self._records.drop(key)

    def update(self, entry: Stored) -> None:
        if self.peek(entry.key) is None:
            return
        self._records.put(entry.key, entry)
        self._write(self._writer.update, entry).addErrback(self._failed)

    def drop(self, key: str) -> Deferred[None]:
        self._records.put(key, None)
        return self._write(self._writer.drop, key).addErrback(self._failed)

    @staticmethod
    def _failed(failure: Any) -> None:
        _log.error("The index could not be written: {why}", why=failure.getErrorMessage())

    def used(self, key: str, now: float) -> None:
        self._uses[key] = (now, self._uses.get(key, (now, 0))[1] + 1)
        if len(self._uses) >= _MOST_USES:
            self._flush_uses()

    def _flush_uses(self) -> None:
        if self._running:
            self._note_uses()

    def _note_uses(self) -> None:
        uses, self._uses = self._uses, {}
        if uses:
            noted = [(key, when, count) for key, (when, count) in uses.items()]
            self._write(self._writer.touch, noted).addErrback(self._failed)

    def usage(self) -> tuple[int, int]:
        return self._writer.index.allocated, self._writer.index.entries

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._files, work, *args)

    def _write(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        if self._closing:
            return fail(CannotStore("The cache is stopped."))
        return deferToThreadPool(self._reactor, self._writing, work, *args)
