"""The configuration: where it comes from, and every complaint about it."""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache import registries, values
from regcache.cautions import warnings
from regcache.config import REGISTRY_KEYS, Config, Listen, default_cache_dir, load
from regcache.errors import ConfigError
from regcache.options import Options, check_endpoint
from regcache.routes import RegistryOptions
from regcache.settings import OPTIONS
from tests.own import own_names

ROOT = Path(__file__).parent.parent
HOME = {"HOME": "/home/someone"}


def known(kind: str) -> Collection[str]:
    """The extra options of a type, as the command line asks for them."""
    names: Collection[str] = registries.factory(kind).option_names
    return names


def configured(options: Mapping[str, Any] | None = None, environ: Mapping[str, str] = {}) -> Config:
    """The configuration of a command line and an environment."""
    return load(options or {}, {**HOME, **environ}, known)


def complaint(options: Mapping[str, Any] | None = None, environ: Mapping[str, str] = {}) -> str:
    """What is wrong with a command line and an environment: always one line."""
    with pytest.raises(ConfigError) as caught:
        configured(options, environ)
    assert "\n" not in caught.value.detail
    return caught.value.detail


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    """Writes a TOML file, and gives the option that names it."""

    def write(text: str) -> dict[str, str]:
        path = tmp_path / "regcache.toml"
        path.write_text(text)
        return {"config": str(path)}

    return write


def mount(config: Config, name: str) -> RegistryOptions:
    """The options of one registry."""
    return next(registry for registry in config.registries if registry.name == name)


# Where values come from.


def test_defaults() -> None:
    """With nothing said, npm and pypi are served on loopback as the table of options says."""
    config = configured()
    assert [(one.name, one.type, one.url) for one in config.registries] == [("npm", "npm", ""), ("pypi", "pypi", "")]
    assert config.listen == ()
    assert config.allow == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert config.cache_dir == default_cache_dir(HOME)
    assert config == Config(cache_dir=config.cache_dir)


def test_the_table_says_what_the_defaults_are() -> None:
    """The default that the help shows is the value that is used."""
    config = Config(cache_dir="/x")
    for option in OPTIONS:
        if option.name not in ("registries", "listen", "cache-dir"):
            assert option.parse(option.default) == getattr(config, option.attribute), option.name


#: For each option a value for the file, the environment and the command line, and what they come to.
SOURCES: list[tuple[str, tuple[str, str, str], tuple[Any, Any, Any]]] = [
    ("cache-dir", ("/a", "/b", "/c"), ("/a", "/b", "/c")),
    ("max-size", ("1K", "2K", "3K"), (1024, 2048, 3072)),
    ("min-free", ("1K", "2K", "0"), (1024, 2048, 0)),
    ("scrub", ("1h", "2w", "off"), (3600.0, 1209600.0, None)),
    ("max-file-size", ("1K", "2K", "0"), (1024, 2048, 0)),
    ("max-index-size", ("1K", "2K", "3K"), (1024, 2048, 3072)),
    ("memory-cache", ("1K", "2K", "0"), (1024, 2048, 0)),
    ("ttl", ("1m", "2m", "0"), (60.0, 120.0, 0.0)),
    ("refresh-after", ("1m", "2m", "off"), (60.0, 120.0, None)),
    ("negative-ttl", ("1m", "2m", "0s"), (60.0, 120.0, 0.0)),
    ("upstream-timeout", ("1s", "2", "300ms"), (1.0, 2.0, 0.3)),
    ("cold-timeout", ("1s", "2", "300ms"), (1.0, 2.0, 0.3)),
    ("idle-timeout", ("1s", "2", "300ms"), (1.0, 2.0, 0.3)),
    ("grace", ("1s", "2", "0"), (1.0, 2.0, 0.0)),
    ("hosts", ("a", "b,c", "*"), (("a",), ("b", "c"), ("*",))),
    ("public-url", ("http://a", "http://b/", ""), ("http://a/", "http://b/", "")),
    ("max-connections", ("8", "16", ""), (8, 16, 0)),
    ("client-no-cache", ("revalidate", "ignore", "revalidate"), ("revalidate", "ignore", "revalidate")),
    ("access-log", ("-", "off", "/x.log"), ("-", "off", "/x.log")),
    ("offline", (" Yes ", "OFF", "on"), (True, False, True)),
    ("strict-links", ("off", "true", "0"), (False, True, False)),
    ("access-log-hits", ("true", "no", "1"), (True, False, True)),
    ("access-log-format", ("json", "combined", "json"), ("json", "combined", "json")),
    ("access-log-max-size", ("1K", "2K", "0"), (1024, 2048, 0)),
    ("access-log-files", ("1", "2", "3"), (1, 2, 3)),
    ("upstream-ca", ("", "", ""), ("", "", "")),
    ("auth", (__file__, "", __file__), (__file__, "", __file__)),
]


