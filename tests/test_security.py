"""SECURITY.md: what it says tests its promises is there, and what it names exists."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


def rows() -> list[tuple[str, str]]:
    """Each promise, and the cell that says what tests it."""
    table = TEXT.partition("| promise | tests |")[2]
    cells = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| **")]
    return [(first.strip(), second.strip()) for first, second in cells]


def test_every_promise_is_tested() -> None:
    """Each names at least one module of tests, and that module has tests."""
    assert len(rows()) > 10
    every: set[str] = set()
    for promise, tests in rows():
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, promise
        every.update(named)
    for name in every:
        tree = ast.parse((ROOT / "tests" / f"{name}.py").read_text("utf-8"))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert [node for node in found if node.name.startswith("test_")], f"{name} tests nothing"


def test_the_threat_model_is_whole() -> None:
    """Whoever is to be thought of is in it."""
    for attacker in ("registry", "client", "user of the same host", "web page", "thief of the cache"):
        assert re.search(rf"(?m)^\| [^|]*{attacker}", TEXT), attacker


def test_what_it_leads_to_is_there() -> None:
    """Its links lead to files of the project."""
    links = re.findall(r"\]\(([^)#]+)", TEXT)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_it_says_how_to_report() -> None:
    """And what to expect then."""
    section = TEXT.partition("## How to report")[2].partition("\n## ")[0]
    assert "private" in section
    assert re.search(r"\d+ days", section)


def test_it_names_no_address_but_the_projects_own() -> None:
    """What the metadata name as the project's address or its authors' is there, and nothing else is."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    keys = ("url", "project_urls", "author_email", "maintainer_email")
    address = re.compile(r"https?://[^\s)>`,]+|[\w.+-]+@[\w-]+\.[\w.-]+")
    ours = {one for key in keys for one in address.findall(setup["metadata"].get(key, ""))}
    section = TEXT.partition("## How to report")[2].partition("\n## ")[0]
    named = set(address.findall(section))
    assert named <= ours
    assert bool(named) is bool(ours)
