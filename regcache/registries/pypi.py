"""Python package indexes: the simple index in both forms, files, their metadata, and the JSON API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
from packaging.utils import canonicalize_name
from zope.interface import implementer

from regcache.errors import BadDocument, ForbiddenOrigin, MethodNotAllowed, NotAcceptable, NotFound
from regcache.http.fields import negotiate
from regcache.http.messages import STRENGTH, Digest, RequestHead
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.registries.origins import Origins
from regcache.registries.simplehtml import page_to_html, read_html, root_to_html
from regcache.routes import Artifact, Document, Fact, Facts, Local, Moved, RegistryOptions, Route, Source

__all__ = ["PyPI"]

_JSON, _HTML = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"
_ASK = f"{_JSON}, {_HTML};q=0.2, text/html;q=0.01"
_LATEST = {_JSON: "application/vnd.pypi.simple.latest+json", _HTML: "application/vnd.pypi.simple.latest+html"}
_OFFERS = ("text/html", _HTML, _JSON, *_LATEST.values())
_FAULT = (
    b"<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value><int>-32500"
    b"</int></value></member><member><name>faultString</name><value><string>RuntimeError: PyPI no longer supports "
    b"'pip search'</string></value></member></struct></value></fault></methodResponse>"
)


@implementer(IRegistry)
class PyPI:
    """
    A Python package index.

    Files lead to ``packages/…`` below the mount where they lie on the index's files host, and else to
    ``files/SCHEME/HOST/PATH``: both end up in lock files and stay valid for ever.
    """

    default_url = "https://pypi.org/simple/"
    option_names: tuple[str, ...] = ("files",)
    version = 1
    algorithms = ("blake2b_256",)

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self._files = options.extra.get("files", "https://files.pythonhosted.org/").rstrip("/") + "/"
        self._origins = Origins.of([options.url, self._files], options.artifact_hosts)

    # Requests.

    def route(self, request: RequestHead) -> Route:
        raw = [part for part in segments(request.path) if part]
        if request.method == "POST" and raw in ([], ["pypi"]):
            return Local(status=200, content_type="text/xml", body=_FAULT)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Uploading goes to the index itself.")
        if not raw:
            raise NotFound("The index is at simple/.")
        if raw[0] == "simple" and len(raw) <= 2:
            return self._simple(raw[1:], request)
        if raw[0] in ("packages", "files"):
            return self._file(raw)
        if raw[0] == "integrity":
            path = "/".join(map(quote, raw))
            return Artifact(key=path, url=urljoin(self.options.url, f"/{path}"), mutable=True)
        if raw[0] == "pypi" and len(raw) > 1:
            raw = raw[1:]
        if raw[-1] == "json" and len(raw) in (2, 3):
            return self._json_api(raw[:-1])
        raise NotFound("That is no address of a package index.")

    def _simple(self, rest: list[str], request: RequestHead) -> Route:
        name = canonicalize_name(rest[0]) if rest else ""
        path = f"/simple/{name}/" if name else "/simple/"
        if request.path.replace("//", "/") != path:
            return Moved(path + (f"?{request.query}" if request.query else ""))
        chosen = negotiate(request.headers.get("accept"), _OFFERS)
        if chosen is None:
            raise NotAcceptable(f"There are {_JSON}, {_HTML} and text/html.")
        kind = next((own for own, alias in _LATEST.items() if alias == chosen), chosen)
        return self._page(name, kind)

    def _page(self, name: str, kind: str = _JSON) -> Document:
        return Document(
            key=f"simple/{name}" if name else "simple",
            url=f"{self.options.url}{name}/" if name else self.options.url,
            accept=_ASK,
            representation="json" if kind == _JSON else "html",
            content_type="text/html; charset=utf-8" if kind == "text/html" else kind,
            vary=("Accept",),
        )

    def _json_api(self, parts: list[str]) -> Document:
        name = canonicalize_name(parts[0])
        path = "/".join(map(quote, [name, *parts[1:]]))
        return Document(
            key=f"json/{path}",
            url=urljoin(self.options.url, f"../pypi/{path}/json"),
            accept="application/json",
            representation="api",
            content_type="application/json",
            linked=True,
        )

    def _file(self, parts: list[str]) -> Artifact:
        key = "/".join(map(quote, parts))
        if parts[0] == "packages":
            url = self._files + key
        elif len(parts) > 3 and parts[1] in ("http", "https"):
            url = f"{parts[1]}://{parts[2]}/" + "/".join(map(quote, parts[3:]))
        else:
            raise NotFound("A file is at files/SCHEME/HOST/PATH.")
        if not self.allows(url):
            raise ForbiddenOrigin(f"{parts[2]} is not among the artifact-hosts of {self.options.name}.")
        digests: tuple[Digest, ...] = ()
        sidecar = parts[-1].endswith((".metadata", ".provenance", ".asc"))
        if parts[0] == "packages" and not sidecar and [*map(len, parts[1:4])] == [2, 2, 60] and len(parts) == 5:
            try:
                digests = (Digest("blake2b_256", "".join(parts[1:4])),)
            except ValueError:
                digests = ()
        project = _project_of(parts[-1])
        return Artifact(
            key=key,
            url=url,
            content_type="application/octet-stream",
            digests=digests,
            indexes=(self._page(project),) if project else (),
        )

    # Documents.

    def _read(self, document: str, source: Source) -> dict[str, Any]:
        kind = source.content_type.partition(";")[0].strip().lower()
        name = document.removeprefix("simple").lstrip("/")
        if document.startswith("json/") or kind.endswith("json"):
            return _decoded(source)
        if kind in ("text/html", _HTML):
            return read_html(source.body.decode("utf-8", "replace"), source.url, name)
        raise BadDocument(f"{source.url} came as {kind or 'nothing known'}, not as an index.")

    def _checked(self, document: str, source: Source) -> dict[str, Any]:
        found = self._read(document, source)
        if document.startswith("json/"):
            ok = isinstance(found.get("info"), dict)
        elif document == "simple":
            ok = isinstance(found.get("meta"), dict) and isinstance(found.get("projects"), list)
        else:
            ok = isinstance(found.get("meta"), dict) and isinstance(found.get("files"), list) and "name" in found
        if not ok and not _is_foreign_major(found):
            raise BadDocument(f"{source.url} is not an index.")
        return found

    def facts(self, document: str, source: Source) -> Facts:
        found = self._checked(document, source)
        made: dict[str, Fact] = {}
        if document.startswith("simple/") and not _is_foreign_major(found):
            for file in found["files"]:
                url = urljoin(source.url, str(file["url"])).partition("#")[0]
                key = self._key(url)
                if key is None:
                    continue
                size = file.get("size")
                made[key] = Fact(
                    url=url, digests=_digests(file.get("hashes")), size=size if type(size) is int else None
                )
                metadata = file.get("core-metadata", file.get("data-dist-info-metadata"))
                if metadata:
                    made[f"{key}.metadata"] = Fact(url=f"{url}.metadata", digests=_digests(metadata))
        return made

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        found = self._checked(document, source)
        if representation == "api":
            return self._api(found, base)
        if _is_foreign_major(found):
            return source.body
        if document == "simple":
            return root_to_html(found, canonicalize_name) if representation == "html" else msgspec.json.encode(found)
        for file in found["files"]:
            file["url"] = self._link(urljoin(source.url, str(file["url"])), "../../")
            if isinstance(file.get("provenance"), str):
                file["provenance"] = self._provenance(urljoin(source.url, file["provenance"]))
        return page_to_html(found) if representation == "html" else msgspec.json.encode(found)

    def _api(self, found: dict[str, Any], base: str) -> bytes:
        releases = found.get("releases")
        lists = [found.get("urls"), *(releases.values() if isinstance(releases, dict) else ())]
        for files in lists:
            for file in files if isinstance(files, list) else ():
                if isinstance(file, dict) and isinstance(file.get("url"), str):
                    file["url"] = self._link(file["url"], base)
        return msgspec.json.encode(found)

    def _key(self, url: str) -> str | None:
        """The path of a file below the mount; None for one that may not be fetched."""
        if not self.allows(url):
            return None
        parts = urlsplit(url)
        path = [quote(unquote(part)) for part in parts.path.split("/") if part]
        if url.startswith(self._files) and path[:1] == ["packages"]:
            return "/".join(path)
        return "/".join(["files", parts.scheme, quote(parts.netloc), *path])

    def _link(self, url: str, up: str) -> str:
        link, hash_mark, fragment = url.partition("#")
        key = self._key(link)
        return url if key is None else f"{up}{key}{hash_mark}{fragment}"

    def _provenance(self, url: str) -> str:
        own = urljoin(self.options.url, "/integrity/")
        return f"../../integrity/{url.removeprefix(own)}" if url.startswith(own) else self._link(url, "../../")

    def allows(self, url: str) -> bool:
        return self._origins.allows(url)

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        del status
        return "text/plain; charset=utf-8", text.encode() + b"\n"

    def client_lines(self, base: str) -> list[str]:
        return [
            f"pip config set global.index-url {base}simple/",
            f"export UV_DEFAULT_INDEX={base}simple/",
            f"poetry source add --priority=primary regcache {base}simple/",
        ]


def _decoded(source: Source) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(source.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadDocument(f"{source.url} is not JSON.") from None
    if not isinstance(found, dict):
        raise BadDocument(f"{source.url} is not an index.")
    return found


def _is_foreign_major(found: Mapping[str, Any]) -> bool:
    """Whether the document says it is of a major version that this module cannot read (PEP 629)."""
    meta = found.get("meta")
    version = str(meta.get("api-version", "1.0")) if isinstance(meta, dict) else "1.0"
    return version.partition(".")[0] != "1"


def _digests(hashes: object) -> tuple[Digest, ...]:
    found = []
    for algorithm, value in hashes.items() if isinstance(hashes, dict) else ():
        if algorithm in STRENGTH:
            try:
                found.append(Digest(algorithm, str(value).lower()))
            except ValueError:
                continue
    return tuple(found)


def _project_of(file: str) -> str:
    """The project that a file's name says it belongs to, or empty."""
    name = file.removesuffix(".metadata").removesuffix(".provenance").removesuffix(".asc")
    if name.endswith(".whl"):
        return canonicalize_name(name.partition("-")[0])
    for suffix in (".tar.gz", ".zip", ".tar.bz2", ".tgz"):
        if name.endswith(suffix):
            return canonicalize_name(name.removesuffix(suffix).rpartition("-")[0])
    return ""
