"""
Connections to the registries: made, kept and closed here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import field, frozen
from OpenSSL import SSL, crypto
from twisted.internet._resolver import GAIResolver
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IReactorPluggableNameResolver, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.client import BrowserLikePolicyForHTTPS
from zope.interface import implementer

from regcache.errors import ConnectFailed, RegCacheError, UpstreamError
from regcache.flow.exchange import Connection, Stale
from regcache.flow.leaving import Leaving
from regcache.flow.reasons import explained
from regcache.flow.requests import Where, place_of, written
from regcache.flow.tunnels import Tunnel, refused
from regcache.http.messages import Headers
from regcache.http.origins import Origin
from regcache.http.proxies import DIRECT, Proxies, Proxy
from regcache.interfaces import IResponse, IUpstream

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["CERTIFICATE", "Certified", "Connections", "Trust"]

#: One certificate in a PEM file.
CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)

_IDLE_SECONDS = 55.0
_MOST_IDLE = 32
_MOST_IDLE_IN_ALL = 64
_MOST_ENDPOINTS = 256
#: The request's own deadline ends an attempt to connect sooner.
_CONNECT_SECONDS = 120
_REPEATABLE = frozenset({"GET", "HEAD"})


@implementer(IOpenSSLTrustRoot)
@frozen
class Trust:
    """
    The system's trust and further certificates, which are kept in memory: of a file that is replaced, nothing is taken
    before the whole of it is known to be good.

    :ivar pem: those certificates; empty for none.
    :ivar system: by what the system's are known, so that a change of those is one of this value.
    """

    pem: bytes = b""
    system: Hashable = ()

    @property
    def certificates(self) -> list[crypto.X509]:
        """
        The further ones.

        :raises OpenSSL.crypto.Error: if one is none.
        """
        return [crypto.load_certificate(crypto.FILETYPE_PEM, one) for one in CERTIFICATE.findall(self.pem)]

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        context.set_default_verify_paths()
        store = context.get_cert_store()
        assert store is not None
        for one in self.certificates:
            store.add_cert(one)


#: The system's alone.
SYSTEM = Trust()


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

    def __init__(self, where: Where, name: str, owner: Connections) -> None:
        self._where, self._name, self._owner = where, name, owner

    def buildProtocol(self, _address: object) -> Connection:
        return Connection(self._where, self._owner, self._name)


@frozen
class Certified:
    """
    A certificate to show to one upstream.

    :ivar origin: to no other is it shown.
    :ivar options: how :class:`twisted.internet.ssl.CertificateOptions` are given it.
    :ivar known_by: by what it is compared: the same for the same certificate and key.
    """

    origin: Origin
    options: dict[str, Any] = field(repr=False, eq=False)
    known_by: bytes = field(default=b"", repr=False)


def _let_through(headers: Headers, proxy: Proxy) -> Headers:
    return headers.replacing({"proxy-authorization": proxy.authorization}) if proxy.authorization else headers


def _see_that_it_passed(response: IResponse, proxy: Proxy, host: str) -> IResponse:
    if response.status == 407:
        response.abort()
        raise refused(proxy, 407, "", host)
    return response


@implementer(IUpstream)
class Connections:
    """
    The connections to all upstreams.

    :param trust: the certificates to trust.
    :param proxies: through which of them which host is asked.
    :param certified: the certificate to show to an upstream, if there is one. What is asked over a connection with it
        may not be what others may ask: it wants connections of its own.
    :ivar leaving: the requests that are to leave in this turn.
    """

    def __init__(
        self, reactor: Any, trust: Trust = SYSTEM, proxies: Proxies = DIRECT, certified: Certified | None = None
    ) -> None:
        self._reactor = reactor
        self.leaving = Leaving(reactor)
        self._names = ThreadPool(0, 16, "regcache-names")
        self._resolving = _OwnResolver(reactor, self._names)
        self._trust = trust
        self._policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._proxies, self._certified = proxies, certified
        self._endpoints: dict[Where, IStreamClientEndpoint] = {}
        self._idle: dict[Where, dict[Connection, float]] = {}
        self._timer: IDelayedCall | None = None
        self._open: set[Connection] = set()
        # How often what they are made with has changed, and those that were made before the last time.
        self._age = 0
        self._outdated: set[Connection] = set()
        self._connecting: set[Deferred[Any]] = set()
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
        for waiting in list(self._connecting):
            waiting.cancel()
        for connection in list(self._open):
            connection.close()
        if not self._open:
            self._all_closed.callback(None)
        return self._all_closed

    def renew(self, trust: Trust, certified: Certified | None) -> None:
        """
        Trust and show that from now on; nothing happens if it is what was.

        What is under way goes on over the connection it has; none that was made before is used again.
        """
        if (trust, certified) == (self._trust, self._certified):
            return
        self._trust, self._certified = trust, certified
        self._policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._endpoints.clear()
        self._age += 1
        self._outdated = set(self._open)
        for connection in [one for idle in self._idle.values() for one in idle]:
            connection.close()
        self._idle.clear()

    def request(
        self, method: str, url: str, headers: Headers, body: bytes | BinaryIO = b"", interim: Interim | None = None
    ) -> Deferred[IResponse]:
        try:
            where, target, host = place_of(url)
            proxy = self._proxies.to(*where)
            forwarding = proxy if where[0] == "http" else None
            if forwarding is not None:
                target = f"http://{host}{target}"
                headers = _let_through(headers, forwarding)
            data = written(method, target, host, headers, body, ours=interim is None)
        except RegCacheError:
            return fail()
        asked = self._asked(where, method, data, interim, None if isinstance(body, bytes) else body)
        return asked if forwarding is None else asked.addCallback(_see_that_it_passed, forwarding, host)

    def _asked(
        self, where: Where, method: str, data: bytes, interim: Interim | None, content: BinaryIO | None
    ) -> Deferred[IResponse]:
        """Over a connection that is there, if it still is; else over a new one."""
        kept = self._idle.get(where) if method in _REPEATABLE else None
        while kept:
            connection = kept.popitem()[0]
            if connection.gathers or connection.clean:
                asked: Deferred[Any] = connection.ask(method, data, interim)
                return asked.addErrback(self._was_stale, where, method, data, interim, content)
            connection.close()
        return Deferred.fromCoroutine(self._anew(where, method, data, interim, content))

    def _was_stale(self, failure: Failure, *again: Any) -> Deferred[IResponse]:
        failure.trap(Stale)
        return Deferred.fromCoroutine(self._anew(*again))

    async def _anew(
        self, where: Where, method: str, data: bytes, interim: Interim | None, content: BinaryIO | None
    ) -> IResponse:
        connection = await self._connect(where)
        return await connection.ask(method, data, interim, content)

    def proxy(self, url: str) -> str:
        """Through which proxy a URL is asked; empty for none."""
        origin = Origin.of(url)
        proxy = self._proxies.to(origin.scheme, origin.host, origin.port) if origin is not None else None
        return "" if proxy is None else str(proxy)

    def way(self, url: str) -> str:
        """The same for a person: the end of a sentence, or nothing."""
        proxy = self.proxy(url) if self._proxies else ""
        return f" (asked through the proxy {proxy})" if proxy else ""

    async def _connect(self, where: Where) -> Connection:
        if self._stopped:
            raise ConnectFailed("The cache is stopping.")
        proxy = self._proxies.to(*where)
        name = where[1] if proxy is None else f"{where[1]} (asked through the proxy {proxy})"
        connecting = self._endpoint(where, proxy).connect(_Factory(where, name, self))
        given_up, age = False, self._age

        def give_up(_waiting: object) -> None:
            nonlocal given_up
            given_up = True
            connecting.cancel()

        waiting: Deferred[Any] = Deferred(give_up)
        connecting.addCallbacks(waiting.callback, waiting.errback)
        self._connecting.add(waiting)
        try:
            made = await waiting
        except Exception as error:
            if self._stopped:
                raise ConnectFailed("The cache is stopping.") from None
            # What a cancelled attempt fails with says nothing about the host.
            if given_up:
                raise CancelledError() from None
            if isinstance(error, UpstreamError):
                raise
            raise explained(Failure(), where[1] if proxy is None else f"the proxy {proxy}") from None
        finally:
            self._connecting.discard(waiting)
        assert isinstance(made, Connection)
        if age != self._age:
            self._outdated.add(made)
        return made

    def _endpoint(self, where: Where, proxy: Proxy | None) -> IStreamClientEndpoint:
        """One a host: making one encodes its name, and for TLS reads the trusted certificates."""
        made = self._endpoints.get(where)
        if made is None:
            if len(self._endpoints) >= _MOST_ENDPOINTS:
                self._endpoints.clear()
            made = self._endpoints[where] = self._way(where, proxy)
        return made

    def _way(self, where: Where, proxy: Proxy | None) -> IStreamClientEndpoint:
        scheme, host, port = where
        if proxy is None:
            made: IStreamClientEndpoint = HostnameEndpoint(self._resolving, host, port, timeout=_CONNECT_SECONDS)
        else:
            at = proxy.origin
            made = self._way((at.scheme, at.host, at.port), None)
        if scheme == "https":
            if proxy is not None:
                made = Tunnel(made, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            made = wrapClientTLS(self._tls(host, port), made)
        return made

    def _tls(self, host: str, port: int) -> Any:
        certified = self._certified
        if certified is None or certified.origin != Origin("https", host, port):
            return self._policy.creatorForNetloc(host.encode("ascii"), port)
        return optionsForClientTLS(host, trustRoot=self._trust, extraCertificateOptions=certified.options)

    # From the connections.

    def opened(self, connection: Connection) -> None:
        """There is one more."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """There is one less."""
        self._open.discard(connection)
        self._outdated.discard(connection)
        self._idle.get(connection.where, {}).pop(connection, None)
        if self._all_closed is not None and not self._open and not self._all_closed.called:
            self._all_closed.callback(None)

    def keep(self, connection: Connection) -> bool:
        """One can be used again; whether it is wanted."""
        idle = self._idle.setdefault(connection.where, {})
        full = len(idle) >= _MOST_IDLE or sum(map(len, self._idle.values())) >= _MOST_IDLE_IN_ALL
        if self._stopped or full or connection in self._outdated:
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
