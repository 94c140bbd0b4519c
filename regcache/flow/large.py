"""
Large bodies, put together and handed over so that nobody waits for it.

To copy forty megabytes takes some tens of milliseconds, and whoever does it in Python holds the interpreter meanwhile,
in a thread too. What is written to a file and read from it is copied by the system, and the interpreter is free: so
they go through files that have no name, in memory where the system has such.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence

__all__ = ["LARGE", "NOT_NOW", "Scratch", "joined", "sha256_of"]

#: Bytes from which on a body is large: fewer are copied in less time than it takes to ask a thread.
LARGE = 1 << 20
#: What says that there can be no file or process just now, and nothing of whether there can be any.
NOT_NOW = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def joined(pieces: list[bytes]) -> bytes:
    """The pieces of a body as one. For a thread if it is large."""
    if len(pieces) < 2 or sum(map(len, pieces)) <= LARGE:
        return b"".join(pieces)
    try:
        scratch = Scratch()
        try:
            scratch.lay(pieces)
            return scratch.pick([scratch.size])[0]
        finally:
            scratch.close()
    except OSError:
        # No room for a file: it takes the interpreter's time then.
        return b"".join(pieces)


def sha256_of(body: bytes) -> str:
    """Its SHA-256, in hexadecimal. For a thread if it is large: hashing releases the interpreter."""
    return hashlib.sha256(body).hexdigest()


class Scratch:
    """
    A file without a name, which is gone when nobody has it open any more.

    Its methods are for a thread, and one at a time.

    :param fd: the descriptor of one that is open already.
    :ivar fd: its descriptor; -1 once it is closed.
    :raises OSError: if there can be none.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _unnamed() if fd is None else fd

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self.fd).st_size

    def lay(self, bodies: Iterable[bytes]) -> None:
        """
        Write bodies, in place of what was in it.

        :raises OSError: if there is no room for them.
        """
        os.ftruncate(self.fd, 0)
        at = 0
        for body in bodies:
            view = memoryview(body)
            while view:
                written = os.pwrite(self.fd, view, at)
                view, at = view[written:], at + written

    def pick(self, sizes: Sequence[int]) -> list[bytes]:
        """
        The bodies of these sizes that are in it, one behind the other.

        :raises OSError: if they are not all there.
        """
        if min(sizes, default=0) < 0 or sum(sizes) > self.size:
            raise OSError("They are not all there.")
        at, found = 0, []
        for size in sizes:
            found.append(_read(self.fd, size, at))
            at += size
        return found

    def empty(self) -> None:
        """Give back the room that it takes."""
        os.ftruncate(self.fd, 0)

    def close(self) -> None:
        """Give it back, once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _read(fd: int, size: int, at: int) -> bytes:
    body = os.pread(fd, size, at)
    # The system reads less than 2 GiB at once.
    while len(body) < size:
        more = os.pread(fd, size - len(body), at + len(body))
        if not more:
            raise OSError("It became shorter.")
        body += more
    return body


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("regcache")
        except OSError as error:
            # A hardened service may not.
            if error.errno in NOT_NOW:
                raise
    with tempfile.TemporaryFile(prefix="regcache-", buffering=0) as file:
        return os.dup(file.fileno())
