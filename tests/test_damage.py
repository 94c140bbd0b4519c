"""A damaged index: what is left of it and of its backup becomes a new one, as far as the bodies are right."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regcache.errors import CannotStore
from regcache.http.messages import Digest, Kind
from regcache.store import holding
from regcache.store.disk import DiskStore
from regcache.store.files import Files
from regcache.store.index import COLUMNS, _row, read_entry
from regcache.store.placing import Commit
from regcache.store.space import Bounds, Space
from tests.stores import blob, entry, let_go, logged, opened, put, rows, writer_of

PAGE = 4096


def filled(directory: Path, count: int = 80) -> DiskStore:
    """A store with entries whose rows fill some pages."""
    store = opened(directory)
    commits = []
    for n in range(count):
        body = f"body {n}".encode() * 50
        made = entry(f"npm/{n:03}", body, url="u" * 200)
        commits.append(Commit(store._new_path(), made, body))
    writer_of(store).commit(commits)
    return store


def backed_up(directory: Path, count: int = 80) -> None:
    """The same, closed, with a backup."""
    store = filled(directory, count)
    writer_of(store).back_up()
    let_go(store)


def spoil(directory: Path, first: int = 0, last: int = 1 << 30) -> None:
    """Write zeros over pages of the index."""
    path = directory / "index.sqlite3"
    with open(path, "r+b") as file:
        for page in range(first, min(last, path.stat().st_size // PAGE)):
            file.seek(page * PAGE)
            file.write(bytes(PAGE))


def entries(store: DiskStore) -> dict[str, Any]:
    """What is found, by key."""
    store._running = True
    found = {key: store.peek(key) for key in rows(store)}
    store._running = False
    return found


def suspected(directory: Path) -> DiskStore:
    """A store whose index was found damaged before."""
    (directory / "index.suspect").touch()
    return opened(directory)


def test_nothing_is_lost_that_the_backup_has(tmp_path: Path) -> None:
    """Where nothing can be read of the index, all of its backup is there, and is as good as it was."""
    backed_up(tmp_path)
    (tmp_path / "index.sqlite3").write_bytes(b"no index" * 1000)
    with logged() as lines:
        store = opened(tmp_path)
    found = entries(store)
    assert len(found) == 80
    assert all(one.verified and one.validated_at == 1000.0 for one in found.values())
    assert store.usage() == (80 * PAGE, 80)
    assert len(lines) == 1
    assert "The index is damaged (file is not a database); it is set aside as index.damaged-" in lines[0]
    assert "80 entries of it and of its backup are kept as far as their bodies are right." in lines[0]
    let_go(store)
    with logged() as lines:
        let_go(opened(tmp_path))
    assert lines == []


@pytest.mark.parametrize("digests", [(), (Digest("sha1", "a" * 40), Digest("sha256", "b" * 64))])
def test_a_digest_that_is_none_makes_no_sense(digests: tuple[Digest, ...]) -> None:
    """A row says what its entry did, or that it is damaged."""
    stored = entry("npm/a", b"x", digests=digests)
    row = _row(stored)
    assert read_entry(row) == stored
    at = COLUMNS.split(", ").index("digests")
    wrong: list[object] = [[("sha256", "zz")], [("sha256",)], {}]
    for damaged in wrong:
        with pytest.raises(sqlite3.DatabaseError, match="makes no sense"):
            read_entry((*row[:at], msgspec.msgpack.encode(damaged), *row[at + 1 :]))


def test_rows_that_can_be_read_are_kept(tmp_path: Path) -> None:
    """Around pages that are lost, through whichever tree leads to them; without a backup nobody vouches for them."""
    let_go(filled(tmp_path, 300))
    size = (tmp_path / "index.sqlite3").stat().st_size // PAGE
    spoil(tmp_path, size // 2, size // 2 + 2)
    store = suspected(tmp_path)
    found = entries(store)
    assert 200 < len(found) <= 300
    assert not any(one.verified or one.validated_at for one in found.values())
    for key, one in found.items():
        body = f"body {int(key[4:])}".encode() * 50
        assert (one.digest, one.size) == (entry(key, body).digest, len(body))
    let_go(store)


def test_what_the_backup_confirms_is_as_good_as_before(tmp_path: Path) -> None:
    """What came since is kept as well, but asked for again at its next use; what was replaced is not the old again."""
    backed_up(tmp_path, 3)
    store = opened(tmp_path)
    put(store, "npm/new", b"new")
    put(store, "npm/001", b"replaced")
    let_go(store)
    store = suspected(tmp_path)
    found = entries(store)
    assert {key: one.verified for key, one in found.items()} == {
        "npm/000": True,
        "npm/001": False,
        "npm/002": True,
        "npm/new": False,
    }
    assert found["npm/001"].digest == entry("", b"replaced").digest
    let_go(store)


def test_what_is_only_in_the_log_is_kept(tmp_path: Path) -> None:
    """After a kill the last changes are there alone."""
    store = filled(tmp_path / "cache", 3)
    shutil.copytree(tmp_path / "cache", tmp_path / "killed")
    let_go(store)
    assert (tmp_path / "killed" / "index.sqlite3").stat().st_size == PAGE
    store = suspected(tmp_path / "killed")
    assert len(rows(store)) == 3
    let_go(store)
    assert not list((tmp_path / "killed").glob("*damaged*-shm"))


@pytest.mark.parametrize("damage", [b"", b"!", b"body 1" * 50 + b"!", None])
def test_each_row_is_checked_against_its_body(tmp_path: Path, damage: bytes | None) -> None:
    """Missing, of another size, or changed: no entry."""
    backed_up(tmp_path, 3)
    path = blob(tmp_path, b"body 1" * 50)
    if damage is None:
        path.write_bytes(b"?" + path.read_bytes()[1:])
    elif damage == b"":
        path.unlink()
    else:
        path.write_bytes(damage)
    spoil(tmp_path)
    store = opened(tmp_path)
    assert sorted(rows(store)) == ["npm/000", "npm/002"]
    assert store.usage()[1] == 2
    let_go(store)


def test_what_can_be_made_again_is_not_kept(tmp_path: Path) -> None:
    """A derived body depends on more than its row says."""
    store = filled(tmp_path, 2)
    put(store, "npm/000\tfull", b"derived", kind=Kind.DERIVED)
    writer_of(store).back_up()
    let_go(store)
    spoil(tmp_path)
    store = opened(tmp_path)
    assert sorted(rows(store)) == ["npm/000", "npm/001"]
    let_go(store)


def test_the_rest_follows_beside_what_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last used come first; what was fetched meanwhile stays; a second start goes on with what waits."""
    store = filled(tmp_path, 200)
    writer_of(store).touch([("npm/150", 1e12, 5)])
    writer_of(store).back_up()
    let_go(store)
    spoil(tmp_path)
    monkeypatch.setattr(holding, "_RESTORED_AT_ONCE", 1)
    store = opened(tmp_path)
    assert store.usage()[1] == 64
    assert "npm/150" in rows(store)
    missing = sorted({f"npm/{n:03}" for n in range(200)} - rows(store).keys())
    put(store, missing[0], b"newer")
    let_go(store)
    monkeypatch.setattr(holding, "_RESTORED_AT_ONCE", 0)
    store = opened(tmp_path)
    more = True
    while more:
        _, more = writer_of(store).restore()
    assert store.usage()[1] == 200
    assert rows(store)[missing[0]][0] == entry("", b"newer").digest
    hits = writer_of(store).index.connection.execute("SELECT hits FROM entries WHERE key = 'npm/150'").fetchone()
    assert hits == (5,)
    let_go(store)


