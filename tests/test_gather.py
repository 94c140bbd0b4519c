"""When commits go to the writer, by a clock of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from regcache.errors import CannotStore
from regcache.http.messages import Kind, Stored
from regcache.store.gather import Gathering
from regcache.store.placing import Commit
from regcache.store.writer import Outcome


@define
class Writer:
    """Takes batches, and is done with one when the test says so."""

    batches: list[tuple[list[str], Deferred[Outcome]]] = field(factory=list)

    def write(self, commits: list[Commit]) -> Deferred[Outcome]:
        """Take one."""
        done: Deferred[Outcome] = Deferred()
        self.batches.append(([commit.entry.key for commit in commits], done))
        return done

    def end(self) -> None:
        """The last batch is written."""
        keys, done = self.batches[-1]
        done.callback(Outcome([None] * len(keys), []))


def commit(key: str, size: int = 10) -> Commit:
    """A small body for an entry."""
    entry = Stored(key=key, registry="npm", kind=Kind.ARTIFACT, digest="0" * 64, size=size, stored_at=0, validated_at=0)
    return Commit(Path(key), entry, b"x" * size)


@pytest.fixture
def writer() -> Writer:
    """Nothing written yet."""
    return Writer()


@pytest.fixture
def clock() -> Clock:
    """At its beginning."""
    return Clock()


@pytest.fixture
def gathering(writer: Writer, clock: Clock) -> Gathering:
    """Nothing waits."""
    return Gathering(clock, writer.write, lambda _entries, _dropped: None)


def test_a_burst_is_one_batch_and_ends_with_a_pause(gathering: Gathering, writer: Writer, clock: Clock) -> None:
    """Each that comes puts the writing off a little."""
    for key in "abc":
        gathering.add(commit(key))
        clock.advance(0.09)
    assert writer.batches == []
    clock.advance(0.02)
    assert [keys for keys, _ in writer.batches] == [["a", "b", "c"]]


def test_nothing_is_put_off_for_long(gathering: Gathering, writer: Writer, clock: Clock) -> None:
    """However long the burst lasts; what comes while a batch is written makes up the next."""
    for number in range(83):
        gathering.add(commit(f"{number:02}"))
        clock.advance(0.0625)
    assert [len(keys) for keys, _ in writer.batches] == [80]
    writer.end()
    clock.advance(0.11)
    assert [len(keys) for keys, _ in writer.batches] == [80, 3]


def test_memory_is_bounded(gathering: Gathering, writer: Writer) -> None:
    """Large bodies wait for no pause."""
    for key in "abc":
        gathering.add(commit(key, 3 << 20))
    assert [keys for keys, _ in writer.batches] == [["a", "b", "c"]]


def test_many_tiny_ones_are_not_for_nothing(gathering: Gathering, writer: Writer) -> None:
    """Who waits for each takes memory as well, however small its body is."""
    for number in range(2100):
        gathering.add(commit(str(number), 1))
    assert len(writer.batches) == 1


def test_who_comes_while_much_waits_goes_on_once_a_batch_is_written(gathering: Gathering, writer: Writer) -> None:
    """All of them; with nothing under way there is nothing to wait for."""
    assert gathering.caught_up().called
    gathering.add(commit("a", 8 << 20))
    held_up = [gathering.caught_up() for _ in range(3)]
    assert not any(one.called for one in held_up)
    writer.end()
    assert all(one.called for one in held_up)


def test_a_slow_disk_holds_up_nobody_for_long(gathering: Gathering, writer: Writer, clock: Clock) -> None:
    """Those who came within a second; the next wait only once it has written something."""
    for key in "ab":
        gathering.add(commit(key, 8 << 20))
    first = gathering.caught_up()
    clock.advance(0.9)
    second = gathering.caught_up()
    assert not first.called
    clock.advance(0.1)
    assert first.called
    assert second.called
    assert gathering.caught_up().called
    writer.end()
    third = gathering.caught_up()
    assert not third.called
    writer.end()
    assert third.called
    assert clock.getDelayedCalls() == []


def test_a_stop_waits_for_all(gathering: Gathering, writer: Writer) -> None:
    """What is with the writer, what waits, and what still comes."""
    gathering.add(commit("a"))
    stopped = gathering.drain()
    gathering.add(commit("b"))
    writer.end()
    assert not stopped.called
    writer.end()
    assert stopped.called
    assert [keys for keys, _ in writer.batches] == [["a"], ["b"]]


def test_what_comes_behind_a_stop(gathering: Gathering, writer: Writer) -> None:
    """It goes to the writer as well, which may refuse it; the stop is over once."""
    gathering.add(commit("a"))
    stopped = gathering.drain()
    writer.end()
    assert stopped.called
    failures: list[object] = []
    gathering.add(commit("b")).addErrback(lambda failure: failures.append(failure.value))
    refused, error = writer.batches[1][1], CannotStore("The store is closed.")
    refused.errback(error)
    assert failures == [error]
    # Nothing went wrong beside.
    assert refused.result is None


def test_each_hears_of_its_own(gathering: Gathering, writer: Writer, clock: Clock) -> None:
    """One that cannot be stored fails alone."""
    good, bad = gathering.add(commit("a")), gathering.add(commit("b"))
    failures: list[object] = []
    bad.addErrback(lambda failure: failures.append(failure.value))
    clock.advance(0.1)
    error = CannotStore("The disk is full.")
    writer.batches[0][1].callback(Outcome([None, error], []))
    assert good.called
    assert failures == [error]
