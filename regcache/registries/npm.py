"""The npm registry: packuments, full and abbreviated, version manifests and tarballs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from msgspec.structs import replace
from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.fields import negotiate, parse_sri
from regcache.http.messages import Digest, RequestHead
from regcache.http.origins import Origin
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.registries.audits import AUDIT, audited, searched
from regcache.registries.jsontext import read_object, write_json
from regcache.registries.plain import Confined
from regcache.routes import Artifact, Document, Fact, Facts, Local, RegistryOptions, Relay, Release, Route, Source

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
#: A package's name, with its scope if it has one; names in upper case and with these marks are from long ago.
_NAME = re.compile(r"(?:@[\w!'()*~.-]+/|(?![_.]))[\w!'()*~.-]+", re.ASCII)
_SECURITY = "npm/v1/security/"
_AUDITS = frozenset({"advisories/bulk", "audits", "audits/quick"})
_ATTESTATIONS = "npm/v1/attestations/"
_READ_ONLY = "Publishing and logging in go to the registry itself."
_MINUTE = 60.0


@implementer(IRegistry)
class Npm(Confined):
    """
    An npm registry.

    Its tarballs lead to ``NAME/-/FILE.tgz`` below the mount, which is what lock files record.
    """

    default_url = "https://registry.npmjs.org/"
    option_names: tuple[str, ...] = ()
    version = 3
    algorithms = ("sha512", "sha1")

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options, self.default_url)

    # Requests.

    def route(self, request: RequestHead) -> Route:
        parts = [part for part in segments(request.path, keep_slash=True) if part]
        if parts[:1] == ["-"]:
            return self._api(request, "/".join(parts[1:]))
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_READ_ONLY)
        if parts[-2:-1] == ["-"] and parts[-1].endswith(".tgz"):
            # A lock file made elsewhere keeps the path that its registry was mounted at.
            parts = parts[-4:] if parts[-4:-3] and parts[-4].startswith("@") else parts[-3:]
        if parts and parts[0].startswith("@") and "/" not in parts[0]:
            parts[:2] = ["/".join(parts[:2])]
        if not parts or not _NAME.fullmatch(parts[0]):
            raise NotFound("That is no name of a package.")
        name, rest = parts[0], parts[1:]
        if not rest:
            if request.method == "GET" and ("write", "true") in parse_qsl(request.query):
                # Whoever is about to change a package must see it as it is.
                return Relay(url=f"{self.options.url}{quote(name)}?{request.query}", packages=(name,))
            return self._packument(name, request)
        file = "/".join(rest[1:]).rpartition("/")[2]
        if rest[0] == "-" and file:
            return self._tarball(name, file)
        if len(rest) == 1 and rest[0] != "-" and "/" not in rest[0]:
            return self._manifest(name, rest[0])
        raise NotFound("That is no address of a registry.")

    def _full(self, name: str) -> Document:
        return replace(self._bare(name), spares=(replace(self._bare_abbreviated(name), representation="full"),))

    def _abbreviated(self, name: str) -> Document:
        full = replace(self._bare(name), representation="abbreviated")
        return replace(self._bare_abbreviated(name), instead=full, spares=(full,))

    def _bare(self, name: str) -> Document:
        """The document alone: what else would serve matters to whoever wants to read it, not to a proof."""
        return Document(
            key=f"packument/{name}",
            url=self.options.url + quote(name),
            accept=_FULL,
            representation="full",
            content_type=_FULL,
            vary=("Accept",),
            linked=True,
            packages=(name,),
            family=f"package/{name}",
        )

    def _bare_abbreviated(self, name: str) -> Document:
        return replace(
            self._bare(name),
            key=f"abbreviated/{name}",
            accept=_ASK_ABBREVIATED,
            representation="abbreviated",
            content_type=_ABBREVIATED,
        )

    def _packument(self, name: str, request: RequestHead) -> Document:
        if negotiate(request.headers.get("accept"), [_FULL, _ABBREVIATED]) == _ABBREVIATED:
            return self._abbreviated(name)
        return self._full(name)

    def _parts(self, name: str, representation: str) -> tuple[Document, ...]:
        """The documents that a part of a packument can be taken from."""
        return tuple(
            replace(one, representation=representation) for one in (self._bare(name), self._bare_abbreviated(name))
        )

    def _manifest(self, name: str, version: str) -> Document:
        return replace(self._bare_manifest(name, version), spares=self._parts(name, f"manifest {version}"))

    def _bare_manifest(self, name: str, version: str) -> Document:
        return Document(
            key=f"manifest/{name}/{version}",
            url=f"{self.options.url}{quote(name)}/{quote(version)}",
            accept=_FULL,
            representation="manifest",
            content_type=_FULL,
            linked=True,
            packages=(name,),
        )

    def _tarball(self, name: str, file: str) -> Artifact:
        base = name.rpartition("/")[2]
        version = file.removeprefix(f"{base}-").removesuffix(".tgz")
        told = file == f"{base}-{version}.tgz"
        return Artifact(
            key=f"{name}/-/{file}",
            url=f"{self.options.url}{'/'.join(map(quote, name.split('/')))}/-/{quote(file)}",
            content_type="application/octet-stream",
            indexes=(self._bare_abbreviated(name), self._bare(name)),
            proof=self._bare_manifest(name, version) if told else None,
            packages=(name,),
        )

    def _api(self, request: RequestHead, path: str) -> Route:
        if request.method == "POST" and path.startswith(_SECURITY) and path.removeprefix(_SECURITY) in _AUDITS:
            return Relay(url=f"{self.options.url}-/{path}", document=AUDIT if self.options.elsewhere else "")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_READ_ONLY)
        if path == "ping":
            return Local(status=200, content_type=_FULL, body=b"{}")
        if path == "v1/search":
            query = urlencode(sorted(parse_qsl(request.query, keep_blank_values=True)))
            asked = f"{path}?{query}" if query else path
            return self._as_is(asked, asked, _MINUTE, *searched(request.query))
        if path == "npm/v1/keys":
            return self._as_is(path, path)
        package = re.fullmatch(r"package/(.+)/dist-tags", path)
        if package and _NAME.fullmatch(package[1]):
            tags = self._as_is(path, f"package/{quote(package[1])}/dist-tags", None, package[1])
            return replace(tags, spares=self._parts(package[1], "dist-tags"))
        if path.startswith(_ATTESTATIONS) and _NAME.fullmatch(path.removeprefix(_ATTESTATIONS).rpartition("@")[0]):
            asked = path.removeprefix(_ATTESTATIONS)
            return self._as_is(path, _ATTESTATIONS + quote(asked), None, asked.rpartition("@")[0])
        raise NotFound("This cache does not serve that part of a registry.")

    def _as_is(self, path: str, there: str, ttl: float | None = None, *packages: str) -> Document:
        return Document(
            key=f"-/{path}",
            url=f"{self.options.url}-/{there}",
            accept=_FULL,
            representation="as-is",
            content_type=_FULL,
            ttl=ttl,
            packages=packages,
        )

    # Documents.

    def _read(self, document: str, source: Source) -> dict[str, Any]:
        kind, _, name = document.partition("/")
        found = read_object(source)
        if kind == "-":
            return found
        if kind == "manifest":
            name = name.rpartition("/")[0]
        if found.get("name") != name:
            raise BadDocument(f"{source.url} does not describe {name}.")
        unpublished = isinstance(found.get("time"), dict) and "unpublished" in found["time"]
        content = found.get("dist") if kind == "manifest" else found.get("versions")
        if not isinstance(content, dict) and not unpublished:
            raise BadDocument(f"{source.url} describes no versions.")
        return found

    @staticmethod
    def _part(document: str, found: dict[str, Any], representation: str) -> dict[str, Any]:
        """The part of a packument that is wanted; the whole document unless the representation names one."""
        name, _, version = representation.partition(" ")
        tags = found.get("dist-tags")
        tags = tags if isinstance(tags, dict) else {}
        if name == "dist-tags":
            return tags
        if not version:
            return found
        manifest = (found.get("versions") or {}).get(tags.get(version, version))
        if not isinstance(manifest, dict):
            raise BadDocument(f"{document} has no version {version}.")
        return manifest

    def _tarballs(self, document: str, found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, str | None]]:
        """Of each version: its conventional file, ``dist``, its link, and where that may be asked for, if it may."""
        kind = document.partition("/")[0]
        base = str(found.get("name", "")).rpartition("/")[2]
        versions = found.get("versions") if kind != "-" else None
        listed = versions.items() if isinstance(versions, dict) else ()
        for number, version in ((found.get("version"), found),) if kind == "manifest" else listed:
            dist = version.get("dist") if isinstance(version, dict) else None
            link = dist.get("tarball") if isinstance(dist, dict) else None
            if isinstance(number, str) and "/" not in number and isinstance(dist, dict) and isinstance(link, str):
                yield f"{base}-{number}.tgz", dist, link, self._place(link)

    def _place(self, link: str) -> str | None:
        url = link.partition("#")[0]
        origin = Origin.of(url)
        if origin is None or self._origins.admits(origin):
            return url if origin else None
        # Packages of the first years are still listed with plain http.
        secure = Origin("https", origin.host, 443)
        if (origin.scheme, origin.port) == ("http", 80) and self._origins.admits(secure):
            return urlsplit(url)._replace(scheme="https", netloc=secure.authority).geturl()
        return None

    def facts(self, document: str, source: Source) -> Facts:
        if document == AUDIT:
            return Facts()
        found = self._read(document, source)
        made: dict[str, Fact] = {}
        spelled: dict[str, Fact] = {}
        foreign: list[str] = []
        for file, dist, link, url in self._tarballs(document, found):
            if url is None:
                foreign.append(link)
                continue
            fact = Fact(url=url, digests=_digests(dist))
            made[f"{found['name']}/-/{file}"] = fact
            # Lock files made elsewhere know the file by the name it has there.
            before, dash, there = unquote(urlsplit(url).path).rpartition("/-/")
            if dash and before:
                spelled[f"{found['name']}/-/{there.rpartition('/')[2]}"] = fact
        return Facts({**spelled, **made}, foreign)

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        if document == AUDIT:
            return audited(source, self.options)
        found = self._read(document, source)
        if representation == "as-is":
            return source.body
        own = f"{self.options.url}-/{_ATTESTATIONS}"
        for file, dist, _, url in self._tarballs(document, found):
            if url is not None:
                dist["tarball"] = "/".join([base.rstrip("/"), *map(quote, found["name"].split("/")), "-", quote(file)])
            attestations = dist.get("attestations")
            there = attestations.get("url") if isinstance(attestations, dict) else None
            if isinstance(attestations, dict) and isinstance(there, str) and there.startswith(own):
                attestations["url"] = f"{base}-/{_ATTESTATIONS}{there.removeprefix(own)}"
        part = self._part(document, found, representation)
        return write_json(_abbreviated(part) if representation == "abbreviated" else part)

    def release(self, key: str, parent: str) -> Release | None:
        del parent
        kind, _, rest = key.partition("/")
        if kind in ("packument", "abbreviated"):
            return Release(rest)
        if kind == "manifest":
            name, _, version = rest.rpartition("/")
            return Release(name, version)
        name, dash, file = key.rpartition("/-/")
        if not dash or not name:
            return None
        return Release(name, file.removesuffix(".tgz").removeprefix(f"{name.rpartition('/')[2]}-"))

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        del status
        return _FULL, json.dumps({"error": text}).encode()

    def client_lines(self, base: str) -> list[str]:
        host = urlsplit(base).hostname or ""
        plain = ""
        if base.startswith("http:"):
            plain = f""" && yarn config set -H unsafeHttpWhitelist --json '["{host}"]'"""
        return [
            f"npm config set registry {base}   # npm",
            f"pnpm config set registry {base}   # pnpm",
            f"yarn config set registry {base}   # Yarn 1",
            f"yarn config set -H npmRegistryServer {base}{plain}   # Yarn 2 and later",
            rf"""printf '[install]\nregistry = "%s"\n' {base} >> ~/.bunfig.toml   # bun""",
            f"export COREPACK_NPM_REGISTRY={base}   # corepack",
        ]


