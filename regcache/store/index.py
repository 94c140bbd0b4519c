"""The index of entries: one SQLite table, written by one thread and read by primary key from another."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from regcache.errors import CannotStore
from regcache.http.messages import Digest, Headers, Kind, Stored
from regcache.store.journal import KEPT, PATIENCE

__all__ = [
    "COLUMNS",
    "FAILURES",
    "FORMAT",
    "Index",
    "NewerIndex",
    "Row",
    "alias_of",
    "children",
    "connect",
    "is_damage",
    "is_sound",
    "marks",
    "read_entry",
    "row_bytes",
    "rows",
]

#: The version of the store's layout. An older program leaves a newer store alone.
FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, registry TEXT NOT NULL, kind TEXT NOT NULL, parent TEXT NOT NULL, source TEXT NOT NULL,
    url TEXT NOT NULL, headers BLOB NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, digests BLOB NOT NULL,
    verified INTEGER NOT NULL, stored_at REAL NOT NULL, validated_at REAL NOT NULL, withdrawn INTEGER NOT NULL,
    allocated INTEGER NOT NULL, used_at REAL NOT NULL, hits INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS loose (digest TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aliases (alias TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS aliases_by_digest ON aliases (digest);
CREATE INDEX IF NOT EXISTS by_digest ON entries (digest);
CREATE INDEX IF NOT EXISTS by_parent ON entries (parent) WHERE parent != '';
CREATE INDEX IF NOT EXISTS by_use ON entries (kind, used_at);
"""
COLUMNS = (
    "key, registry, kind, parent, source, url, headers, digest, size, digests, verified, stored_at, validated_at,"
    " withdrawn"
)
_BY_KEY = f"SELECT {COLUMNS} FROM entries WHERE key = ?"
Row = tuple[Any, ...]
#: What a row takes beside its texts: digests above all, times and numbers.
_ROW_BYTES = 400
#: Rows a statement: each statement lets the reactor's thread in, and has to wait for it then.
_ROWS = 64
#: KiB of pages that a connection keeps: at least those that lead to the rows, of an index of a million.
_PAGES = 8192
# Made once: to make them takes longer than what they do.
_FIELDS = msgspec.msgpack.Decoder(tuple[tuple[str, str], ...])
_DIGESTS = msgspec.msgpack.Decoder(tuple[Digest, ...])
_NONE = msgspec.msgpack.encode([])
_KINDS = {kind.value: kind for kind in Kind}
#: Bytes of the fields of an entry that many have alike.
_LONGEST_AGAIN = 256


#: What SQLite says of a file that is no index, or no longer one; all else may pass.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


#: What working with an index raises. SQLite quotes what it has found, and Python wants that to be text.
FAILURES = (sqlite3.Error, UnicodeDecodeError)


class NewerIndex(CannotStore):
    """The index was written by a newer regcache."""


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says by this error that the file itself is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError):
        # What has no code does not come from SQLite: a value that no index of ours holds.
        return code is None or code & 0xFF in _DAMAGE
    return isinstance(error, UnicodeDecodeError)


def marks(rows: int, columns: int) -> str:
    """Placeholders for so many rows of so many values."""
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)


def connect(path: Path, *, readonly: bool = False, immutable: bool = False) -> sqlite3.Connection:
    """
    A connection to an index.

    :param immutable: nobody writes to it, and nothing may be written beside it.
    :raises sqlite3.Error: if it is no such thing.
    """
    if readonly:
        mode = "mode=ro&immutable=1" if immutable else "mode=ro"
        reader = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=0, check_same_thread=False)
        reader.execute(f"PRAGMA cache_size=-{_PAGES}")
        return reader
    connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    # Else the log keeps for ever the size that one burst gave it.
    connection.execute(f"PRAGMA journal_size_limit={KEPT}")
    connection.execute(f"PRAGMA cache_size=-{_PAGES}")
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
        msgspec.msgpack.encode(entry.digests),
        int(entry.verified),
        entry.stored_at,
        entry.validated_at,
        entry.withdrawn,
    )


