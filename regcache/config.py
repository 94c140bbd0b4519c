"""
The configuration: one frozen value from defaults, a TOML file, the environment and options, in rising order.

Every complaint about it is made here, as one line that says what is wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from regcache.errors import ConfigError
from regcache.routes import RegistryOptions

__all__ = ["OPTIONS", "Config", "Listen", "Network", "Option", "default_cache_dir", "load", "warnings"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@frozen
class Listen:
    """
    One port.

    :ivar endpoint: a Twisted server endpoint string.
    :ivar registry: the registry served at its root, or empty for all of them by name.
    """

    endpoint: str
    registry: str = ""


def parse_size(text: str) -> int:
    """Bytes, from ``10G``, ``500M``, ``1.5KiB`` or a plain number; powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a size such as 10G, 500M or 0")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def parse_duration(text: str) -> float:
    """Seconds, from ``1d``, ``10m``, ``300ms`` or a plain number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a duration such as 1d, 10m, 5s or 300ms")
    return float(match[1]) * _UNITS[(match[2] or "").lower()]


def parse_optional_duration(text: str) -> float | None:
    """As :func:`parse_duration`, or None for ``off``."""
    if text.strip().lower() == "off":
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks and addresses, separated by commas."""
    try:
        return tuple(ipaddress.ip_network(item, strict=False) for item in parse_list(text))
    except ValueError as error:
        raise ValueError(f"networks such as 10.0.0.0/8,::1 ({error})") from None


def parse_list(text: str) -> tuple[str, ...]:
    """Items separated by commas."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def parse_bool(text: str) -> bool:
    """A truth value in words."""
    value = {"1": True, "true": True, "yes": True, "on": True, "": False, "0": False, "false": False, "no": False}
    if text.strip().lower() not in value:
        raise ValueError("yes or no")
    return value[text.strip().lower()]


def parse_choice(*choices: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(choices))
        return text

    return parse


def parse_url(text: str) -> str:
    """An http or https URL without credentials, query or fragment; ends with a slash afterwards."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("a URL such as https://host/path/")
    if "@" in parts.netloc:
        raise ValueError("a URL without credentials: they would be kept in the process list")
    return text if text.endswith("/") else text + "/"


def _optional_url(text: str) -> str:
    return parse_url(text) if text else ""


@frozen
class Option:
    """
    One option: its name on the command line and in TOML, how it is read, and its help.

    :ivar many: whether it may be repeated.
    """

    name: str
    parse: Callable[[str], Any]
    default: str
    help: str
    many: bool = False
    flag: bool = False

    @property
    def attribute(self) -> str:
        """Its name in :class:`Config`."""
        return self.name.replace("-", "_")


#: Every option, in the order of the help.
OPTIONS = (
    Option("registries", str, "npm,pypi", "What to serve: NAME, NAME=URL or NAME=generic+URL, separated by commas."),
    Option(
        "listen",
        str,
        "tcp:8650 on loopback",
        "A Twisted endpoint, or NAME@ENDPOINT for one registry at the root"
        " of its own port. May be repeated; any replaces the default.",
        many=True,
    ),
    Option("cache-dir", str, "", "Where the cache is. Default: systemd's CACHE_DIRECTORY, else the user's cache."),
    Option("max-size", parse_size, "10G", "The most the cache takes on disk, in bytes (K, M, G, T); 0 for any."),
    Option("min-free", parse_size, "1G", "What to leave free on the disk, in bytes (K, M, G, T)."),
    Option("max-file-size", parse_size, "0", "Larger bodies are passed on, not stored; bytes (K, M, G, T), 0 for any."),
    Option("max-index-size", parse_size, "256M", "The largest index page accepted, unpacked, in bytes (K, M, G, T)."),
    Option("ttl", parse_duration, "1d", "How long an index page answers without its registry (s, m, h, d)."),
    Option(
        "refresh-after",
        parse_optional_duration,
        "10m",
        "The age past which a request asks the registry whether an index page is current (s, m, h, d), or off.",
    ),
    Option("negative-ttl", parse_duration, "1m", "How long 'there is none' is remembered (s, m, h, d)."),
    Option(
        "upstream-timeout",
        parse_duration,
        "5s",
        "The most a client waits for a registry when a stored copy could answer (ms, s, m).",
    ),
    Option(
        "cold-timeout",
        parse_duration,
        "14s",
        "The most a client waits for the first byte when nothing is stored (ms, s, m).",
    ),
    Option("idle-timeout", parse_duration, "30s", "The longest pause within a registry's answer (ms, s, m)."),
    Option("allow", parse_networks, "127.0.0.0/8,::1", "The networks that may use the cache, separated by commas."),
    Option("trust-proxy", parse_networks, "", "The reverse proxies whose X-Forwarded-For and -Proto count."),
    Option(
        "hosts",
        parse_list,
        "",
        "The host names it answers under, or *. Default: loopback names, the machine's name and public-url's host.",
    ),
    Option("public-url", _optional_url, "", "The URL by which clients reach it, if not the one they ask for."),
    Option("offline", parse_bool, "no", "Never contact a registry; what is not stored is answered 504.", flag=True),
    Option("upstream-ca", str, "", "A PEM file of certificates to trust beside the system's."),
    Option(
        "client-no-cache",
        parse_choice("ignore", "revalidate"),
        "ignore",
        "What a client's no-cache does: ignore or revalidate.",
    ),
    Option("grace", parse_duration, "8s", "How long a stop waits for what is in flight (s, m)."),
    Option("access-log", str, "off", "Log requests: off, - for standard output, or a file, rotated at 10 MB."),
    Option("access-log-hits", parse_bool, "no", "Log hits as well, which are else only counted.", flag=True),
)
_BY_NAME = {option.name: option for option in OPTIONS}
_FILE_KEYS = {"url", "type", "artifact-hosts", "ttl", "refresh-after", "negative-ttl"}


