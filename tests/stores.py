"""Stores without a reactor: what their threads would do is done at once, in the order in which a test says."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from regcache.http.messages import Headers, Kind, Stored
from regcache.store.blobs import blob_path
from regcache.store.disk import DiskStore
from regcache.store.index import Index, connect
from regcache.store.placing import Commit
from regcache.store.writer import Writer

__all__ = ["blob", "entry", "indexed", "let_go", "logged", "opened", "put", "rows", "writer_of"]


def opened(directory: Path, **more: Any) -> DiskStore:
    """A store that has taken its directory."""
    store = DiskStore(directory, reactor=None, **more)
    store.open_directory()
    return store


def indexed(directory: Path, keys: Iterable[str]) -> None:
    """Make a cache directory whose index has entries of these keys; there are no bodies."""
    directory.mkdir(0o700)
    with contextlib.closing(connect(directory / "index.sqlite3")) as connection:
        index = Index(connection)
        index.begin()
        index.insert([(_artifact(key), 1) for key in keys], 1.0)
        index.commit()


def _artifact(key: str) -> Stored:
    registry = key.partition("/")[0]
    return Stored(
        key=key,
        registry=registry,
        kind=Kind.ARTIFACT,
        headers=Headers(),
        digest="0" * 64,
        size=2048,
        stored_at=1.0,
        validated_at=1.0,
    )


def let_go(store: DiskStore) -> None:
    """As a process that ends would."""
    hold = store._hold
    for one in (hold.reader, hold.writer.index.connection if hold.writer is not None else None):
        if one is not None:
            one.close()
    hold._directory.let_go()


def writer_of(store: DiskStore) -> Writer:
    """The writer; there is one."""
    assert store._hold.writer is not None
    return store._hold.writer


def entry(key: str, body: bytes, **more: Any) -> Stored:
    """An artifact that was found good."""
    digest = hashlib.sha256(body).hexdigest()
    made = Stored(
        key=key,
        registry="npm",
        kind=Kind.ARTIFACT,
        digest=digest,
        size=len(body),
        verified=True,
        stored_at=1000.0,
        validated_at=1000.0,
    )
    return replace(made, **more)


def put(store: DiskStore, key: str, body: bytes, **more: Any) -> Stored:
    """Commit a body, now; its entry."""
    made = entry(key, body, **more)
    outcome = writer_of(store).commit([Commit(store._new_path(), made, body)])
    assert outcome.failed == [None]
    return made


def blob(directory: Path, body: bytes) -> Path:
    """Where a body lies."""
    return blob_path(directory / "blobs", hashlib.sha256(body).hexdigest())


def rows(store: DiskStore) -> dict[str, tuple[str, int]]:
    """The digest and size of every entry, by key."""
    found = writer_of(store).index.connection.execute("SELECT key, digest, size FROM entries")
    return {key: (digest, size) for key, digest, size in found}


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that are logged meanwhile."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def note(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)
