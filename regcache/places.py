"""Where things are kept on this machine, unless the operator says where."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from regcache.errors import ConfigError

__all__ = ["default_cache_dir"]


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
