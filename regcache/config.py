"""
The configuration: one frozen value from defaults, a TOML file, the environment and options, in rising order.

Every complaint about it is made here, as one line that says what is wrong, where, and what to do.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from regcache import credentials, following, values
from regcache.credentials import Credentials
from regcache.errors import ConfigError
from regcache.http.proxies import DIRECT, Proxies
from regcache.places import default_cache_dir
from regcache.routes import RegistryOptions
from regcache.settings import OPTIONS, Option
from regcache.values import Network

__all__ = [
    "LOOPBACK",
    "REGISTRY_KEYS",
    "Config",
    "Listen",
    "default_cache_dir",
    "load",
    "variables",
]

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*:.+")
_PREFIX = "REGCACHE_"


@frozen
class Listen:
    """
    One port.

    :ivar endpoint: a Twisted server endpoint string.
    :ivar registry: the registry served at its root, or empty for all of them by name.
    """

    endpoint: str
    registry: str = ""

    @property
    def balanced(self) -> bool:
        """Whether a load balancer says on each connection whose it is (the PROXY protocol)."""
        return self.endpoint.startswith(_BALANCED)

    @property
    def place(self) -> str:
        """The endpoint without what says that."""
        return self.endpoint.removeprefix(_BALANCED)


#: Before an endpoint, as Twisted has it.
_BALANCED = "haproxy:"
_BY_NAME = {option.name: option for option in OPTIONS}
#: The readers to which ``yes`` or ``5`` are as good as any text: in a file, only text may stand for them.
_ANY_TEXT = (values.directory, values.file, values.target)
#: The keys of a table ``[registries.NAME]`` that every type knows.
REGISTRY_KEYS = (
    *("type", "url", "artifact-hosts", "ttl", "refresh-after", "negative-ttl", "strict-links", "names"),
    *credentials.KEYS,
    *("shared", "readers"),
    *following.KEYS,
)


@frozen(kw_only=True)
class Config:
    """
    Everything that can be configured; see :data:`regcache.settings.OPTIONS` for what each means. Durations are seconds.

    :ivar credentials: those for the upstreams of registries that have some, by name.
    :ivar proxies: the forward proxies that the environment names.
    """

    registries: tuple[RegistryOptions, ...] = field(
        factory=lambda: (RegistryOptions(name="npm", type="npm"), RegistryOptions(name="pypi", type="pypi"))
    )
    listen: tuple[Listen, ...] = ()
    cache_dir: str = field(factory=lambda: default_cache_dir(os.environ))
    max_size: int = 10 << 30
    min_free: int = 1 << 30
    scrub: float | None = 7 * 86400.0
    max_file_size: int = 0
    max_index_size: int = 256 << 20
    memory_cache: int = 64 << 20
    ttl: float = 86400.0
    refresh_after: float | None = 600.0
    negative_ttl: float = 60.0
    upstream_timeout: float = 5.0
    cold_timeout: float = 14.0
    idle_timeout: float = 30.0
    allow: tuple[Network, ...] = LOOPBACK
    trust_proxy: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    auth: str = ""
    public_url: str = ""
    max_connections: int = 0
    offline: bool = False
    upstream_ca: str = ""
    strict_links: bool = False
    client_no_cache: str = "ignore"
    grace: float = 8.0
    access_log: str = "off"
    access_log_hits: bool = False
    access_log_format: str = "combined"
    access_log_max_size: int = 10 << 20
    access_log_files: int = 5
    credentials: Mapping[str, Credentials] = field(factory=dict)
    proxies: Proxies = DIRECT


def variables() -> set[str]:
    """The environment variables that mean something here."""
    return {_PREFIX + option.attribute.upper() for option in OPTIONS} | {f"{_PREFIX}CONFIG"}


def load(
    options: Mapping[str, str | list[str]], environ: Mapping[str, str], known: Callable[[str], Collection[str]]
) -> Config:
    """
    The configuration.

    :param options: what the command line says, by option name; values not yet parsed.
    :param known: the extra option names of a registry type; raises ConfigError for one that is not there.
    :raises regcache.errors.ConfigError: with one line for a person.
    """
    said: dict[str, tuple[Any, str]] = {}
    path = str(options.get("config") or environ.get(f"{_PREFIX}CONFIG", ""))
    tables = _read_file(path, said) if path else {}
    for option in OPTIONS:
        name = _PREFIX + option.attribute.upper()
        if name in environ:
            text = environ[name]
            said[option.name] = (text.split() if option.many else text, f"the environment variable {name}")
    for name, value in options.items():
        if name in _BY_NAME:
            said[name] = (value, f"--{name}")
    parsed = {_BY_NAME[name].attribute: _parsed(_BY_NAME[name], *pair) for name, pair in said.items()}
    if "cache_dir" not in parsed:
        parsed["cache_dir"] = default_cache_dir(environ)
    served = parsed.pop("registries", ",".join(tables) or "npm,pypi")
    listen = parsed.pop("listen", ())
    config = Config(registries=(), proxies=Proxies.of(environ), **parsed)
    where = said["registries"][1] if "registries" in said else path
    registries = tuple(_registry(item, where, tables, config, known) for item in values.items(served))
    _check_names(registries, where)
    secrets = {one.name: credentials.read(one.name, tables.get(one.name, {}), path, environ) for one in registries}
    config = evolve(config, credentials={name: found for name, found in secrets.items() if found is not None})
    for name in tables:
        # One that is not served now is checked all the same.
        _registry(name, path, tables, config, known)
    where = said["listen"][1] if "listen" in said else ""
    registries = tuple(_kept_from(one, registries) for one in registries)
    return evolve(config, registries=registries, listen=tuple(_listen(item, where, registries) for item in listen))


def _kept_from(one: RegistryOptions, registries: Iterable[RegistryOptions]) -> RegistryOptions:
    """The same registry, which is never asked for names that are of others of its type."""
    names = tuple(name for other in registries if other.type == one.type and other != one for name in other.names)
    return evolve(one, elsewhere=names).followed_by(*(more.url for more in one.further))


def _check_names(registries: tuple[RegistryOptions, ...], where: str) -> None:
    names = [registry.name for registry in registries]
    if not names:
        raise ConfigError(f"{where}: no registry is named; it wants names such as npm,pypi.")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: the registry {name!r} is named twice; give each a name of its own.")


def _read_file(path: str, said: dict[str, tuple[Any, str]]) -> dict[str, dict[str, Any]]:
    try:
        # Some editors begin a file with a mark that TOML does not know.
        content = tomllib.loads(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
    tables: dict[str, dict[str, Any]] = {}
    for name, value in content.items():
        if name == "registries" and isinstance(value, dict):
            for registry, table in value.items():
                if not isinstance(table, dict):
                    raise ConfigError(f"{path}: registries.{registry} must be a table: [registries.{registry}].")
                tables[registry] = table
        elif name not in _BY_NAME:
            raise ConfigError(f"{path}: there is no key {name!r}; {values.nearest(name, _BY_NAME)}")
        elif _BY_NAME[name].parse in _ANY_TEXT and not isinstance(value, str):
            raise ConfigError(f"{path}: {name}: it wants text, in quotes.")
        else:
            many = _BY_NAME[name].many
            listed = value if isinstance(value, list) else [value]
            said[name] = (list(map(_textual, listed)) if many else _textual(value), f"{path}: {name}")
    return tables


def _textual(value: Any) -> str:
    """A TOML value as an option would say it, so that there is one way to read it."""
    if isinstance(value, list):
        return ",".join(map(_textual, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _parsed(option: Option, value: Any, where: str) -> Any:
    return tuple(value) if option.many else _read(option.parse, value, where)


def _read(parse: Callable[[str], Any], text: str, where: str) -> Any:
    try:
        if "\0" in text:
            raise ValueError("text without NUL")
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} is not right; it wants {error}.") from None


def _registry(
    item: str,
    where: str,
    tables: Mapping[str, Mapping[str, Any]],
    config: Config,
    known: Callable[[str], Collection[str]],
) -> RegistryOptions:
    name, equals, url = item.partition("=")
    if not _NAME.fullmatch(name) or (equals and not url):
        raise ConfigError(
            f"{where}: {item!r} is not right; it wants NAME, NAME=URL or NAME=TYPE+URL, each NAME in lower case."
        )
    table = {key: _textual(value) for key, value in tables.get(name, {}).items()}
    kind = table.get("type", name)
    prefix, plus, rest = url.partition("+")
    if plus and _NAME.fullmatch(prefix):
        kind, url = prefix, rest
    try:
        extras = known(kind)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.detail}") from None
    for key in table:
        if key not in REGISTRY_KEYS and key not in extras:
            raise ConfigError(
                f"registries.{name}: there is no key {key!r}; {values.nearest(key, {*REGISTRY_KEYS, *extras})}"
            )

    def read(key: str, parse: Callable[[str], Any], default: Any) -> Any:
        return _read(parse, table[key], f"registries.{name}.{key}") if key in table else default

    urls = [_read(values.url, url, where)] if equals else [""]
    if "url" in table and not equals:
        urls = _upstreams(tables[name]["url"], f"registries.{name}.url")
    return RegistryOptions(
        name=name,
        type=kind,
        url=urls[0],
        artifact_hosts=read("artifact-hosts", values.items, ()),
        ttl=read("ttl", values.duration, config.ttl),
        refresh_after=read("refresh-after", values.optional_duration, config.refresh_after),
        negative_ttl=read("negative-ttl", values.duration, config.negative_ttl),
        shared=read("shared", values.truth, False),
        readers=read("readers", values.items, ()),
        names=read("names", values.items, ()),
        strict_links=read("strict-links", values.truth, config.strict_links),
        has_credentials=not {"auth", "client-cert"}.isdisjoint(table),
        **following.read(name, len(urls), read, tells=bool(config.auth)),
        extra={key: value for key, value in table.items() if key in extras},
    ).followed_by(*urls[1:])


def _upstreams(said: Any, where: str) -> list[str]:
    """The URLs that a table names: one, or several in order."""
    urls = [_read(values.url, _textual(one), where) for one in (said if isinstance(said, list) else [said])]
    if not urls or len(set(urls)) < len(urls):
        raise ConfigError(f"{where}: it wants a URL, or several different ones in the order to ask them.")
    return urls


def _listen(item: str, where: str, registries: tuple[RegistryOptions, ...]) -> Listen:
    name, at, endpoint = item.partition("@")
    if not at or ":" in name:
        name, endpoint = "", item
    if not _ENDPOINT.fullmatch(endpoint):
        raise ConfigError(
            f"{where}: {item!r} is not right; it wants an endpoint such as tcp:8650:interface=127.0.0.1,"
            " or NAME@ENDPOINT."
        )
    if name and name not in {registry.name for registry in registries}:
        raise ConfigError(f"{where}: {item!r} is not right; no registry {name!r} is served: see --registries.")
    return Listen(endpoint, name)
