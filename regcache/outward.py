"""What goes out to the registries: through which proxy, with which credentials, over which connections."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, DeferredList

from regcache import credentials
from regcache.auth import is_closed
from regcache.config import Config
from regcache.counts import Counts
from regcache.credentials import Held
from regcache.errors import ConfigError
from regcache.flow.answers import Access
from regcache.flow.connections import CERTIFICATE, Certified, Connections, Trust
from regcache.flow.upstream import Upstream, origins_of
from regcache.http.origins import Origin
from regcache.interfaces import IRegistry
from regcache.renewal import Renewable, signature
from regcache.routes import RegistryOptions

__all__ = ["Outward", "Plan", "marked"]

#: Where the OpenSSL that comes with the TLS library looks for the system's certificates, if not where it was built for.
_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)


def marked(options: RegistryOptions, config: Config) -> RegistryOptions:
    """A registry's options, which say whether there are credentials for it, and whether its clients need some."""
    has = options.name in config.credentials
    further = tuple(evolve(one, has_credentials=has) for one in options.further)
    return evolve(options, has_credentials=has, closed=is_closed(options, config.auth), further=further)


@frozen(kw_only=True)
class Plan:
    """
    What goes out, as a configuration has it: read from its files, and not yet in use.

    :ivar urls: the upstream of each registry, the first if there are several.
    :ivar origins: of all upstreams.
    :ivar held: the credentials of the registries that have some.
    :ivar certified: the certificates of those that show one.
    """

    config: Config
    urls: Mapping[str, str]
    origins: tuple[str, ...]
    trust: Trust
    held: Mapping[str, Held] = field(repr=False)
    certified: Mapping[str, Certified]

    @classmethod
    def of(cls, config: Config, made: Mapping[str, IRegistry]) -> Plan:
        """
        Read what there is to be read; blocks.

        :raises regcache.errors.ConfigError: if credentials or certificates cannot be used, or are not there.
        """
        urls = {name: registry.options.url for name, registry in made.items()}
        said = {name: one for name, one in config.credentials.items() if name in made}
        held = {name: credentials.held(name, one, urls[name]) for name, one in said.items()}
        return cls(
            config=config,
            urls=urls,
            origins=tuple(origin for one in made.values() for origin in origins_of(one)),
            trust=_trust(config.upstream_ca),
            held=held,
            certified={name: _certified(held[name].origin, config, name) for name in held if said[name].certificate},
        )


