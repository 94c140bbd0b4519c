"""What npm's clients say about packages beside asking for one: audits and searches, and the names in them."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any
from urllib.parse import parse_qsl

from regcache.errors import BadRequest
from regcache.http.messages import RequestHead
from regcache.ownership import admitted, mentioned, queried
from regcache.routes import RegistryOptions

__all__ = ["audited", "searched"]

_MOST = 16 << 20
_SCOPE = re.compile(r"scope:\W*([\w.-]+)")


def audited(request: RequestHead, options: RegistryOptions) -> bytes | None:
    """
    What an audit may tell an upstream: the packages that are another's are left out, at whatever depth they are named.

    :returns: the body to send, plain; None for the client's as it came.
    :raises regcache.errors.BadRequest: if nobody can see which names are in it.
    """
    if not options.elsewhere:
        return None
    try:
        zipped = request.headers.get("content-encoding").lower() in ("gzip", "x-gzip")
        told = json.loads(_unzipped(request.body) if zipped else request.body)
        return json.dumps(_without(told, options)).encode()
    except (ValueError, RecursionError, zlib.error):
        raise BadRequest("The audit is not JSON, so that nobody can see which names are in it.") from None


def searched(query: str) -> tuple[str, ...]:
    """The names that a search may be for; ``scope:`` is one of its qualifiers (the registry's search document)."""
    words = queried(query)
    scopes = _SCOPE.findall(" ".join(sorted(value for _, value in parse_qsl(query))))
    return (*words, *(f"@{scope}/" for scope in scopes), *(f"{word}/" for word in words if word.startswith("@")))


def _unzipped(body: bytes) -> bytes:
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    found = unpacking.decompress(body, _MOST)
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ValueError("too much, or not all")
    return found


def _without(told: Any, options: RegistryOptions) -> Any:
    if isinstance(told, dict):
        return {name: _without(one, options) for name, one in told.items() if admitted(options, mentioned(name))}
    if isinstance(told, list):
        kept = (one for one in told if not isinstance(one, str) or admitted(options, mentioned(one)))
        return [_without(one, options) for one in kept]
    return "" if isinstance(told, str) and not admitted(options, mentioned(told)) else told
