"""The longest time for which the service answers nobody: a client on a connection of its own asks every millisecond."""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType

from benchmarks.command import Groups
from benchmarks.hits import NPM
from benchmarks.lab import Lab
from benchmarks.load import PIP, WrongAnswer, get
from benchmarks.report import Row, at_most
from benchmarks.servers import Server

__all__ = ["GROUPS", "Heartbeat"]


class Heartbeat:
    """
    Asks the server whether it lives, again and again, until the end of the ``with`` block.

    It is a process of its own: nothing of the measurement holds it up, but it shares the processor with all others.

    :ivar worst: the longest time an answer took, in seconds; known after the end.
    """

    def __init__(self, server: Server) -> None:
        command = [sys.executable, "-m", "benchmarks.beat", f"{server.url}-/health/live"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.worst = 0.0

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._process.communicate(timeout=60)
        self.worst = float(said)


def stall(lab: Lab) -> list[Row]:
    """While the largest pages there are come, are derived and are served; and for comparison while nothing does."""
    share = 10 if lab.short else 1
    lab.tree.packument("largest-package", 30_000_000 // share)
    lab.tree.projects(900_000 // share)
    quiet: list[float] = []
    worst: dict[str, list[float]] = {"packument of 30 MB": [], "project list of 40 MB": []}
    asked = {"packument of 30 MB": ("npm/largest-package", NPM), "project list of 40 MB": ("pypi/simple/", PIP)}
    for _ in range(lab.rounds):
        server = lab.new_regcache()
        try:
            with Heartbeat(server) as beat:
                time.sleep(1)
            quiet.append(beat.worst * 1000)
            for label, (path, headers) in asked.items():
                with Heartbeat(server) as beat:
                    for _ in range(3):
                        _ask(server, path, headers)
                worst[label].append(beat.worst * 1000)
        finally:
            server.stop()
    rows = [
        Row(f"longest stall, {label} fetched, derived, served", tuple(some), at_most(20), "ms")
        for label, some in worst.items()
    ]
    return [Row("longest stall, nothing going on", tuple(quiet), None, "ms"), *rows]


def _ask(server: Server, path: str, headers: dict[str, str]) -> None:
    answer = get(server.url + path, headers)
    if answer.status != 200 or len(answer.body) < 1_000_000:
        raise WrongAnswer(f"{server.url}{path}: {answer.status}, {len(answer.body)} bytes")


GROUPS: Groups = {"stall": stall}
