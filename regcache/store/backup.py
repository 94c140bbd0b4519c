"""The copy of the index from which it is made again after damage."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from regcache.logs import Log
from regcache.store.files import Files
from regcache.store.index import FAILURES, is_damage, is_sound

__all__ = ["back_up"]

_log = Log()


def back_up(connection: sqlite3.Connection, directory: Path, files: Files) -> bool:
    """
    Write a copy of the index, whole or not at all.

    A copy of an index that is damaged takes the place of nothing.

    :returns: whether the index is sound, as far as that was seen.
    """
    backup = directory / "index.backup.sqlite3"
    fresh = backup.with_suffix(".new")
    try:
        fresh.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(fresh)) as target:
            connection.backup(target)
            sound = is_sound(target)
        if sound:
            fresh.chmod(0o600)
            files.replace(fresh, backup)
        else:
            fresh.unlink()
    except (OSError, *FAILURES) as error:
        sound = not is_damage(error)
        _log.warn("The index could not be backed up: {why}", why=str(error))
    return sound
