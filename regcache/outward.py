"""What goes out to the registries: through which proxy, with which credentials, over which connections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve
from OpenSSL import crypto
from twisted.internet.defer import Deferred, DeferredList

from regcache import credentials
from regcache.auth import is_closed
from regcache.config import Config
from regcache.counts import Counts
from regcache.errors import ConfigError
from regcache.flow.connections import Certified, Connections
from regcache.flow.upstream import Access, Upstream, origins_of
from regcache.http.origins import Origin
from regcache.interfaces import IRegistry
from regcache.routes import RegistryOptions

__all__ = ["Outward", "marked"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def marked(options: RegistryOptions, config: Config) -> RegistryOptions:
    """A registry's options, which say whether there are credentials for it, and whether its clients need some."""
    has = options.name in config.credentials
    further = tuple(evolve(one, has_credentials=has) for one in options.further)
    return evolve(options, has_credentials=has, closed=is_closed(options, config.auth), further=further)


class Outward:
    """
    The client of all registries.

    :raises regcache.errors.ConfigError: if credentials cannot be used, or are not there.
    :ivar upstream: what the flow asks.
    """

    def __init__(self, reactor: Any, config: Config, made: Mapping[str, IRegistry]) -> None:
        self._common = Connections(reactor, config.upstream_ca, config.proxies)
        self._all = [self._common]
        self._urls = {name: registry.options.url for name, registry in made.items()}
        accesses = {name: self._access(reactor, config, name) for name in made if name in config.credentials}
        counts = Counts(origin for one in made.values() for origin in origins_of(one))
        self.upstream = Upstream(reactor, self._common, config.idle_timeout, accesses, self._common.way, counts)

    def _access(self, reactor: Any, config: Config, name: str) -> Access:
        said = config.credentials[name]
        held = credentials.held(name, said, self._urls[name])
        lowest = self._common
        if said.certificate:
            # Nobody else's request may go over a connection that is let in for this certificate.
            certified = _certified(held.origin, said.certificate, said.key, name)
            lowest = Connections(reactor, config.upstream_ca, config.proxies, certified)
            self._all.append(lowest)
        return Access(origin=held.origin, authorization=held.authorization, lowest=lowest, secrets=held.secrets)

    def start(self) -> None:
        """Allow look-ups."""
        for one in self._all:
            one.start()

    def stop(self) -> Deferred[Any]:
        """Close every connection; fires when that is done."""
        return DeferredList([one.stop() for one in self._all])

    def told(self) -> str:
        """Through which proxies the registries are asked, for a person; empty if through none."""
        ways: dict[str, list[str]] = {}
        for name, url in self._urls.items():
            ways.setdefault(self._common.proxy(url), []).append(name)
        direct = ways.pop("", [])
        told = [f"{', '.join(names)} through the proxy {proxy}" for proxy, names in ways.items()]
        return "; ".join([*told, *([f"{', '.join(direct)} directly"] if direct else [])]) if told else ""


def _certified(origin: Origin, certificate: str, key: str, name: str) -> Certified:
    try:
        found = _CERTIFICATE.findall(Path(certificate).read_bytes())
        chain = [crypto.load_certificate(crypto.FILETYPE_PEM, one) for one in found]
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, Path(key).read_bytes(), b"")
    except (OSError, ValueError, crypto.Error):
        raise ConfigError(f"registries.{name}.client-cert: {certificate} cannot be read any more.") from None
    options = {"privateKey": private, "certificate": chain[0], "extraCertChain": chain[1:]}
    return Certified(origin, options)
