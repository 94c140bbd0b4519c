"""
A port of our own: bounded requests, HTTP/1.1 only, no log of Twisted's, and an orderly end.

Whoever mounts the Resource elsewhere brings a Site of their own and needs nothing from here.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from regcache.errors import (
    BadRequest,
    HeadersTooLarge,
    MethodNotAllowed,
    PayloadTooLarge,
    RegCacheError,
    RequestTimeout,
    TargetTooLong,
)
from regcache.express import Place
from regcache.gate import Gate, refusal
from regcache.heads import Head
from regcache.hurry import Client, give
from regcache.lean import Asked, LeanRequest, Occupant
from regcache.limits import Limits
from regcache.web import RegCacheResource

__all__ = ["CacheSite"]

_MOST_BODY = 8 << 20
_MOST_HEADERS = 32768
_LONGEST_LENGTH = 19
#: Bytes and seconds for which what a refused client still sends is dropped, so that it gets to read the answer.
_MOST_DROPPED, _LINGER_SECONDS = 64 << 20, 5


class _BoundedRequest(Request):
    """Refuses a body that is too large, or from somebody who may not ask, before it is read; reads no form."""

    channel: _Channel

    def gotLength(self, length: int | None) -> None:
        error: RegCacheError | None = None
        if length != 0:
            error = self.channel.site.judge(self)
        if error is None and length is not None and length > _MOST_BODY:
            error = self._too_large()
        if error is not None:
            self.requestHeaders.removeHeader(b"expect")
            self.channel.refuse(error)
            length = 0
        super().gotLength(length)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        if self.content is not None and self.content.tell() + len(data) > _MOST_BODY:
            self.channel.refuse(self._too_large())
        elif not self.channel.refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def _too_large(self) -> RegCacheError:
        if self.channel.command != b"POST":
            return MethodNotAllowed("Publishing goes to the registry itself.")
        return PayloadTooLarge(f"At most {_MOST_BODY} bytes are accepted.")

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self.channel.refused:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def _handleStar(self) -> None:
        self.channel.refuse(BadRequest("This is a cache for registries: ask for a path."))


class _Channel(HTTPChannel):
    """
    One connection: says what is wrong with a request that is not to be read, and can be asked to end in order.

    :ivar refused: whether that was said; what still comes is dropped then.
    :ivar asked: where the request that is read now came in, and what it asks, if that is all there is to know of it.
    """

    # What every request looks at: found sooner here than among all that Twisted keeps of a connection.
    __slots__ = ("_begun", "_client", "_heard", "_place", "asked", "refused")

    totalHeadersSize = _MOST_HEADERS
    site: CacheSite
    #: Our own side, which Twisted would ask the system for at every request.
    _host: IAddress | None = None
    _secure: bool | None = None
    #: Whose it was as it was counted.
    _counted = ""
    _dropped = 0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refused = False
        self.asked: tuple[Place, bytes] | None = None
        # When a request last came for which the answer was ready, by the monotonic clock.
        self._heard, self._begun = 0.0, False
        # Who asks, and where that comes in, once something has come.
        self._client: Client | None = None
        self._place: Place | None = None

    @property
    def _address(self) -> str:
        """Whose it is; empty for a UNIX socket."""
        return getattr(self.getPeer(), "host", None) or ""  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.channels.add(self)
        self._counted = self._address
        self.site.gate.enter(self._counted)

    def _leave(self) -> None:
        """What was answered leaves before anything else happens here."""
        if self._client is not None and self._client.waits:
            self.site.resource.finish()

    def reconsider(self) -> None:
        """
        See again whether requests that come here may be answered the fast way, as soon as one comes: only then a
        balancer has said whose they are (the PROXY protocol).
        """
        self._leave()
        self._client, self._place, self.asked = None, None, None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self in self.site.channels:
            self.site.channels.discard(self)
            self.site.gate.leave(self._counted)
        if self._client is not None:
            # It leads back here: nothing but Python's search for garbage would end that.
            self._client.waits, self._client = False, None
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            self._drop(data)
            return
        if self._client is None:
            host = self._address
            self._client, self._place = Client.of(self, host), self.site.resource.place(self, host)
        elif self._client.waits:
            self._leave()
        # Also what a request that is answered in the ordinary way from now on has asked: this one may be read after it.
        self.asked = None
        # Whether something is under way, something of a request is here, or the connection is to end.
        busy = self.requests or self._buffer or self._waitingForTransport or not self.persistent
        if busy or self._place is None or not self._answered(self._place, self._client, data):
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _MOST_DROPPED:
            self.forceAbortClient()  # type: ignore[no-untyped-call]

    def _answered(self, place: Place, client: Client, data: bytes) -> bool:
        """Whether the answer was ready and is given, or will be; ``data`` is the whole of what came."""
        house = self.site.resource.house
        express = house.express
        if not (express.on and house.running()):
            return False
        now = house.now()
        ready = express.again(place, data, now)
        if ready is None:
            head = express.heads.read(data)
            if head is None:
                return False
            ready = express.find(place, head, now)
            if ready is None:
                return self._read(place, client, head)
        self._begun, self._heard = False, house.clock.seconds()
        request_id = (place.proxy and ready.head.named) or house.request_id()
        give(house, client, ready, now, self._heard, request_id)
        return True

    def _read(self, place: Place, client: Client, head: Head) -> bool:
        """Whether the request is plain, and so is answered soon, offhand or in the ordinary way."""
        resource = self.site.resource
        asked = resource.offhand.asked(client, place, head)
        if asked is not None and resource.offhand.takes(client, place, head, asked, self._render):
            self._begun, self._heard = False, asked.began
            return True
        return self._render(place, head, asked)

    def _render(self, place: Place, head: Head, asked: Asked | None) -> bool:
        """Have a request answered in the ordinary way, if it is a plain one; whether it is."""
        resource = self.site.resource
        self.asked = place, head.asked
        if asked is None:
            request = LeanRequest.of(self, head.raw)
        else:
            request = LeanRequest(self, b"GET", asked.target.encode(), asked.request.headers, asked)
        if request is None:
            return False
        request.below = head.below
        self._begun = False
        request.occupy()
        resource.render(request)
        return True

    def resetTimeout(self) -> None:
        """Idle time ends where a request begins; that has to come whole within the same time, however it trickles."""
        if not self._begun:
            self._begun = True
            super().resetTimeout()  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        self._begun = False
        if not self.refused:
            # Else nobody answers it, and it would count as under way for ever.
            super().allContentReceived()  # type: ignore[no-untyped-call]

    def give(self, head: bytes, body: bytes) -> None:
        """Have the whole answer sent to a request that came past Twisted: with others', unless the connection ends."""
        resource, client = self.site.resource, self._client
        if client is None or not (self.persistent and resource.house.running()):
            Client.of(self, self._address).write(head, body)
        else:
            client.give(resource.leaving, head, body)

    def vacated(self, request: Occupant) -> None:
        """
        The first request is answered, which came past Twisted; idle time begins, as in :meth:`timeoutConnection`.

        Where nothing has come meanwhile there is nothing to be read, and the client was not held back from sending.
        """
        self._heard = self.site.reactor.seconds()
        if self._dataBuffer or not self.persistent:
            self._savedTimeOut = None
            self.requestDone(request)  # type: ignore[no-untyped-call]
        else:
            del self.requests[0]
            self._handlingRequest = False
            self.setLineMode()  # type: ignore[no-untyped-call]

    def timeoutConnection(self) -> None:
        if self._handlingRequest and not self.refused:
            # It is not idle.
            self.setTimeout(self.timeOut)  # type: ignore[no-untyped-call]
            return
        left = self._heard + (self.timeOut or 0) - self.site.reactor.seconds()
        if left > 0 and not (self._begun or self.refused):
            # Where an answer was ready the timer was left as it was.
            self.timeOut = self.setTimeout(left)  # type: ignore[no-untyped-call]
        elif self._begun and not self.refused:
            self.refuse(RequestTimeout(f"It may take {self.timeOut} s."))
        else:
            super().timeoutConnection()  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):
            # To some it goes on with the field before, to others it is one of its own (RFC 9112 section 5.2).
            self.refuse(BadRequest("A line of its head begins with a blank."))
        if b"\r" in line or b"\n" in line:
            # To some it is the end of a line (RFC 9112 section 2.2); Twisted refuses it from 26.10 on.
            self.refuse(BadRequest("A line of its head holds half an end of a line."))
        if not self.refused:
            super().lineReceived(line)  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def refuse(self, error: RegCacheError) -> None:
        """
        Answer that, and read no more requests.

        A client that is still sending would not see the answer if the connection were closed under it: what it sends is
        dropped for a moment.
        """
        if self.refused or self.transport is None:
            return
        self.refused = True
        self.transport.write(refusal(error))
        self.setTimeout(_LINGER_SECONDS)  # type: ignore[no-untyped-call]
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def getHost(self) -> IAddress:
        if self._host is None:
            self._host = self.site.host or super().getHost()  # type: ignore[no-untyped-call]
        return self._host

    def isSecure(self) -> bool:
        if self._secure is None:
            # As Twisted's own does, but for a search for adapters.
            self._secure = bool(ISSLTransport.providedBy(self.transport))
        return self._secure

    @property
    def command(self) -> bytes:
        """The method of the request that is being read."""
        return getattr(self, "_command", b"")

    def drain(self) -> None:
        """End now if idle, else after the response that is under way."""
        self._leave()
        self.persistent = 0
        if not self.requests:
            self.loseConnection()  # type: ignore[no-untyped-call]

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = (part.strip().lower() for part in line.partition(b":"))
        if name == b"content-length" and len(value) > _LONGEST_LENGTH:
            self.refuse(BadRequest("Its Content-Length is no length."))
            return False
        if name == b"transfer-encoding" and (value != b"chunked" or self.requests[-1].requestHeaders.hasHeader(name)):
            # Whoever reads another end of the body sees another request behind it (RFC 9112 section 6.1).
            self.refuse(BadRequest("Its Transfer-Encoding is not chunked, once."))
            return False
        return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HeadersTooLarge("Its lines are too long.") if self.requests else TargetTooLong())
        del line

    def _respondToBadRequestAndDisconnect(self) -> None:
        too_large = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        self.refuse(HeadersTooLarge("They are too many.") if too_large else BadRequest("It is not well formed."))


