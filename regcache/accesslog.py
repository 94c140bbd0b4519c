"""The access log: lines gathered and written in batches, to a file that is rotated, or to standard output."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from regcache.errors import ConfigError, shown
from regcache.flow.reply import How
from regcache.flow.waiting import Outcome, spawn
from regcache.logs import Log

__all__ = ["AccessLog", "Line"]

_log = Log()
_EVERY = 0.5
_BATCH = 1 << 16
_MOST_WAITING = 1 << 20
_MOST_BYTES = 10 << 20
_KEPT_FILES = 5


@frozen(kw_only=True)
class Line:
    """One request, as it is logged."""

    when: float
    client: str
    method: str
    target: str
    status: int
    sent: int
    how: How
    upstream_seconds: float | None
    seconds: float

    def text(self) -> str:
        """The line: UTC time, client, request, status, bytes, outcome, upstream time, time."""
        when = datetime.fromtimestamp(self.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        waited = "-" if self.upstream_seconds is None else f"{self.upstream_seconds:.3f}"
        client = self.client or "unix"
        request = shown(f"{self.method} {self.target}").replace("\\", "\\\\").replace('"', '\\"')
        return f'{when} {client} "{request}" {self.status} {self.sent} {self.how.value} {waited} {self.seconds:.3f}'


def _appending(name: str, _flags: int) -> int:
    """A descriptor to write to the end of a file; a pipe that nobody reads is an error, not waited for."""
    return os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)


class AccessLog:
    """
    Counts every request; gathers the lines of those that were no hits, and writes them where the operator wants them.

    Lines are written in a thread, twice a second or every 64 KiB. While the disk is stuck at most 1 MiB is kept.

    :param where: ``off``, ``-`` for standard output, or a file, rotated at 10 MB, five kept; a link is not rotated.
    :param hits: whether hits are written as well.
    :param in_thread: runs a function beside the reactor.
    """

    def __init__(
        self, clock: IReactorTime, where: str, hits: bool, in_thread: Callable[..., Deferred[Any]] = maybeDeferred
    ) -> None:
        self.counts: Counter[How] = Counter()
        self._clock = clock
        self._where = where
        self._hits = hits
        self._in_thread = in_thread
        self._lines: list[str] = []
        self._size = 0
        self._lost = 0
        self._timer: Any = None
        self._writing: Outcome[None] | None = None

    def open(self) -> None:
        """
        See that the file can be written.

        :raises regcache.errors.ConfigError: if it cannot.
        """
        if self._where in ("off", "-"):
            return
        try:
            os.close(_appending(self._where, 0))
        except OSError as error:
            raise ConfigError(f"--access-log: {self._where} cannot be written: {error.strerror}.") from None

    def note(self, line: Line) -> None:
        """A request was answered."""
        self.counts[line.how] += 1
        if self._where == "off" or (line.how is How.HIT and not self._hits):
            return
        if self._size > _MOST_WAITING:
            self._lost += 1
            return
        text = line.text()
        self._lines.append(text)
        self._size += len(text)
        if self._size > _BATCH:
            self._flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(_EVERY, self._flush)

    async def stop(self) -> None:
        """Write what has gathered."""
        self._flush()
        while self._writing is not None:
            await self._writing.wait()

    def _flush(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._writing is not None or not self._lines:
            return
        if self._lost:
            self._lines.append(f"# {self._lost} lines were lost: the disk was too slow.")
            self._lost = 0
        text = "\n".join(self._lines) + "\n"
        self._lines, self._size = [], 0
        self._writing = spawn(self._write_out(text))
        if self._writing.known:
            self._writing = None

    async def _write_out(self, text: str) -> None:
        try:
            await self._in_thread(self._write, text)
        except OSError as error:
            _log.error("The access log {where} cannot be written: {why}", where=self._where, why=str(error))
        finally:
            self._writing = None
        self._flush()

    def _write(self, text: str) -> None:
        if self._where == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        path = Path(self._where)
        self._rotate(path)
        with open(path, "a", encoding="ascii", errors="backslashreplace", opener=_appending) as file:
            file.write(text)

    @staticmethod
    def _rotate(path: Path) -> None:
        # A device, a pipe, or what a link such as /dev/stdout leads to has its place for others as well.
        if path.is_symlink() or not path.is_file() or path.stat().st_size < _MOST_BYTES:
            return
        for number in range(_KEPT_FILES - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
