"""
Filling the cache with artifacts: one upstream request each at a time, verified, stored, and shared while it lasts.
"""

from __future__ import annotations

import functools
from typing import Any

from attrs import define, evolve, field
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regcache.errors import (
    CannotStore,
    Crowded,
    CutShort,
    DigestMismatch,
    NotFound,
    RegCacheError,
    Unneeded,
    UpstreamError,
    UpstreamStatus,
)
from regcache.flow.adopting import adopted, entry_of
from regcache.flow.answers import Answer
from regcache.flow.asking import Unchanged, kept, question
from regcache.flow.context import Context
from regcache.flow.dirhash import WHOLE
from regcache.flow.documents import Documents
from regcache.flow.fetching import key_of
from regcache.flow.hashing import Hashing, rehashed
from regcache.flow.lifetimes import storable
from regcache.flow.proofs import Proofs, accept, compared, place_of, uncomputed, verify
from regcache.flow.transfer import Judge, Transfer
from regcache.flow.upstream import Ask
from regcache.flow.waiting import Outcome, spawn
from regcache.http.messages import Headers, Stored
from regcache.interfaces import IPartial, IRegistry
from regcache.logs import Log
from regcache.routes import Artifact, Fact

__all__ = ["Fill", "Filling"]

_log = Log()
#: Bytes of a body that is taken as one piece, where it has come with its head.
_SMALL = 1 << 16


def _is_small(answer: Answer) -> bool:
    return answer.length is not None and answer.length <= _SMALL


@define(eq=False)
class Fill:
    """
    A request under way for an artifact.

    :ivar began: when, by the monotonic clock.
    :ivar age: as of when the stored documents are known not to say otherwise than a new body that is found good.
    :ivar unchanged: known when the upstream vouched for the stored copy instead of sending a body.
    :ivar found: the entry of a new body, known once that is found good, before it is in the store; it fails when there
        will be none.
    """

    transfer: Transfer
    began: float
    unchanged: Outcome[Stored] = field(factory=Outcome)
    found: Outcome[Stored] = field(factory=Outcome)
    age: int = field(default=-1, init=False)


