"""Answers given offhand: they say what the ordinary way says, count what it counts, and are given to nobody else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from regcache.access import Access
from regcache.accesslog import AccessLog, Target
from regcache.auth import Door
from regcache.config import Config
from regcache.flow.reply import How, Reply
from regcache.http.fields import format_date
from regcache.http.messages import Headers, RequestHead
from regcache.limits import Limits
from regcache.offhand import Offhand
from regcache.stamps import AlikeHeads
from regcache.testing import Page
from tests import test_express
from tests.test_express import ASKS, FIELDS, request
from tests.wire import Wire, bug_made, nothing_logged, sample_of

pytestmark = pytest.mark.fast
#: A memory in which nothing fits: no answer is ready a second time.
FORGETFUL = Config(memory_cache=1)
ARTIFACT = next(ask for ask in ASKS if ask[0].startswith(b"/generic/"))


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The targets that were answered offhand."""
    found: list[bytes] = []
    note = Offhand._note

    def noting(offhand: Offhand, one: Any, *answer: Any) -> None:
        found.append(one[2].raw.split(b" ")[1])
        note(offhand, one, *answer)

    monkeypatch.setattr(Offhand, "_note", noting)
    return found


def said(wire: Wire, *requests: bytes) -> bytes:
    """What comes back, but for what no two services have alike: requests' names, and tags of what is not stored yet."""
    return re.sub(rb'(ETag: ")[0-9a-f]{24}-\d+', rb"\1-", test_express.said(wire, *requests))


def stored(config: Config) -> Wire:
    """A service in which everything is stored."""
    wire = Wire(config)
    for path, fields in ASKS:
        said(wire, request(path, fields))
        said(wire, request(path, fields))
    return wire


@pytest.fixture(scope="module")
def wires() -> Iterator[tuple[Wire, Wire]]:
    """A service that has nothing ready in memory, and one by the ordinary way."""
    with nothing_logged(), pytest.MonkeyPatch.context() as patch:
        # Some have new keys in each.
        patch.setattr("tests.wire.sample_of", cache(sample_of))
        yield stored(FORGETFUL), stored(Config(memory_cache=0))


def numbers(wire: Wire) -> Any:
    """What is counted of answers, but for the time that they took."""
    counts = wire.house.cache.context.upstream.counts
    answers = {name: (sum(one.seconds.counts), one.sent) for name, one in counts.answers.items()}
    return answers, wire.house.log.counts


@given(
    st.sampled_from(ASKS),
    st.sampled_from([b"GET", b"HEAD"]),
    st.lists(st.sampled_from(FIELDS), max_size=3),
    st.sampled_from([b"", b"", b"?x", b"?x=[", b"/", b"%", b"/../y", b"#z"]),
    st.integers(0, 3),
)
def test_both_ways_say_the_same(
    wires: tuple[Wire, Wire], ask: tuple[bytes, bytes], method: bytes, fields: list[bytes], behind: bytes, days: int
) -> None:
    """Status, every field and the body, and what is counted, as days go by; what is none of a cache's hits as well."""
    path, own = ask
    asked = request(path + behind, own + b"".join(fields), method)
    for _ in range(2):
        quick, slow = (said(wire, asked, asked) for wire in wires)
        assert quick == slow
        assert numbers(wires[0]) == numbers(wires[1])
        for wire in wires:
            wire.kit.wall += days * 43_200


@pytest.mark.parametrize("field", FIELDS)
def test_whatever_is_asked_beside(wires: tuple[Wire, Wire], field: bytes) -> None:
    """Each field alone, with an artifact."""
    quick, slow = (said(wire, request(ARTIFACT[0], ARTIFACT[1] + field)) for wire in wires)
    assert quick == slow


