"""Answers that leave together: all of them, soon, to whoever is still there."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attrs import define, evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor, MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from regcache.access import Access, Peer
from regcache.config import Config
from regcache.flow.exchange import Connection as Upstream
from regcache.flow.exchange import Stale
from regcache.flow.leaving import Leaving
from regcache.http.messages import Stored
from regcache.hurry import Client
from regcache.kept import Kept
from regcache.reload import Reload
from regcache.reload import Running as Reloadable
from regcache.renewal import Renewal
from regcache.stamps import AlikeHeads
from regcache.store.space import Bounds
from regcache.testing import Page
from tests.origin import Origin
from tests.service import Running
from tests.test_express import NPM, request, said
from tests.test_offhand import ARTIFACT, stored
from tests.wire import Wire, answers

pytestmark = pytest.mark.fast


@define
class _Socket:
    is_open: bool = True


class _Client(Client):
    """Somebody who has asked; what was written to them."""

    def __init__(self, socket: Any = None) -> None:
        super().__init__(cast(Any, None), Peer("", False), socket)
        self.got: list[bytes] = []

    def write(self, head: bytes, body: bytes | Kept) -> int:
        assert isinstance(body, bytes)
        self.got.append(head + body)
        return len(body)


def asked(leaving: Leaving, *clients: _Client) -> None:
    """Each of them is to get its answer."""
    for number, one in enumerate(clients):
        one.give(leaving, b"%d" % number, b"!")


def test_they_leave_at_the_end_of_the_turn() -> None:
    """In the order in which they were found, once each; in the next turn as well."""
    clock, clients = Clock(), [_Client(_Socket()) for _ in range(5)]
    leaving = Leaving(clock)
    for turn in range(1, 4):
        asked(leaving, *clients)
        assert [len(one.got) for one in clients] == [turn - 1] * 5
        assert len(clock.getDelayedCalls()) == 1
        clock.advance(0)
        assert [one.got for one in clients] == [[b"%d!" % number] * turn for number in range(5)]
    assert clock.getDelayedCalls() == []


def test_no_more_than_some_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes after those is sent with the next ones."""
    monkeypatch.setattr("regcache.flow.together._MOST", 3)
    clock, clients = Clock(), [_Client(_Socket()) for _ in range(7)]
    asked(Leaving(clock), *clients)
    assert [len(one.got) for one in clients] == [1] * 6 + [0]
    clock.advance(0)
    assert [len(one.got) for one in clients] == [1] * 7


def test_who_is_gone_gets_nothing() -> None:
    """The others do."""
    clock, clients = Clock(), [_Client(_Socket()) for _ in range(3)]
    asked(Leaving(clock), *clients)
    clients[1].socket = cast(Any, _Socket(is_open=False))
    clock.advance(0)
    assert [len(one.got) for one in clients] == [1, 0, 1]


def test_a_bug_with_one_keeps_no_other() -> None:
    """It is told, and the others leave."""

    class Broken(_Client):
        def write(self, *_pieces: object) -> int:
            raise KeyError("x")

    clock, clients = Clock(), [_Client(_Socket()), Broken(_Socket()), _Client(_Socket())]
    asked(Leaving(clock), *clients)
    with capturedLogs() as told:
        clock.advance(0)
    assert [one.got for one in clients] == [[b"0!"], [], [b"2!"]]
    assert [event["log_failure"].type for event in told] == [KeyError]


def test_what_has_a_buffer_of_its_own_waits_for_nobody() -> None:
    """A connection by TLS, for one."""
    clock, client = Clock(), _Client()
    asked(Leaving(clock), client)
    assert client.got == [b"0!"]
    assert clock.getDelayedCalls() == []


class _Plain(Connection):
    """A connection of the service's, of which the test says when something comes."""

    def __init__(self, wire: Wire, socket: socket.socket) -> None:
        self.channel: Any = wire.site.buildProtocol(self.getPeer())
        super().__init__(socket, self.channel, MemoryReactor())
        self.connected = 1
        self.channel.makeConnection(self)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    getHost = getPeer

    def setTcpNoDelay(self, enabled: object) -> None:
        """Nothing: it is a pair of sockets of the system's own."""


