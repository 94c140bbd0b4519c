"""How much may still be written: the cap on the cache, the floor of the disk, and what is under way."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from regcache.errors import CannotStore

__all__ = ["Bounds", "Space"]


@define
class Bounds:
    """
    How much the cache may take. Both may change while it is in use, and hold from then on.

    :ivar max_size: bytes for the whole cache; 0 for any.
    :ivar min_free: bytes of the file system to leave free.
    """

    max_size: int
    min_free: int


class Space:
    """
    Room for bodies, counted before they are written, so that no number of them under way passes a bound.

    :param bounds: those that none may pass.
    :param allocated: says how many bytes the stored bodies take.
    :param make_room: told, without waiting, how many bytes are to come.
    """

    def __init__(self, bounds: Bounds, allocated: Callable[[], int], make_room: Callable[[int], object]) -> None:
        self._bounds = bounds
        self._allocated, self._make_room = allocated, make_room
        self._under_way = 0
        self._free: int | None = None
        self._since = 0

    def measured(self, free: int) -> None:
        """So many bytes of the file system are free now."""
        self._free, self._since = free, 0
        if free < self._bounds.min_free or 0 < self._bounds.max_size < self._allocated():
            self._make_room(0)

    def take(self, size: int) -> None:
        """
        So many more bytes are to be written.

        :raises regcache.errors.CannotStore: if they may not be; nothing is taken then.
        """
        coming = self._under_way + size
        if self._bounds.max_size and coming > self._bounds.max_size:
            raise CannotStore(f"More is under way than the cache holds (--max-size is {self._bounds.max_size}).")
        left = None if self._free is None else self._free - self._since - size
        if left is not None and left < self._bounds.min_free:
            self._make_room(size)
            raise CannotStore(f"The disk would have too little free (--min-free is {self._bounds.min_free}).")
        if self._bounds.max_size and self._allocated() + coming > self._bounds.max_size:
            self._make_room(coming)
        self._under_way += size
        self._since += size

    def is_tight(self, size: int) -> bool:
        """Whether something may have to go once so many bytes, which were taken before, are stored."""
        full = 0 < self._bounds.max_size < self._allocated() + size
        return full or (self._free is not None and self._free - self._since < self._bounds.min_free + size)

    def give_back(self, size: int) -> None:
        """So many of the bytes taken are stored by now, or gone."""
        self._under_way -= size