@pytest.mark.parametrize(("name", "texts", "wanted"), SOURCES, ids=[source[0] for source in SOURCES])
def test_precedence(name: str, texts: tuple[str, str, str], wanted: tuple[Any, Any, Any], toml: Any) -> None:
    """The file wins over the default, the environment over the file, and an option over the environment."""
    attribute = name.replace("-", "_")
    file = toml(f'{name} = "{texts[0]}"\n')
    environ = {f"REGCACHE_{attribute.upper()}": texts[1]}
    assert getattr(configured(file), attribute) == wanted[0]
    assert getattr(configured(file, environ), attribute) == wanted[1]
    assert getattr(configured({**file, name: texts[2]}, environ), attribute) == wanted[2]


def test_precedence_is_shown_for_every_option() -> None:
    """No option is missing from the above but those that have a fact of their own."""
    own = {"registries", "listen", "allow", "trust-proxy"}
    assert {source[0] for source in SOURCES} | own == {option.name for option in OPTIONS}


@pytest.mark.parametrize("name", ["allow", "trust-proxy"])
def test_networks_from_everywhere(name: str, toml: Any) -> None:
    """Networks are listed with commas, and in the file as a list as well; a bare address is a network of one."""
    attribute = name.replace("-", "_")
    config = configured(toml(f'{name} = ["10.0.0.0/8", "::1"]'))
    assert getattr(config, attribute) == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    config = configured({}, {f"REGCACHE_{attribute.upper()}": "10.1.2.3"})
    assert getattr(config, attribute) == (ipaddress.ip_network("10.1.2.3/32"),)
    config = configured({name: " 10.0.0.1/8 , fe80::/10 "})
    assert getattr(config, attribute) == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fe80::/10"))


def test_toml_types(toml: Any) -> None:
    """In the file a number may be a number, a truth value one, and a list a list."""
    config = configured(toml('ttl = 90\nmax-size = 2048\noffline = true\nhosts = ["a", "b"]\nregistries = ["npm"]'))
    assert (config.ttl, config.max_size, config.offline, config.hosts) == (90.0, 2048, True, ("a", "b"))
    assert [one.name for one in config.registries] == ["npm"]


