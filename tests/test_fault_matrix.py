"""Every fault of a registry, or of our own clock, before every kind of request: see ``docs/faults.md``."""

from __future__ import annotations

import gc
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from regcache.flow import answers
from regcache.http.messages import Kind, Stored
from regcache.store import gather
from tests import fault_scripts as does
from tests.fault_certificates import server_context
from tests.fault_lab import HOST, Lab, Reply
from tests.fault_table import DAY, FAULTS, PAGE, REQUESTS, Fault, page
from tests.faulty import INDEX_TYPE

CROWD = 100
#: A minute, in which whatever was remembered of a fault is forgotten.
LATER = 61.0
#: Seconds that the index or the file is old when it is asked for.
AGES = {"ageing": 700.0, "expired": 2 * DAY, "tree": 2 * DAY, "herd": 2 * DAY}
RANGE = (100, 200)


@frozen
class Question:
    """
    What is asked for under a fault.

    :ivar before: what was asked for, and stored, while all was well.
    """

    path: str
    key: str
    before: tuple[str, ...]
    body: bytes
    method: str = "GET"
    fields: dict[str, str] = field(factory=dict)
    clients: int = 1

    @classmethod
    def of(cls, request: str, name: str, body: bytes) -> Question:
        """A request of that kind, for a name of its own."""
        index, file, tree = f"pypi/simple/{name}/", f"pypi/packages/{name}-1.0.tar.gz", f"tree/{name}"
        if request in ("index", "fresh", "ageing", "expired", "herd"):
            before: tuple[str, ...] = () if request == "index" else (index,)
            fields, clients = {"Accept": INDEX_TYPE}, CROWD if request == "herd" else 1
            return cls(index, index.rstrip("/"), before, body, fields=fields, clients=clients)
        if request == "tree":
            return cls(tree, tree, (tree,), body)
        before = {"alone": (), "head": (), "stored": (index, file)}.get(request, (index,))
        fields = {"Range": f"bytes={RANGE[0]}-{RANGE[1] - 1}"} if request == "range" else {}
        method, clients = "HEAD" if request == "head" else "GET", CROWD if request == "crowd" else 1
        return cls(file, file, before, body, method, fields, clients)

    def seen(self, reply: Reply) -> str:
        """What a client sees, in a word."""
        if not reply.whole:
            return "cut"
        if reply.status not in (200, 206):
            return str(reply.status)
        if self.method == "HEAD":
            right = reply.body == b""
        elif self.path.endswith("/"):
            right = self.path.encode().split(b"/")[-2] + b"-1.0.tar.gz" in reply.body
        else:
            right = reply.body == (self.body if reply.status == 200 else self.body[slice(*RANGE)])
        return reply.fields["x-cache"] if right else "UNPROVEN"


def kept(old: Stored | None, new: Stored | None, right: bool) -> str:
    """What is stored, in a word."""
    if new is None:
        return "nothing"
    if new.withdrawn:
        return "hidden"
    if old is not None and new.digest == old.digest:
        return "kept"
    return "stored" if new.kind is Kind.DOCUMENT or right else "unproven"


