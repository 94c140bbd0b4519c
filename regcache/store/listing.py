"""
What lies in the index, for whoever operates the cache: entries by pattern, with their use.

Everything here blocks: it runs in a thread, or in a process of its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from attrs import frozen

from regcache.http.messages import Kind, Stored
from regcache.store.index import COLUMNS, FAILURES, connect, read_entry

__all__ = ["Listed", "listed", "listed_in"]

_WILD = frozenset("*?[")
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


def listed(connection: sqlite3.Connection, pattern: str = "", *, documents: bool = False) -> list[Listed]:
    """
    The entries that a pattern means, by key: all without one.

    :param pattern: a key, the name of a registry, of a package, or of both (``npm/lodash``), a URL the body came from,
        or with ``*``, ``?`` or ``[…]`` what keys are to look like (SQLite's GLOB). A document brings what was derived
        from it and the artifacts that it names.
    :param documents: whether artifacts are left out.
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
        f"SELECT {COLUMNS}, allocated, used_at, hits FROM entries WHERE ({where}){only} ORDER BY key",
        {"p": pattern, "registry": registry, "rest": rest},
    )
    return [Listed(read_entry(row[:-3]), int(row[-3]), float(row[-2]), int(row[-1])) for row in rows]


def listed_in(directory: Path, pattern: str = "", *, documents: bool = False) -> list[Listed]:
    """
    As :func:`listed`, from the index in a cache directory that a service may be writing to.

    :raises OSError: if it cannot be read.
    """
    try:
        with contextlib.closing(connect(directory / "index.sqlite3", readonly=True)) as connection:
            return listed(connection, pattern, documents=documents)
    except FAILURES as error:
        raise OSError(f"The index cannot be read: {error}") from None
