"""
After ``kill -9``: how long each start takes until its first answer, beside starts with nothing behind them.

Fifty times a service that is fetching and storing is killed at a random moment and started again; between, on an empty
directory, the same service, and ``twistd -n web``, are started as well, so that all three meet the same machine. Prints
the least, the median and the greatest seconds from starting the process to the first whole answer, and what the starts
after a kill take beyond those of an empty cache.
"""

from __future__ import annotations

import http.client
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.origin import Origin
from tests.service import Running, free_port

ROUNDS, FILES = 50, 60
Seconds = list[float]


def first_answer(port: int, path: str, began: float) -> float:
    """The seconds until that port has answered."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
            return time.monotonic() - began
        except OSError:
            time.sleep(0.002)
        finally:
            connection.close()


def started(directory: Path, origin: Origin, times: Seconds) -> Running:
    """A service, started and asked at once."""
    port, took = free_port(), list[float]()
    began = time.monotonic()
    asking = threading.Thread(target=lambda: took.append(first_answer(port, "/-/health", began)))
    asking.start()
    service = Running(directory, origin, "--listen", f"tcp:{port}:interface=127.0.0.1", *_registries(origin))
    asking.join()
    times += took
    return service


def _registries(origin: Origin) -> tuple[str, ...]:
    return ("--registries", f"files=generic+{origin.url}", "--min-free", "0", "--max-size", "40M")


def bare(directory: Path, times: Seconds) -> None:
    """Twisted alone, with a server of files."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "web"]
    command += ["--listen", f"tcp:{port}:interface=127.0.0.1", "--path", str(directory)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory) as process:
        times.append(first_answer(port, "/", began))
        process.kill()


def quietly(service: Running, path: str) -> None:
    """Ask, whatever comes of it."""
    try:
        service.get(path)
    except (OSError, http.client.HTTPException):
        return


def killed(service: Running, chance: random.Random) -> None:
    """Let it fetch and store for a moment, and end it in the middle of that."""
    chosen = chance.choices(range(FILES), k=12)
    clients = [threading.Thread(target=quietly, args=(service, f"files/{number}.bin")) for number in chosen]
    for client in clients:
        client.start()
    time.sleep(chance.uniform(0, 0.3))
    os.kill(service.process.pid, 9)
    for client in clients:
        client.join()
    service.kill()


def main() -> None:
    """Measure and print."""
    chance, origin = random.Random(11), Origin()
    for number in range(FILES):
        origin.add(f"/{number}.bin", chance.randbytes(chance.randrange(1, 2_000_000)))
    after, empty, web = Seconds(), Seconds(), Seconds()
    with tempfile.TemporaryDirectory() as directory:
        service = started(Path(directory), origin, [])
        for _ in range(ROUNDS):
            killed(service, chance)
            with tempfile.TemporaryDirectory() as other:
                started(Path(other), origin, empty).kill()
                bare(Path(other), web)
            service = started(Path(directory), origin, after)
        service.stop()
    origin.close()
    for label, times in (("after kill -9", after), ("empty cache", empty), ("twistd -n web", web)):
        found = f"min {min(times):.3f}, median {statistics.median(times):.3f}, max {max(times):.3f} s"
        sys.stdout.write(f"{label:14} {len(times)} starts: {found}\n")
    beyond = sorted(one - other for one, other in zip(after, empty, strict=True))
    ratio = statistics.median(after) / statistics.median(empty)
    sys.stdout.write(
        f"after kill -9 beyond an empty cache: median {statistics.median(beyond):+.3f} s, ratio {ratio:.2f}\n"
    )
    ratio = statistics.median(after) / statistics.median(web)
    sys.stdout.write(f"after kill -9 to twistd -n web: ratio {ratio:.2f}\n")


if __name__ == "__main__":
    main()
