"""Answers whose bodies are files that are kept open: the very bytes, no wrong end, and no file open for ever."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regcache.access import Peer
from regcache.counts import Answers
from regcache.errors import BlobDamaged
from regcache.express import Express, Place, Prepared
from regcache.flow.context import Bounded
from regcache.flow.reply import Reply, Standing
from regcache.flow.sockets import PlainSocket
from regcache.heads import Below, Head
from regcache.http.messages import Headers
from regcache.hurry import Client
from regcache.interfaces import IBody
from regcache.kept import Kept, OpenFiles
from regcache.revision import Revision
from regcache.store.blobs import File, FileBody
from tests.fault_lab import HOST, Lab
from tests.lifetime import Life, at_once
from tests.origin import Origin
from tests.service import Running

pytestmark = pytest.mark.fast

SIZE = 50_000
BODY = os.urandom(SIZE)
CUT = b"the connection ended"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@define
class Disk:
    """A stored body, and how often it was opened."""

    path: Path
    opened: list[int] = field(factory=list)

    def open(self) -> FileBody:
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise BlobDamaged(f"{error.strerror}.") from None
        self.opened.append(fd)
        return FileBody(File(fd), SIZE, maybeDeferred, self.open)

    @property
    def open_now(self) -> int:
        """How often its file is open."""
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found += os.path.samefile(f"/proc/self/fd/{name}", self.path)
        return found


class Transport:
    """A plain one, as far as it is used past its buffer."""

    def __init__(self, to: socket.socket) -> None:
        self.socket = to
        self.dataBuffer, self._tempDataBuffer = b"", list[bytes]()

    def write(self, data: bytes) -> None:
        self._tempDataBuffer.append(data)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """One with a body on it."""
    path = tmp_path / "body"
    path.write_bytes(BODY)
    return Disk(path)


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's and a client's end of a connection."""
    if request.param == "unix":
        server, client = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as port:
            client = socket.create_connection(port.getsockname())
            server, _ = port.accept()
    server.setblocking(False)
    with server, client:
        yield server, client


def kept(disk: Disk, files: OpenFiles, start: int = 0, length: int = SIZE) -> Kept:
    """A part of it, to be sent."""
    body = disk.open()
    found = files.keep(body, start, length)
    body.close()
    assert found is not None
    return found


def client_of(to: socket.socket) -> tuple[Client, Transport]:
    """Who asks at that end."""
    transport = Transport(to)
    channel: Any = type("Channel", (), {"transport": transport})()
    return Client(channel, Peer("127.0.0.1", False), PlainSocket(transport)), transport


def read(client: socket.socket, size: int) -> bytes:
    """As much of what comes."""
    got = b""
    while len(got) < size:
        got += client.recv(size - len(got))
    return got


@pytest.mark.parametrize(("start", "length"), [(0, SIZE), (1, 30_001), (SIZE - 24_576, 24_576)])
def test_the_very_bytes(disk: Disk, pair: tuple[socket.socket, socket.socket], start: int, length: int) -> None:
    """A head and the part behind it, by one descriptor, however often."""
    body = kept(disk, OpenFiles(4, Clock()), start, length)
    client, transport = client_of(pair[0])
    for now in range(3):
        assert body.is_at_hand(now)
        assert client.write(HEAD, body) == len(body) == length
        assert read(pair[1], len(HEAD) + length) == HEAD + BODY[start : start + length]
    assert transport._tempDataBuffer == []
    assert (len(disk.opened), disk.open_now) == (2, 1)


def test_what_is_not_taken_waits_in_the_transport(disk: Disk, pair: tuple[socket.socket, socket.socket]) -> None:
    """As it does of a body from memory, behind what waits there already, and without a descriptor for it."""
    start, size = 7, SIZE - 11
    body = kept(disk, OpenFiles(4, Clock()), start, size)
    whole = HEAD + BODY[start : start + size]
    client, transport = client_of(pair[0])
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    assert body.is_at_hand(0)
    for _ in range(200):
        assert client.write(HEAD, body) == size
        if transport._tempDataBuffer:
            break
    waiting = b"".join(transport._tempDataBuffer)
    # A UNIX socket took nothing of the last one.
    assert 0 < len(waiting) < len(whole) + (pair[0].family == socket.AF_UNIX)
    assert whole.endswith(waiting)
    assert client.write(HEAD, body) == size
    assert b"".join(transport._tempDataBuffer) == waiting + whole