def test_the_file_may_be_named_in_the_environment(toml: Any) -> None:
    """REGCACHE_CONFIG names the file, and the option wins over it."""
    path = toml("ttl = 90")["config"]
    assert configured({}, {"REGCACHE_CONFIG": path}).ttl == 90
    assert "nowhere" in complaint({"config": "/nowhere.toml"}, {"REGCACHE_CONFIG": path})


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/x", "XDG_CACHE_HOME": "/xdg"}, "/var/cache/x"),
        ({"CACHE_DIRECTORY": "/var/cache/x:/var/cache/y"}, "/var/cache/x"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/regcache"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/regcache"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/regcache"),
        ({}, "/home/someone/.cache/regcache"),
    ],
)
def test_cache_dir(environ: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is where systemd says, else in the user's cache directory; a named one is made absolute."""
    monkeypatch.setattr("sys.platform", "linux")
    assert default_cache_dir({**HOME, **environ}) == wanted
    assert configured({}, environ).cache_dir == wanted
    assert configured({"cache-dir": "here"}, environ).cache_dir == str(Path.cwd() / "here")


def test_cache_dir_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the user's caches are in the library."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert default_cache_dir(HOME) == "/home/someone/Library/Caches/regcache"


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home directory the complaint says what to name."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="--cache-dir"):
        default_cache_dir({})


# Wrong values.

WRONG: list[tuple[str, str, str]] = [
    ("registries", "NPM", "NAME=URL"),
    ("registries", "npm=", "NAME=URL"),
    ("registries", "", "npm,pypi"),
    ("registries", " , ", "npm,pypi"),
    ("registries", "npm,npm", "twice"),
    ("registries", "pipy", "'pypi'"),
    ("registries", "mine=ecosystem+https://host/", "known are"),
    ("registries", "npm=host/path", "https://host/path/"),
    ("registries", "npm=ftp://host/", "https://host/path/"),
    ("registries", "npm=https://host/?x", "https://host/path/"),
    ("registries", "npm=https://host:x/", "https://host/path/"),
    ("registries", "npm=https://[::1/", "https://host/path/"),
    ("registries", "npm=https://host:0/", "https://host/path/"),
    ("registries", "npm=https://ho st/", "https://host/path/"),
    ("registries", "npm=https://user:secret@host/", "without credentials"),
    ("registries", "mine=generic+", "https://host/path/"),
    ("cache-dir", "", "a directory"),
    ("cache-dir", " ", "a directory"),
    ("max-size", "-1", "such as 10G"),
    ("max-size", "10X", "such as 10G"),
    ("max-size", "", "such as 10G"),
    ("min-free", "much", "such as 10G"),
    ("scrub", "0", "above 0, such as 5s, or off"),
    ("scrub", "never", "or off"),
    ("max-file-size", "1.G", "such as 10G"),
    ("max-index-size", "0", "above 0"),
    ("max-index-size", "x", "such as 10G"),
    ("memory-cache", "all", "such as 10G"),
    ("ttl", "soon", "such as 1d"),
    ("ttl", "-1s", "such as 1d"),
    ("ttl", "1y", "such as 1d"),
    ("ttl", "", "such as 1d"),
    ("ttl", "9" * 400, "such as 1d"),
    ("refresh-after", "never", "or off"),
    ("negative-ttl", "1 2", "such as 1d"),
    ("upstream-timeout", "0", "above 0"),
    ("cold-timeout", "0s", "above 0"),
    ("idle-timeout", "0ms", "above 0"),
    ("idle-timeout", "nan", "such as 1d"),
    ("allow", "localhost", "10.0.0.0/8"),
    ("allow", "10.0.0.0/33", "10.0.0.0/8"),
    ("trust-proxy", "10.0.0", "10.0.0.0/8"),
    ("hosts", "http://cache.example", "without scheme and port"),
    ("hosts", "cache.example:8650", "without scheme and port"),
    ("hosts", "*.example", "without scheme and port"),
    ("auth", "/nowhere/readers", "a file that can be read (No such file or directory)"),
    ("auth", "/", "a file that can be read (Is a directory)"),
    ("public-url", "cache.example", "https://host/path/"),
    ("public-url", "http://user:secret@cache.example/", "without credentials"),
    ("max-connections", "many", "a whole number"),
    ("max-connections", "0", "above 0"),
    ("max-connections", "1\u0661", "a whole number"),
    ("offline", "perhaps", "yes or no"),
    ("upstream-ca", "/nowhere.pem", "PEM file"),
    ("client-no-cache", "obey", "ignore or revalidate"),
    ("grace", "a while", "such as 1d"),
    ("access-log", "", "off, - or a file"),
    ("strict-links", "strict", "yes or no"),
    ("access-log-hits", "2", "yes or no"),
    ("access-log-format", "common", "combined or json"),
    ("access-log-max-size", "big", "a size such as 10G"),
    ("access-log-files", "0", "a whole number above 0"),
]


@pytest.mark.parametrize(("name", "text", "wanted"), WRONG)
def test_wrong_values(name: str, text: str, wanted: str, toml: Any) -> None:
    """A wrong value, wherever it is said, gives one line that names where, and what it wants, but no password."""
    variable = f"REGCACHE_{name.replace('-', '_').upper()}"
    file = toml(f'{name} = "{text}"')
    for said, where in (
        (complaint({name: text}), f"--{name}: "),
        (complaint({}, {variable: text}), f"the environment variable {variable}: "),
        (complaint(file), f"{file['config']}: {name}: "),
    ):
        assert said.startswith(where)
        assert wanted in said
        assert "secret" not in said


def test_every_option_can_be_wrong() -> None:
    """Wrong values are shown for every option but the endpoints, which have a fact of their own."""
    assert {name for name, _, _ in WRONG} | {"listen"} == {option.name for option in OPTIONS}


def test_certificates(tmp_path: Path) -> None:
    """A file that holds no certificates is refused before anybody is asked with it."""
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    assert "PEM file" in complaint({"upstream-ca": str(path)})
    assert "PEM file" in complaint({"upstream-ca": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tll = 5", "'tll'; did you mean 'ttl'?"),
        ("Offline = true", "did you mean 'offline'?"),
        ("qqqq = 5", "known are access-log, "),
        ("[registry.npm]\nurl = 'x'", "did you mean 'registries'?"),
        ("[registries]\nnpm = 'x'", "[registries.npm]"),
        ("[registries.npm]\nurll = 'https://host/'", "registries.npm: there is no key 'urll'; did you mean 'url'?"),
        ("[registries.npm]\nfiles = 'https://host/'", "registries.npm: there is no key 'files'"),
        ("[registries.pypi]\nfile = 'https://host/'", "did you mean 'files'?"),
        ("[registries.npm]\nurl = 'host'", "registries.npm.url: 'host' is not right; it wants a URL"),
        ("[registries.npm]\nurl = 5", "registries.npm.url: '5'"),
        ("[registries.npm]\nfreshness = 'upstreams'", "freshness: 'upstreams' is not right; it wants"),
        ("[registries.npm]\nmethods = ['PUT']", 'npm.methods: it means something only beside freshness = "upstream"'),
        ("[registries.npm]\nstale-if-error = '1d'", "npm.stale-if-error: it means something only beside"),
        (
            "[registries.npm]\nfreshness = 'upstream'\nmethods = ['put']",
            "methods: 'put' is not right; it wants",
        ),
        ("[registries.npm]\nfreshness = 'upstream'\nmethods = ['TRACE']", "methods: 'TRACE' is not right"),
        (
            "[registries.npm]\nfreshness = 'upstream'\ntargeted = ['a b']",
            "targeted: 'a b' is not right",
        ),
        ("[registries.npm]\nfreshness = 'upstream'\nurl = ['https://a/', 'https://b/']", "url names 2"),
        ("[registries.npm]\nurl = ''", "registries.npm.url: ''"),
        ("[registries.npm]\nurl = []", "registries.npm.url: it wants a URL, or several"),
        ("[registries.npm]\nurl = ['https://a/', 'b']", "registries.npm.url: 'b'"),
        ("[registries.npm]\nurl = ['https://a/', ['https://b/', 'https://c/?']]", "registries.npm.url: 'https://b/,"),
        (
            "[registries.npm]\nurl = ['https://a', 'https://a/']",
            "registries.npm.url: it wants a URL, or several",
        ),
        ("[registries.npm]\nttl = 'soon'", "registries.npm.ttl: 'soon'"),
        ("[registries.npm]\nttl = true", "registries.npm.ttl: 'yes'"),
        ("[registries.npm]\nrefresh-after = 'soon'", "registries.npm.refresh-after: 'soon'"),
        ("[registries.npm]\nnegative-ttl = []", "registries.npm.negative-ttl: ''"),
        ("[registries.npm.ttl]\nx = 1", "registries.npm.ttl: "),
        ("[registries.mine]\nurl = 'https://host/'", "no registry type 'mine'"),
        ("[registries.mine]\ntype = 'pipy'", "did you mean 'pypi'?"),
        ("[registries.'My Own']\ntype = 'pypi'", "'My Own' is not right"),
        ("[ttl]\nx = 1", "ttl: "),
        ("ttl = ", "is not TOML"),
        ("ttl = 1\nttl = 2", "is not TOML"),
        (f"hosts = {'[' * 5000}", "is not TOML"),
        ("access-log = false", "access-log: it wants text"),
        ("cache-dir = ['/a', '/b']", "cache-dir: it wants text"),
        ('cache-dir = "/a\\u0000b"', "cache-dir: '/a\\x00b' is not right; it wants text without NUL"),
    ],
)
def test_wrong_files(text: str, wanted: str, toml: Any) -> None:
    """What is wrong in a file is named, with the nearest thing that is known; also in a table that is not served."""
    assert wanted in complaint(toml(text))
    if "[registries." in text:
        assert wanted in complaint({**toml(text), "registries": "generic=https://host/"})


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that is not there, is none, or is not text is named in one line."""
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "x"):
        assert complaint({"config": str(path)}).startswith(str(path))


def test_a_mark_at_the_beginning(tmp_path: Path) -> None:
    """Some editors put a byte order mark before the text."""
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfttl = 90\n")
    assert configured({"config": str(tmp_path / "x")}).ttl == 90


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They mean the same wherever a supervisor goes afterwards; without a working directory only absolute ones do."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert configured({"access-log": "x.log"}).access_log == str(tmp_path / "gone" / "x.log")
    (tmp_path / "gone").rmdir()
    for name in ("cache-dir", "access-log"):
        assert "absolute" in complaint({name: "x"})
    assert configured({"access-log": "-", "cache-dir": "/x"}).access_log == "-"


# Registries.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("npm,pypi", [("npm", "npm", ""), ("pypi", "pypi", "")]),
        (" pypi , npm ,", [("pypi", "pypi", ""), ("npm", "npm", "")]),
        ("pypi=https://host/simple", [("pypi", "pypi", "https://host/simple/")]),
        ("npm=http://host:8081/a+b/", [("npm", "npm", "http://host:8081/a+b/")]),
        ("nodejs=generic+https://host/dist/", [("nodejs", "generic", "https://host/dist/")]),
        ("mine=pypi+https://host/a=b/", [("mine", "pypi", "https://host/a=b/")]),
        ("generic=https://host/", [("generic", "generic", "https://host/")]),
    ],
)
def test_registries(text: str, wanted: list[tuple[str, str, str]]) -> None:
    """A registry is a name, a name with an upstream, or a name with a type and an upstream."""
    assert [(one.name, one.type, one.url) for one in configured({"registries": text}).registries] == wanted


def test_following(toml: Any) -> None:
    """How an upstream is followed, and that its clients' credentials are not those of the cache's own."""
    table = (
        "[registries.t]\ntype = 'generic'\nurl = 'https://h/'\nfreshness = 'upstream'\nmethods = ['PUT', 'M-SEARCH']\n"
        "forward-authorization = true\nclient-directives = true\ntargeted = []\nstale-if-error = 'off'\n"
    )
    (one,) = configured(toml(table)).registries
    assert (one.follows, one.methods, one.forward_authorization) == (True, ("PUT", "M-SEARCH"), True)
    assert (one.client_directives, one.targets, one.stale_if_error) == (True, (), 0.0)
    (plain,) = configured(toml("[registries.npm]")).registries
    assert (plain.follows, plain.methods, plain.targets) == (False, (), ("cdn-cache-control",))
    assert plain.stale_if_error is None
    auth = toml(table)
    users = Path(auth["config"]).with_name("users")
    users.write_text("")
    assert "forward-authorization wants shared = true beside auth" in complaint({**auth, "auth": str(users)})


def test_tables(toml: Any) -> None:
    """A table says everything about its registry; what it leaves out is as for all."""
    text = """
        ttl = "2h"
        refresh-after = "off"
        [registries.corp]
        type = "pypi"
        url = "https://index.example/simple"
        artifact-hosts = ["cdn.example", "*.files.example:", "x:1"]
        ttl = 60
        refresh-after = "5s"
        negative-ttl = "2s"
        files = "https://files.example/"
        [registries.npm]
        artifact-hosts = "cdn.example, other.example"
    """
    config = configured(toml(text))
    assert config.registries == (
        RegistryOptions(
            name="corp",
            type="pypi",
            url="https://index.example/simple/",
            artifact_hosts=("cdn.example", "*.files.example:", "x:1"),
            ttl=60.0,
            refresh_after=5.0,
            negative_ttl=2.0,
            extra={"files": "https://files.example/"},
        ),
        RegistryOptions(
            name="npm",
            type="npm",
            artifact_hosts=("cdn.example", "other.example"),
            ttl=7200.0,
            refresh_after=None,
            negative_ttl=60.0,
        ),
    )


def test_which_registries_are_served(toml: Any) -> None:
    """Served are those of the option, else the tables of the file, else npm and pypi; tables are used by name."""
    file = toml('[registries.corp]\ntype = "pypi"\nurl = "https://index.example/simple/"\n[registries.npm]\nttl = 5')
    assert [one.name for one in configured(file).registries] == ["corp", "npm"]
    config = configured({**file, "registries": "npm=https://own.example/,pypi"})
    assert [one.name for one in config.registries] == ["npm", "pypi"]
    assert (mount(config, "npm").ttl, mount(config, "npm").url) == (5.0, "https://own.example/")
    config = configured({**file, "registries": "corp=https://other.example/simple/"})
    assert (mount(config, "corp").type, mount(config, "corp").url) == ("pypi", "https://other.example/simple/")
    config = configured({**file, "registries": "corp=generic+https://other.example/"})
    assert mount(config, "corp").type == "generic"
    assert [one.name for one in configured(file, {"REGCACHE_REGISTRIES": "corp"}).registries] == ["corp"]
    assert [one.name for one in configured(toml("ttl = 5")).registries] == ["npm", "pypi"]


# Ports.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tcp:8650", Listen("tcp:8650")),
        ("tcp:8000:interface=127.1.1.1", Listen("tcp:8000:interface=127.1.1.1")),
        ("pypi@tcp:8001:interface=127.1.1.1", Listen("tcp:8001:interface=127.1.1.1", "pypi")),
        ("unix:/run/regcache@x.sock", Listen("unix:/run/regcache@x.sock")),
        ("npm@unix:/run/a@b.sock", Listen("unix:/run/a@b.sock", "npm")),
        ("systemd:domain=INET:index=0", Listen("systemd:domain=INET:index=0")),
    ],
)
def test_ports(text: str, wanted: Listen, toml: Any) -> None:
    """A port is an endpoint, or an endpoint of one registry; said by option, environment or file."""
    assert configured({"listen": [text]}).listen == (wanted,)
    assert configured({}, {"REGCACHE_LISTEN": f" {text}  tcp:1 "}).listen == (wanted, Listen("tcp:1"))
    assert configured(toml(f'listen = ["{text}", "tcp:1"]')).listen == (wanted, Listen("tcp:1"))
    assert configured(toml(f'listen = "{text}"')).listen == (wanted,)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8650", "tcp:8650"),
        ("", "tcp:8650"),
        ("pypi@", "tcp:8650"),
        ("tcp:", "tcp:8650"),
        ("127.0.0.1:8650", "tcp:8650"),
        ("pip@tcp:8001", "--registries"),
    ],
)
def test_wrong_ports(text: str, wanted: str, toml: Any) -> None:
    """What is no endpoint, and a port of a registry that is not served, is named in one line."""
    assert complaint({"listen": [text]}).startswith("--listen: ")
    assert wanted in complaint({"listen": [text]})
    assert wanted in complaint(toml(f'listen = ["{text}"]'))


@pytest.mark.parametrize("text", ["systemd:domain=INET:index=0", "systemd:domain=INET:name=regcache.socket"])
def test_ports_that_systemd_did_not_hand_over(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the unit's command line by hand is told what is missing, not what went wrong in looking for it."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        check_endpoint(text)
    assert text in caught.value.detail
    assert "no such socket was handed over" in caught.value.detail
    assert "tcp:" not in caught.value.detail


# Values.

SIZES = st.tuples(
    st.integers(0, 10**9), st.sampled_from(["", "K", "M", "G", "T", "k", "g"]), st.sampled_from(["", "B", "iB"])
)


@given(SIZES, st.sampled_from(["", " "]))
def test_sizes(parts: tuple[int, str, str], blank: str) -> None:
    """A size is a number of bytes in powers of 1024, with or without the letters that say bytes."""
    number, unit, byte = parts
    assert values.size(f"{blank}{number}{blank}{unit}{byte}{blank}") == number * 1024 ** " KMGT".index(
        unit.upper() or " "
    )


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d", "w", "", "H"]))
def test_durations(number: int, unit: str) -> None:
    """A duration is a number of seconds, or of what its unit says."""
    factor = {"ms": 0.001, "m": 60, "h": 3600, "d": 86400, "w": 604800}.get(unit.lower(), 1)
    assert values.duration(f"{number}{unit}") == pytest.approx(number * factor)


def test_several_upstreams(toml: Any) -> None:
    """A list of URLs is upstreams in order, each with the options of the table; the command line names one alone."""
    file = toml('[registries.npm]\nurl = ["https://a/x,y", "https://b/"]\nttl = 5\nartifact-hosts = ["c"]')
    [made] = configured(file).registries
    assert (made.url, made.place, made.prefix) == ("https://a/x,y/", "", "npm/")
    [further] = made.further
    assert (further.url, further.ttl, further.artifact_hosts, further.further) == ("https://b/", 5, ("c",), ())
    assert further.prefix != made.prefix
    ours = '[registries.corp]\ntype = "npm"\nurl = "https://c/"\nnames = ["corp-*"]\n'
    public, _ = configured(toml('[registries.npm]\nurl = ["https://a/", "https://b/"]\n' + ours)).registries
    assert public.elsewhere == public.further[0].elsewhere == ("corp-*",)
    file = toml('[registries.npm]\nurl = ["https://a/", "https://b/"]')
    [alone] = configured({**file, "registries": "npm=https://d/"}).registries
    assert (alone.url, alone.further) == ("https://d/", ())
    [one] = configured(toml('[registries.npm]\nurl = ["https://a/"]')).registries
    assert (one.url, one.further) == ("https://a/", ())


def test_fractions() -> None:
    """Sizes and durations may have a fraction."""
    assert values.size("1.5K") == 1536
    assert values.duration("1.5h") == 5400


READERS = [
    values.size,
    values.positive_size,
    values.duration,
    values.positive_duration,
    values.optional_duration,
    values.optional_period,
    values.networks,
    values.host_names,
    values.truth,
    values.url,
    values.optional_url,
    values.directory,
    values.target,
    values.any_of("a"),
]


@given(
    st.text(max_size=12) | st.from_regex(r"https?://[^/]{0,8}(/.*)?") | st.from_regex(r"[0-9.]{1,30} ?[a-zA-Z]{0,3}")
)
def test_any_text(text: str) -> None:
    """Whatever the text, a reader gives a value or a ValueError; nothing else happens."""
    for read in READERS:
        with contextlib.suppress(ValueError):
            read(text)


@pytest.mark.parametrize("text", ["1\N{KELVIN SIGN}", "\u0661G", "1e9", "inf", "nan", "0x10", "1_000", "+1", "1G1"])
def test_strange_numbers(text: str) -> None:
    """Numbers are plain ones."""
    with pytest.raises(ValueError, match="size"):
        values.size(text)
    with pytest.raises(ValueError, match="duration"):
        values.duration(text)


def test_hosts() -> None:
    """Hosts are names and addresses; an address may be in brackets."""
    assert values.host_names("a.example, [::1], 10.0.0.1, build_1.") == ("a.example", "::1", "10.0.0.1", "build_1.")


# Warnings.


@pytest.mark.parametrize(
    ("listen", "said", "warned"),
    [
        ([], (), False),
        (["tcp:8650:interface=127.0.0.1"], (), False),
        (["tcp:8650:interface=localhost"], (), False),
        ([r"tcp:8650:interface=\:\:1"], (), False),
        (["unix:/run/x.sock"], (), False),
        (["tcp:8650"], (), True),
        (["tcp:8650:interface=10.0.0.1"], (), True),
        (["ssl:8650:privateKey=x"], (), True),
        (["tcp:8650"], ("allow",), False),
    ],
)
def test_wide_ports(listen: list[str], said: tuple[str, ...], warned: bool) -> None:
    """A port that others can reach, while only loopback is allowed and nobody said so, gives a warning."""
    assert any("--allow" in line for line in warnings(configured({"listen": listen}), {}, said)) is warned
    wide = configured({"listen": listen, "allow": "10.0.0.0/8"})
    assert warnings(wide, {}, said) == []


def test_nobody_is_allowed() -> None:
    """Ports that nobody may use give a warning; who comes by a UNIX socket was let in by its mode."""
    (line,) = warnings(configured({"allow": ""}), {}, ("allow",))
    assert line == "--allow is empty: nobody may use the cache over TCP."
    assert warnings(configured({"allow": "", "listen": ["unix:/run/x.sock"]}), {}, ("allow",)) == []


@pytest.mark.parametrize(
    ("scrub", "warned"), [("5", True), ("59m", True), ("1h", False), ("7d", False), ("off", False)]
)
def test_bodies_are_read_too_often(scrub: str, warned: bool) -> None:
    """A time in which no disk reads a whole cache gives a warning: a number without a unit is seconds."""
    told = warnings(configured({"scrub": scrub}), {}, ())
    assert [line.startswith("--scrub reads every stored body again each ") for line in told] == [True] * warned


def test_proxy_variables() -> None:
    """Proxies are read from the environment; a part of NO_PROXY that means nothing gives a warning where it counts."""
    environ = {"HTTPS_PROXY": "http://user:secret@proxy:3128", "no_proxy": "192.168.*,.example"}
    config = configured({}, environ)
    assert str(config.proxies.to("https", "a.invalid", 443)) == "http://proxy:3128"
    assert config.proxies.to("https", "a.example", 443) is None
    assert "secret" not in repr(config)
    (line,) = warnings(config, environ, ())
    assert line.startswith("NO_PROXY: '192.168.*' is no host")
    assert warnings(configured({}, {"NO_PROXY": "192.168.*"}), {}, ()) == []
    told = complaint({}, {"ALL_PROXY": "socks5://user:secret@proxy"})
    assert told.startswith("ALL_PROXY names no proxy that can be used")
    assert "secret" not in told


def test_misspelt_variables() -> None:
    """A variable that is nearly one of ours gives a warning; any other is somebody else's."""
    others = {"REGCACHE_CI": "1", "REGCACHE_TTL": "1d", "MREGCACHE_OFFLINE": "1"}
    (line,) = warnings(configured(), {**others, "REGCACHE_OFLINE": "1"}, ())
    assert line == "REGCACHE_OFLINE is no option; did you mean REGCACHE_OFFLINE?"


# The command line.


def ended(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """How a command line ends the program: its status, and what it printed."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(arguments)
    assert isinstance(caught.value.code, int)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option can be given on the command line, and the ports as often as one likes."""
    monkeypatch.setenv("HOME", "/home/someone")
    options = Options()
    options.parseOptions(["--ttl", "5m", "--offline", "--listen", "tcp:1", "--listen=npm@tcp:2", "--registries=npm"])
    assert (options.config.ttl, options.config.offline) == (300.0, True)
    assert options.config.listen == (Listen("tcp:1"), Listen("tcp:2", "npm"))
    assert [one.name for one in options.config.registries] == ["npm"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ttl", "soon"],
        ["--ttl"],
        ["--tll", "5"],
        ["rest"],
        ["--registries", "generic"],
        ["--registries", "pipy"],
        ["--config", "/nowhere.toml"],
        ["--offline=1"],
        ["--listen", "tcp:abc"],
        ["--listen", "tcq:8650"],
        ["--listen", "ssl:8650:privateKey=/nowhere.pem"],
        ["--listen", "ssl:8650:sslmethod=foo"],
        ["--listen", f"ssl:8650:privateKey={__file__}"],
        ["--listen", "systemd:domain=INET:index=0"],
        ["--listen", "tcp:8650:interface=::1"],
        ["--listen", "tcp:8650:interfaces=127.0.0.1"],
    ],
)
def test_wrong_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends the program with status 2 and one line on standard error."""
    status, out, err = ended(arguments, capsys)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"regcache: [^\n]+\n", err)


def test_wrong_registry_options(toml: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What a registry's own module finds wrong names that registry."""
    config = toml('[registries.corp]\ntype = "pypi"\nartifact-hosts = ["*"]')["config"]
    status, _, err = ended(["--config", config], capsys)
    assert status == 2
    assert err.startswith("regcache: Registry 'corp': artifact-hosts: '*'")


def test_check_config(capsys: pytest.CaptureFixture[str]) -> None:
    """A check says that the configuration is sound, and ends."""
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--check-config", "--cache-dir", "/x", "--registries", "npm"])
    assert caught.value.code == 0
    told = "npm; on port 8650 on loopback; for 127.0.0.0/8, ::1/128; cache in /x"
    assert capsys.readouterr().out == f"The configuration is sound: {told}.\n"


class Full(io.StringIO):
    """A stream whose disk is full."""

    def write(self, _text: str) -> int:
        """As it does then."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("stream", [None, Full()], ids=["closed", "full"])
def test_nobody_reads_what_is_said(stream: Full | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is closed or full keeps no configuration from being used."""
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sys.stdout", stream)
    options = Options()
    options.parseOptions(["--cache-dir", "/x", "--listen", "tcp:0"])
    assert options.config.listen == (Listen("tcp:0"),)
    for arguments, status in ((["--check-config", "--cache-dir", "/x"], 0), (["--ttl", "soon"], 2)):
        with pytest.raises(SystemExit) as caught:
            Options().parseOptions(arguments)
        assert caught.value.code == status


def test_every_option_is_one_of_the_command_line() -> None:
    """The command line has exactly the options of the table, and the two that are its own."""
    has = {name for name, *_ in Options.optParameters} | {name for name, *_ in Options.optFlags} | {"listen"}
    assert has == {option.name for option in OPTIONS} | {"config", "check-config"}


# The documentation.


def described() -> list[str]:
    """The rows of the table of options."""
    rows = [(option.name, f"`{option.default}`" if option.default else "", option.help) for option in OPTIONS]
    rows += [(name, "", str(text)) for name, _, _, text in Options.optParameters if name == "config"]
    rows += [(name, "", str(text)) for name, _, text in Options.optFlags if name == "check-config"]
    return [f"| `--{name}` | {default} | {text} |" for name, default, text in rows]


def test_documentation() -> None:
    """The README lists every option as the help does, in its order, and no other."""
    found = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.startswith("| `--")]
    assert found == described()


def test_the_page_and_the_readme_give_the_same_lines() -> None:
    """Every client whose set-up is a command stands in both, with the same command."""
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.partition("| client | set-up |")[2].partition("\n\n")[0]
    commands = set(re.findall(r"^\|[^|]+\| `(.+)` \|$", table, re.MULTILINE))
    made = [registries.make(RegistryOptions(name=name, type=name)) for name in ("npm", "pypi")]
    lines = [line for one in made for line in one.client_lines(f"http://127.0.0.1:8650/{one.options.name}/")]
    assert commands == {line.partition("   #")[0] for line in lines}


def test_documentation_of_tables() -> None:
    """The documentation names every key that a registry's table may have."""
    text = (ROOT / "docs" / "options.md").read_text("utf-8")
    extras = {name for kind in own_names() for name in known(kind)}
    assert {key for key in {*REGISTRY_KEYS, *extras} if f"`{key}`" not in text} == set()