def test_what_is_answered_offhand(answered: list[bytes]) -> None:
    """Every artifact that is a hit is, also the first time that it is asked for like that; nothing else."""
    wire = stored(FORGETFUL)
    answered.clear()
    for path, fields in ASKS:
        said(wire, request(path, fields + b"Accept-Language: de\r\n"))
    artifacts = {path for path, _ in ASKS if path.endswith((b".tar.gz", b".tgz", b".whl", b".gem", b".jar", b".nupkg"))}
    assert len(artifacts) > 8
    assert artifacts <= set(answered)
    assert all(b"." in path.rpartition(b"/")[2] or b"/dl/" in path for path in answered)
    answered.clear()
    for fields in (b"Range: bytes=0-3\r\n", b"If-None-Match: *\r\n", b"Origin: http://evil.test\r\n"):
        said(wire, request(ARTIFACT[0], ARTIFACT[1] + fields))
    said(wire, request(ARTIFACT[0], ARTIFACT[1], b"HEAD"))
    assert answered == []


def test_what_is_asked_for_again_is_ready_then(answered: list[bytes]) -> None:
    """The first two times it is answered offhand, from then on from memory, with the same words."""
    wire = stored(Config())
    express = wire.house.express
    asked = request(ARTIFACT[0], ARTIFACT[1] + b"Accept-Language: de\r\n")
    answered.clear()
    found = [(said(wire, asked), len(answered), len(express._ready._items)) for _ in range(4)]
    assert len({text for text, _, _ in found}) == 1
    assert [number for _, number, _ in found] == [1, 2, 2, 2]
    assert [ready - found[0][2] for _, _, ready in found] == [0, 1, 1, 1]


def lines(config: Config, path: Path) -> str:
    """What the access log says of a hit, but for its name and its time."""
    wire = stored(config)
    wire.house.log = AccessLog(wire.kit.clock, Target(where=str(path), hits=True))
    said(wire, request(ARTIFACT[0] + b"?a=b", ARTIFACT[1] + b"User-Agent: pip/1\r\nUser-Agent: b\r\nReferer: x\r\n"))
    said(wire, request(ARTIFACT[0], ARTIFACT[1] + b"User-Agent: pip/1\r\nUser-Agent: b\r\nReferer: x\r\n"))
    wire.kit.advance(1)
    return re.sub(r"regcache-test-\d+|\[[^]]*\]", "-", path.read_text())


def test_the_log_says_the_same(tmp_path: Path, answered: list[bytes]) -> None:
    """Who asked for what by which tool, and what came of it."""
    quick = lines(FORGETFUL, tmp_path / "quick")
    assert answered[-1:] == [ARTIFACT[0]]
    assert quick == lines(Config(memory_cache=0), tmp_path / "slow")
    assert " hit " in quick or '"hit"' in quick


def missed(config: Config, path: Path) -> tuple[bytes, str, str, int]:
    """What is said behind a proxy of what is not stored, logged and counted, and how often its route is made."""
    wire, networks = stored(config), (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))
    wire.house.access = Access(Config(allow=networks, trust_proxy=networks[:1]))
    wire.house.log = AccessLog(wire.kit.clock, Target(where=str(path), hits=True))
    registry: Any = wire.registries["generic"]
    wire.kit.upstream.pages[f"{registry.options.url}new"] = Page(body=b"new")
    routed: list[str] = []
    route = registry.route

    def noting(head: RequestHead) -> Any:
        routed.append(head.path)
        return route(head)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "route", noting)
        behind = b"X-Forwarded-For: 10.9.8.7\r\nUser-Agent: pip/1\r\nX-Request-Id: told-"
        asks = (b"/generic/new", behind + b"1\r\n"), (b"/generic/none?a=b", behind + b"2\r\n")
        answer = said(wire, *[request(*ask) for ask in asks])
        wire.kit.advance(1)
    return answer, re.sub(r"\[[^]]*\]", "-", path.read_text()), repr(numbers(wire)), routed.count("/new")


def test_of_a_miss_the_same_is_said(tmp_path: Path) -> None:
    """By whom it was asked for, what it is called and what came of it; who asks and for what is found out once."""
    quick, slow = missed(FORGETFUL, tmp_path / "quick"), missed(Config(memory_cache=0), tmp_path / "slow")
    assert quick[:3] == slow[:3]
    first, second = quick[1].splitlines()
    assert first.startswith("10.9.8.7 ")
    assert '"told-1" "generic"' in first
    assert '"told-2" "generic"' in second
    assert "/generic/none?a=b" in second
    assert quick[3] == 1


