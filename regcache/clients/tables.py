"""TOML, by tomlkit, which keeps comments and order. What comes of it is read back, and refused if more has changed."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from regcache.clients.malformed import Malformed

__all__ = ["item_put", "table_set"]


def table_set(*path: str, value: Any) -> Callable[[str], str]:
    """An edit that gives a key in a table this value."""

    def edit(text: str) -> str:
        def plain(wanted: Any) -> None:
            for name in path[:-1]:
                wanted = wanted.setdefault(name, {})
                if not isinstance(wanted, dict):
                    raise Malformed(f"{name} is no table")
            if isinstance(wanted.get(path[-1]), dict) and not isinstance(value, dict):
                raise Malformed(f"{'.'.join(path)} is a table")
            wanted[path[-1]] = value

        def kept(document: Any) -> None:
            kit = _kit()
            for depth, name in enumerate(path[:-1], 1):
                if name not in document:
                    document[name] = kit.table(is_super_table=depth < len(path) - 1)
                document = document[name]
            document[path[-1]] = value

        return _edited(text, plain, kept)

    return edit


def item_put(*path: str, value: Mapping[str, Any], like: Callable[[Mapping[str, Any]], bool]) -> Callable[[str], str]:
    """
    An edit of an array of tables: the keys of the first table that is like that are set, else one is added.
    """

    def edit(text: str) -> str:
        def plain(wanted: Any) -> None:
            for name in path[:-1]:
                wanted = wanted.setdefault(name, {})
            items = wanted.setdefault(path[-1], [])
            if not isinstance(items, list):
                raise Malformed(f"{'.'.join(path)} is no array of tables")
            found = next((one for one in items if like(one)), None)
            if found is None:
                items.append(dict(value))
            else:
                found.update(value)

        def kept(document: Any) -> None:
            kit = _kit()
            for name in path[:-1]:
                if name not in document:
                    document[name] = kit.table(is_super_table=True)
                document = document[name]
            if path[-1] not in document:
                document[path[-1]] = kit.aot()
            items = document[path[-1]]
            found = next((one for one in items if like(one)), None)
            if found is None:
                found = kit.table()
                items.append(found)
                found = items[-1]
            for name, one in value.items():
                found[name] = one

        return _edited(text, plain, kept)

    return edit


def _kit() -> Any:
    try:
        import tomlkit
    except ImportError:
        raise Malformed("TOML is only changed where tomlkit is installed: pip install tomlkit") from None
    return tomlkit


def _edited(text: str, plain: Callable[[Any], None], kept: Callable[[Any], None]) -> str:
    kit = _kit()
    try:
        before = tomllib.loads(text)
        document = kit.parse(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no TOML: {error}") from None
    wanted = copy.deepcopy(before)
    plain(wanted)
    if wanted == before:
        return text
    try:
        kept(document)
        after: str = kit.dumps(document)
        same = tomllib.loads(after) == wanted
    except (ValueError, TypeError, KeyError, AttributeError):
        same = False
    if not same:
        raise Malformed("it is written in a way that cannot be changed safely")
    return after
