"""Digests of what a body holds."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.errors import BadDocument
from regcache.flow import dirhash
from regcache.flow.dirhash import mod_h1, zip_h1
from regcache.flow.hashing import Hashing, rehashed
from regcache.http.messages import STRENGTH, Digest
from regcache.testing import MemoryStore
from tests.gomodules import h1


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return sink.getvalue()


def as_go_sum(value: str) -> str:
    """A digest as go.sum has it."""
    return "h1:" + base64.b64encode(bytes.fromhex(value)).decode()


FILES = {"m@v1.0.0/b.go": b"package b\n" * 900, "m@v1.0.0/a/ü.go": b"", "m@v1.0.0/go.mod": b"module m\n"}


def test_a_go_mod() -> None:
    """The sum that go.sum files all over the world have of this one."""
    found = mod_h1(io.BytesIO(b"module github.com/pkg/errors\n"))
    assert as_go_sum(found) == "h1:bwawxfHBFNV+L2hUp1rHADufV3IMtnDRdf1r5NINEl0="


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_zip(method: int) -> None:
    """The sum is of the files and their names, however they are packed and in whatever order."""
    for files in (FILES, dict(reversed(FILES.items()))):
        assert as_go_sum(zip_h1(io.BytesIO(packed(files, method)))) == h1(FILES)


def test_names_are_bytes() -> None:
    """A name without the mark for UTF-8 is summed as it stands there."""
    body = packed({"m/x.go": b"x"}).replace(b"m/x.go", b"m/\xe9.go")
    line = hashlib.sha256(b"x").hexdigest().encode() + b"  m/\xe9.go\n"
    assert zip_h1(io.BytesIO(body)) == hashlib.sha256(line).hexdigest()


def understated(body: bytes) -> bytes:
    """Of its one file, the directory says a size that is too large."""
    at = body.rindex(b"PK\1\2") + 24
    return body[:at] + struct.pack("<L", 1 << 20) + body[at + 4 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:0],
        lambda body: b"<html>" + body[:0],
        lambda body: body[: len(body) // 2],
        lambda body: body[:-1],
        lambda body: body + b"x",
        lambda body: body[:-2] + b"\1\0",
        lambda body: body[:60] + bytes([body[60] ^ 1]) + body[61:],
        lambda body: body[body.index(b"PK\1\2") :],
        understated,
    ],
)
def test_what_is_no_sound_zip(damage: Callable[[bytes], bytes]) -> None:
    """A body that is cut, damaged or no archive at all has no such digest."""
    body = packed({"m/x.go": b"package x // some text to pack\n" * 40})
    with pytest.raises(BadDocument):
        zip_h1(io.BytesIO(damage(body)))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_ways_to_pack_that_go_does_not_know(method: int) -> None:
    """What no client could unpack is not unpacked here either."""
    with pytest.raises(BadDocument, match="packed"):
        zip_h1(io.BytesIO(packed(FILES, method)))


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Whatever is done to an archive, it is refused, or unpacks to the files that its sum is of."""
    body = bytearray(packed(FILES, data.draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    with tempfile.TemporaryFile() as file:
        file.write(body)
        try:
            found = zip_h1(file)
        except BadDocument:
            return
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        files = {entry.orig_filename: archive.read(entry) for entry in archive.infolist()}
    assert found == zip_h1(io.BytesIO(packed(files))) or not all(map(str.isascii, files))


def test_names_that_no_file_has() -> None:
    """Two files of one name, or a name of two lines, could be read in two ways."""
    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("m/x", b"1")
            archive.writestr("m/x", b"2")
    for body in (sink.getvalue(), packed({"m/x\ny": b""})):
        with pytest.raises(BadDocument, match="name"):
            zip_h1(io.BytesIO(body))


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that would fill the memory, or take for ever, is not read."""
    body = packed({"m/x": bytes(100_000), "m/y": bytes(100_000)})
    monkeypatch.setattr(dirhash, "_MOST_UNPACKED", 150_000)
    with pytest.raises(BadDocument, match="unpacks"):
        zip_h1(io.BytesIO(body))
    monkeypatch.setattr(dirhash, "_MOST_DIRECTORY", 90)
    with pytest.raises(BadDocument, match="too many"):
        zip_h1(io.BytesIO(body))


@pytest.mark.parametrize("algorithm", STRENGTH)
def test_every_algorithm_of_a_body_that_is_written(algorithm: str) -> None:
    """Whatever digest is asked for of what has been written is that of its bytes, or of what it holds."""
    body = packed(FILES)
    hashing = Hashing(set(STRENGTH))
    partial = MemoryStore().create(hashing.feed)
    partial.write(body)
    streamed = {digest.algorithm: digest for digest in hashing.digests()}
    found: list[Digest] = []
    coroutine = rehashed(partial, algorithm)
    try:
        coroutine.send(None)
    except StopIteration as done:
        found.append(done.value)
    whole = {"zip_h1": zip_h1, "mod_h1": mod_h1}
    if algorithm in whole:
        assert algorithm not in streamed
        assert found == [Digest(algorithm, whole[algorithm](io.BytesIO(body)))]
    else:
        assert found == [streamed[algorithm]]
