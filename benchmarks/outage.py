"""
Every upstream gone: what clients wait for what is stored, as a ratio to the same when all is well.

Ten thousand requests over a mixed set, from eight clients, four times: all of it fresh; with indexes that are past
their lifetime after half a second and registries that are well; with registries that take connections and say nothing;
and with nobody listening there. Prints the failures, the 99th percentiles, and their ratios to the first two.
"""

from __future__ import annotations

import http.client
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.origin import Origin
from tests.service import Running

REQUESTS, CLIENTS, NAMES = 10_000, 8, 50
ACCEPT = {"Accept": "application/vnd.pypi.simple.v1+json, application/vnd.npm.install-v1+json;q=0.5"}


def client(url: str, paths: list[str], times: list[float], failures: list[str]) -> None:
    """Ask for one path after the other on one connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    for path in paths:
        began = time.monotonic()
        try:
            connection.request("GET", f"/{path}", headers=ACCEPT)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                failures.append(f"{path}: {response.status}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{path}: {error!r}")
            connection.close()
        times.append(time.monotonic() - began)
    connection.close()


def p99(url: str, paths: list[str], label: str) -> float:
    """The 99th percentile of the seconds that a request takes; tells it, and what failed."""
    chosen, times, failures = random.Random(1), list[float](), list[str]()
    threads = []
    for _ in range(CLIENTS):
        share = chosen.choices(paths, k=REQUESTS // CLIENTS)
        threads.append(threading.Thread(target=client, args=(url, share, times, failures)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted(times)[len(times) * 99 // 100]
    sys.stdout.write(f"{label}: {len(times)} requests, {len(failures)} failures, p99 {found * 1000:.1f} ms\n")
    for failure in failures[:5]:
        sys.stdout.write(f"  {failure}\n")
    return found


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        origin = Origin()
        paths = []
        for number in range(NAMES):
            paths += [f"pypi/simple/alpha{number}/", f"pypi{origin.add_wheel(f'alpha{number}', '1.0')}"]
            paths += [f"npm/left{number}", f"npm{origin.add_tarball(f'left{number}', '1.0.0')}"]
        service = Running(Path(directory), origin)
        for path in paths:
            service.get(path, **ACCEPT)
        fresh = p99(service.url, paths, "fresh")
        service.stop()
        service = Running(Path(directory), origin, "--ttl", "500ms", "--refresh-after", "200ms")
        well = p99(service.url, paths, "well")
        origin.trouble = lambda _path: "hang"
        silent = p99(service.url, paths, "silent")
        origin.close()
        gone = p99(service.url, paths, "gone")
        service.stop()
    for label, base in (("well", well), ("fresh", fresh)):
        sys.stdout.write(f"ratio to {label}: silent {silent / base:.2f}, gone {gone / base:.2f}\n")


if __name__ == "__main__":
    main()
