"""
The facts of a document in their stored form, out of which one is found without reading the others.

An archive's index names sixty thousand files: to decode all of them takes the reactor half a second, to find one among
their sorted keys some microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import msgspec

from regcache.http.messages import Digest
from regcache.routes import Document, Fact

__all__ = ["FACTS_FORMAT", "PackedFact", "decode_facts", "encode_facts", "unpacked"]


class PackedFact(msgspec.Struct, frozen=True, array_like=True):
    """
    A fact as it is stored.

    :ivar proof: the key, URL and Accept of its proof.
    """

    url: str
    digests: tuple[Digest, ...]
    size: int | None
    proof: tuple[str, str, str] | None


#: Raised with every change of the stored form, so that what was stored in another is not misread.
FACTS_FORMAT = 3

_NUMBER = struct.Struct("<I")
_FACT: msgspec.msgpack.Decoder[PackedFact] = msgspec.msgpack.Decoder(PackedFact)


class _Table(Mapping[str, PackedFact]):
    """
    The stored form: how many there are, where each begins and the last ends, and then, in the order of the keys' bytes,
    each as the length of its key, the key, and its MessagePack.
    """

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._number = self._at(0)

    def _at(self, place: int) -> int:
        number: int = _NUMBER.unpack_from(self._stored, place)[0]
        return number

    def _key(self, index: int) -> bytes:
        start = self._at(_NUMBER.size * (index + 1))
        key = start + _NUMBER.size
        return self._stored[key : key + self._at(start)]

    def __getitem__(self, key: str) -> PackedFact:
        wanted, low, high = key.encode("utf-8", "surrogatepass"), 0, self._number
        stored, size, read = self._stored, _NUMBER.size, _NUMBER.unpack_from
        while low < high:
            middle = (low + high) // 2
            # As _key() does, which is called too often for a call.
            (start,) = read(stored, size * (middle + 1))
            behind = start + size + read(stored, start)[0]
            found = stored[start + size : behind]
            if found == wanted:
                return _FACT.decode(stored[behind : self._at(size * (middle + 2))])
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (self._key(index).decode() for index in range(self._number))

    def __len__(self) -> int:
        return self._number


def encode_facts(facts: Mapping[str, Fact]) -> bytes:
    """
    Facts by artifact key, to be stored.

    :raises UnicodeEncodeError: for a key that is no text.
    """
    found = sorted((key.encode(), msgspec.msgpack.encode(_packed(fact))) for key, fact in facts.items())
    pieces = [_NUMBER.pack(len(key)) + key + fact for key, fact in found]
    at = _NUMBER.size * (len(pieces) + 2)
    numbers = [len(pieces), at]
    for piece in pieces:
        at += len(piece)
        numbers.append(at)
    return struct.pack(f"<{len(numbers)}I", *numbers) + b"".join(pieces)


def decode_facts(stored: bytes) -> Mapping[str, PackedFact]:
    """Facts by artifact key, as stored. Looking one up reads no other."""
    return _Table(stored)


def _packed(fact: Fact) -> PackedFact:
    proof = None if fact.proof is None else (fact.proof.key, fact.proof.url, fact.proof.accept)
    return PackedFact(fact.url, fact.digests, fact.size, proof)


def unpacked(fact: PackedFact) -> Fact:
    """A fact from its stored form."""
    told = None
    if fact.proof is not None:
        key, there, accept = fact.proof
        told = Document(key=key, url=there, accept=accept, representation="", content_type="")
    return Fact(url=fact.url, digests=fact.digests, size=fact.size, proof=told)