def test_a_backup_of_an_index_that_is_being_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged again before all rows were looked at: those that still wait are not forgotten."""
    backed_up(tmp_path, 200)
    spoil(tmp_path)
    monkeypatch.setattr(holding, "_RESTORED_AT_ONCE", 1)
    store = opened(tmp_path)
    writer_of(store).back_up()
    let_go(store)
    spoil(tmp_path)
    monkeypatch.setattr(holding, "_RESTORED_AT_ONCE", 100)
    store = opened(tmp_path)
    assert store.usage()[1] == 200
    let_go(store)
    assert len(list(tmp_path.glob("index.damaged-*.sqlite3"))) == 1


class _Stopped(BaseException):
    """The process ends here."""


class _Ending(Files):
    """Ends at the nth thing that is done to the disk."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Stopped

    def sync_path(self, path: Path) -> None:
        self._count()
        super().sync_path(path)

    def replace(self, source: Path | str, target: Path | str) -> None:
        self._count()
        super().replace(source, target)


def test_a_start_that_ends_while_it_rebuilds(tmp_path: Path) -> None:
    """The next one begins with it again, from the same."""
    backed_up(tmp_path)
    store = opened(tmp_path)
    put(store, "npm/new", b"new")
    let_go(store)
    (tmp_path / "index.suspect").touch()
    for left in range(6):
        store = DiskStore(tmp_path, reactor=None, files=_Ending(left))
        try:
            store.open_directory()
        except _Stopped:
            store._hold._directory.let_go()
        else:
            let_go(store)
    store = opened(tmp_path)
    assert len(rows(store)) == 81
    assert not (tmp_path / "index.suspect").exists()
    assert not list(tmp_path.glob("index.new*"))
    let_go(store)


