"""What a request target means: whom it names, where it lies below the mount, and which registry's it is."""

from __future__ import annotations

import re

from twisted.web.http import HTTPChannel
from twisted.web.http import Request as WireRequest
from twisted.web.server import Request

from regcache.errors import BadRequest
from regcache.http.messages import Headers
from regcache.lean import LeanRequest

__all__ = ["below_mount", "headers_of", "local_of", "split_name", "split_target"]


def split_target(target: str, method: bytes) -> tuple[str, str]:
    """
    The authority that a target in absolute form names, which counts more than the Host field (RFC 9112 section 3.2.2),
    and the rest of it.
    """
    if target.startswith("/"):
        return "", target
    scheme, sep, rest = target.partition("://")
    if not sep or scheme.lower() not in ("http", "https") or method == b"CONNECT":
        raise BadRequest("This is a cache for registries, not a forward proxy: ask for a path.")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    return authority, rest[len(authority) :] if rest[len(authority) :].startswith("/") else "/" + rest[len(authority) :]


def below_mount(request: Request | LeanRequest, target: str) -> tuple[str, str, str]:
    """
    The mount's path, the raw path below it, and the query.

    Twisted's own path segments are decoded, so the raw target is walked again by their number.
    """
    path, _, query = target.partition("?")
    mounted = [segment for segment in request.prepath or () if segment]
    pieces = path.split("/")
    at, seen = 1, 0
    while seen < len(mounted) and at < len(pieces):
        seen += bool(pieces[at])
        at += 1
    return "/".join(pieces[:at]), "/" + "/".join(pieces[at:]), query


def split_name(path: str) -> tuple[str, str]:
    """The registry's name that a path below the mount begins with, and the rest of the path."""
    name, _, rest = path.lstrip("/").partition("/")
    return name, "/" + rest


def headers_of(request: WireRequest | LeanRequest) -> Headers:
    """The fields of a request."""
    if isinstance(request, LeanRequest):
        return request.fields
    return Headers(
        tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        )
    )


def local_of(request: WireRequest | LeanRequest | HTTPChannel) -> str:
    """The address and port that a request, or the connection it comes on, came to."""
    host = request.getHost()  # type: ignore[no-untyped-call]
    name, port = getattr(host, "host", "localhost"), getattr(host, "port", 80)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
