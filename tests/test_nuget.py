"""NuGet: a source of version 3, its packages, and nuget itself."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from attrs import field, frozen

from regcache.errors import (
    BadDocument,
    ConfigError,
    DigestMismatch,
    LinksLeave,
    MethodNotAllowed,
    NotFound,
    UpstreamError,
)
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
FOLLOWED = ("@id", "registration", "parent", "packageContent", "catalogEntry", "iconUrl")
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
            first, last = normal(same[0].version), normal(same[-1].version)
            at = f"{self.url}{self.registrations}{release.id.lower()}/page/{first}/{last}.json"
            page: dict[str, Any] = {
                "@id": at,
                "lower": same[0].version,
                "upper": same[-1].version,
                "parent": self.home(release),
            }
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
    for value in found if isinstance(found, list) else ():
        yield from linked(value)
    for name, value in found.items() if isinstance(found, dict) else ():
        if name in FOLLOWED and isinstance(value, str):
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
            nameless=frozenset({Ask("/v3/index.json")}),
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
        return publish(origin)

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        configure(place, url)
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


@pytest.mark.journey
@pytest.mark.skipif(shutil.which("dotnet") is None, reason="dotnet is not installed here")
class TestDotnet(Journey):
    """The real dotnet, which asks for lists of versions and packages alone."""

    client = "dotnet"
    registry = "nuget"
    locks = ("packages.lock.json",)

    def publish(self, origin: Origin) -> str:
        return publish(origin)

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        configure(place, url)
        # The framework that the tools are of is the one that they need not fetch.
        framework = f"net{self.version().partition('.')[0]}.0"
        (place / "p.csproj").write_text(
            f'<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><TargetFramework>{framework}</TargetFramework>'
            "<RestorePackagesWithLockFile>true</RestorePackagesWithLockFile><NuGetAudit>false</NuGetAudit></PropertyGroup>"
            '<ItemGroup><PackageReference Include="Fx.App" Version="1.0.0"/></ItemGroup></Project>'
        )
        command = [clients.program("dotnet"), "restore", "p.csproj", "--configfile", "NuGet.Config"]
        done = clients.run(
            [*command, *(["--locked-mode"] if locked else [])],
            place,
            DOTNET_CLI_HOME=str(place),
            DOTNET_CLI_TELEMETRY_OPTOUT="1",
            DOTNET_NOLOGO="1",
            DOTNET_GENERATE_ASPNET_CERTIFICATE="false",
            DOTNET_SYSTEM_GLOBALIZATION_INVARIANT="1",
            MSBUILDDISABLENODEREUSE="1",
            NUGET_PACKAGES=str(place / "packages"),
            NUGET_HTTP_CACHE_PATH=str(place / "http"),
        )
        if done.returncode == 0:
            assert len(list(place.glob("packages/fx.*/1.0.0/*.nupkg"))) == len(("Fx.App", "Fx.Lib"))
        return done


def publish(origin: Origin) -> str:
    """A source with two packages; the path of the one that the other needs."""
    layout = Layout(url=origin.url, search=f"{origin.url}query", paged=("Fx.Lib",))
    for url, document in layout.documents(*RELEASES).items():
        body, fields = layout.coded(url, document)
        origin.add("/" + url.removeprefix(origin.url), body, "application/json", **fields)
    for url, body in layout.files(*RELEASES).items():
        origin.add("/" + url.removeprefix(origin.url), body)
    return f"/{layout.flat}{RELEASES[1].file}"


def configure(place: Path, url: str) -> None:
    """Point a project at the mount, and at nothing else."""
    place.mkdir(exist_ok=True)
    source = f'<add key="regcache" value="{url}v3/index.json" protocolVersion="3" allowInsecureConnections="true"/>'
    sources = f"<packageSources><clear/>{source}</packageSources>"
    (place / "NuGet.Config").write_text(f"<configuration>{sources}</configuration>")


def _nuget() -> list[str]:
    """The beginning of a command: not every system starts such a program by itself."""
    return [clients.program("mono"), clients.program("nuget.exe")]


# The module by itself.


def source_of(url: str = UPSTREAM, *hosts: str) -> NuGet:
    """The module in front of a source."""
    made = make(RegistryOptions(name="nuget", type="nuget", url=url, artifact_hosts=hosts))
    assert isinstance(made, NuGet)
    return made


def route(path: str, query: str = "", url: str = UPSTREAM, method: str = "GET") -> Route:
    """What a request means."""
    return source_of(url, "files.example").route(RequestHead(method=method, path=path, query=query))


def document(path: str, query: str = "", url: str = UPSTREAM) -> Document:
    """The document that a request means."""
    found = route(path, query, url)
    assert isinstance(found, Document)
    return found


def artifact(path: str, url: str = UPSTREAM) -> Artifact:
    """The file that a request means."""
    found = route(path, url=url)
    assert isinstance(found, Artifact)
    return found


def sent(found: Any, url: str = UPSTREAM) -> Source:
    """A document as the upstream sends it."""
    return Source(body=json.dumps(found).encode(), content_type="application/json", url=url)


def served(key: str, found: Any, base: str = MOUNT, url: str = UPSTREAM, *hosts: str) -> Any:
    """A document as a client gets it."""
    return json.loads(source_of(url, *hosts).represent(key, sent(found), "json", base))


@pytest.mark.parametrize(
    ("url", "service", "query"),
    [
        ("https://a.example/", "https://a.example/v3/index.json", "https://a.example/query"),
        ("https://a.example/v3/", "https://a.example/v3/index.json", "https://a.example/query"),
        ("https://a.example/v3/index.json", "https://a.example/v3/index.json", "https://a.example/query"),
        ("https://a.example/x/v3/index.json", "https://a.example/x/v3/index.json", "https://a.example/x/query"),
        ("https://a.example/owner/index.json", "https://a.example/owner/index.json", "https://a.example/owner/query"),
        ("https://a.example/owner", "https://a.example/owner/v3/index.json", "https://a.example/owner/query"),
    ],
)
def test_the_service_index(url: str, service: str, query: str) -> None:
    """A source is configured by its service index, or by where that is; here it has one address."""
    for path in ("/v3/index.json", "/index.json", "//v3//index.json"):
        assert (document(path, url=url).key, document(path, url=url).url) == ("service", service)
    assert document("/query", url=url).url == query


@pytest.mark.parametrize("url", ["https://a.example/v3/index.json?x=1", "https://a.example/#v3"])
def test_what_is_no_source(url: str) -> None:
    """An address with a query is refused when it is configured."""
    with pytest.raises(ConfigError):
        source_of(url)


@pytest.mark.parametrize(
    "path",
    [
        "/v3-flatcontainer/fx.lib/1.0.0/fx.lib.1.0.0.nupkg",
        "/v3-flatcontainer/Fx.Lib/1.0.0/Fx.Lib.1.0.0.nupkg",
        "/v3-flatcontainer/fx.lib/1.0.0.0/fx.lib.1.0.0.0.nupkg",
        "/v3-flatcontainer/fx.lib/1.0/fx.lib.1.0.nupkg",
        "/v3-flatcontainer//fx.lib/1.0.0+b/fx.lib.1.0.0%2Bb.nupkg",
    ],
)
def test_a_package(path: str) -> None:
    """However it is spelled it is one, and its registration's leaf, or the whole of that, leads to what proves it."""
    found = artifact(path)
    assert found.key == "package/fx.lib/1.0.0"
    assert found.url == f"{UPSTREAM}v3-flatcontainer/fx.lib/1.0.0/fx.lib.1.0.0.nupkg"
    assert not found.mutable
    assert [one.url for one in found.indexes] == [f"{UPSTREAM}{USUAL}fx.lib/index.json"]
    assert found.proof is not None
    assert found.proof.url == f"{UPSTREAM}{USUAL}fx.lib/1.0.0.json"


