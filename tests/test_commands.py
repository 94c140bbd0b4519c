"""The commands beside ``serve``: on a running service, on a stopped one, and where they are used wrongly."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from regcache.commands import commands_of, main, parser
from regcache.errors import NotFound
from regcache.http.messages import Headers, Kind, Stored
from regcache.http.policy import Rules
from regcache.outlook import as_it_was, below, outlook, told_of
from regcache.places import admin_sockets
from regcache.registries import make
from regcache.routes import Artifact, RegistryOptions
from regcache.store.index import Index, connect
from regcache.store.listing import Listed, Seen, listed_in
from tests.origin import Origin
from tests.service import Running, free_port
from tests.stores import indexed, let_go, opened, put

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime directory but those that a test names."""
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the cache that ``start`` serves: exit code, output, errors."""

    def running(command: str, *more: str) -> tuple[int, str, str]:
        where = ["--config", str(tmp_path / "regcache.toml"), "--cache-dir", str(tmp_path / "cache")]
        try:
            main([command, *where, *more])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return running


def filled(service: Running, origin: Origin) -> str:
    """Put a project in the cache; the URL of its wheel there."""
    path = origin.add_wheel("demo", "1.0")
    service.until("pypi/simple/demo/", "HIT")
    service.until(f"pypi{path}", "HIT")
    return f"{service.url}pypi{path}"


def parsed(answer: tuple[int, str, str]) -> Any:
    """The JSON that a command printed."""
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def test_a_running_service(
    start: Callable[..., Running], origin: Origin, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """It says how it is, what it has, what a request would get, and how clients are pointed at it."""
    service = start()
    wheel = filled(service, origin)
    path = tmp_path / "cache/admin.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    status = parsed(run("status", "--json"))
    assert status["running"] is True
    assert status["entries"] >= 2
    assert status["registries"]["pypi"]["upstream"] == "ok"
    assert run("status")[1].startswith("running")
    keys = [one["key"] for one in parsed(run("ls", "pypi/demo", "--json"))]
    assert "pypi/simple/demo" in keys
    assert any(key.endswith(WHEEL) for key in keys)
    shown = parsed(run("show", wheel, "--json"))
    assert shown["now"] == "hit"
    assert shown["digest"].startswith("sha256:")
    assert shown["url"].startswith(origin.url)
    assert parsed(run("show", "--json", "pypi/simple/demo"))["now"] == "hit"
    assert "why" in run("show", shown["key"])[1]
    assert parsed(run("show", f"{service.url}pypi/simple/other/", "--json"))["now"] == "miss"
    lines = run("client-config", "pypi")
    assert f"{service.url}pypi/simple/" in lines[1]
    assert lines[1].encode() == service.get("-/clients/pypi")[2]
    for wrong in (("ls", "nothing-like-it"), ("show", "pypi/x"), ("purge", "nothing"), ("client-config", "gone")):
        code, out, err = run(*wrong)
        assert (code, out, err.count("\n")) == (1, "", 1), wrong
        assert "at this address" not in err
    assert run("show", "")[0] == 2
    service.stop()
    assert not path.exists()
    assert run("status")[0] == 3
    assert run("status", "--json")[:2] == (3, '{"running": false}\n')


def test_the_first_address_counts(start: Callable[..., Running], run: Callable[..., tuple[int, str, str]]) -> None:
    """Where it listens on several, clients are sent to the one that was named first."""
    first, second = free_port(), free_port("127.0.0.2")
    service = start("--listen", f"tcp:{first}:interface=127.0.0.1", "--listen", f"tcp:{second}:interface=127.0.0.2")
    told = [line.partition("regcache: ")[2] for line in service.said.splitlines() if "regcache: " in line]
    assert told[0].startswith(f"pypi at http://127.0.0.1:{first}/pypi/   pip config set ")
    assert told[1].startswith(f"npm at http://127.0.0.1:{first}/npm/   npm config set ")
    assert told[2:-1] == [f"the same at http://127.0.0.2:{second}/", f"page at http://127.0.0.1:{first}/"]
    assert parsed(run("client-config", "pypi", "--json"))["url"] == f"http://127.0.0.1:{first}/pypi/"
    assert run("client-config", "pypi", "--public-url", "http://cache.example/")[:2] == (2, "")


def test_purge_and_refresh(
    start: Callable[..., Running], origin: Origin, run: Callable[..., tuple[int, str, str]]
) -> None:
    """A package is forgotten, or its documents alone; a refresh brings what the registry says now."""
    service = start()
    filled(service, origin)
    assert parsed(run("refresh", "demo", "--json"))["refreshed"] == {"pypi/simple/demo": "unchanged"}
    origin.add_wheel("demo", "2.0")
    assert run("refresh", "pypi/demo") == (0, "pypi/simple/demo: changed\n", "")
    assert b"demo-2.0" in service.get("pypi/simple/demo/")[2]
    purged = parsed(run("purge", "demo", "--metadata", "--json"))["purged"]
    assert "pypi/simple/demo" in purged
    assert not any(key.endswith(".whl") for key in purged)
    left = [one["key"] for one in parsed(run("ls", "--json"))]
    assert [key for key in left if key.endswith(WHEEL)]
    assert service.get("pypi/simple/demo/")[1]["X-Cache"] == "MISS"
    origin.add_tarball("@s/left", "1.0.0")
    service.until("npm/@s/left", "HIT")
    assert run("refresh", "npm/@s/left") == (0, "npm/packument/@s/left: unchanged\n", "")
    assert run("purge", "npm/@s/left")[0] == 0
    assert run("purge", "*.whl")[1].startswith("Forgotten: 1 entry, ")
    assert run("purge", "pypi")[0] == 0
    assert parsed(run("ls", "--json")) == []
    assert run("purge", "")[0] == 2


def test_a_stopped_service(
    start: Callable[..., Running], origin: Origin, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """What lies there can be seen and purged under the lock; what wants a service says that none runs."""
    (tmp_path / "regcache.toml").touch()
    assert run("ls")[0] == 1
    assert not (tmp_path / "cache").exists()
    service = start()
    wheel = filled(service, origin)
    service.stop()
    assert parsed(run("show", wheel, "--json"))["now"] == "hit"
    blobs = {path for path in (tmp_path / "cache/blobs").rglob("*") if path.is_file()}
    assert blobs
    assert run("refresh", "demo")[0] == 3
    assert run("purge", "demo")[0] == 0
    assert {path for path in (tmp_path / "cache/blobs").rglob("*") if path.is_file()} < blobs
    assert run("show", wheel)[1].startswith("key")
    assert run("ls", "demo")[0] == 1


def test_a_derived_form(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """What was made of a document has a key that can be read, and typed to look at it and to forget it."""
    (tmp_path / "regcache.toml").touch()
    store = opened(tmp_path / "cache")
    put(store, "npm/packument/demo", b"document", kind=Kind.DOCUMENT)
    put(store, "npm/packument/demo\tfull||gzip", b"derived", kind=Kind.DERIVED, parent="npm/packument/demo")
    let_go(store)
    key = "npm/packument/demo :: full||gzip"
    assert [line[line.index("npm/") :] for line in run("ls")[1].splitlines()[1:]] == ["npm/packument/demo", key]
    code, out, _ = run("show", key)
    assert (code, out.split("\n")[0]) == (0, f"key        {key}")
    assert parsed(run("show", key.replace(" :: ", "\t"), "--json"))["kind"] == "derived"
    assert parsed(run("purge", key, "--json"))["purged"] == [key.replace(" :: ", "\t")]
    assert parsed(run("ls", "--json"))[0]["key"] == "npm/packument/demo"


def test_the_cache_of_a_newer_version(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """A command that only reads says that it cannot be used, and why."""
    (tmp_path / "regcache.toml").touch()
    (tmp_path / "cache").mkdir(mode=0o700)
    with connect(tmp_path / "cache/index.sqlite3") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    code, out, err = run("ls")
    assert (code, out) == (1, "")
    assert err.startswith(f"regcache: The cache in {tmp_path / 'cache'} cannot be used. It was written by a newer ")


def test_in_a_runtime_directory(
    start: Callable[..., Running],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The socket stands there, and is found by whoever has another environment; one left behind is no hindrance."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    path = admin_sockets(str(tmp_path / "cache"), os.environ)[0]
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    service = start()
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert not (tmp_path / "cache/admin.sock").exists()
    assert run("status")[0] == 0
    service.kill()
    assert run("status")[0] == 3


def test_a_path_too_long(
    start: Callable[..., Running],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service says so and runs without; the commands say that they cannot reach it."""
    (tmp_path / ("r" * 100)).mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / ("r" * 100)))
    service = start()
    assert service.get("-/health")[0] == 200
    code, _, err = run("ls")
    assert code == 3
    assert "in use by process" in err
    assert "too long" in service.said


