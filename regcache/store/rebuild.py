"""
An index from what is left of a damaged one and from its newest backup.

SQLite keeps no checksum of its pages: a row that can be read may still be wrong. So no row becomes an entry before the
body that it names was read and found to have that digest; and one that the backup does not confirm is asked for again
at its next use, since the name of a package may be what was damaged.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from regcache.http.messages import Digest, Kind
from regcache.store.index import COLUMNS, FAILURES, marks, read_entry

__all__ = ["CANDIDATES", "gather", "has_candidates"]

_ALL = f"{COLUMNS}, allocated, used_at, hits"
#: Rows that wait until their bodies are looked at: those of the damaged index (rank 0) and of its backup (rank 1).
CANDIDATES = "salvaged"
_SCHEMA = f"""
CREATE TABLE {CANDIDATES} (
    key TEXT, registry TEXT, kind TEXT, parent TEXT, source TEXT, url TEXT, headers BLOB, digest TEXT, size INTEGER,
    digests BLOB, verified INTEGER, stored_at REAL, validated_at REAL, withdrawn INTEGER, allocated INTEGER,
    used_at REAL, hits INTEGER, rank INTEGER, PRIMARY KEY (key, rank)
) WITHOUT ROWID;
CREATE INDEX salvaged_by_use ON {CANDIDATES} (used_at);
"""
#: What the backup does not confirm, by the same body under the same key, nobody has vouched for.
_DOUBT = f"""
UPDATE {CANDIDATES} SET verified = 0, validated_at = 0 WHERE rank = 0 AND NOT EXISTS (
    SELECT 1 FROM {CANDIDATES} AS other
    WHERE other.rank = 1 AND other.key = {CANDIDATES}.key AND other.digest = {CANDIDATES}.digest
)
"""
#: The trees of a table: each may lead to rows that another has lost.
_TREES = ("by_use", "by_digest")


def has_candidates(connection: sqlite3.Connection) -> bool:
    """Whether rows of a damaged index still wait."""
    row = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (CANDIDATES,)).fetchone()
    return row is not None


def gather(connection: sqlite3.Connection, damaged: Path | None, backup: Path) -> int:
    """
    Note in a new index, in one transaction, the rows to be looked at.

    :param connection: of the new index, without candidates.
    :param damaged: the index that was set aside; its ``-wal`` beside it is read with it.
    :returns: how many there are.
    :raises sqlite3.Error: if the new index cannot be written.
    """
    connection.executescript(f"BEGIN; {_SCHEMA}")
    for rank, path in enumerate((damaged, backup)):
        if path is not None and path.exists():
            rows = ((*row, rank) for row in _readable(path))
            connection.executemany(f"INSERT OR IGNORE INTO {CANDIDATES} VALUES {marks(1, 18)}", rows)
    connection.execute(_DOUBT)
    found = connection.execute(f"SELECT count(DISTINCT key) FROM {CANDIDATES}").fetchone()[0]
    connection.execute("COMMIT")
    return int(found)


def _readable(path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of an index that can be read and make sense, some of them perhaps twice."""
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            source = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
        except FAILURES:
            continue
        with contextlib.closing(source):
            # What is no text any more names nothing.
            source.text_factory = lambda raw: raw.decode("utf-8", "replace")
            found = False
            for row in itertools.chain(_rows_of(source, "entries"), _rows_of(source, CANDIDATES)):
                if _makes_sense(row):
                    found = True
                    yield row
        if found:
            break
    Path(f"{path}-shm").unlink(missing_ok=True)


def _rows_of(source: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    upwards = _Attempt(source, f"SELECT {_ALL} FROM {table} ORDER BY key")
    yield from upwards
    if upwards.whole:
        return
    yield from _Attempt(source, f"SELECT {_ALL} FROM {table} ORDER BY key DESC")
    for tree in _TREES if table == "entries" else ():
        for order in ("", " DESC"):
            by = ", ".join(f"{column}{order}" for column in {"by_use": ("kind", "used_at")}.get(tree, ("digest",)))
            for (key,) in list(_Attempt(source, f"SELECT key FROM {table} INDEXED BY {tree} ORDER BY {by}")):
                yield from _Attempt(source, f"SELECT {_ALL} FROM {table} WHERE key = ?", key)


class _Attempt:
    """
    The rows that a statement gives before SQLite gives up.

    :ivar whole: whether it came to the end.
    """

    def __init__(self, source: sqlite3.Connection, statement: str, *values: Any) -> None:
        self._source, self._statement, self._values = source, statement, values
        self.whole = False

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        with contextlib.suppress(*FAILURES):
            rows: Iterable[tuple[Any, ...]] = self._source.execute(self._statement, self._values)
            yield from rows
            self.whole = True


def _makes_sense(row: tuple[Any, ...]) -> bool:
    """Whether a row says an entry that cannot be made again from another."""
    try:
        entry = read_entry(row[:14])
        Digest("sha256", entry.digest)
        allocated, used_at, hits = row[14:17]
        return entry.kind is not Kind.DERIVED and min(allocated, used_at, hits, entry.size) >= 0
    except (sqlite3.DatabaseError, ValueError, TypeError):
        return False
