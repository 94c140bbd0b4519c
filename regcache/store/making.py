"""
Files of bodies, made: many are written together, synced, and given their names.

A process of its own does this as well (see :mod:`regcache.store.apart`). It runs this file by its path and imports
nothing else of the program: that takes a sixth of the time, and less than half of the memory.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from regcache.store.files import Files

__all__ = ["LENGTH", "Body", "Making", "main", "spelled"]

#: Bytes that tell the length of a question or of an answer.
LENGTH = 4
#: What opening fails with while too many are open.
_TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})


class Body(NamedTuple):
    """
    What is to become a file.

    :ivar source: where it is written; nothing is there.
    :ivar target: the name that it gets then, in place of what has it.
    :ivar lasts: whether it has to outlive a power cut.
    """

    source: Path
    target: str
    lasts: bool
    data: bytes | memoryview


def _close(fd: int) -> None:
    # What had to be on disk has been synced; what is not there, its digest tells.
    with contextlib.suppress(OSError):
        os.close(fd)


class Making:
    """
    Makes files, here and now.

    :param steps: told each step.
    """

    def __init__(self, files: Files, steps: Callable[[str], None] = lambda _step: None) -> None:
        self._files, self._steps = files, steps

    def make(self, bodies: Sequence[Body]) -> list[str]:
        """
        Write them, all together, and give each its name, once it is on disk if it is to last.

        :returns: why each could not be, in their order, empty for those that could; of the first of them alone, where
            no more files can be open at once.
        """
        written: list[int | str | None] = []
        files: list[int] = []
        try:
            for body in bodies:
                try:
                    written.append(self._write(body, files))
                except OSError as error:
                    if error.errno in _TOO_MANY_OPEN and written:
                        break
                    written.append(self._given_up(body, error))
            for fd in written:
                if isinstance(fd, int):
                    # Whether it can be written, the sync will tell.
                    with contextlib.suppress(OSError):
                        self._files.begin_sync(fd)
            pairs = list(zip(bodies, written, strict=False))
            # All before the first gets its name: with that the kernel would have to write again what they share.
            synced = [fd if isinstance(fd, str) else self._sync(body, fd) for body, fd in pairs]
            why = [error or self._place(body) for body, error in zip(bodies, synced, strict=False)]
        finally:
            for one in files:
                _close(one)
        return why

    def _write(self, body: Body, files: list[int]) -> int | None:
        """
        Write one.

        :param files: gets the descriptor, to be closed.
        :returns: the descriptor, if it is to be synced.
        :raises OSError: if it cannot be written.
        """
        # Every call to the system costs the reactor's thread its turn: no buffered file here.
        fd = self._files.create(body.source)
        files.append(fd)
        self._steps("created")
        at = 0
        while at < len(body.data):
            at += self._files.write(fd, memoryview(body.data)[at:], at)
        self._steps("written")
        # One that takes the place of a body that lasts has to last as well.
        return fd if body.lasts or os.path.exists(body.target) else None

    def _sync(self, body: Body, fd: int | None) -> str:
        """
        See that it is on disk.

        :param fd: of the file, if it has to be.
        """
        try:
            if fd is not None:
                self._files.sync(fd)
                self._steps("synced")
        except OSError as error:
            return self._given_up(body, error)
        return ""

    def _place(self, body: Body) -> str:
        """Give it its name; nobody is told of it yet."""
        try:
            # In place of one that is there already: what was just written and checked is surely whole.
            self._files.replace(body.source, body.target)
        except OSError as error:
            return self._given_up(body, error)
        self._steps("renamed")
        return ""

    def _given_up(self, body: Body, error: OSError) -> str:
        self.clear([body])
        # Without the path, which a process with another locale spells in another way.
        return error.strerror or str(error)

    def clear(self, bodies: Iterable[Body]) -> None:
        """Take away what was written of them and has no name yet."""
        for body in bodies:
            with contextlib.suppress(OSError):
                self._files.remove(body.source)

    def sync(self, directories: Iterable[str]) -> Callable[[], None]:
        """
        Make the names in these outlive a power cut.

        :returns: to be called, which waits until that is done, and raises OSError if it cannot be.
        """
        wanted = list(directories)

        def synced() -> None:
            for directory in wanted:
                self._files.sync_path(Path(directory))

        return synced


def spelled(path: Path | str) -> str:
    """A path as text that means the same to a process with another locale."""
    return os.fsencode(path).decode("latin-1")


def _meant(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))


def _answer(making: Making, question: bytes, data: memoryview) -> object:
    """
    :param data: of all bodies, one behind the other.
    """
    asked = json.loads(question)
    if "sync" in asked:
        try:
            making.sync(map(_meant, asked["sync"]))()
        except OSError as error:
            return [error.errno, error.strerror]
        return []
    bodies, at = [], 0
    for source, target, lasts, size in asked["make"]:
        bodies.append(Body(Path(_meant(source)), _meant(target), lasts, data[at : at + size]))
        at += size
    return making.make(bodies)


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        # Whoever asked is gone.
        raise EOFError
    return data


def _say(data: bytes) -> None:
    # Nothing is kept to be written at the end, when nobody may be there any more to read it.
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def main() -> None:
    """
    The process: answer questions, of which each tells the lengths of its two parts before, until the input ends.

    It ends without a word when whoever asks is killed, whenever that is.
    """
    making = Making(runpy.run_path(str(Path(__file__).with_name("files.py")))["Files"]())
    source = sys.stdin.buffer
    # A reset: there was an answer that had not been read.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            lengths = _read(source, 2 * LENGTH)
            question = _read(source, int.from_bytes(lengths[:LENGTH], "big"))
            data = _read(source, int.from_bytes(lengths[LENGTH:], "big"))
            answer = json.dumps(_answer(making, question, memoryview(data))).encode()
            _say(len(answer).to_bytes(LENGTH, "big") + answer)


if __name__ == "__main__":
    main()
