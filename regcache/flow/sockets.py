"""The socket of a connection, to a client or to a registry, for what goes there past the buffer of its transport."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.web.http import HTTPChannel

from regcache.errors import RegCacheError

__all__ = ["PlainSocket"]

#: More follows at once: what is written is held back to go out with it. Where that cannot be said it goes by itself.
_MORE = getattr(socket, "MSG_MORE", 0)


class PlainSocket:
    """
    That of a transport whose other side reads just what the socket takes: plain TCP or UNIX, not TLS.

    Twisted offers no way to write past its buffer. What is used here of its transports is in each version since 12.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @classmethod
    def of(cls, channel: object) -> PlainSocket | None:
        """That of a client's connection, if it has one."""
        return cls.over(channel.transport) if isinstance(channel, HTTPChannel) else None

    @classmethod
    def over(cls, transport: object) -> PlainSocket | None:
        """That under a transport, whoever is on its other side, if it has one of that kind."""
        plain = isinstance(transport, FileDescriptor) and not getattr(transport, "TLS", False)
        return cls(transport) if plain else None

    @property
    def is_open(self) -> bool:
        """Whether there is still a connection."""
        return bool(self._transport.connected)

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits in the buffer, which would have to go first."""
        return not (self._transport.dataBuffer or self._transport._tempDataBuffer)

    @property
    def fd(self) -> int:
        """The socket's descriptor."""
        found: int = self._transport.fileno()
        return found

    def put(self, *pieces: bytes) -> int:
        """
        Write at once what the socket takes: how many bytes.

        It is none while something waits in the buffer, nor where the socket is broken; its transport finds that out.
        """
        transport = self._transport
        if transport.dataBuffer or transport._tempDataBuffer:
            return 0
        try:
            to = transport.socket
            sent: int = to.send(pieces[0]) if len(pieces) == 1 else to.sendmsg(pieces)
        except OSError:
            return 0
        return sent

    def put_before(self, head: bytes, body: Any, offset: int, length: int) -> int:
        """
        Likewise a head, and behind it some bytes of a file: how many of both.

        :param body: an :class:`regcache.interfaces.ISendable`; where it fails, whoever sends the rest finds out.
        """
        taken, sent, transport = 0, 0, self._transport
        if transport.dataBuffer or transport._tempDataBuffer:
            return 0
        try:
            to = transport.socket
            taken = to.send(head, _MORE)
            if taken == len(head):
                sent = body.send(to.fileno(), offset, length)
        except (OSError, RegCacheError):
            pass
        return taken + (sent if isinstance(sent, int) else 0)

    def wait(self) -> None:
        """Have the producer told, in a turn of the reactor's, when the buffer is clear and the socket takes more."""
        self._transport.producerPaused = True
        self._transport.startWriting()