@given(st.lists(st.tuples(st.integers(0, 100_000), st.binary(min_size=1, max_size=600)), min_size=1, max_size=12))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    """Whatever is written over an index: the store opens or stands aside, and whoever gets a body gets that one."""
    whole, place = tmp_path / "whole", tmp_path / "damaged"
    if not whole.exists():
        backed_up(whole, 30)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    index = bytearray((place / "index.sqlite3").read_bytes())
    for at, data in changes:
        at %= len(index)
        index[at : at + len(data)] = data[: len(index) - at]
    (place / "index.sqlite3").write_bytes(index)
    store = opened(place)
    with pytest.MonkeyPatch.context() as patched:
        # Nothing is rebuilt here but by the next start.
        patched.setattr(store._hold, "_distrust", lambda *_: None)
        found = store._look_up([f"npm/{n:03}" for n in range(30)])
    for one in found.values():
        path = place / "blobs" / one.digest[:2] / one.digest[2:]
        assert not path.exists() or entry("", path.read_bytes()).digest == one.digest
    let_go(store)
    store = suspected(place)
    # Unless the number of the format is among what was changed.
    assert store._hold.writer is None or {f"npm/{n:03}" for n in range(30)} <= rows(store).keys()
    let_go(store)


# A disk that runs full in mid-commit.


class Quota(Files):
    """A disk with room for so many bytes of bodies."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = super().write(fd, data[: self.room], at)
        self.room -= done
        return done


def test_a_quota_costs_the_copies_that_do_not_fit(tmp_path: Path) -> None:
    """Of several in one transaction some fit; of the others nothing is left, and the next fits once there is room."""
    disk = Quota(2500)
    store = opened(tmp_path, files=disk)
    bodies = [bytes([n]) * 1000 for n in range(4)]
    commits = [Commit(store._new_path(), entry(f"npm/{n}", body), body) for n, body in enumerate(bodies)]
    failed = writer_of(store).commit(commits).failed
    assert [error is None for error in failed] == [True, True, False, False]
    assert "No space left on device" in str(failed[2])
    assert sorted(rows(store)) == ["npm/0", "npm/1"]
    assert list((tmp_path / "partial").iterdir()) == []
    assert len(list((tmp_path / "blobs").rglob("*/*"))) == 2
    disk.room = 1000
    put(store, "npm/3", bodies[3])
    let_go(store)


def test_an_index_for_which_there_is_no_room(tmp_path: Path) -> None:
    """The bodies whose rows cannot be written go again, and take nothing with them that has a name."""
    store = opened(tmp_path)
    put(store, "npm/kept", b"kept")
    connection = writer_of(store).index.connection
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    bodies = [bytes([n]) * 100 for n in range(200)]
    commits = [Commit(store._new_path(), entry(f"npm/{n}", b, url="u" * 300), b) for n, b in enumerate(bodies)]
    commits.append(Commit(store._new_path(), entry("npm/again", b"kept"), b"kept"))
    with pytest.raises(CannotStore, match="full"):
        writer_of(store).commit(commits)
    assert [path.read_bytes() for path in (tmp_path / "blobs").rglob("*/*")] == [b"kept"]
    assert sorted(rows(store)) == ["npm/kept"]
    assert store.usage()[1] == 1
    let_go(store)


def test_a_transaction_that_was_undone_already(tmp_path: Path) -> None:
    """As SQLite does where the disk is full: the totals are what they were, and the next goes on."""
    store = opened(tmp_path)
    put(store, "npm/a", b"a")
    index = writer_of(store).index
    index.begin()
    index.insert([(entry("npm/b", b"b"), PAGE)], 1.0)
    index.connection.execute("ROLLBACK")
    index.rollback()
    assert store.usage() == (PAGE, 1)
    put(store, "npm/b", b"b")
    assert store.usage() == (2 * PAGE, 2)
    let_go(store)


def test_room_is_asked_of_the_disk_it_is_on(tmp_path: Path) -> None:
    """What the disk says is free is what counts against min-free."""
    space = Space(Bounds(0, 1000), int, bool)
    space.measured(Files().free(tmp_path))
    space.take(1)
    space.measured(1500)
    with pytest.raises(CannotStore, match="--min-free"):
        space.take(600)


def test_an_index_that_another_has_open(tmp_path: Path) -> None:
    """Somebody looks into it with a tool of their own, and holds it: nothing is damaged, and it is tried again."""
    let_go(filled(tmp_path, 3))
    with sqlite3.connect(tmp_path / "index.sqlite3", isolation_level=None) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patched, logged() as lines:
            connect = sqlite3.connect
            patched.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **{**more, "timeout": 0}))
            store = opened(tmp_path)
        assert len(lines) == 1
        assert "database is locked" in lines[0]
        let_go(store)
        other.execute("ROLLBACK")
    other.close()
    store = opened(tmp_path)
    assert len(rows(store)) == 3
    assert not list(tmp_path.glob("*damaged*"))
    let_go(store)
