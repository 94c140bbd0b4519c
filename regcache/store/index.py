"""The index of entries: one SQLite table, written by one thread and read by primary key from another."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from regcache.errors import ConfigError
from regcache.http.messages import Digest, Headers, Kind, Stored

__all__ = ["FORMAT", "Index", "Row", "connect", "is_sound", "read_entry"]

#: The version of the store's layout. An older program refuses a newer store.
FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, registry TEXT NOT NULL, kind TEXT NOT NULL, parent TEXT NOT NULL, source TEXT NOT NULL,
    url TEXT NOT NULL, headers BLOB NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, digests BLOB NOT NULL,
    verified INTEGER NOT NULL, stored_at REAL NOT NULL, validated_at REAL NOT NULL, withdrawn INTEGER NOT NULL,
    allocated INTEGER NOT NULL, used_at REAL NOT NULL, hits INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_digest ON entries (digest);
CREATE INDEX IF NOT EXISTS by_parent ON entries (parent) WHERE parent != '';
CREATE INDEX IF NOT EXISTS by_use ON entries (kind, used_at);
"""
_COLUMNS = (
    "key, registry, kind, parent, source, url, headers, digest, size, digests, verified, stored_at, validated_at,"
    " withdrawn"
)
Row = tuple[Any, ...]
#: Rows a statement: each statement lets the reactor's thread in, and has to wait for it then.
_ROWS = 64


def _marks(rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """
    A connection to an index.

    :raises sqlite3.Error: if it is no such thing.
    """
    if readonly:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0, check_same_thread=False)
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def is_sound(connection: sqlite3.Connection) -> bool:
    """Whether SQLite finds nothing wrong in it; reads all of it."""
    row = connection.execute("PRAGMA quick_check(1)").fetchone()
    return bool(row) and row[0] == "ok"


def _row(entry: Stored) -> Row:
    return (
        entry.key,
        entry.registry,
        entry.kind.value,
        entry.parent,
        entry.source,
        entry.url,
        msgspec.msgpack.encode(entry.headers.items),
        entry.digest,
        entry.size,
        msgspec.msgpack.encode([(digest.algorithm, digest.value) for digest in entry.digests]),
        int(entry.verified),
        entry.stored_at,
        entry.validated_at,
        entry.withdrawn,
    )


def read_entry(row: Row) -> Stored:
    """The entry that a row of the index's columns says."""
    key, registry, kind, parent, source, url, headers, digest, size, digests, verified, stored, validated, gone = row
    return Stored(
        key=str(key),
        registry=str(registry),
        kind=Kind(kind),
        parent=str(parent),
        source=str(source),
        url=str(url),
        headers=Headers(msgspec.msgpack.decode(headers, type=tuple[tuple[str, str], ...])),
        digest=str(digest),
        size=int(size),
        digests=tuple(Digest(*pair) for pair in msgspec.msgpack.decode(digests, type=list[tuple[str, str]])),
        verified=bool(verified),
        stored_at=float(stored),
        validated_at=float(validated),
        withdrawn=int(gone),
    )


class Index:
    """
    The writing half, used by one thread at a time.

    Totals are kept beside the rows, in the same transactions, so that nothing is ever summed up to know them.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._prepare()
        self.allocated = self._meta("allocated")
        self.entries = self._meta("entries")

    def _prepare(self) -> None:
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise ConfigError(
                f"The cache directory was written by a newer regcache (format {version}; this one knows {FORMAT}): "
                "upgrade, or use another --cache-dir."
            )
        self.connection.executescript(_SCHEMA)
        self.connection.execute(f"PRAGMA user_version={FORMAT}")

    def _meta(self, name: str) -> int:
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def set_meta(self, name: str, value: int) -> None:
        """Note a number."""
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def begin(self) -> None:
        """Open a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Close it, totals included."""
        self.set_meta("allocated", self.allocated)
        self.set_meta("entries", self.entries)
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo it."""
        self.connection.execute("ROLLBACK")
        self.allocated, self.entries = self._meta("allocated"), self._meta("entries")

    def insert(self, entries: Sequence[tuple[Stored, int]], now: float) -> set[str]:
        """
        Write entries with their allocated bytes; of several with one key, the last counts.

        :returns: the digests of bodies that were replaced by others.
        """
        latest = {entry.key: (entry, allocated) for entry, allocated in entries}
        gone = {entry.digest for entry, _ in entries} | self.remove(list(latest))
        rows = [(*_row(entry), allocated, now) for entry, allocated in latest.values()]
        for at in range(0, len(rows), _ROWS):
            some = rows[at : at + _ROWS]
            self.connection.execute(
                f"INSERT INTO entries ({_COLUMNS}, allocated, used_at) VALUES {_marks(len(some), 16)}",
                [value for row in some for value in row],
            )
        self.entries += len(rows)
        self.allocated += sum(allocated for _, allocated in latest.values())
        return gone - {entry.digest for entry, _ in latest.values()}

    def remove(self, keys: Sequence[str]) -> set[str]:
        """Delete entries; the digests of their bodies."""
        gone: set[str] = set()
        for at in range(0, len(keys), _ROWS):
            some = keys[at : at + _ROWS]
            rows = self.connection.execute(
                f"DELETE FROM entries WHERE key IN {_marks(1, len(some))} RETURNING digest, allocated", some
            ).fetchall()
            self.entries -= len(rows)
            self.allocated -= sum(int(row[1]) for row in rows)
            gone.update(str(row[0]) for row in rows)
        return gone

    def update(self, entry: Stored) -> None:
        """Replace the record of an entry, if its body is still the same."""
        names = [name.strip() for name in _COLUMNS.split(",")]
        pairs = ", ".join(f"{name} = ?" for name in names[1:])
        self.connection.execute(
            f"UPDATE entries SET {pairs} WHERE key = ? AND digest = ?", (*_row(entry)[1:], entry.key, entry.digest)
        )

    def touch(self, uses: Iterable[tuple[str, float, int]]) -> None:
        """Note when entries were last used, and how often since the last note."""
        self.connection.executemany(
            "UPDATE entries SET used_at = ?, hits = hits + ? WHERE key = ?", ((when, n, key) for key, when, n in uses)
        )

    def children(self, parent: str) -> list[Stored]:
        """The entries with that parent."""
        rows = self.connection.execute(f"SELECT {_COLUMNS} FROM entries WHERE parent = ?", (parent,))
        return [read_entry(row) for row in rows]

    def named(self, digest: str) -> bool:
        """Whether an entry names that body."""
        row = self.connection.execute("SELECT 1 FROM entries WHERE digest = ? LIMIT 1", (digest,)).fetchone()
        return row is not None

    def oldest(self, kind: Kind, most: int) -> list[tuple[str, int]]:
        """Keys and allocated bytes of the least recently used entries of a kind."""
        rows = self.connection.execute(
            "SELECT key, allocated FROM entries WHERE kind = ? ORDER BY used_at LIMIT ?", (kind.value, most)
        )
        return [(str(key), int(size)) for key, size in rows]