def test_a_package_that_is_proven_elsewhere() -> None:
    """The address says where its registration is, on whichever host either of them is."""
    found = artifact("/at/https/files.example/reg/~/flat/a/1.0.0/a.1.0.0.nupkg")
    assert (found.named, found.url) == ("package/a/1.0.0", f"{UPSTREAM}flat/a/1.0.0/a.1.0.0.nupkg")
    assert found.indexes[0].url == "https://files.example/reg/a/index.json"
    found = artifact("/reg/~/at/https/files.example/flat/a/1.0.0/a.1.0.0.nupkg")
    assert found.url == "https://files.example/flat/a/1.0.0/a.1.0.0.nupkg"
    assert found.indexes[0].url == f"{UPSTREAM}reg/a/index.json"


def test_another_tenant_of_the_host() -> None:
    """What came from a place that one client named is not the package of those who ask at another."""
    release, good, evil = RELEASES[1], "https://shared.example/good/", "https://shared.example/evil/"
    there, forged = Layout(url=good), b"PK forged"
    told = base64.b64encode(hashlib.sha512(forged).digest()).decode()
    entry = {"id": release.id, "version": release.version, "packageHash": told, "packageHashAlgorithm": "SHA512"}
    leaf = {"packageContent": f"{evil}flat/{release.file}", "catalogEntry": entry}
    kit = make_cache(make(RegistryOptions(name="nuget", type="nuget", url=good)))
    kit.upstream.pages = pages(there) | {
        f"{evil}flat/{release.file}": Page(body=forged),
        f"{evil}reg/{release.place}.json": Page(body=json.dumps(leaf).encode()),
    }
    at = "at/https/shared.example/evil"
    with pytest.raises(DigestMismatch):
        kit.get(f"/{at}/flat/{release.file}")
    for place in (f"{at}/reg/~/{at}/flat", f"none/~/{at}/flat", f"{at}/none/~/{at}/flat"):
        assert kit.get(f"/{place}/{release.file}")[1] == forged
        assert kit.get(f"/{there.flat}{release.file}")[1] == release.body
        kit.advance(3600)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v3/",
        "/v3-flatcontainer/",
        "/api/v2/package/a/1.0.0",
        "/v3-flatcontainer/a/1.0.0/b.1.0.0.nupkg",
        "/v3-flatcontainer/a/1.0.0/a.1.0.1.nupkg",
        "/v3-flatcontainer/a/one/a.one.nupkg",
        f"/v3-flatcontainer/a/{'1' * 4000}/a.{'1' * 4000}.nupkg",
        "/v3-flatcontainer/a%20b/1.0.0/a%20b.1.0.0.nupkg",
        "/a.1.0.0.nupkg",
        "/~/a/1.0.0/a.1.0.0.nupkg",
        "/v3-flatcontainer/a/1.0.0/a.1.0.0.snupkg",
    ],
)
def test_what_means_nothing(path: str) -> None:
    """It is none of a source's addresses; the text says which is."""
    with pytest.raises(NotFound, match=r"index\.json|VERSION"):
        route(path)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v3-flatcontainer/Fx.Lib/index.json", "json/v3-flatcontainer/fx.lib/index.json"),
        (f"/{USUAL}Fx.Lib/index.json", f"json/{USUAL}fx.lib/index.json"),
        (f"/{USUAL}Fx.Lib/page/1.0.0/2.0.0-RC.json", f"json/{USUAL}fx.lib/page/1.0.0/2.0.0-rc.json"),
        (f"/{USUAL}Fx.Lib/1.0.0.json", f"json/{USUAL}fx.lib/1.0.0.json"),
        ("/Own/Registrations/fx.lib/index.json", "json/Own/Registrations/fx.lib/index.json"),
        ("/at/https/files.example/X/y.json", "json/at/https/files.example/X/y.json"),
    ],
)
def test_a_document(path: str, key: str) -> None:
    """What the public registry names after packages has one spelling; the case of other paths may matter."""
    assert document(path).key == key
    assert document(path).mutable


