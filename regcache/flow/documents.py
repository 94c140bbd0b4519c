"""
Index documents: fetched whole, checked by being read, stored as they came, and served in derived representations.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from attrs import evolve, frozen
from twisted.logger import Logger

from regcache.errors import CannotStore, NotFound, Offline, RegCacheError, UpstreamError, UpstreamTimeout, Withdrawn
from regcache.flow.asking import Unchanged, kept, question, weigh
from regcache.flow.collect import collect, decoded
from regcache.flow.context import Context
from regcache.flow.derive import Derived, Job, PackedFact, decode_facts
from regcache.flow.reply import How, Reply
from regcache.flow.representations import Representations, wants_gzip
from regcache.flow.upstream import Answer, Ask, origin_of
from regcache.flow.waiting import Outcome, spawn, within
from regcache.http.fields import cache_control, format_date
from regcache.http.messages import Digest, Headers, Kind, RequestHead, Stored
from regcache.http.policy import Fetch, Gone, Refuse, Revalidate, Rules, UseStored, age_of
from regcache.interfaces import IRegistry
from regcache.routes import Document, Fact, Source

__all__ = ["Documents", "rules_for"]

_log = Logger(namespace="regcache")
_INLINE_DECODE = 1 << 18
#: This many known names turning 404 within a minute, with no good answer between them, is a fault, not a withdrawal.
_MASS = 5
_MASS_SECONDS = 60.0


@frozen
class _Fill:
    began: float
    outcome: Outcome[Stored]


def rules_for(rules: Rules, registry: IRegistry, ttl: float | None) -> Rules:
    """The operator's rules with a registry's and a route's own lifetimes put in."""
    options = registry.options
    own = options.ttl if ttl is None else ttl
    return evolve(rules, ttl=own, refresh_after=options.refresh_after, negative_ttl=options.negative_ttl)


