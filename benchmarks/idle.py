"""What the service takes while nobody asks: its memory, beside that of an empty Site."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.command import Groups
from benchmarks.lab import Lab
from benchmarks.report import Row, at_most
from benchmarks.servers import Server, wait_for
from tests.service import free_port

__all__ = ["GROUPS"]

_MEGA = 1_000_000


def empty_site(directory: Path) -> Server:
    """``twistd web`` over an empty directory."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "--logfile=/dev/null", "web"]
    command += ["--listen", f"tcp:{port}:interface=127.0.0.1", "--path", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory)
    wait_for(port, process)
    return Server("empty site", f"http://127.0.0.1:{port}/", process)


def idle(lab: Lab) -> list[Row]:
    """Both just started."""
    found: dict[str, list[float]] = {"regcache": [], "empty site": []}
    for turn in lab.turns([*found]):
        for label in turn:
            server = lab.new_regcache(logged=False) if label == "regcache" else empty_site(lab.place())
            time.sleep(1)
            found[label].append(server.resident() / _MEGA)
            server.stop()
    more = tuple(one - other for one, other in zip(found["regcache"], found["empty site"], strict=True))
    note = ", ".join(f"{label} {median(some):.1f} MB" for label, some in found.items())
    return [Row("idle memory over an empty twistd Site, helpers included", more, at_most(20), "MB", note)]


GROUPS: Groups = {"idle": idle}
