"""The measurements work; what they find is nobody's promise here."""

from __future__ import annotations

import hashlib
import json
import random
import shlex
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import BadStatusLine, HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks import processes
from benchmarks.data import Tree
from benchmarks.hits import FLOOR, Measured, compared
from benchmarks.lab import Lab
from benchmarks.late import Pages
from benchmarks.load import PIP, Load, WrongAnswer, download, get
from benchmarks.report import Row, at_least, at_most, ratios, table
from benchmarks.scale import body as stored_body
from benchmarks.scale import store
from benchmarks.servers import find, start_program
from regcache.lines import FORMATS, Line
from regcache.store.index import connect
from tests.origin import Origin
from tests.service import Running


def test_verdicts() -> None:
    """The median counts; a row without a target has no verdict."""
    assert Row("hits", (0.5, 0.8, 0.9), at_least(0.7)).verdict == "pass"
    assert Row("hits", (0.5, 0.6, 0.9), at_least(0.7)).verdict == "FAIL"
    assert Row("memory", (41.0, 39.0, 38.0), at_most(40)).verdict == "pass"
    assert Row("memory", (41.0,)).verdict == ""
    assert Row("unmeasured", (), at_most(40)).verdict == "FAIL"


def test_ratios_are_of_the_same_round() -> None:
    """What is slow in one round is slow for both."""
    assert ratios([100.0, 10.0], [200.0, 20.0]) == (0.5, 0.5)


def test_table() -> None:
    """A line says what, the target, the median and the spread, and whether that will do."""
    row = Row("first byte", (3.0, 1.0, 2.0), at_most(5), "ms", "nginx 1 ms")
    assert "| first byte | ≤ 5 | 2 [1 to 3] ms | pass | nginx 1 ms |" in table([row])


def test_the_processor_time_of_a_child_that_has_ended_counts() -> None:
    """As that of the process that makes files, which rests a while after a burst."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(processes.family(process.pid)) == 1
        assert processes.cpu(process.pid) >= 0.3
        process.communicate(b"\n")


def test_same_data_in_every_run(tmp_path: Path) -> None:
    """Two trees have the same files to the last byte."""
    trees = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        tree = Tree(tmp_path / name, "http://localhost/")
        tree.artifact("files/some.bin", 3_000_000)
        tree.packages("package-", 2)
        tree.long_project("project", 5)
        files = [path.relative_to(tree.directory) for path in tree.directory.rglob("*") if path.is_file()]
        trees.append({str(path): tree.digest(str(path)) for path in files})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 13


def test_late_pages_lead_to_the_late_server(tmp_path: Path) -> None:
    """The links of the tree are those of the server that is asked, and it tells what it was asked for."""
    Tree(tmp_path, "http://near/").wheels("one", 1)
    pages = Pages(tmp_path, "http://near/", "http://far/")
    head, _, body = pages.answer("/simple/one0/").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head.decode()
    assert json.loads(body)["files"][0]["url"].startswith("http://far/packages/")
    assert b" 404 " in pages.answer("/simple/none/")
    assert json.loads(pages.answer("/-/asked").partition(b"\r\n\r\n")[2]) == ["/simple/one0/", "/simple/none/"]


def test_cut_body_is_no_measurement(origin: Origin) -> None:
    """A body that ends early, or has another size, counts for nothing."""
    origin.add("/whole.bin", bytes(1_000_000))
    assert download(f"{origin.url}whole.bin", 1_000_000, clients=3).received == 3_000_000
    with pytest.raises(WrongAnswer):
        download(f"{origin.url}whole.bin", 999_999)
    origin.trouble = lambda _path: "cut"
    with pytest.raises(WrongAnswer, match="early"):
        download(f"{origin.url}whole.bin", 1_000_000)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A place for measurements; its servers end with it."""
    made = Lab(tmp_path, rounds=1, seconds=1, short=True)
    yield made
    made.close()


def until(there: Callable[[], bool]) -> None:
    """Wait for that, a few seconds at most."""
    for _ in range(500):
        if there():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")


def test_the_minimal_program_for_hits(lab: Lab, service: Running) -> None:
    """It sends what the service does, field by field, and logs as much of it."""
    service.until("pypi/simple/alpha/", "HIT")
    log = lab.directory / "access.log"
    floor = lab.floor("least", "floor_hits", service.url, str(log))
    names = set()
    for _ in range(3):
        ours, least = (get(f"{url}pypi/simple/alpha/", PIP) for url in (service.url, floor.url))
        assert least.sent == ours.sent
        assert least.headers.keys() == ours.headers.keys()
        differ = {name for name, value in ours.headers.items() if least.headers[name] != value}
        assert "X-Request-Id" in differ <= {"X-Request-Id", "Date", "Age", "Cache-Status"}
        names.add(least.headers["X-Request-Id"])
    assert len(names) == 3
    until(lambda: log.exists() and log.read_text().count("\n") == 3)
    sample = Line(when=0, client="127.0.0.1", method="GET", target="/", status=200, outcome="hit", seconds=0)
    line = FORMATS["combined"](sample)
    found = [shlex.split(one) for one in log.read_text().splitlines()]
    assert [len(one) for one in found] == [len(shlex.split(line))] * 3
    assert {one[10] for one in found} == names


