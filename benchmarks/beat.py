"""
Asks whether a server lives, every millisecond, until its input ends; then prints the longest answer, in seconds.

    python -m benchmarks.beat URL
"""

from __future__ import annotations

import http.client
import select
import sys
import time
from urllib.parse import urlsplit

__all__ = ["main"]


def main() -> None:
    """As the command line says."""
    parts = urlsplit(sys.argv[1])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    worst = 0.0
    connection.connect()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        began = time.monotonic()
        connection.request("GET", parts.path)
        connection.getresponse().read()
        worst = max(worst, time.monotonic() - began)
    sys.stdout.write(f"{worst}\n")


if __name__ == "__main__":
    main()
