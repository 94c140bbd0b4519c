"""
Plain requests on a connection of ours, read and answered without Twisted's Request, which does for forms, cookies and
bodies what takes as long as the rest of a hit.

Whatever is not wholly regular is left to Twisted, which says what is wrong with it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from regcache.access import Peer
from regcache.flow.sockets import PlainSocket
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.routes import Route

if TYPE_CHECKING:
    from regcache.heads import Below

__all__ = ["Asked", "LeanRequest", "Occupant", "fields_of", "is_all", "may_open"]

#: Such a head means the same to all who read it (RFC 9112 sections 2 to 5).
_START = re.compile(rb"(GET|HEAD) ([\x21-\x7e]+) HTTP/1\.1")
_FIELDS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n")
#: The names of fields that may open something, of which nothing is kept.
_SECRET = re.compile(
    rb"^[^:\n]*(?:auth(?!-type:)|-api:|cookie|credential|key|otp|passw|secret|signature|token)",
    re.IGNORECASE | re.MULTILINE,
)
#: What makes more of a request than its head, or something else of the connection than the next request.
_NOT_PLAIN = (b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer")
_WITHOUT_BODY = frozenset({204, 304})
#: Bytes of a head of which the fields are remembered: as many short ones as fit take twenty times that.
_LONGEST_READ = 2048


@lru_cache(256)
def _read(rest: bytes) -> Headers | None:
    """
    The fields of a head, if it is regular and that of a plain request; clients send the same again and again.

    :param rest: what follows its first line.
    """
    if _FIELDS.fullmatch(rest) is None or not is_all(b" http/1.1\r\n" + rest.lower()):
        return None
    lines = [line.partition(b":") for line in rest.split(b"\r\n")[:-2]]
    return Headers(tuple([(name.lower().decode(), value.strip(b" \t").decode("latin-1")) for name, _, value in lines]))


@define(eq=False)
class Asked:
    """
    What a plain request to read asks of a registry, by somebody who may ask it.

    :ivar began: when it came, by the monotonic clock.
    :ivar target: its target, as it was sent.
    :ivar peer: who asks.
    :ivar named: what a proxy before us has named it; empty if it has not.
    :ivar route: what it means to the registry; None if that is not known at once.
    """

    began: float
    target: str
    peer: Peer
    named: str
    registry: IRegistry
    request: RequestHead
    route: Route | None


class Occupant(ABC):
    """What stands on a connection, while it is answered, where a request of Twisted's would."""

    channel: Any

    def __init__(self, channel: HTTPChannel) -> None:
        self.channel = channel

    def occupy(self) -> None:
        """No other request is read until :meth:`finish`."""
        channel = self.channel
        channel.requests.append(self)
        channel._handlingRequest = True
        channel.setRawMode()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.channel is not None:
            self.channel.unregisterProducer()

    def write(self, data: bytes) -> None:
        """Some of the body."""
        self.channel.write(data)

    def finish(self) -> None:
        """All is written."""
        self.channel.vacated(self)

    @abstractmethod
    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""


