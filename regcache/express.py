"""
The fast way for hits: what a plain request was answered with is given again, in one write, while it holds.

Nothing is decided here. The slow way answers first, with all its checks; its very fields and body are remembered under
the bytes of the request's head and the place it came by, which is all that its answer depended on beside what is
stored, the time and the configuration. Whatever of these changes sends the next request the slow way again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from attrs import define, evolve, field

from regcache.flow.context import Bounded
from regcache.flow.reply import Reply, Standing, cache_status, timed
from regcache.flow.sending import at_once
from regcache.heads import Heads, is_unread
from regcache.http.fields import format_date
from regcache.kept import Kept, OpenFiles
from regcache.lean import is_all, may_open
from regcache.lines import Answered, Form

__all__ = ["Express", "Place", "Prepared", "timed_fields"]

_END = b"\r\n\r\n"
_NAME = b"x-request-id"
#: Bytes of a file of which the answer is kept.
_MOST_READ = 1 << 17
#: Requests that are known to have come once.
_MOST_ASKED = 16_384
#: Bytes that an answer takes beside its body.
_OVERHEAD = 2048


class Place(NamedTuple):
    """
    Where a request came in: with the bytes of its head all that an answer depends on.

    :ivar registry: the one that is served there alone; empty for all.
    :ivar local: our own address and port, as in a URL.
    :ivar proxy: the address of the proxy it came from, whose word counts; empty where the client is allowed itself.
    """

    registry: str
    local: str
    secure: bool
    proxy: str


def timed_fields(reply: Reply, now: float) -> dict[bytes, bytes]:
    """The fields of an answer that count on with the time."""
    fields = {b"Cache-Status": cache_status(reply).encode()}
    if not (reply.relayed and "date" in reply.headers):
        fields[b"Date"] = format_date(now).encode()
    if "age" in reply.headers:
        fields[b"Age"] = reply.headers.get("age").encode()
    return fields


@define(eq=False)
class Prepared:
    """
    An answer, ready to be given again.

    :ivar reply: as the cache gave it, without its body.
    :ivar client: whom the log names; empty for the peer of the connection.
    :ivar registry: whose it is, for the numbers.
    :ivar start: the status line.
    :ivar package: what it is of, for the log.
    :ivar fields: all fields as they were sent, but the name of the request, which is each one's own.
    """

    reply: Reply
    standing: Standing
    client: str
    registry: str
    method: str
    target: str
    package: str
    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes | Kept
    _head: bytes = field(default=b"", init=False)
    _from: float = field(default=0.0, init=False)
    _until: float = field(default=0.0, init=False)
    _logged: tuple[str, ...] = field(default=(), init=False)
    _form: Form | None = field(default=None, init=False)

    @classmethod
    def of(
        cls,
        reply: Reply,
        fields: Iterable[tuple[bytes, Sequence[bytes]]],
        start: bytes,
        body: bytes | Kept,
        **about: str,
    ) -> Prepared | None:
        """
        What has just been said; None if it does not hold, or not for all who ask alike.

        :param fields: each with its values.
        """
        if reply.standing is None or any(map(is_unread, reply.standing.selected_by)):
            return None
        said = tuple((name, value) for name, values in fields for value in values)
        said = tuple(pair for pair in said if pair[0].lower() != _NAME)
        bare = evolve(reply, body=b"", start=0, stop=0)
        return cls(bare, reply.standing, start=start, fields=said, body=body, **about)

    @property
    def weight(self) -> int:
        """Bytes that it takes, about: its fields as they were said, and as they will be."""
        held = 0 if isinstance(self.body, Kept) else len(self.body)
        return held + 2 * sum(len(name) + len(value) for name, value in self.fields) + _OVERHEAD

    def is_at_hand(self, now: float) -> bool:
        """Whether it can be given without waiting for the disk."""
        return not isinstance(self.body, Kept) or self.body.is_at_hand(now)

    def rest(self, at: int) -> Reply:
        """What is left to send from that byte of the body on; its own body is to be closed by whoever sends it."""
        body, start, stop = (self.body, at, len(self.body)) if isinstance(self.body, bytes) else self.body.rest(at)
        return evolve(self.reply, body=body, start=start, stop=stop)

    def close(self) -> None:
        """It will not be given again."""
        if isinstance(self.body, Kept):
            self.body.close()

    def head(self, now: float, request_id: str) -> bytes:
        """The whole head, as the slow way would write it at that time for a request of that name."""
        if not self._from <= now < self._until:
            reply, self._until = timed(self.reply, now)
            self._from, counted = now, timed_fields(reply, now)
            self.standing.given()
            lines = [name + b": " + counted.get(name, value) for name, value in self.fields]
            self._head = b"\r\n".join((self.start, *lines, b"X-Request-Id: "))
        return self._head + request_id.encode() + _END

    def logged(self, form: Form) -> tuple[str, ...]:
        """The parts of a line of the access log that tell of it."""
        if self._form is not form:
            about = Answered(
                method=self.method,
                target=self.target,
                status=self.reply.status,
                registry=self.registry,
                package=self.package,
                outcome=self.reply.how.value.lower(),
                cache_status=cache_status(self.reply),
            )
            self._logged, self._form = form.answer(about), form
        return self._logged


class Express:
    """
    The answers that are ready, as many as fit.

    :param most: bytes; 0 for none at all.
    :param stands: whether an answer still holds.
    :param files: those that may be kept open.
    :ivar heads: those of the requests that come.
    """

    def __init__(self, most: int, stands: Callable[[Standing, float], bool], files: OpenFiles) -> None:
        self.on = most > 0
        self.heads = Heads()
        self._most = most
        self._stands, self._files = stands, files
        self._ready: Bounded[tuple[Place, bytes], Prepared] = Bounded(most, Prepared.close)
        # By their hashes: a wrong one costs no more than a place.
        self._asked: Bounded[int, bool] = Bounded(_MOST_ASKED)

    def find(self, place: Place, asked: bytes, now: float) -> Prepared | None:
        """What to answer, if that is ready and still holds."""
        key = (place, asked)
        found = self._ready.get(key)
        if found is not None and not (self._stands(found.standing, now) and found.is_at_hand(now)):
            self._ready.drop(key)
            return None
        return found

    def taken(self, reply: Reply, *, uncopied: bool) -> bytes | Kept | None:
        """
        What is sent of a body, if that may be kept and can be had at once: one must not push out all others.

        :param uncopied: whether a file can go to such a client as it is.
        """
        size, most = reply.length, self._most // 8
        if isinstance(reply.body, bytes):
            return at_once(reply, most)
        if size is None or size > _MOST_READ:
            return None
        kept = self._files.keep(reply.body, reply.start, size) if uncopied else None
        return at_once(reply, most) if kept is None else kept

    def wants(self, place: Place, asked: bytes, size: int) -> bool:
        """
        Whether an answer is to be remembered: while half of the memory is free any, then what was asked for before, not
        long ago.

        What is asked for once pushes nothing out that is asked for again and again.

        :param size: bytes of its body.
        """
        return self._ready.room - size >= self._most // 2 or self.asked_before(place, asked)

    def asked_before(self, place: Place, asked: bytes) -> bool:
        """Whether that was asked for not long ago; it was from now on."""
        key = hash((place, asked))
        if self._asked.get(key):
            return True
        self._asked.put(key, True, 1)
        return False

    def remember(self, place: Place, asked: bytes, prepared: Prepared) -> None:
        """That is the answer, while it holds."""
        if is_all(asked.lower()) and not may_open(asked.partition(b"\r\n")[2]):
            self._ready.put((place, asked), prepared, prepared.weight + 2 * len(asked))

    def close(self) -> None:
        """No answer is ready any more, and no file open."""
        self._ready.clear()
        self._files.close()
