"""Standard output that nobody may read: whoever writes a line of the log there is not made to wait for that."""

from __future__ import annotations

import atexit
import sys
import threading
from collections import deque
from typing import Any, TextIO

__all__ = ["Outlet", "let_out"]

#: Characters that wait for whoever reads; what comes when there are more is lost, and counted.
_MOST_WAITING = 1 << 20
#: Seconds for which the end of the program waits for what is still to be read.
_PATIENCE = 1.0


class Outlet:
    """
    Writes to a stream in a thread of its own.

    A pipe that is full makes its writer wait until somebody reads; the thread that waits here is none that serves
    anybody. It begins with the first line, so that a program may fork before.

    States: *prompt* (:meth:`flush` waits until all is written, as long as that is no trouble), which is how a program
    begins and ends; *patient* (nothing waits), between :meth:`begin` and :meth:`end`.

    :ivar encoding: of the stream, for whoever asks.
    """

    def __init__(self, stream: TextIO) -> None:
        self.encoding = stream.encoding
        self._stream = stream
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._size = self._lost = 0
        self._patient = self._writing = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Somebody may be served from now on."""
        self._patient = True

    def end(self) -> None:
        """Nobody is served any more: what is written now is the last that anybody hears."""
        self._patient = False
        self.flush()

    def write(self, text: str) -> None:
        """Have it written in its turn."""
        with self._changed:
            if self._size + len(text) > _MOST_WAITING:
                self._lost += 1
                return
            self._waiting.append(text)
            self._size += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="regcache-log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Nothing while somebody may be served; else wait a moment until all is written."""
        if not self._patient and self._thread is not threading.current_thread():
            with self._changed:
                done = self._changed.wait_for(lambda: not self._waiting and not self._writing, _PATIENCE)
            # Whoever did not read for so long is not waited for again.
            self._patient = not done

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                text = "".join(self._waiting)
                if self._lost:
                    text += f"# {self._lost} lines of the log were lost: nobody read them.\n"
                self._waiting.clear()
                self._size = self._lost = 0
                self._writing = True
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody is left to be told.
                continue


def let_out(reactor: Any) -> None:
    """
    Have what goes to standard output from now on wait for nobody while the reactor runs.

    A stream that somebody else has put in its place is left alone.
    """
    stream = sys.__stdout__
    if stream is None or sys.stdout is not stream:
        return
    outlet: Any = Outlet(stream)
    sys.stdout = outlet
    reactor.callWhenRunning(outlet.begin)
    reactor.addSystemEventTrigger("after", "shutdown", outlet.end)
    atexit.register(outlet.flush)
