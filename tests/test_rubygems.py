"""RubyGems: the compact index, what came before it, gems, and the clients gem and Bundler."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.flow.reply import How
from regcache.http.messages import Digest, RequestHead
from regcache.registries import make
from regcache.routes import Artifact, Document, Fact, RegistryOptions, Route, Source
from regcache.testing import Ask, Kit, Page, RegistryContract, Sample, make_cache
from tests import clients
from tests.journey import Journey
from tests.origin import Origin
from tests.service import Running

UPSTREAM = "https://gems.example/"
TEXT, BINARY = "text/plain; charset=utf-8", "application/octet-stream"
#: Two gems, one of which needs the other.
RELEASES = {"alpha-1.0.0": "beta", "beta-1.0.0": "", "beta-1.1.0": ""}


def info(*versions: tuple[str, bytes], needs: str = "") -> bytes:
    """A gem's page in the compact index."""
    dependency = f"{needs}:~> 1.0" if needs else ""
    lines = [f"{number} {dependency}|checksum:{hashlib.sha256(gem).hexdigest()}" for number, gem in versions]
    return "\n".join(["---", *lines, ""]).encode()


def versions(pages: dict[str, bytes]) -> bytes:
    """The list of all versions, from each gem's page."""
    lines = ["created_at: 2024-01-01T00:00:00Z", "---"]
    for name, page in sorted(pages.items()):
        numbers = [line.split()[0] for line in page.decode().splitlines()[1:]]
        lines.append(f"{name} {','.join(numbers)} {hashlib.md5(page).hexdigest()}")
    return "\n".join([*lines, ""]).encode()


def tags(body: bytes) -> dict[str, str]:
    """What the public index says of a body: its MD5 as entity tag, and its SHA-256."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "Repr-Digest": f'sha-256="{digest}"'}


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "rubygems"

    def sample(self) -> Sample:
        gem, native = b"a gem of bytes", b"a gem of machine code"
        page = info(("1.0.0", gem), ("1.0.0-x86_64-linux", native))
        bodies = {
            "versions": versions({"a-b": page}),
            "names": b"---\na-b\n",
            "info/a-b": page,
            "specs.4.8.gz": b"\x1f\x8b\x08 marshalled",
            "latest_specs.4.8.gz": b"\x1f\x8b\x08 marshalled too",
            "prerelease_specs.4.8.gz": b"\x1f\x8b\x08 nothing",
            "quick/Marshal.4.8/a-b-1.0.0.gemspec.rz": b"\x78\x9c a gemspec",
            "api/v1/versions/a-b.json": b'[{"number": "1.0.0"}]',
        }
        gems = {"gems/a-b-1.0.0.gem": gem, "gems/a-b-1.0.0-x86_64-linux.gem": native}
        return Sample(
            url=UPSTREAM,
            pages={UPSTREAM + path: Page(body=body, headers=tags(body)) for path, body in {**bodies, **gems}.items()},
            documents=tuple(Ask(f"/{path}") for path in bodies),
            artifacts={Ask(f"/{path}"): UPSTREAM + path for path in gems},
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask, body
        return []


# Real gems, made and indexed by gem itself, for the real clients.


@functools.cache
def built(*releases: str) -> dict[str, bytes]:
    """What a registry with these releases holds, by path, less the compact index."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "out" / "gems").mkdir(parents=True)
        for release in releases:
            name, number = release.rsplit("-", 1)
            (place / "lib").mkdir(exist_ok=True)
            (place / "lib" / f"{name}.rb").write_text(f"module {name.title()}; VERSION = '{number}'; end\n")
            needs = f"spec.add_runtime_dependency '{RELEASES[release]}', '~> 1.0'" if RELEASES.get(release) else ""
            (place / "made.gemspec").write_text(
                f"Gem::Specification.new do |spec|\nspec.name = '{name}'\nspec.version = '{number}'\n"
                "spec.summary = 'tests'\nspec.authors = ['tests']\nspec.license = 'MIT'\n"
                f"spec.homepage = 'http://localhost'\nspec.files = ['lib/{name}.rb']\n{needs}\nend\n"
            )
            gem = [clients.program("gem"), "build", "-q", "made.gemspec", "-o", f"out/gems/{release}.gem"]
            done = clients.run(gem, place, SOURCE_DATE_EPOCH="1700000000")
            assert done.returncode == 0, done.stderr
        done = clients.run([clients.program("gem"), "generate_index", "-q", "-d", "out"], place)
        assert done.returncode == 0, done.stderr
        files = [path for path in (place / "out").rglob("*") if path.is_file()]
        return {f"/{path.relative_to(place / 'out').as_posix()}": path.read_bytes() for path in files}


