"""The service as its users run it: a process of its own."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from pathlib import Path
from typing import Any, ClassVar

from tests.forks import program
from tests.origin import Origin

__all__ = ["Running", "free_port"]


def free_port(address: str = "127.0.0.1") -> int:
    """
    A port that nobody listens on, to be listened on a moment later.

    Not one of those that the system gives to connections that go out: any of them may be taken in between.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port


class Running:
    """
    A service in a process of its own, started and ready.

    :cvar start: how a command is run in a directory: as a program, unless the tests know a faster way to the same.
    :param tables: the registries' TOML tables; those of pypi and npm of the origin unless given.
    :ivar url: of its shared port, with a slash at the end; empty if it has none.
    :ivar said: what it printed until it was ready.
    """

    start: ClassVar[Callable[[Sequence[str], Path], Any]] = staticmethod(program)

    def __init__(self, directory: Path, origin: Origin | None, *more: str, tables: str = "") -> None:
        config = directory / "regcache.toml"
        if origin is not None and not tables:
            tables = (
                f'[registries.pypi]\nurl = "{origin.url}simple/"\nfiles = "{origin.url}"\n'
                f'[registries.npm]\nurl = "{origin.url}"\n'
            )
        config.write_text(tables)
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "regcache"]
        command += ["--config", str(config), "--cache-dir", str(directory / "cache")]
        if "--listen" not in more:
            command += ["--listen", "tcp:0:interface=127.0.0.1"]
        self.process: subprocess.Popen[str] = Running.start([*command, *more], directory)
        self.said = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if "cache in" in line:
                break
        found = re.search(r"at (http://127\.0\.0\.1:\d+/)", self.said)
        self.url = found[1] if found else ""

    def stop(self) -> str:
        """End it as its supervisor would, and see that it ends in order; what it printed since it was ready."""
        self.process.terminate()
        rest, _ = self.process.communicate(timeout=20)
        # Afterwards twistd ends by the signal it was sent.
        assert self.process.returncode in (0, -signal.SIGTERM), rest
        assert "Traceback" not in rest, rest
        return rest

    def kill(self) -> None:
        """End it without a warning, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def get(self, path: str, **headers: str) -> tuple[int, Message, bytes]:
        """Status, fields and body of a GET."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=named), timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def until(self, path: str, outcome: str) -> tuple[int, Message, bytes]:
        """Ask again until the answer came about like that: what a fill has begun is a hit once it is stored."""
        for _ in range(4000):
            answer = self.get(path)
            if answer[1]["X-Cache"] == outcome:
                return answer
            time.sleep(0.005)
        raise AssertionError(f"{path} was never a {outcome}")
