"""
Cargo: the sparse index and the crates that it leads to (The Cargo Book, "Running a Registry" and "Index Format").

The upstream's ``config.json`` says by a template where crates are. The one that clients get leads back here and holds
the upstream's whole, and the checksum that the client expects: ``dl/SHA256/https/HOST/PATH``. So a crate is found and
verified by its address alone, as a build from a lock file needs it.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote as quote_any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace
from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.http.origins import Origin
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.ownership import queried, shortened
from regcache.registries.jsontext import read_object
from regcache.registries.plain import Confined
from regcache.routes import Artifact, Document, Facts, Local, RegistryOptions, Release, Route, Source

__all__ = ["Cargo"]

#: Where the public index's crates and its search are.
_WELL_KNOWN = ("https://static.crates.io/", "https://crates.io/")
_JSON = "application/json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
#: How addresses of crates mostly tell the name and the version: ``/NAME/VERSION/download`` or ``/NAME-VERSION.crate``.
_CRATE = re.compile(
    r"/(?:(?P<name>[\w-]+)/(?P<version>\d[^/]*)/download|(?P<crate>[\w-]+?)-(?P<number>\d+\.[^/]*?)(?:\.crate)?)$"
)
_CHECKSUM = "{sha256-checksum}"
_MARKERS = ("{crate}", "{version}", "{prefix}", "{lowerprefix}", _CHECKSUM)
_SEARCH = "api/v1/crates"
_MINUTE = 60.0


class _Release(msgspec.Struct):
    """A line of the index, as far as it matters here."""

    name: str
    vers: str
    cksum: str


@implementer(IRegistry)
class Cargo(Confined):
    """
    A Cargo registry with a sparse index.
    """

    default_url = "https://index.crates.io/"
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms = ("sha256",)

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options, *(_WELL_KNOWN if options.url == self.default_url else ()))

    # Requests.

    def route(self, request: RequestHead) -> Route:
        parts = segments(request.path)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Publishing, yanking and owners go to the registry itself.")
        if parts == ("config.json",):
            form = "closed" if self.options.closed else "config"
            return self._document("config.json", "config.json", form, _JSON, linked=True)
        if parts[0] == "dl" and len(parts) > 4:
            return self._crate(parts[1], self._target(parts[2:], request.query))
        if parts[0] == "api" and "/".join(parts[3:]) == _SEARCH:
            url = self._target(parts[1:], request.query)
            words = tuple(queried(request.query))
            return Document(key=url, url=url, representation="search", content_type=_JSON, ttl=_MINUTE, packages=words)
        name = parts[-1]
        if _NAME.fullmatch(name) and "/".join(parts) == _place(name):
            page = self._document(f"index/{name}", _place(name), "index", "text/plain; charset=utf-8")
            return replace(page, packages=(name,))
        if request.path == "/me":
            # Where `cargo login` sends a person.
            return Local(status=404, content_type="text/plain", body=b"Tokens are for the registry itself.\n")
        raise NotFound("That is no address of a Cargo index.")

    def _document(self, key: str, path: str, form: str, kind: str, *, linked: bool = False) -> Document:
        return Document(
            key=key, url=self.options.url + path, representation=form, content_type=kind, linked=linked, accept="*/*"
        )

    def _target(self, parts: tuple[str, ...], query: str) -> str:
        """The URL upstream that an address of ours holds."""
        scheme, authority, *path = parts
        origin = Origin.of(f"{scheme}://{authority}/")
        if origin is None or not self._origins.admits(origin) or not all(path) or "?" in authority or "#" in authority:
            raise NotFound(f"Crates may not come from there; artifact-hosts of {self.options.name} says from where.")
        url = f"{origin.scheme}://{origin.authority}/" + "/".join(map(quote, path))
        return url + (f"?{query}" if query else "")

    @staticmethod
    def _crate(checksum: str, url: str) -> Artifact:
        try:
            digest = Digest("sha256", checksum)
        except ValueError:
            raise NotFound("A crate's address begins with its checksum.") from None
        # The template decides where in the address the name is.
        there = urlsplit(url)
        names = {*queried(there.query), *(name for part in there.path.split("/") for name in shortened(part))}
        return Artifact(key=f"dl/{checksum}/{url}", url=url, digests=(digest,), packages=tuple(sorted(names)))

    # Documents.

    def facts(self, document: str, source: Source) -> Facts:
        foreign: list[str] = []
        if document == "config.json":
            template = self._template(source)
            if self._led_back(template, "dl", "") is None:
                foreign.append(template)
        elif document.startswith("index/"):
            _read_index(document.removeprefix("index/"), source)
        else:
            read_object(source)
        return Facts({}, foreign)

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        if representation not in ("config", "closed"):
            self.facts(document, source)
            return source.body
        template = self._template(source)
        config: dict[str, str | bool] = {"dl": self._led_back(template, f"dl/{_CHECKSUM}", base) or template}
        api = read_object(source).get("api")
        search = self._led_back(api, "api", base) if isinstance(api, str) else None
        if search is not None:
            config["api"] = search
        if representation == "closed":
            # Else crates are asked for without saying by whom.
            config["auth-required"] = True
        return json.dumps(config).encode()

    def _template(self, source: Source) -> str:
        """The upstream's template, its markers written out."""
        template = read_object(source).get("dl")
        if not isinstance(template, str):
            raise BadDocument(f"{source.url} does not say where crates are.")
        if not any(marker in template for marker in _MARKERS):
            template = template.rstrip("/") + "/{crate}/{version}/download"
        return template

    def _led_back(self, link: str, below: str, base: str) -> str | None:
        """The address here that holds a link of the upstream's; None if its host may not be asked."""
        if base and link.startswith(base):
            return link
        origin = Origin.of(link)
        if origin is None or not self._origins.admits(origin):
            return None
        parts = urlsplit(link)
        path = quote_any(parts.path.rstrip("/"), safe="/{}%!$&'()*,;=:@~")
        query = f"?{parts.query}" if parts.query else ""
        return f"{base}{below}/{origin.scheme}/{origin.authority}{path}{query}"

    def release(self, key: str, parent: str) -> Release | None:
        kind, _, rest = key.partition("/")
        if kind == "index":
            return Release(rest)
        if kind != "dl":
            return None
        path = urlsplit(rest.partition("/")[2]).path
        name = parent.removeprefix("index/")
        told = _CRATE.search(path)
        if told is None:
            return Release(name) if name else None
        return Release((name or told["name"] or told["crate"]).lower(), told["version"] or told["number"])

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        del status
        return _JSON, json.dumps({"errors": [{"detail": text}]}).encode()

    def client_lines(self, base: str) -> list[str]:
        file = '[source.crates-io]\\nreplace-with = "regcache"\\n[source.regcache]\\nregistry = "sparse+%s"\\n'
        return [
            f"mkdir -p ~/.cargo && printf '{file}' {base} >> ~/.cargo/config.toml",
            f"export CARGO_REGISTRIES_REGCACHE_INDEX=sparse+{base}   # for cargo search --registry regcache",
        ]


def _place(name: str) -> str:
    """Where the index has a crate (The Cargo Book, "Index files")."""
    if len(name) < 4:
        return f"{len(name)}/{name[0]}/{name}" if len(name) == 3 else f"{len(name)}/{name}"
    return f"{name[:2]}/{name[2:4]}/{name}"


def _read_index(name: str, source: Source) -> None:
    """See that a page of the index is one."""
    lines = [line for line in source.body.split(b"\n") if line.strip()]
    try:
        releases = [msgspec.json.decode(line, type=_Release) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadDocument(f"{source.url} is no page of an index.") from None
    if not releases or any(release.name.lower() != name for release in releases):
        raise BadDocument(f"{source.url} does not list {name}.")
