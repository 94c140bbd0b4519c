"""A body under way, with a disk and an upstream under the test's control."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from regcache.errors import CannotStore, CutShort, DigestMismatch, Unneeded, UpstreamError
from regcache.flow.answers import Answer
from regcache.flow.hashing import Hashing
from regcache.flow.judging import Judging
from regcache.flow.transfer import HOLD_BACK, Transfer
from regcache.flow.unstored import Unstored
from regcache.http.messages import Headers
from regcache.interfaces import IBody, IPartial, IReceiver
from tests.stores import logged


@define(eq=False)
class Disk:
    """A partial whose writes happen when the test says so, or at once."""

    at_once: bool = True
    refuse_after: int | None = None
    body: bytearray = field(factory=bytearray)
    readers: int = 0
    aborted: bool = False
    waiting: list[tuple[bytes, Deferred[None]]] = field(factory=list)

    @property
    def written(self) -> int:
        return len(self.body)

    def write(self, *pieces: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.waiting.append((b"".join(pieces), done))
        if self.at_once:
            self.go()
        return done

    def go(self) -> None:
        """Let the write under way happen."""
        data, done = self.waiting.pop(0)
        if self.refuse_after is not None and len(self.body) + len(data) > self.refuse_after:
            self.body += data[: self.refuse_after - len(self.body)]
            done.errback(CannotStore("The disk is full."))
        else:
            self.body += data
            done.callback(None)

    def read(self, offset: int, length: int) -> bytes:
        assert self.readers > 0, "nobody holds it open"
        return bytes(self.body[offset : offset + length])

    def retain(self) -> None:
        self.readers += 1

    def release(self) -> None:
        self.readers -= 1

    def abort(self) -> None:
        self.aborted = True


@define(eq=False)
class Flow:
    """An upstream's answer that flows when the test says so."""

    length: int | None = None
    status: int = 200
    headers: Headers = Headers()
    url: str = "http://registry.test/a"
    coding: str = ""
    paused: bool = False
    stopped: bool = False

    def flow(self, _receiver: IReceiver) -> Flow:
        return self

    def start(self) -> None:
        """The test does it."""

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def stop(self, _error: UpstreamError) -> None:
        self.stopped = True


@define(eq=False)
class Scene:
    """One transfer and what surrounds it."""

    disk: Disk | None = field(factory=Disk)
    flow: Flow = field(factory=Flow)
    verdict: bool | Exception = True
    refusal: Exception | None = None
    clock: Clock = field(factory=Clock)
    committed: list[bool] = field(factory=list)
    transfer: Transfer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.transfer = Transfer(self.clock, "key", Unstored(self.clock))
        self.transfer.done.wait().addErrback(lambda _: None)

    def judge(self, *, hidden: bool = False) -> Judging:
        """
        Who says what the verdict is.

        :param hidden: whether nobody may have seen anything until then.
        """

        async def check(_size: int) -> bool:
            assert not hidden or self.transfer.mark == 0
            if isinstance(self.verdict, Exception):
                raise self.verdict
            return self.verdict

        def commit(_partial: IPartial, proven: bool) -> Deferred[None]:
            if self.refusal is not None:
                raise self.refusal
            self.committed.append(proven)
            return succeed(None)

        return Judging(Hashing({"sha256"}), check, commit)

    def begin(self, hold_back: int = HOLD_BACK) -> Scene:
        """The head is here."""
        answer, partial = cast(Answer, self.flow), cast(IPartial | None, self.disk)
        self.transfer.begin(answer, partial, self.judge(), hold_back)
        return self

    def take(self, body: bytes) -> Scene:
        """The head is here, and with it the whole body."""
        answer, partial = cast(Answer, self.flow), cast(IPartial, self.disk)
        Deferred.fromCoroutine(self.transfer.take(answer, body, partial, self.judge(hidden=True)))
        return self


def read_on(reader: IBody, got: bytearray) -> bool:
    """Read all that can be read now; whether that was the end."""
    while True:
        found: Any = reader.read(len(got), 1 << 16)
        if isinstance(found, Deferred):
            found.addErrback(lambda _: None)
            if not found.called:
                found.cancel()
                return False
            found = found.result
        if not found:
            return True
        got += found


