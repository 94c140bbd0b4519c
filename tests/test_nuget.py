"""NuGet: a source of version 3, its packages, and nuget itself."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from attrs import evolve, field, frozen

from regcache.errors import BadDocument, ConfigError, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.registries import make
from regcache.registries.nuget import NuGet
from regcache.registries.nugetjson import normal
from regcache.routes import Artifact, Document, RegistryOptions, Route, Source
from regcache.testing import Ask, Page, RegistryContract, Sample, make_cache
from tests import clients
from tests.journey import Journey
from tests.origin import Origin

UPSTREAM, MOUNT = "https://nuget.example/", "http://cache.example:8650/nuget/"
SEARCH = "https://search.example/query"
USUAL = "v3/registration5-gz-semver2/"
_OPC = "application/vnd.openxmlformats-package.relationships+xml"
_NUSPEC = "http://schemas.microsoft.com/packaging"


@frozen
class Release:
    """One version of a package, which may need another package."""

    id: str
    version: str
    needs: str = ""
    body: bytes = field(init=False)

    @body.default
    def _packed(self) -> bytes:
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            for path, text in {
                "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
                f'<Default Extension="rels" ContentType="{_OPC}"/>'
                '<Default Extension="nuspec" ContentType="application/octet"/></Types>',
                "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
                f'<Relationship Type="{_NUSPEC}/2010/07/manifest" Target="/{self.id}.nuspec" Id="R1"/></Relationships>',
                f"{self.id}.nuspec": self.nuspec,
                "lib/netstandard2.0/_._": "",
            }.items():
                archive.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), text)
        return sink.getvalue()

    @property
    def nuspec(self) -> str:
        """The package's own description."""
        needed = f"<dependencies><dependency id={quoteattr(self.needs)} version='1.0.0'/></dependencies>"
        return (
            f'<?xml version="1.0"?><package xmlns="{_NUSPEC}/2013/05/nuspec.xsd"><metadata><id>{self.id}</id>'
            f"<version>{self.version}</version><authors>a</authors><description>d</description>"
            f"{needed if self.needs else ''}</metadata></package>"
        )

    @property
    def place(self) -> str:
        """``ID/VERSION`` in addresses."""
        return f"{self.id.lower()}/{normal(self.version)}"

    @property
    def file(self) -> str:
        """Where the package is in a flat container."""
        return f"{self.place}/{self.id.lower()}.{normal(self.version)}.nupkg"


