"""Reading stored bodies again: at what pace, and what becomes of those that are wrong."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock

from regcache.errors import CannotStore
from regcache.store.scrub import Reading, Scrubber
from regcache.store.writer import Writer
from tests.stores import blob, entry, let_go, logged, opened, put, rows, writer_of

SLICE = 1 << 20


class Bodies:
    """Files, and what a scrubber makes of them by a clock of the test's own."""

    def __init__(self, directory: Path, bodies: list[bytes], period: float = 1000.0) -> None:
        self.clock = Clock()
        self.sizes = {hashlib.sha256(body).hexdigest(): len(body) for body in bodies}
        self.paths = {digest: directory / digest for digest in self.sizes}
        for body in bodies:
            self.paths[hashlib.sha256(body).hexdigest()].write_bytes(body)
        self.order = sorted(self.sizes)
        self.read: list[tuple[float, str]] = []
        self.wrong: list[tuple[str, str]] = []
        self.refusing = False
        self.scrubber = Scrubber(self.clock, period, self._in_thread, self._next, self._allocated, self._condemn)

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        self.read.append((self.clock.seconds(), getattr(work, "__self__").digest))  # noqa: B009
        return maybeDeferred(work, *args)

    def _next(self, last: str) -> Deferred[Reading | None]:
        if self.refusing:
            return fail(CannotStore("The disk is full."))
        later = [digest for digest in self.order if digest > last]
        found = Reading(self.paths[later[0]], later[0], self.sizes[later[0]]) if later else None
        return succeed(found)

    def _allocated(self) -> int:
        return sum(max(size, 4096) for size in self.sizes.values())

    def _condemn(self, reading: Reading) -> Deferred[None]:
        self.wrong.append((reading.digest, reading.wrong))
        return succeed(None)


def test_all_in_one_period(tmp_path: Path) -> None:
    """Evenly, large ones in slices, and then again from the beginning."""
    bodies = Bodies(tmp_path, [b"a" * 5 * SLICE, b"b" * SLICE, b"c" * SLICE, *[bytes([n]) * 4096 for n in range(256)]])
    bodies.scrubber.start()
    bodies.clock.pump([0.02] * 51_000)
    first = [digest for when, digest in bodies.read if when <= 1015]
    assert list(dict.fromkeys(first)) == bodies.order
    assert len(bodies.read) >= 7 + 256
    half = sum(bodies.sizes[digest] for digest in dict.fromkeys(digest for when, digest in bodies.read if when < 500))
    assert 0.1 < half / bodies._allocated() < 0.9
    bodies.clock.pump([0.02] * 51_000)
    assert len(bodies.read) >= 2 * (7 + 256)
    assert bodies.wrong == []


def test_an_empty_cache_is_looked_at_again(tmp_path: Path) -> None:
    """Whatever comes later is read in its turn."""
    bodies = Bodies(tmp_path, [])
    bodies.scrubber.start()
    bodies.clock.advance(601)
    body = b"later"
    digest = hashlib.sha256(body).hexdigest()
    bodies.sizes[digest], bodies.paths[digest] = len(body), tmp_path / "later"
    bodies.order.append(digest)
    (tmp_path / "later").write_bytes(body)
    bodies.clock.pump([600.0] * 3)
    assert {digest for _, digest in bodies.read} == {digest}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(b"?" + path.read_bytes()[1:]), "Its bytes have changed."),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "Its bytes have changed."),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "It has 2097151 bytes in place of 2097152."),
        (lambda path: path.write_bytes(b""), "It has 0 bytes in place of 2097152."),
        (lambda path: path.unlink(), "It is missing."),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, damage: Callable[[Path], object], told: str) -> None:
    """And only that."""
    bodies = Bodies(tmp_path, [b"a" * 2 * SLICE, b"b" * 100])
    victim = hashlib.sha256(b"a" * 2 * SLICE).hexdigest()
    damage(bodies.paths[victim])
    bodies.scrubber.start()
    bodies.clock.pump([1.0] * 1000)
    assert bodies.wrong[:1] == [(victim, told)]
    assert {digest for digest, _ in bodies.wrong} == {victim}


