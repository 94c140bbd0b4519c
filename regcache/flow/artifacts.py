"""
Artifacts: streamed to every client that asks from one growing file, and from the store for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Sequence

from attrs import evolve
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail

from regcache.errors import (
    CannotStore,
    Crowded,
    NotFound,
    Offline,
    RegCacheError,
    UpstreamError,
    UpstreamTimeout,
    Withdrawn,
)
from regcache.flow.asking import weigh
from regcache.flow.context import Context
from regcache.flow.copies import AtHand, Copies, fields_of
from regcache.flow.documents import Documents
from regcache.flow.fetching import key_of
from regcache.flow.filling import Filling
from regcache.flow.hashing import Hashing
from regcache.flow.judging import Judging
from regcache.flow.lifetimes import rules_for
from regcache.flow.proofs import place_of
from regcache.flow.reply import How, Reply, Unknown
from regcache.flow.transfer import Transfer
from regcache.flow.upstream import Ask, origin_of
from regcache.flow.work import Fill
from regcache.http.messages import Headers, Kind, RequestHead, Stored
from regcache.http.policy import Gone, Refuse, Revalidate, Rules, UseStored, settled_until
from regcache.http.ranges import Part
from regcache.interfaces import IPartial, IRegistry
from regcache.logs import Log
from regcache.routes import Artifact

__all__ = ["Artifacts"]

_log = Log()
#: A range that begins further ahead of what has arrived is fetched by a request of its own.
_AHEAD = 8 << 20
#: Seconds after which what could not be proven is asked for again, where there is an index that may prove it.
_UNPROVEN = 60.0


class Artifacts:
    """
    Answers for artifacts.
    """

    def __init__(self, context: Context, documents: Documents) -> None:
        self._context = context
        self._filling = Filling(context, documents)
        # Entity tags of bodies that are not found good yet; no other process has the same.
        nonce = secrets.token_hex(12)
        self._once = (f"{nonce}-{number}" for number in itertools.count())
        self._copies = Copies(context)

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return self._filling.transfers

    async def answer(self, registry: IRegistry, route: Artifact, request: RequestHead) -> Reply:
        """
        The artifact, whole: preconditions and ranges are the caller's.

        :raises regcache.errors.RegCacheError: if it is not to be had.
        """
        context, key = self._context, key_of(registry, route)
        stored = await context.store.find(key, [key_of(registry, document) for document in route.documents])
        if stored is not None and stored.kind is not Kind.ARTIFACT:
            stored = None
        rules, mutable = context.rules, route.mutable
        if stored is not None:
            # What is not there has no lifetime.
            rules, mutable = self._rules(registry, route, request, stored)
        decision, probing = weigh(context, stored, rules, key, route.url, mutable=mutable)
        if probing or (isinstance(decision, UseStored) and decision.refresh):
            with contextlib.suppress(Crowded):
                self._filling.fill(registry, route, key, stored)
        if isinstance(decision, Refuse):
            found = await self._filling.adopt(registry, route)
            reply = None if found is None else self._copies.given(registry, route, found, How.HIT)
            if reply is not None:
                return reply
            raise Offline(f"{route.url} was never asked for while the cache was online.")
        if isinstance(decision, Gone):
            raise Withdrawn(f"It answered {decision.status} for {route.url}.")
        reply = None
        if isinstance(decision, UseStored) and stored is not None:
            until = settled_until(stored, rules, mutable=mutable)
            how = How.STALE if decision.stale else How.HIT
            reply = self._copies.given(registry, route, stored, how, until)
            if reply is None and rules.offline:
                raise Offline(f"The stored copy of {key} was damaged.")
        elif isinstance(decision, Revalidate) and stored is not None:
            reply = await self._revalidated(registry, route, request, stored, decision)
        return reply or await self._fetched(registry, route, request, key)

    def at_hand(self, wanted: Sequence[tuple[IRegistry, Artifact, RequestHead]]) -> list[AtHand | None]:
        """
        What :meth:`answer` would answer each with, where that is a small stored copy that nobody needs to be asked
        about.

        Nobody is told that it is given: whoever gives it tells.

        :returns: None for all else, and for what cannot be read at once.
        """
        store, now = self._context.store, self._context.now()
        copies: list[AtHand | None] = []
        keys = [key_of(registry, route) for registry, route, _ in wanted]
        for (registry, route, request), stored in zip(wanted, store.glance(keys), strict=True):
            copy = None if stored is None else self._if_fresh(registry, route, request, stored, now)
            if stored is not None and copy is None:
                store.keep(stored)
            copies.append(copy)
        return copies

    def _if_fresh(
        self, registry: IRegistry, route: Artifact, request: RequestHead, stored: Stored, now: float
    ) -> AtHand | None:
        """The small stored copy, if it is the answer, and would be the same a moment later."""
        if stored.kind is not Kind.ARTIFACT:
            return None
        context = self._context
        rules, mutable = self._rules(registry, route, request, stored)
        # Not weighed: whoever is told to see if an upstream has recovered is the only one for a while.
        until = settled_until(stored, rules, mutable=mutable)
        if not stored.validated_at <= now < until:
            return None
        body = context.store.read(stored)
        return None if body is None else AtHand(self._copies, registry, route, stored, body, until)

    def _rules(
        self, registry: IRegistry, route: Artifact, request: RequestHead, stored: Stored | None
    ) -> tuple[Rules, bool]:
        """By which rules an entry is weighed, and whether it may have changed."""
        rules = rules_for(self._context.rules, registry, route.ttl, stored, request)
        # What nothing has vouched for may be anything, and is asked for again like an index.
        unproven = stored is not None and not stored.verified
        if unproven and not registry.options.follows and (route.indexes or route.proof is not None):
            # Its index may only have been away for a moment.
            usual = rules.refresh_after
            rules = evolve(rules, refresh_after=_UNPROVEN if usual is None else min(usual, _UNPROVEN))
        return rules, route.mutable or unproven

    async def entry(self, registry: IRegistry, route: Artifact, request: RequestHead) -> Stored | None:
        """
        The entry whose bytes whoever asks for this artifact is sent now, or was sent a moment ago; None if there is
        none.

        :raises regcache.errors.NotFound: if the upstream has withdrawn it.
        """
        context, key = self._context, key_of(registry, route)
        if self._copies.just_served(key) is None and route.mutable and await context.store.find(key) is not None:
            with contextlib.suppress(UpstreamError):
                (await self.answer(registry, route, replace(request, method="HEAD"))).close()
        served = self._copies.just_served(key)
        if served is not None:
            return served
        await self._filling.recheck(registry, route, key)
        fill = self._filling.under_way(key)
        if fill is not None:
            with contextlib.suppress(RegCacheError, TimeoutError):
                return await context.deadlines.within(context.rules.cold_timeout, fill.found.wait())
        stored = await context.store.find(key)
        good = stored is not None and stored.kind is Kind.ARTIFACT and not stored.withdrawn
        return stored if good else None

    # From the upstream.

    async def _revalidated(
        self, registry: IRegistry, route: Artifact, request: RequestHead, stored: Stored, decision: Revalidate
    ) -> Reply | None:
        """What is answered once the upstream was asked whether the stored copy holds; None if that is damaged."""
        context, fill = self._context, None
        await self._filling.recheck(registry, route, stored.key)
        try:
            fill = self._filling.fill(registry, route, stored.key, stored)
            left = decision.wait - (context.clock.seconds() - fill.began)
            if not await context.deadlines.within(left, Deferred.fromCoroutine(self._settled(fill))):
                return await self._join(registry, route, fill, request)
            return self._copies.given(registry, route, await fill.unchanged.wait(), How.REVALIDATED)
        except NotFound:
            raise
        except (TimeoutError, UpstreamError) as error:
            if isinstance(error, TimeoutError) and fill is not None and not fill.transfer.head.known:
                self._lagged(route, decision)
            if not decision.usable and isinstance(error, TimeoutError):
                raise UpstreamTimeout(f"{origin_of(route.url)} is slow; ask again.") from None
            if not decision.usable:
                raise
            if stored.withdrawn:
                raise Withdrawn(f"It answered {stored.withdrawn} for {route.url}.") from None
            if decision.stale:
                why = error.text if isinstance(error, UpstreamError) else "The registry is slow."
                _log.warn("{key}: answered from a stale copy: {why}", key=stored.key, why=why)
            return self._copies.given(registry, route, stored, How.STALE if decision.stale else How.HIT)

    def _lagged(self, route: Artifact, decision: Revalidate) -> None:
        """The upstream took too long: others with a stored copy need not wait as well."""
        origin = origin_of(route.url)
        if not decision.stale:
            self._context.breaker.lagged(origin)
        elif self._context.breaker.broke(origin):
            _log.error("{origin} is in trouble: it did not answer in time.", origin=origin)

    @staticmethod
    async def _settled(fill: Fill) -> bool:
        """
        Whether the stored copy holds, once that is known, or a new body is whole and found good.

        One that cannot be stored has to be read to get on.

        :raises regcache.errors.UpstreamError: if there is no good new body.
        """
        transfer = fill.transfer
        while not (fill.unchanged.known or transfer.complete or transfer.error or transfer.relaying):
            await transfer.moved()
        if not fill.unchanged.known and transfer.error is not None:
            raise transfer.error
        return fill.unchanged.known

    async def _fetched(self, registry: IRegistry, route: Artifact, request: RequestHead, key: str) -> Reply:
        context = self._context
        missing = context.missing.get(key)
        if missing is not None and context.clock.seconds() < missing.until:
            # An index that has come since may name it.
            fact = await self._filling.proofs.stored(registry, route)
            if fact is None or not route.is_there(fact):
                raise NotFound(missing.text or f"The registry answered {missing.status} for {route.url}.")
            context.missing.drop(key)
        if self._filling.under_way(key) is not None:
            await self._filling.recheck(registry, route, key)
        if request.method == "HEAD":
            head = await self._head(registry, route, key)
            if head is not None:
                return head
        joined = self._filling.under_way(key) is not None
        self._context.upstream.counts.coalesced[registry.options.name] += joined
        fill = self._filling.fill(registry, route, key, None)
        try:
            reply = await self._join(registry, route, fill, request)
        except UpstreamError:
            if not fill.unchanged.known:
                raise
            # It was a revalidation that was joined, of a copy that has gone since.
            found = self._copies.given(registry, route, await fill.unchanged.wait(), How.REVALIDATED)
            return found or await self._join(registry, route, self._filling.fill(registry, route, key, None), request)
        return replace(reply, detail="collapsed") if joined else reply

    async def _head(self, registry: IRegistry, route: Artifact, key: str) -> Reply | None:
        """
        The head of an artifact that is not stored, without fetching it; None if that takes the whole.

        Hosts that sign their URLs, or serve files alone, refuse HEAD: whatever it is refused with says nothing.
        """
        context, fill = self._context, self._filling.under_way(key)
        unasked = Headers(tuple(fields_of(registry, route, Headers(), lasting=False)))
        if fill is not None and fill.transfer.total is not None:
            return Reply(status=200, headers=unasked, stop=fill.transfer.total, how=How.MISS)
        fact = await self._filling.proofs.stored(registry, route)
        if fact is not None and fact.size is not None and route.is_there(fact):
            return Reply(status=200, headers=unasked, stop=fact.size, how=How.MISS)
        url = place_of(registry, route, fact)
        fields = context.request_fields.replacing({"accept": route.accept})
        name = registry.options.name
        ask = Ask(method="HEAD", url=url, headers=fields, allows=registry.allows, registry=name, artifact=True)
        deadline = context.rules.cold_timeout
        answer = await context.upstream.ask(ask, deadline, patience=deadline)
        answer.discard()
        if answer.status != 200:
            return None
        headers = Headers(tuple(fields_of(registry, route, answer.headers, lasting=False)))
        body = b"" if answer.length is not None else Unknown()
        return Reply(status=200, headers=headers, body=body, stop=answer.length, how=How.MISS)

    async def _join(self, registry: IRegistry, route: Artifact, fill: Fill, request: RequestHead) -> Reply:
        """
        A reader of a body under way, once its first bytes can be read or it is clear that none will come.

        A client that could not tell a cut from the end gets nothing before the length is known.
        """
        context, transfer = self._context, fill.transfer
        self._copies.forget(transfer.key)
        began = context.clock.seconds()
        reader = transfer.open()
        try:
            left = context.rules.cold_timeout - (context.clock.seconds() - fill.began)
            try:
                if not transfer.readable.known:
                    await context.deadlines.within(left, transfer.readable.wait())
            except TimeoutError:
                if not transfer.head.known and context.upstream.crowded(route.url):
                    raise Crowded(f"{origin_of(route.url)} is asked for others first; ask again.") from None
                if not transfer.head.known:
                    raise UpstreamTimeout(f"{origin_of(route.url)} is slow; the fetch goes on, ask again.") from None
            if request.method != "HEAD" and not transfer.readable.known:
                # Before its first byte a client can still be told what went wrong.
                await transfer.readable.wait()
            while not (request.chunked or transfer.total is not None or transfer.error is not None):
                await transfer.moved()
            if transfer.error is not None and (transfer.mark == 0 or not request.chunked):
                raise transfer.error
        except BaseException:
            reader.close()
            raise
        answer = transfer.head.value or await transfer.head.wait()
        fields = [*fields_of(registry, route, answer.headers, lasting=False), ("etag", f'"{next(self._once)}"')]
        return Reply(
            status=200,
            headers=Headers(tuple(fields)),
            body=reader,
            how=How.MISS,
            detail=f"fwd-status={answer.status}" + ("" if transfer.relaying else "; stored"),
            upstream_seconds=context.clock.seconds() - began,
            packages=route.packages,
        )

    def is_ahead(self, reply: Reply, part: Part) -> bool:
        """Whether a range of a body under way begins too far ahead of what has arrived to be waited for."""
        mark = getattr(getattr(reply.body, "transfer", None), "mark", None)
        return mark is not None and part.start > mark + _AHEAD

    async def ahead(self, registry: IRegistry, route: Artifact, part: Part) -> Transfer | None:
        """
        A range by a request of its own, passed through and not stored; None if the upstream does not give it.
        """
        fact = await self._filling.proofs.stored(registry, route)
        url = place_of(registry, route, fact)
        ask = Ask(
            url=url,
            headers=self._context.request_fields.replacing({"range": f"bytes={part.start}-{part.stop - 1}"}),
            allows=registry.allows,
            registry=registry.options.name,
            artifact=True,
        )
        deadline = self._context.rules.cold_timeout
        answer = await self._context.upstream.ask(ask, deadline, patience=deadline)
        wanted = f"bytes {part.start}-{part.stop - 1}/"
        if answer.status != 206 or not answer.headers.get("content-range").startswith(wanted):
            answer.discard()
            return None
        transfer = Transfer(self._context.clock, route.key, self._context.unstored)

        async def unchecked(_size: int) -> bool:
            return False

        def never(_partial: IPartial, _proven: bool) -> Deferred[None]:
            return fail(CannotStore(""))

        transfer.begin(answer, None, Judging(Hashing(set()), unchecked, never))
        return transfer