def test_each_use_is_told_once(monkeypatch: pytest.MonkeyPatch, answered: list[bytes]) -> None:
    """For eviction: the entry that was sent, at the time at which it was."""
    wire = stored(FORGETFUL)
    store: Any = wire.house.cache.context.store
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(store, "used", lambda key, now: told.append((key, now)))
    answered.clear()
    said(wire, request(*ARTIFACT))
    assert answered == [ARTIFACT[0]]
    assert told == [(ARTIFACT[0].decode().lstrip("/"), wire.kit.wall)]


def test_other_rules_hold_at_once(answered: list[bytes]) -> None:
    """Who asks by a name that is no longer the cache's is told so by the next answer, on the same connection."""
    wire = stored(FORGETFUL)
    asked = request(*ARTIFACT).replace(b"localhost", b"cache.test")
    for hosts, status in ((("cache.test",), b"200"), (("other.test",), b"421"), (("cache.test",), b"200")):
        wire.house.access = Access(Config(hosts=hosts))
        connection = wire.connect(asked, asked)
        assert connection.value().count(b"HTTP/1.1 " + status) == 2
    assert answered[-4:] == [ARTIFACT[0]] * 4


def test_nobody_takes_the_place_of_others(answered: list[bytes]) -> None:
    """Where as many requests are under way as may be, the next is refused all the same."""
    wire = stored(FORGETFUL)
    wire.limit(Limits(requests=1))
    wire.house._admitted = 1
    answered.clear()
    assert b"HTTP/1.1 503" in said(wire, request(*ARTIFACT))
    assert answered == []


def test_no_secret_is_kept(answered: list[bytes]) -> None:
    """What may open something to others is in no memory, and what comes once neither; both are answered."""
    wire = stored(FORGETFUL)
    answered.clear()
    offhand, heads = wire.site.resource.offhand, wire.house.express.heads
    for fields in (b"Authorization: Basic eDp5\r\n", b"Cookie: a=secret\r\n", b"X-Request-Id: 4711\r\n"):
        said(wire, request(ARTIFACT[0], ARTIFACT[1] + fields))
        for memory in (offhand._known, heads._below):
            assert not any(fields in repr(key).encode().replace(b"\\r\\n", b"\r\n") for key in memory._items)
    assert len(answered) == 3


def test_many_short_fields_are_counted(answered: list[bytes]) -> None:
    """Each takes more memory than it has bytes in a head."""
    wire = stored(FORGETFUL)
    answered.clear()
    for number in range(40):
        said(wire, request(ARTIFACT[0], b"".join(b"%x:%d\r\n" % (0xA00 + name, number) for name in range(490))))
    assert len(answered) == 40
    known = [asker for asker, _ in wire.site.resource.offhand._known._items.values()]
    assert 0 < sum(len(asker.fields.items) for asker in known) < (1 << 20) / 150


def test_one_answer_pushes_out_no_others() -> None:
    """What would take more than an eighth of the memory is given, and not remembered."""
    for most, ready in ((16_000, False), (60_000, True)):
        wire = stored(Config(memory_cache=most))
        wire.kit.upstream.pages[f"{wire.registries['generic'].options.url}a"] = Page(body=b"a" * 4000)
        for _ in range(5):
            assert b"X-Cache: " in said(wire, request(b"/generic/a"))
        assert any(asked.startswith(b"GET /generic/a ") for _, asked in wire.house.express._ready._items) is ready


