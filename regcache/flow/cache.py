"""
The cache: one question, one answer. Everything that is not a document or an artifact is settled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList

from regcache.errors import (
    BadRequest,
    CannotRead,
    MethodNotAllowed,
    NotStarted,
    Offline,
    PayloadTooLarge,
    RegCacheError,
    TooBusy,
    TooLarge,
    UpstreamError,
)
from regcache.flow.artifacts import Artifacts
from regcache.flow.checksums import Checksums
from regcache.flow.collect import collect, decoded
from regcache.flow.context import Context
from regcache.flow.copies import AtHand
from regcache.flow.derive import Derived, Job
from regcache.flow.documents import Documents
from regcache.flow.fetching import key_of
from regcache.flow.ordered import Ordered
from regcache.flow.passing import passed_on
from regcache.flow.reply import How, Reply
from regcache.flow.shared import Shared
from regcache.flow.transfer import Transfer
from regcache.flow.upstream import Ask
from regcache.http.fields import parse_date
from regcache.http.messages import Headers, RequestHead
from regcache.http.ranges import Part, Unsatisfiable, evaluate, wants_whole
from regcache.interfaces import IOrdered, IRegistry
from regcache.ownership import check
from regcache.routes import Artifact, Checksum, Document, Local, Moved, Relay, Resource, Route, Source

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["Cache"]

_RELAYED_FIELDS = ("content-type", "content-encoding", "accept", "npm-in-ci", "npm-command")
_MOST_RELAYED = 16 << 20
_MOST_RELAYS = 16
#: Bytes of a body that is read and changed before it is passed on.
_MOST_REWRITTEN = 4 << 20
#: What an answer that is passed on may say; parts, redirects and the like mean nothing out of their place.
_RELAYED_STATUSES = frozenset({200, 201, 202, 204})


class Cache:
    """
    What the web asks.

    :param context: the collaborators.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._documents = Documents(context)
        self._artifacts = Artifacts(context, self._documents)
        self._checksums = Checksums(context, self._documents, self._artifacts)
        self._shared = Shared(context)
        self._ordered = Ordered(context, self._answer)
        self._stopping = False
        self._relaying = 0

    async def answer(
        self, registry: IRegistry, request: RequestHead, interim: Interim | None = None, route: Route | None = None
    ) -> Reply:
        """
        The answer to a request, ready to be sent: preconditions and ranges are settled.

        A reply whose body is to be read must be sent or closed.

        :param route: as :meth:`routed` says, where that is known.
        :param interim: told the interim responses that come before it, of what is passed on as it is.
        :raises regcache.errors.RegCacheError: if there is none; its class knows the status.
        """
        if self._stopping:
            raise NotStarted()
        if route is not None:
            return await self._answer(registry, route, request, interim)
        if IOrdered.providedBy(registry):
            # Which of them answers depends on more than what is stored of it.
            return replace(await self._ordered.answer(registry.members, request), standing=None)
        try:
            route = registry.route(request)
        except MethodNotAllowed:
            if request.method not in registry.options.methods:
                raise
            return await self._answer(registry, passed_on(registry.options.url, request), request, interim)
        return await self._answer(registry, route, request, interim)

    @staticmethod
    def routed(registry: IRegistry, request: RequestHead) -> Route | None:
        """
        What a request means to a registry; None where there are several that may answer.

        :raises regcache.errors.RegCacheError: if it means nothing to it, or it may not be asked for that.
        """
        if IOrdered.providedBy(registry):
            return None
        route = registry.route(request)
        check(registry.options, route)
        return route

    def at_hand(self, wanted: Sequence[tuple[IRegistry, Artifact, RequestHead]]) -> Sequence[AtHand | None]:
        """
        What :meth:`answer` would answer each GET without preconditions and ranges with, where that can be had at once
        and nothing is to be begun for it; None for all else.

        Nobody has been told that it is given.

        :param wanted: of each request the registry and what it means to that, as :meth:`routed` says.
        """
        return [None] * len(wanted) if self._stopping else self._artifacts.at_hand(wanted)

    @staticmethod
    def is_tree(registry: IRegistry) -> bool:
        """Whether every path of a registry is its upstream's, the root too, and every request is passed on."""
        if not registry.options.follows:
            return False
        try:
            return isinstance(registry.route(RequestHead(method="GET", path="/")), Resource)
        except RegCacheError:
            return False

    async def _answer(
        self, registry: IRegistry, route: Route, request: RequestHead, interim: Interim | None = None
    ) -> Reply:
        check(registry.options, route)
        if isinstance(route, Local):
            headers = route.headers.replacing({"content-type": route.content_type})
            return Reply(status=route.status, headers=headers, body=route.body)
        if isinstance(route, Moved):
            location = request.base.rstrip("/") + route.location
            return Reply(status=301, headers=Headers.of({"location": location, "content-type": "text/plain"}))
        if isinstance(route, Relay):
            try:
                return await self._relay(registry, route, request)
            except UpstreamError as error:
                key = f"{registry.options.name}{request.path}"
                self.context.upstream.counts.failures.note(self.context.now(), key, error)
                raise
        if isinstance(route, Resource):
            return await self._shared.answer(registry, route, request, interim)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.method} means nothing here.")
        whole = await self._whole(registry, route, request)
        try:
            return await self._select(registry, route, request, whole)
        except BaseException:
            whole.close()
            raise

    async def refreshed(self, registry: IRegistry, route: Document) -> None:
        """
        Have the upstream asked for a document now, however fresh the stored copy is.

        :raises regcache.errors.RegCacheError: if it cannot be had; what is stored stays.
        :raises TimeoutError: if it does not come in time; the asking goes on.
        """
        check(registry.options, route)
        await self._documents.refreshed(registry, route)

    async def refetched(self, registry: IRegistry, route: Document | Artifact) -> None:
        """
        Have the upstream asked for what is not stored any more, and wait until it is, or cannot be.

        :raises regcache.errors.RegCacheError: if it cannot be had.
        :raises TimeoutError: if it does not come in time; the asking goes on.
        """
        if isinstance(route, Document):
            await self.refreshed(registry, route)
            return
        check(registry.options, route)
        reply = await self._artifacts.answer(registry, route, RequestHead(method="GET", path="/"))
        key = key_of(registry, route)
        ends = [transfer.done.wait() for transfer in self._artifacts.transfers if transfer.key == key]
        # A fill goes on without whoever began it.
        reply.close()
        for end in ends:
            await end

    async def settled(self) -> None:
        """Wait until the documents that have come by now are in the store, or cannot be."""
        await DeferredList(self._documents.stored_soon())

    def stop(self) -> Deferred[None]:
        """Take no more; fires when no body is under way and all documents are stored."""
        self._stopping = True
        ends = [transfer.done.wait().addErrback(lambda _: None) for transfer in self._transfers]
        ends += self._documents.stored_soon()
        waiting: Deferred[None] = Deferred()
        DeferredList(ends).addCallback(lambda _: None if waiting.called else waiting.callback(None))
        return waiting

    @property
    def _transfers(self) -> list[Transfer]:
        return [*self._artifacts.transfers, *self._shared.transfers]

    @property
    def fetching(self) -> int:
        """How many artifacts are being fetched."""
        return len(self._transfers)

    def abandon(self) -> None:
        """End the bodies that are still under way; their clients see a failed transfer."""
        for transfer in self._transfers:
            transfer.fail(UpstreamError("The service stopped."))

    async def _whole(self, registry: IRegistry, route: Document | Artifact | Checksum, request: RequestHead) -> Reply:
        if isinstance(route, Document):
            return await self._documents.answer(registry, route, request)
        if isinstance(route, Checksum):
            return await self._checksums.answer(registry, route, request)
        return await self._artifacts.answer(registry, route, request)

    async def _select(self, registry: IRegistry, route: Route, request: RequestHead, reply: Reply) -> Reply:
        """The part of a whole answer that the request's preconditions and range leave."""
        if wants_whole(request.headers):
            return reply
        verdict = evaluate(
            request.method,
            request.headers,
            etag=reply.headers.get("etag"),
            last_modified=parse_date(reply.headers.get("last-modified")),
            size=reply.length,
        )
        if isinstance(verdict, Part):
            return await self._part(registry, route, reply, verdict)
        if isinstance(verdict, Unsatisfiable) and isinstance(route, Document) and route.grows:
            # Who wants more of a list than there is has another one; it may be sent whole (RFC 9110 section 14.2).
            return reply
        return reply.unsent(verdict) or reply

    async def _part(self, registry: IRegistry, route: Route, reply: Reply, part: Part) -> Reply:
        found = reply.of_part(part)
        if not isinstance(route, Artifact) or not self._artifacts.is_ahead(reply, part):
            return found
        try:
            transfer = await self._artifacts.ahead(registry, route, part)
        except RegCacheError:
            transfer = None
        if transfer is None:
            return found
        reply.close()
        return replace(found, body=transfer.open(), start=0, stop=part.stop - part.start, how=How.BYPASS)

    async def _relay(self, registry: IRegistry, route: Relay, request: RequestHead) -> Reply:
        context = self.context
        if context.rules.offline:
            raise Offline("It is passed on to the registry, never stored.")
        if self._relaying >= _MOST_RELAYS:
            raise TooBusy(f"{_MOST_RELAYS} requests are being passed on already.")
        self._relaying += 1
        try:
            fields = {name: request.headers.get(name) for name in _RELAYED_FIELDS if name in request.headers}
            body = request.body
            if route.document:
                fields.pop("content-encoding", None)
                body = await self._rewritten(registry, route, request)
            ask = Ask(
                method=request.method,
                url=route.url,
                headers=context.request_fields.replacing(fields),
                allows=registry.allows,
                registry=registry.options.name,
                body=body,
            )
            # It serves nobody to wait long for what is asked beside an install.
            patience = context.rules.upstream_timeout
            answer = await context.upstream.ask(ask, patience, patience)
            raw = await collect(answer, _MOST_RELAYED, context.in_thread)
            said = await context.in_thread(decoded, raw, answer.coding, _MOST_RELAYED)
            if answer.status >= 400:
                said = answer.hushed(said.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        finally:
            self._relaying -= 1
        fields = {"content-type": answer.headers.get("content-type") or "application/octet-stream"}
        if "retry-after" in answer.headers:
            fields["retry-after"] = answer.headers.get("retry-after")
        status = answer.status if answer.status in _RELAYED_STATUSES or answer.status >= 400 else 502
        return Reply(status=status, headers=Headers.of(fields), body=said)

    async def _rewritten(self, registry: IRegistry, route: Relay, request: RequestHead) -> bytes:
        """
        What a registry makes of a client's body before it is passed on.

        :raises regcache.errors.BadRequest: if the body is not what it should be.
        """
        context, coding = self.context, request.headers.get("content-encoding").lower()
        try:
            plain = await context.in_thread(decoded, request.body, coding, _MOST_REWRITTEN)
            source = Source(body=plain, content_type=request.headers.get("content-type"), url=route.url)
            job = Job(options=registry.options, document=route.document, source=source, representation=route.document)
            made: Derived = await context.deriver.derive(job)
        except TooLarge:
            raise PayloadTooLarge(f"It is read, and may have {_MOST_REWRITTEN} bytes, unpacked.") from None
        except CannotRead:
            raise
        except UpstreamError as error:
            raise BadRequest(error.detail) from None
        return made.plain
