"""
A frozen lock file of many npm packages: straight from the upstream, through a minimal relay, and through a cold cache.

The upstream is a process that does as little as can be for an answer, near and as far as one across the internet. What
the rounds compare runs one after the other in turning order. The cache verifies each tarball by a manifest of its own;
how many small requests that takes is counted. ``python -m benchmarks.lockfile`` measures this alone.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from statistics import median

from benchmarks.command import Groups, run
from benchmarks.jobs import Install, npm_ci, once
from benchmarks.lab import Lab
from benchmarks.load import get
from benchmarks.report import Row, at_most, ratios
from benchmarks.servers import Server, start_program

__all__ = ["GROUPS"]

PACKAGES = 200
#: At the least: the times of npm itself vary more than what is measured.
ROUNDS = 7
#: Seconds: what a registry on the same host, and one across the internet, take to answer.
LATENCIES = (0.0, 0.05)


def asked(origin: Server) -> list[str]:
    """What the upstream was asked for since the last time."""
    found: list[str] = json.loads(get(f"{origin.url}-/asked").body)
    return found


def measure(lab: Lab, install: Install, packages: int, latency: float) -> list[Row]:
    """With an upstream of that latency."""
    found: dict[str, list[float]] = {"straight": [], "relay": [], "cold cache": []}
    small, again = [], []
    origin = lab.late(latency)
    relay = start_program("relay", f"{origin.url}npm/")
    try:
        for turn in lab.turns([*found], least=1 if lab.short else ROUNDS):
            for label in turn:
                if label == "cold cache":
                    server = lab.new_regcache(origin=origin.url, logged=False)
                    get(f"{server.url}npm/")
                    asked(origin)
                    found[label].append(once(lab, install, f"{server.url}npm/"))
                    server.stop()
                    paths = asked(origin)
                    files = [path for path in paths if path.endswith(".tgz")]
                    small.append((len(paths) - len(files)) / packages)
                    again.append(float(len(files) - packages))
                else:
                    url = relay.url if label == "relay" else f"{origin.url}npm/"
                    found[label].append(once(lab, install, url))
    finally:
        relay.stop()
        origin.stop()
    name = f"npm ci of a lock file, {packages} packages, {latency * 1000:.0f} ms"
    note = ", ".join(f"{label} {median(some):.2f} s" for label, some in found.items())
    through = ratios(found["cold cache"], found["straight"])
    return [
        Row(f"{name}: cold cache ÷ straight", through, at_most(1.15 if latency else 1.1), note=note),
        Row(f"{name}: minimal relay ÷ straight", ratios(found["relay"], found["straight"])),
        Row(f"{name}: small requests a package", tuple(small)),
        Row(f"{name}: tarballs asked for again", tuple(again), at_most(0)),
    ]


def lockfile(lab: Lab) -> list[Row]:
    """At each latency."""
    packages = 20 if lab.short else PACKAGES
    install = partial(npm_ci, lab.tree.packages("locked-", packages))
    return [row for latency in LATENCIES for row in measure(lab, install, packages, latency)]


GROUPS: Groups = {"lockfile": lockfile}

if __name__ == "__main__":
    sys.exit(run(GROUPS))
