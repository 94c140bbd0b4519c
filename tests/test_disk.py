"""The cache directory: who may use it, what it survives, and what a full disk costs."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred

from regcache.errors import CannotStore, ConfigError
from regcache.http.messages import Headers
from regcache.revision import Revision
from regcache.store import directory, disk, uses
from regcache.store.blobs import File
from regcache.store.files import Files
from regcache.store.index import FORMAT, connect
from regcache.store.partial import Partial
from regcache.store.placing import Commit
from regcache.store.records import Records
from regcache.store.space import Bounds, Space
from regcache.store.writer import Writer
from tests.stores import entry, indexed, let_go, logged, opened, put, rows, writer_of


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """One line that names the process and what to do."""
    first = opened(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}.*--cache-dir"):
        opened(tmp_path)
    let_go(first)
    let_go(opened(tmp_path))


def test_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    """An older program does not touch what it does not understand; it serves without it, and says so once."""
    store = opened(tmp_path)
    put(store, "npm/a", b"a")
    let_go(store)
    with sqlite3.connect(tmp_path / "index.sqlite3") as connection:
        connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    connection.close()
    (tmp_path / "partial" / "1-1").write_text("what a newer one keeps there")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    with logged() as lines:
        store = opened(tmp_path)
    assert (store.peek("npm/a"), store.usage()) == (None, (0, 0))
    with pytest.raises(CannotStore, match="newer regcache"):
        store.create()
    assert len(lines) == 1
    assert "NOTHING CAN BE STORED" in lines[0]
    assert "written by a newer regcache. Its format is 2, this one knows 1: upgrade" in lines[0]
    let_go(store)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in its place: one line that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/cache.*--cache-dir"):
        opened(tmp_path / "file" / "cache")


def test_a_disk_that_is_full_at_the_start_costs_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about the index, which stays where it is for a start with room; what is stored is found."""
    store = opened(tmp_path)
    put(store, "npm/a", b"a")
    let_go(store)
    before = (tmp_path / "index.sqlite3").read_bytes()

    def full(path: Path, *, readonly: bool = False, immutable: bool = False) -> sqlite3.Connection:
        if readonly:
            return connect(path, readonly=True, immutable=immutable)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
        raise error

    with monkeypatch.context() as patched, logged() as lines:
        patched.setattr(directory, "connect", full)
        store = opened(tmp_path)
    assert len(lines) == 1
    assert "NOTHING CAN BE STORED" in lines[0]
    assert "disk I/O error" in lines[0]
    store._running = True
    assert store.peek("npm/a") == entry("npm/a", b"a")
    with pytest.raises(CannotStore, match="disk I/O error"):
        store.create()
    let_go(store)
    assert (tmp_path / "index.sqlite3").read_bytes() == before
    assert list(tmp_path.glob("index.damaged*")) == []


def test_a_rebuilt_index_for_which_there_is_no_room_is_not_lost(tmp_path: Path) -> None:
    """The damaged index is replaced by all of its backup or not yet: the next start goes on with it."""
    store = opened(tmp_path)
    put(store, "npm/a", b"a")
    let_go(store)
    (tmp_path / "index.sqlite3").rename(tmp_path / "index.backup.sqlite3")
    backup = (tmp_path / "index.backup.sqlite3").read_bytes()
    (tmp_path / "index.sqlite3").write_text("no index")

    class Full(Files):
        def replace(self, source: Path | str, target: Path | str) -> None:
            del source, target
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with logged() as lines:
        store = opened(tmp_path, files=Full())
    assert store.usage() == (0, 0)
    assert [line for line in lines if "No space left" in line] == lines
    let_go(store)
    with logged() as lines:
        store = opened(tmp_path)
    assert store.usage()[1] == 1
    let_go(store)
    assert [line for line in lines if "index.damaged" in line] == lines
    assert (tmp_path / "index.backup.sqlite3").read_bytes() == backup
    assert [path.read_text() for path in tmp_path.glob("index.damaged*")] == ["no index"]
    assert sorted(path.name for path in tmp_path.glob("index.[ns]*")) == ["index.sqlite3"]


