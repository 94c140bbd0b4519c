"""Large bodies: put together, unpacked and read as small ones are."""

from __future__ import annotations

import gzip
import json
import os
import random
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from regcache.errors import BadDocument, CutShort, TooLarge
from regcache.flow import large
from regcache.flow.collect import collect, decoded
from regcache.flow.derive import VAST
from regcache.flow.large import LARGE, Scratch, joined
from regcache.http.messages import Headers
from tests.origin import Origin
from tests.service import Running, free_port

SIZES = (0, 1, LARGE - 1, LARGE, LARGE + 1, 5 * LARGE + 7)


def body(size: int) -> bytes:
    """So many bytes, half of which say nothing new."""
    return (random.Random(size).randbytes(size // 2 + 1) * 2)[:size]


def pieces(whole: bytes) -> list[bytes]:
    """It, in pieces."""
    return [whole[at : at + 200_000] for at in range(0, len(whole), 200_000)]


@pytest.mark.parametrize("size", SIZES)
def test_together(size: int) -> None:
    """The pieces are the whole, and no descriptor stays."""
    whole, before = body(size), len(os.listdir("/dev/fd"))
    assert joined(pieces(whole)) == whole
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_wherever_it_may_be(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, or where the system has no such files or forbids them, in one on the disk, which has no name."""

    def forbidden(*_: object) -> Any:
        raise PermissionError

    if kept == "disk":
        monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    scratch = Scratch()
    try:
        scratch.lay([b"longer than what comes then"])
        scratch.lay([b"some", b"", b"thing"])
        assert scratch.pick([4, 0, 5]) == [b"some", b"", b"thing"]
        for wrong in ([4, 6], [-1, 5]):
            with pytest.raises(OSError, match="not all there"):
                scratch.pick(wrong)
        scratch.empty()
        assert scratch.size == 0
        assert os.fstat(scratch.fd).st_nlink == 0
        assert not os.get_inheritable(scratch.fd)
    finally:
        scratch.close()
        scratch.close()


def test_without_any_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put together all the same."""

    def full(*_: object) -> Any:
        raise OSError

    monkeypatch.setattr(large, "_unnamed", full)
    whole = body(3 * LARGE)
    assert joined(pieces(whole)) == whole


@pytest.mark.parametrize("size", SIZES)
def test_unpacked(size: int) -> None:
    """Whatever it unpacks to, and up to the last byte that is allowed."""
    whole = body(size)
    assert decoded(gzip.compress(whole, 1), "gzip", size) == whole
    assert decoded(whole, "", size) == whole
    if size:
        with pytest.raises(TooLarge):
            decoded(gzip.compress(whole, 1), "gzip", size - 1)


def test_what_unpacks_to_much_more() -> None:
    """A few bytes that are a thousand times as many."""
    whole = bytes(20 * LARGE)
    packed = gzip.compress(whole)
    assert decoded(packed, "gzip", len(whole)) == whole
    with pytest.raises(TooLarge):
        decoded(packed, "gzip", len(whole) - 1)


@pytest.mark.parametrize("cut", [0, 1, 10, 1000, 70_000, -1, -8, -9])
def test_cut(cut: int) -> None:
    """Wherever it ends early, it is known to."""
    with pytest.raises(CutShort):
        decoded(gzip.compress(body(300_000), 1)[:cut], "gzip", LARGE)


@pytest.mark.parametrize("packed", [b"not gzip at all", zlib.compress(b"nor this")])
def test_no_gzip(packed: bytes) -> None:
    """What is in another coding is not taken."""
    with pytest.raises(BadDocument):
        decoded(packed, "gzip", LARGE)


class Flowing:
    """An answer of no stated length, in pieces, ended by the end of its connection."""

    url, length, coding = "http://index.test/", None, ""
    headers = Headers.of({"content-type": "text/html"})

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def flow(self, receiver: Any) -> Flowing:
        """Whoever takes it is known."""
        self._receiver = receiver
        return self

    def start(self) -> None:
        """All of it comes."""
        for piece in self._pieces:
            self._receiver.received(piece)
        self._receiver.ended(None, False)


@pytest.mark.parametrize(
    "pieces", [[b"<html>", b"x" * LARGE, b"</ht", b"ML>", b"", b"\n"], [b"<html></html>" + b" " * 900]]
)
def test_an_end_in_pieces(pieces: list[bytes]) -> None:
    """The end of a page is seen, however it comes; and if it does not, so is that."""
    answer: Any = Flowing(pieces)
    found: list[Any] = []
    Deferred.fromCoroutine(collect(answer, 2 * LARGE)).addCallback(found.append)
    assert found == [b"".join(pieces)]
    answer = Flowing([piece.replace(b">", b"") for piece in pieces])
    Deferred.fromCoroutine(collect(answer, 2 * LARGE)).addErrback(lambda failure: found.append(failure.type))
    assert found[1:] == [CutShort]


def ask(url: str, coding: str) -> tuple[bytes, str]:
    """A page, and its entity tag."""
    fields = {"Accept": "application/vnd.pypi.simple.v1+json", "Accept-Encoding": coding}
    with urllib.request.urlopen(urllib.request.Request(url, headers=fields)) as answer:
        said = answer.read()
        return gzip.decompress(said) if coding == "gzip" else said, answer.headers["ETag"]


def test_all_the_way(origin: Origin, start: Callable[..., Running]) -> None:
    """A page that is large in every place it goes through: fetched, derived, stored, read again after a restart."""
    files = [{"filename": f"vast-{n}.zip", "url": f"{origin.url}v/vast-{n}.zip", "hashes": {}} for n in range(12_000)]
    page = json.dumps({"meta": {"api-version": "1.0"}, "name": "vast", "files": files}).encode() + b" " * VAST
    origin.spoil = lambda path, answer: (200, "application/vnd.pypi.simple.v1+json", page) if "vast" in path else answer
    listen = "--listen", f"tcp:{free_port()}:interface=127.0.0.1"
    service = start(*listen)
    url = f"{service.url}pypi/simple/vast/"
    first = [ask(url, coding) for coding in ("identity", "gzip")]
    assert first[0][0] == first[1][0]
    assert len(first[0][0]) > LARGE
    assert [file["filename"] for file in json.loads(first[0][0])["files"]] == [file["filename"] for file in files]
    service.stop()
    service = start(*listen, "--offline")
    assert [ask(url, coding) for coding in ("identity", "gzip")] == first
