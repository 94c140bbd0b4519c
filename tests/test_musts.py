"""The page of requirements is that of the tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.musts import MUSTS, PAGE, page

TESTS = Path(__file__).parent


def functions(name: str) -> set[str]:
    """The tests in a file."""
    tree = ast.parse((TESTS / f"test_rfc9111_{name}.py").read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", ["flow", "freshness", "registries", "reuse", "storing", "wire"])
def test_every_test_is_there(name: str) -> None:
    """Each that the table names, and each has its section in its own words."""
    named = {test.partition(":")[2] for must in MUSTS for test in must.tests if test.startswith(f"{name}:")}
    assert named <= functions(name)


def test_every_requirement_is_tested() -> None:
    """Or it is said why it cannot be broken."""
    assert [must.text for must in MUSTS if not (must.tests or must.note)] == []


def test_the_page() -> None:
    """It is current; ``python -m tests.musts`` makes it."""
    assert PAGE.read_text("utf-8") == page()
