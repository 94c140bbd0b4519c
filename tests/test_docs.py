"""What the documentation tells people to type is typed, what it tells them to write is read, and its links lead on."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from attrs import frozen

from regcache import registries
from regcache.commands import commands_of, main, parser
from regcache.config import REGISTRY_KEYS, Config
from regcache.options import Options
from regcache.routes import RegistryOptions
from regcache.settings import OPTIONS
from tests import ways
from tests.blocks import REASONS, ROOT, Block, blocks, pages
from tests.certificates import certificate
from tests.clients import environment, program
from tests.origin import Origin
from tests.own import own_names
from tests.service import Running, free_port
from tests.test_layers import LEVELS

DOCS = ROOT / "docs"
#: Kinds of blocks that nobody types: parts of the page itself, and pictures.
PASSIVE = {"{eval-rst}", "{from-code}", "{include}", "{literalinclude}", "{toctree}", "text"}
PAGES = {str(page.relative_to(ROOT)): list(blocks(page)) for page in pages()}
#: What the blocks call the place of the cache.
PLACE = "127.0.0.1:8650"
#: What the pages take to be stored.
STORED = ("pypi/simple/six/", "npm/lodash", "npm/ms")
#: The machine's own directories, which lie below the scratch directory here.
_SYSTEM = re.compile(r"(?<![\w./~])/(etc|run|srv|var)/")
_SERVICE = re.compile(r"^(?:\w+=(?:\"[^\"]*\"|\S*)\s+)*(?:twistd -n(?: --pidfile=)? regcache|regcache serve)\b")


@frozen
class Lab:
    """
    A machine as the documentation means it: a home, the system's directories, and a cache that serves real packages.

    :ivar root: of everything; the home is in it.
    :ivar url: of the cache.
    """

    root: Path
    url: str

    @property
    def home(self) -> Path:
        """Where commands are run."""
        return self.root / "home"

    def meant(self, text: str) -> str:
        """What a block means here: the one place where addresses, ports and directories are substituted."""
        found = text.replace(PLACE, urlsplit(self.url).netloc)
        return _SYSTEM.sub(lambda match: f"{self.root}{match[0]}", found)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of commands: that of a client that can reach nothing but loopback."""
        return {
            **environment(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "REGCACHE_CACHE_DIR": str(self.root / "cache"),
            **ways.variables(),
        }

    def run(self, script: str) -> str:
        """The output of a script, which ends well."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.meant(script)],
            cwd=self.home,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout


def published() -> Origin:
    """A registry on loopback that has the packages of the pages."""
    made = Origin()
    made.add_wheel("six", "1.17.0")
    for name, version in (("lodash", "4.17.21"), ("ms", "2.1.3")):
        made.add_tarball(name, version)
    return made


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The scratch directory of all pages, with what they take to be there; short enough for the path of a socket."""
    root = Path(tempfile.mkdtemp(prefix="rc-"))
    for name in ("home", "etc/regcache", "etc/ssl/certs", "etc/ssl/private", "run/regcache", "var/tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc/regcache/readers").write_text(f"alice:sha256:{'0' * 64}\nci:sha256:{'1' * 64}\n")
    (root / "etc/regcache/readers").chmod(0o600)
    made = certificate(root / "made.pem", "packages.example")
    for name in ("company-ca.pem", "tools.pem", "tools.key", "tls.pem", "tls.key"):
        shutil.copy(made, root / "etc/regcache" / name)
    shutil.copy(made, root / "etc/ssl/certs/packages.example.pem")
    shutil.copy(made, root / "etc/ssl/private/packages.example.key")
    (root / "home/.netrc").write_text("machine packages.corp.example login ci password x\n")
    (root / "home/.netrc").chmod(0o600)
    (root / "var/cache").mkdir()
    (root / "var/cache/regcache").symlink_to(root / "cache")
    for path in DOCS.joinpath("examples").glob("*.toml"):
        (root / "home" / path.name).write_text(Lab(root, "").meant(path.read_text("utf-8")))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Running]:
    """The cache of all pages."""
    origin, path = published(), f"unix:{root}/run/regcache/http.sock:mode=660"
    doors = ("--hosts", "packages.example", "--trust-proxy", "127.0.0.1")
    options = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", path, *doors)
    # A stop in order leaves a backup of the index, as ten minutes would.
    before = Running(root, origin, *options)
    for asked in STORED:
        before.until(asked, "HIT")
    before.stop()
    made = Running(root, origin, *options)
    yield made
    made.kill()
    origin.close()


