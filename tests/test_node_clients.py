"""The clients of the npm registry, each from end to end, pointed at it by the documentation's own lines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from tests import clients
from tests.journey import Journey
from tests.origin import Origin

pytestmark = pytest.mark.journey


class _NodeJourney(Journey):
    """
    A package and the scoped one that it requires, into ``node_modules``.

    :cvar typed: the name that the lines call it by.
    :cvar line: the remark behind the documentation's line for it.
    :cvar installs: what is typed to install.
    :cvar frozen: what is typed to install by the lock file alone.
    """

    registry = "npm"
    typed: ClassVar[str]
    line: ClassVar[str]
    installs: ClassVar[str]
    frozen: ClassVar[str]

    def publish(self, origin: Origin) -> str:
        uses = {"index.js": b"module.exports = require('@scope/right')\n"}
        origin.add_tarball("left", "1.0.0", uses, {"@scope/right": "^1.0.0"})
        return origin.add_tarball("@scope/right", "1.0.0")

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        package = {"name": "p", "version": "1.0.0", "private": True, "dependencies": {"left": "^1.0.0"}}
        (place / "package.json").write_text(json.dumps(package))
        line = clients.documented("npm", url, self.line)
        lines = [line, self.frozen if locked else self.installs, "node -e \"require('left')\""]
        return clients.script(lines, place, {self.typed: self.client}, **self.variables())

    def variables(self) -> dict[str, str]:
        """What the client is told by its environment."""
        return {}


class _Npm(_NodeJourney):
    locks = ("package-lock.json",)
    typed = line = "npm"
    installs = "npm install --no-audit"
    frozen = "npm ci --no-audit"


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
    typed, line = "yarn", "Yarn 1"
    # What root has installed it keeps in one place for all projects, of other tests as well.
    installs = "yarn install --non-interactive --cache-folder .cache"
    frozen = "yarn install --non-interactive --frozen-lockfile --cache-folder .cache"


class TestYarnBerry(_NodeJourney):
    """Yarn 2 and later."""

    client = "yarn-berry"
    called = "yarn 4"
    locks = ("yarn.lock",)
    typed, line = "yarn", "Yarn 2 and later"
    # A directory without a lock file is taken for a part of a project further up.
    installs = "touch yarn.lock && yarn install"
    frozen = "yarn install --immutable"

    def variables(self) -> dict[str, str]:
        # It reads no HTTPS_PROXY; nothing of this machine's network is to be of help.
        own = {"ENABLE_TELEMETRY": "0", "HTTPS_PROXY": clients.NOBODY, "HTTP_RETRY": "0", "NODE_LINKER": "node-modules"}
        return {f"YARN_{name}": value for name, value in own.items()}


class _Pnpm(_NodeJourney):
    locks = ("pnpm-lock.yaml",)
    typed = line = "pnpm"
    installs = "pnpm install"
    frozen = "pnpm install --frozen-lockfile"


class TestPnpm9(_Pnpm):
    """The one before its gate for new releases."""

    client = "pnpm-9"
    called = "pnpm 9"


class TestPnpm10(_Pnpm):
    """The one that can be told to leave new releases alone."""

    client = "pnpm-10"
    called = "pnpm 10"


class TestBun(_NodeJourney):
    """Bun's package manager."""

    client = typed = line = "bun"
    locks = ("bun.lock",)
    installs = "bun install"
    frozen = "bun install --frozen-lockfile"
