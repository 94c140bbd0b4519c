"""Maven repositories."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regcache.errors import (
    BadDocument,
    BadRequest,
    DigestMismatch,
    MethodNotAllowed,
    NotFound,
    UpstreamStatus,
)
from regcache.flow.reply import How
from regcache.http.messages import Digest, Headers, RequestHead
from regcache.interfaces import IResponse
from regcache.registries import make
from regcache.routes import Artifact, Checksum, Document, RegistryOptions, Source
from regcache.testing import Ask, FakeUpstream, Kit, Page, RegistryContract, Sample, make_cache
from tests import clients
from tests.journey import Journey
from tests.origin import Origin

UPSTREAM = "https://host.example/maven2/"
REPOSITORY = make(RegistryOptions(name="maven", type="maven", url=UPSTREAM, artifact_hosts=("cdn.example",)))
JAR = "org/fx/lib/1.0/lib-1.0.jar"
METADATA = "org/fx/lib/maven-metadata.xml"
SNAPSHOT = "org/fx/lib/1.0-SNAPSHOT/lib-1.0-SNAPSHOT.jar"
BODY = bytes(range(256)) * 10
SUMS = ("sha512", "sha256", "sha1", "md5")


def route(path: str, method: str = "GET") -> object:
    """What a request means."""
    return REPOSITORY.route(RequestHead(method=method, path="/" + path))


def artifact(path: str) -> Artifact:
    """The file that a request means."""
    found = route(path)
    assert isinstance(found, Artifact)
    return found


def source(body: bytes, path: str = METADATA, kind: str = "text/xml") -> Source:
    """What came from the upstream."""
    return Source(body=body, content_type=kind, url=UPSTREAM + path)


def digest(algorithm: str, body: bytes = BODY) -> bytes:
    """A digest as a repository keeps it."""
    return hashlib.new(algorithm, body).hexdigest().encode()


def metadata(*versions: str) -> bytes:
    """What lists the versions of an artifact."""
    listed = "".join(f"<version>{version}</version>" for version in versions)
    return f"<metadata><versioning><versions>{listed}</versions></versioning></metadata>".encode()


@pytest.mark.parametrize(
    ("path", "mutable"),
    [
        (JAR, False),
        ("org/fx/lib/1.0/lib-1.0.pom", False),
        ("org/fx/lib/1.0/lib-1.0.module", False),
        ("org/fx/lib/1.0/lib-1.0-sources.jar", False),
        ("org/fx/lib/1.0/lib-1.0.jar.asc", False),
        ("fx/lib/1.0/lib-1.0.tar.gz", False),
        ("org/fx/lib/1.0/lib-1.01.jar", True),
        ("org/fx/lib/1.0/other-1.0.jar", True),
        ("lib/1.0/lib-1.0.jar", True),
        (SNAPSHOT, True),
        ("org/fx/lib/1.0-SNAPSHOT/lib-1.0-20231102.111111-2.jar", False),
        ("org/fx/lib/1.0-SNAPSHOT/lib-1.0-20231102.111111-2-sources.jar", False),
        ("org/fx/lib/1.0-SNAPSHOT/lib-1.0-20231102.111111-x.jar", True),
        ("org/fx/lib/SNAPSHOT/lib-SNAPSHOT.jar", True),
        ("archetype-catalog.xml", True),
        (".index/nexus-maven-repository-index.gz", True),
    ],
)
def test_what_may_change(path: str, mutable: bool) -> None:
    """A released file, and one with the time of its deployment in its name, never changes; what else lies there may."""
    found = artifact(path)
    assert (found.key, found.url) == (path, UPSTREAM + path)
    assert found.mutable is mutable
    assert [document.key for document in found.sidecars] == [f"{path}.{end}" for end in SUMS]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("org//fx/lib/1.0/lib-1.0.jar", JAR),
        ("org/fx/lib/1%2E0/lib-1.0.j%61r", JAR),
        ("org/fx/lib/1.0+x/lib-1.0+x.jar", "org/fx/lib/1.0%2Bx/lib-1.0%2Bx.jar"),
        ("org/fx/lib_2.13/1~2/lib_2.13-1%7e2.jar", "org/fx/lib_2.13/1~2/lib_2.13-1~2.jar"),
    ],
)
def test_paths(path: str, key: str) -> None:
    """A file has one key and one place upstream, however its address is spelled."""
    assert (artifact(path).key, artifact(path).url) == (key, UPSTREAM + key)
    assert not artifact(path).mutable


@pytest.mark.parametrize("path", ["maven-metadata.xml", "org/fx/maven-metadata.xml", METADATA])
def test_metadata(path: str) -> None:
    """Metadata, of a group, an artifact or a snapshot, is an index, passed on as it is."""
    found = route(path)
    assert isinstance(found, Document)
    assert (found.key, found.url, found.content_type) == (path, UPSTREAM + path, "text/xml")
    assert not found.linked


@pytest.mark.parametrize("algorithm", SUMS)
@pytest.mark.parametrize("path", [JAR, SNAPSHOT, f"{JAR}.asc", METADATA])
def test_checksums(path: str, algorithm: str) -> None:
    """Beside each file is its checksum, of what is served there; the upstream's own is known for files that are not."""
    found = route(f"{path}.{algorithm}")
    assert isinstance(found, Checksum)
    assert (found.of, found.algorithm) == (route(path), algorithm)
    if path == METADATA:
        assert found.published is None
    else:
        assert found.published is not None
        assert found.published.url == f"{UPSTREAM}{path}.{algorithm}"
        assert found.published in artifact(path).documents


