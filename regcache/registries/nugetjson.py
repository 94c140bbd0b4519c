"""NuGet's JSON documents: what they must hold, the packages that they name, and how versions are spelled."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from attrs import evolve, frozen

from regcache.errors import BadDocument
from regcache.http.messages import STRENGTH, Digest
from regcache.registries.jsontext import read_json
from regcache.routes import Source

__all__ = ["INDEX", "JSON", "SEARCH", "SERVICE", "Package", "followed", "is_id", "normal", "packages", "read", "types"]

#: The kinds of document: how their keys begin.
SERVICE, SEARCH, JSON = "service", "search", "json"
#: How the document that lists the others is called.
INDEX = "index.json"
_MARK = b"\xef\xbb\xbf"
_ID = re.compile(r"[\w.-]{1,128}")
_NUMBER = r"([0-9]{1,18})"
_VERSION = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?(?:\.{_NUMBER})?(-[0-9a-z.-]{{1,128}})?")


@frozen
class Package:
    """
    One version of a package, as a document names it.

    :ivar id: as its maker spells it, or in lower case.
    :ivar version: likewise, not normalised.
    :ivar holders: the objects whose ``packageContent`` is where the package is; the leaf of a catalog has none.
    :ivar entry: the package's catalog entry, or as much as the document tells of it.
    """

    id: str
    version: str
    holders: tuple[dict[str, Any], ...]
    entry: dict[str, Any]

    @property
    def url(self) -> str:
        """Where the package is, or empty."""
        return self.holders[0]["packageContent"].partition("#")[0] if self.holders else ""

    @property
    def size(self) -> int | None:
        """In bytes, if the document tells."""
        size = self.entry.get("packageSize")
        return size if type(size) is int and size > 0 else None

    @property
    def digests(self) -> tuple[Digest, ...]:
        """What the document tells of the package's bytes."""
        algorithm, value = str(self.entry.get("packageHashAlgorithm")).lower(), self.entry.get("packageHash")
        if algorithm in STRENGTH and isinstance(value, str):
            with contextlib.suppress(ValueError):
                return (Digest.from_base64(algorithm, value),)
        return ()


def read(document: str, source: Source) -> Any:
    """
    A document, parsed.

    :raises regcache.errors.BadDocument: if it is not what a NuGet source serves there.
    """
    found = read_json(evolve(source, body=source.body.removeprefix(_MARK)))
    kind, _, path = document.partition("/")
    wanted: tuple[str, ...] = {SERVICE: ("resources",), SEARCH: ("data",)}.get(kind, ())
    if kind == JSON and path.partition("?")[0].endswith(f"/{INDEX}") and isinstance(found, dict):
        wanted = ("items", "versions", "signingCertificates")
    if not isinstance(found, dict if wanted else dict | list):
        raise BadDocument(f"{source.url} describes nothing.")
    if wanted and not any(isinstance(found.get(name), list) for name in wanted):
        raise BadDocument(f"{source.url} has no {' or '.join(wanted)}.")
    return found


def types(resource: dict[str, Any]) -> list[str]:
    """The types of a service index's resource: it may have one, or a list."""
    told = resource.get("@type")
    return [kind for kind in (told if isinstance(told, list) else [told]) if isinstance(kind, str)]


def packages(document: str, found: Any) -> Iterator[Package]:
    """The packages that a registration's index, page or leaf names, or that a leaf of the catalog describes."""
    for leaf in _leaves(found):
        entry = leaf.get("catalogEntry", leaf)
        if isinstance(entry, str):
            # A registration's leaf tells by its address alone what it is of.
            there = unquote(document.partition("?")[0]).removesuffix(".json").split("/")
            entry = {"id": "".join(there[-2:-1]), "version": there[-1], "@id": entry}
        if not isinstance(entry, dict):
            continue
        name, version = entry.get("id"), entry.get("version")
        if isinstance(name, str) and is_id(name) and isinstance(version, str) and normal(version):
            told = (leaf,) if entry is leaf else (leaf, entry)
            holders = tuple(one for one in told if isinstance(one.get("packageContent"), str))
            if holders or "packageHash" in entry:
                yield Package(name, version, holders, entry)


def _leaves(found: Any) -> Iterator[dict[str, Any]]:
    """The document itself if it is a leaf, or those that an index or a page holds."""
    waiting = [found]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        if "catalogEntry" in node or "packageHash" in node:
            yield node
        elif isinstance(node.get("items"), list):
            waiting += reversed(node["items"])


def followed(found: Any) -> Iterator[str]:
    """The links by which clients go on from a document: to its parts, to what it lists, and to packages."""
    waiting = [found]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += reversed(node)
        if not isinstance(node, dict):
            continue
        entry, names = node.get("catalogEntry"), ["packageContent"]
        if entry is None and node is not found:
            # A page that is there already is not asked for.
            names += ["registration"] if isinstance(node.get("items"), list) else ["registration", "@id"]
        yield from (node[name] for name in names if isinstance(node.get(name), str))
        waiting += [node.get("versions"), node.get("data"), node.get("items")]
        if isinstance(entry, dict):
            waiting.append({"packageContent": entry.get("packageContent"), "catalogEntry": ""})


def is_id(name: str) -> bool:
    """Whether it is one of a package."""
    return _ID.fullmatch(name) is not None


def normal(version: str) -> str:
    """
    A version in the form that addresses have; empty for what is none.

    In lower case, without build metadata, of three numbers, or of four where the last is not zero.
    """
    found = _VERSION.fullmatch(version.lower().partition("+")[0])
    if not found:
        return ""
    numbers = [int(number or 0) for number in found.groups()[:4]]
    return ".".join(map(str, numbers if numbers[3] else numbers[:3])) + (found[5] or "")
