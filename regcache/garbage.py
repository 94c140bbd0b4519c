"""How often Python looks for garbage."""

from __future__ import annotations

import gc

__all__ = ["collect_seldom"]


def collect_seldom() -> None:
    """
    Look for garbage less often: at Python's own pace it took a tenth of the work of a miss.

    What stands now stands to the end, and is not looked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
