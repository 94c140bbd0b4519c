"""The door: whose word is taken, how often, and for how long."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from regcache.access import Peer
from regcache.auth import Door
from regcache.errors import BadRequest, ConfigError, Forbidden, RegCacheError, TooBusy, TooManyFailures, Unauthorized
from regcache.http.messages import Headers
from regcache.routes import RegistryOptions

HERE = Peer("127.0.0.1", False)
PUBLIC = RegistryOptions(name="pypi", type="pypi", shared=True)
ALL = RegistryOptions(name="npm", type="npm")
CORP = RegistryOptions(name="corp", type="npm", readers=("alice",))


@lru_cache
def hashed(password: str) -> str:
    """The hash of a password, at a cost for tests."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(name: str, password: str) -> str:
    """Credentials as browsers, pip and npm's ``_auth`` send them."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Doorway:
    """A door with a file, a clock, and threads that work when they are told to, or at once."""

    def __init__(self, path: Path, at_once: bool = True) -> None:
        self.path, self.clock, self.at_once = path, Clock(), at_once
        self.work: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.checks = 0
        path.write_text(
            f"alice:{hashed('wonder')}\nbob:{hashed('builder')}\nci:sha256:{hashlib.sha256(b't0ken').hexdigest()}\n"
        )
        path.chmod(0o640)
        self.door = Door(str(path), (PUBLIC, ALL, CORP), self.clock, self._in_thread)
        self.door.open()

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        self.checks += getattr(work, "__name__", "") == "fits"
        waiting: Deferred[Any] = Deferred()
        self.work.append((waiting, lambda: work(*args)))
        if self.at_once:
            self.run()
        return waiting

    def run(self) -> None:
        """Do what is to be done in threads."""
        while self.work:
            waiting, work = self.work.pop(0)
            try:
                waiting.callback(work())
            except Exception:
                waiting.errback(Failure())

    def ask(self, *told: str, options: RegistryOptions | None = ALL, peer: Peer = HERE) -> Deferred[str]:
        """Somebody asks, with these Authorization fields."""
        headers = Headers.of([("Authorization", one) for one in told])
        return Deferred.fromCoroutine(self.door.admit(headers, peer, options))

    def name(self, *told: str, options: RegistryOptions | None = ALL, peer: Peer = HERE) -> str:
        """As :meth:`ask`, when the answer is there at once; raises what it fails with."""
        found: list[Any] = []
        self.ask(*told, options=options, peer=peer).addBoth(found.append)
        assert found, "the answer takes time"
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return str(found[0])


@pytest.fixture
def doorway(tmp_path: Path) -> Doorway:
    """A door whose threads work at once."""
    return Doorway(tmp_path / "readers")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (basic("alice", "wonder"), "alice"),
        (basic("alice", "wonder").replace("Basic", "bAsIc "), "alice"),
        (basic("ci", "t0ken"), "ci"),
        ("Bearer t0ken", "ci"),
        ("bearer  t0ken ", "ci"),
        ("t0ken", "ci"),
    ],
)
def test_who_is_let_in(doorway: Doorway, told: str, name: str) -> None:
    """A password by Basic; a token by Bearer, as a password, or alone as Cargo sends it."""
    assert doorway.name(told) == name
    assert doorway.name(told, options=None) == name


@pytest.mark.parametrize(
    "told",
    [
        "",
        " ",
        basic("alice", "Wonder"),
        basic("alice", ""),
        basic("bob", "wonder"),
        basic("bob", "t0ken"),
        basic("nobody", "wonder"),
        basic("", "t0ke"),
        "Bearer wonder",
        "Bearer ",
        "Bearer",
        "Basic",
        "Basic !!!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:wonder").decode(),
        'Digest username="alice"',
        "Negotiate YWxpY2U6d29uZGVy",
        "alice:wonder",
        hashlib.sha256(b"t0ken").hexdigest(),
    ],
)
def test_who_is_not(doorway: Doorway, told: str) -> None:
    """Whatever else is said, the answer is 401, and says how to ask."""
    with pytest.raises(Unauthorized) as caught:
        doorway.name(told)
    assert [value.partition(" ")[0] for _, value in caught.value.fields] == ["Basic", "Bearer"]
    assert "wonder" not in caught.value.text


def test_two_fields(doorway: Doorway) -> None:
    """Who says two things may mean either."""
    with pytest.raises(BadRequest):
        doorway.name("Bearer t0ken", "Bearer other")


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.sampled_from(["", "Basic ", "Bearer "]))
def test_any_credentials(tmp_path_factory: pytest.TempPathFactory, text: str, scheme: str) -> None:
    """Whatever stands in the field, it is nobody's, and is refused in order."""
    doorway = Doorway(tmp_path_factory.mktemp("any") / "readers")
    with pytest.raises(Unauthorized):
        doorway.name(scheme + text)


