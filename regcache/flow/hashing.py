"""The digests of a body that is being written."""

from __future__ import annotations

import hashlib
from typing import Any

from regcache.http.messages import Digest

__all__ = ["Hashing"]


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
