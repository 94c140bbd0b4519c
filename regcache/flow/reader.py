"""One client's view of a body that is still coming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from regcache.interfaces import IBody, ISendable

if TYPE_CHECKING:
    from regcache.flow.transfer import Transfer

__all__ = ["Reader"]


@implementer(IBody, ISendable)
class Reader:
    """
    One client's view of a transfer.

    :ivar position: what it has asked for last.
    :ivar before: the same, when the window was last found full.
    :ivar lost: whether it was left behind.
    """

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self.position = 0
        self.before = 0
        self.lost = False
        self.closed = False

    @property
    def size(self) -> int | None:
        return self.transfer.total

    def read(self, offset: int, length: int) -> bytes | Deferred[bytes]:
        self.position = offset
        return self.transfer.read(self, offset, length)

    def send(self, fd: int, offset: int, length: int) -> int | Deferred[Any] | None:
        self.position = offset
        return self.transfer.send(fd, offset, length)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.transfer.left(self)
