"""
The Resource tree: requests in, replies out. Nothing here decides anything about caching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers as WireHeaders
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from regcache.access import Peer, spelled
from regcache.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    NotStarted,
    Offline,
    RegCacheError,
    TargetTooLong,
    UpstreamError,
)
from regcache.express import Place, Prepared, place_of
from regcache.flow.reply import How, Reply, timed
from regcache.flow.sending import Sender, abort_client, at_once
from regcache.flow.sockets import PlainSocket
from regcache.heads import told_id
from regcache.house import House
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.lean import LeanRequest
from regcache.lines import line_of, packages_of
from regcache.logs import Log
from regcache.offhand import Offhand
from regcache.pages import LIVE, Visit, is_own, live, overview, own_page
from regcache.routes import Route
from regcache.stamps import interim_head, stamped
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
    """

    isLeaf = True

    def __init__(self, house: House, registry: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.house = house
        self._registry = registry
        #: What is answered without an exchange.
        self.offhand = Offhand(house, registry)

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
        request.notifyFinish().addErrback(exchange.client_left)
        exchange.start()
        return NOT_DONE_YET


class _Exchange:
    """One request and its reply."""

    def __init__(self, house: House, request: Request | LeanRequest, only: str) -> None:
        self._house = house
        self._request = request
        self._only = only
        self._gone = False
        self._working: Deferred[None] | None = None
        self._sender: Sender | None = None
        self.admitted = False
        self._who = ""
        # Where it was found out already who asks for what, and that they may.
        asked = self._asked = request.asked if isinstance(request, LeanRequest) else None
        self._registry: IRegistry | None = None if asked is None else asked.registry
        self._head: RequestHead | None = None if asked is None else asked.request
        self.peer = Peer(spelled(getattr(request.client, "host", None) or ""), False) if asked is None else asked.peer
        self._id = ("" if asked is None else asked.named) or house.request_id()
        self._head_only = request.method == b"HEAD"

    def start(self) -> None:
        """Begin; the house knows of it until it is over."""
        self._house.entered(self)
        self._working = Deferred.fromCoroutine(self._run())
        self._working.addErrback(self._bug).addBoth(lambda _: self._house.left(self))

    async def _run(self) -> None:
        asked = self._asked
        began = self._house.clock.seconds() if asked is None else asked.began
        try:
            reply = await (self._reply() if asked is None else self._answer(asked.route))
        except RegCacheError as error:
            reply = self._error(error)
        if self._gone:
            reply.close()
            return
        sent = await self._send(reply)
        self._note(reply, sent, self._house.clock.seconds() - began)

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

    async def _answer(self, route: Route | None = None) -> Reply:
        """What the cache says to whoever may ask."""
        assert self._registry is not None
        assert self._head is not None
        self._house.admit(self)
        interim = self._interim if self._head.chunked else None
        return await self._house.cache.answer(self._registry, self._head, interim, route)

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

    def _error(self, error: RegCacheError) -> Reply:
        if self._registry is not None:
            kind, body = self._registry.error(error.status, error.text)
        else:
            kind, body = "text/plain; charset=utf-8", error.text.encode() + b"\n"
        fields = [("content-type", kind), ("cache-control", "no-store"), *error.fields]
        if error.status >= 500:
            uri = self._request.uri.decode("latin-1")[:200]
            # That it asks nobody is what the operator wants; npm's audits alone would warn at every install.
            say = _log.info if isinstance(error, Offline) else _log.warn
            say("{uri}: {why} ({id})", uri=uri, why=error.text, id=self._id)
        asked = self._registry is not None and isinstance(error, UpstreamError | NotFound)
        how = How.MISS if asked else How.BYPASS
        return Reply(status=error.status, headers=Headers.of(fields), body=body, how=how)

    async def _send(self, reply: Reply) -> int:
        request = self._request
        request.setResponseCode(reply.status, _PHRASES.get(reply.status, b"Unknown"))
        request.defaultContentType = None
        now = self._house.now()
        reply, _ = timed(reply, now)
        if self._who:
            reply = _private(reply)
        said = stamped(reply, self._house.token, now, alone=bool(self._only), own=self._registry is None)
        transport = request.transport
        closing = not self._house.running()
        if closing:
            said = [*[pair for pair in said if pair[0] != b"Connection"], (b"Connection", b"close")]
        # Last, as where the answer is ready but for it.
        said.append((b"X-Request-Id", self._id.encode()))
        _say(request, said)
        bare = self._head_only or reply.length == 0 or reply.status in (204, 304)
        reply = self._remember(reply, said, bare)
        if bare:
            reply.close()
            request.write(b"")
            request.finish()
            sent = 0
        else:
            sent = await self._send_body(reply)
        # Twisted does not close a connection for what the response says.
        if closing and transport is not None:
            transport.loseConnection()
        return sent

    async def _send_body(self, reply: Reply) -> int:
        """Send a body at the client's pace; how many bytes of it were sent."""
        request, whole = self._request, at_once(reply)
        if whole is not None:
            reply.close()
            request.write(whole)
            request.finish()
            return len(whole)
        self._sender = Sender(self._house.clock, request, reply)
        self._sender.start()
        return await self._sender.done

    def _interim(self, status: int, headers: Headers) -> None:
        """An interim response of the upstream is one of ours (RFC 9110 section 15.2)."""
        transport = None if self._gone else self._request.transport
        if transport is not None and not self._request.startedWriting:
            transport.write(interim_head(status, headers))

    def _remember(self, reply: Reply, said: list[tuple[bytes, bytes]], bare: bool) -> Reply:
        """
        Have the answer ready for the next such request, if it will be the same.

        :param said: its fields.
        :param bare: whether no body is sent.
        :returns: the reply, to be sent.
        """
        request, express = self._request, self._house.express
        place, asked = getattr(request.channel, "asked", None) or (None, b"")
        if place is None or reply.standing is None or reply.length is None or self._who:
            return reply
        if not express.wants(place, asked, reply.length):
            return reply
        body = b"" if bare else express.taken(reply, uncopied=PlainSocket.of(request.channel) is not None)
        if body is None:
            return reply
        start = b"HTTP/1.1 %d %s" % (request.code, request.code_message)
        prepared = Prepared.of(
            reply,
            [(name, (value,)) for name, value in said],
            start,
            body,
            self._house.answers(reply, self._name),
            client=self.peer.address if place.proxy else "",
            registry=self._name,
            method=request.method.decode("latin-1"),
            target=request.uri.decode("latin-1"),
            package=self._package(reply),
        )
        if prepared is not None:
            express.remember(place, asked, prepared)
        if bare or not isinstance(body, bytes):
            return reply
        reply.close()
        return replace(reply, body=body, start=0, stop=None)

    @property
    def _name(self) -> str:
        """Whose the request is; empty for no registry's."""
        return "" if self._registry is None else self._registry.options.name

    def _note(self, reply: Reply, sent: int, seconds: float) -> None:
        form = self._house.answered(reply, self._house.answers(reply, self._name), sent, seconds)
        if form is not None:
            request = self._request
            line = line_of(
                reply,
                headers_of(request),
                when=self._house.now(),
                sent=sent,
                seconds=seconds,
                method=request.method.decode("latin-1"),
                target=request.uri.decode("latin-1"),
                protocol=request.clientproto.decode("latin-1"),
                client=self.peer.address,
                user=self._who,
                request_id=self._id,
                registry=self._name,
                package=self._package(reply),
            )
            self._house.log.note(form(line))

    def _package(self, reply: Reply) -> str:
        """What is asked for, as far as the address tells."""
        if reply.packages is not None:
            return ",".join(reply.packages)
        return "" if self._registry is None or self._head is None else packages_of(self._registry, self._head)

    def client_left(self, reason: Failure) -> None:
        """The connection is gone: nobody waits here any more; what was begun goes on."""
        self._gone = True
        if self._sender is not None:
            self._sender.client_left(reason)
        elif self._working is not None:
            self._working.cancel()

    def abandon(self) -> None:
        """Time is up: the client sees a failed transfer."""
        abort_client(self._request)

    def _bug(self, failure: Failure) -> None:
        """Something that should not happen did: the client gets an end, the log gets the rest."""
        if self._gone and failure.check(CancelledError):
            return
        _log.failure("A bug ended a request.", failure=failure)
        request = self._request
        if self._gone:
            return
        if request.startedWriting:
            abort_client(request)
            return
        # What was to be sent had another length.
        if isinstance(request, LeanRequest):
            request.said = []
        else:
            request.responseHeaders = WireHeaders()
        request.setResponseCode(500, b"Internal Server Error")
        request.write(b"regcache failed at this request; its log says why.\n")
        request.finish()


def _say(request: Request | LeanRequest, said: list[tuple[bytes, bytes]]) -> None:
    """Have a request answered with these fields."""
    if isinstance(request, LeanRequest):
        request.said = said
        return
    fields = request.responseHeaders
    # What Twisted sets beforehand is ours to say, or the upstream's.
    for name in {b"server", b"date", *[name for name, _ in said]}:
        fields.removeHeader(name)
    for name, value in said:
        fields.addRawHeader(name, value)


def _private(reply: Reply) -> Reply:
    """A reply that is not for a cache between us and others, who would not be asked there who they are."""
    fields = [
        (name, value.replace("public", "private") if name == "cache-control" else value)
        for name, value in reply.headers
    ]
    return replace(reply, headers=Headers(tuple(fields)))
