"""What a configuration says that is allowed, but probably not meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from regcache.config import LOOPBACK, Config, variables
from regcache.credentials import exposed

__all__ = ["warnings"]

#: Seconds below which reading every body again would keep the disk busy with that alone.
_SCRUBBED_SELDOM = 3600.0


def warnings(config: Config, environ: Mapping[str, str], said: Collection[str]) -> list[str]:
    """
    What is allowed, but probably not meant.

    :param said: the names of the options that were given.
    """
    found = []
    wide = [one.endpoint for one in config.listen if not _is_local(one.place)]
    if wide and "allow" not in said and config.allow == LOOPBACK:
        found.append(f"{', '.join(wide)} is reachable from elsewhere, but only loopback is allowed: see --allow.")
    sockets_alone = config.listen and all(one.place.startswith("unix:") for one in config.listen)
    if not config.allow and not sockets_alone:
        found.append("--allow is empty: nobody may use the cache over TCP.")
    balanced = [one.endpoint for one in config.listen if one.balanced and not one.place.startswith("unix:")]
    if balanced and not config.trust_proxy:
        found.append(
            f"{', '.join(balanced)} takes connections of trusted proxies alone, and none is: see --trust-proxy."
        )
    unclear = config.proxies.exempt.unclear if config.proxies else ()
    found += [f"NO_PROXY: {part!r} is no host, .domain, *.domain or network, and means nothing." for part in unclear]
    if config.scrub is not None and config.scrub < _SCRUBBED_SELDOM:
        often = f"{config.scrub:g} s"
        found.append(f"--scrub reads every stored body again each {often}; a time of days is meant, such as 7d.")
    found += exposed(config.credentials.values())
    plain = [one for one in config.registries if one.name in config.credentials and one.url.startswith("http:")]
    found += [f"registries.{one.name}: its credentials go to {one.url} without encryption." for one in plain]
    ours = variables()
    for name in sorted(environ.keys() - ours):
        near = difflib.get_close_matches(name, ours, 1, 0.9) if name.startswith("REGCACHE_") else ()
        if near:
            found.append(f"{name} is no option; did you mean {near[0]}?")
    return found


def _is_local(endpoint: str) -> bool:
    # Whoever made a socket that is handed over decided how far it is reachable.
    return endpoint.startswith(("unix:", "systemd:")) or any(
        f"interface={name}" in endpoint for name in ("127.", "localhost", "\\:\\:1")
    )
