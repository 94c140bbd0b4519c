"""Putting an edit in place: what was there is kept beside it, and at no time is there half a file."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from regcache.clients.malformed import Malformed

__all__ = ["BACKUP", "NoBackup", "changed", "difference", "undone", "written"]

#: How the file before a change is called, behind its name; with a number if there is one already.
BACKUP = ".regcache-backup"
Edit = Callable[[str], str]


class NoBackup(Malformed):
    """There is nothing to be undone."""


def _read(path: Path) -> str | None:
    """
    What stands in a file, with the ends of its lines; None if there is none.

    :raises Malformed: if it is no text, or cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise Malformed("it is not UTF-8") from None
    except OSError as error:
        raise Malformed(f"it cannot be read: {error.strerror}") from None


def changed(path: Path, edit: Edit) -> tuple[str | None, str]:
    """
    What stands in a file, and what would stand there; ends of lines and a mark of the encoding stay.

    :raises Malformed: if it cannot be read or understood.
    """
    before = _read(path)
    mark = "\ufeff" if before is not None and before.startswith("\ufeff") else ""
    text = (before or "").removeprefix(mark)
    crlf = "\r\n" in text
    after = edit(text.replace("\r\n", "\n") if crlf else text)
    return before, mark + (after.replace("\n", "\r\n") if crlf else after)


def difference(path: Path, before: str | None, after: str) -> list[str]:
    """The lines of a unified diff."""
    old, new = (before or "").splitlines(), after.splitlines()
    name = str(path) if before is not None else os.devnull
    return list(difflib.unified_diff(old, new, name, str(path), lineterm=""))


def written(path: Path, before: str | None, after: str) -> Path | None:
    """
    Replace a file, and keep the one before beside it. A link goes on leading there; mode and owner stay.

    :returns: where the one before is kept; None if there was none.
    :raises Malformed: if that cannot be done; then nothing has changed.
    """
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        kept = None
        if before is not None:
            kept = _backup(path, real)
        _replace(real, after)
    except OSError as error:
        raise Malformed(f"it cannot be written: {error.strerror}") from None
    return kept


def _backup(path: Path, real: Path) -> Path:
    """A copy of a file under a name that nothing has yet."""
    state = real.stat()
    for number in range(1000):
        kept = path.with_name(f"{path.name}{BACKUP}{f'.{number}' if number else ''}")
        try:
            fd = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        with open(fd, "wb") as file:
            file.write(real.read_bytes())
            os.fsync(fd)
            _like(fd, state)
        return kept
    raise OSError(17, "there are too many backups")


def _like(fd: int, state: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):
        os.fchown(fd, state.st_uid, state.st_gid)
    os.fchmod(fd, stat.S_IMODE(state.st_mode))


def _replace(real: Path, text: str) -> None:
    state = real.stat() if real.exists() else None
    if state is not None and not os.access(real, os.W_OK):
        # Its directory would allow it, but whoever took the right away meant it.
        raise PermissionError(13, "Permission denied")
    fd, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with open(fd, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            if state is not None:
                _like(fd, state)
            os.fsync(fd)
        os.replace(name, real)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def undone(path: Path, edit: Edit) -> Path | None:
    """
    Put the newest backup back in a file's place, or take away a file that holds nothing but what was written.

    :returns: the backup; None where the file itself is gone.
    :raises NoBackup: if there is neither.
    :raises Malformed: if that cannot be done.
    """
    kept = sorted(path.parent.glob(f"{path.name}{BACKUP}*"), key=_number)
    try:
        if kept:
            _replace(Path(os.path.realpath(path)), kept[-1].read_bytes().decode("utf-8"))
            kept[-1].unlink()
            return kept[-1]
        if _read(path) == edit("") and path.exists():
            path.unlink()
            return None
    except OSError as error:
        raise Malformed(f"it cannot be put back: {error.strerror}") from None
    raise NoBackup(f"it has no backup ({path.name}{BACKUP})")


def _number(path: Path) -> int:
    last = path.name.rpartition(BACKUP)[2].removeprefix(".")
    return int(last) if last.isdigit() else 0
