"""Files that are replaced while the service runs, such as certificates: seen, read anew, and then used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regcache.errors import ConfigError
from regcache.flow.waiting import Outcome, spawn
from regcache.logs import Log

__all__ = ["Renewable", "Renewal", "signature"]

_log = Log()
#: Seconds between two looks.
_LOOK_EVERY = 60.0
_Signature = tuple[tuple[int, int, int] | None, ...]
_Key = tuple[str, tuple[str, ...]]


@frozen
class Renewable:
    """
    Something that is read from files.

    :ivar what: it, for a person.
    :ivar files: what it is read from.
    :ivar read: reads it; blocks. Returns what puts it to use, to be called on the reactor's thread. Raises ConfigError.
    """

    what: str
    files: tuple[str, ...]
    read: Callable[[], Callable[[], object]]

    @property
    def key(self) -> _Key:
        """What it is known by from one look to the next."""
        return self.what, self.files


def signature(files: Iterable[str]) -> _Signature:
    """By what the present content of files is known; None for one that is not there. Blocks."""
    return tuple(map(_seen, files))


def _seen(file: str) -> tuple[int, int, int] | None:
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


class Renewal:
    """
    Looks at files every minute, and when it is told to; what has changed is read in a thread and then used.

    A file that cannot be used is said once, and what was read before stays in use.

    :param found: what there is, asked for at each look.
    :param in_thread: runs a function beside the reactor.
    """

    def __init__(
        self,
        clock: IReactorTime,
        found: Callable[[], Iterable[Renewable]],
        in_thread: Callable[..., Deferred[Any]] = maybeDeferred,
    ) -> None:
        self._clock, self._found, self._in_thread = clock, found, in_thread
        self._known: dict[_Key, _Signature] = {}
        self._timer: IDelayedCall | None = None
        self._looking: Outcome[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """What there is has just been read; look again from now on."""
        self._known = {one.key: signature(one.files) for one in self._found()}
        self._rest()

    def stop(self) -> None:
        """Look no more; what is being read is not used any more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def look(self) -> Deferred[None]:
        """Look now; fires when all that has changed is used. Whoever comes meanwhile waits for the same look."""
        if self._looking is None:
            looking = self._looking = spawn(self._look())
            looking.wait().addBoth(self._looked)
            return looking.wait()
        return self._looking.wait()

    def _looked(self, _result: object) -> None:
        self._looking = None

    def _rest(self) -> None:
        self._timer = self._clock.callLater(_LOOK_EVERY, self._again)

    def _again(self) -> None:
        self._rest()
        self.look()

    async def _look(self) -> None:
        there = list(self._found())
        known = {one.key: self._known[one.key] for one in there if one.key in self._known}
        for one in there:
            before = known.get(one.key)
            try:
                seen, use = await self._in_thread(_read, one, before)
            except _Unusable as error:
                known[one.key] = error.seen
                _log.error("{what}: {why} What was in use before still is.", what=one.what, why=error.detail)
                continue
            known[one.key] = seen
            if use is None or self._stopped:
                continue
            use()
            if before is not None:
                _log.info("{what}: its files have changed, and are used as they are now.", what=one.what)
        self._known = known


class _Unusable(ConfigError):
    """What has changed cannot be used."""

    def __init__(self, detail: str, seen: _Signature) -> None:
        super().__init__(detail)
        self.seen = seen


def _read(one: Renewable, known: _Signature | None) -> tuple[_Signature, Callable[[], object] | None]:
    # Before it is read: what changes meanwhile is found by the next look.
    seen = signature(one.files)
    if seen == known:
        return seen, None
    try:
        return seen, one.read()
    except ConfigError as error:
        raise _Unusable(error.detail, seen) from None
