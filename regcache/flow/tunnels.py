"""Tunnels through a forward proxy: CONNECT (RFC 9110 section 9.3.6), so that TLS reaches from here to the registry."""

from __future__ import annotations

import re
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from regcache.errors import ConnectFailed
from regcache.flow.reasons import explained
from regcache.flow.waiting import Outcome
from regcache.http.proxies import Proxy

__all__ = ["Tunnel", "refused"]

_MOST_HEAD = 16384
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?(?:\r\n|\Z)")


def refused(proxy: Proxy, status: int, reason: str, place: str) -> ConnectFailed:
    """What a proxy's answer means that is not what it was asked for."""
    told = f"The proxy {proxy} does not let us through to {place}: it answered {status}{' ' * bool(reason)}{reason}."
    if status != 407:
        return ConnectFailed(told)
    how = "refuses these" if proxy.authorization else "has none"
    return ConnectFailed(f"{told} It wants credentials, and {how}: they stand in HTTPS_PROXY or HTTP_PROXY.")


class _Opening(Protocol):
    """
    A connection to the proxy, which becomes one to the registry.

    States: *asking* (the proxy's answer is awaited), *open* (every byte is the inner protocol's), *failed*.

    :ivar made: the inner protocol, or why there is none.
    """

    transport: Any

    def __init__(self, tunnel: Tunnel, factory: IProtocolFactory, address: Any) -> None:
        self.made: Outcome[IProtocol] = Outcome()
        self._tunnel, self._factory, self._address = tunnel, factory, address
        self._inner: IProtocol | None = None
        self._head = b""

    def connectionMade(self) -> None:
        self.transport.write(self._tunnel.request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        status = _STATUS.match(head)
        if not end and len(self._head) <= _MOST_HEAD and (b"\r\n" not in head or status is not None):
            return
        if not end or status is None:
            self._fail(ConnectFailed(f"The proxy {self._tunnel.proxy} sent what is not HTTP."))
        elif status[1].startswith(b"1") and status[1] != b"101":
            self._head = b""
            self.dataReceived(rest)
        elif not status[1].startswith(b"2"):
            reason = (status[2] or b"").decode("latin-1").strip()
            self._fail(refused(self._tunnel.proxy, int(status[1]), reason, self._tunnel.place))
        else:
            self._open(rest)

    def _open(self, rest: bytes) -> None:
        self._head = b""
        inner = self._inner = self._factory.buildProtocol(self._address)
        assert inner is not None
        inner.makeConnection(self.transport)
        self.made.succeed(inner)
        if rest:
            inner.dataReceived(rest)

    def _fail(self, error: ConnectFailed) -> None:
        self.made.fail(error)
        self.close()

    def close(self) -> None:
        """It is not wanted."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
            return
        proxy, place = self._tunnel.proxy, self._tunnel.place
        if reason.check(ConnectionDone, ConnectionLost):
            self.made.fail(ConnectFailed(f"The proxy {proxy} hung up when it was to connect to {place}."))
        else:
            self.made.fail(explained(reason, f"the proxy {proxy}"))


class _Openings(Factory):
    noisy = False

    def __init__(self, tunnel: Tunnel, factory: IProtocolFactory) -> None:
        self._tunnel, self._factory = tunnel, factory

    def buildProtocol(self, addr: IAddress | None) -> _Opening:
        return _Opening(self._tunnel, self._factory, addr)


@implementer(IStreamClientEndpoint)
@frozen
class Tunnel:
    """
    An endpoint that leads through a proxy.

    A connect fails with ConnectFailed if the proxy does not do what it is asked; as it does directly, if there is no
    connection to the proxy. It has no time limit; cancelling it closes the connection.

    :ivar base: leads to the proxy.
    :ivar place: the host and the port to reach.
    """

    base: IStreamClientEndpoint
    proxy: Proxy
    place: str

    @property
    def request(self) -> bytes:
        """What the proxy is sent."""
        lines = [f"CONNECT {self.place} HTTP/1.1", f"Host: {self.place}", "User-Agent: regcache"]
        if self.proxy.authorization:
            lines.append(f"Proxy-Authorization: {self.proxy.authorization}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        opening: Any = await self.base.connect(_Openings(self, factory))
        try:
            inner: IProtocol = await opening.made.wait()
        except BaseException:
            opening.close()
            raise
        return inner
