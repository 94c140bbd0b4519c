"""What goes on at the same time, and what happens to the one too many: a clear answer at once, and room for others."""

from __future__ import annotations

import ast
import hashlib
import importlib
import ipaddress
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from regcache.errors import ConfigError, Crowded, RegCacheError, TooBusy
from regcache.flow.queues import Queues
from regcache.flow.reply import How
from regcache.gate import Gate
from regcache.limits import _COSTS, RESERVED, Limits
from regcache.site import CacheSite
from regcache.testing import FakeUpstream, Kit, Page, body_of, make_cache, memory
from tests.wire import Wire, answers, sample_of


def _nothing(*_about: object) -> None:
    """Everybody may ask; nothing is ready."""


FEW = Limits(connections=4, requests=4, transfers=3, bodies=2, documents=1, waiting=3, refusals=2)


@given(st.integers(300, 2_000_000))
def test_all_together_fit_into_the_descriptors(descriptors: int) -> None:
    """If there is as much of everything as there may be, descriptors are left for what is not counted."""
    limits = Limits.of(descriptors)
    held = sum(getattr(limits, name) * cost for name, cost in _COSTS.items())
    assert limits.connections + held + RESERVED <= descriptors
    assert min(limits.connections, limits.requests, limits.transfers, limits.bodies, limits.documents) >= 2
    assert limits.bodies <= limits.transfers <= limits.waiting


def test_more_connections_than_there_is_room_for() -> None:
    """The operator is told how much room there is, and what to do."""
    assert Limits.of(1024, 100).connections == 100
    with pytest.raises(ConfigError, match=r"5000 connections .* 1024 descriptors.*LimitNOFILE"):
        Limits.of(1024, 5000)
    with pytest.raises(ConfigError, match="raise the limit"):
        Limits.of(64)


class Port:
    """A port on which nothing is ever asked."""

    def __init__(self, limits: Limits = FEW, *exempt: str) -> None:
        self.clock = Clock()
        self.gate = Gate(self.clock, limits, map(ipaddress.ip_network, exempt))
        resource: Any = type("Nothing", (), {"judge": _nothing, "place": _nothing})()
        self.site = CacheSite(resource, self.clock, self.gate)

    def connect(self, host: str = "10.0.0.1") -> StringTransportWithDisconnection | None:
        """A new connection; None if it is closed without a word."""
        address: Any = IPv4Address("TCP", host, 4) if host else UNIXAddress(None)
        protocol: Any = self.site.buildProtocol(address)
        if protocol is None:
            return None
        transport: Any = StringTransportWithDisconnection(peerAddress=address)
        transport.protocol = protocol
        transport.abortConnection = transport.loseConnection
        transport.loseWriteConnection = lambda: None
        protocol.makeConnection(transport)
        made: StringTransportWithDisconnection = transport
        return made


def test_one_connection_too_many() -> None:
    """It is told why and when to come again, has a moment to read that, and costs no place; more get no word."""
    port = Port()
    taken = [port.connect(f"10.0.0.{number}") for number in range(4)]
    refused: Any = port.connect("10.0.0.9")
    (answer,) = answers(refused.value())
    assert answer.status == 503
    assert ("retry-after", "5") in answer.headers
    assert b"--max-connections" in answer.body
    refused.protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
    assert refused.connected
    assert port.connect("10.0.0.9") is not None
    assert port.connect("10.0.0.9") is None
    port.clock.advance(2)
    assert not refused.connected
    assert taken[0] is not None
    taken[0].loseConnection()
    again = port.connect("10.0.0.9")
    assert again is not None
    assert again.value() == b""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::2"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_nobody_takes_all_connections(first: str, second: str) -> None:
    """One address has half of them, however it is spelled; an IPv6 host, which has many, all of them together."""
    port = Port()
    held = [port.connect(first), port.connect(second)]
    refused = port.connect(second)
    assert refused is not None
    assert refused.value().startswith(b"HTTP/1.1 503 ")
    other = port.connect("192.0.2.1")
    assert other is not None
    assert other.value() == b""
    assert held[0] is not None
    held[0].loseConnection()
    room = port.connect(second)
    assert room is not None
    assert room.value() == b""


