"""
All measurements, or some of them, side by side with what others need for the same: ``python -m benchmarks``.
"""

from __future__ import annotations

import sys

from benchmarks import coalesce, fill, hits, idle, jobs, large, lockfile, outage, scale, stale, stall
from benchmarks.command import Groups, run

__all__ = ["GROUPS"]

GROUPS: Groups = {
    **hits.GROUPS,
    **large.GROUPS,
    **fill.GROUPS,
    **coalesce.GROUPS,
    **jobs.GROUPS,
    **lockfile.GROUPS,
    **idle.GROUPS,
    **stall.GROUPS,
    **scale.GROUPS,
    **stale.GROUPS,
    **outage.GROUPS,
}

if __name__ == "__main__":
    sys.exit(run(GROUPS))