def test_the_documents_of_a_registration_are_one_family() -> None:
    """What one of them says of a package is held against what was stored by another."""
    family = artifact("/v3-flatcontainer/a/1.0.0/a.1.0.0.nupkg").indexes[0].family
    for path in ("index.json", "1.0.0.json", "page/1.0.0/2.0.0.json"):
        assert document(f"/{USUAL}a/{path}").family == family


def test_a_leaf_of_the_catalog_never_changes() -> None:
    """It is asked for once more, in case it came wrong, and then never again, by anybody."""
    layout = Layout()
    kit = make_cache(source_of())
    kit.upstream.pages = pages(layout)
    path = "/" + layout.entry(RELEASES[1]).removeprefix(UPSTREAM)
    before = kit.get(path)[1]
    for _ in range(3):
        kit.advance(400 * 86400)
        assert kit.get(path, Cache_Control="no-cache")[1] == before
    assert kit.upstream.urls().count(layout.entry(RELEASES[1])) == 2


def test_a_stored_leaf_of_the_catalog_proves() -> None:
    """A package is proven by what is stored, where its registration and its leaf are."""
    layout = Layout()
    kit = make_cache(source_of())
    kit.upstream.pages = pages(layout)
    for url in (layout.home(RELEASES[1]), layout.entry(RELEASES[1])):
        kit.get("/" + url.removeprefix(UPSTREAM))
    kit.upstream.asked.clear()
    kit.get(f"/{layout.flat}{RELEASES[1].file}")
    assert kit.upstream.urls() == [f"{UPSTREAM}{layout.flat}{RELEASES[1].file}"]
    assert kit.store.entries["nuget/package/fx.lib/1.0.0"].verified


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("place", ["/v3-flatcontainers/", "/V3-FlatContainer/", "/", "/x/v3-flatcontainer/"])
def test_a_place_where_the_source_has_no_packages(place: str, known: bool) -> None:
    """It is asked for, and 404, whatever is known or stored of the package that it names; asked once, also by HEAD."""
    kit = make_cache(source_of())
    kit.upstream.pages = pages(Layout())
    if known:
        for document in (Layout().home(RELEASES[1]), Layout().entry(RELEASES[1])):
            kit.get("/" + document.removeprefix(UPSTREAM))
        kit.get(f"/v3-flatcontainer/{RELEASES[1].file}")
    for method in ("HEAD", "GET", "GET"):
        with pytest.raises(NotFound):
            kit.get(place + RELEASES[1].file, method)
    assert kit.upstream.urls().count(f"{UPSTREAM}{place[1:]}{RELEASES[1].file}") == 2
    assert kit.upstream.urls().count(f"{UPSTREAM}v3-flatcontainer/{RELEASES[1].file}") == known


