"""
A port of our own: bounded requests, HTTP/1.1 only, no log of Twisted's, and an orderly end.

Whoever mounts the Resource elsewhere brings a Site of their own and needs nothing from here.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from regcache.errors import HeadersTooLarge, PayloadTooLarge, RegCacheError

__all__ = ["CacheSite"]

_MOST_BODY = 8 << 20
_MOST_HEADERS = 32768


def _refusal(error: RegCacheError) -> bytes:
    """A whole response, for a request that is not worth reading to its end."""
    body = error.text.encode() + b"\n"
    head = f"HTTP/1.1 {error.status} Refused\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _BoundedRequest(Request):
    """Refuses a body that is too large before it is read, and reads no form."""

    def gotLength(self, length: int | None) -> None:
        if length is not None and length > _MOST_BODY:
            self._refuse(PayloadTooLarge(f"At most {_MOST_BODY} bytes are accepted."))
            length = 0
        super().gotLength(length)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        if self.content is not None and self.content.tell() + len(data) > _MOST_BODY:
            self._refuse(PayloadTooLarge(f"At most {_MOST_BODY} bytes are accepted."))
            return
        super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def _refuse(self, error: RegCacheError) -> None:
        transport = self.transport
        assert transport is not None
        transport.write(_refusal(error))
        transport.loseConnection()


class _Channel(HTTPChannel):
    """One connection: says what is wrong with a head that is too large, and can be asked to end in order."""

    totalHeadersSize = _MOST_HEADERS
    site: CacheSite
    #: Our own side, which Twisted would ask the system for at every request.
    _host: IAddress | None = None

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def getHost(self) -> IAddress:
        if self._host is None:
            self._host = super().getHost()  # type: ignore[no-untyped-call]
        return self._host

    def drain(self) -> None:
        """End now if idle, else after the response that is under way."""
        self.persistent = 0
        if not self.requests:
            self.loseConnection()  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        del line
        assert self.transport is not None
        self.transport.write(_refusal(HeadersTooLarge("Its lines are too long.")))
        self.transport.loseConnection()


class CacheSite(Site):
    """
    What listens on a port of our own.

    :ivar channels: the connections that are open.
    """

    # HTTP/2 is not spoken: nothing here has been tried with it.
    protocol = _Channel  # type: ignore[assignment]
    displayTracebacks = False
    noisy = False

    def __init__(self, resource: Resource, reactor: Any) -> None:
        super().__init__(resource, requestFactory=_BoundedRequest, reactor=reactor)  # type: ignore[no-untyped-call]
        self.channels: set[_Channel] = set()

    def acceptableProtocols(self) -> list[bytes]:
        """What a TLS client may choose from."""
        return [b"http/1.1"]

    def drain(self) -> None:
        """Close the connections: idle ones now, the others after the response that is under way."""
        for channel in list(self.channels):
            channel.drain()

    def log(self, request: Any) -> None:
        """Nothing: the resource logs by itself."""
        del request
