"""
Services without the wait for their imports: forked from one process that has imported what every one of them needs.

Each is ``twistd`` with its own command line, environment and directory, as :class:`tests.service.Running` starts it.
What is left out is what the interpreter does before the first line of it, which is most of the time of a start. Tests
of that, of what is installed and of how it is called start the program.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Forked", "Forks", "program"]

_MOST_TOLD = 1 << 18


def program(command: Sequence[str], directory: Path) -> subprocess.Popen[str]:
    """Run a program in a directory; what it says can be read."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory)


def _to_interpreter() -> dict[str, str]:
    """What is said in the environment to the interpreter, which asks once."""
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


class Forked:
    """
    A process that was forked: what the tests need of a :class:`subprocess.Popen`.

    :param stdout: where it writes to.
    :param told: where its number comes from first, and in the end how it ended.
    :ivar returncode: None while it runs, as far as anybody has asked.
    """

    def __init__(self, stdout: int, told: int) -> None:
        self.stdout = open(stdout, encoding="utf-8")  # noqa: SIM115
        self.returncode: int | None = None
        self._told = open(told, encoding="ascii")  # noqa: SIM115
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """How it ended, if it did."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        How it ended.

        :raises subprocess.TimeoutExpired: if it still runs then.
        """
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("twistd", timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        """What it still says, until it ends; it is killed if that takes longer."""
        patience = threading.Timer(timeout, self.kill)
        patience.start()
        with self.stdout:
            said = self.stdout.read()
        self.wait()
        patience.cancel()
        return said, None

    def send_signal(self, number: int) -> None:
        """A signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """End it."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that they are forked from; it is started with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._told: dict[str, str] = {}

    def start(self, command: Sequence[str], directory: Path) -> Forked | subprocess.Popen[str]:
        """As :func:`program`, of ``twistd``; it is the program itself where its interpreter has to be another."""
        if self._process is not None and self._told != _to_interpreter():
            return program(command, directory)
        if self._process is None:
            self._told = _to_interpreter()
            self._orders, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with given:
                mine = [sys.executable, __file__, str(given.fileno())]
                self._process = subprocess.Popen(mine, pass_fds=[given.fileno()])
        order = {
            "argv": list(command),
            "directory": str(directory),
            "environ": dict(os.environ),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        (reading, writing), (told, telling) = os.pipe(), os.pipe()
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [writing, telling])
        finally:
            os.close(writing)
            os.close(telling)
        return Forked(reading, told)

    def close(self) -> None:
        """Have no more of them; what runs is not ended by that."""
        if self._process is not None:
            self._orders.close()
            self._process.wait(20)


def _become(order: dict[str, object], stdout: int) -> None:
    """Be as the started program is before its first line."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, name in enumerate((nothing, stdout, stdout)):
        os.dup2(name, number)
    os.closerange(3, 64)
    os.chdir(str(order["directory"]))
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    resource.setrlimit(resource.RLIMIT_NOFILE, order["files"])  # type: ignore[arg-type]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = order["argv"]  # type: ignore[assignment]


def _fork(order: dict[str, object], stdout: int, telling: int) -> bool:
    """
    Fork a process that forks the service, and tells of it and its end.

    :returns: whether this is the service.
    """
    if os.fork():
        return False
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        _become(order, stdout)
        return True
    os.close(stdout)
    os.write(telling, b"%d\n" % child)
    os.write(telling, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _serve(descriptor: int) -> None:
    """Fork what is asked for, until nobody can ask any more; return in each of the services as well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Nobody waits for those who tell.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    orders = socket.socket(fileno=descriptor)
    while True:
        told, given, _, _ = socket.recv_fds(orders, _MOST_TOLD, 2)
        if not told:
            sys.exit()
        if _fork(json.loads(told), *given):
            orders.detach()
            return
        for one in given:
            os.close(one)


def main() -> None:
    """Import what a service imports, and be each of them."""
    # Where the program is, not this file, as if that had been called.
    sys.path[0] = str(Path(sys.executable).parent)
    from twisted.scripts.twistd import run

    import regcache.tap

    assert regcache.tap
    assert "twisted.internet.reactor" not in sys.modules, "each needs a reactor of its own"
    _serve(int(sys.argv[1]))
    run()


if __name__ == "__main__":
    main()
