"""Python package indexes: the simple index in both forms, files, their metadata, and the JSON API."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote as percent_encoded
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
from zope.interface import implementer

from regcache.errors import BadDocument, BadRequest, MethodNotAllowed, NotAcceptable, NotFound
from regcache.http.fields import negotiate
from regcache.http.messages import STRENGTH, Digest, RequestHead
from regcache.http.origins import Origin
from regcache.http.paths import quote, segments, tidied
from regcache.interfaces import IRegistry
from regcache.registries.jsontext import read_object, write_json
from regcache.registries.plain import Confined
from regcache.registries.pynames import SIDECARS, is_archive, normal, projects_of, version_of
from regcache.registries.simplehtml import (
    core_metadata,
    hashes_of,
    page_to_html,
    read_html,
    root_to_html,
)
from regcache.routes import Artifact, Document, Fact, Facts, Local, Moved, RegistryOptions, Release, Route, Source

__all__ = ["PyPI"]

_JSON, _HTML, _TEXT = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html", "text/html"
_ASK = f"{_JSON}, {_HTML};q=0.2, {_TEXT};q=0.01"
_LATEST = {_JSON: "application/vnd.pypi.simple.latest+json", _HTML: "application/vnd.pypi.simple.latest+html"}
_OFFERS = (_JSON, *_LATEST.values(), _HTML, _TEXT)
_PROVENANCE = "application/vnd.pypi.integrity.v1+json"
_FAULT = (
    b"<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value><int>-32500"
    b"</int></value></member><member><name>faultString</name><value><string>RuntimeError: PyPI no longer supports "
    b"'pip search'</string></value></member></struct></value></fault></methodResponse>"
)


@implementer(IRegistry)
class PyPI(Confined):
    """
    A Python package index.

    Files lead to ``packages/…`` below the mount where they lie on the index's files host, and else to
    ``files/SCHEME/HOST/PATH``: both end up in lock files and stay valid for ever.
    """

    default_url = "https://pypi.org/simple/"
    option_names: tuple[str, ...] = ("files",)
    version = 3
    algorithms = ("blake2b_256",)

    def __init__(self, options: RegistryOptions) -> None:
        self._files = options.extra.get("files", "https://files.pythonhosted.org/").rstrip("/") + "/"
        super().__init__(options, self._files)
        self._last_html: tuple[Source | None, bytes] = None, b""
        self._files_origin = Origin.of(self._files)
        self._files_path = [quote(part) for part in segments(urlsplit(self._files).path) if part]

    # Requests.

    def route(self, request: RequestHead) -> Route:
        # Only a file's address on another host may need an encoded slash.
        path, raw = tidied(request.path, keep_slash=request.path.startswith("/files/"))
        if request.method == "POST" and raw in ([], ["pypi"]):
            return Local(status=200, content_type="text/xml", body=_FAULT)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Uploading goes to the index itself.")
        if not raw:
            raise _not_found(request)
        if raw[0] == "simple" and len(raw) <= 2:
            return self._simple(raw[1:], request)
        if raw[0] in ("packages", "files"):
            return self._file(raw, path)
        if raw[0] == "integrity" and len(raw) == 5 and raw[-1] == "provenance":
            return self._attestation(path, raw[1])
        if raw[0] == "pypi" and len(raw) > 1:
            raw = raw[1:]
        if raw[-1] == "json" and len(raw) in (2, 3):
            return self._json_api(raw[:-1])
        raise _not_found(request)

    def _simple(self, rest: list[str], request: RequestHead) -> Route:
        name = normal(rest[0]) if rest else ""
        if rest and not name:
            raise NotFound(f"{rest[0]!r} is no name of a project.")
        path = f"/simple/{name}/" if name else "/simple/"
        if request.path.replace("//", "/") != path:
            return Moved(path + (f"?{request.query}" if request.query else ""))
        accept = request.headers.get("accept")
        # Whoever names no form of its own is a browser, or older than all of them but one.
        offers = _OFFERS if "vnd.pypi.simple" in accept.lower() else _OFFERS[::-1]
        chosen = negotiate(accept, [one for one in offers if one not in _LATEST.values() or one in accept.lower()])
        if chosen is None:
            raise NotAcceptable(f"There are {_JSON}, {_HTML} and {_TEXT}.")
        kind = next((own for own, alias in _LATEST.items() if alias == chosen), chosen)
        return self._page(name, kind)

    def _page(self, name: str, kind: str = _JSON) -> Document:
        return Document(
            key=f"simple/{name}" if name else "simple",
            url=f"{self.options.url}{name}/" if name else self.options.url,
            accept=_ASK,
            representation="json" if kind == _JSON else "html",
            content_type=f"{_TEXT}; charset=utf-8" if kind == _TEXT else kind,
            vary=("Accept",),
            # Files are linked relatively, but provenance has to have a full URL (PEP 740).
            linked=bool(name),
            packages=(name,) if name else (),
        )

    def _json_api(self, parts: list[str]) -> Document:
        name = normal(parts[0])
        if not name:
            raise NotFound(f"{parts[0]!r} is no name of a project.")
        path = "/".join(map(quote, [name, *parts[1:]]))
        return Document(
            key=f"json/{path}",
            url=urljoin(self.options.url, f"../pypi/{path}/json"),
            accept="application/json",
            representation="api",
            content_type="application/json",
            linked=True,
            packages=(name,),
        )

    def _attestation(self, path: str, name: str) -> Document:
        return Document(
            key=path,
            url=urljoin(self.options.url, f"/{path}"),
            accept=f"{_PROVENANCE}, application/json;q=0.5",
            representation="as-is",
            content_type=_PROVENANCE,
            packages=(name,),
        )

    def _file(self, parts: list[str], path: str) -> Artifact:
        own = parts[0] == "packages" and len(parts) > 1
        url = self._files + path if own else self._address(parts)
        key = path if own else self._key(url)
        if key is None:
            raise NotFound(f"{'/'.join(parts[1:3])} is not among the artifact-hosts of {self.options.name}.")
        projects = projects_of(parts[-1])
        return Artifact(
            key=key,
            url=url,
            content_type="application/octet-stream",
            digests=() if parts[-1].endswith(SIDECARS) else _kept_under(key),
            indexes=tuple([self._page(project) for project in projects]),
            packages=tuple(projects),
        )

    def _address(self, parts: list[str]) -> str:
        """Where a file of another host is, from the path by which it is asked for."""
        if len(parts) > 3 and parts[1] in ("http", "https") and not set(parts[2]) & set("/?#@"):
            origin = Origin.of(f"{parts[1]}://{parts[2]}/")
            if origin is not None:
                return "/".join([f"{origin.scheme}://{origin.authority}", *map(quote, parts[3:])])
        raise NotFound("A file is at packages/PATH or files/SCHEME/HOST/PATH.")

    # Documents.

    def _read(self, document: str, source: Source) -> dict[str, Any]:
        kind = _kind(source)
        if kind.endswith("json"):
            return read_object(source)
        if kind in (_TEXT, _HTML) and _is_simple(document):
            return self._read_html(document, source)
        raise BadDocument(f"{source.url} came as {kind or 'nothing known'}, not as an index.")

    def _read_html(self, document: str, source: Source) -> dict[str, Any]:
        """Parsing HTML takes long, and what is asked for a document is mostly asked for together."""
        before, encoded = self._last_html
        if before is not source:
            text, name = source.body.decode("utf-8", "replace"), document.partition("/")[2]
            encoded = msgspec.json.encode(read_html(text, source.url, name, normal))
            self._last_html = source, encoded
        found: dict[str, Any] = msgspec.json.decode(encoded)
        return found

    def _checked(self, document: str, source: Source) -> dict[str, Any]:
        """A document, read; the files of a project have absolute URLs without a fragment."""
        found = self._read(document, source)
        if not _is_simple(document):
            good = isinstance(found.get("info"), dict) or not document.startswith("json/")
        elif _is_foreign(found):
            good = True
        else:
            entries = found.get("projects" if document == "simple" else "files")
            named = document == "simple" or normal(str(found.get("name"))) == document.partition("/")[2]
            good = named and isinstance(found.get("meta"), dict) and isinstance(entries, list)
        if not good:
            raise BadDocument(f"{source.url} is not an index.")
        if _is_simple(document) and not _is_foreign(found):
            _tidy(found, source.url)
        return found

    def facts(self, document: str, source: Source) -> Facts:
        found = self._checked(document, source)
        made: dict[str, Fact] = {}
        foreign: list[str] = []
        for file in found["files"] if document.startswith("simple/") and not _is_foreign(found) else ():
            url, key = file["url"], self._key(file["url"])
            if key is None:
                foreign.append(url)
                continue
            size = file.get("size")
            made[key] = Fact(url=url, digests=_digests(file["hashes"]), size=size if type(size) is int else None)
            metadata = core_metadata(file)
            if metadata or metadata == {}:
                parts = urlsplit(url)
                beside = parts._replace(path=f"{parts.path}.metadata").geturl()
                made[f"{key}.metadata"] = Fact(url=beside, digests=_digests(metadata))
        return Facts(made, foreign)

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        found = self._checked(document, source)
        if representation == "as-is":
            return source.body
        if representation == "api":
            return self._api(found, base)
        html = representation == "html"
        source_is_html = _kind(source) in (_TEXT, _HTML)
        if _is_foreign(found):
            return source.body if html == source_is_html else _empty(document, _version(found), html)
        if source_is_html and not html:
            # Later versions promise what an HTML page does not tell: sizes and versions (PEP 700).
            found["meta"]["api-version"] = "1.0"
        if document == "simple":
            return root_to_html(found, normal) if html else write_json(found)
        for file in found["files"]:
            file["url"] = self._link(file["url"], "../../")
            if isinstance(file.get("provenance"), str):
                file["provenance"] = self._provenance(source.url, file["provenance"], base)
        return page_to_html(found) if html else write_json(found)

    def _api(self, found: dict[str, Any], base: str) -> bytes:
        releases = found.get("releases")
        lists = [found.get("urls"), *(releases.values() if isinstance(releases, dict) else ())]
        for files in lists:
            for file in files if isinstance(files, list) else ():
                if isinstance(file, dict) and isinstance(file.get("url"), str):
                    file["url"] = self._link(file["url"], base)
        return write_json(found)

    def _key(self, url: str) -> str | None:
        """The path of a file below the mount; None for one that may not be fetched, or not be asked for."""
        origin, parts = Origin.of(url), urlsplit(url)
        if origin is None or not self._origins.admits(origin):
            return None
        if parts.query and not is_archive(parts.path):
            # Which file it is, its query alone says.
            return None
        try:
            path = [quote(part) for part in segments(parts.path, keep_slash=True) if part]
        except BadRequest:
            return None
        own = len(self._files_path)
        if origin == self._files_origin and path[:own] == self._files_path and path[own : own + 1] == ["packages"]:
            return "/".join(path[own:])
        return "/".join(["files", origin.scheme, quote(origin.authority), *path]) if path else None

    def _link(self, url: str, up: str) -> str:
        key = self._key(url)
        return url if key is None else up + key

    def _provenance(self, page: str, link: str, base: str) -> str:
        own = urljoin(self.options.url, "/integrity/")
        with contextlib.suppress(ValueError):
            url = _absolute(page, link)
            return f"{base}integrity/{url.removeprefix(own)}" if url.startswith(own) else self._link(url, base)
        return link

    def release(self, key: str, parent: str) -> Release | None:
        kind, _, rest = key.partition("/")
        if kind == "simple":
            return Release(rest) if rest else None
        if kind == "json":
            name, _, version = rest.partition("/")
            return Release(name, version)
        file = unquote(key.rpartition("/")[2])
        told = parent.removeprefix("simple/") if parent.startswith("simple/") else ""
        project = told or next(iter(projects_of(file)), "")
        return Release(project, version_of(file, project)) if project else None

    def client_lines(self, base: str) -> list[str]:
        index = f"{base}simple/"
        return [
            f"pip config set global.index-url {index}   # pip and pip-tools",
            f"export UV_DEFAULT_INDEX={index}   # uv",
            f"poetry source add --priority=primary regcache {index} && poetry lock   # poetry, in each project",
            f"pdm config pypi.url {index}   # pdm",
            f"export PIPENV_PYPI_MIRROR={index}   # pipenv",
            rf"printf '[easy_install]\nindex_url = %s\n' {index} >> ~/.pydistutils.cfg"
            "   # setuptools, beside pip's line",
            "mkdir -p ~/.buildout && "
            rf"printf '[buildout]\nindex = %s\n' {index} >> ~/.buildout/default.cfg   # buildout, beside pip's line",
        ]


def _kept_under(key: str) -> tuple[Digest, ...]:
    """The directories that the index keeps a file in are the file's BLAKE2b digest."""
    parts = key.split("/")
    if len(parts) == 5 and parts[0] == "packages" and len(parts[1]) == len(parts[2]) == 2:
        try:
            return (Digest("blake2b_256", "".join(parts[1:4])),)
        except ValueError:
            return ()
    return ()


