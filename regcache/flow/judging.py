"""Who says whether a body that has come is what was asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from regcache.flow.hashing import Hashing
from regcache.interfaces import IPartial

__all__ = ["Judge", "Judging"]


class Judge(Protocol):
    """Who says whether a body is good, and keeps it."""

    @property
    def hashing(self) -> Hashing:
        """Given what passes through; what is written tells it by itself."""

    @property
    def check(self) -> Callable[[int], Awaitable[bool]]:
        """
        Awaited with the number of bytes when all have come; raises if they are not good, and says whether the framing
        alone may be trusted for their number.
        """

    @property
    def commit(self) -> Callable[[IPartial, bool], Deferred[None]]:
        """Called with the partial when they are good; fires when it is stored."""


@frozen
class Judging:
    """A :class:`Judge` made of two functions."""

    hashing: Hashing
    check: Callable[[int], Awaitable[bool]]
    commit: Callable[[IPartial, bool], Deferred[None]]
