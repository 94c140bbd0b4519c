"""What the service manager is told, by datagrams on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from regcache.supervised import Supervisor
from tests.origin import Origin
from tests.service import Running
from tests.test_activation import setting


@contextmanager
def manager(place: str) -> Iterator[socket.socket]:
    """A service manager's socket; an address that begins with a zero byte is abstract."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(place)
        made.settimeout(20)
        yield made


def told(made: socket.socket) -> list[str]:
    """What has been told since, of which nothing is on its way."""
    found = []
    made.setblocking(False)
    try:
        while True:
            found.append(made.recv(100).decode())
    except BlockingIOError:
        return found


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_alive_stopping(abstract: bool, tmp_path: Path) -> None:
    """Ready once the reactor turns, alive twice in the watchdog's interval until the end; then no timer is left."""
    name = f"regcache-{os.getpid()}"
    place, said = ("\0" + name, "@" + name) if abstract else (str(tmp_path / "notify"),) * 2
    clock = Clock()
    watched = {"NOTIFY_SOCKET": said, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    with manager(place) as made:
        supervisor = Supervisor(clock, watched)
        supervisor.start()
        assert told(made) == []
        clock.advance(0)
        assert told(made) == ["READY=1"]
        clock.pump([1.5, 1.5])
        assert told(made) == ["WATCHDOG=1"] * 2
        supervisor.stopping()
        clock.advance(1.5)
        assert told(made) == ["STOPPING=1", "WATCHDOG=1"]
        supervisor.stop()
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "watched",
    [{}, {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
)
def test_without_a_watchdog(watched: dict[str, str], tmp_path: Path) -> None:
    """Nobody waits for this process's word, or never said how long: it says that it is ready, and no more."""
    clock = Clock()
    with manager(str(tmp_path / "notify")) as made:
        supervisor = Supervisor(clock, {"NOTIFY_SOCKET": str(tmp_path / "notify"), **watched})
        supervisor.start()
        clock.advance(0)
        assert clock.getDelayedCalls() == []
        assert told(made) == ["READY=1"]


def test_reloading(tmp_path: Path) -> None:
    """It is told by when it began and that it is over; before it is ready that alone counts, and in the end the end."""
    clock = Clock()
    with manager(str(tmp_path / "notify")) as made:
        supervisor = Supervisor(clock, {"NOTIFY_SOCKET": str(tmp_path / "notify")}, lambda: 5_000_999)
        supervisor.start()
        supervisor.reloading()
        supervisor.reloaded()
        assert told(made) == []
        clock.advance(0)
        supervisor.reloading()
        supervisor.reloaded()
        assert told(made) == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=5000", "READY=1"]
        supervisor.reloading()
        supervisor.stopping()
        supervisor.reloaded()
        assert told(made)[1:] == ["STOPPING=1"]


def test_nobody_wants_to_know() -> None:
    """Without a service manager there is nothing to do."""
    clock = Clock()
    supervisor = Supervisor(clock, {"WATCHDOG_USEC": "3000000"})
    supervisor.start()
    assert clock.getDelayedCalls() == []
    supervisor.stopping()
    supervisor.stop()


def test_a_manager_that_is_gone(tmp_path: Path) -> None:
    """It is said once, and the service goes on."""
    clock = Clock()
    place = str(tmp_path / "none")
    with capturedLogs() as logged:
        supervisor = Supervisor(clock, {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "2000000"})
        supervisor.start()
        clock.pump([0, 1, 1, 1])
        supervisor.stopping()
        supervisor.stop()
    said = [formatEvent(event) for event in logged]
    assert said == ["NOTIFY_SOCKET: the service manager cannot be told READY=1: No such file or directory."]


def test_a_real_service_tells(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: ready, then alive, and at SIGTERM stopping, in this order."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with manager(str(tmp_path / "notify")) as made:
        service = Running(tmp_path, origin)
        try:
            assert [made.recv(100), made.recv(100), made.recv(100)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            service.stop()
            rest = told(made)
        finally:
            service.kill()
    assert rest.count("STOPPING=1") == 1
    assert set(rest) <= {"STOPPING=1", "WATCHDOG=1"}


def test_the_unit_waits_for_the_word() -> None:
    """It is started when it says so, and watched; a watchdog's end is a failure, after which it starts again."""
    assert setting("Type") == "notify"
    assert int(setting("WatchdogSec")) >= 10
    assert setting("Restart") == "on-failure"