def _not_found(request: RequestHead) -> NotFound:
    """What is beside the index; most who come there left out ``simple/``."""
    return NotFound(f"That is no address of a package index; its pages are at {request.base}simple/.")


def _kind(source: Source) -> str:
    return source.content_type.partition(";")[0].strip().lower()


def _is_simple(document: str) -> bool:
    return document == "simple" or document.startswith("simple/")


def _version(found: Mapping[str, Any]) -> str:
    meta = found.get("meta")
    return str(meta.get("api-version") or "1.0") if isinstance(meta, dict) else "1.0"


def _is_foreign(found: Mapping[str, Any]) -> bool:
    """Whether the document says it is of a major version that this module cannot read (PEP 629)."""
    return _version(found).partition(".")[0] != "1"


def _empty(document: str, version: str, html: bool) -> bytes:
    """An index with nothing in it, of a version that cannot be read here, so that the client can say the same."""
    made = {"meta": {"api-version": version}, "name": document.partition("/")[2], "files": [], "projects": []}
    return page_to_html(made) if html else write_json(made)


def _absolute(page: str, link: str) -> str:
    """
    A link as an absolute URL without a fragment, what may not stand in a URL percent-encoded.

    :raises ValueError: if it is none.
    """
    parts = urlsplit(urljoin(page, link))
    path, query = (percent_encoded(text, safe="%!$&'()*+,;=:@/?~[]") for text in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _tidy(found: dict[str, Any], page: str) -> None:
    """Leave out what is no entry of an index, and make the rest uniform."""
    if "projects" in found:
        found["projects"] = [one for one in found["projects"] if isinstance(one, dict) and "name" in one]
    files = []
    for file in found.get("files", ()):
        told = [file.get(name) for name in ("url", "filename")] if isinstance(file, dict) else [None]
        if not all(isinstance(value, str) for value in told):
            continue
        hashes = file.get("hashes")
        file["hashes"] = (hashes if isinstance(hashes, dict) else {}) or hashes_of(file["url"].partition("#")[2])
        try:
            file["url"] = _absolute(page, file["url"])
        except ValueError:
            continue
        files.append(file)
    if "files" in found:
        found["files"] = files


def _digests(hashes: object) -> tuple[Digest, ...]:
    found = []
    for algorithm, value in hashes.items() if isinstance(hashes, dict) else ():
        if algorithm in STRENGTH:
            with contextlib.suppress(ValueError):
                found.append(Digest(algorithm, str(value).lower()))
    return tuple(found)
