"""With every registry gone, what was served before is served again; and its return is noticed by one request."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from regcache.store import gather
from tests import fault_scripts as does
from tests.fault_lab import HOST, NOON, Lab, Reply
from tests.fault_table import DAY, HOUR
from tests.faulty import INDEX_TYPE, well

NAMES = [f"name{number}" for number in range(10)]


class Outage(TestCase):
    """Ten projects are stored, their indexes are past their lifetime, and the registry goes away."""

    timeout = 60

    async def stored(self) -> Lab:
        """A laboratory where all that was stored."""
        self.patch(gather, "_PAUSE", 0.002)  # type: ignore[no-untyped-call]
        started: Deferred[None] = Deferred()
        reactor.callLater(0, started.callback, None)
        await started
        directory = tempfile.TemporaryDirectory(prefix="regcache-test-")
        self.addCleanup(directory.cleanup)
        lab = Lab(reactor, Path(directory.name))
        lab.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(lab.close()))
        self.bodies = {f"pypi/packages/{name}-1.0.tar.gz": lab.registry.publish(name, HOST) for name in NAMES}
        self.indexes = [f"pypi/simple/{name}/" for name in NAMES]
        for path in [*self.indexes, *self.bodies]:
            assert (await lab.ask(path, Accept=INDEX_TYPE)).status == 200
        await lab.settled()
        lab.pass_time(2 * DAY)
        return lab

    async def ask_all(self, lab: Lab) -> list[str]:
        """Ask for everything at once; how it came, the indexes first. Every byte is right."""
        paths = [*self.indexes, *self.bodies]
        asking: Any = DeferredList([lab.ask(path, Accept=INDEX_TYPE) for path in paths])
        replies: list[Reply] = [reply for _, reply in await asking]
        for path, reply in zip(paths, replies, strict=True):
            assert (reply.status, reply.whole) == (200, True), path
            assert path in self.indexes or reply.body == self.bodies[path]
        return [reply.fields["x-cache"] for reply in replies]

    async def test_refused(self) -> None:
        """No request fails while nobody listens."""
        lab = await self.stored()
        await lab.registry.refuse()
        for _ in range(25):
            assert await self.ask_all(lab) == ["STALE"] * 10 + ["HIT"] * 10
            lab.pass_time(HOUR)
        await lab.settled()

    async def test_silent(self) -> None:
        """Nor while connections are taken and nothing is said; the registry is asked once in ten seconds then."""
        lab = await self.stored()
        lab.short()
        lab.registry.script = does.silent("start")
        await self.ask_all(lab)
        await lab.settled()
        asked = len(lab.registry.asked)
        for _ in range(60):
            lab.pass_time(1)
            assert await self.ask_all(lab) == ["STALE"] * 10 + ["HIT"] * 10
            # No time passes while the one that asks is waited for.
            await lab.settled()
        assert 4 <= len(lab.registry.asked) - asked <= 6

    async def test_its_return_is_noticed_by_one_request(self) -> None:
        """Within thirty seconds, however many ask meanwhile; from then on all is as it was."""
        lab = await self.stored()
        await lab.registry.refuse()
        await self.ask_all(lab)
        await lab.settled()
        lab.registry.listen()
        lab.registry.asked.clear()
        # So slow that all the others come while the one is under way.
        lab.registry.script = lambda asked, page: [0.2, *well(asked, page)]
        seconds = 0
        while not lab.registry.asked:
            assert await self.ask_all(lab) == ["STALE"] * 10 + ["HIT"] * 10
            await lab.settled()
            lab.pass_time(1)
            seconds += 1
            assert seconds <= 30
        assert len(lab.registry.asked) == 1
        lab.registry.script = None
        again = await self.ask_all(lab)
        assert sorted(again[:10]) == ["HIT"] + ["REVALIDATED"] * 9
        assert len(lab.registry.asked) == 10

    async def test_with_a_clock_that_is_wrong(self) -> None:
        """Whatever our own clock says, and however it came to say so, what is stored is served."""
        lab = await self.stored()
        await lab.registry.refuse()
        for off in (HOUR, -HOUR, DAY, -DAY, -3 * DAY, 3650 * DAY, -NOON):
            for boots in (False, True):
                if boots:
                    await lab.close_service()
                lab.wall += off
                if boots:
                    lab.open_service()
                assert (await self.ask_all(lab))[10:] == ["HIT"] * 10
                await lab.settled()
                lab.wall -= off
        lab.registry.listen()
        lab.pass_time(HOUR)
        await self.ask_all(lab)
        await lab.settled()
        assert await self.ask_all(lab) == ["HIT"] * 20 or (await self.ask_all(lab)) == ["HIT"] * 20