@contextlib.contextmanager
def connected(wire: Wire) -> Iterator[tuple[Any, socket.socket]]:
    """A connection to a service in memory, and the client's end of it."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        theirs.settimeout(1)
        ours.setblocking(False)
        yield _Plain(wire, ours), theirs


@pytest.mark.parametrize("last", [NPM, (b"/generic/none", b"")])
def test_what_was_asked_first_is_answered_first(last: tuple[bytes, bytes]) -> None:
    """Also where a request waited for the one before it, and the next one comes when that is over: in the same turn."""
    wire = stored(Config())
    asked = request(ARTIFACT[0], ARTIFACT[1] + b"X: 1\r\n"), request(*last)
    bodies = [answers(said(wire, one))[0].body for one in (request(*ARTIFACT), asked[1])]
    with connected(wire) as (transport, client):
        wire.kit.upstream.hangs = True
        transport.channel.dataReceived(request(b"/generic/nowhere"))
        transport.channel.dataReceived(asked[0])
        wire.kit.upstream.release()
        assert [one.status for one in answers(client.recv(1 << 16))] == [404]
        transport.channel.dataReceived(asked[1])
        wire.kit.advance(0)
        assert [one.body for one in answers(client.recv(1 << 16))] == bodies


@pytest.mark.parametrize("end", ["drain", "reconsider"])
def test_what_was_asked_is_answered_before_the_end(end: str) -> None:
    """The service stops, or has other rules, when a request has come."""
    wire = stored(Config())
    with connected(wire) as (transport, client):
        transport.channel.dataReceived(request(ARTIFACT[0], ARTIFACT[1] + b"X: 1\r\n"))
        getattr(transport.channel, end)()
        assert [one.status for one in answers(client.recv(1 << 16))] == [200]


@contextlib.contextmanager
def some_connected(wire: Wire, number: int) -> Iterator[list[tuple[Any, socket.socket]]]:
    """So many connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(wire)) for _ in range(number)]