class Outward:
    """
    The client of all registries.

    :raises regcache.errors.ConfigError: as :meth:`Plan.of` does.
    :ivar upstream: what the flow asks.
    """

    def __init__(self, reactor: Any, config: Config, made: Mapping[str, IRegistry]) -> None:
        self._reactor = reactor
        plan = self._plan = Plan.of(config, made)
        self._common = Connections(reactor, plan.trust, config.proxies)
        # Nobody else's request may go over a connection that is let in for a certificate: each has its own. Whoever has
        # none any more is kept here for what is still under way, and for the day it has one again.
        self._own: dict[str, Connections] = {}
        self._started = False
        self.upstream = Upstream(
            reactor, self._common, config.idle_timeout, way=self._common.way, counts=Counts(plan.origins)
        )
        self.change(plan)

    def change(self, plan: Plan) -> None:
        """Ask like that from the next request on; what is under way goes on as it was begun."""
        self._plan, config = plan, plan.config
        self._common.renew(plan.trust, None)
        for name, certified in plan.certified.items():
            if name not in self._own:
                self._own[name] = Connections(self._reactor, plan.trust, config.proxies, certified)
                if self._started:
                    self._own[name].start()
            self._own[name].renew(plan.trust, certified)
        accesses = {
            name: Access(
                origin=held.origin,
                authorization=held.authorization,
                lowest=self._own[name] if name in plan.certified else self._common,
                secrets=held.secrets,
            )
            for name, held in plan.held.items()
        }
        self.upstream.change(config.idle_timeout, accesses)
        self.upstream.counts.follow(plan.origins)

    def renewables(self) -> Iterator[Renewable]:
        """The certificates that are trusted, and those that are shown."""
        plan = self._plan
        ca = plan.config.upstream_ca
        what = "upstream-ca" if ca else "the system's certificates"
        yield Renewable(what, (*((ca,) if ca else ()), *_system()), self._read_trust)
        for name in plan.certified:
            said = plan.config.credentials[name]
            files = (said.certificate, said.key)
            yield Renewable(f"registries.{name}.client-cert", files, partial(self._read_certified, name))

    def _read_trust(self) -> Callable[[], None]:
        for file in _system():
            if Path(file).is_file():
                _check_bundle(file)
        config = self._plan.config
        trust = _trust(config.upstream_ca)
        return lambda: self._replace(config, lambda plan: evolve(plan, trust=trust))

    def _read_certified(self, name: str) -> Callable[[], None]:
        config = self._plan.config
        found = _certified(self._plan.held[name].origin, config, name)
        return lambda: self._replace(config, lambda plan: evolve(plan, certified={**plan.certified, name: found}))

    def _replace(self, config: Config, made: Callable[[Plan], Plan]) -> None:
        # What was read for another configuration was read again for this one.
        if self._plan.config is config:
            self.change(made(self._plan))

    def start(self) -> None:
        """Allow look-ups."""
        self._started = True
        for one in (self._common, *self._own.values()):
            one.start()

    def stop(self) -> Deferred[Any]:
        """Close every connection; fires when that is done."""
        return DeferredList([one.stop() for one in (self._common, *self._own.values())])

    def told(self) -> str:
        """Through which proxies the registries are asked, for a person; empty if through none."""
        ways: dict[str, list[str]] = {}
        for name, url in self._plan.urls.items():
            ways.setdefault(self._common.proxy(url), []).append(name)
        direct = ways.pop("", [])
        told = [f"{', '.join(names)} through the proxy {proxy}" for proxy, names in ways.items()]
        return "; ".join([*told, *([f"{', '.join(direct)} directly"] if direct else [])]) if told else ""


def _system() -> tuple[str, ...]:
    """The files, and the directory, from which the system's certificates may come."""
    paths = ssl.get_default_verify_paths()
    named = (paths.cafile, paths.capath, paths.openssl_cafile, *_SYSTEM)
    return tuple(dict.fromkeys(one for one in named if one))


def _check_bundle(file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise ConfigError(f"{file} is no PEM file of certificates ({error.strerror or error}).") from None


def _trust(file: str) -> Trust:
    found = Trust(system=signature(_system()))
    try:
        if file:
            _check_bundle(file)
            found = evolve(found, pem=Path(file).read_bytes())
        if file and not found.certificates:
            raise ConfigError(f"upstream-ca: {file} holds no certificate.")
    except (OSError, crypto.Error) as error:
        raise ConfigError(f"upstream-ca: {file} cannot be read ({getattr(error, 'strerror', error)}).") from None
    return found


def _certified(origin: Origin, config: Config, name: str) -> Certified:
    said = config.credentials[name]
    try:
        shown, key = Path(said.certificate).read_bytes(), Path(said.key).read_bytes()
        chain = [crypto.load_certificate(crypto.FILETYPE_PEM, one) for one in CERTIFICATE.findall(shown)]
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, key, b"")
        together = SSL.Context(SSL.TLS_METHOD)
        together.use_certificate(chain[0])
        together.use_privatekey(private)
        together.check_privatekey()
    except SSL.Error:
        raise ConfigError(
            f"registries.{name}.client-cert: {said.certificate} and {said.key} do not belong together."
        ) from None
    except (OSError, ValueError, IndexError, crypto.Error):
        raise ConfigError(f"registries.{name}.client-cert: {said.certificate} cannot be read any more.") from None
    options = {"privateKey": private, "certificate": chain[0], "extraCertChain": chain[1:]}
    return Certified(origin, options, hashlib.sha256(shown + b"\0" + key).digest())
