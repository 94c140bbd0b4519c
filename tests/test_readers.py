"""The file of those who may use the cache: what is taken, what is refused, and that it says no secrets."""

from __future__ import annotations

import hashlib

import argon2
import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.errors import ConfigError
from regcache.readers import Readers

QUICK = bcrypt.hashpw(b"pass:word", bcrypt.gensalt(4)).decode()
ARGON = argon2.PasswordHasher(1, 8, 1).hash("pass:word")
TOKEN = hashlib.sha256(b"t0ken").hexdigest()


@pytest.mark.parametrize("kept", [QUICK, QUICK.replace("$2b$", "$2y$"), QUICK.replace("$2b$", "$2a$"), ARGON])
def test_passwords(kept: str) -> None:
    """A password is right by its hash, whoever made that, and no other is."""
    readers = Readers.of(f"# those\n\nalice:{kept}\r\n", "/x")
    assert readers.names == {"alice"}
    assert readers.fits("alice", b"pass:word")
    for name, password in (("alice", b"pass:wor"), ("alice", b""), ("bob", b"pass:word"), ("", b"pass:word")):
        assert not readers.fits(name, password)
    assert not readers.fits("alice", b"pass:word\0")
    assert readers.owner(b"pass:word") == ""


def test_long_passwords() -> None:
    """Of a long password bcrypt knows 72 bytes, and what made the file cut it there as well."""
    kept = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert Readers.of(f"a:{kept}", "/x").fits("a", b"x" * 100)
    assert not Readers.of(f"a:{kept}", "/x").fits("a", b"x" * 71)


def test_tokens() -> None:
    """A token tells whose it is; a name may have several, and a password beside them."""
    other = hashlib.sha256(b"other").hexdigest().upper()
    readers = Readers.of(f"ci:sha256:{TOKEN}\nci:sha256:{other}\nci:{QUICK}\nbot:sha256:{'0' * 64}", "/x")
    assert (readers.owner(b"t0ken"), readers.owner(b"other"), readers.owner(b"")) == ("ci", "ci", "")
    assert (readers.owner(b"t0ken", "ci"), readers.owner(b"t0ken", "bot")) == ("ci", "")
    assert readers.owner(TOKEN.encode()) == "", "the hash itself opens nothing"


def test_every_token_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it takes does not tell how near a guess was: all are compared, by a function that takes as long."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    readers = Readers.of("\n".join(f"n{number}:sha256:{TOKEN}" for number in range(5)), "/x")
    assert readers.owner(b"t0ken")
    assert len(compared) == 5
    assert {len(one) for pair in compared for one in pair} == {32}


def test_unknown_names_cost_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not there is hashed as well, so that nobody learns which are."""
    hashed: list[bytes] = []

    def check(password: bytes, kept: bytes) -> bool:
        hashed.extend((password, kept))
        return True

    monkeypatch.setattr("bcrypt.checkpw", check)
    assert not Readers.of(f"alice:{QUICK}", "/x").fits("bob", b"x")
    assert hashed == [b"x", QUICK.encode()]


REFUSED = {
    "alice:$apr1$abcdefgh$0123456789012345678901": "MD5",
    "alice:$1$abcdefgh$0123456789012345678901": "MD5",
    "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=": "SHA-1",
    "alice:$6$saltsalt$abcdef": "SHA-crypt",
    "alice:$5$saltsalt$abcdef": "SHA-crypt",
    "alice:rqXexS6ZhobKA": "by crypt",
    "alice:hunter2": "as it is",
    "alice:": "as it is",
    "alice:sha256:abc": "64 hexadecimal digits",
    "alice:$2y$31$" + "a" * 53: "at a cost",
    "alice:$2y$03$" + "a" * 53: "at a cost",
    "alice:$2y$10$" + "a" * 50: "not whole",
    "alice:$argon2id$v=19$m=9999999,t=1,p=1$YWJjZGVmZ2g$YWJjZGVmZ2g": "at a cost",
    "alice:$argon2id$nonsense": "not whole",
    "alice": "NAME:HASH",
    "a b:" + QUICK: "NAME:HASH",
    ":" + QUICK: "NAME:HASH",
    f"alice:{QUICK}\nalice:{QUICK}": "already",
    "": "lets nobody in",
    "# nobody": "lets nobody in",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text: str) -> None:
    """One line that names the file, the line and what to do, and shows nothing of what is kept."""
    with pytest.raises(ConfigError) as caught:
        Readers.of(f"# remark\n{text}", "/etc/readers")
    said = caught.value.detail
    assert REFUSED[text] in said
    assert said.startswith("/etc/readers")
    assert "\n" not in said
    kept = text.partition(":")[2].removeprefix("sha256:")
    assert not kept or kept[-8:] not in said
    assert "line" not in REFUSED[text] or ", line 2" in said


@pytest.mark.parametrize(("kept", "library"), [(QUICK, "bcrypt"), (ARGON, "argon2-cffi")])
def test_what_cannot_be_checked_here(monkeypatch: pytest.MonkeyPatch, kept: str, library: str) -> None:
    """Without the library that checks a hash, the line says how to get it; tokens need none."""
    monkeypatch.setattr("regcache.readers.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=rf"line 1: \w+ is not installed.*pip install {library}$"):
        Readers.of(f"alice:{kept}", "/x")
    assert Readers.of(f"ci:sha256:{TOKEN}", "/x").names == {"ci"}


@given(st.text(max_size=40) | st.from_regex(r"[a-z]{1,3}:(\$2[aby]\$|\$argon2id?\$|sha256:)[$=,./\w]{0,30}"))
def test_any_file(text: str) -> None:
    """Whatever a file says, it is understood or refused."""
    try:
        readers = Readers.of(text, "/x")
    except ConfigError:
        return
    assert readers.names


def test_nothing_is_shown() -> None:
    """Neither hashes nor names of those who have them stand in what is shown of it."""
    assert QUICK not in repr(Readers.of(f"alice:{QUICK}\nci:sha256:{TOKEN}", "/x"))
