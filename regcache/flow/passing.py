"""Requests that are passed on whatever is stored, and what they change of it (RFC 9111 section 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regcache.errors import Offline, RegCacheError, TooBusy
from regcache.flow.answers import Answer
from regcache.flow.context import Context
from regcache.flow.fetching import key_of
from regcache.flow.reply import How, Reply, Unknown
from regcache.flow.resources import Fill, Resources
from regcache.flow.transfer import Transfer
from regcache.http.directives import of_response
from regcache.http.messages import Headers, RequestHead
from regcache.http.paths import quote, segments
from regcache.http.storing import answers_for, changes, may_store
from regcache.interfaces import IRegistry
from regcache.ownership import mentioned
from regcache.routes import Artifact, Document, Resource

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["Passing"]

#: Requests that are passed on at the same time, each with a body of at most ``site._MOST_BODY``.
_MOST_PASSED = 32


class Passing:
    """Passes requests on."""

    def __init__(self, context: Context, resources: Resources) -> None:
        self._context = context
        self._resources = resources
        self._asking = 0
        self._transfers: set[Transfer] = set()

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return list(self._transfers)

    async def passed(
        self, registry: IRegistry, route: Resource, request: RequestHead, asked: Headers, interim: Interim | None
    ) -> Reply:
        """
        What the upstream answers.

        :param asked: the fields to send.
        :raises regcache.errors.RegCacheError: if it does not.
        """
        context = self._context
        if context.rules.offline:
            raise Offline("It is passed on to the registry.")
        if self._asking + len(self._transfers) >= _MOST_PASSED:
            raise TooBusy(f"{_MOST_PASSED} requests are being passed on already.")
        fill = Fill(asked, Transfer(context.clock, key_of(registry, route), context.unstored))
        tell = interim or (lambda _status, _headers: None)
        self._asking += 1
        try:
            asked_at, began = context.now(), context.clock.seconds()
            # An upstream that expects no body here would take it for the next request (RFC 9110 section 9.3.1).
            body = b"" if request.method in ("GET", "HEAD") else request.content or request.body
            answer = await self._resources.ask(registry, route.url, request.method, asked, tell, body)
        finally:
            self._asking -= 1
        seconds, method, url = context.clock.seconds() - began, request.method, route.url
        for changed in changes(method, answer.status, answer.headers, url):
            await self._invalidate(registry, changed)
        told = f"fwd={'method' if method not in ('GET', 'HEAD') else 'request'}; fwd-status={answer.status}"
        if method == "HEAD" or answer.status in (204, 304):
            answer.discard()
            return _mere_head(answer, answer.length if method == "HEAD" else 0, told)
        said = of_response(answer.headers, registry.options.targets)
        keeps = answers_for(method, answer.status, answer.headers, said, url)
        keeps = keeps and may_store("GET", asked, answer.status, answer.headers, said)
        transfer = fill.transfer
        self._transfers.add(transfer)
        transfer.done.wait().addErrback(lambda _: None).addCallback(lambda _: self._transfers.discard(transfer))
        reader = transfer.open()
        self._resources.take(registry, fill, answer, keeps=keeps, asked_at=asked_at, received=context.now())
        came = await fill.came.wait()
        return Reply(
            status=answer.status,
            headers=came.headers or Headers(),
            body=reader,
            how=How.BYPASS,
            told=told,
            relayed=True,
            upstream_seconds=seconds,
        )

    async def _invalidate(self, registry: IRegistry, url: str) -> None:
        """Nothing that is stored of a URL holds any more."""
        base = registry.options.url
        if not url.startswith(base):
            return
        path, _, query = url[len(base) - 1 :].partition("?")
        try:
            route = registry.route(RequestHead(method="GET", path=path, query=query))
        except RegCacheError:
            return
        if isinstance(route, Resource):
            await self._resources.invalidate(key_of(registry, route))
        elif isinstance(route, Artifact):
            await self._drop(key_of(registry, route))
        elif isinstance(route, Document):
            for document in (route, *route.spares, *filter(None, [route.instead])):
                await self._drop(key_of(registry, document))

    async def _drop(self, key: str) -> None:
        self._context.missing.drop(key)
        await self._context.store.drop(key)


def _mere_head(answer: Answer, length: int | None, told: str) -> Reply:
    """An answer without a body, which may have the length of one."""
    empty = b"" if length is not None else Unknown()
    return Reply(status=answer.status, headers=answer.headers, body=empty, stop=length, told=told, relayed=True)


def passed_on(upstream: str, request: RequestHead) -> Resource:
    """
    What a request of a method that a registry does not know is passed on to: the same path below its upstream.

    :param upstream: the URL of that, ending with a slash.
    :raises regcache.errors.BadRequest: if the path could mean two things.
    """
    path = "/".join(map(quote, segments(request.path, keep_slash=True)))
    query = f"?{request.query}" if request.query else ""
    return Resource(key=path + query, url=upstream + path + query, packages=tuple(mentioned(path)))
