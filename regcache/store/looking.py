"""
What lies in the index, for people who look around: bounded in rows and in time, however many entries there are.

Everything here blocks, and runs in a thread. SQLite does the work without the interpreter lock, so that what is
answered meanwhile is not held up.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from regcache.http.messages import Kind, Stored
from regcache.store.index import COLUMNS, FAILURES, connect, marks, read_entry

__all__ = ["Look", "Seen", "Total", "looking"]

#: Entries that one look goes through, and those of one package.
_MOST_FOUND, _MOST_OF_ONE = 2000, 400
#: Seconds that one look may take. A million entries take about one, and more where all else is busy.
_LONGEST_LOOK = 10.0
#: Steps of SQLite's machine between two looks at the clock.
_STEPS = 100_000
_SEEN = "key, registry, kind, parent, size, stored_at, used_at, hits, withdrawn"
#: By an index that holds all of it: SQLite need not read the rows themselves.
_BY_KEY = "SELECT key FROM entries INDEXED BY by_use WHERE kind IN ('artifact', 'document')"
_NOT_DERIVED = f"kind != '{Kind.DERIVED.value}'"


@frozen
class Seen:
    """
    An entry that is no derived one, as far as people ask about it.

    :ivar size: of its body, in bytes.
    :ivar stored_at: in seconds since the epoch, as ``used_at``, which is when it was last served.
    """

    key: str
    registry: str
    kind: Kind
    parent: str
    size: int
    stored_at: float
    used_at: float
    hits: int
    withdrawn: int


@frozen
class Total:
    """
    What is stored of one registry.

    :ivar size: bytes of the bodies.
    :ivar documents: how many of the entries are index pages.
    :ivar stale: of those, how many are past their lifetime.
    """

    entries: int
    size: int
    documents: int
    stale: int


class Look:
    """
    One look at an index. Of every method: ``sqlite3.Error`` if it cannot be read, or takes too long.

    :ivar cut: whether there was more than is told.
    """

    def __init__(self, connection: sqlite3.Connection, until: float) -> None:
        self._connection = connection
        self.cut = False
        connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)

    def totals(self, lifetimes: Mapping[str, float], now: float) -> dict[str, Total]:
        """
        What is stored, by registry.

        :param lifetimes: seconds for which an index page is fresh, by registry.
        """
        limit, values = _expired(lifetimes, now)
        rows = self._connection.execute(
            "SELECT registry, count(*), sum(size), sum(kind = 'document'), "
            f"sum(kind = 'document' AND verified = 0 AND withdrawn = 0 AND validated_at <= {limit})"
            " FROM entries GROUP BY registry",
            values,
        )
        return {str(name): Total(*map(int, numbers)) for name, *numbers in rows}

    def recent(self, registries: Sequence[str]) -> list[Seen]:
        """What was used last."""
        found = []
        for kind in (Kind.DOCUMENT, Kind.ARTIFACT):
            some = self._seen(
                f"kind = ? AND registry IN {marks(1, len(registries))} ORDER BY used_at DESC LIMIT ?",
                (kind.value, *registries, _MOST_FOUND // 4),
            )
            self.cut |= len(some) == _MOST_FOUND // 4
            found += some
        return found

    def alike(self, text: str, registries: Sequence[str]) -> list[Seen]:
        """
        What has a text in its key, and first what has it there as a segment, which is where most packages' names stand.

        Capitals do not count, nor which of the usual separators stands between words.
        """
        wanted = _pattern(text)
        # Go's proxies write a capital as an exclamation mark and the small letter.
        key, owner = "replace(key, '!', '')", "substr(key, 1, instr(key, '/') - 1)"
        rows = self._connection.execute(
            f"{_BY_KEY} AND {key} LIKE ? ESCAPE '\\' AND {owner} IN {marks(1, len(registries))}"
            f" ORDER BY {key} || '/' LIKE ? ESCAPE '\\' DESC, used_at DESC LIMIT ?",
            (f"%{wanted}%", *registries, f"%/{wanted}/%", _MOST_FOUND),
        )
        keys = [str(key) for (key,) in rows]
        self.cut |= len(keys) == _MOST_FOUND
        return self._of(keys)

    def stale(self, lifetimes: Mapping[str, float], now: float, text: str = "") -> list[Seen]:
        """The index pages of some registries that are past their lifetime, the oldest first."""
        limit, values = _expired(lifetimes, now)
        found = self._seen(
            "kind = 'document' AND verified = 0 AND withdrawn = 0"
            f" AND registry IN {marks(1, len(lifetimes))} AND replace(key, '!', '') LIKE ? ESCAPE '\\'"
            f" AND validated_at <= {limit} ORDER BY validated_at LIMIT ?",
            (*lifetimes, f"%{_pattern(text)}%", *values, _MOST_FOUND),
        )
        self.cut |= len(found) == _MOST_FOUND
        return found

    def around(self, seen: Iterable[Seen], prefixes: Iterable[str]) -> list[Seen]:
        """
        What belongs together with some entries: themselves, what the same documents name, and what has a key that
        begins so.
        """
        known = {one.key: one for one in seen}
        documents = {one.parent for one in known.values()} | {
            one.key for one in known.values() if one.kind is Kind.DOCUMENT
        }
        some = sorted(documents - {""})[:_MOST_OF_ONE]
        found = self._of([one for one in some if one not in known])
        found += self._seen(
            f"parent IN {marks(1, len(some))} AND parent != '' AND {_NOT_DERIVED} LIMIT ?", (*some, _MOST_OF_ONE)
        )
        for prefix in sorted(set(prefixes))[:_MOST_OF_ONE]:
            # The next text that begins otherwise; SQLite compares by bytes.
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            found += self._seen(f"key >= ? AND key < ? AND {_NOT_DERIVED} LIMIT ?", (prefix, end, _MOST_OF_ONE))
        known.update({one.key: one for one in found})
        return list(known.values())

    def entries(self, keys: Sequence[str]) -> list[Stored]:
        """The whole records of some entries."""
        some = keys[:_MOST_OF_ONE]
        rows = self._connection.execute(f"SELECT {COLUMNS} FROM entries WHERE key IN {marks(1, len(some))}", some)
        return [read_entry(row) for row in rows]

    def _of(self, keys: Sequence[str]) -> list[Seen]:
        found = {one.key: one for one in self._seen(f"key IN {marks(1, len(keys))}", keys)} if keys else {}
        return [found[key] for key in keys if key in found]

    def _seen(self, where: str, values: Sequence[Any]) -> list[Seen]:
        rows = self._connection.execute(f"SELECT {_SEEN} FROM entries WHERE {where}", values)
        return [Seen(key, registry, Kind(kind), *rest) for key, registry, kind, *rest in rows]


def _expired(lifetimes: Mapping[str, float], now: float) -> tuple[str, list[Any]]:
    """Before when a page of a row's registry must have been validated to be past its lifetime; for SQL."""
    values = [value for name, lifetime in lifetimes.items() for value in (name, now - lifetime)]
    return f"CASE registry {'WHEN ? THEN ? ' * len(lifetimes)}ELSE -1 END", values


def _pattern(text: str) -> str:
    """What a key is to look like (SQLite's LIKE, escaped by a backslash)."""
    return "".join("_" if char in "-_.:/ " else f"\\{char}" if char in "%\\" else char for char in text)


@contextlib.contextmanager
def looking(directory: Path) -> Iterator[Look]:
    """
    A look at the index in a cache directory, which a service may be writing to.

    :raises OSError: if it cannot be read, or not in time.
    """
    try:
        with contextlib.closing(connect(directory / "index.sqlite3", readonly=True)) as connection:
            yield Look(connection, time.monotonic() + _LONGEST_LOOK)
    except FAILURES as error:
        late = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
        why = "it takes too long" if late else str(error)
        raise OSError(f"The index cannot be looked through: {why}.") from None
