"""
Every upstream gone: what clients wait for what is stored, as a ratio to the same when all is well.

Ten thousand requests over a mixed set, from eight clients, four times: all of it fresh; with indexes that are past
their lifetime after half a second and registries that are well; with registries that take connections and say nothing;
and with nobody listening there. No request may fail; the 99th percentiles are compared to those of the first two.
"""

from __future__ import annotations

import http.client
import random
import statistics
import sys
import threading
import time
from urllib.parse import urlsplit

from benchmarks.command import Groups, run
from benchmarks.lab import Lab
from benchmarks.load import WrongAnswer
from benchmarks.report import Row
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


def p99(url: str, paths: list[str], requests: int) -> float:
    """
    The 99th percentile of the seconds that a request takes.

    :raises WrongAnswer: if any failed.
    """
    chosen, times, failures = random.Random(1), list[float](), list[str]()
    threads = []
    for _ in range(CLIENTS):
        share = chosen.choices(paths, k=requests // CLIENTS)
        threads.append(threading.Thread(target=client, args=(url, share, times, failures)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise WrongAnswer(f"{len(failures)} of {len(times)} failed: {'; '.join(failures[:5])}")
    return sorted(times)[len(times) * 99 // 100]


def measure(lab: Lab) -> dict[str, float]:
    """The 99th percentile in each of the four states, in seconds."""
    requests = REQUESTS // 10 if lab.short else REQUESTS
    place, origin = lab.place(), Origin()
    paths, found = [], {}
    for number in range(NAMES):
        paths += [f"pypi/simple/alpha{number}/", f"pypi{origin.add_wheel(f'alpha{number}', '1.0')}"]
        paths += [f"npm/left{number}", f"npm{origin.add_tarball(f'left{number}', '1.0.0')}"]
    service = Running(place, origin)
    for path in paths:
        service.get(path, **ACCEPT)
    found["fresh"] = p99(service.url, paths, requests)
    service.stop()
    service = Running(place, origin, "--ttl", "500ms", "--refresh-after", "200ms")
    found["well"] = p99(service.url, paths, requests)
    origin.trouble = lambda _path: "hang"
    found["silent"] = p99(service.url, paths, requests)
    origin.close()
    found["gone"] = p99(service.url, paths, requests)
    service.stop()
    return found


def outage(lab: Lab) -> list[Row]:
    """Round by round."""
    found = [measure(lab) for _ in range(lab.rounds)]
    note = ", ".join(f"{state} {statistics.median(one[state] for one in found) * 1000:.1f} ms" for state in found[0])
    return [
        Row(f"p99, upstreams {state} ÷ {base}", tuple(one[state] / one[base] for one in found), note=note)
        for state in ("silent", "gone")
        for base in ("well", "fresh")
    ]


GROUPS: Groups = {"outage": outage}

if __name__ == "__main__":
    sys.exit(run(GROUPS))