def test_searches() -> None:
    """A search is kept for a minute, however its query is written; the rest of a source is no search."""
    found = document("/query", "skip=0&q=a%20b&prerelease=")
    assert found.url == f"{UPSTREAM}query?prerelease=&q=a+b&skip=0"
    assert found.key == document("/query", "q=a+b&prerelease=&skip=0").key
    assert found.ttl == 60
    assert document("/v3/search").url == f"{UPSTREAM}v3/search"


@pytest.mark.parametrize(
    "target",
    [
        *("/v3-flatcontainer/corp.tool/index.json", "/v3-flatcontainer/Corp.Tool/1.0.0/Corp.Tool.1.0.0.nupkg"),
        *(f"/{USUAL}corp.tool/index.json", f"/{USUAL}corp.tool/1.0.0.json", f"/{USUAL}corp.tool/page/1.0.0/2.0.0.json"),
        *("/v3-flatcontainer/corp.tool/1.0.0/corp.tool.nuspec", "/v3-flatcontainer/corp.tool/1.0.0/readme"),
        *("/v3/catalog0/data/2024.01.01.00.00.00/corp.2.tool.1.0.0.json", "/own/corp.tool.json"),
        *(
            "/query?q=corp.tool",
            "/query?q=x%20packageid:Corp.Tool",
            "/query?q=%22corp.tool%22",
            "/autocomplete?id=corp.tool",
        ),
    ],
)
def test_names_of_another_registry(target: str) -> None:
    """Whatever tells a name of a package is known to do so."""
    options = RegistryOptions(name="nuget", type="nuget", url=UPSTREAM, elsewhere=("corp.*",))
    kit = make_cache(make(options))
    path, _, query = target.partition("?")
    with pytest.raises(NotFound, match="names"):
        kit.get_head(RequestHead(method="GET", path=path, query=query))
    assert kit.upstream.asked == []


def test_the_public_search_is_known() -> None:
    """The public source's search is on hosts of its own; another source may not lead there."""
    public = make(RegistryOptions(name="nuget", type="nuget"))
    host = "https://azuresearch-usnc.nuget.org/"
    assert public.allows(host)
    assert not source_of().allows(host)


def test_another_host_that_is_not_named() -> None:
    """An address on it is asked of the upstream, which may be a cache that knows it."""
    assert document("/at/https/evil.test/a.json").url == f"{UPSTREAM}at/https/evil.test/a.json"
    assert document("/at/https/files.example/a.json").url == "https://files.example/a.json"