@frozen(kw_only=True)
class Config:
    """Everything that can be configured; see :data:`OPTIONS` for what each means. Durations are seconds."""

    registries: tuple[RegistryOptions, ...] = field(
        factory=lambda: (RegistryOptions(name="npm", type="npm"), RegistryOptions(name="pypi", type="pypi"))
    )
    listen: tuple[Listen, ...] = ()
    cache_dir: str = field(factory=lambda: default_cache_dir(os.environ))
    max_size: int = 10 << 30
    min_free: int = 1 << 30
    max_file_size: int = 0
    max_index_size: int = 256 << 20
    ttl: float = 86400.0
    refresh_after: float | None = 600.0
    negative_ttl: float = 60.0
    upstream_timeout: float = 5.0
    cold_timeout: float = 14.0
    idle_timeout: float = 30.0
    allow: tuple[Network, ...] = _LOOPBACK
    trust_proxy: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    public_url: str = ""
    offline: bool = False
    upstream_ca: str = ""
    client_no_cache: str = "ignore"
    grace: float = 8.0
    access_log: str = "off"
    access_log_hits: bool = False


def default_cache_dir(environ: Mapping[str, str]) -> str:
    """Systemd's directory for the service, else the user's cache directory."""
    given = environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    if sys.platform == "darwin":
        return str(Path.home() / "Library" / "Caches" / "regcache")
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "regcache")


def load(
    options: Mapping[str, str | list[str]], environ: Mapping[str, str], known: Callable[[str], Collection[str]]
) -> Config:
    """
    The configuration.

    :param options: what the command line says, by option name; values not yet parsed.
    :param known: the extra option names of a registry type.
    :raises regcache.errors.ConfigError: with one line for a person.
    """
    said: dict[str, tuple[Any, str]] = {}
    path = options.get("config") or environ.get("REGCACHE_CONFIG", "")
    tables: dict[str, dict[str, Any]] = {}
    if isinstance(path, str) and path:
        tables = _read_file(path, said)
    for option in OPTIONS:
        name = "REGCACHE_" + option.attribute.upper()
        if name in environ:
            text = environ[name]
            said[option.name] = (text.split() if option.many else text, f"the environment variable {name}")
    for name, value in options.items():
        if name in _BY_NAME:
            said[name] = (value, f"--{name}")
    values = {_BY_NAME[name].attribute: _parsed(_BY_NAME[name], *pair) for name, pair in said.items()}
    values.setdefault("cache_dir", default_cache_dir(environ))
    served = values.pop("registries", None)
    if served is None:
        served = ",".join(tables) or "npm,pypi"
    where = said["registries"][1] if "registries" in said else "the configuration"
    values["registries"] = tuple(_registry(item, where, tables, values, known) for item in parse_list(served))
    if not values["registries"]:
        raise ConfigError(f"No registry is named in {where}; try npm,pypi.")
    _check_names(values["registries"])
    values["listen"] = tuple(_listen(item, values["registries"]) for item in values.get("listen", ()))
    if values.get("upstream_ca") and not Path(values["upstream_ca"]).is_file():
        raise ConfigError(f"--upstream-ca: there is no file {values['upstream_ca']}.")
    return Config(**values)


