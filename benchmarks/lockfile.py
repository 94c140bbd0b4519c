"""
A frozen lockfile of many npm packages: straight from the upstream, through a minimal relay, and through a cold cache.

Prints the times and their ratios, the best of some rounds each, and how many small requests the cache added a package.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.origin import Origin
from tests.service import Running

PACKAGES = 200
ROUNDS = 3
#: Seconds: what a registry on the same host, and one across the internet, take to answer.
LATENCIES = (0.0, 0.05)


def lockfile(origin: Origin, registry: str) -> str:
    """A package-lock.json that names every package of the origin, as found below ``registry``."""
    packages: dict[str, object] = {"": {"name": "p", "version": "1.0.0", "dependencies": dependencies()}}
    for name in dependencies():
        digest = hashlib.sha512(origin.body(f"/{name}/-/{name}-1.0.0.tgz")).digest()
        packages[f"node_modules/{name}"] = {
            "version": "1.0.0",
            "resolved": f"{registry}{name}/-/{name}-1.0.0.tgz",
            "integrity": "sha512-" + base64.b64encode(digest).decode(),
        }
    return json.dumps({"name": "p", "version": "1.0.0", "lockfileVersion": 3, "packages": packages})


def dependencies() -> dict[str, str]:
    """What the project depends on."""
    return {f"package-{number}": "1.0.0" for number in range(PACKAGES)}


def install(directory: Path, origin: Origin, registry: str) -> float:
    """Seconds that a frozen install with an empty client cache takes."""
    directory.mkdir()
    package = {"name": "p", "version": "1.0.0", "dependencies": dependencies()}
    (directory / "package.json").write_text(json.dumps(package))
    (directory / "package-lock.json").write_text(lockfile(origin, registry))
    npm = shutil.which("npm")
    assert npm is not None, "npm is needed"
    command = [npm, "ci", "--registry", registry, "--cache", str(directory / "cache"), "--no-audit", "--no-fund"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "NPM_CONFIG_UPDATE_NOTIFIER": "false"}
    began = time.monotonic()
    subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, timeout=300)
    return time.monotonic() - began


def start_relay(origin: Origin) -> tuple[subprocess.Popen[str], str]:
    """A minimal relay in a process of its own, and its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.relay", str(port), origin.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process, f"http://127.0.0.1:{port}/"


def measure(latency: float) -> None:
    """Measure and print, with an upstream of that latency."""
    straight, relayed, through = [], [], []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        origin = Origin()
        noise = random.Random(1)
        for package in dependencies():
            origin.add_tarball(package, "1.0.0", {"data.bin": noise.randbytes(noise.randrange(2_000, 60_000))})
        origin.latency = latency
        relay, relay_url = start_relay(origin)
        for number in range(ROUNDS):
            straight.append(install(directory / f"straight-{number}", origin, origin.url))
            relayed.append(install(directory / f"relayed-{number}", origin, relay_url))
            place = directory / f"service-{number}"
            place.mkdir()
            service = Running(place, origin)
            service.get("npm/")
            origin.asked.clear()
            through.append(install(directory / f"through-{number}", origin, f"{service.url}npm/"))
            service.stop()
        small = sum(not path.endswith(".tgz") for path in origin.asked)
        again = len(origin.asked) - small - PACKAGES
        relay.kill()
        relay.communicate()
        origin.close()
    sys.stdout.write(
        f"latency {latency * 1000:.0f} ms: straight {min(straight):.2f} s, minimal relay"
        f" {min(relayed) / min(straight):.2f}, cold cache {min(through) / min(straight):.2f} times as long\n"
        f"small requests a package: {small / PACKAGES:.2f}; tarballs asked for again: {again}\n"
    )


def main() -> None:
    """Measure each latency."""
    for latency in LATENCIES:
        measure(latency)


if __name__ == "__main__":
    main()
