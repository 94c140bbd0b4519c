"""
How the values of options are read: text in, value out.

Each reader raises ValueError whose message completes "it wants …".
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

__all__ = [
    "Network",
    "absolute",
    "any_of",
    "certificates",
    "count",
    "directory",
    "duration",
    "fields",
    "file",
    "host_names",
    "items",
    "methods",
    "nearest",
    "networks",
    "optional_duration",
    "optional_period",
    "optional_url",
    "positive_duration",
    "positive_size",
    "size",
    "target",
    "truth",
    "url",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?)\s*"
_SIZE = re.compile(_NUMBER + r"([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(_NUMBER + r"(ms|s|m|h|d|w)?", re.IGNORECASE | re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE | re.ASCII)
_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "": False, "0": False, "false": False, "no": False}
_TRUTH["off"] = False
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
#: What makes a tunnel, and what would show a client's fields to others.
_NEVER_PASSED = frozenset({"CONNECT", "TRACE"})


def size(text: str) -> int:
    """Bytes, from ``10G``, ``500M``, ``1.5KiB`` or a plain number; powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a size such as 10G, 500M or 0")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def positive_size(text: str) -> int:
    """As :func:`size`, but more than nothing."""
    found = size(text)
    if not found:
        raise ValueError("a size above 0, such as 256M")
    return found


def count(text: str) -> int:
    """A number of things, above nothing; 0 for no text."""
    if text and not (text.strip().isascii() and text.strip().isdigit() and 0 < int(text.strip()[:12]) < 10**9):
        raise ValueError("a whole number above 0, such as 2000")
    return int(text or 0)


def duration(text: str) -> float:
    """Seconds, from ``1d``, ``10m``, ``300ms`` or a plain number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a duration such as 1d, 10m, 5s or 300ms")
    return float(match[1]) * _SECONDS[(match[2] or "").lower()]


def positive_duration(text: str) -> float:
    """As :func:`duration`, but more than nothing."""
    found = duration(text)
    if not found:
        raise ValueError("a duration above 0, such as 5s")
    return found


def optional_duration(text: str) -> float | None:
    """As :func:`duration`, or None for ``off``."""
    if text.strip().lower() == "off":
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def optional_period(text: str) -> float | None:
    """As :func:`positive_duration`, or None for ``off``."""
    if text.strip().lower() == "off":
        return None
    try:
        return positive_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def items(text: str) -> tuple[str, ...]:
    """Items separated by commas."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def methods(text: str) -> tuple[str, ...]:
    """Methods to pass on, separated by commas."""
    found = items(text)
    for one in found:
        if not _METHOD.fullmatch(one) or one in _NEVER_PASSED:
            raise ValueError("methods such as PUT,POST,DELETE, in capitals, but neither CONNECT nor TRACE")
    return found


def fields(text: str) -> tuple[str, ...]:
    """Names of header fields, separated by commas, in lower case."""
    found = tuple(one.lower() for one in items(text))
    if not all(map(_FIELD.fullmatch, found)):
        raise ValueError("names of header fields, separated by commas")
    return found


def networks(text: str) -> tuple[Network, ...]:
    """Networks and addresses, separated by commas; a mapped IPv4 network is that IPv4 network."""
    try:
        return tuple(_unmapped(ipaddress.ip_network(item, strict=False)) for item in items(text))
    except ValueError as error:
        raise ValueError(f"networks such as 10.0.0.0/8,::1 ({error})") from None


def _unmapped(network: Network) -> Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    return network if mapped is None else ipaddress.IPv4Network((mapped, max(network.prefixlen - 96, 0)))


def host_names(text: str) -> tuple[str, ...]:
    """Names of hosts and addresses, or ``*``, separated by commas; addresses without brackets."""
    found = tuple(item[1:-1] if item[:1] + item[-1:] == "[]" else item for item in items(text))
    for item in found:
        if item != "*" and not _HOST.fullmatch(item):
            try:
                ipaddress.ip_address(item)
            except ValueError:
                raise ValueError("names such as cache.example, without scheme and port, or *") from None
    return found


def truth(text: str) -> bool:
    """A truth value in words."""
    if text.strip().lower() not in _TRUTH:
        raise ValueError("yes or no")
    return _TRUTH[text.strip().lower()]


def any_of(*choices: str) -> Callable[[str], str]:
    """A reader of one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(choices))
        return text

    return read


def url(text: str) -> str:
    """An http or https URL without credentials, query or fragment; ends with a slash afterwards."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s?#\\]", text):
        raise ValueError("a URL such as https://host/path/")
    if "@" in parts.netloc:
        raise ValueError("a URL without credentials, which others would see; those for a registry go into its auth")
    return text if text.endswith("/") else text + "/"


def optional_url(text: str) -> str:
    """As :func:`url`, or nothing."""
    return url(text) if text else ""


def directory(text: str) -> str:
    """The absolute path of a directory, which need not exist; ``~`` is the user's home."""
    if not text.strip():
        raise ValueError("a directory")
    return absolute(text)


def file(text: str) -> str:
    """The absolute path of a file that can be read, or nothing; ``~`` is the user's home."""
    if not text.strip():
        return ""
    path = absolute(text)
    try:
        with open(path, "rb") as found:
            found.read(0)
    except OSError as error:
        raise ValueError(f"a file that can be read ({error.strerror})") from None
    return path


def absolute(text: str) -> str:
    """An absolute path, where the working directory tells it; ``~`` is the user's home."""
    try:
        return os.path.abspath(os.path.expanduser(text))
    except OSError:
        raise ValueError("an absolute path, for the working directory is gone") from None


def certificates(text: str) -> str:
    """The path of a PEM file of certificates, or nothing."""
    if text:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
        except OSError as error:
            raise ValueError(f"a PEM file of certificates ({error.strerror or error})") from None
    return text


def target(text: str) -> str:
    """Where a log goes: ``off``, ``-`` or the absolute path of a file; ``~`` is the user's home."""
    if not text.strip():
        raise ValueError("off, - or a file")
    return text if text in ("off", "-") else absolute(text)


def nearest(name: str, names: Collection[str]) -> str:
    """The end of a complaint about a name that is not known: the one that may have been meant, or all there are."""
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names))}."
