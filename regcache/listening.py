"""The ports of the service: opened, told of, drained and closed."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service
from twisted.internet import endpoints
from twisted.internet.defer import DeferredList, inlineCallbacks, maybeDeferred

from regcache.balanced import Balanced
from regcache.config import Listen
from regcache.errors import ConfigError
from regcache.gate import Gate
from regcache.house import House
from regcache.options import check_endpoint
from regcache.ports import Secured, completed, mistaken, refused, tls_files
from regcache.renewal import Renewable
from regcache.site import CacheSite
from regcache.web import RegCacheResource

__all__ = ["Ports"]

_PORT = 8650
#: What a machine says that does not have an address.
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
#: Addresses that stand for all that a machine has.
_ANY = frozenset({"0.0.0.0", "::", ""})
#: How endpoints begin of which the port is opened here, not handed over.
_OF_OURS = ("tcp:", "tcp6:", "ssl:")


class Ports(Service):
    """
    The ports: opened after the cache has started, closed before it stops.

    :param resource: what is served on a port of that registry, or on one of all of them where the name is empty.
    :param say: gets the lines for whoever starts the service.
    :param ways: by which way the registries are asked, for a person; empty if that is not worth a word.
    """

    def __init__(
        self,
        reactor: Any,
        house: House,
        resource: Callable[[str], RegCacheResource],
        say: Callable[[str], object],
        ways: Callable[[], str],
    ) -> None:
        self._reactor, self._house, self._resource, self._say, self._ways = reactor, house, resource, say, ways
        self._ports: list[Any] = []
        self._sites: list[CacheSite] = []
        self._secured: dict[str, Secured] = {}
        self.gate = Gate(reactor, house.cache.context.limits, house.config.trust_proxy)

    def listen(self) -> None:
        """
        Open every port, now.

        :raises regcache.errors.ConfigError: if one cannot be opened.
        """
        listen = self._house.config.listen
        default = (Listen(f"tcp:{_PORT}:interface=127.0.0.1"), Listen(f"tcp:{_PORT}:interface=\\:\\:1"))
        for one in listen or default:
            problem = self._open(one)
            absent = isinstance(problem, OSError) and problem.errno in _ABSENT
            if problem is not None and (listen or not self._ports or not absent):
                raise ConfigError(refused(one.endpoint, problem))

    def _open(self, one: Listen) -> Exception | None:
        site = CacheSite(self._resource(one.registry), self._reactor, self.gate)
        outcome: list[Any] = []
        check_endpoint(one.endpoint)
        reactor = self._reactor
        if tls_files(one.place):
            reactor = self._secured[one.place] = Secured(reactor, one.place)
        factory: Any = site
        if one.balanced:
            factory = Balanced(site, lambda host: self._house.access.is_trusted(host))
        try:
            endpoints.serverFromString(reactor, completed(one.place)).listen(factory).addBoth(outcome.append)
        except (ValueError, OSError) as error:
            return error
        result = outcome[0] if outcome else None
        if result is None or not hasattr(result, "stopListening"):
            value = getattr(result, "value", result)
            cause = getattr(value, "socketError", value)
            return cause if isinstance(cause, Exception) else ValueError(cause)
        problem = mistaken(result)
        if problem is not None:
            return problem
        host = result.getHost()
        if one.place.startswith(_OF_OURS) and not one.balanced and host.host not in _ANY:
            # Whoever is connected here has come to this very address.
            site.host = host
        self._ports.append((one, result))
        self._sites.append(site)
        return None

    def finish(self) -> None:
        """Answer now what would be at the end of this turn."""
        for site in self._sites:
            site.resource.finish()

    def reconsider(self) -> None:
        """Who may do what is another question now."""
        for site in self._sites:
            site.reconsider()

    def renewables(self) -> Iterator[Renewable]:
        """The certificates of our own."""
        for endpoint, secured in self._secured.items():
            yield Renewable(f"listen {endpoint}", tls_files(endpoint), secured.read)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._announce()

    def _announce(self) -> None:
        house, first = self._house, dict[str, str]()
        more: list[str] = []
        for one, port in self._ports:
            if not hasattr(port.getHost(), "port"):
                self._say(f"regcache: listening on {one.endpoint}")
        for one, registry, base in self._reached():
            if registry not in first:
                first[registry] = base
                lines = house.registries[registry].client_lines(base)
                self._say(f"regcache: {registry} at {base}   {lines[0] if lines else ''}")
            elif base != first[registry]:
                more.append(base if one.registry else base.removesuffix(f"{registry}/"))
        if more:
            self._say(f"regcache: the same at {', '.join(dict.fromkeys(more))}")
        page = next((base.removesuffix(f"{name}/") for one, name, base in self._reached() if not one.registry), "")
        if page:
            self._say(f"regcache: page at {page}")
        through = self._ways()
        if through and not house.config.offline:
            self._say(f"regcache: asks {through}")
        self._say(f"regcache: {house.state()}")

    def bases(self) -> Iterator[tuple[str, str]]:
        """Where each registry is reached over TCP, by name."""
        return ((registry, base) for _, registry, base in self._reached())

    def _reached(self) -> Iterator[tuple[Listen, str, str]]:
        house = self._house
        for one, port in self._ports:
            host = port.getHost()
            if not hasattr(host, "port"):
                continue
            # An address that stands for all of them leads nowhere.
            name = socket.gethostname() if host.host in _ANY else host.host
            name = f"[{name}]" if ":" in name else name
            scheme = "https" if one.place.startswith("ssl:") else "http"
            for registry in [one.registry] if one.registry else list(house.registries):
                path = "" if one.registry else f"{registry}/"
                yield one, registry, house.access.base(f"{scheme}://{name}:{host.port}", "", path)

    @inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()  # type: ignore[no-untyped-call]
        ports, self._ports = self._ports, []
        yield DeferredList([maybeDeferred(port.stopListening) for _, port in ports])
        for site in self._sites:
            site.drain()
