"""How the service starts, and how it does not: what ``twistd`` makes of it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import endpoints, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed

from regcache.options import Options
from regcache.ports import refused
from regcache.tap import makeService
from tests.service import Running
from tests.stores import let_go, opened

TWISTD = str(Path(sys.executable).with_name("twistd"))
LOOPBACK = "tcp:0:interface=127.0.0.1"


def options(directory: Path, *more: str) -> list[str]:
    """The options of a service with a cache in that directory."""
    return ["regcache", "--cache-dir", str(directory / "cache"), *more]


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``twistd`` says, and how it ends; also what it left in the background has ended then."""
    reading, writing = os.pipe()
    try:
        command = [TWISTD, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, pass_fds=[writing])
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b""
    return ended


def test_a_failure_in_the_background_is_told_to_who_waits(tmp_path: Path) -> None:
    """Whoever starts it in the background is told why it did not, and it leaves no pidfile."""
    holder = opened(tmp_path / "cache")
    log, pidfile = tmp_path / "log", tmp_path / "pid"
    ended = started(f"--logfile={log}", f"--pidfile={pidfile}", *options(tmp_path, "--listen", LOOPBACK))
    assert ended.returncode == 1
    assert "The cache directory /" in ended.stderr
    assert "is in use by process" in log.read_text()
    assert "Traceback" not in ended.stderr + log.read_text()
    assert not pidfile.exists()
    let_go(holder)


class Endpoint:
    """A place to listen at, where that does not work."""

    def __init__(self, error: OSError | None) -> None:
        self._error = error

    def listen(self, _factory: object) -> Deferred[Any]:
        """Fail, or do nothing."""
        return succeed(Listening()) if self._error is None else fail(self._error)


class Listening:
    """A port that is nowhere."""

    def getHost(self) -> IPv4Address:
        """As if it were."""
        return IPv4Address("TCP", "127.0.0.1", 1)

    def stopListening(self) -> None:
        """Nothing is to be done."""


@pytest.fixture
def privileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does what ``twistd`` does before it gives its privileges away, where ports fail with these errors, in order."""
    monkeypatch.setattr(reactor, "addSystemEventTrigger", lambda *_: None)
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)

    def begin(*errors: int, more: Sequence[str] = ()) -> None:
        ways = iter([Endpoint(OSError(error, os.strerror(error)) if error else None) for error in errors])
        parsed = Options()
        parsed.parseOptions(options(tmp_path, *more)[1:])
        monkeypatch.setattr(endpoints, "serverFromString", lambda *_: next(ways))
        makeService(parsed).privilegedStartService()

    return begin


def test_only_the_ports_are_opened_with_privileges(privileged: Callable[..., None], tmp_path: Path) -> None:
    """With ``twistd --uid`` the cache belongs to that user: nothing of it is made before the process does."""
    privileged(0, more=["--listen", LOOPBACK])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("errors", "starts"),
    [
        ((0, 0), True),
        ((0, errno.EADDRNOTAVAIL), True),
        ((0, errno.EAFNOSUPPORT), True),
        ((0, errno.EADDRINUSE), False),
        ((errno.EADDRINUSE, 0), False),
        ((errno.EADDRNOTAVAIL, errno.EADDRNOTAVAIL), False),
    ],
)
def test_the_default_ports(privileged: Callable[..., None], errors: tuple[int, int], starts: bool) -> None:
    """A machine without ::1 does without; where somebody else listens there, clients would reach the wrong one."""
    if starts:
        privileged(*errors)
    else:
        with pytest.raises(SystemExit):
            privileged(*errors)


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    """What is no socket is somebody's file: it is said to be in the way."""
    path = tmp_path / "precious"
    path.write_text("text")
    ended = started("-n", "--pidfile=", *options(tmp_path, "--listen", f"unix:{path}"))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"regcache: unix:{path} cannot be listened on: ")
    assert path.read_text() == "text"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_reads_on(option: str) -> None:
    """As in ``regcache serve --help | head -1``: that is no failure."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        command = [sys.executable, "-m", "regcache", "serve", option]
        ended = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("endpoint", "problem", "advice"),
    [
        ("tcp:1", OSError(errno.EADDRINUSE, "x"), "end what uses it"),
        ("tcp:1", OSError(errno.EACCES, "x"), "1024"),
        ("tcp:1:interface=192.0.2.1", OSError(errno.EADDRNOTAVAIL, "x"), "an address of this machine"),
        ("unix:/a/b", OSError(errno.EACCES, "x"), "its directory"),
        ("unix:/a/b", OSError(errno.EADDRINUSE, "x"), "end what uses it"),
        ("systemd:x", ValueError("the socket is wrong."), "the socket is wrong; choose another"),
    ],
)
def test_what_to_do_about_a_port(endpoint: str, problem: Exception, advice: str) -> None:
    """What is told of a port that cannot be had is what helps there."""
    told = refused(endpoint, problem)
    assert told.startswith(f"{endpoint} cannot be listened on: ")
    assert advice in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tll", "1d"], "regcache: there is no option --tll; did you mean --ttl?"),
        (["--wholly-other"], "regcache: there is no option --wholly-other; see --help."),
        (["--offline=maybe"], "regcache: option --offline must not have an argument"),
        (["--listen", "tcp:70000"], "regcache: --listen tcp:70000: there is no port above 65535."),
        (["--listen", "ssl:8443"], "(it should be like ssl:8443:certKey="),
    ],
)
def test_wrong_options(arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They end the start with one line that says what was meant."""
    with pytest.raises(SystemExit):
        Options().parseOptions(["--cache-dir", str(tmp_path), *arguments])
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


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
