"""
What happens in the writer thread: names on disk and rows in the index, in the order that survives a crash.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from regcache.errors import CannotStore
from regcache.http.messages import Kind, Stored
from regcache.store.blobs import blob_path, sync_directory
from regcache.store.evict import plan
from regcache.store.index import Index

__all__ = ["Commit", "Writer"]

_log = Logger(namespace="regcache")
_BLOCK = 512
#: Seconds after which a body that no entry names is taken for an orphan.
_ORPHAN_AGE = 2 * 86400.0


@frozen
class Commit:
    """A finished file and the entry whose body it is to be."""

    path: Path
    entry: Stored


class Writer:
    """
    All methods are called in the writer thread, one at a time; ``index`` totals may be read anywhere.

    The order of a commit: the file is on disk (fsync, done before, in the pool) → it gets its name → the name is on
    disk → the row is written. The order of a removal is the reverse: the row first, then the file.
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

    def commit(self, commits: list[Commit]) -> list[str]:
        """
        Make them all entries, in one transaction.

        :returns: the keys of entries that had to make room.
        """
        try:
            allocated = [self._name(commit) for commit in commits]
        except OSError as error:
            raise CannotStore(f"{error.strerror}: {self._blobs}") from None
        self._steps("directory-synced")
        loose: set[str] = set()
        now = self._now()
        self._transact(
            lambda: loose.update(
                gone
                for commit, size in zip(commits, allocated, strict=True)
                if (gone := self.index.insert(commit.entry, size, now)) is not None
            )
        )
        self._steps("inserted")
        self._unlink(loose)
        return self.evict(0)

    def _name(self, commit: Commit) -> int:
        target = blob_path(self._blobs, commit.entry.digest)
        new = not target.parent.exists()
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if target.exists() and target.stat().st_size == commit.entry.size:
            commit.path.unlink()
        else:
            commit.path.rename(target)
        self._steps("renamed")
        if commit.entry.kind is not Kind.DERIVED:
            sync_directory(target.parent)
            if new:
                sync_directory(self._blobs)
        return target.stat().st_blocks * _BLOCK

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
        self._transact(lambda: loose.update(gone for key in keys if (gone := self.index.remove(key)) is not None))
        self._unlink(loose)

    def evict(self, room: int) -> list[str]:
        """
        Make room: below the size cap, and above the floor of free space with ``room`` bytes to spare.

        :returns: the keys that went.
        """
        gone: list[str] = []
        while True:
            free = shutil.disk_usage(self._directory).free
            batch = plan(
                self.index.oldest,
                allocated=self.index.allocated,
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
        """Write a copy of the index, whole or not at all."""
        backup = self._directory / "index.backup.sqlite3"
        fresh = backup.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            target = sqlite3.connect(fresh)
            with target:
                self.index.connection.backup(target)
            target.close()
            fresh.chmod(0o600)
            os.replace(fresh, backup)
        except (sqlite3.Error, OSError) as error:
            _log.warn("The index could not be backed up: {why}", why=str(error))
