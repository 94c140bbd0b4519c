"""
Turning index documents into representations and facts, in a helper process.

A Python-bound thread beside the reactor would take the interpreter from it; a process does not. It speaks over its
standard input and output: frames of a four-byte length and a msgpack body, answered in order.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from attrs import asdict, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from regcache.errors import BadDocument, RegCacheError, TooBusy, UpstreamError
from regcache.flow.facts import encode_facts
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.registries import make
from regcache.routes import Facts, RegistryOptions, Source

__all__ = [
    "SMALL",
    "Derived",
    "Deriver",
    "InlineDeriver",
    "Job",
    "ProcessDeriver",
    "main",
]

_log = Log()
#: Bytes of a document that is read faster than it is handed over, or than its facts are read from the disk.
SMALL = 8192
#: Bytes of a document from which on it waits with its like.
_LARGE = 2 << 20
#: Bytes of the jobs that may wait for one helper.
_MOST_WAITING = 512 << 20
#: How long a job may take at most: many times what the slowest sound document takes.
_JOB_SECONDS, _MEBIBYTE_SECONDS = 5.0, 3.0
_LENGTH = 4
#: The environment variables that a Python program needs.
_PLAIN = re.compile(r"PATH|HOME|LANG(UAGE)?|LC_\w+|TZ|TMPDIR|(DY)?LD_LIBRARY_PATH|PYTHON\w*")


@frozen(kw_only=True)
class Job:
    """
    One document, and what is wanted of it.

    :ivar representation: the form wanted, or empty for the facts alone.
    :ivar base: the mount's URL, for a form with absolute links.
    :ivar facts: whether the facts are wanted.
    """

    options: RegistryOptions
    document: str
    source: Source
    representation: str = ""
    base: str = ""
    facts: bool = False


class Derived(msgspec.Struct):
    """
    What came of a job.

    :ivar facts: the facts in stored form, see :func:`regcache.flow.facts.decode_facts`; empty if not wanted.
    :ivar foreign: with the facts, the links to hosts that may not be asked: their number and the first, by host.
    :ivar plain: the representation; empty if not wanted.
    :ivar zipped: the same, gzip-compressed.
    :ivar refused: why there is no representation although the document can be read, or empty.
    :ivar error: why nothing came of it, or empty.
    """

    facts: bytes = b""
    foreign: dict[str, tuple[int, str]] = {}
    plain: bytes = b""
    zipped: bytes = b""
    refused: str = ""
    error: str = ""


class Deriver(Protocol):
    """Whoever can do the work."""

    def derive(self, job: Job) -> Deferred[Derived]:
        """Do it. Fails with BadDocument if the document is not what its registry serves."""


def perform(registry: IRegistry, job: Job) -> Derived:
    """
    Do a job, here and now.

    :raises regcache.errors.BadDocument: as the registry does.
    """
    made = Derived()
    strict = bool(job.representation) and job.options.strict_links
    facts = registry.facts(job.document, job.source) if job.facts or strict else Facts()
    if strict and facts.foreign:
        number, link = sum(number for number, _ in facts.foreign.values()), next(iter(facts.foreign.values()))[1]
        made.refused = f"{job.source.url} holds {number} such links; the first is {link}"
    if job.facts:
        made.foreign = facts.foreign
        made.facts = encode_facts(facts)
    if job.representation and not made.refused:
        made.plain = registry.represent(job.document, job.source, job.representation, job.base)
        made.zipped = gzip.compress(made.plain, 5, mtime=0)
    return made


class InlineDeriver:
    """
    Does each job at once, in the caller's thread: for small documents, and for tests.

    :param known: registries that need not be made from their options.
    """

    def __init__(self, known: Iterable[IRegistry] = ()) -> None:
        self._registries: dict[str, IRegistry] = {registry.options.prefix: registry for registry in known}

    def derive(self, job: Job) -> Deferred[Derived]:
        """As :class:`Deriver` says."""
        registry = self._registries.get(job.options.prefix)
        # They are nearly always the same ones, and take long to compare.
        if registry is None or (registry.options is not job.options and registry.options != job.options):
            registry = self._registries[job.options.prefix] = make(job.options)
        try:
            return succeed(perform(registry, job))
        except RegCacheError:
            return fail()
        except Exception as error:
            return fail(BadDocument(f"It could not be read: {type(error).__name__}: {error}"))


def _pack(job: Job) -> bytes:
    return msgspec.msgpack.encode([dict(asdict(job), source=None, options=asdict(job.options)), asdict(job.source)])


def _unpack(data: bytes) -> Job:
    fields, source = msgspec.msgpack.decode(data)
    options = _unpacked(fields.pop("options"))
    fields.pop("source")
    return Job(options=options, source=Source(**source), **fields)


def _unpacked(options: dict[str, Any]) -> RegistryOptions:
    names = ("artifact_hosts", "readers", "names", "elsewhere", "methods", "targets")
    lists = {name: tuple(options[name]) for name in names}
    further = tuple(map(_unpacked, options["further"]))
    return RegistryOptions(**{**options, **lists, "further": further})


class _Helper(ProcessProtocol):
    """
    One helper process, which is started at the first job and again after it died.

    It takes its jobs in order. One that takes longer than any sound document of its size fails, and the process ends;
    one during which the process died otherwise is tried once more, in a new one.
    """

    def __init__(self, reactor: Any) -> None:
        self.waiting_bytes = 0
        self._reactor = reactor
        self._jobs: deque[_Sent] = deque()
        self._received = bytearray()
        self._running = False
        self._stopped = False
        self._overdue = False
        self._timer: IDelayedCall | None = None

    def send(self, data: bytes, result: Deferred[Derived], *, again: bool = True) -> None:
        """Hand a job over."""
        if not self._running:
            self._running = True
            self._received.clear()
            path = os.pathsep.join(entry for entry in sys.path if entry)
            # What the service is told in secret is no business of who reads what registries send.
            environment = {name: value for name, value in os.environ.items() if _PLAIN.fullmatch(name)}
            environment["PYTHONPATH"] = path
            # -P: what lies in the current directory is not to be imported.
            command = [sys.executable, "-P", "-m", "regcache.flow.derive"]
            self._reactor.spawnProcess(self, sys.executable, command, env=environment, childFDs={0: "w", 1: "r", 2: 2})
        self._jobs.append(_Sent(data, result, again))
        self.waiting_bytes += len(data)
        if len(self._jobs) == 1:
            self._watch()
        self.transport.write(len(data).to_bytes(_LENGTH, "big"))  # type: ignore[union-attr]
        self.transport.write(data)  # type: ignore[union-attr]

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
            seconds = _JOB_SECONDS + _MEBIBYTE_SECONDS * len(self._jobs[0].data) / (1 << 20)
            self._timer = self._reactor.callLater(seconds, self._too_long)

    def _too_long(self) -> None:
        self._overdue = True
        self._end("KILL")

    def outReceived(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _LENGTH:
            size = int.from_bytes(self._received[:_LENGTH], "big")
            if len(self._received) < _LENGTH + size:
                return
            made = msgspec.msgpack.decode(memoryview(self._received)[_LENGTH : _LENGTH + size].tobytes(), type=Derived)
            del self._received[: _LENGTH + size]
            result, self._overdue = self._next().result, False
            self._watch()
            if made.error:
                result.errback(BadDocument(made.error))
            else:
                result.callback(made)

    def _next(self) -> _Sent:
        sent = self._jobs.popleft()
        self.waiting_bytes -= len(sent.data)
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
                self.send(sent.data, sent.result, again=not first)
            else:
                sent.result.errback(UpstreamError("The document could not be processed."))


@frozen
class _Sent:
    """A job that was handed over, and whether it may be so once more."""

    data: bytes
    result: Deferred[Derived]
    again: bool


class ProcessDeriver:
    """
    Does the jobs in helper processes: one for most documents, one for the largest, behind which nobody else waits.

    A document so small that handing it over would take longer than reading it is read here, unless it is HTML: its
    parser can be kept busy by a few bytes.
    """

    def __init__(self, reactor: Any) -> None:
        self._usual, self._large = _Helper(reactor), _Helper(reactor)
        self._stopped = False
        self._inline = InlineDeriver()

    def derive(self, job: Job) -> Deferred[Derived]:
        """As :class:`Deriver` says; fails with TooBusy while too much waits."""
        if self._stopped:
            return fail(UpstreamError("The service is stopping."))
        size = len(job.source.body)
        if size <= SMALL and "html" not in job.source.content_type.lower():
            return self._inline.derive(job)
        helper = self._large if size > _LARGE else self._usual
        if helper.waiting_bytes > _MOST_WAITING:
            return fail(TooBusy("Too many documents wait to be read."))
        result: Deferred[Derived] = Deferred()
        helper.send(_pack(job), result)
        return result

    def stop(self) -> None:
        """End the processes; jobs under way fail."""
        self._stopped = True
        for helper in (self._usual, self._large):
            helper.stop()


def _answer(inline: InlineDeriver, data: bytes) -> Derived:
    answers: list[Derived] = []
    inline.derive(_unpack(data)).addCallbacks(
        answers.append, lambda failure: answers.append(Derived(error=getattr(failure.value, "detail", "") or "?"))
    )
    return answers[0]


def main() -> None:
    """The helper process: answer frames until the input ends."""
    inline = InlineDeriver()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(_LENGTH)) == _LENGTH:
        made = msgspec.msgpack.encode(_answer(inline, source.read(int.from_bytes(head, "big"))))
        sink.write(len(made).to_bytes(_LENGTH, "big") + made)
        sink.flush()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