class CacheSite(Site):
    """
    What listens on a port of our own.

    :param resource: what is served.
    :param gate: which connections are taken, on all ports together; any, if there is none.
    :ivar channels: the connections that are open.
    :ivar host: our own side of all connections, where it is the same; None where the system has to be asked for each.
    """

    # HTTP/2 is not spoken: nothing here has been tried with it.
    protocol = _Channel  # type: ignore[assignment]
    displayTracebacks = False
    noisy = False

    resource: RegCacheResource

    def __init__(self, resource: RegCacheResource, reactor: Any, gate: Gate | None = None) -> None:
        super().__init__(resource, requestFactory=_BoundedRequest, reactor=reactor)  # type: ignore[no-untyped-call]
        self.channels: set[_Channel] = set()
        self.host: IAddress | None = None
        self.judge = resource.judge
        self.gate = gate or Gate(reactor, Limits())

    def buildProtocol(self, address: Any) -> Any:
        """Serve a new connection; past the limit it is told to come again."""
        problem = self.gate.judge(getattr(address, "host", None) or "")
        if problem is not None:
            return self.gate.refuse(problem)
        return super().buildProtocol(address)  # type: ignore[no-untyped-call]

    def acceptableProtocols(self) -> list[bytes]:
        """What a TLS client may choose from."""
        return [b"http/1.1"]

    def reconsider(self) -> None:
        """The rules by which connections are looked at are others."""
        for channel in self.channels:
            channel.reconsider()

    def drain(self) -> None:
        """Close the connections: idle ones now, the others after the response that is under way."""
        for channel in list(self.channels):
            channel.drain()

    def startFactory(self) -> None:
        """Nothing: Twisted's own would tell the time once a second for a log that is not written."""

    def stopFactory(self) -> None:
        """Nothing likewise."""

    def log(self, request: Any) -> None:
        """Nothing: the resource logs by itself."""
        del request
