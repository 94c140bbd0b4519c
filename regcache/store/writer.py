"""
What happens in the writer thread: names on disk and rows in the index, in the order that survives a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from regcache.errors import CannotStore
from regcache.http.messages import Digest, Stored
from regcache.logs import Log
from regcache.store.backup import back_up
from regcache.store.blobs import blob_path
from regcache.store.evict import plan
from regcache.store.files import Files
from regcache.store.index import FAILURES, Index, is_damage, row_bytes
from regcache.store.journal import Journal
from regcache.store.placing import Commit, Placing
from regcache.store.rebuild import CANDIDATES, has_candidates
from regcache.store.scrub import Reading
from regcache.store.space import Bounds

__all__ = ["IndexDamaged", "Outcome", "Writer"]

_log = Log()
#: Seconds for which a body that no entry names stays, to be adopted.
_ORPHAN_AGE = 7 * 86400.0
#: Of the rows of a damaged index, how many are looked at in one go, and up to how many bytes of their bodies.
_MOST_RESTORED, _MOST_HASHED = 64, 32 << 20
_PIECE = 1 << 20
#: The algorithms of the digests that registries state, beside that which names bodies.
_FURTHER = ("sha512", "sha1")


class IndexDamaged(CannotStore):
    """The index is damaged."""


@frozen
class Outcome:
    """
    What became of a number of commits.

    :ivar failed: why each did not become an entry, in their order; None for those that did.
    :ivar dropped: the keys of entries that had to make room.
    """

    failed: list[CannotStore | None]
    dropped: list[str]


class Writer:
    """
    All methods are called in the writer thread, one at a time; ``index`` totals may be read anywhere.

    The order of a commit: the file is on disk (fsync; of a large one, before, in the pool) → it gets its name → the
    name is on disk → the row is committed. The order of a removal is the reverse: the row first, then the file.

    :param lock: as :class:`Placing` takes it.
    """

    def __init__(
        self,
        index: Index,
        directory: Path,
        bounds: Bounds,
        now: Callable[[], float],
        steps: Callable[[str], None],
        files: Files,
        lock: Callable[[], int] | None = None,
    ) -> None:
        self.index = index
        self._files = files
        self._directory = directory
        self._blobs = directory / "blobs"
        self._bounds = bounds
        # By the eviction that goes on.
        self._gone = 0
        self._journal = Journal(index.connection, directory / "index.sqlite3-wal")
        self._now = now
        self._steps = steps
        self._placing = Placing(self._blobs, files, steps, lock)
        self._block = os.statvfs(directory).f_frsize

    def commit(self, commits: list[Commit]) -> Outcome:
        """
        Make them entries, in one transaction.

        :raises regcache.errors.CannotStore: if none can be.
        """
        failed = self._placing.place(commits)
        placed = [commit for commit, error in zip(commits, failed, strict=True) if error is None]
        names_synced = self._placing.sync({commit.entry.digest[:2] for commit in placed if commit.lasts})
        entries = [(commit.entry, self.room_of(commit.entry)) for commit in placed]
        loose: set[str] = set()

        def insert() -> None:
            loose.update(self.index.insert(entries, self._now()))
            # Nobody sees the rows before the transaction ends.
            names_synced()
            self._steps("directory-synced")

        try:
            self._transact(insert)
        except IndexDamaged:
            # They are adopted once there is an index again.
            raise
        except (CannotStore, OSError) as error:
            self._unlink({commit.entry.digest for commit in placed})
            raise error if isinstance(error, CannotStore) else CannotStore(f"{error.strerror}: {self._blobs}") from None
        self._steps("inserted")
        self._unlink(loose)
        return Outcome(failed, self.evict(0))

    def room_of(self, entry: Stored) -> int:
        """
        Bytes on the disk, the row included: without that, there could be any number of entries without a body.

        It may be asked from any thread.
        """
        return -(-(entry.size + row_bytes(entry)) // self._block) * self._block

    def _transact(self, work: Callable[[], object]) -> None:
        self._journal.see_that_there_is_room()
        try:
            self.index.begin()
            try:
                work()
                self._steps("rows-written")
                self.index.commit()
            except BaseException:
                self.index.rollback()
                raise
        except FAILURES as error:
            kind = IndexDamaged if is_damage(error) else CannotStore
            raise kind(f"The index cannot be written: {error}.") from None

    def _unlink(self, digests: set[str]) -> None:
        """Bodies that an entry has just ceased to name go, if no other names them."""
        with contextlib.suppress(OSError, *FAILURES):
            gone = [digest for digest in digests if not self.index.named(digest)]
            if gone:
                # Until the rows are on disk, a power cut would bring back those that name these bodies.
                self._files.sync_path(self._journal.path)
                self._steps("log-synced")
            for digest in gone:
                self._files.remove(blob_path(self._blobs, digest))
                self._steps("unlinked")

    def update(self, entry: Stored) -> None:
        """Replace the record of an entry."""
        self._transact(lambda: self.index.update(entry))

    def touch(self, uses: list[tuple[str, float, int]]) -> None:
        """Note uses."""
        self._transact(lambda: self.index.touch(uses))

    def children(self, parent: str) -> list[Stored]:
        """The entries with that parent."""
        return self.index.children(parent)

    def drop(self, *keys: str) -> None:
        """Forget entries."""
        self._remove(list(keys))

    def _remove(self, keys: list[str]) -> None:
        loose: set[str] = set()
        self._transact(lambda: loose.update(self.index.remove(keys)))
        self._unlink(loose)

    def evict(self, room: int) -> list[str]:
        """
        Make room for ``room`` bytes, below the size cap and above the floor of free space, by one batch: what comes
        meanwhile is stored between two.

        :returns: the keys that went; none once there is room.
        """
        free = self._files.free(self._directory)
        batch = plan(
            self.index.oldest,
            allocated=self.index.allocated,
            room=room,
            max_size=self._bounds.max_size,
            wanted_free=self._bounds.min_free + room - free,
            going=bool(self._gone),
        )
        if batch:
            self._remove(batch)
            self._gone += len(batch)
        elif self._gone:
            _log.info("{n} entries were evicted.", n=self._gone)
            self._gone = 0
        return batch

    def sweep(self, name: str) -> bool:
        """
        Remove the bodies of one directory that no entry has named for a week, since they were first found so.

        Until then they stay: after a damaged index was rebuilt, what it had lost is adopted when it is asked for again.
        For that, their further digests are noted.

        :returns: whether all were looked at; if not, this wants to be repeated.
        """
        found: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            found = {name + file for file in os.listdir(self._blobs / name)}
        nameless = {digest for digest in found if not self.index.named(digest)}
        known = self.index.loose(name)
        old = {digest for digest in nameless & known.keys() if self._now() - known[digest] > _ORPHAN_AGE}
        for digest in old:
            self._files.remove(blob_path(self._blobs, digest))
        gone, unknown = (known.keys() - nameless) | old, sorted(nameless - known.keys())
        new: dict[str, list[Digest]] = {}
        left = _MOST_HASHED
        while unknown and left > 0:
            digest = unknown.pop()
            new[digest], size = self._further(digest)
            left -= size
        if gone or new:
            self._transact(lambda: self.index.note_loose(new, gone, self._now()))
        if old:
            _log.info("{n} bodies that no entry had named for a week were removed.", n=len(old))
        return not unknown

    def _further(self, digest: str) -> tuple[list[Digest], int]:
        """Digests of a body by which an index may state it, unless it is damaged; and its size."""
        made = {name: hashlib.new(name) for name in ("sha256", *_FURTHER)}
        size = 0
        with contextlib.suppress(OSError), open(blob_path(self._blobs, digest), "rb") as file:
            while piece := file.read(_PIECE):
                size += len(piece)
                for one in made.values():
                    one.update(piece)
        if made["sha256"].hexdigest() != digest:
            return [], size
        return [Digest(name, made[name].hexdigest()) for name in _FURTHER], size

    # Bodies that turn out wrong, and entries that turn out right.

    def next_body(self, last: str) -> Reading | None:
        """
        The body to be read again after that with the digest ``last``; None at the end of all.

        :param last: empty to go on where that was left, by whatever process.
        """
        index = self.index
        # No digit comes after g: a body whose digest begins like that was the last.
        found = index.body_after(last or f"{index.scrubbed:015x}g")
        # It is written with whatever is written next.
        index.scrubbed = int(last[:15], 16) if last and found is not None else 0 if found is None else index.scrubbed
        return None if found is None else Reading(blob_path(self._blobs, found[0]), *found)

    def condemn(self, digest: str, inode: int) -> list[str]:
        """
        A body is not what its name says: its entries go, and whoever is reading it gets no more of it.

        :param inode: of the file that was read; 0 if there was none. One that has taken its place since is left alone.
        :returns: the keys of the entries that named it; where the disk refuses, they are only to be forgotten.
        """
        path = blob_path(self._blobs, digest)
        there = path.stat().st_ino if path.exists() else 0
        if there != inode:
            return []
        keys = self.index.keys_of(digest)
        with contextlib.suppress(OSError):
            # Whoever has it open sees its end, before the length that was announced.
            os.truncate(path, 0)
        try:
            self._transact(lambda: self.index.remove(keys))
            self._files.remove(path)
        except (OSError, CannotStore) as error:
            _log.warn("A damaged body cannot be removed: {why}", why=str(error))
        return keys

    def restore(self) -> tuple[list[str], bool]:
        """
        Make entries of some rows of a damaged index, the last used first: those whose bodies are right.

        :returns: their keys, and whether there are more rows.
        """
        connection = self.index.connection
        if not has_candidates(connection):
            return [], False
        rows = connection.execute(
            f"SELECT key, rank, digest, size FROM {CANDIDATES} ORDER BY used_at DESC, rank LIMIT {_MOST_RESTORED}"
        ).fetchall()
        seen: list[tuple[str, int]] = []
        good: list[tuple[str, int]] = []
        hashed = 0
        right: dict[tuple[str, int], bool] = {}
        for key, rank, digest, size in rows:
            if (digest, size) not in right:
                if hashed + size > _MOST_HASHED and seen:
                    break
                right[digest, size] = self._is_right(digest, size)
                hashed += size
            seen.append((key, rank))
            if right[digest, size]:
                good.append((key, rank))
        restored: list[str] = []
        self._transact(lambda: restored.extend(self.index.restore(CANDIDATES, seen, good)))
        return restored, bool(rows)

    def _is_right(self, digest: str, size: int) -> bool:
        """Whether a body is there, and is what its name says."""
        try:
            with open(blob_path(self._blobs, digest), "rb") as file:
                if os.fstat(file.fileno()).st_size != size:
                    return False
                made = hashlib.sha256()
                while piece := file.read(_PIECE):
                    made.update(piece)
        except OSError:
            return False
        return made.hexdigest() == digest

    # The index as a whole.

    def close(self) -> None:
        """Back the index up and close it; whoever else has it open finds its log empty."""
        try:
            self.back_up()
            self.settle()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let everything go as it is."""
        self._placing.close()
        self.index.connection.close()

    def rest(self) -> None:
        """End what has had nothing to do since this was last called."""
        self._placing.rest()

    def back_up(self) -> None:
        """
        Write a copy of the index.

        :raises IndexDamaged: if it is damaged.
        """
        if not back_up(self.index.connection, self._directory, self._files):
            raise IndexDamaged("Its copy is not sound.")

    def settle(self) -> None:
        """Empty the log of the index, as far as its readers let that be done."""
        self._journal.settle()
