"""
Asking for resources that are kept by their own account (RFC 9111), and keeping what comes: several variants of one
address side by side, each the entry of a place of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import define, evolve, field, frozen
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from regcache.errors import CannotStore, ConnectFailed, Crowded, CutShort, RegCacheError, UpstreamError, UpstreamStatus
from regcache.flow.answers import Answer
from regcache.flow.context import Context
from regcache.flow.fetching import key_of
from regcache.flow.hashing import Hashing
from regcache.flow.judging import Judging
from regcache.flow.transfer import Transfer
from regcache.flow.upstream import Ask, origin_of
from regcache.flow.waiting import Outcome, spawn
from regcache.http.directives import of_response
from regcache.http.freshness import dated
from regcache.http.held import Held, held, is_held, slot_of
from regcache.http.messages import Headers, Kind, RequestHead, Stored
from regcache.http.storing import confirms, may_store, storable_fields, travelling, updated
from regcache.interfaces import IBody, IPartial, IRegistry
from regcache.logs import Log
from regcache.routes import COPY, Resource

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["CONDITIONS", "TROUBLE", "Came", "Fill", "Resources", "places", "sent_on"]

_log = Log()
#: Variants, and parts of them, of one address that are kept.
_MOST_VARIANTS = 8
#: What a client asks only if something holds, or only of a part.
CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range")
#: What says that the upstream is in trouble, and not what was asked for (RFC 5861 section 4).
TROUBLE = frozenset({500, 502, 503, 504})


@frozen
class Came:
    """
    The head of what came.

    :ivar entry: the stored response that was validated, or the new one.
    :ivar headers: all fields of a new one, those that are not kept included; None if the stored one was validated.
    """

    entry: Stored
    headers: Headers | None = None


@define(eq=False)
class Fill:
    """
    One request to the upstream. It belongs to nobody, and ends by itself.

    States: *asking* (``came`` is open), *flowing* (a new response comes; ``entry`` can be used by whoever it fits),
    *over* (its entry can be found in the store, or nothing was to be kept).

    :ivar asked: the fields that went upstream.
    :ivar entry: the response as it will be kept, once its head has come; None if it is not to be.
    :ivar reader: what whoever has begun it reads.
    :ivar valid: whether nothing has changed since what was asked for.
    """

    asked: Headers
    transfer: Transfer
    came: Outcome[Came] = field(factory=Outcome)
    entry: Stored | None = None
    reader: IBody | None = None
    valid: bool = True
    listeners: list[Interim] = field(factory=list)

    @property
    def shared(self) -> bool:
        """Whether others may wait for it: it asks for what anybody would."""
        return self.transfer.joinable and not any(name in self.asked for name in (*CONDITIONS, "authorization"))

    def tell(self, status: int, headers: Headers) -> None:
        """An interim response came."""
        for listener in self.listeners:
            listener(status, headers)


class Resources:
    """
    What is stored of resources, and what is on its way.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fills: dict[str, list[Fill]] = {}

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return [fill.transfer for fills in self._fills.values() for fill in fills]

    async def there(self, key: str) -> list[Stored | None]:
        """What is stored of an address, by place; the others are None."""
        found = await self._context.store.find_all(places(key))
        entries = [found.get(place) for place in places(key)]
        return [entry if entry is not None and is_held(entry) else None for entry in entries]

    def under_way(self, key: str) -> list[Fill]:
        """The requests for an address, the latest first."""
        return [fill for fill in reversed(self._fills.get(key, [])) if fill.valid]

    async def invalidate(self, key: str) -> None:
        """Nothing that is stored of an address, or on its way, holds any more."""
        for fill in self._fills.get(key, []):
            fill.valid = False
        for entry in await self.there(key):
            if entry is not None:
                await self._context.store.drop(entry.key)

    def fill(
        self,
        registry: IRegistry,
        route: Resource,
        asked: Headers,
        stored: Stored | None = None,
        *,
        usable: bool = False,
        interim: Interim | None = None,
        reading: bool = True,
    ) -> Fill:
        """
        A new request.

        :param asked: the fields to send.
        :param stored: the entry that is to be validated.
        :param usable: whether that may answer when the upstream is in trouble.
        :param reading: whether somebody waits for what comes, and reads it.
        :raises regcache.errors.Crowded: if too many others are under way.
        """
        key = key_of(registry, route)
        number = sum(map(len, self._fills.values()))
        if number >= self._context.limits.transfers:
            raise Crowded(f"{number} resources are being fetched.")
        fill = Fill(asked, Transfer(self._context.clock, key, self._context.unstored))
        if interim is not None:
            fill.listeners.append(interim)
        if reading:
            fill.reader = fill.transfer.open()
        self._fills.setdefault(key, []).append(fill)
        fill.transfer.done.wait().addErrback(lambda _: None).addCallback(self._over, key, fill)
        spawn(self._run(registry, route, fill, stored, usable)).wait().addErrback(self._broken, fill)
        return fill

    def _over(self, _result: object, key: str, fill: Fill) -> None:
        self._fills[key].remove(fill)
        if not self._fills[key]:
            del self._fills[key]

    @staticmethod
    def _broken(failure: Any, fill: Fill) -> None:
        error = failure.value
        if not isinstance(error, RegCacheError):
            _log.failure("{key}: a bug ended the fetch.", failure=failure, key=fill.transfer.key)
            error = UpstreamError("It could not be fetched.")
        fill.came.fail(error)
        fill.transfer.fail(error)

    async def _run(self, registry: IRegistry, route: Resource, fill: Fill, stored: Stored | None, usable: bool) -> None:
        context = self._context
        headers = fill.asked if stored is None else fill.asked.without(*CONDITIONS).replacing(_validators(stored))
        asked_at = context.now()
        answer = await self.ask(registry, route.url, "GET", headers, interim=fill.tell)
        received = context.now()
        if answer.status == 304 and stored is not None and not confirms(stored.headers, answer.headers):
            # It is of something else: what there is is asked for as if nothing were stored.
            answer.discard()
            stored, asked_at = None, context.now()
            answer = await self.ask(registry, route.url, "GET", fill.asked.without(*CONDITIONS), interim=fill.tell)
            received = context.now()
        if answer.status == 304 and stored is not None:
            answer.discard()
            fill.came.succeed(Came(await self.freshened(registry, stored, answer, fill.asked, asked_at, received)))
            fill.transfer.fail(CutShort("The stored copy holds."))
            return
        if answer.status in TROUBLE and usable:
            answer.discard()
            raise UpstreamStatus(f"It was {answer.status} for {route.url}.", answer.status)
        said = of_response(answer.headers, registry.options.targets)
        keeps = may_store("GET", fill.asked, answer.status, answer.headers, said)
        if stored is not None and not keeps and answer.status not in TROUBLE:
            # It has been replaced by what may not be kept.
            await context.store.drop(stored.key)
        self.take(registry, fill, answer, keeps=keeps, asked_at=asked_at, received=received)

    async def ask(
        self,
        registry: IRegistry,
        url: str,
        method: str,
        headers: Headers,
        interim: Interim,
        body: bytes | BinaryIO = b"",
    ) -> Answer:
        """
        Put one request.

        :raises regcache.errors.UpstreamError: if there is no answer; every status is one.
        """
        context, name = self._context, registry.options.name
        ask = Ask(
            method=method,
            url=url,
            headers=headers,
            allows=registry.allows,
            registry=name,
            artifact=True,
            body=body,
            interim=interim,
        )
        deadline = context.rules.cold_timeout
        try:
            answer = await context.upstream.ask(ask, deadline, deadline)
        except ConnectFailed as error:
            if context.breaker.broke(origin_of(url)):
                _log.error("{origin} is in trouble: {why}", origin=origin_of(url), why=error.text)
            raise
        context.breaker.succeeded(origin_of(url))
        return answer

    async def freshened(
        self, registry: IRegistry, stored: Stored, answer: Answer, asked: Headers, asked_at: float, received: float
    ) -> Stored:
        """An entry with the fields of a 304, or of a 200 to HEAD, that speaks of it (RFC 9111 section 4.3.4)."""
        context, before = self._context, held(stored)
        said = of_response(answer.headers, registry.options.targets)
        fields = updated(before.headers, dated(answer.headers, received), said)
        now = Held.of(before.status, fields, asked, asked_at, received)
        aged = Held.of(before.status, answer.headers, asked, asked_at, received)
        entry = replace(stored, headers=evolve(now, age=aged.age).packed, validated_at=received)
        said = of_response(fields, registry.options.targets)
        if not may_store("GET", asked.without("authorization"), before.status, fields, said):
            await context.store.drop(stored.key)
        elif may_store("GET", asked, before.status, fields, said):
            context.store.update(entry)
        # Else it holds for whoever has asked, by their credentials, and tells others nothing.
        return entry

    def take(
        self, registry: IRegistry, fill: Fill, answer: Answer, *, keeps: bool, asked_at: float, received: float
    ) -> None:
        """Let a new response come, and keep it if that may be."""
        key = fill.transfer.key
        said = of_response(answer.headers, registry.options.targets)
        headers = dated(answer.headers, received)
        one = Held.of(answer.status, storable_fields(headers, said), fill.asked, asked_at, received)
        entry = Stored(
            key=key,
            registry=registry.options.name,
            kind=Kind.ARTIFACT,
            url=answer.url,
            headers=one.packed.without("content-length"),
            digest="",
            size=0,
            stored_at=received,
            validated_at=received,
        )
        if one.part is not None:
            # One that is not as long as it says is no part of anything.
            keeps = keeps and answer.length == one.part[0].stop - one.part[0].start
        hashing = Hashing({"sha256"})
        partial = self._partial(answer, hashing) if keeps and fill.valid else None
        fill.entry = entry if partial is not None else None

        async def good(_size: int) -> bool:
            # Where nothing else says how long it is, the end of the connection does (RFC 9112 section 8).
            return True

        async def keep(finished: IPartial) -> None:
            whole = replace(entry, digest=hashing.digests()[0].value, size=finished.written)
            kept = await self._keep(whole, finished)
            if not fill.valid:
                await self._context.store.drop(kept)

        def commit(finished: IPartial, _proven: bool) -> Deferred[None]:
            return Deferred.fromCoroutine(keep(finished))

        if partial is None and not fill.transfer.readers:
            answer.discard()
            fill.transfer.fail(CutShort("It may not be stored, and nobody waits for it."))
        else:
            fill.transfer.begin(answer, partial, Judging(hashing, good, commit), hold_back=0)
        fill.came.succeed(Came(entry, headers))

    def _partial(self, answer: Answer, hashing: Hashing) -> IPartial | None:
        try:
            most = self._context.max_file_size
            return self._context.store.create(hashing.feed, expected=answer.length, most=most)
        except CannotStore as error:
            self._context.unstored.tell(answer.url, error.detail)
            return None

    async def _keep(self, entry: Stored, finished: IPartial) -> str:
        """Store a response among those of its address; the key it has there."""
        there = await self.there(entry.key)
        new, old = held(entry), [None if one is None else held(one) for one in there]
        slot = slot_of(new, old)
        key = places(entry.key)[slot]
        await self._context.store.commit(finished, replace(entry, key=key))
        return key


def places(key: str) -> list[str]:
    """The keys under which variants of an address may be stored."""
    return [key, *[f"{key}{COPY}{number}" for number in range(1, _MOST_VARIANTS)]]


def _validators(stored: Stored) -> dict[str, str]:
    pairs = (("if-none-match", stored.headers.get("etag")), ("if-modified-since", stored.headers.get("last-modified")))
    return {name: value for name, value in pairs if value}


def sent_on(context: Context, registry: IRegistry, request: RequestHead) -> Headers:
    """The fields with which a client's request goes upstream."""
    fields = travelling(request.headers, authorization=registry.options.forward_authorization)
    own = dict(context.request_fields)
    via = ", ".join(value for value in (request.headers.get("via"), own.pop("via", "")) if value)
    missing = {name: value for name, value in own.items() if name not in fields}
    return fields.replacing({**missing, **({"via": via} if via else {})})
