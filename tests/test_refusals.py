"""The service on a disk that refuses, changes what it holds, or comes from elsewhere: its clients notice nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regcache.store.index import FORMAT
from tests.origin import Origin
from tests.service import Running

Start = Callable[..., Running]
BODIES = {f"/{n}.bin": bytes([n]) * 150_000 for n in range(4)}


class Disk:
    """A file system of 4 MiB, the cache's own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str) -> str:
        """Mount it, or mount it anew; why that cannot be done, if so."""
        command = ["mount", "-t", "tmpfs", "-o", f"size=4m,{options}", "regcache-test", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr.strip()

    def fill(self) -> Path:
        """Leave no byte of it; the file that takes them all."""
        filling = self.path.with_name("cache") / ".filling"
        with open(filling, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 12))
            except OSError:
                return filling


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """One that is small, where a test may mount one."""
    made = Disk(tmp_path / "cache")
    made.path.mkdir(mode=0o700)
    problem = made.mount("mode=700")
    if problem:
        pytest.skip(f"no file system can be mounted here: {problem}")
    yield made
    subprocess.run(["umount", str(made.path)], check=True)


@pytest.fixture
def options(origin: Origin) -> tuple[str, ...]:
    """Those of a service in front of some files."""
    for path, body in BODIES.items():
        origin.add(path, body)
    return ("--registries", f"files=generic+{origin.url}", "--min-free", "0")


def stored(service: Running, *paths: str) -> None:
    """Ask for files until they are hits."""
    for path in paths:
        assert service.until(f"files{path}", "HIT")[2] == BODIES[path]


def blob(directory: Path, path: str) -> Path:
    """Where a file's body lies."""
    digest = hashlib.sha256(BODIES[path]).hexdigest()
    return directory / "cache" / "blobs" / digest[:2] / digest[2:]


def how(service: Running, path: str) -> str:
    """How a file comes, which must be right."""
    status, headers, body = service.get(f"files{path}")
    assert (status, body) == (200, BODIES[path])
    return str(headers["X-Cache"])


def test_a_disk_that_is_full_at_the_start(disk: Disk, start: Start, options: tuple[str, ...]) -> None:
    """A new cache on it: everything is passed on, and the log says so once."""
    disk.fill()
    service = start(*options)
    assert service.said.count("NOTHING CAN BE STORED") == 1
    assert re.search("No space left on device|disk is full|disk I/O error", service.said)
    assert [how(service, path) for path in (*BODIES, *BODIES)] == ["MISS"] * 8
    assert service.stop().count("NOTHING CAN BE STORED") == 0


def test_a_disk_that_is_full_later(disk: Disk, start: Start, options: tuple[str, ...]) -> None:
    """What is stored is served, through a restart as well; the rest is passed on and leaves nothing."""
    service = start(*options)
    stored(service, "/0.bin", "/1.bin")
    filling = disk.fill()
    assert [how(service, path) for path in BODIES] == ["HIT", "HIT", "MISS", "MISS"]
    told = service.stop()
    assert "cannot be stored: No space left on device" in told
    assert list((disk.path / "partial").iterdir()) == []
    service = start(*options)
    assert [how(service, path) for path in BODIES] == ["HIT", "HIT", "MISS", "MISS"]
    service.stop()
    filling.unlink()
    service = start(*options)
    stored(service, *BODIES)
    assert service.said.count("NOTHING CAN BE STORED") == 0


def test_a_disk_that_may_only_be_read(disk: Disk, start: Start, origin: Origin, options: tuple[str, ...]) -> None:
    """What is stored is served, even when the registry is gone."""
    service = start(*options)
    stored(service, "/0.bin", "/1.bin")
    service.stop()
    assert disk.mount("remount,ro") == ""
    service = start(*options)
    assert service.said.count("NOTHING CAN BE STORED") == 1
    assert "Read-only file system" in service.said or "readonly" in service.said
    assert [how(service, path) for path in BODIES] == ["HIT", "HIT", "MISS", "MISS"]
    origin.spoil = lambda _path, _answer: (503, "text/plain", b"down")
    assert [how(service, path) for path in ("/0.bin", "/1.bin")] == ["HIT", "HIT"]
    assert service.get("files/2.bin")[0] == 503
    service.stop()
    assert disk.mount("remount,rw") == ""


def test_bodies_that_change_under_the_service(start: Start, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Deleted, cut, or flipped where it is read again: fetched again, and a hit from then on; each is told once."""
    service = start(*options, "--scrub", "300ms")
    stored(service, *BODIES)
    blob(tmp_path, "/0.bin").unlink()
    os.truncate(blob(tmp_path, "/1.bin"), 1000)
    with open(blob(tmp_path, "/2.bin"), "r+b") as file:
        file.seek(100_000)
        file.write(b"?")
    flipped, whole = blob(tmp_path, "/2.bin"), blob(tmp_path, "/2.bin").stat().st_size
    for _ in range(5000):
        # It is asked for by nobody until it was noticed, and hits of others go on meanwhile.
        assert how(service, "/3.bin") == "HIT"
        with contextlib.suppress(FileNotFoundError):
            if flipped.stat().st_size == whole:
                continue
        break
    assert {how(service, path) for path in BODIES} <= {"HIT", "MISS"}
    stored(service, *BODIES)
    told = service.stop()
    assert told.count("files/2.bin: the stored body is damaged: Its bytes have changed.") == 1
    lines = told.splitlines()
    assert [sum(f"files/{n}.bin" in line for line in lines) for n in range(4)] == [1, 1, 1, 0]


def test_an_index_that_is_damaged(start: Start, tmp_path: Path, origin: Origin, options: tuple[str, ...]) -> None:
    """All that its backup knows is there again, though nobody can be asked."""
    service = start(*options)
    stored(service, *BODIES)
    service.stop()
    (tmp_path / "cache" / "index.sqlite3").write_bytes(b"no index" * 2000)
    service = start(*options)
    assert service.said.count("The index is damaged (file is not a database)") == 1
    origin.close()
    # Nothing vouches for files of this kind: they are stale when nobody can be asked.
    assert {how(service, path) for path in BODIES} <= {"HIT", "STALE"}
    service.stop()


def test_an_index_of_a_newer_version(start: Start, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Everything is passed on, and the newer one finds its index as it was."""
    index = tmp_path / "cache" / "index.sqlite3"
    index.parent.mkdir(mode=0o700)
    with sqlite3.connect(index) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    connection.close()
    before = index.read_bytes()
    service = start(*options)
    assert service.said.count("It was written by a newer regcache.") == 1
    assert {how(service, path) for path in (*BODIES, *BODIES)} == {"MISS"}
    service.stop()
    assert index.read_bytes() == before


def test_an_index_that_is_lost(start: Start, tmp_path: Path, origin: Origin) -> None:
    """What lies in the cache without a name is taken from there once an index page states its digest."""
    path = origin.add_wheel("left", "1.0")
    service = start("--min-free", "0")
    service.until("pypi/simple/left/", "HIT")
    service.until(f"pypi{path}", "HIT")
    service.stop()
    for file in (tmp_path / "cache").glob("index.*"):
        file.unlink()
    origin.asked.clear()
    service = start("--min-free", "0")
    service.until("pypi/simple/left/", "HIT")
    assert service.get(f"pypi{path}")[2] == origin.body(path)
    assert service.until(f"pypi{path}", "HIT")[2] == origin.body(path)
    assert origin.asked == ["/simple/left/"]
    assert "its body was stored already; the registry is not asked for it" in service.stop()
