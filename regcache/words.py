"""Numbers as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

__all__ = ["aged", "ago", "counted", "sized", "stamped"]


def sized(number: int) -> str:
    """Bytes, in the unit that suits them."""
    amount, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def aged(seconds: float | None) -> str:
    """Seconds, in the largest unit that they fill; a time in the future is none."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(seconds: float | None, never: str = "never") -> str:
    """How long ago something was."""
    if seconds is None or math.isinf(seconds):
        return never
    return "just now" if seconds < 2 else f"{aged(seconds)} ago"


def counted(number: int, one: str, many: str = "") -> str:
    """So many of something, such as ``1 entry`` or ``1,200 entries``."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def stamped(when: float) -> str:
    """Seconds since the epoch as a time of RFC 3339, in UTC; empty for what no calendar has."""
    try:
        return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""
