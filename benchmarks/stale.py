"""
The upstream hangs and the stored index is past its lifetime: how long clients wait for the stale copy.

The first request's time less the upstream timeout, and the slowest of those after it.
"""

from __future__ import annotations

import sys
import time

from benchmarks.command import Groups, run
from benchmarks.lab import Lab
from benchmarks.load import WrongAnswer
from benchmarks.report import Row
from tests.origin import Origin
from tests.service import Running

TIMEOUT = 5.0


def measure(lab: Lab) -> list[float]:
    """Seconds that each of ten requests waited."""
    origin = Origin()
    origin.add_wheel("alpha", "1.0")
    service = Running(lab.place(), origin, "--ttl", "100ms", "--upstream-timeout", f"{TIMEOUT:g}s")
    try:
        service.get("pypi/simple/alpha/")
        origin.trouble = lambda _path: "hang"
        time.sleep(0.2)
        times = []
        for _ in range(10):
            began = time.monotonic()
            status, headers, _ = service.get("pypi/simple/alpha/")
            times.append(time.monotonic() - began)
            if (status, headers["X-Cache"]) != (200, "STALE"):
                raise WrongAnswer(f"{status} {headers['X-Cache']}")
    finally:
        origin.close()
        service.stop()
    return times


def stale(lab: Lab) -> list[Row]:
    """Round by round."""
    found = [measure(lab) for _ in range(lab.rounds)]
    firsts = tuple(times[0] - TIMEOUT for times in found)
    later = tuple(max(times[1:]) * 1000 for times in found)
    name = "upstream hangs, index past its lifetime"
    return [
        Row(f"{name}: first stale answer after the upstream timeout", firsts, None, "s"),
        Row(f"{name}: slowest of the next nine", later, None, "ms"),
    ]


GROUPS: Groups = {"stale": stale}

if __name__ == "__main__":
    sys.exit(run(GROUPS))
