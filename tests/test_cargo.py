"""Cargo: its sparse index, its crates, and cargo itself."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from regcache.errors import BadDocument, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.registries import make
from regcache.routes import Artifact, Document, RegistryOptions, Source
from regcache.testing import Ask, Page, RegistryContract, Sample
from tests import clients
from tests.journey import Journey
from tests.origin import Origin

UPSTREAM = "https://index.example/"
FILES = "https://files.example/crates"


def crate(name: str, version: str, needs: str = "") -> bytes:
    """A crate as ``cargo package`` makes it; it may need another."""
    manifest = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n[dependencies]\n'
    manifest += f'{needs} = "1"\n' if needs else ""
    files = {"Cargo.toml": manifest, "src/lib.rs": f'pub fn name() -> &\'static str {{ "{name}" }}\n'}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


def line(name: str, version: str, body: bytes, needs: str = "") -> bytes:
    """The line of the index for a release."""
    dependency = {"name": needs, "req": "^1", "features": [], "optional": False, "default_features": True}
    dependency |= {"target": None, "kind": "normal"}
    release = {"name": name, "vers": version, "deps": [dependency] if needs else [], "features": {}, "yanked": False}
    return json.dumps({**release, "cksum": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


def config(template: str, **more: object) -> bytes:
    """An upstream's configuration."""
    return json.dumps({"dl": template, **more}).encode()


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "cargo"

    def sample(self) -> Sample:
        body = crate("alpha", "1.0.0")
        checksum = hashlib.sha256(body).hexdigest()
        return Sample(
            url=UPSTREAM,
            pages={
                f"{UPSTREAM}config.json": Page(body=config(FILES, api="https://files.example")),
                f"{UPSTREAM}al/ph/alpha": Page(body=line("alpha", "1.0.0", body)),
                f"{FILES}/alpha/1.0.0/download": Page(body=body),
                "https://files.example/api/v1/crates?q=al": Page(body=b'{"crates": [], "meta": {"total": 0}}'),
            },
            documents=(Ask("/config.json"), Ask("/al/ph/alpha"), Ask("/api/https/files.example/api/v1/crates?q=al")),
            artifacts={
                Ask(f"/dl/{checksum}/https/files.example/crates/alpha/1.0.0/download"): f"{FILES}/alpha/1.0.0/download"
            },
            hosts=frozenset({"files.example"}),
            nameless=frozenset({Ask("/config.json")}),
            options={"artifact_hosts": ("files.example",)},
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        if ask.path != "/config.json":
            return []
        found = json.loads(body)
        written = found["dl"].replace("{sha256-checksum}", "0" * 64).replace("{crate}", "a").replace("{version}", "1")
        return [written, found["api"] + "/api/v1/crates"]


@pytest.mark.journey
class TestCargo(Journey):
    """The real cargo."""

    client = "cargo"
    registry = "cargo"
    locks = ("Cargo.lock",)

    def publish(self, origin: Origin) -> str:
        origin.add("/config.json", config(f"{origin.url}files/{{crate}}-{{version}}.crate"), "application/json")
        for name, needs in (("alpha", "beta"), ("beta", "")):
            body = crate(name, "1.0.0", needs)
            origin.add(f"/{name[:2]}/{name[2:4]}/{name}", line(name, "1.0.0", body, needs), "text/plain")
            origin.add(f"/files/{name}-1.0.0.crate", body)
        return "/files/beta-1.0.0.crate"

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        (place / "src").mkdir(parents=True)
        (place / "src" / "lib.rs").write_text("")
        (place / "Cargo.toml").write_text(
            '[package]\nname = "p"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nalpha = "1"\n'
        )
        replaced = '[source.crates-io]\nreplace-with = "regcache"\n[source.regcache]\n'
        (place / "home").mkdir()
        (place / "home" / "config.toml").write_text(f'{replaced}registry = "sparse+{url}"\n[net]\nretry = 0\n')
        command = [clients.program("cargo"), "fetch", *(["--locked"] if locked else [])]
        # Where rustup keeps the toolchains that its cargo chooses from.
        toolchains = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))
        return clients.run(command, place, CARGO_HOME=str(place / "home"), RUSTUP_HOME=toolchains)


