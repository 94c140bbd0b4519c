"""The records looked up last, absence included, so that a hit touches no disk to find its entry."""

from __future__ import annotations

from collections import OrderedDict

from attrs import frozen

from regcache.http.messages import Stored
from regcache.revision import Revision

__all__ = ["Known", "Records"]

_MOST = 20_000
#: Bytes of their keys, addresses and fields, which are as long as clients and registries make them.
_MOST_BYTES = 32 << 20


@frozen
class Known:
    """
    What is known of a key: its entry, or that there is none.

    :ivar size: bytes of the texts in it.
    """

    entry: Stored | None
    size: int


def _size(key: str, entry: Stored | None) -> int:
    if entry is None:
        return len(key)
    fields = sum([len(name) + len(value) for name, value in entry.headers.items])
    return 2 * len(key) + len(entry.url) + len(entry.parent) + len(entry.source) + fields


class Records:
    """
    A bounded memory of look-ups; the least recently used are forgotten.

    :param revision: another one whenever something is said of a key that was not known of it, or it is to be forgotten.
    """

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._items: OrderedDict[str, Known] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Known | None:
        """What is known of a key, or None."""
        known = self._items.get(key)
        if known is not None:
            self._items.move_to_end(key)
        return known

    def put(self, key: str, entry: Stored | None) -> None:
        """Know this of a key."""
        before = self._items.pop(key, None)
        if before is None or before.entry is not entry:
            self._revision.another()
        if before is not None:
            self._bytes -= before.size
        known = self._items[key] = Known(entry, _size(key, entry))
        self._bytes += known.size
        while len(self._items) > _MOST or self._bytes > _MOST_BYTES:
            _, last = self._items.popitem(last=False)
            self._bytes -= last.size

    def drop(self, key: str) -> None:
        """Forget a key."""
        before = self._items.pop(key, None)
        if before is not None:
            self._bytes -= before.size
        self._revision.another()
