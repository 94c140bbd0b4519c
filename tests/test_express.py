"""The fast way for hits: it says what the slow way says, byte for byte, and ends where that might say another thing."""

from __future__ import annotations

import math
import re
import socket
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.http import HTTPChannel

from regcache import hurry, site
from regcache.accesslog import AccessLog, Target
from regcache.config import Config
from regcache.counts import Answers
from regcache.errors import BlobDamaged
from regcache.express import Express, Place, Prepared
from regcache.flow.reply import Reply, Standing, Unknown
from regcache.flow.sending import Sender
from regcache.heads import Heads
from regcache.http.messages import Headers, Kind, Stored
from regcache.http.policy import Rules, UseStored, decide, settled_until
from regcache.kept import OpenFiles
from regcache.lean import LeanRequest, _read
from regcache.registries import make
from regcache.revision import Revision
from regcache.testing import Page
from regcache.values import networks
from tests.origin import Origin
from tests.service import Running
from tests.wire import Wire, answers, bug_made, nothing_logged, sample_of

pytestmark = pytest.mark.fast
HOST = b"Host: localhost\r\n"
ASKS = sorted(
    (f"/{name}{ask.path}".encode(), b"".join(f"{field}: {value}\r\n".encode() for field, value in ask.fields))
    for name in ("cargo", "generic", "go", "maven", "npm", "nuget", "pypi", "rubygems")
    for _, sample in [sample_of(name)]
    for ask in (*sample.documents, *sample.artifacts)
)
FIELDS = [
    *(b"Accept-Encoding: gzip\r\n", b"Accept-Encoding: gzip;q=0\r\n", b"Accept: application/json\r\n"),
    *(b"Range: bytes=0-3\r\n", b"Range: bytes=-2\r\n", b"Range: bytes=999999-\r\n", b"If-None-Match: *\r\n"),
    *(b'If-Match: "x"\r\n', b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n", b"Cache-Control: no-cache\r\n"),
    *(b"User-Agent: pip/1\r\n", b"npm-session: 4711\r\n", b"Connection: keep-alive\r\n", b"X: y\r\n"),
    *(b"Via: 1.1 regcache-test\r\n", b"Host: elsewhere.test\r\n", b"Origin: http://evil.test\r\n"),
    *(b"X-Forwarded-For: 10.0.0.1\r\n", b"Authorization: Basic eDp5\r\n"),
]


@pytest.fixture(scope="module")
def wires() -> Iterator[tuple[Wire, Wire]]:
    """A service with the fast way and one without, in which everything is stored."""
    with nothing_logged(), pytest.MonkeyPatch.context() as patch:
        # Some have new keys in each.
        patch.setattr("tests.wire.sample_of", cache(sample_of))
        both = Wire(), Wire(Config(memory_cache=0))
        for path, fields in ASKS:
            for wire in both:
                for _ in range(2):
                    said(wire, request(path, fields))
        yield both


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The targets that were answered the fast way."""
    found: list[bytes] = []
    give = hurry.give

    def noting(*args: Any) -> None:
        found.append(args[2].prepared.target.encode())
        give(*args)

    monkeypatch.setattr(site, "give", noting)
    return found


def request(path: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    """One, as it comes."""
    return method + b" " + path + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n"


def said(wire: Wire, *requests: bytes, address: str = "127.0.0.1") -> bytes:
    """What comes back for requests that come one after the other on one connection, but for their names."""
    transport = wire.connect(*requests, address=address)
    value: bytes = transport.value()
    transport.loseConnection()
    named = re.findall(rb"X-Request-Id: (\S+)\r\n", value)
    assert len(set(named)) == len(named)
    return re.sub(rb"(X-Request-Id: )\S+", rb"\1-", value)


@given(
    st.sampled_from(ASKS),
    st.sampled_from([b"GET", b"HEAD"]),
    st.lists(st.sampled_from(FIELDS), max_size=3),
    st.integers(0, 3),
)
def test_both_ways_say_the_same(
    wires: tuple[Wire, Wire], ask: tuple[bytes, bytes], method: bytes, fields: list[bytes], seconds: int
) -> None:
    """Status, every field and the body, as time goes by; a third time it is the memory that answers."""
    path, own = ask
    asked = request(path, own + b"".join(fields), method)
    for _ in range(3):
        fast, slow = (said(wire, asked, asked) for wire in wires)
        assert fast == slow
        for wire in wires:
            wire.kit.wall += seconds / 7


def test_hits_go_the_fast_way(wires: tuple[Wire, Wire], ready: list[bytes]) -> None:
    """Each artifact and document is answered from memory as soon as a hit was answered once."""
    for path, fields in ASKS:
        said(wires[0], request(path, fields))
    ready.clear()
    for path, fields in ASKS:
        said(wires[0], request(path, fields + b"User-Agent: another\r\nnpm-session: 1\r\nReferer: x\r\n"))
        said(wires[1], request(path, fields))
    assert set(ready) >= {path for path, _ in ASKS if path.startswith((b"/npm", b"/pypi", b"/generic"))}
    assert len(ready) <= len(ASKS)


NPM = next(ask for ask in ASKS if ask[0].startswith(b"/npm/") and b"/-/" not in ask[0])


def prepared(ready: list[bytes]) -> Wire:
    """A service of its own, in which a packument is ready."""
    wire = Wire()
    for _ in range(3):
        said(wire, request(*NPM))
    assert ready == [NPM[0]]
    ready.clear()
    return wire


def test_what_is_stored_anew_is_sent(ready: list[bytes]) -> None:
    """Another copy, or none, ends what was made from the one before."""
    wire = prepared(ready)
    store: Any = wire.house.cache.context.store
    (key,) = (key for key, entry in store.entries.items() if entry.kind is Kind.DOCUMENT)
    store.update(replace(store.peek(key)))
    said(wire, request(*NPM))
    assert ready == []
    said(wire, request(*NPM))
    assert ready == [NPM[0]]
    store.drop(key)
    assert b"X-Cache: MISS" in said(wire, request(*NPM))
    assert ready == [NPM[0]]


def test_what_was_found_to_hold_is_not_looked_at_twice(ready: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second, while nothing changes; then it is."""
    wire = prepared(ready)
    looked, find = list[float](), Express.find

    def noting(*args: Any) -> Any:
        looked.append(args[-1])
        return find(*args)

    monkeypatch.setattr(Express, "find", noting)
    wire.kit.wall = math.floor(wire.kit.wall) + 1.25
    said(wire, request(*NPM), request(*NPM))
    wire.kit.wall += 0.5
    said(wire, request(*NPM))
    wire.kit.wall += 0.5
    said(wire, request(*NPM))
    assert looked == [wire.kit.wall - 1, wire.kit.wall]
    assert ready == [NPM[0]] * 4


def _store(wire: Wire) -> Any:
    return wire.house.cache.context.store


def _unwritten(wire: Wire, entry: Stored) -> None:
    wire.house.cache.context.on_its_way(replace(entry))


def _written(wire: Wire, entry: Stored) -> None:
    context = wire.house.cache.context
    context.on_its_way(replace(entry))
    for _ in range(3):
        said(wire, request(*NPM))
    assert [*wire.house.express._found] == [request(*NPM)]
    context.arrived(entry.key)


@pytest.mark.parametrize(
    "change",
    [
        lambda wire, entry: wire.house.cache.context.store.update(replace(entry)),
        lambda wire, entry: wire.house.cache.context.store.put(replace(entry), _store(wire).blobs[entry.digest]),
        lambda wire, entry: wire.house.cache.context.store.drop(entry.key),
        lambda wire, entry: wire.house.cache.context.note(replace(entry)),
        _unwritten,
        _written,
        lambda wire, entry: setattr(wire.kit, "wall", entry.validated_at - 1),
        lambda wire, _: setattr(wire.house, "running", lambda: False),
        lambda wire, _: wire.house.prepare_anew(),
        lambda wire, _: wire.house.express._ready.clear(),
    ],
)
def test_what_was_found_to_hold_a_moment_ago_may_not(
    ready: list[bytes], change: Callable[[Wire, Stored], object]
) -> None:
    """Whatever changes is seen by the next request."""
    wire = prepared(ready)
    (entry,) = (entry for entry in _store(wire).entries.values() if entry.kind is Kind.DOCUMENT)
    # Where its age is the next second's at once, it holds for no moment.
    wire.kit.wall += 0.25
    said(wire, request(*NPM))
    assert [*wire.house.express._found] == [request(*NPM)]
    change(wire, entry)
    ready.clear()
    said(wire, request(*NPM))
    assert ready == []


def test_no_more_is_known_of_a_moment_ago_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pushed out of one of the memories is not kept by another, nor given any more."""
    monkeypatch.setattr("regcache.heads._MOST_KNOWN", 8000)
    wire = Wire(Config(memory_cache=30_000))
    express = wire.house.express
    wire.kit.wall += 0.25
    for number in range(40):
        for _ in range(3):
            said(wire, request(NPM[0], b"User-Agent: %d\r\n" % number))
            said(wire, request(NPM[0], b"X: %d\r\n" % number))
        assert {*express._found} <= {*express.heads._known._items}
        assert {id(one.prepared) for one in express._found.values()} <= {
            id(prepared) for prepared, _ in express._ready._items.values()
        }
        assert express._found
    monkeypatch.setattr("regcache.express._MOST_FOUND", 3)
    for number in range(40):
        said(wire, request(NPM[0], b"User-Agent: %d\r\n" % number))
        assert 0 < len(express._found) <= 3


def test_each_place_has_answers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same head means another thing where another registry is served, or another client comes from."""
    given, give = list[tuple[Place, Place]](), hurry.give

    def noting(house: Any, client: Any, ready: Any, *more: Any) -> None:
        given.append((client.channel._place, ready.place))
        give(house, client, ready, *more)

    monkeypatch.setattr(site, "give", noting)
    wire = Wire(Config(trust_proxy=networks("10.0.0.0/8"), allow=networks("10.0.0.0/8")))
    said(wire, request(*NPM), address="10.0.0.0")
    wire.kit.wall += 0.25
    for _ in range(4):
        for number in range(3):
            assert said(wire, request(*NPM), address=f"10.0.0.{number}").startswith(b"HTTP/1.1 200")
    assert len(given) == 9
    assert all(place is found for place, found in given)
    assert [*wire.house.express._found] == [request(*NPM)]
    assert len(wire.house.express._ready._items) == 3


def test_the_registry_is_asked_when_it_is_time(ready: list[bytes]) -> None:
    """Past refresh-after a hit is no hit without a question."""
    wire = prepared(ready)
    wire.kit.wall += 599
    said(wire, request(*NPM))
    assert ready == [NPM[0]]
    asked = len(wire.asked)
    wire.kit.wall += 2
    assert b"X-Cache: REVALIDATED" in said(wire, request(*NPM))
    assert len(wire.asked) == asked + 1
    wire.kit.wall -= 7200
    said(wire, request(*NPM))
    assert len(ready) == 1, "a clock that was set back makes nothing fresh"


@pytest.mark.parametrize(
    "asked",
    [
        request(NPM[0], NPM[1] + b"Content-Length: 0\r\n"),
        request(NPM[0], NPM[1] + b"Connection: close\r\n"),
        request(NPM[0], NPM[1] + b"User-Agent: a\r\n folded\r\n"),
        request(NPM[0], NPM[1] + b"User-Agent: a\nX: y\r\n"),
        request(NPM[0], NPM[1] + b"User-Agent: a\0\r\n"),
        request(NPM[0], NPM[1] + b"User-Agent : a\r\n"),
        request(*NPM).replace(b"HTTP/1.1", b"HTTP/1.0"),
        request(*NPM) + request(*NPM),
        request(*NPM)[:-2] + b"X: " + b"y" * 9000 + b"\r\n\r\n",
        request(*NPM).replace(b"localhost", b"elsewhere.test"),
    ],
)
def test_what_is_not_plain_goes_the_slow_way(ready: list[bytes], asked: bytes) -> None:
    """However often it was answered."""
    wire = prepared(ready)
    for _ in range(3):
        said(wire, asked)
    assert ready == []


def test_whoever_is_refused_is_refused(ready: list[bytes]) -> None:
    """What one client may have is not given to another who may not, nor by a service that has stopped."""
    wire = prepared(ready)
    assert said(wire, request(*NPM), address="192.0.2.1").startswith(b"HTTP/1.1 403")
    wire.house.running = lambda: False
    assert said(wire, request(*NPM)).startswith(b"HTTP/1.1 503")
    assert ready == []


def followed(config: Config | None = None, **fields: str) -> Wire:
    """A service with a registry that follows its upstream, which says that of ``/generic/a``."""
    wire = Wire(config)
    options = evolve(wire.registries["generic"].options, follows=True)
    wire.registries["generic"] = make(options)
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    wire.kit.upstream.pages[f"{options.url}a"] = Page(body=b"a", headers=headers)
    return wire


def test_no_name_of_a_field_is_a_form_to_be_filled(ready: list[bytes]) -> None:
    """What an upstream calls its fields may hold any sign that a name may (RFC 9110 section 5.6.2)."""
    fields = {"cache-control": "max-age=60", "x-100%": "100%", "x-%b%%": "%b"}
    wires = followed(), followed(Config(memory_cache=0))
    for wire in wires:
        wire.kit.upstream.pages[f"{wire.registries['generic'].options.url}a"] = Page(body=b"a", headers=fields)
    for _ in range(4):
        quick, slow = (said(wire, request(b"/generic/a")) for wire in wires)
        assert quick == slow
    assert ready == [b"/generic/a"] * 2


def test_an_answer_is_for_whom_it_was_chosen(ready: list[bytes]) -> None:
    """What nothing here looks at may be what an upstream varies its answers by."""
    wire = followed(cache_control="max-age=60", vary="User-Agent")
    one, other = (request(b"/generic/a", b"User-Agent: %s\r\n" % name) for name in (b"one", b"other"))
    for _ in range(3):
        said(wire, one)
    assert b"X-Cache: MISS" in said(wire, other)
    assert ready == []
    wire = followed(cache_control="max-age=60", vary="Accept")
    for _ in range(3):
        said(wire, one)
    assert ready == [b"/generic/a"]


def test_a_clock_set_back_revives_nothing(ready: list[bytes]) -> None:
    """Neither what was old when it came, though it was made before that time."""
    wire = followed(cache_control="max-age=7200", age="3600")
    for _ in range(3):
        said(wire, request(b"/generic/a"))
    assert ready == [b"/generic/a"]
    wire.kit.wall -= 1800
    assert b"X-Cache: HIT" not in said(wire, request(b"/generic/a"))
    assert len(ready) == 1


def test_each_proxy_is_asked_for_by_itself(ready: list[bytes]) -> None:
    """What one trusted proxy may have, since it is allowed itself, another may not that is not."""
    wire = Wire(Config(trust_proxy=networks("10.0.0.0/8"), allow=networks("10.0.0.1")))
    for _ in range(3):
        assert said(wire, request(*NPM), address="10.0.0.1").startswith(b"HTTP/1.1 200")
    assert len(ready) == 1
    assert said(wire, request(*NPM), address="10.0.0.2").startswith(b"HTTP/1.1 403")
    assert len(ready) == 1


def test_whose_a_connection_is_may_be_said_later(ready: list[bytes]) -> None:
    """With the PROXY protocol the client is known when its first bytes come, not when the connection does."""
    wire = prepared(ready)
    transport = wire.connect()
    transport.peerAddr = IPv4Address("TCP", "192.0.2.1", 50000)
    transport.protocol.dataReceived(request(*NPM))
    assert transport.value().startswith(b"HTTP/1.1 403")
    transport.loseConnection()
    assert ready == []
    assert not +wire.site.gate._by_party, "who came as one address left as another"


class Broken(Unknown):
    """A body that cannot be read."""

    def read(self, offset: int, length: int) -> bytes:
        del offset, length
        raise BlobDamaged("It cannot be read.")


def test_a_body_that_cannot_be_read_is_not_kept() -> None:
    """Whoever sends it finds that out."""
    express = Express(10_000, lambda _standing, _now: True, OpenFiles(4, Clock()), Revision())
    assert express.taken(Reply(status=200, headers=Headers(), body=Broken(), stop=3), uncopied=True) is None


def test_what_is_asked_once_pushes_nothing_out() -> None:
    """While half of the memory is free any answer is remembered; then one whose request came before."""
    wire = Wire(Config(memory_cache=40_000))
    express = wire.house.express

    def ask(number: int) -> None:
        said(wire, request(NPM[0], b"X-Number: %d\r\n" % number))

    ask(0)
    ask(0)
    first = set(express._ready._items)
    assert len(first) == 1
    for number in range(1, 40):
        ask(number)
    full = set(express._ready._items)
    assert first < full
    assert len(full) < 39
    ask(39)
    (came,) = set(express._ready._items) - full
    assert b"X-Number: 39\r\n" in came[1]


def test_of_what_was_asked_once_only_so_much_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came long ago counts as new."""
    monkeypatch.setattr("regcache.express._MOST_ASKED", 6)
    express = Express(10, lambda _standing, _now: True, OpenFiles(4, Clock()), Revision())
    place = Place("", "localhost:80", False, "")
    for number in range(10):
        assert not express.wants(place, b"%d" % number, 6)
        assert len(express._asked) + len(express._earlier) <= 6
    assert all(express.wants(place, b"%d" % number, 6) for number in (6, 7, 8, 9))
    assert not express.wants(place, b"5", 6)


def test_a_bug_leaves_no_half_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of what was to be sent is not that of what is."""
    wire = Wire()
    said(wire, request(*NPM))
    monkeypatch.setattr(Express, "taken", lambda *_, **_more: 1 / 0)
    with bug_made():
        head, _, body = said(wire, request(*NPM)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500")
    assert b"content-length" not in head.lower()
    assert body.endswith(b"0\r\n\r\n")


def test_long_heads_are_counted() -> None:
    """They take memory as bodies do."""
    wire = followed(Config(memory_cache=100_000), cache_control="max-age=60", x="y" * 5_000)
    for number in range(20):
        for _ in range(2):
            said(wire, request(b"/generic/a", b"X: %d\r\n" % number))
    assert 0 < len(wire.house.express._ready._items) <= 9


def test_long_targets_are_counted() -> None:
    """What has one holds it many times, in its key and its address for one."""
    wire = followed(Config(memory_cache=100_000), cache_control="max-age=60")
    for number in range(20):
        target = b"/generic/a?%d" % number + b"x" * 4_000
        wire.kit.upstream.pages[f"{wire.registries['generic'].options.url}{target[9:].decode()}"] = Page(
            body=b"a", headers={"cache-control": "max-age=60"}
        )
        for _ in range(3):
            said(wire, request(target))
    assert 0 < len(wire.house.express._ready._items) <= 4


def test_in_pieces(ready: list[bytes]) -> None:
    """A head that comes in two pieces, or in the middle of another request, is read as one always is."""
    wire = prepared(ready)
    whole = said(wire, request(*NPM))
    ready.clear()
    asked = request(*NPM)
    assert said(wire, asked[:30], asked[30:]) == whole
    assert said(wire, b"GET /npm/", asked).startswith(b"HTTP/1.1 4")
    assert ready == []


def test_the_memory_is_bounded() -> None:
    """What was not asked for lately makes room; nothing is kept that would take all of it."""
    wire = Wire(Config(memory_cache=20_000))
    for number in range(40):
        for _ in range(3):
            said(wire, request(NPM[0], b"X: %d\r\n" % number))
    kept = wire.house.express._ready
    assert 0 < kept._sum <= 20_000
    assert len(kept._items) < 10


@pytest.mark.parametrize(
    "asked",
    [
        b"GET /x HTTP/1.1\r\n\r\n",
        request(b"/x", b"Content-Length: 0\r\n"),
        request(b"/x", b"connection: close\r\n"),
        request(b"/x", b"Expect: 100-continue\r\n"),
        request(b"/x", b"A: b\r\n c\r\n"),
        request(b"/x", b"A: b\nC: d\r\n"),
        request(b"/x", b"A : b\r\n"),
        request(b"/x", b"A: \x00\r\n"),
        request(b"/x", b"A\r\n"),
        request(b"/x", b": a\r\n"),
        request(b"/x y"),
        request(b"/\xff"),
        request(b"/x", method=b"POST"),
        request(b"/x").replace(b"1.1", b"1.0"),
        request(b"/x", b"A: b\r\n" * 501),
    ],
)
def test_what_is_irregular_is_twisteds_to_read(asked: bytes) -> None:
    """Nothing that could be read in two ways, or is more than its head, is read here."""
    assert LeanRequest.of(HTTPChannel(), asked) is None
    regular = LeanRequest.of(HTTPChannel(), request(b"/x", b"A:b\r\nX: \xe4 \r\nConnection: keep-alive\r\n"))
    assert regular is not None
    assert regular.fields.items[1:3] == (("a", "b"), ("x", "\xe4"))


@pytest.mark.parametrize(
    "name",
    [
        *(b"Authorization", b"Proxy-Authorization", b"cookie", b"X-NuGet-ApiKey", b"X-JFrog-Art-Api", b"X-Password"),
        *(b"X-Amz-Credential", b"X-Amz-Signature"),
    ],
)
def test_fields_that_may_open_something_are_not_kept(name: bytes) -> None:
    """Others are, of the heads that came last."""
    _read.cache_clear()
    for _ in range(2):
        found = LeanRequest.of(HTTPChannel(), request(b"/x", b"A: b\r\n" + name + b": opens\r\n"))
        assert found is not None
        assert found.fields.get(name.decode().lower()) == "opens"
    assert _read.cache_info().currsize == 0
    assert LeanRequest.of(HTTPChannel(), request(b"/x", b"A: b\r\n")) is not None
    assert _read.cache_info().currsize == 1
    assert LeanRequest.of(HTTPChannel(), request(b"/x", b"A: b\r\n" * 400)) is not None
    assert _read.cache_info().currsize == 1, "nor long ones"


@pytest.mark.parametrize(
    "name", [b"Authorization", b"Proxy-Authorization", b"cookie", b"X-NuGet-ApiKey", b"npm-otp", b"X-Token"]
)
def test_no_answer_is_kept_under_what_may_open_something(ready: list[bytes], name: bytes) -> None:
    """Neither is the head of such a request; one that says how its client would log in holds nothing."""
    wire = prepared(ready)
    express = wire.house.express
    known = {*express._ready._items}, {*express.heads._known._items}
    for _ in range(3):
        assert said(wire, request(NPM[0], NPM[1] + name + b": opens\r\n")).startswith(b"HTTP/1.1 200")
    assert ({*express._ready._items}, {*express.heads._known._items}) == known
    assert ready == []
    for _ in range(3):
        said(wire, request(b"/npm/%40scope%2Ftoken-key"))
        said(wire, request(NPM[0], NPM[1] + b"npm-auth-type: web\r\n"))
    assert ready


@pytest.mark.parametrize("query", [b"?token=opens", b"?a=b&X-Amz-Signature=opens", b"?password=opens"])
def test_no_answer_is_kept_of_what_may_open_something(
    ready: list[bytes], query: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is the head of such a request, nor a word of its line in the log; another query holds nothing."""
    wire = prepared(ready)
    wire.house.log = AccessLog(wire.kit.clock, Target(where="-", hits=True), lambda *_: Deferred())
    words = list[str]()

    def noting(text: str) -> str:
        words.append(text)
        return text

    monkeypatch.setattr("regcache.lines._again", noting)
    express = wire.house.express
    known = {*express._ready._items}, {*express.heads._known._items}
    fields = b"Referer: https://a.test/" + query + b"\r\nUser-Agent: a\r\n"
    for _ in range(3):
        assert said(wire, request(NPM[0] + query, fields)).startswith(b"HTTP/1.1 200")
    assert ({*express._ready._items}, {*express.heads._known._items}) == known
    assert ready == []
    assert len(words) >= 10
    assert "opens" not in "".join(words)
    for _ in range(3):
        said(wire, request(NPM[0] + b"?tokens&a=b"))
    assert ready


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"])
def test_that_a_connection_ends_is_said_once(fields: bytes) -> None:
    """By the service that stops, and by whoever reads the request that asks for it."""
    wire = Wire()
    wire.house.running = lambda: False
    (answer,) = answers(said(wire, request(NPM[0], fields)))
    assert [value for name, value in answer.headers if name == "connection"] == ["close"]


def test_unread_fields() -> None:
    """Only what nothing looks at is left out of what an answer is found by."""
    plain = request(b"/x", b"Accept: a\r\n")
    heads = Heads()

    def asked(data: bytes) -> bytes | None:
        head = heads.read(data)
        return None if head is None else head.asked

    for _ in range(2):
        assert asked(request(b"/x", b"User-Agent: b\r\nAccept: a\r\nnpm-session:c\r\n")) == plain
        assert asked(request(b"/x", b"Accept: a\r\nX-User-Agent: b\r\n")) != plain
        assert asked(plain[:-1]) is None
        assert asked(plain.replace(b"GET", b"PUT")) is None


@given(st.floats(0, 2e9), st.floats(0, 1e5), st.none() | st.floats(0, 1e5), st.booleans(), st.booleans())
def test_settled(validated: float, ttl: float, refresh: float | None, mutable: bool, offline: bool) -> None:
    """While an answer is settled the policy has no other, and at its end it has."""
    stored = Stored(
        key="npm/x", registry="npm", kind=Kind.DOCUMENT, digest="0" * 64, size=1, stored_at=0, validated_at=validated
    )
    rules = Rules(ttl=ttl, refresh_after=refresh, offline=offline)
    until = settled_until(stored, rules, mutable=mutable)
    for now in (validated, (validated + min(until, validated + 1e6)) / 2, until):
        if validated <= now < until:
            assert decide(stored, rules, now=now, mutable=mutable, spared=False) == UseStored()
    if until < 4e9:
        assert decide(stored, rules, now=until + 1, mutable=mutable, spared=False) != UseStored()
    assert settled_until(replace(stored, withdrawn=404), rules, mutable=mutable) < 0


def test_only_heads_that_may_come_again_are_known() -> None:
    """Those that were answered from memory, and are not named each by itself."""
    wire = Wire()
    known = wire.house.express.heads._known._items
    for number in range(10):
        said(wire, request(b"/npm/%d" % number))
    assert len(known) == 0
    for number in range(10):
        said(wire, request(NPM[0], b"X-Request-Id: %d\r\n" % number), request(NPM[0], b"traceparent: %d\r\n" % number))
    assert len(known) == 0
    for _ in range(3):
        said(wire, request(*NPM))
    assert [*known] == [request(*NPM)]


def test_heads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that came last are kept."""
    monkeypatch.setattr("regcache.heads._MOST_KNOWN", 8000)
    wire = Wire()
    for number in range(40):
        for _ in range(2):
            said(wire, request(NPM[0], b"User-Agent: %d\r\n" % number))
    known = wire.house.express.heads._known._items
    assert 3 < len(known) < 15
    assert next(reversed(known)) == request(NPM[0], b"User-Agent: 39\r\n")


def test_an_idle_connection_ends_in_time(ready: list[bytes]) -> None:
    """That is: so long after the last answer, also where none but ready ones were given."""
    wire = prepared(ready)
    transport = wire.connect(request(*NPM))
    for _ in range(5):
        wire.kit.clock.advance(50)
        assert transport.connected
        transport.protocol.dataReceived(request(*NPM))
    assert len(ready) == 6
    wire.kit.clock.advance(59)
    assert transport.connected
    wire.kit.clock.advance(2)
    assert not transport.connected


def test_a_connection_in_use_is_not_told_that_its_request_did_not_come(ready: list[bytes]) -> None:
    """What came while another request was under way has begun nothing once it is answered."""
    wire = prepared(ready)
    transport, held = wire.connect(), list[Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire.site.resource, "render", held.append)
        transport.protocol.dataReceived(request(b"/npm/under-way"))
        transport.protocol.dataReceived(request(*NPM))
    (under_way,) = held
    under_way.finish()
    assert ready == [NPM[0]]
    for _ in range(12):
        wire.kit.clock.advance(10)
        assert transport.connected
        transport.protocol.dataReceived(request(*NPM))
    assert b" 408 " not in transport.value()
    assert len(ready) == 13


def test_a_head_has_only_so_many_fields(ready: list[bytes]) -> None:
    """Those at which nothing looks are counted, too."""
    wire = prepared(ready)
    assert said(wire, request(NPM[0], NPM[1] + b"Referer:\r\n" * 498)).startswith(b"HTTP/1.1 200")
    ready.clear()
    assert said(wire, request(NPM[0], NPM[1] + b"Referer:\r\n" * 500)).startswith(b"HTTP/1.1 431")
    assert ready == []


@pytest.mark.parametrize("lines", [[b"one"], [b"one", b"two"], [b"one", b""], [b"a b"], [b""]])
def test_both_ways_take_the_name_that_a_proxy_gave(ready: list[bytes], lines: list[bytes]) -> None:
    """One that is given twice is none."""
    wire = Wire(Config(trust_proxy=networks("127.0.0.1")))
    asked = request(NPM[0], NPM[1] + b"".join(b"X-Request-Id: %s\r\n" % line for line in lines))
    names = [re.findall(rb"X-Request-Id: (\S+)\r\n", wire.connect(asked).value()) for _ in range(3)]
    assert len(ready) == 1
    assert all((name[0] in lines) is (lines == [b"one"]) for name in names)


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::1", "fe80::1%eth0", "127.0.0.1"])
def test_both_ways_log_the_same_address(ready: list[bytes], address: str) -> None:
    """Whatever the port calls it: a port for both versions of IP has IPv4 addresses in another spelling."""
    config = Config(access_log="-", access_log_hits=True, allow=networks("127.0.0.0/8,::1,fe80::/10"))
    wire = Wire(config)
    wire.house.log = AccessLog(wire.kit.clock, Target.of(config), lambda *_: Deferred())
    for _ in range(3):
        said(wire, request(*NPM), address=address)
    assert len(ready) == 1
    (named,) = {line.partition(" ")[0] for line in wire.house.log._lines}
    assert named in ("127.0.0.1", "::1", "fe80::1")


def test_whoever_is_refused_is_logged_by_address() -> None:
    """And not as if it had come by a UNIX socket."""
    config = Config(access_log="-", allow=networks("::1"))
    wire = Wire(config)
    wire.house.log = AccessLog(wire.kit.clock, Target.of(config), lambda *_: Deferred())
    assert said(wire, request(*NPM), address="::ffff:192.0.2.1").startswith(b"HTTP/1.1 403")
    (line,) = wire.house.log._lines
    assert line.startswith("192.0.2.1 - - ")


def test_a_connection_that_has_ended_is_not_known(ready: list[bytes]) -> None:
    """Nothing that was found out about it stays with it."""
    wire = prepared(ready)
    transport = wire.connect(request(*NPM))
    client = weakref.ref(transport.protocol._client)
    assert client() is not None
    transport.loseConnection()
    assert client() is None


TEXTS = [
    b"",
    b"pip/1",
    b'a" b',
    b"100%s {0} %(a)s \\",
    b"\xff\xe4",
    # Neither blanks nor visible.
    b"\x0cpip/1\x0b",
    b"https://ann:hunter2@host/x?token=hunter2",
    b"x" * 3000,
]


@settings(max_examples=25)
@given(
    st.sampled_from(["combined", "json"]),
    st.lists(st.tuples(st.sampled_from([b"Referer", b"USER-agent", b"X"]), st.sampled_from(TEXTS)), max_size=4),
    st.sampled_from([b"", b"?%22%7b0%7d&a='{b}'", b"?token=hunter2"]),
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_both_ways_log_the_same(form: str, fields: list[tuple[bytes, bytes]], query: bytes, method: bytes) -> None:
    """But for the name of the request; whatever it says, its line is one line and holds no secret."""
    config = Config(access_log="-", access_log_hits=True, access_log_format=form)
    logs = []
    for one in (config, evolve(config, memory_cache=0)):
        wire = Wire(one)
        wire.house.log = AccessLog(wire.kit.clock, Target.of(one), lambda *_: Deferred())
        for path in (NPM[0], NPM[0] + query):
            asked = request(path, NPM[1] + b"".join(b"%s: %s\r\n" % field for field in fields), method)
            for _ in range(4):
                said(wire, asked)
                wire.kit.wall += 0.0625
        assert bool(wire.house.express.heads._known._items) is (one is config)
        lines = wire.house.log._lines
        assert len(set(lines)) == len(lines) == 8
        assert "hunter2" not in "".join(lines)
        assert all(map(str.isprintable, lines))
        logs.append([re.sub(r"regcache-test-\d+", "", line) for line in lines])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("form", ["combined", "json"])
def test_both_ways_log_how_it_stands_at_that_time(form: str) -> None:
    """What is left of its lifetime then, however long its answer has been ready."""
    logs = []
    for most in (Config().memory_cache, 0):
        wire = Wire(Config(memory_cache=most))
        wire.house.log = AccessLog(wire.kit.clock, Target(where="-", form=form, hits=True), lambda *_: Deferred())
        for seconds in (0, 0, 0.25, 0, 1, 0.5, 100, 0):
            wire.kit.wall += seconds
            said(wire, request(*NPM))
        logs.append([re.sub(r"regcache-test-\d+", "", line) for line in wire.house.log._lines])
    assert logs[0] == logs[1]
    assert form != "json" or "; ttl=86298" in logs[0][-1]


@pytest.mark.parametrize("form", ["combined", "json"])
def test_both_ways_log_the_end(form: str, ready: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """When a client that reads slowly has read all, and not when it came; and what it was told then, not by now."""
    monkeypatch.setattr("regcache.hurry._MOST_WAITING", 0)
    monkeypatch.setattr("regcache.answering.at_once", lambda *_: None)
    logs, start = [], Sender.start
    for most in (Config().memory_cache, 0):
        wire, slow = Wire(Config(memory_cache=most)), list[Sender]()
        wire.house.log = AccessLog(wire.kit.clock, Target(where="-", form=form, hits=True), lambda *_: Deferred())
        for _ in range(3):
            said(wire, request(*NPM))
        with monkeypatch.context() as patch:
            patch.setattr(Sender, "start", lambda sender, slow=slow: slow.append(sender))
            wire.connect(request(*NPM))
        said(wire, request(*NPM))
        wire.kit.wall += 7
        said(wire, request(*NPM))
        start(*slow)
        logs.append([re.sub(r"regcache-test-\d+", "", line) for line in wire.house.log._lines])
        assert len(re.findall("22:13:20", "".join(logs[-1]))) == len(logs[-1]) - 2 == 4
    assert logs[0] == logs[1]
    assert len(ready) == 4


def test_a_client_that_reads_slowly(tmp_path: Path) -> None:
    """It gets the whole of a large answer from memory, then the next one on the same connection; others do not wait."""
    origin = Origin()
    requires = {f"package-{number}": "^1.0.0" for number in range(100_000)}
    origin.add_tarball("large", "1.0.0", requires=requires)
    service = Running(tmp_path, origin)
    whole = service.until("npm/large", "HIT")[2]
    assert len(whole) > 2_000_000
    authority = service.url.split("/")[2]
    address = ("127.0.0.1", int(authority.rpartition(":")[2]))
    asked = f"GET /npm/large HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        slow.connect(address)
        with slow.makefile("rb") as answers:
            for _ in range(3):
                slow.sendall(asked)
                assert answers.read(9) == b"HTTP/1.1 "
                assert service.get("npm/large")[2] == whole
                while answers.readline().strip():
                    pass
                assert answers.read(len(whole)) == whole
    with socket.create_connection(address) as gone:
        gone.sendall(asked)
        gone.recv(100)
    assert service.get("npm/large")[2] == whole
    service.stop()
    origin.close()


def test_a_head_is_filled_with_what_counts_on() -> None:
    """Whatever else stands in it stays as it was sent, signs of a form as well; a reply without an age gets none."""
    standing = Standing(until=9e9, entries=(), vouched_at=100.0, used="", given=lambda: None)
    name = b"attachment; filename*=UTF-8''100%25%20%b%s"
    for more in ({}, {"age": "3"}):
        reply = Reply(status=200, headers=Headers.of(more), standing=standing)
        said = [(b"X-%d%", [name]), *((field.title().encode(), [b"?"]) for field in more)]
        fields = [*said, (b"Date", [b"?"]), (b"Cache-Status", [b"?"]), (b"X-Request-Id", [b"gone"])]
        about = dict.fromkeys(("client", "registry", "method", "target", "package"), "")
        prepared = Prepared.of(reply, fields, b"HTTP/1.1 200 100%", b"", Answers(), **about)
        assert prepared is not None
        heads = [prepared.head(now)[0].split(b"\r\n") for now in (107.5, 110.0)]
        dates = [b"Date: Thu, 01 Jan 1970 00:01:%d GMT" % second for second in (47, 50)]
        for head, date, age in zip(heads, dates, (b"Age: 7", b"Age: 10"), strict=True):
            assert head[:2] == [b"HTTP/1.1 200 100%", b"X-%d%: " + name]
            assert head[2:] == [
                *([age] if more else []),
                date,
                b"Cache-Status: regcache; fwd=bypass",
                b"X-Request-Id: ",
            ]
