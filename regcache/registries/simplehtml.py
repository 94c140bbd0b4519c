"""The HTML form of a simple index (PEP 503): read into the JSON form (PEP 691), and made from it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from regcache.errors import BadDocument
from regcache.registries.pynames import is_archive

__all__ = ["core_metadata", "hashes_of", "page_to_html", "read_html", "root_to_html"]

#: Characters of a page within which its title is.
_TITLE_WITHIN = 2000
#: Characters at the end of a page that may be a tag without its end.
_MOST_UNENDED = 4096
#: Hash names that clients know, in the order in which one is picked for a link's fragment.
_HASHES = ("sha256", "sha512", "sha384", "sha224", "sha1", "md5")
_HASH = re.compile(rf"(?:^|&)({'|'.join(_HASHES)})=([0-9A-Fa-f]+)(?=&|$)")
_METADATA = ("data-core-metadata", "data-dist-info-metadata")
_VERSION, _TRACKS, _ELSEWHERE = "pypi:repository-version", "pypi:tracks", "pypi:alternate-locations"
_STATUS, _REASON = "pypi:project-status", "pypi:project-status-reason"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.meta: dict[str, list[str]] = {}
        self.links: list[tuple[dict[str, str], list[str]]] = []
        self.asks_for_password = False
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in fields:
            self._open = True
            self.links.append((fields, []))
        elif tag == "base" and not self.base:
            self.base = fields.get("href", "")
        elif tag == "meta" and "name" in fields:
            self.meta.setdefault(fields["name"].lower(), []).append(fields.get("content", ""))
        elif tag == "input" and fields.get("type", "").lower() == "password":
            self.asks_for_password = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.links[-1][1].append(data)


def _parsed(text: str, url: str) -> _Page:
    page = _Page()
    try:
        page.feed(text)
        if len(page.rawdata) > _MOST_UNENDED:
            # The library would look for the end of each tag in there anew.
            raise BadDocument(f"{url} is an HTML page that ends within a tag or a comment.")
        page.close()
    except AssertionError as error:
        # By which the library says that it cannot go on.
        raise BadDocument(f"{url} is no HTML page that can be read: {error}") from None
    return page


def read_html(text: str, url: str, name: str, normal: Callable[[str], str]) -> dict[str, Any]:
    """
    The JSON form of an HTML index; links are absolute, with their fragments.

    A page that is no index is what a captive portal or a login puts in its place: it links to something else.

    :param name: the project, or empty for the list of projects.
    :param normal: gives the normalised form of a project's name, or nothing for what is none.
    :raises regcache.errors.BadDocument: if it is not an index.
    """
    page = _parsed(text, url)
    base = _joined(url, page.base) or url
    if name:
        links = [(fields, _joined(base, fields["href"].strip())) for fields, _ in page.links]
        found = [_file(fields, link) for fields, link in links if is_archive(_last(link))]
    else:
        found = list(_projects(page, normal))
    empty = _VERSION in page.meta or "links for" in text[:_TITLE_WITHIN].lower()
    if page.asks_for_password or not (found or empty):
        raise BadDocument(f"{url} is an HTML page, but no index.")
    meta: dict[str, Any] = {"api-version": page.meta.get(_VERSION, ["1.0"])[0]}
    if not name:
        return {"meta": meta, "projects": found}
    made: dict[str, Any] = {"meta": meta, "name": name, "files": found}
    if _TRACKS in page.meta:
        meta["tracks"] = page.meta[_TRACKS]
    if _ELSEWHERE in page.meta:
        made["alternate-locations"] = page.meta[_ELSEWHERE]
    if _STATUS in page.meta:
        made["project-status"] = {"status": page.meta[_STATUS][0]}
        if _REASON in page.meta:
            made["project-status"]["reason"] = page.meta[_REASON][0]
    return made


def _projects(page: _Page, normal: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """The links of a list of projects, or of a listing of directories: each is named as it is addressed."""
    for fields, pieces in page.links:
        text = "".join(pieces).strip().rstrip("/")
        last = unquote(fields["href"].strip().partition("#")[0].partition("?")[0].rstrip("/").rpartition("/")[2])
        named = normal(text)
        if named and named in (last, normal(last)):
            yield {"name": text}


def _joined(base: str, link: str) -> str:
    """An absolute URL; empty for what is none."""
    try:
        return urljoin(base, link)
    except ValueError:
        return ""


def _last(url: str) -> str:
    """The last segment of a URL's path, decoded."""
    return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])


