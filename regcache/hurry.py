"""Giving an answer that is ready: in one write where the socket takes it, the rest of it at the client's own pace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from regcache.access import Peer
from regcache.accesslog import Line
from regcache.express import Prepared
from regcache.flow.sending import Sender, abort_client
from regcache.house import House

__all__ = ["give"]

#: Bytes that may wait in the transport of a client, where it takes no more for now.
_MOST_WAITING = 1 << 16


def give(house: House, channel: HTTPChannel, prepared: Prepared, now: float) -> None:
    """
    Answer the request that has just come on a connection on which nothing else is under way.

    :param now: the wall clock, in seconds.
    """
    began = house.clock.seconds()
    head, body = prepared.head(now), prepared.body
    prepared.standing.given()

    def note(sent: int) -> None:
        house.note(
            Line(
                when=now,
                client=prepared.client or _address(channel),
                method=prepared.method,
                target=prepared.target,
                status=prepared.reply.status,
                sent=sent,
                how=prepared.reply.how,
                upstream_seconds=None,
                seconds=house.clock.seconds() - began,
            ),
            prepared.registry,
        )

    taken = _written(channel.transport, head, body)
    if taken < len(body):
        _Rest(house, channel, prepared, taken, note).start()
    else:
        note(len(body))


def _address(channel: HTTPChannel) -> str:
    return getattr(channel.getPeer(), "host", None) or ""


def _written(transport: Any, head: bytes, body: bytes) -> int:
    """
    Write a head and as much of its body as is taken at once.

    :returns: how many bytes of the body need not be cared for any more.
    """
    taken = 0
    if _is_plain(transport) and not (transport.dataBuffer or transport._tempDataBuffer):
        # Without a turn through the reactor, and without a copy of the body.
        try:
            taken = transport.socket.sendmsg((head, body))
        except OSError:
            # That it is full or broken is found out again, and seen to, by the transport.
            taken = 0
    if taken < len(head):
        transport.write(head[taken:])
    gone = max(taken - len(head), 0)
    if len(body) - gone <= _MOST_WAITING:
        if gone < len(body):
            transport.write(body[gone:])
        return len(body)
    return gone


def _is_plain(transport: Any) -> bool:
    """Whether what is written to its socket is what the client reads."""
    return isinstance(transport, FileDescriptor) and not getattr(transport, "TLS", False)


class _Rest:
    """
    The end of a body that the socket did not take at once: it stands where a request of Twisted's would.

    :param at: how many bytes of the body are written.
    :param note: told how many bytes were sent, when it is over.
    """

    def __init__(
        self, house: House, channel: HTTPChannel, prepared: Prepared, at: int, note: Callable[[int], None]
    ) -> None:
        self.channel = channel
        self.peer = Peer(_address(channel), False)
        self.admitted = False
        self._house, self._note, self._at = house, note, at
        rest = evolve(prepared.reply, body=prepared.body, start=at, stop=len(prepared.body))
        self._sender = Sender(house.clock, self, rest)
        self._savedTimeOut = channel.timeOut

    def start(self) -> None:
        """Send it; no other request is read meanwhile."""
        self._house.entered(self)
        self._sender.done.addCallback(self._over)
        channel = self.channel
        channel.requests.append(self)
        channel._savedTimeOut = channel.setTimeout(None)
        channel._handlingRequest = True
        channel.setRawMode()
        self._sender.start()

    def _over(self, sent: int) -> None:
        self._house.left(self)
        self._note(self._at + sent)

    def abandon(self) -> None:
        """Time is up: the client sees a failed transfer."""
        abort_client(self)

    # As the connection and the sender know a request.

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.channel.unregisterProducer()

    def write(self, data: bytes) -> None:
        """Some of the body."""
        self.channel.write(data)

    def finish(self) -> None:
        """All is written."""
        self.channel.requestDone(self)

    def connectionLost(self, reason: Failure) -> None:
        self._sender.client_left(reason)