def test_a_leaf_in_trouble_is_no_absence() -> None:
    """Where a package is somewhere else, and its registration is in parts, the leaf alone tells: it may come later."""
    release, layout = RELEASES[1], Layout(paged=("Fx.Lib",))
    kit = make_cache(source_of())
    kit.upstream.pages = pages(layout)
    there, leaf = f"{UPSTREAM}download/{release.place}", layout.leaf(release)
    moved = {**leaf, "packageContent": there, "catalogEntry": layout.entry(release)}
    kit.upstream.pages |= {leaf["@id"]: Page(status=503), there: Page(body=release.body)}
    del kit.upstream.pages[UPSTREAM + layout.flat + release.file]
    with pytest.raises(UpstreamError):
        kit.get(f"/{USUAL}{release.file}")
    kit.upstream.pages[leaf["@id"]] = Page(body=json.dumps(moved).encode())
    kit.advance(30)
    assert kit.get(f"/{USUAL}{release.file}")[1] == release.body


OTHER = "https://other.example/"


@pytest.mark.parametrize(
    ("path", "found", "links"),
    [
        (f"{USUAL}a/index.json", {"items": [{"@id": f"{OTHER}page.json", "count": 1}]}, 1),
        (f"{USUAL}a/index.json", {"items": [{"@id": f"{OTHER}page.json", "items": []}]}, 0),
        (f"{USUAL}a/page/1/2.json", {"items": [{"packageContent": f"{OTHER}a", "catalogEntry": {"id": "?"}}]}, 1),
        (f"{USUAL}a/page/1/2.json", {"items": [{"catalogEntry": {"packageContent": f"{OTHER}a"}}]}, 1),
        (f"{USUAL}a/1.0.0.json", {"@id": f"{OTHER}leaf.json", "packageContent": f"{OTHER}a"}, 1),
        ("v3/vulnerabilities/index.json", [{"@name": "base", "@id": f"{OTHER}base.json"}], 1),
        ("v3/catalog0/index.json", {"items": [{"@id": f"{OTHER}page0.json"}, {"@id": f"{UPSTREAM}page1.json"}]}, 1),
        ("search/query", {"data": [{"registration": f"{OTHER}a.json", "versions": [{"@id": f"{OTHER}1.json"}]}]}, 2),
        (f"{USUAL}a/index.json", {"items": [{"@id": "page/1.json"}, {"@id": 1}, None, [[{}]]], "data": ["x"]}, 0),
    ],
)
def test_links_by_which_clients_would_go_on_past_the_cache(path: str, found: Any, links: int) -> None:
    """Each is known, so that it can be told of, and refused where that is wanted."""
    document = path if path.startswith("search/") else f"json/{path}"
    source = Source(body=json.dumps(found).encode(), content_type="application/json", url=UPSTREAM + path)
    foreign = source_of().facts(document, source).foreign
    assert sum(number for number, _ in foreign.values()) == links
    kit = make_cache(make(RegistryOptions(name="nuget", type="nuget", url=UPSTREAM, strict_links=True)))
    kit.upstream.pages[UPSTREAM + path.removeprefix("search/")] = Page(body=source.body)
    with pytest.raises(LinksLeave) if links else contextlib.nullcontext():
        kit.get(f"/{path.removeprefix('search/')}")


def test_a_size_that_is_none() -> None:
    """Some sources publish 0 bytes for whatever they have."""
    entry = {"id": "a", "version": "1.0.0", "packageSize": 0}
    found = {"packageContent": f"{UPSTREAM}a", "catalogEntry": entry}
    source = Source(body=json.dumps(found).encode(), content_type="application/json", url=UPSTREAM)
    assert source_of().facts(f"json/{USUAL}a/1.0.0.json", source)["package/a/1.0.0"].size is None


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_publishing(method: str) -> None:
    """Packages and symbols are pushed to the registry itself."""
    for path in ("/api/v2/package", "/api/v2/symbolpackage/", "/v3/index.json"):
        with pytest.raises(MethodNotAllowed, match="registry itself"):
            route(path, method=method)


