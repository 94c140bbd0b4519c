"""
A registry that fails on command: real sockets on loopback, and any bytes at any time.

What it has it serves as registries do; while a *script* is set, every answer is what the script makes of it, byte by
byte: a part of it, nothing, something else, slowly, and an end of any kind.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import evolve, frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

__all__ = ["INDEX_TYPE", "Asked", "End", "Faulty", "Page", "Script", "Step", "head_of", "well", "wire"]

INDEX_TYPE = "application/vnd.pypi.simple.v1+json"


class End(enum.Enum):
    """How a script ends, if not with its connection kept: closed in order, reset, or silent for ever."""

    CLOSE = enum.auto()
    RESET = enum.auto()
    SILENCE = enum.auto()


#: Bytes to send, seconds to wait, or the end.
Step = bytes | float | End


@frozen
class Page:
    """An answer: what a registry that is well sends, or what a script makes of it."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/octet-stream"
    fields: tuple[tuple[str, str], ...] = ()


@frozen
class Asked:
    """
    A request.

    :ivar number: which of its connection's it is, from 1.
    """

    method: str
    path: str
    fields: dict[str, str]
    number: int = 1


Script = Callable[[Asked, Page], Iterable[Step]]


def head_of(page: Page, length: int | None, *, chunked: bool = False) -> bytes:
    """The head of an answer, with that length or none, or in chunks."""
    lines = [f"HTTP/1.1 {page.status} Status", f"Content-Type: {page.kind}"]
    lines += [f"{name}: {value}" for name, value in page.fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def wire(asked: Asked, page: Page) -> bytes:
    """An answer as it should be sent."""
    bodiless = asked.method == "HEAD" or page.status in (204, 304)
    return head_of(page, len(page.body)) + (b"" if bodiless else page.body)


def well(asked: Asked, page: Page) -> Iterable[Step]:
    """A registry's answer, to a conditional request as well."""
    etag = dict(page.fields).get("ETag")
    if etag is not None and asked.fields.get("if-none-match") == etag:
        page = evolve(page, status=304, body=b"")
    return [wire(asked, page)]


class _Served(Protocol):
    """One connection."""

    transport: Any

    def __init__(self, registry: Faulty) -> None:
        self._registry = registry
        self._unread = b""
        self._number = 0
        self._steps: Iterator[Step] | None = None
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._registry.connections.add(self)
        self._registry.accepted += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del reason
        self._registry.connections.discard(self)
        self._steps = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, _, self._unread = self._unread.partition(b"\r\n\r\n")
            self._number += 1
            line, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = line.split(" ", 2)
            fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
            self._steps = iter(self._registry.answer(Asked(method, path, fields, self._number)))
            self._go_on()

    def _go_on(self) -> None:
        steps = self._steps
        for step in steps or ():
            if isinstance(step, float):
                self._timer = self._registry.reactor.callLater(step, self._go_on)
                return
            if isinstance(step, bytes):
                self.transport.write(step)
            elif step is End.CLOSE:
                self.transport.loseConnection()
            elif step is End.RESET:
                self.transport.abortConnection()
            if self._steps is not steps or isinstance(step, End):
                return

    def drop(self) -> None:
        """End it."""
        self.transport.abortConnection()


class _Shown:
    """A context factory: each new connection gets the certificate that is shown now."""

    def __init__(self, registry: Faulty) -> None:
        self._registry = registry

    def getContext(self) -> SSL.Context:
        assert self._registry.shown is not None
        return self._registry.shown


class Faulty(Factory):
    """
    The registry.

    :ivar script: what becomes of every answer; None while all is well.
    :ivar shown: the certificate that is shown; None for plain HTTP.
    :ivar asked: the requests that came, in order.
    :ivar accepted: how many connections were made.
    :ivar connections: those that are open.
    """

    noisy = False

    def __init__(self, reactor: Any, shown: SSL.Context | None = None) -> None:
        self.reactor = reactor
        self.script: Script | None = None
        self.shown = shown
        self.asked: list[Asked] = []
        self.accepted = 0
        self.connections: set[_Served] = set()
        self.port = 0
        self._pages: dict[str, Page] = {}
        self._listening: Any = None

    def buildProtocol(self, _address: object) -> _Served:
        return _Served(self)

    # Its door.

    def listen(self) -> None:
        """Take connections, on the same port each time."""
        if self._listening is not None:
            return
        there = {"interface": "127.0.0.1", "backlog": 1024}
        if self.shown is None:
            self._listening = self.reactor.listenTCP(self.port, self, **there)
        else:
            self._listening = self.reactor.listenSSL(self.port, self, _Shown(self), **there)
        self.port = self._listening.getHost().port

    async def refuse(self) -> None:
        """Take no more connections, and end those that are open."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        self.drop()

    def drop(self) -> None:
        """End the connections that are open."""
        for connection in list(self.connections):
            connection.drop()

    # What it has.

    def url(self, host: str) -> str:
        """Its root, under that name."""
        return f"http{'s' if self.shown is not None else ''}://{host}:{self.port}/"

    def publish(self, name: str, host: str) -> bytes:
        """
        Have a project with one file, and the same file in a tree where nothing vouches for it.

        :returns: the file.
        """
        body = hashlib.shake_256(name.encode()).digest(40_000)
        file = f"{name}-1.0.tar.gz"
        link = {
            "filename": file,
            "url": f"{self.url(host)}packages/{file}",
            "hashes": {"sha256": hashlib.sha256(body).hexdigest()},
            "size": len(body),
        }
        index = {"meta": {"api-version": "1.1"}, "name": name, "versions": ["1.0"], "files": [link]}
        self.put(f"/simple/{name}/", Page(body=json.dumps(index).encode(), kind=INDEX_TYPE))
        self.put(f"/packages/{file}", Page(body=body))
        self.put(f"/tree/{name}", Page(body=body))
        return body

    def put(self, path: str, page: Page) -> None:
        """Have a page, with a validator of its own."""
        etag = f'"{hashlib.sha256(page.body).hexdigest()[:12]}"'
        self._pages[path] = evolve(page, fields=(*page.fields, ("ETag", etag)))

    def answer(self, asked: Asked) -> Iterable[Step]:
        """What is sent for a request."""
        self.asked.append(asked)
        return (self.script or well)(asked, self.page(asked.path))

    def page(self, path: str) -> Page:
        """What it has at that path."""
        return self._pages.get(path, Page(404, b"none\n", "text/plain"))
