"""
The least that a program of Twisted does for entries of a large store that are asked for at random.

    python -m benchmarks.floor_keys PORT DIRECTORY

It reads the cache in DIRECTORY, as it stands: the row of an entry is looked up by its key, its body is read from its
file, which has to be of the right size, and both are sent. Nobody is refused; nothing is weighed, nor noted of what was
used, which whoever evicts has to write as well.
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
from regcache.store.index import connect

__all__ = ["main"]

#: As the service: many rows are read as of the same moment, as long as nothing is written.
_MOMENT = 1.0
_ROW = "SELECT headers, digest, size, validated_at FROM entries WHERE key = ?"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nCache-Control: public, max-age=31536000, immutable\r\n"
    b'Accept-Ranges: bytes\r\nETag: "%b"\r\nAge: %d\r\nX-Cache: HIT\r\nCache-Status: floor; hit\r\nDate: %b\r\n'
    b"Server: floor\r\nVia: 1.1 floor\r\nContent-Length: %d\r\nX-Request-Id: floor-%d\r\n\r\n"
)
_fields = msgspec.msgpack.Decoder(tuple[tuple[str, str], ...]).decode


class Store:
    """
    What is stored, to be read.

    :param directory: that of the cache.
    """

    def __init__(self, directory: Path) -> None:
        self._blobs = f"{directory}/blobs"
        self._rows = connect(directory / "index.sqlite3", readonly=True)

    def find(self, key: str) -> tuple[bytes, str, float, bytes]:
        """An entry's type, digest, and when it was found good, and its body."""
        if not self._rows.in_transaction:
            self._rows.execute("BEGIN")
            later: Any = reactor
            later.callLater(_MOMENT, self._rows.execute, "ROLLBACK")
        headers, digest, size, validated_at = self._rows.execute(_ROW, (key,)).fetchone()
        fd = os.open(f"{self._blobs}/{digest[:2]}/{digest[2:]}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            body = os.read(fd, size + 1)
        finally:
            os.close(fd)
        assert len(body) == size
        return dict(_fields(headers))["content-type"].encode(), digest, validated_at, body


class Key(Client):
    """Somebody who asks for what is stored."""

    store: Store
    log = Log("")
    numbers = itertools.count()

    def dataReceived(self, data: bytes) -> None:
        now = time.time()
        if now >= self.log.until:
            self.log.tick(now)
        kind, digest, since, body = self.store.find(data[5 : data.index(b" ", 5)].decode())
        number, age = next(self.numbers), max(int(now - since), 0)
        self.put(_HEAD % (kind, digest[:40].encode(), age, self.log.date, len(body), number), body)


def main() -> None:
    """As the command line says."""
    port, directory = sys.argv[1:]
    Key.store = Store(Path(directory))
    serve(port, Factory.forProtocol(Key))


if __name__ == "__main__":
    main()
