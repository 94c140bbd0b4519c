"""The HTML form of a simple index (PEP 503): read into the JSON form (PEP 691), and made from it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from regcache.errors import BadDocument

__all__ = ["page_to_html", "read_html", "root_to_html"]

_HASH = re.compile(r"(?:^|&)(sha512|sha384|sha256|sha1|md5|blake2b_256)=([0-9A-Fa-f]+)")
_METADATA = ("data-core-metadata", "data-dist-info-metadata")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.meta: dict[str, str] = {}
        self.links: list[tuple[dict[str, str], str]] = []
        self.form = False
        self._open: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in fields:
            self._open = fields
            self.links.append((fields, ""))
        elif tag == "base" and not self.base:
            self.base = fields.get("href", "")
        elif tag == "meta" and "name" in fields:
            self.meta[fields["name"].lower()] = fields.get("content", "")
        elif tag in ("form", "input"):
            self.form = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            fields, text = self.links[-1]
            self.links[-1] = (fields, text + data)


def read_html(text: str, url: str, name: str) -> dict[str, Any]:
    """
    The JSON form of an HTML index; links are made absolute.

    :param name: the project, or empty for the list of projects.
    :raises regcache.errors.BadDocument: if it is not an index.
    """
    page = _Page()
    page.feed(text)
    page.close()
    version = page.meta.get("pypi:repository-version", "")
    if page.form or not (version or page.links or "Links for" in text):
        raise BadDocument(f"{url} is an HTML page, but no index.")
    base = urljoin(url, page.base) if page.base else url
    meta = {"api-version": "1.0"}
    if not name:
        return {"meta": meta, "projects": [{"name": text.strip()} for _, text in page.links if text.strip()]}
    files = [found for fields, text in page.links if (found := _file(fields, text, base)) is not None]
    if page.links and not files:
        raise BadDocument(f"{url} links to no package files.")
    return {"meta": meta, "name": name, "files": files}


def _file(fields: dict[str, str], text: str, base: str) -> dict[str, Any] | None:
    link, _, fragment = urljoin(base, fields["href"].strip()).partition("#")
    path = unquote(urlsplit(link).path)
    if path.endswith("/") or "." not in path.rpartition("/")[2]:
        return None
    found: dict[str, Any] = {
        "filename": path.rpartition("/")[2] or text.strip(),
        "url": link,
        "hashes": {algorithm: value.lower() for algorithm, value in _HASH.findall(fragment)},
    }
    if "data-requires-python" in fields:
        found["requires-python"] = fields["data-requires-python"]
    if "data-yanked" in fields:
        found["yanked"] = fields["data-yanked"] or True
    if "data-gpg-sig" in fields:
        found["gpg-sig"] = fields["data-gpg-sig"] == "true"
    if "data-provenance" in fields:
        found["provenance"] = urljoin(base, fields["data-provenance"])
    for name in _METADATA:
        if name in fields:
            algorithm, _, value = fields[name].partition("=")
            found["core-metadata"] = {algorithm: value} if value else fields[name] == "true"
            break
    return found


def _attribute(name: str, value: str) -> str:
    return f' {name}="{html.escape(value)}"'


def _anchor(file: dict[str, Any]) -> str:
    hashes = file.get("hashes") or {}
    algorithm = "sha256" if "sha256" in hashes else next(iter(hashes), "")
    fragment = f"#{algorithm}={hashes[algorithm]}" if algorithm else ""
    text = f'<a href="{html.escape(str(file["url"]) + fragment)}"'
    if file.get("requires-python"):
        text += _attribute("data-requires-python", str(file["requires-python"]))
    yanked = file.get("yanked", False)
    if yanked is not False and yanked is not None:
        text += _attribute("data-yanked", yanked if isinstance(yanked, str) else "")
    metadata = file.get("core-metadata", file.get("data-dist-info-metadata", file.get("dist-info-metadata")))
    if metadata:
        digest = isinstance(metadata, dict) and metadata.get("sha256")
        value = f"sha256={digest}" if digest else "true"
        text += "".join(_attribute(name, value) for name in _METADATA)
    if "gpg-sig" in file:
        text += _attribute("data-gpg-sig", "true" if file["gpg-sig"] else "false")
    if file.get("provenance"):
        text += _attribute("data-provenance", str(file["provenance"]))
    return f"{text}>{html.escape(str(file['filename']))}</a><br/>"


def _document(title: str, meta: dict[str, str], lines: list[str]) -> bytes:
    head = "".join(f'<meta name="{name}" content="{html.escape(value)}"/>' for name, value in meta.items())
    text = "\n".join(["<!DOCTYPE html>", f"<html><head>{head}<title>{title}</title></head><body>", *lines])
    return f"{text}\n</body></html>\n".encode()


def page_to_html(found: dict[str, Any]) -> bytes:
    """A project's page as HTML."""
    meta = {"pypi:repository-version": str(found["meta"].get("api-version", "1.0"))}
    status = found.get("project-status")
    if isinstance(status, dict) and status.get("status"):
        meta["pypi:project-status"] = str(status["status"])
        if status.get("reason"):
            meta["pypi:project-status-reason"] = str(status["reason"])
    name = html.escape(str(found["name"]))
    return _document(f"Links for {name}", meta, [f"<h1>Links for {name}</h1>", *map(_anchor, found["files"])])


def root_to_html(found: dict[str, Any], normal: Any) -> bytes:
    """The list of projects as HTML; links are relative to it."""
    meta = {"pypi:repository-version": str(found["meta"].get("api-version", "1.0"))}
    names = [str(project["name"]) for project in found["projects"]]
    return _document(
        "Simple index", meta, [f'<a href="{normal(name)}/">{html.escape(name)}</a><br/>' for name in names]
    )
