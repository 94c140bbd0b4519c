"""Where things are kept on this machine, unless the operator says where."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping

from regcache.errors import ConfigError

__all__ = ["ADMIN_POINTER", "admin_sockets", "default_cache_dir", "too_long"]

#: The file in the cache directory that says where its service can be spoken to.
ADMIN_POINTER = "admin.path"
#: Bytes that the address of a UNIX socket may have on every system that has such.
_MOST_PATH = 103


def default_cache_dir(environ: Mapping[str, str]) -> str:
    """
    Systemd's directory for the service, else the user's cache directory.

    :raises regcache.errors.ConfigError: if the environment tells neither.
    """
    given = environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):
            raise ConfigError("There is no home directory to keep the cache in; name a directory with --cache-dir.")
        base = os.path.join(home, "Library/Caches" if sys.platform == "darwin" else ".cache")
    return os.path.join(base, "regcache")


def admin_sockets(cache_dir: str, environ: Mapping[str, str]) -> list[str]:
    """
    Where the service of a cache directory may be spoken to by whoever operates it; it takes the first.

    Several caches may share a runtime directory, so that the name tells which this is.
    """
    name = f"regcache-{hashlib.sha256(os.fsencode(cache_dir)).hexdigest()[:12]}.sock"
    found = []
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(runtime):
        found.append(os.path.join(runtime, name))
    user = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(user) and os.path.isdir(user):
        found.append(os.path.join(user, "regcache", name))
    return [*found, os.path.join(cache_dir, "admin.sock")]


def too_long(path: str) -> bool:
    """Whether no UNIX socket can stand there."""
    return len(os.fsencode(path)) > _MOST_PATH