@pytest.mark.parametrize("path", ["", "org/", "org/fx/lib/1.0/", f"{JAR}.sha1.md5"])
def test_nothing_there(path: str) -> None:
    """Directories are not listed, and a checksum has no checksum."""
    with pytest.raises(NotFound):
        route(path)


@pytest.mark.parametrize("path", ["a/../x", "a/%2e%2e/x", "a%2f..%2fx", "..;/x", "a%5cb", "a%00", "%zz", "a%2fb"])
def test_hostile_paths(path: str) -> None:
    """A path that climbs out of the repository, or hides something, is refused."""
    with pytest.raises(BadRequest):
        route(path)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_path(text: str) -> None:
    """Whatever is asked for is refused, or lies below the upstream."""
    try:
        found = route(text.partition("?")[0])
    except (BadRequest, NotFound):
        return
    file = found.of if isinstance(found, Checksum) else found
    assert isinstance(file, Artifact | Document)
    assert file.url.startswith(UPSTREAM)
    assert file.url.isascii()
    assert not {".", ".."} & set(urlsplit(file.url).path.split("/"))
    assert REPOSITORY.allows(file.url)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods(method: str) -> None:
    """A repository is only read."""
    with pytest.raises(MethodNotAllowed, match="Deploying"):
        route(JAR, method)


@pytest.mark.parametrize("form", ["{}", "{}\n", "{}  lib-1.0.jar\n", "SHA1(lib-1.0.jar)= {}\n", "\ufeff{}"])
@pytest.mark.parametrize("upper", [False, True])
def test_published_checksums(form: str, upper: bool) -> None:
    """A published checksum is read in the forms in which tools have written it."""
    value = digest("sha1").decode()
    body = form.format(value.upper() if upper else value).encode()
    fact = REPOSITORY.facts(f"{JAR}.sha1", source(body, f"{JAR}.sha1", "text/plain"))[JAR]
    assert (fact.url, fact.digests) == (UPSTREAM + JAR, (Digest("sha1", value),))
    assert REPOSITORY.represent(f"{JAR}.sha1", source(body), "as-is", "") == body


@pytest.mark.parametrize("body", [b"", b"none", digest("sha256"), b"<html>" + digest("sha1"), b" " * 5000])
def test_no_checksums(body: bytes) -> None:
    """Something else in place of a checksum proves nothing."""
    with pytest.raises(BadDocument, match="sha1"):
        REPOSITORY.facts(f"{JAR}.sha1", source(body))


