"""What npm's clients say about packages beside asking for one: audits and searches, and the names in them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl

from regcache.errors import BadDocument
from regcache.ownership import admitted, mentioned, queried
from regcache.routes import RegistryOptions, Source

__all__ = ["AUDIT", "audited", "searched"]

#: The key of what is no document of the registry, but one for it.
AUDIT = "-/audit"
_SCOPE = re.compile(r"scope:\W*([\w.-]+)")


def audited(source: Source, options: RegistryOptions) -> bytes:
    """
    What an audit may tell an upstream: the packages that are another's are left out, at whatever depth they are named.

    :raises regcache.errors.BadDocument: if nobody can see which names are in it.
    """
    try:
        return json.dumps(_without(json.loads(source.body), options)).encode()
    except (ValueError, RecursionError):
        raise BadDocument("The audit is not JSON, so that nobody can see which names are in it.") from None


def searched(query: str) -> tuple[str, ...]:
    """The names that a search may be for; ``scope:`` is one of its qualifiers (the registry's search document)."""
    words = queried(query)
    scopes = _SCOPE.findall(" ".join(sorted(value for _, value in parse_qsl(query))))
    return (*words, *(f"@{scope}/" for scope in scopes), *(f"{word}/" for word in words if word.startswith("@")))


def _without(told: Any, options: RegistryOptions) -> Any:
    if isinstance(told, dict):
        return {name: _without(one, options) for name, one in told.items() if admitted(options, mentioned(name))}
    if isinstance(told, list):
        kept = (one for one in told if not isinstance(one, str) or admitted(options, mentioned(one)))
        return [_without(one, options) for one in kept]
    return "" if isinstance(told, str) and not admitted(options, mentioned(told)) else told
