"""
Where results go: tables and progress for a terminal, by rich where that is installed; plain text for a pipe; JSON.

A long result goes out as it comes, and is never held as a whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TextIO

from attrs import frozen

from regcache.commands.outcome import Code

__all__ = ["Column", "Output"]


@frozen
class Column:
    """
    A column of a table.

    :ivar width: of one that is not the last, in characters; what is longer moves the others.
    """

    name: str
    width: int = 0
    right: bool = False


class Output:
    """
    One command's output.

    :param as_json: whether a program reads it.
    """

    def __init__(self, as_json: bool, environ: Mapping[str, str] | None = None) -> None:
        self.as_json = as_json
        self._environ = os.environ if environ is None else environ
        self._rich = not as_json and self._drawable(sys.stdout)

    def _drawable(self, stream: TextIO) -> bool:
        """Whether it is a terminal that can do more than print lines."""
        return stream.isatty() and self._environ.get("TERM", "") not in ("", "dumb")

    def result(self, found: Any, lines: Iterable[str]) -> None:
        """The whole result at once."""
        for line in [json.dumps(found)] if self.as_json else map(printable, lines):
            self._write(f"{line}\n")

    def pairs(self, found: Any, rows: Sequence[tuple[str, str]]) -> None:
        """Facts, each with a name."""
        if self.as_json:
            self.result(found, [])
        elif (drawn := self._grid()) is not None:
            for name, text in rows:
                drawn.add_row(name, printable(text))
            self._draw(drawn)
        else:
            width = max((len(name) for name, _ in rows), default=0)
            self.result(None, (f"{name.ljust(width)}  {text}".rstrip() for name, text in rows))

    def table(self, columns: Sequence[Column], parts: Iterable[Sequence[Sequence[str]]]) -> None:
        """Rows, part by part as they come, below one head."""
        for number, part in enumerate(parts):
            drawn = self._table(columns, head=not number)
            if drawn is not None:
                for row in part:
                    drawn.add_row(*map(printable, row))
                self._draw(drawn)
                continue
            head = [[column.name for column in columns]] if not number else []
            self._write("".join(f"{_aligned(columns, row)}\n" for row in [*head, *part]))

    def listed(self, parts: Iterable[Sequence[Any]], before: str = "[", after: Callable[[], str] = lambda: "]") -> None:
        """A JSON list, part by part as it comes, on one line."""
        self._write(before)
        first = True
        for part in parts:
            for one in part:
                self._write(("" if first else ", ") + json.dumps(one))
                first = False
        self._write(f"{after()}\n")

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """
        How far it is, on standard error, for a terminal; gives what is told how many of how many are done.

        :param what: what is counted.
        """
        if not self._drawable(sys.stderr):
            yield lambda _done, _of: None
            return
        try:
            from rich import progress
            from rich.console import Console
        except ImportError:
            yield lambda done, of: _percent(what, done, of)
            sys.stderr.write("\r\x1b[K")
            return
        columns = (progress.TextColumn(what), progress.BarColumn(), progress.MofNCompleteColumn())
        console = Console(stderr=True, highlight=False)
        with progress.Progress(*columns, progress.TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, of: bar.update(task, completed=done, total=of)

    def _grid(self) -> Any:
        """Rich's table for named facts; None where there is no use for one."""
        return self._table([Column("", 12), Column("")], head=False)

    def _table(self, columns: Sequence[Column], *, head: bool) -> Any:
        if not self._rich:
            return None
        try:
            from rich.table import Table
        except ImportError:
            self._rich = False
            return None
        made = Table(box=None, show_header=head, pad_edge=False, header_style="bold")
        for column in columns:
            justify: Any = "right" if column.right else "left"
            made.add_column(column.name, justify=justify, min_width=column.width or None, overflow="fold")
        return made

    def _draw(self, made: Any) -> None:
        from rich.console import Console

        with self._open():
            Console(highlight=False, markup=False).print(made)

    def _write(self, text: str) -> None:
        with self._open():
            sys.stdout.write(text)
            sys.stdout.flush()

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Nobody reads on: that is no failure, and no reason to go on."""
        try:
            yield
        except BrokenPipeError:
            self._end()
        except OSError:
            # The disk behind it is full, or the like.
            self._end(Code.NO)

    @staticmethod
    def _end(code: Code = Code.DONE) -> NoReturn:
        with contextlib.suppress(OSError, ValueError):
            # What is still in the buffer would be tried again at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(int(code))


def printable(text: str) -> str:
    """A text in which others had a hand, so that it cannot steer a terminal."""
    if text.isprintable():
        return text
    kept = (char.isprintable() or char == "\t" for char in text)
    return "".join(
        char if keep else char.encode("unicode_escape").decode() for char, keep in zip(text, kept, strict=True)
    )


def _aligned(columns: Sequence[Column], row: Sequence[str]) -> str:
    cells = [
        text.rjust(column.width) if column.right else text.ljust(column.width)
        for column, text in zip(columns, map(printable, row), strict=True)
    ]
    return "  ".join(cells).rstrip()


def _percent(what: str, done: int, of: int) -> None:
    sys.stderr.write(f"\r\x1b[K{100 * done // max(of, 1):3} %  {done} of {of} {what}")
    sys.stderr.flush()
