"""
The upstream hangs and the stored index is past its lifetime: how long clients wait for the stale copy.

Prints the first request's time less the upstream timeout, and the times of those after it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.origin import Origin
from tests.service import Running

TIMEOUT = 5.0


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        origin = Origin()
        origin.add_wheel("alpha", "1.0")
        service = Running(Path(directory), origin, "--ttl", "100ms", "--upstream-timeout", f"{TIMEOUT:g}s")
        service.get("pypi/simple/alpha/")
        origin.trouble = lambda _path: "hang"
        time.sleep(0.2)
        times = []
        for _ in range(10):
            began = time.monotonic()
            status, headers, _ = service.get("pypi/simple/alpha/")
            times.append(time.monotonic() - began)
            assert (status, headers["X-Cache"]) == (200, "STALE")
        origin.close()
        service.stop()
    later = ", ".join(f"{seconds * 1000:.1f}" for seconds in times[1:])
    sys.stdout.write(f"first: upstream timeout {times[0] - TIMEOUT:+.3f} s\nnext: {later} ms\n")


if __name__ == "__main__":
    main()
