"""Changing the configuration files of clients: what was there stays, and the clients read what was put there."""

from __future__ import annotations

import configparser
import json
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.clients import clients_of
from regcache.clients.blocks import block_add, block_set
from regcache.clients.files import BACKUP
from regcache.clients.lines import ini_add, ini_set, property_set, yarn_set
from regcache.clients.malformed import Malformed
from regcache.clients.markup import maven_mirror, nuget_source
from regcache.clients.tables import item_put, table_set
from regcache.commands import main
from regcache.registries import factory
from tests.clients import environment, program, run
from tests.own import own_names

URL = "http://cache.example:8650/"
Edit = Callable[[str], str]
LIKE_REGCACHE = item_put("index", value={"url": "u", "default": True}, like=lambda one: one.get("default") is True)


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (ini_set("global", "index-url", "u"), "", "[global]\nindex-url = u\n"),
        (
            ini_set("global", "index-url", "u"),
            "; mine\n[install]\nno-deps = yes\n\n[global]\n# why\nindex_url: old\n  and more\n  # kept\ntimeout = 3\n",
            "; mine\n[install]\nno-deps = yes\n\n[global]\n# why\nindex_url = u\n  # kept\ntimeout = 3\n",
        ),
        (ini_set("global", "k", "u"), "[global]\na = 1\n\n\n[x]\nb=2", "[global]\na = 1\nk = u\n\n\n[x]\nb=2\n"),
        (ini_set("global", "k", "u"), "[x]\nk = other\n", "[x]\nk = other\n\n[global]\nk = u\n"),
        (ini_add("global", "t", "h"), "[global]\nt = a\n", "[global]\nt = a h\n"),
        (ini_add("global", "t", "h"), "[global]\nt =\n  a\n  h\n", "[global]\nt =\n  a\n  h\n"),
        (property_set("registry", "u"), "", "registry=u\n"),
        (
            property_set("registry", "u"),
            "; mine\n@s:registry=http://private\nregistry = old\n//private/:_authToken=${X}",
            "; mine\n@s:registry=http://private\nregistry=u\n//private/:_authToken=${X}\n",
        ),
        (property_set("registry", "u"), "a=1\n[s]\nregistry=2\n", "a=1\nregistry=u\n[s]\nregistry=2\n"),
        (yarn_set("registry", "u"), '# x\n"@s:registry" "p"\nregistry "o"\n', '# x\n"@s:registry" "p"\nregistry "u"\n'),
        (table_set("a", "b", value="u"), "# x\n[a]\nc = 1 # y\n", '# x\n[a]\nc = 1 # y\nb = "u"\n'),
        (table_set("a", "b", value="u"), "[a]\nb = 'o' # why\n", '[a]\nb = "u" # why\n'),
        (table_set("s", "x", "r", value="u"), "", '[s.x]\nr = "u"\n'),
        (table_set("s", "x", "r", value="u"), "[s.y]\nr = 1\n", '[s.y]\nr = 1\n[s.x]\nr = "u"\n'),
        (LIKE_REGCACHE, "", '[[index]]\nurl = "u"\ndefault = true\n'),
        (
            LIKE_REGCACHE,
            '[[index]]\nname = "p"\nurl = "o"\n[[index]]\nurl = "d" # public\ndefault = true\n',
            '[[index]]\nname = "p"\nurl = "o"\n[[index]]\nurl = "u" # public\ndefault = true\n',
        ),
        (block_set("k", "u"), "# x\na: 1\nk: old\nb:\n  - 2\n", '# x\na: 1\nk: "u"\nb:\n  - 2\n'),
        (block_set("k", "u"), "", 'k: "u"\n'),
        (block_set("A://X__/", "u"), '---\nA://X__/: "o"\n', '---\nA://X__/: "u"\n'),
        (block_set("k", "u"), "k: |\n  old\n\n  more\n\na: 1\n", 'k: "u"\n\na: 1\n'),
        (block_add("l", "u"), "a: 1\n", 'a: 1\nl:\n  - "u"\n'),
        (block_add("l", "u"), "l: # x\n    - a # y\nb: 1\n", 'l: # x\n    - "u"\n    - a # y\nb: 1\n'),
        (block_add("l", "u"), "l: [a, 'u']\n", "l: [a, 'u']\n"),
        (block_add("l", "u"), "l: [a]\n", 'l: ["u", a]\n'),
        (block_add(":s", "u", "o"), "---\n:s:\n- p\n- o\n:v: true\n", '---\n:s:\n- p\n- "u"\n:v: true\n'),
        (block_add(":s", "u", "o"), ":s:\n- u\n", ":s:\n- u\n"),
    ],
)
def test_an_edit(edit: Edit, before: str, after: str) -> None:
    """Only the one key changes; done again, nothing does."""
    made = edit(before)
    # tomlkit's versions differ in blank lines between tables.
    assert [line for line in made.splitlines() if line] == [line for line in after.splitlines() if line]
    assert edit(made) == made


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (ini_set("global", "k", "u"), "index-url = x\n"),
        (ini_set("global", "k", "u"), "[global]\nk = 1\nk = 2\n"),
        (ini_set("global", "k", "u"), "[global\n"),
        (table_set("a", "b", value="u"), "a = [\n"),
        (table_set("a", "b", value="u"), "a = 1\n"),
        (table_set("a", "b", value="u"), "[a.b]\nc = 1\n"),
        (LIKE_REGCACHE, "index = 1\n"),
        (block_set("k", "u"), "{k: old}\n"),
        (block_set("k", "u"), "k: 1\nk: 2\n"),
        (block_set("k", "u"), "a: 1\n---\nb: 2\n---\n"),
        (block_add("l", "u"), "l: text\n"),
        (maven_mirror("u"), "<settings>"),
        (maven_mirror("u"), "<project/>"),
        (nuget_source("u", "n"), "{}"),
        (property_set("k", "u"), "k=\0\n"),
    ],
)
def test_what_cannot_be_understood(edit: Edit, text: str) -> None:
    """It is refused with a word of why."""
    with pytest.raises(Malformed, match=r"\w"):
        edit(text)