def test_a_client_without_a_socket_of_its_own(disk: Disk, pair: tuple[socket.socket, socket.socket]) -> None:
    """It gets the bytes through its transport."""
    body = kept(disk, OpenFiles(4, Clock()))
    client, transport = client_of(pair[0])
    client.socket = None
    assert body.is_at_hand(0)
    assert client.write(HEAD, body) == SIZE
    assert b"".join(transport._tempDataBuffer) == HEAD + BODY


@pytest.mark.parametrize("left", [0, 30_000])
def test_one_that_is_cut_short_is_not_whole(disk: Disk, pair: tuple[socket.socket, socket.socket], left: int) -> None:
    """Nothing stands for what is missing: whoever sends the rest finds out; the file is another's to close then."""
    files = OpenFiles(4, Clock())
    body = kept(disk, files)
    client, transport = client_of(pair[0])
    assert body.is_at_hand(0)
    os.truncate(disk.path, left)
    assert client.write(HEAD, body) == left
    assert transport._tempDataBuffer == []
    rest, start, stop = body.rest(left)
    assert (start, stop) == (left, SIZE)
    found: list[Any] = []
    maybeDeferred(rest.read, start, stop - start).addCallback(found.append)
    assert found == [b""]
    assert disk.open_now == 1
    rest.close()
    assert (disk.open_now, len(files._open)) == (0, 0)
    assert not body.is_at_hand(2)


def test_a_socket_that_is_broken(disk: Disk, pair: tuple[socket.socket, socket.socket]) -> None:
    """Its transport finds out."""
    body = kept(disk, OpenFiles(4, Clock()))
    client, transport = client_of(pair[0])
    pair[0].shutdown(socket.SHUT_WR)
    assert body.is_at_hand(0)
    assert client.write(HEAD, body) == SIZE
    assert b"".join(transport._tempDataBuffer) == HEAD + BODY


