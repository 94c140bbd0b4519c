"""Small answers from a warm cache: requests a second, processor time a request, and the slow ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from attrs import evolve, field, frozen

from benchmarks.command import Groups
from benchmarks.lab import Lab
from benchmarks.load import PIP, Load, WrongAnswer, get, wrk
from benchmarks.report import Row, Target, at_least, at_most, ratios
from benchmarks.servers import Server

__all__ = ["artifact", "conditional", "index", "packument"]

NPM = {"Accept": "application/json", "Accept-Encoding": "gzip,deflate"}
#: The least that a program of Twisted does for the same.
FLOOR = "minimal program"


@frozen
class Subject:
    """
    One server that is asked for one thing.

    :ivar expected: what its body says, once it is unpacked; empty for a 304.
    """

    label: str
    server: Server
    path: str
    headers: Mapping[str, str]
    expected: bytes
    status: int = 200

    @property
    def url(self) -> str:
        """What is asked for."""
        return self.server.url + self.path

    def check(self) -> int:
        """
        Ask once; the bytes of the body as it was sent.

        :raises WrongAnswer: unless it is right to the last byte.
        """
        answer = get(self.url, self.headers)
        if (answer.status, answer.body) != (self.status, self.expected):
            raise WrongAnswer(f"{self.label}, {self.url}: {answer.status}, {len(answer.body)} bytes that are not right")
        packed = answer.headers.get("Content-Encoding") == "gzip"
        if self.expected and packed != ("gzip" in self.headers["Accept-Encoding"] and b'{"' in self.expected[:2]):
            raise WrongAnswer(f"{self.label}, {self.url}: it is {'' if packed else 'not '}compressed")
        return len(answer.sent)


@frozen
class Measured:
    """What one server did, a value a round."""

    loads: list[Load] = field(factory=list)
    cpu: list[float] = field(factory=list)

    @property
    def rates(self) -> list[float]:
        """Requests a second."""
        return [load.rate for load in self.loads]

    @property
    def slow(self) -> list[float]:
        """99th percentiles, in seconds."""
        return [load.p99 for load in self.loads]


def measure(lab: Lab, subjects: Sequence[Subject], connections: int) -> dict[str, Measured]:
    """Every subject once a round, checked before and after."""
    found = {subject.label: Measured() for subject in subjects}
    for subject in subjects:
        for _ in range(3):
            subject.check()
    for turn in lab.turns(subjects):
        for subject in turn:
            subject.check()
            before = subject.server.cpu()
            load = wrk(subject.url, connections, lab.seconds, subject.headers)
            found[subject.label].loads.append(load)
            found[subject.label].cpu.append((subject.server.cpu() - before) / load.requests)
            subject.check()
    return found


def compared(name: str, found: Mapping[str, Measured], targets: Mapping[str, Target | None]) -> list[Row]:
    """
    The rows of one load: requests, processor time and slow requests against nginx, requests against the others.

    :param targets: by the label of the other server, and ``cpu`` and ``p99``.
    """
    ours, base = found["regcache"], found["nginx"]
    note = ", ".join(
        f"{label} {median(one.rates):,.0f}/s {median(one.cpu) * 1e6:.0f} µs" for label, one in found.items()
    )
    rows = [
        Row(f"{name}: requests ÷ {label}", ratios(ours.rates, other.rates), targets.get(label))
        for label, other in found.items()
        if label not in ("regcache", FLOOR)
    ]
    rows[0] = evolve(rows[0], note=note)
    rows.append(Row(f"{name}: CPU a request ÷ nginx", ratios(ours.cpu, base.cpu), targets.get("cpu")))
    rows.append(Row(f"{name}: p99 ÷ nginx", ratios(ours.slow, base.slow), targets.get("p99")))
    return [*rows, *floored(name, found, targets)] if FLOOR in found else rows


def floored(name: str, found: Mapping[str, Measured], targets: Mapping[str, Target | None]) -> list[Row]:
    """
    How far the least that can be is from the others, and the service from that.

    A target that the minimal program misses as well is out of reach: the service has to reach that program then, within
    15 %.
    """
    ours, floor, base = found["regcache"], found[FLOOR], found["nginx"]
    rates = [
        beside(f"{name}: requests, {FLOOR} ÷ {label}", ratios(floor.rates, other.rates), targets.get(label))
        for label, other in found.items()
        if label in ("nginx", "sub_filter")
    ]
    used = beside(f"{name}: CPU a request, {FLOOR} ÷ nginx", ratios(floor.cpu, base.cpu), targets.get("cpu"))
    near, frugal = at_least(0.87) if any(row.note for row in rates) else None, at_most(1.15) if used.note else None
    return [
        *rates,
        used,
        Row(f"{name}: requests ÷ {FLOOR}", ratios(ours.rates, floor.rates), near),
        Row(f"{name}: CPU a request ÷ {FLOOR}", ratios(ours.cpu, floor.cpu), frugal),
    ]


def beside(name: str, values: tuple[float, ...], target: Target | None) -> Row:
    """What a minimal program comes to, without a target; it says so if that of the service is out of reach."""
    row = Row(name, values, target)
    return Row(name, values, note=f"{target} is out of reach" if row.verdict == "FAIL" else "")


def least(lab: Lab, subject: Subject, *, logged: bool = True) -> Subject:
    """The minimal program, which answers what the service does."""
    log = [str(lab.place() / "access.log")] if logged else []
    return evolve(subject, label=FLOOR, server=lab.floor(FLOOR, "floor_hits", subject.server.url, *log))


def same(lab: Lab, name: str, url: str, headers: Mapping[str, str]) -> str:
    """Publish what the service answers there, so that others serve the same bytes; the path."""
    answer = lab.warm(url, headers)
    packed = answer.sent if answer.headers.get("Content-Encoding") == "gzip" else b""
    return lab.tree.page(f"same/{name}.json", answer.body, packed)


def index(lab: Lab) -> list[Row]:
    """A page of 20 KB, compressed, as pip asks for it."""
    page = lab.tree.long_project("index-page", 73)
    rows: list[Row] = []
    for logged in (True, False):
        service, base = lab.regcache(logged=logged), lab.nginx(logged=logged)
        path = same(lab, f"page-{logged}", service.url + "pypi/" + page, PIP)
        body = lab.warm(service.url + "pypi/" + page).body
        subjects = [
            Subject("regcache", service, f"pypi/{page}", PIP, body),
            Subject("nginx", base, path, PIP, body),
        ]
        subjects.append(least(lab, subjects[0], logged=logged))
        if logged:
            subjects += others(lab, path, page, body)
        for connections in (1, 32, 256):
            targets = {"nginx": at_least(0.7), "cpu": at_most(1.5)}
            if connections > 1:
                targets |= {"Apache": at_least(1.2), "sub_filter": at_least(15), "p99": at_most(3)}
            logs = "" if logged else ", no logs"
            name = f"index page of {len(body) / 1000:.0f} KB, gzip, {connections} conn.{logs}"
            rows += compared(name, measure(lab, subjects, connections), targets)
    return rows


def others(lab: Lab, path: str, page: str, body: bytes) -> list[Subject]:
    """Apache with the same page, where it is there, and the nginx that rewrites."""
    found = []
    apache = lab.apache()
    if apache is not None:
        found.append(Subject("Apache", apache, path, PIP, body))
    rewriting = lab.substituting()
    original = (lab.tree.directory / page / "index.json").read_bytes()
    rewritten = original.replace(lab.tree.url.encode(), rewriting.url.encode())
    found.append(Subject("sub_filter", rewriting, page, PIP, rewritten))
    return found


def conditional(lab: Lab) -> list[Row]:
    """The same page, asked for by who has it."""
    page = lab.tree.long_project("held-page", 73)
    service, base = lab.regcache(), lab.nginx()
    path = same(lab, "held-page", f"{service.url}pypi/{page}", PIP)
    subjects = []
    for label, server, where in (("regcache", service, f"pypi/{page}"), ("nginx", base, path)):
        get(server.url + where, PIP)
        tag = get(server.url + where, PIP).headers["ETag"]
        subjects.append(Subject(label, server, where, {**PIP, "If-None-Match": tag}, b"", 304))
    subjects.append(least(lab, subjects[0]))
    return compared("304, 32 conn.", measure(lab, subjects, 32), {"nginx": at_least(0.7)})


def packument(lab: Lab) -> list[Row]:
    """A packument of 2 MB, as npm asks for it."""
    lab.tree.packument("large-package", 2_100_000)
    service, base = lab.regcache(), lab.nginx()
    rows: list[Row] = []
    sizes: list[int] = []
    for coding, bound in (("gzip,deflate", 0.7), ("identity", 0.8)):
        headers = {**NPM, "Accept-Encoding": coding}
        body = lab.warm(f"{service.url}npm/large-package", headers).body
        path = same(lab, f"packument-{coding[:4]}", f"{service.url}npm/large-package", headers)
        subjects = [
            Subject("regcache", service, "npm/large-package", headers, body),
            Subject("nginx", base, path, headers, body),
        ]
        sizes.append(subjects[0].check())
        name = f"packument of {len(body) / 1e6:.1f} MB, {coding.partition(',')[0]}, 32 conn."
        rows += compared(name, measure(lab, subjects, 32), {"nginx": at_least(bound)})
    share = (sizes[0] / sizes[1],)
    return [*rows, Row("packument: bytes on the wire, gzip ÷ identity", share, at_most(0.25))]


def artifact(lab: Lab) -> list[Row]:
    """An artifact of 50 KB."""
    path = lab.tree.artifact("files/small.bin", 50_000)
    body = (lab.tree.directory / path).read_bytes()
    headers = {"Accept-Encoding": "identity"}
    rows: list[Row] = []
    for logged in (True, False):
        servers: list[Server | None] = [lab.regcache(logged=logged), lab.nginx(logged=logged)]
        if logged:
            servers.append(lab.apache())
        subjects = [Subject(one.name, one, path, headers, body) for one in servers if one is not None]
        subjects.append(least(lab, subjects[0], logged=logged))
        lab.warm(f"{subjects[0].server.url}{path}", headers)
        for connections in (32, 256):
            name = f"artifact of 50 KB, {connections} conn.{'' if logged else ', no logs'}"
            rows += compared(name, measure(lab, subjects, connections), {"nginx": at_least(0.75)})
    return rows


GROUPS: Groups = {
    "index": index,
    "conditional": conditional,
    "packument": packument,
    "artifact": artifact,
}