def _digests(dist: Mapping[str, Any]) -> tuple[Digest, ...]:
    found = list(parse_sri(dist["integrity"])) if isinstance(dist.get("integrity"), str) else []
    with contextlib.suppress(ValueError):
        found.append(Digest("sha1", str(dist.get("shasum", "")).lower()))
    return tuple(found)


def _abbreviated(found: dict[str, Any]) -> dict[str, Any]:
    """The abbreviated form of a packument, from its full or its abbreviated form."""
    listed = found.get("versions")
    versions = {}
    for number, version in listed.items() if isinstance(listed, dict) else ():
        if not isinstance(version, dict):
            continue
        versions[number] = {key: value for key, value in version.items() if key in _KEPT}
        scripts = version.get("scripts")
        if isinstance(scripts, dict) and scripts.keys() & {"preinstall", "install", "postinstall"}:
            versions[number]["hasInstallScript"] = True
    made = {"name": found["name"], "dist-tags": found.get("dist-tags", {}), "versions": versions}
    told = found.get("time")
    times: dict[str, Any] = told if isinstance(told, dict) else {}
    modified = found.get("modified") or times.get("modified")
    if modified:
        made["modified"] = modified
    # Clients that judge by age take a version without a time for one that must not be used.
    if times and versions.keys() <= times.keys():
        made["time"] = times
    return made
