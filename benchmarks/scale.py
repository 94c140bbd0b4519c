"""A large store beside a small one: start, memory, requests a second on few and on all keys, and eviction."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.command import Groups
from benchmarks.hits import FLOOR, beside
from benchmarks.lab import Lab
from benchmarks.load import WrongAnswer, get, wrk
from benchmarks.report import Row, at_least, at_most, ratios
from benchmarks.servers import Server
from benchmarks.stall import Heartbeat
from regcache.http.messages import Headers, Kind, Stored
from regcache.store.blobs import blob_path
from regcache.store.index import Index, connect

__all__ = ["GROUPS"]

_MEGA = 1_000_000
SMALL, HOT, CONNECTIONS = 1_000, 1_000, 32
#: Bytes of each body, and on the disk; those that are evicted first have a body of their own each, of the second size.
_SIZE, _ALLOCATED, _LARGER, _LARGER_ALLOCATED = 1_000, 4_096, 16_000, 16_384
_BATCH = 10_000
#: The minimal program where it does not note what is used.
_FORGETFUL = f"{FLOOR} that notes no use"
_IDENTITY = {"Accept-Encoding": "identity"}
#: Asks for an entry at random.
_SCRIPT = """
math.randomseed(7)
request = function() return wrk.format("GET", "/files/one/" .. math.random(@FIRST@, @LAST@) .. ".bin") end
"""


def body(number: int, size: int = _SIZE) -> bytes:
    """What is stored: for a thousand entries the same."""
    return random.Random(number).randbytes(size)


def store(directory: Path, entries: int, own: int) -> int:
    """A cache directory with so many entries, the first ``own`` of which were used longest ago; bytes on the disk."""
    blobs = directory / "cache" / "blobs"
    blobs.mkdir(parents=True)
    for number in range(256):
        (blobs / f"{number:02x}").mkdir()
    shared = [_keep(blobs, body(number)) for number in range(1_000)]
    index = Index(connect(directory / "cache" / "index.sqlite3"))
    # In a hurry: nothing is lost that could not be made again.
    index.connection.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-400000")
    now = time.time()
    for batch in _batches(entries):
        index.begin()
        some = []
        for number in batch:
            if number < own:
                some.append((_entry(number, _keep(blobs, body(number, _LARGER)), _LARGER, now), _LARGER_ALLOCATED))
            else:
                some.append((_entry(number, shared[number % 1_000], _SIZE, now), _ALLOCATED))
        index.insert(some, now - 86_400 + batch[0] / 100)
        index.commit()
    allocated = index.allocated
    index.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index.connection.close()
    return allocated


def _batches(entries: int) -> Iterator[range]:
    for at in range(0, entries, _BATCH):
        yield range(at, min(at + _BATCH, entries))


def _keep(blobs: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    blob_path(blobs, digest).write_bytes(data)
    return digest


def _entry(number: int, digest: str, size: int, now: float) -> Stored:
    return Stored(
        key=f"files/one/{number}.bin",
        registry="files",
        kind=Kind.ARTIFACT,
        url=f"http://127.0.0.1/files/one/{number}.bin",
        headers=Headers((("content-type", "application/octet-stream"),)),
        digest=digest,
        size=size,
        stored_at=now,
        validated_at=now,
    )


def scale(lab: Lab) -> list[Row]:
    """A million entries."""
    entries, own = (50_000, 1_000) if lab.short else (1_000_000, 15_000)
    large, small = lab.place(), lab.place()
    allocated = store(large, entries, own)
    store(small, SMALL, 0)
    name = f"{entries:,} entries"
    rows = _start(lab, large, entries, name)
    servers = {
        "large": lab.new_regcache(cache=large, logged=False),
        "small": lab.new_regcache(cache=small, logged=False),
        FLOOR: lab.floor(FLOOR, "floor_keys", str(large / "cache"), "noted"),
        _FORGETFUL: lab.floor(_FORGETFUL, "floor_keys", str(large / "cache"), "ignored"),
    }
    try:
        rows += _rates(lab, servers, entries, own, name)
    finally:
        for server in servers.values():
            server.stop()
    return [*rows, *_eviction(lab, large, entries, allocated, name)]


def _start(lab: Lab, place: Path, entries: int, name: str) -> list[Row]:
    """From the start of the process to a hit, and how much more memory it has than at the start of an empty one."""
    firsts, memory = [], []
    for number in range(lab.rounds):
        began = time.monotonic()
        server = lab.new_regcache(cache=place, logged=False)
        _check(server, entries - 1 - number)
        firsts.append(time.monotonic() - began)
        memory.append(server.resident() / _MEGA)
        server.stop()
    return [
        Row(f"{name}: start to first hit", tuple(firsts), at_most(1.0), "s"),
        Row(f"{name}: memory after the first hit", tuple(memory), at_most(250), "MB"),
    ]


def _check(server: Server, number: int) -> None:
    answer = get(f"{server.url}files/one/{number}.bin", _IDENTITY)
    if (answer.status, answer.headers["X-Cache"], answer.body) != (200, "HIT", body(number % 1_000)):
        raise WrongAnswer(f"{server.url}files/one/{number}.bin: {answer.status}, {len(answer.body)} bytes")


def _rates(lab: Lab, servers: dict[str, Server], entries: int, own: int, name: str) -> list[Row]:
    loads = {
        "small": ("small", 0, SMALL - 1),
        "hot": ("large", entries - HOT, entries - 1),
        "random": ("large", own, entries - 1),
        FLOOR: (FLOOR, own, entries - 1),
        _FORGETFUL: (_FORGETFUL, own, entries - 1),
    }
    rates: dict[str, list[float]] = {label: [] for label in loads}
    for turn in lab.turns([*loads]):
        for label in turn:
            which, first, last = loads[label]
            _check(servers[which], last)
            script = _SCRIPT.replace("@FIRST@", str(first)).replace("@LAST@", str(last))
            url = servers[which].url
            rates[label].append(wrk(url, CONNECTIONS, lab.seconds * 2, _IDENTITY, script).rate)
            _check(servers[which], last)
    memory = (servers["large"].resident() / _MEGA,)
    note = ", ".join(f"{label} {median(some):,.0f}/s" for label, some in rates.items())
    hot, everything = (ratios(rates[label], rates["small"]) for label in ("hot", "random"))
    target = at_least(0.4)
    floor, forgetful = (
        beside(f"{name}: requests, all at random, {label} ÷ small store", ratios(rates[label], rates["small"]), target)
        for label in (FLOOR, _FORGETFUL)
    )
    return [
        Row(f"{name}: requests, {HOT:,} hot ÷ small store", hot, at_least(0.9), note=note),
        Row(f"{name}: requests, all at random ÷ small store", everything, target),
        floor,
        forgetful,
        Row(
            f"{name}: requests, all at random ÷ {FLOOR}",
            ratios(rates["random"], rates[FLOOR]),
            at_least(0.87) if floor.note else None,
        ),
        Row(f"{name}: memory after that", memory, at_most(250), "MB"),
    ]


def _eviction(lab: Lab, place: Path, entries: int, allocated: int, name: str) -> list[Row]:
    """One more body in a full store: it drops a twentieth of it, the used longest ago."""
    path = lab.tree.artifact("files/one-more.bin", 100_000)
    server = lab.new_regcache("--max-size", str(allocated), cache=place, logged=False)
    try:
        began = time.monotonic()
        with Heartbeat(server) as beat:
            lab.warm(server.url + path, _IDENTITY)
            gone = _dropped(place, entries)
        took = time.monotonic() - began
    finally:
        server.stop()
    note = f"{gone:,} entries dropped in {took:.1f} s"
    return [Row(f"{name}: longest stall while many are evicted", (beat.worst * 1000,), at_most(20), "ms", note)]


def _dropped(place: Path, entries: int) -> int:
    """How many entries are gone once no more go."""
    connection = connect(place / "cache" / "index.sqlite3", readonly=True)
    gone, before = 0, -1
    while gone != before:
        before = gone
        time.sleep(1)
        row: Sequence[int] = connection.execute("SELECT value FROM meta WHERE name = 'entries'").fetchone()
        gone = entries + 1 - row[0]
    connection.close()
    return gone


GROUPS: Groups = {"scale": scale}
