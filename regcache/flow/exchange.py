"""
One request and its response on one connection, read by a strict parser.

What may be read in two ways is refused by the parser (RFC 9112): two framings, a length stated twice, bare line feeds.
Here a head and its framing are bounded as well, and more bytes than announced are an error, not a surplus.

Neither Twisted's own client nor one above it is used: with them a request took eight times the work, half of it to keep
them from decoding, buffering, following and trusting what a proxy must not.
"""

from __future__ import annotations

import socket
import typing
from typing import Any, BinaryIO

import httptools
from OpenSSL import SSL
from twisted.internet import error as neterror
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from regcache.errors import CutShort, UpstreamError
from regcache.flow.feeding import Feeding
from regcache.flow.leaving import Leaving
from regcache.flow.reasons import explained
from regcache.flow.requests import Where
from regcache.flow.sockets import PlainSocket
from regcache.http.messages import Headers
from regcache.interfaces import IReceiver, IResponse

if typing.TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["Connection", "Exchange", "Owner", "Stale"]

#: Bytes of a body from which on it is read in larger pieces, and past the parser.
_LARGE = 1 << 18
#: Bytes of such a one that are read at once, and of anything else.
_READING, _USUAL = 1 << 19, 1 << 16
_MOST_FRAMING = 65536
_MOST_FIELDS = 500
#: Bytes of framing that a byte of the body may cost: chunks of one byte come with five more.
_FRAMING_A_BYTE = 16
_SURPLUS = "more bytes came than announced"
#: The transfer codings that there are (RFC 9112 section 7).
_TRANSFER_CODINGS = frozenset(
    {"chunked", "compress", "deflate", "gzip", "identity", "trailers", "x-compress", "x-gzip"}
)


class Stale(Exception):
    """A kept connection turned out to be closed before anything came back: the request can be sent again."""


