"""The table of clients, and what writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest

from regcache.registries import names
from tests.matrix import PARTS, Matrix, Parts, Row, read, write

PAGE = Path(__file__).parent.parent / "docs" / "registries" / "matrix.md"
ALL: Parts = dict.fromkeys(PARTS, True)


def report(
    test: str,
    outcome: Literal["passed", "failed", "skipped"] = "passed",
    when: Literal["setup", "call", "teardown"] = "call",
    version: str = "1.0",
    held: Iterable[str] = (),
) -> pytest.TestReport:
    """What pytest says of a test of a client without lock files."""
    properties: list[tuple[str, object]] = [
        ("registry", "npm"),
        ("client", "a"),
        ("version", version),
        ("locks", False),
    ]
    properties += [("held", name) for name in held]
    node = f"tests/test_x.py::TestA::{test}"
    return pytest.TestReport(node, ("", 0, ""), {}, outcome, None, when, user_properties=properties)


def run(file: Path, *reports: pytest.TestReport) -> list[Row]:
    """The rows of the page after a run with these reports."""
    matrix = Matrix(file)
    for one in reports:
        matrix.pytest_runtest_logreport(one)
    matrix.pytest_sessionfinish()
    return read(file.read_text("utf-8"))


@pytest.mark.parametrize("name", [name for name in names() if name != "generic"])
def test_every_type_was_run_with_a_real_client(name: str) -> None:
    """Each type that ships has a client that came through all the ways it has."""
    rows = [row for row in read(PAGE.read_text("utf-8")) if row.registry == name]
    assert [row.client for row in rows if set(row.parts) == set(PARTS) and False not in row.parts.values()] != []


def test_the_page_is_as_it_is_written() -> None:
    """Nobody changed by hand what the journeys write."""
    text = PAGE.read_text("utf-8")
    assert text == write(read(text))


def test_rows_are_in_order_and_read_back() -> None:
    """What is written is the same whatever came first, and is what is read; the tenth comes behind the ninth."""
    rows = [
        Row("npm", "a", "3", {"cold": False}),
        Row("npm", "b 9", "1", {**ALL, "lockfile": None}),
        Row("npm", "b 10", "1", ALL),
        Row("pypi", "a", "2", ALL),
    ]
    assert read(write(reversed(rows))) == rows
    assert write(rows) == write(reversed(rows))
    assert read("") == []
    with pytest.raises(ValueError, match="not of registry, client"):
        read("| other |\n|---|\n")


def test_a_client_that_passes_has_yes_in_all_it_has(tmp_path: Path) -> None:
    """Each test fills its columns; what has no lock files has none to install by."""
    tests = ["test_cold_warm_and_outage", "test_alone", "test_lockfile", "test_corrupt[cut]", "test_corrupt[flipped]"]
    (row,) = run(tmp_path / "page.md", *map(report, tests))
    assert row.version == "1.0"
    assert row.parts == {**ALL, "lockfile": None}


def test_a_client_that_fails_has_what_it_came_through(tmp_path: Path) -> None:
    """Of the way that ended early, the parts before that held; of two faults, both have to be got through."""
    (row,) = run(
        tmp_path / "page.md",
        report("test_cold_warm_and_outage", "failed", held=("cold", "warm")),
        report("test_corrupt[cut]", "failed"),
        report("test_corrupt[flipped]"),
        report("test_lockfile", "skipped", "setup"),
        report("test_lockfile", "passed", "teardown"),
    )
    assert row.parts == {"cold": True, "warm": True, "outage": False, "corrupt": False}


def test_runs_are_merged(tmp_path: Path) -> None:
    """A later run of the same version adds to the row, one of another replaces it, and other clients' rows stay."""
    page = tmp_path / "page.md"
    other = Row("npm", "b", "1", ALL)
    page.write_text(write([other]), "utf-8")
    assert run(page, report("test_lockfile"))[0].parts == {"lockfile": None}
    assert run(page, report("test_corrupt[cut]"))[0].parts == {"lockfile": None, "corrupt": True}
    rows = run(page, report("test_corrupt[cut]", version="2.0"))
    assert rows[0].version == "2.0"
    assert rows[0].parts == {"corrupt": True}
    assert rows[1].parts == other.parts