REGISTRY = make(RegistryOptions(name="cargo", type="cargo", url=UPSTREAM, artifact_hosts=("files.example",)))


def route(path: str, query: str = "") -> Artifact | Document:
    """What a path means."""
    found = REGISTRY.route(RequestHead(method="GET", path=path, query=query))
    assert isinstance(found, Artifact | Document)
    return found


@pytest.mark.parametrize(
    ("path", "name"),
    [("/1/a", "a"), ("/2/ab", "ab"), ("/3/a/abc", "abc"), ("/ab/cd/abcd", "abcd"), ("/my/_c/my_crate-2", "my_crate-2")],
)
def test_index_pages(path: str, name: str) -> None:
    """A crate's page has one address, which its name makes."""
    found = route(path)
    assert (found.key, found.url) == (f"index/{name}", UPSTREAM + path[1:])


@pytest.mark.parametrize("path", ["/ab/cd/abxd", "/ab/abcd", "/3/abc", "/AB/CD/ABCD", "/abcd", "/al/ph/alpha/", "/"])
def test_what_is_no_index_page(path: str) -> None:
    """Another address is none."""
    with pytest.raises(NotFound):
        route(path)


def test_a_crate_is_known_by_its_address() -> None:
    """The address holds where a crate is upstream and what its checksum is."""
    checksum = "ab" * 32
    found = route(f"/dl/{checksum}/https/files.example/crates/a/a-1.0.0+build.crate", "x=1")
    assert isinstance(found, Artifact)
    assert found.url == "https://files.example/crates/a/a-1.0.0%2Bbuild.crate?x=1"
    assert found.digests == (Digest("sha256", checksum),)
    for authority in ("FILES.example", "files.example:443", "%EF%BD%86iles.example"):
        again = route(f"/dl/{checksum}/https/{authority}/crates/a/a-1.0.0+build.crate", "x=1")
        assert isinstance(again, Artifact)
        assert (again.key, again.url) == (found.key, found.url)
    for path in (f"/dl/{checksum}/https/evil.example/x", "/dl/abc/https/files.example/x", f"/dl/{checksum}/file//x/y"):
        with pytest.raises(NotFound):
            route(path)


@pytest.mark.parametrize(
    ("template", "led"),
    [
        (FILES, "dl/{sha256-checksum}/https/files.example/crates/{crate}/{version}/download"),
        (f"{FILES}/", "dl/{sha256-checksum}/https/files.example/crates/{crate}/{version}/download"),
        (f"{FILES}/{{lowerprefix}}/x", "dl/{sha256-checksum}/https/files.example/crates/{lowerprefix}/x"),
        (f"{FILES}/{{crate}}?v={{version}}", "dl/{sha256-checksum}/https/files.example/crates/{crate}?v={version}"),
    ],
)
def test_the_template_leads_back(template: str, led: str) -> None:
    """The upstream's template is kept within ours."""
    base = "http://here.example/cargo/"
    source = Source(body=config(template), content_type="application/json", url=f"{UPSTREAM}config.json")
    made = json.loads(REGISTRY.represent("config.json", source, "config", base))
    assert made == {"dl": base + led}
    assert REGISTRY.facts("config.json", source).foreign == {}


def test_a_foreign_template_is_left_and_counted() -> None:
    """Crates of a host that may not be asked are not fetched through here, and that is said."""
    source = Source(body=config("https://far.example/{crate}"), content_type="", url=f"{UPSTREAM}config.json")
    assert json.loads(REGISTRY.represent("config.json", source, "config", "http://here.example/")) == {
        "dl": "https://far.example/{crate}"
    }
    assert REGISTRY.facts("config.json", source).foreign == {"far.example": (1, "https://far.example/{crate}")}


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"<html>", b'{"name": "beta", "vers": "1", "cksum": ""}', b'{"name": "alpha"}', b'"alpha"']
)
def test_what_is_no_page_is_refused(body: bytes) -> None:
    """A page that lists another crate, or nothing, is none."""
    source = Source(body=body, content_type="text/plain", url=f"{UPSTREAM}al/ph/alpha")
    with pytest.raises(BadDocument):
        REGISTRY.facts("index/alpha", source)