def test_what_comes_together_is_looked_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one look at the end of the turn, whatever becomes of each: hits, misses, and the same again."""
    wire = stored(Config())
    looks: list[list[str]] = []
    store = wire.house.cache.context.store
    glance = store.glance

    def counted(keys: Sequence[str]) -> list[Stored | None]:
        looks.append(list(keys))
        return glance(keys)

    monkeypatch.setattr(store, "glance", counted)
    targets = [ARTIFACT[0], b"/generic/nowhere", ARTIFACT[0], b"/generic/none"]
    with some_connected(wire, len(targets)) as pairs:
        for number, ((transport, _), target) in enumerate(zip(pairs, targets, strict=True)):
            transport.channel.dataReceived(request(target, ARTIFACT[1] + b"X: %d\r\n" % number))
        assert looks == []
        wire.kit.advance(0)
        assert looks == [[one[1:].decode() for one in targets]]
        wire.kit.advance(0)
        got = [answers(client.recv(1 << 16))[0].status for _, client in pairs]
        assert got == [200, 404, 200, 404]


@pytest.mark.parametrize("broken", ["glance", "read", "format", "note"])
def test_a_bug_with_one_request_is_no_others(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """All get what they would get one by one, and the log tells of it where nobody else would."""
    wire = stored(Config())
    store = wire.house.cache.context.store
    if broken == "note":
        calls = itertools.count()
        monkeypatch.setattr(store, "used", lambda *_: 1 // min(next(calls), 1))
    elif broken == "format":
        monkeypatch.setattr(AlikeHeads, "of", lambda *_: 1 // 0)
    else:
        monkeypatch.setattr(store, broken, lambda *_: 1 // 0)
    with some_connected(wire, 3) as pairs, capturedLogs() as told:
        for number, (transport, _) in enumerate(pairs):
            transport.channel.dataReceived(request(ARTIFACT[0], ARTIFACT[1] + b"X: %d\r\n" % number))
        wire.kit.advance(0)
        wire.kit.advance(0)
        assert [answers(client.recv(1 << 16))[0].status for _, client in pairs] == [200] * 3
    assert [event["log_failure"].type for event in told] == [ZeroDivisionError] * (broken == "note")


def reloaded(wire: Wire, **changes: Any) -> None:
    """The configuration is read again, and is another, before the turn is over."""
    other = cast(Any, SimpleNamespace(change=lambda _plan: None, reloading=bool, reloaded=bool))
    resource, clock = wire.site.resource, wire.kit.clock
    running = Reloadable(
        house=wire.house,
        bounds=Bounds(0, 0),
        outward=other,
        gate=wire.site.gate,
        clock=clock,
        in_thread=maybeDeferred,
        finish=resource.finish,
        reconsider=wire.site.reconsider,
    )
    wanted = evolve(wire.house.config, **changes)
    Reload(running, lambda: (wanted, []), Renewal(clock, list), other).ask()


@pytest.mark.parametrize("size", [4, 40_000])
def test_what_was_asked_by_other_rules_is_remembered_by_none(size: int) -> None:
    """Whoever was let in when they asked is answered; whoever asks the same by the new rules is not."""
    wire = stored(Config())
    wire.house.access = Access(Config(hosts=("cache.test",)))
    wire.kit.upstream.pages[f"{wire.registries['generic'].options.url}a"] = Page(body=b"a" * size)
    said(wire, request(b"/generic/a"))
    with some_connected(wire, 3) as pairs:

        def told() -> list[int]:
            for transport, _ in pairs:
                transport.channel.dataReceived(request(b"/generic/a").replace(b"localhost", b"cache.test"))
            if wire.house.config.hosts == ():
                reloaded(wire, hosts=("other.test",))
            wire.kit.advance(0)
            wire.kit.advance(0)
            return [answers(client.recv(1 << 17))[0].status for _, client in pairs]

        assert told() == [200] * 3
        assert wire.house.config.hosts == ("other.test",)
        assert told() == [421] * 3


def test_who_has_left_asks_for_nothing() -> None:
    """A connection that ends in the turn in which its request came."""
    wire = stored(Config())
    with some_connected(wire, 2) as ((gone, _), (there, client)):
        for number, one in enumerate((gone, there)):
            one.channel.dataReceived(request(b"/generic/nowhere-%d" % number, ARTIFACT[1]))
        gone.channel.connectionLost(Failure(ConnectionDone()))
        wire.kit.advance(0)
        wire.kit.advance(0)
        assert [answers(client.recv(1 << 16))[0].status] == [404]
    assert [url[-9:] for url in wire.kit.upstream.urls() if "nowhere" in url] == ["nowhere-1"]


def test_an_answer_is_remembered_for_who_asked_for_it() -> None:
    """Also where others come in the turn in which it is asked for, and are read in the ordinary way."""
    wire = stored(Config())
    missing, found = request(b"/generic/nowhere", ARTIFACT[1]), request(*ARTIFACT)
    with connected(wire) as (transport, client):

        def told(*asks: bytes) -> list[int]:
            for one in asks:
                transport.channel.dataReceived(one)
            wire.kit.advance(0)
            wire.kit.advance(0)
            # What was read in the ordinary way waits for the reactor.
            transport.doWrite()
            return [one.status for one in answers(client.recv(1 << 16))]

        assert told(missing) == [404]
        assert told(missing, found + found) == [404, 200, 200]
        assert told(missing) == [404]
        assert told(found) == [200]


def test_what_is_no_hit_leaves_with_others() -> None:
    """At the end of the turn in which it came."""
    wire = stored(Config())
    with connected(wire) as (first, ours), connected(wire) as (second, theirs):
        wire.kit.upstream.hangs = True
        for number, one in enumerate((first, second)):
            one.channel.dataReceived(request(b"/generic/nowhere-%d" % number))
        wire.kit.advance(0)
        wire.kit.upstream.release()
        assert len(wire.site.resource.leaving) == 2
        wire.kit.advance(0)
        assert [answers(one.recv(1 << 16))[0].status for one in (ours, theirs)] == [404, 404]


@pytest.mark.parametrize("end", ["drain", "reconsider", "stop"])
def test_the_last_answer_leaves_at_once(end: str) -> None:
    """The service stops, or has other rules, while it is asked for."""
    wire = stored(Config())
    with connected(wire) as (transport, client):
        wire.kit.upstream.hangs = True
        transport.channel.dataReceived(request(b"/generic/nowhere"))
        wire.kit.advance(0)
        if end == "stop":
            wire.house.running = lambda: False
        else:
            getattr(transport.channel, end)()
        wire.kit.upstream.release()
        assert [one.status for one in answers(client.recv(1 << 16))] == [404]
        assert bool(transport.disconnecting) is (end != "reconsider")


class _Owner:
    """Keeps a connection to a registry."""

    def __init__(self, clock: Clock) -> None:
        self.leaving = Leaving(clock)

    def opened(self, connection: Upstream) -> None:
        """One."""

    def closed(self, connection: Upstream) -> None:
        """None."""

    def keep(self, connection: Upstream) -> bool:
        """It is wanted again."""
        return connection is not None


@contextlib.contextmanager
def kept(clock: Clock) -> Iterator[tuple[Upstream, socket.socket]]:
    """A connection to a registry that has served before, and the registry's end of it."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        theirs.settimeout(1)
        ours.setblocking(False)
        made = Upstream(("http", "a", 80), _Owner(clock), "a")
        transport: Any = Connection(ours, made, MemoryReactorClock())
        transport.connected, transport.setTcpNoDelay = 1, bool
        made.makeConnection(transport)  # type: ignore[no-untyped-call]
        made.kept = True
        yield made, theirs


def test_requests_leave_together() -> None:
    """Over connections that have served before."""
    clock = Clock()
    with kept(clock) as (upstream, registry):
        answer = upstream.ask("GET", b"GET / HTTP/1.1\r\n\r\n")
        registry.setblocking(False)
        with pytest.raises(BlockingIOError):
            registry.recv(99)
        clock.advance(0)
        assert registry.recv(99) == b"GET / HTTP/1.1\r\n\r\n"
        upstream.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert answer.called