class Documents:
    """
    Answers for index documents, and the facts they hold.

    One upstream request per document at a time (``_fills``), which belongs to nobody and ends by itself.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fills: dict[str, _Fill] = {}
        self._representations = Representations(context)
        self._withdrawals: list[tuple[float, str]] = []
        self._unwritten: dict[str, Stored] = {}

    async def answer(self, registry: IRegistry, route: Document, request: RequestHead) -> Reply:
        """
        The representation that this client asked for.

        :raises regcache.errors.RegCacheError: if there is none to be had.
        """
        began = self._context.clock.seconds()
        route = self._instead(registry, route)
        stored, how = await self.current(registry, route, request)
        waited = self._context.clock.seconds() - began if how is not How.HIT else None
        ready = await self._representations.representation(registry, route, stored, request)
        headers = {
            "content-type": route.content_type,
            "etag": ready.etag,
            "last-modified": format_date(stored.stored_at),
            "cache-control": "max-age=0",
            "vary": ", ".join((*route.vary, "Accept-Encoding")),
            "age": str(max(int(self._context.now() - stored.validated_at), 0)),
        }
        if wants_gzip(request):
            headers["content-encoding"] = "gzip"
        for name in ("x-pypi-last-serial",):
            if name in stored.headers:
                headers[name] = stored.headers.get(name)
        self._context.store.used(stored.key, self._context.now())
        left = rules_for(self._context.rules, registry, route.ttl).ttl - age_of(stored, self._context.now())
        return Reply(
            status=200,
            headers=Headers.of(headers),
            body=ready.body,
            how=how,
            detail=f"ttl={int(left)}" if math.isfinite(left) else "",
            upstream_seconds=waited,
        )

    async def current(self, registry: IRegistry, route: Document, request: RequestHead | None) -> tuple[Stored, How]:
        """
        The entry to answer from, asking the upstream as the rules say.

        :raises regcache.errors.RegCacheError: if there is none to be had.
        """
        context, key = self._context, _key(registry, route)
        rules = rules_for(context.rules, registry, route.ttl)
        stored = await self._find(key)
        decision, probing = weigh(context, stored, rules, key, route.url, mutable=True)
        if probing:
            self._fill(registry, route, stored, rules.upstream_timeout)
        if isinstance(decision, UseStored) and not decision.stale and self._insists(request) and not rules.offline:
            decision = Revalidate(rules.upstream_timeout)
        if isinstance(decision, UseStored):
            assert stored is not None
            return stored, How.STALE if decision.stale else How.HIT
        if isinstance(decision, Gone):
            raise Withdrawn(f"It answered {decision.status} for {route.url}.")
        if isinstance(decision, Refuse):
            raise Offline(f"{key} was never asked for while the cache was online.")
        if isinstance(decision, Fetch):
            return await self._fetched(registry, route, rules), How.MISS
        assert stored is not None
        return await self._revalidated(registry, route, rules, decision, stored)

    async def _fetched(self, registry: IRegistry, route: Document, rules: Rules) -> Stored:
        key = _key(registry, route)
        missing = self._context.missing.get(key)
        if missing is not None and self._context.clock.seconds() < missing.until:
            raise NotFound(missing.text or f"The registry answered {missing.status} for {route.url}.")
        fill = self._fill(registry, route, None, rules.cold_timeout)
        try:
            return await within(self._context.clock, rules.cold_timeout, fill.outcome.wait())
        except TimeoutError:
            raise _slow(route) from None

    async def _revalidated(
        self, registry: IRegistry, route: Document, rules: Rules, decision: Revalidate, stored: Stored
    ) -> tuple[Stored, How]:
        context = self._context
        fill = self._fill(registry, route, stored, rules.upstream_timeout)
        left = decision.wait - (context.clock.seconds() - fill.began)
        try:
            found = await within(context.clock, max(left, 0), fill.outcome.wait())
            return found, How.REVALIDATED if found.digest == stored.digest else How.MISS
        except NotFound:
            raise
        except (TimeoutError, UpstreamError) as error:
            if stored.withdrawn:
                raise Withdrawn(f"It answered {stored.withdrawn} for {route.url}.") from None
            if not decision.stale:
                return stored, How.HIT
            why = error.text if isinstance(error, UpstreamError) else "The registry is slow."
            _log.warn("{key}: answered from a stale copy: {why}", key=stored.key, why=why)
            return stored, How.STALE

    def _insists(self, request: RequestHead | None) -> bool:
        if request is None or not self._context.revalidate_on_request:
            return False
        asked = cache_control(request.headers.get("cache-control"))
        return "no-cache" in asked or asked.get("max-age") == "0" or "no-cache" in request.headers.get("pragma")

    def _instead(self, registry: IRegistry, route: Document) -> Document:
        """The route, or a like one of a document that serves as well and is fresh."""
        other = route.instead
        if other is None:
            return route
        stored = self._context.store.peek(_key(registry, other))
        rules = rules_for(self._context.rules, registry, other.ttl)
        fresh = min(rules.ttl, rules.ttl if rules.refresh_after is None else rules.refresh_after)
        own = self._context.store.peek(_key(registry, route))
        if stored is None or stored.withdrawn:
            return route
        if age_of(stored, self._context.now()) >= fresh and not (rules.offline and own is None):
            return route
        return evolve(route, key=other.key, url=other.url, accept=other.accept, instead=None)

    async def _find(self, key: str) -> Stored | None:
        return self._unwritten.get(key) or await self._context.store.find(key)

    # Asking.

    def _fill(self, registry: IRegistry, route: Document, stored: Stored | None, deadline: float) -> _Fill:
        """The question to the upstream that is under way for this document, or a new one."""
        key = _key(registry, route)
        fill = self._fills.get(key)
        if fill is None:
            fill = self._fills[key] = _Fill(self._context.clock.seconds(), Outcome())
            outcome = fill.outcome
            spawn(self._ask(registry, route, key, stored, deadline)).wait().addBoth(self._filled, key).addCallbacks(
                outcome.succeed, outcome.fail
            )
        return fill

    def _filled(self, result: object, key: str) -> object:
        del self._fills[key]
        return result

    async def _ask(
        self, registry: IRegistry, route: Document, key: str, stored: Stored | None, deadline: float
    ) -> Stored:
        context = self._context
        try:
            answer = await question(context, registry, key, _ask_for(registry, route), stored, deadline)
        except NotFound:
            if stored is not None and self._is_mass(key):
                context.store.update(stored)
                raise UpstreamError("It says 404 for everything at once; that is not believed.") from None
            raise
        self._withdrawals.clear()
        if isinstance(answer, Unchanged):
            return answer.stored
        source, digest, derived = await self._read(registry, route, answer)
        return self._keep(registry, key, stored, answer, source, digest, derived)

    async def _read(self, registry: IRegistry, route: Document, answer: Answer) -> tuple[Source, str, Derived]:
        """A document that has come, its digest, and the facts in it: whatever cannot be read is no document."""
        source, digest = await self._take(answer)
        job = Job(options=registry.options, document=route.key, source=source, facts=True)
        try:
            return source, digest, await self._context.deriver.derive(job)
        except RegCacheError:
            self._context.breaker.erred(origin_of(route.url), _key(registry, route))
            raise

    def _is_mass(self, key: str) -> bool:
        now = self._context.clock.seconds()
        recent = [(when, name) for when, name in self._withdrawals if now - when < _MASS_SECONDS and name != key]
        self._withdrawals = [*recent, (now, key)][-1000:]
        if len(self._withdrawals) < _MASS:
            return False
        _log.error("{n} known names answered 404 within a minute; the stored copies are served.", n=len(recent) + 1)
        for _, name in recent:
            entry = self._context.store.peek(name)
            if entry is not None and entry.withdrawn:
                self._context.store.update(evolve(entry, withdrawn=0))
        return True

    async def _take(self, answer: Answer) -> tuple[Source, str]:
        most = self._context.max_index_size
        raw = await collect(answer, most)

        def digested() -> tuple[bytes, str]:
            body = decoded(raw, answer.coding, most)
            return body, hashlib.sha256(body).hexdigest()

        small = len(raw) < _INLINE_DECODE
        body, digest = digested() if small else await self._context.in_thread(digested)
        return Source(body=body, content_type=answer.headers.get("content-type"), url=answer.url), digest

    def _keep(
        self,
        registry: IRegistry,
        key: str,
        stored: Stored | None,
        answer: Answer,
        source: Source,
        digest: str,
        derived: Derived,
    ) -> Stored:
        now = self._context.now()
        headers = kept(answer.headers)
        if stored is not None and stored.digest == digest:
            entry = evolve(stored, headers=headers, url=answer.url, validated_at=now, withdrawn=0)
            self._context.store.update(entry)
            return entry
        entry = Stored(
            key=key,
            registry=registry.options.name,
            kind=Kind.DOCUMENT,
            url=answer.url,
            headers=headers,
            digest=digest,
            size=len(source.body),
            stored_at=now,
            validated_at=now,
        )
        self._context.missing.drop(key)
        self._note_foreign(key, derived.foreign)
        facts = self._representations.learn(entry, source, derived.facts)
        self._unwritten[key] = entry
        spawn(self._compare(entry, facts)).wait().addErrback(self._unstored, key)
        spawn(self._store(registry, entry, source, derived)).wait().addErrback(self._unstored, key)
        return entry

    def _note_foreign(self, key: str, foreign: Mapping[str, int]) -> None:
        """Links that are left as they are lead clients past the cache: say so, once a host."""
        for host, number in foreign.items():
            if host not in self._context.foreign:
                _log.warn(
                    "{key}: {number} links to {host} are left as they are: it is not among artifact-hosts.",
                    key=key,
                    number=number,
                    host=host,
                )
            self._context.foreign[host] += number

    def _unstored(self, failure: object, key: str) -> None:
        value = getattr(failure, "value", failure)
        _log.warn("{key}: cannot be stored: {why}", key=key, why=getattr(value, "detail", value))

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
            if self._unwritten.get(entry.key) is entry:
                del self._unwritten[entry.key]
        await self._representations.store_facts(registry, entry, derived.facts)

    async def _compare(self, entry: Stored, facts: Mapping[str, PackedFact]) -> None:
        """Hold what a new index says against the artifacts stored before it: what it contradicts is fetched again."""
        store = self._context.store
        for child in await store.children(entry.key):
            packed = facts.get(child.key.partition("/")[2])
            if packed is None:
                continue
            found = {digest.algorithm: digest for digest in child.digests}
            strongest = Digest.strongest(digest for digest in unpacked(packed).digests if digest.algorithm in found)
            if strongest is None:
                continue
            if found[strongest.algorithm] != strongest:
                _log.error("{key}: the registry now publishes another digest; the stored copy goes.", key=child.key)
                await store.drop(child.key)
            elif not child.verified:
                store.update(evolve(child, verified=True))

    async def refreshed(self, registry: IRegistry, route: Document) -> Mapping[str, PackedFact]:
        """
        What the document says now: the upstream is asked, once for all who wait.

        :raises regcache.errors.RegCacheError: if it cannot be had.
        """
        context = self._context
        rules = rules_for(context.rules, registry, route.ttl)
        stored = await self._find(_key(registry, route))
        if rules.offline:
            raise Offline("")
        fill = self._fill(registry, route, stored, rules.cold_timeout)
        entry = await within(context.clock, rules.cold_timeout, fill.outcome.wait())
        return await self._representations.facts(registry, route, entry)

    async def glimpse(self, registry: IRegistry, route: Document) -> Mapping[str, PackedFact]:
        """
        What a small document says now, for one artifact's sake: it is not stored, since nobody may ever ask for it.

        :raises regcache.errors.RegCacheError: if it cannot be had.
        """
        rules = self._context.rules
        if rules.offline:
            raise Offline("")
        answer = await question(
            self._context, registry, _key(registry, route), _ask_for(registry, route), None, rules.cold_timeout
        )
        assert isinstance(answer, Answer)
        _, _, derived = await self._read(registry, route, answer)
        return decode_facts(derived.facts)

    async def stored(self, registry: IRegistry, routes: Iterable[Document]) -> list[tuple[Document, Stored]]:
        """Those of some documents that are stored, however old, in their order."""
        keys = {_key(registry, route): route for route in routes}
        found = {**await self._context.store.find_all(list(keys)), **self._unwritten}
        return [(route, found[key]) for key, route in keys.items() if key in found]

    async def facts(self, registry: IRegistry, route: Document, stored: Stored) -> Mapping[str, PackedFact]:
        """
        What the stored copy of a document says.

        :raises regcache.errors.RegCacheError: if it cannot be read any more.
        """
        return await self._representations.facts(registry, route, stored)


def unpacked(fact: PackedFact) -> Fact:
    """A fact from its stored form."""
    url, digests, size = fact
    return Fact(url=url, digests=tuple(Digest(*pair) for pair in digests), size=size)


def _key(registry: IRegistry, route: Document) -> str:
    return f"{registry.options.name}/{route.key}"


def _ask_for(registry: IRegistry, route: Document) -> Ask:
    return Ask(url=route.url, headers=Headers.of({"accept": route.accept}), allows=registry.allows, coding="gzip")


def _slow(route: Document) -> UpstreamError:
    return UpstreamTimeout(f"{origin_of(route.url)} is slow; the fetch goes on, ask again.")
