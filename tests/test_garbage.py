"""What becomes of memory that is freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Takes four pieces of half a megabyte and frees them, as a large body that comes does, again and again; says how often
#: the kernel had to give memory for that.
_BODY = """
import resource
def pieces():
    return [b"x" * (1 << 19) for _ in range(4)]
pieces()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    pieces()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    """Page faults of that in a process of its own."""
    return int(subprocess.run([sys.executable, "-c", first + _BODY], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has ways of its own")
def test_what_is_freed_is_used_again() -> None:
    """The pieces of a body are put where those before were, and not where the kernel has to clear memory first."""
    assert faults("from regcache.garbage import keep_freed; keep_freed()\n") < faults("") / 10
