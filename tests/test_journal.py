"""The log of the index stays short, whoever reads meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from regcache.errors import CannotStore
from regcache.http.messages import Kind
from regcache.store import holding, journal
from regcache.store.disk import DiskStore
from regcache.store.index import connect
from tests.lifetime import at_once
from tests.stores import entry, let_go, opened, put, rows, writer_of

COMMITS = 2500
#: What the page about the cache directory says.
BOUND = 8 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    """One that has taken its directory."""
    made = opened(tmp_path, min_free=0)
    yield made
    let_go(made)


def size(directory: Path) -> int:
    """Of the log, in bytes."""
    log = directory / "index.sqlite3-wal"
    return log.stat().st_size if log.exists() else 0


@contextlib.contextmanager
def reading(directory: Path) -> Iterator[sqlite3.Connection]:
    """Another program, such as one that lists the cache."""
    with contextlib.closing(connect(directory / "index.sqlite3", readonly=True)) as connection:
        yield connection


def write(store: DiskStore, number: int, first: int = 0) -> int:
    """Commit so many entries one by one, each of them read at once; the most bytes that the log had."""
    most = 0
    for at in range(first, first + number):
        put(store, f"npm/{at}", b"%d" % at, kind=Kind.DERIVED, url="x" * 1000)
        assert store._look_up([f"npm/{at}"])
        most = max(most, size(store._path))
    return most


def test_thousands_of_commits(store: DiskStore, tmp_path: Path) -> None:
    """The service's own reader and that of another program are open all the time; a quiet minute empties the log."""
    with reading(tmp_path) as other:
        most = 0
        for at in range(0, COMMITS, 100):
            most = max(most, write(store, 100, at))
            assert other.execute("SELECT count(*) FROM entries").fetchone() == (at + 100,)
        assert (1 << 20) < most < BOUND
        assert size(tmp_path) > 0
        writer_of(store).settle()
        assert size(tmp_path) == 0
        assert len(rows(store)) == COMMITS


def test_after_a_burst(store: DiskStore, tmp_path: Path) -> None:
    """One large transaction makes the log as large as itself, and that does not last."""
    with reading(tmp_path) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM entries").fetchone()
        write(store, 1000)
        assert size(tmp_path) > BOUND
        other.execute("COMMIT")
        write(store, 20, 2000)
        assert size(tmp_path) < BOUND


def test_a_reader_that_never_ends(store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds up is bounded: nothing more is stored, what is stored is found, until that program has ended."""
    monkeypatch.setattr(journal, "_MOST_BYTES", 1 << 20)
    with reading(tmp_path) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM entries").fetchone()
        with pytest.raises(CannotStore, match="end that one") as refused:
            write(store, COMMITS)
        assert str(tmp_path) in refused.value.detail
        full = size(tmp_path)
        for _ in range(100):
            with pytest.raises(CannotStore):
                writer_of(store).touch([("npm/0", 5.0, 1)])
        assert size(tmp_path) == full < (1 << 20) + 100_000
        assert store._look_up(["npm/0"])
        other.execute("COMMIT")
        put(store, "npm/again", b"again")
        assert size(tmp_path) < 100_000


def test_a_clean_stop(store: DiskStore, tmp_path: Path) -> None:
    """Nothing is left in the log, even where another program still has the index open."""
    with reading(tmp_path) as other:
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        write(store, 50)
        writer_of(store).close()
        assert size(tmp_path) == 0
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (50,)


class _Reactor(Clock):
    """A clock, and a way back from threads that there are none of."""

    def callFromThread(self, work: Callable[..., Any], *args: Any) -> None:
        work(*args)


def test_looks_hold_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The service looks entries up as of one moment, which ends with whatever is written: that is seen by the next look,
    and the log begins anew.
    """
    at_once(monkeypatch)
    reactor = _Reactor()
    made = DiskStore(tmp_path, reactor=reactor, min_free=0)
    made.open_directory()
    made.start()
    reader = made._hold.reader
    assert reader is not None
    for at in range(COMMITS):
        assert made.glance([f"npm/{at}"]) == [None]
        assert reader.in_transaction
        done = made.put(entry(f"npm/{at}", b"%d" % at, url="x" * 1000), b"%d" % at)
        reactor.advance(1)
        assert done.called
        assert not reader.in_transaction
        made._records.drop(f"npm/{at}")
        assert made.glance([f"npm/{at}"]) != [None]
    assert size(tmp_path) < BOUND
    made.stop()


def test_a_look_that_fails_ends_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read is looked for anew the next time, and nobody has to write anything for that."""
    at_once(monkeypatch)
    made = DiskStore(tmp_path, reactor=_Reactor(), min_free=0)
    made.open_directory()
    made.start()
    reader = made._hold.reader
    assert reader is not None

    def failing(_connection: object, _wanted: object) -> None:
        raise sqlite3.OperationalError("interrupted")

    monkeypatch.setattr(holding, "rows", failing)
    with pytest.raises(sqlite3.OperationalError):
        made._hold.rows(["npm/a"])
    assert not reader.in_transaction
    made.stop()
