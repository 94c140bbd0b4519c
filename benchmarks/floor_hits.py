"""
The least that a program of Twisted does for a hit: the raw head of a request is looked up, and what is found is sent.

    python -m benchmarks.floor_hits PORT URL [LOG]

A head that is not known yet is asked of the service at URL, whose answer is given from then on, byte for byte but for
its date and the request's name. With LOG a line of each request is written there.
"""

from __future__ import annotations

import itertools
import re
import socket
import sys
import time
from urllib.parse import urlsplit

from attrs import define
from twisted.internet.protocol import Factory

from benchmarks.floor import Client, Log, serve, told

__all__ = ["main"]

_VARYING = re.compile(rb"(.*\r\nDate: )[^\r]*(\r\n.*X-Request-Id: .*-)\d+(\r\n.*)", re.DOTALL)


@define
class Ready:
    """
    An answer.

    :ivar before: its head up to the date; ``behind`` that, up to the request's number; and its ``end``.
    :ivar said: what the log says of it, as well as ``about``.
    :ivar token: what all requests' names begin with.
    :ivar head: up to the number, as it is within this second.
    """

    before: bytes
    behind: bytes
    end: bytes
    body: bytes
    said: str
    about: str
    token: bytes
    head: bytes = b""


class Book:
    """All answers, by the raw heads of their requests."""

    def __init__(self, service: str, log: str) -> None:
        parts = urlsplit(service)
        self._service = parts.hostname, parts.port
        self.log, self.ready, self.numbers = Log(log), dict[bytes, Ready](), itertools.count()

    def tick(self, now: float) -> None:
        """Another second has begun."""
        self.log.tick(now)
        for one in self.ready.values():
            one.head = one.before + self.log.date + one.behind

    def learn(self, asked: bytes) -> Ready:
        """What the service answers."""
        with socket.create_connection(self._service) as connection, connection.makefile("rb") as answer:
            connection.sendall(asked)
            head = b"".join(iter(answer.readline, b"\r\n")) + b"\r\n"
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            status = int(head.split(b" ", 2)[1])
            bare = status == 304 or asked.startswith(b"HEAD ")
            body = answer.read(int(length[1])) if length and not bare else b""
        found = _VARYING.fullmatch(head)
        assert found is not None, head
        registry, _, package = asked.split(b" ")[1].decode()[1:].partition("/")
        about, token = f'"{registry}" "{package}" "hit"', found[2].rpartition(b": ")[2]
        made = Ready(found[1], found[2], found[3], body, told(asked, status, len(body)), about, token)
        self.ready[asked] = made
        self.log.until = 0
        return made


class Hit(Client):
    """Somebody who asks for what is known."""

    book: Book

    def dataReceived(self, data: bytes) -> None:
        began, now, book = time.monotonic(), time.time(), self.book
        ready = book.ready.get(data) or book.learn(data)
        if now >= book.log.until:
            book.tick(now)
        number = b"%d" % next(book.numbers)
        self.put(ready.head + number + ready.end, ready.body)
        book.log.note(self.host, ready.said, ready.token + number, ready.about, time.monotonic() - began)


def main() -> None:
    """As the command line says."""
    port, service, *log = sys.argv[1:]
    Hit.book = Book(service, log[0] if log else "")
    serve(port, Factory.forProtocol(Hit))


if __name__ == "__main__":
    main()
