"""What the kernel says of running processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["cpu", "family", "resident"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def resident(pid: int) -> int:
    """Bytes that it and its descendants have in memory; what they share counts once for each."""
    found = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            found += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE
    return found


def cpu(pid: int) -> float:
    """Seconds of the processor that it and its descendants took until now, those that ended included."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS
