"""
The Dockerfile, read; and what its first stage does, done without Docker: ``python -m tests.image DIRECTORY``.

The directory stands for the image: the sources come to lie there, and the service where the image has it in ``/opt``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["DOCKERFILE", "ROOT", "copied", "stages"]

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
_PLACE = "/opt/regcache"


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction with what follows it, in order; lines that go on are joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        yield name, " ".join(rest.split())


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def copied() -> set[str]:
    """What is copied from the tree."""
    found: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from="):
            found |= {source.removeprefix("./") for source in rest.split()[:-1]}
    return found


def _copy(target: Path) -> None:
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            shutil.copy(source, target / name)


def build(directory: Path) -> Path:
    """
    Do what the first stage does; where the service is then.

    :raises subprocess.CalledProcessError: if that fails.
    """
    sources, made = directory / "src", directory / "opt"
    sources.mkdir()
    _copy(sources)
    for name, rest in stages()[0]:
        if name == "RUN":
            program, *arguments = [part.replace(_PLACE, str(made)) for part in json.loads(rest)]
            program = sys.executable if program == "python" else program
            subprocess.run([program, *arguments], cwd=sources, check=True, stdout=subprocess.DEVNULL)
    return made


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