@given(seed=st.integers(0, 1 << 32), sizes=st.lists(st.integers(1, 40_000), max_size=12), announced=st.booleans())
def test_every_reader_gets_the_body_whenever_it_comes(seed: int, sizes: list[int], announced: bool) -> None:
    """Before the head, in mid-body or after the end; and nobody sees the last bytes before they are found good."""
    chance = random.Random(seed)
    pieces = [chance.randbytes(size) for size in sizes]
    body = b"".join(pieces)
    scene = Scene(flow=Flow(length=len(body) if announced else None))
    readers = [(scene.transfer.open(), bytearray())]
    scene.begin()
    for number, piece in enumerate(pieces):
        if chance.random() < 0.5:
            readers.append((scene.transfer.open(), bytearray()))
        scene.transfer.received(piece)
        sofar = sum(sizes[: number + 1])
        for reader, got in readers:
            if chance.random() < 0.5:
                read_on(reader, got)
                assert len(got) <= max(sofar - HOLD_BACK, 0)
    scene.transfer.ended(None, certain=True)
    readers.append((scene.transfer.open(), bytearray()))
    for reader, got in readers:
        assert read_on(reader, got)
        assert got == body
        reader.close()
    assert scene.committed == [True]
    assert scene.disk is not None
    assert scene.disk.readers == 0


@pytest.mark.parametrize("size", [1, HOLD_BACK, HOLD_BACK + 1, 5 * HOLD_BACK])
def test_a_body_that_is_not_good_is_never_complete(size: int) -> None:
    """A mismatch fails every reader before the last bytes, and nothing is stored."""
    scene = Scene(verdict=DigestMismatch("no")).begin()
    reader = scene.transfer.open()
    got = bytearray()
    scene.transfer.received(b"x" * size)
    read_on(reader, got)
    scene.transfer.ended(None, certain=True)
    with pytest.raises(DigestMismatch):
        read_on(reader, got)
    assert len(got) == max(size - HOLD_BACK, 0)
    assert scene.committed == []
    assert scene.disk is not None
    assert scene.disk.aborted


@pytest.mark.parametrize("sent", [0, 99, 101])
def test_a_length_that_is_not_kept_is_a_cut(sent: int) -> None:
    """Fewer or more bytes than announced are no body."""
    scene = Scene(flow=Flow(length=100)).begin()
    reader = scene.transfer.open()
    scene.transfer.received(b"x" * sent)
    scene.transfer.ended(None, certain=True)
    with pytest.raises(CutShort):
        read_on(reader, bytearray())
    assert scene.committed == []


@pytest.mark.parametrize(
    ("proven", "certain", "kept"), [(True, False, [True]), (False, True, [False]), (False, False, [])]
)
def test_an_unsure_end_without_a_proof_is_not_stored(proven: bool, certain: bool, kept: list[bool]) -> None:
    """A close as the only end of a body nobody vouches for may have been a cut."""
    scene = Scene(verdict=proven).begin()
    scene.transfer.received(b"body")
    scene.transfer.ended(None, certain)
    assert scene.committed == kept


def test_the_upstream_waits_for_the_disk() -> None:
    """While a write takes its time, at most about a mebibyte gathers in memory."""
    disk = Disk(at_once=False)
    scene = Scene(disk=disk).begin()
    reader = scene.transfer.open()
    sent = 0
    while not scene.flow.paused:
        scene.transfer.received(b"x" * 65536)
        sent += 65536
        assert sent <= 2 << 20
    while disk.waiting:
        disk.go()
    assert not scene.flow.paused
    assert len(bytes(disk.body)) == sent
    reader.close()


def test_the_disk_has_something_to_do_while_readers_are_served() -> None:
    """Who is told that there is more to read finds the next bytes given to the disk already."""
    disk = Disk(at_once=False)
    scene = Scene(disk=disk).begin(hold_back=0)
    for piece in (b"one", b"two", b"three"):
        scene.transfer.received(piece)
    seen: list[list[bytes]] = []
    scene.transfer.moved().addCallback(lambda _: seen.append([data for data, _ in disk.waiting]))
    disk.go()
    assert seen == [[b"twothree"]]
    assert scene.transfer.mark == 3


