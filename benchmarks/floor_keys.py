"""
The least that a program of Twisted does for entries of a large store that are asked for at random.

    python -m benchmarks.floor_keys PORT DIRECTORY USES

It reads the cache in DIRECTORY, as it stands: the row of an entry is looked up by its key, its body is read from its
file, which has to be of the right size, and both are sent. Nobody is refused, nothing is weighed, counted or logged.

USES is ``noted`` to write down when each was used and how often, in the rows, as many at a time as the service does:
whoever evicts what was used longest ago cannot leave that out. ``ignored`` leaves it out, and so shows what it costs.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.protocol import Factory

from benchmarks.floor import Client, Log, serve
from regcache.store.index import Index, connect

__all__ = ["main"]

#: As the service: entries whose use is noted together.
_MOST_USES = 1000
#: As the service: many rows are read as of the same moment, as long as nothing is written.
_MOMENT = 1.0
_ROW = "SELECT headers, digest, size, validated_at FROM entries WHERE key = ?"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nCache-Control: public, max-age=31536000, immutable\r\n"
    b'Accept-Ranges: bytes\r\nETag: "%b"\r\nAge: %d\r\nX-Cache: HIT\r\nCache-Status: floor; hit\r\nDate: %b\r\n'
    b"Server: floor\r\nVia: 1.1 floor\r\nContent-Length: %d\r\nX-Request-Id: floor-%d\r\n\r\n"
)
_fields = msgspec.msgpack.Decoder(tuple[tuple[str, str], ...]).decode


class Uses:
    """When entries were used and how often, noted in a thread, one batch after the other."""

    def __init__(self, path: Path) -> None:
        self._index = Index(connect(path))
        self._uses: dict[str, tuple[float, int]] = {}
        self._noting = False

    def used(self, key: str, now: float) -> bool:
        """An entry was sent; whether many are to be noted now."""
        known = self._uses.get(key)
        self._uses[key] = now, 1 if known is None else known[1] + 1
        return len(self._uses) >= _MOST_USES and not self._noting

    def note(self) -> None:
        """Have them noted."""
        self._noting = True
        uses, self._uses = self._uses, {}
        in_thread: Any = reactor
        in_thread.callInThread(self._write, [(key, *use) for key, use in uses.items()])

    def _write(self, uses: list[tuple[str, float, int]]) -> None:
        # Not by the methods of the index: they write its totals as well, which another process keeps.
        self._index.connection.execute("BEGIN IMMEDIATE")
        self._index.touch(uses)
        self._index.connection.execute("COMMIT")
        self._noting = False


class Store:
    """
    What is stored, to be read.

    :param directory: that of the cache.
    :param noted: whether it is noted what is used.
    """

    def __init__(self, directory: Path, *, noted: bool) -> None:
        self._blobs = f"{directory}/blobs"
        self._rows = connect(directory / "index.sqlite3", readonly=True)
        self._uses = Uses(directory / "index.sqlite3") if noted else None
        self._timed = False

    def used(self, key: str, now: float) -> None:
        """An entry was sent."""
        if self._uses is not None and self._uses.used(key, now):
            # The log of the index is not begun anew while anybody reads.
            self._rows.rollback()
            self._uses.note()

    def find(self, key: str) -> tuple[bytes, str, float, bytes]:
        """An entry's type, digest, and when it was found good, and its body."""
        if not self._rows.in_transaction:
            self._rows.execute("BEGIN")
            if not self._timed:
                self._timed = True
                later: Any = reactor
                later.callLater(_MOMENT, self._moment_over)
        headers, digest, size, validated_at = self._rows.execute(_ROW, (key,)).fetchone()
        fd = os.open(f"{self._blobs}/{digest[:2]}/{digest[2:]}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            body = os.read(fd, size + 1)
        finally:
            os.close(fd)
        assert len(body) == size
        return dict(_fields(headers))["content-type"].encode(), digest, validated_at, body

    def _moment_over(self) -> None:
        self._timed = False
        self._rows.rollback()


class Key(Client):
    """Somebody who asks for what is stored."""

    store: Store
    log = Log("")
    numbers = itertools.count()

    def dataReceived(self, data: bytes) -> None:
        now = time.time()
        if now >= self.log.until:
            self.log.tick(now)
        key = data[5 : data.index(b" ", 5)].decode()
        kind, digest, since, body = self.store.find(key)
        number, age = next(self.numbers), max(int(now - since), 0)
        self.put(_HEAD % (kind, digest[:40].encode(), age, self.log.date, len(body), number), body)
        self.store.used(key, now)


def main() -> None:
    """As the command line says."""
    port, directory, uses = sys.argv[1:]
    Key.store = Store(Path(directory), noted=uses == "noted")
    serve(port, Factory.forProtocol(Key))


if __name__ == "__main__":
    main()