def test_rights(doorway: Doorway) -> None:
    """A registry with readers is for those alone; a shared one is for everybody; the rest is for all in the file."""
    assert doorway.name(options=PUBLIC) == ""
    assert doorway.name("Bearer wrong", options=PUBLIC) == ""
    assert doorway.name(basic("alice", "wonder"), options=CORP) == "alice"
    with pytest.raises(Forbidden, match="ci is not among the readers of corp"):
        doorway.name("Bearer t0ken", options=CORP)
    with pytest.raises(Unauthorized):
        doorway.name(options=CORP)
    assert [doorway.door.may("ci", one) for one in (PUBLIC, ALL, CORP)] == [True, True, False]


def test_no_file() -> None:
    """Without a file nobody is asked who they are."""
    door = Door("", (ALL,), Clock())
    door.open()
    door.judge(Headers())
    assert Deferred.fromCoroutine(door.admit(Headers(), HERE, None)).result == ""


def test_before_the_body(tmp_path: Path) -> None:
    """Whoever says nothing where everybody has to is refused before they send more."""
    path = Doorway(tmp_path / "readers").path
    closed, partly = Door(str(path), (ALL,), Clock()), Door(str(path), (ALL, PUBLIC), Clock())
    with pytest.raises(Unauthorized):
        closed.judge(Headers())
    closed.judge(Headers.of({"Authorization": "Bearer x"}))
    partly.judge(Headers())


# How often.


def test_a_right_password_is_hashed_once(doorway: Doorway) -> None:
    """For five minutes; then again. Tokens are never hashed in a thread."""
    for _ in range(100):
        assert doorway.name(basic("alice", "wonder")) == "alice"
        assert doorway.name("Bearer t0ken") == "ci"
    assert doorway.checks == 1
    doorway.clock.advance(301)
    doorway.name(basic("alice", "wonder"))
    assert doorway.checks == 2


def test_the_same_at_the_same_time_is_hashed_once(tmp_path: Path) -> None:
    """A client that asks by many connections costs one check, and all get its outcome."""
    doorway = Doorway(tmp_path / "readers", at_once=False)
    right = [doorway.ask(basic("alice", "wonder")) for _ in range(50)]
    wrong = [doorway.ask(basic("alice", "x")) for _ in range(50)]
    wrong[0].addErrback(lambda _: None).cancel()
    doorway.run()
    assert doorway.checks == 2
    assert {one.result for one in right} == {"alice"}
    for one in wrong[1:]:
        one.addErrback(lambda failure: failure.trap(Unauthorized))
        assert one.result is Unauthorized


def test_only_so_many_at_once(tmp_path: Path) -> None:
    """Two are hashed at a time; some wait, the rest are told to come again; who waits too long is told so, too."""
    doorway = Doorway(tmp_path / "readers", at_once=False)
    asked = [doorway.ask(basic(f"n{number}", "x")) for number in range(66)]
    failed: list[Any] = []
    for one in asked:
        one.addErrback(lambda failure: failed.append(failure.type))
    assert doorway.checks == 2
    assert failed == [TooBusy] * 2
    doorway.clock.advance(11)
    assert failed == [TooBusy] * 66
    doorway.run()
    assert doorway.checks == 64


def test_failures_are_limited(doorway: Doorway) -> None:
    """Ten a minute of a name; others, and what costs nothing to check, are still let in, and so is everybody later."""
    doorway.name(basic("alice", "wonder"))
    for _ in range(10):
        with pytest.raises(Unauthorized):
            doorway.name(basic("alice", "guess"))
    checks = doorway.checks
    with pytest.raises(TooManyFailures) as caught:
        doorway.name(basic("alice", "guess"))
    assert doorway.checks == checks, "it was hashed all the same"
    assert (caught.value.status, caught.value.fields) == (429, (("retry-after", "60"),))
    assert doorway.name(basic("alice", "wonder")) == "alice", "it is remembered"
    assert doorway.name("Bearer t0ken") == "ci"
    assert doorway.name(basic("bob", "builder")) == "bob"
    doorway.clock.advance(61)
    with pytest.raises(Unauthorized):
        doorway.name(basic("alice", "guess"))


def test_failures_of_an_address_are_limited(doorway: Doorway) -> None:
    """A hundred a minute, of whatever names; of IPv6 a network counts as one, and of others nobody."""
    there, beside, elsewhere = (Peer(address, False) for address in ("2001:db8::1", "2001:db8::2", "10.0.0.1"))
    for number in range(100):
        with pytest.raises(Unauthorized):
            doorway.name(basic(f"n{number}", "guess") if number % 2 else f"Bearer {number}", peer=there)
    for peer in (there, beside):
        with pytest.raises(TooManyFailures):
            doorway.name(basic("bob", "builder"), peer=peer)
        assert doorway.name("Bearer t0ken", peer=peer) == "ci"
    assert doorway.name(basic("bob", "builder"), peer=elsewhere) == "bob"
    assert doorway.name(basic("bob", "builder"), peer=Peer("", False)) == "bob"


