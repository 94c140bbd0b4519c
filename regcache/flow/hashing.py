"""The digests of a body that is being written."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from msgspec.structs import replace

from regcache.errors import BadDocument
from regcache.flow.dirhash import WHOLE
from regcache.http.messages import Digest, Stored
from regcache.interfaces import IPartial, IStore

__all__ = ["Hashing", "comparable", "rehashed"]

_PIECE = 1 << 18


#: Looking one up by its name takes longer than making it.
_MADE_BY: dict[str, Callable[[], Any]] = {
    "blake2b_256": functools.partial(hashlib.blake2b, digest_size=32),
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}


def _new_hash(algorithm: str) -> Any:
    made_by = _MADE_BY.get(algorithm)
    return hashlib.new(algorithm) if made_by is None else made_by()


class Hashing:
    """
    Hashes a body as it is written, by every algorithm that its digest may turn out to be published in.

    Those that only the whole body gives are left out; :meth:`learn` takes them later.
    """

    def __init__(self, algorithms: set[str]) -> None:
        self._algorithms = algorithms
        # Made once there is something to hash: what is looked for in the store is seldom there.
        self._hashes: dict[str, Any] | None = None
        self._learned: list[Digest] = []
        # Of what was fed by now; asked for several times once all was.
        self._told: tuple[Digest, ...] | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes; fit for a thread, since hashing releases the interpreter."""
        self._told = None
        for made in self._begun().values():
            made.update(data)

    def _begun(self) -> dict[str, Any]:
        if self._hashes is None:
            self._hashes = {name: _new_hash(name) for name in self._algorithms if name not in WHOLE}
        return self._hashes

    def learn(self, digest: Digest) -> None:
        """One more digest of all that was fed, computed elsewhere."""
        self._told = None
        self._learned.append(digest)

    def digests(self) -> tuple[Digest, ...]:
        """The digests of all that was fed."""
        if self._told is None:
            made = self._begun().items()
            self._told = (*[Digest(name, one.hexdigest()) for name, one in made], *self._learned)
        return self._told


async def rehashed(partial: IPartial, algorithm: str) -> Digest:
    """
    One more digest of a body that has been written whole.

    :raises regcache.errors.BadDocument: if the body is none that has such a digest.
    """
    return Digest(algorithm, await partial.examine(functools.partial(_hashed, algorithm)))


def _hashed(algorithm: str, file: BinaryIO) -> str:
    if algorithm in WHOLE:
        return WHOLE[algorithm](file)
    made = _new_hash(algorithm)
    while piece := file.read(_PIECE):
        made.update(piece)
    return str(made.hexdigest())


async def comparable(store: IStore, entry: Stored, told: Iterable[Digest]) -> Stored:
    """
    An entry that has the digest by which its body is to be held against what is published, as far as that is to be had.

    One that its body was not hashed by when it came is computed of what is stored.
    """
    strongest = Digest.strongest(told)
    if strongest is None or any(digest.algorithm == strongest.algorithm for digest in entry.digests):
        return entry
    partial = await store.adopt(Digest("sha256", entry.digest))
    if partial is None:
        # It is found damaged when it is asked for.
        return entry
    try:
        return replace(entry, digests=(*entry.digests, await rehashed(partial, strongest.algorithm)))
    except (BadDocument, OSError):
        return entry
    finally:
        partial.abort()