def test_what_comes_before_a_request_has_left_is_no_answer() -> None:
    """The connection is not used, and the request is sent again over another one."""
    clock = Clock()
    with kept(clock) as (upstream, registry):
        answer = upstream.ask("GET", b"GET / HTTP/1.1\r\n\r\n")
        upstream.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        upstream.connectionLost(Failure(ConnectionDone()))
        clock.advance(0)
        found = list[Any]()
        answer.addErrback(found.append)
        assert [failure.type for failure in found] == [Stale]
        registry.setblocking(False)
        with pytest.raises(BlockingIOError):
            registry.recv(99)


@pytest.mark.parametrize("came", ["HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", ""])
@pytest.mark.parametrize("read", [False, True])
def test_nothing_leaves_to_who_has_said_something_unasked(came: str, read: bool) -> None:
    """
    Or has ended, in the turn in which the request is to leave: whether that was read by then, or is still to be read
    and would be taken for the response.
    """
    clock = Clock()
    with kept(clock) as (upstream, registry):
        answer = upstream.ask("GET", b"GET / HTTP/1.1\r\n\r\n")
        found = list[Any]()
        answer.addErrback(found.append)
        registry.sendall(came.encode())
        if not came:
            registry.shutdown(socket.SHUT_WR)
        transport: Any = upstream.transport
        if read:
            ended = transport.doRead()
            if ended is not None:
                transport.connectionLost(Failure(ended))
        clock.advance(0)
        transport.reactor.advance(0)
        assert [failure.type for failure in found] == [Stale]
        # The connection ended without a byte, in the way that leaves nothing unsaid.
        with contextlib.suppress(ConnectionResetError):
            assert registry.recv(99) == b""


def test_a_request_that_nobody_waits_for_any_more_does_not_leave() -> None:
    """It was given up in the turn in which it was to leave."""
    clock = Clock()
    with kept(clock) as (upstream, registry):
        answer = upstream.ask("GET", b"GET / HTTP/1.1\r\n\r\n")
        answer.addErrback(lambda _: None)
        answer.cancel()
        clock.advance(0)
        registry.setblocking(False)
        with pytest.raises(BlockingIOError):
            registry.recv(99)


def test_who_has_ended_what_they_send_is_answered(tmp_path: Path) -> None:
    """Whichever way what is stored, or known not to be there, is answered: their end is read in the next turn."""
    origin = Origin()
    bodies = {"small": b"a" * 4, "large": b"a" * 40_000}
    for name, body in bodies.items():
        origin.add(f"/{name}", body)
    service = Running(tmp_path, origin, tables=f'[registries.files]\ntype = "generic"\nurl = "{origin.url}"\n')
    for name in bodies:
        service.until(f"files/{name}", "HIT")
    missing = service.get("files/none")
    assert missing[0] == 404
    host, port = service.url.split("/")[2].split(":")
    with contextlib.ExitStack() as stack:
        os.kill(service.process.pid, signal.SIGSTOP)
        clients = {
            name: stack.enter_context(socket.create_connection((host, int(port)), 30)) for name in (*bodies, "none")
        }
        for name, client in clients.items():
            client.sendall(f"GET /files/{name} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
        os.kill(service.process.pid, signal.SIGCONT)
        for name, client in clients.items():
            with client.makefile("rb") as all_of_it:
                found = answers(all_of_it.read())
            assert [one.body for one in found] == [bodies.get(name, missing[2])], name
    service.stop()
    origin.close()


def test_many_who_ask_in_the_same_turn_get_what_they_asked_for(tmp_path: Path) -> None:
    """Each its own, though one of them has gone by then."""
    origin = Origin()
    for number in range(20):
        origin.add_tarball(f"p{number}", "1.0.0")
    service = Running(tmp_path, origin)
    paths = [f"npm/p{number}/-/p{number}-1.0.0.tgz" for number in range(20)]
    for number in range(20):
        service.get(f"npm/p{number}")
    bodies = [service.until(path, "HIT")[2] for path in paths]
    authority = service.url.split("/")[2]
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(authority.rpartition(":")[2]))
        clients = [stack.enter_context(socket.create_connection(address, 30)) for _ in paths]
        for _ in range(3):
            os.kill(service.process.pid, signal.SIGSTOP)
            for client, path in zip(clients, paths, strict=True):
                client.sendall(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            clients.pop(3).close()
            paths.pop(3)
            del bodies[3]
            os.kill(service.process.pid, signal.SIGCONT)
            for client, body in zip(clients, bodies, strict=True):
                answer = b""
                while not answer.endswith(b"\r\n\r\n" + body):
                    more = client.recv(1 << 16)
                    assert more
                    answer += more
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"\r\nX-Cache: HIT\r\n" in answer
    service.stop()
    origin.close()
