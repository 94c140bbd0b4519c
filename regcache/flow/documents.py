"""
Answers for index documents, in the representation that each client asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from attrs import evolve
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from regcache.errors import BlobDamaged, NotFound, Offline, RegCacheError, UpstreamError, UpstreamTimeout, Withdrawn
from regcache.flow.asking import weigh
from regcache.flow.context import JUST_NOW, Bounded, Context
from regcache.flow.facts import PackedFact
from regcache.flow.fetching import Fetching, key_of
from regcache.flow.lifetimes import age_told, cache_control_of, rules_for, vouched_at
from regcache.flow.reply import How, Reply, Standing, ttl_left
from regcache.flow.representations import Ready, Representations, wants_gzip
from regcache.flow.upstream import origin_of
from regcache.flow.waiting import within
from regcache.http.fields import cache_control, format_date
from regcache.http.messages import Digest, Headers, RequestHead, Stored
from regcache.http.policy import Fetch, Gone, Refuse, Revalidate, Rules, UseStored, age_of, decide, settled_until
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.routes import Artifact, Document, Fact

__all__ = ["Documents"]

_log = Log()
_MOST_SENT = 2_000
#: By which mirrors of PyPI tell how new a page is (Warehouse's mirroring support).
_SERIAL = "x-pypi-last-serial"


class Documents:
    """
    Answers for index documents, and the facts they hold.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._representations = Representations(context)
        self._fetching = Fetching(context, self._representations)
        # The copy that was sent last, and when.
        self._sent: Bounded[str, tuple[Stored, float]] = Bounded(_MOST_SENT)

    async def answer(self, registry: IRegistry, route: Document, request: RequestHead) -> Reply:
        """
        The representation that this client asked for.

        :raises regcache.errors.RegCacheError: if there is none to be had.
        """
        began = self._context.clock.seconds()
        asked, route = route, self._instead(registry, route)
        spare = await self._spare(registry, route)
        try:
            stored, how = await self._current(registry, route, request, patient=spare is None)
            stored, ready = await self._ready(registry, route, stored, request)
        except (UpstreamError, Offline) as error:
            if spare is None:
                raise
            route, stored, how = *spare, How.STALE
            _log.warn("{key}: answered from {other}: {why}", key=route.key, other=stored.key, why=error.text)
            try:
                stored, ready = await self._ready(registry, route, stored, request)
            except RegCacheError:
                raise error from None
        waited = self._context.clock.seconds() - began if how is not How.HIT else None
        self._given(stored)
        rules = rules_for(self._context.rules, registry, route.ttl, stored, request)
        ttl = rules.ttl if _may_change(route, stored) else math.inf
        now = self._context.now()
        reply = Reply(
            status=200,
            headers=self._headers(registry, route, stored, ready, request),
            body=ready.body,
            how=how,
            detail=ttl_left(now + ttl - age_of(stored, now), now),
            upstream_seconds=waited,
            packages=asked.packages,
        )
        if how is How.HIT and not self._insists(request):
            reply = replace(reply, standing=self._standing(registry, asked, route, stored, rules))
        return reply

    def _headers(
        self, registry: IRegistry, route: Document, stored: Stored, ready: Ready, request: RequestHead
    ) -> Headers:
        """The fields that go with a representation."""
        headers = {
            "content-type": route.content_type,
            "etag": ready.etag,
            "last-modified": format_date(stored.stored_at),
            "cache-control": cache_control_of(registry, stored.headers, "max-age=0"),
            "vary": ", ".join((*route.vary, "Accept-Encoding")),
            "age": age_told(registry, stored, self._context.now()),
        }
        if wants_gzip(request):
            headers["content-encoding"] = "gzip"
        elif route.etag:
            headers["repr-digest"] = f"sha-256=:{Digest('sha256', stored.digest).base64}:"
        if _SERIAL in stored.headers:
            headers[_SERIAL] = stored.headers.get(_SERIAL)
        return Headers.of(headers)

    def _given(self, stored: Stored) -> None:
        """The copy was sent to a client."""
        self._context.store.used(stored.key, self._context.now())
        self._noted(stored)

    def _noted(self, stored: Stored) -> None:
        self._sent.put(stored.key, (stored, self._context.clock.seconds()), 1)

    def _standing(
        self, registry: IRegistry, asked: Document, route: Document, stored: Stored, rules: Rules
    ) -> Standing | None:
        """
        How long a hit holds, if that is known.

        :param asked: the document that the request is for.
        :param route: the one that answers.
        :param rules: for its stored copy.
        """
        context, other, mutable = self._context, asked.instead, _may_change(route, stored)
        until = settled_until(stored, rules, mutable=mutable)
        entries: list[tuple[str, Stored | None]] = [(stored.key, stored)]
        if other is not None and stored.key == key_of(registry, asked):
            # Should the other come, that answers.
            key = key_of(registry, other)
            entries.append((key, context.unwritten.get(key) or context.store.peek(key)))
        elif other is not None:
            others = rules if registry.options.follows else rules_for(context.rules, registry, other.ttl)
            until = min(until, settled_until(stored, others, mutable=_may_change(other, stored)))
        if not stored.validated_at <= context.now() < until:
            # The upstream is in trouble.
            return None
        return Standing(
            until=until,
            entries=tuple(entries),
            vouched_at=vouched_at(registry, stored),
            fresh_until=stored.validated_at + rules.ttl if mutable else math.inf,
            used=stored.key,
            given=lambda: self._noted(stored),
        )

    async def sent(self, registry: IRegistry, route: Document, request: RequestHead) -> tuple[bytes, How]:
        """
        The representation, without content coding, of the copy that was sent a moment ago, else of what is sent now.

        A refresh may come between a document and what a client asks about it.

        :raises regcache.errors.RegCacheError: if there is none to be had.
        """
        plainly = replace(request, method="GET", headers=request.headers.without("accept-encoding"))
        last = self._sent.get(key_of(registry, route))
        if last is not None and self._context.clock.seconds() - last[1] < JUST_NOW:
            ready = self._representations.at_hand(registry, route, last[0], plainly)
            if ready is not None:
                return ready.body, How.HIT
        reply = await self.answer(registry, route, plainly)
        assert isinstance(reply.body, bytes)
        return reply.body, reply.how

    async def _spare(self, registry: IRegistry, route: Document) -> tuple[Document, Stored] | None:
        """What can answer when the document is not to be had, and is not stored."""
        if not route.spares or await self._context.find(key_of(registry, route)) is not None:
            return None
        for spare, stored in await self.stored(registry, route.spares):
            if not stored.withdrawn:
                return _as(spare, route), stored
        return None

    async def _ready(
        self, registry: IRegistry, route: Document, stored: Stored, request: RequestHead
    ) -> tuple[Stored, Ready]:
        """The representation that was asked for, of the entry or, if its body is damaged, of a new one."""
        at_hand = self._representations.at_hand(registry, route, stored, request)
        if at_hand is not None:
            return stored, at_hand
        try:
            return stored, await self._prepared(registry, route, stored, request)
        except BlobDamaged as error:
            _log.error("{key}: {why} It is fetched again.", key=stored.key, why=error.text)
        rules = rules_for(self._context.rules, registry, route.ttl)
        if rules.offline:
            raise Offline(f"The stored copy of {stored.key} was damaged.")
        stored = await self._fetched(registry, route, rules, request)
        return stored, await self._prepared(registry, route, stored, request)

    async def _prepared(self, registry: IRegistry, route: Document, stored: Stored, request: RequestHead) -> Ready:
        context = self._context
        preparing = Deferred.fromCoroutine(self._representations.representation(registry, route, stored, request))
        try:
            return await within(context.clock, context.rules.cold_timeout, preparing)
        except TimeoutError:
            raise UpstreamTimeout(f"{route.key} is large and still being prepared; ask again.") from None

    async def _current(
        self, registry: IRegistry, route: Document, request: RequestHead, *, patient: bool
    ) -> tuple[Stored, How]:
        """
        The entry to answer from, asking the upstream as the rules say.

        :param patient: whether nothing else could answer.

        :raises regcache.errors.RegCacheError: if there is none to be had.
        """
        context, key = self._context, key_of(registry, route)
        stored = await self._context.find(key)
        rules = rules_for(context.rules, registry, route.ttl, stored, request)
        decision, probing = weigh(context, stored, rules, key, route.url, mutable=_may_change(route, stored))
        if probing or (isinstance(decision, UseStored) and decision.refresh):
            self._fetching.fill(registry, route, stored, rules.cold_timeout)
        insisted = _may_change(route, stored) and not rules.offline and self._insists(request)
        if isinstance(decision, UseStored) and not decision.stale and insisted:
            decision = Revalidate(rules.upstream_timeout)
        if isinstance(decision, UseStored):
            assert stored is not None
            return stored, How.STALE if decision.stale else How.HIT
        if isinstance(decision, Gone):
            raise Withdrawn(f"It answered {decision.status} for {route.url}.")
        if isinstance(decision, Refuse):
            raise Offline(f"{route.url} was never asked for while the cache was online.")
        if isinstance(decision, Fetch):
            if not patient:
                rules = evolve(rules, cold_timeout=rules.upstream_timeout)
                if context.breaker.spares(origin_of(route.url), key):
                    raise UpstreamError(f"{origin_of(route.url)} is in trouble.")
            return await self._fetched(registry, route, rules, request), How.MISS
        assert stored is not None
        return await self._revalidated(registry, route, rules, decision, stored, request)

    async def _fetched(self, registry: IRegistry, route: Document, rules: Rules, request: RequestHead) -> Stored:
        key = key_of(registry, route)
        missing = self._context.missing.get(key)
        if missing is not None and self._context.clock.seconds() < missing.until:
            raise NotFound(missing.text or f"The registry answered {missing.status} for {route.url}.")
        fill = self._fetching.fill(registry, route, None, self._context.rules.cold_timeout, request)
        try:
            return await within(self._context.clock, rules.cold_timeout, fill.outcome.wait())
        except TimeoutError:
            raise _slow(route) from None

    async def _revalidated(
        self,
        registry: IRegistry,
        route: Document,
        rules: Rules,
        decision: Revalidate,
        stored: Stored,
        request: RequestHead,
    ) -> tuple[Stored, How]:
        context = self._context
        fill = self._fetching.fill(registry, route, stored, rules.cold_timeout, request)
        left = decision.wait - (context.clock.seconds() - fill.began)
        try:
            found = await within(context.clock, max(left, 0), fill.outcome.wait())
            return found, How.REVALIDATED if found.digest == stored.digest else How.MISS
        except NotFound:
            raise
        except (TimeoutError, UpstreamError) as error:
            if isinstance(error, TimeoutError):
                self._lagged(route, decision)
            if not decision.usable:
                raise (_slow(route) if isinstance(error, TimeoutError) else error) from None
            if stored.withdrawn:
                raise Withdrawn(f"It answered {stored.withdrawn} for {route.url}.") from None
            if not decision.stale:
                return stored, How.HIT
            why = error.text if isinstance(error, UpstreamError) else "The registry is slow."
            _log.warn("{key}: answered from a stale copy: {why}", key=stored.key, why=why)
            return stored, How.STALE

    def _lagged(self, route: Document, decision: Revalidate) -> None:
        """The upstream took too long: others with a stored copy need not wait as well."""
        origin = origin_of(route.url)
        if not decision.stale:
            self._context.breaker.lagged(origin)
        elif self._context.breaker.broke(origin):
            _log.error("{origin} is in trouble: it gave no whole answer in time.", origin=origin)

    def _insists(self, request: RequestHead) -> bool:
        if not self._context.revalidate_on_request:
            return False
        asked = cache_control(request.headers.get("cache-control"))
        return "no-cache" in asked or asked.get("max-age") == "0" or "no-cache" in request.headers.get("pragma")

    def _instead(self, registry: IRegistry, route: Document) -> Document:
        """The route, or a like one of a document that serves as well and is fresh."""
        other = route.instead
        if other is None:
            return route
        key = key_of(registry, other)
        stored = self._context.unwritten.get(key) or self._context.store.peek(key)
        rules = rules_for(self._context.rules, registry, other.ttl, stored)
        decision = decide(stored, rules, now=self._context.now(), mutable=_may_change(other, stored), spared=False)
        if not isinstance(decision, UseStored) or decision.stale:
            return route
        return _as(other, route)

    @property
    def age(self) -> int:
        """What they say, and which of several is the newest, stands as long as this is the same."""
        return self._fetching.kept + self._context.noted

    def stored_soon(self) -> list[Deferred[None]]:
        """One for each document that is being stored: fires when it is done."""
        return self._fetching.stored()

    async def refreshed(self, registry: IRegistry, route: Document) -> Mapping[str, PackedFact]:
        """
        What the document says now: the upstream is asked, once for all who wait.

        :raises regcache.errors.RegCacheError: if it cannot be had.
        """
        context = self._context
        rules = rules_for(context.rules, registry, route.ttl)
        stored = await self._context.find(key_of(registry, route))
        if rules.offline:
            raise Offline("")
        fill = self._fetching.fill(registry, route, stored, rules.cold_timeout)
        entry = await within(context.clock, rules.cold_timeout, fill.outcome.wait())
        return await self._representations.facts(registry, route, entry)

    async def glimpse(self, registry: IRegistry, route: Document) -> Mapping[str, PackedFact]:
        """
        What a small document says now, for one artifact's sake: it is not stored, since nobody may ever ask for it.

        :raises regcache.errors.RegCacheError: if it cannot be had.
        :raises TimeoutError: if it does not come in time, for which nobody has patience twice.
        """
        rules = self._context.rules
        if rules.offline:
            raise Offline("")
        return await self._fetching.glimpse(registry, route, rules.cold_timeout)

    async def beside(self, registry: IRegistry, route: Artifact, wanted: Callable[[], bool]) -> Fact | None:
        """
        What the strongest of its sidecars that the upstream has says of an artifact; None if nothing can be learnt.

        :param wanted: whether it is still worth asking.
        """
        rules = self._context.rules
        return None if rules.offline else await self._fetching.beside(registry, route, rules.cold_timeout, wanted)

    async def stored(self, registry: IRegistry, routes: Iterable[Document]) -> list[tuple[Document, Stored]]:
        """Those of some documents that are stored, however old, the newest first."""
        keys = {key_of(registry, route): route for route in routes}
        if len(keys) == 1:
            ((key, route),) = keys.items()
            entry = await self._context.find(key)
            return [] if entry is None else [(route, entry)]
        unwritten = self._context.unwritten
        found = await self._context.store.find_all(list(keys))
        if unwritten:
            found |= {key: unwritten[key] for key in keys if key in unwritten}
        there = [(route, found[key]) for key, route in keys.items() if key in found]
        if len(there) > 1:
            there.sort(key=lambda one: one[1].validated_at, reverse=True)
        return there

    async def facts(self, registry: IRegistry, route: Document, stored: Stored) -> Mapping[str, PackedFact]:
        """
        What the stored copy of a document says.

        :raises regcache.errors.RegCacheError: if it cannot be read any more.
        """
        return await self._representations.facts(registry, route, stored)

    def facts_at_hand(self, registry: IRegistry, stored: Stored) -> Mapping[str, PackedFact] | None:
        """The same, if it is in memory."""
        return self._representations.facts_at_hand(registry, stored)


def _may_change(route: Document, stored: Stored | None) -> bool:
    """Whether what is stored is to be revalidated; what may not change is, until the upstream has sent it twice."""
    return route.mutable or (stored is not None and not stored.verified)


def _as(other: Document, route: Document) -> Document:
    """Another document in place of a route: answered as the route says, derived as the other does."""
    return replace(
        route, key=other.key, url=other.url, accept=other.accept, representation=other.representation, instead=None
    )


def _slow(route: Document) -> UpstreamError:
    return UpstreamTimeout(f"{origin_of(route.url)} is slow; the fetch goes on, ask again.")