def test_right_passwords_are_no_failures(doorway: Doorway) -> None:
    """Whoever is right is not counted."""
    for _ in range(50):
        doorway.name(basic("bob", "builder"))
        doorway.clock.advance(301)
    for _ in range(20):
        doorway.path.write_text(doorway.path.read_text() + "#\n")
        doorway.clock.advance(1.5)
        assert doorway.name(basic("bob", "builder")) == "bob"


# The file changes.


def test_the_file_is_read_again(doorway: Doorway) -> None:
    """Who is taken out is not let in any more, also when remembered; who is put in is."""
    doorway.name(basic("alice", "wonder"))
    doorway.path.write_text(f"carol:{hashed('x')}\n")
    doorway.clock.advance(1.5)
    assert doorway.name(basic("carol", "x")) == "carol"
    for told in (basic("alice", "wonder"), "Bearer t0ken"):
        with pytest.raises(Unauthorized):
            doorway.name(told)


@pytest.mark.parametrize("harm", ["gone", "nonsense", "binary", "everybody's", "empty"])
def test_the_file_is_spoiled(doorway: Doorway, harm: str) -> None:
    """What was known before holds until the file is right again."""
    before = doorway.path.read_text()
    if harm == "gone":
        doorway.path.unlink()
    elif harm == "everybody's":
        doorway.path.chmod(0o666)
    else:
        doorway.path.write_bytes({"nonsense": b"alice:hunter2\n", "binary": b"\xff\xfe\0", "empty": b""}[harm])
    for _ in range(2):
        doorway.clock.advance(1.5)
        assert doorway.name("Bearer t0ken") == "ci"
    doorway.path.write_text(before.replace("ci:", "robot:"))
    os.chmod(doorway.path, 0o640)
    doorway.clock.advance(1.5)
    assert doorway.name("Bearer t0ken") == "robot"


def test_a_slow_disk(tmp_path: Path) -> None:
    """While the file cannot be looked at, requests wait for a second at most, and go by what was known."""
    doorway = Doorway(tmp_path / "readers", at_once=False)
    doorway.clock.advance(1.5)
    first, second = doorway.ask("Bearer t0ken"), doorway.ask("Bearer t0ken")
    assert not first.called
    assert len(doorway.work) == 1
    doorway.clock.advance(1.0)
    assert (first.result, second.result) == ("ci", "ci")
    doorway.run()


def test_a_password_that_is_checked_while_the_file_changes(tmp_path: Path) -> None:
    """It is not let in by what the file said before."""
    doorway = Doorway(tmp_path / "readers", at_once=False)
    asked = doorway.ask(basic("alice", "wonder"))
    doorway.path.write_text(f"bob:{hashed('x')}\n")
    doorway.clock.advance(1.5)
    other = doorway.ask("Bearer t0ken")
    doorway.work.reverse()
    doorway.run()
    again = doorway.ask(basic("alice", "wonder"))
    doorway.run()
    for one in (asked, other, again):
        one.addErrback(lambda failure: failure.type)
        assert one.result is Unauthorized


# What is wrong with it at start.


@pytest.mark.parametrize(
    ("options", "path", "wanted"),
    [
        ({"has_credentials": True}, "", "shared = true"),
        ({"readers": ("a",)}, "", "--auth"),
        ({"readers": ("a",), "shared": True}, "/x", "it wants one"),
    ],
)
def test_what_is_refused_at_start(options: dict[str, Any], path: str, wanted: str) -> None:
    """A registry that would be open although it must not be, or closed to everybody; the line says what to do."""
    with pytest.raises(ConfigError, match=r"registries\.corp") as caught:
        Door(path, (ALL, RegistryOptions(name="corp", type="npm", **options)), Clock())
    assert wanted in caught.value.detail


@pytest.mark.parametrize("more", [{"shared": True}, {"readers": ("a",)}, {}])
def test_what_credentials_open(more: dict[str, Any], tmp_path: Path) -> None:
    """With a file, or shared, a registry with credentials may be served."""
    path = "" if more.get("shared") else str(Doorway(tmp_path / "readers").path)
    Door(path, (RegistryOptions(name="corp", type="npm", has_credentials=True, **more),), Clock()).open()


@pytest.mark.parametrize("harm", ["gone", "everybody's", "large"])
def test_a_file_that_cannot_be_used(tmp_path: Path, harm: str) -> None:
    """One line says why."""
    path = Doorway(tmp_path / "readers").path
    if harm == "gone":
        path.unlink()
    elif harm == "large":
        path.write_bytes(b"#" * (5 << 20))
    else:
        path.chmod(0o666)
    with pytest.raises(RegCacheError) as caught:
        Door(str(path), (ALL,), Clock(), lambda work, *args: succeed(work(*args))).open()
    assert str(path) in caught.value.detail