def test_the_service_index_as_it_is_served() -> None:
    """Every resource that is served leads back, what is not is left out, and nothing else is changed."""
    layout = Layout(search=SEARCH)
    found = {"version": "3.0.0", "resources": layout.resources(), "@context": {"@vocab": "http://schema.example#"}}
    made = served("service", found, MOUNT, UPSTREAM, "search.example")
    assert (made["version"], made["@context"]) == ("3.0.0", found["@context"])
    kinds = {str(one["@type"]): one["@id"] for one in made["resources"]}
    assert kinds == {
        "SearchQueryService": f"{MOUNT}at/https/search.example/query",
        "['SearchAutocompleteService', 'SearchAutocompleteService/3.5.0']": (
            f"{MOUNT}at/https/search.example/query/autocomplete"
        ),
        "RegistrationsBaseUrl": f"{MOUNT}v3/registration5-semver1/",
        "RegistrationsBaseUrl/3.6.0": f"{MOUNT}{USUAL}",
        "RegistrationsBaseUrl/Versioned": f"{MOUNT}{USUAL}",
        "PackageBaseAddress/3.0.0": f"{MOUNT}v3-flatcontainer/",
        "ReadmeUriTemplate/6.13.0": f"{MOUNT}v3-flatcontainer/{{lower_id}}/{{lower_version}}/readme",
        "VulnerabilityInfo/6.7.0": f"{MOUNT}v3/vulnerabilities/index.json",
    }
    assert made["resources"][0]["comment"] == "search"


def test_signatures_are_for_https() -> None:
    """Over plain http clients refuse them, and the whole source: they are told of them only over https."""
    found = {"resources": Layout().resources()}
    kinds = [one["@type"] for one in served("service", found, "https://cache.example/nuget/")["resources"]]
    assert "RepositorySignatures/5.0.0" in kinds
    certificate = f"{UPSTREAM}v3-index/certificates/a.crt"
    told = {"allRepositorySigned": True, "signingCertificates": [{"contentUrl": certificate}]}
    made = served("json/v3-index/repository-signatures/index.json", told)
    assert made["signingCertificates"] == [{"contentUrl": f"{MOUNT}v3-index/certificates/a.crt"}]
    assert artifact("/v3-index/certificates/a.crt").url == certificate


def test_a_service_index_that_names_other_hosts() -> None:
    """What is on a host that may not be asked is left out, and counted."""
    resources = [
        {"@id": "https://far.example/flat/", "@type": "PackageBaseAddress/3.0.0"},
        {"@id": "https://far.example/report", "@type": "ReportAbuseUriTemplate"},
        {"@id": f"{UPSTREAM}find", "@type": "SearchQueryService"},
        {"@id": f"{UPSTREAM}none"},
        {"@type": "Catalog/3.0.0"},
        7,
    ]
    assert served("service", {"resources": resources})["resources"] == []
    assert source_of().facts("service", sent({"resources": resources})).foreign == {
        "far.example": (1, "https://far.example/flat/")
    }


def test_another_layout_is_in_the_addresses() -> None:
    """Where the registrations are not the public registry's, the flat container's address says where they are."""
    at = "https://files.example/reg"
    resources = [
        {"@id": f"{UPSTREAM}old/", "@type": "RegistrationsBaseUrl"},
        {"@id": at, "@type": "RegistrationsBaseUrl/3.6.0"},
        {"@id": f"{UPSTREAM}flat", "@type": "PackageBaseAddress/3.0.0"},
    ]
    made = served("service", {"resources": resources}, MOUNT, UPSTREAM, "files.example")["resources"]
    assert [one["@id"] for one in made] == [
        f"{MOUNT}old/",
        f"{MOUNT}at/https/files.example/reg",
        f"{MOUNT}at/https/files.example/reg/~/flat",
    ]
    again = served("service", {"resources": made}, MOUNT, MOUNT, "files.example")["resources"]
    assert again == made


def test_facts_of_a_registration() -> None:
    """Each release: where it is, and which leaf of the catalog proves it, or the digest that a source tells at once."""
    layout, lib = Layout(), RELEASES[1]
    leaf = layout.leaf(lib)
    digest = hashlib.sha512(lib.body).digest()
    told = {"packageHash": base64.b64encode(digest).decode(), "packageHashAlgorithm": "SHA512", "packageSize": 9}
    facts = source_of().facts(f"json/{USUAL}fx.lib/index.json", sent({"items": [{"items": [leaf]}, leaf]}))
    fact = facts["package/fx.lib/1.0.0"]
    assert (fact.url, fact.digests, fact.size) == (f"{UPSTREAM}{layout.flat}{lib.file}", (), None)
    assert fact.proof is not None
    assert (fact.proof.url, fact.proof.mutable) == (layout.entry(lib), False)
    leaf["catalogEntry"].update(told)
    fact = source_of().facts("json/r/fx.lib/index.json", sent({"items": [leaf]}))["package/fx.lib/1.0.0"]
    assert (fact.digests, fact.size, fact.proof) == ((Digest("sha512", digest.hex()),), 9, None)


