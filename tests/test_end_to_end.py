"""The main job, with the real service as a process of its own, and real clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.origin import Answer, Origin
from tests.service import Running


@pytest.fixture
def origin() -> Iterator[Origin]:
    made = Origin()
    yield made
    made.close()


def clean_environment(directory: Path) -> dict[str, str]:
    """An environment in which a client knows of nothing but what its command says."""
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return {**kept, "HOME": str(directory), "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def pip_install(service: Running, directory: Path, name: str, target: str) -> int:
    """Install with pip, without its cache; its exit status."""
    index = f"{service.url}pypi/simple/"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--index-url", index]
    command += ["--retries", "0", "--target", str(directory / target), name]
    return subprocess.run(command, env=clean_environment(directory), capture_output=True, timeout=120).returncode


def npm_install(service: Running, directory: Path, name: str, target: str) -> int:
    """Install with npm, with an empty cache; its exit status."""
    npm = shutil.which("npm")
    if npm is None:
        if os.environ.get("REGCACHE_CI"):
            pytest.fail("npm is missing")
        pytest.skip("npm is not installed here")
    place = directory / target
    place.mkdir()
    (place / "package.json").write_text('{"name": "p", "version": "1.0.0"}')
    command = [npm, "install", "--registry", f"{service.url}npm/", "--cache", str(place / "cache"), name]
    command += ["--no-audit", "--fetch-retries", "0"]
    return subprocess.run(command, env=clean_environment(place), cwd=place, capture_output=True, timeout=120).returncode


def test_pip_and_npm_install_and_go_on_in_an_outage(tmp_path: Path, origin: Origin) -> None:
    """What was installed once is installed again with the registry gone, and after a restart offline."""
    origin.add_wheel("alpha", "1.0")
    origin.add_tarball("left", "1.0.0")
    service = Running(tmp_path, origin)
    assert pip_install(service, tmp_path, "alpha", "pip-cold") == 0
    assert npm_install(service, tmp_path, "left", "npm-cold") == 0
    origin.close()
    assert pip_install(service, tmp_path, "alpha", "pip-outage") == 0
    assert npm_install(service, tmp_path, "left", "npm-outage") == 0
    assert service.stop() == 0
    service = Running(tmp_path, origin, "--offline")
    assert pip_install(service, tmp_path, "alpha", "pip-offline") == 0
    assert npm_install(service, tmp_path, "left", "npm-offline") == 0
    assert service.get("pypi/simple/never/")[0] == 504
    assert service.stop() == 0


def test_a_flipped_byte_is_never_stored(tmp_path: Path, origin: Origin) -> None:
    """A body that does not match its digest fails at the client, and the next request tries again."""
    path = origin.add_wheel("alpha", "1.0")
    good = origin.body(path)

    def flip(asked: str, answer: Answer) -> Answer:
        return (answer[0], answer[1], answer[2][:-1] + bytes([answer[2][-1] ^ 1])) if asked == path else answer

    origin.spoil = flip
    service = Running(tmp_path, origin)
    assert service.get(f"pypi{path}")[0] == 502
    assert pip_install(service, tmp_path, "alpha", "spoiled") != 0
    origin.spoil = lambda _path, answer: answer
    assert service.get(f"pypi{path}")[2] == good
    assert pip_install(service, tmp_path, "alpha", "good") == 0
    assert service.stop() == 0


def test_hits_ranges_and_conditions(tmp_path: Path, origin: Origin) -> None:
    """A stored artifact is asked for upstream once, and answers ranges and conditions by itself."""
    path = origin.add_wheel("alpha", "1.0")
    service = Running(tmp_path, origin)
    first = service.get(f"pypi{path}")
    assert first[0] == 200
    assert first[1]["X-Cache"] == "MISS"
    second = service.get(f"pypi{path}")
    while second[1]["X-Cache"] != "HIT":  # a request before the commit joins the fill
        second = service.get(f"pypi{path}")
    assert second[2] == origin.body(path)
    part = service.get(f"pypi{path}", Range="bytes=2-5")
    assert (part[0], part[2]) == (206, origin.body(path)[2:6])
    assert service.get(f"pypi{path}", If_None_Match=second[1]["ETag"])[0] == 304
    assert origin.asked.count(path) == 1
    assert service.stop() == 0


def test_wrong_options_are_one_line(tmp_path: Path) -> None:
    """A wrong value ends the program with status 1 and one line on standard error."""
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "regcache", "--ttl", "soon"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("regcache: --ttl")
    assert ended.stderr.count("\n") == 1
