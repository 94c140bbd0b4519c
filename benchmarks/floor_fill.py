"""
The least that a program of Twisted does for artifacts that nobody has asked for yet, if it checks and keeps them.

    python -m benchmarks.floor_fill PORT URL DIRECTORY CLIENT [LOG]

An artifact is fetched from the upstream at URL, held against the digest that its index page has for it, sent, and kept
in DIRECTORY so that it outlives a power cut: a file of its own, and a row in SQLite, many in one transaction. CLIENT is
``agent`` for Twisted's own, or ``bare`` for one that does only this. Nothing is shared between those who ask, bounded,
evicted, or asked for again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, readBody

from benchmarks.floor import Client, Log, serve, told

__all__ = ["main"]

#: As the service: bytes and seconds for which bodies are gathered, and bytes that may wait for the disk.
_BATCH, _EVERY, _MOST_WAITING = 8 << 20, 1.0, 16 << 20
_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: floor\r\nDate: %b\r\nContent-Type: application/octet-stream\r\n"
    b'Cache-Control: public, max-age=31536000, immutable\r\nETag: "%d"\r\nAccept-Ranges: bytes\r\nX-Cache: MISS\r\n'
    b"Cache-Status: floor; fwd=uri-miss; stored\r\nVia: 1.1 floor\r\nContent-Length: %d\r\nX-Request-Id: %b\r\n\r\n"
)
Got = Callable[[bytes], object]
Waiting = tuple[bytes, str, bytes]


class ByAgent:
    """Twisted's own client, with connections that are kept."""

    def __init__(self, url: str) -> None:
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = 64
        self._agent, self._url = Agent(reactor, pool=pool), url.rstrip("/").encode()

    def get(self, path: bytes, got: Got) -> None:
        """Have the body that is there."""
        asked: Any = self._agent.request(b"GET", self._url + path)
        asked.addCallback(readBody).addCallback(got)


class Exchange(Protocol):
    """A connection to the upstream, on which one thing is asked for after the other."""

    transport: Any

    def __init__(self, idle: list[Exchange]) -> None:
        self._idle, self._came, self._whole = idle, b"", 0

    def ask(self, request: bytes, got: Got) -> Exchange:
        """Have a body."""
        self._got = got
        self.transport.write(request)
        return self

    def dataReceived(self, data: bytes) -> None:
        self._came += data
        if not self._whole and (end := self._came.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._came[: end + 2])
            assert length is not None
            self._body, self._whole = end + 4, end + 4 + int(length[1])
        if self._whole and len(self._came) >= self._whole:
            body, self._came, self._whole = self._came[self._body :], b"", 0
            self._idle.append(self)
            self._got(body)


