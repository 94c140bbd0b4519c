"""XML, changed as text at the places that a parser names, so that comments and layout stay."""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from attrs import define

from regcache.clients.malformed import Malformed

__all__ = ["maven_mirror", "nuget_source"]

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


@define
class _Element:
    """
    One element, by where it stands in the bytes.

    :ivar inner: where its content begins and ends; the same where it has none.
    """

    path: tuple[str, ...]
    attributes: dict[str, str]
    start: int
    stop: int = 0
    inner: tuple[int, int] = (0, 0)
    text: str = ""


def _elements(data: bytes) -> list[_Element]:
    found: list[_Element] = []
    open_: list[_Element] = []
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        path = (*(open_[-1].path if open_ else ()), name.rpartition(":")[2])
        open_.append(_Element(path, attributes, parser.CurrentByteIndex))
        found.append(open_[-1])

    def end(_name: str) -> None:
        one, at = open_.pop(), parser.CurrentByteIndex
        head = _tag_end(data, one.start)
        if at == one.start or data[head - 2 : head] == b"/>":
            one.stop, one.inner = head, (head, head)
        else:
            one.stop, one.inner = data.index(b">", at) + 1, (head, at)

    def text(told: str) -> None:
        open_[-1].text += told

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise Malformed(f"it is no XML: {error}") from None
    return found


def _tag_end(data: bytes, at: int) -> int:
    """Where the tag ends that begins there; a value may hold what looks like the end."""
    quote = b""
    while at < len(data):
        char = data[at : at + 1]
        at += 1
        if quote:
            quote = b"" if char == quote else quote
        elif char in (b'"', b"'"):
            quote = char
        elif char == b">":
            return at
    raise Malformed("a tag has no end")


def _root(data: bytes, name: str) -> list[_Element]:
    found = _elements(data)
    if found[0].path != (name,):
        raise Malformed(f"it is no file of <{name}>")
    return found


def _put(data: bytes, root: str, parent: str, element: str) -> bytes:
    """Put an element first in a child of the root, which is made if it is not there."""
    found = _root(data, root)
    line = f"\n    {element}".encode()
    for one in found:
        if one.path == (root, parent):
            if data[one.stop - 2 : one.stop] == b"/>":
                made = f"<{parent}>".encode() + line + f"\n  </{parent}>".encode()
                return data[: one.start] + made + data[one.stop :]
            return data[: one.inner[0]] + line + data[one.inner[0] :]
    whole, block = found[0], f"  <{parent}>".encode() + line + f"\n  </{parent}>\n".encode()
    if data[whole.stop - 2 : whole.stop] == b"/>":
        head = data[whole.start : whole.stop - 2].rstrip()
        return data[: whole.start] + head + b">\n" + block + f"</{root}>".encode() + data[whole.stop :]
    return data[: whole.inner[1]] + block + data[whole.inner[1] :]


def maven_mirror(url: str) -> Callable[[str], str]:
    """An edit of Maven's settings that has everything asked for at a mirror."""

    def edit(text: str) -> str:
        data = (text or f"{_HEAD}<settings>\n</settings>\n").encode()
        place = ("settings", "mirrors", "mirror")
        found = _root(data, "settings")
        for mirror in (one for one in found if one.path == place):
            inside = [one for one in found if mirror.start < one.start < mirror.stop]
            ids = [one for one in inside if one.path == (*place, "id")]
            urls = [one for one in inside if one.path == (*place, "url")]
            if urls and any(one.text.strip() == "regcache" for one in ids):
                start, stop = urls[0].inner
                return (data[:start] + escape(url).encode() + data[stop:]).decode()
        made = f"<mirror><id>regcache</id><mirrorOf>*</mirrorOf><url>{escape(url)}</url></mirror>"
        return _put(data, "settings", "mirrors", made).decode()

    return edit


def nuget_source(url: str, disabled: str) -> Callable[[str], str]:
    """An edit of NuGet's configuration that adds a source, and disables that of a name."""

    def edit(text: str) -> str:
        data = (text or f"{_HEAD}<configuration>\n</configuration>\n").encode()
        insecure = ' allowInsecureConnections="true"' if url.startswith("http:") else ""
        data = _added(data, "packageSources", "regcache", f'<add key="regcache" value={quoteattr(url)}{insecure} />')
        off = f'<add key={quoteattr(disabled)} value="true" />'
        return _added(data, "disabledPackageSources", disabled, off).decode()

    return edit


def _added(data: bytes, parent: str, key: str, element: str) -> bytes:
    for one in _root(data, "configuration"):
        if one.path == ("configuration", parent, "add") and one.attributes.get("key") == key:
            return data[: one.start] + element.encode() + data[one.stop :]
    return _put(data, "configuration", parent, element)
