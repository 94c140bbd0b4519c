"""
A program with a page of its own, and the cache below one of its paths.

Run as ``python embedded.py PORT CACHE_DIR [INDEX]``; ``INDEX`` is a package index to use instead of the public one.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from regcache import Config, RegCacheResource, RegistryOptions, build


def tree(cache: RegCacheResource) -> Resource:
    """This program's own page, and the cache at ``/tools/packages/``."""
    root, tools = Resource(), Resource()
    root.putChild(b"", Data(b"A program with a cache in it.\n", "text/plain"))
    root.putChild(b"tools", tools)
    tools.putChild(b"packages", cache)
    return root


async def main(reactor: Any, port: str, cache_dir: str, index: str = "") -> None:
    """Start the cache, then listen; at the end of the program, the same backwards."""
    config = Config(cache_dir=cache_dir, registries=(RegistryOptions(name="pypi", type="pypi", url=index),))
    parts = build(reactor, config)
    parts.service.startService()
    site = Site(tree(parts.resource()), reactor=reactor)
    listening = await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(site)

    async def stop() -> None:
        await listening.stopListening()
        await parts.service.stopService()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(stop()))
    sys.stdout.write(f"Listening on http://127.0.0.1:{listening.getHost().port}/\n")
    sys.stdout.flush()
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