def _check_names(registries: tuple[RegistryOptions, ...]) -> None:
    seen: set[str] = set()
    for registry in registries:
        if registry.name in seen:
            raise ConfigError(f"The registry {registry.name!r} is named twice; give each a name of its own.")
        seen.add(registry.name)


def _near(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names))}."


def _read_file(path: str, said: dict[str, tuple[Any, str]]) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
    tables: dict[str, dict[str, Any]] = {}
    for name, value in content.items():
        if name == "registries" and isinstance(value, dict):
            for registry, table in value.items():
                if not isinstance(table, dict):
                    raise ConfigError(f"{path}: registries.{registry} must be a table: [registries.{registry}].")
                tables[registry] = table
        elif name not in _BY_NAME:
            raise ConfigError(f"{path}: there is no key {name!r}; {_near(name, _BY_NAME)}")
        else:
            said[name] = (_textual(value, _BY_NAME[name]), f"{path}: {name}")
    return tables


def _textual(value: Any, option: Option) -> Any:
    """A TOML value as an option would say it, so that there is one way to read it."""
    if isinstance(value, list):
        return [str(item) for item in value] if option.many else ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return [str(value)] if option.many else str(value)


def _parsed(option: Option, value: Any, where: str) -> Any:
    try:
        return value if option.many else option.parse(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {value!r} is not right; it wants {error}.") from None


def _registry(
    item: str,
    where: str,
    tables: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any],
    known: Callable[[str], Collection[str]],
) -> RegistryOptions:
    name, _, url = item.partition("=")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: {name!r} is no name for a registry: lower-case letters, digits, dots and dashes.")
    table = dict(tables.get(name, {}))
    kind = str(table.pop("type", name))
    prefix, plus, rest = url.partition("+")
    if plus and "/" not in prefix:
        kind, url = prefix, rest
    extras = known(kind)
    for key in table:
        if key not in _FILE_KEYS and key not in extras:
            raise ConfigError(f"registries.{name}: there is no key {key!r}; {_near(key, _FILE_KEYS | set(extras))}")
    try:
        return RegistryOptions(
            name=name,
            type=kind,
            url=_optional_url(url or str(table.get("url", ""))),
            artifact_hosts=_strings(table.get("artifact-hosts", ())),
            ttl=parse_duration(str(table.get("ttl", values.get("ttl", "1d")))),
            refresh_after=_refresh(table, values),
            negative_ttl=parse_duration(str(table.get("negative-ttl", values.get("negative_ttl", "1m")))),
            extra={key: str(value) for key, value in table.items() if key in extras},
        )
    except ValueError as error:
        raise ConfigError(f"{where}, registry {name}: it wants {error}.") from None


def _strings(value: Any) -> tuple[str, ...]:
    return parse_list(value) if isinstance(value, str) else tuple(map(str, value))


def _refresh(table: Mapping[str, Any], values: Mapping[str, Any]) -> float | None:
    if "refresh-after" in table:
        return parse_optional_duration(str(table["refresh-after"]))
    found = values.get("refresh_after", 600.0)
    return None if found is None else float(found)


def _listen(item: str, registries: tuple[RegistryOptions, ...]) -> Listen:
    name, at, endpoint = item.partition("@")
    if not at or ":" in name:
        return Listen(item)
    if name not in {registry.name for registry in registries}:
        raise ConfigError(f"--listen {item}: no registry {name!r} is served; name it in --registries.")
    return Listen(endpoint, name)


def warnings(config: Config, environ: Mapping[str, str], said: Collection[str]) -> list[str]:
    """
    What is allowed, but probably not meant.

    :param said: the names of the options that were given.
    """
    found = []
    wide = [one.endpoint for one in config.listen if not _is_local(one.endpoint)]
    if wide and "allow" not in said and config.allow == _LOOPBACK:
        found.append(f"{', '.join(wide)} is reachable from elsewhere, but only loopback is allowed: see --allow.")
    proxies = [
        name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if environ.get(name) or environ.get(name.lower())
    ]
    if proxies:
        found.append(f"{', '.join(proxies)} is set; regcache connects to the registries directly.")
    return found


def _is_local(endpoint: str) -> bool:
    # Whoever made a socket that is handed over decided how far it is reachable.
    return endpoint.startswith(("unix:", "systemd:")) or any(
        f"interface={name}" in endpoint for name in ("127.", "localhost", "\\:\\:1")
    )
