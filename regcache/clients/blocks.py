"""
YAML, of which a client's few settings stand at the top level: one block is changed, and all others stay as they are.

Own code, since a library that keeps comments still writes quotes, indents and long lines anew. It touches nothing but
plain block mappings, and refuses what else YAML can be.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from regcache.clients.malformed import Malformed

__all__ = ["block_add", "block_set"]

#: A line at the top level: a key and what stands behind it, an item of the list above it, or one that says nothing.
_KEY = re.compile(
    r"""(?P<key>"[^"]*"|'[^']*'|:?[^\s#'"\[\]{}&*!|>%@`,:-](?:[^:#]|:(?!\s|$)|(?<!\s)#)*?):(?:\s+(?P<rest>.*?))?\s*$"""
)
_ITEM = re.compile(r"- ?")
_QUIET = re.compile(r"\s*(#.*)?$|---\s*$")


def block_set(key: str, value: str) -> Callable[[str], str]:
    """An edit that gives a key of the top level this text."""

    def edit(text: str) -> str:
        lines = _lines(text)
        place = _place(lines, key)
        line = f"{_key(key)}: {_quoted(value)}"
        if place is None:
            return _joined([*lines, line])
        start, stop = place
        return _joined([*lines[:start], line, *_comments(lines[start + 1 : stop]), *lines[stop:]])

    return edit


def block_add(key: str, value: str, instead: str = "") -> Callable[[str], str]:
    """
    An edit that puts a text among the items of a list at the top level.

    :param instead: the item that gives way to it, if it is there.
    """

    def edit(text: str) -> str:
        lines = _lines(text)
        place = _place(lines, key)
        if place is None:
            return _joined([*lines, f"{_key(key)}:", f"  - {_quoted(value)}"])
        start, stop = place
        rest = (_KEY.match(lines[start]) or {"rest": ""})["rest"] or ""
        if rest.startswith("[") and rest.endswith("]"):
            items = [one.strip() for one in rest[1:-1].split(",") if one.strip()]
            made = _merged(items, value, instead, _quoted(value))
            return _joined([*lines[:start], f"{_key(key)}: [{', '.join(made)}]", *lines[start + 1 :]])
        if rest and not rest.startswith("#"):
            raise Malformed(f"{key} is no list")
        block = lines[start + 1 : stop]
        items = [line for line in block if line.strip().startswith("- ")]
        indent = re.match(r"\s*", items[0])[0] if items else "  "  # type: ignore[index]
        wanted = f"{indent}- {_quoted(value)}"
        if any(_unquoted(line) == value for line in items):
            return text
        old = next((at for at, line in enumerate(block) if instead and _unquoted(line) == instead), None)
        block = [wanted, *block] if old is None else [*block[:old], wanted, *block[old + 1 :]]
        return _joined([*lines[: start + 1], *block, *lines[stop:]])

    return edit


def _merged(items: list[str], value: str, instead: str, wanted: str) -> list[str]:
    bare = [one.strip("\"'") for one in items]
    if value in bare:
        return items
    if instead in bare:
        items[bare.index(instead)] = wanted
        return items
    return [wanted, *items]


def _lines(text: str) -> list[str]:
    """
    Its lines.

    :raises Malformed: unless all that stands at the top level is keys, items of lists, and comments.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line[:1] in " \t" or _QUIET.match(line) or _ITEM.match(line) or _KEY.match(line):
            continue
        raise Malformed(f"line {number} is no 'key: value'")
    if sum(line.startswith("---") for line in lines) > 1 or (lines and lines[0][:1] in " \t" and lines[0].strip()):
        raise Malformed("it is not one plain mapping")
    return lines


def _place(lines: list[str], key: str) -> tuple[int, int] | None:
    """From which line to which a key's block is."""
    found = [at for at, line in enumerate(lines) if (one := _KEY.match(line)) and one["key"].strip("\"'") == key]
    if len(found) > 1:
        raise Malformed(f"{key} is there twice")
    if not found:
        return None
    stop = found[0] + 1
    while stop < len(lines) and (lines[stop][:1] in " \t" or _ITEM.match(lines[stop]) or not lines[stop].strip()):
        stop += 1
    while not lines[stop - 1].strip():
        stop -= 1
    return found[0], stop


def _comments(lines: list[str]) -> list[str]:
    return [line for line in lines if line.strip().startswith("#")]


def _key(key: str) -> str:
    return key if re.fullmatch(r":?[A-Za-z0-9_.:/-]*[A-Za-z0-9_/-]", key) else _quoted(key)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unquoted(line: str) -> str:
    return line.strip().removeprefix("- ").strip().strip("\"'")


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