@pytest.fixture
def lab(root: Path, service: Running) -> Lab:
    """The machine, with what the pages take to be stored."""
    for path in STORED:
        service.until(path, "HIT")
    return Lab(root, service.url)


# Commands.


def lines_of(text: str) -> list[str]:
    """The commands of a block, each in one line."""
    return [line for line in text.replace("\\\n", "").splitlines() if line.strip() and not line.startswith("#")]


def check_configuration(lab: Lab, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that starts the service is understood as it stands, with its variables and files."""
    words = shlex.split(lab.meant(line), comments=True)
    with monkeypatch.context() as patch:
        patch.chdir(lab.home)
        for name in [name for name in os.environ if name.startswith("REGCACHE_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(lab.home))
        while re.match(r"\w+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
        arguments = words[words.index("serve" if words[0] == "regcache" else "regcache") + 1 :]
        with pytest.raises(SystemExit) as caught:
            Options().parseOptions([*arguments, "--check-config"])
    assert caught.value.code == 0, line


def run_command(lab: Lab, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of ours does what it is for."""
    with monkeypatch.context() as patch:
        patch.chdir(lab.home)
        for name, value in lab.variables.items():
            patch.setenv(name, value)
        main(shlex.split(lab.meant(line), comments=True)[1:])


def shell(lab: Lab, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands: those that start the service are checked, all others are run."""
    lines = lines_of(block.text)
    if all(map(_SERVICE.match, lines)):
        for line in lines:
            check_configuration(lab, line, monkeypatch)
    elif all(line.startswith("regcache ") for line in lines):
        for line in lines:
            run_command(lab, line, monkeypatch)
    else:
        starting = re.search("regcache serve|twistd ", block.text)
        assert not starting, "what starts the service has a block of its own"
        for name in {words[0] for line in lines if (words := line.split())} & {"curl", "npm", "openssl"}:
            program(name)
        lab.run(block.text)


# Configurations.


def configuration(lab: Lab, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of ours is sound."""
    (lab.home / "block.toml").write_text(lab.meant(block.text))
    check_configuration(lab, "regcache serve --config block.toml", monkeypatch)


def unit(lab: Lab, block: Block, _monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``systemctl edit`` is told makes a sound unit of the one that is there."""
    assert block.page == "docs/systemd/index.md"
    verify_units(lab.root / "units", block.text)


def verify_units(place: Path, more: str = "") -> None:
    """Whatever systemd would warn of is found, where there is a systemd; anywhere, that it is such a file at all."""
    place.mkdir(exist_ok=True)
    for name in ("regcache.service", "regcache.socket"):
        text = (DOCS / "systemd" / name).read_text("utf-8")
        (place / name).write_text(text.replace("/opt/regcache/bin/regcache", "/bin/true"))
    drop_in = place / "regcache.socket.d"
    drop_in.mkdir(exist_ok=True)
    (drop_in / "override.conf").write_text(more)
    reader = configparser.ConfigParser(strict=False, interpolation=None)
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    assert reader.read([place / "regcache.service", place / "regcache.socket", drop_in / "override.conf"])
    assert set(reader.sections()) == {"Unit", "Service", "Socket", "Install"}
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(place / "regcache.socket"), str(place / "regcache.service")],
            capture_output=True,
            text=True,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{place}:"},
        )
        assert "regcache" not in done.stderr, done.stderr


def rules(lab: Lab, block: Block, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus reads it, where it is installed; the names in it are another test's."""
    file = lab.root / "prometheus.yml"
    file.write_text(block.text)
    what = "rules" if block.text.startswith("groups:") else "config"
    assert what == "rules" or block.text.startswith("scrape_configs:")
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", what, str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def code(_lab: Lab, block: Block, _monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs."""
    exec(compile(block.text, block.page, "exec"), {})


def markup(_lab: Lab, block: Block, _monkeypatch: pytest.MonkeyPatch) -> None:
    """It is well formed."""
    ElementTree.fromstring(block.text)


def proxy(_lab: Lab, block: Block, _monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of those that are tried with a real nginx."""
    assert block.text in NGINX.values()


#: What is done with a block of each language.
DOING: Mapping[str, Callable[[Lab, Block, pytest.MonkeyPatch], None]] = {
    "ini": unit,
    "nginx": proxy,
    "python": code,
    "sh": shell,
    "toml": configuration,
    "xml": markup,
    "yaml": rules,
}


def test_every_block_says_what_it_is() -> None:
    """Each is run, is checked, is part of the page, is held against the code, or says why not."""
    everything = [block for found in PAGES.values() for block in found]
    unknown = [block for block in everything if not block.reason and not known(block)]
    assert [f"{block.page}:{block.line} {block.kind}" for block in unknown] == []
    assert [
        f"{block.page}:{block.line}"
        for block in everything
        if block.kind == "text" and re.search(r"^(\$ |regcache |twistd |pip |npm |curl )", block.text, re.MULTILINE)
    ] == []
    used = {block.reason for block in everything} - {""}
    assert used == set(REASONS)
    commands = [block for block in everything if block.kind in {*DOING, "console"}]
    assert sum(bool(block.reason) for block in commands) < len(commands) / 3


def known(block: Block) -> bool:
    """Whether something is done with it."""
    if block.kind == "console":
        return block.page == "docs/tutorial.md"
    return block.kind in DOING or block.kind in PASSIVE or (not block.kind and held(block))


def held(block: Block) -> bool:
    """Whether it is what the code says: the help of a command, or the lines for clients on a registry's page."""
    page = ROOT / block.page
    if block.page == "docs/commands.md":
        return block.text.split() in [one.format_help().split() for one in commands_of(parser()).values()]
    if page.parent != DOCS / "registries" or page.stem not in own_names():
        return False
    url = "" if page.stem != "generic" else "http://tree.example/"
    made = registries.make(RegistryOptions(name=page.stem, type=page.stem, url=url))
    return block.text.splitlines() == list(made.client_lines(f"http://{PLACE}/{page.stem}/"))


@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if {one.kind for one in found} & set(DOING)])
def test_what_a_page_says_works(page: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands end well, and its configurations are sound, in their order."""
    for block in PAGES[page]:
        if not block.reason and block.kind in DOING:
            try:
                DOING[block.kind](lab, block, monkeypatch)
            except BaseException as error:
                error.add_note(f"{block.page}:{block.line}")
                raise


@pytest.mark.parametrize("path", sorted((DOCS / "examples").iterdir()) + sorted((DOCS / "systemd").glob("regcache.*")))
def test_every_example_is_shown_and_tried(path: Path) -> None:
    """A page shows it, and a test has it in its hands."""
    if path.is_dir():
        return
    shown = [block for found in PAGES.values() for block in found if block.kind == "{literalinclude}"]
    assert path in {(ROOT / block.page).parent.joinpath(block.argument).resolve() for block in shown} or (
        path.name.startswith("test_")
    )
    tests = [one.read_text("utf-8") for one in (ROOT / "tests").glob("test_*.py")]
    tests += [one.read_text("utf-8") for one in (DOCS / "examples").glob("test_*.py")]
    names = (f'"{path.name}"', f"{path.stem} import")
    assert path.name.startswith("test_") or any(name in text for name in names for text in tests)


def test_units() -> None:
    """systemd has nothing to say against them."""
    with tempfile.TemporaryDirectory() as place:
        verify_units(Path(place))


def test_the_firewall_is_one(tmp_path: Path) -> None:
    """nft reads it, in a network of its own."""
    path = tmp_path / "builds.nft"
    # A user of that name is the operator's; this one is everywhere.
    path.write_text((DOCS / "examples" / "builds.nft").read_text("utf-8").replace('"build"', '"root"'))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", administrators("nft"), "-c", "-f", str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def administrators(name: str) -> str:
    """A program that is not on everybody's path."""
    found = Path("/usr/sbin", name)
    return str(found) if found.exists() else program(name)


# nginx.

NGINX = {
    "tcp": (DOCS / "examples" / "nginx.conf").read_text("utf-8").rstrip(),
    "unix": next(block.text for block in PAGES["docs/howto/unix-sockets.md"] if block.kind == "nginx"),
}


@pytest.mark.parametrize("how", NGINX)
def test_nginx(how: str, lab: Lab, tmp_path: Path) -> None:
    """A real nginx takes the configuration, and clients reach the cache through it by TLS, under its name."""
    port, found = free_port(), administrators("nginx")
    text = lab.meant(NGINX[how]).replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = text.replace("allow 10.0.0.0/24", "allow 127.0.0.0/8")
    places = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    user = "user root;\n" if os.getuid() == 0 else ""
    own = f"{user}pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{}}\n"
    config.write_text(f"{own}http {{\naccess_log off;\n{places}{text}\n}}\n")
    command = [found, "-c", str(config), "-e", str(tmp_path / "log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        until_it_listens(process, port)
        told = lab.run(
            f"curl -sSf --noproxy '*' --cacert {lab.root}/made.pem --resolve packages.example:{port}:127.0.0.1"
            f" https://packages.example:{port}/npm/lodash"
        )
    finally:
        process.terminate()
        process.wait()
    # By a UNIX socket nobody says that it was TLS: that is what --public-url is for, as the page says.
    scheme = "https" if how == "tcp" else "http"
    assert f'"{scheme}://packages.example:{port}/npm/lodash/-/lodash-4.17.21.tgz"' in told


def until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    """A program that was started has its port open."""
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise AssertionError("it ended")


# The tutorial.


def matches(shown: str, output: str) -> bool:
    """Whether an output is what a page shows, where ``...`` stands for anything."""
    lines = [re.escape(line).replace(r"\.\.\.", ".*") + "\n" for line in shown.strip().splitlines()]
    pattern = "".join("(?:.*\n)*?" if line == ".*\n" else line for line in lines)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in output.strip().splitlines())) is not None


def steps(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a session, and what each is shown to print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


class Session:
    """Two terminals: one for the service, one for everything else."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._service: subprocess.Popen[str] | None = None

    def serve(self, command: str) -> str:
        """Start the service anew; what it prints until it is ready."""
        self.end()
        lab = self._lab
        variables = {**lab.variables, "REGCACHE_LISTEN": f"tcp:{urlsplit(lab.url).port}:interface=127.0.0.1"}
        variables["REGCACHE_CONFIG"] = str(lab.root / "regcache.toml")
        self._service = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], env=variables, stdout=subprocess.PIPE, text=True, cwd=self._lab.home
        )
        assert self._service.stdout is not None
        said = ""
        for line in self._service.stdout:
            said += line
            if "cache in" in line:
                return said
        raise AssertionError(said)

    def end(self) -> None:
        """Ctrl-C."""
        if self._service is not None:
            self._service.terminate()
            self._service.communicate(timeout=20)


@pytest.mark.journey
def test_the_tutorial() -> None:
    """Whoever types it sees what it shows."""
    origin, root = published(), Path(tempfile.mkdtemp(prefix="rc-"))
    (root / "home/regcache").mkdir(parents=True)
    (root / "home/regcache/bin").symlink_to(Path(sys.executable).parent)
    pypi = f'[registries.pypi]\nurl = "{origin.url}simple/"\nfiles = "{origin.url}"\n'
    (root / "regcache.toml").write_text(f'[registries.npm]\nurl = "{origin.url}"\n{pypi}')
    lab = Lab(root, f"http://127.0.0.1:{free_port()}/")
    session = Session(lab)
    program("npm")
    try:
        for block in PAGES["docs/tutorial.md"]:
            for command, shown in steps(block) if block.kind == "console" else ():
                run = session.serve if _SERVICE.match(command.removeprefix("~/regcache/bin/")) else lab.run
                output = run(command)
                assert matches(lab.meant(shown), output.replace("\r", "")), f"{command}\n{output}\n---\n{shown}"
    finally:
        session.end()
        origin.close()
        shutil.rmtree(root)


# Links.


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    kept = [char for char in heading.strip().lower() if unicodedata.category(char)[0] in "LN" or char in " -_"]
    return "".join(kept).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Where a link into a page can lead."""
    text = path.read_text("utf-8")
    return {slug(one) for one in re.findall(r"^#+ (.+)$", text, re.MULTILINE)} | set(
        re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link names a file that is there, and a place in it that is there: also for who reads the files."""
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        file, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_contents() -> None:
    """A page that no other leads to would never be read."""
    listed = {
        ROOT / block.page.rpartition("/")[0] / f"{name}.md"
        for found in PAGES.values()
        for block in found
        if block.kind == "{toctree}"
        for line in block.text.splitlines()
        if line and not line.startswith(":")
        for name in [line]
    }
    below = {one for path in listed if "*" in path.name for one in path.parent.glob(path.name)}
    assert {path for path in pages() if DOCS in path.parents} - listed - below == {DOCS / "index.md"}


# Tables.


def test_every_table_of_the_code_is_shown() -> None:
    """What is made from the code stands on a page, and no page asks for another."""
    text = (DOCS / "from_code.py").read_text("utf-8").partition("\nTABLES")[2]
    made = set(re.findall(r'^    "(\w+)": _\w+,$', text, re.MULTILINE))
    asked = {block.argument for found in PAGES.values() for block in found if block.kind == "{from-code}"}
    assert asked == made


@pytest.mark.usefixtures("lab")
def test_the_fields_of_answers_are_told(service: Running) -> None:
    """Every field of real answers stands in the table, and what stands there is one that the code sends."""
    text = (DOCS / "answers.md").read_text("utf-8").partition("## Fields")[2]
    told = {name.lower() for line in re.findall(r"^\| (`.+?) \|", text, re.M) for name in re.findall("`([^`]+)`", line)}
    told |= {"x-content-type-options", "content-security-policy", "cross-origin-resource-policy"}
    page = service.get("pypi/simple/six/", Accept="application/vnd.pypi.simple.v1+json")
    tarball = "npm/lodash/-/lodash-4.17.21.tgz"
    answers = [
        page,
        service.get(tarball),
        service.until(tarball, "HIT"),
        service.get(tarball, Range="bytes=0-9"),
    ]
    answers += [service.get(path) for path in ("", "-/health", "-/health/ready", "-/metrics", "nowhere/", "npm/none")]
    answers.append(service.get("npm/lodash", Accept_Encoding="gzip", If_None_Match=page[1]["ETag"]))
    seen = {name.lower() for _, fields, _ in answers for name in fields}
    assert seen - told == set()
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "regcache").rglob("*.py")).lower()
    # Twisted sends this one by itself.
    assert {name for name in told - {"transfer-encoding"} if f'"{name}"' not in source} == set()


def test_from_apache() -> None:
    """Every option it names is one, every key of a registry, and what it says of defaults is so."""
    text = (DOCS / "from-apache.md").read_text("utf-8")
    assert set(re.findall(r"`--([\w-]+)", text)) <= {option.name for option in OPTIONS}
    rows = {row.partition("`")[2].partition("`")[0]: row for row in re.findall(r"^\| .+ \|$", text, re.MULTILINE)}
    keys = {key for row in rows.values() if " of a registry" in row for key in re.findall(r"`([a-z-]+)` of a reg", row)}
    assert keys == {"client-cert", "auth"}
    assert keys <= set(REGISTRY_KEYS)
    config, last = Config(), {name: row.strip("| ").rpartition(" | ")[2] for name, row in rows.items()}
    timeouts = (config.upstream_timeout, config.cold_timeout, config.idle_timeout)
    assert last["ProxyTimeout 5"] == ", ".join(f"{seconds:g} s" for seconds in timeouts)
    assert (config.ttl, config.refresh_after) == (86400, 600)
    assert last["CacheDefaultExpire 86400"].startswith("one day, and current within ten minutes")
    assert last["htcacheclean -l 10G"] == f"{config.max_size >> 30} GiB, {config.min_free >> 30} GiB"
    assert last["apachectl graceful-stop"] == f"{config.grace:g} s"
    assert (last["CacheMaxFileSize 1000000"], config.max_file_size) == ("none", 0)
    assert (last["CacheIgnoreCacheControl On"], config.client_no_cache) == ("ignored", "ignore")
    assert (last["CustomLog"], config.access_log) == ("off; hits are counted", "off")
    assert (last["Require local"], all(one.is_loopback for one in config.allow)) == ("loopback", True)


def test_the_architecture_has_the_levels_of_the_code() -> None:
    """Every room that its table names has the level that imports are held to."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| (.+?) \|", text, re.MULTILINE)
    told = {f"regcache.{name}": int(number) for number, rooms in rows for name in re.findall(r"`(\w+)/?`", rooms)}
    assert {name: LEVELS[name] for name in told} == told
    assert {number for number, _ in rows} == {str(level) for level in LEVELS.values()}
