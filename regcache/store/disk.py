"""
The store on disk: joins the blobs and the index, and keeps the promises of :class:`regcache.interfaces.IStore`.

Threads: jobs on files run in a pool; everything that decides about names (rename, unlink, rows) runs in one writer
thread, one after the other, so that a body is never unlinked while another commit is about to name it.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from regcache.counts import Counts
from regcache.errors import BlobDamaged, CannotStore, TooBusy
from regcache.http.messages import Digest, Stored
from regcache.interfaces import IBody, IPartial, IStore
from regcache.logs import Log
from regcache.revision import Revision
from regcache.store.blobs import File, FileBody, SmallFiles, blob_name
from regcache.store.directory import Directory
from regcache.store.files import Files
from regcache.store.gather import Gathering
from regcache.store.holding import RETRY_EVERY, Condition, Holding
from regcache.store.index import FAILURES, Index, read_entry
from regcache.store.partial import Partial, ended, given_up, standing
from regcache.store.placing import Commit
from regcache.store.presence import Presence
from regcache.store.records import Records
from regcache.store.scrub import Reading, Scrubber
from regcache.store.space import Bounds, Space
from regcache.store.upkeep import Upkeep
from regcache.store.uses import Uses
from regcache.store.writer import Outcome, Writer

__all__ = ["DiskStore"]

_log = Log()
_USES_EVERY = 10.0
_SPACE_EVERY = 5.0
#: Bytes up to which a body stays in memory until the writer takes it, and of all that wait for the writer.
_MOST_HELD = 1 << 17
_MOST_WAITING = 16 << 20
#: Bytes of a body that is read at once: larger ones leave through the kernel.
_MOST_READ = 24 << 10
#: What keeps a file from being opened and says nothing about it.
_NOT_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})


def _nothing(_data: bytes) -> None:
    """Nobody wants to see what is written."""


@implementer(IStore)
class DiskStore:
    """
    A store in a directory.

    :param reactor: for timers and for coming back from threads.
    :param max_size: allocated bytes to stay below; 0 for any.
    :param min_free: bytes of the file system to leave free.
    :param scrub: seconds in which every body is read again once; None for never.
    :param now: the wall clock.
    :param steps: told each step of a commit, in the thread that does it; tests stop the process there.
    :param files: what is done to the disk.
    :param counts: the numbers of the service.
    :param apart: whether many small files are made by a process of its own, which tells no steps and knows no files but
        the usual.
    :ivar bounds: how much it may take; to be changed by whoever wants others.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        reactor: Any,
        max_size: int = 10 << 30,
        min_free: int = 1 << 30,
        scrub: float | None = None,
        now: Callable[[], float] = time.time,
        steps: Callable[[str], None] = lambda _step: None,
        files: Files | None = None,
        counts: Counts | None = None,
        apart: bool = False,
    ) -> None:
        self._counts = counts or Counts()
        self._path = Path(directory).absolute()
        self._blobs, self._partials = self._path / "blobs", self._path / "partial"
        self._bodies, self._small = str(self._blobs), SmallFiles(_MOST_READ)
        self._disk = Files() if files is None else files
        self._reactor, self._steps = reactor, steps

        self.bounds = Bounds(max_size, min_free)

        taken = Directory(self._path, self._disk, now)

        def writer(index: Index) -> Writer:
            lock = (lambda: taken.making) if apart else None
            return Writer(index, self._path, self.bounds, now, steps, self._disk, lock)

        self._hold = Holding(reactor, taken, writer, self._changed)
        self._write = self._hold.write
        self._upkeep = Upkeep(reactor, self._hold, self._evicted, self._failed)
        self._space = Space(self.bounds, lambda: self.usage()[0], self._make_room)
        self._evicting = False
        self._files = ThreadPool(0, 4, "regcache-files")
        self.revision = Revision()
        self._records = Records(self.revision)
        self._there = Presence(self._bodies, self._in_thread)
        self._names = (f"{os.getpid()}-{number}" for number in itertools.count())
        self._uses = Uses(lambda uses: self._write(Writer.touch, uses), self._failed)
        self._commits = Gathering(reactor, self._write_commits, self._committed)
        self._running = False
        self._scrubber: Scrubber | None = None
        if scrub is not None:
            self._scrubber = Scrubber(
                reactor, scrub, self._in_thread, self.next_body, lambda: self.usage()[0], self.condemn
            )

    # Life.

    def open_directory(self) -> None:
        """
        Take the directory. Where the disk refuses, the log says so, and it is taken once that can be done.

        :raises regcache.errors.ConfigError: with one line for a person, if it is in use, or not this user's.
        """
        self._hold.open()

    def start(self) -> None:
        """Begin to serve; :meth:`open_directory` must have been called."""
        self._files.start()
        self._hold.start()
        self._running = True
        self._upkeep.every(_SPACE_EVERY, self._measure)
        self._upkeep.every(_USES_EVERY, self._uses.note)
        self._upkeep.every(RETRY_EVERY, self._hold.retry)
        self._upkeep.start()
        self._changed()
        self._measure()
        if self._scrubber is not None:
            self._scrubber.start()

    def _changed(self) -> None:
        """The index is another one: what was known of it is not."""
        self._records = Records(self.revision)
        self.revision.another()
        self._upkeep.begin_anew()

    def next_body(self, last: str) -> Deferred[Reading | None]:
        """As :meth:`Writer.next_body`."""
        return self._write(Writer.next_body, last)

    def condemn(self, reading: Reading) -> Deferred[None]:
        """Have a body go that was found wrong, and its entries."""
        return self._write(Writer.condemn, reading.digest, reading.inode).addCallback(self._condemned, reading.wrong)

    def _condemned(self, keys: list[str], why: str) -> None:
        for key in keys:
            self._records.put(key, None)
        self._counts.damaged += 1
        if keys:
            told = "{keys}: the stored body is damaged: {why} It is dropped, and fetched again when it is asked for."
            _log.error(told, keys=", ".join(keys), why=why)

    def stop(self) -> Deferred[None]:
        """Write what is left, back the index up, and let the directory go."""
        if not self._running:
            return succeed(None)
        self._running = False
        self.revision.another()
        self._upkeep.stop()
        self._uses.note_all()
        scrubbed = succeed(None) if self._scrubber is None else self._scrubber.stop()
        drained = scrubbed.addCallback(lambda _: self._commits.drain())
        return drained.addCallback(lambda _: self._hold.close()).addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        # No request is left that could add a job.
        self._files.stop()
        return result

    def _measure(self) -> None:
        self._in_thread(self._disk.free, self._path).addCallbacks(self._space.measured, lambda _: None)

    # Looking up.

    def peek(self, key: str) -> Stored | None:
        if not self._running:
            return None
        known = self._records.get(key)
        return self._look_up([key]).get(key) if known is None else known.entry

    def find(self, key: str, beside: Sequence[str] = ()) -> Deferred[Stored | None]:
        known = self._records.get(key)
        if known is not None and known.entry is not None:
            return succeed(known.entry if self._running else None)
        unknown = [one for one in (key, *beside) if self._records.get(one) is None]
        return succeed(self._look_up(unknown).get(key) if self._running and unknown else None)

    def find_all(self, keys: Sequence[str]) -> Deferred[dict[str, Stored]]:
        known = {key: self._records.get(key) for key in keys}
        found = {key: one.entry for key, one in known.items() if one is not None and one.entry is not None}
        unknown = [key for key, one in known.items() if one is None]
        if unknown and self._running:
            found |= self._look_up(unknown)
        return succeed(found)

    def _look_up(self, keys: Sequence[str]) -> dict[str, Stored]:
        entries = self._read(keys)
        if entries is None:
            return {}
        found = {entry.key: entry for entry in entries}
        for key in keys:
            self._records.put(key, found.get(key))
        return found

    def glance(self, keys: Sequence[str]) -> list[Stored | None]:
        if not self._running:
            return [None] * len(keys)
        known = {key: self._records.get(key) for key in keys}
        unknown = [key for key, one in known.items() if one is None]
        read = self._read(unknown) if unknown else []
        found = {entry.key: entry for entry in read or ()}
        if read is not None and len(read) < len(unknown):
            for key in unknown:
                if key not in found:
                    self._records.put(key, None)
        return [found.get(key) if (one := known[key]) is None else one.entry for key in keys]

    def keep(self, entry: Stored) -> None:
        if self._running and self._records.get(entry.key) is None:
            self._records.put(entry.key, entry)

    def _read(self, keys: Sequence[str]) -> list[Stored] | None:
        """The entries of these keys; None if the index cannot be read."""
        try:
            rows = self._hold.rows(keys)
            return None if rows is None else [read_entry(row) for row in rows]
        except FAILURES as error:
            self._hold.damaged(error)
            return None

    def children(self, parent: str) -> Deferred[list[Stored]]:
        return self._hold.children(parent)

    def open(self, entry: Stored) -> IBody:
        try:
            fd = os.open(blob_name(self._blobs, entry.digest), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NOT_NOW:
                raise TooBusy(f"{error.strerror}.") from None
            if error.errno == errno.ENOENT:
                self.drop(entry.key)
            self._counts.damaged += 1
            raise BlobDamaged(f"{entry.key}: {error.strerror}.") from None
        if os.fstat(fd).st_size != entry.size:
            os.close(fd)
            self.drop(entry.key)
            self._counts.damaged += 1
            raise BlobDamaged(f"{entry.key}: it does not have the size it was stored with.")
        return FileBody(File(fd), entry.size, self._in_thread, partial(self.open, entry))

    def read(self, entry: Stored) -> bytes | None:
        return self._small.read(blob_name(self._bodies, entry.digest), entry.size)

    # Writing.

    def create(
        self, observe: Callable[[bytes], object] = _nothing, expected: int | None = None, most: int = 0
    ) -> IPartial:
        self._see_that_it_runs()
        room = expected or 0
        if most and room > most:
            raise CannotStore(f"It has more than {most} bytes (--max-file-size).")
        self._space.take(room)
        # While the disk is behind, bodies do not gather in memory.
        held = 0 if self.crowded else _MOST_HELD
        path, in_thread = self._new_path(), self._in_thread
        return Partial(path, observe, in_thread, self._space, self._disk, room=room, most=most, most_held=held)

    @property
    def crowded(self) -> bool:
        return self._commits.waiting_bytes > _MOST_WAITING

    def caught_up(self) -> Deferred[None]:
        return self._commits.caught_up()

    def adopt(self, digest: Digest, observe: Callable[[bytes], object] = _nothing) -> Deferred[IPartial | None]:
        name = self._hold.named(digest) if self._running and self._hold.writer is not None else None
        # A thread is for reading it: hardly ever is there anything to read.
        if name is None or not self._there.may_hold(name) or not os.access(blob_name(self._blobs, name), os.F_OK):
            return succeed(None)
        return self._in_thread(standing, self._blobs, name, observe, self._in_thread, self._space)

    def _see_that_it_runs(self) -> None:
        if not self._running or self._hold.writer is None:
            raise CannotStore(self._hold.why)

    def _make_room(self, size: int) -> None:
        """Evict beside what goes on, once at a time."""
        if not self._evicting and self._running:
            self._evicting = True
            self._uses.note_all()
            making = self._write(Writer.evict, size).addBoth(self._rested)
            making.addCallbacks(self._made_room, self._failed)

    def _rested(self, result: Any) -> Any:
        self._evicting = False
        return result

    def _made_room(self, keys: list[str]) -> None:
        self._evicted(keys)
        self._counts.evicted += len(keys)
        if keys:
            self._measure()
            self._make_room(0)

    def _new_path(self) -> Path:
        return self._partials / next(self._names)

    def commit(self, partial: IPartial, entry: Stored) -> Deferred[None]:
        assert isinstance(partial, Partial)
        self._there.comes(entry.digest)
        fd = partial.fd
        if fd is None:
            done = self._commits.add(Commit(partial.path, entry, partial.held))
        else:
            done = self._in_thread(self._sync, fd).addCallback(lambda _: self._commits.add(Commit(partial.path, entry)))
        return done.addCallbacks(ended, given_up, callbackArgs=(partial,), errbackArgs=(partial,))

    def _write_commits(self, batch: list[Commit]) -> Deferred[Outcome]:
        """Others may have to make room for them: what was used last is noted before."""
        writer = self._hold.writer
        if writer is not None and self._space.is_tight(sum([writer.room_of(commit.entry) for commit in batch])):
            self._uses.note_all()
        return self._write(Writer.commit, batch)

    def _sync(self, fd: int) -> None:
        self._steps("written")
        try:
            self._disk.sync(fd)
        except OSError as error:
            raise CannotStore(f"{error.strerror}.") from None
        self._steps("synced")

    def put(self, entry: Stored, body: bytes) -> Deferred[None]:
        try:
            self._see_that_it_runs()
            self._space.take(len(body))
        except CannotStore:
            return fail()
        self._there.comes(entry.digest)
        return self._commits.add(Commit(self._new_path(), entry, body)).addBoth(self._put_down, len(body))

    def _put_down(self, result: Any, size: int) -> Any:
        self._space.give_back(size)
        return result

    def _committed(self, entries: list[Stored], dropped: list[str]) -> None:
        for entry in entries:
            self._records.put(entry.key, entry)
        self._evicted(dropped)
        self._counts.evicted += len(dropped)
        if dropped:
            self._make_room(0)

    def _evicted(self, keys: list[str]) -> None:
        for key in keys:
            self._records.drop(key)

    def update(self, entry: Stored) -> None:
        if self.peek(entry.key) is None:
            return
        self._records.put(entry.key, entry)
        self._write(Writer.update, entry).addErrback(self._failed)

    def drop(self, key: str, *more: str) -> Deferred[None]:
        for one in (key, *more):
            self._records.put(one, None)
        return self._write(Writer.drop, key, *more).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        # Where nothing can be written at all, that has been said.
        if self._hold.writer is not None:
            why = failure.value.detail if isinstance(failure.value, CannotStore) else failure.getErrorMessage()
            _log.error("The index could not be written: {why}", why=why)

    def used(self, key: str, now: float) -> None:
        if self._running:
            self._uses.used(key, now)

    def usage(self) -> tuple[int, int]:
        writer = self._hold.writer
        return (0, 0) if writer is None else (writer.index.allocated, writer.index.entries)

    def condition(self) -> Condition:
        """Whether it can be written and read now."""
        return self._hold.condition(restored=self._upkeep.has_swept)

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._files, work, *args)
