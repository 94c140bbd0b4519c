"""What the container image is built of, and how the service runs in it."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regcache import Config
from regcache.store.index import FORMAT
from regcache.values import duration
from tests import ways
from tests.image import DOCKERFILE, ROOT, copied, stages
from tests.origin import Origin
from tests.service import free_port

COMPOSE = (ROOT / "docs" / "examples" / "compose.yaml").read_text("utf-8")
#: This machine, but that nothing of it, nor of the directory $ALL, can be written to except two places below that.
READ_ONLY = """
set -e
for path in "$TMPDIR" "$CACHE_DIRECTORY"; do mount --bind "$path" "$path"; done
mount --rbind "$ALL" "$ALL"
for path in "$ALL" /; do mount -o remount,bind,ro "$path"; done
exec "$@"
"""


def said(name: str) -> str:
    """What the image says of something that is said once."""
    (rest,) = [rest for each, rest in stages()[-1] if each == name]
    return rest


def command(name: str) -> list[str]:
    """A command in the form that is run without a shell, which would not pass on signals."""
    listed: list[str] = json.loads(re.sub(r"^.*?CMD ", "", said(name)))
    return listed


def environment() -> dict[str, str]:
    """The variables that the image sets."""
    pairs = [pair.partition("=") for pair in shlex.split(said("ENV"))]
    return {name: value for name, _, value in pairs}


def test_what_is_copied_is_there_and_let_through() -> None:
    """Each source exists, and ``.dockerignore`` keeps back everything else."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied()
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_all_that_the_build_needs_is_copied() -> None:
    """What setup.cfg names: packages, the licence, the description; and how to build."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    needed = {name.partition(".")[0] for name in setup["options"]["packages"].split()}
    needed |= {setup["metadata"]["license_files"], setup["metadata"]["long_description"].removeprefix("file: ")}
    assert copied() == needed | {"setup.cfg", "pyproject.toml"}
    assert '".[auth,cli,metrics]"' in DOCKERFILE
    assert {"auth", "cli", "metrics"} == set(setup["options.extras_require"]) - {"test"}


def test_stages() -> None:
    """Built in one stage, run in another, both on the same slim image of a Python that setup.cfg knows."""
    assert [stage[0][1] for stage in stages()] == ["python:${PYTHON}-slim AS build", "python:${PYTHON}-slim"]
    (default,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert f"Programming Language :: Python :: {default}\n" in (ROOT / "setup.cfg").read_text("utf-8")


def test_without_privileges() -> None:
    """The user is a number that is not root's, owns the cache, and is who everything after the set-up runs as."""
    user, _, group = said("USER").partition(":")
    assert user == group
    assert int(user) >= 1000
    names = [name for name, _ in stages()[-1]]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name in ("RUN", "COPY"))
    made = said("RUN")
    assert f"--uid {user} --gid {group}" in made
    directory = environment()["CACHE_DIRECTORY"]
    assert f"install --directory --owner {user} --group {group} --mode 0700 {directory}" in made
    assert json.loads(said("VOLUME")) == [directory]


def test_the_end() -> None:
    """The service itself is the first process and is told by SIGTERM; the examples wait longer than it takes."""
    assert command("ENTRYPOINT") == ["regcache", "serve"]
    assert said("STOPSIGNAL") == "SIGTERM"
    (grace,) = re.findall(r"stop_grace_period: (\S+)", COMPOSE)
    assert duration(grace) >= 2 * Config().grace
    assert f"--stop-timeout {int(duration(grace))} " in (ROOT / "docs" / "docker.md").read_text("utf-8")


def test_the_examples_fit_the_image() -> None:
    """They name the image's port, volume and user."""
    text = (ROOT / "docs" / "docker.md").read_text("utf-8")
    port = said("EXPOSE")
    assert environment()["REGCACHE_LISTEN"] == f"tcp:{port}"
    for example in (text, COMPOSE):
        assert f"127.0.0.1:{port}:{port}" in example
        assert f":{environment()['CACHE_DIRECTORY']}\n" in example or f":{environment()['CACHE_DIRECTORY']} " in example
    assert f"chown {said('USER')} " in text


def test_the_notes_say_which_format_this_is() -> None:
    """Whoever raises it says so to whoever upgrades."""
    assert f"now {FORMAT}." in (ROOT / "docs" / "upgrading.md").read_text("utf-8")


def inside(directory: Path, registry: str) -> dict[str, str]:
    """The environment of a process in the image, but for where things are on this machine."""
    found = {**environment(), "CACHE_DIRECTORY": str(directory / "cache"), "REGCACHE_REGISTRIES": f"npm={registry}"}
    found["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found |= ways.variables()
    return {**found, "REGCACHE_LISTEN": f"tcp:{free_port()}:interface=127.0.0.1", "HOME": "/nonexistent"}


def checked(environ: dict[str, str]) -> int:
    """What the image's health check ends with; like Docker it gives it as long as the image says."""
    (patience,) = re.findall(r"--timeout=(\S+)", said("HEALTHCHECK"))
    run = subprocess.run(command("HEALTHCHECK"), env=environ, capture_output=True, timeout=3 * duration(patience))
    return run.returncode


def test_the_health_check_and_the_entry_point(tmp_path: Path, origin: Origin) -> None:
    """
    As in a container: the first process of its own, on a file system that is read-only but for the cache and /tmp.

    The check is good while the service runs and bad afterwards, and SIGTERM ends it with status 0.
    """
    (tmp_path / "cache").mkdir()
    (tmp_path / "tmp").mkdir()
    environ = {**inside(tmp_path, origin.url), "ALL": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    apart += ["sh", "-c", READ_ONLY, "sh"]
    refused = "not there"
    if shutil.which("unshare"):
        tried = subprocess.run([*apart, "true"], env=environ, capture_output=True, text=True)
        refused = tried.stderr.strip()
    if refused:
        pytest.skip(f"no file system can be made read-only here: {refused}")
    wrote = subprocess.run([*apart, "touch", str(tmp_path / "more")], env=environ, capture_output=True, text=True)
    assert "Read-only file system" in wrote.stderr
    service = subprocess.Popen(
        [*apart, *command("ENTRYPOINT")], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert service.stdout is not None
        printed = ""
        while "cache in" not in printed:
            line = service.stdout.readline()
            assert line, printed
            printed += line
        assert checked(environ) == 0
        (first,) = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        rest, _ = service.communicate(timeout=20)
    finally:
        service.kill()
        service.wait()
    assert service.returncode == 0, rest
    assert "Traceback" not in printed + rest
    assert checked(environ) == 3