def test_what_was_under_way_is_swept(tmp_path: Path) -> None:
    """Unfinished bodies of the process before go at start."""
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "1-1").write_text("half")
    let_go(opened(tmp_path))
    assert list((tmp_path / "partial").iterdir()) == []


class Noting(Files):
    """A disk that notes how much each call wrote."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        done = super().write(fd, data, at)
        self.sizes.append(done)
        return done


def growing(directory: Path, files: Files, observe: Any = bool) -> Partial:
    """A body being written, of which the first 100 bytes may be held in memory."""
    return Partial(directory / "1", observe, maybeDeferred, Space(Bounds(0, 0), int, bool), files, most_held=100)


def test_what_is_still_in_memory_leaves_as_what_is_in_the_file(tmp_path: Path) -> None:
    """So that a client that came early gets the rest of it past our memory, too; one that is full gets nothing."""
    partial = growing(tmp_path, Files())
    partial.write(b"in ", b"memory")
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        assert partial.send(left.fileno(), 3, 4) == 4
        partial.write(b", in a file" * 10)
        assert partial.send(left.fileno(), 7, 9) == 9
        assert right.recv(99) == b"memory, in a "
        with contextlib.suppress(BlockingIOError):
            while left.send(bytes(1 << 16)):
                pass
        partial = growing(tmp_path / "other", Files())
        partial.write(b"in memory")
        assert partial.send(left.fileno(), 0, 9) == 0


def test_large_pieces_are_not_copied(tmp_path: Path) -> None:
    """Each is hashed and written as it came, while many small ones are one; the bytes are the same, in order."""
    disk, seen = Noting(), list[int]()
    partial = growing(tmp_path, disk, lambda data: seen.append(len(data)))
    pieces = [bytes([number]) * (1 << 17) for number in range(3)]
    partial.write(b"held")
    partial.write(*pieces)
    partial.write(*[b"x" * 1000] * 50)
    assert seen == [4, *[1 << 17] * 3, 50_000]
    assert disk.sizes == [4, *[1 << 17] * 3, 50_000]
    assert (tmp_path / "1").read_bytes() == b"held" + b"".join(pieces) + b"x" * 50_000


def test_what_was_just_written_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has the last two writes; what is older, and all once the body has a name, may be on the disk alone."""
    looked: list[int] = []

    def is_warm(_file: File, offset: int, _length: int) -> bool:
        looked.append(offset)
        return True

    monkeypatch.setattr(File, "is_warm", is_warm)
    partial = growing(tmp_path, Files())
    for piece in (b"a" * 200, b"b" * 200, b"c" * 200):
        partial.write(piece)
    left, right = socket.socketpair()
    with left, right:
        for offset in (0, 199, 200, 599):
            assert partial.send(left.fileno(), offset, 1) == 1
        assert looked == [0, 199]
        partial.retain()
        partial.end()
        assert partial.send(left.fileno(), 599, 1) == 1
        assert looked == [0, 199, 599]
    partial.release()


def test_a_disk_that_fills_up_costs_the_copy(tmp_path: Path) -> None:
    """The bytes that were written stay readable, the rest is refused, and the file goes."""

    def in_thread(work: Any, *args: Any) -> Deferred[Any]:
        return maybeDeferred(work, *args)

    class Full(Files):
        def write(self, fd: int, data: Any, at: int) -> int:
            if at >= 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(fd, data[: 1000 - at], at)

    partial = Partial(tmp_path / "1", bool, in_thread, Space(Bounds(0, 0), int, bool), files=Full())
    failures: list[Any] = []
    partial.retain()
    partial.write(b"x" * 3000).addBoth(failures.append)
    assert failures[0].check(CannotStore)
    assert "No space left" in failures[0].value.detail
    assert partial.written == 1000
    assert partial.read(0, 5000) == b"x" * 1000
    partial.abort()
    partial.release()
    assert list(tmp_path.iterdir()) == []


