"""Checks at the same time, each in a thread that nobody waits for longer than he said."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["together"]

T = TypeVar("T")


def together(work: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T | Exception]:
    """
    Do all of it at once.

    A look-up of a name cannot be cut short: its thread is left behind, and does not keep the process.

    :returns: what came of each, by its name: the result, what it raised, or a TimeoutError.
    """
    ended: queue.SimpleQueue[tuple[str, T | Exception]] = queue.SimpleQueue()

    def one(name: str, do: Callable[[], T]) -> None:
        try:
            ended.put((name, do()))
        except Exception as error:
            ended.put((name, error))

    for name, do in work.items():
        threading.Thread(target=one, args=(name, do), daemon=True).start()
    found: dict[str, T | Exception] = {}
    until = time.monotonic() + seconds
    while len(found) < len(work):
        try:
            name, result = ended.get(timeout=max(until - time.monotonic(), 0.001))
        except queue.Empty:
            break
        found[name] = result
    return {name: found.get(name, TimeoutError(f"It did not end within {seconds:g} s.")) for name in work}
