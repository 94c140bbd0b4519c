"""Which bodies may stand in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred

from regcache.store.presence import Presence

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
HERE, ALSO, NOT = "ab" + "1" * 62, "ab" + "2" * 62, "ab" + "3" * 62


def laid(blobs: Path, *digests: str) -> Path:
    """A directory of bodies in which those stand."""
    for digest in digests:
        (blobs / digest[:2]).mkdir(exist_ok=True)
        (blobs / digest[:2] / digest[2:]).touch()
    return blobs


def test_what_stands_there_may(tmp_path: Path) -> None:
    """Before a directory was looked through anything may stand there, afterwards what was found, or has come since."""
    there = Presence(laid(tmp_path, HERE), maybeDeferred)
    assert there.may_hold(NOT)
    assert not there.may_hold(NOT)
    assert not there.may_hold(ALSO)
    assert there.may_hold(HERE)
    there.comes(ALSO)
    assert there.may_hold(ALSO)


def test_each_directory_is_looked_through_once(tmp_path: Path) -> None:
    """However many ask meanwhile; what comes meanwhile is not forgotten."""
    jobs: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def later(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        jobs.append((Deferred(), lambda: work(*args)))
        return jobs[-1][0]

    there = Presence(laid(tmp_path, HERE), later)
    assert [there.may_hold(one) for one in (NOT, NOT, HERE)] == [True] * 3
    assert len(jobs) == 1
    there.comes(ALSO)
    done, work = jobs[0]
    work()
    done.callback(None)
    assert [there.may_hold(one) for one in (NOT, HERE, ALSO)] == [False, True, True]
    assert len(jobs) == 1


def test_a_directory_that_cannot_be_looked_through_may_hold_anything(tmp_path: Path) -> None:
    """It is tried again; what is no body there says nothing."""
    there = Presence(tmp_path, maybeDeferred)
    assert there.may_hold(NOT)
    assert there.may_hold(NOT)
    (laid(tmp_path, HERE) / "ab" / "README").touch()
    assert there.may_hold(NOT)
    assert not there.may_hold(NOT)
    assert there.may_hold(HERE)


@given(st.sets(DIGEST, max_size=20), st.sets(DIGEST, max_size=20))
def test_none_is_ever_missed(come: set[str], others: set[str]) -> None:
    """Of what has come it never says that it does not stand there."""
    there = Presence("nowhere", lambda *_: maybeDeferred(lambda: None))
    for digest in others:
        there.may_hold(digest)
    for digest in come:
        there.comes(digest)
    assert all(there.may_hold(digest) for digest in come)
