"""A store in memory, for tests that need no disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import implementer

from regcache.errors import BlobDamaged, CannotStore
from regcache.http.messages import Digest, Stored
from regcache.interfaces import IBody, IPartial, IStore
from regcache.revision import Revision

__all__ = ["MemoryStore"]

T = TypeVar("T")


@implementer(IBody)
class _MemoryBody:
    def __init__(self, data: bytes) -> None:
        self.size: int | None = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes | Deferred[bytes]:
        return self._data[offset : offset + length]

    def close(self) -> None:
        self._data = b""


@implementer(IPartial)
class _MemoryPartial:
    counted = False

    def __init__(self, observe: Callable[[bytes], object], most: int) -> None:
        self.data = bytearray()
        self._observe, self._most = observe, most

    @property
    def written(self) -> int:
        return len(self.data)

    def write(self, *pieces: bytes) -> Deferred[None]:
        data = b"".join(pieces)
        self._observe(data)
        if self._most and len(self.data) + len(data) > self._most:
            return fail(CannotStore("It has more bytes than it may."))
        self.data += data
        return succeed(None)

    def read(self, offset: int, length: int) -> bytes | Deferred[bytes]:
        return bytes(self.data[offset : offset + length])

    def examine(self, look: Callable[[BinaryIO], T]) -> Deferred[T]:
        return maybeDeferred(look, io.BytesIO(self.data))

    def retain(self) -> None:
        """Nothing: the bytes stay as long as anybody has them."""

    release = abort = retain


@implementer(IStore)
class MemoryStore:
    """
    A store that forgets everything with the process and never evicts.

    :ivar entries: what is stored, by key.
    :ivar blobs: the bodies, by their SHA-256.
    :ivar refuses: set it to make every attempt to store fail, as a full disk would.
    :ivar holds: while set, what is committed cannot be found yet; :meth:`release` makes it so.
    """

    crowded = False

    def __init__(self) -> None:
        self.entries: dict[str, Stored] = {}
        self.blobs: dict[str, bytes] = {}
        self.refuses = False
        self.holds = False
        self._held: list[tuple[Stored, bytes, Deferred[None]]] = []
        self.revision = Revision()

    def caught_up(self) -> Deferred[None]:
        """At once."""
        return succeed(None)

    def release(self) -> None:
        """What was held can be found now, and what comes from now on at once."""
        self.holds, held, self._held = False, self._held, []
        for entry, body, waiter in held:
            self.put(entry, body).chainDeferred(waiter)

    def peek(self, key: str) -> Stored | None:
        return self.entries.get(key)

    def glance(self, keys: Sequence[str]) -> list[Stored | None]:
        return [self.peek(key) for key in keys]

    def keep(self, entry: Stored) -> None:
        """Nothing: all is known of what is stored."""

    def find(self, key: str, beside: Sequence[str] = ()) -> Deferred[Stored | None]:
        del beside
        return succeed(self.peek(key))

    def find_all(self, keys: Sequence[str]) -> Deferred[dict[str, Stored]]:
        return succeed({key: self.entries[key] for key in keys if key in self.entries})

    def children(self, parent: str) -> Deferred[list[Stored]]:
        return succeed([entry for entry in self.entries.values() if entry.parent == parent])

    def open(self, entry: Stored) -> IBody:
        body = self.blobs.get(entry.digest)
        if body is None or len(body) != entry.size:
            self.entries.pop(entry.key, None)
            self.revision.another()
            raise BlobDamaged(f"{entry.key}: its body is missing or has another size.")
        return _MemoryBody(body)

    def read(self, entry: Stored) -> bytes | None:
        body = self.blobs.get(entry.digest)
        return body if body is not None and len(body) == entry.size else None

    def create(
        self,
        observe: Callable[[bytes], object] = bool,
        expected: int | None = None,
        most: int = 0,
    ) -> IPartial:
        if self.refuses:
            raise CannotStore("It was told to refuse.")
        if most and expected is not None and expected > most:
            raise CannotStore("It has more bytes than it may.")
        return _MemoryPartial(observe, most)

    def adopt(self, digest: Digest, observe: Callable[[bytes], object] = bool) -> Deferred[IPartial | None]:
        named = {entry.digest for entry in self.entries.values()} if digest.algorithm != "sha256" else set()
        for name, body in self.blobs.items():
            told = digest.algorithm in hashlib.algorithms_available and name not in named and not self.refuses
            if told and hashlib.new(digest.algorithm, body).hexdigest() == digest.value:
                partial = _MemoryPartial(observe, 0)
                partial.write(body)
                return succeed(partial)
        return succeed(None)

    def commit(self, partial: IPartial, entry: Stored) -> Deferred[None]:
        assert isinstance(partial, _MemoryPartial)
        return self.put(entry, bytes(partial.data))

    def put(self, entry: Stored, body: bytes) -> Deferred[None]:
        if self.refuses:
            return fail(CannotStore("It was told to refuse."))
        if self.holds:
            waiter: Deferred[None] = Deferred()
            self._held.append((entry, body, waiter))
            return waiter
        self.blobs[entry.digest] = body
        self.entries[entry.key] = entry
        self.revision.another()
        return succeed(None)

    def update(self, entry: Stored) -> None:
        if entry.key in self.entries:
            self.entries[entry.key] = entry
            self.revision.another()

    def drop(self, key: str) -> Deferred[None]:
        gone = self.entries.pop(key, None)
        self.revision.another()
        if gone is not None and all(entry.digest != gone.digest for entry in self.entries.values()):
            self.blobs.pop(gone.digest, None)
        return succeed(None)

    def used(self, key: str, now: float) -> None:
        """Nothing: nothing is ever evicted."""

    def usage(self) -> tuple[int, int]:
        return sum(map(len, self.blobs.values())), len(self.entries)