def test_the_bounds() -> None:
    """Below min-free or above max-size, with all that is under way, nothing more is stored, and room is made."""
    made_room: list[int] = []
    space = Space(Bounds(1000, 1 << 30), lambda: 500, made_room.append)
    space.measured((1 << 30) + 100)
    space.take(100)
    with pytest.raises(CannotStore, match="--min-free"):
        space.take(1)
    assert made_room == [1]
    space.measured(2 << 30)
    space.take(500)
    assert made_room == [1, 600]
    with pytest.raises(CannotStore, match="--max-size"):
        space.take(401)
    space.give_back(600)
    space.take(1000)
    space.measured((1 << 30) - 1)
    assert made_room == [1, 600, 1000, 0]


def test_a_start_does_not_look_at_every_entry(tmp_path: Path) -> None:
    """The totals are kept beside the rows: a start reads no table, however large the cache."""
    store = opened(tmp_path)
    let_go(store)
    with sqlite3.connect(tmp_path / "index.sqlite3") as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('entries', 3000000), ('allocated', 77)")
    connection.close()
    store = opened(tmp_path)
    assert store.usage() == (77, 3_000_000)
    let_go(store)


def test_the_module_waits_for_no_wall_clock() -> None:
    """What lasts is timed by the clock that it was given; nothing here asks for the time by itself."""
    assert "time.time()" not in Path(disk.__file__).read_text()


def test_a_long_eviction_goes_by_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes meanwhile is stored between two of them, and they end well below the cap."""
    monkeypatch.setattr("regcache.store.evict._BATCH", 50)
    store = opened(tmp_path / "cache", max_size=0, min_free=0)
    writer = writer_of(store)
    bodies = {f"npm/{number}": b"%d" % number for number in range(100)}
    writer.commit([Commit(store._new_path(), entry(key, body), body) for key, body in bodies.items()])
    cap = store.bounds.max_size = writer.index.allocated // 4
    gone: list[int] = []
    with logged() as lines:
        while batch := writer.evict(0):
            gone.append(len(batch))
            if len(gone) == 1:
                put(store, "npm/new", b"new")
    assert gone[0] == 50
    assert len(rows(store)) < 50
    assert writer.index.allocated <= cap * 0.95
    assert "npm/new" in rows(store)
    assert len([line for line in lines if "evicted" in line]) == 1
    let_go(store)


def test_the_bodies_of_a_burst_are_synced_together(tmp_path: Path) -> None:
    """All are on their way to the disk before the first is waited for, and each is there before it gets its name."""
    done: list[str] = []

    class Watched(Files):
        def begin_sync(self, fd: int) -> None:
            done.append("begin")
            super().begin_sync(fd)

        def sync(self, fd: int) -> None:
            done.append("sync")
            super().sync(fd)

        def sync_path(self, path: Path) -> None:
            Files().sync_path(path)

        def replace(self, source: Path | str, target: Path | str) -> None:
            done.append("replace")
            super().replace(source, target)

    store = opened(tmp_path, files=Watched())
    done.clear()
    bodies = [b"one", b"other", b"third"]
    commits = [Commit(store._new_path(), entry(body.decode(), body), body) for body in bodies]
    assert writer_of(store).commit(commits).failed == [None] * 3
    assert done == ["begin"] * 3 + ["sync"] * 3 + ["replace"] * 3
    let_go(store)


def test_one_body_that_cannot_be_written_leaves_the_others(tmp_path: Path) -> None:
    """Its own entry is missing, and nothing of it stays."""

    class Refusing(Files):
        def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
            if bytes(data) == b"other":
                raise OSError(errno.EIO, "Input/output error")
            return super().write(fd, data, at)

    store = opened(tmp_path, files=Refusing())
    bodies = [b"one", b"other", b"third"]
    commits = [Commit(store._new_path(), entry(body.decode(), body), body) for body in bodies]
    failed = writer_of(store).commit(commits).failed
    assert [error is None for error in failed] == [True, False, True]
    assert rows(store).keys() == {"one", "third"}
    assert [*(tmp_path / "partial").iterdir()] == []
    let_go(store)


def noted(directory: Path) -> dict[str, tuple[float, int]]:
    """When each entry was used last, and how often, as the index has it."""
    with contextlib.closing(connect(directory / "index.sqlite3", readonly=True)) as connection:
        found = connection.execute("SELECT key, used_at, hits FROM entries").fetchall()
    return {key: (when, hits) for key, when, hits in found}


def test_whatever_is_said_of_a_record_is_another_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that was forgotten to make room; what is only looked at, or said again, is none."""
    monkeypatch.setattr("regcache.store.records._MOST", 2)
    revision = Revision()
    records, one = Records(revision), entry("npm/a", b"a")

    def changed(work: Callable[[], object]) -> bool:
        before = revision.number
        work()
        return revision.number != before

    assert changed(lambda: records.put("npm/a", one))
    assert not changed(lambda: records.put("npm/a", one))
    assert not changed(lambda: records.get("npm/a"))
    assert changed(lambda: records.put("npm/a", replace(one)))
    assert changed(lambda: records.put("npm/a", None))
    for name in ("npm/b", "npm/c"):
        records.put(name, None)
    assert records.get("npm/a") is None
    assert changed(lambda: records.put("npm/a", None))
    assert changed(lambda: records.drop("npm/b"))
    assert changed(lambda: records.drop("npm/a"))


