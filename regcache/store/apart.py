"""
Files of many bodies, made by a process of its own.

To make a small file that outlives a power cut takes seven calls to the system, and in a thread each of them gives the
interpreter away and waits for it again, while the reactor's thread wants it all the time. Under a burst of small
artifacts that took a quarter of the reactor's time, and five times as long as the files themselves: a third of them
came too fast to be stored at all. A process has an interpreter of its own, and the thread gives its own away a few
times for 64 files.

It is nothing that anything depends on. It is started when there is much to do and ended when there has been nothing for
a while; when it dies or cannot be started, the thread does what it would have done.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from regcache.logs import Log
from regcache.store import making
from regcache.store.directory import note_holder
from regcache.store.making import LENGTH, Body, Making, spelled

__all__ = ["Apart"]

_log = Log()
#: Seconds that an answer may take: many times what the slowest disk takes for so few files.
_LONGEST_ANSWER = 60.0
#: Seconds until there is another attempt with a process, after one that failed.
_AGAIN_AFTER = 60.0
#: The environment variables that it may need to start.
_NEEDED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: The signals that do not end it, since the service may have something left to write: that ends it then.
_FOR_THE_SERVICE = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextlib.contextmanager
def _unheard(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """
    Whatever is started meanwhile never hears of these signals.

    What it does about them itself comes too late for those that are sent to all processes while it starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Apart:
    """
    Does what :class:`Making` does, in another process where there can be one. For one thread at a time.

    The process has a part of what holds the cache directory: nobody else takes that while it may still write there.

    :param here: does it where there is no process.
    :param lock: the descriptor of that part, see :attr:`regcache.store.directory.Directory.making`.
    """

    def __init__(self, here: Making, lock: Callable[[], int]) -> None:
        self._here, self._lock = here, lock
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._not_before = 0.0
        self._used = False
        # Whether it has been asked something of which the answer was not heard.
        self._owes = False

    def make(self, bodies: Sequence[Body]) -> list[str]:
        """As :meth:`Making.make`."""
        if not self._is_there():
            return self._here.make(bodies)
        asked = [(spelled(body.source), spelled(body.target), body.lasts, len(body.data)) for body in bodies]
        self._ask({"make": asked}, [body.data for body in bodies])
        why: list[str] | None = self._hear()
        if why is None:
            # What it had begun before it died; what has its name by then is whole, and replaced by the same.
            self._here.clear(bodies)
            return self._here.make(bodies)
        return why

    def sync(self, directories: Iterable[str]) -> Callable[[], None]:
        """As :meth:`Making.sync`."""
        wanted = list(directories)
        asked = self._is_there() and self._ask({"sync": [spelled(one) for one in wanted]})
        return partial(self._synced, wanted, asked)

    def _synced(self, wanted: list[str], asked: bool) -> None:
        error = self._hear() if asked else None
        if error is None:
            self._here.sync(wanted)()
        elif error:
            raise OSError(*error)

    def _is_there(self) -> bool:
        """Whether there is a process, by now."""
        self._used = True
        if self._socket is None and time.monotonic() >= self._not_before:
            try:
                self._start()
            except OSError as error:
                self._give_up(error)
        return self._socket is not None

    def _ask(self, question: dict[str, Any], data: Sequence[bytes | memoryview] = ()) -> bool:
        """Whether it could be asked; if not, there is no process any more that might still do something."""
        if self._owes:
            # Whoever asked that has failed in the meantime.
            self._hear()
        told = json.dumps(question).encode()
        lengths = (len(told), sum(map(len, data)))
        try:
            if self._socket is None:
                return False
            self._socket.sendall(b"".join([*(length.to_bytes(LENGTH, "big") for length in lengths), told, *data]))
        except (OSError, MemoryError) as error:
            self._give_up(error)
            return False
        self._owes = True
        return True

    def _hear(self) -> Any:
        """Its answer; None if there is none, and no process any more that might still do something."""
        if not self._owes:
            return None
        self._owes = False
        try:
            return json.loads(self._receive(int.from_bytes(self._receive(LENGTH), "big")))
        except (OSError, ValueError, MemoryError) as error:
            # Whatever it still says would be taken for the answer to the next question.
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        why = str(error) or type(error).__name__
        _log.warn("No process makes the files of small bodies ({why}): a thread does.", why=why)
        self._not_before = time.monotonic() + _AGAIN_AFTER
        self.close()

    def _receive(self, size: int) -> bytes:
        assert self._socket is not None
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise OSError("it ended")
            data += piece
        return data

    def _start(self) -> None:
        """
        Start it.

        :raises OSError: if there can be none.
        """
        if not sys.executable:
            # As in a program that has an interpreter built in.
            raise OSError("the interpreter has no name")
        ours, its = socket.socketpair()
        try:
            with its:
                # What the service is told in secret is no business of who writes files.
                environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}
                command = [sys.executable, "-I", "-S", making.__file__]
                with _unheard(_FOR_THE_SERVICE):
                    self._process = subprocess.Popen(
                        command, stdin=its.fileno(), stdout=its.fileno(), env=environment, pass_fds=[self._lock()]
                    )
                note_holder(self._lock(), self._process.pid)
        except BaseException:
            ours.close()
            raise
        ours.settimeout(_LONGEST_ANSWER)
        self._socket = ours

    def rest(self) -> None:
        """End the process if it had nothing to do since this was last called."""
        if not self._used:
            self.close()
        self._used = False

    def close(self) -> None:
        """End the process, whatever it does: from then on it writes nothing."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None
        self._owes = False