def test_metadata_is_passed_on() -> None:
    """Metadata with and without a namespace is accepted, and sent as it came."""
    plain = metadata("1.0")
    named = plain.replace(b"<metadata>", b'<metadata xmlns="http://maven.apache.org/METADATA/1.1.0">')
    for body in (plain, b'<?xml version="1.0" encoding="UTF-8"?>\n' + named):
        assert REPOSITORY.facts(METADATA, source(body)) == {}
        assert REPOSITORY.represent(METADATA, source(body), "as-is", "") == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><title>Log in</title></html>",
        metadata("1.0")[:-5],
        b"<project/>",
        b'<!DOCTYPE metadata [<!ENTITY a "aaaa">]><metadata>&a;</metadata>',
    ],
)
def test_no_metadata(body: bytes) -> None:
    """A login page, a cut document, or one that could be made to grow is no metadata."""
    with pytest.raises(BadDocument):
        REPOSITORY.facts(METADATA, source(body))


def test_hosts() -> None:
    """Its own origin and the named hosts may be contacted, and no other; a well-known one may send elsewhere."""
    assert REPOSITORY.allows("https://host.example/elsewhere")
    assert REPOSITORY.allows("https://cdn.example/x")
    assert not REPOSITORY.allows("https://evil.example/x")
    assert not REPOSITORY.allows(REPOSITORY.default_url)  # type: ignore[attr-defined]