def test_cold_pages_are_not_waited_for(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are in memory is asked once a second, and when the clock was set back."""
    body = kept(disk, OpenFiles(4, Clock()))
    looks: list[bool] = [True, True, True, False, True]
    monkeypatch.setattr(File, "is_warm", lambda *_: looks.pop(0))
    for now in (5.0, 5.9, 6.0, 5.0):
        assert body.is_at_hand(now)
    assert len(looks) == 2
    assert not body.is_at_hand(7.0)
    assert body.is_at_hand(7.0)
    assert looks == []


def test_what_does_not_pay_is_not_kept(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bodies, those that are no files, those that would have to be read first, and those that are too many."""
    files = OpenFiles(4, Clock())
    body = disk.open()
    assert files.keep(body, 0, 2000) is None
    assert files.keep(BODY, 0, SIZE) is None
    assert OpenFiles(0, Clock()).keep(body, 0, SIZE) is None
    monkeypatch.setattr(File, "is_warm", lambda *_: False)
    assert files.keep(body, 0, SIZE) is None
    body.close()


def test_descriptors_are_bounded(disk: Disk) -> None:
    """One that finds no room is not ready; those that nobody asks for make room within a minute."""
    clock = Clock()
    files = OpenFiles(3, clock)
    some = [kept(disk, files) for _ in range(5)]
    assert [one.is_at_hand(0) for one in some] == [True] * 3 + [False] * 2
    assert disk.open_now == 3
    clock.advance(30)
    assert some[0].is_at_hand(30)
    clock.advance(30)
    assert disk.open_now == 1
    assert [one.is_at_hand(60) for one in some] == [True] * 3 + [False] * 2
    assert disk.open_now == 3, "one was not opened again"
    clock.pump([30, 30])
    assert (disk.open_now, clock.getDelayedCalls()) == (0, [])


def test_what_was_evicted_takes_no_room_for_ever(disk: Disk) -> None:
    """The bytes stay while they are asked for; then the file goes, and is not found again."""
    clock = Clock()
    body = kept(disk, OpenFiles(4, clock))
    assert body.is_at_hand(0)
    moved = Disk(disk.path.with_name("moved"))
    os.link(disk.path, moved.path)
    disk.path.unlink()
    clock.advance(30)
    assert body.is_at_hand(30)
    assert body.read(0) == BODY
    clock.pump([30, 30])
    assert moved.open_now == 0
    assert not body.is_at_hand(90)


def test_all_are_closed_at_the_end(disk: Disk) -> None:
    """And none is opened afterwards."""
    clock = Clock()
    files = OpenFiles(4, clock)
    some = [kept(disk, files) for _ in range(3)]
    assert [one.is_at_hand(0) for one in some] == [True] * 3
    files.close()
    files.close()
    assert (disk.open_now, clock.getDelayedCalls()) == (0, [])
    assert not some[0].is_at_hand(0)


def test_an_answer_that_goes_closes_its_file(disk: Disk) -> None:
    """Whatever makes it go: it does not stand any more, another takes its place, there is no memory, or all end."""
    stands = [True]
    files = OpenFiles(30, Clock())
    express = Express(40_000, lambda *_: stands[0], files, Revision())
    place = Place("", "127.0.0.1:80", False, "")

    def remember(asked: bytes, most: int = 1) -> None:
        for number in range(most):
            named = asked.replace(b"?", b"%d" % number)
            body = disk.open()
            standing = Standing(until=9e9, entries=(), vouched_at=0, used="", given=lambda: None)
            reply = Reply(status=200, headers=Headers(), body=body, stop=SIZE, standing=standing)
            taken = express.taken(reply, uncopied=True)
            assert isinstance(taken, Kept)
            body.close()
            about = dict.fromkeys(("client", "registry", "method", "target", "package"), "")
            made = Prepared(reply, standing, form=b"", counted=(), body=taken, answers=Answers(), **about)
            express.remember(place, named, made)
            assert express.find(place, Head(named, named, Below(named, named)), 0) is not None

    ask = b"GET /? HTTP/1.1\r\n\r\n"
    remember(ask)
    remember(ask)
    assert disk.open_now == 1
    stands[0] = False
    first = ask.replace(b"?", b"0")
    assert express.find(place, Head(first, first, Below(first, first)), 0) is None
    assert disk.open_now == 0
    stands[0] = True
    # A file takes no memory: more of them fit than their bytes would.
    remember(ask, 40)
    assert 1 < disk.open_now == len(files._open) == len(express._ready._items) <= 19
    express.close()
    assert (disk.open_now, files._timer) == (0, None)


def test_a_service_that_stops_or_is_configured_anew(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves none open."""
    at_once(monkeypatch)
    life = Life(tmp_path)
    house = life.service.house
    for end in (house.prepare_anew, life.stop):
        before = house.express
        assert kept(disk, before._files).is_at_hand(0)
        assert disk.open_now == 1
        end()
        assert (disk.open_now, before is house.express) == (0, False)


def test_one_that_must_be_waited_for_is_handed_over(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages went within the second: a sender that can wait gets the file."""
    files = OpenFiles(4, Clock())
    body = kept(disk, files)
    assert body.is_at_hand(0)
    waiting: Deferred[bytes] = Deferred()
    monkeypatch.setattr(File, "read", lambda *_: waiting)
    assert body.read(7) is None
    waiting.errback(BlobDamaged("Nobody minds."))
    monkeypatch.setattr(File, "read", lambda *_: BODY[7:1000])
    assert body.read(7) is None, "half of it is not all"
    rest, start, stop = body.rest(7)
    assert IBody.providedBy(rest)
    assert (start, stop, len(files._open)) == (7, SIZE, 0)
    rest.close()
    body.close()
    assert disk.open_now == 0


def test_a_memory_tells_what_goes() -> None:
    """Each item once, whatever it goes for."""
    gone: list[str] = []
    memory: Bounded[int, str] = Bounded(3, gone.append)
    for number, name in enumerate("abcd"):
        memory.put(number, name, 1)
    memory.put(1, "e", 1)
    memory.put(5, "f", 4)
    memory.drop(2)
    memory.drop(2)
    assert gone == ["a", "b", "f", "c"]
    memory.clear()
    assert gone == ["a", "b", "f", "c", "d", "e"]
    assert memory._sum == 0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Running, str]]:
    """One with a stored file, and the path of that."""
    origin = Origin()
    origin.add("/files/a.bin", BODY)
    tables = f'[registries.files]\ntype = "generic"\nurl = "{origin.url}files/"\n'
    running = Running(tmp_path, None, "--scrub", "off", tables=tables)
    running.until("files/a.bin", "HIT")
    yield running, "files/a.bin"
    running.stop()
    origin.close()


