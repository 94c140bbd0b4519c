"""
Asking for index documents: one request each at a time; what comes is read before it is believed, stored and learned.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from attrs import frozen
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regcache.errors import (
    BadDocument,
    BlobDamaged,
    CannotRead,
    CannotStore,
    DigestMismatch,
    NotFound,
    RegCacheError,
    UpstreamError,
    UpstreamStatus,
    shown,
)
from regcache.flow.answers import Answer
from regcache.flow.asking import Unchanged, question
from regcache.flow.context import Context
from regcache.flow.derive import Derived, Job
from regcache.flow.facts import PackedFact, decode_facts, unpacked
from regcache.flow.growing import Misfit, range_after
from regcache.flow.hashing import Hashing, comparable
from regcache.flow.lifetimes import storable
from regcache.flow.representations import Representations, wants_gzip
from regcache.flow.taking import Taken, Taking
from regcache.flow.upstream import Ask, origin_of
from regcache.flow.waiting import Outcome, spawn, within
from regcache.http.messages import Digest, Headers, Kind, RequestHead, Stored
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.routes import COPY, Artifact, Document, Fact, Resource, Source

__all__ = ["Fetching", "Fill", "key_of"]

_log = Log()
_UNSATISFIABLE = 416
#: Bytes that are hashed at once; more go to a thread.
_AT_ONCE = 1 << 18
_MOST_NAMED = 20
_MOST_FOREIGN = 1000


@frozen
class Fill:
    """
    A request under way for a document; it belongs to nobody and ends by itself.

    :ivar began: when, by the monotonic clock.
    :ivar outcome: the entry that came of it.
    """

    began: float
    outcome: Outcome[Stored]


class Fetching:
    """
    The requests for documents, and what has come but is not stored yet.

    :ivar kept: how many have come by now that say something new.
    """

    def __init__(self, context: Context, representations: Representations) -> None:
        self._context = context
        self._representations = representations
        self._fills: dict[str, Fill] = {}
        self._storing: set[Outcome[None]] = set()
        self._taking = Taking(context)
        self.kept = 0

    def stored(self) -> list[Deferred[None]]:
        """One for each document that is being stored: fires when it is done."""
        return [outcome.wait().addErrback(lambda _: None) for outcome in self._storing]

    def fill(
        self,
        registry: IRegistry,
        route: Document,
        stored: Stored | None,
        deadline: float,
        request: RequestHead | None = None,
    ) -> Fill:
        """
        The request that is under way for this document, or a new one.

        :param request: of a client that waits for a representation, which is made together with the facts then.
        """
        key = key_of(registry, route)
        fill = self._fills.get(key)
        if fill is not None:
            self._context.upstream.counts.coalesced[registry.options.name] += 1
        else:
            fill = self._fills[key] = Fill(self._context.clock.seconds(), Outcome())
            outcome = fill.outcome
            asking = spawn(self._ask(registry, route, key, stored, deadline, request)).wait()
            asking.addErrback(self._explained, key).addBoth(self._filled, key)
            asking.addCallbacks(outcome.succeed, outcome.fail)
        return fill

    def _explained(self, failure: Failure, key: str) -> Failure:
        if not failure.check(RegCacheError):
            # A stored copy goes on answering all the same.
            _log.failure("{key}: a bug ended the request to the registry.", failure=failure, key=key)
            failure = Failure(UpstreamError("Its answer could not be handled."))
        self._context.upstream.counts.failures.note(self._context.now(), key, failure.value)
        return failure

    def _filled(self, result: object, key: str) -> object:
        del self._fills[key]
        return result

    async def _ask(
        self,
        registry: IRegistry,
        route: Document,
        key: str,
        stored: Stored | None,
        deadline: float,
        request: RequestHead | None,
    ) -> Stored:
        taken = await self._asked(registry, route, key, stored, deadline)
        if isinstance(taken, Unchanged):
            return taken.stored
        derived = await self._read(registry, route, taken, request)
        if not await self._agrees(registry, route, taken):
            # What is published anew now may not be all there yet.
            _log.info("{key}: asked for again: the checksum beside it is another's.", key=key)
            again = await self._asked(registry, route, key, None, deadline)
            assert isinstance(again, Taken)
            taken, derived = again, await self._read(registry, route, again, request)
            if not await self._agrees(registry, route, taken):
                self._context.breaker.erred(origin_of(route.url), key)
                raise DigestMismatch(f"{taken.source.url} is not what the checksum beside it is of.")
        entry = self._keep(registry, route, stored, taken, derived)
        if request is not None and _derives(route, request):
            self._representations.made(registry, route, entry, request, derived)
        return entry

    async def _asked(
        self, registry: IRegistry, route: Document, key: str, stored: Stored | None, deadline: float
    ) -> Taken | Unchanged:
        """A document, or that it has not changed; only its end is asked for where that may do."""
        wanted = range_after(route, stored)
        if wanted:
            assert stored is not None
            try:
                return await self._end(registry, route, key, stored, deadline, wanted)
            except Misfit as why:
                _log.info("{key}: asked for whole: {why}", key=key, why=str(why))
            except BlobDamaged as why:
                _log.error("{key}: {why} It is fetched again.", key=key, why=why.text)
                stored = None
        # That it is what it was would not prove what may be stored wrongly.
        conditional = route.mutable or (stored is not None and stored.verified)
        ask = _ask_for(registry, route)
        answer = await question(self._context, registry, key, ask, stored, deadline, conditional=conditional)
        return answer if isinstance(answer, Unchanged) else await self._taking.take(route, answer)

    async def _end(
        self, registry: IRegistry, route: Document, key: str, stored: Stored, deadline: float, wanted: str
    ) -> Taken | Unchanged:
        """
        A stored document with its new end, or the whole if that comes instead.

        :raises Misfit: if no end of it is to be had.
        :raises regcache.errors.BlobDamaged: if the stored one cannot be read.
        """
        before = await self._representations.source(registry, stored)
        ask = _ask_for(registry, route)
        # A range of a coded form would be of no use.
        ask = replace(ask, headers=ask.headers.replacing({"range": wanted}), coding="identity")
        try:
            answer = await question(self._context, registry, key, ask, stored, deadline)
        except UpstreamStatus as error:
            if error.code == _UNSATISFIABLE:
                raise Misfit(f"{route.url} has become shorter.") from None
            raise
        if isinstance(answer, Unchanged):
            return answer
        if answer.status == 200:
            return await self._taking.take(route, answer)
        return await self._taking.take(route, answer, before)

    async def _read(
        self, registry: IRegistry, route: Document, taken: Taken, request: RequestHead | None = None
    ) -> Derived:
        """What is made of a document that has come, the facts in it first: what cannot be read is no document."""
        wanted = request is not None and _derives(route, request)
        job = Job(
            options=registry.options,
            document=route.key,
            source=taken.source,
            facts=True,
            representation=route.representation if wanted else "",
            base=request.base if request is not None and route.linked else "",
        )
        try:
            return await self._context.deriver.derive(job)
        except CannotRead:
            # That is no fault of the registry's.
            raise
        except RegCacheError:
            self._context.breaker.erred(origin_of(route.url), key_of(registry, route))
            raise

    def _keep(
        self, registry: IRegistry, route: Document, stored: Stored | None, taken: Taken, derived: Derived
    ) -> Stored:
        now, key, source = self._context.now(), key_of(registry, route), taken.source
        same = stored is not None and stored.digest == taken.digest
        entry = Stored(
            key=key,
            registry=registry.options.name,
            kind=Kind.DOCUMENT,
            url=source.url,
            headers=taken.headers,
            digest=taken.digest,
            size=len(source.body),
            digests=taken.digests,
            verified=taken.proven or (same and not route.mutable),
            stored_at=stored.stored_at if stored is not None and same else now,
            validated_at=now,
        )
        if same:
            self._context.note(entry)
            return entry
        self.kept += 1
        self._context.missing.drop(key)
        self._note_foreign(key, derived.foreign)
        facts = self._representations.learn(registry, entry, source, derived.facts)
        self._spawn(self._compare(registry.options.prefix, route.family, facts), key)
        if storable(registry, taken.headers):
            self._context.on_its_way(entry)
            self._spawn(self._store(registry, entry, source, derived), key)
        else:
            # Whoever has asked for it gets it from memory.
            self._representations.written(registry, entry)
            self._spawn(self._forget(key), key)
        return entry

    def _spawn(self, work: Coroutine[Any, Any, None], key: str) -> None:
        outcome = spawn(work)
        self._storing.add(outcome)
        outcome.wait().addErrback(self._context.unstored.failed, key).addBoth(lambda _: self._storing.discard(outcome))

    def _note_foreign(self, key: str, foreign: Mapping[str, tuple[int, str]]) -> None:
        """Links that are left as they are lead clients past the cache: say so, once a host."""
        known = self._context.foreign
        new = [host for host in foreign if host not in known]
        if new:
            _log.warn(
                "{key}: links to {hosts} are left as they are: not among artifact-hosts. The first is {link}",
                key=key,
                hosts=", ".join(new[:_MOST_NAMED]) + (f" and {len(new) - _MOST_NAMED} more" * (len(new) > _MOST_NAMED)),
                link=shown(foreign[new[0]][1]),
            )
        for host, (number, _) in foreign.items():
            known[host if host in known or len(known) < _MOST_FOREIGN else "others"] += number

    async def _store(self, registry: IRegistry, entry: Stored, source: Source, derived: Derived) -> None:
        store = self._context.store
        try:
            partial = store.create(expected=len(source.body))
            try:
                await partial.write(source.body)
            except CannotStore:
                partial.abort()
                raise
            await store.commit(partial, entry)
        finally:
            latest = self._context.unwritten.get(entry.key)
            if latest is not None and latest.digest == entry.digest:
                self._context.arrived(entry.key)
                if latest is not entry:
                    store.update(latest)
            self._representations.written(registry, entry)
        await self._representations.store_facts(registry, entry, derived)

    async def _forget(self, key: str) -> None:
        """What was stored is replaced by what may not be."""
        await self._context.store.drop(key)

    async def _compare(self, prefix: str, family: str, facts: Mapping[str, PackedFact]) -> None:
        """Hold what a new index says against the artifacts stored before it: what it contradicts is fetched again."""
        store = self._context.store
        for child in await store.children(prefix + family):
            named = child.key.removeprefix(prefix).partition(COPY)[0]
            packed = facts.get(named) if child.kind is Kind.ARTIFACT else None
            if packed is None:
                continue
            fact, known = unpacked(packed), await comparable(store, child, packed.digests)
            found = {digest.algorithm: digest for digest in known.digests}
            strongest = Digest.strongest(digest for digest in fact.digests if digest.algorithm in found)
            sized = fact.size in (None, child.size)
            if strongest is None and sized:
                continue
            if known is not child:
                # Another body may have come while it was read.
                latest = await store.find(child.key)
                if latest is None or latest.digest != child.digest:
                    continue
                known = replace(latest, digests=known.digests)
            if strongest is None or found[strongest.algorithm] not in fact.digests:
                _log.error(
                    "{key}: the registry now publishes another {what}; the stored copy goes.",
                    key=child.key,
                    what="size" if strongest is None else "digest",
                )
                await store.drop(child.key)
            elif sized and (known is not child or not child.verified):
                store.update(replace(known, verified=True))

    async def glimpse(self, registry: IRegistry, route: Document, deadline: float) -> Mapping[str, PackedFact]:
        """
        What a document says now, for one artifact's sake: it is not stored, since nobody may ever ask for it.

        :raises regcache.errors.RegCacheError: if it cannot be had.
        :raises TimeoutError: if it does not come in time, all of it.
        """
        looking = Deferred.fromCoroutine(self._look(registry, route, deadline))
        return await within(self._context.clock, deadline, looking)

    async def beside(
        self,
        registry: IRegistry,
        route: Document | Artifact,
        deadline: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Fact | None:
        """
        What the strongest of its sidecars that the upstream has says of it; None if there is none, or no answer.

        :param wanted: whether it is still worth asking.
        """
        for document in route.sidecars:
            if not wanted():
                break
            try:
                facts = await self.glimpse(registry, document, deadline)
            except (NotFound, BadDocument, UpstreamStatus):
                continue
            except (RegCacheError, TimeoutError):
                # Whoever does not answer would make each of them wait.
                break
            if route.key in facts:
                return unpacked(facts[route.key])
        return None

    async def _agrees(self, registry: IRegistry, route: Document, taken: Taken) -> bool:
        """Whether what has come is what is published beside it, if anything is."""
        fact = await self.beside(registry, route, self._context.rules.cold_timeout)
        if fact is None:
            return True
        hashing, body = Hashing({digest.algorithm for digest in fact.digests}), taken.source.body
        if len(body) <= _AT_ONCE:
            hashing.feed(body)
        else:
            await self._context.in_thread(hashing.feed, body)
        return set(hashing.digests()) <= set(fact.digests)

    async def _look(self, registry: IRegistry, route: Document, deadline: float) -> Mapping[str, PackedFact]:
        key = key_of(registry, route)
        answer = await question(self._context, registry, key, _ask_for(registry, route), None, deadline)
        assert isinstance(answer, Answer)
        derived = await self._read(registry, route, await self._taking.take(route, answer))
        return decode_facts(derived.facts)


def key_of(registry: IRegistry, route: Document | Artifact | Resource) -> str:
    """The key in the store of a document, an artifact or a resource."""
    return f"{registry.options.prefix}{route.key}"


def _derives(route: Document, request: RequestHead) -> bool:
    """Whether what a client wants is not the document itself."""
    return wants_gzip(request) or not route.etag


def _ask_for(registry: IRegistry, route: Document) -> Ask:
    fields, name = Headers.of({"accept": route.accept}), registry.options.name
    return Ask(url=route.url, headers=fields, allows=registry.allows, registry=name, coding="gzip")
