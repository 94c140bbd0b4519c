"""
The least that a program on Twisted can do for a large body that comes, as a measure for what regcache adds.

It asks its upstream for what it is asked for, reads the body into buffers that it uses again, hashes and writes them
in one thread beside the reactor, and sends from the growing file, except the end, which waits for the digest. It knows
no other framing than a length, one reader a body, no errors, no timers and no limits; nothing is stored for the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from benchmarks.floor_large import serve

#: As many of that size as were found best.
_BUFFERS, _SIZE = 4, 1 << 19
_HELD_BACK = 8192

_jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
_run: Any = reactor


def _work() -> None:
    while True:
        _jobs.get()()


class _Source(FileDescriptor):
    """The connection to the upstream, read into buffers of our own."""

    def __init__(self, target: bytes, fill: _Fill) -> None:
        super().__init__(reactor)
        self.socket = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        self.socket.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        self.socket.setblocking(False)
        self._head: bytes | None = b""
        self._fill = fill
        self.connected = 1
        self.go_on()

    def go_on(self) -> None:
        """Read."""
        _run.addReader(self)

    def pause(self) -> None:
        """Read no more for now."""
        _run.removeReader(self)

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> None:
        if self._head is None:
            self._fill.read(self.socket)
            return
        self._head += self.socket.recv(65536)
        head, end, body = self._head.partition(b"\r\n\r\n")
        if end:
            self._head = None
            self._fill.begin(head + end, body)

    def connectionLost(self, _reason: object) -> None:
        self.pause()
        self.socket.close()


@implementer(IPushProducer)
class _Fill:
    """One body on its way from the upstream to the file and to the client."""

    def __init__(self, transport: Any, target: bytes) -> None:
        self._transport = transport
        path = os.path.join(sys.argv[3], f"{id(self)}")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._hash = hashlib.sha256()
        self._free = [memoryview(bytearray(_SIZE)) for _ in range(_BUFFERS)]
        self._filling, self._filled = self._free.pop(), 0
        self._ready: list[memoryview] = []
        self._busy = self._waiting = False
        self._total = self._arrived = self._written = self._sent = 0
        self._source = _Source(target, self)

    def begin(self, head: bytes, body: bytes) -> None:
        """The head is here, and perhaps some of the body."""
        self._total = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self._filling[: len(body)] = body
        self._filled = self._arrived = len(body)
        self._transport.write(head)
        self._transport.registerProducer(self, True)

    def read(self, source: socket.socket) -> None:
        """Some of the body is here."""
        got = source.recv_into(self._filling[self._filled :])
        self._filled += got
        self._arrived += got
        if not self._busy or self._filled == _SIZE or self._arrived == self._total:
            self._ready.append(self._filling[: self._filled])
            self._go_on()
            self._next_buffer()

    def _next_buffer(self) -> None:
        self._filled = 0
        if self._free and self._arrived < self._total:
            self._filling = self._free.pop()
        else:
            self._source.pause()
            self._filling = memoryview(b"")

    def _go_on(self) -> None:
        if self._ready and not self._busy:
            self._busy = True
            pieces, self._ready = self._ready, []
            _jobs.put(lambda: self._append(pieces))

    def _append(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self._hash.update(piece)
        _run.callFromThread(self._appended, pieces, os.pwritev(self._file, pieces, self._written))

    def _appended(self, pieces: list[memoryview], done: int) -> None:
        self._busy = False
        self._written += done
        self._free += [memoryview(piece.obj) for piece in pieces]
        self._go_on()
        if not self._filling and self._arrived < self._total:
            self._next_buffer()
            self._source.go_on()
        if not self._waiting:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        self._waiting = False
        end = self._written
        if end < self._total:
            end -= _HELD_BACK
        else:
            self._hash.digest()
        if end > self._sent and not (self._transport.dataBuffer or self._transport._tempDataBuffer):
            with contextlib.suppress(BlockingIOError):
                self._sent += os.sendfile(self._transport.fileno(), self._file, self._sent, end - self._sent)
        if self._sent == self._total:
            self._transport.unregisterProducer()
            self._source.connectionLost(None)
            os.close(self._file)
        elif self._sent < end:
            self._waiting = self._transport.producerPaused = True
            self._transport.startWriting()

    def pauseProducing(self) -> None:
        """It pauses after each turn."""

    def stopProducing(self) -> None:
        """Its client is gone: there is nothing to do that matters here."""


class _Client(Protocol):
    """One connection: a request at a time."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        _Fill(self.transport, data.split(b" ", 2)[1])


if __name__ == "__main__":
    # The port, that of the upstream, and a directory.
    threading.Thread(target=_work, daemon=True).start()
    serve(int(sys.argv[1]), _Client)
