"""What a measurement found, and how it is told."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

__all__ = ["Row", "Target", "at_least", "at_most", "ratios", "table", "write_json"]


@frozen
class Target:
    """The bound that the median of a row has to keep."""

    bound: float
    least: bool

    def met_by(self, value: float) -> bool:
        """Whether that value keeps it."""
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    """The median is to be that or more."""
    return Target(bound, least=True)


def at_most(bound: float) -> Target:
    """The median is to be that or less."""
    return Target(bound, least=False)


@frozen
class Row:
    """
    One line of the table.

    :ivar values: one a round; none if it could not be measured.
    :ivar target: None for what is told for the record only.
    :ivar note: the absolute figures behind it, which no target is about.
    """

    name: str
    values: tuple[float, ...]
    target: Target | None = None
    unit: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds; NaN if there are none."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def verdict(self) -> str:
        """``pass`` or ``FAIL``; empty without a target."""
        if self.target is None:
            return ""
        return "pass" if self.target.met_by(self.median) else "FAIL"

    @property
    def measured(self) -> str:
        """The median, and between what the rounds were."""
        text = f"{self.median:.3g}" if self.values else "?"
        if len(self.values) > 1:
            text += f" [{min(self.values):.3g} to {max(self.values):.3g}]"
        return f"{text} {self.unit}".rstrip()


def ratios(upper: Sequence[float], lower: Sequence[float]) -> tuple[float, ...]:
    """Round by round, one divided by the other."""
    return tuple(one / (other or float("inf")) for one, other in zip(upper, lower, strict=True))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| work | target | median [least to most] | | behind it |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.name, str(row.target or ""), row.measured, row.verdict, row.note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_json(path: Path, about: dict[str, object], rows: Sequence[Row]) -> None:
    """Everything, for programs."""
    found = [
        {
            "name": row.name,
            "target": str(row.target) if row.target else None,
            "unit": row.unit,
            "values": row.values,
            "median": row.median if row.values else None,
            "verdict": row.verdict,
            "note": row.note,
        }
        for row in rows
    ]
    path.write_text(json.dumps({**about, "rows": found}, indent=2) + "\n")
