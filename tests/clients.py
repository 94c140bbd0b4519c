"""The real clients, each with nothing but what its command line says, and with an empty cache of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from regcache.registries import make
from regcache.routes import RegistryOptions

__all__ = [
    "NOBODY",
    "documented",
    "environment",
    "npm_install",
    "pip_install",
    "program",
    "run",
    "script",
    "uv_install",
]

#: A proxy that does not exist.
NOBODY = "http://127.0.0.1:9/"


def program(name: str) -> str:
    """
    The path of a client.

    Where it is missing the test is skipped, except in CI, which installs it.
    """
    installed = os.environ.get("REGCACHE_CLIENTS")
    places = [Path(installed, "bin")] if installed else []
    beside = [place / name for place in (*places, Path(sys.executable).parent)]
    found = next((str(one) for one in beside if one.exists()), shutil.which(name))
    if found is None:
        if os.environ.get("REGCACHE_CI"):
            pytest.fail(f"{name} is missing")
        pytest.skip(f"{name} is not installed here")
    return found


def environment(home: Path) -> dict[str, str]:
    """Variables that tell a client nothing of this machine, and let it ask nobody but loopback."""
    return {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOBODY),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,127.1.1.1"),
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_HTTP_RETRIES": "0",
        "UV_PYTHON_DOWNLOADS": "never",
        "NPM_CONFIG_FETCH_RETRIES": "0",
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
        "NPM_CONFIG_USERCONFIG": os.devnull,
    }


def run(command: list[str], place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a client in a directory, with more variables; what it says is kept."""
    place.mkdir(exist_ok=True)
    told = {**environment(place), **variables}
    return subprocess.run(command, env=told, cwd=place, capture_output=True, text=True, timeout=240)


def documented(registry: str, url: str, client: str) -> str:
    """The line of the documentation that points a client at a mount, by the remark behind it."""
    made = make(RegistryOptions(name=registry, type=registry))
    (found,) = [line for line in made.client_lines(url) if line.partition("   # ")[2].split(",")[0] == client]
    return found


def script(
    lines: Iterable[str], place: Path, programs: Mapping[str, str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """
    Run lines of a shell in a directory, up to the first that fails, as a user would type them.

    :param programs: by what names those lines call the clients, and by what they are installed here.
    """
    tools = place / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    for name, installed in programs.items():
        # Not a link: some find themselves by the path that they are called by.
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(program(installed))} "$@"\n')
        (tools / name).chmod(0o755)
    # The client's own configuration is what is set up here.
    text = "\n".join(["set -e", "unset PIP_CONFIG_FILE NPM_CONFIG_USERCONFIG", *lines])
    variables["PATH"] = f"{tools}:{os.environ.get('PATH', os.defpath)}"
    return run(["sh", "-c", text], place, XDG_CONFIG_DIRS=str(place / "none"), **variables)


def pip_install(index: str, place: Path, *names: str) -> list[str]:
    """The command that installs with pip into ``place``."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--retries", "0"]
    return [*command, "--index-url", index, "--target", str(place / "installed"), *names]


def uv_install(index: str, place: Path, *names: str) -> list[str]:
    """The command that installs with uv into ``place``."""
    command = [program("uv"), "pip", "install", "-q", "--no-cache", "--python", sys.executable]
    return [*command, "--default-index", index, "--target", str(place / "installed"), *names]


def npm_install(registry: str, place: Path, *names: str) -> list[str]:
    """The command that installs with npm into ``place``."""
    command = [program("npm"), "install", "--prefix", str(place), "--cache", str(place / "cache"), "--no-audit"]
    return [*command, "--fetch-retries", "0", "--registry", registry, *names]
