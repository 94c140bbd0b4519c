"""The architecture: what may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from regcache.http.messages import RequestHead
from regcache.registries import factory, make
from regcache.routes import Artifact, RegistryOptions
from tests.own import own_names

ROOT = Path(__file__).parent.parent
#: The level of each part; what is not named has the level of the package it is in.
LEVELS = {
    "regcache._version": 0,
    "regcache.counts": 0,
    "regcache.failures": 0,
    "regcache.errors": 0,
    "regcache.limits": 0,
    "regcache.logs": 0,
    "regcache.revision": 0,
    "regcache.values": 0,
    "regcache.words": 0,
    "regcache.http.messages": 0,  # the words that all the others speak in
    "regcache.http.origins": 0,
    "regcache.http.proxies": 0,
    "regcache.credentials": 0,
    "regcache.routes": 0,
    "regcache.interfaces": 0,
    "regcache.config": 0,
    "regcache.settings": 0,
    "regcache.following": 0,
    "regcache.cautions": 0,
    "regcache.places": 0,
    "regcache.ownership": 1,
    "regcache.http": 1,
    "regcache.registries": 2,
    "regcache.store": 2,
    "regcache.flow": 3,
    "regcache.access": 4,
    "regcache.accesslog": 4,
    "regcache.answering": 4,
    "regcache.auth": 4,
    "regcache.balanced": 4,
    "regcache.descriptors": 4,
    "regcache.example": 5,
    "regcache.endings": 4,
    "regcache.express": 4,
    "regcache.heads": 4,
    "regcache.house": 4,
    "regcache.kept": 4,
    "regcache.hurry": 4,
    "regcache.lean": 4,
    "regcache.gate": 4,
    "regcache.lines": 4,
    "regcache.metrics": 4,
    "regcache.page": 4,
    "regcache.pages": 4,
    "regcache.pulse": 4,
    "regcache.readers": 4,
    "regcache.readiness": 4,
    "regcache.signals": 4,
    "regcache.site": 4,
    "regcache.stamps": 4,
    "regcache.supervised": 4,
    "regcache.targets": 4,
    "regcache.web": 4,
    "regcache.offhand": 4,
    "regcache.outlet": 4,
    "regcache.outlook": 4,
    "regcache.pagewise": 4,
    "regcache.mending": 5,
    "regcache.doctor": 6,
    "regcache.clients": 6,
    "regcache.admin": 5,
    "regcache.commands": 6,
    "regcache.garbage": 4,
    "regcache.options": 5,
    "regcache.outward": 5,
    "regcache.ports": 4,
    "regcache.listening": 5,
    "regcache.renewal": 4,
    "regcache.reload": 5,
    "regcache.tap": 5,
    "regcache.testing": 5,
    "regcache.__main__": 6,
    "regcache": 6,
}
#: What reaches out of the process, or differs from one call to the next.
AMBIENT = {
    *("asyncio", "http", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors"),
    *("shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "treq"),
    *("twisted", "uuid"),
}


def modules() -> dict[str, ast.Module]:
    """The syntax of every module, by name."""
    found = {}
    for path in sorted((ROOT / "regcache").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


MODULES = modules()


def imports(tree: ast.AST, checked: bool = True) -> Iterator[str]:
    """Every name that a module imports, with what it takes from there; those for type checkers if ``checked``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not checked:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node, checked)


def own(name: str) -> str:
    """The module of ours that an imported name is, or is in; empty for others'."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def level(module: str) -> int:
    """The level of a module."""
    while module not in LEVELS:
        module = module.rpartition(".")[0]
    return LEVELS[module]


def test_every_module_has_a_level() -> None:
    """No module stands outside the architecture: each is named, or in a package that is."""
    assert [name for name in MODULES if name not in LEVELS and name.rpartition(".")[0] not in LEVELS] == []
    outside = [name for name in MODULES if name.count(".") == 1 and name not in LEVELS]
    assert outside == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports only from its own level and those below."""
    up = {name for name in imports(MODULES[module]) if own(name) and level(own(name)) > level(module)}
    assert up == set()


def test_no_circles() -> None:
    """No module imports itself by way of others."""
    edges = {
        name: {own(one) for one in imports(tree, checked=False)} - {"", name, "regcache"}
        for name, tree in MODULES.items()
    }
    while free := {name for name, needed in edges.items() if not needed & edges.keys()}:
        edges = {name: needed for name, needed in edges.items() if name not in free}
    assert edges == {}


@pytest.mark.parametrize("module", [name for name in MODULES if level(name) <= 2 and ".store" not in name])
def test_pure_parts(module: str) -> None:
    """What decides does no input and output, asks no clock and knows no reactor: it gets values and returns them."""
    # Reading the configuration is asking the process and the disk; interfaces name types only.
    outside = {
        "regcache.config": {"os", "pathlib"},
        "regcache.places": {"os", "sys"},
        "regcache.values": {"os", "ssl"},
        "regcache.credentials": {"os", "pathlib", "ssl"},
        "regcache.errors": {"http"},  # for the names of statuses
        "regcache.logs": {"twisted"},
    }.get(module, set())
    used = {name.partition(".")[0] for name in imports(MODULES[module], checked=False)}
    assert used & AMBIENT - outside == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name != "regcache.tap"])
def test_the_reactor_comes_by_constructor(module: str) -> None:
    """Only the module that puts the parts together imports the reactor."""
    assert [name for name in imports(MODULES[module]) if name.startswith("twisted.internet.reactor")] == []


def test_the_flow_knows_no_registry_and_no_disk() -> None:
    """Bytes are moved without knowing which registry they are of or where they lie."""
    for name, tree in MODULES.items():
        used = {own(one) for one in imports(tree) if name.startswith("regcache.flow")}
        assert not [one for one in used if one.startswith(("regcache.registries.", "regcache.store"))], name


def public_hosts() -> set[str]:
    """The hosts of the public registries."""
    found = {urlsplit(factory(kind).default_url).hostname for kind in own_names()}
    file = make(RegistryOptions(name="pypi", type="pypi")).route(RequestHead(method="GET", path="/packages/x"))
    assert isinstance(file, Artifact)
    return {host for host in {*found, urlsplit(file.url).hostname} if host}


def test_public_hosts_are_named_once() -> None:
    """The public registries' hosts are named in their own modules and nowhere else."""
    hosts = public_hosts()
    assert len(hosts) > 3
    texts = [path for suffix in ("py", "md", "cfg", "toml", "ini") for path in ROOT.rglob(f"*.{suffix}")]
    for path in texts:
        inside = path.relative_to(ROOT)
        if inside.parts[:2] == ("regcache", "registries") or inside.parts[0].startswith((".", "build", "dist")):
            continue
        lines = path.read_text("utf-8").splitlines()
        if inside.parts[:2] == ("docs", "registries") and path.stem in own_names():
            # Some clients have to be told of which index this is the mirror; another test holds these lines.
            made = make(RegistryOptions(name=path.stem, type=path.stem, url="http://index.example/"))
            told = {f"    {line}" for line in made.client_lines(f"http://127.0.0.1:8650/{path.stem}/")}
            lines = [line for line in lines if line not in told]
        assert [(host, line) for host in hosts for line in lines if host in line] == [], inside