@implementer(IResponse)
class Exchange:
    """
    One request on one connection, and its response.

    States: *asking* (no head yet), *waiting* (the head is known, nobody takes the body; the connection is paused),
    *flowing* (bytes go to the receiver), *over*.

    :ivar head: fires when the head is known, with this response.
    """

    # What it is as long as nothing has come.
    status = 0
    headers = Headers()
    length: int | None = None
    _framing = _body_bytes = 0
    # Of a large body of known length, what is still to come: none of it says anything about the framing.
    _left = 0
    _surplus = _complete = _lasting = False
    _objection = ""
    _receiver: IReceiver | None = None
    _end: tuple[UpstreamError | None, bool] | None = None

    def __init__(self, connection: Connection, method: str, host: str, interim: Interim | None = None) -> None:
        self._connection, self._host, self._interim = connection, host, interim
        self._bodiless = method == "HEAD"
        self.head: Deferred[Exchange] = Deferred(lambda _: self.abort())
        # It leads back here; let go of at the end.
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fields: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []

    # From the connection.

    def feed(self, data: bytes) -> None:
        """Some bytes came."""
        if self._left:
            self._take(data)
        else:
            self._parse(data)
        if self._objection == _SURPLUS and self._interim is not None:
            # What comes behind a whole message is none of it, and no other (RFC 9112 section 6.3).
            self._objection, self._lasting = "", False
        if self._framing > _MOST_FRAMING + _FRAMING_A_BYTE * self._body_bytes or len(self._fields) > _MOST_FIELDS:
            self._object("its response head or framing is too large")
        if self._objection:
            self._finish(CutShort(f"{self._host} was cut off since {self._objection}."), False)
            self._connection.free(keep=False)
        elif self._complete:
            self._finish(None, True)
            self._connection.free(keep=self._lasting)
        self._go_on()

    def _parse(self, data: bytes) -> None:
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._object(_SURPLUS if self._complete else f"it sent what is not HTTP ({error})")
        left = (self.length or 0) - self._body_bytes
        if left >= _LARGE and not self._complete and not any(name == "transfer-encoding" for name, _ in self._fields):
            self._left = left
            self._connection.widen(self._body_bytes)

    def _take(self, data: bytes) -> None:
        """Some of a large body, past the parser, which would copy it."""
        piece = data[: self._left]
        self._left -= len(piece)
        self._body_bytes += len(piece)
        self._pieces.append(piece)
        self._complete = not self._left
        self._connection.widen(self._body_bytes)
        if len(piece) < len(data):
            self._object(_SURPLUS)

    def lost(self, reason: Failure) -> None:
        """The connection is gone."""
        if not self._framing and self._connection.kept:
            self._finish(None, False)
            self.head.errback(Stale())
            return
        if not self.status:
            error: UpstreamError | None = explained(reason, self._host)
        elif self.length is None and "transfer-encoding" not in self.headers and reason.check(neterror.ConnectionDone):
            # Only an orderly close may be the end of such a body.
            error = None
        else:
            error = CutShort(f"{self._host} closed the connection.")
        self._finish(error, False)
        self._go_on()

    def _object(self, why: str) -> None:
        self._objection = self._objection or why

    def _finish(self, error: UpstreamError | None, certain: bool) -> None:
        if self._end is None:
            self._end = error, certain
            self._parser = None

    def _go_on(self) -> None:
        """Tell whoever waits what is known by now."""
        error = self._end[0] if self._end is not None else None
        if not self.head.called and error is not None:
            self.head.errback(error)
        elif not self.head.called and self.status:
            self.head.callback(self)
        if self._receiver is not None:
            self._pass_on(self._receiver)
        elif self.status and self._end is None:
            self._connection.pause()

    def _pass_on(self, receiver: IReceiver) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if data:
            receiver.received(data)
        if self._end is not None and self._receiver is not None:
            self._receiver = None
            receiver.ended(*self._end)

    # From the parser.

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True
            self._object(_SURPLUS)

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind the body is a trailer, of which nothing here has a use.
        if not self.status and not self._surplus:
            self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self._surplus:
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._tell(status, Headers(tuple(self._fields)))
            self._fields.clear()
            return
        headers = Headers(tuple(self._fields))
        framing = headers.get("transfer-encoding").lower()
        if framing and self._is_noise(framing):
            # It names no coding that there is: only the end of the connection can be the end (RFC 9112 section 6.3).
            headers, framing = headers.without("transfer-encoding"), ""
        if framing not in ("", "chunked") or status == 101 or parser.get_http_version() not in ("1.0", "1.1"):
            self._object("it answered in a protocol or a coding that was not asked for")
        self.status, self.headers = status, headers
        self._lasting = parser.should_keep_alive()
        announced = headers.get("content-length")
        self.length = int(announced) if announced else None
        self._complete = self._bodiless

    def _is_noise(self, framing: str) -> bool:
        """Whether a Transfer-Encoding says nothing: no such coding is registered, and nobody has asked for one."""
        names = {name.partition(";")[0].strip() for name in framing.split(",")}
        return self._interim is not None and names.isdisjoint(_TRANSFER_CODINGS)

    def _tell(self, status: int, headers: Headers) -> None:
        if self._interim is not None and status != 100:
            self._interim(status, headers)

    def on_body(self, data: bytes) -> None:
        if self._surplus:
            return
        if self._bodiless:
            self._surplus = True
            self._object(_SURPLUS)
            return
        self._framing -= len(data)
        self._body_bytes += len(data)
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._complete = bool(self.status)

    # From the owner.

    def deliver(self, receiver: IReceiver) -> None:
        self._receiver = receiver
        if self._end is None:
            self._connection.resume()
        self._pass_on(receiver)

    def whole(self, most: int) -> bytes | None:
        ended_well = self._end is not None and self._end[0] is None
        if not ended_well or self.length != self._body_bytes or self.length > most:
            return None
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def pause(self) -> None:
        if self._end is None:
            self._connection.pause()

    def resume(self) -> None:
        if self._end is None:
            self._connection.resume()

    def abort(self) -> None:
        self._receiver = None
        if self._end is None:
            self._finish(None, False)
            self._connection.free(keep=False)


