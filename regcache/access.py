"""Who may ask, under which name, and by which URL they reached us: addresses and fields in, answers out."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from attrs import frozen

from regcache.config import Config
from regcache.errors import BadRequest, Forbidden, MisdirectedHost
from regcache.http.messages import Headers
from regcache.values import Network

__all__ = ["Access", "Peer", "spelled"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
#: Blanks, controls and what could end a quoted link do not stand in a host's name.
_AUTHORITY = re.compile(r"[!#-;=?-\[\]_a-z~]+")
#: Longer ones name no host (RFC 1035 section 2.3.4), and are not to be remembered.
_LONGEST_AUTHORITY = 300
#: Some proxies add the client's port.
_WITH_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+|\[[^\]]*\]):\d+")


@frozen
class Peer:
    """
    Who is asking.

    :ivar address: as an address, or empty for a UNIX socket.
    :ivar trusted: whether what it says of others counts: it is one of the trusted proxies.
    """

    address: str
    trusted: bool


@lru_cache(1024)
def _address(text: str) -> _Address | None:
    """An address in any of its spellings, without its zone; a mapped IPv4 address is that IPv4 address."""
    try:
        found = ipaddress.ip_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


@lru_cache(1024)
def spelled(host: str) -> str:
    """The address of a socket's peer as all of them are named: in one spelling, a mapped IPv4 address as that one."""
    return str(_address(host) or host)


@lru_cache(256)
def _name(text: str) -> str:
    """A host's name or address, spelled as all of them are compared."""
    return str(_address(text) or text.lower().rstrip("."))


def _last(text: str) -> str:
    """Of a list, what the nearest proxy added: whatever stands before it may be anybody's."""
    return text.rpartition(",")[2].strip()


