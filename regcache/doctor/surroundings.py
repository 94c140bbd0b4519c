"""What the environment says of proxies, and what the configuration has in it that is probably not meant."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from regcache.cautions import warnings
from regcache.config import Config
from regcache.doctor.finding import Finding, failure, ok, warning
from regcache.endings import SOON, endings
from regcache.errors import ConfigError
from regcache.http.origins import Origin
from regcache.http.proxies import Proxies

__all__ = ["configuration", "proxies"]

_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


def proxies(environ: Mapping[str, str], origins: Iterable[str]) -> list[Finding]:
    """
    What the proxy variables come to. Their credentials are not told.

    :param origins: those of the upstreams.
    """
    try:
        made = Proxies.of(environ)
    except ConfigError as error:
        return [failure("proxies", "", error.detail, "mend the variable, or unset it")]
    found = []
    for name in _NAMES:
        upper, lower = environ.get(name), environ.get(name.lower())
        if upper is not None and lower is not None and upper != lower:
            told = f"{name} and {name.lower()} differ; {name.lower()} counts."
            found.append(warning("proxies", "", told, "set both alike, or only one"))
    if not made:
        return [*found, ok("proxies", "", "none is configured.")]
    found += [
        warning("proxies", "", f"NO_PROXY: {part!r} means nothing.", "write host, .domain, *.domain, or a network")
        for part in made.exempt.unclear
    ]
    directly: list[str] = []
    through: dict[str, list[str]] = {}
    for url in origins:
        origin = Origin.of(url)
        if origin is None:
            continue
        proxy = made.to(origin.scheme, origin.host, origin.port)
        if proxy is not None:
            through.setdefault(str(proxy), []).append(url)
        elif (made.https if origin.scheme == "https" else made.http) is not None:
            directly.append(url)
        else:
            told = f"{url} is asked directly: a proxy is named, but none for {origin.scheme}."
            found.append(warning("proxies", "", told, f"set {origin.scheme.upper()}_PROXY as well, or ALL_PROXY"))
    if directly:
        told = f"NO_PROXY has {', '.join(directly)} asked directly, past the proxy."
        found.append(warning("proxies", "", told, "fine if they are reached so; else take them out of NO_PROXY"))
    found += [ok("proxies", "", f"{', '.join(urls)} through {proxy}.") for proxy, urls in through.items()]
    return found


def configuration(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """What is allowed but probably not meant, and what ends soon."""
    found = [warning("configuration", "", told, "see docs/options.md") for told in warnings(config, environ, ())]
    for one in endings(config, [registry.name for registry in config.registries]):
        if one.ends is None:
            found.append(failure("configuration", one.what, "cannot be read.", "see that the file is there and PEM"))
        elif one.ends - time.time() < SOON:
            days = (one.ends - time.time()) / 86400
            told = f"ends in {days:.0f} days." if days > 0 else "has ended."
            found.append(warning("configuration", one.what, told, "renew it"))
    return found or [ok("configuration", "", "sound.")]