class LeanRequest(Occupant):
    """
    A request to read, without a body; it has of Twisted's what is used of that here.

    :ivar fields: those of its head.
    :ivar below: what follows the first line of its head, as it came.
    :ivar asked: what it asks, where that was found out already.
    :ivar told_left: told when its client is gone before it is answered.
    """

    clientproto = b"HTTP/1.1"
    content = None
    prepath: tuple[bytes, ...] = ()
    below: Below | None = None
    told_left: Callable[[Failure], object] | None = None
    startedWriting = False
    _said = b""
    _chunked = False

    def __init__(
        self, channel: HTTPChannel, method: bytes, uri: bytes, fields: Headers, asked: Asked | None = None
    ) -> None:
        self.channel, self.asked = channel, asked
        self.method, self.uri, self.fields = method, uri, fields

    @classmethod
    def of(cls, channel: HTTPChannel, data: bytes) -> LeanRequest | None:
        """The request that these bytes are, if they are one that is plain and regular."""
        line, _, rest = data.partition(b"\r\n")
        found = _START.fullmatch(line)
        fields = None if found is None else fields_of(rest)
        if found is None or fields is None or len(fields.items) > channel.maxHeaders:
            return None
        return cls(channel, found[1], found[2], fields)

    # What is asked.

    @property
    def client(self) -> Any:
        """Who asks."""
        return self.channel.getPeer()

    @property
    def transport(self) -> Any:
        """That of its connection; None once that is gone."""
        return None if self.channel is None else self.channel.transport

    def getHost(self) -> Any:
        return self.channel.getHost()

    def isSecure(self) -> bool:
        return bool(self.channel.isSecure())

    def getHeader(self, name: bytes) -> bytes | None:
        lines = self.fields.lines(name.decode().lower())
        return lines[-1].encode("latin-1") if lines else None

    # What is answered.

    def say(self, status: int, phrase: bytes, fields: bytes) -> None:
        """
        Have it answered with that.

        :param fields: as lines of a head.
        """
        self._said = b"HTTP/1.1 %d %b\r\n%b" % (status, phrase, fields)
        bare = self.method == b"HEAD" or status in _WITHOUT_BODY
        self._chunked = not bare and b"\r\nContent-Length: " not in self._said

    def give(self, body: bytes) -> None:
        """All of a body, which is small, and with that the answer is whole."""
        if self.channel is None or self._chunked:
            self.write(body)
            self.finish()
            return
        self.startedWriting = True
        self.channel.give(self._said + b"\r\n", b"" if self.method == b"HEAD" else body)
        self._over()

    def write(self, data: bytes) -> None:
        """Some of the body, the first with the head."""
        if self.channel is None:
            return
        head = b""
        if not self.startedWriting:
            self.startedWriting = True
            head = self._said + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        if self.method == b"HEAD":
            data = b""
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._put(head, data)

    def _put(self, head: bytes, data: bytes) -> None:
        """Write it at once where nothing is to go before it; the rest waits in the transport."""
        socket = PlainSocket.of(self.channel)
        taken = 0 if socket is None else socket.put(head, data)
        if taken == len(head) + len(data):
            return
        if taken < len(head):
            self.transport.write(head[taken:])
        gone = max(taken - len(head), 0)
        if gone < len(data):
            self.transport.write(data[gone:])

    def finish(self) -> None:
        """The answer is whole."""
        if self.channel is None:
            return
        if not self.startedWriting:
            self.write(b"")
        if self._chunked:
            self.transport.write(b"0\r\n\r\n")
        self._over()

    def _over(self) -> None:
        # It leads back here: nothing but Python's search for garbage would end that.
        self.told_left = None
        self.channel.vacated(self)

    def connectionLost(self, reason: Failure) -> None:
        self.channel = None
        told_left, self.told_left = self.told_left, None
        if told_left is not None:
            told_left(reason)


def fields_of(rest: bytes) -> Headers | None:
    """
    The fields of a head, if it is regular and that of a plain request.

    :param rest: what follows its first line.
    """
    read = _read.__wrapped__ if len(rest) > _LONGEST_READ or may_open(rest) else _read
    return read(rest)


def may_open(fields: bytes) -> bool:
    """
    Whether something stands in the fields of a head that may open something to whoever has it: nothing of it is kept.

    :param fields: what follows its first line.
    """
    return _SECRET.search(fields) is not None


def is_all(head: bytes) -> bool:
    """
    Whether a request is its head and no more, and the connection goes on as it was after the answer.

    :param head: in lower case.
    """
    if any(b"\r\n" + name + b":" in head for name in _NOT_PLAIN):
        return False
    start, _, fields = head.partition(b"\r\n")
    said = re.findall(rb"\r\nconnection:[ \t]*([^\r]*)", b"\r\n" + fields)
    return start.endswith(b" http/1.1") and all(one.strip() == b"keep-alive" for one in said)
