"""The npm registry: packuments, full and abbreviated, version manifests and tarballs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import msgspec
from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.fields import negotiate, parse_sri
from regcache.http.messages import Digest, RequestHead
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.registries.origins import Origins
from regcache.routes import Artifact, Document, Fact, Facts, Local, RegistryOptions, Relay, Route, Source

__all__ = ["Npm"]

_FULL, _ABBREVIATED = "application/json", "application/vnd.npm.install-v1+json"
_ASK_ABBREVIATED = f"{_ABBREVIATED}; q=1.0, {_FULL}; q=0.8, */*"
#: What an abbreviated version keeps (the registry's package metadata document).
_KEPT = frozenset(
    {
        "name",
        "version",
        "deprecated",
        "dependencies",
        "devDependencies",
        "optionalDependencies",
        "bundleDependencies",
        "bundledDependencies",
        "peerDependencies",
        "peerDependenciesMeta",
        "acceptDependencies",
        "bin",
        "directories",
        "dist",
        "engines",
        "cpu",
        "os",
        "libc",
        "funding",
        "hasInstallScript",
        "_hasShrinkwrap",
    }
)
_MINUTE = 60.0


def _upstream_name(name: str) -> str:
    """A package's name in a path: the slash of a scope is encoded."""
    return quote(name).replace("%40", "@", 1) if name.startswith("@") else quote(name)