@frozen(kw_only=True)
class Layout:
    """
    A source: where it has what.

    :ivar paged: packages whose registration has its page in a document of its own.
    """

    url: str = UPSTREAM
    service: str = "v3/index.json"
    registrations: str = USUAL
    flat: str = "v3-flatcontainer/"
    catalog: str = "v3/catalog0/data/2024.01.01.00.00.00/"
    search: str = f"{UPSTREAM}query"
    paged: tuple[str, ...] = ()

    def resources(self) -> list[dict[str, Any]]:
        """What the service index names."""
        registrations = self.url + self.registrations
        return [
            {"@id": self.search, "@type": "SearchQueryService", "comment": "search"},
            {
                "@id": f"{self.search}/autocomplete",
                "@type": ["SearchAutocompleteService", "SearchAutocompleteService/3.5.0"],
            },
            {"@id": registrations.replace("-gz-semver2", "-semver1"), "@type": "RegistrationsBaseUrl"},
            {"@id": registrations, "@type": "RegistrationsBaseUrl/3.6.0"},
            {"@id": registrations, "@type": "RegistrationsBaseUrl/Versioned", "clientVersion": "4.3.0-alpha"},
            {"@id": self.url + self.flat, "@type": "PackageBaseAddress/3.0.0"},
            {"@id": f"{self.url}{self.flat}{{lower_id}}/{{lower_version}}/readme", "@type": "ReadmeUriTemplate/6.13.0"},
            {"@id": f"{self.url}v3/vulnerabilities/index.json", "@type": "VulnerabilityInfo/6.7.0"},
            {"@id": f"{self.url}v3-index/repository-signatures/index.json", "@type": "RepositorySignatures/5.0.0"},
            {"@id": f"{self.url}api/v2/package", "@type": "PackagePublish/2.0.0"},
            {"@id": f"{self.url}api/v2/symbolpackage", "@type": "SymbolPackagePublish/4.9.0"},
            {"@id": f"{self.url}packages/{{id}}/{{version}}", "@type": "PackageDetailsUriTemplate/5.1.0"},
        ]

    def leaf(self, release: Release) -> dict[str, Any]:
        """A release as an item of a registration."""
        hive = self.url + self.registrations
        needed = {"@id": f"{self.entry(release)}#dependency", "id": release.needs, "range": "[1.0.0, )"}
        needed["registration"] = f"{hive}{release.needs.lower()}/index.json"
        group = {"@id": f"{self.entry(release)}#group", "dependencies": [needed]}
        content = self.url + self.flat + release.file
        entry = {
            "@id": self.entry(release),
            "id": release.id,
            "version": release.version,
            "listed": True,
            "published": "2024-01-01T00:00:00+00:00",
            "iconUrl": f"{self.url}{self.flat}{release.place}/icon",
            "projectUrl": f"{self.url}about",
            "packageContent": content,
            "dependencyGroups": [group] if release.needs else [],
        }
        own = f"{hive}{release.place}.json"
        return {"@id": own, "catalogEntry": entry, "packageContent": content, "registration": self.home(release)}

    def home(self, release: Release) -> str:
        """A package's registration."""
        return f"{self.url}{self.registrations}{release.id.lower()}/index.json"

    def entry(self, release: Release) -> str:
        """A release's leaf of the catalog."""
        return f"{self.url}{self.catalog}{release.file.rpartition('/')[2].removesuffix('.nupkg')}.json"

    def documents(self, *releases: Release) -> dict[str, Any]:
        """The JSON documents of a source with these releases, by URL."""
        made: dict[str, Any] = {self.url + self.service: {"version": "3.0.0", "resources": self.resources()}}
        for release in releases:
            same = [one for one in releases if one.id == release.id]
            leaf = self.leaf(release)
            at = f"{self.home(release).removesuffix('index.json')}page/{normal(same[0].version)}/{normal(same[-1].version)}.json"
            page = {"@id": at, "lower": same[0].version, "upper": same[-1].version, "parent": self.home(release)}
            page["count"] = len(same)
            whole = {**page, "items": [self.leaf(one) for one in same]}
            paged = release.id in self.paged
            made[self.home(release)] = {"@id": self.home(release), "count": 1, "items": [page if paged else whole]}
            if paged:
                made[at] = whole
            made[leaf["@id"]] = {**leaf, "catalogEntry": self.entry(release), "listed": True}
            digest = base64.b64encode(hashlib.sha512(release.body).digest()).decode()
            proof = {"packageHash": digest, "packageHashAlgorithm": "SHA512", "packageSize": len(release.body)}
            made[self.entry(release)] = {
                "@id": self.entry(release),
                "id": release.id,
                "version": release.version,
                **proof,
            }
            versions = {"versions": [normal(one.version) for one in same]}
            made[f"{self.url}{self.flat}{release.id.lower()}/index.json"] = versions
        return made

    def files(self, *releases: Release) -> dict[str, bytes]:
        """The other files, by URL."""
        flat = self.url + self.flat
        packages = {flat + one.file: one.body for one in releases}
        return packages | {f"{flat}{one.place}/{one.id.lower()}.nuspec": one.nuspec.encode() for one in releases}

    def coded(self, url: str, document: Any) -> tuple[bytes, dict[str, str]]:
        """A document as it is sent: registrations are compressed, whoever asks."""
        body = json.dumps(document).encode()
        if "-gz-" in url:
            return gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"}
        return body, {}


RELEASES = (
    Release("Fx.App", "1.0.0", needs="Fx.Lib"),
    Release("Fx.Lib", "1.0.0"),
    Release("Fx.Lib", "1.2.0-Beta.1+b5"),
)


def pages(layout: Layout, *more: Release) -> dict[str, Page]:
    """The pages of a source in memory."""
    made = {url: Page(body=body) for url, body in layout.files(*RELEASES, *more).items()}
    for url, document in layout.documents(*RELEASES, *more).items():
        body, fields = layout.coded(url, document)
        made[url] = Page(body=body, headers={"content-type": "application/json", **fields})
    return made


def linked(found: Any) -> Iterable[str]:
    """Every link in a document that a client follows."""
    for name, value in (
        found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    ):
        if name in ("@id", "registration", "parent", "packageContent", "catalogEntry", "iconUrl") and isinstance(
            value, str
        ):
            link = value.partition("#")[0].replace("{lower_id}", "a").replace("{lower_version}", "1.0.0")
            yield f"{link}a/index.json" if link.endswith("/") else link
        else:
            yield from linked(value)