class Owner(typing.Protocol):
    """
    Who keeps connections.

    :ivar leaving: what is to leave in this turn.
    """

    leaving: Leaving

    def opened(self, connection: Connection) -> None:
        """There is one more."""

    def closed(self, connection: Connection) -> None:
        """There is one less."""

    def keep(self, connection: Connection) -> bool:
        """One can be used again; whether it is wanted."""


class Connection(Protocol):
    """
    One connection to one registry, for one exchange at a time.

    :param name: what the registry is called in errors.
    :ivar kept: whether it has served before.
    """

    transport: Any

    def __init__(self, where: Where, owner: Owner, name: str) -> None:
        self.where = where
        self._name = name
        self.kept = False
        self._owner = owner
        self._exchange: Exchange | None = None
        self._feeding: Feeding | None = None
        self._paused = self._closed = self._waits = False

    def connectionMade(self) -> None:
        self._owner.opened(self)
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None or self._waits:
            # What comes before a request has left is no response to it.
            self.close()
        else:
            self._exchange.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.closed(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(reason)

    @property
    def clean(self) -> bool:
        """
        Whether nothing has come behind the last response, nor the end, as far as that can be told without reading on.

        What is there before a request is sent would be taken for the response to it.
        """
        if self._closed:
            return False
        try:
            self.transport.getHandle().recv(1, socket.MSG_PEEK)
        except (BlockingIOError, SSL.WantReadError):
            return True
        except (OSError, SSL.Error):
            return False
        return False

    @property
    def gathers(self) -> bool:
        """Whether requests leave here with others: only then it is seen that the connection is clean."""
        return self.kept and PlainSocket.over(self.transport) is not None

    def ask(
        self, method: str, request: bytes, interim: Interim | None = None, content: BinaryIO | None = None
    ) -> Deferred[Exchange]:
        """
        Send a request; fires when the head of its response is there.

        Over a connection that has served before it leaves with others; of a new one an upstream may say at once that it
        has too many.

        :param content: its body, if that is not among the bytes.
        """
        exchange = self._exchange = Exchange(self, method, self._name, interim)
        if self.gathers and content is None:
            self._waits = True
            self._owner.leaving.add(self, request)
        else:
            self._write(request)
        if content is not None:
            self._feeding = Feeding(content, self.transport)
            self.transport.registerProducer(self._feeding, False)
        return exchange.head

    def leave(self, *pieces: bytes) -> None:
        """Send the request that waits, unless nobody wants its response any more, or something came before it."""
        self._waits = False
        if self._exchange is None:
            return
        if self.clean:
            self._write(*pieces)
        else:
            self.close()

    def _write(self, request: bytes) -> None:
        """At once where that can be: by its transport it takes a turn of the reactor's, and two calls to the system."""
        socket = PlainSocket.over(self.transport)
        sent = 0 if socket is None else socket.put(request)
        if sent < len(request):
            self.transport.write(request[sent:])

    def free(self, *, keep: bool) -> None:
        """The exchange is over."""
        self._exchange = None
        fed = self._feeding is None or self._feeding.done
        if keep and fed and self._owner.keep(self):
            self.kept = True
            self.transport.bufferSize = _USUAL
            if self._paused:
                self.resume()
        else:
            self.transport.abortConnection()

    def close(self) -> None:
        """End it; only for one that nobody uses. Its owner hears of it some turns later."""
        self._closed = True
        self.transport.abortConnection()

    def widen(self, at: int) -> None:
        """
        Read more at once: a large body comes.

        :param at: what has come of it. A reading ends where the kernel ends a large page of the file it is written to.
        """
        self.transport.bufferSize = _READING - at % _READING

    def pause(self) -> None:
        """Read no more for now."""
        self._paused = True
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self.transport.resumeProducing()