class Filling:
    """
    The requests for artifacts.

    One full request per artifact at a time: ``_fills`` holds it from before it is sent until the body's entry can be
    found in the store, so that whoever asks in between joins it.
    """

    def __init__(self, context: Context, documents: Documents) -> None:
        self.proofs = Proofs(documents)
        self._context = context
        self._fills: dict[str, Fill] = {}
        # Those that nobody joins any more, since a document says otherwise, until they have gone from the store again.
        self._disproved: dict[str, Transfer] = {}
        self._transfers: set[Transfer] = set()
        # Those of which the whole body is not here yet, or not found good.
        self._coming: set[Transfer] = set()
        # Those of the others that wait for the disk and have a file.
        self._behind: set[Transfer] = set()

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return list(self._transfers)

    def under_way(self, key: str) -> Fill | None:
        """The fill that a request for this artifact would join."""
        fill = self._fills.get(key)
        return fill if fill is not None and fill.transfer.joinable else None

    def fill(self, registry: IRegistry, route: Artifact, stored: Stored | None) -> Fill:
        """
        The fill under way for this artifact if it can still be joined, or a new one.

        :raises regcache.errors.Crowded: if too many others are under way.
        """
        key = key_of(registry, route)
        fill = self.under_way(key)
        if fill is None:
            if len(self._coming) >= self._context.limits.transfers:
                raise Crowded(f"{len(self._coming)} artifacts are being fetched.")
            clock = self._context.clock
            fill = Fill(Transfer(clock, key, self._context.unstored), clock.seconds())
            self._fills[key] = fill
            self._transfers.add(fill.transfer)
            self._coming.add(fill.transfer)
            fill.found.tell(functools.partial(self._came, fill.transfer))
            fill.transfer.done.tell(functools.partial(self._filled, key, fill))
            # While so many wait for the disk, the next ones pass through without being stored.
            storable = len(self._behind) < self._context.limits.transfers
            behind, before = self._behind if storable else None, self._disproved.get(key)
            work = _Work(self._context, self.proofs, registry, route, fill, stored, behind, before)
            Deferred.fromCoroutine(work.run()).addErrback(self._broken, fill.transfer)
        return fill

    async def recheck(self, registry: IRegistry, route: Artifact) -> None:
        """Nobody joins a body any more that waits for the disk, once a document has come that says otherwise of it."""
        key = key_of(registry, route)
        fill = self.under_way(key)
        entry = None if fill is None else fill.found.value
        if fill is None or entry is None or not route.documents or fill.age == self.proofs.age:
            return
        age = self.proofs.age
        try:
            verify(route, await self.proofs.stored(registry, route), entry.size, entry.digests, entry.url)
            fill.age = age
        except DigestMismatch:
            # It goes as soon as it is stored.
            if self._fills.get(key) is fill:
                del self._fills[key]
                self._disproved[key] = fill.transfer

    async def adopt(self, registry: IRegistry, route: Artifact) -> Stored | None:
        """The entry of an artifact whose body is stored, and is what the stored index says; nobody is asked."""
        return await adopted(self._context, registry, route, await self.proofs.stored(registry, route))

    def _came(self, transfer: Transfer, _entry: Stored | None, _failure: Failure | None) -> None:
        self._coming.discard(transfer)

    def _filled(self, key: str, fill: Fill, _none: None, failure: Failure | None) -> None:
        if failure is not None:
            counts = self._context.upstream.counts
            counts.failures.note(self._context.now(), key, failure.value)
            counts.unverified += isinstance(failure.value, DigestMismatch)
        self._transfers.discard(fill.transfer)
        self._behind.discard(fill.transfer)
        fill.found.fail(CannotStore("Nothing that can be stored came of it."))
        if self._fills.get(key) is fill:
            del self._fills[key]
        if self._disproved.get(key) is fill.transfer:
            del self._disproved[key]

    @staticmethod
    def _broken(failure: Any, transfer: Transfer) -> None:
        error = failure.value
        if not isinstance(error, RegCacheError):
            _log.failure("{key}: a bug ended the fetch.", failure=failure, key=transfer.key)
            error = UpstreamError("It could not be fetched.")
        transfer.fail(error)