@implementer(IRegistry)
class Npm:
    """
    An npm registry.

    Its tarballs lead to ``NAME/-/FILE.tgz`` below the mount, which is what lock files record.
    """

    default_url = "https://registry.npmjs.org/"
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms = ("sha512", "sha1")

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self._origins = Origins.of([options.url, self.default_url], options.artifact_hosts)

    # Requests.

    def route(self, request: RequestHead) -> Route:
        parts = [part for part in segments(request.path, keep_slash=True) if part]
        if parts and parts[0] == "-":
            return self._api(request, parts[1:])
        if request.method == "GET" and "write=true" in request.query:
            return Relay(url=self.options.url + "/".join(map(_upstream_name, parts)) + f"?{request.query}")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Publishing and logging in go to the registry itself.")
        if parts and parts[0].startswith("@") and "/" not in parts[0]:
            parts[:2] = ["/".join(parts[:2])]
        if not parts or parts[0].startswith(("_", ".")):
            raise NotFound("That is no package name.")
        name, rest = parts[0], parts[1:]
        if name.startswith("@") and name.count("/") != 1:
            raise NotFound("A scoped name is @SCOPE/NAME.")
        if not rest:
            return self._packument(name, request)
        if rest[0] == "-" and len(rest) >= 2:
            return self._tarball(name, rest[-1])
        if len(rest) == 1:
            return self._manifest(name, rest[0])
        raise NotFound("That is no address of a registry.")

    def _full(self, name: str) -> Document:
        return Document(
            key=f"packument/{name}",
            url=self.options.url + _upstream_name(name),
            accept=_FULL,
            representation="full",
            content_type=_FULL,
            vary=("Accept",),
            linked=True,
        )

    def _packument(self, name: str, request: RequestHead) -> Document:
        full = self._full(name)
        if negotiate(request.headers.get("accept"), [_FULL, _ABBREVIATED]) != _ABBREVIATED:
            return full
        return self._abbreviated(name)

    def _abbreviated(self, name: str) -> Document:
        full = self._full(name)
        return Document(
            key=f"abbreviated/{name}",
            url=full.url,
            accept=_ASK_ABBREVIATED,
            representation="abbreviated",
            content_type=_ABBREVIATED,
            vary=("Accept",),
            linked=True,
            instead=full,
        )

    def _manifest(self, name: str, version: str) -> Document:
        return Document(
            key=f"manifest/{name}/{version}",
            url=f"{self.options.url}{_upstream_name(name)}/{quote(version)}",
            accept=_FULL,
            representation="manifest",
            content_type=_FULL,
            linked=True,
        )

    def _tarball(self, name: str, file: str) -> Artifact:
        base = name.rpartition("/")[2]
        version = file.removeprefix(f"{base}-").removesuffix(".tgz")
        told = file == f"{base}-{version}.tgz"
        return Artifact(
            key=f"{name}/-/{file}",
            url=f"{self.options.url}{'/'.join(map(quote, name.split('/')))}/-/{quote(file)}",
            content_type="application/octet-stream",
            indexes=(self._abbreviated(name), self._full(name)),
            proof=self._manifest(name, version) if told else None,
        )

    def _api(self, request: RequestHead, parts: list[str]) -> Route:
        path = "/".join(parts)
        url = f"{self.options.url}-/{'/'.join(map(_upstream_name, parts))}"
        if request.method == "POST" and path.startswith("npm/v1/security/"):
            offline = Local(status=200, content_type=_FULL, body=b"{}") if path.endswith("/bulk") else None
            return Relay(url=url, offline=offline)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Publishing and logging in go to the registry itself.")
        if path == "ping":
            return Local(status=200, content_type=_FULL, body=b"{}")
        query = urlencode(sorted(parse_qsl(request.query, keep_blank_values=True)))
        known = path == "v1/search" or path.startswith(("npm/v1/keys", "npm/v1/attestations/", "package/"))
        if not known:
            raise NotFound("This cache does not serve that part of a registry.")
        suffix = f"?{query}" if query else ""
        return Artifact(key=f"-/{path}{suffix}", url=url + suffix, mutable=True, ttl=_MINUTE)

    # Documents.

    def _read(self, document: str, source: Source) -> dict[str, Any]:
        kind, _, name = document.partition("/")
        try:
            found = msgspec.json.decode(source.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadDocument(f"{source.url} is not JSON.") from None
        if kind == "manifest":
            name = name.rpartition("/")[0]
        if not isinstance(found, dict) or found.get("name") != name:
            raise BadDocument(f"{source.url} does not describe {name}.")
        unpublished = isinstance(found.get("time"), dict) and "unpublished" in found["time"]
        content = found.get("dist") if kind == "manifest" else found.get("versions")
        if not isinstance(content, dict) and not unpublished:
            raise BadDocument(f"{source.url} describes no versions.")
        return found

    def _versions(self, document: str, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
        versions = [found] if document.startswith("manifest/") else (found.get("versions") or {}).values()
        for version in versions:
            if isinstance(version, dict) and isinstance(version.get("dist"), dict):
                yield version

    def _place(self, name: str, version: Mapping[str, Any]) -> tuple[str, str] | None:
        """A tarball's key and its upstream URL; None if it may not be fetched."""
        url = version["dist"].get("tarball")
        if not isinstance(url, str):
            return None
        own, there = urlsplit(self.options.url), urlsplit(url)
        if there.scheme == "http" and own.scheme == "https" and there.hostname == own.hostname:
            url = there._replace(scheme="https").geturl()
        url = url.partition("#")[0]
        if not self.allows(url):
            return None
        file = unquote(urlsplit(url).path.rpartition("/")[2])
        if not file.endswith(".tgz") or "/" in file:
            file = f"{name.rpartition('/')[2]}-{version.get('version')}.tgz"
        return f"{name}/-/{file}", url

    def facts(self, document: str, source: Source) -> Facts:
        found = self._read(document, source)
        made = Facts()
        for version in self._versions(document, found):
            place = self._place(found["name"], version)
            if place is not None:
                made[place[0]] = Fact(url=place[1], digests=_digests(version["dist"]))
        return made

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        found = self._read(document, source)
        for version in self._versions(document, found):
            dist = version["dist"]
            place = self._place(found["name"], version)
            if place is not None:
                dist["tarball"] = base + "/".join(map(quote, place[0].split("/")))
            attestations = dist.get("attestations")
            if isinstance(attestations, dict) and self.allows(str(attestations.get("url", ""))):
                attestations["url"] = base + urlsplit(attestations["url"]).path.lstrip("/")
        if representation == "abbreviated":
            found = _abbreviated(found)
        return msgspec.json.encode(found)

    def allows(self, url: str) -> bool:
        return self._origins.allows(url)

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        del status
        return _FULL, json.dumps({"error": text}).encode()

    def client_lines(self, base: str) -> list[str]:
        return [
            f"npm config set registry {base}",
            f"yarn config set registry {base}",
            f"pnpm config set registry {base}",
        ]


def _digests(dist: Mapping[str, Any]) -> tuple[Digest, ...]:
    found = list(parse_sri(dist["integrity"])) if isinstance(dist.get("integrity"), str) else []
    with contextlib.suppress(ValueError):
        found.append(Digest("sha1", str(dist.get("shasum", "")).lower()))
    return tuple(found)


def _abbreviated(found: dict[str, Any]) -> dict[str, Any]:
    """The abbreviated form of a packument, from its full or its abbreviated form."""
    versions = {
        number: {key: value for key, value in version.items() if key in _KEPT}
        for number, version in (found.get("versions") or {}).items()
    }
    for number, version in (found.get("versions") or {}).items():
        scripts = version.get("scripts")
        if isinstance(scripts, dict) and scripts.keys() & {"preinstall", "install", "postinstall"}:
            versions[number]["hasInstallScript"] = True
    made = {"name": found["name"], "dist-tags": found.get("dist-tags", {}), "versions": versions}
    times = found.get("time")
    modified = found.get("modified") or (times.get("modified") if isinstance(times, dict) else None)
    if modified:
        made["modified"] = modified
    if isinstance(times, dict):
        made["time"] = times
    return made