@pytest.mark.parametrize("entry", ["https://far.example/x.json", f"{UPSTREAM}{USUAL}fx.lib/1.0.0.json", "", 7])
def test_a_registration_that_points_nowhere(entry: object) -> None:
    """A catalog that may not be asked, or is the registration itself, proves nothing."""
    found = {"packageContent": f"{UPSTREAM}p", "catalogEntry": {"id": "Fx.Lib", "version": "1.0", "@id": entry}}
    facts = source_of().facts(f"json/{USUAL}fx.lib/1.0.0.json", sent(found))
    assert facts["package/fx.lib/1.0.0"].proof is None


@pytest.mark.parametrize(
    "entry",
    [
        {"packageHash": "x", "packageHashAlgorithm": "SHA512"},
        {"packageHash": "AAAA", "packageHashAlgorithm": "CRC32"},
        {"packageHash": 7, "packageHashAlgorithm": "SHA512"},
        {"packageHash": "AAAA"},
    ],
)
def test_digests_that_are_none(entry: dict[str, Any]) -> None:
    """What is no digest, or of an algorithm that proves nothing, is passed over."""
    fact = source_of().facts("json/c/a.json", sent({"id": "a", "version": "1.0.0", **entry}))["package/a/1.0.0"]
    assert fact.digests == ()


def test_a_package_with_an_address_of_its_own() -> None:
    """Wherever a registration says that a package is, its address here is the usual one below that registration."""
    there = f"{UPSTREAM}api/v2/package/Fx.Lib/1.0"
    leaf = {"packageContent": there, "catalogEntry": {"id": "Fx.Lib", "version": "1.0", "packageContent": there}}
    for hive, before in ((USUAL, ""), ("reg/", "reg/~/")):
        made = served(f"json/{hive}fx.lib/index.json", {"items": [{"items": [leaf]}]})["items"][0]["items"][0]
        link = f"{before}{hive}fx.lib/1.0.0/fx.lib.1.0.0.nupkg"
        assert made["packageContent"] == made["catalogEntry"]["packageContent"] == MOUNT + link
    kit = make_cache(source_of())
    index = {"items": [{"items": [leaf]}]}
    kit.upstream.pages = {
        f"{UPSTREAM}reg/fx.lib/index.json": Page(body=json.dumps(index).encode()),
        there: Page(body=b"package"),
    }
    assert kit.get("/reg/~/reg/fx.lib/1.0.0/fx.lib.1.0.0.nupkg")[1] == b"package"


def test_packages_on_hosts_that_may_not_be_asked() -> None:
    """They are left as they are, and counted."""
    leaf = {"packageContent": "https://far.example/a.nupkg", "catalogEntry": {"id": "a", "version": "1.0.0"}}
    key, found = "json/r/a/index.json", {"items": [leaf]}
    assert served(key, found) == found
    facts = source_of().facts(key, sent(found))
    assert (dict(facts), facts.foreign) == ({}, {"far.example": (1, "https://far.example/a.nupkg")})


def test_what_is_left_as_it_is() -> None:
    """Links to what is not served, names that only look like links, and a document's context."""
    items: list[Any] = [{"@id": f"{UPSTREAM}v3/index.json"}, f"{UPSTREAM}a.json", 1.5, None]
    found = {
        "@context": {"@id": f"{UPSTREAM}a.json"},
        "@id": f"{UPSTREAM}a.json#x",
        "parent": f"{UPSTREAM}a.html",
        "registration": "https://far.example/a.json",
        "projectUrl": f"{UPSTREAM}a.json",
        "iconUrl": f"{UPSTREAM}..%2f/a.json",
        "items": items,
    }
    changed = {"@id": f"{MOUNT}a.json#x", "items": [{"@id": f"{MOUNT}v3/index.json"}, *items[1:]]}
    assert served("json/a.json", found) == {**found, **changed}
    other = served("json/a.json", {"@id": f"{UPSTREAM}o/v3/index.json"}, url=f"{UPSTREAM}o/index.json")
    assert other == {"@id": f"{MOUNT}at/https/nuget.example/o/v3/index.json"}


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("service", b'{"items": []}'),
        ("service", b"[]"),
        ("service", b'{"resources": 1}'),
        (f"json/{USUAL}a/index.json", b'{"message": "not here"}'),
        ("search/query", b'{"items": []}'),
        ("json/a.json", b"7"),
        ("json/a.json", b"<html>"),
        ("json/a.json", b""),
    ],
)
def test_what_is_no_document(key: str, body: bytes) -> None:
    """What does not hold what that document holds is refused."""
    with pytest.raises(BadDocument):
        source_of().facts(key, Source(body=body, content_type="application/json", url=UPSTREAM))