def test_a_bug_is_told_as_ever(answered: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks gets an answer that says so."""
    wire = stored(FORGETFUL)
    answered.clear()
    monkeypatch.setattr(wire.registries["generic"], "route", lambda _request: 1 // 0)
    with bug_made():
        assert b"HTTP/1.1 500" in said(wire, request(*ARTIFACT))
    assert answered == []


def test_a_damaged_body_is_fetched_again(answered: list[bytes]) -> None:
    """Nothing is sent of a file that has not the size of its entry."""
    wire = stored(FORGETFUL)
    store: Any = wire.house.cache.context.store
    entry = store.peek(ARTIFACT[0].decode().lstrip("/"))
    good, store.blobs[entry.digest] = store.blobs[entry.digest], b""
    answered.clear()
    assert said(wire, request(*ARTIFACT)).endswith(good)
    assert answered == []
    assert wire.asked.count(entry.url) == 2


def test_the_root_of_a_registry_is_its_page(answered: list[bytes]) -> None:
    """Also where something is stored under the name of that path."""
    wire = stored(FORGETFUL)
    store: Any = wire.house.cache.context.store

    def page() -> bytes:
        # It counts the entries.
        return re.sub(rb"\d+", b"", said(wire, request(b"/generic/")))

    before = page()
    store.entries["generic/"] = replace(store.peek(ARTIFACT[0].decode().lstrip("/")), key="generic/")
    answered.clear()
    assert page() == before
    assert answered == []


def test_whether_an_upstream_has_recovered_is_seen() -> None:
    """As often as by the ordinary way: who is told to look there does, and not who answers offhand or nothing."""
    found = []
    for config in (FORGETFUL, Config(memory_cache=0)):
        wire = stored(config)
        wire.kit.wall += 700
        wire.kit.upstream.down = True
        said(wire, request(*ARTIFACT))
        asked = [len(wire.asked)]
        for down in (True, False, False, False):
            wire.kit.upstream.down = down
            wire.kit.advance(11)
            said(wire, request(*ARTIFACT))
            asked.append(len(wire.asked))
        found.append([after - before for before, after in itertools.pairwise(asked)])
    assert found[0] == found[1] == [1, 1, 0, 0]


def test_who_has_to_say_who_they_are_is_asked_at_once(answered: list[bytes], tmp_path: Path) -> None:
    """On a connection on which everybody was answered before; and by the other way round again."""
    wire = stored(FORGETFUL)
    house, asked = wire.house, request(*ARTIFACT)
    opened, closed = house.door, Door(str(tmp_path / "readers"), [], wire.kit.clock)
    answered.clear()
    for door, status in ((opened, b"200"), (closed, b"401"), (opened, b"200")):
        house.door = door
        assert said(wire, asked).startswith(b"HTTP/1.1 " + status)
    assert answered == [ARTIFACT[0]] * 2


def test_another_registry_of_that_name_is_asked_at_once(answered: list[bytes]) -> None:
    """Once the configuration is another, whoever asked the one before asks the new one."""
    wire = stored(FORGETFUL)
    asked = request(*ARTIFACT)
    answered.clear()
    assert said(wire, asked).startswith(b"HTTP/1.1 200")
    registries = {name: one for name, one in wire.house.registries.items() if name != "generic"}
    wire.house.registries = registries
    assert said(wire, asked).startswith(b"HTTP/1.1 404")
    assert answered == [ARTIFACT[0]]


def test_no_field_ends_before_its_time() -> None:
    """What a value holds of the end of a line is left out of heads that are alike, as of all others."""
    reply = Reply(status=200, headers=Headers.of({"Content-Type": "a\r\nb"}), how=How.HIT)
    heads = AlikeHeads(reply, b"HTTP/1.1 200 OK", "token")
    for value in ("x\r\ny", "x\ny", "x\ry", "\r\nx: \r\n"):
        said = heads.of([("etag", value), ("age", "1")], 7, "a-1", 0.0).decode()
        plain = value.replace("\r", "").replace("\n", "")
        assert f"\r\nContent-Type: ab\r\nETag: {plain}\r\nAge: 1\r\nX-Cache: HIT\r\n" in said
        assert said.endswith("\r\nContent-Length: 7\r\nX-Request-Id: a-1\r\n\r\n")


def test_the_date_of_heads_that_are_alike_goes_on() -> None:
    """Also where the clock is set back."""
    heads = AlikeHeads(Reply(status=200, headers=Headers(), how=How.HIT), b"HTTP/1.1 200 OK", "token")
    for now in (5.9, 6.0, 7.5, 2.0, 2.9):
        assert f"\r\nDate: {format_date(now)}\r\n".encode() in heads.of([], 0, "a-1", now)
