"""
What is made of stored documents: the representations that clients ask for, and the facts that artifacts need.

Each is derived once, kept in memory while it is used and in the store until its document changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from attrs import frozen
from twisted.internet.defer import Deferred

from regcache.errors import BlobDamaged, LinksLeave
from regcache.flow.context import Bounded, Context
from regcache.flow.derive import SMALL, Derived, Job
from regcache.flow.facts import FACTS_FORMAT, PackedFact, decode_facts
from regcache.flow.large import LARGE, sha256_of
from regcache.flow.lifetimes import storable
from regcache.flow.reading import read_all
from regcache.flow.waiting import Outcome, spawn
from regcache.http.fields import accepts_gzip
from regcache.http.messages import Kind, RequestHead, Stored
from regcache.interfaces import IRegistry
from regcache.routes import Document, RegistryOptions, Source

__all__ = ["Ready", "Representations", "wants_gzip"]

_READY_BYTES = 32 << 20
_MOST_FACTS = 300_000
_FACTS, _GZIP = "facts", "gzip"
#: Mounts for which representations with links are stored; for more they are made anew when they leave the memory.
_MOST_BASES = 8


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
        # Documents that are not in the store yet: there is nowhere else to read them from, however large they are.
        self._unwritten: dict[str, Source] = {}
        self._configured: dict[str, tuple[RegistryOptions, str]] = {}
        self._bases: set[str] = set()

    def learn(self, registry: IRegistry, entry: Stored, source: Source, facts: bytes) -> Mapping[str, PackedFact]:
        """Remember a document that has just come, and what it says; :meth:`written` must follow."""
        name = self._name(registry, entry)
        self._unwritten[name] = source
        self._sources.put(name, source, len(source.body))
        return self._remember_facts(name, facts)

    def written(self, registry: IRegistry, entry: Stored) -> None:
        """A document is in the store, or will never be."""
        self._unwritten.pop(self._name(registry, entry), None)

    async def store_facts(self, registry: IRegistry, entry: Stored, derived: Derived) -> None:
        """
        Store the facts of a stored document, unless they are as quickly derived again.

        :raises regcache.errors.CannotStore: if the disk refuses.
        """
        if entry.size > SMALL:
            await self._put(registry, entry, _FACTS, derived.facts, derived.facts_digest)

    async def facts(self, registry: IRegistry, route: Document, stored: Stored) -> Mapping[str, PackedFact]:
        """
        What a stored document says.

        :raises regcache.errors.RegCacheError: if it cannot be read any more.
        """
        known = self.facts_at_hand(registry, stored)
        if known is not None:
            return known
        name = self._name(registry, stored)
        found = await self._derived_entry(registry, stored, _FACTS)
        if found is not None:
            return self._remember_facts(name, found[0])
        derived = await self._derive(registry, route, stored, "", "")
        spawn(self.store_facts(registry, stored, derived)).wait().addErrback(self._context.unstored.failed, stored.key)
        return self._remember_facts(name, derived.facts)

    def facts_at_hand(self, registry: IRegistry, stored: Stored) -> Mapping[str, PackedFact] | None:
        """What a stored document says, if it is in memory."""
        return self._facts.get(self._name(registry, stored))

    def _remember_facts(self, name: str, packed: bytes) -> Mapping[str, PackedFact]:
        facts = decode_facts(packed)
        self._facts.put(name, facts, len(facts) + 1)
        return facts

    def at_hand(self, registry: IRegistry, route: Document, stored: Stored, request: RequestHead) -> Ready | None:
        """The form of a stored document that this request wants, if it is in memory."""
        form = _form(route, request.base, wants_gzip(request))
        return self._ready.get(f"{self._name(registry, stored)} {form}")

    async def representation(self, registry: IRegistry, route: Document, stored: Stored, request: RequestHead) -> Ready:
        """
        The form of a stored document that this request wants.

        :raises regcache.errors.RegCacheError: if the document cannot be read any more.
        """
        form = _form(route, request.base, wants_gzip(request))
        if route.etag and not wants_gzip(request):
            body = (await self.source(registry, stored)).body
            return self._remember(registry, route, stored, form, body, stored.digest)
        found = await self._derived_entry(registry, stored, form)
        if found is not None:
            return self._remember(registry, route, stored, form, *found)
        base = request.base if route.linked else ""
        derived = await self._derive(registry, route, stored, route.representation, base)
        return self.made(registry, route, stored, request, derived)

    def made(
        self, registry: IRegistry, route: Document, stored: Stored, request: RequestHead, derived: Derived
    ) -> Ready:
        """
        Remember what was derived for a request, in both codings, and store the one that it wants.

        :raises regcache.errors.LinksLeave: if its links may not be sent.
        """
        if derived.refused:
            raise LinksLeave(f"{derived.refused}. See strict-links and artifact-hosts of {registry.options.name}.")
        zipped = wants_gzip(request)
        forms = [_form(route, request.base, zipped=coded) for coded in (False, True)]
        plain = self._remember(registry, route, stored, forms[0], derived.plain, derived.plain_digest)
        packed = self._remember(registry, route, stored, forms[1], derived.zipped, derived.zipped_digest)
        ready = packed if zipped else plain
        kept = storable(registry, stored.headers)
        if kept and stored.size > SMALL and (not route.linked or self._may_be_stored(request.base)):
            digest = derived.zipped_digest if zipped else derived.plain_digest
            putting = self._put(registry, stored, forms[zipped], ready.body, digest)
            spawn(putting).wait().addErrback(self._context.unstored.failed, stored.key)
        return ready

    def _may_be_stored(self, base: str) -> bool:
        """Whether it is one of the few mounts for which links are stored: a client's word chooses among them."""
        if len(self._bases) < _MOST_BASES:
            self._bases.add(base)
        return base in self._bases

    def _remember(
        self, registry: IRegistry, route: Document, stored: Stored, form: str, body: bytes, digest: str
    ) -> Ready:
        ready = Ready(body, _etag(route, stored, form) or f'"{digest[:40]}"')
        self._ready.put(f"{self._name(registry, stored)} {form}", ready, len(body) + 512)
        return ready

    async def _derived_entry(self, registry: IRegistry, stored: Stored, form: str) -> tuple[bytes, str] | None:
        """What was derived of a document before, and its digest, if it is stored."""
        entry = self._context.store.peek(_derived_key(stored, form)) if stored.size > SMALL else None
        if entry is None or entry.kind is not Kind.DERIVED or entry.source != self._made_from(registry, stored):
            return None
        body = await read_all(self._context.store, entry, self._context.in_thread)
        # Such a body need not have outlived a power cut, so its size alone says nothing.
        if body is None or await self._digest(body) != entry.digest:
            await self._context.store.drop(entry.key)
            return None
        return body, entry.digest

    async def _digest(self, body: bytes) -> str:
        digest: str = await self._context.in_thread(sha256_of, body) if len(body) > LARGE else sha256_of(body)
        return digest

    async def _put(self, registry: IRegistry, stored: Stored, form: str, body: bytes, digest: str) -> None:
        now = self._context.now()
        entry = Stored(
            key=_derived_key(stored, form),
            registry=registry.options.name,
            kind=Kind.DERIVED,
            parent=stored.key,
            source=self._made_from(registry, stored),
            digest=digest,
            size=len(body),
            stored_at=now,
            validated_at=now,
        )
        await self._context.store.put(entry, body)

    async def _derive(
        self, registry: IRegistry, route: Document, stored: Stored, representation: str, base: str
    ) -> Derived:
        name = f"{self._name(registry, stored)} {representation or _FACTS}|{base}"
        outcome = self._deriving.get(name)
        if outcome is None:
            outcome = self._deriving[name] = spawn(self._derive_now(registry, route, stored, representation, base))
            outcome.wait().addBoth(lambda _: self._deriving.pop(name, None))
        return await outcome.wait()

    async def _derive_now(
        self, registry: IRegistry, route: Document, stored: Stored, representation: str, base: str
    ) -> Derived:
        job = Job(
            options=registry.options,
            document=route.key,
            source=await self.source(registry, stored),
            representation=representation,
            base=base,
            facts=not representation,
        )
        deriving: Deferred[Derived] = self._context.deriver.derive(job)
        return await deriving

    async def source(self, registry: IRegistry, stored: Stored) -> Source:
        """
        A stored document as it came.

        :raises regcache.errors.BlobDamaged: if it cannot be read any more; its entry is gone then.
        """
        name = self._name(registry, stored)
        source = self._unwritten.get(name) or self._sources.get(name)
        if source is not None:
            return source
        body = await read_all(self._context.store, stored, self._context.in_thread)
        if body is None:
            await self._context.store.drop(stored.key)
            raise BlobDamaged(f"{stored.key} cannot be read.")
        return Source(body=body, content_type=stored.headers.get("content-type"), url=stored.url)

    def _made_from(self, registry: IRegistry, stored: Stored) -> str:
        """All that a derived body depends on: the document, where it came from, the deriver and its options."""
        options = registry.options
        known, configured = self._configured.get(options.prefix, (None, ""))
        if known is not options:
            hosts, extra = options.artifact_hosts, sorted(options.extra.items())
            told = repr((FACTS_FORMAT, registry.version, options.url, hosts, options.strict_links, extra))
            configured = hashlib.sha256(told.encode()).hexdigest()[:16]
            self._configured[options.prefix] = options, configured
        return f"{stored.digest} {configured} {stored.url}"

    def _name(self, registry: IRegistry, stored: Stored) -> str:
        return f"{stored.key} {self._made_from(registry, stored)}"


def _derived_key(stored: Stored, form: str) -> str:
    # No key of a document has a tab in it.
    return f"{stored.key}\t{form}"


def _form(route: Document, base: str, zipped: bool) -> str:
    """The name of a representation of a document, for one mount if it has links to it, in one coding."""
    return f"{route.representation}|{base if route.linked else ''}|{_GZIP if zipped else 'identity'}"


def _etag(route: Document, stored: Stored, form: str) -> str:
    """The entity tag that the protocol speaks of, if it does; a weak one for what is not the body byte for byte."""
    found = next((digest.value for digest in stored.digests if digest.algorithm == route.etag), "")
    weak = "W/" if form.endswith(_GZIP) else ""
    return f'{weak}"{found}"' if found else ""


def wants_gzip(request: RequestHead) -> bool:
    """Whether a document goes out compressed; who asks for a range means bytes of the document itself."""
    return "range" not in request.headers and accepts_gzip(request.headers.get("accept-encoding"))
