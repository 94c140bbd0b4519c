"""The digests of a body that is being written."""

from __future__ import annotations

import hashlib
from typing import Any

from regcache.http.messages import Digest
from regcache.interfaces import IPartial

__all__ = ["Hashing", "rehashed"]

_PIECE = 1 << 18


def _new_hash(algorithm: str) -> Any:
    return hashlib.blake2b(digest_size=32) if algorithm == "blake2b_256" else hashlib.new(algorithm)


class Hashing:
    """
    Hashes a body as it is written, by every algorithm that its digest may turn out to be published in.
    """

    def __init__(self, algorithms: set[str]) -> None:
        self._hashes = {name: _new_hash(name) for name in algorithms}

    def feed(self, data: bytes) -> None:
        """The next bytes; fit for a thread, since hashing releases the interpreter."""
        for made in self._hashes.values():
            made.update(data)

    def digests(self) -> tuple[Digest, ...]:
        """The digests of all that was fed."""
        return tuple(Digest(name, made.hexdigest()) for name, made in self._hashes.items())


async def rehashed(partial: IPartial, size: int, algorithm: str) -> Digest:
    """One more digest of a body that has been written."""
    made, at = _new_hash(algorithm), 0
    while at < size:
        piece = partial.read(at, _PIECE)
        if not isinstance(piece, bytes):
            piece = await piece
        made.update(piece)
        at += len(piece)
    return Digest(algorithm, made.hexdigest())
