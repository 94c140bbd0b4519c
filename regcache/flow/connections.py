"""
Connections to the registries: made, kept and closed here.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.internet._resolver import GAIResolver
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IReactorPluggableNameResolver, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import platformTrust
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.client import BrowserLikePolicyForHTTPS
from zope.interface import implementer

from regcache.flow.exchange import Connection, Stale, Where, explained, place_of, written
from regcache.http.messages import Headers
from regcache.interfaces import IResponse, IUpstream

__all__ = ["Connections"]

_IDLE_SECONDS = 55.0
_MOST_IDLE = 32
_MOST_IDLE_IN_ALL = 64
_MOST_ENDPOINTS = 256
#: The request's own deadline ends an attempt to connect sooner.
_CONNECT_SECONDS = 120
_REPEATABLE = frozenset({"GET", "HEAD"})


@implementer(IOpenSSLTrustRoot)
@frozen
class _SystemAnd:
    """The system's trust and the certificates of one file."""

    file: str

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        context.set_default_verify_paths()
        context.load_verify_locations(self.file)


@implementer(IReactorPluggableNameResolver)
class _OwnResolver:
    """A reactor whose name look-ups wait in a pool of their own, so that nothing else waits for them."""

    def __init__(self, reactor: Any, pool: ThreadPool) -> None:
        self._reactor = reactor
        self.nameResolver = GAIResolver(reactor, lambda: pool)

    def installNameResolver(self, resolver: Any) -> Any:
        before, self.nameResolver = self.nameResolver, resolver
        return before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _Factory(Factory):
    noisy = False

    def __init__(self, where: Where, owner: Connections) -> None:
        self._where, self._owner = where, owner

    def buildProtocol(self, _address: object) -> Connection:
        return Connection(self._where, self._owner)


@implementer(IUpstream)
class Connections:
    """
    The connections to all upstreams.

    :param ca_file: PEM certificates to trust beside the system's, or empty.
    """

    def __init__(self, reactor: Any, ca_file: str = "") -> None:
        self._reactor = reactor
        self._names = ThreadPool(0, 16, "regcache-names")
        self._resolving = _OwnResolver(reactor, self._names)
        self._policy = BrowserLikePolicyForHTTPS(trustRoot=_SystemAnd(ca_file) if ca_file else platformTrust())
        self._endpoints: dict[Where, IStreamClientEndpoint] = {}
        self._idle: dict[Where, dict[Connection, float]] = {}
        self._timer: IDelayedCall | None = None
        self._open: set[Connection] = set()
        self._stopped = False
        self._all_closed: Deferred[None] | None = None

    def start(self) -> None:
        """Allow look-ups."""
        self._names.start()

    def stop(self) -> Deferred[None]:
        """Close every connection and end the look-ups; a look-up that hangs is not waited for."""
        self._stopped = True
        # A thread in getaddrinfo cannot be interrupted: joining it could hold the stop for minutes.
        self._names.adjustPoolsize(0, 0)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._all_closed = Deferred()
        for connection in list(self._open):
            connection.close()
        if not self._open:
            self._all_closed.callback(None)
        return self._all_closed

    def request(self, method: str, url: str, headers: Headers, body: bytes = b"") -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._request(method, url, headers, body))

    async def _request(self, method: str, url: str, headers: Headers, body: bytes) -> IResponse:
        where, target, host = place_of(url)
        data = written(method, target, host, headers, body)
        kept = self._idle.get(where) if method in _REPEATABLE else None
        if kept:
            try:
                return await kept.popitem()[0].ask(method, data)
            except Stale:
                pass
        connection = await self._connect(where)
        return await connection.ask(method, data)

    async def _connect(self, where: Where) -> Connection:
        connecting = self._endpoint(where).connect(_Factory(where, self))
        given_up = False

        def give_up(_waiting: object) -> None:
            nonlocal given_up
            given_up = True
            connecting.cancel()

        waiting: Deferred[Any] = Deferred(give_up)
        connecting.addCallbacks(waiting.callback, waiting.errback)
        try:
            made = await waiting
        except Exception:
            # What a cancelled attempt fails with says nothing about the host.
            raise CancelledError() if given_up else explained(Failure(), where[1]) from None
        assert isinstance(made, Connection)
        return made

    def _endpoint(self, where: Where) -> IStreamClientEndpoint:
        """One a host: making one encodes its name, and for TLS reads the trusted certificates."""
        made = self._endpoints.get(where)
        if made is None:
            if len(self._endpoints) >= _MOST_ENDPOINTS:
                self._endpoints.clear()
            scheme, host, port = where
            made = HostnameEndpoint(self._resolving, host, port, timeout=_CONNECT_SECONDS)
            if scheme == "https":
                made = wrapClientTLS(self._policy.creatorForNetloc(host.encode("ascii"), port), made)
            self._endpoints[where] = made
        return made

    # From the connections.

    def opened(self, connection: Connection) -> None:
        """There is one more."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """There is one less."""
        self._open.discard(connection)
        self._idle.get(connection.where, {}).pop(connection, None)
        if self._all_closed is not None and not self._open and not self._all_closed.called:
            self._all_closed.callback(None)

    def keep(self, connection: Connection) -> bool:
        """One can be used again; whether it is wanted."""
        idle = self._idle.setdefault(connection.where, {})
        full = len(idle) >= _MOST_IDLE or sum(map(len, self._idle.values())) >= _MOST_IDLE_IN_ALL
        if self._stopped or full:
            return False
        idle[connection] = self._reactor.seconds()
        if self._timer is None:
            self._timer = self._reactor.callLater(_IDLE_SECONDS, self._sweep)
        return True

    def _sweep(self) -> None:
        """Close what has been idle for long, and look again when the next will have been."""
        now, since = self._reactor.seconds(), []
        self._idle = {where: idle for where, idle in self._idle.items() if idle}
        for idle in self._idle.values():
            for connection, began in list(idle.items()):
                if now - began >= _IDLE_SECONDS:
                    connection.close()
                else:
                    since.append(began)
        self._timer = self._reactor.callLater(min(since) + _IDLE_SECONDS - now, self._sweep) if since else None
