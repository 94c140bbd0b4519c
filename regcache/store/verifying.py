"""Reading every stored body at once, because somebody wants to know: what is told of each, and in all."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from attrs import define

from regcache.store.index import FAILURES, connect
from regcache.store.scrub import Reading

__all__ = ["BEFORE_ALL", "Tally", "bodies", "bodies_in"]

#: What no digest comes before.
BEFORE_ALL = "0"


@define
class Tally:
    """
    What was read of all bodies.

    :param of: how many there are.
    :param bytes_of: how many bytes they have.
    """

    of: int
    bytes_of: int
    checked: int = 0
    read: int = 0

    def add(self, reading: Reading) -> dict[str, Any]:
        """A body was read; what is told of it. ``wrong`` is a sentence, or empty."""
        self.checked += 1
        self.read += reading.size
        return {
            "digest": f"sha256:{reading.digest}",
            "wrong": reading.wrong,
            "done": self.checked,
            "of": self.of,
            "bytes": self.read,
            "bytes_of": self.bytes_of,
        }

    def result(self) -> dict[str, Any]:
        """What came of all."""
        return {"checked": self.checked, "bytes": self.read}


def bodies(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many bodies there are, and how many bytes they have; each once, however many entries name it."""
    row = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM (SELECT DISTINCT digest, size FROM entries)")
    number, size = row.fetchone()
    return int(number), int(size)


def bodies_in(directory: Path) -> tuple[int, int]:
    """
    As :func:`bodies`, from the index in a cache directory that a service may be writing to.

    :raises OSError: if it cannot be read.
    """
    try:
        with contextlib.closing(connect(directory / "index.sqlite3", readonly=True)) as connection:
            return bodies(connection)
    except FAILURES as error:
        raise OSError(f"The index cannot be read: {error}") from None
