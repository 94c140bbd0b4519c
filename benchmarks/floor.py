"""
What the minimal programs share: how a request is read, answered and logged, with nothing that a program of Twisted can
leave out.

They are a measure for what cannot be had: no program that answers from Python by Twisted's reactor, and does that much,
does it for less. Each connection brings one whole head at a time; nothing is refused, bounded, or ended in order.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory, Protocol

__all__ = ["Client", "Log", "serve", "told"]

#: As those of the service: bytes of lines that are written together, and the seconds for which they may wait.
_BATCH, _EVERY = 1 << 16, 0.5


class Log:
    """
    The access log: lines with the facts of the service's own, written in a thread.

    :param path: of its file; empty for none.
    :ivar until: when the next second begins: :attr:`date` and the stamp of the lines are of this one.
    """

    def __init__(self, path: str) -> None:
        self.path, self.until, self.date, self._stamp = path, 0.0, b"", ""
        self.counted, self._lines, self._size, self._timed = 0, list[str](), 0, False

    def tick(self, now: float) -> None:
        """Another second has begun."""
        at = time.gmtime(now)
        self.until = int(now) + 1
        self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", at).encode()
        self._stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", at)

    def note(self, client: str, said: str, name: bytes, about: str, seconds: float) -> None:
        """
        A request was answered.

        :param said: the request line, status, bytes, referer and agent.
        :param name: the request's own.
        :param about: registry, package and outcome.
        """
        self.counted += 1
        if not self.path:
            return
        line = f'{client} - - [{self._stamp}] {said} "{name.decode()}" {about} "-" "{seconds:.3f}"\n'
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BATCH:
            self._flush()
        elif not self._timed:
            self._timed = True
            reactor.callLater(_EVERY, self._late)

    def _late(self) -> None:
        self._timed = False
        self._flush()

    def _flush(self) -> None:
        lines, self._lines, self._size = self._lines, [], 0
        in_thread: Any = reactor
        in_thread.callInThread(self._write, lines)

    def _write(self, lines: list[str]) -> None:
        with Path(self.path).open("a") as file:
            file.write("".join(lines))


def told(head: bytes, status: int, sent: int) -> str:
    """What a line of the log says of a request and its answer."""
    line = head.partition(b"\r\n")[0].decode()
    fields = (re.search(rb"(?i)\r\n%s:[ \t]*([^\r]*)" % name, head) for name in (b"referer", b"user-agent"))
    referer, agent = (found[1].decode("latin-1") if found else "-" for found in fields)
    return f'"{line}" {status} {sent} "{referer}" "{agent}"'


class Client(Protocol):
    """A connection of somebody who asks for one thing after the other."""

    transport: Any
    host = ""

    def connectionMade(self) -> None:
        self.host = self.transport.getPeer().host
        self.transport.setTcpNoDelay(True)

    def put(self, head: bytes, body: bytes) -> None:
        """Send an answer, at once as far as the socket takes it."""
        try:
            taken = self.transport.socket.sendmsg((head, body))
        except BlockingIOError:
            taken = 0
        if taken < len(head) + len(body):
            self.transport.write((head + body)[taken:])


def serve(port: str, factory: Factory) -> None:
    """Until somebody ends it."""
    endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1:backlog=1024").listen(factory)
    reactor.run()
