"""
The least that a program on Twisted can do for large files, as a measure for what regcache adds.

It sends one file to whoever asks for anything: by sendfile, in turns, past the buffer of the transport. It knows
neither caching nor ranges nor who asks, has no log and no timers, and does not look whether the file is in memory.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

__all__ = ["Client", "serve"]

#: The same turn as regcache's: with smaller ones many clients cost more, with larger ones no less.
_TURN = 4 << 20


@implementer(IPushProducer)
class Client(Protocol):
    """One connection: a request at a time, which is not read."""

    transport: Any

    def __init__(self) -> None:
        self._asked = b""
        self._file, self._at, self._size = -1, 0, 0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._asked += data
        if self._asked.endswith(b"\r\n\r\n"):
            self._asked = b""
            self._begin()

    def _begin(self) -> None:
        self._file = os.open(sys.argv[2], os.O_RDONLY)
        self._at, self._size = 0, os.fstat(self._file).st_size
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._size)
        self.transport.registerProducer(self, True)
        self._wait()

    def _wait(self) -> None:
        self.transport.producerPaused = True
        self.transport.startWriting()

    def resumeProducing(self) -> None:
        try:
            self._at += os.sendfile(self.transport.fileno(), self._file, self._at, min(_TURN, self._size - self._at))
        except BlockingIOError:
            pass
        except OSError:
            # The transport finds out.
            return
        if self._at < self._size:
            self._wait()
        else:
            self.transport.unregisterProducer()
            self._close()

    def pauseProducing(self) -> None:
        """It pauses after each turn."""

    def stopProducing(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def serve(port: int, client: type[Protocol]) -> None:
    """Listen there until the process is ended."""
    run: Any = reactor
    run.listenTCP(port, Factory.forProtocol(client), interface="127.0.0.1", backlog=512)
    run.run()


if __name__ == "__main__":
    # The port, and the file.
    serve(int(sys.argv[1]), Client)