@pytest.mark.filterwarnings("ignore:.*does not explicitly provide any OpenSSL")
class Matrix(TestCase):
    """One test a fault; the requests follow one another on one service."""

    timeout = 120
    place: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        """One directory for all, and what was there before is not looked through for what is left behind."""
        cls.place = tempfile.TemporaryDirectory(prefix="regcache-test-")
        gc.collect()
        gc.freeze()

    @classmethod
    def tearDownClass(cls) -> None:
        """It goes."""
        cls.place.cleanup()

    async def open(self, fault: Fault) -> Lab:
        """A laboratory for a fault, in which nobody waits long for what is no fault."""
        for module, name, value in (
            (answers, "_STALL_SECONDS", 0.1),
            (answers, "_STALL_BYTES", 100),
            (gather, "_PAUSE", 0.002),
        ):
            self.patch(module, name, value)  # type: ignore[no-untyped-call]
        started: Deferred[None] = Deferred()
        reactor.callLater(0, started.callback, None)
        await started
        lab = Lab(reactor, Path(self.place.name), server_context("good", HOST) if fault.shown else None)
        lab.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(lab.close()))
        return lab

    async def matrix(self, fault: Fault) -> None:
        """Put the fault before every request; in the end nothing is left behind."""
        waiting = Lab.waiting()
        lab = await self.open(fault)
        outcomes, asked = {}, {}
        for request in REQUESTS:
            outcomes[request], asked[request] = await self.cell(lab, fault, request)
        await lab.stop()
        assert lab.bystander.visits == 0, "somebody was led astray"
        assert outcomes == dict(fault.row)
        # The first of many may fail before the last has come.
        assert asked["crowd"] <= asked["file"] + 3
        assert asked["herd"] <= asked["expired"] + 3
        del lab
        assert Lab.waiting() <= waiting, "somebody waits for ever"

    async def cell(self, lab: Lab, fault: Fault, request: str) -> tuple[str, int]:
        """What comes of one fault before one request, and how often the registry was asked."""
        name = f"{request}-{FAULTS.index(fault)}"
        question = Question.of(request, name, lab.registry.publish(name, HOST))
        others = await self.prepare(lab, question, 6 if fault.others else 0)
        lab.pass_time(AGES.get(request, 0.0))
        # It counts as well again, and has kept a connection.
        lab.registry.publish(f"{name}-well", HOST)
        assert (await lab.ask(f"tree/{name}-well")).status == 200
        await lab.settled()
        old, timers = lab.stored(question.key), len(lab.left()[1])
        await self.begin(lab, fault)
        for other in others:
            await lab.ask(other, Accept=INDEX_TYPE)
        before = len(lab.registry.asked)
        replies = await lab.crowd(question.clients, question.path, question.method, **question.fields)
        await lab.settled()
        asked = len(lab.registry.asked) - before
        new = lab.stored(question.key)
        stored = kept(old, new, new is not None and new.size == len(question.body) and new.verified)
        seen = " or ".join(sorted({question.seen(reply) for reply in replies}))
        await self.end(lab, fault)
        later = await self.later(lab, question)
        assert len(lab.left()[1]) <= timers + 1, "timers are left behind"
        return f"{seen}, {stored}, {' then '.join(later)}", asked

    async def prepare(self, lab: Lab, question: Question, number: int) -> list[str]:
        """Have stored what is to be, and some other names of the same kind; these."""
        name = question.path.rstrip("/").rpartition("/")[2].partition("-1.0")[0]
        others = [f"{name}-other{n}" for n in range(number)]
        for other in others:
            lab.registry.publish(other, HOST)
        root = "tree/{}" if question.path.startswith("tree") else "pypi/simple/{}/"
        paths = [root.format(other) for other in others]
        for path in (*question.before, *paths):
            reply = await lab.ask(path, Accept=INDEX_TYPE)
            assert (reply.status, reply.whole) == (200, True)
            await lab.settled()
        return paths

    async def later(self, lab: Lab, question: Question) -> list[str]:
        """What one client sees from then on, until all is as it should be."""
        lab.pass_time(LATER)
        seen: list[str] = []
        while len(seen) < 3:
            seen.append(question.seen(await lab.ask(question.path, question.method, **question.fields)))
            await lab.settled()
            if seen[-1] in ("HIT", "MISS", "REVALIDATED"):
                break
        return seen

    async def begin(self, lab: Lab, fault: Fault) -> None:
        """Let the fault begin."""
        registry = lab.registry
        if fault.hangs:
            lab.short()
        registry.script = fault.script
        if fault.astray:
            registry.script = does.redirect(302, fault.astray.format(port=lab.astray))
        if fault.refuses:
            await registry.refuse()
        if fault.shown:
            registry.shown = server_context(fault.shown, HOST)
        lab.names.trouble = fault.names
        if fault.names or fault.shown or fault.sleeps:
            await self.hung_up(lab)
        if fault.boots:
            await lab.close_service()
        lab.wall += fault.clock
        if fault.boots:
            lab.open_service()

    async def end(self, lab: Lab, fault: Fault) -> None:
        """All is well again."""
        lab.usual()
        registry = lab.registry
        registry.script, lab.names.trouble = None, ""
        registry.listen()
        if fault.shown:
            registry.shown = server_context("good", HOST)
        if not fault.sleeps:
            lab.wall -= fault.clock
        await self.hung_up(lab)

    async def hung_up(self, lab: Lab) -> None:
        """The registry closes all connections, and the service has seen it."""
        lab.registry.drop()
        while lab.service.outward._common._open:
            await lab.pause(0.001)

    def test_the_page_of_faults(self) -> None:
        """The page says what is tested; ``python -m tests.fault_table`` makes it."""
        assert PAGE.read_text("utf-8") == page()


def _test(fault: Fault) -> Callable[[Matrix], Any]:
    def test(self: Matrix) -> Any:
        return self.matrix(fault)

    test.__doc__ = f"{fault.section}: {fault.name}."
    return test


for _fault in FAULTS:
    setattr(Matrix, f"test_{re.sub('[^a-z0-9]+', '_', _fault.name.lower()).strip('_')}", _test(_fault))
