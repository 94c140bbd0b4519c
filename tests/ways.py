"""
By which way the services of the suite answer: as they are set up, or none of them ahead of Twisted's own Request.

What is ready in memory is given before anything else looks at a request (``regcache.express``), and a plain request is
read without Twisted's (``regcache.lean``). Without a memory both are off. Nobody can tell from outside, so that every
test has to hold then as well.
"""

from __future__ import annotations

import os
from typing import Any

from regcache.express import Express

__all__ = ["WAYS", "go", "heed", "variables"]

WAYS = ("fast", "ordinary")
_MEMORY = "REGCACHE_MEMORY_CACHE"


def go(way: str) -> None:
    """Have every service answer so, those in this process and those that are started from it."""
    if way == "ordinary":
        os.environ[_MEMORY] = "0"
        heed()


def heed() -> None:
    """Answer here as this process was told to, which may be one that a test has started."""
    if os.environ.get(_MEMORY) != "0":
        return
    made: Any = Express.__init__

    def without(self: Express, most: int, *others: Any) -> None:
        del most
        made(self, 0, *others)

    Express.__init__ = without  # type: ignore[assignment,method-assign]


def variables() -> dict[str, str]:
    """What a service has to be told that is started with an environment of its own."""
    return {_MEMORY: os.environ[_MEMORY]} if _MEMORY in os.environ else {}
