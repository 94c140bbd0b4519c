"""The part of a body that is in memory, when it passes through without being stored."""

from __future__ import annotations

from collections import deque

from regcache.errors import CutShort

__all__ = ["Window"]

_WINDOW = 1 << 20
_PIECE = 1 << 16


class Window:
    """
    Some bytes of a body, from one offset to another: grown at its end, forgotten at its beginning.

    :ivar start: the offset of its first byte within the body.
    :ivar end: that behind its last.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = self.end = start
        self._pieces: deque[bytes] = deque()

    @property
    def full(self) -> bool:
        """Whether no more should come before some is forgotten."""
        return self.end - self.start >= _WINDOW

    def append(self, data: bytes) -> None:
        """Some bytes came."""
        # In pieces, so that one that all have read makes room, however much came at once.
        self._pieces.extend(data[at : at + _PIECE] for at in range(0, len(data), _PIECE))
        self.end += len(data)

    def read(self, offset: int, length: int) -> bytes:
        """
        Some bytes from ``offset``; none from its end on.

        :raises regcache.errors.CutShort: if they are forgotten.
        """
        if offset < self.start:
            raise CutShort("This reader was too slow for a body that could not be stored.")
        start = self.start
        for piece in self._pieces:
            if offset < start + len(piece):
                return piece[offset - start : offset - start + length]
            start += len(piece)
        return b""

    def forget(self, offset: int) -> None:
        """Nobody needs what is before ``offset``."""
        while self._pieces and self.start + len(self._pieces[0]) <= offset:
            self.start += len(self._pieces.popleft())

    def clear(self) -> None:
        """Nobody needs any of it."""
        self._pieces.clear()
