"""Giving an answer that is ready: in one write where the socket takes it, the rest of it at the client's own pace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from regcache.access import Peer
from regcache.express import Prepared
from regcache.flow.reply import cache_status
from regcache.flow.sending import Sender, abort_client
from regcache.flow.sockets import ClientSocket
from regcache.house import House
from regcache.lean import Occupant
from regcache.lines import Line, named_in, told_in

__all__ = ["give"]

#: Bytes that may wait in the transport of a client, where it takes no more for now.
_MOST_WAITING = 1 << 17


def give(house: House, channel: HTTPChannel, prepared: Prepared, now: float, asked: bytes, trusted: bool) -> None:
    """
    Answer the request that has just come on a connection on which nothing else is under way.

    :param now: the wall clock, in seconds.
    :param asked: the head of the request.
    :param trusted: whether it may say itself what it is called.
    """
    began = house.clock.seconds()
    request_id = (trusted and named_in(asked)) or house.request_id()
    head, body = prepared.head(now, request_id), prepared.body
    house.cache.context.store.used(prepared.standing.used, now)

    def note(sent: int) -> None:
        seconds = house.clock.seconds() - began

        def line() -> Line:
            referer, agent = told_in(asked)
            return Line(
                when=now,
                client=prepared.client or _address(channel),
                method=prepared.method,
                target=prepared.target,
                status=prepared.reply.status,
                sent=sent,
                referer=referer,
                agent=agent,
                request_id=request_id,
                registry=prepared.registry,
                package=prepared.package,
                outcome=prepared.reply.how.value.lower(),
                cache_status=cache_status(prepared.reply),
                seconds=seconds,
            )

        house.note(prepared.reply, prepared.registry, sent, seconds, line)

    taken = _written(channel, head, body)
    if taken < len(body):
        _Rest(house, channel, prepared, taken, note).start()
    else:
        note(len(body))


def _address(channel: HTTPChannel) -> str:
    return getattr(channel.getPeer(), "host", None) or ""


def _written(channel: HTTPChannel, head: bytes, body: bytes) -> int:
    """
    Write a head and as much of its body as is taken at once.

    :returns: how many bytes of the body need not be cared for any more.
    """
    # Without a turn through the reactor, and without a copy of the body.
    socket = ClientSocket.of(channel)
    taken = socket.put(head, body) if socket is not None and socket.is_clear else 0
    transport: Any = channel.transport
    if taken < len(head):
        transport.write(head[taken:])
    gone = max(taken - len(head), 0)
    if len(body) - gone <= _MOST_WAITING:
        if gone < len(body):
            transport.write(body[gone:])
        return len(body)
    return gone


class _Rest(Occupant):
    """
    The end of a body that the socket did not take at once.

    :param at: how many bytes of the body are written.
    :param note: told how many bytes were sent, when it is over.
    """

    def __init__(
        self, house: House, channel: HTTPChannel, prepared: Prepared, at: int, note: Callable[[int], None]
    ) -> None:
        super().__init__(channel)
        self.peer = Peer(_address(channel), False)
        self.admitted = False
        self._house, self._note, self._at = house, note, at
        rest = evolve(prepared.reply, body=prepared.body, start=at, stop=len(prepared.body))
        self._sender = Sender(house.clock, self, rest)

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
