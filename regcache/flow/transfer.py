"""
One upstream body, written once and read by many.

What must hold:

* A reader sees only bytes below the *mark*. The mark stays a hold-back behind what has arrived until the whole body
  has been found good; so nobody ever holds a complete body that is not what the registry vouches for.
* Nobody waits for another reader, and a reader that leaves disturbs nothing.
* Memory is bounded: bytes wait for the disk up to one write, then the upstream is paused.
* When the disk refuses, what it holds stays readable and the rest passes through a window in memory, paced by the
  slowest reader that still moves. Nobody may join any more, since the window forgets.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from regcache.errors import CannotStore, CutShort, RegCacheError, Unneeded, UpstreamError
from regcache.flow.answers import Answer
from regcache.flow.judging import Judge
from regcache.flow.reader import Reader
from regcache.flow.unstored import Unstored
from regcache.flow.waiting import Outcome, spawn
from regcache.flow.window import Window
from regcache.interfaces import IBody, IPartial, IReceiver, ISendable
from regcache.logs import Log

__all__ = ["HOLD_BACK", "Transfer"]

_log = Log()

#: Bytes kept from readers until the body is found good.
HOLD_BACK = 8192
_MOST_PENDING = 1 << 20
_STALLED_SECONDS = 10.0
_ORPHAN_SECONDS = 60.0


@implementer(IReceiver)
class Transfer:
    """
    States: *asking* (no head yet), *flowing* (bytes come; readers follow the mark), *checking* (all bytes are here,
    not yet found good), *complete* (all can be read), *failed* (readers fail where the mark ends).

    :param unstored: told if it cannot be stored.
    :ivar head: fires when the head is known, with the Answer; fails when there will be none.
    :ivar readable: fires when the first bytes can be read or it is clear that none will come.
    :ivar total: the body's length, once known.
    :ivar mark: how many bytes readers may see.
    :ivar readers: whoever reads it.
    :ivar done: fires when the body is complete and, if it can be, stored; fails with why not.
    """

    # What it is as long as there is no answer.
    total: int | None = None
    mark = 0
    complete = relaying = False
    error: RegCacheError | None = None
    _partial: IPartial | None = None
    _pending_size = _arrived = _held = 0
    _busy = _paused = False
    _ended: tuple[UpstreamError | None, bool] | None = None
    _flow: Any = None
    # It leads back here; let go of at the end.
    _judge: Judge | None = None
    _timer: IDelayedCall | None = None
    #: What does not pass through has none.
    _window = Window()

    def __init__(self, clock: IReactorTime, key: str, unstored: Unstored) -> None:
        self.key = key
        self._unstored = unstored
        self.began = clock.seconds()
        self.head: Outcome[Answer] = Outcome()
        self.readable: Outcome[None] = Outcome()
        self.done: Outcome[None] = Outcome()
        self.readers: list[Reader] = []
        self._clock = clock
        self._waiting: list[Deferred[None]] = []
        self._pending: list[bytes] = []

    @property
    def joinable(self) -> bool:
        """Whether a new reader can still have the whole body."""
        return not self.relaying and self.error is None

    @property
    def certain(self) -> bool:
        """Whether the framing said that all has come: where a closed connection is the end, it may be a cut."""
        return self._ended is not None and self._ended[1]

    # The owner's side.

    def begin(self, answer: Answer, partial: IPartial | None, judge: Judge, hold_back: int = HOLD_BACK) -> None:
        """
        The upstream answered with a body: let it flow.

        :param partial: where it is written, or None when it cannot be stored.
        :param hold_back: bytes kept from readers until the body is found good.
        """
        self._judge = judge
        self.total = answer.length
        self._partial = partial
        self._held = hold_back
        if partial is None:
            self._relay(0)
        else:
            for _ in self.readers:
                partial.retain()
        self._flow = answer.flow(self)
        self.head.succeed(answer)
        self._flow.start()
        self._wake()
        self._mind_orphan()

    async def take(self, answer: Answer, body: bytes, partial: IPartial, judge: Judge) -> None:
        """
        As :meth:`begin`, of an answer of which the whole body has come with its head: there is nothing to pace, and
        nobody reads before the end.

        Comes back once it is found good, or not.
        """
        self._judge, self._partial = judge, partial
        self.total = self._arrived = self._held = len(body)
        self._ended, self._busy = (None, True), True
        for _ in self.readers:
            partial.retain()
        self.head.succeed(answer)
        try:
            await partial.write(body)
        except CannotStore as why:
            self._unwritten(why, [body], 0)
        else:
            await self._conclude(None, True)

    def fail(self, error: RegCacheError) -> None:
        """There will be no (more) body."""
        if self.error is not None or self.complete:
            return
        self.error = error
        if self._flow is not None and self._ended is None:
            flow, self._flow = self._flow, None
            flow.stop(error)
        if self._partial is not None:
            self._partial.abort()
        self._window.clear()
        self._pending.clear()
        self._judge = None
        self._rest()
        self.head.fail(error)
        self.done.fail(error)
        self._wake()

    # The readers' side.

    def open(self) -> IBody:
        """A reader of the whole body."""
        reader = Reader(self)
        self.readers.append(reader)
        if self._partial is not None:
            self._partial.retain()
        return reader

    def moved(self) -> Deferred[None]:
        """Fires, without a result, at the next change of anything a reader can see."""
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiting.append(waiter)
        return waiter

    def read(self, reader: Reader, offset: int, length: int) -> bytes | Deferred[bytes]:
        """As IBody.read."""
        if offset < self.mark:
            length = min(length, self.mark - offset)
            if self._partial is not None and offset < self._partial.written:
                return self._partial.read(offset, min(length, self._partial.written - offset))
            if self.error is not None:
                # What passed through is forgotten, which is not its end.
                raise self.error
            # One that was left behind has missed what is forgotten.
            return self._window.read(-1 if reader.lost else offset, length)
        if self.complete:
            return b""
        if self.error is not None:
            raise self.error
        if self.relaying:
            self._trim()
            if offset < self.mark:
                return self.read(reader, offset, length)
        return Deferred.fromCoroutine(self._read_later(reader, offset, length))

    def send(self, fd: int, offset: int, length: int) -> int | Deferred[Any] | None:
        """As ISendable.send: what is in the file goes from there; what passes through has to be read."""
        partial = self._partial
        if partial is None or self.relaying or not ISendable.providedBy(partial):
            return None
        there = min(self.mark, partial.written) - offset
        if there > 0:
            return partial.send(fd, offset, min(length, there))
        if self.error is not None:
            raise self.error
        return self.moved()

    async def _read_later(self, reader: Reader, offset: int, length: int) -> bytes:
        while offset >= self.mark and not self.complete and self.error is None:
            await self.moved()
        found = self.read(reader, offset, length)
        return found if isinstance(found, bytes) else await found

    def left(self, reader: Reader) -> None:
        """A reader is gone."""
        self.readers.remove(reader)
        if self._partial is not None:
            self._partial.release()
        if self._ended is not None or self.complete or self.error is not None or self.readers:
            if self.relaying:
                self._trim()
        elif self.relaying:
            self.fail(Unneeded("Nobody was left to read it."))
        else:
            self._mind_orphan()

    def _mind_orphan(self) -> None:
        """A body that nobody reads goes on for a while only, if there is no telling how long it is."""
        under_way = self._flow is not None and self._ended is None and self.error is None
        if under_way and not self.readers and self.total is None and not self.relaying:
            self._rest()
            self._timer = self._clock.callLater(_ORPHAN_SECONDS, self._orphaned)

    def _orphaned(self) -> None:
        if not self.readers:
            self.fail(Unneeded("Nobody was left to read it, and its length is unknown."))

    # From the upstream.

    def received(self, data: bytes) -> None:
        if self.error is not None:
            return
        self._arrived += len(data)
        if self.total is not None and self._arrived > self.total:
            self.fail(CutShort("More bytes came than announced."))
            return
        self._pending.append(data)
        self._pending_size += len(data)
        self._go_on()

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        if self.error is not None:
            return
        # It leads back here.
        self._ended, self._flow = (error, certain), None
        self._go_on()

    def _go_on(self) -> None:
        """Do the next thing there is to do; called after every change."""
        if self.error is not None or self.complete:
            return
        if not self._busy:
            self._step()
        self._regulate()

    def _step(self) -> None:
        if self._pending and not (self.relaying and self._window.full):
            pieces, self._pending = self._pending, []
            self._pending_size = 0
            self._busy = True
            if self.relaying:
                assert self._judge is not None
                for piece in pieces:
                    self._judge.hashing.feed(piece)
                    self._window.append(piece)
                self._written(None)
            else:
                assert self._partial is not None
                before = self._partial.written
                self._partial.write(*pieces).addCallbacks(
                    self._written, lambda failure: self._unwritten(failure.value, pieces, before)
                )
        elif self._ended is not None and not self._pending:
            self._busy = True
            spawn(self._conclude(*self._ended))

    def _written(self, _none: object) -> None:
        self._busy = False
        # The next bytes first: the disk has something to do while those that are written are sent.
        self._go_on()
        self._advance()

    def _unwritten(self, error: BaseException, pieces: list[bytes], before: int) -> None:
        assert self._partial is not None
        if not isinstance(error, CannotStore):
            self._busy = False
            self.fail(error if isinstance(error, RegCacheError) else CannotStore(str(error)))
            return
        self._unstored.tell(self.key, error.detail)
        self._relay(self._partial.written)
        self._window.append(b"".join(pieces)[self._partial.written - before :])
        self._written(None)

    def _advance(self) -> None:
        stored = self._partial.written if self._partial is not None else 0
        end = self._window.end if self.relaying else stored
        mark = max(end - self._held, self.mark)
        if mark != self.mark:
            self.mark = mark
            self._wake()

    async def _conclude(self, error: UpstreamError | None, certain: bool) -> None:
        """All bytes are here: find out whether they are good."""
        judge, self._judge = self._judge, None
        if judge is None:
            # It was given up while its last bytes were written.
            return
        try:
            if error is not None:
                raise error
            if self.total is not None and self._arrived != self.total:
                raise CutShort(f"{self._arrived} of {self.total} bytes came.")
            proven = await judge.check(self._arrived)
            if self.error is not None:
                return
        except RegCacheError as why:
            self._ended = self._ended or (None, True)
            self.fail(why)
            return
        except Exception as bug:
            # Nobody waits for what this raises.
            _log.failure("{key}: a bug ended the check.", key=self.key)
            self.fail(CannotStore(str(bug)))
            return
        self.total = self.mark = self._arrived
        self._held, self.complete = 0, True
        self._rest()
        self._wake()
        if self._partial is not None and not self.relaying and (certain or proven):
            # Whoever waits for the disk waits without what brought the body here.
            maybeDeferred(judge.commit, self._partial, proven).addCallbacks(self.done.succeed, self._refused)
            return
        if self._partial is not None:
            self._partial.abort()
        self.done.succeed(None)

    def _refused(self, failure: Failure) -> None:
        if failure.check(CannotStore):
            self._unstored.failed(failure, self.key)
        else:
            _log.failure("{key}: a bug ended the storing.", failure=failure, key=self.key)
            if self._partial is not None:
                self._partial.abort()
        self.done.succeed(None)

    # Passing through what cannot be stored.

    def _relay(self, offset: int) -> None:
        self.relaying = True
        self._window = Window(offset)

    def _trim(self) -> None:
        """Forget what every reader has read, and let more in."""
        moving = [reader.position for reader in self.readers if not reader.lost]
        self._window.forget(min(moving, default=0))
        self._go_on()

    def _drop_stalled(self) -> None:
        """
        The window has been full for a while: whoever took nothing meanwhile is left behind, if others wait; where
        nobody reads, none of it is wanted.
        """
        self._timer = None
        if not self._window.full or self.complete:
            return
        there = [reader for reader in self.readers if not reader.lost]
        if not there:
            self.fail(Unneeded("Nobody was left to read it."))
            return
        stalled = [reader for reader in there if reader.position < self.mark and reader.position == reader.before]
        if len(stalled) < len(there):
            for reader in stalled:
                reader.lost = True
            self._wake()
        self._trim()

    def _regulate(self) -> None:
        """Pause the upstream while the disk or the window is behind."""
        full = self._pending_size >= _MOST_PENDING or (self.relaying and self._window.full)
        if self.relaying and full and self._timer is None:
            for reader in self.readers:
                reader.before = reader.position
            self._timer = self._clock.callLater(_STALLED_SECONDS, self._drop_stalled)
        elif self.relaying and not full:
            self._rest()
        if self._flow is None or self._ended is not None or full == self._paused:
            return
        self._paused = full
        if full:
            self._flow.pause()
        else:
            self._flow.resume()

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _wake(self) -> None:
        if self.mark > 0 or self.complete or self.error is not None:
            self.readable.succeed(None)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