def test_a_byte_order_mark() -> None:
    """Servers of this ecosystem send one at times."""
    source = Source(body=b'\xef\xbb\xbf{"resources": []}', content_type="", url=UPSTREAM)
    assert source_of().facts("service", source) == {}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.0", "1.0.0"),
        ("1", "1.0.0"),
        ("1.2", "1.2.0"),
        ("1.2.3.0", "1.2.3"),
        ("1.2.3.4", "1.2.3.4"),
        ("01.002.3", "1.2.3"),
        ("1.0.0-RC.1+Build.5", "1.0.0-rc.1"),
        ("", ""),
        ("latest", ""),
        ("1.0.0.0.0", ""),
        ("1.0.0-", ""),
        ("٣.0.0", ""),
    ],
)
def test_versions(version: str, expected: str) -> None:
    """A version has one form in addresses."""
    assert normal(version) == expected


@pytest.mark.parametrize(("base", "plain"), [("http://a.example/nuget/", True), ("https://a.example/", False)])
def test_client_lines(base: str, plain: bool) -> None:
    """Newer clients must be told that plain http is meant."""
    lines = source_of().client_lines(base)
    assert f"{base}v3/index.json" in lines[0]
    assert ("--allow-insecure-connections" in lines[0]) is plain


def test_other_files() -> None:
    """What lies beside a package is passed on; nothing proves it."""
    found = artifact("/v3-flatcontainer/Fx.Lib/1.0.0/Fx.Lib.nuspec")
    assert found.url == f"{UPSTREAM}v3-flatcontainer/fx.lib/1.0.0/fx.lib.nuspec"
    assert found.content_type == "application/xml"
    assert found.documents == ()
    assert artifact("/Own/flat/Fx.Lib/1.0.0/Fx.Lib.nuspec").url == f"{UPSTREAM}Own/flat/fx.lib/1.0.0/fx.lib.nuspec"
    assert artifact("/v3-flatcontainer/fx.lib/1.0.0/icon").url == f"{UPSTREAM}v3-flatcontainer/fx.lib/1.0.0/icon"


@pytest.mark.parametrize(
    "leaf",
    [
        {"catalogEntry": 7},
        {"catalogEntry": {"id": 7, "version": "1.0.0"}, "packageContent": f"{UPSTREAM}p"},
        {"catalogEntry": {"id": "a", "version": "first"}, "packageContent": f"{UPSTREAM}p"},
        {"catalogEntry": {"id": "a", "version": "1.0.0"}},
        {"catalogEntry": f"{UPSTREAM}c.json", "packageContent": f"{UPSTREAM}p"},
    ],
)
def test_leaves_that_name_no_package(leaf: dict[str, Any]) -> None:
    """They are passed over, and left as they are."""
    assert source_of().facts("json/odd", sent({"items": [leaf, 7]})) == {}
    assert served("json/odd", leaf).get("packageContent") == leaf.get("packageContent")


@pytest.mark.parametrize("accepted", ["gzip, deflate", ""])
def test_compressed_registrations(accepted: str) -> None:
    """What comes compressed, whoever asks, goes out as the client takes it, its links led back either way."""
    layout = Layout()
    kit = make_cache(source_of())
    kit.upstream.pages = pages(layout)
    reply, body = kit.get("/" + layout.home(RELEASES[0]).removeprefix(UPSTREAM), Accept_Encoding=accepted)
    assert reply.headers.get("content-encoding") == ("gzip" if accepted else "")
    found = json.loads(gzip.decompress(body) if accepted else body)
    assert found["items"][0]["items"][0]["packageContent"].endswith(f"/fake/{layout.flat}{RELEASES[0].file}")
