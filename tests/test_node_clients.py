"""The clients of the npm registry, each from end to end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from tests import clients
from tests.journey import Journey
from tests.origin import Origin

pytestmark = pytest.mark.journey


class _NodeJourney(Journey):
    """
    A package and the scoped one that it requires, into ``node_modules``.

    :cvar frozen: the command for an install by the lock file alone.
    """

    registry = "npm"
    frozen: ClassVar[tuple[str, ...]] = ("install", "--frozen-lockfile")

    def publish(self, origin: Origin) -> str:
        origin.add_tarball("@scope/right", "1.0.0")
        uses = {"index.js": b"module.exports = require('@scope/right')\n"}
        origin.add_tarball("left", "1.0.0", uses, {"@scope/right": "^1.0.0"})
        return "/@scope/right/-/right-1.0.0.tgz"

    def configure(self, url: str, place: Path) -> list[str]:
        """Write the client's configuration; what its command line says besides."""
        raise NotImplementedError

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        package = {"name": "p", "version": "1.0.0", "private": True, "dependencies": {"left": "^1.0.0"}}
        (place / "package.json").write_text(json.dumps(package))
        options = self.configure(url, place)
        command = self.frozen if locked else ("install",)
        installed = clients.run([clients.program(self.client), *command, *options], place)
        if installed.returncode:
            return installed
        return clients.run([clients.program("node"), "-e", "require('left')"], place)


class _Npm(_NodeJourney):
    locks = ("package-lock.json",)
    frozen = ("ci",)

    def configure(self, url: str, place: Path) -> list[str]:
        (place / ".npmrc").write_text(f"registry={url}\ncache={place}/cache\nfetch-retries=0\n")
        return ["--no-audit", "--no-fund"]


class TestNpm10(_Npm):
    """The npm of Node 20 and 22."""

    client = "npm-10"
    called = "npm 10"


class TestNpm11(_Npm):
    """The npm of Node 24."""

    client = "npm-11"
    called = "npm 11"


class TestYarn1(_NodeJourney):
    """Yarn classic."""

    client = "yarn-1"
    called = "yarn 1"
    locks = ("yarn.lock",)

    def configure(self, url: str, place: Path) -> list[str]:
        (place / ".yarnrc").write_text(f'registry "{url}"\n')
        return ["--non-interactive", "--no-progress", "--cache-folder", str(place / "cache")]


class TestYarnBerry(_NodeJourney):
    """Yarn 2 and later."""

    client = "yarn-berry"
    called = "yarn 4"
    locks = ("yarn.lock",)
    frozen = ("install", "--immutable")

    def configure(self, url: str, place: Path) -> list[str]:
        settings = {
            "npmRegistryServer": url,
            "unsafeHttpWhitelist": [urlsplit(url).hostname],
            "globalFolder": str(place / "global"),
            "enableGlobalCache": False,
            "enableTelemetry": False,
            "httpRetry": 0,
            # It reads no HTTPS_PROXY; nothing of this machine's network is to be of help.
            "httpsProxy": clients.NOBODY,
            "nodeLinker": "node-modules",
        }
        # Its configuration is YAML, which JSON is a part of.
        (place / ".yarnrc.yml").write_text(json.dumps(settings))
        # A directory without one is taken for a part of a project further up.
        (place / "yarn.lock").touch()
        return []


class _Pnpm(_NodeJourney):
    locks = ("pnpm-lock.yaml",)

    def configure(self, url: str, place: Path) -> list[str]:
        lines = [f"registry={url}", f"store-dir={place}/store", f"cache-dir={place}/cache", "fetch-retries=0", ""]
        (place / ".npmrc").write_text("\n".join(lines))
        return []


class TestPnpm9(_Pnpm):
    """Two names for the store in two years: each of both majors is in use."""

    client = "pnpm-9"
    called = "pnpm 9"


class TestPnpm10(_Pnpm):
    """The one whose own gate reads when a version was published."""

    client = "pnpm-10"
    called = "pnpm 10"


class TestBun(_NodeJourney):
    """Bun's package manager."""

    client = "bun"
    locks = ("bun.lock",)

    def configure(self, url: str, place: Path) -> list[str]:
        (place / "bunfig.toml").write_text(f'[install]\nregistry = "{url}"\n[install.cache]\ndir = "{place}/cache"\n')
        return []
