"""
Which forward proxy a host is asked through: what ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` mean.

No standard says it. Where the usual programs differ, this is what curl and Python's own client make of them.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote

from attrs import field, frozen

from regcache.errors import ConfigError
from regcache.http.origins import Origin

__all__ = ["DIRECT", "Exemptions", "Proxies", "Proxy", "basic"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORT = re.compile(r"(.*):(\d{1,5})", re.ASCII)
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def basic(user: str, password: str) -> str:
    """
    The value of a field that gives a name and a password (RFC 7617).

    :raises ValueError: if they cannot be given, for a control character, or a colon in the name.
    """
    if _CONTROL.search(user + password) or ":" in user:
        raise ValueError("a user without a colon, and neither with control characters")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


@frozen
class Proxy:
    """
    A forward proxy; as text it is its URL, without what it is told to let us through.

    :ivar origin: where it is; with ``https``, it is spoken to by TLS.
    :ivar authorization: the value of Proxy-Authorization, or empty.
    """

    origin: Origin
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        return f"{self.origin.scheme}://{host}:{self.origin.port}"

    @classmethod
    def of(cls, text: str, where: str) -> Proxy:
        """
        The proxy that a variable names: ``[http[s]://][USER:PASSWORD@]HOST[:PORT]``, user and password
        percent-encoded.

        :raises regcache.errors.ConfigError: saying where, but not the text, in which there may be a password.
        """
        scheme, sep, rest = text.strip().rpartition("://")
        # A password with a raw slash or number sign would else be taken for a host.
        netloc, _, more = rest.partition("/")
        userinfo, at, place = netloc.rpartition("@")
        scheme = scheme.lower() if sep else "http"
        origin = Origin.of(f"{scheme}://{place}/") if scheme in ("http", "https") and place else None
        try:
            if origin is None or origin.port == 0 or "@" in more or re.search(r"[?#\\\s]", rest):
                raise ValueError
            user, _, password = userinfo.partition(":")
            return cls(origin, basic(unquote(user, errors="strict"), unquote(password, errors="strict")) if at else "")
        except ValueError:
            raise ConfigError(
                f"{where} names no proxy that can be used; it wants http://HOST:PORT, or"
                " http://USER:PASSWORD@HOST:PORT with both percent-encoded."
            ) from None


@frozen
class _Hosts:
    """
    The hosts that one part of ``NO_PROXY`` stands for.

    :ivar network: addresses; None for names.
    :ivar name: a name without dots at its ends.
    :ivar itself: whether the name itself is meant, and not only those below it.
    :ivar port: the only port meant; 0 for any.
    """

    network: _Network | None = None
    name: str = ""
    itself: bool = True
    port: int = 0

    @classmethod
    def of(cls, text: str) -> _Hosts | None:
        """What a part stands for; None if that cannot be said."""
        for part, port in ((text, "0"), *_PORT.findall(text)):
            bare = part[1:-1] if part[:1] + part[-1:] == "[]" else part
            try:
                return cls(network=_unmapped(ipaddress.ip_network(bare, strict=False)), port=int(port))
            except ValueError:
                if "/" in part:
                    continue
            itself = not part.startswith("*.")
            origin = Origin.of(f"http://{part.removeprefix('*').strip('.')}/")
            if origin is not None and origin.port == 80 and ":" not in part and _named(origin.host):
                return cls(name=origin.host, itself=itself, port=int(port))
        return None

    def holds(self, name: str, address: _Address | None, port: int) -> bool:
        """Whether a host, whose name may be an address, is one of them."""
        if self.port not in (0, port):
            return False
        if address is not None or self.network is not None:
            return address is not None and self.network is not None and address in self.network
        return (self.itself and name == self.name) or name.endswith(f".{self.name}")


def _named(host: str) -> bool:
    """Whether it is a name, and no half an address such as ``192.168``."""
    return not host.replace(".", "").isdigit()


def _unmapped(network: _Network) -> _Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    return network if mapped is None else ipaddress.IPv4Network((mapped, max(network.prefixlen - 96, 0)))


def _address(host: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


@frozen
class Exemptions:
    """
    The hosts that are asked without a proxy. Made by :meth:`of`.

    :ivar text: what was said.
    :ivar unclear: the parts that stand for nothing.
    """

    text: str = ""
    unclear: tuple[str, ...] = ()
    _all: bool = False
    _hosts: tuple[_Hosts, ...] = ()

    @classmethod
    def of(cls, text: str) -> Exemptions:
        """
        What ``NO_PROXY`` says, in parts that commas or blanks separate.

        ``host`` and ``.host`` stand for the host and all below it, ``*.domain`` only for what is below, an address or a
        network in CIDR for hosts that are named by address, each with ``:port`` for that port alone; ``*`` for all.
        No name is looked up for it.
        """
        parts = [part for part in re.split(r"[,\s]+", text) if part]
        read = [(part, _Hosts.of(part.lower())) for part in parts if part != "*"]
        return cls(
            text=",".join(parts),
            unclear=tuple(part for part, hosts in read if hosts is None),
            all="*" in parts,
            hosts=tuple(hosts for _, hosts in read if hosts is not None),
        )

    def hold(self, host: str, port: int) -> bool:
        """Whether that host is one of them, as an :class:`Origin` has it."""
        address, name = _address(host), host.strip(".")
        return self._all or any(hosts.holds(name, address, port) for hosts in self._hosts)


@frozen
class Proxies:
    """
    The proxies for each scheme; by default none.

    :ivar https: for upstreams with TLS.
    :ivar http: for those without.
    """

    https: Proxy | None = None
    http: Proxy | None = None
    exempt: Exemptions = Exemptions()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Proxies:
        """
        Those that the environment names; a variable in lower case wins, also an empty one, which names none.

        :raises regcache.errors.ConfigError: for one that cannot be used.
        """

        def said(*names: str) -> tuple[str, str]:
            both = (spelt for name in names for spelt in (name.lower(), name))
            name = next((name for name in both if name in environ), "")
            return environ.get(name, "").strip(), name

        def proxy(name: str) -> Proxy | None:
            text, where = said(name, "ALL_PROXY")
            return Proxy.of(text, where) if text else None

        return cls(proxy("HTTPS_PROXY"), proxy("HTTP_PROXY"), Exemptions.of(said("NO_PROXY")[0]))

    def to(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy through which an origin is asked; None for directly."""
        proxy = self.https if scheme == "https" else self.http
        return None if proxy is None or self.exempt.hold(host, port) else proxy

    def __bool__(self) -> bool:
        return self.https is not None or self.http is not None


#: No proxy for anything.
DIRECT = Proxies()
