"""A service whose standard output nobody reads goes on serving."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from regcache import outlet
from regcache.outlet import Outlet
from tests.origin import Origin
from tests.service import Running

#: The smallest pipe there is.
PIPE = 4096


def narrow(descriptor: int) -> None:
    """Let a pipe hold as little as may be."""
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE)


@pytest.fixture
def pipe() -> Iterator[tuple[int, Outlet]]:
    """Where to read, and an outlet that leads there, with somebody being served."""
    read, write = os.pipe()
    narrow(read)
    stream = open(write, "w", encoding="utf-8")  # noqa: SIM115
    made = Outlet(stream)
    made.begin()
    yield read, made
    os.close(read)


def read_until(descriptor: int, end: bytes) -> bytes:
    """What comes out of a pipe, up to that."""
    found = b""
    while not found.endswith(end):
        found += os.read(descriptor, 1 << 16)
    return found


def test_what_nobody_reads_is_counted(pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch) -> None:
    """So much is kept in its order, the rest is lost; whoever reads in the end is told how much."""
    monkeypatch.setattr(outlet, "_MOST_WAITING", 10_000)
    read, made = pipe
    made.write("x" * (PIPE + 1) + "\n")
    lines = [f"{number:099}\n" for number in range(200)]
    with made._changed:
        # Until the thread waits in the pipe.
        assert made._changed.wait_for(lambda: not made._waiting, 10)
    for line in lines:
        made.write(line)
        made.flush()
    text = read_until(read, b"lost: nobody read them.\n").decode().splitlines(keepends=True)
    assert text[1:-1] == lines[:100]
    assert text[-1] == "# 100 lines of the log were lost: nobody read them.\n"
    made.write("again\n")
    assert read_until(read, b"again\n") == b"again\n"


def test_the_end_waits_for_whoever_reads(pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last lines are read; one who reads nothing is waited for once, and not for long."""
    read, made = pipe
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(read_until(read, b"end\n")))
    reading.start()
    for _ in range(200):
        made.write("y" * 99 + "\n")
    made.write("end\n")
    monkeypatch.setattr(outlet, "_PATIENCE", 60)
    made.end()
    assert made._waiting == type(made._waiting)()
    reading.join()
    assert len(found[0]) == 20_004
    monkeypatch.setattr(outlet, "_PATIENCE", 0.05)
    made.write("z" * 2 * PIPE)
    made.flush()
    # Who waits again would have to know for how long.
    monkeypatch.delattr(outlet, "_PATIENCE")
    for _ in range(2):
        made.write("z" * 2 * PIPE)
        made.flush()


def test_a_stream_that_is_gone(pipe: tuple[int, Outlet]) -> None:
    """Lines that nobody can read trouble nobody."""
    read, made = pipe
    made._stream.close()
    for _ in range(3):
        made.write("line\n")
    made.end()
    assert not made._waiting
    assert read


def test_a_pipe_that_nobody_reads(start: Callable[..., Running], origin: Origin) -> None:
    """Every request is answered while the log fills its pipe, and the service ends when it is told to."""
    origin.spoil = lambda _path, _answer: (500, "text/plain", b"broken\n")
    service = start("--registries", f"files=generic+{origin.url}")
    assert service.process.stdout is not None
    narrow(service.process.stdout.fileno())
    for number in range(60):
        status, _, body = service.get(f"files/{'long' * 40}{number}")
        assert status == 502, body
    assert service.get("-/health")[0] == 200
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) in (0, -signal.SIGTERM)
    # What was in the pipe is whole, and ends where it was full.
    told = service.process.stdout.read()
    assert "long0: " in told
    assert "long59: " not in told
