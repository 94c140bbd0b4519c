"""The main job, with the real service as a process of its own, and real clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import clients
from tests.origin import Answer, Origin
from tests.service import Running, free_port

pytestmark = pytest.mark.e2e

Start = Callable[..., Running]
#: Each client: the command, given the service's URL and a directory, that installs a package published for it.
CLIENTS: dict[str, Callable[[str, Path], list[str]]] = {
    "pip": lambda url, place: clients.pip_install(f"{url}pypi/simple/", place, "alpha"),
    "uv": lambda url, place: clients.uv_install(f"{url}pypi/simple/", place, "alpha"),
    "npm": lambda url, place: clients.npm_install(f"{url}npm/", place, "left"),
}


def each_with(argument: str, *values: str) -> pytest.MarkDecorator:
    """
    Every client with every value under the marker ``soak``; by default each client and each value once.

    What the service does of a fault does not depend on who asks, and is tried with every one in the fault matrix; what
    a client makes of it is seen by one.
    """
    pairs = [(client, value) for client in sorted(CLIENTS) for value in values]
    # The last is met twice: uv, the last client, is not on every machine.
    usual = [*zip(sorted(CLIENTS), values, strict=True), (sorted(CLIENTS)[0], values[-1])]
    return pytest.mark.parametrize(
        ("install", argument),
        [pytest.param(*pair, marks=() if pair in usual else pytest.mark.soak) for pair in pairs],
        indirect=["install"],
    )


@pytest.fixture(params=sorted(CLIENTS))
def install(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Installs with a real client, each time into a new place and with an empty cache."""
    number = 0

    def installing(url: str) -> subprocess.CompletedProcess[str]:
        nonlocal number
        number += 1
        place = tmp_path / f"client-{number}"
        return clients.run(CLIENTS[request.param](url, place), place)

    return installing


Install = Callable[[str], subprocess.CompletedProcess[str]]


def publish(origin: Origin) -> list[str]:
    """A package for each client; the paths of the artifacts."""
    return [origin.add_wheel("alpha", "1.0"), origin.add_tarball("left", "1.0.0")]


def test_what_was_installed_is_installed_again_in_an_outage_and_offline(
    origin: Origin, start: Start, install: Install
) -> None:
    """The registry stopped, or regcache told not to ask it: every build goes on."""
    publish(origin)
    service = start()
    assert install(service.url).returncode == 0
    origin.close()
    assert install(service.url).returncode == 0
    service.stop()
    service = start("--offline")
    assert install(service.url).returncode == 0
    status, _, text = service.get("pypi/simple/never/")
    assert status == 504
    assert b"offline" in text.lower()
    service.stop()


@each_with("trouble", "html", "500", "hang")
def test_a_registry_in_trouble_spares_what_is_stored(
    origin: Origin, start: Start, install: Install, trouble: str
) -> None:
    """Hanging, answering 500, or answering a web page with 200: what is stored is served, marked stale."""
    publish(origin)
    service = start("--ttl", "1ms", "--upstream-timeout", "300ms", "--cold-timeout", "600ms")
    assert service.get("pypi/simple/alpha/")[1]["X-Cache"] == "MISS"
    assert install(service.url).returncode == 0
    if trouble == "hang":
        origin.trouble = lambda _path: "hang"
    elif trouble == "500":
        origin.spoil = lambda _path, _answer: (500, "text/plain", b"broken\n")
    else:
        origin.spoil = lambda _path, _answer: (200, "text/html", b"<html><title>Log in to the network</title></html>")
    assert install(service.url).returncode == 0
    assert service.get("pypi/simple/alpha/")[1]["X-Cache"] == "STALE"
    assert service.get("pypi/simple/unknown/")[0] in (502, 504)
    service.stop()


@each_with("fault", "cut", "swapped", "flipped")
def test_a_bad_artifact_is_refused_and_asked_for_again(
    origin: Origin, start: Start, install: Install, fault: str
) -> None:
    """A corrupt, truncated or swapped body reaches nobody as a package, is not stored, and the next request retries."""
    bad = publish(origin)
    other = origin.body(origin.add_wheel("other", "1.0"))

    def spoil(path: str, answer: Answer) -> Answer:
        if path not in bad or fault == "cut":
            return answer
        body = other if fault == "swapped" else answer[2][:-1] + bytes([answer[2][-1] ^ 1])
        return answer[0], answer[1], body

    origin.spoil = spoil
    origin.trouble = lambda path: "cut" if fault == "cut" and path in bad else ""
    service = start()
    assert install(service.url).returncode != 0
    origin.spoil = lambda _path, answer: answer
    origin.trouble = lambda _path: ""
    assert install(service.url).returncode == 0
    service.stop()


