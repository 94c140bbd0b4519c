"""
Turning index documents into representations and facts, in a helper process.

A Python-bound thread beside the reactor would take the interpreter from it; a process does not. It speaks over its
standard input and output: frames of a four-byte length and a msgpack body, answered in order. The bodies of the largest
documents, and what is made of them, go past these frames and the reactor through two files that both have open.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from attrs import Attribute, asdict, frozen
from twisted.internet.defer import Deferred, fail, succeed

from regcache.errors import BadDocument, RegCacheError
from regcache.flow.facts import encode_facts
from regcache.flow.large import Scratch, sha256_of
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.registries import make
from regcache.routes import Facts, RegistryOptions, Source

__all__ = [
    "GIVEN_FD",
    "LENGTH",
    "MADE_FD",
    "SMALL",
    "VAST",
    "Derived",
    "Deriver",
    "InlineDeriver",
    "Job",
    "main",
    "pack",
    "unpack",
]

_log = Log()
#: Bytes of a document that is read faster than it is handed over, or than its facts are read from the disk.
SMALL = 8192
#: Bytes of a document from which on it waits with its like, and goes by a file.
VAST = 2 << 20
#: Bytes of the number before each frame.
LENGTH = 4
#: The descriptors, in the helper for the largest documents, of what is to be read and of what is made of it.
GIVEN_FD, MADE_FD = 3, 4


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
    :ivar facts_digest: the SHA-256 of these bytes, in hexadecimal; as each, empty where they are.
    :ivar plain_digest: of these.
    :ivar zipped_digest: of these.
    :ivar aside: the sizes of the three, if they lie in a file instead.
    :ivar refused: why there is no representation although the document can be read, or empty.
    :ivar error: why nothing came of it, or empty.
    """

    facts: bytes = b""
    foreign: dict[str, tuple[int, str]] = {}
    plain: bytes = b""
    zipped: bytes = b""
    facts_digest: str = ""
    plain_digest: str = ""
    zipped_digest: str = ""
    aside: list[int] = []
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
        made.facts_digest = sha256_of(made.facts)
    if job.representation and not made.refused:
        made.plain = registry.represent(job.document, job.source, job.representation, job.base)
        made.zipped = gzip.compress(made.plain, 5, mtime=0)
        made.plain_digest, made.zipped_digest = sha256_of(made.plain), sha256_of(made.zipped)
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


def pack(job: Job, aside: int = 0) -> bytes:
    """
    :param aside: the size of the body, if it lies in a file instead.
    """
    source = dict(asdict(job.source), body=b"") if aside else asdict(job.source)
    fields = dict(asdict(job, filter=_is_said), source=None)
    return msgspec.msgpack.encode([fields, source, aside])


def _is_said(attribute: Attribute[Any], _value: object) -> bool:
    """Whether it is no mere consequence of the others."""
    return attribute.init


def unpack(data: bytes) -> tuple[Job, bool]:
    """A job, and whether its body lay in a file, where there is one for what is made of it as well."""
    fields, source, aside = msgspec.msgpack.decode(data)
    options = _unpacked(fields.pop("options"))
    fields.pop("source")
    if aside:
        source["body"] = Scratch(GIVEN_FD).pick([aside])[0]
    return Job(options=options, source=Source(**source), **fields), bool(aside)


def _unpacked(options: dict[str, Any]) -> RegistryOptions:
    names = ("artifact_hosts", "readers", "names", "elsewhere", "methods", "targets")
    lists = {name: tuple(options[name]) for name in names}
    further = tuple(map(_unpacked, options["further"]))
    return RegistryOptions(**{**options, **lists, "further": further})


def _answer(inline: InlineDeriver, job: Job) -> Derived:
    answers: list[Derived] = []
    inline.derive(job).addCallbacks(
        answers.append, lambda failure: answers.append(Derived(error=getattr(failure.value, "detail", "") or "?"))
    )
    return answers[0]


def _set_aside(made: Derived) -> None:
    """Put what is large into the file for it, if there is room."""
    bodies = [made.facts, made.plain, made.zipped]
    with contextlib.suppress(OSError):
        Scratch(MADE_FD).lay(bodies)
        made.aside = [len(body) for body in bodies]
        made.facts = made.plain = made.zipped = b""


def main() -> None:
    """The helper process: answer frames until the input ends. Its argument is how much it stands back (see nice)."""
    os.nice(int(sys.argv[1]))
    inline = InlineDeriver()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(LENGTH)) == LENGTH:
        job, aside = unpack(source.read(int.from_bytes(head, "big")))
        made = _answer(inline, job)
        if aside and not made.error:
            _set_aside(made)
        answer = msgspec.msgpack.encode(made)
        sink.write(len(answer).to_bytes(LENGTH, "big") + answer)
        sink.flush()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