def test_errors_and_client_lines() -> None:
    """Errors are plain text; the lines to copy configure Maven and Gradle."""
    assert REPOSITORY.error(504, "It is offline.") == ("text/plain; charset=utf-8", b"It is offline.\n")
    maven, gradle = REPOSITORY.client_lines("http://cache/maven/")
    assert "<mirrorOf>*</mirrorOf><url>http://cache/maven/</url>" in maven
    assert "allowInsecureProtocol" in gradle
    assert "allowInsecureProtocol" not in REPOSITORY.client_lines("https://cache/maven/")[1]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (JAR, ("org.fx:lib",)),
        (f"{JAR}.sha1", ("org.fx:lib",)),
        (SNAPSHOT, ("org.fx:lib",)),
        (SNAPSHOT.replace("lib-1.0-SNAPSHOT.jar", "maven-metadata.xml"), ("org.fx:lib",)),
        (METADATA, ("org:fx", "org.fx:lib", "org.fx.lib:")),
        ("org/fx/maven-metadata.xml", ("org:fx", "org.fx:")),
        ("org/maven-metadata.xml", ("org:",)),
        ("maven-metadata.xml", ()),
        ("g/a/1+x/a-1+x.jar", ("g:a",)),
    ],
)
def test_names(path: str, names: tuple[str, ...]) -> None:
    """The names that asking for a path tells, as exactly as the path itself tells them."""
    found = route(path)
    assert isinstance(found, Artifact | Checksum | Document)
    assert found.packages == names


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "maven"

    def sample(self) -> Sample:
        files = (JAR, f"{JAR}.asc", SNAPSHOT)
        pages = {UPSTREAM + METADATA: Page(body=metadata("1.0"))}
        for path in files:
            pages |= {UPSTREAM + path: Page(body=BODY), f"{UPSTREAM}{path}.sha1": Page(body=digest("sha1"))}
        sums = (Ask(f"/{METADATA}.sha1"), Ask(f"/{JAR}.sha1"), Ask(f"/{SNAPSHOT}.sha1"))
        return Sample(
            url=UPSTREAM,
            pages=pages,
            documents=(Ask(f"/{METADATA}"), *sums),
            artifacts={Ask(f"/{path}"): UPSTREAM + path for path in files},
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask, body
        return []


# With the real clients.

#: What Maven adds to every extension that does not ask for it.
_ADDED = ("org.codehaus.plexus", "plexus-utils", "1.1")


def pom(group: str, name: str, version: str, more: str = "", packaging: str = "jar") -> bytes:
    """The description of a release."""
    told = f"<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
    kind = f"<packaging>{packaging}</packaging>"
    return f"<project><modelVersion>4.0.0</modelVersion>{told}{kind}{more}</project>".encode()


def jar(name: str) -> bytes:
    """An archive with one file in it."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{name}.txt", (2024, 1, 1, 0, 0, 0)), name.encode())
    return sink.getvalue()


def deploy(origin: Origin, path: str, body: bytes) -> None:
    """Put a file and its checksums into the origin."""
    origin.add(f"/{path}", body)
    for algorithm in ("sha1", "md5"):
        origin.add(f"/{path}.{algorithm}", digest(algorithm, body), "text/plain")


def release(origin: Origin, name: str, version: str, more: str = "", group: str = "org.fx") -> str:
    """Put a release into the origin; the path of its archive."""
    place = f"{group.replace('.', '/')}/{name}"
    deploy(origin, f"{place}/{version}/{name}-{version}.pom", pom(group, name, version, more))
    deploy(origin, f"{place}/{version}/{name}-{version}.jar", jar(f"{name}-{version}"))
    return f"/{place}/{version}/{name}-{version}.jar"


def snapshot(origin: Origin) -> None:
    """Put a snapshot that was deployed once into the origin."""
    when, place = "20231102.111111", "org/fx/snap/1.0-SNAPSHOT"
    listed = "".join(
        f"<snapshotVersion><extension>{end}</extension><value>1.0-{when}-1</value>"
        "<updated>20231102111111</updated></snapshotVersion>"
        for end in ("jar", "pom")
    )
    told = f"<snapshot><timestamp>{when}</timestamp><buildNumber>1</buildNumber></snapshot>"
    text = (
        '<metadata modelVersion="1.1.0"><groupId>org.fx</groupId><artifactId>snap</artifactId>'
        f"<version>1.0-SNAPSHOT</version><versioning>{told}<lastUpdated>20231102111111</lastUpdated>"
        f"<snapshotVersions>{listed}</snapshotVersions></versioning></metadata>"
    )
    deploy(origin, f"{place}/maven-metadata.xml", text.encode())
    deploy(origin, f"{place}/snap-1.0-{when}-1.pom", pom("org.fx", "snap", "1.0-SNAPSHOT"))
    deploy(origin, f"{place}/snap-1.0-{when}-1.jar", jar("snap"))


def dependency(name: str, version: str) -> str:
    """The description of what a release needs."""
    return f"<groupId>org.fx</groupId><artifactId>{name}</artifactId><version>{version}</version>"


class MavenJourney(Journey):
    """A library that needs another, by a range of versions and with a parent, and a snapshot."""

    registry = "maven"

    def publish(self, origin: Origin) -> str:
        parent = f"<parent>{dependency('parent', '1')}</parent>"
        deploy(origin, "org/fx/parent/1/parent-1.pom", pom("org.fx", "parent", "1", packaging="pom"))
        versions = ("1.0", "1.5", "2.0")
        paths = [release(origin, "lib-b", version, parent) for version in versions]
        listed = metadata(*versions).replace(b"<versioning>", b"<versioning><release>2.0</release>", 1)
        listed = listed.replace(b"<metadata>", b"<metadata><groupId>org.fx</groupId><artifactId>lib-b</artifactId>")
        deploy(origin, "org/fx/lib-b/maven-metadata.xml", listed)
        needed = f"<dependencies><dependency>{dependency('lib-b', '[1.0,2.0)')}</dependency></dependencies>"
        release(origin, "lib-a", "1.0", needed)
        release(origin, _ADDED[1], _ADDED[2], group=_ADDED[0])
        snapshot(origin)
        return paths[1]


@pytest.mark.journey
class TestMvn(MavenJourney):
    """The real Maven, which takes libraries as extensions of a build that has nothing else to do."""

    client = "mvn"

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        del locked
        place.mkdir()
        wanted = (dependency("lib-a", "1.0"), dependency("snap", "1.0-SNAPSHOT"))
        extensions = "".join(f"<extension>{one}</extension>" for one in wanted)
        project = pom("t", "t", "1", f"<build><extensions>{extensions}</extensions></build>", "pom")
        (place / "pom.xml").write_bytes(project)
        mirror = f"<mirrors><mirror><id>regcache</id><mirrorOf>*</mirrorOf><url>{url}</url></mirror></mirrors>"
        snapshots = (
            "<profiles><profile><id>p</id><pluginRepositories><pluginRepository><id>central</id><url>http://x</url>"
            "<snapshots><enabled>true</enabled></snapshots></pluginRepository></pluginRepositories></profile></profiles>"
            "<activeProfiles><activeProfile>p</activeProfile></activeProfiles>"
        )
        (place / "settings.xml").write_text(f"<settings>{mirror}{snapshots}</settings>")
        command = [clients.program("mvn"), "-B", "-s", "settings.xml", f"-Dmaven.repo.local={place / 'kept'}"]
        return clients.run([*command, "validate"], place)


@pytest.mark.journey
class TestGradle(MavenJourney):
    """The real Gradle, in front of two upstreams, the first of which has nothing."""

    client = "gradle"

    def table(self, origin: Origin) -> str:
        return f'url = ["{origin.url}empty/", "{origin.url}"]\n'

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        del locked
        place.mkdir()
        (place / "settings.gradle").write_text('rootProject.name = "t"\n')
        # Later versions want to be told that plain http is meant.
        insecure = "if (it.hasProperty('allowInsecureProtocol')) { it.allowInsecureProtocol = true }"
        wanted = ("org.fx:lib-a:1.0", "org.fx:snap:1.0-SNAPSHOT", "org.fx:lib-b:1.+")
        (place / "build.gradle").write_text(
            f"repositories {{ maven {{ url '{url}'; {insecure} }} }}\nconfigurations {{ wanted }}\n"
            "dependencies {\n" + "".join(f"  wanted '{one}'\n" for one in wanted) + "}\n"
            "task resolve { doLast { println configurations.wanted.files*.name } }\n"
        )
        command = [clients.program("gradle"), "--no-daemon", "-q", "--gradle-user-home", str(place / "kept")]
        return clients.run([*command, "resolve"], place)


# In a cache.


@pytest.fixture
def kit() -> Kit:
    """A cache in front of an empty repository."""
    return make_cache(REPOSITORY)


def publish(kit: Kit, path: str = JAR, body: bytes = BODY, sums: tuple[str, ...] = SUMS) -> None:
    """A file with some of its checksums."""
    for algorithm in SUMS:
        kit.upstream.pages.pop(f"{UPSTREAM}{path}.{algorithm}", None)
    kit.upstream.pages[UPSTREAM + path] = Page(body=body)
    for algorithm in sums:
        kit.upstream.pages[f"{UPSTREAM}{path}.{algorithm}"] = Page(body=digest(algorithm, body))


@pytest.mark.parametrize("first", range(4))
def test_the_strongest_checksum_is_the_proof(kit: Kit, first: int) -> None:
    """The checksums are asked for from the strongest down to the first that is there, and that one decides."""
    publish(kit, sums=SUMS[first:])
    assert kit.get(f"/{JAR}")[1] == BODY
    asked = [f"{UPSTREAM}{JAR}.{algorithm}" for algorithm in SUMS[: first + 1]]
    assert sorted(kit.upstream.urls()) == sorted([UPSTREAM + JAR, *asked])
    again, _ = kit.get(f"/{JAR}")
    assert (again.how, again.detail) == (How.HIT, "")
    assert "immutable" in again.headers.get("cache-control")
    assert again.headers.get("x-checksum-sha1") == digest("sha1").decode()


@pytest.mark.parametrize("algorithm", SUMS)
def test_a_body_that_its_checksum_contradicts_is_refused(kit: Kit, algorithm: str) -> None:
    """A mismatch reaches nobody, is not stored, and the next request tries again."""
    publish(kit, sums=(algorithm,))
    kit.upstream.pages[UPSTREAM + JAR] = Page(body=BODY[::-1])
    with pytest.raises(DigestMismatch):
        kit.get(f"/{JAR}")
    assert f"maven/{JAR}" not in kit.store.entries
    publish(kit)
    assert kit.get(f"/{JAR}")[1] == BODY


def test_an_artifact_without_checksums(kit: Kit) -> None:
    """It is served, though nothing proves it, and it has no checksum here either; one that appears proves it later."""
    publish(kit, sums=())
    assert kit.get(f"/{JAR}")[1] == BODY
    reply, body = kit.get(f"/{JAR}")
    assert (body, reply.detail) == (BODY, "unverified")
    assert "x-checksum-sha1" not in reply.headers
    with pytest.raises(NotFound):
        kit.get(f"/{JAR}.sha1")
    publish(kit, sums=("sha1",))
    kit.advance(3600)
    assert kit.get(f"/{JAR}")[1] == BODY
    assert kit.get(f"/{JAR}")[0].detail == ""


def test_an_artifact_that_is_missing_asks_for_nothing_more(kit: Kit) -> None:
    """What is not there needs no proof: one checksum was asked for meanwhile, and no other is."""
    kit.upstream.hangs = True
    waiting = kit.ask(f"/{JAR}")
    kit.upstream.release(UPSTREAM + JAR)
    kit.upstream.release()
    failures: list[Failure] = []
    waiting.addErrback(failures.append)
    assert failures[0].check(NotFound)
    assert sorted(kit.upstream.urls()) == [UPSTREAM + JAR, f"{UPSTREAM}{JAR}.sha512"]


@pytest.mark.parametrize("algorithm", SUMS)
def test_a_checksum_is_of_the_bytes_served(kit: Kit, algorithm: str) -> None:
    """Once the file is stored its checksums are computed, also such as the upstream has not, and in an outage."""
    publish(kit, sums=("sha1",))
    kit.get(f"/{JAR}")
    kit.upstream.down = True
    reply, body = kit.get(f"/{JAR}.{algorithm}")
    assert (reply.how, body) == (How.HIT, digest(algorithm))
    assert "immutable" in reply.headers.get("cache-control")
    assert kit.get(f"/{JAR}.{algorithm}", "HEAD")[0].length == len(body)


def test_a_checksum_that_is_asked_for_while_the_body_comes(kit: Kit) -> None:
    """It waits for the body, so that it is of the bytes that the other client gets."""
    publish(kit)
    kit.store.holds = True
    assert kit.get(f"/{JAR}")[1] == BODY
    kit.upstream.down = True
    assert kit.get(f"/{JAR}.sha1")[1] == digest("sha1")


def test_a_checksum_before_its_file(kit: Kit) -> None:
    """It is the upstream's own, in its own words, and decides about the file that comes after it."""
    publish(kit)
    theirs = digest("sha1") + b"  lib-1.0.jar\n"
    kit.upstream.pages[f"{UPSTREAM}{JAR}.sha1"] = Page(body=theirs)
    assert kit.get(f"/{JAR}.sha1")[1] == theirs
    kit.upstream.asked.clear()
    kit.upstream.pages[UPSTREAM + JAR] = Page(body=BODY[::-1])
    with pytest.raises(DigestMismatch):
        kit.get(f"/{JAR}")
    kit.upstream.pages[UPSTREAM + JAR] = Page(body=BODY)
    assert kit.get(f"/{JAR}")[1] == BODY
    assert kit.get(f"/{JAR}.sha1")[1] == digest("sha1")


def test_a_checksum_tells_on_a_bad_copy(kit: Kit) -> None:
    """A copy that was stored unproven gets the upstream's own checksum, not one that makes it look good."""
    publish(kit, body=BODY[::-1], sums=())
    kit.get(f"/{JAR}")
    publish(kit)
    kit.advance(120)
    assert kit.get(f"/{JAR}.sha1")[1] == digest("sha1")
    assert kit.get(f"/{JAR}")[1] == BODY


def test_an_unproven_copy_in_an_outage(kit: Kit) -> None:
    """While nobody can say whether it is good, its checksum is computed like any other."""
    publish(kit, sums=())
    kit.get(f"/{JAR}")
    kit.upstream.down = True
    kit.advance(30 * 86400)
    assert kit.get(f"/{JAR}")[1] == BODY
    assert kit.get(f"/{JAR}.sha1")[1] == digest("sha1")


def test_a_transient_failure_is_never_a_404(kit: Kit) -> None:
    """Not of a file, not of its checksum, not of metadata."""
    paths = (JAR, f"{JAR}.sha1", METADATA, f"{METADATA}.sha1")
    for path in paths:
        kit.upstream.pages[f"{UPSTREAM}{path}"] = Page(status=503)
    for path in paths:
        with pytest.raises(UpstreamStatus):
            kit.get(f"/{path}")


def test_metadata_agrees_with_its_checksum(kit: Kit) -> None:
    """The checksum is computed from the metadata, whatever the upstream's own says, for each new version of it."""
    for versions in (("1.0",), ("1.0", "2.0")):
        kit.upstream.pages[UPSTREAM + METADATA] = Page(body=metadata(*versions))
        kit.advance(3600)
        assert kit.get(f"/{METADATA}")[1] == metadata(*versions)
        for algorithm in SUMS:
            assert kit.get(f"/{METADATA}.{algorithm}")[1] == digest(algorithm, metadata(*versions))


@pytest.mark.parametrize("algorithm", SUMS)
def test_metadata_that_its_checksum_contradicts(kit: Kit, algorithm: str) -> None:
    """It is asked for once more, then refused; what is stored goes on answering, and is never replaced by it."""
    publish(kit, METADATA, metadata("1.0"), (algorithm,))
    good = kit.upstream.pages[UPSTREAM + METADATA]
    kit.upstream.pages[UPSTREAM + METADATA] = Page(body=metadata("1.1"))
    with pytest.raises(DigestMismatch):
        kit.get(f"/{METADATA}")
    assert kit.upstream.urls().count(UPSTREAM + METADATA) == 2
    kit.upstream.pages[UPSTREAM + METADATA] = good
    kit.advance(60)
    assert kit.get(f"/{METADATA}")[1] == metadata("1.0")
    kit.upstream.pages[UPSTREAM + METADATA] = Page(body=metadata("1.1"))
    kit.advance(2 * 86400)
    reply, body = kit.get(f"/{METADATA}")
    assert (reply.how, body) == (How.STALE, metadata("1.0"))
    assert kit.get(f"/{METADATA}.sha1")[1] == digest("sha1", metadata("1.0"))


class Publishing(FakeUpstream):
    """An upstream whose metadata is published anew when somebody has asked for it."""

    def request(
        self, method: str, url: str, headers: Headers, body: Any = b"", interim: Any = None
    ) -> Deferred[IResponse]:
        answer = super().request(method, url, headers, body, interim)
        if url.endswith(METADATA):
            self.pages[url] = Page(body=metadata("1.0", "2.0"))
            self.pages[f"{url}.sha1"] = Page(body=digest("sha1", metadata("1.0", "2.0")))
        return answer


def test_metadata_that_is_published_anew_meanwhile() -> None:
    """A checksum that is already of the next metadata leads to that."""
    kit = make_cache(REPOSITORY, upstream=Publishing())
    publish(kit, METADATA, metadata("1.0"), ("sha1",))
    assert kit.get(f"/{METADATA}")[1] == metadata("1.0", "2.0")


def test_a_refresh_between_metadata_and_its_checksum(kit: Kit) -> None:
    """Whoever got the older metadata gets its checksum, even when newer has come meanwhile."""
    kit.upstream.pages[UPSTREAM + METADATA] = Page(body=metadata("1.0"))
    kit.get(f"/{METADATA}")
    kit.advance(3600)
    kit.upstream.pages[UPSTREAM + METADATA] = Page(body=metadata("2.0"))
    kit.upstream.hangs = True
    waiting = kit.ask(f"/{METADATA}", accept_encoding="gzip")
    kit.advance(1)
    assert waiting.called
    kit.upstream.hangs = False
    kit.upstream.release()
    assert kit.get(f"/{METADATA}.sha1")[1] == digest("sha1", metadata("1.0"))
    assert kit.get(f"/{METADATA}")[1] == metadata("2.0")
    assert kit.get(f"/{METADATA}.sha1")[1] == digest("sha1", metadata("2.0"))


def test_a_snapshot_is_as_current_as_its_checksum(kit: Kit) -> None:
    """A file that was deployed anew is fetched anew, whether it or its checksum is asked for first."""
    publish(kit, SNAPSHOT)
    assert kit.get(f"/{SNAPSHOT}")[1] == BODY
    assert kit.get(f"/{SNAPSHOT}")[0].headers.get("cache-control") == "max-age=0"
    for new in (BODY[::-1], BODY * 2):
        kit.advance(3600)
        publish(kit, SNAPSHOT, new)
        assert kit.get(f"/{SNAPSHOT}.sha1")[1] == digest("sha1", new)
        assert kit.get(f"/{SNAPSHOT}")[1] == new
        assert kit.get(f"/{SNAPSHOT}.sha256")[1] == digest("sha256", new)


def test_the_checksum_of_what_was_sent_last() -> None:
    """Of two files that were sent within a moment, the later one counts, also when that was not stored before."""
    kit = make_cache(make(RegistryOptions(name="maven", type="maven", url=UPSTREAM, refresh_after=10)))
    publish(kit, SNAPSHOT)
    kit.get(f"/{SNAPSHOT}")
    assert kit.get(f"/{SNAPSHOT}")[0].how is How.HIT
    kit.advance(20)
    publish(kit, SNAPSHOT, BODY[::-1])
    assert kit.get(f"/{SNAPSHOT}")[1] == BODY[::-1]
    assert kit.get(f"/{SNAPSHOT}.sha1")[1] == digest("sha1", BODY[::-1])


def test_a_checksum_waits_no_longer_than_its_file(kit: Kit) -> None:
    """While the upstream is slow to say whether a stored file holds, the checksum of that one is answered."""
    publish(kit, SNAPSHOT)
    kit.get(f"/{SNAPSHOT}")
    kit.advance(3600)
    kit.upstream.hangs = True
    waiting = kit.ask(f"/{SNAPSHOT}.sha1")
    kit.advance(1)
    assert waiting.called
    kit.upstream.hangs = False
    assert kit.get(f"/{SNAPSHOT}.sha1")[1] == digest("sha1")
    kit.upstream.release()


def test_a_refresh_between_a_snapshot_and_its_checksum(kit: Kit) -> None:
    """Whoever got the older file gets its checksum."""
    publish(kit, SNAPSHOT)
    kit.get(f"/{SNAPSHOT}")
    kit.advance(3600)
    publish(kit, SNAPSHOT, BODY[::-1])
    kit.upstream.hangs = True
    waiting = kit.ask(f"/{SNAPSHOT}")
    kit.advance(1)
    assert waiting.called
    kit.upstream.hangs = False
    kit.upstream.release()
    assert kit.get(f"/{SNAPSHOT}.sha1")[1] == digest("sha1")
    assert kit.get(f"/{SNAPSHOT}")[1] == BODY[::-1]
    assert kit.get(f"/{SNAPSHOT}.sha1")[1] == digest("sha1", BODY[::-1])
