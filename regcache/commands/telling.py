"""Results as text for people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regcache.commands.output import Column
from regcache.routes import COPY
from regcache.words import aged, counted, sized

__all__ = ["ENTRY_COLUMNS", "entries", "entry", "meant", "named", "refreshed", "status", "verified"]

#: In place of :data:`regcache.routes.COPY`, which nobody sees and few can type.
_SHOWN = " :: "


def _when(stamp: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stamp))


def named(key: str) -> str:
    """A key as people read and type it."""
    return key.replace(COPY, _SHOWN)


def meant(text: str) -> str:
    """The key, or the pattern of keys, that somebody has typed as :func:`named` shows it."""
    return text.replace(_SHOWN, COPY)


#: Of a list of entries.
ENTRY_COLUMNS = (
    Column("KIND", 8),
    Column("SIZE", 10, right=True),
    Column("AGE", 6, right=True),
    Column("HITS", 6, right=True),
    Column("KEY"),
)


def entries(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of such a list."""
    return [(one["kind"], sized(one["size"]), aged(one["age"]), str(one["hits"]), named(one["key"])) for one in found]


def entry(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All about one entry."""
    facts = ("key", "registry", "kind", "url", "digest", "parent")
    rows = [(name, named(str(one[name]))) for name in facts if one.get(name)]
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
    return [*rows, ("now", one["now"]), ("why", one["why"])]


def status(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the service is."""
    limit = sized(said["max_size"]) if said["max_size"] else "no limit"
    counts = ", ".join(f"{number} {how}" for how, number in said["requests"].items()) or "none"
    rows = [
        ("running", f"since {_when(said['since'])}, process {said['pid']}, version {said['version']}"),
        ("cache", f"{said['cache_dir']}: {sized(said['bytes'])} of {limit}, {said['entries']} entries"),
        ("requests", counts),
    ]
    rows += [(name, f"{one['upstream']}, {one['url']}") for name, one in said["registries"].items()]
    return rows


def refreshed(outcomes: Mapping[str, str]) -> Iterator[str]:
    """What came of asking for documents."""
    return (f"{named(key)}: {outcome}" for key, outcome in outcomes.items())


def verified(result: Mapping[str, Any], *, repair: bool) -> Iterator[str]:
    """What came of reading all bodies."""
    damaged = result["damaged"]
    for one in damaged:
        yield f"{one['digest']}: {one['wrong']}"
        for key, told in one.get("refetched", {}).items():
            yield f"    {named(key)}: {told}"
    told = f"Read: {counted(result['checked'], 'body', 'bodies')}, {sized(result['bytes'])}"
    end = "dropped" if repair else "damaged; 'regcache verify --repair' mends that"
    yield f"{told}; {len(damaged)} {end}." if damaged else f"{told}; all sound."
