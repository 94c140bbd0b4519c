"""What is shipped, and what it needs."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from regcache import __version__
from regcache.commands import parser
from regcache.options import Options

ROOT = Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", "utf-8")


def listed(section: str, option: str) -> list[str]:
    """The lines of a list in setup.cfg."""
    return [line for line in SETUP[section][option].splitlines() if line]


def requirements(section: str, option: str) -> dict[str, Requirement]:
    """The requirements of a list in setup.cfg, by normalised name."""
    found = [Requirement(line) for line in listed(section, option)]
    return {canonicalize_name(each.name): each for each in found}


@cache
def used(folder: str) -> frozenset[str]:
    """The distributions that the modules below a folder import from, our own and the standard library's left out."""
    providers = packages_distributions()
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for name in _imports(ast.parse(path.read_text("utf-8"))):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in ("benchmarks", "regcache", "tests"):
                continue
            # A namespace is shared by many: the one whose name the import begins with is meant.
            makers = {canonicalize_name(each) for each in providers.get(top, [])} - {"regcache"}
            exact = {maker for maker in makers if canonicalize_name(".".join(name.split(".")[:2])) == maker}
            assert makers, f"{path} imports {name}, which nothing provides"
            found |= exact or makers
    return frozenset(found)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_packages() -> None:
    """Every package of ours is shipped, and the folder of the plugin, which cannot be found by looking."""
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "regcache").rglob("__init__.py")}
    assert set(listed("options", "packages")) == found | {"twisted.plugins"}
    folders = {path.parent for path in (ROOT / "regcache").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_the_plugin_shares_its_folder() -> None:
    """Nothing makes packages of Twisted's folders, which would hide Twisted itself; only our plugin lies there."""
    assert [path.relative_to(ROOT).as_posix() for path in (ROOT / "twisted").rglob("*.py")] == [
        "twisted/plugins/regcache_plugin.py"
    ]


def test_the_plugin_leaves_the_reactor_to_be_chosen() -> None:
    """Neither the plugin nor what it names imports a reactor, which would defeat ``--reactor``."""
    code = (
        "import runpy, sys\n"
        "made = runpy.run_path('twisted/plugins/regcache_plugin.py')['regcache']\n"
        "import regcache, regcache.tap\n"
        "assert made.tapname == 'regcache', made.tapname\n"
        "made.options()\n"
        "sys.exit('twisted.internet.reactor' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_everything_used_is_required() -> None:
    """Whatever the package imports is among its requirements; what only the tests import, among theirs."""
    required = set(requirements("options", "install_requires"))
    extra = {name for one in ("auth", "cli", "metrics") for name in requirements("options.extras_require", one)}
    assert used("regcache") - required - extra == set()
    assert used("tests") - required - set(requirements("options.extras_require", "test")) == set()


def test_everything_required_is_used() -> None:
    """Nothing is required that is not imported."""
    assert set(requirements("options", "install_requires")) - used("regcache") == set()
    for extra in ("auth", "cli", "metrics"):
        assert set(requirements("options.extras_require", extra)) - used("regcache") == set()
    # What only the commands import is wanted by their tests as well.
    cli = set(requirements("options.extras_require", "cli"))
    assert set(requirements("options.extras_require", "test")) - used("tests") - cli == set()


def test_lower_bounds() -> None:
    """Every requirement has a lower bound, and no upper one that would bind whoever embeds the package."""
    for option, section in (
        ("install_requires", "options"),
        ("auth", "options.extras_require"),
        ("cli", "options.extras_require"),
        ("metrics", "options.extras_require"),
        ("test", "options.extras_require"),
    ):
        for name, each in requirements(section, option).items():
            assert [one.operator for one in each.specifier] == [">="], name


@pytest.mark.parametrize("group", ["console_scripts", "regcache.registries"])
def test_entry_points(group: str) -> None:
    """Every entry point leads to something; a registry's to a class that says what the seam asks of it."""
    for line in listed("options.entry_points", group):
        name, _, place = line.partition(" = ")
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert callable(found), name
        if group == "regcache.registries":
            assert isinstance(found.default_url, str)
            assert isinstance(found.option_names, tuple)


def test_the_version_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """It is year, month and a number (CalVer); the package, both command lines and the docs have it from one place."""
    assert re.fullmatch(r"\d\d\.(1[0-2]|[1-9])\.\d+", __version__)
    assert SETUP["metadata"]["version"] == "attr: regcache._version.__version__"
    for shown in (lambda: Options().parseOptions(["--version"]), lambda: parser().parse_args(["--version"])):
        with pytest.raises(SystemExit) as caught:
            shown()
        assert (caught.value.code, capsys.readouterr().out) == (0, f"regcache {__version__}\n")
    assert runpy.run_path(str(ROOT / "docs" / "conf.py"))["release"] == __version__
    said = [path for path in ROOT.glob("*.*") if path.is_file() and __version__ in path.read_text("utf-8")]
    assert {path.name for path in said} <= {"CHANGELOG.md"}


def test_every_fragment_has_a_place_in_the_changelog() -> None:
    """It is named NAME.TYPE.md, of a type that towncrier knows, and says something; nothing else lies there."""
    types = {
        one["directory"] for one in tomllib.loads((ROOT / "towncrier.toml").read_text())["tool"]["towncrier"]["type"]
    }
    for path in (ROOT / "changes").iterdir():
        if path.name not in ("template.jinja", ".gitkeep"):
            name, kind, suffix = path.name.split(".")
            assert (bool(name), kind in types, suffix) == (True, True, "md"), path.name
            assert path.read_text("utf-8").strip(), path.name
            assert not re.search(r"^\s*$", path.read_text("utf-8").strip(), re.MULTILINE), path.name


def test_types_are_shipped() -> None:
    """Whoever embeds the package gets its types."""
    assert (ROOT / "regcache" / "py.typed").exists()
    assert SETUP["options.package_data"]["regcache"] == "py.typed"


def test_data_is_shipped() -> None:
    """Whatever lies beside the modules and is no module comes with the package."""
    kinds = {".py", ".pyc"}
    for path in (ROOT / "regcache").rglob("*"):
        if path.is_dir() or path.suffix in kinds:
            continue
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert path.name in SETUP["options.package_data"][package].split(", "), path