def row_bytes(entry: Stored) -> int:
    """About how many bytes the row of an entry takes; its key stands in the table and in three trees beside it."""
    fields = sum(len(name) + len(value) for name, value in entry.headers)
    return _ROW_BYTES + 4 * len(entry.key) + 2 * len(entry.parent) + len(entry.source) + len(entry.url) + fields


def alias_of(digest: Digest) -> str:
    """How a body is found by another digest than that which names it."""
    return f"{digest.algorithm}:{digest.value}"


def children(connection: sqlite3.Connection, parent: str) -> list[Stored]:
    """The entries with that parent."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM entries WHERE parent = ?", (parent,))
    return [read_entry(row) for row in rows]


def rows(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
    """The rows of the entries with these keys."""
    if len(keys) == 1:
        return connection.execute(_BY_KEY, keys).fetchall()
    return connection.execute(f"SELECT {COLUMNS} FROM entries WHERE key IN {marks(1, len(keys))}", keys).fetchall()


@lru_cache(1024)
def _headers(packed: bytes) -> Headers:
    """The fields of an entry; most of a registry have the same."""
    return Headers(_FIELDS.decode(packed))


def read_entry(row: Row) -> Stored:
    """
    The entry that a row of the index's columns says.

    :raises sqlite3.DatabaseError: if it makes no sense.
    """
    key, registry, kind, parent, source, url, headers, digest, size, digests, verified, stored, validated, gone = row
    try:
        return Stored(
            key=str(key),
            registry=str(registry),
            kind=_KINDS[kind],
            parent=str(parent),
            source=str(source),
            url=str(url),
            headers=_headers(headers) if len(headers) <= _LONGEST_AGAIN else _headers.__wrapped__(headers),
            digest=str(digest),
            size=int(size),
            digests=() if digests == _NONE else _DIGESTS.decode(digests),
            verified=bool(verified),
            stored_at=float(stored),
            validated_at=float(validated),
            withdrawn=int(gone),
        )
    except (ValueError, TypeError, KeyError, msgspec.MsgspecError) as error:
        raise sqlite3.DatabaseError(f"a row makes no sense: {error}") from None


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
        #: The beginning of the digest of the body that was read again last, as a number.
        self.scrubbed = self._meta("scrubbed")

    def _prepare(self) -> None:
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise NewerIndex(f"Its format is {version}, this one knows {FORMAT}: upgrade, or use another --cache-dir.")
        version = f"PRAGMA user_version={FORMAT};" if version < FORMAT else ""
        # All or nothing: half an index would be taken for a whole one.
        self.connection.executescript(f"BEGIN; {_SCHEMA} {version} COMMIT;")

    def _meta(self, name: str) -> int:
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def begin(self) -> None:
        """Open a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Close it, totals included."""
        totals = ("allocated", self.allocated, "entries", self.entries, "scrubbed", self.scrubbed)
        self.connection.execute(f"INSERT OR REPLACE INTO meta VALUES {marks(3, 2)}", totals)
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo it."""
        # A disk that is full may have made SQLite do so by itself.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.allocated, self.entries = self._meta("allocated"), self._meta("entries")

    def insert(self, entries: Sequence[tuple[Stored, int]], now: float) -> set[str]:
        """
        Write entries with their allocated bytes; of several with one key, the last counts.

        :returns: the digests of bodies that were replaced by others.
        """
        latest = {entry.key: (entry, allocated) for entry, allocated in entries}
        gone = {entry.digest for entry, _ in entries} | self.remove(list(latest))
        # In the order of the rows, so that those of a page are written while it is at hand.
        rows = [(*_row(latest[key][0]), latest[key][1], now) for key in sorted(latest)]
        for at in range(0, len(rows), _ROWS):
            some = rows[at : at + _ROWS]
            self.connection.execute(
                f"INSERT INTO entries ({COLUMNS}, allocated, used_at) VALUES {marks(len(some), 16)}",
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
                f"DELETE FROM entries WHERE key IN {marks(1, len(some))} RETURNING digest, allocated", some
            ).fetchall()
            self.entries -= len(rows)
            self.allocated -= sum(int(row[1]) for row in rows)
            gone.update(str(row[0]) for row in rows)
        return gone

    def restore(self, table: str, seen: Sequence[tuple[str, int]], good: Sequence[tuple[str, int]]) -> list[str]:
        """
        Move rows from a table of candidates to the entries, unless there is one of that key, and delete all that were
        seen; the table goes with its last row.

        :returns: the keys of those that are entries now.
        """
        restored = []
        columns = f"{COLUMNS}, allocated, used_at, hits"
        for one in good:
            rows = self.connection.execute(
                f"INSERT OR IGNORE INTO entries ({columns}) SELECT {columns} FROM {table} WHERE key = ? AND rank = ?"
                " RETURNING key, allocated",
                one,
            ).fetchall()
            self.entries += len(rows)
            self.allocated += sum(int(allocated) for _, allocated in rows)
            restored += [str(key) for key, _ in rows]
        self.connection.executemany(f"DELETE FROM {table} WHERE key = ? AND rank = ?", seen)
        if self.connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:
            self.connection.execute(f"DROP TABLE {table}")
        return restored

    def update(self, entry: Stored) -> None:
        """Replace the record of an entry, if its body is still the same."""
        names = [name.strip() for name in COLUMNS.split(",")]
        pairs = ", ".join(f"{name} = ?" for name in names[1:])
        self.connection.execute(
            f"UPDATE entries SET {pairs} WHERE key = ? AND digest = ?", (*_row(entry)[1:], entry.key, entry.digest)
        )

    def touch(self, uses: Iterable[tuple[str, float, int]]) -> None:
        """Note when entries were last used, each once, and how often since the last note."""
        # In the order of the rows, so that each page is visited once.
        noted = sorted(uses)
        for at in range(0, len(noted), _ROWS):
            some = noted[at : at + _ROWS]
            self.connection.execute(
                f"UPDATE entries SET used_at = column2, hits = hits + column3 FROM (VALUES {marks(len(some), 3)})"
                " WHERE key = column1",
                [value for use in some for value in use],
            )

    def children(self, parent: str) -> list[Stored]:
        """The entries with that parent."""
        return children(self.connection, parent)

    def named(self, digest: str) -> bool:
        """Whether an entry names that body."""
        row = self.connection.execute("SELECT 1 FROM entries WHERE digest = ? LIMIT 1", (digest,)).fetchone()
        return row is not None

    def loose(self, prefix: str) -> dict[str, float]:
        """The bodies that no entry named when they were looked at, by the beginning of their digest, and since when."""
        rows = self.connection.execute("SELECT digest, since FROM loose WHERE digest GLOB ?", (f"{prefix}*",))
        return {str(digest): float(since) for digest, since in rows}

    def note_loose(self, new: Mapping[str, Iterable[Digest]], gone: Iterable[str], now: float) -> None:
        """Note bodies that no entry names, with their further digests, and forget others."""
        run = self.connection.executemany
        run("INSERT OR IGNORE INTO loose VALUES (?, ?)", ((digest, now) for digest in new))
        aliases = [(alias_of(one), digest) for digest, further in new.items() for one in further]
        run("INSERT OR REPLACE INTO aliases VALUES (?, ?)", aliases)
        for table in ("loose", "aliases"):
            run(f"DELETE FROM {table} WHERE digest = ?", [(digest,) for digest in gone])

    def keys_of(self, digest: str) -> list[str]:
        """The keys of the entries that name that body."""
        return [str(key) for (key,) in self.connection.execute("SELECT key FROM entries WHERE digest = ?", (digest,))]

    def body_after(self, digest: str) -> tuple[str, int] | None:
        """The digest and size of the body whose digest comes next, or None."""
        row = self.connection.execute(
            "SELECT digest, size FROM entries WHERE digest > ? ORDER BY digest LIMIT 1", (digest,)
        ).fetchone()
        return None if row is None else (str(row[0]), int(row[1]))

    def oldest(self, kind: Kind, most: int) -> list[tuple[str, int]]:
        """Keys and allocated bytes of the least recently used entries of a kind."""
        rows = self.connection.execute(
            "SELECT key, allocated FROM entries WHERE kind = ? ORDER BY used_at LIMIT ?", (kind.value, most)
        )
        return [(str(key), int(size)) for key, size in rows]
