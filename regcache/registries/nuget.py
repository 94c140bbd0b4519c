"""NuGet sources, version 3: service index, registrations, flat container, the catalog and the search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from msgspec.structs import replace
from zope.interface import implementer

from regcache.errors import BadRequest, ConfigError, MethodNotAllowed, NotFound
from regcache.http.messages import RequestHead
from regcache.http.origins import Origin
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.ownership import queried
from regcache.registries.jsontext import write_json
from regcache.registries.nugetjson import (
    INDEX,
    JSON,
    SEARCH,
    SERVICE,
    Package,
    followed,
    is_id,
    normal,
    packages,
    read,
    types,
)
from regcache.registries.plain import Confined
from regcache.routes import COPY, Artifact, Document, Fact, Facts, RegistryOptions, Release, Route, Source

__all__ = ["NuGet"]

_KIND = "application/json"
#: The public search, which the public service index names on hosts of their own.
_SEARCH_HOSTS = ("https://azuresearch-usnc.nuget.org/", "https://azuresearch-ussc.nuget.org/")
#: The service index below the mount, wherever it is upstream; clients know a source of version 3 by how it ends.
_SERVICE = ["v3", INDEX]
#: Where the public registry keeps its registrations. Other sources say where they do.
_USUAL = "v3/registration5-gz-semver2"
#: Addresses below the mount: what goes before one on another host, and between registrations and flat container.
_AT, _PROVEN = "at", "~"
_USUAL_PLACE = f"{_USUAL}/{_PROVEN}/v3-flatcontainer"
#: What is served of the resources that a service index names.
_LINKED = frozenset({"PackageBaseAddress", "RegistrationsBaseUrl", "VulnerabilityInfo", "Catalog"})
_SEARCHES = frozenset({"SearchQueryService", "SearchAutocompleteService"})
_TEMPLATES = frozenset(
    {"ReadmeUriTemplate", "PackageDisplayMetadataUriTemplate", "PackageVersionDisplayMetadataUriTemplate"}
)
#: Over plain http clients refuse it, and with it the whole source.
_SIGNATURES = "RepositorySignatures"
#: The registrations that hold every package first, then those that leave some out.
_REGISTRATIONS = ("RegistrationsBaseUrl/3.6.0", "RegistrationsBaseUrl/Versioned", "RegistrationsBaseUrl/3.4.0")
#: Fields that hold links, beside that of a package.
_LINKS = frozenset({"@id", "registration", "parent", "catalogEntry", "contentUrl", "iconUrl"})
#: Files that lie beside a package in the flat container.
_BESIDE = frozenset({"readme", "icon", "license"})
_CATALOG_LEAF = re.compile(r"(?:^|/)catalog\d*/data/")
#: What follows a package's name in an address.
_BEHIND = re.compile(r"(?:index\.json|page|\d+(?:\.\w.*)?)$", re.ASCII)
_LONGEST = 255
_END = re.compile(r"\.\d|\.[a-z]+$", re.IGNORECASE)
_SEARCHED = re.compile(r"query|search|autocomplete", re.IGNORECASE)
_MINUTE = 60.0
_READ_ONLY = "Publishing goes to the registry itself."


@implementer(IRegistry)
class NuGet(Confined):
    """
    A NuGet source.

    Its service index is always ``v3/index.json`` below the mount. Any other address is the path that the resource has
    below the source's root, which is where its ``v3/index.json`` or another ``index.json`` is, or
    ``at/SCHEME/HOST/PATH`` for one elsewhere. The flat container has ``REGISTRATIONS/~/`` before it where the
    registrations, by which a package is proven, are not where the public registry has them. So an address tells all
    that is to be known: the service index need not have been read.
    """

    default_url = "https://api.nuget.org/"
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms = ("sha512",)

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options, *(_SEARCH_HOSTS if options.url == self.default_url else ()))
        parts = urlsplit(options.url)
        if parts.query or parts.fragment:
            raise ConfigError(f"{options.url!r} is not the address of a source; it ends with {'/'.join(_SERVICE)}.")
        named = options.url.removesuffix(f"{INDEX}/")
        self._service = named + (INDEX if named != options.url or named.endswith("/v3/") else "/".join(_SERVICE))
        self._root = named[: -len("v3/")] if named.endswith("/v3/") else named
        self._root_origin = Origin.of(self._root)
        self._root_path = [part for part in segments(urlsplit(self._root).path) if part]

    # Requests.

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_READ_ONLY)
        parts = [part for part in segments(request.path) if part]
        if parts in (_SERVICE, [INDEX]):
            return self._document(SERVICE, self._service)
        registrations = _USUAL.split("/")
        if _PROVEN in parts:
            at = parts.index(_PROVEN)
            registrations, parts = parts[:at], parts[at + 1 :]
        file = parts[-1].lower() if parts else ""
        if file.endswith(".json"):
            return self._json(parts, request.query)
        if file.endswith(".nupkg") and registrations:
            return self._package(registrations, parts)
        if file.endswith((".nuspec", ".crt")) or file in _BESIDE:
            return self._file(parts)
        if _is_search(parts):
            return self._search(parts, request.query)
        raise NotFound(f"Packages, no symbols, of a NuGet source of version 3: {request.base}{'/'.join(_SERVICE)}")

    @staticmethod
    def _document(key: str, url: str) -> Document:
        return Document(key=key, url=url, accept=_KIND, representation=JSON, content_type=_KIND, linked=True)

    def _search(self, parts: list[str], query: str) -> Document:
        asked = urlencode(sorted(parse_qsl(query, keep_blank_values=True)))
        asked = f"?{asked}" if asked else ""
        made = self._document(f"{SEARCH}/{'/'.join(map(quote, parts))}{asked}", self._url(parts) + asked)
        # A search may name a package in a qualifier or in quotes (the registry's search syntax).
        return replace(made, ttl=_MINUTE, packages=(*_named(parts), *queried(query)))

    def _json(self, parts: list[str], query: str = "") -> Document:
        parts = _canonical(parts)
        asked = f"?{query}" if query else ""
        # A package's registration is an index, pages and leaves; packages are named in any of them.
        family = parts[:-3] if parts[-3:-2] == ["page"] else parts[:-1]
        return replace(
            self._document(f"{JSON}/{'/'.join(map(quote, parts))}{asked}", self._url(parts) + asked),
            mutable=not _CATALOG_LEAF.search("/".join(parts)),
            family="/".join(["registration", *map(quote, family)]),
            packages=(*_named(parts), *queried(query)),
        )

    def _package(self, registrations: list[str], parts: list[str]) -> Artifact:
        *container, name, version, file = ["", "", *parts]
        name, number = name.lower(), normal(version)
        if not number or not is_id(name) or file.lower() != f"{name}.{version.lower()}.nupkg":
            raise NotFound("That is no address of a package: those end with ID/VERSION/ID.VERSION.nupkg.")
        # Whoever asks says where the package is, and who proves it. It is that package only to those who ask there.
        place = "/".join(map(quote, [*registrations, _PROVEN, *container[2:]]))
        return Artifact(
            key=_key(name, number) + ("" if place == _USUAL_PLACE else COPY + place),
            url=self._url([*container[2:], name, number, f"{name}.{number}.nupkg"]),
            content_type="application/octet-stream",
            indexes=(self._json([*registrations, name, INDEX]),),
            proof=self._json([*registrations, name, f"{number}.json"]),
            packages=(name,),
            # Below the registrations there are no packages: such an address stands for one that does not tell.
            fixed=container[2:] != registrations,
        )

    def _file(self, parts: list[str]) -> Artifact:
        parts = _canonical(parts)
        kind = "application/xml" if parts[-1].endswith(".nuspec") else ""
        key = f"file/{'/'.join(map(quote, parts))}"
        return Artifact(key=key, url=self._url(parts), content_type=kind, packages=_named(parts))

    def _url(self, parts: list[str]) -> str:
        """
        Where an address below the mount is upstream.

        Of a host that may not be asked, a source that is a cache like this one has the same address.
        """
        root = self._root
        if parts[:1] == [_AT] and len(parts) > 3:
            origin = Origin.of(f"{parts[1]}://{parts[2]}/")
            if origin is not None and self._origins.admits(origin):
                root, parts = f"{origin.scheme}://{origin.authority}/", parts[3:]
        return root + "/".join(map(quote, parts))

    def _path(self, url: str) -> str | None:
        """The address below the mount of what is at a URL, percent-encoded; None if it may not be asked for."""
        origin = Origin.of(url)
        if origin is None or not self._origins.admits(origin):
            return None
        parts = urlsplit(url)
        try:
            path = [part for part in segments(parts.path) if part]
        except BadRequest:
            return None
        own = len(self._root_path)
        below = path[own:] if origin == self._root_origin and path[:own] == self._root_path else []
        if not below or (below in (_SERVICE, [INDEX]) and url != self._service):
            below = [_AT, origin.scheme, origin.authority, *path]
        slash = "/" if parts.path.endswith("/") else ""
        return "/".join(map(quote, below)) + slash + (f"?{parts.query}" if parts.query else "")

    # Documents.

    def facts(self, document: str, source: Source) -> Facts:
        found = read(document, source)
        if document == SERVICE:
            return Facts({}, [url for _, url in _resources(found) if not self._origins.allows(url)])
        made: dict[str, Fact] = {}
        foreign = [url for url in followed(found) if "://" in url and not self._origins.allows(url.partition("#")[0])]
        for package in packages(document, found):
            if package.url and not self._origins.allows(package.url):
                continue
            made[_key(package.id, package.version)] = Fact(
                url=package.url,
                digests=package.digests,
                size=package.size,
                proof=None if package.digests else self._leaf(document, package.entry.get("@id")),
            )
        return Facts(made, foreign)

    def _leaf(self, document: str, url: object) -> Document | None:
        """The leaf of the catalog that a registration points to, unless that is the document itself."""
        url = url.partition("#")[0] if isinstance(url, str) else ""
        path = self._path(url)
        if not path:
            return None
        bare, _, query = path.partition("?")
        leaf = self._json([part for part in segments("/" + bare) if part], query)
        return None if leaf.key == document else replace(leaf, url=url)

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del representation
        found = read(document, source)
        if document == SERVICE:
            found["resources"] = list(self._served(found, base))
            return write_json(found)
        for package in packages(document, found):
            for holder in package.holders:
                link = self._package_link(document, package, holder["packageContent"])
                holder["packageContent"] = holder["packageContent"] if link is None else base + link
        waiting = [found]
        while waiting:
            node = waiting.pop()
            for name, value in node.items() if isinstance(node, dict) else enumerate(node):
                if isinstance(value, str) and name in _LINKS:
                    node[name] = self._led_back(value, base)
                elif isinstance(value, dict | list) and name != "@context":
                    waiting.append(value)
        return write_json(found)

    def _led_back(self, url: str, base: str) -> str:
        """A link that leads back through the proxy, if what it leads to is served."""
        bare, mark, fragment = url.partition("#")
        path = self._path(bare)
        file = "" if path is None else path.partition("?")[0].rpartition("/")[2]
        return f"{base}{path}{mark}{fragment}" if file.endswith((".json", ".crt")) or file in _BESIDE else url

    def _package_link(self, document: str, package: Package, url: str) -> str | None:
        """The address below the mount of a package that a registration names; None if its host may not be asked."""
        path = self._path(url)
        if path is None or f"/{_PROVEN}/" in path:
            return path
        name, version = package.id.lower(), normal(package.version)
        registrations, _, _ = document.removeprefix(f"{JSON}/").rpartition(f"/{quote(name)}/")
        usual = "/".join(map(quote, [name, version, f"{name}.{version}.nupkg"]))
        if not path.lower().endswith(f"/{usual}"):
            # Such an address does not tell what it leads to. The registration does, and where that is as well.
            path = f"{registrations}/{usual}"
        return path if registrations in ("", _USUAL) else f"{registrations}/{_PROVEN}/{path}"

    def _served(self, found: dict[str, Any], base: str) -> Iterator[dict[str, Any]]:
        """The resources of a service index that are served, as they are: what is not is left out."""
        resources = [(one, self._path(url.partition("{")[0]), url) for one, url in _resources(found)]
        kinds = {kind: path for one, path, _ in resources for kind in types(one) if path and _name(kind) in _LINKED}
        proving = [kind for kind in (*_REGISTRATIONS, *kinds) if kind in kinds and kind.startswith("Registrations")]
        registrations = kinds[proving[0]].rstrip("/") if proving else _USUAL
        for resource, path, url in resources:
            names = set(map(_name, types(resource)))
            if path is None or (_SIGNATURES in names and not base.startswith("https:")):
                continue
            if "?" in path and names & _LINKED:
                # Nothing can follow such an address.
                continue
            if names & _SEARCHES and not _is_search(path.split("/")):
                continue
            if "PackageBaseAddress" in names and registrations != _USUAL and f"/{_PROVEN}/" not in path:
                path = f"{registrations}/{_PROVEN}/{path}"
            _, brace, template = url.partition("{")
            yield {**resource, "@id": base + path + brace + template}

    def release(self, key: str, parent: str) -> Release | None:
        del parent
        kind, *parts = map(unquote, key.partition(COPY)[0].partition("?")[0].split("/"))
        if kind == "package" and len(parts) == 2:
            return Release(parts[0], parts[1])
        if kind not in (JSON, "file") or len(parts) < 2:
            return None
        # In all sources of version 3 an address goes on behind a package's name with its index, a page or a version.
        at = next((at for at, part in enumerate(parts[1:], 1) if _BEHIND.match(part)), 0)
        version = parts[at].removesuffix(".json")
        return Release(parts[at - 1].lower(), version if normal(version) else "") if at else None

    def client_lines(self, base: str) -> list[str]:
        source = base + "/".join(_SERVICE)
        plain = " --allow-insecure-connections" if base.startswith("http:") else ""
        return [
            f"dotnet nuget add source {source} --name regcache{plain}   # dotnet",
            "dotnet nuget disable source nuget.org   # dotnet, beside the other line",
            f"nuget sources add -Name regcache -Source {source}   # nuget",
            "nuget sources disable -Name nuget.org   # nuget, beside the other line",
        ]


def _resources(found: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The resources of a service index that are served wherever their hosts may be asked, and their addresses."""
    for resource in found["resources"]:
        if isinstance(resource, dict) and isinstance(resource.get("@id"), str):
            names = set(map(_name, types(resource)))
            if names & (_LINKED | _SEARCHES | _TEMPLATES | {_SIGNATURES}):
                yield resource, resource["@id"]


def _name(kind: str) -> str:
    """A resource's type without its version."""
    return kind.partition("/")[0]


def _key(name: str, version: str) -> str:
    """The key of a package, however its name and version are spelled."""
    return f"package/{name.lower()}/{normal(version)}"


def _canonical(parts: list[str]) -> list[str]:
    """The one spelling of an address: the public registry has what it names after packages in lower case."""
    named = parts[:1] == ["v3-flatcontainer"] or "/".join(parts).startswith("v3/registration5-")
    kept = 0 if named else len(parts) - 3 if parts[-1].lower().endswith(".nuspec") else len(parts)
    return [part.lower() if number >= kept else part for number, part in enumerate(parts)]


def _named(parts: list[str]) -> tuple[str, ...]:
    """The packages that an address may name: by a segment, or by what is before a version or an ending in its last."""
    parts = parts[3:] if parts[:1] == [_AT] else parts
    ends = {file[: end.start()] for file in parts[-1:] for end in _END.finditer(file[:_LONGEST])}
    return tuple(sorted({*parts, *ends}))


def _is_search(parts: list[str]) -> bool:
    """Whether an address is one of a search, as all sources call it in one way or another."""
    return any(_SEARCHED.match(part) for part in parts)
