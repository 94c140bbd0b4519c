"""The disk and the descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path

from regcache.doctor.finding import Finding, failure, ok, warning
from regcache.errors import ConfigError
from regcache.limits import Limits
from regcache.store.verifying import bodies_in

__all__ = ["descriptors", "disk", "filesystem", "limit_of"]

#: File systems on which renaming and locking are not what they are on a local disk, or SQLite's log cannot be shared.
_UNFIT = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs"),
    *("fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "lustre", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "virtiofs"),
}
_FLEETING = {"tmpfs", "ramfs"}
#: The share of inodes below which few are left.
_FEW_INODES = 0.05
#: Descriptors below which a build farm meets the limit.
_FEW_DESCRIPTORS = 4096


def disk(directory: Path, min_free: int, max_size: int, mounts: Path = Path("/proc/self/mountinfo")) -> list[Finding]:
    """
    The place of the cache; where it is not there yet, the place where it would be made. Nothing stays that is written.

    :param min_free: bytes to leave free.
    :param max_size: bytes the cache may take; 0 for any.
    """
    try:
        place = next(one for one in (directory, *directory.parents) if one.exists())
        found = _room(place, directory, min_free, max_size)
        return [*_permissions(place, directory), *_kind(place, mounts), *found]
    except OSError as error:
        mend = "see that this user may use it, or name another with --cache-dir"
        return [failure("disk", str(directory), f"cannot be looked at: {error.strerror}.", mend)]


def _permissions(place: Path, directory: Path) -> list[Finding]:
    subject, found = str(directory), []
    if not place.is_dir():
        return [failure("disk", subject, f"{place} is no directory.", "name another with --cache-dir")]
    mode, owner = stat.S_IMODE(place.stat().st_mode), place.stat().st_uid
    if place == directory and mode & 0o077:
        told = f"others may look into it (mode {mode:03o})."
        found.append(warning("disk", subject, told, f"chmod 700 {directory}; the service does it when it starts"))
    if place == directory and owner != os.geteuid():
        told = f"it belongs to user {owner}, not to {os.geteuid()}."
        found.append(failure("disk", subject, told, "run this as the service's user (sudo -u regcache), or chown it"))
        return found
    try:
        _tried(place)
    except OSError as error:
        mend = "see that this user may write there and that the disk is not full or mounted read-only"
        told = f"nothing can be written, locked and renamed in {place}: {error.strerror}."
        return [*found, failure("disk", subject, told, mend)]
    what = "can be written" if place == directory else f"is not there yet; it can be made in {place}"
    return [*found, ok("disk", subject, f"{what}.")]


def _tried(place: Path) -> None:
    """Write, lock, rename and remove a file, as the cache does."""
    fd, name = tempfile.mkstemp(prefix=".regcache-doctor-", dir=place)
    path = Path(name)
    try:
        os.write(fd, b"x")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fsync(fd)
        path = path.rename(path.with_suffix(".renamed"))
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()


def filesystem(place: Path, mounts: Path) -> str:
    """The type of the file system of a place, by Linux's list of mounts; empty where there is none."""
    path, best, kind = str(place.resolve()), -1, ""
    with contextlib.suppress(OSError):
        for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4].encode("latin-1", "replace").decode("unicode_escape")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= best:
                best, kind = len(point), after.split(" ")[0]
    return kind


def _kind(place: Path, mounts: Path) -> list[Finding]:
    kind = filesystem(place, mounts)
    if kind in _UNFIT:
        told = f"is on {kind}, where locks and renames are not dependable."
        return [warning("disk", str(place), told, "keep the cache on a local disk (--cache-dir)")]
    if kind in _FLEETING:
        told = f"is on {kind}, and gone when the machine starts anew."
        return [warning("disk", str(place), told, "keep the cache on a disk (--cache-dir), unless that is meant")]
    return [ok("disk", str(place), f"is on {kind}.")] if kind else []


def _room(place: Path, directory: Path, min_free: int, max_size: int) -> list[Finding]:
    state = os.statvfs(place)
    free, subject = state.f_bavail * state.f_frsize, str(directory)
    used = _used(directory)
    found = []
    if free < min_free:
        told = f"{_sized(free)} are free, less than --min-free {_sized(min_free)}: nothing new is stored."
        found.append(failure("disk", subject, told, "free space, or lower --min-free"))
    elif max_size and free + used - min_free < max_size:
        told = f"{_sized(free)} are free: the cache cannot grow to --max-size {_sized(max_size)}."
        found.append(warning("disk", subject, told, "lower --max-size, or give it a larger disk"))
    else:
        found.append(ok("disk", subject, f"{_sized(free)} are free."))
    if state.f_files and state.f_favail < state.f_files * _FEW_INODES:
        told = f"{state.f_favail} of {state.f_files} inodes are free: every stored body takes one."
        level = warning if state.f_favail > 1000 else failure
        found.append(level("disk", subject, told, "remove small files, or make the file system anew with more inodes"))
    return found


def _used(directory: Path) -> int:
    """Bytes that the index says the cache takes; 0 where that cannot be known."""
    try:
        return bodies_in(directory)[1]
    except OSError:
        return 0


def limit_of(pid: int) -> tuple[int, int] | None:
    """The limit of descriptors of a process, and how many it has open; None where that cannot be seen."""
    proc = Path(f"/proc/{pid}")
    try:
        line = next(line for line in (proc / "limits").read_text().splitlines() if line.startswith("Max open files"))
        soft = line.split()[3]
        return (1 << 20 if soft == "unlimited" else int(soft)), len(os.listdir(proc / "fd"))
    except (OSError, ValueError, StopIteration):
        return None


def descriptors(most: int, used: int, connections: int = 0) -> list[Finding]:
    """
    Whether there are enough of them.

    :param most: the limit.
    :param used: how many are open; 0 where no service runs.
    :param connections: what --max-connections says.
    """
    mend = "raise it (LimitNOFILE= in the unit, ulimit -Hn in a shell)"
    try:
        limits = Limits.of(most, connections)
    except ConfigError as error:
        return [failure("descriptors", "", error.detail, mend)]
    told = f"{most} may be open, which makes room for {limits.connections} connections"
    if used > most * 0.9:
        return [failure("descriptors", "", f"{used} of {most} are open.", f"{mend}; see what keeps them open")]
    if most < _FEW_DESCRIPTORS:
        return [warning("descriptors", "", f"{told}: few for a build farm.", mend)]
    return [ok("descriptors", "", f"{told}; {used} are open." if used else f"{told}.")]


def _sized(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB"
