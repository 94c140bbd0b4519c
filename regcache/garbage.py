"""How often Python looks for garbage, and whether what it frees is kept."""

from __future__ import annotations

import gc

__all__ = ["collect_seldom", "keep_freed"]

#: How many new objects there are before they are looked through, and how often before those are that stayed. What waits
#: for the disk in a burst is many, and no garbage; to look through all of it at once would keep others waiting.
_YOUNG, _OFTEN = 20_000, 20
#: Bytes of what is freed that are kept for what comes next: twice the largest piece.
_KEPT = 16 << 20


def collect_seldom() -> None:
    """
    Look for garbage less often: at Python's own pace it took a tenth of the work of a miss.

    What stands now stands to the end, and is not looked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OFTEN, 10)


def keep_freed() -> None:
    """
    Have the C library keep some of the memory that is freed, where that is glibc, which learns from the largest piece
    that was freed by then how much (see M_MMAP_THRESHOLD in mallopt(3)).

    Else it gives back what each piece of a large body took, and the kernel has to clear that memory for the next one.
    """
    # Nothing of it is touched, so it takes no memory itself.
    bytearray(_KEPT // 2)
