"""The helper processes that read documents, as the service sees them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock, fail, maybeDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from regcache.errors import BadDocument, CannotRead, RegCacheError, UpstreamError
from regcache.flow.derive import GIVEN_FD, LENGTH, MADE_FD, SMALL, VAST, Derived, InlineDeriver, Job, pack
from regcache.flow.large import NOT_NOW, Scratch
from regcache.flow.waiting import spawn
from regcache.logs import Log

__all__ = ["ProcessDeriver"]

_log = Log()
#: Bytes of the documents that may wait for one helper.
_MOST_WAITING = 512 << 20
#: How long a job may take at most: many times what the slowest sound document takes.
_JOB_SECONDS, _MEBIBYTE_SECONDS = 5.0, 3.0
#: How far the helper for the largest documents stands back: it has work for seconds, and others want the processor.
_NICE = 10
#: The environment variables that a Python program needs.
_PLAIN = re.compile(r"PATH|HOME|LANG(UAGE)?|LC_\w+|TZ|TMPDIR|(DY)?LD_LIBRARY_PATH|PYTHON\w*")


class _Helper(ProcessProtocol):
    """
    One helper process, which is started at the first job and again after it died.

    It takes its jobs in order. One that takes longer than any sound document of its size fails, and the process ends;
    one during which the process died otherwise is tried once more, in a new one.

    :param nice: how much it stands back where others want the processor.
    :ivar files: further descriptors that the process gets, by what they are called there.
    """

    def __init__(self, reactor: Any, nice: int = 0) -> None:
        self.waiting_bytes = 0
        self.files: dict[int, int] = {}
        self._reactor = reactor
        self._nice = nice
        self._jobs: deque[_Sent] = deque()
        self._received = bytearray()
        self._running = False
        self._stopped = False
        self._overdue = False
        self._timer: IDelayedCall | None = None

    def send(self, data: bytes, result: Deferred[Derived], size: int, *, again: bool = True) -> None:
        """
        Hand a job over.

        :param size: of its document, in bytes.
        """
        if self._stopped:
            result.errback(UpstreamError("The service is stopping."))
            return
        if not self._running:
            try:
                self._start()
            except OSError as error:
                # It is tried again at the next job.
                self._running = False
                result.errback(CannotRead(f"No helper process can be started: {error.strerror}."))
                return
        self._jobs.append(_Sent(data, result, size, again))
        self.waiting_bytes += size
        if len(self._jobs) == 1:
            self._watch()
        self.transport.write(len(data).to_bytes(LENGTH, "big"))  # type: ignore[union-attr]
        self.transport.write(data)  # type: ignore[union-attr]

    def _start(self) -> None:
        """
        Start the process.

        :raises OSError: if there can be none.
        """
        self._received.clear()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        # What the service is told in secret is no business of who reads what registries send.
        environment = {name: value for name, value in os.environ.items() if _PLAIN.fullmatch(name)}
        environment["PYTHONPATH"] = path
        # -P: what lies in the current directory is not to be imported.
        command = [sys.executable, "-P", "-m", "regcache.flow.derive", str(self._nice)]
        files = {0: "w", 1: "r", 2: 2, **self.files}
        self._running = True
        self._reactor.spawnProcess(self, sys.executable, command, env=environment, childFDs=files)

    def stop(self) -> None:
        """End the process; jobs under way fail."""
        self._stopped = True
        self._end("TERM")

    def _end(self, signal: str) -> None:
        if self._running:
            self.transport.loseConnection()  # type: ignore[union-attr]
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess(signal)  # type: ignore[union-attr]

    def _watch(self) -> None:
        """Time the job that is next."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._jobs:
            seconds = _JOB_SECONDS + _MEBIBYTE_SECONDS * self._jobs[0].size / (1 << 20)
            self._timer = self._reactor.callLater(seconds, self._too_long)

    def _too_long(self) -> None:
        self._overdue = True
        self._end("KILL")

    def outReceived(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= LENGTH:
            size = int.from_bytes(self._received[:LENGTH], "big")
            if len(self._received) < LENGTH + size:
                return
            made = msgspec.msgpack.decode(memoryview(self._received)[LENGTH : LENGTH + size].tobytes(), type=Derived)
            del self._received[: LENGTH + size]
            result, self._overdue = self._next().result, False
            self._watch()
            if made.error:
                result.errback(BadDocument(made.error))
            else:
                result.callback(made)

    def _next(self) -> _Sent:
        sent = self._jobs.popleft()
        self.waiting_bytes -= sent.size
        return sent

    def processEnded(self, reason: Failure) -> None:
        self._running = False
        jobs = [self._next() for _ in range(len(self._jobs))]
        self._watch()
        overdue, self._overdue = self._overdue, False
        if jobs and overdue and not self._stopped:
            jobs.pop(0).result.errback(BadDocument("Reading it takes longer than any sound document of its size."))
        elif jobs and not self._stopped:
            _log.error("The helper process ended: {why}; it is started again.", why=reason.getErrorMessage())
        for number, sent in enumerate(jobs):
            # The first may be what it died of; those that only waited behind it lose nothing.
            first = number == 0 and not overdue
            if sent.again and not self._stopped:
                self.send(sent.data, sent.result, sent.size, again=not first)
            else:
                sent.result.errback(UpstreamError("The document could not be processed."))


@frozen
class _Sent:
    """A job that was handed over, the size of its document, and whether it may be handed over once more."""

    data: bytes
    result: Deferred[Derived]
    size: int
    again: bool


class _Aside:
    """
    Hands documents to a helper, and takes what comes of them, by files that both have open: one document at a time.

    Where there can be no such file, or no room in it, all goes through the pipe.

    :ivar waiting_bytes: of the documents that are or will be handed over.
    """

    def __init__(self, helper: _Helper, in_thread: Callable[..., Deferred[Any]]) -> None:
        self.waiting_bytes = 0
        self._helper = helper
        self._in_thread = in_thread
        self._turn = DeferredLock()
        self._files: list[Scratch] | None = None

    async def derive(self, job: Job) -> Derived:
        """
        Have it done.

        :raises regcache.errors.UpstreamError: as the helper does; CannotRead as well if there can be no file just now.
        """
        body, result = job.source.body, Deferred[Derived]()
        self.waiting_bytes += len(body)
        try:
            async with self._turn:
                aside = len(body) if await self._in_thread(self._lay, body) else 0
                self._helper.send(pack(job, aside), result, len(body))
                try:
                    made: Derived = await self._in_thread(self._pick, await result)
                except RegCacheError:
                    self._empty()
                    raise
                return made
        finally:
            self.waiting_bytes -= len(body)

    async def close(self) -> None:
        """Give the files back, as soon as nobody uses them."""
        async with self._turn:
            for file in self._files or ():
                file.close()
            self._files = []

    def _lay(self, body: bytes) -> bool:
        """Put a document where the helper finds it; whether there is room."""
        if self._files is None:
            self._files = _scratches()
            self._helper.files = dict(zip((GIVEN_FD, MADE_FD), (file.fd for file in self._files), strict=False))
        with contextlib.suppress(OSError):
            for file in self._files[:1]:
                file.lay([body])
                return True
        return False

    def _pick(self, made: Derived) -> Derived:
        """What was made, complete; nothing is left in the files."""
        if made.aside and self._files:
            try:
                made.facts, made.plain, made.zipped = self._files[1].pick(made.aside)
            except (OSError, ValueError):
                raise UpstreamError("The document could not be processed.") from None
        self._empty()
        return made

    def _empty(self) -> None:
        for file in self._files or ():
            file.empty()


def _scratches() -> list[Scratch]:
    """
    Two of them, or none if there can be none.

    :raises regcache.errors.CannotRead: if there can be some, but not now.
    """
    made: list[Scratch] = []
    try:
        made.append(Scratch())
        made.append(Scratch())
    except OSError as error:
        for file in made:
            file.close()
        if error.errno in NOT_NOW:
            raise CannotRead(f"No file for it can be opened: {error.strerror}.") from None
        return []
    return made


class ProcessDeriver:
    """
    Does the jobs in helper processes: one for most documents, one for the largest, behind which nobody else waits.

    A document so small that handing it over would take longer than reading it is read here, unless it is HTML: its
    parser can be kept busy by a few bytes.

    :param in_thread: runs a function beside the reactor.
    """

    def __init__(self, reactor: Any, in_thread: Callable[..., Deferred[Any]] = maybeDeferred) -> None:
        self._usual, self._large = _Helper(reactor), _Helper(reactor, _NICE)
        self._aside = _Aside(self._large, in_thread)
        self._stopped = False
        self._inline = InlineDeriver()

    def derive(self, job: Job) -> Deferred[Derived]:
        """As :class:`Deriver` says; fails with CannotRead while too much waits, or descriptors or memory lack."""
        if self._stopped:
            return fail(UpstreamError("The service is stopping."))
        size = len(job.source.body)
        if size <= SMALL and "html" not in job.source.content_type.lower():
            return self._inline.derive(job)
        way = self._aside if size > VAST else self._usual
        if way.waiting_bytes > _MOST_WAITING:
            return fail(CannotRead("Too many documents wait for that."))
        if way is self._aside:
            return spawn(self._aside.derive(job)).wait()
        result: Deferred[Derived] = Deferred()
        self._usual.send(pack(job), result, size)
        return result

    def stop(self) -> None:
        """End the processes; jobs under way fail."""
        self._stopped = True
        for helper in (self._usual, self._large):
            helper.stop()
        spawn(self._aside.close())
