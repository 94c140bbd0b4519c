"""
The cache directory: taken, made whole, and its index opened, or replaced where it is damaged.

Everything here blocks: it runs before the reactor does, or in the writer's thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from regcache.errors import ConfigError
from regcache.logs import Log
from regcache.store.files import Files
from regcache.store.index import FAILURES, FORMAT, Index, NewerIndex, connect
from regcache.store.rebuild import gather
from regcache.store.strangers import strangers

__all__ = ["Directory", "Opened", "note_holder"]

_log = Log()
#: Names of what is in the way that a complaint tells.
_NAMED = 3
#: Seconds that what a killed process has left may take to end.
_PATIENCE = 10.0
#: What may pass, or be mended while the service runs: until then clients are served without storing anything.
_PASSING = frozenset(
    {
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
    }
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


@frozen
class Opened:
    """
    What could be opened.

    :ivar index: the writing half; None if nothing can be stored.
    :ivar reader: a read-only connection; None if nothing can be found either.
    :ivar why: why nothing can be stored.
    :ivar partly: whether bodies may stand there that the index has never known.
    """

    index: Index | None
    reader: sqlite3.Connection | None
    why: str = ""
    partly: bool = False

    def close(self) -> None:
        """Let go what was opened and is not wanted any more."""
        for one in (self.reader, self.index.connection if self.index is not None else None):
            if one is not None:
                one.close()


class Directory:
    """
    One process's hold on a cache directory.

    :param path: absolute.
    :param now: the wall clock, for the name of a damaged index.
    """

    def __init__(self, path: Path, files: Files, now: Callable[[], float]) -> None:
        self.path = path
        self.blobs, self.partial = path / "blobs", path / "partial"
        self._index = path / "index.sqlite3"
        self._backup = path / "index.backup.sqlite3"
        self._suspect = path / "index.suspect"
        self._files, self._now = files, now
        self._lock = self._making = -1
        self._swept = self._rebuilds = False

    def distrust(self) -> None:
        """The index was found damaged: whoever opens it next begins with what is left of it."""
        with contextlib.suppress(OSError):
            self._suspect.touch(mode=0o600)

    def open(self) -> Opened:
        """
        Take the directory: lock it, open the index, make what is missing. May be repeated.

        A disk that is full, fails or may only be read is no error: what was stored is still found where it can be.

        :raises regcache.errors.ConfigError: with one line for a person, if it is in use, not this user's, or holds
            something else.
        """
        try:
            return self._open()
        except ConfigError:
            self.let_go()
            raise
        except NewerIndex as error:
            return Opened(None, None, f"It was written by a newer regcache. {error.detail}")
        except (OSError, *FAILURES) as error:
            if not _passes(error):
                self.let_go()
                why = "Not a directory" if isinstance(error, FileExistsError) else getattr(error, "strerror", error)
                raise ConfigError(
                    f"The cache directory {self.path} cannot be used ({why}): see that this user can write there,"
                    " or name another with --cache-dir."
                ) from None
            return Opened(None, self._look_in(), f"{getattr(error, 'strerror', None) or error}.")

    def let_go(self) -> None:
        """Unlock it."""
        locks = self._lock, self._making
        self._lock = self._making = -1
        for lock in locks:
            if lock >= 0:
                os.close(lock)

    def _open(self) -> Opened:
        self._refuse_strangers()
        new = not self.path.exists()
        for path in (self.path, self.blobs, self.partial):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_mode & 0o777 != 0o700:
                path.chmod(0o700)
        self._take_lock()
        partly = not self._index.exists() or self._suspect.exists()
        index = self._opened_index()
        with contextlib.ExitStack() as undo:
            undo.callback(index.connection.close)
            before = self._make_directories()
            self._sweep()
            if new:
                self._files.sync_path(self.path.parent)
            # SQLite's files are in it as well.
            self._files.sync_path(self.path)
            reader = connect(self._index, readonly=True)
            undo.pop_all()
        return Opened(index, reader, partly=before and (partly or self._rebuilds))

    def _refuse_strangers(self) -> None:
        """Before anything is changed: what is somebody else's stays as it is."""
        found = [] if self._lock >= 0 else strangers(self.path)
        if found:
            some = ", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
            raise ConfigError(
                f"The directory {self.path} holds something else than a cache ({some}): nothing was changed there;"
                " name a new or an empty one with --cache-dir."
            )

    def _take_lock(self) -> None:
        if self._lock < 0:
            self._lock = self._locked("lock", 0.0)
            note_holder(self._lock, os.getpid())
        if self._making < 0:
            self._making = self._locked("making.lock", _PATIENCE)

    def _locked(self, name: str, patience: float) -> int:
        """
        The descriptor of a file that nobody else has locked.

        :param patience: seconds for which whoever has it locked may go on.
        :raises regcache.errors.ConfigError: if it goes on for longer.
        """
        path = self.path / name
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS or not path.exists():
                raise
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._wait_for_lock(fd, patience)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _wait_for_lock(self, fd: int, patience: float) -> None:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
                    raise ConfigError(
                        f"The cache directory {self.path} is in use by process {holder or '?'}: stop it,"
                        " or name another with --cache-dir."
                    ) from None
            time.sleep(0.01)

    @property
    def making(self) -> int:
        """
        The descriptor that is to be had by whatever else may write there.

        What was killed may have left a process that ends a moment later, whatever has become of the numbers of both:
        nobody takes the directory while that has this.
        """
        return self._making

    def _make_directories(self) -> bool:
        """Those of the bodies, all at once, so that no commit has to make one; whether some were there already."""
        missing = {f"{number:02x}" for number in range(256)} - set(os.listdir(self.blobs))
        for name in missing:
            self._files.make_directory(self.blobs / name)
        if missing:
            self._files.sync_path(self.blobs)
        return len(missing) < 256

    def _sweep(self) -> None:
        """Take away what another process had under way; once, since our own comes to lie there."""
        if not self._swept:
            for leftover in self.partial.iterdir():
                self._files.remove(leftover)
        self._swept = True

    def _look_in(self) -> sqlite3.Connection | None:
        """The index to read from alone, without a change to the disk; None if that is not to be had."""
        log = Path(f"{self._index}-wal")
        with contextlib.suppress(OSError, *FAILURES):
            # Without its log an index may be half of two; with one, SQLite wants to write beside it.
            quiet = not (log.exists() and log.stat().st_size)
            connection = connect(self._index, readonly=True, immutable=quiet)
            try:
                if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
                    connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone()
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
        return None

    # The index.

    def _opened_index(self) -> Index:
        try:
            if self._suspect.exists():
                raise sqlite3.DatabaseError("it was found so before")
            return _index_at(self._index)
        except FAILURES as error:
            if _passes(error):
                raise
            return self._rebuilt(str(error))

    def _rebuilt(self, why: str) -> Index:
        """
        A new index from the damaged one, which is set aside, and from the newest backup.

        A start that does not come to the end of this begins with it again, from the same.
        """
        self._suspect.touch(mode=0o600)
        self._rebuilds = True
        aside = self._set_aside()
        fresh = self._index.with_suffix(".new")
        for leftover in self.path.glob(f"{fresh.name}*"):
            leftover.unlink()
        index = _index_at(fresh)
        try:
            found = gather(index.connection, aside, self._backup)
            # Alone in its file, to be renamed.
            index.connection.execute("PRAGMA journal_mode=DELETE")
        finally:
            index.connection.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self._index}{suffix}").unlink(missing_ok=True)
        self._files.sync_path(fresh)
        self._files.replace(fresh, self._index)
        self._files.sync_path(self.path)
        self._suspect.unlink(missing_ok=True)
        _log.error(
            "The index is damaged ({why}); it is set aside as {aside}. {n} entries of it and of its backup are kept as"
            " far as their bodies are right.",
            why=why,
            aside=aside.name if aside is not None else "nothing",
            n=found,
        )
        return _index_at(self._index)

    def _set_aside(self) -> Path | None:
        """Move a damaged index out of the way, with its log; the newest that is there, also from a start before."""
        aside = self.path / f"index.damaged-{int(self._now())}.sqlite3"
        before = sorted(self.path.glob("index.damaged-*.sqlite3"), key=lambda path: path.stat().st_mtime)
        if self._index.exists():
            self._index.rename(aside)
        elif before:
            aside = before.pop()
        elif not Path(f"{self._index}-wal").exists():
            return None
        log = Path(f"{self._index}-wal")
        if log.exists():
            log.rename(f"{aside}-wal")
        for old in before:
            for path in self.path.glob(f"{old.name}*"):
                if old != aside:
                    path.unlink()
        return aside


def note_holder(lock: int, process: int) -> None:
    """Say in a locked file who holds it. That is for a person; what holds is the lock."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{process}\n".encode(), 0)


def _index_at(path: Path) -> Index:
    # SQLite gives the files beside the index the mode that the index has when it is opened.
    path.touch(mode=0o600)
    path.chmod(0o600)
    connection = connect(path)
    try:
        return Index(connection)
    except BaseException:
        connection.close()
        raise


def _passes(error: Exception) -> bool:
    """Whether what is wrong is wrong with the disk, and perhaps not for long."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTER
    return getattr(error, "errno", None) in _PASSING
