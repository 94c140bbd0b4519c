"""
Bodies on their way to their names: written, synced and renamed by the writer's thread, or on its behalf; those of a
batch together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import frozen

from regcache.errors import CannotStore
from regcache.http.messages import Kind, Stored
from regcache.store.apart import Apart
from regcache.store.blobs import blob_name
from regcache.store.files import Files
from regcache.store.making import Body, Making

__all__ = ["Commit", "Placing"]

#: Files of bodies that are written together.
_MOST_OPEN = 64
#: Bytes of bodies that are written together.
_MOST_BYTES = 8 << 20
#: Bodies of a batch from which on another process is worth its start.
_MANY = 64


@frozen
class Commit:
    """
    A finished body and its entry.

    :ivar path: the file that holds it, or is to hold it.
    :ivar body: what is to be written there; None if it is there, and synced.
    """

    path: Path
    entry: Stored
    body: bytes | None = None

    @property
    def lasts(self) -> bool:
        """Whether the body has to outlive a power cut: a derived one is as easily made again."""
        return self.entry.kind is not Kind.DERIVED


def _together(bodies: list[Body]) -> list[Body]:
    """The first of these, as far as they are written together."""
    size = 0
    for at, body in enumerate(bodies):
        size += len(body.data)
        if size > _MOST_BYTES:
            return bodies[: max(at, 1)]
    return bodies


class Placing:
    """
    Gives bodies their places.

    :param blobs: the directory of all bodies.
    :param steps: told each step.
    :param lock: as :class:`Apart` takes it, if another process is to make files where there are many of them; that one
        tells no steps, and knows no ``files`` but the usual.
    """

    def __init__(
        self, blobs: Path, files: Files, steps: Callable[[str], None], lock: Callable[[], int] | None = None
    ) -> None:
        self._blobs, self._files, self._steps = blobs, files, steps
        self._here = Making(files, steps)
        self._apart = None if lock is None else Apart(self._here, lock)
        self._making: Making | Apart = self._here

    def place(self, commits: list[Commit]) -> list[CannotStore | None]:
        """
        Write the bodies that are not written yet, and give each file its name, once it is on disk if it is to last.

        :returns: why each has none, in their order; None for those that have.
        """
        lasting = {commit.entry.digest for commit in commits if commit.lasts}
        bodies: list[Body] = []
        failed: list[CannotStore | None] = []
        for commit in commits:
            digest = commit.entry.digest
            if commit.body is None:
                failed.append(self._move(commit))
            else:
                bodies.append(Body(commit.path, blob_name(self._blobs, digest), digest in lasting, commit.body))
                failed.append(None)
        why = iter(self._make(bodies))
        for at, commit in enumerate(commits):
            if commit.body is not None and (error := next(why)):
                failed[at] = CannotStore(f"{error}: {commit.path.parent}")
        return failed

    def _make(self, bodies: list[Body]) -> list[str]:
        self._making = self._apart if self._apart is not None and len(bodies) >= _MANY else self._here
        why: list[str] = []
        while len(why) < len(bodies):
            some = _together(bodies[len(why) : len(why) + _MOST_OPEN])
            # What is large takes its time, and memory if another process is to have it.
            why += (self._making if len(some) > 1 else self._here).make(some)
        return why

    def _move(self, commit: Commit) -> CannotStore | None:
        """Give a file that is there, and on disk, its name."""
        target = blob_name(self._blobs, commit.entry.digest)
        try:
            if str(commit.path) != target:
                self._files.replace(commit.path, target)
            elif not os.path.exists(target):
                return CannotStore("The body that stood there is gone.")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._files.remove(commit.path)
            return CannotStore(f"{error.strerror}: {commit.path.parent}")
        self._steps("renamed")
        return None

    def sync(self, names: Iterable[str]) -> Callable[[], None]:
        """
        Begin to make the names in these directories of bodies outlive a power cut, by whoever made the last files.

        :returns: to be called, which waits until that is done, and raises OSError if it cannot be.
        """
        return self._making.sync(f"{self._blobs}/{name}" for name in names)

    def rest(self) -> None:
        """End what has had nothing to do since this was last called."""
        if self._apart is not None:
            self._apart.rest()

    def close(self) -> None:
        """Make no more."""
        if self._apart is not None:
            self._apart.close()
