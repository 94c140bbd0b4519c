"""
What is made of stored documents: the representations that clients ask for, and the facts that artifacts need.

Each is derived once, kept in memory while it is used and in the store until its document changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regcache.errors import UpstreamError
from regcache.flow.context import Bounded, Context
from regcache.flow.derive import SMALL, Derived, Job, PackedFact, decode_facts
from regcache.flow.reading import read_all
from regcache.flow.waiting import Outcome, spawn
from regcache.http.fields import accepts_gzip
from regcache.http.messages import Kind, RequestHead, Stored
from regcache.interfaces import IRegistry
from regcache.routes import Document, Source

__all__ = ["Ready", "Representations", "wants_gzip"]

_log = Logger(namespace="regcache")
_READY_BYTES = 32 << 20
_MOST_FACTS = 300_000
_FACTS = "facts"


@frozen
class Ready:
    """A representation, ready to be sent, and its entity tag."""

    body: bytes
    etag: str


class Representations:
    """
    Derives, and remembers what it derived.

    One derivation per representation at a time (``_deriving``), whoever waits for it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deriving: dict[str, Outcome[Derived]] = {}
        self._ready: Bounded[str, Ready] = Bounded(_READY_BYTES)
        self._facts: Bounded[str, Mapping[str, PackedFact]] = Bounded(_MOST_FACTS)
        self._sources: Bounded[str, Source] = Bounded(_READY_BYTES)

    def learn(self, entry: Stored, source: Source, facts: bytes) -> Mapping[str, PackedFact]:
        """Remember a document that has just come, and what it says."""
        self._sources.put(f"{entry.key} {entry.digest}", source, len(source.body))
        return self._remember_facts(entry, facts)

    async def store_facts(self, registry: IRegistry, entry: Stored, packed: bytes) -> None:
        """
        Store the facts of a stored document, unless they are as quickly derived again.

        :raises regcache.errors.CannotStore: if the disk refuses.
        """
        if entry.size > SMALL:
            await self._put(registry, entry, _FACTS, packed)

    async def facts(self, registry: IRegistry, route: Document, stored: Stored) -> Mapping[str, PackedFact]:
        """
        What a stored document says.

        :raises regcache.errors.RegCacheError: if it cannot be read any more.
        """
        known = self._facts.get(f"{stored.key} {stored.digest}")
        if known is not None:
            return known
        packed = await self._derived_entry(registry, stored, _FACTS)
        if packed is None:
            packed = (await self._derive(registry, route, stored, "", "")).facts
            spawn(self.store_facts(registry, stored, packed)).wait().addErrback(_unstored, stored.key)
        return self._remember_facts(stored, packed)

    def _remember_facts(self, stored: Stored, packed: bytes) -> Mapping[str, PackedFact]:
        facts = decode_facts(packed)
        self._facts.put(f"{stored.key} {stored.digest}", facts, len(facts) + 1)
        return facts

    async def representation(self, registry: IRegistry, route: Document, stored: Stored, request: RequestHead) -> Ready:
        """
        The form of a stored document that this request wants.

        :raises regcache.errors.RegCacheError: if the document cannot be read any more.
        """
        base = request.base if route.linked else ""
        coding = "gzip" if wants_gzip(request) else "identity"
        name = f"{route.representation}|{base}"
        ready = self._ready.get(f"{stored.key} {stored.digest} {name}|{coding}")
        if ready is not None:
            return ready
        found = await self._derived_entry(registry, stored, f"{name}|{coding}")
        if found is not None:
            return self._remember(stored, f"{name}|{coding}", found)
        derived = await self._derive(registry, route, stored, route.representation, base)
        for each, body in (("identity", derived.plain), ("gzip", derived.zipped)):
            self._remember(stored, f"{name}|{each}", body)
        wanted = derived.zipped if coding == "gzip" else derived.plain
        spawn(self._put(registry, stored, f"{name}|{coding}", wanted)).wait().addErrback(_unstored, stored.key)
        return self._remember(stored, f"{name}|{coding}", wanted)

    def _remember(self, stored: Stored, name: str, body: bytes) -> Ready:
        ready = Ready(body, f'"{hashlib.sha256(body).hexdigest()[:40]}"')
        self._ready.put(f"{stored.key} {stored.digest} {name}", ready, len(body) + 512)
        return ready

    async def _derived_entry(self, registry: IRegistry, stored: Stored, name: str) -> bytes | None:
        entry = self._context.store.peek(f"{stored.key}#{name}")
        if entry is None or entry.source != f"{stored.digest} {registry.version}":
            return None
        body = await read_all(self._context.store, entry)
        # Such a body need not have outlived a power cut, so its size alone says nothing.
        if body is None or hashlib.sha256(body).hexdigest() != entry.digest:
            await self._context.store.drop(entry.key)
            return None
        return body

    async def _put(self, registry: IRegistry, stored: Stored, name: str, body: bytes) -> None:
        now = self._context.now()
        entry = Stored(
            key=f"{stored.key}#{name}",
            registry=registry.options.name,
            kind=Kind.DERIVED,
            parent=stored.key,
            source=f"{stored.digest} {registry.version}",
            digest=hashlib.sha256(body).hexdigest(),
            size=len(body),
            stored_at=now,
            validated_at=now,
        )
        await self._context.store.put(entry, body)

    async def _derive(
        self, registry: IRegistry, route: Document, stored: Stored, representation: str, base: str
    ) -> Derived:
        name = f"{stored.key} {stored.digest} {representation or _FACTS}|{base}"
        outcome = self._deriving.get(name)
        if outcome is None:
            outcome = self._deriving[name] = spawn(self._derive_now(registry, route, stored, representation, base))
            outcome.wait().addBoth(lambda _: self._deriving.pop(name, None))
        return await outcome.wait()

    async def _derive_now(
        self, registry: IRegistry, route: Document, stored: Stored, representation: str, base: str
    ) -> Derived:
        source = self._sources.get(f"{stored.key} {stored.digest}")
        if source is None:
            body = await read_all(self._context.store, stored)
            if body is None:
                raise UpstreamError("The stored copy is damaged and was dropped; ask again.")
            source = Source(body=body, content_type=stored.headers.get("content-type"), url=stored.url)
        job = Job(
            options=registry.options,
            document=route.key,
            source=source,
            representation=representation,
            base=base,
            facts=not representation,
        )
        deriving: Deferred[Derived] = self._context.deriver.derive(job)
        return await deriving


def wants_gzip(request: RequestHead) -> bool:
    """Whether a document goes out compressed."""
    return accepts_gzip(request.headers.get("accept-encoding"))


def _unstored(failure: object, key: str) -> None:
    value = getattr(failure, "value", failure)
    _log.warn("{key}: cannot be stored: {why}", key=key, why=getattr(value, "detail", value))