@given(st.text("ab=[]:#; \n\tk", max_size=60))
def test_an_ini_file_of_whatever(text: str) -> None:
    """Either it is refused, or Python's own parser finds all that was there, and the one key changed."""
    try:
        made = ini_set("a", "k", "u")(text)
    except Malformed:
        return
    before, after = configparser.RawConfigParser(), configparser.RawConfigParser()
    before.read_string(text)
    after.read_string(made)
    assert after["a"].pop("k") == "u"
    before.read_dict({"a": {}} if "a" not in before else {})
    before["a"].pop("k", None)
    assert {name: dict(before[name]) for name in before} == {name: dict(after[name]) for name in after}


def test_maven() -> None:
    """The mirror is put first, or changed where it is; what is around it stays."""
    edit = maven_mirror("http://h/m/?a&b")
    new = ElementTree.fromstring(edit(""))
    assert new.findtext("mirrors/mirror/url") == "http://h/m/?a&b"
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- mine > yours -->\n'
        '<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0" a="x>y">\n  <servers/>\n  %s\n</settings>\n'
    )
    for mirrors in ("", "<mirrors/>", "<mirrors>\n    <!-- é --><mirror><id>o</id><url>z</url></mirror>\n  </mirrors>"):
        made = edit(text % mirrors)
        assert "<!-- mine > yours -->" in made
        assert ("<id>o</id><url>z</url>" in made) is ("<id>o" in mirrors)
        assert edit(made) == made
        again = maven_mirror("http://other/")(made)
        assert again == made.replace("http://h/m/?a&amp;b", "http://other/")
        ElementTree.fromstring(again)


def test_nuget() -> None:
    """The source is added and the public one disabled; one of that name is replaced."""
    edit = nuget_source("http://h/v3/index.json", "public")
    new = ElementTree.fromstring(edit(""))
    assert [one.get("allowInsecureConnections") for one in new.iterfind("packageSources/add")] == ["true"]
    assert [one.get("key") for one in new.iterfind("disabledPackageSources/add")] == ["public"]
    text = (
        '<configuration><packageSources>\n<clear /><add key="regcache" value="old"/></packageSources></configuration>'
    )
    made = edit(text)
    assert "<clear />" in made
    assert "old" not in made
    assert edit(made) == made
    assert ElementTree.fromstring(edit("<configuration/>")).find("packageSources/add") is not None


