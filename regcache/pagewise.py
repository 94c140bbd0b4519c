"""
What the commands are told of many entries: a part at a time, alike by a running service and of a stopped one's cache.

However many entries there are, neither the service nor the command has all of them in its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regcache.outlook import summary
from regcache.store.listing import Listed

__all__ = ["DOCUMENTS_AT_ONCE", "ENTRIES_AT_ONCE", "listing", "purged", "reading_on"]

#: Entries in one part, and in one transaction.
ENTRIES_AT_ONCE = 500
#: Documents that are asked for in one part: each may take as long as a registry does.
DOCUMENTS_AT_ONCE = 10


def reading_on(found: Sequence[Listed], limit: int) -> str | None:
    """The key behind which the next part begins; None behind the last."""
    return found[-1].entry.key if len(found) == limit else None


def listing(found: Sequence[Listed], now: float) -> dict[str, Any]:
    """A part of a list."""
    return {"entries": [summary(one, now) for one in found], "next": reading_on(found, ENTRIES_AT_ONCE)}


def purged(found: Sequence[Listed]) -> dict[str, Any]:
    """A part of what was purged; bytes are those on the disk."""
    return {
        "purged": [one.entry.key for one in found],
        "bytes": sum(one.allocated for one in found),
        "next": reading_on(found, ENTRIES_AT_ONCE),
    }
