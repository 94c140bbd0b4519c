"""Reading stored bodies whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from regcache.errors import BlobDamaged
from regcache.flow.large import LARGE, joined
from regcache.http.messages import Stored
from regcache.interfaces import IStore

__all__ = ["read_all"]

_PIECE = 1 << 18


async def read_all(
    store: IStore, entry: Stored, in_thread: Callable[..., Deferred[Any]] = maybeDeferred
) -> bytes | None:
    """
    The whole body of an entry, or None if it is damaged; the store drops the entry then.

    :param in_thread: runs a function beside the reactor.
    """
    try:
        body = store.open(entry)
    except BlobDamaged:
        return None
    pieces: list[bytes] = []
    at = 0
    try:
        while at < entry.size:
            piece = body.read(at, _PIECE)
            if not isinstance(piece, bytes):
                piece = await piece
            if not piece:
                return None
            pieces.append(piece)
            at += len(piece)
            if at // LARGE > (at - len(piece)) // LARGE:
                # However much of it is at hand, it is the others' turn now.
                await in_thread(int)
    finally:
        body.close()
    whole: bytes = await in_thread(joined, pieces) if at > LARGE else joined(pieces)
    return whole
