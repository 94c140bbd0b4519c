"""The access log: lines gathered and written in batches, to a file that is rotated, or to standard output."""

from __future__ import annotations

import re
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from regcache.flow.reply import How

__all__ = ["AccessLog", "Line"]

_EVERY = 0.5
_MOST_BYTES = 10 << 20
_KEPT_FILES = 5
_SECRETS = re.compile(r"(?i)((?:token|signature|credential|password|auth)[^=&]*=)[^&\s]*")


@frozen(kw_only=True)
class Line:
    """One request, as it is logged."""

    when: float
    client: str
    method: str
    target: str
    status: int
    sent: int
    how: How
    upstream_seconds: float | None
    seconds: float

    def text(self) -> str:
        """The line: UTC time, client, request, status, bytes, outcome, upstream time, time."""
        when = datetime.fromtimestamp(self.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        target = _SECRETS.sub(r"\1...", self.target).encode("ascii", "backslashreplace").decode()
        waited = "-" if self.upstream_seconds is None else f"{self.upstream_seconds:.3f}"
        client = self.client or "unix"
        request = f'"{self.method} {target}"'
        return f"{when} {client} {request} {self.status} {self.sent} {self.how.value} {waited} {self.seconds:.3f}"


class AccessLog:
    """
    Counts every request; writes the lines where the operator wants them.

    :param where: ``off``, ``-`` for standard output, or a file, rotated at 10 MB, five kept.
    """

    def __init__(self, clock: IReactorTime, where: str) -> None:
        self.counts: Counter[How] = Counter()
        self._clock = clock
        self._where = where
        self._lines: list[str] = []
        self._timer: Any = None

    def note(self, line: Line) -> None:
        """A request was answered."""
        self.counts[line.how] += 1
        if self._where == "off":
            return
        self._lines.append(line.text())
        if self._timer is None:
            self._timer = self._clock.callLater(_EVERY, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        text = "\n".join(lines) + "\n"
        if self._where == "-":
            self._write(sys.stdout, text)
            return
        path = Path(self._where)
        self._rotate(path)
        with path.open("a", encoding="ascii") as file:
            self._write(file, text)

    @staticmethod
    def _write(file: TextIO, text: str) -> None:
        file.write(text)
        file.flush()

    @staticmethod
    def _rotate(path: Path) -> None:
        if not path.exists() or path.stat().st_size < _MOST_BYTES:
            return
        for number in range(_KEPT_FILES - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