def _within(address: _Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


class Access:
    """The rules of one service."""

    def __init__(self, config: Config) -> None:
        self._allow = config.allow
        self._proxies = config.trust_proxy
        self._public_url = config.public_url
        self._shared = not config.listen or not all(one.registry for one in config.listen)
        # The same is asked of each client again and again.
        self._direct = lru_cache(1024)(lambda host: self._behind(host, ""))
        self._trusted = lru_cache(1024)(lambda host: self._is_proxy(host))
        self._any_host = "*" in config.hosts
        machine = socket.gethostname()
        named = config.hosts or (machine, machine.partition(".")[0])
        public = urlsplit(config.public_url).hostname or "localhost"
        self._names = _LOOPBACK_NAMES | {_name(name) for name in (*named, public)}

    def peer(self, host: str, headers: Headers) -> Peer:
        """
        The client: the rightmost address on the way that is not a trusted proxy.

        :param host: the socket's peer; empty for a UNIX socket.
        :raises regcache.errors.Forbidden: if it may not use the cache.
        """
        others = headers.get("x-forwarded-for")
        return self._behind(host, others) if others else self._direct(host)

    def _behind(self, host: str, others: str) -> Peer:
        if not host:
            return Peer("", False)
        client = _address(host)
        if client is None:
            raise Forbidden(f"{host} is no address; the operator can allow networks with --allow.")
        trusted = _within(client, self._proxies)
        hops = [hop.strip() for hop in others.split(",") if hop.strip()]
        while hops and _within(client, self._proxies):
            hop = hops.pop()
            told = _WITH_PORT.fullmatch(hop)
            found = _address(told[1] if told else hop)
            if found is None:
                raise BadRequest("X-Forwarded-For holds what is no address.")
            client = found
        if not _within(client, self._allow):
            raise Forbidden(f"{client} is not among the allowed networks; the operator can add it with --allow.")
        return Peer(str(client), trusted)

    def is_trusted(self, host: str) -> bool:
        """Whether the socket's peer is a proxy that may say for whom it asks."""
        return self._trusted(host)

    def _is_proxy(self, host: str) -> bool:
        client = _address(host)
        return client is not None and _within(client, self._proxies)

    def host(self, headers: Headers, peer: Peer, secure: bool, local: str, named: str = "") -> str:
        """
        The scheme and authority by which the client reached us, such as ``http://localhost:8650``, in one spelling.

        :param local: the authority of our own side of the connection, for clients that send no Host.
        :param named: the authority of a request target in absolute form.
        :raises regcache.errors.MisdirectedHost: if we do not answer under that name.
        """
        lines = headers.lines("host")
        if len(lines) > 1:
            raise BadRequest("It has more than one Host field.")
        forwarded = _last(headers.get("x-forwarded-host")) if peer.trusted else ""
        host, port = _host_of((forwarded or named or (lines[0] if lines else "") or local).strip())
        name = _name(host)
        if not (self._any_host or name in self._names or self._is_own_address(name, local)):
            raise MisdirectedHost(f"{name!r} is not among its names; the operator can add it with --hosts.")
        scheme = _last(headers.get("x-forwarded-proto")).lower() if peer.trusted else ""
        if scheme not in ("http", "https"):
            scheme = "https" if secure else "http"
        shown = f"[{name}]" if ":" in name else name
        return f"{scheme}://{shown}" + ("" if port in (None, _PORTS[scheme]) else f":{port}")

    def let_in(
        self, headers: Headers, peer: Peer, secure: bool, local: str, *, named: str = "", shows: bool = False
    ) -> str:
        """
        See that whoever asks may: of us, by that name, and not for a web page of somebody else's.

        :returns: by which scheme and authority they reached us, as :meth:`host` does.
        :raises regcache.errors.RegCacheError: as :meth:`host` and :meth:`page` do.
        """
        reached = self.host(headers, peer, secure, local, named)
        self.page(headers, reached, shows)
        return reached

    def page(self, headers: Headers, reached: str, shows: bool) -> None:
        """
        Refuse what a web page of somebody else's asks in a browser, which says so by Fetch Metadata or by Origin
        (RFC 6454); the clients of package registries send neither.

        :param reached: as :meth:`host` returns it.
        :param shows: whether this is a page of our own, to which links from elsewhere may lead.
        :raises regcache.errors.Forbidden: if it is one.
        """
        site, origin = headers.get("sec-fetch-site").lower(), headers.get("origin")
        if not site and not origin:
            return
        own = {_netloc(reached), _netloc(self._public_url)} - {""}
        linked = shows and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if (origin and _netloc(origin) not in own) or (site not in ("", "same-origin", "none") and not linked):
            raise Forbidden(f"A web page of {origin or 'another site'} asks for this; only its own pages may.")

    @staticmethod
    def _is_own_address(name: str, local: str) -> bool:
        """An address cannot be rebound by anybody's name server, so our own is always right."""
        address = _address(name)
        return address is not None and (address.is_loopback or address == _address(_host_of(local)[0]))

    def base(self, reached: str, prefix: str, registry_path: str) -> str:
        """
        The URL of a registry's mount, ending with a slash.

        ``public-url`` is that of the place where all registries are; one alone has it only if there is no such place.

        :param prefix: the path our root is mounted at, as this client sees it.
        :param registry_path: the registry's own part: ``NAME/``, or empty for one that is there alone.
        """
        public = self._public_url if registry_path or not self._shared else ""
        return (public or f"{reached}{prefix.rstrip('/')}/") + registry_path


def _netloc(url: str) -> str:
    """Host and port of an origin; the scheme may have changed at a reverse proxy."""
    scheme, _, rest = url.lower().partition("://")
    return rest.partition("/")[0].removesuffix(f":{_PORTS.get(scheme, 0)}")


@lru_cache(256)
def _host_of(authority: str) -> tuple[str, int | None]:
    """The host and the port of a ``host`` or ``host:port``."""
    if len(authority) > _LONGEST_AUTHORITY:
        raise BadRequest("The Host field is too long.")
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port
        good = parts.netloc == authority and "@" not in authority and port != 0
    except ValueError:
        good = False
    if not good or not _AUTHORITY.fullmatch(authority):
        raise BadRequest("The Host field is not well formed.")
    return parts.hostname or "", port