def said(url: str, path: str, *, fields: str = "") -> bytes:
    """All that comes for one request, until the body is there or the connection ends."""
    authority = url.split("/")[2]
    with socket.create_connection(("127.0.0.1", int(authority.rpartition(":")[2])), timeout=10) as client:
        client.sendall(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n".encode())
        got = b""
        try:
            while not (length := re.search(rb"Content-Length: (\d+)", got)) or len(body_of(got)) < int(length[1]):
                piece = client.recv(1 << 20)
                got += piece
                if not piece:
                    return got + CUT
        except ConnectionResetError:
            return got + CUT
    return got


def body_of(answer: bytes) -> bytes:
    """What comes behind the head."""
    return answer.partition(b"\r\n\r\n")[2]


def blobs_of(process: int | str) -> list[str]:
    """The bodies that it has open."""
    links = []
    for one in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(one))
    return [link for link in links if "/blobs/" in link]


def test_the_service_says_the_same_from_the_file(service: tuple[Running, str]) -> None:
    """Head and body, whole and in part, by however many forms of a request; and its files are a few."""
    running, path = service

    def bare(answer: bytes) -> bytes:
        return re.sub(rb"(X-Request-Id|Date|Age): [^\r]*", rb"\1", answer)

    for fields in ("", "Range: bytes=100-40099\r\n", "Accept: text/plain\r\n"):
        first, *others = (said(running.url, path, fields=fields) for _ in range(3))
        assert {bare(one) for one in others} == {bare(first)}
        assert body_of(first) == (BODY[100:40_100] if "Range" in fields else BODY)
    assert len(blobs_of(running.process.pid)) == 3


def test_a_file_that_is_gone_is_sent_while_it_is_open(service: tuple[Running, str]) -> None:
    """Eviction takes it from nobody."""
    running, path = service
    for _ in range(2):
        assert body_of(said(running.url, path)) == BODY
    (name,) = set(blobs_of(running.process.pid))
    os.unlink(name)
    assert body_of(said(running.url, path)) == BODY


class Damaged(TestCase):
    """On a service whose clock stands: files are looked at once a second."""

    timeout = 60

    async def cut(self, left: int) -> None:
        """What was cut under an answer that is ready is never whole; the next who asks gets it anew."""
        lab = await self.opened()
        whole = lab.registry.publish("a", HOST)
        for how in (b"MISS", b"HIT", b"HIT"):
            assert b"X-Cache: " + how in await self.said(lab)
            await lab.settled()
        (name,) = set(blobs_of("self"))
        lab.wall += 1.5
        assert body_of(await self.said(lab)) == whole
        os.truncate(name, left)
        cut = await self.said(lab)
        assert cut.endswith(CUT)
        body = body_of(cut.removesuffix(CUT))
        assert len(body) <= left
        assert whole.startswith(body)
        for how in (b"MISS", b"HIT", b"HIT"):
            anew = await self.said(lab)
            assert (b"X-Cache: " + how in anew, body_of(anew)) == (True, whole)
            await lab.settled()

    async def opened(self) -> Lab:
        """A laboratory."""
        directory = tempfile.TemporaryDirectory(prefix="regcache-test-")
        self.addCleanup(directory.cleanup)
        started: Deferred[None] = Deferred()
        reactor.callLater(0, started.callback, None)
        await started
        lab = Lab(reactor, Path(directory.name))
        lab.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(lab.close()))
        return lab

    def said(self, lab: Lab) -> Deferred[bytes]:
        """What comes for the file, on a connection that could be kept."""
        return deferToThread(said, f"http://127.0.0.1:{lab.port}/", "tree/a")

    def test_to_nothing(self) -> Any:
        """Nothing is there any more."""
        return self.cut(0)

    def test_in_the_middle(self) -> Any:
        """Half of it is."""
        return self.cut(20_000)
