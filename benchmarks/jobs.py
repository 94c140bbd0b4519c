"""Real installers: uv and pip with 60 packages, npm with 200 of a lock file; each with empty caches of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.command import Groups
from benchmarks.hits import FLOOR, beside
from benchmarks.lab import Lab
from benchmarks.report import Row, Target, at_most, ratios
from benchmarks.servers import Server

__all__ = ["GROUPS", "Install", "installers", "npm_ci"]

#: Seconds that the upstream of the cold jobs takes to answer.
LATENCY = 0.05
#: Installs into a new directory, from what is below a URL; the seconds it took.
Install = Callable[[Path, str], float]


def timed(command: list[str], directory: Path, **environment: str) -> float:
    """Seconds that a command takes in that directory, which is its home as well."""
    given = {"PATH": os.environ["PATH"], "HOME": str(directory), **environment}
    began = time.monotonic()
    done = subprocess.run(command, cwd=directory, env=given, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:3]}: {done.stderr[-500:]}")
    return time.monotonic() - began


def uv_install(names: list[str], directory: Path, url: str) -> float:
    """Seconds that ``uv pip install`` takes."""
    uv = _uv()
    assert uv is not None
    command = [uv, "pip", "install", "--python", sys.executable, "--target", str(directory / "target")]
    command += ["--index-url", f"{url}simple/", "--cache-dir", str(directory / "cache"), *names]
    took = timed(command, directory, UV_OFFLINE="0")
    assert len([*(directory / "target").glob("*.dist-info")]) == len(names)
    return took


def pip_install(names: list[str], directory: Path, url: str) -> float:
    """Seconds that ``pip install`` takes."""
    command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--target", str(directory / "target"), "--index-url", f"{url}simple/", *names]
    took = timed(command, directory, PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="0")
    assert len([*(directory / "target").glob("*.dist-info")]) == len(names)
    return took


def npm_ci(integrity: Mapping[str, str], directory: Path, registry: str) -> float:
    """Seconds that ``npm ci`` takes from a registry's URL, with a lock file that names it."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is needed"
    wanted = dict.fromkeys(integrity, "1.0.0")
    packages: dict[str, object] = {"": {"name": "p", "version": "1.0.0", "dependencies": wanted}}
    for name, digest in integrity.items():
        resolved = f"{registry}{name}/-/{name}-1.0.0.tgz"
        packages[f"node_modules/{name}"] = {"version": "1.0.0", "resolved": resolved, "integrity": digest}
    lock = {"name": "p", "version": "1.0.0", "lockfileVersion": 3, "packages": packages}
    (directory / "package.json").write_text(json.dumps({"name": "p", "version": "1.0.0", "dependencies": wanted}))
    (directory / "package-lock.json").write_text(json.dumps(lock))
    command = [npm, "ci", "--registry", registry, "--cache", str(directory / "cache"), "--no-audit", "--no-fund"]
    took = timed(command, directory, NPM_CONFIG_UPDATE_NOTIFIER="false")
    assert len([*(directory / "node_modules").glob("*/package.json")]) == len(integrity)
    return took


def _uv() -> str | None:
    return shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def installers(lab: Lab) -> dict[str, Install]:
    """Those that are installed here, on packages that are published now."""
    wheels = lab.tree.wheels("job", 10 if lab.short else 60)
    found: dict[str, Install] = {"pip": partial(pip_install, wheels)}
    if _uv() is not None:
        found["uv"] = partial(uv_install, wheels)
    if shutil.which("npm"):
        integrity = lab.tree.packages("npm-job-", 20 if lab.short else 200)
        found["npm ci"] = lambda directory, url: npm_ci(integrity, directory, f"{url}npm/")
    return found


def base(server: Server, name: str) -> str:
    """Below what a client finds its registry: the service has one path for each."""
    return f"{server.url}pypi/" if server.name in ("regcache", FLOOR) and name != "npm ci" else server.url


def once(lab: Lab, install: Install, url: str) -> float:
    """Seconds of one install; what it leaves is removed."""
    place = lab.place()
    try:
        return install(place, url)
    finally:
        shutil.rmtree(place)


def warm(lab: Lab) -> list[Row]:
    """Everything stored; against nginx that rewrites, and the least that a program on Twisted can do."""
    rows = []
    service = lab.regcache()
    floor = lab.floor(FLOOR, "floor_hits", service.url, str(lab.place() / "access.log"))
    servers = [service, lab.substituting(), floor]
    for name, install in installers(lab).items():
        found: dict[str, list[float]] = {server.name: [] for server in servers}
        spent = dict.fromkeys(found, 0.0)
        for server in servers:
            # The least program learns what the service answers once that is stored, in a round of its own.
            once(lab, install, base(server, name))
        for turn in lab.turns(servers):
            for server in turn:
                before = server.cpu()
                found[server.name].append(once(lab, install, base(server, name)))
                spent[server.name] += (server.cpu() - before) * 1000 / lab.rounds
        target = at_most(1.0)
        rows.append(_row(f"{name}, warm: time ÷ nginx with sub_filter", found, "sub_filter", target))
        least = ratios(found[FLOOR], found["sub_filter"])
        rows.append(beside(f"{name}, warm: time, {FLOOR} ÷ nginx with sub_filter", least, target))
        near = at_most(1.15) if rows[-1].note else None
        rows.append(_row(f"{name}, warm: time ÷ {FLOOR}", found, FLOOR, near))
        note = ", ".join(f"{label} {took:.0f} ms" for label, took in spent.items())
        rows.append(Row(f"{name}, warm: processor time of the server", (spent[service.name],), unit="ms", note=note))
    return rows


def cold(lab: Lab) -> list[Row]:
    """Nothing stored, the upstream 50 ms away; against straight from it."""
    rows = []
    jobs = installers(lab)
    # The measurement of the lock file has this one.
    jobs.pop("npm ci", None)
    origin = lab.late(LATENCY)
    try:
        for name, install in jobs.items():
            found: dict[str, list[float]] = {"regcache": [], "origin": []}
            for turn in lab.turns([*found]):
                for label in turn:
                    server = lab.new_regcache(origin=origin.url) if label == "regcache" else origin
                    found[label].append(once(lab, install, base(server, name)))
                    if server is not origin:
                        server.stop()
            rows.append(_row(f"{name}, cold, {LATENCY * 1000:.0f} ms: time ÷ straight", found, "origin", at_most(1.15)))
    finally:
        origin.stop()
    return rows


def _row(name: str, found: Mapping[str, list[float]], other: str, target: Target | None = None) -> Row:
    note = ", ".join(f"{label} {median(some):.2f} s" for label, some in found.items())
    return Row(name, ratios(found["regcache"], found[other]), target, note=note)


GROUPS: Groups = {"jobs": warm, "cold-jobs": cold}
