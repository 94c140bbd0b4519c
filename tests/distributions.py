"""
What is shipped, compared with the tree: ``python -m tests.distributions SDIST WHEEL_OF_THE_SDIST WHEEL_OF_THE_TREE``.

The sdist has every file that git knows, and nothing more than what makes it one; either way to a wheel gives the same.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

__all__ = ["complaints"]

#: What only an sdist has.
_MADE = ("PKG-INFO", "regcache.egg-info/")
#: Where a wheel's files lie, beside its metadata.
_SHIPPED = ("regcache/", "twisted/plugins/regcache_plugin.py")


def _tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and Path(name).exists()}


def _in_sdist(path: str) -> set[str]:
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def _in_wheel(path: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def complaints(sdist: str, from_sdist: str, from_tree: str) -> list[str]:
    """Everything that is not as it should be, a line each."""
    tracked, packed = _tracked(), _in_sdist(sdist)
    found = [f"{sdist} lacks {name}; see MANIFEST.in" for name in sorted(tracked - packed)]
    more = [name for name in packed - tracked if not name.startswith(_MADE)]
    found += [f"{sdist} has {name}, which git does not know; see MANIFEST.in" for name in sorted(more)]
    one, other = _in_wheel(from_sdist), _in_wheel(from_tree)
    differing = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    found += [f"the wheels of the sdist and of the tree differ in {name}" for name in sorted(differing)]
    strange = [name for name in one if not name.startswith(_SHIPPED) and ".dist-info/" not in name]
    return found + [f"{from_sdist} has {name}, which is not for its users" for name in sorted(strange)]


if __name__ == "__main__":
    sys.exit("\n".join(complaints(*sys.argv[1:])) or 0)
