"""How many descriptors the process may have."""

from __future__ import annotations

import resource

from regcache.config import Config
from regcache.limits import Limits

__all__ = ["available", "limits_of", "raise_limit"]

#: What to reckon with where there is no limit.
_ENOUGH = 1 << 20


def available() -> int:
    """The limit that counts."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Take what the process may take without asking anybody: the soft limit becomes the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limits_of(config: Config) -> Limits:
    """
    What may go on at the same time, as it is configured.

    :raises regcache.errors.ConfigError: if there are not descriptors enough.
    """
    local = all(network.is_loopback for network in config.allow)
    return Limits.of(available(), config.max_connections, shared=not local)
