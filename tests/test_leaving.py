"""Answers that leave together: all of them, soon, to whoever is still there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from regcache.leaving import Leaving
from tests.origin import Origin
from tests.service import Running

pytestmark = pytest.mark.fast


@define
class _Socket:
    is_open: bool = True


@define(eq=False)
class _Client:
    """Somebody who has asked; what was written to them."""

    socket: _Socket | None = field(factory=_Socket)
    got: list[bytes] = field(factory=list)

    def write(self, head: bytes, body: bytes) -> int:
        self.got.append(head + body)
        return len(body)


def asked(leaving: Leaving, *clients: Any) -> None:
    """Each of them is to get its answer."""
    for number, one in enumerate(clients):
        leaving.add(one, b"%d" % number, b"!")


def test_they_leave_at_the_end_of_the_turn() -> None:
    """In the order in which they were found, once each; in the next turn as well."""
    clock, clients = Clock(), [_Client() for _ in range(5)]
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
    monkeypatch.setattr("regcache.leaving._MOST", 3)
    clock, clients = Clock(), [_Client() for _ in range(7)]
    asked(Leaving(clock), *clients)
    assert [len(one.got) for one in clients] == [1] * 6 + [0]
    clock.advance(0)
    assert [len(one.got) for one in clients] == [1] * 7


def test_who_is_gone_gets_nothing() -> None:
    """The others do."""
    clock, clients = Clock(), [_Client() for _ in range(3)]
    asked(Leaving(clock), *clients)
    clients[1].socket = _Socket(is_open=False)
    clock.advance(0)
    assert [len(one.got) for one in clients] == [1, 0, 1]


def test_what_has_a_buffer_of_its_own_waits_for_nobody() -> None:
    """A connection by TLS, for one."""
    clock, client = Clock(), _Client(None)
    asked(Leaving(clock), client)
    assert client.got == [b"0!"]
    assert clock.getDelayedCalls() == []


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
