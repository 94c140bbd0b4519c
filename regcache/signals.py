"""What the signals do that end other programs. A handler does nothing itself: it tells the reactor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

__all__ = ["heed_hangup", "heed_impatience", "is_on_terminal"]


def heed_impatience(reactor: Any, hurry: Callable[[], object]) -> None:
    """While stopping, a second signal cuts the grace period; Twisted's own handlers would report a bug."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: reactor.callFromThread(hurry))


def heed_hangup(heed: Callable[[], object] = lambda: None) -> None:
    """
    Do that at SIGHUP; also before there is anything to do, it does not end the program.

    It is not ignored in the system's sense, which programs that are started from here would inherit.
    """
    signal.signal(signal.SIGHUP, lambda *_: heed())


def is_on_terminal() -> bool:
    """Whether standard input is a terminal that is still there."""
    return os.isatty(0)