@pytest.mark.parametrize("kind", [name for name in own_names() if name != "generic"])
def test_every_type_has_its_clients(kind: str, tmp_path: Path) -> None:
    """Each that the lines speak of is told in a file, or by a line; and each edit is done from nothing, and once."""
    found = clients_of(kind, f"{URL}{kind}/", {"HOME": str(tmp_path)}, tmp_path)
    assert found
    for one in found:
        assert (one.file is None) == bool(one.instead)
        made = one.edit("")
        assert one.edit(made) == made
        assert (URL in made or URL.rstrip("/") in made) or f"{URL}" in one.instead
        assert one.file is None or str(one.file).startswith(str(tmp_path))
    assert factory(kind)


def test_the_opt_in_for_plain_http() -> None:
    """Where a client demands one off loopback, it is written; on loopback only where it is demanded there too."""
    far = {one.name: one.edit("") for one in clients_of("pypi", f"{URL}pypi/", {}, Path())}
    near = {one.name: one.edit("") for one in clients_of("pypi", "http://127.0.0.1:8650/pypi/", {}, Path())}
    assert "trusted-host = cache.example:8650" in far["pip"]
    assert "trusted-host" not in near["pip"]
    assert tomllib.loads(far["pdm"])["pypi"]["verify_ssl"] is False
    yarn = {one.name: one.edit("") for one in clients_of("npm", f"{URL}npm/", {}, Path())}["yarn"]
    assert 'unsafeHttpWhitelist:\n  - "cache.example"' in yarn


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and no other variables that lead to files."""
    for name in ("XDG_CONFIG_HOME", "PIP_CONFIG_FILE", "NPM_CONFIG_USERCONFIG", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REGCACHE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("REGCACHE_LISTEN", "tcp:8650:interface=192.0.2.7")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(*arguments: str) -> int:
    """Run the command; its exit code."""
    try:
        main(["client-config", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_file_and_its_backup(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is replaced as a whole, keeps mode and link, is kept beside under a new name each time, and can be undone."""
    real, file = home / "dotfiles/npmrc", home / ".npmrc"
    real.parent.mkdir()
    before = b"\xef\xbb\xbf; mine\r\nregistry=http://old/\r\n"
    real.write_bytes(before)
    real.chmod(0o640)
    file.symlink_to(real)
    assert configured("npm", "--client", "npm", "--dry-run") == 0
    assert "+registry=http://192.0.2.7:8650/npm/" in capsys.readouterr().out
    assert real.read_bytes() == before
    assert configured("npm", "--client", "npm", "--write") == 0
    assert real.read_bytes() == before.replace(b"http://old/", b"http://192.0.2.7:8650/npm/")
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    kept = file.with_name(f".npmrc{BACKUP}")
    assert kept.read_bytes() == before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert configured("npm", "--client", "npm", "--write") == 0
    assert "unchanged" in capsys.readouterr().out
    real.write_bytes(b"registry=http://other/\n")
    assert configured("npm", "--client", "npm", "--write", "--public-url", "https://c.example/x/") == 0
    assert kept.read_bytes() == before
    assert real.read_bytes() == b"registry=https://c.example/x/npm/\n"
    assert file.with_name(f".npmrc{BACKUP}.1").read_bytes() == b"registry=http://other/\n"
    for expected in (b"registry=http://other/\n", before):
        assert configured("npm", "--client", "npm", "--undo") == 0
        assert real.read_bytes() == expected
    assert configured("npm", "--client", "npm", "--undo") == 1
    capsys.readouterr()
    assert configured("npm", "--undo", "--json") == 0
    outcomes = {one["client"]: one["outcome"] for one in json.loads(capsys.readouterr().out)["clients"]}
    assert outcomes["npm"] == "skipped"
    assert outcomes["pnpm"] == "unchanged"
    assert {path.name for path in home.iterdir()} == {".npmrc", "dotfiles"}