def test_what_cannot_be_read_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has lost a sector says so; one that has no descriptor left says nothing about the body."""
    for number, expected in ((errno.EIO, "Input/output error."), (errno.EMFILE, "")):

        def refuse(*_args: Any, why: int = number, **_more: Any) -> Any:
            raise OSError(why, os.strerror(why))

        (tmp_path / "a").write_bytes(b"a")
        reading = Reading(tmp_path / "a", hashlib.sha256(b"a").hexdigest(), 1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "preadv" if number == errno.EIO else "open", refuse)
            patched.setattr(os, "pread", refuse)
            reading.step()
        assert (reading.over, reading.wrong) == (True, expected)
        reading.close()


def test_it_goes_on_after_a_refusal_and_ends_when_told(tmp_path: Path) -> None:
    """A disk that is full, or an index that is being rebuilt, only delays it; after a stop nothing is left."""
    bodies = Bodies(tmp_path, [b"a" * 3 * SLICE])
    bodies.refusing = True
    bodies.scrubber.start()
    bodies.clock.pump([1.0] * 1000)
    assert bodies.read == []
    bodies.refusing = False
    bodies.clock.pump([1.0] * 500)
    assert bodies.read
    before = len(os.listdir("/proc/self/fd"))
    stopped: list[None] = []
    bodies.scrubber.stop().addCallback(stopped.append)
    assert stopped == [None]
    assert bodies.clock.getDelayedCalls() == []
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_stop_waits_for_the_job(tmp_path: Path) -> None:
    """The descriptor is not closed under a read."""
    job: Deferred[int] = Deferred()
    bodies = Bodies(tmp_path, [b"a"])
    scrubber = Scrubber(bodies.clock, 1.0, lambda *_: job, bodies._next, bodies._allocated, bodies._condemn)
    scrubber.start()
    bodies.clock.advance(1)
    stopped: list[None] = []
    scrubber.stop().addCallback(stopped.append)
    assert stopped == []
    job.callback(0)
    assert stopped == [None]
    assert bodies.clock.getDelayedCalls() == []


# What becomes of it in the store.


def test_a_damaged_body_goes_with_all_its_entries(tmp_path: Path) -> None:
    """Those of other bodies stay."""
    store = opened(tmp_path)
    body = b"a" * 10_000
    for key in ("npm/a", "npm/b"):
        put(store, key, body)
    kept = put(store, "npm/c", b"c")
    path = blob(tmp_path, body)
    path.write_bytes(b"b" + body[1:])
    keys = writer_of(store).condemn(entry("npm/a", body).digest, path.stat().st_ino)
    assert sorted(keys) == ["npm/a", "npm/b"]
    assert not path.exists()
    assert list(rows(store)) == [kept.key]
    let_go(store)


def test_one_that_has_taken_its_place_stays(tmp_path: Path) -> None:
    """What was read may have been replaced by a good one since."""
    store = opened(tmp_path)
    made = put(store, "npm/a", b"a")
    with open(blob(tmp_path, b"a"), "rb") as file:
        put(store, "npm/a", b"a")
        assert writer_of(store).condemn(made.digest, os.fstat(file.fileno()).st_ino) == []
    assert writer_of(store).condemn(made.digest, 0) == []
    assert list(rows(store)) == ["npm/a"]
    let_go(store)


def test_a_disk_that_refuses_keeps_no_damaged_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entries cannot go then, but nobody gets the body."""
    store = opened(tmp_path)
    made = put(store, "npm/a", b"a" * 100)
    path = blob(tmp_path, b"a" * 100)

    def full(*_args: Any) -> None:
        raise CannotStore("The index cannot be written: database or disk is full.")

    monkeypatch.setattr(Writer, "_transact", full)
    with logged() as lines:
        assert writer_of(store).condemn(made.digest, path.stat().st_ino) == ["npm/a"]
    assert len(lines) == 1
    assert path.stat().st_size == 0
    let_go(store)


def test_it_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """A restart begins with the body after the last; the end of all is a new beginning."""
    store = opened(tmp_path)
    digests = sorted(put(store, f"npm/{n}", bytes([n])).digest for n in range(6))
    writer = writer_of(store)
    seen, last = [], ""
    for _ in range(4):
        reading = writer.next_body(last)
        assert reading is not None
        seen.append(reading.digest)
        last = reading.digest
    put(store, "npm/more", b"\0")
    let_go(store)
    store = opened(tmp_path)
    writer, last = writer_of(store), ""
    while (reading := writer.next_body(last)) is not None:
        seen.append(reading.digest)
        last = reading.digest
    # The one that was read when the process ended is read again.
    assert seen == [*digests[:4], *digests[3:]]
    again = writer.next_body("")
    assert again is not None
    assert again.digest == digests[0]
    let_go(store)
