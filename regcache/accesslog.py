"""The access log: lines gathered and written in batches, to a file that is rotated, or to standard output."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from regcache.config import Config
from regcache.errors import ConfigError
from regcache.flow.reply import How
from regcache.flow.waiting import Outcome, spawn
from regcache.lines import FORMATS, Form
from regcache.logs import Log

__all__ = ["AccessLog", "Target"]

_log = Log()
_EVERY = 0.5
_BATCH = 1 << 18
_MOST_WAITING = 1 << 20


@frozen(kw_only=True)
class Target:
    """
    Where lines go, and which.

    :ivar where: ``off``, ``-`` for standard output, or a file; a link, a device or a pipe is not rotated.
    :ivar form: one of :data:`regcache.lines.FORMATS`.
    :ivar hits: whether hits are written as well.
    :ivar most_bytes: of a file before it is rotated; 0 for never.
    :ivar kept: how many rotated files there are beside it.
    """

    where: str = "off"
    form: str = "combined"
    hits: bool = False
    most_bytes: int = 10 << 20
    kept: int = 5

    @classmethod
    def of(cls, config: Config) -> Target:
        """As it is configured."""
        return cls(
            where=config.access_log,
            form=config.access_log_format,
            hits=config.access_log_hits,
            most_bytes=config.access_log_max_size,
            kept=config.access_log_files,
        )

    def probe(self) -> None:
        """
        See that the file can be written, and make it if it is not there; blocks.

        :raises regcache.errors.ConfigError: if it cannot.
        """
        if self.where in ("off", "-"):
            return
        try:
            os.close(_appending(self.where))
        except OSError as error:
            raise ConfigError(f"--access-log: {self.where} cannot be written: {error.strerror}.") from None

    def write(self, text: str) -> None:
        """
        Write whole lines; blocks.

        :raises OSError: if they cannot be written; then no part of them stands in a file.
        """
        if self.where == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        path = Path(self.where)
        self._rotate(path)
        # Anew for every batch, so that a file which was moved away is not written any more.
        descriptor = _appending(self.where)
        try:
            _write_all(descriptor, text.encode("ascii", "backslashreplace"))
        finally:
            os.close(descriptor)

    def _rotate(self, path: Path) -> None:
        # A device, a pipe, or what a link such as /dev/stdout leads to has its place for others as well.
        if not self.most_bytes or path.is_symlink() or not path.is_file() or path.stat().st_size < self.most_bytes:
            return
        older = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, self.kept + 1))]
        for one, next_one in reversed(list(itertools.pairwise(older))):
            if one.exists():
                one.replace(next_one)
        path.unlink(missing_ok=True)
        # There are more where more were kept before.
        number = self.kept + 1
        while (gone := path.with_name(f"{path.name}.{number}")).is_file():
            gone.unlink()
            number += 1


def _appending(name: str) -> int:
    """A descriptor to write to the end of a file; a pipe that nobody reads is an error, not waited for."""
    return os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)


def _write_all(descriptor: int, data: bytes) -> None:
    before, left = os.fstat(descriptor), memoryview(data)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        if stat.S_ISREG(before.st_mode):
            # Half a line would be read together with the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before.st_size)
        raise


class AccessLog:
    """
    Counts every request; gathers the lines of those that were no hits, and writes them where the operator wants them.

    Lines are written in a thread, twice a second or every 256 KiB. While the disk is stuck at most 1 MiB is kept. What
    cannot be written costs no request: it is said once, and the lines are counted until some can be written again.

    :param target: where they go.
    :param in_thread: runs a function beside the reactor.
    :ivar counts: all requests, by outcome.
    :ivar lost: how many lines could not be written.
    """

    def __init__(
        self,
        clock: IReactorTime,
        target: Target,
        in_thread: Callable[..., Deferred[Any]] = maybeDeferred,
    ) -> None:
        self.counts = dict.fromkeys(How, 0)
        self.lost = 0
        self._clock = clock
        self._in_thread = in_thread
        self.change(target)
        self._lines: list[str] = []
        self._size = 0
        self._missing = 0
        self._complained = False
        self._timer: Any = None
        self._writing: Outcome[None] | None = None

    def open(self) -> None:
        """
        See that the file can be written.

        :raises regcache.errors.ConfigError: if it cannot.
        """
        self._target.probe()

    def change(self, target: Target) -> None:
        """Write there from now on; what has gathered goes there as well, what is being written still where it was."""
        self._target = target
        form = None if target.where == "off" else FORMATS[target.form]
        self._forms = {how: form if target.hits or how is not How.HIT else None for how in How}

    def counted(self, how: How) -> Form | None:
        """A request was answered; the form in which a line of it is wanted, if one is."""
        self.counts[how] += 1
        return self._forms[how]

    def note(self, line: str) -> None:
        """Have a line written, in the form that is wanted."""
        if self._size > _MOST_WAITING:
            self._lose(1, "the disk is too slow")
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BATCH or self._timer is None:
            self._soon()

    def _soon(self) -> None:
        """Write a batch once it is large, or has waited."""
        if self._size > _BATCH:
            self._flush()
        elif self._lines and self._timer is None:
            self._timer = self._clock.callLater(_EVERY, self._flush)

    async def stop(self) -> None:
        """Write what has gathered."""
        while self._lines or self._writing is not None:
            self._flush()
            if self._writing is not None:
                await self._writing.wait()

    def _lose(self, lines: int, why: str) -> None:
        self.lost += lines
        self._missing += lines
        if not self._complained:
            self._complained = True
            _log.error(
                "The access log {where} cannot be written: {why}. Its lines are lost until it can.",
                where=self._target.where,
                why=why,
            )

    def _flush(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._writing is not None or not self._lines:
            return
        lines, self._lines, self._size = self._lines, [], 0
        self._writing = spawn(self._write_out(lines))
        if self._writing.known:
            self._writing = None

    async def _write_out(self, lines: list[str]) -> None:
        try:
            await self._in_thread(self._target.write, "\n".join(lines) + "\n")
        except OSError as error:
            self._lose(len(lines), error.strerror or str(error))
        else:
            if self._missing:
                _log.warn("The access log is written again; {number} lines were lost.", number=self._missing)
            self._missing, self._complained = 0, False
        finally:
            self._writing = None
        # Not at once: job after job of a few lines would take the reactor's turn from it.
        self._soon()