def test_a_lock_of_uv_installs_offline(tmp_path: Path, origin: Origin, start: Start) -> None:
    """A uv.lock made through regcache installs frozen, with nothing but what is stored."""
    publish(origin)
    service = start("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    place = tmp_path / "project"
    place.mkdir()
    (place / "pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n'
        f'[[tool.uv.index]]\nurl = "{service.url}pypi/simple/"\ndefault = true\n'
    )
    uv = [clients.program("uv"), "--no-cache", "--project", str(place)]
    assert clients.run([*uv, "lock", "--python", sys.executable], place).returncode == 0
    assert f"{service.url}pypi/" in (place / "uv.lock").read_text()
    sync = [*uv, "sync", "--frozen", "--python", sys.executable]
    assert clients.run(sync, place).returncode == 0
    service.stop()
    again = start("--offline", "--listen", f"tcp:{service.url.split(':')[2].strip('/')}:interface=127.0.0.1")
    assert clients.run([*sync, "--reinstall"], place).returncode == 0
    again.stop()


def test_a_lock_of_npm_asks_for_one_small_proof_a_package(tmp_path: Path, origin: Origin, start: Start) -> None:
    """A frozen npm install through an empty cache: one tarball and one manifest each go upstream, and nothing else."""
    names = [f"package-{number}" for number in range(5)]
    for name in names:
        origin.add_tarball(name, "1.0.0")
    service = start()
    place = tmp_path / "project"
    assert clients.run(clients.npm_install(origin.url, place, *names), place).returncode == 0
    origin.asked.clear()
    npm = [clients.program("npm"), "ci", "--prefix", str(place), "--cache", str(tmp_path / "empty"), "--no-audit"]
    npm += ["--registry", f"{service.url}npm/", "--replace-registry-host", "always"]
    assert clients.run(npm, place).returncode == 0
    expected = [path for name in names for path in (f"/{name}/1.0.0", f"/{name}/-/{name}-1.0.0.tgz")]
    assert sorted(origin.asked) == sorted(expected)
    service.stop()


def test_the_client_lines_of_the_apache_recipe_work_unchanged(tmp_path: Path, origin: Origin, start: Start) -> None:
    """One registry at the root of its own port, at an address of its own."""
    publish(origin)
    pypi, npm = free_port("127.1.1.1"), free_port("127.1.1.1")
    listen = [f"pypi@tcp:{pypi}:interface=127.1.1.1", f"npm@tcp:{npm}:interface=127.1.1.1"]
    service = start("--listen", listen[0], "--listen", listen[1])
    place = tmp_path / "pip"
    assert clients.run(clients.pip_install(f"http://127.1.1.1:{pypi}/simple", place, "alpha"), place).returncode == 0
    place = tmp_path / "npm"
    assert clients.run(clients.npm_install(f"http://127.1.1.1:{npm}", place, "left"), place).returncode == 0
    service.stop()


def test_builds_need_no_way_out_but_the_cache(tmp_path: Path, origin: Origin, start: Start) -> None:
    """Inside a network namespace whose only connection is regcache's socket, pip, uv and npm install."""
    publish(origin)
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made here")
    path = tmp_path / "regcache.sock"
    service = start("--listen", f"unix:{path}")
    url = "http://127.0.0.1:8650/"
    places = {name: tmp_path / f"inside-{name}" for name in CLIENTS}
    for place in places.values():
        place.mkdir()
    commands = [[*command(url, places[name])] for name, command in CLIENTS.items()]
    inside = [sys.executable, "-m", "tests.namespace", str(path), json.dumps(commands), origin.url]
    ended = subprocess.run(
        [*alone, *inside], env=clients.environment(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.split() == ["0", "0", "0"]
    service.stop()


def test_wrong_options_are_one_line(tmp_path: Path) -> None:
    """A wrong value ends the program with status 2 and one line on standard error."""
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "regcache", "--ttl", "soon"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("regcache: --ttl")
    assert ended.stderr.count("\n") == 1


def test_a_port_in_use_ends_the_program(tmp_path: Path, origin: Origin, start: Start) -> None:
    """An address that cannot be listened on is one line, never a service that listens to nothing."""
    service = start()
    port = service.url.split(":")[2].strip("/")
    command = [str(Path(sys.executable).with_name("regcache")), "serve", "--cache-dir", str(tmp_path / "other")]
    command += ["--registries", f"pypi={origin.url}", "--listen", f"tcp:{port}:interface=127.0.0.1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ended.returncode == 1
    assert f"{port}" in ended.stderr
    assert ended.stderr.count("\n") == 1
    service.stop()


def test_a_cache_directory_in_use_ends_the_program(tmp_path: Path, origin: Origin, start: Start) -> None:
    """Two services on one directory: the second says so in one line and ends."""
    service = start()
    command = [str(Path(sys.executable).with_name("regcache")), "serve", "--cache-dir", str(tmp_path / "cache")]
    command += ["--registries", f"pypi={origin.url}", "--listen", "tcp:0:interface=127.0.0.1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("regcache: ")
    assert ended.stderr.count("\n") == 1
    service.stop()


@pytest.mark.parametrize(("interface", "address"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2")])
def test_links_lead_where_the_client_has_connected_to(
    origin: Origin, start: Start, interface: str, address: str
) -> None:
    """Of a client that names no host; on a port of one address, and on one of all."""
    publish(origin)
    port = free_port()
    start("--listen", f"tcp:{port}:interface={interface}")
    for _ in range(3):
        with socket.create_connection((address, port)) as connection, connection.makefile("rb") as answer:
            connection.sendall(b"GET /npm/left HTTP/1.0\r\n\r\n")
            assert f'"http://{address}:{port}/npm/left/-/'.encode() in answer.read()