def test_who_stands_for_many() -> None:
    """A reverse proxy and a UNIX socket may take all connections."""
    for host in ("10.0.0.1", ""):
        port = Port(FEW, "10.0.0.0/24", "::1/128")
        taken = [port.connect(host) for _ in range(4)]
        assert [one.value() for one in taken if one is not None] == [b""] * 4


def test_one_request_too_many() -> None:
    """All together have so many, and one client half of them; the health can be asked all the same."""
    wire = Wire()
    wire.limit(FEW)
    wire.kit.upstream.hangs = True
    get = b"GET /generic/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for number in range(2):
        wire.connect(get % number)
    busy = answers(wire.connect(get % 7).value())
    assert [one.status for one in busy] == [503]
    assert b"2 requests of 127.0.0.1" in busy[0].body
    assert ("retry-after", "5") in busy[0].headers
    for number in range(2):
        wire.connect(get % number, address="127.0.0.2")
    assert answers(wire.connect(get % 1, address="127.0.0.3").value())[0].status == 503
    health = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert answers(wire.connect(health, address="127.0.0.3").value())[0].status == 200
    wire.kit.upstream.release()
    wire.kit.upstream.hangs = False
    assert answers(wire.connect(get % 1, address="127.0.0.3").value())[0].status == 404


