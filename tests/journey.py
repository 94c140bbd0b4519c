"""
The way of a real client, over any registry: subclass :class:`Journey`, say how the client is run, and mark it
``journey``.

These tests take a client that is not Python's and some seconds each, so they are not in the default run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from tests import clients
from tests.origin import Answer, Origin
from tests.service import Running, free_port

__all__ = ["Journey", "Start"]

Start = Callable[..., Running]


class Journey:
    """
    What a client must get through.

    :cvar client: the executable.
    :cvar called: what its users call it, if not that; one name for each client of a registry.
    :cvar registry: the type of registry that it asks.
    :cvar locks: the files, below a project, by which another machine installs the same; none where the client has no
        lock files.
    """

    client: ClassVar[str]
    called: ClassVar[str] = ""
    registry: ClassVar[str]
    locks: ClassVar[tuple[str, ...]] = ()

    def publish(self, origin: Origin) -> str:
        """
        Put a package, which needs another one, into the origin.

        :returns: the upstream path of one of the artifacts, for the faults.
        """
        raise NotImplementedError

    def table(self, origin: Origin) -> str:
        """The lines of the TOML table that configures the registry."""
        return f'url = "{origin.url}"\n'

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        """
        Install the package into a new project.

        :param url: the mount.
        :param place: the project's directory, absent or with nothing but :attr:`locks` in it; whatever the client keeps
            is to be below it.
        :param locked: whether the lock files there decide.
        """
        raise NotImplementedError

    def version(self) -> str:
        """The client's version, for the table of what was seen to work."""
        told = subprocess.run([clients.program(self.client), "--version"], capture_output=True, text=True, timeout=60)
        found = re.search(r"\d+(?:\.\d+)+", told.stdout + told.stderr)
        return found[0] if found else "?"

    # What the tests are made of.

    @pytest.fixture(autouse=True)
    def _client(self, record_property: Callable[[str, object], None]) -> None:
        """The client, or a skip; what was tested, for the table."""
        clients.program(self.client)
        record_property("registry", self.registry)
        record_property("client", self.called or self.client)
        record_property("version", self.version())
        record_property("locks", bool(self.locks))
        self._held = partial(record_property, "held")

    @pytest.fixture
    def begin(self, tmp_path: Path, origin: Origin) -> Iterator[Start]:
        """Starts the service in front of the origin with an empty cache, or the one that is there."""
        started: list[Running] = []

        def starting(*options: str, empty: bool = False) -> Running:
            if empty:
                shutil.rmtree(tmp_path / "cache")
            table = f"[registries.{self.registry}]\n{self.table(origin)}"
            started.append(Running(tmp_path, origin, *options, tables=table))
            return started[-1]

        yield starting
        for service in started:
            service.kill()

    def _mount(self, service: Running) -> str:
        return f"{service.url}{self.registry}/"

    @staticmethod
    def _went_well(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"

    # The way.

    def test_cold_warm_and_outage(self, tmp_path: Path, origin: Origin, begin: Start) -> None:
        """
        Installs from an empty cache, again with nothing asked for twice, again with the registry stopped, and again
        offline; each time on a new machine.
        """
        artifact = self.publish(origin)
        service = begin()
        self._went_well(self.install(self._mount(service), tmp_path / "cold"))
        self._held("cold")
        self._went_well(self.install(self._mount(service), tmp_path / "warm"))
        assert origin.asked.count(artifact) == 1
        self._held("warm")
        origin.close()
        self._went_well(self.install(self._mount(service), tmp_path / "outage"))
        service.stop()
        service = begin("--offline")
        self._went_well(self.install(self._mount(service), tmp_path / "offline"))
        service.stop()

    def test_alone(self, tmp_path: Path, origin: Origin, begin: Start) -> None:
        """Installs from the root of the registry's own port."""
        self.publish(origin)
        port = free_port()
        service = begin("--listen", f"{self.registry}@tcp:{port}:interface=127.0.0.1")
        self._went_well(self.install(f"http://127.0.0.1:{port}/", tmp_path / "alone"))
        service.stop()

    def test_lockfile(self, tmp_path: Path, origin: Origin, begin: Start) -> None:
        """Installs by a lock file from an empty cache, on a machine that has nothing else."""
        if not self.locks:
            return
        self.publish(origin)
        listen = f"tcp:{free_port()}:interface=127.0.0.1"
        service = begin("--listen", listen)
        self._went_well(self.install(self._mount(service), tmp_path / "first"))
        service.stop()
        service = begin("--listen", listen, empty=True)
        for name in self.locks:
            there = tmp_path / "locked" / name
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "first" / name, there)
        self._went_well(self.install(self._mount(service), tmp_path / "locked", locked=True))
        service.stop()

    @pytest.mark.parametrize("fault", ["flipped", "cut"])
    def test_corrupt(self, tmp_path: Path, origin: Origin, begin: Start, fault: str) -> None:
        """A flipped byte or a body cut short is installed by nobody and kept by nobody; the next one is asked for."""
        artifact = self.publish(origin)

        def flipped(path: str, answer: Answer) -> Answer:
            if path != artifact:
                return answer
            status, kind, body = answer
            middle = len(body) // 2
            return status, kind, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]

        if fault == "flipped":
            origin.spoil = flipped
        else:
            origin.trouble = lambda path: "cut" if path == artifact else ""
        service = begin()
        assert self.install(self._mount(service), tmp_path / "spoiled").returncode != 0
        spoiled = origin.asked.count(artifact)
        assert spoiled >= 1
        origin.spoil = lambda _path, answer: answer
        origin.trouble = lambda _path: ""
        self._went_well(self.install(self._mount(service), tmp_path / "well"))
        assert origin.asked.count(artifact) == spoiled + 1
        service.stop()