class Bare:
    """No more than what this takes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._endpoint = HostnameEndpoint(reactor, parts.hostname or "", parts.port or 80)
        self._fields = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._idle: list[Exchange] = []

    def get(self, path: bytes, got: Got) -> None:
        """Have the body that is there."""
        request = b"GET " + path + self._fields
        if self._idle:
            self._idle.pop().ask(request, got)
            return
        made: Any = connectProtocol(self._endpoint, Exchange(self._idle))
        made.addCallback(Exchange.ask, request, got)


def _broken(failure: Failure) -> None:
    """What does not store is no measure."""
    failure.printTraceback()
    os._exit(1)


class Store:
    """Bodies in files that are named by their digests, their paths in SQLite: what is here outlives a power cut."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._numbers = directory, itertools.count()
        for number in range(256):
            (directory / f"{number:02x}").mkdir()
        self._rows = sqlite3.connect(directory / "index.sqlite3", check_same_thread=False, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute("PRAGMA synchronous=NORMAL")
        self._rows.execute("CREATE TABLE entries (path PRIMARY KEY, digest, size, stored_at) WITHOUT ROWID")
        self._kept: dict[bytes, bytes | str] = {}
        self._waiting, self._size, self._timed, self._writing = list[Waiting](), 0, False, False
        self._late: list[Callable[[], object]] = []

    def find(self, path: bytes) -> bytes | None:
        """What is kept of that."""
        found = self._kept.get(path)
        return self._place(found).read_bytes() if isinstance(found, str) else found

    def put(self, path: bytes, digest: str, body: bytes, then: Callable[[], object]) -> None:
        """Keep a body, and go on with that: at once, unless the disk is far behind."""
        self._kept[path] = body
        self._waiting.append((path, digest, body))
        self._size += len(body)
        if self._size >= _BATCH:
            self._flush()
        elif not self._timed:
            self._timed = True
            later: Any = reactor
            later.callLater(_EVERY, self._flush)
        if self._size > _MOST_WAITING:
            self._late.append(then)
        else:
            then()

    def _place(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest[2:]

    def _flush(self) -> None:
        self._timed = False
        if not self._writing and self._waiting:
            self._writing = True
            batch, self._waiting = self._waiting, []
            deferToThread(self._write, batch).addCallback(self._written, batch).addErrback(_broken)

    def _written(self, _result: object, batch: list[Waiting]) -> None:
        self._writing = False
        for path, digest, body in batch:
            self._kept[path] = digest
            self._size -= len(body)
        late, self._late = self._late, []
        for then in late:
            then()
        self._flush()

    # In a thread.

    def _write(self, batch: list[Waiting]) -> None:
        for _, digest, body in batch:
            partial_path = self._directory / f"{next(self._numbers)}.partial"
            fd = os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(fd, body)
            os.fsync(fd)
            os.close(fd)
            os.rename(partial_path, self._place(digest))
        for name in {digest[:2] for _, digest, _ in batch}:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(fd)
            os.close(fd)
        now = time.time()
        self._rows.execute("BEGIN IMMEDIATE")
        rows = ((path, digest, len(body), now) for path, digest, body in batch)
        self._rows.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
        self._rows.execute("COMMIT")


class Fill(Client):
    """Somebody who asks for artifacts, and for the pages that have their digests."""

    upstream: ByAgent | Bare
    store: Store
    log: Log
    digests: dict[bytes, str] = {}
    numbers = itertools.count()

    def dataReceived(self, data: bytes) -> None:
        began, path = time.monotonic(), data.split(b" ", 2)[1]
        kept = self.store.find(path)
        if kept is not None:
            self._answer(data, began, kept)
        elif path.startswith(b"/simple/"):
            self.upstream.get(path, partial(self._page, data, began))
        else:
            self.upstream.get(path, partial(self._artifact, path, data, began))

    def _page(self, asked: bytes, began: float, body: bytes) -> None:
        for one in json.loads(body)["files"]:
            self.digests[urlsplit(one["url"]).path.encode()] = one["hashes"]["sha256"]
        self._answer(asked, began, body)

    def _artifact(self, path: bytes, asked: bytes, began: float, body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        if digest == self.digests.get(path):
            self.store.put(path, digest, body, partial(self._answer, asked, began, body))
        else:
            self.transport.abortConnection()

    def _answer(self, asked: bytes, began: float, body: bytes) -> None:
        now, number = time.time(), next(self.numbers)
        if now >= self.log.until:
            self.log.tick(now)
        name = b"floor-%d" % number
        self.put(_HEAD % (self.log.date, number, len(body), name), body)
        self.log.note(self.host, told(asked, 200, len(body)), name, '"-" "-" "miss"', time.monotonic() - began)


def main() -> None:
    """As the command line says."""
    port, url, directory, client, *log = sys.argv[1:]
    Fill.upstream = ByAgent(url) if client == "agent" else Bare(url)
    Fill.store, Fill.log = Store(Path(directory)), Log(log[0] if log else "")
    serve(port, Factory.forProtocol(Fill))


if __name__ == "__main__":
    main()
