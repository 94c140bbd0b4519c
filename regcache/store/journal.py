"""The log that SQLite writes before the index (its WAL), kept short."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from regcache.errors import CannotStore

__all__ = ["KEPT", "PATIENCE", "Journal"]

#: Bytes that it keeps when it is begun anew: as many as SQLite lets it have before it takes it into the index.
KEPT = 4 << 20
#: Seconds that a job of the writer waits for whoever else writes to the index.
PATIENCE = 10.0
#: Bytes that it may have. What somebody reads at this moment cannot be taken out of it, nor what came after that.
_MOST_BYTES = 256 << 20


class Journal:
    """
    The log of one index, used by one thread at a time.

    SQLite itself takes it into the index at every 4 MiB, and begins it anew if nobody reads just then.

    :param connection: the writing one.
    :ivar path: its file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    def settle(self) -> None:
        """Take it into the index, and empty it, unless somebody is reading: that is left for another time."""
        with contextlib.suppress(sqlite3.Error):
            # It would wait for every reader, and all other jobs behind it.
            self._connection.execute("PRAGMA busy_timeout=0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout={int(PATIENCE * 1000)}")

    def see_that_there_is_room(self) -> None:
        """
        See that more can be written.

        :raises regcache.errors.CannotStore: if it has grown past its bound, and cannot be emptied.
        """
        if self._size() > _MOST_BYTES:
            self.settle()
            if (size := self._size()) > _MOST_BYTES:
                raise CannotStore(
                    f"{self.path} has {size} bytes, since some program has been reading the index all the time:"
                    " end that one; nothing is stored until then."
                )

    def _size(self) -> int:
        with contextlib.suppress(OSError):
            return os.stat(self.path).st_size
        return 0
