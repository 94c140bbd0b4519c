"""
The lowest layers of the upstream client: connections, TLS, name look-ups, and what a response head may be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.internet import error as neterror
from twisted.internet._resolver import GAIResolver
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.ssl import platformTrust
from twisted.python.threadpool import ThreadPool
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http_headers import Headers as WireHeaders
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from regcache.errors import ConnectFailed, CutShort, UpstreamError

__all__ = ["CODING_FIELD", "CodingAgent", "Connections", "translate"]

#: The field by which a content coding passes the layers that would undo it.
CODING_FIELD = "x-regcache-coding"

_MOST_HEAD_BYTES = 65536
_MOST_HEAD_LINES = 500
_IDLE_SECONDS = 55
_MOST_IDLE = 32


class _BoundedClient(HTTP11ClientProtocol):
    """Refuses a response head that is too long, or that states two framings (RFC 9112 section 6.3)."""

    _head: bytes | None = b""

    def request(self, request: Any) -> Any:
        self._head = b""
        return super().request(request)

    def dataReceived(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, _ = self._head.partition(b"\r\n\r\n")
            if len(head) > _MOST_HEAD_BYTES or head.count(b"\n") > _MOST_HEAD_LINES:
                self._refuse("its response head is too long")
                return
            if end:
                fields = head.lower()
                if b"\ncontent-length:" in fields and b"\ntransfer-encoding:" in fields:
                    self._refuse("it sent both Content-Length and Transfer-Encoding")
                    return
                interim = fields.startswith((b"http/1.1 1", b"http/1.0 1"))
                self._head = b"" if interim else None
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _refuse(self, why: str) -> None:
        self._head = None
        self._giveUp(ConnectFailed(f"The connection was ended since {why}."))

    def _giveUp(self, reason: Any) -> None:
        super()._giveUp(reason)  # type: ignore[no-untyped-call]
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


class _BoundedFactory(_HTTP11ClientFactory):
    noisy = False

    def buildProtocol(self, _address: object) -> _BoundedClient:
        return _BoundedClient(self._quiescentCallback)


class _Pool(HTTPConnectionPool):
    _factory = _BoundedFactory  # type: ignore[assignment,unused-ignore]
    maxPersistentPerHost = _MOST_IDLE
    cachedConnectionTimeout = _IDLE_SECONDS


@implementer(IOpenSSLTrustRoot)
@frozen
class _SystemAnd:
    """The system's trust and the certificates of one file."""

    file: str

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        context.set_default_verify_paths()
        context.load_verify_locations(self.file)


@implementer(IPolicyForHTTPS)
class _CachedPolicy:
    """One TLS context for all connections, since making one reads the system's certificates."""

    def __init__(self, trust: Any) -> None:
        self._policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._creators: dict[tuple[bytes, int], Any] = {}

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        made = self._creators.get((hostname, port))
        if made is None:
            made = self._creators[hostname, port] = self._policy.creatorForNetloc(hostname, port)
        return made


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


@implementer(IAgent)
class CodingAgent:
    """
    Chooses the content coding of each request, and hides the response's from whoever would undo it.

    :ivar agent: who is asked.
    """

    def __init__(self, agent: IAgent) -> None:
        self.agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: WireHeaders | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        fields = WireHeaders() if headers is None else headers.copy()
        coding = fields.getRawHeaders(CODING_FIELD, ["identity"])[0]
        fields.removeHeader(CODING_FIELD)
        fields.setRawHeaders("accept-encoding", [coding])
        return self.agent.request(method, uri, fields, bodyProducer).addCallback(self._hide)

    @staticmethod
    def _hide(response: IResponse) -> IResponse:
        codings = response.headers.getRawHeaders(b"content-encoding")
        response.headers.removeHeader(CODING_FIELD)
        if codings:
            response.headers.removeHeader(b"content-encoding")
            response.headers.setRawHeaders(CODING_FIELD.encode(), codings)
        return response


class Connections:
    """
    The connections to all upstreams: made, kept and closed here.

    :param ca_file: PEM certificates to trust beside the system's, or empty.
    :ivar agent: an agent for :class:`regcache.flow.upstream.Upstream`.
    """

    def __init__(self, reactor: Any, ca_file: str = "") -> None:
        self._names = ThreadPool(0, 16, "regcache-names")
        self._pool = _Pool(reactor)
        trust = _SystemAnd(ca_file) if ca_file else platformTrust()
        lowest = Agent(_OwnResolver(reactor, self._names), _CachedPolicy(trust), connectTimeout=60, pool=self._pool)
        self.agent: IAgent = CodingAgent(lowest)

    def start(self) -> None:
        """Allow look-ups."""
        self._names.start()

    def stop(self, then: Callable[[], object] = lambda: None) -> Deferred[Any]:
        """Close what is idle and end the look-ups; a look-up that hangs is not waited for."""
        closing: Deferred[Any] = self._pool.closeCachedConnections()
        # A thread in getaddrinfo cannot be interrupted: joining it could hold the stop for minutes.
        self._names.adjustPoolsize(0, 0)
        return closing.addBoth(lambda _: then())


def translate(error: Exception, url: str) -> UpstreamError:
    """What an exception of Twisted's client means, in words for a person; a bug is not translated but raised."""
    reasons = getattr(error, "reasons", None)
    while isinstance(error, ResponseNeverReceived | RequestTransmissionFailed | ResponseFailed) and reasons:
        inner = reasons[0].value
        if isinstance(inner, UpstreamError):
            return inner
        error, reasons = inner, getattr(inner, "reasons", None)
    host = url.split("/")[2]
    if isinstance(error, UpstreamError):
        return error
    if isinstance(error, neterror.DNSLookupError):
        return ConnectFailed(f"The name of {host} could not be looked up.")
    if isinstance(error, SSL.Error):
        details = "; ".join(str(part[-1]) for part in (error.args[0] if error.args else ()) if part)
        return ConnectFailed(f"TLS with {host} failed: {details or type(error).__name__}.")
    if isinstance(error, neterror.ConnectionDone | neterror.ConnectionLost):
        return CutShort(f"{host} closed the connection before it answered.")
    if isinstance(error, neterror.ConnectError | OSError):
        return ConnectFailed(f"{host}: {error}")
    return CutShort(f"{host} sent what is not HTTP: {type(error).__name__}.")
