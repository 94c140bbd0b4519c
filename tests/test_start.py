"""How the service starts, and how it does not: what ``twistd`` makes of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet import endpoints, reactor

from regcache.options import Options
from regcache.tap import makeService
from tests.service import Running

TWISTD = str(Path(sys.executable).with_name("twistd"))
LOOPBACK = "tcp:0:interface=127.0.0.1"


def options(directory: Path, *more: str) -> list[str]:
    """The options of a service with a cache in that directory."""
    return ["regcache", "--cache-dir", str(directory / "cache"), *more]


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``twistd`` says, and how it ends."""
    return subprocess.run([TWISTD, *arguments], capture_output=True, text=True, timeout=60)


def test_a_failure_in_the_background_is_told_to_who_waits(start: Callable[..., Running], tmp_path: Path) -> None:
    """Whoever starts it in the background is told why it did not, and it leaves no pidfile."""
    start()
    log, pidfile = tmp_path / "log", tmp_path / "pid"
    ended = started(f"--logfile={log}", f"--pidfile={pidfile}", *options(tmp_path, "--listen", LOOPBACK))
    assert ended.returncode == 1
    assert "The cache directory /" in ended.stderr
    assert "is in use by process" in log.read_text()
    assert "Traceback" not in ended.stderr + log.read_text()
    assert not pidfile.exists()


def test_only_the_ports_are_opened_with_privileges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``twistd --uid`` the cache belongs to that user: nothing of it is made before the process does."""
    opened: list[str] = []

    class Endpoint:
        def listen(self, _factory: object) -> None:
            raise OSError("as far as it goes here")

    def endpoint(_reactor: object, text: str) -> Endpoint:
        opened.append(text)
        return Endpoint()

    monkeypatch.setattr(endpoints, "serverFromString", endpoint)
    monkeypatch.setattr(reactor, "addSystemEventTrigger", lambda *_: None)
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)
    parsed = Options()
    parsed.parseOptions(options(tmp_path, "--listen", LOOPBACK)[1:])
    with pytest.raises(SystemExit):
        makeService(parsed).privilegedStartService()
    assert opened
    assert not (tmp_path / "cache").exists()


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    """What is no socket is somebody's file: it is said to be in the way."""
    path = tmp_path / "precious"
    path.write_text("text")
    ended = started("-n", "--pidfile=", *options(tmp_path, "--listen", f"unix:{path}"))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"regcache: unix:{path} cannot be listened on: ")
    assert path.read_text() == "text"


def test_a_socket_of_a_service_that_was_killed_makes_room(start: Callable[..., Running], tmp_path: Path) -> None:
    """Also if the number of its process is in use again, which Twisted's lock beside the socket goes by."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    Path(f"{path}.lock").symlink_to(str(os.getpid()))
    service = start("--listen", f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(timeout=20)
