"""
Which hosts a registry may contact: its own, and those that its owner named.

This is the whole defence against being made to fetch from elsewhere (server-side request forgery), so whatever
two URL parsers could read differently is refused rather than interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

import idna
import msgspec
from attrs import frozen

from regcache.errors import ConfigError

__all__ = ["LONGEST_AGAIN", "Origin", "Origins"]

#: Characters of a URL of which something is remembered: what clients and registries write may be as long as they like.
LONGEST_AGAIN = 1024

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
_ADDRESS = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*")
#: What some parsers drop, and others keep or read as a slash.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
#: The part of a URL that tells its origin (RFC 3986 section 3).
_BEGINNING = re.compile(r"[^:/?#]+://[^/?#]*")
#: The longest name that a host can have (RFC 1035 section 2.3.4): reading a longer one would only take time.
_LONGEST_HOST = 255
#: With its scheme and its port.
_LONGEST_BEGINNING = 300


class Origin(msgspec.Struct, frozen=True, gc=False):
    """
    The scheme, host and port of a URL (RFC 6454), normalised.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: in lower case and ASCII (IDNA as UTS 46 maps it); an IPv6 address without brackets.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin | None:
        """
        The origin of an absolute URL; None if it is not http or https, or is one that parsers disagree on.

        User information makes it None as well: such a URL is never to be asked or shown.
        """
        return _of(url) if len(url) <= LONGEST_AGAIN else _of.__wrapped__(url)

    @property
    def authority(self) -> str:
        """``host``, or ``host:port`` where the port is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@lru_cache(256)
def _of(url: str) -> Origin | None:
    """Of one URL it is asked several times, one after the other: whether it may be contacted, and where it leads."""
    beginning = None if _AMBIGUOUS.search(url) else _BEGINNING.match(url)
    # What is remembered must not be as long as whoever wrote the URL likes.
    return None if beginning is None or len(beginning[0]) > _LONGEST_BEGINNING else _origin_of(beginning[0])


@lru_cache(4096)
def _origin_of(url: str) -> Origin | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or "@" in parts.netloc:
        return None
    host = _normal_host(parts)
    return Origin(parts.scheme, host, _PORTS[parts.scheme] if port is None else port) if host else None


def _normal_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if len(host) > _LONGEST_HOST:
        return ""
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            return ""
    bracketed = parts.netloc.startswith("[")
    return host if (_ADDRESS if bracketed else _NAME).fullmatch(host) else ""


@frozen
class Origins:
    """
    An allow-list of origins. Made by :meth:`of`.

    :ivar exact: origins allowed as they are.
    :ivar ports: host and port allowed under either scheme.
    :ivar domains: ``.example.org`` for each domain of which every strict subdomain is allowed.
    :ivar schemes: the schemes at whose own port a host named without one is allowed.
    """

    exact: frozenset[Origin]
    ports: frozenset[tuple[str, int]]
    domains: tuple[str, ...]
    schemes: frozenset[str]

    @classmethod
    def of(cls, urls: Iterable[str], patterns: Iterable[str] = ()) -> Origins:
        """
        The origins of ``urls`` exactly, and what ``patterns`` name.

        A pattern is ``host``, which stands for https at port 443; ``host:port``, for http and https at that
        port; or ``*.domain``, for every host below the domain, but not the domain itself, as ``host`` does. Where
        one of ``urls`` is plain http, the owner has accepted that already, and a pattern without a port
        stands for http at port 80 too.

        :raises regcache.errors.ConfigError: naming a URL or a pattern that cannot be used.
        """
        exact = frozenset(_configured(url) for url in urls)
        schemes = frozenset({"https"} | {origin.scheme for origin in exact})
        ports: set[tuple[str, int]] = set()
        domains: list[str] = []
        for pattern in patterns:
            wild = pattern.startswith("*.")
            host, port = _pattern(pattern, pattern[2:] if wild else pattern)
            if wild and (port is not None or ":" in host):
                raise ConfigError(f"artifact-hosts: {pattern!r} may not have a port; name each host:port instead.")
            if wild:
                domains.append("." + host)
            elif port is not None:
                ports.add((host, port))
            else:
                exact |= {Origin(scheme, host, _PORTS[scheme]) for scheme in schemes}
        return cls(exact, frozenset(ports), tuple(domains), schemes)

    def allows(self, url: str) -> bool:
        """
        Whether that absolute URL may be asked for.

        Never with user information, never another scheme than http and https.
        """
        origin = Origin.of(url)
        return origin is not None and self.admits(origin)

    def admits(self, origin: Origin) -> bool:
        """Whether that origin is on the list."""
        if origin in self.exact or (origin.host, origin.port) in self.ports:
            return True
        usual = origin.scheme in self.schemes and origin.port == _PORTS[origin.scheme]
        return usual and any(origin.host.endswith(domain) for domain in self.domains)


def _configured(url: str) -> Origin:
    origin = Origin.of(url)
    if origin is None:
        raise ConfigError(f"{url!r} is not a usable upstream: it must be http(s)://HOST/ without user and password.")
    return origin


def _pattern(pattern: str, text: str) -> tuple[str, int | None]:
    complaint = f"artifact-hosts: {pattern!r} is not HOST, HOST:PORT or *.DOMAIN."
    if _AMBIGUOUS.search(text) or re.search(r"[/?#@]", text):
        raise ConfigError(complaint)
    try:
        parts = urlsplit("//" + text)
        port = parts.port
    except ValueError:
        raise ConfigError(complaint) from None
    host = _normal_host(parts)
    if not host or text.endswith(":") or port == 0:
        raise ConfigError(complaint)
    return host, port
