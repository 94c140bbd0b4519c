"""
What the store does to the disk, as one object: a test has it run full, fail, or lose power.

SQLite writes by itself; for what it wrote there is :meth:`Files.sync_path` alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["Files"]


class Files:
    """The disk itself. Every method raises OSError, and runs in a thread, or before the reactor does."""

    def create(self, path: Path) -> int:
        """A new file that nobody else can read; its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        """Write at an offset; how many bytes were written, perhaps not all."""
        return os.pwrite(fd, data, at)

    def begin_sync(self, fd: int) -> None:
        """Have the kernel begin to write out a file: of many, one sync then does most of the work of all."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self, fd: int) -> None:
        """Make what was written to a file outlive a power cut; its name need not."""
        os.fsync(fd)

    def sync_path(self, path: Path) -> None:
        """The same of a file that is not open here, or of the names in a directory."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.sync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path | str, target: Path | str) -> None:
        """Give a file another name, in place of what has that."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Take a name away; none is fine."""
        path.unlink(missing_ok=True)

    def make_directory(self, path: Path) -> None:
        """A new directory for its owner alone."""
        path.mkdir(mode=0o700)

    def free(self, path: Path) -> int:
        """How many bytes of the file system may still be written."""
        return shutil.disk_usage(path).free