def test_a_full_disk_costs_the_copy_not_the_body() -> None:
    """When the disk refuses in mid-body its readers go on, nobody joins any more, and nothing is stored."""
    disk = Disk(refuse_after=100_000)
    scene = Scene(disk=disk).begin()
    reader, got, body = scene.transfer.open(), bytearray(), random.Random(3).randbytes(400_000)
    for at in range(0, len(body), 50_000):
        scene.transfer.received(body[at : at + 50_000])
        read_on(reader, got)
    assert not scene.transfer.joinable
    scene.transfer.ended(None, certain=True)
    assert read_on(reader, got)
    assert got == body
    assert scene.committed == []
    assert disk.aborted


def test_what_cannot_be_stored_is_paced_by_its_reader() -> None:
    """Passed through a small window: the upstream is paused while the reader is behind."""
    scene = Scene(disk=None).begin()
    reader, got = scene.transfer.open(), bytearray()
    sent = 0
    while not scene.flow.paused:
        scene.transfer.received(b"x" * 65536)
        sent += 65536
        assert sent <= 4 << 20
    read_on(reader, got)
    assert not scene.flow.paused
    scene.transfer.ended(None, certain=True)
    assert read_on(reader, got)
    assert len(got) == sent


def test_a_reader_that_stalls_does_not_hold_the_others() -> None:
    """Where the window forgets, the one who stopped reading is left behind once, and for good."""
    scene = Scene(disk=None).begin()
    stalled, moving, got = scene.transfer.open(), scene.transfer.open(), bytearray()
    sent = 0
    while sent < 8 << 20:
        if scene.flow.paused:
            read_on(moving, got)
        if scene.flow.paused:
            scene.clock.advance(10)
        assert scene.clock.seconds() <= 20, "it waits for the stalled one again and again"
        scene.transfer.received(b"x" * 65536)
        sent += 65536
    scene.transfer.ended(None, certain=True)
    assert read_on(moving, got)
    assert len(got) == sent
    with pytest.raises(CutShort):
        read_on(stalled, bytearray())


@pytest.mark.parametrize("stored", [True, False])
def test_what_nobody_reads_and_cannot_be_stored_is_given_up(stored: bool) -> None:
    """Nobody would ever make room for more of it: its connection would be held for good."""
    scene = Scene(disk=Disk(refuse_after=1000) if stored else None, flow=Flow(length=8 << 20))
    reader = scene.transfer.open()
    if stored:
        scene.begin()
    reader.close()
    if not stored:
        scene.begin()
    while not scene.flow.paused:
        scene.transfer.received(b"x" * 65536)
    scene.clock.advance(10)
    assert isinstance(scene.transfer.error, Unneeded)
    assert scene.flow.stopped
    assert scene.transfer.done.known
    assert scene.clock.getDelayedCalls() == []


def test_what_has_failed_while_it_passed_through_has_no_end() -> None:
    """Whoever was still behind gets the failure, not an end before the mark."""
    scene = Scene(disk=None, verdict=DigestMismatch("no")).begin()
    reader = scene.transfer.open()
    scene.transfer.received(b"x" * 100_000)
    assert reader.read(0, 10) == b"x" * 10
    scene.transfer.ended(None, certain=True)
    with pytest.raises(DigestMismatch):
        reader.read(10, 10)


def test_an_only_reader_may_take_its_time() -> None:
    """Nobody waits for it here but itself; whoever sends to it knows when to give up."""
    scene = Scene(disk=None).begin()
    reader, got = scene.transfer.open(), bytearray()
    while not scene.flow.paused:
        scene.transfer.received(b"x" * 65536)
    scene.clock.advance(120)
    assert scene.transfer.error is None
    read_on(reader, got)
    assert not scene.flow.paused


