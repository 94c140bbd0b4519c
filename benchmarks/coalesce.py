"""
Many clients for one artifact that nobody has asked for yet.

The time of all clients as a ratio to the time one client takes, how often the upstream was asked, the median first
byte, and how much memory the service grew. One more client asks and does not read all the while.
"""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import sys
import time
from urllib.parse import urlsplit

from benchmarks.command import Groups, run
from benchmarks.lab import Lab
from benchmarks.processes import resident
from benchmarks.report import Row, at_most
from tests.origin import Origin
from tests.service import Running

SIZE = 10 << 20
RATE = 5_000_000
CLIENTS = 100


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


def measure(lab: Lab) -> tuple[float, float, float, float]:
    """Of one round: many ÷ one, upstream requests, the median first byte in seconds, and megabytes of memory more."""
    origin = Origin()
    for name in ("one", "many"):
        origin.add(f"/{name}.bin", os.urandom(SIZE))
    tables = f'[registries.files]\ntype = "generic"\nurl = "{origin.url}"\n'
    service = Running(lab.place(), origin, tables=tables)
    try:
        service.get("files/warm-up")
        origin.rate = RATE
        pid = service.process.pid
        alone, _, _ = fetch(service.url, "files/one.bin", 1, pid)
        before = resident(pid)
        slow = connect(service.url, "files/many.bin")
        together, firsts, most = fetch(service.url, "files/many.bin", CLIENTS, pid)
        slow.close()
    finally:
        service.stop()
        origin.close()
    asked = origin.asked.count("/many.bin")
    return together / alone, asked, statistics.median(firsts), (most - before) / 1e6


def coalesce(lab: Lab) -> list[Row]:
    """Round by round."""
    found = [measure(lab) for _ in range(lab.rounds)]
    whole, asked, firsts, memory = zip(*found, strict=True)
    name = f"{CLIENTS} clients, one cold {SIZE >> 20} MB artifact at {RATE / 1e6:.0f} MB/s"
    return [
        Row(f"{name}: slowest ÷ the single transfer", whole, at_most(1.1)),
        Row(f"{name}: upstream requests", asked, at_most(1)),
        Row(f"{name}: median first byte", firsts, at_most(0.15), "s"),
        Row(f"{name}: memory more", memory, None, "MB"),
    ]


GROUPS: Groups = {"coalesce": coalesce}

if __name__ == "__main__":
    sys.exit(run(GROUPS))
