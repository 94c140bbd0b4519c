"""
The table of which clients were seen to get through which part of their way.

It is written from the journeys themselves:

    REGCACHE_MATRIX=docs/registries/matrix.md pytest -m journey
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from attrs import field, frozen

__all__ = ["PARTS", "Matrix", "Parts", "Row", "read", "write"]

#: The columns, and the test of a journey that fills each.
PARTS = {
    "cold": "test_cold_warm_and_outage",
    "warm": "test_cold_warm_and_outage",
    "outage": "test_cold_warm_and_outage",
    "lockfile": "test_lockfile",
    "corrupt": "test_corrupt",
}
_HEAD = ("registry", "client", "version", *PARTS)
_TITLE = """# Clients

Each of these was run through regcache in that version, with a home and caches of its own that were empty:

* cold: from an empty cache of ours,
* warm: again, with nothing asked for twice,
* outage: with the registry stopped, and with `--offline`,
* lockfile: by a lock file alone, from an empty cache of ours; a dash where the client has no lock files,
* corrupt: with a registry that flips a byte of a package or cuts it short. The client refuses it or asks again, and has
  the right one as soon as the registry does.

The tests write this page:

```sh
# In a clone:
REGCACHE_MATRIX=docs/registries/matrix.md pytest -m journey
```

"""
_MARKS = {True: "yes", False: "no", None: "\N{EN DASH}"}
Parts = Mapping[str, bool | None]


@frozen
class Row:
    """
    What one client did.

    :ivar parts: of each of :data:`PARTS` that was tried, whether it held; None where it has none.
    """

    registry: str
    client: str
    version: str
    parts: Parts = field(factory=dict)

    def with_part(self, name: str, held: bool | None) -> Row:
        """With the outcome of one more; what was tried in several ways holds if all of them did."""
        before = self.parts.get(name, True)
        both = None if held is None or before is None else held and before
        return Row(self.registry, self.client, self.version, {**self.parts, name: both})


def read(text: str) -> list[Row]:
    """
    The rows of a page that :func:`write` has made.

    :raises ValueError: if it has another table.
    """
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    if not lines:
        return []
    if lines[0] != list(_HEAD):
        raise ValueError(f"That is a table of {', '.join(lines[0])}, not of {', '.join(_HEAD)}.")
    meanings = {mark: held for held, mark in _MARKS.items()}
    rows = []
    for registry, client, version, *marks in lines[2:]:
        parts = {name: meanings[mark] for name, mark in zip(PARTS, marks, strict=True) if mark}
        rows.append(Row(registry, client, version, parts))
    return rows


def write(rows: Iterable[Row]) -> str:
    """The page, its rows in order."""
    lines: list[Sequence[str]] = [_HEAD, ["---"] * len(_HEAD)]
    for row in sorted(rows, key=_place):
        marks = [_MARKS[row.parts[name]] if name in row.parts else "" for name in PARTS]
        lines.append([row.registry, row.client, row.version, *marks])
    return _TITLE + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _place(row: Row) -> tuple[str, list[tuple[int, str]]]:
    """By registry and client, numbers by their value."""
    words = re.findall(r"\d+|\D+", row.client.lower())
    return row.registry, [(int(word) if word.isdecimal() else -1, word) for word in words]


class Matrix:
    """
    A plugin of pytest that writes down what the journeys of a run came to, over what earlier runs have written.

    A client that was run this time has its row replaced, part by part if it is the same version; all others stay.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: dict[tuple[str, str], Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each test says once whether it held: at its call, or earlier if it came to none."""
        told = dict(report.user_properties)
        if "client" not in told or report.skipped or (report.when != "call" and not report.failed):
            return
        test = report.nodeid.rpartition("::")[2].partition("[")[0]
        identity = str(told["registry"]), str(told["client"])
        row = self._rows.get(identity, Row(*identity, str(told["version"])))
        for name in (name for name, filler in PARTS.items() if filler == test):
            held = report.passed or ("held", name) in report.user_properties
            row = row.with_part(name, None if name == "lockfile" and not told["locks"] else held)
        if row.parts:
            self._rows[identity] = row

    def pytest_sessionfinish(self) -> None:
        """The page is there even if a test failed, which then says so."""
        before = read(self._file.read_text("utf-8")) if self._file.exists() else []
        rows = {(row.registry, row.client): row for row in before}
        for identity, row in self._rows.items():
            old = rows.get(identity)
            kept = old.parts if old is not None and old.version == row.version else {}
            rows[identity] = Row(row.registry, row.client, row.version, {**kept, **row.parts})
        self._file.write_text(write(rows.values()), "utf-8")
