"""Results as plain text: one fact a line, columns where there are many of a kind."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from regcache.words import aged, sized

__all__ = ["entries", "entry", "sized", "status"]


def _when(stamp: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stamp))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with aligned columns; the last is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def entries(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A list of entries."""
    head = ("KIND", "SIZE", "AGE", "HITS", "KEY")
    rows = [(one["kind"], sized(one["size"]), aged(one["age"]), str(one["hits"]), one["key"]) for one in found]
    return table([head, *rows])


def entry(one: Mapping[str, Any]) -> list[str]:
    """All about one entry."""
    rows = [(name, str(one[name])) for name in ("key", "registry", "kind", "url", "digest", "parent") if one.get(name)]
    if "size" in one:
        rows += [
            ("size", f"{one['size']} ({sized(one['size'])})"),
            ("age", aged(one["age"])),
            ("hits", str(one["hits"])),
        ]
        rows += [("stored", _when(one["stored_at"])), ("validated", _when(one["validated_at"]))]
        rows += [("used", _when(one["used_at"])), ("verified", "yes" if one["verified"] else "no")]
        rows += [("also", digest) for digest in one["digests"]]
        rows += [("header", f"{name}: {value}") for name, value in one["headers"]]
    return table([*rows, ("now", one["now"]), ("why", one["why"])])


def status(said: Mapping[str, Any]) -> list[str]:
    """How the service is."""
    limit = sized(said["max_size"]) if said["max_size"] else "no limit"
    counts = ", ".join(f"{number} {how}" for how, number in said["requests"].items()) or "none"
    rows = [
        ("running", f"since {_when(said['since'])}, process {said['pid']}, version {said['version']}"),
        ("cache", f"{said['cache_dir']}: {sized(said['bytes'])} of {limit}, {said['entries']} entries"),
        ("requests", counts),
    ]
    rows += [(name, f"{one['upstream']}, {one['url']}") for name, one in said["registries"].items()]
    return table(rows)
