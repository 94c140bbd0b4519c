"""
Bodies on their way to their names: written, synced and renamed in the writer thread, those of a batch together.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from regcache.errors import CannotStore
from regcache.http.messages import Kind, Stored
from regcache.store.blobs import blob_name
from regcache.store.files import Files

__all__ = ["Commit", "Placing"]

#: Files of bodies that are written together.
_MOST_OPEN = 64
#: What opening fails with while too many are open.
_TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})


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


def _close(fd: int) -> None:
    # What had to be on disk has been synced; what is not there, its digest tells.
    with contextlib.suppress(OSError):
        os.close(fd)


class Placing:
    """
    Gives bodies their places.

    :param blobs: the directory of all bodies.
    :param steps: told each step.
    """

    def __init__(self, blobs: Path, files: Files, steps: Callable[[str], None]) -> None:
        self._blobs, self._files, self._steps = blobs, files, steps

    def place(self, commits: list[Commit]) -> list[CannotStore | None]:
        """
        Write the bodies that are not written yet, and give each file its name, once it is on disk if it is to last.

        :returns: why each has none, in their order; None for those that have.
        """
        failed: list[CannotStore | None] = []
        lasting = {commit.entry.digest for commit in commits if commit.lasts}
        while len(failed) < len(commits):
            failed += self._together(commits[len(failed) : len(failed) + _MOST_OPEN], lasting)
        return failed

    def _together(self, commits: list[Commit], lasting: set[str]) -> list[CannotStore | None]:
        """
        Write the bodies that are not written yet, all together, and give each file its name.

        :param lasting: the digests of those that have to outlive a power cut.
        :returns: why each could not be; of the first of them alone, where no more files can be open at once.
        """
        failed: list[CannotStore | None] = []
        written: list[int | CannotStore | None] = []
        files: list[int] = []
        try:
            for commit in commits:
                try:
                    written.append(self._write(commit, files, lasting))
                except OSError as error:
                    if error.errno in _TOO_MANY_OPEN and written:
                        break
                    written.append(self._given_up(commit, error))
            for fd in written:
                if isinstance(fd, int):
                    # Whether it can be written, the sync will tell.
                    with contextlib.suppress(OSError):
                        self._files.begin_sync(fd)
            for commit, fd in zip(commits, written, strict=False):
                failed.append(fd if isinstance(fd, CannotStore) else self._place(commit, fd))
        finally:
            for one in files:
                _close(one)
        return failed

    def _write(self, commit: Commit, files: list[int], lasting: set[str]) -> int | None:
        """
        Write a body.

        :param files: gets the descriptor, to be closed.
        :param lasting: as in :meth:`_together`.
        :returns: the descriptor, if it is to be synced.
        :raises OSError: if it cannot be written.
        """
        body, digest = commit.body, commit.entry.digest
        if body is None:
            return None
        # Every call to the system costs the reactor's thread its turn: no buffered file here.
        fd = self._files.create(commit.path)
        files.append(fd)
        self._steps("created")
        at = 0
        while at < len(body):
            at += self._files.write(fd, memoryview(body)[at:], at)
        self._steps("written")
        # One that takes the place of a body that lasts has to last as well.
        return fd if digest in lasting or os.path.exists(blob_name(self._blobs, digest)) else None

    def _place(self, commit: Commit, fd: int | None) -> CannotStore | None:
        """
        Give the file its name; nobody is told of it yet.

        :param fd: of the file, if it has to be on disk before.
        """
        target = blob_name(self._blobs, commit.entry.digest)
        try:
            if fd is not None:
                self._files.sync(fd)
                self._steps("synced")
            # In place of one that is there already: what was just written and checked is surely whole.
            if str(commit.path) != target:
                self._files.replace(commit.path, target)
            elif not os.path.exists(target):
                return CannotStore("The body that stood there is gone.")
        except OSError as error:
            return self._given_up(commit, error)
        self._steps("renamed")
        return None

    def _given_up(self, commit: Commit, error: OSError) -> CannotStore:
        with contextlib.suppress(OSError):
            if str(commit.path) != blob_name(self._blobs, commit.entry.digest):
                self._files.remove(commit.path)
        return CannotStore(f"{error.strerror}: {commit.path.parent}")
