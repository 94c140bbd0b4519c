"""What to drop when room is needed."""

from __future__ import annotations

from collections.abc import Callable

from regcache.http.messages import Kind

__all__ = ["plan"]

_BATCH = 500
#: Once eviction has begun it goes on to this share of the cap, so that it does not begin again at once.
_LOW = 0.95

Oldest = Callable[[Kind, int], list[tuple[str, int]]]


def plan(oldest: Oldest, *, allocated: int, room: int, max_size: int, wanted_free: int, going: bool) -> list[str]:
    """
    The keys to drop next, a bounded batch; none when there is room.

    What can be made again goes first, then artifacts, then the documents that name them; the least recently used of
    each.

    :param oldest: gives the least recently used entries of a kind, with their allocated bytes.
    :param allocated: bytes in use.
    :param room: bytes that are to come.
    :param max_size: bytes allowed; 0 for any.
    :param wanted_free: bytes by which the disk is too full; negative if it is not.
    :param going: whether this is the continuation of an eviction, which goes below the cap.
    """
    cap = int(max_size * _LOW) if going else max_size
    excess = max(allocated + room - cap if max_size else 0, wanted_free)
    chosen: list[str] = []
    for kind in (Kind.DERIVED, Kind.ARTIFACT, Kind.DOCUMENT):
        if excess <= 0 or len(chosen) >= _BATCH:
            break
        for key, size in oldest(kind, _BATCH - len(chosen)):
            if excess <= 0:
                break
            chosen.append(key)
            excess -= size
    return chosen