@pytest.mark.parametrize("wrong", [[], ["nonsense"], ["show"], ["ls", "--config", "/nowhere.toml"], ["ls", "--wrong"]])
def test_wrong_use(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with status 2 and one line."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_a_request_would_get() -> None:
    """Each decision of the cache has its word."""
    registries = {"pypi": make(RegistryOptions(name="pypi", type="pypi", url="http://origin.example/simple/"))}
    meant = below(registries, "http://127.0.0.1:8650/pypi/simple/demo/")
    assert meant is not None
    assert meant.key == "pypi/simple/demo"
    stored = Stored(
        key=meant.key,
        registry="pypi",
        kind=Kind.DOCUMENT,
        headers=Headers(),
        digest="0" * 64,
        size=1,
        stored_at=1000.0,
        validated_at=1000.0,
    )
    rules, offline = Rules(), Rules(offline=True)
    assert outlook(meant, stored, rules, 1001.0)[0] == "hit"
    assert outlook(meant, stored, rules, 2000.0)[0] == "revalidated"
    assert outlook(meant, stored, rules, 1e6)[0] == "revalidated"
    assert outlook(meant, stored, rules, 1e6, trouble=True)[0] == "stale"
    assert outlook(meant, stored, offline, 1e6)[0] == "stale"
    assert outlook(meant, None, rules, 1e6)[0] == "miss"
    assert outlook(meant, None, offline, 1e6)[0] == "blocked"
    refused = below(registries, "/pypi/nonsense")
    assert refused is not None
    assert outlook(refused, None, rules, 1e6)[0] == "blocked"
    assert below(registries, "/elsewhere") is None
    made = replace(stored, key=f"{meant.key}\tfacts", kind=Kind.DERIVED, parent=meant.key)
    told = told_of(registries, made.key, Seen(Listed(made, 1, 0.0, 0), ""), rules, 1001.0)
    assert told["now"] == "blocked"
    assert repr(meant.key) in told["why"]
    for name, more in (("demo", "'regcache ls demo'"), ("http://127.0.0.1:8650/elsewhere", "no registry here")):
        with pytest.raises(NotFound, match=more):
            told_of(registries, name, None, rules, 1001.0)


@pytest.mark.parametrize("stopped", [False, True])
def test_verify(
    start: Callable[..., Running],
    origin: Origin,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    stopped: bool,
) -> None:
    """Every body is read; one that is damaged is told of, and where that is asked for dropped and fetched again."""
    service = start()
    url = filled(service, origin)
    shown = parsed(run("show", url, "--json"))
    if stopped:
        service.stop()
    sound = parsed(run("verify", "--json"))
    assert sound["checked"] >= 2
    assert sound["damaged"] == []
    digest = shown["digest"].removeprefix("sha256:")
    blob = tmp_path / "cache/blobs" / digest[:2] / digest[2:]
    blob.write_bytes(bytes(shown["size"]))
    code, out, _ = run("verify")
    assert code == 1
    assert f"{shown['digest']}: Its bytes have changed." in out
    assert run("ls", shown["key"])[0] == 0
    repaired = parsed(run("verify", "--repair", "--json"))["damaged"]
    told = "fetched when it is next wanted" if stopped else "fetched again"
    wrong = {"digest": shown["digest"], "wrong": "Its bytes have changed.", "refetched": {shown["key"]: told}}
    assert repaired == [wrong]
    assert run("ls", shown["key"])[0] == stopped
    assert blob.exists() is not stopped
    assert run("verify")[0] == 0
    if not stopped:
        blob.write_bytes(bytes(shown["size"]))
        origin.spoil = lambda _path, _answer: (503, "text/plain", b"not now\n")
        code, out, _ = run("verify", "--repair")
        assert code == 1
        assert f"    {shown['key']}: failed: " in out
        assert run("ls", shown["key"])[0] == 1


def test_a_body_that_is_gone(
    start: Callable[..., Running], origin: Origin, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """It is told of, without reading any; and so is one of another size."""
    service = start()
    url = filled(service, origin)
    shown = parsed(run("show", url, "--json"))
    assert (shown["now"], shown["wrong"]) == ("hit", "")
    digest = shown["digest"].removeprefix("sha256:")
    blob = tmp_path / "cache/blobs" / digest[:2] / digest[2:]
    blob.write_bytes(b"x")
    for end in (service.stop, lambda: None):
        code, out, _ = run("show", shown["key"], "--json")
        assert code == 1
        assert json.loads(out)["wrong"] == f"Its body has 1 bytes on the disk, not {shown['size']}."
        end()
    blob.unlink()
    code, out, _ = run("show", url)
    assert code == 1
    assert "Its body is gone from the disk. Nothing is stored" in out
    assert "miss" in out


def test_more_than_one_part(
    start: Callable[..., Running], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """A list that comes in parts is whole and in order, and what is purged in parts is all gone."""
    keys = [f"npm/p{number:05}/-/p.tgz" for number in range(1234)]
    more = [f"pypi/packages/{number:05}" for number in range(1000)]
    indexed(tmp_path / "cache", keys + more)
    service = start("--scrub", "off")
    assert [one["key"] for one in parsed(run("ls", "--json"))] == keys + more
    assert run("ls")[1].count("\n") == len(keys + more) + 1
    assert parsed(run("purge", "npm", "--json")) == {"purged": keys, "bytes": 1234}
    service.stop()
    assert [one["key"] for one in parsed(run("ls", "--json"))] == more
    assert parsed(run("purge", "pypi", "--json")) == {"purged": more, "bytes": 1000}
    assert parsed(run("ls", "--json")) == []


def test_what_is_fetched_as_it_was() -> None:
    """A verified artifact that no address leads to is asked for where it came from, and has to be the same."""
    registries = {"cargo": make(RegistryOptions(name="cargo", type="cargo", url="http://origin.example/index/"))}
    url = "http://origin.example/crates/a-1.crate"
    stored = Stored(
        key=f"cargo/dl/{'0' * 64}/{url}",
        registry="cargo",
        kind=Kind.ARTIFACT,
        url=url,
        headers=Headers(),
        digest="ab" * 32,
        size=1,
        stored_at=1.0,
        validated_at=1.0,
        verified=True,
    )
    found = as_it_was(registries, stored)
    assert found is not None
    assert isinstance(found.route, Artifact)
    assert (found.key, found.route.url) == (stored.key, url)
    assert [digest.value for digest in found.route.digests] == ["ab" * 32]
    assert as_it_was(registries, replace(stored, verified=False)) is None


def test_the_documentation_has_the_help() -> None:
    """Every command stands there with its help, as it is."""
    text = (Path(__file__).parent.parent / "docs/commands.md").read_text("utf-8")
    written = {part.partition("\n")[0]: part.partition("\n")[2] for part in text.split("### regcache ")[1:]}
    commands = commands_of(parser())
    assert written.keys() == commands.keys() - {"serve"}
    for name, told in written.items():
        # Versions of Python break the lines in other places.
        assert told.split() == commands[name].format_help().split(), name
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    assert [name for name in written if f"\nregcache {name} " not in readme] == []


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("", "http://127.0.0.1:8650/pypi/"),
        ("tcp:9000:interface=\\:\\:1", "http://[::1]:9000/pypi/"),
        ("npm@tcp:9000:interface=127.0.0.1 pypi@ssl:port=9001:interface=127.0.0.2", "https://127.0.0.2:9001/"),
        ("unix:/run/x tcp:0", ""),
    ],
)
def test_client_lines_without_a_service(
    listen: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are for the port that the configuration names."""
    if listen:
        monkeypatch.setenv("REGCACHE_LISTEN", listen)
    command = ["client-config", "pypi", "--json", "--cache-dir", str(tmp_path / "none")]
    if not url:
        with pytest.raises(SystemExit):
            main(command)
        return
    main(command)
    said = json.loads(capsys.readouterr().out)
    assert said["url"] == url
    assert url in "".join(said["lines"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("npm", ["npm/@s/n/-/n-1.tgz", "npm/n/-/n-1.tgz", "npm/packument/@s/n", "npm/packument/n", "npm/packument/nn"]),
        ("n", ["npm/packument/n"]),
        ("npm/n", ["npm/n/-/n-1.tgz", "npm/packument/n"]),
        ("npm/@s/n", ["npm/@s/n/-/n-1.tgz", "npm/packument/@s/n"]),
        ("@s/n", ["npm/packument/@s/n"]),
        ("go/example.org/m", ["go/example.org/m/@v/list"]),
        ("*-1.tgz", ["npm/@s/n/-/n-1.tgz", "npm/n/-/n-1.tgz"]),
        ("http://up.example/pypi/simple/n", ["pypi/simple/other"]),
        ("pypi/' OR 1 OR '", []),
    ],
)
def test_what_a_pattern_means(pattern: str, found: list[str], tmp_path: Path) -> None:
    """A name without its scope is another package, and a name is no part of a longer one."""
    keys = ["npm/packument/n", "npm/packument/@s/n", "npm/n/-/n-1.tgz", "npm/@s/n/-/n-1.tgz", "npm/packument/nn"]
    keys += ["go/example.org/m/@v/list", "go/example.org/mm/@v/list", "pypi/simple/other"]
    index = Index(connect(tmp_path / "index.sqlite3"))
    index.begin()
    made = {"kind": Kind.DOCUMENT, "digest": "0" * 64, "size": 1, "stored_at": 1.0, "validated_at": 1.0}
    urls = {"pypi/simple/other": "http://up.example/pypi/simple/n"}
    entries = [Stored(key=key, registry=key.partition("/")[0], url=urls.get(key, ""), **made) for key in keys]  # type: ignore[arg-type]
    index.insert([(entry, 1) for entry in entries], 1.0)
    index.commit()
    index.connection.close()
    assert [one.entry.key for one in listed_in(tmp_path, pattern)] == found
