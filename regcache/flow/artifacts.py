"""
Artifacts: streamed to every client that asks from one growing file, verified, and stored for ever.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from regcache.errors import (
    BlobDamaged,
    CannotStore,
    CutShort,
    DigestMismatch,
    NotFound,
    Offline,
    RegCacheError,
    UpstreamError,
    UpstreamTimeout,
    Withdrawn,
)
from regcache.flow.asking import Unchanged, kept, question, weigh
from regcache.flow.context import Context
from regcache.flow.documents import Documents, rules_for
from regcache.flow.hashing import Hashing
from regcache.flow.proofs import Proofs, accept, verify
from regcache.flow.reply import How, Reply
from regcache.flow.transfer import Transfer
from regcache.flow.upstream import Answer, Ask, origin_of
from regcache.flow.waiting import Outcome, spawn, within
from regcache.http.fields import format_date, parse_date
from regcache.http.messages import Headers, Kind, RequestHead, Stored
from regcache.http.policy import Fetch, Gone, Refuse, Revalidate, UseStored
from regcache.http.ranges import Part
from regcache.interfaces import IPartial, IRegistry
from regcache.logs import Log
from regcache.routes import Artifact, Fact

__all__ = ["Artifacts"]

_log = Log()
#: A range that begins further ahead of what has arrived is fetched by a request of its own.
_AHEAD = 8 << 20
_FOREVER = "public, max-age=31536000, immutable"


@frozen
class _Fill:
    transfer: Transfer
    began: float
    #: Known when the upstream vouched for the stored copy instead of sending a body.
    unchanged: Outcome[Stored]


class Artifacts:
    """
    Answers for artifacts.

    One full upstream request per artifact at a time: ``_fills`` holds it from before it is sent until the body's
    entry can be found in the store, so that whoever asks in between joins it.
    """

    def __init__(self, context: Context, documents: Documents) -> None:
        self._context = context
        self._proofs = Proofs(documents)
        self._fills: dict[str, _Fill] = {}
        # Entity tags of bodies that are not found good yet; no other process has the same.
        nonce = secrets.token_hex(12)
        self._once = (f"{nonce}-{number}" for number in itertools.count())

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return [fill.transfer for fill in self._fills.values()]

    async def answer(self, registry: IRegistry, route: Artifact, request: RequestHead) -> Reply:
        """
        The artifact, whole: preconditions and ranges are the caller's.

        :raises regcache.errors.RegCacheError: if it is not to be had.
        """
        context, key = self._context, f"{registry.options.name}/{route.key}"
        rules = rules_for(context.rules, registry, route.ttl)
        stored = await context.store.find(key)
        # What nothing has vouched for may be anything, and is asked for again like an index.
        mutable = route.mutable or (stored is not None and not stored.verified)
        decision, probing = weigh(context, stored, rules, key, route.url, mutable=mutable)
        if probing:
            self._fill(registry, route, stored, rules.upstream_timeout)
        if isinstance(decision, Refuse):
            raise Offline(f"{key} was never asked for while the cache was online.")
        if isinstance(decision, Gone):
            raise Withdrawn(f"It answered {decision.status} for {route.url}.")
        if isinstance(decision, UseStored) and stored is not None:
            reply = self._from_store(route, stored, How.STALE if decision.stale else How.HIT)
            if reply is not None:
                return reply
            if rules.offline:
                raise Offline(f"The stored copy of {key} was damaged.")
            stored, decision = None, Fetch()
        if isinstance(decision, Revalidate) and stored is not None:
            return await self._revalidated(registry, route, request, stored, decision)
        return await self._fetched(registry, route, request, key)

    # From the store.

    def _from_store(self, route: Artifact, stored: Stored, how: How) -> Reply | None:
        """The stored copy; None if it is damaged."""
        try:
            body = self._context.store.open(stored)
        except BlobDamaged as error:
            _log.error("{key}: {why} It is fetched again.", key=stored.key, why=error.text)
            return None
        now = self._context.now()
        self._context.store.used(stored.key, now)
        headers = self._headers(route, stored.headers, stored.verified)
        modified = parse_date(stored.headers.get("last-modified"))
        own = {
            "etag": f'"{stored.digest[:40]}"',
            "last-modified": format_date(stored.stored_at if modified is None else modified),
            "age": str(max(int(now - stored.validated_at), 0)),
        }
        detail = "" if stored.verified else "unverified"
        return Reply(status=200, headers=headers.replacing(own), body=body, stop=stored.size, how=how, detail=detail)

    def _headers(self, route: Artifact, upstream: Headers, lasting: bool) -> Headers:
        kind = route.content_type or upstream.get("content-type") or "application/octet-stream"
        fields = {
            "content-type": kind,
            "cache-control": _FOREVER if lasting and not route.mutable else "max-age=0",
            "accept-ranges": "bytes",
        }
        if "content-disposition" in upstream:
            fields["content-disposition"] = upstream.get("content-disposition")
        return Headers.of(fields)

    # From the upstream.

    async def _revalidated(
        self, registry: IRegistry, route: Artifact, request: RequestHead, stored: Stored, decision: Revalidate
    ) -> Reply:
        context = self._context
        fill = self._fill(registry, route, stored, context.rules.upstream_timeout)
        left = decision.wait - (context.clock.seconds() - fill.began)
        try:
            if await within(context.clock, max(left, 0), self._first_news(fill)):
                entry = await fill.unchanged.wait()
                return self._need(self._from_store(route, entry, How.REVALIDATED))
            return await self._join(route, fill, request)
        except NotFound:
            raise
        except (TimeoutError, UpstreamError) as error:
            if stored.withdrawn:
                raise Withdrawn(f"It answered {stored.withdrawn} for {route.url}.") from None
            if decision.stale:
                why = error.text if isinstance(error, UpstreamError) else "The registry is slow."
                _log.warn("{key}: answered from a stale copy: {why}", key=stored.key, why=why)
            return self._need(self._from_store(route, stored, How.STALE if decision.stale else How.HIT))

    @staticmethod
    def _need(reply: Reply | None) -> Reply:
        if reply is None:
            raise BlobDamaged("It was dropped; ask again.")
        return reply

    @staticmethod
    def _first_news(fill: _Fill) -> Deferred[bool]:
        """Fires with whether the stored copy holds, once that or a new body is known."""

        async def news() -> bool:
            while not fill.unchanged.known and not fill.transfer.head.known:
                await fill.transfer.moved()
            if fill.unchanged.known:
                return True
            await fill.transfer.head.wait()
            return False

        return Deferred.fromCoroutine(news())

    async def _fetched(self, registry: IRegistry, route: Artifact, request: RequestHead, key: str) -> Reply:
        context = self._context
        missing = context.missing.get(key)
        if missing is not None and context.clock.seconds() < missing.until:
            raise NotFound(missing.text or f"The registry answered {missing.status} for {route.url}.")
        if request.method == "HEAD" and key not in self._fills:
            head = await self._head(registry, route)
            if head is not None:
                return head
        joined = key in self._fills
        fill = self._fill(registry, route, None, context.rules.cold_timeout)
        reply = await self._join(route, fill, request)
        return evolve(reply, detail="collapsed" if joined else reply.detail)

    async def _head(self, registry: IRegistry, route: Artifact) -> Reply | None:
        """
        The head of an artifact that is not stored, without fetching it; None if that takes the whole.

        Hosts that sign their URLs, or serve files alone, refuse HEAD: whatever it is refused with says nothing.
        """
        context = self._context
        fact = await self._proofs.stored(registry, route)
        if fact is not None and fact.size is not None:
            return Reply(status=200, headers=self._headers(route, Headers(), False), stop=fact.size, how=How.MISS)
        url = fact.url if fact is not None and registry.allows(fact.url) else route.url
        fields = context.request_fields.replacing({"accept": route.accept})
        ask = Ask(method="HEAD", url=url, headers=fields, allows=registry.allows, artifact=True)
        deadline = context.rules.cold_timeout
        answer = await context.upstream.ask(ask, deadline, patience=deadline)
        answer.discard()
        if answer.status != 200 or answer.length is None:
            return None
        headers = self._headers(route, answer.headers, False)
        return Reply(status=200, headers=headers, stop=answer.length, how=How.MISS)

    async def _join(self, route: Artifact, fill: _Fill, request: RequestHead) -> Reply:
        """
        A reader of a body under way, once its first bytes can be read or it is clear that none will come.

        A client that could not tell a cut from the end gets nothing before the length is known.
        """
        context, transfer = self._context, fill.transfer
        began = context.clock.seconds()
        reader = transfer.open()
        try:
            left = context.rules.cold_timeout - (context.clock.seconds() - fill.began)
            try:
                await within(context.clock, max(left, 0), transfer.readable.wait())
            except TimeoutError:
                if not transfer.head.known:
                    raise UpstreamTimeout(f"{origin_of(route.url)} is slow; the fetch goes on, ask again.") from None
            while not (request.chunked or transfer.total is not None or transfer.error is not None):
                await transfer.moved()
            if transfer.error is not None and (transfer.mark == 0 or not request.chunked):
                raise transfer.error
        except BaseException:
            reader.close()
            raise
        answer = await transfer.head.wait()
        headers = self._headers(route, answer.headers, False).replacing({"etag": f'"{next(self._once)}"'})
        return Reply(
            status=200,
            headers=headers,
            body=reader,
            how=How.MISS,
            detail=f"fwd-status={answer.status}" + ("" if transfer.relaying else "; stored"),
            upstream_seconds=context.clock.seconds() - began,
        )

    def is_ahead(self, reply: Reply, part: Part) -> bool:
        """Whether a range of a body under way begins too far ahead of what has arrived to be waited for."""
        mark = getattr(getattr(reply.body, "transfer", None), "mark", None)
        return mark is not None and part.start > mark + _AHEAD

    async def ahead(self, registry: IRegistry, route: Artifact, part: Part) -> Transfer | None:
        """
        A range by a request of its own, passed through and not stored; None if the upstream does not give it.
        """
        fact = await self._proofs.stored(registry, route)
        url = fact.url if fact is not None and registry.allows(fact.url) else route.url
        ask = Ask(
            url=url,
            headers=self._context.request_fields.replacing({"range": f"bytes={part.start}-{part.stop - 1}"}),
            allows=registry.allows,
            artifact=True,
        )
        deadline = self._context.rules.cold_timeout
        answer = await self._context.upstream.ask(ask, deadline, patience=deadline)
        wanted = f"bytes {part.start}-{part.stop - 1}/"
        if answer.status != 206 or not answer.headers.get("content-range").startswith(wanted):
            answer.discard()
            return None
        transfer = Transfer(self._context.clock, route.key)

        async def unchecked(_size: int) -> bool:
            return False

        async def never(_partial: IPartial, _proven: bool) -> None:
            raise CannotStore("")

        transfer.begin(answer, None, Hashing(set()), unchecked, never)
        return transfer

    # Filling.

    def _fill(self, registry: IRegistry, route: Artifact, stored: Stored | None, deadline: float) -> _Fill:
        """The fill under way for this artifact if it can still be joined, or a new one."""
        key = f"{registry.options.name}/{route.key}"
        fill = self._fills.get(key)
        if fill is None or not fill.transfer.joinable:
            fill = _Fill(Transfer(self._context.clock, key), self._context.clock.seconds(), Outcome())
            self._fills[key] = fill
            fill.transfer.done.wait().addErrback(lambda _: None).addCallback(self._filled, key, fill)
            started = fill

            def broken(failure: Any) -> None:
                error = failure.value
                if not isinstance(error, RegCacheError):
                    _log.failure("{key}: a bug ended the fetch.", failure=failure, key=key)
                    error = UpstreamError("It could not be fetched.")
                started.transfer.fail(error)

            spawn(self._run(registry, route, fill, stored, deadline)).wait().addErrback(broken)
        return fill

    def _filled(self, _result: object, key: str, fill: _Fill) -> None:
        if self._fills.get(key) is fill:
            del self._fills[key]

    async def _run(
        self, registry: IRegistry, route: Artifact, fill: _Fill, stored: Stored | None, deadline: float
    ) -> None:
        fact, named = await self._proofs.locate(registry, route)
        proof: Outcome[Fact | None] = Outcome()
        if route.digests or (fact is not None and fact.digests):
            proof.succeed(fact)
        elif not (route.proof or (route.indexes and not named)):
            proof.succeed(None)
        else:
            proof = spawn(self._proofs.prove(registry, route))
        key = fill.transfer.key
        answer = await self._ask(registry, route, key, fact, proof, stored, deadline)
        if isinstance(answer, Unchanged) and not await self._still_good(route, answer.stored, proof):
            answer = await self._ask(registry, route, key, fact, proof, None, deadline)
        if isinstance(answer, Unchanged):
            fill.unchanged.succeed(self._context.store.peek(key) or answer.stored)
            self._filled(None, key, fill)
            fill.transfer.fail(CutShort("The stored copy holds."))
            return
        self._flow(registry, route, fill.transfer, answer, proof)

    async def _still_good(self, route: Artifact, stored: Stored, proof: Outcome[Fact | None]) -> bool:
        """Whether what the upstream has not changed is what its index says by now; without a proof it may be."""
        if stored.verified:
            return True
        try:
            proven = verify(route, await proof.wait(), stored.size, stored.digests, stored.url)
        except DigestMismatch as error:
            _log.error("{key}: the stored copy goes: {why}", key=stored.key, why=error.detail)
            await self._context.store.drop(stored.key)
            return False
        if proven:
            self._context.store.update(evolve(stored, verified=True))
        return True

    async def _ask(
        self,
        registry: IRegistry,
        route: Artifact,
        key: str,
        fact: Fact | None,
        proof: Outcome[Fact | None],
        stored: Stored | None,
        deadline: float,
    ) -> Answer | Unchanged:
        url = fact.url if fact is not None and registry.allows(fact.url) else route.url
        ask = Ask(url=url, headers=Headers.of({"accept": route.accept}), allows=registry.allows, artifact=True)
        try:
            return await question(self._context, registry, key, ask, stored, deadline)
        except NotFound:
            told = await proof.wait()
            if told is None or told.url == url or not registry.allows(told.url):
                raise
            self._context.missing.drop(key)
            return await question(self._context, registry, key, evolve(ask, url=told.url), stored, deadline)

    def _flow(
        self, registry: IRegistry, route: Artifact, transfer: Transfer, answer: Answer, proof: Outcome[Fact | None]
    ) -> None:
        context = self._context
        algorithms = {digest.algorithm for digest in route.digests} | {"sha256"}
        if not route.digests:
            algorithms |= set(registry.algorithms)
        if proof.known:
            proof.wait().addCallback(
                lambda fact: algorithms.update(d.algorithm for d in (fact.digests if fact is not None else ()))
            )
        hashing = Hashing(algorithms)

        async def check(size: int) -> bool:
            fact = await proof.wait()
            return accept(route, fact, size, hashing.digests(), answer)

        async def commit(partial: IPartial, proven: bool) -> None:
            now, digests = context.now(), hashing.digests()
            entry = Stored(
                key=transfer.key,
                registry=registry.options.name,
                kind=Kind.ARTIFACT,
                parent=f"{registry.options.name}/{route.indexes[0].key}" if route.indexes else "",
                url=answer.url,
                headers=kept(answer.headers),
                digest=next(digest.value for digest in digests if digest.algorithm == "sha256"),
                size=transfer.total or 0,
                digests=digests,
                verified=proven,
                stored_at=now,
                validated_at=now,
            )
            context.missing.drop(transfer.key)
            await context.store.commit(partial, entry)

        transfer.begin(answer, self._partial(transfer.key, answer, hashing), hashing, check, commit)

    def _partial(self, key: str, answer: Answer, hashing: Hashing) -> IPartial | None:
        most = self._context.max_file_size
        if most and answer.length is not None and answer.length > most:
            return None
        try:
            return self._context.store.create(hashing.feed, expected=answer.length)
        except CannotStore as error:
            _log.warn("{key}: passed on without being stored: {why}", key=key, why=error.detail)
            return None
