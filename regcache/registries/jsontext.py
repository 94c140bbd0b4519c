"""JSON documents of registries: read whatever their clients can read, and refuse the rest as no document."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec

from regcache.errors import BadDocument
from regcache.routes import Source

__all__ = ["read_json", "read_object", "write_json"]


def read_json(source: Source) -> Any:
    """
    What a document says.

    :raises regcache.errors.BadDocument: if it is not JSON, or nested deeper than can be read.
    """
    with contextlib.suppress(RecursionError):
        try:
            return msgspec.json.decode(source.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Half a surrogate pair is what JavaScript reads and writes, and what others refuse.
            with contextlib.suppress(ValueError):
                return json.loads(source.body)
    raise BadDocument(f"{source.url} is not JSON.")


def read_object(source: Source) -> dict[str, Any]:
    """
    What a document says that is an object.

    :raises regcache.errors.BadDocument: if it is none.
    """
    found = read_json(source)
    if not isinstance(found, dict):
        raise BadDocument(f"{source.url} is not a JSON object.")
    return found


def write_json(found: Any) -> bytes:
    """The text of a document."""
    try:
        return msgspec.json.encode(found)
    except UnicodeEncodeError:
        return json.dumps(found, separators=(",", ":")).encode()
