"""A service that runs for years: nothing that it keeps grows with the days."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regcache.flow.breaker import Breaker
from regcache.http.messages import Kind
from tests.lifetime import MOST_STORED, SMALL_CAPS, Census, Life, at_once, memories
from tests.stores import blob, let_go, opened, put, rows, writer_of

PAGE = Path(__file__).parent.parent / "docs" / "long-life.md"
#: A short form for every run, and the whole.
DAYS = [pytest.param(60, id="short"), pytest.param(400, id="whole", marks=pytest.mark.soak)]
#: What comes and goes in steps, such as a memory that is looked through when it is full, may have one step more.
STEP = 25


def grown(before: dict[str, int], after: dict[str, int], step: int = STEP) -> dict[str, tuple[int, int]]:
    """What there is more of, by more than a step."""
    return {
        name: (before.get(name, 0), number) for name, number in after.items() if number > before.get(name, 0) + step
    }


@pytest.mark.parametrize("days", DAYS)
def test_the_days_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """
    Every day strangers from new addresses ask by new host names for names that nobody knew, and that are gone tomorrow:
    when all days are over there is as much of everything as after half of them.
    """
    at_once(monkeypatch)
    life = Life(tmp_path)
    life.live(days // 2)
    before = life.census()
    # What a census itself keeps is there both times.
    before = life.census()
    life.live(days - days // 2)
    after = life.census()
    for status in (200, 401, 403, 404, 502, 503):
        assert life.seen[status] >= days
    assert grown(before.kept, after.kept) == {}
    assert grown(before.objects, after.objects, 200) == {}
    assert after.items < before.items + 10 * STEP
    assert grown(before.rows, after.rows) == {}
    # More days than files, and the cache was full before they were half over.
    assert after.files <= before.files + STEP
    assert MOST_STORED < after.bytes_on_disk < 2 * MOST_STORED
    assert (after.descriptors, after.timers, after.journal) == (before.descriptors, before.timers, 0)
    assert after.index <= before.index * 1.2
    _the_page_has(after)
    life.stop()


def _the_page_has(census: Census) -> None:
    """Whatever keeps something stands on the page, with its bound."""
    named = set(re.findall(r"`([\w.]+)`", PAGE.read_text("utf-8")))
    assert sorted({*census.kept, *memories()} - named) == []


def test_every_memory_of_a_function_is_bounded() -> None:
    """None remembers all that it was ever asked."""
    assert len(memories()) > 5
    assert [name for name, one in memories().items() if one.cache_parameters()["maxsize"] is None] == []


def test_the_page_names_what_is_there() -> None:
    """What was moved or renamed is moved on the page, too."""
    for name in SMALL_CAPS:
        assert f"`{name}`" in (PAGE.parent / "limits.md").read_text("utf-8"), name
    for test in re.findall(r"`(tests/\w+\.py)`", PAGE.read_text("utf-8")):
        assert (PAGE.parent.parent / test).exists(), test


def test_trouble_with_any_number_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may name any number of hosts below an allowed domain: the oldest trouble is forgotten."""
    monkeypatch.setattr("regcache.flow.breaker._MOST_ORIGINS", 3)
    monkeypatch.setattr("regcache.flow.breaker._MOST_KEYS", 3)
    breaker = Breaker(lambda: 0.0)
    for number in range(5):
        breaker.broke(f"o{number}")
        breaker.lagged(f"o{number}")
        breaker.erred(f"o{number}", f"k{number}")
    assert [breaker.is_open(f"o{number}") for number in range(5)] == [False, False, True, True, True]
    assert [breaker.is_slow(f"o{number}") for number in range(5)] == [False, False, True, True, True]
    assert [breaker.spares("other", f"k{number}") for number in range(5)] == [False, False, True, True, True]


def test_entries_without_a_body_take_room(tmp_path: Path) -> None:
    """Any number of names for nothing, or for one and the same body, makes no larger index than the cache may have."""
    store = opened(tmp_path, max_size=1 << 20, min_free=0)
    for number in range(400):
        put(store, f"tree/empty{number}", b"", kind=Kind.DERIVED)
        put(store, f"tree/{'long' * 500}{number}", b"the same", kind=Kind.DERIVED)
    size, entries = store.usage()
    assert size <= 1 << 20
    assert entries == len(rows(store)) < 300
    assert (tmp_path / "index.sqlite3").stat().st_size < 3 << 20
    let_go(store)


def test_rows_of_bodies_that_are_gone(tmp_path: Path) -> None:
    """What is noted of bodies without a name goes with them."""
    wall = [1_700_000_000.0]
    store = opened(tmp_path, min_free=0, now=lambda: wall[0])
    body = b"nobody names it"
    path = blob(tmp_path, body)
    path.write_bytes(body)
    connection = writer_of(store).index.connection

    def noted() -> list[int]:
        return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("loose", "aliases")]

    for passed, left in ((0.0, [1, 2]), (6 * 86400.0, [1, 2]), (2 * 86400.0, [0, 0])):
        wall[0] += passed
        writer_of(store).sweep(path.parent.name)
        assert noted() == left
    assert not path.exists()
    let_go(store)
