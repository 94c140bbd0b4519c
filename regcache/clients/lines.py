"""
Files of lines, changed line by line, so that all others stay byte for byte: INI, ``key=value``, and Yarn 1's.

Own code, since each client has its own dialect, and the libraries that keep comments know only Python's. What comes of
it is read back by Python's parser where the client uses that, and refused if anything else has changed.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable

from regcache.clients.malformed import Malformed

__all__ = ["ini_add", "ini_set", "property_set", "yarn_set"]

_SECTION = re.compile(r"\[(.+)\]")
_KEY = re.compile(r"([^\s=:#;\[][^=:]*?)\s*[=:]\s*(.*)")
_Values = dict[tuple[str, str], str]


def ini_set(section: str, key: str, value: str) -> Callable[[str], str]:
    """An edit that gives a key of a section this value."""
    return lambda text: _ini(text, section, key, lambda _: value)


def ini_add(section: str, key: str, value: str) -> Callable[[str], str]:
    """An edit that puts a word among those that a key of a section has."""
    return lambda text: _ini(
        text, section, key, lambda before: before if value in before.split() else " ".join([*before.split(), value])
    )


def _ini(text: str, section: str, key: str, change: Callable[[str], str]) -> str:
    before = _parsed(text)
    old = before.get((section, _plain(key)), "")
    value = change(old)
    if value == old:
        return text
    after = _replaced(text, section, key, value)
    if _parsed(after) != {**before, (section, _plain(key)): value}:
        raise Malformed(f"[{section}] is written in a way that cannot be changed safely")
    return after


def _plain(key: str) -> str:
    """Underscores are as good as hyphens to pip, which has the last of both."""
    return key.strip().lower().replace("_", "-")


def _parsed(text: str) -> _Values:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise Malformed(str(error).replace("\n", " ")) from None
    found = {(name, _plain(key)): value for name in parser.sections() for key, value in parser.items(name)}
    return {place: value for place, value in found.items() if value is not None}


def _replaced(text: str, section: str, key: str, value: str) -> str:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    made: list[str] = []
    now, last, done, skipping = "", -1, False, False
    for line in lines:
        indented, bare = line[:1] in " \t", line.strip()
        if skipping and indented and bare and bare[0] not in "#;":
            continue
        skipping = skipping and (indented or not bare)
        if header := _SECTION.match(line):
            now = header[1]
        elif now == section and not indented and (found := _KEY.match(line)) and _plain(found[1]) == _plain(key):
            line, done, skipping = f"{found[1]} = {value}\n", True, True
        made.append(line)
        if now == section and bare:
            last = len(made)
    if done:
        return "".join(made)
    if last >= 0:
        made.insert(last, f"{key} = {value}\n")
        return "".join(made)
    gap = "\n" if made and made[-1].strip() else ""
    return "".join([*made, f"{gap}[{section}]\n{key} = {value}\n"])


def property_set(key: str, value: str) -> Callable[[str], str]:
    """An edit of a file of ``key=value`` lines, of which the last of a key counts."""
    return lambda text: _line_set(text, re.compile(rf"\s*{re.escape(key)}\s*="), f"{key}={value}")


def yarn_set(key: str, value: str) -> Callable[[str], str]:
    """An edit of a file of ``key "value"`` lines."""
    return lambda text: _line_set(text, re.compile(rf"[\"']?{re.escape(key)}[\"']?[\s:]"), f'{key} "{value}"')


def _line_set(text: str, like: re.Pattern[str], line: str) -> str:
    lines = text.splitlines()
    if "\0" in text:
        raise Malformed("it is no text")
    # What follows a section belongs to that.
    top = next((at for at, one in enumerate(lines) if _SECTION.match(one)), len(lines))
    places = [at for at, one in enumerate(lines[:top]) if like.match(one)]
    for at in places:
        lines[at] = line
    if not places:
        lines.insert(top, line)
    return "".join(f"{one}\n" for one in lines)