def publish(origin: Origin, *releases: str) -> None:
    """Put releases into an origin, and the compact index of them, which gem does not make."""
    found = built(*releases)
    for path, body in found.items():
        origin.add(path, body)
    pages = {}
    for name in {release.rsplit("-", 1)[0] for release in releases}:
        gems = [one for one in releases if one.rsplit("-", 1)[0] == name]
        listed = [(gem.rsplit("-", 1)[1], found[f"/gems/{gem}.gem"]) for gem in gems]
        pages[name] = info(*listed, needs=RELEASES[gems[0]])
    lists = {f"info/{name}": page for name, page in pages.items()}
    lists |= {"versions": versions(pages), "names": "\n".join(["---", *sorted(pages), ""]).encode()}
    for path, body in lists.items():
        origin.add(f"/{path}", body, "text/plain; charset=utf-8", **tags(body))


class _Gems(Journey):
    """A client of gems."""

    registry = "rubygems"

    def publish(self, origin: Origin) -> str:
        publish(origin, *RELEASES)
        return "/gems/beta-1.1.0.gem"


@pytest.mark.journey
class TestGem(_Gems):
    """The real gem."""

    client = "gem"

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        del locked
        command = [clients.program("gem"), "install", "--no-document", "--clear-sources", "--source", url]
        return clients.run([*command, "--install-dir", str(place / "installed"), "alpha"], place)


@pytest.mark.journey
class TestBundler(_Gems):
    """The real Bundler."""

    client = "bundle"
    locks = ("Gemfile.lock",)

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        (place / "Gemfile").write_text(f'source "{url}"\ngem "alpha"\n')
        return self._bundle(place, "install", **({"BUNDLE_FROZEN": "true"} if locked else {}))

    def _bundle(self, place: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return clients.run([clients.program("bundle"), *words], place, BUNDLE_PATH="installed", **variables)

    def test_what_is_new_is_all_that_is_sent(self, tmp_path: Path, origin: Origin, begin: Callable[..., Running]) -> None:
        """A new version reaches a Bundler that has the index by the ends of the lists, on both sides of the cache."""
        publish(origin, "alpha-1.0.0", "beta-1.0.0")
        before = {path: origin.body(path) for path in ("/versions", "/info/beta")}
        log = tmp_path / "access.log"
        service = begin("--refresh-after", "1ms", "--access-log", str(log))
        place = tmp_path / "project"
        self._went_well(self.install(self._mount(service), place))
        publish(origin, *RELEASES)
        line = f"beta 1.1.0 {hashlib.md5(origin.body('/info/beta')).hexdigest()}\n"
        longer = before["/versions"] + line.encode()
        origin.add("/versions", longer, TEXT, **tags(longer))
        origin.sent.clear()
        self._went_well(self._bundle(place, "update", "--all"))
        assert "beta (1.1.0)" in (place / "Gemfile.lock").read_text()
        service.stop()
        sent = {path: size for path, _, size in origin.sent}
        told = log.read_text()
        for path, old in before.items():
            size = len(origin.body(path)) - len(old) + 1
            assert sent[path] == size, path
            assert re.search(rf"{path} HTTP/1.1\" 206 {size} ", told) or f"{path} 206 {size}" in told, told
