"""From a reply to one client, with a request and a body under the test's control."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from regcache.errors import CutShort
from regcache.flow.reply import Reply
from regcache.flow.sending import Sender
from regcache.flow.sockets import PlainSocket
from regcache.http.messages import Headers
from regcache.interfaces import IBody, ISendable, IStoredBody


@define(eq=False)
class Client:
    """What a request is to a sender: takes bytes, and says when it is behind."""

    got: bytearray = field(factory=bytearray)
    finished: bool = False
    aborted: bool = False
    producer: Any = None
    pause_at: int = 1 << 30

    @property
    def channel(self) -> Client:
        return self

    @property
    def transport(self) -> Client:
        return self

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.got += data
        if len(self.got) >= self.pause_at:
            self.pause_at = 1 << 30
            self.producer.pauseProducing()

    def finish(self) -> None:
        assert self.producer is None
        self.finished = True

    def abortConnection(self) -> None:
        self.aborted = True


@implementer(IBody)
@define(eq=False)
class Body:
    """A body whose pieces come as the test says: at once, on a fired Deferred, or later."""

    pieces: list[Any]
    size: int | None = None
    closed: int = 0

    def read(self, offset: int, length: int) -> Any:
        del offset, length
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.closed += 1


def sending(body: Any, **more: Any) -> tuple[Sender, Client, Clock]:
    """A sender that has started."""
    client, clock = Client(**more), Clock()
    sender = Sender(clock, client, Reply(status=200, headers=Headers(), body=body))
    sender.start()
    return sender, client, clock


@pytest.mark.parametrize(
    "pieces",
    [
        [b"ab", b"cd"],
        [succeed(b"ab"), succeed(b"cd")],
        [succeed(b"a"), b"b", succeed(b"c"), b"d"],
        [b"abcd"],
    ],
)
def test_however_the_pieces_come(pieces: list[Any]) -> None:
    """At once or on a Deferred that has fired already, all are sent and the response ends."""
    sender, client, _ = sending(Body(list(pieces), size=4))
    assert (bytes(client.got), client.finished) == (b"abcd", True)
    assert sender.sent == 4


def test_pieces_that_come_later() -> None:
    """The response goes on when they do, and not while the client is behind."""
    later: Deferred[bytes] = Deferred()
    body = Body([b"ab", later, b"ef"], size=6)
    _, client, _ = sending(body, pause_at=4)
    assert bytes(client.got) == b"ab"
    later.callback(b"cd")
    assert (bytes(client.got), client.finished) == (b"abcd", False)
    client.producer.resumeProducing()
    assert (bytes(client.got), client.finished, body.closed) == (b"abcdef", True, 1)


def test_a_client_that_takes_all_lets_others_have_their_turn() -> None:
    """However fast it is; and if it leaves meanwhile, nothing is left to do."""
    body = bytes(5 << 20)
    _, client, clock = sending(body)
    assert (len(client.got), client.finished) == (2 << 20, False)
    clock.advance(0)
    assert (len(client.got), client.finished) == (5 << 20, True)
    sender, client, clock = sending(body)
    client.producer.pauseProducing()
    client.producer.resumeProducing()
    assert len(client.got) == 2 << 20
    client.producer.pauseProducing()
    clock.advance(0)
    assert len(client.got) == 2 << 20
    client.producer.resumeProducing()
    sender.client_left(None)
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("broken", [[b"ab", fail(CutShort("x"))], [b"ab"]])
def test_a_body_that_fails_ends_as_a_failed_transfer(broken: list[Any]) -> None:
    """Never as a finished response: neither when it says so nor when bytes are missing."""
    body = Body(broken, size=4)
    _, client, _ = sending(body)
    assert (client.finished, client.aborted, body.closed) == (False, True, 1)


def test_a_client_that_takes_nothing_is_given_up() -> None:
    """After a while; one that goes on in time is not."""
    body = Body([b"ab", b"cd"], size=4)
    _, client, clock = sending(body, pause_at=1)
    clock.advance(299)
    assert not client.aborted
    clock.advance(2)
    assert (client.aborted, body.closed) == (True, 1)
    _, client, clock = sending(Body([b"ab", b"cd"], size=4), pause_at=1)
    clock.advance(299)
    client.producer.resumeProducing()
    assert client.finished
    assert clock.getDelayedCalls() == []


def test_a_client_that_leaves() -> None:
    """The body is closed, its reading cancelled, and what comes afterwards goes nowhere."""
    cancelled: list[Any] = []
    later: Deferred[bytes] = Deferred(cancelled.append)
    body = Body([b"ab", later], size=4)
    sender, client, clock = sending(body)
    sender.client_left("gone")
    sender.stopProducing()
    assert (body.closed, len(cancelled), client.finished) == (1, 1, False)
    assert clock.getDelayedCalls() == []


@implementer(IBody, ISendable)
@define(eq=False)
class Growing(Body):
    """A body that goes from where it is to the socket, as far as it has come."""

    def send(self, fd: int, offset: int, length: int) -> Any:
        del fd, offset, length
        return self.pieces.pop(0)


@implementer(IBody, IStoredBody)
@define(eq=False)
class Stored(Growing):
    """The same that is whole."""

    def is_warm(self, offset: int, length: int) -> bool:
        raise NotImplementedError

    def again(self) -> IBody:
        raise NotImplementedError


@define(eq=False)
class Socket:
    """A client's socket that is clear."""

    waits: int = 0
    is_clear: bool = True
    fd: int = 0

    def wait(self) -> None:
        self.waits += 1


@pytest.mark.parametrize(("kind", "waits"), [(Growing, [0, 1]), (Stored, [1, 1])])
def test_who_has_all_there_is_waits_for_more(kind: Any, waits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a body that grows, and not for its socket, which it waits for once that takes nothing."""
    to, more = Socket(), Deferred[None]()
    monkeypatch.setattr(PlainSocket, "of", lambda _: to)
    body = kind([100_000, more, 0], size=1 << 20)
    sender, client, _ = sending(body)
    assert (to.waits, sender.sent) == (waits[0], 100_000)
    more.callback(None)
    assert to.waits == waits[1]
    assert not client.aborted


def test_a_client_that_takes_what_grows_as_fast_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets the others have their turn all the same."""
    to = Socket()
    monkeypatch.setattr(PlainSocket, "of", lambda _: to)
    sender, client, _ = sending(Growing([3 << 20, 1 << 20, 3 << 20, 1 << 20], size=1 << 30))
    assert (to.waits, sender.sent) == (1, 4 << 20)
    client.producer.resumeProducing()
    assert (to.waits, sender.sent) == (2, 8 << 20)
