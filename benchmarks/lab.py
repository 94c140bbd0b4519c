"""What all measurements of a run share: the data, the servers once they are needed, and how often to measure."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlsplit

from benchmarks.data import Tree
from benchmarks.load import PIP, Answer, WrongAnswer, get
from benchmarks.servers import APACHE, Server, apache, find, nginx, start_program
from tests.service import Running, free_port

__all__ = ["Lab"]

T = TypeVar("T")
#: No page is asked for again while it is measured what a stored one costs.
_FRESH = ("--refresh-after", "off", "--scrub", "off", "--max-size", "0")


class Lab:
    """
    A place for measurements.

    :ivar rounds: how often each is made, one server after the other in turning order.
    :ivar seconds: how long each load lasts.
    :ivar short: make do with less data: for looking whether the programs work.
    """

    def __init__(self, directory: Path, *, rounds: int, seconds: float, short: bool) -> None:
        self.directory, self.rounds, self.seconds, self.short = directory, rounds, seconds, short
        directory.chmod(0o755)
        port = free_port()
        tree = directory / "tree"
        tree.mkdir()
        self.tree = Tree(tree, f"http://127.0.0.1:{port}/")
        self._servers: dict[str, Server] = {}
        self._started: list[Server] = []
        self._number = 0

    def close(self) -> None:
        """End all servers that still run."""
        for server in self._started:
            server.stop()

    def _keep(self, server: Server) -> Server:
        self._started.append(server)
        return server

    def _once(self, name: str, start: Callable[[], Server]) -> Server:
        if name not in self._servers:
            self._servers[name] = start()
        return self._servers[name]

    @property
    def origin(self) -> Server:
        """The upstream: nginx with what is published."""
        where, values = (
            self.directory / "origin",
            {"PORT": str(urlsplit(self.tree.url).port), "TREE": str(self.tree.directory)},
        )
        return self._once("origin", lambda: self._keep(nginx("origin", "origin.conf", where, logged=False, **values)))

    def _upstream(self) -> str:
        """The port of the upstream, which is there from now on."""
        return str(urlsplit(self.origin.url).port)

    def place(self) -> Path:
        """A new directory."""
        self._number += 1
        made = self.directory / f"place-{self._number}"
        made.mkdir()
        return made

    def nginx(self, *, logged: bool = True) -> Server:
        """The practical limit."""
        name = "nginx" if logged else "nginx-silent"
        return self._once(name, lambda: self.new_nginx(logged=logged))

    def new_nginx(self, *, logged: bool = True) -> Server:
        """The same with nothing in its cache."""
        where = self.place() / "nginx"
        return self._keep(nginx("nginx", "nginx.conf", where, logged=logged, ORIGIN=self._upstream()))

    def substituting(self) -> Server:
        """nginx with sub_filter: what a rewriting nginx really does."""
        return self._once("substituting", self.new_substituting)

    def new_substituting(self) -> Server:
        """The same with nothing in its cache."""
        where = self.place() / "nginx"
        return self._keep(nginx("sub_filter", "substituting.conf", where, ORIGIN=self._upstream()))

    def apache(self) -> Server | None:
        """Apache that caches everything; None where it is not installed."""
        if find(*APACHE) is None:
            return None
        return self._once("apache", lambda: self._keep(apache(self.place() / "apache", self._upstream())))

    def regcache(self, *, logged: bool = True) -> Server:
        """The service, with pypi and npm and files."""
        name = "regcache" if logged else "regcache-silent"
        return self._once(name, lambda: self.new_regcache(logged=logged))

    def new_regcache(self, *more: str, logged: bool = True, origin: str = "", cache: Path | None = None) -> Server:
        """
        The same with nothing in its cache.

        :param origin: the URL of another upstream.
        :param cache: a directory whose ``cache`` is to be used.
        """
        url, place = origin or self.origin.url, cache or self.place()
        tables = (
            f'[registries.pypi]\nurl = "{url}simple/"\nfiles = "{url}"\n[registries.npm]\nurl = "{url}npm/"\n'
            f'[registries.files]\ntype = "generic"\nurl = "{url}files/"\n'
        )
        options = [*_FRESH, *more]
        if logged:
            options += ["--access-log", str(place / "access.log"), "--access-log-hits"]
        running = Running(place, None, *options, tables=tables)
        # It would wait for whoever reads what it says.
        threading.Thread(target=_write_down, args=(running.process.stdout, place / "log"), daemon=True).start()
        return self._keep(Server("regcache", running.url, running.process))

    def late(self, latency: float) -> Server:
        """An upstream with all that is published so far, that many seconds away."""
        arguments = (f"{latency * 1000:g}", str(self.tree.directory), self.tree.url)
        return self._keep(start_program("late", *arguments, name="origin"))

    def floor(self, name: str, program: str, *arguments: str) -> Server:
        """
        A minimal program of ours, that does what cannot be left out and no more.

        :param name: what it is called in the table.
        :param arguments: what it is told behind its port.
        """
        return self._keep(start_program(program, *arguments, name=name))

    def turns(self, subjects: Sequence[T], least: int = 0) -> Iterator[Sequence[T]]:
        """In each round, of which there are some at ``least``, the subjects, another one first."""
        for number in range(max(self.rounds, least)):
            at = number % len(subjects)
            yield [*subjects[at:], *subjects[:at]]

    def warm(self, url: str, headers: Mapping[str, str] = PIP) -> Answer:
        """Ask until the cache answers from what it has; that answer."""
        for _ in range(2000):
            answer = get(url, headers)
            if answer.headers["X-Cache"] == "HIT":
                return answer
        raise WrongAnswer(f"{url} was never a hit")


def _write_down(said: IO[str], path: Path) -> None:
    with path.open("w") as file:
        shutil.copyfileobj(said, file)
