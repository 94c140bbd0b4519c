"""
A foreign program with several caches mounted in it, each with a directory of its own.

Started as ``python -m tests.mounts DIRECTORY REGISTRY``; prints its port when it listens.

===============  ================  ==========================================================================
host             path              what
===============  ================  ==========================================================================
one.example      /deep/our tools/  the first cache, both registries; also for hosts that nobody gave a name to
one.example      /second/          the second cache
one.example      /closed/          a cache that allows another network only
one.example      /guarded/         a cache that wants to know who asks, by the token ``t0ken``
one.example      /waiting/         a cache that is started by asking for /start
two.example      /js/              the first cache's npm registry alone
three.example    /                 the first cache's package index alone
===============  ================  ==========================================================================
"""

from __future__ import annotations

import hashlib
import ipaddress
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from twisted.web.vhost import NameVirtualHost

from regcache import Config, RegistryOptions, build

_OPEN = ipaddress.ip_network("127.0.0.0/8")
_ELSEWHERE = ipaddress.ip_network("192.0.2.0/24")


class _Start(Resource):
    """Starts a service when it is asked for."""

    isLeaf = True

    def __init__(self, service: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._service = service

    def render_GET(self, request: Request) -> bytes:
        """Start it now."""
        del request
        self._service.startService()
        return b"started\n"


async def main(reactor: Any, directory: str, registry: str) -> None:
    """Mount everything, listen, and stop in order."""
    options = (
        RegistryOptions(name="pypi", type="pypi", url=f"{registry}simple/"),
        RegistryOptions(name="npm", type="npm", url=registry),
    )

    def made(name: str, allow: Any = _OPEN, auth: str = "") -> Any:
        place = str(Path(directory) / name)
        hosts = ("one.example", "two.example", "three.example")
        return build(reactor, Config(cache_dir=place, registries=options, hosts=hosts, allow=(allow,), auth=auth))

    readers = Path(directory) / "readers"
    readers.write_text(f"ci:sha256:{hashlib.sha256(b't0ken').hexdigest()}\n")
    readers.chmod(0o600)
    guarded = made("guarded", auth=str(readers))

    first, second, closed, waiting = made("first"), made("second"), made("closed", _ELSEWHERE), made("waiting")
    started = [first.service, second.service, closed.service, guarded.service]
    for service in started:
        service.startService()
    one, deep, two, hosts = Resource(), Resource(), Resource(), NameVirtualHost()
    deep.putChild(b"our tools", first.resource())
    one.putChild(b"deep", deep)
    one.putChild(b"second", second.resource())
    one.putChild(b"closed", closed.resource())
    one.putChild(b"guarded", guarded.resource())
    one.putChild(b"guarded-js", guarded.resource("npm"))
    one.putChild(b"waiting", waiting.resource())
    one.putChild(b"start", _Start(waiting.service))
    two.putChild(b"js", first.resource("npm"))
    hosts.default = one  # type: ignore[assignment]
    hosts.addHost(b"one.example", one)
    hosts.addHost(b"two.example", two)
    hosts.addHost(b"three.example", first.resource("pypi"))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(hosts, reactor=reactor))

    async def stop() -> None:
        await port.stopListening()
        for service in [*started, waiting.service]:
            await service.stopService()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(stop()))
    sys.stdout.write(f"{port.getHost().port}\n")
    sys.stdout.flush()
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