class TestContract(RegistryContract):
    """What every registry must do, over a source laid out as the public one."""

    type = "nuget"
    layout = Layout(search=SEARCH, paged=("Fx.Lib",))
    options: Mapping[str, Any] = {"artifact_hosts": ("search.example",)}
    search = "at/https/search.example/query"
    proven = ""

    def sample(self) -> Sample:
        layout, found = self.layout, {"totalHits": 0, "data": []}
        more = {
            f"{layout.search}?prerelease=true&q=fx": found,
            f"{layout.url}v3/vulnerabilities/index.json": [{"@id": f"{layout.url}v3/vulnerabilities/base.json"}],
            f"{layout.url}v3/vulnerabilities/base.json": {"fx.lib": [{"severity": 2, "versions": "(, 1.0.0)"}]},
        }
        extra = {url: Page(body=json.dumps(document).encode()) for url, document in more.items()}
        flat, known = f"/{self.proven}{layout.flat}", layout.documents(*RELEASES)
        paths = [url.removeprefix(layout.url) for url in known if url != layout.url + layout.service]
        paths += ["v3/index.json", f"{self.search}?q=fx&prerelease=true"]
        paths += ["v3/vulnerabilities/index.json", "v3/vulnerabilities/base.json"]
        return Sample(
            url=layout.url + layout.service,
            pages={**pages(layout), **extra},
            documents=tuple(Ask("/" + path) for path in paths),
            artifacts={Ask(flat + one.file): layout.url + layout.flat + one.file for one in RELEASES},
            hosts=frozenset({"search.example"}),
            options=self.options,
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask
        return linked(json.loads(body))


class TestContractElsewhere(TestContract):
    """The same over a source that has everything elsewhere, its service index as well."""

    layout = Layout(
        url="https://feeds.example/own/tools/",
        service="index.json",
        registrations="registrations/",
        flat="download/",
        catalog="catalog/data/",
        search="https://feeds.example/own/tools/query",
    )
    options: Mapping[str, Any] = {}
    search = "query"
    proven = "registrations/~/"


@pytest.mark.journey
class TestNuGet(Journey):
    """The real nuget, under mono."""

    client = "nuget.exe"
    registry = "nuget"
    locks = ("packages.config",)

    def version(self) -> str:
        told = subprocess.run([*_nuget(), "help"], capture_output=True, text=True, timeout=60, check=True)
        return told.stdout.splitlines()[0].rpartition(" ")[2]

    def publish(self, origin: Origin) -> str:
        layout = Layout(url=origin.url, search=f"{origin.url}query", paged=("Fx.Lib",))
        for url, document in layout.documents(*RELEASES).items():
            body, fields = layout.coded(url, document)
            origin.add("/" + url.removeprefix(origin.url), body, "application/json", **fields)
        for url, body in layout.files(*RELEASES).items():
            origin.add("/" + url.removeprefix(origin.url), body)
        return f"/{layout.flat}{RELEASES[1].file}"

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        source = f'<add key="regcache" value="{url}v3/index.json" protocolVersion="3"/>'
        sources = f"<packageSources><clear/>{source}</packageSources>"
        (place / "NuGet.Config").write_text(f"<configuration>{sources}</configuration>")
        what = ["restore", "packages.config"] if locked else ["install", "Fx.App"]
        into = ["-PackagesDirectory" if locked else "-OutputDirectory", str(place / "packages")]
        command = [*_nuget(), *what, *into, "-ConfigFile", str(place / "NuGet.Config"), "-NonInteractive"]
        done = clients.run(command, place)
        installed = [str(one.name).rpartition(".nupkg")[0] for one in place.glob("packages/*/*.nupkg")]
        if done.returncode == 0:
            assert sorted(installed) == ["Fx.App.1.0.0", "Fx.Lib.1.0.0"]
        lines = [f'<package id="{name}" version="1.0.0"/>' for name in ("Fx.App", "Fx.Lib")]
        (place / "packages.config").write_text(f"<packages>{''.join(lines)}</packages>")
        return done


def _nuget() -> list[str]:
    """The beginning of a command: not every system starts such a program by itself."""
    return [clients.program("mono"), clients.program("nuget.exe")]
