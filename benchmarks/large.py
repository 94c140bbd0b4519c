"""Large artifacts: megabytes a second and processor time a gigabyte, warm; first byte and whole time, cold; memory."""

from __future__ import annotations

import hashlib
import socket
from statistics import median
from urllib.parse import urlsplit

from benchmarks.command import Groups
from benchmarks.lab import Lab
from benchmarks.load import WrongAnswer, download, get
from benchmarks.report import Row, at_least, at_most, ratios
from benchmarks.servers import Server

__all__ = ["GROUPS"]

_MEGA = 1_000_000
_SLOW = 10_000


def check(server: Server, path: str, digest: str) -> None:
    """
    See that a body is right to the last byte.

    :raises WrongAnswer: if it is not.
    """
    answer = get(server.url + path)
    if answer.status != 200 or hashlib.sha256(answer.body).hexdigest() != digest:
        raise WrongAnswer(f"{server.name}, {path}: {answer.status}, {len(answer.body)} bytes that are not right")


def warm(lab: Lab) -> list[Row]:
    """100 MB and 1 GB, by one client and by several at once."""
    rows: list[Row] = []
    for size in (100 * _MEGA, 1000 * _MEGA):
        if lab.short and size > 100 * _MEGA:
            size = 300 * _MEGA
        path = lab.tree.artifact(f"files/large-{size}.bin", size)
        digest = lab.tree.digest(path)
        floor = lab.floor("floor_large", "floor_large", str(lab.tree.directory / path))
        servers = [one for one in (lab.regcache(), lab.nginx(), lab.apache(), floor) if one is not None]
        for server in servers:
            for _ in range(2):
                check(server, path, digest)
        lab.warm(servers[0].url + path)
        for clients, bound in ((1, 1.4), (8, 1.1), (64, 1.1)):
            rows += _several(lab, servers, path, size, clients, bound)
        for server in servers:
            check(server, path, digest)
        floor.stop()
    return rows


def _several(lab: Lab, servers: list[Server], path: str, size: int, clients: int, bound: float) -> list[Row]:
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    cpu: dict[str, list[float]] = {server.name: [] for server in servers}
    for turn in lab.turns(servers):
        for server in turn:
            before = server.cpu()
            found = download(server.url + path, size, clients, lab.seconds)
            rates[server.name].append(found.rate)
            cpu[server.name].append((server.cpu() - before) / found.received)
    name = f"artifact of {size // _MEGA} MB, warm, {clients} client{'s' if clients > 1 else ''}"
    note = ", ".join(
        f"{label} {median(some) / _MEGA:,.0f} MB/s {median(cpu[label]) * 1e9:.2f} s/GB" for label, some in rates.items()
    )
    # For one client the minimal program is far above nginx, by which the target goes then.
    slower, dearer = (at_least(0.87), at_most(1.15)) if clients > 1 else (None, None)
    rows = [
        Row(f"{name}: MB/s ÷ nginx", ratios(rates["regcache"], rates["nginx"]), at_least(bound), note=note),
        Row(f"{name}: CPU a GB ÷ nginx", ratios(cpu["regcache"], cpu["nginx"]), at_most(1.2)),
        Row(f"{name}: minimal program's MB/s ÷ nginx", ratios(rates["floor_large"], rates["nginx"])),
        Row(f"{name}: minimal program's CPU a GB ÷ nginx", ratios(cpu["floor_large"], cpu["nginx"])),
        Row(f"{name}: MB/s ÷ minimal program", ratios(rates["regcache"], rates["floor_large"]), slower),
        Row(f"{name}: CPU a GB ÷ minimal program", ratios(cpu["regcache"], cpu["floor_large"]), dearer),
    ]
    if "Apache" in rates:
        rows.append(Row(f"{name}: MB/s ÷ Apache", ratios(rates["regcache"], rates["Apache"])))
    return rows


def cold(lab: Lab) -> list[Row]:
    """100 MB that nobody has asked for yet, straight and through the caches."""
    size = 100 * _MEGA
    path = lab.tree.artifact("files/cold-100.bin", size)
    digest = lab.tree.digest(path)
    port, place = urlsplit(lab.origin.url).port, lab.place()
    floor = lab.floor("floor_cold", "floor_cold", str(port), str(place))
    servers = [lab.origin, lab.regcache(), lab.nginx(), floor]
    firsts: dict[str, list[float]] = {server.name: [] for server in servers}
    totals: dict[str, list[float]] = {server.name: [] for server in servers}
    download(lab.origin.url + path, size)
    for number, turn in enumerate(lab.turns(servers)):
        fresh = lab.tree.again(path, f"files/cold-100-{number}.bin")
        for server in turn:
            with (lab.directory / "downloaded").open("wb") as sink:
                found = download(server.url + fresh, size, sink=sink)
            firsts[server.name].append(found.first)
            totals[server.name].append(found.seconds)
        for server in turn:
            check(server, fresh, digest)
    floor.stop()
    ours, base, straight, least = (totals[name] for name in ("regcache", "nginx", "origin", "floor_cold"))
    later = [(one - other) * 1000 for one, other in zip(firsts["regcache"], firsts["origin"], strict=True)]
    note = ", ".join(f"{name} {median(some):.3f} s" for name, some in totals.items())
    return [
        Row("artifact of 100 MB, cold: first byte after straight's", tuple(later), at_most(5), "ms"),
        Row("artifact of 100 MB, cold: total ÷ straight", ratios(ours, straight), at_most(1.7), note=note),
        Row("artifact of 100 MB, cold: nginx's total ÷ straight", ratios(base, straight)),
        Row("artifact of 100 MB, cold: minimal program's total ÷ straight", ratios(least, straight)),
        Row("artifact of 100 MB, cold: total ÷ minimal program", ratios(ours, least), at_most(1.15)),
    ]


def memory(lab: Lab) -> list[Row]:
    """What the service holds in memory while 64 clients read 100 MB, one of them slowly."""
    size = 100 * _MEGA
    path = lab.tree.artifact("files/memory-100.bin", size)
    grown = []
    for _ in range(lab.rounds):
        server = lab.new_regcache()
        try:
            lab.warm(server.url + path)
            idle, seen = server.resident(), [0]
            with _slow_reader(server.url + path) as slow:

                def look(slow: socket.socket = slow, server: Server = server, seen: list[int] = seen) -> None:
                    slow.recv(_SLOW // 10)
                    seen.append(server.resident())

                download(server.url + path, size, 63, watch=look)
                look()
            grown.append((max(seen) - idle) / _MEGA)
        finally:
            server.stop()
    return [Row("64 clients read 100 MB, one at 10 kB/s: memory over idle", tuple(grown), at_most(40), "MB")]


def _slow_reader(url: str) -> socket.socket:
    parts = urlsplit(url)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    made.connect((parts.hostname or "", parts.port or 80))
    made.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return made


GROUPS: Groups = {"large": warm, "cold": cold, "memory": memory}
