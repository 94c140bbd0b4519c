"""Whether a directory that is named for the cache is somebody else's: nothing there may be changed then."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from regcache.store.index import FAILURES, connect

__all__ = ["strangers"]

#: What a cache directory holds, and what file systems and people lay into any; hidden files are nobody's contents.
_EXPECTED = re.compile(r"index\..+|lock|making\.lock|blobs|partial|admin\..+|lost\+found|\..*")
#: What is often kept beside a cache: its configuration, certificates, logs, pidfile and sockets.
_BESIDE = (".log", ".pem", ".pid", ".sock", ".toml")
#: Only a cache has these.
_INDEX = re.compile(r"index\.(backup\.sqlite3|damaged-\d+\.sqlite3)")
_FOLDER = re.compile(r"[0-9a-f]{2}")
_PARTIAL = re.compile(r"\d+-\d+")


def strangers(directory: Path) -> list[str]:
    """
    The names in a directory that show it to be somebody else's.

    None for a directory that does not exist or cannot be looked into, for a cache, also one that has lost its index,
    and for one that is empty but for what is often beside a cache.
    """
    names = _names(directory)
    if "index.sqlite3" in names:
        return ["index.sqlite3"] if _is_of_another(directory / "index.sqlite3") else []
    bodies = _names(directory / "blobs")
    if any(map(_INDEX.fullmatch, names)) or "ff" in bodies:
        return []
    found = [name for name in names if not _EXPECTED.fullmatch(name) and not _is_beside(directory / name)]
    found += [f"blobs/{name}" for name in bodies if not _FOLDER.fullmatch(name)]
    found += [f"partial/{name}" for name in _names(directory / "partial") if not _PARTIAL.fullmatch(name)]
    return sorted(found)


def _names(directory: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


def _is_beside(path: Path) -> bool:
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISSOCK(mode) or (stat.S_ISREG(mode) and path.suffix in _BESIDE)
    return False


def _is_of_another(path: Path) -> bool:
    """Whether a database is sound and has tables, but none of ours."""
    with contextlib.suppress(OSError, *FAILURES):
        # Read as it lies there: nothing may come to stand beside it.
        with contextlib.closing(connect(path, readonly=True, immutable=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        return bool(tables) and "entries" not in tables
    return False