@pytest.mark.parametrize("seed", range(40))
def test_a_disk_that_fills_up_at_any_moment(seed: int) -> None:
    """However much had gathered meanwhile, and wherever it refuses: every reader that goes on gets the whole body."""
    chance = random.Random(seed)
    body = chance.randbytes(chance.randrange(1, 6 << 20))
    disk = Disk(at_once=False, refuse_after=chance.randrange(len(body) + 1))
    scene = Scene(disk=disk, flow=Flow(length=len(body))).begin()
    readers = [(scene.transfer.open(), bytearray()) for _ in range(chance.randrange(1, 4))]
    sent, ended = 0, False
    for _ in range(100_000):
        if sent < len(body) and not scene.flow.paused:
            piece = body[sent : sent + chance.randrange(1, 200_000)]
            sent += len(piece)
            scene.transfer.received(piece)
        elif disk.waiting and chance.random() < 0.5:
            disk.go()
        elif sent == len(body) and not ended and not disk.waiting:
            ended = True
            scene.transfer.ended(None, certain=True)
        done = [read_on(reader, got) for reader, got in readers]
        if ended and all(done):
            break
    assert [bytes(got) == body for _, got in readers] == [True] * len(readers)


def test_a_reader_that_left_before_the_body_began() -> None:
    """A body of unknown length that nobody reads ends after a while all the same."""
    scene = Scene()
    scene.transfer.open().close()
    scene.begin()
    scene.clock.advance(61)
    assert scene.flow.stopped


def test_nobody_left_of_a_known_length_goes_on() -> None:
    """The fill survives its readers; one of unknown length for a minute."""
    known = Scene(flow=Flow(length=100)).begin()
    known.transfer.open().close()
    known.clock.advance(3600)
    assert not known.flow.stopped
    unknown = Scene().begin()
    unknown.transfer.open().close()
    unknown.clock.advance(59)
    assert not unknown.flow.stopped
    unknown.clock.advance(2)
    assert unknown.flow.stopped
    assert unknown.transfer.error is not None


def test_a_body_that_is_here_whole_can_be_read_once_it_is_found_good() -> None:
    """By who asked before it came, and by who asks later; it is stored once."""
    scene = Scene(flow=Flow(length=9000))
    early, got = scene.transfer.open(), bytearray()
    assert not read_on(early, got)
    scene.take(bytes(9000))
    for reader in (early, scene.transfer.open()):
        got.clear()
        assert read_on(reader, got)
        assert len(got) == 9000
        reader.close()
    assert scene.committed == [True]
    assert scene.disk is not None
    assert scene.disk.readers == 0


def test_nobody_sees_a_byte_of_what_is_here_whole_and_not_good() -> None:
    """Not even those far from its end; it is not stored."""
    scene = Scene(flow=Flow(length=100_000), verdict=DigestMismatch("It is another."))
    reader, got = scene.transfer.open(), bytearray()
    scene.take(bytes(100_000))
    with pytest.raises(DigestMismatch):
        read_on(reader, got)
    assert not got
    assert not scene.committed
    assert scene.disk is not None
    assert scene.disk.aborted


def test_what_is_here_whole_passes_through_where_the_disk_is_full() -> None:
    """As what comes bit by bit does: whoever asked gets it, and nobody may join."""
    scene = Scene(disk=Disk(refuse_after=1000), flow=Flow(length=9000))
    reader, got = scene.transfer.open(), bytearray()
    scene.take(bytes(9000))
    assert read_on(reader, got)
    assert (len(got), scene.committed, scene.transfer.joinable) == (9000, [], False)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"verdict": ValueError("b")}, "a bug ended the check"),
        ({"refusal": ValueError("b")}, "a bug ended the storing"),
        ({"refusal": CannotStore("It is full.")}, "cannot be stored: It is full."),
    ],
)
def test_a_bug_is_told_of_and_nobody_waits_for_ever(whole: bool, trouble: dict[str, Exception], told: str) -> None:
    """Neither readers, nor who waits until it is stored: others could not ask for it anew."""
    scene = Scene(flow=Flow(length=9000), **cast(Any, trouble))
    reader = scene.transfer.open()
    with logged() as lines:
        if whole:
            scene.take(bytes(9000))
        else:
            scene.begin()
            scene.transfer.received(bytes(9000))
            scene.transfer.ended(None, certain=True)
    if "refusal" in trouble:
        assert read_on(reader, bytearray())
    else:
        with pytest.raises(CannotStore):
            read_on(reader, bytearray())
    assert scene.transfer.done.known
    assert scene.disk is not None
    # Where the disk refuses, the store gives it up.
    assert scene.disk.aborted == ("bug" in told)
    assert [line for line in lines if told in line]
