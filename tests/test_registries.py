"""What every type of registry has."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import RegistryContract
from tests.own import own_names

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", own_names())
def test_every_type_has_a_page_with_its_lines(name: str) -> None:
    """The documentation says of every type how its clients are pointed here, as the service does."""
    made = make(RegistryOptions(name=name, type=name, url="" if name != "generic" else "http://tree.example/"))
    page = (ROOT / "docs" / "registries" / f"{name}.md").read_text("utf-8").splitlines()
    for line in made.client_lines(f"http://127.0.0.1:8650/{name}/"):
        assert f"    {line}" in page


def test_every_type_keeps_the_contract() -> None:
    """Every type of ours runs the contract in the test module of its name."""
    for name in own_names():
        module = importlib.import_module(f"tests.test_{name}")
        held = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, RegistryContract)]
        assert [one for one in held if getattr(one, "type", "") == name], name
