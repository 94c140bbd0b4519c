"""
The clients of each type of registry: in which file of its own each is told where to ask, and how that is written.

A client that knows only environment variables has no file; its line says what to put where.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from regcache.clients.blocks import block_add, block_set
from regcache.clients.lines import ini_add, ini_set, property_set, yarn_set
from regcache.clients.markup import maven_mirror, nuget_source
from regcache.clients.tables import item_put, table_set
from regcache.registries import factory

__all__ = ["Client", "clients_of"]

Edit = Callable[[str], str]


@frozen
class Client:
    """
    One client.

    :ivar programs: by which it is known to be installed.
    :ivar file: where it is told; None where there is no such file.
    :ivar edit: the text of that file as it was, to what it is to be; raises Malformed.
    :ivar instead: where there is no file, the line to copy.
    """

    name: str
    programs: tuple[str, ...]
    file: Path | None = None
    edit: Edit = str
    instead: str = ""


@frozen
class _Home:
    """Where this user's files are, as the clients look for them."""

    environ: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The home directory."""
        return Path(self.environ.get("HOME") or os.path.expanduser("~"))

    @property
    def config(self) -> Path:
        """The directory of configurations (XDG Base Directory Specification)."""
        named = self.environ.get("XDG_CONFIG_HOME", "")
        return Path(named) if os.path.isabs(named) else self.path / ".config"

    @property
    def support(self) -> Path:
        """The same for those that keep to the habits of macOS there."""
        return self.path / "Library/Application Support" if sys.platform == "darwin" else self.config

    def named(self, variable: str, default: Path) -> Path:
        """The path that a variable names, or the usual one."""
        found = self.environ.get(variable, "")
        return Path(found) if found and found != os.devnull else default


def clients_of(kind: str, base: str, environ: Mapping[str, str], place: Path) -> list[Client]:
    """
    The clients of a type of registry.

    :param base: where it is reached.
    :param place: the directory of the project, for clients that know nothing else.
    """
    made = _MADE.get(kind)
    return made(base, _Home(environ), place) if made is not None else []


def _all(*edits: Edit) -> Edit:
    return lambda text: reduce(lambda before, edit: edit(before), edits, text)


def _is_plain(base: str) -> bool:
    """Whether it is asked without encryption, past this machine."""
    parts = urlsplit(base)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return parts.scheme == "http" and not local


def _pypi(base: str, home: _Home, place: Path) -> list[Client]:
    index, plain, netloc = f"{base}simple/", _is_plain(base), urlsplit(base).netloc
    mac = home.support / "pip"
    pip_file = (mac if mac.is_dir() else home.config / "pip") / "pip.conf"
    trusted = [ini_add("global", "trusted-host", netloc)] if plain else []
    unverified = [table_set("pypi", "verify_ssl", value=False)] if plain else []
    source = {"name": "regcache", "url": index, "priority": "primary"}
    poetry = item_put("tool", "poetry", "source", value=source, like=lambda one: one.get("name") == "regcache")
    project = place / "pyproject.toml"
    uses_poetry = (place / "poetry.lock").exists() or (project.exists() and b"[tool.poetry" in project.read_bytes())
    return [
        Client(
            "pip",
            ("pip", "pip3", "pip-compile"),
            home.named("PIP_CONFIG_FILE", pip_file),
            _all(ini_set("global", "index-url", index), *trusted),
        ),
        Client(
            "uv",
            ("uv",),
            home.named("UV_CONFIG_FILE", home.config / "uv/uv.toml"),
            item_put("index", value={"url": index, "default": True}, like=lambda one: one.get("default") is True),
        ),
        Client("poetry", ("poetry",), project, poetry)
        if uses_poetry
        else Client(
            "poetry", ("poetry",), instead=f"poetry source add --priority=primary regcache {index}   # in each project"
        ),
        Client(
            "pdm",
            ("pdm",),
            home.named("PDM_CONFIG_FILE", home.support / "pdm/config.toml"),
            _all(table_set("pypi", "url", value=index), *unverified),
        ),
        Client("pipenv", ("pipenv",), instead=_variable("PIPENV_PYPI_MIRROR", index)),
        Client(
            "setuptools",
            ("easy_install",),
            home.path / ".pydistutils.cfg",
            ini_set("easy_install", "index_url", index),
        ),
        Client("buildout", ("buildout",), home.path / ".buildout/default.cfg", ini_set("buildout", "index", index)),
    ]


def _variable(name: str, value: str) -> str:
    return f"export {name}={value}   # in ~/.profile, or in the environment of the builds"


def _npm(base: str, home: _Home, _place: Path) -> list[Client]:
    host = urlsplit(base).hostname or ""
    npmrc = home.named("NPM_CONFIG_USERCONFIG", home.path / ".npmrc")
    yarn = [block_set("npmRegistryServer", base)]
    if base.startswith("http:"):
        yarn.append(block_add("unsafeHttpWhitelist", host))
    elsewhere = home.config / ".bunfig.toml"
    return [
        Client("npm", ("npm",), npmrc, property_set("registry", base)),
        Client("pnpm", ("pnpm",), npmrc, property_set("registry", base)),
        Client("yarn1", ("yarn", "yarnpkg"), home.path / ".yarnrc", yarn_set("registry", base)),
        Client("yarn", ("yarn", "yarnpkg"), home.path / ".yarnrc.yml", _all(*yarn)),
        Client(
            "bun",
            ("bun",),
            elsewhere if elsewhere.exists() else home.path / ".bunfig.toml",
            table_set("install", "registry", value=base),
        ),
        Client("corepack", ("corepack",), instead=_variable("COREPACK_NPM_REGISTRY", base)),
    ]


def _cargo(base: str, home: _Home, _place: Path) -> list[Client]:
    edit = _all(
        table_set("source", "crates-io", "replace-with", value="regcache"),
        table_set("source", "regcache", "registry", value=f"sparse+{base}"),
        table_set("registries", "regcache", "index", value=f"sparse+{base}"),
    )
    return [Client("cargo", ("cargo",), home.named("CARGO_HOME", home.path / ".cargo") / "config.toml", edit)]


def _go(base: str, home: _Home, _place: Path) -> list[Client]:
    file = home.named("GOENV", home.support / "go/env")
    return [Client("go", ("go",), file, property_set("GOPROXY", base.rstrip("/")))]


def _maven(base: str, home: _Home, _place: Path) -> list[Client]:
    insecure = "; allowInsecureProtocol = true" if base.startswith("http:") else ""
    gradle = f"maven {{ url '{base}'{insecure} }}   // in repositories {{ }}, also of pluginManagement"
    return [
        Client("maven", ("mvn",), home.path / ".m2/settings.xml", maven_mirror(base)),
        Client("gradle", ("gradle",), instead=gradle),
    ]


def _rubygems(base: str, home: _Home, _place: Path) -> list[Client]:
    public = factory("rubygems").default_url
    # As Bundler writes a setting's name (Bundler::Settings#key_for).
    mirror = "BUNDLE_MIRROR__" + public.replace("-", "___").replace(".", "__").upper()
    user = home.named("BUNDLE_USER_HOME", home.path / ".bundle")
    return [
        Client("bundler", ("bundle",), home.named("BUNDLE_USER_CONFIG", user / "config"), block_set(mirror, base)),
        Client("gem", ("gem",), home.named("GEMRC", home.path / ".gemrc"), block_add(":sources", base, public)),
    ]


def _nuget(base: str, home: _Home, _place: Path) -> list[Client]:
    source = f"{base}v3/index.json"
    return [
        Client("dotnet", ("dotnet",), home.path / ".nuget/NuGet/NuGet.Config", nuget_source(source, "nuget.org")),
        Client("nuget", ("nuget",), home.config / "NuGet/NuGet.Config", nuget_source(source, "nuget.org")),
    ]


_MADE: dict[str, Callable[[str, _Home, Path], list[Client]]] = {
    "pypi": _pypi,
    "npm": _npm,
    "cargo": _cargo,
    "go": _go,
    "maven": _maven,
    "rubygems": _rubygems,
    "nuget": _nuget,
}
