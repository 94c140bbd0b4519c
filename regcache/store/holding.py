"""The hold on a cache directory while the service runs: given up where the disk refuses, and taken again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from regcache.errors import CannotStore
from regcache.http.messages import Digest, Stored
from regcache.logs import Log
from regcache.store.directory import Directory, Opened
from regcache.store.index import FAILURES, Index, Row, alias_of, children, is_damage, rows
from regcache.store.writer import IndexDamaged, Writer

__all__ = ["RETRY_EVERY", "Condition", "Holding"]

_log = Log()
#: Seconds between two attempts to use a directory that could not be used.
RETRY_EVERY = 10.0
#: How many jobs that look at the rows of a damaged index are done before the service begins: at most 512 MiB.
_RESTORED_AT_ONCE = 16
_STOPPED = "The cache is stopped."
P = ParamSpec("P")
T = TypeVar("T")


@frozen
class Condition:
    """
    Of a store, for a probe.

    :ivar writable: whether something can be stored.
    :ivar index: ``sound``, ``restoring`` while a damaged one is put together again, or ``unreadable``.
    :ivar why: why nothing can be stored, in words for a person; empty if something can.
    """

    writable: bool
    index: str
    why: str


class Holding:
    """
    States: *storing* (there is a writer), *reading* (the disk refuses, but what was stored is found), *passing*
    (nothing is found or stored), *closed*.

    One thread does all that decides about names and rows, opening the directory included.

    :param made: makes the writer of an index.
    :param changed: told on the reactor thread when more or less can be found or stored than before.
    :ivar writer: None while nothing can be stored.
    :ivar why: why there is none.
    :ivar partly: whether bodies may stand there that the index has never known.
    :ivar reader: to look entries up with; None while none can be found.
    """

    def __init__(
        self, reactor: Any, directory: Directory, made: Callable[[Index], Writer], changed: Callable[[], None]
    ) -> None:
        self.writer: Writer | None = None
        self.reader: sqlite3.Connection | None = None
        self._reactor, self._directory, self._made, self._changed = reactor, directory, made, changed
        self._thread = ThreadPool(0, 1, "regcache-writer")
        self.why = _STOPPED
        self.partly = False
        self._opening = self._closed = False
        #: Those of the thread, under way or waiting. Until it is started, what is written is no job of its.
        self._jobs = 1

    def open(self) -> None:
        """
        Take the directory, before the reactor runs.

        :raises regcache.errors.ConfigError: if it is in use, or not this user's.
        """
        self._take(self._directory.open())
        # The entries that are likely to be asked for first; the rest follow beside what goes on.
        for _ in range(_RESTORED_AT_ONCE):
            with contextlib.suppress(CannotStore):
                if self.writer is not None and self.writer.restore()[1]:
                    continue
            break

    def condition(self, *, restored: bool) -> Condition:
        """
        What can be done now.

        :param restored: whether all bodies have been looked through since the index was opened.
        """
        index = "unreadable" if self.reader is None else "restoring" if self.partly and not restored else "sound"
        return Condition(self.writer is not None, index, self.why if self.writer is None else "")

    def start(self) -> None:
        """Let jobs run."""
        self._thread.start()
        self._jobs -= 1

    def _take(self, opened: Opened) -> None:
        before = self.writer is not None, self.reader is not None
        if self.reader is not None:
            self.reader.close()
        self.reader = opened.reader
        self.writer = None if opened.index is None else self._made(opened.index)
        self.partly = opened.partly
        self._say(opened.why)
        # What is known of entries outlives an attempt that has changed nothing.
        if before != (self.writer is not None, self.reader is not None):
            self._changed()

    def _say(self, why: str) -> None:
        if why and why != self.why:
            _log.error(
                "NOTHING CAN BE STORED in {path}: {why} Clients are served from the registries{what};"
                " it is tried again every {n:.0f} seconds.",
                path=str(self._directory.path),
                why=why,
                what=" and from what is stored" if self.reader is not None else "",
                n=RETRY_EVERY,
            )
        self.why = why

    def write(self, work: Callable[Concatenate[Writer, P], T], *args: P.args, **more: P.kwargs) -> Deferred[T]:
        """
        Run a job of the writer in its thread. Fails with CannotStore while there is none.
        """
        writer = self.writer
        if writer is None:
            return fail(CannotStore(self.why))
        return self._run(work, writer, *args, **more).addErrback(self._noticed, writer)

    def children(self, parent: str) -> Deferred[list[Stored]]:
        """The entries with that parent, as far as they can be read."""
        if self.writer is not None:
            return self.write(Writer.children, parent)
        if self.reader is not None:
            with contextlib.suppress(*FAILURES):
                return succeed(children(self.reader, parent))
        return succeed([])

    def named(self, digest: Digest) -> str | None:
        """The SHA-256 of the body with that digest, of those that no entry names."""
        if digest.algorithm == "sha256":
            return digest.value
        row = None
        if self.reader is not None:
            with contextlib.suppress(*FAILURES):
                asked = (alias_of(digest),)
                row = self.reader.execute("SELECT digest FROM aliases WHERE alias = ?", asked).fetchone()
        return None if row is None else str(row[0])

    def rows(self, keys: Sequence[str]) -> list[Row] | None:
        """
        The rows of the entries with these keys; None while none can be found.

        To begin to read takes half as long as to find a row, so that many are read as of the same moment. That ends
        whenever something is to be written: the log of the index is not begun anew while anybody reads, and what is
        written is to be seen.

        :raises sqlite3.Error: or another of :data:`regcache.store.index.FAILURES`, if they cannot be read.
        """
        reader = self.reader
        if reader is None:
            return None
        try:
            if not (self._jobs or reader.in_transaction):
                reader.execute("BEGIN")
            return rows(reader, keys)
        except FAILURES:
            self._read_anew()
            raise

    def _read_anew(self) -> None:
        if self.reader is not None and self.reader.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.reader.execute("ROLLBACK")

    def _run(self, work: Callable[..., Any], *args: Any, **more: Any) -> Deferred[Any]:
        self._read_anew()
        self._jobs += 1
        return deferToThreadPool(self._reactor, self._thread, work, *args, **more).addBoth(self._ran)

    def _ran(self, result: Any) -> Any:
        self._jobs -= 1
        return result

    def _noticed(self, failure: Any, writer: Writer) -> Any:
        if isinstance(failure.value, IndexDamaged) or is_damage(failure.value):
            self._distrust(writer, failure.getErrorMessage())
        return failure

    def damaged(self, error: Exception) -> None:
        """A look-up failed by this error."""
        if is_damage(error) and self.writer is not None:
            self._distrust(self.writer, str(error))
        else:
            _log.error("The index cannot be read: {why}", why=str(error))

    def _distrust(self, writer: Writer, why: str) -> None:
        """The index is damaged: go on without it, and make a new one of what is left."""
        if writer is not self.writer or self._closed:
            return
        _log.error("The index is damaged ({why}): it is rebuilt, and clients are served from the registries.", why=why)
        self.why = "The index is being rebuilt."
        self._take(Opened(None, None, self.why))
        self._open_again(writer)

    def retry(self) -> None:
        """If nothing can be stored, find out whether it can by now."""
        if self.writer is None and not self._opening:
            self._open_again(None)

    def _open_again(self, broken: Writer | None) -> None:
        self._opening = True
        self._run(self._opened_again, broken).addCallbacks(self._taken_again, self._refused)

    def _opened_again(self, broken: Writer | None) -> Opened:
        if broken is not None:
            self._directory.distrust()
            broken.abandon()
        return self._directory.open()

    def _taken_again(self, opened: Opened) -> None:
        self._opening = False
        if self._closed:
            opened.close()
            return
        self._take(opened)
        if self.writer is not None:
            _log.info("The cache directory {path} is in use again.", path=str(self._directory.path))

    def _refused(self, failure: Any) -> None:
        self._opening = False
        self._say(getattr(failure.value, "detail", failure.getErrorMessage()))

    def close(self) -> Deferred[Any]:
        """Back the index up, close everything, and let the directory go."""
        self._closed = True
        writer = self.writer
        # Whoever closes last takes the log into the index.
        self._take(Opened(None, None))
        self.why = _STOPPED
        return self._run((lambda: None) if writer is None else writer.close).addBoth(self._end)

    def _end(self, result: Any) -> Any:
        # Joining is safe: the last job of the writer has just ended.
        self._thread.stop()
        if isinstance(getattr(result, "value", None), IndexDamaged):
            _log.error("The index is damaged: the next start rebuilds it.")
            self._directory.distrust()
            result = None
        self._directory.let_go()
        return result
