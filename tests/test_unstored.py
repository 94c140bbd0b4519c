"""What cannot be stored, as whoever runs the service is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from regcache.errors import CannotStore
from regcache.flow import unstored
from regcache.flow.unstored import Unstored
from regcache.store.space import Bounds, Space
from tests.stores import let_go, logged, opened

BEHIND, FULL = "The disk is far behind.", "No space left on device."


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    with logged() as lines:
        yield lines


@pytest.fixture
def clock() -> Clock:
    """At its beginning."""
    return Clock()


@pytest.fixture
def told(clock: Clock) -> Iterator[Unstored]:
    """Nothing yet; no timer is left behind."""
    made = Unstored(clock)
    yield made
    made.stop()
    assert clock.getDelayedCalls() == []


def test_a_single_one_is_told_by_its_name(told: Unstored, clock: Clock, lines: list[str]) -> None:
    """Once, and so is the next one later."""
    for number in range(2):
        told.tell(f"npm/{number}", BEHIND)
        clock.advance(20)
    assert lines == [f"npm/{number}: cannot be stored: {BEHIND}" for number in range(2)]
    assert clock.getDelayedCalls() == []


def test_many_are_two_lines(told: Unstored, clock: Clock, lines: list[str]) -> None:
    """The first by its name, and all others by their number."""
    for number in range(7000):
        told.tell(f"npm/{number}", BEHIND)
    clock.advance(10)
    assert lines == [f"npm/0: cannot be stored: {BEHIND}", f"6999 more cannot be stored: {BEHIND}"]


def test_as_long_as_it_goes_on_there_is_a_number_every_ten_seconds(
    told: Unstored, clock: Clock, lines: list[str]
) -> None:
    """No name again until it has been over for a while."""
    for number in range(100):
        told.tell(f"npm/{number}", BEHIND)
        clock.advance(0.5)
    assert len(lines) == 6
    clock.pump([10, 10])
    told.tell("npm/new", BEHIND)
    assert lines[-1] == f"npm/new: cannot be stored: {BEHIND}"


def test_each_reason_is_told(told: Unstored, clock: Clock, lines: list[str]) -> None:
    """Another one is news, in the middle of a burst."""
    for number in range(3):
        told.tell(f"npm/{number}", BEHIND)
        told.failed(Failure(CannotStore(FULL)), f"npm/{number}")
        clock.advance(1)
    assert lines == [f"npm/0: cannot be stored: {BEHIND}", f"npm/0: cannot be stored: {FULL}"]
    told.stop()
    assert lines[2:] == [f"2 more cannot be stored: {BEHIND}", f"2 more cannot be stored: {FULL}"]


def test_reasons_are_bounded(told: Unstored, clock: Clock, lines: list[str]) -> None:
    """Any number of them is told, and few are remembered."""
    for number in range(100):
        told.tell("npm/a", f"It has {number} bytes.")
    assert len(lines) == 100
    assert len(clock.getDelayedCalls()) == unstored._MOST_REASONS


def _refused(work: Callable[[], object]) -> str:
    with pytest.raises(CannotStore) as refused:
        work()
    return refused.value.detail


def test_bodies_that_pass_a_bound_have_a_reason_in_common(tmp_path: Path) -> None:
    """However many bytes each has, and however many are free or under way just then."""
    store = opened(tmp_path / "cache")
    store._running = True
    space = Space(Bounds(max_size=100, min_free=50), lambda: 0, lambda _: None)
    why = set()
    for number in range(3):
        space.measured(1000)
        why.add(_refused(partial(space.take, 101 + number)))
        space.measured(40 + number)
        why.add(_refused(partial(space.take, 1 + number)))
        why.add(_refused(partial(store.create, expected=1001 + number, most=1000)))
    assert len(why) == 3
    store._running = False
    let_go(store)
