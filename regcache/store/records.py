"""The records looked up last, absence included, so that a hit touches no disk to find its entry."""

from __future__ import annotations

from collections import OrderedDict

from attrs import frozen

from regcache.http.messages import Stored
from regcache.revision import Revision

__all__ = ["Known", "Records"]

_MOST = 20_000


@frozen
class Known:
    """What is known of a key: its entry, or that there is none."""

    entry: Stored | None


class Records:
    """
    A bounded memory of look-ups; the least recently used are forgotten.

    :param revision: another one whenever something is said of a key that was not known of it, or it is to be forgotten.
    """

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._items: OrderedDict[str, Known] = OrderedDict()

    def get(self, key: str) -> Known | None:
        """What is known of a key, or None."""
        known = self._items.get(key)
        if known is not None:
            self._items.move_to_end(key)
        return known

    def put(self, key: str, entry: Stored | None) -> None:
        """Know this of a key."""
        before = self._items.get(key)
        if before is None or before.entry is not entry:
            self._revision.another()
        self._items[key] = Known(entry)
        self._items.move_to_end(key)
        if len(self._items) > _MOST:
            self._items.popitem(last=False)

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._items.pop(key, None)
        self._revision.another()
