"""Which bodies may stand in the store, known without a look at the disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from regcache.store.blobs import InThread

__all__ = ["Presence"]

#: How many bits of a body's digest tell it from others here; the first eight are its directory.
_BITS = 21


class Presence:
    """
    What nearly every artifact that nobody has asked for yet is held against: whether its body stands there already.

    A look at the disk waits for whoever makes a file in the same directory. So each directory is listed once, in a
    thread, when it is first asked about, and what comes is noted. That says of a body that does not stand there that it
    may, now and then; it never says of one that stands there that it does not.

    :param blobs: the directory of all bodies, in which nobody else makes files.
    """

    def __init__(self, blobs: Path | str, in_thread: InThread) -> None:
        self._blobs, self._in_thread = blobs, in_thread
        # A byte each, since a thread writes as well.
        self._slots = bytearray(1 << _BITS)
        self._listed: set[str] = set()
        self._listing: set[str] = set()

    def comes(self, digest: str) -> None:
        """A body is about to be stored."""
        self._slots[_slot(digest)] = 1

    def may_hold(self, digest: str) -> bool:
        """Whether a body may stand there, by its SHA-256."""
        if self._slots[_slot(digest)]:
            return True
        name = digest[:2]
        if name in self._listed:
            return False
        if name not in self._listing:
            self._listing.add(name)
            self._in_thread(self._list, name).addCallbacks(
                lambda _: self._listed.add(name), lambda _: self._listing.discard(name)
            )
        return True

    def _list(self, name: str) -> None:
        for file in os.listdir(f"{self._blobs}/{name}"):
            # Whatever else lies there is no body.
            with contextlib.suppress(ValueError):
                self._slots[_slot(name + file)] = 1


def _slot(digest: str) -> int:
    return int(digest[:6], 16) >> (24 - _BITS)
