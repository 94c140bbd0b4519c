"""A port's patience, by a clock of the test's own."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

from regcache.lean import Occupant
from regcache.site import CacheSite
from regcache.web import RegCacheResource


class Nothing:
    """In place of the cache: no request is to reach it."""

    def judge(self, _request: object) -> None:
        """Everybody may ask."""

    def place(self, _channel: object, _host: str) -> None:
        """Nothing is ready."""


def connected(transport: StringTransportWithDisconnection | None = None) -> tuple[Any, Any, Clock]:
    """A connection, its transport, and the clock it goes by."""
    clock = Clock()
    site = CacheSite(cast(RegCacheResource, Nothing()), clock)
    channel: Any = site.buildProtocol(None)
    transport = transport or StringTransportWithDisconnection()
    setattr(transport, "protocol", channel)  # noqa: B010
    channel.makeConnection(transport)
    return channel, transport, clock


@pytest.mark.parametrize(
    "drops",
    [[b"G"], [b"GET / HTTP/1.1\r\n", b"X-Filler: x\r\n"], [b"POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n", b"x"]],
)
def test_a_request_that_trickles_ends_in_time(drops: list[bytes]) -> None:
    """However often a little more comes."""
    channel, transport, clock = connected()
    channel.dataReceived(drops[0])
    for _ in range(5):
        clock.advance(9)
        channel.dataReceived(drops[-1])
    assert transport.value() == b""
    clock.advance(9)
    channel.dataReceived(drops[-1])
    clock.advance(9)
    assert transport.value().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    clock.pump([5, 20])
    assert not transport.connected


def test_an_idle_connection_ends_in_time() -> None:
    """Without a word, since nothing was asked."""
    _, transport, clock = connected()
    clock.advance(61)
    assert not transport.connected
    assert transport.value() == b""


class Slow(Occupant):
    """What is answered for a long time."""

    def connectionLost(self, reason: Failure) -> None:
        """Nothing: it holds nothing."""


def test_a_connection_is_not_idle_while_it_is_answered() -> None:
    """However long that takes; then the time begins anew."""
    channel, transport, clock = connected()
    clock.advance(50)
    slow = Slow(channel)
    slow.occupy()
    clock.advance(500)
    assert transport.connected
    slow.finish()
    clock.advance(59)
    assert transport.connected
    soon = Slow(channel)
    soon.occupy()
    soon.finish()
    clock.advance(59)
    assert transport.connected
    clock.advance(2)
    assert not transport.connected


class HalfClosing(StringTransportWithDisconnection):
    """As a socket, whose other direction stays open when one is closed."""

    def loseWriteConnection(self) -> None:
        """The client may still send."""


@pytest.mark.parametrize(
    "pieces",
    [
        [b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"800001\r\n" + bytes(0x800001) + b"\r\n0\r\n\r\n",
        ],
        [b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"],
    ],
)
def test_a_refused_client_does_not_stay(pieces: list[bytes]) -> None:
    """Also one whose request had come whole, and that does not close the connection by itself."""
    channel, transport, clock = connected(HalfClosing())  # type: ignore[no-untyped-call]
    for piece in pieces:
        channel.dataReceived(piece)
    assert transport.value().startswith(b"HTTP/1.1 4")
    assert transport.connected
    clock.pump([6, 20])
    assert not transport.connected


def test_a_port_on_which_nothing_happens_does_nothing() -> None:
    """It looks at no clock."""
    clock = Clock()
    site: Any = CacheSite(cast(RegCacheResource, Nothing()), clock)
    site.doStart()
    assert clock.getDelayedCalls() == []
    site.doStop()
