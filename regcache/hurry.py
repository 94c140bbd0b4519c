"""Giving an answer that is ready: in one write where the socket takes it, the rest of it at the client's own pace."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from regcache.access import Peer, spelled
from regcache.express import Prepared
from regcache.flow.sending import Sender, abort_client
from regcache.flow.sockets import PlainSocket
from regcache.heads import Head
from regcache.house import House
from regcache.kept import Kept
from regcache.lean import Occupant

__all__ = ["Client", "give"]

#: Bytes that may wait in the transport of a client, where it takes no more for now.
_MOST_WAITING = 1 << 17
#: A body of fewer bytes is copied behind its head: one piece takes the kernel less than two.
_SMALL = 1 << 13


@define(eq=False)
class Client:
    """
    Who asks on a connection: known, as :class:`regcache.express.Place` is, once something has come.

    :ivar address: whose it is, as the log names it; empty for a UNIX socket.
    :ivar socket: its socket, where what is written there goes out as it is.
    """

    channel: HTTPChannel
    address: str
    socket: PlainSocket | None

    @classmethod
    def of(cls, channel: HTTPChannel) -> Client:
        """That of a connection."""
        return cls(channel, spelled(getattr(channel.getPeer(), "host", None) or ""), PlainSocket.of(channel))

    def write(self, head: bytes, body: bytes | Kept) -> int:
        """
        Write a head and as much of its body as is taken at once.

        :returns: how many bytes of the body need not be cared for any more.
        """
        taken, size = 0, len(body)
        if self.socket is not None and self.socket.is_clear:
            taken = self._put(self.socket, head, body)
        if taken == len(head) + size:
            return size
        transport: Any = self.channel.transport
        if taken < len(head):
            transport.write(head[taken:])
        gone = max(taken - len(head), 0)
        if size - gone > _MOST_WAITING:
            return gone
        rest = body[gone:] if isinstance(body, bytes) else body.read(gone)
        if rest is None:
            return gone
        if rest:
            transport.write(rest)
        return size

    @staticmethod
    def _put(socket: PlainSocket, head: bytes, body: bytes | Kept) -> int:
        """Without a turn through the reactor, and without a copy of a body that is not small."""
        if isinstance(body, Kept):
            return body.put(socket, head)
        return socket.put(head + body) if len(body) < _SMALL else socket.put(head, body)


def give(
    house: House, client: Client, prepared: Prepared, asked: Head, now: float, began: float, request_id: str
) -> None:
    """
    Answer the request that has just come on a connection on which nothing else is under way.

    :param asked: its head.
    :param now: the time by the wall clock.
    :param began: the time by the monotonic clock.
    :param request_id: what it is called.
    """
    house.cache.context.store.used(prepared.standing.used, now)
    written = client.write(prepared.head(now, request_id), prepared.body)
    if written < len(prepared.body):
        note = partial(_note, house, client, prepared, asked, now, began, request_id)
        _Rest(house, client, prepared, written, note).start()
    else:
        _note(house, client, prepared, asked, now, began, request_id, written)


def _note(
    house: House,
    client: Client,
    prepared: Prepared,
    asked: Head,
    now: float,
    began: float,
    request_id: str,
    sent: int,
) -> None:
    seconds = house.clock.seconds() - began
    form = house.answered(prepared.reply, prepared.registry, sent, seconds)
    if form is not None:
        who = prepared.client or client.address
        line = form.line(prepared.logged(form), asked.logged(form), now, who, sent, request_id, seconds)
        house.log.note(line)


class _Rest(Occupant):
    """
    The end of a body that the socket did not take at once.

    :param at: how many bytes of the body are written.
    :param note: told how many bytes were sent, when it is over.
    """

    def __init__(self, house: House, client: Client, prepared: Prepared, at: int, note: Callable[[int], None]) -> None:
        super().__init__(client.channel)
        self.peer = Peer(client.address, False)
        self.admitted = False
        self._house, self._note, self._at = house, note, at
        self._sender = Sender(house.clock, self, prepared.rest(at))

    def start(self) -> None:
        """Send it."""
        self._house.entered(self)
        self._sender.done.addCallback(self._over)
        self.occupy()
        self._sender.start()

    def _over(self, sent: int) -> None:
        self._house.left(self)
        self._note(self._at + sent)

    def abandon(self) -> None:
        """Time is up: the client sees a failed transfer."""
        abort_client(self)

    def connectionLost(self, reason: Failure) -> None:
        self._sender.client_left(reason)
