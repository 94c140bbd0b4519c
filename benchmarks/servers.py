"""The servers that are compared, each from a configuration of its own, in a process of its own."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from attrs import define

from benchmarks import processes
from tests.service import free_port

__all__ = ["APACHE", "Server", "apache", "find", "nginx", "start_program", "version", "wait_for"]

#: What its program is called, by Debian and by itself.
APACHE = ("apache2", "httpd")

_CONF = Path(__file__).with_name("conf")
_MODULES = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/libexec/apache2")


def find(*names: str) -> str | None:
    """The path of the first of these programs that is installed; servers are not in everybody's PATH."""
    places = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    return next((found for name in names if (found := shutil.which(name, path=places))), None)


def version(name: str) -> str:
    """The version that a program says it has, or that there is none."""
    program = find(name)
    if program is None:
        return "none"
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return found[0] if found else "?"


@define
class Server:
    """
    A server that runs.

    :ivar url: where, with a slash at the end.
    """

    name: str
    url: str
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Its first process."""
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of the processor it took until now."""
        return processes.cpu(self.pid)

    def resident(self) -> int:
        """Bytes it has in memory."""
        return processes.resident(self.pid)

    def stop(self) -> None:
        """End it, and its children with it."""
        self.process.terminate()
        # The service copies a large index at its end.
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """
    Wait until somebody listens there.

    :raises RuntimeError: with what it said, if the process ends before.
    """
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r}: {process.communicate()[0]}") from None
            time.sleep(0.01)
        else:
            return


def _start(name: str, conf: str, directory: Path, command: list[str], values: dict[str, str]) -> Server:
    directory.mkdir()
    for part in ("cache", "locks"):
        place = directory / part
        place.mkdir()
        if os.geteuid() == 0 and name == "Apache":
            user, group = _unprivileged()
            shutil.chown(place, user, group)
    port = int(values["PORT"])
    text = (_CONF / conf).read_text()
    for key, value in {"DIR": str(directory), **values}.items():
        text = text.replace(f"@{key}@", value)
    file = directory / conf
    file.write_text(text)
    program = find(command[0])
    if program is None:
        raise RuntimeError(f"{command[0]} is not installed")
    process = subprocess.Popen(
        [program, *command[1:], str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(port, process)
    return Server(name, f"http://127.0.0.1:{port}/", process)


def start_program(program: str, *arguments: str, name: str = "") -> Server:
    """
    A module of the measurements that is a server: run with a port and these.

    :param name: what it is called in the table; as the module, unless given.
    """
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.{program}", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(port, process)
    return Server(name or program, f"http://127.0.0.1:{port}/", process)


def nginx(name: str, conf: str, directory: Path, *, logged: bool = True, **values: str) -> Server:
    """
    nginx with that configuration.

    :param logged: it writes a buffered access log to a file; else no log at all.
    :param values: for the names between @ in the configuration.
    """
    given = {
        "PORT": str(free_port()),
        "USER": "user root;" if os.geteuid() == 0 else "",
        "LOG": f"{directory}/access.log combined buffer=64k flush=1s" if logged else "off",
        "ERRORS": f"{directory}/error.log" if logged else "/dev/null",
        **values,
    }
    return _start(name, conf, directory, ["nginx", "-p", str(directory), "-c"], given)


def apache(directory: Path, origin: str) -> Server:
    """Apache that is told to cache everything, before the origin of that port."""
    modules = next((place for place in _MODULES if Path(place).is_dir()), _MODULES[0])
    user = ""
    if os.geteuid() == 0:
        user = "User {}\nGroup {}".format(*_unprivileged())
    given = {"PORT": str(free_port()), "MODULES": modules, "ORIGIN": origin, "USER": user}
    return _start("Apache", "apache.conf", directory, [find(*APACHE) or APACHE[0], "-D", "FOREGROUND", "-f"], given)


def _unprivileged() -> tuple[str, str]:
    """Whom it becomes that does not serve as root."""
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_name, grp.getgrgid(nobody.pw_gid).gr_name
