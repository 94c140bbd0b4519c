"""The cache as a guest in other programs: under any path, any host, beside other caches."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urljoin, urlsplit

import pytest
from attrs import frozen

from tests.origin import Origin

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "embedded.py"
JSON = "application/vnd.pypi.simple.v1+json"


@frozen
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@frozen
class Client:
    """Reaches one port, by whatever URL it is told."""

    port: int

    def get(self, url: str, **headers: str) -> Answer:
        """Ask for a URL as if its host's name led to the port; refused if the URL leads to another port."""
        parts = urlsplit(url)
        assert (parts.scheme, parts.port) == ("http", self.port)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", parts.path, headers={"Host": parts.netloc, **headers})
            response = connection.getresponse()
            return Answer(response.status, response.msg, response.read())
        finally:
            connection.close()


class Program:
    """A program that prints where it listens."""

    def __init__(self, *command: str, directory: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """End it as a supervisor would, and see that it ends in order; with no more questions if the test failed."""
        if kind is not None:
            self._process.kill()
        self._process.terminate()
        said, _ = self._process.communicate(timeout=20)
        assert kind is not None or (self._process.returncode == 0 and not said), said


@pytest.fixture(scope="module")
def mounts(registry: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The program of ``tests/mounts.py``."""
    with Program("-m", "tests.mounts", str(tmp_path_factory.mktemp("mounts")), registry.url) as program:
        yield Client(int(program.said))


def wheel_through(client: Client, page: str) -> Answer:
    """The one wheel of a project page, by the link in it."""
    found = client.get(page, Accept=JSON)
    assert found.status == 200, found.body
    [file] = json.loads(found.body)["files"]
    wheel = client.get(urljoin(page, file["url"]))
    assert (wheel.status, hashlib.sha256(wheel.body).hexdigest()) == (200, file["hashes"]["sha256"])
    return wheel


def tarball_through(client: Client, packument: str) -> Answer:
    """The tarball of a packument's only version, by the link in it."""
    found = client.get(packument)
    assert found.status == 200, found.body
    [version] = json.loads(found.body)["versions"].values()
    tarball = client.get(version["dist"]["tarball"])
    assert (tarball.status, hashlib.sha1(tarball.body).hexdigest()) == (200, version["dist"]["shasum"])
    return tarball


def test_the_example_serves_its_own_page_and_the_cache(tmp_path: Path, origin: Origin) -> None:
    """The example of the documentation works as it is, and leaves a cache that goes on without the registry."""
    origin.add_wheel("alpha", "1.0")
    for outcome in ("MISS", "HIT"):
        with Program(str(EXAMPLE), "0", str(tmp_path / "cache"), f"{origin.url}simple/") as program:
            root = program.said.split()[-1]
            client = Client(urlsplit(root).port or 0)
            assert client.get(root).body == b"A program with a cache in it.\n"
            assert wheel_through(client, f"{root}tools/packages/pypi/simple/alpha/").headers["X-Cache"] == outcome
        origin.close()


def test_nothing_is_imported_from_the_directory_it_is_started_in(tmp_path: Path, origin: Origin) -> None:
    """A page so large that the helper process reads it is served, whatever Python files lie around."""
    (tmp_path / "gzip.py").write_text("raise SystemExit('this is not what was meant')\n")
    files = [{"filename": f"big-{number}.zip", "url": f"big-{number}.zip", "hashes": {}} for number in range(1000)]
    page = {"meta": {"api-version": "1.0"}, "name": "big", "files": files}
    origin.add("/simple/big/", json.dumps(page).encode(), JSON)
    with Program(str(EXAMPLE), "0", "cache", f"{origin.url}simple/", directory=tmp_path) as program:
        root = program.said.split()[-1]
        found = Client(urlsplit(root).port or 0).get(f"{root}tools/packages/pypi/simple/big/", Accept=JSON)
        assert (found.status, len(json.loads(found.body)["files"])) == (200, 1000)


@pytest.mark.parametrize("mount", ["one.example:{}/deep/our%20tools/pypi/", "three.example:{}/"])
def test_links_of_an_index_lead_back_to_where_the_client_came_from(mounts: Client, mount: str) -> None:
    """A package index below two paths, or at the root of a host of its own: its links can be followed."""
    wheel_through(mounts, f"http://{mount.format(mounts.port)}simple/alpha/")


@pytest.mark.parametrize("mount", ["one.example:{}/deep/our%20tools/npm/", "two.example:{}/js/"])
def test_links_of_a_packument_lead_back_to_where_the_client_came_from(mounts: Client, mount: str) -> None:
    """An npm registry below two paths, or alone on another host: its links begin with the mount that was asked."""
    base = f"http://{mount.format(mounts.port)}"
    [version] = json.loads(mounts.get(f"{base}left").body)["versions"].values()
    assert version["dist"]["tarball"] == f"{base}left/-/left-1.0.0.tgz"
    tarball_through(mounts, f"{base}left")


def test_mounts_of_one_cache_share_what_is_stored(mounts: Client, registry: Origin) -> None:
    """What came by one mount is there for the other, whose registry is not asked again."""
    tarball_through(mounts, f"http://one.example:{mounts.port}/deep/our%20tools/npm/left")
    before = list(registry.asked)
    tarball_through(mounts, f"http://two.example:{mounts.port}/js/left")
    assert registry.asked == before


def test_two_caches_in_one_process_share_nothing(mounts: Client, registry: Origin) -> None:
    """Each has its own directory, answers its own way, and asks the registry for itself."""
    first = f"http://one.example:{mounts.port}/deep/our%20tools/"
    second = f"http://one.example:{mounts.port}/second/"
    tarball_through(mounts, f"{first}npm/left")
    before = len(registry.asked)
    assert json.loads(mounts.get(f"{second}-/health").body)["entries"] == 0
    assert tarball_through(mounts, f"{second}npm/left").headers["X-Cache"] == "MISS"
    assert registry.asked[before:] == ["/left", "/left/-/left-1.0.0.tgz"]


def test_there_is_no_service_before_it_is_started(mounts: Client) -> None:
    """A mounted cache answers 503 and says when to come back, until its service has started."""
    page = f"http://one.example:{mounts.port}/waiting/pypi/simple/alpha/"
    early = mounts.get(page)
    assert (early.status, early.headers["Retry-After"]) == (503, "5")
    assert b"not running yet" in early.body
    assert mounts.get(f"http://one.example:{mounts.port}/start").status == 200
    wheel_through(mounts, page)


def test_access_is_checked_wherever_it_is_mounted(mounts: Client) -> None:
    """A client outside the allowed networks reads which address was refused, and what would allow it."""
    refused = mounts.get(f"http://one.example:{mounts.port}/closed/pypi/simple/alpha/")
    assert refused.status == 403
    assert b"127.0.0.1" in refused.body
    assert b"--allow" in refused.body


def test_names_are_checked_wherever_it_is_mounted(mounts: Client) -> None:
    """Under a host name that nobody gave it, a mounted cache does not answer, though its Site does."""
    refused = mounts.get(f"http://four.example:{mounts.port}/deep/our%20tools/pypi/simple/alpha/")
    assert refused.status == 421
    assert b"four.example" in refused.body
    assert b"--hosts" in refused.body


@pytest.mark.parametrize(("mount", "page"), [("guarded", "npm/left"), ("guarded-js", "left")])
def test_who_asks_is_asked_in_any_program(mounts: Client, mount: str, page: str) -> None:
    """A mounted cache that wants to know who asks wants it on every page but the one that says that it lives."""
    base = f"http://one.example:{mounts.port}/{mount}/"
    for path in ("", page, "-/health", "-/clients/npm", "none/such"):
        assert mounts.get(base + path).status == 401, path
    assert mounts.get(base + page, Authorization="Bearer t0ken").status == 200
    live = mounts.get(f"http://elsewhere.example:{mounts.port}/{mount}/-/health/live")
    assert (live.status, live.body) == (200, b"ok\n")
