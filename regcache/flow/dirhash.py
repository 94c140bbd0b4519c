"""
Digests that are not of a body's bytes but of what it holds: the ``h1:`` sums of Go's go.sum files.

Both are the SHA-256 of lines that name a file and its SHA-256 (golang.org/x/mod/sumdb/dirhash).
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, BinaryIO

from regcache.errors import BadDocument

__all__ = ["WHOLE", "mod_h1", "zip_h1"]

_PIECE = 1 << 18
#: Bytes that an archive may unpack to; twice what the go command unpacks.
_MOST_UNPACKED = 1 << 30
#: Bytes of an archive's directory, which is read at once.
_MOST_DIRECTORY = 16 << 20
_END_OF_DIRECTORY, _END = b"PK\5\6", struct.Struct("<4s8xL4xH")
_MOST_COMMENT = 0xFFFF
_UTF_8 = 0x800
#: The ways to pack a file that Go knows.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
#: What zipfile raises for an archive that is damaged or of a kind it does not know.
_UNSOUND = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, OverflowError, RuntimeError, ValueError),
)


def mod_h1(file: BinaryIO) -> str:
    """The sum of a go.mod file, in hexadecimal."""
    return _summed({b"go.mod": _read(file)[0]})


def zip_h1(file: BinaryIO) -> str:
    """
    The sum of an archive's files, in hexadecimal: the same however they are packed.

    :raises regcache.errors.BadDocument: if it is not a sound archive, whole and with all its checksums right.
    """
    _see_that_it_ends(file)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MOST_UNPACKED:
                raise BadDocument(f"It unpacks to more than {_MOST_UNPACKED} bytes.")
            sums = {_name(entry): _file_sum(archive, entry) for entry in entries}
    except _UNSOUND as error:
        raise BadDocument(f"It is no sound zip file: {error}") from None
    if len(sums) != len(entries) or any(b"\n" in name for name in sums):
        raise BadDocument("It is no sound zip file: a name in it is not fit for a file.")
    return _summed(sums)


#: Digests that only a whole body has, by algorithm; each takes the body as a file, and time: for a thread.
WHOLE: Mapping[str, Callable[[BinaryIO], str]] = {"zip_h1": zip_h1, "mod_h1": mod_h1}


def _summed(sums: Mapping[bytes, str]) -> str:
    lines = b"".join(b"%s  %s\n" % (value.encode(), name) for name, value in sorted(sums.items()))
    return hashlib.sha256(lines).hexdigest()


def _see_that_it_ends(file: BinaryIO) -> None:
    """Refuse what does not end as an archive does, to the byte, or has a directory that would fill the memory."""
    size = file.seek(0, 2)
    file.seek(max(size - _MOST_COMMENT - _END.size, 0))
    tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or len(tail) < at + _END.size:
        raise BadDocument("It is no zip file, or one that ends early.")
    _, directory, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail) or directory > _MOST_DIRECTORY:
        raise BadDocument("It is a zip file that does not end where it says, or with too many files.")
    file.seek(0)


def _name(entry: zipfile.ZipInfo) -> bytes:
    """The name as its bytes stand in the archive."""
    return entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF_8 else "cp437")


def _read(file: IO[bytes]) -> tuple[str, int]:
    """The SHA-256 of a file and its size."""
    made, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        made.update(piece)
        size += len(piece)
    return made.hexdigest(), size


def _file_sum(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    if entry.compress_type not in _METHODS:
        raise zipfile.BadZipFile(f"{entry.filename!r} is packed in a way of its own.")
    with archive.open(entry) as unpacked:
        found, size = _read(unpacked)
    if size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename!r} ends early.")
    return found
