"""
The blocks of the documentation: commands and configurations, and what becomes of each in the tests.

``python -m tests.blocks`` lists them all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

__all__ = ["REASONS", "ROOT", "Block", "blocks", "pages"]

ROOT = Path(__file__).parent.parent
#: Why a block is not run, in the words of its first line, a comment: whoever reads the page learns what it takes.
REASONS = {
    "As root": "it changes the machine",
    "At a terminal": "it asks a person",
    "In a clone": "it is one of the project's own steps, which run in another place: .ci/run, or the suite itself",
    "In a package of your own": "there is none; the examples that the page shows are run by themselves",
    "With Docker": "tests/test_image.py does what the image does, where there is none",
    "With Gradle": "the journeys run that client with the same lines",
    "With the public index": "no test reaches it",
}
_FENCE = re.compile(r"^\s*(`{3,})(.*)$")
_COMMENT = re.compile(r"^(?:#|//|<!--)\s*(.+?):?\s*(?:-->)?$")


@frozen
class Block:
    """
    One block.

    :ivar page: the path of its page, from the root of the project.
    :ivar line: the number of its first line there.
    :ivar kind: the language; ``{NAME}`` for a directive; empty where nothing says so.
    :ivar argument: what follows the name of a directive.
    """

    page: str
    line: int
    kind: str
    argument: str
    text: str

    @property
    def reason(self) -> str:
        """The first line's word why it is not run; empty if it is."""
        found = _COMMENT.match(self.text.partition("\n")[0])
        return next((one for one in REASONS if found and found[1].startswith(one)), "")


def pages() -> list[Path]:
    """Every page that people read."""
    found = [path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    own = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))
    return sorted([*found, *(path for path in own if path.exists())])


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order: fenced ones, and those that are merely indented."""
    lines, name, at = page.read_text("utf-8").splitlines(), str(page.relative_to(ROOT)), 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        begin = at + 1
        if fence is not None:
            at = next(end for end in range(begin, len(lines)) if lines[end].strip() == fence[1])
            kind, _, argument = fence[2].strip().partition(" ")
            yield Block(name, begin + 1, kind, argument, "\n".join(lines[begin:at]))
        elif lines[at].startswith("    ") and not (at and lines[at - 1].strip()):
            while at + 1 < len(lines) and (lines[at + 1].startswith("    ") or not lines[at + 1].strip()):
                at += 1
            text = "\n".join(line[4:] for line in lines[begin - 1 : at + 1]).rstrip()
            yield Block(name, begin, "", "", text)
        at += 1


def main() -> None:
    """Say of every block what becomes of it, and count."""
    found = [block for page in pages() for block in blocks(page)]
    for block in found:
        told = f"not run, since {REASONS[block.reason]}" if block.reason else block.kind or "held against the code"
        print(f"{block.page}:{block.line}: {told}")  # noqa: T201
    for reason, number in Counter(block.reason or "run or checked" for block in found).items():
        print(f"{number:4} {reason}")  # noqa: T201


if __name__ == "__main__":
    main()