def test_the_minimal_program_answers_what_installers_ask(lab: Lab, service: Running) -> None:
    """A head and a part as well, again and again on one connection."""
    service.until("pypi/simple/alpha/", "HIT")
    parts = urlsplit(lab.floor("least", "floor_hits", service.url).url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=10)) as connection:
        for method, fields, status in [("HEAD", {}, 200), ("GET", {"Range": "bytes=1-4"}, 206)] * 2:
            connection.request(method, "/pypi/simple/alpha/", headers=PIP | fields)
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (status, 0 if method == "HEAD" else 4)


@pytest.mark.parametrize("client", ["bare", "agent"])
def test_the_minimal_program_for_fills(lab: Lab, client: str) -> None:
    """It asks once, sends and keeps what the page vouches for, and nothing else."""
    digests: dict[str, str] = {}
    names = lab.tree.wheels("one", 120)
    origin, place = lab.late(0), lab.place()
    floor = lab.floor("least", "floor_fill", origin.url, str(place), client)
    for name in names:
        (wanted,) = json.loads(get(f"{floor.url}simple/{name}/").body)["files"]
        digests[urlsplit(wanted["url"]).path] = wanted["hashes"]["sha256"]
    for path in [*digests, *digests]:
        assert get(floor.url + path[1:]).body == (lab.tree.directory / path[1:]).read_bytes()
    asked = Counter(json.loads(get(f"{origin.url}-/asked").body))
    assert {asked[path] for path in digests} == {1}
    with closing(sqlite3.connect(place / "index.sqlite3")) as index:
        until(lambda: index.execute("SELECT count(*) FROM entries").fetchone() == (len(digests),))
        kept = {path.decode(): digest for path, digest in index.execute("SELECT path, digest FROM entries")}
    assert kept == digests
    for digest in digests.values():
        assert hashlib.sha256((place / digest[:2] / digest[2:]).read_bytes()).hexdigest() == digest
    with pytest.raises((ConnectionError, BadStatusLine)):
        get(f"{floor.url}packages/of-which-no-page-tells")


def test_where_a_target_is_out_of_reach_the_floor_counts() -> None:
    """And only there: what the minimal program can do, others can."""
    loads = {name: Load(requests, 1.0, 0, 0.01) for name, requests in (("regcache", 5), ("nginx", 10), (FLOOR, 6))}
    found = {name: Measured([load], [1 / load.requests]) for name, load in loads.items()}
    out = compared("hits", found, {"nginx": at_least(0.7), "cpu": at_most(1.5)})
    within = compared("hits", found, {"nginx": at_least(0.55), "cpu": at_most(1.8)})
    told = [(row.name, str(row.target), row.verdict) for row in out if row.name.endswith(f"÷ {FLOOR}")]
    assert told == [
        (f"hits: requests ÷ {FLOOR}", "≥ 0.87", "FAIL"),
        (f"hits: CPU a request ÷ {FLOOR}", "≤ 1.15", "FAIL"),
    ]
    assert [row.note for row in out if FLOOR in row.name][:2] == ["≥ 0.7 is out of reach", "≤ 1.5 is out of reach"]
    assert within[0].verdict == "FAIL"
    assert not any(row.target or row.note for row in within if FLOOR in row.name)


def test_minimal_programs_send_what_they_should(origin: Origin, tmp_path: Path) -> None:
    """What regcache is measured by does the work: the very bytes of the file, and of a body as it comes."""
    body = random.Random(1).randbytes(3_000_001)
    origin.add("/whole.bin", body)
    (tmp_path / "file").write_bytes(body)
    programs = {"floor_large": [str(tmp_path / "file")], "floor_cold": [str(urlsplit(origin.url).port), str(tmp_path)]}
    for name, arguments in programs.items():
        server = start_program(name, *arguments)
        try:
            for _ in range(2):
                assert get(f"{server.url}whole.bin").body == body
        finally:
            server.stop()


@pytest.mark.parametrize(("uses", "noted"), [("noted", 1_000), ("ignored", 0)])
def test_the_minimal_program_for_many_keys_notes_uses(tmp_path: Path, uses: str, noted: int) -> None:
    """It sends what is stored and, unless it is not to, notes that in the rows, a thousand in one batch."""
    store(tmp_path, 1_000, 0)
    server = start_program("floor_keys", str(tmp_path / "cache"), uses)
    try:
        connection = HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=30)
        for number in range(1_000):
            connection.request("GET", f"/files/one/{number}.bin")
            assert connection.getresponse().read() == stored_body(number)
        connection.close()
        until = time.monotonic() + (20 if noted else 0)
        with closing(connect(tmp_path / "cache" / "index.sqlite3", readonly=True)) as index:
            while (found := index.execute("SELECT sum(hits) FROM entries").fetchone()[0]) != noted:
                assert time.monotonic() < until, found
                time.sleep(0.05)
    finally:
        server.stop()


@pytest.mark.journey
@pytest.mark.skipif(not (find("wrk") and find("nginx")), reason="nginx and wrk are needed")
def test_the_command(tmp_path: Path) -> None:
    """A short run measures all it is asked to, and ends well."""
    command = [sys.executable, "-m", "benchmarks", "--short", "--only", "index", "--json", str(tmp_path / "found")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    rows = json.loads((tmp_path / "found").read_text())["rows"]
    assert {row["target"] for row in rows} >= {"≥ 0.7", "≤ 1.5", "≤ 3"}
    assert all(row["median"] > 0 for row in rows)
    assert "| index page of 20 KB, gzip, 32 conn.: requests ÷ nginx |" in done.stdout