class _Work:
    """
    One artifact's way from the upstream into the store.

    :param behind: those that wait for the disk and have a file; None if they are so many that it may not be stored.
    :param before: what came for it before, if that is still to go.
    """

    def __init__(
        self,
        context: Context,
        proofs: Proofs,
        registry: IRegistry,
        route: Artifact,
        fill: Fill,
        stored: Stored | None,
        behind: set[Transfer] | None,
        before: Transfer | None,
    ) -> None:
        self._behind, self._before = behind, before
        self._context, self._proofs, self._registry, self._route = context, proofs, registry, route
        self._fill, self._transfer, self._stored = fill, fill.transfer, stored
        self._proof: Outcome[Fact | None] | None = None
        # What the stored documents say, and as of when.
        self._fact: Fact | None = None
        self._age = -1

    async def run(self) -> None:
        """Ask, and let the body flow; it goes on by itself then."""
        route = self._route
        fact = await self._known()
        if fact is None and not route.digests:
            fact = await self._proofs.asked_again(self._registry, route)
        found = None
        if self._stored is None and self._before is None:
            found = await adopted(self._context, self._registry, route, fact)
        if found is not None:
            self._holds(found)
            return
        if route.digests or (fact is not None and fact.digests) or not route.documents:
            self._proof = Outcome.of(fact)
        else:
            proving = self._proofs.prove(self._registry, route, fact, lambda: self._transfer.error is None)
            self._proof = spawn(proving)
        answer = await self._ask(fact, self._stored)
        if isinstance(answer, Unchanged) and not await self._still_good(answer.stored):
            answer = await self._ask(fact, None)
        if isinstance(answer, Unchanged):
            latest = self._context.store.peek(answer.stored.key)
            self._holds(answer.stored if latest is None else latest)
        else:
            await self._keep_pace(answer)
            await self._take(answer)

    async def _known(self) -> Fact | None:
        """What the stored documents say now: they are read again if others have come."""
        if self._age != self._proofs.age:
            self._age = self._proofs.age
            self._fact = await self._proofs.stored(self._registry, self._route)
        return self._fact

    def _holds(self, stored: Stored) -> None:
        """There is no body to come: what is stored is what was asked for."""
        self._fill.unchanged.succeed(stored)
        self._transfer.fail(Unneeded("The stored copy holds."))

    async def _ask(self, fact: Fact | None, stored: Stored | None) -> Answer | Unchanged:
        registry, route, context = self._registry, self._route, self._context
        url = place_of(registry, route, fact)
        fields, name = Headers.of({"accept": route.accept}), registry.options.name
        ask = Ask(url=url, headers=fields, allows=registry.allows, registry=name, artifact=True)
        key, deadline = self._transfer.key, context.rules.cold_timeout
        try:
            return await question(context, registry, key, ask, stored, deadline)
        except (NotFound, UpstreamStatus) as error:
            # What lies beside an artifact tells nothing of where it is.
            told = await self._told(error) if (route.proof or route.indexes) and not route.fixed else None
            if told is None or told.url == url or not registry.allows(told.url):
                raise
            context.missing.drop(key)
            return await question(context, registry, key, evolve(ask, url=told.url), stored, deadline)

    async def _told(self, error: RegCacheError) -> Fact | None:
        """
        What its index says of an artifact that is not where its address tells.

        :raises regcache.errors.UpstreamError: if that is not known, so that "there is none" is not known either.
        """
        try:
            if self._route.digests and self._route.indexes:
                return await self._proofs.prove(self._registry, self._route, None)
            return await self._proven()
        except RegCacheError as why:
            if not isinstance(error, NotFound):
                return None
            self._context.missing.drop(self._transfer.key)
            raise UpstreamError(f"It is not at its usual place, and its index cannot be asked: {why.detail}") from None

    async def _still_good(self, stored: Stored) -> bool:
        """Whether what the upstream has not changed is what its index says by now; without a proof it may be."""
        if stored.verified:
            return True
        try:
            proven = verify(self._route, await self._proven(), stored.size, stored.digests, stored.url)
        except DigestMismatch as error:
            await self._drop(error)
            return False
        except RegCacheError:
            return True
        if proven:
            self._context.store.update(replace(stored, verified=True))
        return True

    async def _drop(self, error: RegCacheError) -> None:
        _log.error("{key}: the stored copy goes: {why}", key=self._transfer.key, why=error.detail)
        await self._context.store.drop(self._transfer.key)

    # The body.

    async def _keep_pace(self, answer: Answer) -> None:
        """
        Wait a moment for a disk that is behind: what is served once is to be served again.

        :raises regcache.errors.RegCacheError: if the body was given up meanwhile.
        """
        if _is_small(answer) and self._context.store.crowded:
            await self._context.store.caught_up()
            if self._transfer.error is not None:
                answer.discard()
                raise self._transfer.error

    async def _take(self, answer: Answer) -> None:
        fact = None if self._proof is None else self._proof.value
        hashing = Hashing(compared(self._registry, self._route, fact, kept=True))
        partial = self._partial(answer, hashing)
        if partial is None:
            hashing = Hashing(compared(self._registry, self._route, fact, kept=False))

        async def check(size: int) -> bool:
            return await self._accepted(answer, hashing, partial, size)

        def commit(finished: IPartial, proven: bool) -> Deferred[None]:
            size, headers = finished.written, kept(answer.headers)
            entry = entry_of(
                self._context,
                self._registry,
                self._route,
                hashing,
                url=answer.url,
                headers=headers,
                size=size,
                proven=proven,
            )
            self._context.missing.drop(entry.key)
            if self._behind is not None and not finished.counted:
                self._behind.add(self._transfer)
            self._fill.age = self._age
            self._fill.found.succeed(entry)
            return self._stored_in_turn(finished, entry).addCallback(self._found, entry)

        judge = Judge(hashing, check, commit)
        body = None if partial is None else answer.whole(_SMALL)
        if partial is None or body is None:
            self._transfer.begin(answer, partial, judge)
        else:
            await self._transfer.take(answer, body, partial, judge)

    def _stored_in_turn(self, finished: IPartial, entry: Stored) -> Deferred[None]:
        """Store a body; not before one that is to go under the same name has gone, or that would take this with it."""
        if self._before is None:
            return self._context.store.commit(finished, entry)
        gone = self._before.done.wait().addErrback(lambda _: None)
        return gone.addCallback(lambda _: self._context.store.commit(finished, entry))

    def _partial(self, answer: Answer, hashing: Hashing) -> IPartial | None:
        if not storable(self._registry, answer.headers):
            return None
        try:
            # A file of its own would take such a disk, and the reactor, many times what its bytes do.
            if self._behind is None or (_is_small(answer) and self._context.store.crowded):
                raise CannotStore("The disk is far behind.")
            most = self._context.max_file_size
            return self._context.store.create(hashing.feed, expected=answer.length, most=most)
        except CannotStore as error:
            self._context.unstored.tell(self._transfer.key, error.detail)
            return None

    async def _accepted(self, answer: Answer, hashing: Hashing, partial: IPartial | None, size: int) -> bool:
        """
        Whether a body that has come whole is proven, by what is known now.

        :raises regcache.errors.UpstreamError: if it is not to be taken.
        """
        fact = await self._latest()
        await self._complete(answer, hashing, partial, fact)
        digests = hashing.digests()
        try:
            return self._certain(accept(self._route, fact, size, digests, answer, self._stored), answer)
        except DigestMismatch:
            # Where a file can be published anew, the index that is stored may be older than what came.
            newer = await self._proofs.asked_again(self._registry, self._route)
            if newer is None or newer == fact or not newer.digests:
                raise
            await self._complete(answer, hashing, partial, newer)
            digests = hashing.digests()
            return self._certain(accept(self._route, newer, size, digests, answer, self._stored), answer)

    def _certain(self, proven: bool, answer: Answer) -> bool:
        """
        Whether it is proven; what is not, and may have been cut as well, is no answer where something could vouch.

        :raises regcache.errors.CutShort: if there is an index, which has only to be asked again.
        """
        vouched = self._route.indexes or self._route.proof is not None
        if vouched and not proven and not self._transfer.certain:
            raise CutShort(f"{answer.url} came without a length, and with nothing that vouches for it.")
        return proven

    async def _complete(self, answer: Answer, hashing: Hashing, partial: IPartial | None, fact: Fact | None) -> None:
        """
        Compute the digests that are wanted and that only the whole body gives.

        One that passes through unstored has none of what it holds; its client, whose way to check it that is, gets it.
        """
        again = partial if not self._transfer.relaying else None
        published = uncomputed(self._route, fact, hashing.digests(), kept=again is not None)
        for algorithm in dict.fromkeys((published, self._route.sound_by)):
            if not algorithm or any(digest.algorithm == algorithm for digest in hashing.digests()):
                continue
            if again is not None:
                hashing.learn(await rehashed(again, algorithm))
            elif algorithm == published and algorithm not in WHOLE:
                raise DigestMismatch(f"{answer.url}: its {algorithm} could not be computed while it passed through.")

    async def _proven(self) -> Fact | None:
        assert self._proof is not None
        return self._proof.value if self._proof.succeeded else await self._proof.wait()

    async def _latest(self) -> Fact | None:
        try:
            proof = await self._proven()
        except RegCacheError:
            proof = None
        stored = await self._known()
        return stored if stored is not None and stored.digests else proof or stored

    def _found(self, _none: None, entry: Stored) -> Deferred[None] | None:
        """An entry can be found now: hold it against what an index may have said since it was accepted."""
        return None if self._age == self._proofs.age else Deferred.fromCoroutine(self._look_again(entry))

    async def _look_again(self, entry: Stored) -> None:
        fact = await self._known()
        try:
            proven = verify(self._route, fact, entry.size, entry.digests, entry.url)
        except DigestMismatch as error:
            await self._drop(error)
            return
        if proven and not entry.verified:
            self._context.store.update(replace(entry, verified=True))
