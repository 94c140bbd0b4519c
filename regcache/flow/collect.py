"""Taking a whole body into memory, bounded; and undoing its content coding, bounded."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from regcache.errors import BadDocument, CutShort, TooLarge, UpstreamError
from regcache.flow.answers import Answer
from regcache.flow.large import LARGE, joined
from regcache.interfaces import IReceiver

__all__ = ["collect", "decoded"]

_SLICE = 1 << 20
_PACKED_SLICE = 1 << 16


@implementer(IReceiver)
class _Collector:
    def __init__(self, answer: Answer, most: int) -> None:
        self.result: Deferred[list[bytes]] = Deferred(lambda _: self._give_up())
        self.flow: Any = None
        self._answer = answer
        self._most = most
        self._chunks: list[bytes] = []
        self._size = 0
        self._over = False

    def _give_up(self) -> None:
        self._over = True
        self.flow.stop(CutShort("Nobody waits for it any more."))

    def received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._most:
            self.flow.stop(TooLarge(f"{self._answer.url} has more than {self._most} bytes."))

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        if self._over:
            return
        length = self._answer.length
        if error is None and not certain and self._may_be_cut():
            error = CutShort(f"{self._answer.url} came without a length, and without an end.")
        if error is None and length is not None and length != self._size:
            error = CutShort(f"{self._size} of {length} bytes of {self._answer.url} came.")
        if error is not None:
            self.result.errback(error)
        else:
            self.result.callback(self._chunks)

    def _may_be_cut(self) -> bool:
        """Whether a cut would go unnoticed: all that is collected but HTML has an end that its parser looks for."""
        kind = self._answer.headers.get("content-type").lower()
        return "html" in kind and not self._answer.coding and b"</html>" not in self._last(1024).lower()

    def _last(self, wanted: int) -> bytes:
        found = b""
        for chunk in reversed(self._chunks):
            found = chunk[-wanted:] + found
            if len(found) >= wanted:
                break
        return found[-wanted:]


async def collect(answer: Answer, most: int, in_thread: Callable[..., Deferred[Any]] = maybeDeferred) -> bytes:
    """
    The whole body, still in its content coding.

    :param most: bytes.
    :param in_thread: runs a function beside the reactor.
    :raises regcache.errors.UpstreamError: if it is cut, too large or does not come.
    """
    if answer.length is not None and answer.length > most:
        answer.discard()
        raise TooLarge(f"{answer.url} has {answer.length} bytes; at most {most} are accepted.")
    collector = _Collector(answer, most)
    collector.flow = answer.flow(collector)
    collector.flow.start()
    chunks = await collector.result
    is_large = sum(map(len, chunks)) > LARGE
    whole: bytes = await in_thread(joined, chunks) if is_large else joined(chunks)
    return whole


def decoded(body: bytes, coding: str, most: int) -> bytes:
    """
    The body without its content coding. Fit for a thread: zlib releases the interpreter.

    :raises regcache.errors.UpstreamError: if it is not in that coding, ends early, or grows beyond ``most`` bytes.
    """
    if not coding:
        return body
    if coding not in ("gzip", "x-gzip"):
        raise BadDocument(f"It came in the content coding {coding!r}, which was not asked for.")
    undoing, packed, at = zlib.decompressobj(31), memoryview(body), 0
    parts: list[bytes] = []
    size = 0
    try:
        while not undoing.eof:
            taken: bytes | memoryview = undoing.unconsumed_tail
            if not taken:
                # A little at a time: what is not used of it is copied.
                taken, at = packed[at : at + _PACKED_SLICE], at + _PACKED_SLICE
            part = undoing.decompress(taken, _SLICE)
            if not taken and not part:
                raise CutShort("Its gzip coding ends early.")
            parts.append(part)
            size += len(part)
            if size > most:
                raise TooLarge(f"It unpacks to more than {most} bytes.")
    except zlib.error as error:
        raise BadDocument(f"It is not gzip: {error}.") from None
    return joined(parts)
