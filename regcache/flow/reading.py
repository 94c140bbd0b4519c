"""Reading stored bodies whole."""

from __future__ import annotations

from regcache.errors import BlobDamaged
from regcache.http.messages import Stored
from regcache.interfaces import IStore

__all__ = ["read_all"]

_PIECE = 1 << 18


async def read_all(store: IStore, entry: Stored) -> bytes | None:
    """The whole body of an entry, or None if it is damaged; the store drops the entry then."""
    try:
        body = store.open(entry)
    except BlobDamaged:
        return None
    pieces, at = [], 0
    try:
        while at < entry.size:
            piece = body.read(at, _PIECE)
            if not isinstance(piece, bytes):
                piece = await piece
            if not piece:
                return None
            pieces.append(piece)
            at += len(piece)
    finally:
        body.close()
    return b"".join(pieces)
