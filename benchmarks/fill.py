"""Many small artifacts that nobody has asked for yet, from many connections at once."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from attrs import field, frozen

from benchmarks.command import Groups
from benchmarks.hits import FLOOR, beside
from benchmarks.lab import Lab
from benchmarks.load import PIP, WrongAnswer, get
from benchmarks.report import Row, at_least, at_most, ratios
from benchmarks.servers import Server

__all__ = ["GROUPS"]

CONNECTIONS, PROJECTS, SIZE = 64, 200, 8_000
#: Seconds of the processor that who rests may take of one and a half.
_RESTS = 0.03
#: Asks for one path after the other, each once, and says when it began and when all were answered, and how many badly.
#: wrk asks for one request beforehand, which it does not send.
_SCRIPT = """
local paths = {}
for line in io.lines("@PATHS@") do paths[#paths + 1] = line end
local asked, answered, refused = -1, 0, 0
local say = function(text) io.write(text .. "\\n") io.flush() end
request = function()
  asked = asked + 1
  if asked == 1 then say("begun") end
  return wrk.format("GET", paths[math.max(asked, 1)] or paths[#paths])
end
response = function(status)
  answered = answered + 1
  if status ~= 200 then refused = refused + 1 end
  if answered == #paths then say("ended " .. refused) wrk.thread:stop() end
end
"""


@frozen
class Found:
    """
    What the rounds of one server found.

    :ivar rates: artifacts a second.
    :ivar cpu: seconds of the processor for each.
    :ivar refusals: errors in place of artifacts.
    :ivar stored: percent of the artifacts that it needs not ask for again.
    """

    rates: list[float] = field(factory=list)
    cpu: list[float] = field(factory=list)
    refusals: list[float] = field(factory=list)
    stored: list[float] = field(factory=list)


def starts(lab: Lab) -> dict[str, Callable[[], Server]]:
    """What is compared, each with nothing stored: the service, nginx, and the least that a program of Twisted does."""

    def minimal(client: str) -> Server:
        place = lab.place()
        return lab.floor(FLOOR, "floor_fill", lab.origin.url, str(place), client, str(place / "access.log"))

    return {
        "regcache": lab.new_regcache,
        "nginx": lab.new_nginx,
        FLOOR: lambda: minimal("bare"),
        f"{FLOOR} with Agent": lambda: minimal("agent"),
    }


def fill(lab: Lab) -> list[Row]:
    """Projects whose pages are known, and all their files, each once; every digest is in its page."""
    count = 2_000 if lab.short else 20_000
    paths = _publish(lab, count)
    servers = starts(lab)
    found = {label: Found() for label in servers}
    for turn in lab.turns([*servers]):
        for label in turn:
            server = servers[label]()
            try:
                _fill(lab, server, paths, found[label])
            finally:
                server.stop()
    for label, one in found.items():
        if label != "regcache" and any(one.refusals):
            raise WrongAnswer(f"{label} answered with errors")
    return _rows(f"cold fill of {count:,} artifacts, {CONNECTIONS} conn.", found)


def _rows(name: str, found: Mapping[str, Found]) -> list[Row]:
    note = ", ".join(
        f"{label} {median(one.rates):,.0f}/s {median(one.cpu) * 1e6:.0f} µs" for label, one in found.items()
    )
    ours, base, least = found["regcache"], found["nginx"], found[FLOOR]
    rows = [
        Row(f"{name}: requests ÷ nginx", ratios(ours.rates, base.rates), at_least(0.25), note=note),
        Row(f"{name}: CPU a request ÷ nginx", ratios(ours.cpu, base.cpu)),
        Row(f"{name}: errors in place of artifacts", tuple(ours.refusals), at_most(0)),
        Row(f"{name}: stored afterwards", tuple(ours.stored), at_least(100), "%", _others(found)),
    ]
    target = rows[0].target
    for label, one in found.items():
        if label.startswith(FLOOR):
            rows.append(beside(f"{name}: requests, {label} ÷ nginx", ratios(one.rates, base.rates), target))
            rows.append(Row(f"{name}: CPU a request, {label} ÷ nginx", ratios(one.cpu, base.cpu)))
    # The bare one is the floor.
    floor = next(row for row in rows if FLOOR in row.name)
    near, frugal = (at_least(0.87), at_most(1.15)) if floor.note else (None, None)
    return [
        *rows,
        Row(f"{name}: requests ÷ {FLOOR}", ratios(ours.rates, least.rates), near),
        Row(f"{name}: CPU a request ÷ {FLOOR}", ratios(ours.cpu, least.cpu), frugal),
    ]


def _others(found: Mapping[str, Found]) -> str:
    return ", ".join(f"{label} {median(one.stored):g} %" for label, one in found.items() if label != "regcache")


def _publish(lab: Lab, count: int) -> list[str]:
    paths = []
    for number in range(PROJECTS):
        name = f"many{number}"
        files = {f"{name}-1.{at}-py3-none-any.whl": lab.tree.noise(SIZE) for at in range(count // PROJECTS)}
        paths += lab.tree.project(name, files)
    random.Random(1).shuffle(paths)
    return paths


def _fill(lab: Lab, server: Server, paths: list[str], found: Found) -> None:
    """One round, checked afterwards."""
    ours = server.name == "regcache"
    prefix = "pypi/" if ours else ""
    for number in range(PROJECTS):
        get(f"{server.url}{prefix}simple/many{number}/", PIP)
    place = lab.place()
    (place / "paths").write_text("".join(f"/{prefix}{path}\n" for path in paths))
    script = place / "fill.lua"
    script.write_text(_SCRIPT.replace("@PATHS@", str(place / "paths")))
    before = server.cpu()
    took, refused = _run(script, server.url)
    found.cpu.append((_rested(server) - before) / (len(paths) - refused))
    found.rates.append((len(paths) - refused) / took)
    found.refusals.append(refused)
    asked = _asked(lab)
    _run(script, server.url)
    # That the upstream is asked how much it was asked for is among what it tells.
    found.stored.append(100 - 100 * (_asked(lab) - asked - 1) / len(paths))
    for path in random.Random(2).sample(paths, 100):
        answer = get(f"{server.url}{prefix}{path}", {"Accept-Encoding": "identity"})
        expected = (lab.tree.directory / path).read_bytes()
        if answer.status != 200 or hashlib.sha256(answer.body).digest() != hashlib.sha256(expected).digest():
            raise WrongAnswer(f"{server.name}, {path}: {answer.status}, {len(answer.body)} bytes")
    shutil.rmtree(place)


def _asked(lab: Lab) -> int:
    """How many requests the upstream has had: what is asked of a server again and is not among them, it has stored."""
    return int(get(f"{lab.origin.url}asked").body.split()[9])


def _rested(server: Server) -> float:
    """Seconds of the processor it took until it rests: what was answered last is stored a moment later."""
    found, before = server.cpu(), 0.0
    while found - before > _RESTS:
        time.sleep(1.5)
        found, before = server.cpu(), found
    return found


def _run(script: Path, url: str) -> tuple[float, int]:
    """Seconds until everything was answered, and how often by an error."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d300s", "--timeout", "60s", "-s", str(script), url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        began = 0.0
        for line in process.stdout:
            if line == "begun\n":
                began = time.monotonic()
            elif line.startswith("ended "):
                return time.monotonic() - began, int(line.split()[1])
        raise WrongAnswer(f"{url}: not everything was answered")
    finally:
        # It would sit out the time it was given.
        process.kill()
        process.communicate()


GROUPS: Groups = {"fill": fill}
