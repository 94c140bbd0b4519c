"""How a request to a registry is written: where it goes, for what it asks there, and its bytes (RFC 9112)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from regcache.errors import BadRequest, ForbiddenOrigin
from regcache.flow.feeding import size_of
from regcache.http.messages import Headers
from regcache.http.origins import LONGEST_AGAIN, Origin

__all__ = ["Where", "place_of", "written"]

#: What may stand in a request target as it is (RFC 9112 section 3.2); the rest is percent-encoded.
_TARGET = "%!$&'()*+,;=:@/?~[]"
#: Methods of which a request without content says so (RFC 9110 section 8.6).
_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})
#: A URL of which the path is sent as it is.
_PLAIN = re.compile(r"https?://[^/?#]+(/[A-Za-z0-9_.~%!$&'()*+,;=:@/\[\]-]*)")
#: What is remembered nowhere but where it is configured.
_SECRET = frozenset({"authorization", "proxy-authorization"})
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: Scheme, host and port.
Where = tuple[str, str, int]


def place_of(url: str) -> tuple[Where, str, str]:
    """
    Where a URL's host is, the target to ask it for, and the value of the Host field.

    :raises regcache.errors.ForbiddenOrigin: if it is not one that everybody reads in the same way.
    """
    origin = Origin.of(url)
    if origin is None:
        raise ForbiddenOrigin("It is no usable http or https URL.")
    plain = _PLAIN.fullmatch(url)
    if plain is not None:
        # Nothing of it would be written otherwise.
        return (origin.scheme, origin.host, origin.port), plain[1], origin.authority
    parts = urlsplit(url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_TARGET)
    return (origin.scheme, origin.host, origin.port), target, origin.authority


def written(
    method: str, target: str, host: str, headers: Headers, body: bytes | BinaryIO, *, ours: bool = False
) -> bytes:
    """
    A request as it is sent, without a body that is a file.

    :param ours: whether the fields are not a client's: they are remembered then, unless they open something, or are
        long.
    :raises regcache.errors.BadRequest: if a field holds what would end it.
    """
    size = size_of(body)
    start = f"{method} {target} HTTP/1.1"
    length = f"Content-Length: {size}\r\n" if size or method in _WITH_CONTENT else ""
    if _CONTROL.search(start):
        raise BadRequest("Its target holds control characters.")
    said = dict(headers.items)
    again = ours and _SECRET.isdisjoint(said) and sum(map(len, said.values())) <= LONGEST_AGAIN
    fields = (_fields if again else _fields.__wrapped__)(host, headers)
    return f"{start}\r\n{fields}{length}\r\n".encode("latin-1") + (body if isinstance(body, bytes) else b"")


@lru_cache(64)
def _fields(host: str, headers: Headers) -> str:
    """The fields of a request: those to one host mostly say the same."""
    lines = [f"Host: {host}", *[f"{name}: {value}" for name, value in headers]]
    if _CONTROL.search("\t".join(lines)):
        raise BadRequest("A header field holds control characters.")
    return "\r\n".join([*lines, ""])
