"""Who may ask, under which name, and by which URL they reached us: addresses and fields in, answers out."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from attrs import frozen

from regcache.config import Config
from regcache.errors import BadRequest, Forbidden, MisdirectedHost
from regcache.http.messages import Headers
from regcache.values import Network

__all__ = ["Access", "Peer"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@frozen
class Peer:
    """
    Who is asking.

    :ivar address: as an address, or empty for a UNIX socket.
    :ivar trusted: whether what it says of others counts: it is one of the trusted proxies.
    """

    address: str
    trusted: bool


def _address(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _within(address: _Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


class Access:
    """The rules of one service."""

    def __init__(self, config: Config) -> None:
        self._allow = config.allow
        self._proxies = config.trust_proxy
        self._public_url = config.public_url
        self._any_host = "*" in config.hosts
        names = {"localhost", "ip6-localhost", socket.gethostname().lower(), *map(str.lower, config.hosts)}
        if not config.hosts:
            names.add(socket.getfqdn().lower() if "." in socket.gethostname() else "localhost")
        if config.public_url:
            names.add((urlsplit(config.public_url).hostname or "").lower())
        self._names = names

    def peer(self, host: str, headers: Headers) -> Peer:
        """
        The client: the rightmost address on the way that is not a trusted proxy.

        :param host: the socket's peer; empty for a UNIX socket.
        :raises regcache.errors.Forbidden: if it may not use the cache.
        """
        direct = _address(host)
        trusted = direct is None if not host else direct is not None and _within(direct, self._proxies)
        client = direct
        if direct is not None and trusted:
            for text in reversed(headers.get("x-forwarded-for").split(",")):
                if not text.strip():
                    continue
                hop = _address(text)
                if hop is None:
                    raise BadRequest("X-Forwarded-For holds what is no address.")
                client = hop
                if not _within(hop, self._proxies):
                    break
        if client is not None and not _within(client, self._allow):
            raise Forbidden(f"{client} is not among the allowed networks; the operator can add it with --allow.")
        if client is None and host:
            raise Forbidden(f"{host} is no address; the operator can allow networks with --allow.")
        return Peer(str(client or ""), trusted and direct is not None)

    def host(self, headers: Headers, peer: Peer, secure: bool, local: str) -> str:
        """
        The scheme and authority by which the client reached us, such as ``http://localhost:8650``.

        :param local: the authority of our own side of the connection, for clients that send no Host.
        :raises regcache.errors.MisdirectedHost: if we do not answer under that name.
        """
        lines = headers.lines("host")
        if len(lines) > 1:
            raise BadRequest("It has more than one Host field.")
        forwarded = headers.get("x-forwarded-host") if peer.trusted else ""
        authority = (forwarded or (lines[0] if lines else "") or local).strip()
        name = _host_of(authority)
        if not (self._any_host or name in self._names or self._is_own_address(name, local)):
            raise MisdirectedHost(f"{name!r} is not among its names; the operator can add it with --hosts.")
        scheme = headers.get("x-forwarded-proto").lower() if peer.trusted else ""
        if scheme not in ("http", "https"):
            scheme = "https" if secure else "http"
        return f"{scheme}://{authority}"

    @staticmethod
    def _is_own_address(name: str, local: str) -> bool:
        """An address cannot be rebound by anybody's name server, so our own is always right."""
        address = _address(name)
        return address is not None and (address.is_loopback or address == _address(_host_of(local)))

    def base(self, reached: str, prefix: str, registry_path: str) -> str:
        """
        The URL of a registry's mount, ending with a slash.

        :param prefix: the path our root is mounted at, as this client sees it.
        :param registry_path: the registry's own part: ``NAME/`` or empty.
        """
        root = self._public_url or f"{reached}{prefix.rstrip('/')}/"
        return root + registry_path


def _host_of(authority: str) -> str:
    try:
        parts = urlsplit(f"//{authority}")
        if parts.username is not None or parts.path or parts.query or parts.fragment or (parts.port or 1) < 1:
            raise ValueError
        name = parts.hostname or ""
    except ValueError:
        raise BadRequest("The Host field is not well formed.") from None
    if any(ord(char) <= 32 or char in '"<>\\^`{|}' for char in name):
        raise BadRequest("The Host field is not well formed.")
    return name.lower().rstrip(".")
