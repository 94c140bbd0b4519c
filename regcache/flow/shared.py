"""
Answers for resources that are kept by their upstream's own account: a shared cache (RFC 9111).

What is decided is decided in :mod:`regcache.http`; here it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from msgspec.structs import replace

from regcache.errors import BlobDamaged, Offline, RegCacheError, UpstreamError, UpstreamStatus, UpstreamTimeout
from regcache.flow.asking import weigh
from regcache.flow.context import Context
from regcache.flow.fetching import key_of
from regcache.flow.lifetimes import followed, vouched_at
from regcache.flow.passing import Passing
from regcache.flow.portions import portion
from regcache.flow.reply import How, Reply, Standing, Unknown, ttl_left
from regcache.flow.resources import CONDITIONS, TROUBLE, Came, Fill, Resources, places, sent_on
from regcache.flow.transfer import Transfer
from regcache.flow.upstream import origin_of
from regcache.flow.waiting import within
from regcache.http.directives import Directives, of_request
from regcache.http.held import Held, chosen, demanded, held, rules_of
from regcache.http.messages import Headers, RequestHead, Stored
from regcache.http.paths import led_back
from regcache.http.policy import Gone, Refuse, Revalidate, Rules, UseStored, settled_until
from regcache.http.storing import end_to_end, speaks_of
from regcache.interfaces import IBody, IRegistry
from regcache.logs import Log
from regcache.routes import Resource

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["Shared"]

_log = Log()
#: How often what others have asked for is looked at before a client asks for itself.
_MOST_TURNS = 3


@frozen
class _Candidate:
    """
    What could answer.

    :ivar fill: where it comes from, if it is not in the store yet.
    :ivar there: all that is stored of the address, by key: with any other it might not be the one.
    """

    held: Held
    entry: Stored
    fill: Fill | None = None
    there: tuple[tuple[str, Stored | None], ...] = ()


@frozen
class _Question:
    """
    What a client wants, and what may be done for it.

    :ivar asked: the fields that would go upstream.
    :ivar said: the directives of the request, as far as they count.
    """

    registry: IRegistry
    route: Resource
    request: RequestHead
    asked: Headers
    said: Directives
    rules: Rules
    interim: Interim | None

    @property
    def key(self) -> str:
        """Of what it asks for."""
        return key_of(self.registry, self.route)


class Shared:
    """
    A shared cache for resources.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._resources = Resources(context)
        self._passing = Passing(context, self._resources)

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return [*self._resources.transfers, *self._passing.transfers]

    async def answer(
        self, registry: IRegistry, route: Resource, request: RequestHead, interim: Interim | None = None
    ) -> Reply:
        """
        The answer to a request; preconditions and ranges are settled.

        :param interim: told the interim responses that come before it.
        :raises regcache.errors.RegCacheError: if there is none.
        """
        asked = sent_on(self._context, registry, request)
        if request.method not in ("GET", "HEAD"):
            return await self._passing.passed(registry, route, request, asked, interim)
        said = of_request(request.headers) if registry.options.client_directives else Directives({})
        rules = self._context.rules
        question = _Question(registry, route, request, asked, said, rules, interim)
        if "no-store" in said:
            return await self._passing.passed(registry, route, request, asked, interim)
        reply = await self._answer(question)
        location = reply.headers.get("location")
        if location:
            back = led_back(location, registry.options.url, request.base)
            reply = replace(reply, headers=reply.headers.replacing({"location": back}))
        return reply

    async def _answer(self, question: _Question) -> Reply:
        """What is stored or on its way, if it may be used; else what the upstream says."""
        waited = False
        for _ in range(_MOST_TURNS):
            found = await self._candidate(question)
            rules = question.rules
            if found is not None:
                rules = demanded(
                    rules_of(rules, found.held, followed(question.registry.options)), question.said, found.held.age
                )
            entry = None if found is None else found.entry
            decision, probing = weigh(self._context, entry, rules, question.key, question.route.url, mutable=True)
            if found is not None and isinstance(decision, UseStored):
                if decision.refresh or probing:
                    self._refresh(question, found)
                reply = self._from(question, found, rules, How.STALE if decision.stale else How.HIT)
                if reply is not None:
                    return reply
                found = None
            if isinstance(decision, Refuse | Gone):
                raise Offline(f"{question.route.url} may not be answered without asking.")
            if "only-if-cached" in question.said:
                raise Offline("It was to be answered from the store only, and nothing there may be used.")
            shared = None if waited else self._shared(question)
            if shared is None:
                usual = decision if isinstance(decision, Revalidate) and found is not None else None
                return await self._ask(question, found, usual, rules)
            # Whoever asks for the same waits for the same answer, once.
            waited = True
            if question.interim is not None:
                shared.listeners.append(question.interim)
            patience = decision.wait if isinstance(decision, Revalidate) else rules.cold_timeout
            try:
                await within(self._context.clock, patience, shared.came.wait())
            except (RegCacheError, TimeoutError) as error:
                stale = isinstance(decision, Revalidate) and decision.usable and found is not None
                if stale and found is not None:
                    return await self._stale(question, found, rules, error)
                if isinstance(error, RegCacheError):
                    raise
        return await self._ask(question, None, None, question.rules)

    async def _candidate(self, question: _Question) -> _Candidate | None:
        """What a request selects of all that is stored, or on its way."""
        stored = await self._resources.there(question.key)
        there = tuple(zip(places(question.key), stored, strict=True))
        found = [_Candidate(held(entry), entry, None, there) for entry in stored if entry is not None]
        coming = [fill for fill in self._resources.under_way(question.key) if fill.transfer.joinable]
        found += [_Candidate(held(fill.entry), fill.entry, fill) for fill in coming if fill.entry is not None]
        best = chosen([one.held for one in found], question.asked)
        return next((one for one in found if one.held is best), None)

    def _shared(self, question: _Question) -> Fill | None:
        """A request under way whose answer may be this one's as well."""
        if question.request.method != "GET" or "authorization" in question.asked:
            return None
        for fill in self._resources.under_way(question.key):
            if not fill.came.known and fill.shared:
                return fill
        return None

    # From the store.

    def _from(self, question: _Question, found: _Candidate, rules: Rules, how: How, told: str = "") -> Reply | None:
        """The answer from what is stored; None if it is damaged."""
        context, one = self._context, found.held
        now = context.now()
        try:
            body: IBody = context.store.open(found.entry) if found.fill is None else found.fill.transfer.open()
        except BlobDamaged as error:
            _log.error("{key}: {why} It is fetched again.", key=found.entry.key, why=error.text)
            return None
        context.store.used(found.entry.key, now)
        until = found.entry.validated_at + rules.ttl
        ttl = ttl_left(until, now)
        size = one.size if found.fill is None else found.fill.transfer.total
        whole = Reply(
            status=one.status,
            headers=one.headers.replacing({"age": str(int(one.age_at(now)))}),
            body=body,
            stop=size,
            how=how,
            detail=ttl,
            told=told or ("" if found.fill is None else f"hit; {ttl}; collapsed"),
            relayed=True,
        )
        if how is How.HIT and not told and found.fill is None and "cache-status" not in one.headers:
            whole = replace(whole, standing=self._standing(question.registry, found, rules))
        return portion(question.request, one, whole)

    def _standing(self, registry: IRegistry, found: _Candidate, rules: Rules) -> Standing | None:
        """How long a hit holds: until the entry is stale, or anything is stored of the address that might be chosen."""
        until = settled_until(found.entry, rules, mutable=True)
        if not found.entry.validated_at <= self._context.now() < until:
            return None
        return Standing(
            until=until,
            entries=found.there,
            vouched_at=vouched_at(registry, found.entry),
            fresh_until=found.entry.validated_at + rules.ttl,
            used=found.entry.key,
            given=lambda: None,
            selected_by=frozenset(
                name for _, entry in found.there if entry is not None for name, _ in held(entry).selecting
            ),
        )

    async def _stale(self, question: _Question, found: _Candidate, rules: Rules, error: Exception) -> Reply:
        why = error.text if isinstance(error, RegCacheError) else "The upstream is slow."
        _log.warn("{key}: answered from a stale copy: {why}", key=found.entry.key, why=why)
        status = getattr(error, "code", 0)
        told = "hit; fwd=stale" + (f"; fwd-status={status}" if status else "") + "; detail=stale-if-error"
        reply = self._from(question, found, rules, How.STALE, told)
        if reply is None:
            raise UpstreamError("The stored copy was damaged.")
        return reply

    # From the upstream.

    def _refresh(self, question: _Question, found: _Candidate) -> None:
        """Ask beside answering, unless that is done already."""
        if found.fill is None and self._shared(question) is None:
            try:
                asked = question.asked.without(*CONDITIONS)
                self._resources.fill(question.registry, question.route, asked, found.entry, usable=True, reading=False)
            except RegCacheError as error:
                _log.info("{key}: not refreshed: {why}", key=question.key, why=error.text)

    async def _ask(
        self, question: _Question, found: _Candidate | None, decision: Revalidate | None, rules: Rules
    ) -> Reply:
        if found is not None and found.fill is not None:
            found = await self._once_stored(question, found, found.fill)
            decision = None if found is None else decision
        usable = decision is not None and decision.usable
        if question.request.method == "HEAD":
            try:
                return await self._head(question, found, usable=usable)
            except UpstreamError as error:
                if found is None or not usable:
                    raise
                return await self._stale(question, found, rules, error)
        asked = question.asked if found is None else question.asked.without(*CONDITIONS)
        began = self._context.clock.seconds()
        wait = decision.wait if decision is not None else rules.cold_timeout
        stored = None if found is None or found.held.part is not None else found.entry
        reader: IBody | None = None
        try:
            fill = self._resources.fill(
                question.registry, question.route, asked, stored, usable=usable, interim=question.interim
            )
            reader = fill.reader
            came = await within(self._context.clock, wait, fill.came.wait())
        except (UpstreamError, TimeoutError) as error:
            if reader is not None:
                reader.close()
            if usable and found is not None:
                return await self._stale(question, found, rules, error)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout(f"{origin_of(question.route.url)} gave no answer in time.") from None
            raise
        except BaseException:
            if reader is not None:
                reader.close()
            raise
        assert reader is not None
        seconds = self._context.clock.seconds() - began
        if came.headers is None:
            reader.close()
            same = _Candidate(held(came.entry), came.entry)
            reply = self._from(question, same, rules, How.REVALIDATED, "hit; fwd=stale; fwd-status=304")
            if reply is None:
                return await self._ask(question, None, None, rules)
            return replace(reply, upstream_seconds=seconds)
        return await self._new(question, fill, came, reader, seconds, replaced=found is not None)

    async def _once_stored(self, question: _Question, found: _Candidate, fill: Fill) -> _Candidate | None:
        """What a candidate has become that is still coming: only what is stored can be validated; None for nothing."""
        try:
            await fill.transfer.done.wait()
        except RegCacheError:
            return None
        entry = self._latest(await self._resources.there(question.key), found)
        return None if entry is None else _Candidate(held(entry), entry)

    @staticmethod
    def _latest(there: list[Stored | None], found: _Candidate) -> Stored | None:
        """The entry that a candidate has become."""
        for entry in there:
            if entry is not None and entry.headers == found.entry.headers:
                return entry
        return None

    async def _new(
        self, question: _Question, fill: Fill, came: Came, reader: IBody, seconds: float, *, replaced: bool
    ) -> Reply:
        """A new response, as it comes."""
        assert came.headers is not None
        transfer, one = fill.transfer, held(came.entry)
        try:
            # A client that could not tell a cut from the end gets nothing before the length is known.
            while not (question.request.chunked or transfer.total is not None or transfer.error is not None):
                await transfer.moved()
            if transfer.error is not None and transfer.mark == 0:
                raise transfer.error
        except BaseException:
            reader.close()
            raise
        age = int(one.age_at(self._context.now()))
        headers = came.headers if not age and "age" not in came.headers else came.headers.replacing({"age": str(age)})
        stored = "; stored" if fill.entry is not None else ""
        reply = Reply(
            status=one.status,
            headers=headers,
            body=reader,
            stop=0 if one.status in (204, 304) else None,
            how=How.MISS,
            told=f"fwd={'stale' if replaced else 'uri-miss'}; fwd-status={one.status}{stored}",
            relayed=True,
            upstream_seconds=seconds,
        )
        # What a client asked the upstream only under its conditions is what it gets.
        return portion(question.request, one, reply) if replaced else reply

    async def _head(self, question: _Question, found: _Candidate | None, *, usable: bool) -> Reply:
        """
        What the upstream says to HEAD, which tells of what is stored as well (RFC 9111 section 4.3.5).

        :param usable: whether what is stored may answer when the upstream is in trouble.
        :raises regcache.errors.UpstreamError: if it does not answer; if that may be, also for trouble of its own.
        """
        context, registry, url = self._context, question.registry, question.route.url
        asked_at, began = context.now(), context.clock.seconds()
        interim = question.interim or (lambda _status, _headers: None)
        answer = await self._resources.ask(registry, url, "HEAD", question.asked, interim)
        answer.discard()
        received = context.now()
        if answer.status in TROUBLE and usable:
            raise UpstreamStatus(f"It was {answer.status} for {url}.", answer.status)
        entry = None if found is None else found.entry
        if entry is not None and answer.status == 200:
            if speaks_of(held(entry).headers, entry.size, answer.headers):
                headers = question.asked
                entry = await self._resources.freshened(registry, entry, answer, headers, asked_at, received)
            else:
                await context.store.drop(entry.key)
        return Reply(
            status=answer.status,
            headers=end_to_end(answer.headers),
            body=b"" if answer.length is not None else Unknown(),
            stop=answer.length,
            how=How.MISS,
            told=f"fwd={'uri-miss' if found is None else 'stale'}; fwd-status={answer.status}",
            relayed=True,
            upstream_seconds=context.clock.seconds() - began,
        )