@pytest.mark.fast
def test_whoever_reads_what_is_ready_slowly_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a client is bounded by its connections, and by no more: others would find all places taken."""
    wire = Wire()
    wire.limit(FEW)
    ask = sample_of("npm")[1].documents[0]
    path, fields = f"/npm{ask.path}".encode(), b"".join(f"{field}: {value}\r\n".encode() for field, value in ask.fields)
    get = b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    for _ in range(2):
        wire.connect(get % (path, fields))
    with monkeypatch.context() as patch:
        patch.setattr("regcache.hurry._MOST_WAITING", 0)
        patch.setattr("regcache.flow.sending.Sender.start", lambda _self: None)
        for _ in range(4):
            wire.connect(get % (path, fields))
    assert wire.house.answering == 4
    other = wire.connect(get % (b"/generic/none", b""), address="127.0.0.2")
    assert answers(other.value())[0].status == 404


def test_long_names_that_are_nowhere_count_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may ask for whatever it likes: what is remembered of that is so many bytes, and what came last."""
    monkeypatch.setattr("regcache.flow.context._MOST_MISSING", 40)
    wire = Wire()
    wire.house.cache.context.forget()
    missing = wire.house.cache.context.missing
    for number in range(60):
        wire.connect(b"GET /generic/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
    assert len(missing._items) == 40
    for number in range(60):
        wire.connect(b"GET /generic/%d?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (number, b"x" * 5000))
    assert 0 < sum(map(len, missing._items)) <= 40 * 1024 / 2


def test_where_all_clients_are_here() -> None:
    """One address may have all that there is: it is everybody's."""
    port = Port(evolve(FEW, shared=False))
    taken = [port.connect("127.0.0.1") for _ in range(4)]
    assert [one.value() for one in taken if one is not None] == [b""] * 4


# Towards the registries.

FILE = "http://registry.test/files/"


def kit(limits: Limits = FEW) -> Kit:
    """A cache with narrow limits, before a registry that lists its files and does not answer."""
    made = make_cache(upstream=FakeUpstream(), limits=limits)
    index = {str(number): hashlib.sha256(b"x" * 9).hexdigest() for number in range(20)}
    made.upstream.pages["http://registry.test/index"] = Page(body=json.dumps(index).encode())
    made.get("/index")
    made.upstream.pages |= {f"{FILE}{number}": Page(body=b"x" * 9) for number in range(20)}
    made.upstream.hangs = True
    made.upstream.asked.clear()
    return made


def outcomes(asked: list[Deferred[Any]]) -> list[Any]:
    """The error that each has by now, or its reply."""
    found: list[Any] = []
    for one in asked:
        one.addBoth(lambda result: found.append(getattr(result, "value", result)))
    return found


def test_one_artifact_too_many() -> None:
    """So many come, as many wait as may, the next is answered 503; when there is room again, it is served."""
    made = kit()
    waiting = [made.ask(f"/files/{number}") for number in range(3)]
    assert len([url for url in made.upstream.urls() if url.startswith(FILE)]) == 2
    (error,) = outcomes([made.ask("/files/9")])
    assert isinstance(error, Crowded)
    assert error.status == 503
    made.upstream.hangs = False
    made.upstream.release()
    replies = outcomes(waiting)
    assert [body_of(reply) for reply in replies] == [b"x" * 9] * 3
    assert made.get("/files/9")[1] == b"x" * 9


def test_a_disk_that_is_behind_refuses_nobody() -> None:
    """As many as may wait for it do; the rest passes through, is not stored, and can be had again."""
    made = make_cache(limits=FEW)
    made.upstream.pages |= {f"{FILE}{number}": Page(body=b"x" * 9) for number in range(9)}
    made.store.holds = True
    for number in range(9):
        assert made.get(f"/files/{number}")[1] == b"x" * 9
    made.store.release()
    made.advance(1)
    assert len(made.store.entries) == FEW.transfers
    assert [made.get(f"/files/{number}")[1] for number in range(9)] == [b"x" * 9] * 9


def test_what_waits_in_memory_is_bounded_by_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no file, so it does not count among those whose number files bound: all of them are stored."""
    made = make_cache(limits=FEW)
    monkeypatch.setattr(memory._MemoryPartial, "counted", True)
    made.upstream.pages |= {f"{FILE}{number}": Page(body=b"x" * 9) for number in range(9)}
    made.store.holds = True
    for number in range(9):
        assert made.get(f"/files/{number}")[1] == b"x" * 9
    made.store.release()
    assert len(made.store.entries) == 9


def test_a_disk_that_is_far_behind_gets_no_file_for_each_small_body() -> None:
    """It would fall behind further: they pass through, and are stored the next time."""
    made = make_cache()
    made.upstream.pages |= {f"{FILE}small": Page(body=b"x" * 9), f"{FILE}large": Page(body=b"x" * 100_000)}
    made.store.crowded = True
    for name, size in (("small", 9), ("large", 100_000)):
        assert made.get(f"/files/{name}")[1] == b"x" * size
    made.store.crowded = False
    assert [entry.size for entry in made.store.entries.values()] == [100_000]
    assert made.get("/files/small")[1] == b"x" * 9
    assert made.get("/files/small")[0].how is How.HIT


def test_a_small_body_waits_a_moment_for_a_disk_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served once is to be served again; a large one has a file to go to."""
    made, caught_up = make_cache(), [Deferred[None](), Deferred[None]()]
    monkeypatch.setattr(made.store, "caught_up", caught_up.pop)
    made.upstream.pages |= {f"{FILE}small": Page(body=b"x" * 9), f"{FILE}large": Page(body=b"x" * 100_000)}
    made.store.crowded = True
    assert len(made.get("/files/large")[1]) == 100_000
    waiting, asked = caught_up[-1], made.ask("/files/small")
    assert not asked.called
    made.store.crowded = False
    waiting.callback(None)
    assert body_of(asked.result) == b"x" * 9  # type: ignore[arg-type]
    assert made.get("/files/small")[0].how is How.HIT


def test_what_is_given_up_while_it_waits_for_the_disk_is_stored_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a stop that has no more patience: nothing of it stays."""
    made, waiting = make_cache(), Deferred[None]()
    monkeypatch.setattr(made.store, "caught_up", lambda: waiting)
    made.upstream.pages[f"{FILE}a"] = Page(body=b"x" * 9)
    made.store.crowded = True
    asked = made.ask("/files/a")
    made.cache.abandon()
    made.store.crowded = False
    waiting.callback(None)
    assert outcomes([asked])[0].status == 502
    assert not made.store.entries
    assert made.cache.fetching == 0


def test_who_waits_for_his_turn_too_long_is_told_so() -> None:
    """503 rather than that the registry were slow; the fetch goes on."""
    made = kit(evolve(FEW, transfers=9, waiting=9))
    asked = [made.ask(f"/files/{number}") for number in range(6)]
    made.advance(15)
    assert [error.status for error in outcomes(asked)][2:5] == [503, 503, 503]
    made.upstream.hangs = False
    made.upstream.release()
    made.advance(15)
    assert made.get("/files/3")[0].how is How.HIT


def test_what_is_stored_is_served_whatever_the_queues() -> None:
    """Nobody who has a stored copy is told to come again."""
    made = make_cache(limits=FEW)
    index = {"http://registry.test/index": Page(body=b"{}")}
    made.upstream.pages |= index | {f"{FILE}a": Page(body=b"unlisted")}
    assert made.get("/files/a")[1] == b"unlisted"
    assert made.get("/index")[1] == b"{}"
    made.advance(2 * 86400)
    made.upstream.hangs = True
    for number in range(9):
        outcomes([made.ask(f"/files/{number}")])
    for path, body in (("/files/a", b"unlisted"), ("/index", b"{}")):
        asked = made.ask(path)
        made.advance(6)
        (reply,) = outcomes([asked])
        assert not isinstance(reply, RegCacheError), path
        assert (reply.how, body_of(reply)) == (How.STALE, body)


def test_queues_are_left_by_whoever_gives_up() -> None:
    """A place is given back once, and whoever waits no more takes none."""
    clock = Clock()
    queues = Queues(clock, FEW)

    def place(patience: float | None = None) -> Deferred[Any]:
        return Deferred.fromCoroutine(queues.place("http://a", True, patience))

    first: Any = place()
    second: Any = place()
    third = place(1.0)
    assert queues.crowded("http://a", True)
    assert not queues.crowded("http://a", False)
    clock.advance(1)
    (error,) = outcomes([third])
    assert isinstance(error, TooBusy)
    fourth, fifth = place(), place()
    fourth.addErrback(lambda _: None).cancel()
    first.result.release()
    first.result.release()
    assert fifth.called
    sixth = place()
    assert not sixth.called
    second.result.release()
    assert sixth.called
    assert not queues.crowded("http://a", True)


def test_a_place_is_had_at_once_only_if_nobody_waits() -> None:
    """Who does not wait passes nobody who does, and takes as much as anybody."""
    queues = Queues(Clock(), FEW)
    assert queues.at_once("http://a", True) is None, "nobody has asked that host"
    first: Any = Deferred.fromCoroutine(queues.place("http://a", True, None))
    first.result.release()
    places = [queues.at_once("http://a", True) for _ in range(FEW.bodies)]
    assert None not in places
    assert queues.at_once("http://a", True) is None
    waiting = Deferred.fromCoroutine(queues.place("http://a", True, None))
    assert places[0] is not None
    places[0].release()
    assert waiting.called
    assert queues.at_once("http://a", True) is None
    assert not queues.idle


# The page.

PAGE = Path(__file__).parent.parent / "docs" / "limits.md"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def rows() -> dict[str, float]:
    """The page's numbers, by the name that each has in the code."""
    found = re.findall(r"^\| [^|]+ \| ([0-9.,]+) ?(\w*) \| `([\w.]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {name: float(number.replace(",", "")) * UNITS.get(unit, 1) for number, unit, name in found}


def value(name: str) -> Any:
    """What the code says."""
    parts = name.split(".") if name.startswith(("twisted.", "tests.")) else ["regcache", *name.split(".")]
    found: Any = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], 2):
        with suppress(ImportError):
            importlib.import_module(".".join(parts[:at]))
        found = getattr(found, part)
    return found


def bounds() -> Iterator[str]:
    """Every number of the code whose name says that it is the most of something."""
    package = PAGE.parent.parent / "regcache"
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
            for name in names if isinstance(node, ast.Assign) else ():
                if re.match("_?(MOST|LONGEST)", name) and isinstance(value(f"{module}.{name}"), int | float):
                    yield f"{module}.{name}"


def test_the_page_has_the_numbers_of_the_code() -> None:
    """Each as it is there."""
    assert {name: value(name) for name in rows()} == rows()


def test_the_page_has_every_bound() -> None:
    """Whoever adds one adds a row."""
    assert set(bounds()) - rows().keys() == set()


def test_the_page_has_what_follows_from_descriptors() -> None:
    """As the service reckons."""
    text = PAGE.read_text("utf-8")
    heading, *table = re.findall(r"^\| [0-9d][^`\n]*$", text, re.MULTILINE)
    assert heading.startswith("| descriptors | connections | requests |")
    names = ("connections", "requests", "transfers", "bodies", "documents", "refusals", "files")
    for row in table:
        descriptors, *told = (int(cell.replace(",", "")) for cell in row.strip("| ").split(" | "))
        limits = Limits.of(descriptors)
        assert told == [getattr(limits, name) for name in names]
    assert len(table) > 4
    assert f"{Limits().waiting:,} requests to registries may wait" in text
