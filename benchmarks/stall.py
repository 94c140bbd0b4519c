"""The longest time for which the service answers nobody: a client on a connection of its own asks every millisecond."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

from benchmarks.hits import NPM
from benchmarks.lab import Lab
from benchmarks.load import PIP, WrongAnswer, get
from benchmarks.report import Row, at_most
from benchmarks.servers import Server

__all__ = ["GROUPS", "Heartbeat"]


class Heartbeat:
    """
    Asks the server whether it lives, again and again, until the end of the ``with`` block.

    It runs beside the client it watches over, in a thread that does nothing else; what it measures holds its own
    waiting for the processor, too.

    :ivar worst: the longest time an answer took, in seconds.
    """

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self.worst = 0.0

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _beat(self) -> None:
        while not self._ended.wait(0.001):
            began = time.monotonic()
            self._connection.request("GET", "/-/health/live")
            self._connection.getresponse().read()
            self.worst = max(self.worst, time.monotonic() - began)


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


GROUPS: dict[str, Callable[[Lab], list[Row]]] = {"stall": stall}
