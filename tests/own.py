"""The types of registry that are regcache's own; other packages that are installed beside it may bring more."""

from __future__ import annotations

from importlib.metadata import entry_points

from regcache.registries import GROUP

__all__ = ["own_names"]


def own_names() -> list[str]:
    """Their names, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP) if point.module.startswith("regcache.")})
