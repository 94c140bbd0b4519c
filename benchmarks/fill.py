"""Many small artifacts that nobody has asked for yet, from many connections at once."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

from benchmarks.command import Groups
from benchmarks.lab import Lab
from benchmarks.load import PIP, WrongAnswer, get
from benchmarks.report import Row, at_least, at_most, ratios
from benchmarks.servers import Server

__all__ = ["GROUPS"]

CONNECTIONS, PROJECTS, SIZE = 64, 200, 8_000
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


def fill(lab: Lab) -> list[Row]:
    """Projects whose pages are known, and all their files, each once; every digest is in its page."""
    count = 2_000 if lab.short else 20_000
    paths = _publish(lab, count)
    rates: dict[str, list[float]] = {"regcache": [], "nginx": []}
    cpu: dict[str, list[float]] = {"regcache": [], "nginx": []}
    refusals: dict[str, list[float]] = {"regcache": [], "nginx": []}
    for turn in lab.turns([*rates]):
        for label in turn:
            server = lab.new_regcache() if label == "regcache" else lab.new_nginx()
            try:
                rate, used, refused = _fill(lab, server, paths)
            finally:
                server.stop()
            rates[label].append(rate)
            cpu[label].append(used)
            refusals[label].append(refused)
    if any(refusals["nginx"]):
        raise WrongAnswer("nginx answered with errors")
    note = ", ".join(
        f"{label} {median(some):,.0f}/s {median(cpu[label]) * 1e6:.0f} µs" for label, some in rates.items()
    )
    name = f"cold fill of {count:,} artifacts, {CONNECTIONS} conn."
    return [
        Row(f"{name}: requests ÷ nginx", ratios(rates["regcache"], rates["nginx"]), at_least(0.25), note=note),
        Row(f"{name}: CPU a request ÷ nginx", ratios(cpu["regcache"], cpu["nginx"])),
        Row(f"{name}: errors in place of artifacts", tuple(refusals["regcache"]), at_most(0)),
    ]


def _publish(lab: Lab, count: int) -> list[str]:
    paths = []
    for number in range(PROJECTS):
        name = f"many{number}"
        files = {f"{name}-1.{at}-py3-none-any.whl": lab.tree.noise(SIZE) for at in range(count // PROJECTS)}
        paths += lab.tree.project(name, files)
    random.Random(1).shuffle(paths)
    return paths


def _fill(lab: Lab, server: Server, paths: list[str]) -> tuple[float, float, int]:
    """Artifacts a second, seconds of the processor each, and errors in place of others; checked afterwards."""
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
    used = (server.cpu() - before) / (len(paths) - refused)
    for path in random.Random(2).sample(paths, 100):
        answer = get(f"{server.url}{prefix}{path}", {"Accept-Encoding": "identity"})
        expected = (lab.tree.directory / path).read_bytes()
        if answer.status != 200 or hashlib.sha256(answer.body).digest() != hashlib.sha256(expected).digest():
            raise WrongAnswer(f"{server.name}, {path}: {answer.status}, {len(answer.body)} bytes")
    shutil.rmtree(place)
    return (len(paths) - refused) / took, used, refused


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
