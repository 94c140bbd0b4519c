"""Waiting for many things at once, each for so long."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from regcache.flow.waiting import Deadlines, within


def ends_of(deadlines: Deadlines, *waits: tuple[float, Deferred[Any]]) -> list[Any]:
    """What each wait ends with, once it does; None until then."""
    ends: list[Any] = [None] * len(waits)

    async def wait(at: int, seconds: float, waiting: Deferred[Any]) -> None:
        try:
            ends[at] = await deadlines.within(seconds, waiting)
        except Exception as error:
            ends[at] = type(error)

    for at, (seconds, waiting) in enumerate(waits):
        Deferred.fromCoroutine(wait(at, seconds, waiting))
    return ends


def test_each_is_late_in_its_time() -> None:
    """However they began one after the other, and whatever became of those before."""
    clock = Clock()
    one, two, three = Deferred[int](), Deferred[int](), Deferred[int]()
    ends = ends_of(Deadlines(clock), (5, one), (2, two), (9, three))
    clock.advance(1.9)
    assert ends == [None, None, None]
    clock.advance(0.2)
    assert ends == [None, TimeoutError, None]
    three.callback(3)
    clock.advance(2.8)
    assert ends == [None, TimeoutError, 3]
    clock.advance(0.2)
    assert ends == [TimeoutError, TimeoutError, 3]


def test_all_have_one_timer_while_anybody_waits() -> None:
    """And none when nobody does, so that a service that rests has nothing to wake up for."""
    clock = Clock()
    waits = [Deferred[int]() for _ in range(10)]
    ends = ends_of(Deadlines(clock), *[(10 - at, waiting) for at, waiting in enumerate(waits)])
    assert len(clock.getDelayedCalls()) == 1
    for waiting in waits:
        waiting.callback(1)
    assert ends == [1] * 10
    assert not clock.getDelayedCalls()


def test_who_waits_anew_when_one_is_late_is_not_forgotten() -> None:
    """Nor is whoever waits on: the next is looked for after all of that."""
    clock = Clock()
    deadlines = Deadlines(clock)
    first, second, beside = Deferred[int](), Deferred[int](), Deferred[int]()
    found: list[str] = []

    async def twice() -> None:
        for name, waiting in (("first", first), ("second", second)):
            try:
                await deadlines.within(1, waiting)
            except TimeoutError:
                found.append(name)

    Deferred.fromCoroutine(twice())
    ends = ends_of(deadlines, (3, beside))
    clock.advance(1)
    assert found == ["first"]
    clock.advance(1)
    assert (found, ends) == (["first", "second"], [None])
    clock.advance(1)
    assert ends == [TimeoutError]
    assert not clock.getDelayedCalls()


def test_what_fails_by_itself_is_not_late() -> None:
    """A failure is the caller's affair; so is a wait that somebody else ends."""
    clock = Clock()
    failing, ended = Deferred[int](), Deferred[int]()
    ends = ends_of(Deadlines(clock), (5, failing), (5, ended))
    failing.errback(KeyError("x"))
    ended.cancel()
    assert ends == [KeyError, CancelledError]
    assert not clock.getDelayedCalls()


def test_one_that_cannot_be_ended_holds_up_no_other() -> None:
    """What is late beside it is given up in the next turn, and what is late afterwards in its time."""

    def broken(_: object) -> None:
        raise KeyError("x")

    clock = Clock()
    deadlines, first = Deadlines(clock), Deferred[int](broken)
    ends = ends_of(deadlines, (5, first), (5, Deferred()), (7, Deferred()))
    with pytest.raises(KeyError):
        clock.advance(5)
    clock.advance(0)
    assert ends == [None, TimeoutError, None]
    clock.advance(2)
    assert ends == [None, TimeoutError, TimeoutError]
    first.callback(1)
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_left_is_no_error(seconds: float) -> None:
    """What is over is given all the same; what is not is late in the next turn."""
    clock = Clock()
    over, open_ = Deferred[int](), Deferred[int]()
    over.callback(1)
    assert ends_of(Deadlines(clock), (seconds, over)) == [1]
    ends = ends_of(Deadlines(clock), (seconds, open_))
    clock.advance(0)
    assert ends == [TimeoutError]


def test_one_alone_needs_no_more() -> None:
    """Who waits beside nobody is late in time as well."""
    clock = Clock()
    waiting = Deferred.fromCoroutine(within(clock, 4, Deferred[int]()))
    clock.advance(4)
    waiting.addErrback(lambda failure: failure.trap(TimeoutError))
    assert waiting.result is TimeoutError