def test_a_file_that_is_new(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is made with what it needs, and goes again when that is undone."""
    assert configured("pypi", "--client", "uv", "--client", "pipenv", "--write", "--json") == 0
    done = json.loads(capsys.readouterr().out)["clients"]
    assert [(one["client"], one["outcome"]) for one in done] == [("uv", "written"), ("pipenv", "by hand")]
    assert "PIPENV_PYPI_MIRROR=http://192.0.2.7:8650/pypi/simple/" in done[1]["told"]
    file = home / ".config/uv/uv.toml"
    assert tomllib.loads(file.read_text())["index"] == [{"url": "http://192.0.2.7:8650/pypi/simple/", "default": True}]
    assert configured("pypi", "--client", "uv", "--undo") == 0
    assert not file.exists()


@pytest.mark.parametrize("content", [b"[global\n", b"\xff\xfe[global]\n", None])
def test_a_file_that_is_left_alone(home: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood or read is told of in one line, and stays."""
    file = home / ".config/pip/pip.conf"
    file.parent.mkdir(parents=True)
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert configured("pypi", "--client", "pip", "--write") == 1
    out, err = capsys.readouterr()
    assert "left as it is" in out
    assert (out.count("\n"), err) == (1, "")
    assert content is None or file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_wrong_use(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A client that is none of the registry's; two ways at once; a registry whose clients have no file."""
    assert configured("npm", "--client", "pip", "--write") == 2
    assert "there are: npm, pnpm" in capsys.readouterr().err
    assert configured("npm", "--write", "--undo") == 2
    assert configured("files", "--write", "--registries", "files=generic+http://origin.example/") == 1
    assert configured("files", "--registries", "files=generic+http://origin.example/") == 0
    assert not [path for path in home.iterdir() if path.name != "cache"]


def test_pip_reads_it(home: Path) -> None:
    """The index and the host that is trusted, beside what was there."""
    file = home / ".config/pip/pip.conf"
    file.parent.mkdir(parents=True)
    file.write_text("# mine\n[global]\ntimeout = 7\ntrusted-host = other.example\n")
    assert configured("pypi", "--client", "pip", "--write") == 0
    told = {**environment(home), "HOME": str(home)}
    del told["PIP_CONFIG_FILE"]
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=told, cwd=home, capture_output=True, text=True, timeout=60).stdout
    assert "global.index-url='http://192.0.2.7:8650/pypi/simple/'" in listed
    assert "global.timeout='7'" in listed
    assert "global.trusted-host='other.example 192.0.2.7:8650'" in listed


def test_npm_reads_it(home: Path) -> None:
    """Its registry is the cache; that of a scope stays."""
    (home / ".npmrc").write_text("@s:registry=http://private.example/\n")
    assert configured("npm", "--client", "npm", "--write") == 0
    for key, expected in (("registry", "http://192.0.2.7:8650/npm/"), ("@s:registry", "http://private.example/")):
        said = run([program("npm"), "config", "get", key], home, NPM_CONFIG_USERCONFIG=str(home / ".npmrc"))
        assert said.stdout.strip() == expected


@pytest.mark.journey
@pytest.mark.parametrize(
    ("registry", "client", "command", "expected"),
    [
        ("npm", "pnpm", ["pnpm-10", "config", "get", "registry"], "http://192.0.2.7:8650/npm/"),
        ("npm", "yarn1", ["yarn-1", "config", "get", "registry"], "http://192.0.2.7:8650/npm/"),
        ("npm", "yarn", ["yarn-berry", "config", "get", "npmRegistryServer"], "http://192.0.2.7:8650/npm/"),
        ("npm", "yarn", ["yarn-berry", "config", "get", "unsafeHttpWhitelist"], "192.0.2.7"),
        ("go", "go", ["go", "env", "GOPROXY"], "http://192.0.2.7:8650/go"),
        ("rubygems", "gem", ["gem", "sources", "--list"], "http://192.0.2.7:8650/rubygems/"),
        ("rubygems", "bundler", ["bundle", "config", "list"], "http://192.0.2.7:8650/rubygems/"),
        ("pypi", "pdm", ["pdm", "config", "pypi.url"], "http://192.0.2.7:8650/pypi/simple/"),
        ("pypi", "poetry", ["poetry", "source", "show"], "http://192.0.2.7:8650/pypi/simple/"),
    ],
)
def test_clients_read_it(home: Path, registry: str, client: str, command: list[str], expected: str) -> None:
    """Each says that it asks the cache."""
    project = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n[tool.poetry]\npackage-mode = false\n'
    (home / "pyproject.toml").write_text(project)
    assert configured(registry, "--client", client, "--write", "--registries", registry) == 0
    said = run([program(command[0]), *command[1:]], home, NPM_CONFIG_USERCONFIG=str(home / ".npmrc"))
    assert expected in said.stdout, said


@pytest.mark.e2e
def test_uv_reads_it(home: Path) -> None:
    """It asks the cache for what it is to install."""
    assert configured("pypi", "--client", "uv", "--write", "--public-url", "http://127.0.0.1:9/x/") == 0
    said = run([program("uv"), "pip", "install", "--dry-run", "--python", sys.executable, "no-such-thing"], home)
    assert "http://127.0.0.1:9/x/pypi/simple/no-such-thing/" in said.stderr