def _file(fields: dict[str, str], link: str) -> dict[str, Any]:
    found: dict[str, Any] = {"filename": _last(link), "url": link, "hashes": {}}
    if "data-requires-python" in fields:
        found["requires-python"] = fields["data-requires-python"]
    if "data-yanked" in fields:
        found["yanked"] = fields["data-yanked"] or True
    if "data-gpg-sig" in fields:
        found["gpg-sig"] = fields["data-gpg-sig"] == "true"
    if "data-provenance" in fields:
        found["provenance"] = fields["data-provenance"]
    for name in _METADATA:
        if name in fields:
            algorithm, _, value = fields[name].partition("=")
            # In JSON only this name: clients of 2022 and 2023 break at the other one (PEP 714).
            found["core-metadata"] = {algorithm: value} if value else fields[name] != "false"
            break
    return found


def hashes_of(fragment: str) -> dict[str, str]:
    """The hashes that a link's fragment states, of which there may be several, and other things beside them."""
    return {algorithm: value.lower() for algorithm, value in _HASH.findall(fragment)}


def core_metadata(file: dict[str, Any]) -> Any:
    """What an index says of a file's metadata (PEP 658), by whichever of its three names: hashes, true, or nothing."""
    for name in ("core-metadata", "data-dist-info-metadata", "dist-info-metadata"):
        if name in file:
            return file[name]
    return None


def _attribute(name: str, value: str) -> str:
    return f' {name}="{html.escape(value)}"'


def _anchor(file: dict[str, Any]) -> str:
    hashes = file["hashes"]
    fragment = next((f"#{name}={hashes[name]}" for name in _HASHES if name in hashes), "")
    text = "<a" + _attribute("href", file["url"] + fragment)
    if file.get("requires-python"):
        text += _attribute("data-requires-python", str(file["requires-python"]))
    yanked = file.get("yanked")
    if yanked:
        text += _attribute("data-yanked", yanked if isinstance(yanked, str) else "")
    metadata = core_metadata(file)
    if metadata or metadata == {}:
        digest = isinstance(metadata, dict) and next((f"{n}={metadata[n]}" for n in _HASHES if n in metadata), "")
        value = digest or "true"
        text += "".join(_attribute(name, value) for name in _METADATA)
    if "gpg-sig" in file:
        text += _attribute("data-gpg-sig", "true" if file["gpg-sig"] else "false")
    if file.get("provenance"):
        text += _attribute("data-provenance", str(file["provenance"]))
    return f"{text}>{html.escape(file['filename'])}</a><br/>"


def _document(title: str, meta: Iterable[tuple[str, object]], lines: Iterable[str]) -> bytes:
    head = "".join(f"<meta{_attribute('name', name)}{_attribute('content', str(value))}/>" for name, value in meta)
    text = "\n".join(["<!DOCTYPE html>", f"<html><head>{head}<title>{title}</title></head><body>", *lines])
    return f"{text}\n</body></html>\n".encode("utf-8", "replace")


def page_to_html(found: dict[str, Any]) -> bytes:
    """A project's page as HTML."""
    meta = [(_VERSION, found["meta"].get("api-version", "1.0"))]
    for name, values in ((_TRACKS, found["meta"].get("tracks")), (_ELSEWHERE, found.get("alternate-locations"))):
        meta += [(name, value) for value in (values if isinstance(values, list) else ())]
    status = found.get("project-status")
    if isinstance(status, dict):
        told = ((_STATUS, status.get("status")), (_REASON, status.get("reason")))
        meta += [(name, value) for name, value in told if value]
    title = html.escape(f"Links for {found['name']}")
    return _document(title, meta, [f"<h1>{title}</h1>", *map(_anchor, found["files"])])


def root_to_html(found: dict[str, Any], normal: Callable[[str], str]) -> bytes:
    """The list of projects as HTML; links are relative to it."""
    names = [(str(project["name"]), normal(str(project["name"]))) for project in found["projects"]]
    lines = [f'<a href="{path}/">{html.escape(name)}</a><br/>' for name, path in names if path]
    return _document("Simple index", [(_VERSION, found["meta"].get("api-version", "1.0"))], lines)
