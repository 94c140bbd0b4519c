"""
What lies in the index, for whoever operates the cache: entries by pattern, with their use.

Everything here blocks: it runs in a thread, or in a process of its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from regcache.http.messages import Kind, Stored
from regcache.store.blobs import blob_path
from regcache.store.index import COLUMNS, FAILURES, connect, read_entry

__all__ = ["Listed", "Seen", "listed", "listed_in", "named_in", "seen", "seen_in"]

_WILD = frozenset("*?[")
_SELECT = f"SELECT {COLUMNS}, allocated, used_at, hits FROM entries"
#: Of a key or the key of its document: itself, all below it, or the last part of it, which is where a package's name
#: stands. A name without its scope is another package.
_NAMES = (
    "({column} = :p OR substr({column}, 1, length(:p) + 1) = :p || '/'"
    " OR (substr({column}, -length(:p) - 1) = '/' || :p AND ({column} NOT GLOB '*/@*' OR :p GLOB '@*'))"
    " OR (:rest != '' AND registry = :registry AND substr({column}, -length(:rest) - 1) = '/' || :rest"
    " AND ({column} NOT GLOB '*/@*' OR :rest GLOB '@*')))"
)


@frozen
class Listed:
    """
    An entry, and the use that was made of it.

    :ivar allocated: bytes on disk.
    :ivar used_at: when it was last served, in seconds since the epoch.
    :ivar hits: how often; written in batches, so the last seconds may be missing.
    """

    entry: Stored
    allocated: int
    used_at: float
    hits: int


@frozen
class Seen:
    """
    One entry, and its body as it lies on the disk.

    :ivar wrong: a sentence on what is wrong with the body, as far as that is seen without reading it; or empty.
    """

    one: Listed
    wrong: str


def listed(
    connection: sqlite3.Connection, pattern: str = "", *, documents: bool = False, after: str = "", limit: int = -1
) -> list[Listed]:
    """
    The entries that a pattern means, by key: all without one.

    :param pattern: a key, the name of a registry, of a package, or of both (``npm/lodash``), a URL the body came from,
        or with ``*``, ``?`` or ``[…]`` what keys are to look like (SQLite's GLOB). A document brings what was derived
        from it and the artifacts that it names.
    :param documents: whether artifacts are left out.
    :param after: only entries behind this key, for whoever reads on.
    :param limit: the most that are wanted; -1 for all.
    :raises sqlite3.Error: if the index cannot be read.
    """
    registry, _, rest = pattern.partition("/")
    if not pattern:
        where = "1"
    elif _WILD & set(pattern):
        where = "key GLOB :p OR parent GLOB :p"
    else:
        where = " OR ".join([_NAMES.format(column="key"), _NAMES.format(column="parent"), "registry = :p", "url = :p"])
    only = f" AND kind != '{Kind.ARTIFACT.value}'" if documents else ""
    rows = connection.execute(
        f"{_SELECT} WHERE key > :after AND ({where}){only} ORDER BY key LIMIT :limit",
        {"p": pattern, "registry": registry, "rest": rest, "after": after, "limit": limit},
    )
    return list(map(_read, rows))


def _read(row: tuple[Any, ...]) -> Listed:
    return Listed(read_entry(row[:-3]), int(row[-3]), float(row[-2]), int(row[-1]))


def seen(connection: sqlite3.Connection, directory: Path, *names: str) -> Seen | None:
    """
    The entry that one of the names is the key of, else the first whose body came from such a URL; None if none is.

    :raises sqlite3.Error: if the index cannot be read.
    """
    wanted = [name for name in names if name]
    marks = ", ".join("?" * len(wanted))
    for column in ("key", "url"):
        row = connection.execute(f"{_SELECT} WHERE {column} IN ({marks}) ORDER BY key LIMIT 1", wanted).fetchone()
        if row is not None:
            one = _read(row)
            return Seen(one, _wrong(directory, one.entry))
    return None


def _wrong(directory: Path, entry: Stored) -> str:
    try:
        size = blob_path(directory / "blobs", entry.digest).stat().st_size
    except FileNotFoundError:
        return "Its body is gone from the disk."
    except OSError as error:
        return f"Its body cannot be looked at: {error.strerror}."
    return "" if size == entry.size else f"Its body has {size} bytes on the disk, not {entry.size}."


def named_in(directory: Path, digest: str, limit: int) -> list[Stored]:
    """
    The entries whose body has that digest, but no more of them than ``limit``.

    :raises OSError: if the index cannot be read.
    """
    with _reading(directory) as connection:
        rows = connection.execute(f"{_SELECT} WHERE digest = ? LIMIT ?", (digest, limit))
        return [_read(row).entry for row in rows]


def listed_in(
    directory: Path, pattern: str = "", *, documents: bool = False, after: str = "", limit: int = -1
) -> list[Listed]:
    """
    As :func:`listed`, from the index in a cache directory that a service may be writing to.

    :raises OSError: if it cannot be read.
    """
    with _reading(directory) as connection:
        return listed(connection, pattern, documents=documents, after=after, limit=limit)


def seen_in(directory: Path, *names: str) -> Seen | None:
    """
    As :func:`seen`, from the index in a cache directory that a service may be writing to.

    :raises OSError: if it cannot be read.
    """
    with _reading(directory) as connection:
        return seen(connection, directory, *names)


@contextlib.contextmanager
def _reading(directory: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(connect(directory / "index.sqlite3", readonly=True)) as connection:
            yield connection
    except FAILURES as error:
        raise OSError(f"The index cannot be read: {error}") from None