def test_records_are_counted_by_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as clients and registries make them: what was asked for last is known, and not one byte too many."""
    monkeypatch.setattr("regcache.store.records._MOST_BYTES", 10_000)
    known = Records(Revision())
    for number in range(50):
        known.put(f"{number}{'x' * 900}", None)
    assert sum(map(len, known._items)) == known._bytes <= 10_000
    assert known.get(f"49{'x' * 900}") is not None
    one = replace(entry("npm/a", b"a"), headers=Headers.of({"x": "y" * 6000}))
    for _ in range(3):
        known.put("npm/a", one)
        known.put("npm/b", replace(one, key="npm/b"))
    assert [*known._items] == ["npm/b"]
    known.put("npm/c", None)
    known.put("npm/b", None)
    known.drop("npm/b")
    assert (known._bytes, [*known._items]) == (5, ["npm/c"])
    known.put("npm/d", replace(one, url="x" * 20_000))
    assert (known._bytes, [*known._items]) == (0, [])


def test_uses_are_noted_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch after the other, so that they do not gather before the writer, and so many wait at most."""
    monkeypatch.setattr(uses, "_MOST_USES", 100)
    monkeypatch.setattr(uses, "_MANY_USES", 200)
    monkeypatch.setattr(uses, "_MOST_UNNOTED", 250)
    indexed(tmp_path / "cache", [f"npm/{number}" for number in range(400)])
    store = opened(tmp_path / "cache")
    jobs: list[tuple[Deferred[None], Any]] = []

    def write(work: Any, some: Any) -> Deferred[None]:
        jobs.append((Deferred(), lambda: work(writer_of(store), some)))
        return jobs[-1][0]

    monkeypatch.setattr(store, "_write", write)
    store._running = True
    for number in range(400):
        store.used(f"npm/{number}", 2000.0 + number)
        assert bool(jobs) == (number >= 199)
    store.used("npm/150", 5000.0)
    assert len(jobs) == 1
    assert len(store._uses) == 250
    while jobs:
        done, job = jobs.pop(0)
        job()
        done.callback(None)
    assert len(store._uses) == 50
    store._uses.note()
    jobs.pop(0)[1]()
    found = noted(tmp_path / "cache")
    assert {key for key, (_, hits) in found.items() if hits} == {f"npm/{number}" for number in range(350)}
    assert found["npm/7"] == (2007.0, 1)
    assert found["npm/150"] == (5000.0, 2)
    let_go(store)


def test_uses_are_noted_before_anything_is_evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used a moment ago is not what was used longest ago."""
    store = opened(tmp_path)
    jobs: list[Any] = []

    def write(work: Any, *args: Any) -> Deferred[Any]:
        jobs.append((work, *args))
        return Deferred()

    monkeypatch.setattr(store, "_write", write)
    store._running = True
    store.used("npm/a", 5.0)
    store._make_room(1 << 20)
    assert jobs == [(Writer.touch, [("npm/a", 5.0, 1)]), (Writer.evict, 1 << 20)]
    let_go(store)
