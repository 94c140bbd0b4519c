"""
Many clients for one artifact that nobody has asked for yet.

Prints the time of all clients as a ratio to the time one client takes, how often the upstream was asked, the median
first byte behind the upstream's, and how much memory the service grew. One more client reads at 10 kB/s all the while.
"""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.origin import Origin
from tests.service import Running

SIZE = 10 << 20
RATE = 5_000_000
CLIENTS = 100


def resident(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def connect(url: str, path: str) -> socket.socket:
    """A connection on which the artifact was asked for."""
    parts = urlsplit(url)
    made = socket.create_connection((parts.hostname or "", parts.port or 80))
    made.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return made


def fetch(url: str, path: str, clients: int, pid: int) -> tuple[float, list[float], int]:
    """Seconds until the last client has all, seconds to each one's first body byte, and the most memory used."""
    selector = selectors.DefaultSelector()
    began = time.monotonic()
    received: dict[socket.socket, int] = {}
    firsts: list[float] = []
    for _ in range(clients):
        made = connect(url, path)
        made.setblocking(False)
        selector.register(made, selectors.EVENT_READ)
        received[made] = 0
    buffer = bytearray(1 << 20)
    most, looked = 0, 0.0
    while received:
        for key, _ in selector.select(1):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            size = client.recv_into(buffer)
            if size == 0:
                assert received.pop(client) >= SIZE, "a client was cut short"
                selector.unregister(client)
                client.close()
            else:
                if not received[client]:
                    firsts.append(time.monotonic() - began)
                received[client] += size
        if time.monotonic() - looked > 0.05:
            looked = time.monotonic()
            most = max(most, resident(pid))
    return time.monotonic() - began, firsts, most


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        origin = Origin()
        for name in ("one", "many"):
            origin.add(f"/{name}.bin", os.urandom(SIZE))
        service = Running(Path(directory), origin, "--registries", f"files=generic+{origin.url}")
        service.get("files/warm-up")
        origin.rate = RATE
        pid = service.process.pid
        alone, alone_first, _ = fetch(service.url, "files/one.bin", 1, pid)
        before = resident(pid)
        slow = connect(service.url, "files/many.bin")
        together, firsts, most = fetch(service.url, "files/many.bin", CLIENTS, pid)
        slow.close()
        asked = origin.asked.count("/many.bin")
        service.stop()
        origin.close()
    sys.stdout.write(
        f"one client {alone:.2f} s, {CLIENTS} clients {together:.2f} s: ratio {together / alone:.3f}\n"
        f"upstream requests: {asked}\n"
        f"median first byte {statistics.median(firsts):.3f} s (one client {alone_first[0]:.3f} s)\n"
        f"memory grew by {(most - before) / 1e6:.1f} MB\n"
    )


if __name__ == "__main__":
    main()
