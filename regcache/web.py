"""
The Resource tree: requests in, replies out. Nothing here decides anything about caching.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from regcache._version import __version__
from regcache.access import Access, Peer
from regcache.accesslog import AccessLog, Line
from regcache.auth import Door
from regcache.config import Config
from regcache.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    NotStarted,
    RegCacheError,
    TargetTooLong,
    UpstreamError,
)
from regcache.flow.cache import Cache
from regcache.flow.reply import How, Reply
from regcache.flow.sending import Sender, abort_client
from regcache.flow.upstream import origins_of
from regcache.flow.waiting import Outcome
from regcache.gate import admit
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.pages import CLIENTS, LIVE, METRICS, clients, health, live, metrics, overview
from regcache.readiness import READY, ready
from regcache.stamps import interim_head, stamp, unpreset
from regcache.store.holding import Condition
from regcache.targets import below_mount, headers_of, local_of, split_name, split_target

__all__ = ["House", "RegCacheResource"]

_log = Log()
_MOST_TARGET = 8192
#: Stands in the metrics where no registry is asked.
_OWN = "-"
#: Twisted does not know all of them.
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


@define(eq=False)
class House:
    """
    What every resource of one service shares.

    :ivar registries: by name.
    :ivar running: says whether the service has started and not stopped.
    :ivar now: the wall clock.
    :ivar condition: of the store.
    :ivar token: names this service in ``Via``, by which it knows a request that has come round to it.
    """

    cache: Cache
    registries: Mapping[str, IRegistry]
    config: Config
    access: Access
    door: Door
    clock: IReactorTime
    now: Callable[[], float]
    running: Callable[[], bool]
    log: AccessLog
    token: str
    condition: Callable[[], Condition]
    _exchanges: set[_Exchange] = field(factory=set, init=False)
    _by_address: Counter[str] = field(factory=Counter, init=False)
    _empty: Outcome[None] | None = field(default=None, init=False)

    def entered(self, exchange: _Exchange) -> None:
        """A request came."""
        self._exchanges.add(exchange)

    def admit(self, exchange: _Exchange) -> None:
        """See that one more request of that client can be answered: TooBusy, if not."""
        address = exchange.peer.address
        self._by_address[address] += 1
        exchange.admitted = True
        admit(self.cache.context.limits, len(self._exchanges), self._by_address[address], address)

    def left(self, exchange: _Exchange) -> None:
        """A request is over."""
        self._exchanges.discard(exchange)
        if exchange.admitted:
            address = exchange.peer.address
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        if self._empty is not None and not self._exchanges:
            self._empty.succeed(None)

    def drained(self) -> Deferred[None]:
        """Fires when no request is under way any more."""
        self._empty = Outcome()
        if not self._exchanges:
            self._empty.succeed(None)
        return self._empty.wait()

    def abandon(self) -> None:
        """End the requests that are still under way; their clients see a failed transfer."""
        for exchange in list(self._exchanges):
            exchange.abandon()

    def state(self) -> str:
        """Where the cache is, how full, and who may use it, for a person."""
        config = self.config
        size, entries = self.cache.context.store.usage()
        limit = f"{config.max_size / (1 << 30):g} GiB" if config.max_size else "no limit"
        allowed = ", ".join(map(str, config.allow))
        offline = "; offline" if config.offline else ""
        return (
            f"cache in {config.cache_dir}: {size / (1 << 20):.1f} MiB of {limit}, {entries} entries;"
            f" allowed: {allowed}{offline}"
        )

    def health(self) -> dict[str, Any]:
        """The state of the service, for probes."""
        size, entries = self.cache.context.store.usage() if self.running() else (0, 0)
        breaker = self.cache.context.breaker

        def upstream(registry: IRegistry) -> str:
            if self.config.offline:
                return "not asked"
            return "in trouble" if any(map(breaker.is_open, origins_of(registry))) else "ok"

        return {
            "status": "ok" if self.running() else "stopped",
            "version": __version__,
            "bytes": size,
            "entries": entries,
            "requests": {how.value: number for how, number in self.log.counts.items()},
            "offline": self.config.offline,
            "upstreams": {name: upstream(registry) for name, registry in self.registries.items()},
            "foreign_links": dict(self.cache.context.foreign),
        }

    def scene(self, served: Mapping[str, IRegistry]) -> dict[str, Any]:
        """How the service is now, for the metrics of the registries that somebody may read."""
        return {
            "registries": {name: origins_of(registry) for name, registry in served.items()},
            "usage": self.cache.context.store.usage(),
            "limit": self.config.max_size,
            "writable": self.condition().writable,
            "answering": len(self._exchanges),
            "fetching": self.cache.fetching,
            "in_trouble": self.cache.context.breaker.is_open,
        }


class RegCacheResource(Resource):
    """
    The cache as a Resource, mounted at the root of a port or at any path of a foreign Site.

    It answers 503 until its service has started. Access and host checks apply wherever it is mounted.

    :param registry: the one registry to serve at this very path; empty for all, each below its name.
    """

    isLeaf = True

    def __init__(self, house: House, registry: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._house = house
        self._registry = registry

    def judge(self, request: Request) -> RegCacheError | None:
        """Why whoever sends this may not; None if they may. Known before the body of the request is read."""
        access, headers = self._house.access, headers_of(request)
        try:
            peer = access.peer(getattr(request.getClientAddress(), "host", None) or "", headers)
            access.page(headers, access.host(headers, peer, request.isSecure(), local_of(request)), shows=False)
            self._house.door.judge(headers)
        except RegCacheError as error:
            return error
        return None

    def render(self, request: Request) -> int:
        """Answer, sooner or later."""
        exchange = _Exchange(self._house, request, self._registry)
        request.notifyFinish().addErrback(exchange.client_left)
        exchange.start()
        return NOT_DONE_YET


class _Exchange:
    """One request and its reply."""

    def __init__(self, house: House, request: Request, only: str) -> None:
        self._house = house
        self._request = request
        self._only = only
        self._gone = False
        self._working: Deferred[None] | None = None
        self._sender: Sender | None = None
        self._registry: IRegistry | None = None
        self.peer = Peer("", False)
        self.admitted = False
        self._who = ""
        self._head_only = request.method == b"HEAD"

    def start(self) -> None:
        """Begin; the house knows of it until it is over."""
        self._house.entered(self)
        self._working = Deferred.fromCoroutine(self._run())
        self._working.addErrback(self._bug).addBoth(lambda _: self._house.left(self))

    async def _run(self) -> None:
        began = self._house.clock.seconds()
        try:
            reply = await self._reply()
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
        if path == LIVE and house.running():
            self._only_read()
            return live()
        reached = house.access.host(headers, self.peer, request.isSecure(), local_of(request), named)
        house.access.page(headers, reached, shows=self._registry is None or rest in ("", "/"))
        if not house.running():
            raise NotStarted("Try again shortly.")
        self._who = await house.door.admit(headers, self.peer, self._registry.options if self._registry else None)
        served = {name: one for name, one in house.registries.items() if house.door.may(self._who, one.options)}
        if house.token in headers.get("via"):
            raise BadRequest("It has been here before: an upstream leads back to this cache.")
        if len(target) > _MOST_TARGET:
            raise TargetTooLong(f"At most {_MOST_TARGET} bytes are accepted.")

        def base(name: str) -> str:
            return house.access.base(reached, prefix, "" if self._only else f"{name}/")

        own = None if self._only else self._own_page(path, served, base)
        if own is not None:
            return own
        if path == READY and not self._only:
            self._only_read()
            return await ready(house.cache.context, house.config, house.condition(), served)
        if path == METRICS and not self._only:
            self._only_read()
            counts = house.cache.context.upstream.counts
            return metrics(counts, lambda: house.scene(served), _OWN, headers.get("accept"))
        registry = self._registry
        if registry is None:
            raise NotFound(f"No registry {name!r} is served here; there are: {', '.join(served)}.")
        if rest in ("", "/") and request.method in (b"GET", b"HEAD") and not house.cache.passes_root(registry):
            return overview({name: registry}, base, house.state())
        head = RequestHead(
            method=request.method.decode("latin-1"),
            path=rest or "/",
            query=query,
            headers=headers,
            base=base(name),
            body=b"" if request.content is None else request.content.read(),
            chunked=request.clientproto == b"HTTP/1.1",
        )
        house.admit(self)
        return await house.cache.answer(registry, head, self._interim if head.chunked else None)

    def _own_page(self, path: str, served: Mapping[str, IRegistry], base: Callable[[str], str]) -> Reply | None:
        """What the service says about itself, and about the registries that this client may read; None elsewhere."""
        if path in ("", "/", "/-/health") or path.startswith(CLIENTS):
            self._only_read()
            if path.startswith(CLIENTS):
                return clients(served, path.removeprefix(CLIENTS), base)
            return health(self._house.health()) if path.strip("/") else overview(served, base, self._house.state())
        return None

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
            _log.warn("{uri}: {why}", uri=self._request.uri.decode("latin-1")[:200], why=error.text)
        asked = self._registry is not None and isinstance(error, UpstreamError | NotFound)
        how = How.MISS if asked else How.BYPASS
        return Reply(status=error.status, headers=Headers.of(fields), body=body, how=how)

    async def _send(self, reply: Reply) -> int:
        request = self._request
        request.setResponseCode(reply.status, _PHRASES.get(reply.status, b"Unknown"))
        request.defaultContentType = None
        fields = request.responseHeaders
        unpreset(fields)
        for name, value in reply.headers:
            if self._who and name == "cache-control":
                # Not for a cache between us and others, who would not be asked there who they are.
                value = value.replace("public", "private")
            fields.addRawHeader(name, value.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b""))
        stamp(reply, fields, self._house.token, self._house.now(), alone=bool(self._only))
        transport = request.transport
        closing = not self._house.running()
        if closing:
            fields.setRawHeaders(b"connection", [b"close"])
        if reply.length is not None and reply.status not in (204, 304):
            fields.setRawHeaders(b"content-length", [str(reply.length).encode()])
        if self._head_only or reply.length == 0 or reply.status in (204, 304):
            reply.close()
            request.write(b"")
            request.finish()
            sent = 0
        else:
            self._sender = Sender(self._house.clock, request, reply)
            self._sender.start()
            sent = await self._sender.done
        # Twisted does not close a connection for what the response says.
        if closing and transport is not None:
            transport.loseConnection()
        return sent

    def _interim(self, status: int, headers: Headers) -> None:
        """An interim response of the upstream is one of ours (RFC 9110 section 15.2)."""
        transport = None if self._gone else self._request.transport
        if transport is not None and not self._request.startedWriting:
            transport.write(interim_head(status, headers))

    def _note(self, reply: Reply, sent: int, seconds: float) -> None:
        request = self._request
        line = Line(
            when=self._house.now(),
            client=self.peer.address,
            method=request.method.decode("latin-1"),
            target=request.uri.decode("latin-1"),
            status=reply.status,
            sent=sent,
            how=reply.how,
            upstream_seconds=reply.upstream_seconds,
            seconds=seconds,
        )
        self._house.log.note(line)
        name = _OWN if self._registry is None else self._registry.options.name
        outcome = "error" if reply.status >= 500 else reply.how.name.lower()
        self._house.cache.context.upstream.counts.answered(name, outcome, seconds, sent)

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
        request.setResponseCode(500)
        request.write(b"regcache failed at this request; its log says why.\n")
        request.finish()
