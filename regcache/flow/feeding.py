"""The body of a request on its way to an upstream, in pieces."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

__all__ = ["Feeding", "size_of"]

#: Bytes of a file that are sent at once.
_PIECE = 1 << 16


def size_of(body: bytes | BinaryIO) -> int:
    """How many bytes a body has; one that is a file is at its beginning then."""
    if isinstance(body, bytes):
        return len(body)
    size = body.seek(0, io.SEEK_END)
    body.seek(0)
    return size


@implementer(IPullProducer)
class Feeding:
    """
    Sends a file as a connection takes it.

    :ivar done: whether all of it is sent.
    """

    def __init__(self, content: BinaryIO, transport: Any) -> None:
        self.done = False
        self._content, self._transport = content, transport

    def resumeProducing(self) -> None:
        try:
            data = self._content.read(_PIECE)
        except (OSError, ValueError):
            # Whoever sent it has left, and it is gone.
            self._transport.abortConnection()
            return
        if data:
            self._transport.write(data)
        else:
            self.done = True
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is gone."""
