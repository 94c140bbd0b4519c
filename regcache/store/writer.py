"""
What happens in the writer thread: names on disk and rows in the index, in the order that survives a crash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from regcache.errors import CannotStore
from regcache.http.messages import Kind, Stored
from regcache.logs import Log
from regcache.store.blobs import blob_path, create_file, sync_directory
from regcache.store.evict import plan
from regcache.store.index import Index, is_sound

__all__ = ["SUSPECT", "Commit", "Outcome", "Writer"]

_log = Log()
#: The name of a file that says that the index was found damaged.
SUSPECT = "index.suspect"
#: Seconds after which a body that no entry names is taken for an orphan.
_ORPHAN_AGE = 2 * 86400.0


@frozen
class Commit:
    """
    A finished body and its entry.

    :ivar path: the file that holds it, or is to hold it.
    :ivar body: what is to be written there; None if it is there, and synced.
    """

    path: Path
    entry: Stored
    body: bytes | None = None


@frozen
class Outcome:
    """
    What became of a number of commits.

    :ivar failed: why each did not become an entry, in their order; None for those that did.
    :ivar dropped: the keys of entries that had to make room.
    """

    failed: list[CannotStore | None]
    dropped: list[str]


def _lasts(commit: Commit) -> bool:
    """Whether the body has to outlive a power cut: a derived one is as easily made again."""
    return commit.entry.kind is not Kind.DERIVED


class Writer:
    """
    All methods are called in the writer thread, one at a time; ``index`` totals may be read anywhere.

    The order of a commit: the file is on disk (fsync; of a large one, before, in the pool) → it gets its name → the
    name is on disk → the row is written. The order of a removal is the reverse: the row first, then the file.
    """

    def __init__(
        self,
        index: Index,
        directory: Path,
        max_size: int,
        min_free: int,
        now: Callable[[], float],
        steps: Callable[[str], None],
    ) -> None:
        self.index = index
        self._directory = directory
        self._blobs = directory / "blobs"
        self._max_size = max_size
        self._min_free = min_free
        self._now = now
        self._steps = steps
        self._block = os.statvfs(directory).f_frsize

    def commit(self, commits: list[Commit]) -> Outcome:
        """
        Make them entries, in one transaction.

        :raises regcache.errors.CannotStore: if none can be.
        """
        failed = [self._place(commit) for commit in commits]
        placed = [commit for commit, error in zip(commits, failed, strict=True) if error is None]
        try:
            for name in {commit.entry.digest[:2] for commit in placed if _lasts(commit)}:
                sync_directory(self._blobs / name)
        except OSError as error:
            raise CannotStore(f"{error.strerror}: {self._blobs}") from None
        self._steps("directory-synced")
        entries = [(commit.entry, self._allocated(commit.entry.size)) for commit in placed]
        loose: set[str] = set()
        self._transact(lambda: loose.update(self.index.insert(entries, self._now())))
        self._steps("inserted")
        self._unlink(loose)
        return Outcome(failed, self.evict(0))

    def _allocated(self, size: int) -> int:
        return -(-size // self._block) * self._block

    def _place(self, commit: Commit) -> CannotStore | None:
        """Give the file its name; nobody is told of it yet."""
        try:
            if commit.body is not None:
                self._write(commit.path, commit.body, durable=_lasts(commit))
            # In place of one that is there already: what was just written and checked is surely whole.
            os.replace(commit.path, blob_path(self._blobs, commit.entry.digest))
        except OSError as error:
            with contextlib.suppress(OSError):
                commit.path.unlink(missing_ok=True)
            return CannotStore(f"{error.strerror}: {commit.path.parent}")
        self._steps("renamed")
        return None

    def _write(self, path: Path, body: bytes, *, durable: bool) -> None:
        # Every call to the system costs the reactor's thread its turn: no buffered file here.
        fd = create_file(path)
        try:
            while body:
                body = body[os.write(fd, body) :]
            self._steps("written")
            if durable:
                os.fsync(fd)
            self._steps("synced")
        finally:
            os.close(fd)

    def _transact(self, work: Callable[[], object]) -> None:
        try:
            self.index.begin()
            try:
                work()
                self.index.commit()
            except BaseException:
                self.index.rollback()
                raise
        except sqlite3.Error as error:
            raise CannotStore(f"The index cannot be written: {error}.") from None

    def _unlink(self, digests: set[str]) -> None:
        for digest in digests:
            if not self.index.named(digest):
                blob_path(self._blobs, digest).unlink(missing_ok=True)

    def update(self, entry: Stored) -> None:
        """Replace the record of an entry."""
        self._transact(lambda: self.index.update(entry))

    def touch(self, uses: list[tuple[str, float, int]]) -> None:
        """Note uses."""
        self._transact(lambda: self.index.touch(uses))

    def drop(self, key: str) -> None:
        """Forget an entry."""
        self._remove([key])

    def _remove(self, keys: list[str]) -> None:
        loose: set[str] = set()
        self._transact(lambda: loose.update(self.index.remove(keys)))
        self._unlink(loose)

    def evict(self, room: int) -> list[str]:
        """
        Make room for ``room`` bytes: below the size cap, and above the floor of free space.

        :returns: the keys that went.
        """
        gone: list[str] = []
        while True:
            free = shutil.disk_usage(self._directory).free
            batch = plan(
                self.index.oldest,
                allocated=self.index.allocated,
                room=room,
                max_size=self._max_size,
                wanted_free=self._min_free + room - free,
                going=bool(gone),
            )
            if not batch:
                break
            self._remove(batch)
            gone += batch
        if gone:
            _log.info("{n} entries were evicted.", n=len(gone))
        return gone

    def sweep(self, name: str) -> None:
        """
        Remove the bodies of one directory that no entry names.

        Young ones stay: after a damaged index was replaced by its backup, what was stored since is adopted when it is
        asked for again.
        """
        try:
            found = list(os.scandir(self._blobs / name))
        except FileNotFoundError:
            return
        for file in found:
            if self._now() - file.stat().st_mtime > _ORPHAN_AGE and not self.index.named(name + file.name):
                os.unlink(file.path)

    def close(self) -> None:
        """Back the index up and close it."""
        self.back_up()
        self.index.connection.close()

    def back_up(self) -> None:
        """
        Write a copy of the index, whole or not at all.

        A copy of an index that is damaged takes the place of nothing; the next start begins with the one before.
        """
        backup = self._directory / "index.backup.sqlite3"
        fresh = backup.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(fresh)) as target:
                self.index.connection.backup(target)
                sound = is_sound(target)
            if sound:
                fresh.chmod(0o600)
                os.replace(fresh, backup)
            else:
                fresh.unlink()
        except sqlite3.DatabaseError as error:
            sound = isinstance(error, sqlite3.OperationalError)
            _log.warn("The index could not be backed up: {why}", why=str(error))
        except OSError as error:
            sound = True
            _log.warn("The index could not be backed up: {why}", why=str(error))
        if not sound:
            _log.error("The index is damaged; the next start replaces it by its last good copy.")
            (self._directory / SUSPECT).touch(mode=0o600)
