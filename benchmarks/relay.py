"""
The least that a program of Twisted's own client can do for a lockfile's tarballs, as a measure for what regcache adds.

It asks for each tarball and its small manifest together, holds both in memory, checks and stores nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site


class Relay(Resource):
    """Every path, from an upstream."""

    isLeaf = True

    def __init__(self, upstream: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = 32
        self._agent = Agent(reactor, pool=pool)
        self._upstream = upstream

    def render_GET(self, request: Request) -> int:
        """Answer later."""
        Deferred.fromCoroutine(self._answer(request))
        return NOT_DONE_YET

    def _get(self, path: str) -> Deferred[bytes]:
        asked: Deferred[Any] = self._agent.request(b"GET", (self._upstream + path).encode())
        return asked.addCallback(readBody)

    async def _answer(self, request: Request) -> None:
        path = request.path.decode().lstrip("/")
        manifest = self._get(f"{path.partition('/')[0]}/1.0.0")
        body = await self._get(path)
        await manifest
        request.setHeader("content-length", str(len(body)))
        request.write(body)
        request.finish()


def main() -> None:
    """Listen on the port, for the upstream, that the command line names."""
    port, upstream = sys.argv[1:]
    site: Any = Site(Relay(upstream))
    endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1:backlog=512").listen(site)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main()
