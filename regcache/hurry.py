"""Giving an answer that is ready: in one write where the socket takes it, the rest of it at the client's own pace."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from regcache.access import Peer, spelled
from regcache.express import Prepared, Ready
from regcache.flow.leaving import Leaving
from regcache.flow.sending import Sender, abort_client
from regcache.flow.sockets import PlainSocket
from regcache.house import House
from regcache.kept import Kept
from regcache.lean import Occupant

__all__ = ["Client", "give"]

_END = b"\r\n\r\n"
#: Bytes that may wait in the transport of a client, where it takes no more for now.
_MOST_WAITING = 1 << 17
#: A body of fewer bytes is copied behind its head: one piece takes the kernel less than two.
_SMALL = 1 << 13


@define(eq=False)
class Client:
    """
    Who asks on a connection: known, as :class:`regcache.express.Place` is, once something has come.

    :ivar peer: whose it is; the address is empty for a UNIX socket.
    :ivar socket: its socket, where what is written there goes out as it is.
    :ivar waits: whether an answer is to be found, or to leave, at the end of this turn: nothing else may go there
        before, nor may that be closed. Once the client is gone nothing is.
    """

    channel: HTTPChannel
    peer: Peer
    socket: PlainSocket | None
    waits: bool = field(default=False, init=False)

    @classmethod
    def of(cls, channel: HTTPChannel, host: str) -> Client:
        """
        That of a connection.

        :param host: its peer's address, as the socket has it; empty for a UNIX socket.
        """
        return cls(channel, Peer(spelled(host), False), PlainSocket.of(channel))

    def give(self, leaving: Leaving, head: bytes, body: bytes) -> None:
        """
        Have an answer sent with others: what the socket does not take at once waits in the transport.

        What came while another request was answered is read at the end of that, and more may come in the same turn.
        """
        if self.socket is None:
            # It has a buffer of its own.
            self.write(head, body)
        else:
            self.waits = True
            leaving.add(self, head, body)

    def leave(self, *pieces: bytes) -> None:
        """Send what waits, if the client is still there."""
        there, self.waits = self.waits, False
        if there and (self.socket is None or self.socket.is_open):
            self.write(*pieces)

    def write(self, head: bytes, body: bytes | Kept) -> int:
        """
        Write a head and as much of its body as is taken at once.

        :returns: how many bytes of the body need not be cared for any more.
        """
        socket, size = self.socket, len(body)
        if socket is None:
            taken = 0
        elif isinstance(body, Kept):
            taken = body.put(socket, head)
        else:
            # Without a turn through the reactor, and without a copy of a body that is not small.
            taken = socket.put(head + body) if size < _SMALL else socket.put(head, body)
        return size if taken == len(head) + size else self._write_rest(head, body, taken)

    def _write_rest(self, head: bytes, body: bytes | Kept, taken: int) -> int:
        """The same where so many bytes of both are taken; by the transport, if that is not too much."""
        size = len(body)
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


def give(house: House, client: Client, ready: Ready, now: float, began: float, request_id: str) -> None:
    """
    Answer the request that has just come on a connection on which nothing else is under way.

    :param now: the time by the wall clock.
    :param began: the time by the monotonic clock.
    :param request_id: what it is called.
    """
    prepared = ready.prepared
    house.cache.context.store.used(prepared.standing.used, now)
    written = client.write(ready.said + request_id.encode() + _END, prepared.body)
    if written < prepared.size:
        note = partial(_note, house, client, ready, began, request_id)
        _Rest(house, client, prepared, written, note).start()
    else:
        _note(house, client, ready, began, request_id, written, now)


def _note(house: House, client: Client, ready: Ready, began: float, request_id: str, sent: int, now: float) -> None:
    """Such a request is over at that time by the wall clock."""
    prepared, seconds = ready.prepared, house.clock.seconds() - began
    form = house.answered(prepared.reply, prepared.answers, sent, seconds)
    if form is not None:
        house.log.note(ready.line(form, client.peer.address, now, sent, request_id, seconds))


class _Rest(Occupant):
    """
    The end of a body that the socket did not take at once.

    :param at: how many bytes of the body are written.
    :param note: told how many bytes were sent, and when it was over.
    """

    def __init__(
        self, house: House, client: Client, prepared: Prepared, at: int, note: Callable[[int, float], None]
    ) -> None:
        super().__init__(client.channel)
        self.peer = client.peer
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
        self._note(self._at + sent, self._house.now())

    def abandon(self) -> None:
        """Time is up: the client sees a failed transfer."""
        abort_client(self)

    def connectionLost(self, reason: Failure) -> None:
        self._sender.client_left(reason)
