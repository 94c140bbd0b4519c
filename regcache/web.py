"""
The Resource tree: requests in, replies out. Nothing here decides anything about caching.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from regcache.answering import Answering
from regcache.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    NotStarted,
    RegCacheError,
    TargetTooLong,
)
from regcache.express import Place, place_of
from regcache.flow.leaving import Leaving
from regcache.flow.reply import Reply
from regcache.heads import told_id
from regcache.house import House
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.lean import LeanRequest
from regcache.logs import Log
from regcache.offhand import Offhand
from regcache.pages import LIVE, Visit, is_own, live, overview, own_page
from regcache.routes import Route
from regcache.targets import below_mount, headers_of, local_of, split_name, split_target

__all__ = ["RegCacheResource"]

_log = Log()
_MOST_TARGET = 8192
#: Twisted does not know all of them.
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class RegCacheResource(Resource):
    """
    The cache as a Resource, mounted at the root of a port or at any path of a foreign Site.

    It answers 503 until its service has started. Access and host checks apply wherever it is mounted.

    :param registry: the one registry to serve at this very path; empty for all, each below its name.
    :ivar house: what it shares with others.
    :ivar leaving: the answers that are to leave.
    :ivar offhand: what is answered without an exchange.
    """

    isLeaf = True

    def __init__(self, house: House, registry: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.house = house
        self._registry = registry
        self.leaving = Leaving(house.clock)
        self.offhand = Offhand(house, registry, self.leaving)

    def finish(self) -> None:
        """Answer now what would be at the end of this turn."""
        self.offhand.finish()
        self.leaving.send()

    def judge(self, request: Request) -> RegCacheError | None:
        """Why whoever sends this may not; None if they may. Known before the body of the request is read."""
        access, headers = self.house.access, headers_of(request)
        try:
            peer = access.peer(getattr(request.getClientAddress(), "host", None) or "", headers)
            access.let_in(headers, peer, request.isSecure(), local_of(request))
            self.house.door.judge(headers)
        except RegCacheError as error:
            return error
        return None

    def place(self, channel: HTTPChannel, host: str) -> Place | None:
        """
        Where requests on a connection come in, if they may be answered the fast way; known once one has come.

        :param host: the address of its peer; empty for a UNIX socket.
        """
        access = self.house.access
        trusted = access.is_trusted(host)
        try:
            if not trusted:
                access.peer(host, Headers())
        except RegCacheError:
            return None
        secure = bool(channel.isSecure())
        return place_of(self._registry, local_of(channel), secure, host if trusted else "")

    def render(self, request: Request | LeanRequest) -> int:
        """Answer, sooner or later."""
        exchange = _Exchange(self.house, request, self._registry)
        exchange.start()
        return NOT_DONE_YET


class _Exchange(Answering):
    """One request, and how the answer to it is found."""

    def found(self) -> Awaitable[Reply]:
        return self._reply() if self._asked is None else self._answer(self._asked.route)

    async def _reply(self) -> Reply:
        house, request = self._house, self._request
        headers, target = headers_of(request), request.uri.decode("latin-1")
        named, target = split_target(target, request.method)
        prefix, path, query = below_mount(request, target)
        name, rest = (self._only, path) if self._only else split_name(path)
        # Whoever is refused is told so in its own format.
        self._registry = house.registries.get(name)
        self.peer = house.access.peer(getattr(request.client, "host", None) or "", headers)
        self._id = (self.peer.trusted and told_id(headers)) or self._id
        if path == LIVE and house.running():
            self._only_read()
            return live()
        shows = self._registry is None or rest in ("", "/")
        secure, local = request.isSecure(), local_of(request)
        reached = house.access.let_in(headers, self.peer, secure, local, named=named, shows=shows)
        if not house.running():
            raise NotStarted("Try again shortly.")
        self._who = await house.door.admit(headers, self.peer, self._registry.options if self._registry else None)
        if house.token in headers.get("via"):
            raise BadRequest("It has been here before: an upstream leads back to this cache.")
        if len(target) > _MOST_TARGET:
            raise TargetTooLong(f"At most {_MOST_TARGET} bytes are accepted.")

        def base(name: str) -> str:
            return house.access.base(reached, prefix, "" if self._only else f"{name}/")

        if not self._only and is_own(path):
            own = await own_page(house, self._visit(path, query, target, headers, self._served(), base))
            if own is not None:
                return own
        registry = self._registry
        if registry is None:
            raise NotFound(f"No registry {name!r} is served here; there are: {', '.join(self._served())}.")
        if rest in ("", "/") and request.method in (b"GET", b"HEAD") and not house.cache.is_tree(registry):
            return overview({name: registry}, base, house.state())
        self._head = self._head_of(registry, rest or "/", query, headers, base(name))
        return await self._answer()

    def _answer(self, route: Route | None = None) -> Awaitable[Reply]:
        """What the cache says to whoever may ask."""
        assert self._registry is not None
        assert self._head is not None
        self._house.admit(self)
        interim = self._interim if self._head.chunked else None
        return self._house.cache.answer(self._registry, self._head, interim, route)

    def _served(self) -> dict[str, IRegistry]:
        """The registries that this client may read."""
        house = self._house
        return {name: one for name, one in house.registries.items() if house.door.may(self._who, one.options)}

    def _head_of(self, registry: IRegistry, path: str, query: str, headers: Headers, base: str) -> RequestHead:
        request = self._request
        passes = request.method not in (b"GET", b"HEAD") and registry.options.follows
        passes = passes and self._house.cache.is_tree(registry)
        return RequestHead(
            method=request.method.decode("latin-1"),
            path=path,
            query=query,
            headers=headers,
            base=base,
            body=b"" if request.content is None or passes else request.content.read(),
            content=request.content if passes else None,
            chunked=request.clientproto == b"HTTP/1.1",
        )

    def _visit(
        self,
        path: str,
        query: str,
        target: str,
        headers: Headers,
        served: Mapping[str, IRegistry],
        base: Callable[[str], str],
    ) -> Visit:
        last = target.partition("?")[0].rpartition("/")[2]
        method, accept = self._request.method.decode("latin-1"), headers.get("accept")
        return Visit(method=method, path=path, query=query, last=last, accept=accept, served=served, base=base)

    def _only_read(self) -> None:
        if self._request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed()
