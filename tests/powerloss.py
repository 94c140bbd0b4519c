"""A disk that forgets, at a power cut, what was not made durable."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from regcache.store.files import Files

__all__ = ["Forgetful", "frames"]

_INDEX = "index.sqlite3"
_LOG = f"{_INDEX}-wal"


def frames(log: bytes) -> list[int]:
    """Where the frames of a write-ahead log end (https://sqlite.org/fileformat2.html section 4.1), and it begins."""
    if len(log) < 32:
        return [0]
    (page,) = struct.unpack(">I", log[8:12])
    return [0, *range(32, len(log) + 1, 24 + page)]


class Forgetful(Files):
    """
    The disk below one cache directory, watched.

    What a power cut leaves of a file: its bytes as they were made durable; if they never were, nothing, or zeros in
    their place. Of a name: as it was when its directory was made durable, or as it is. Of SQLite's log: any beginning
    of it that holds what was made durable. Its other file changes only when the log is taken into it, which does not
    happen in a workload of this size.

    :ivar moment: called before everything that is done.
    :ivar logged: called when the log was made durable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moment: Callable[[], object] = lambda: None
        self.logged: Callable[[], object] = lambda: None
        self._numbers = itertools.count(1)
        self._files: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._durable: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._log = 0

    def create(self, path: Path) -> int:
        self.moment()
        fd = super().create(path)
        # The number of a file that is gone may be given to another.
        self._files[os.fstat(fd).st_ino] = next(self._numbers)
        return fd

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        self.moment()
        done = super().write(fd, data, at)
        self._sizes[self._files[os.fstat(fd).st_ino]] = at + done
        return done

    def sync(self, fd: int) -> None:
        self.moment()
        found = os.fstat(fd)
        self._durable[self._files[found.st_ino]] = os.pread(fd, found.st_size, 0)

    def sync_path(self, path: Path) -> None:
        self.moment()
        if path.is_dir() and path != self.root:
            self._names[path] = self._present(path)
        elif path.name == _LOG:
            self._log = path.stat().st_size
            self.logged()

    def replace(self, source: Path | str, target: Path | str) -> None:
        self.moment()
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self.moment()
        super().remove(path)

    def _present(self, directory: Path) -> dict[str, int]:
        return {one.name: self._files[one.inode()] for one in os.scandir(directory) if one.is_file()}

    def cut(self, target: Path, chance: random.Random) -> None:
        """What a power cut at this moment may leave, in place of what is in another directory."""
        for old in target.rglob("*"):
            if old.is_file():
                old.unlink()
        target.mkdir(exist_ok=True)
        shutil.copy(self.root / _INDEX, target)
        log = (self.root / _LOG).read_bytes()
        end = chance.choice([end for end in frames(log) if end >= self._log] + [len(log)])
        (target / _LOG).write_bytes(log[:end])
        for directory in [self.root / "partial", *(self.root / "blobs").iterdir()]:
            place = target / directory.relative_to(self.root)
            place.mkdir(parents=True, exist_ok=True)
            before, now = self._names.get(directory, {}), self._present(directory)
            for name in before.keys() | now.keys():
                left = chance.choice([before.get(name), now.get(name)])
                if left is not None:
                    nothing = chance.choice([b"", bytes(self._sizes.get(left, 0))])
                    (place / name).write_bytes(self._durable.get(left, nothing))
