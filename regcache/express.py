"""
The fast way for hits: what a plain request was answered with is given again, in one write, while it holds.

Nothing is decided here. The slow way answers first, with all its checks; its very fields and body are remembered under
the bytes of the request's head and the place it came by, which is all that its answer depended on beside what is
stored, the time and the configuration. Whatever of these changes sends the next request the slow way again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from attrs import define, field
from msgspec.structs import replace

from regcache.counts import Answers
from regcache.errors import holds_secret
from regcache.flow.context import Bounded
from regcache.flow.reply import Reply, Standing, cache_status, figures
from regcache.flow.sending import at_once
from regcache.heads import Head, Heads, is_unread
from regcache.http.fields import format_date
from regcache.kept import Kept, OpenFiles
from regcache.lean import is_all, may_open
from regcache.lines import Answered, Form
from regcache.revision import Revision

__all__ = ["Express", "Place", "Prepared", "Ready", "place_of", "timed_fields"]

_END = b"\r\n\r\n"
_NAME = b"x-request-id"
#: Bytes of a file of which the answer is kept.
_MOST_READ = 1 << 17
#: Requests that are known to have come once.
_MOST_ASKED = 4096
#: Answers that are known to hold for a moment.
_MOST_FOUND = 2048
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


@lru_cache(1024)
def place_of(registry: str, local: str, secure: bool, proxy: str) -> Place:
    """That place, the same object for all of its connections."""
    return Place(registry, local, secure, proxy)


def timed_fields(reply: Reply, now: float) -> dict[bytes, bytes]:
    """The fields of an answer that count on with the time."""
    fields = {b"Cache-Status": cache_status(reply).encode()}
    if not (reply.relayed and "date" in reply.headers):
        fields[b"Date"] = format_date(now).encode()
    if "age" in reply.headers:
        fields[b"Age"] = reply.headers.get("age").encode()
    return fields


def _literal(text: bytes) -> bytes:
    """The part of a form that says just that: the sign that asks to be filled may stand in the name of a field, too."""
    return text.replace(b"%", b"%%")


@define(eq=False)
class Prepared:
    """
    An answer, ready to be given again.

    :ivar reply: as the cache gave it, without its body.
    :ivar client: whom the log names; empty for the peer of the connection.
    :ivar answers: where it is counted.
    :ivar registry: whose it is, for the log.
    :ivar package: what it is of, for the log.
    :ivar form: its head up to the name of the request, which is each one's own, to be filled with what counts on.
    :ivar counted: the names of the fields that do, with the time.
    :ivar status: the Cache-Status that was filled in last.
    """

    reply: Reply
    standing: Standing
    client: str
    answers: Answers
    registry: str
    method: str
    target: str
    package: str
    form: bytes
    counted: tuple[bytes, ...]
    body: bytes | Kept
    size: int = field(init=False)
    status: str = field(default="", init=False)
    _head: bytes = field(default=b"", init=False)
    _from: float = field(default=0.0, init=False)
    _until: float = field(default=0.0, init=False)
    _logged: tuple[str, ...] = field(default=(), init=False)
    _form: Form | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.size = len(self.body)

    @classmethod
    def of(
        cls,
        reply: Reply,
        fields: Iterable[tuple[bytes, Sequence[bytes]]],
        start: bytes,
        body: bytes | Kept,
        answers: Answers,
        **about: str,
    ) -> Prepared | None:
        """
        What has just been said; None if it does not hold, or not for all who ask alike.

        :param fields: each with its values.
        :param start: the status line.
        """
        if reply.standing is None or any(map(is_unread, reply.standing.selected_by)):
            return None
        said = [(name, value) for name, values in fields for value in values if name.lower() != _NAME]
        timed = timed_fields(reply, 0)
        lines = [name + b": %b" if name in timed else _literal(name + b": " + value) for name, value in said]
        form = b"\r\n".join((_literal(start), *lines, b"X-Request-Id: "))
        counted = tuple(name for name, _ in said if name in timed)
        bare = replace(reply, body=b"", start=0, stop=0)
        return cls(bare, reply.standing, form=form, counted=counted, body=body, answers=answers, **about)

    @property
    def weight(self) -> int:
        """Bytes that it takes, about: its head, as a form and filled, and what it is called."""
        held = 0 if isinstance(self.body, Kept) else len(self.body)
        held += 2 * len(self.form)
        # A long target is the key of an entry and in its address as well, and in the line of the log.
        return held + 6 * len(self.target) + _OVERHEAD

    def is_at_hand(self, now: float) -> bool:
        """Whether it can be given without waiting for the disk."""
        return not isinstance(self.body, Kept) or self.body.is_at_hand(now)

    def rest(self, at: int) -> Reply:
        """What is left to send from that byte of the body on; its own body is to be closed by whoever sends it."""
        body, start, stop = (self.body, at, len(self.body)) if isinstance(self.body, bytes) else self.body.rest(at)
        return replace(self.reply, body=body, start=start, stop=stop)

    def close(self) -> None:
        """It will not be given again."""
        if isinstance(self.body, Kept):
            self.body.close()

    def head(self, now: float) -> tuple[bytes, float]:
        """
        The head, as the slow way would write it at that time, up to the name of the request that ends it; and until
        when it is that.
        """
        if not self._from <= now < self._until:
            age, detail, self._until = figures(self.reply, self.standing, now)
            self._from, self.status = now, cache_status(self.reply, detail)
            said = {b"Cache-Status": self.status, b"Date": format_date(now), b"Age": age}
            self.standing.given()
            self._head = self.form % tuple([said[name].encode() for name in self.counted])
        return self._head, self._until

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
            )
            self._logged, self._form = form.answer(about), form
        return self._logged


@define(eq=False)
class Ready:
    """
    A prepared answer to one head of a request: found to hold, which it does for a moment, while nothing changes.

    :ivar place: where such a request came in.
    :ivar head: that of the request.
    :ivar said: that of the answer, up to the name of the request.
    :ivar status: the Cache-Status in that.
    :ivar since: from when on it holds, by the wall clock, ``until`` when.
    :ivar revision: the number of what is stored, with any other of which it may not hold.
    :ivar kept: its body, where that is a file.
    """

    place: Place
    head: Head
    prepared: Prepared
    said: bytes
    status: str
    since: float
    until: float
    revision: int
    kept: Kept | None = field(init=False)
    _form: Form | None = field(default=None, init=False)
    _parts: tuple[str, ...] = field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        body = self.prepared.body
        self.kept = body if isinstance(body, Kept) else None

    def line(self, form: Form, client: str, now: float, sent: int, request_id: str, seconds: float) -> str:
        """The line of the access log that tells of one such request."""
        prepared = self.prepared
        parts = self._parts
        usual = sent == prepared.size and self.since <= now < self.until
        if not usual or self._form is not form:
            parts = form.alike(prepared.logged(form), self.status, self.head.below.logged(form), int(now), sent)
            if usual:
                self._form, self._parts = form, parts
        return form.line(parts, now, prepared.client or client, request_id, seconds)


class Express:
    """
    The answers that are ready, as many as fit.

    :param most: bytes; 0 for none at all.
    :param stands: whether an answer still holds.
    :param files: those that may be kept open.
    :param revision: of all on which it depends whether one stands, but the time.
    :ivar heads: those of the requests that come.
    """

    def __init__(
        self, most: int, stands: Callable[[Standing, float], bool], files: OpenFiles, revision: Revision
    ) -> None:
        self.on = most > 0
        self.heads = Heads(self._unknown)
        self._most = most
        self._stands, self._files, self._revision = stands, files, revision
        self._ready: Bounded[tuple[Place, bytes], Prepared] = Bounded(most, self._gone)
        # Of those that are ready for heads that are known, the ones that were asked for lately.
        self._found: dict[bytes, Ready] = {}
        # By their hashes: a wrong one costs no more than a place.
        self._asked: set[int] = set()
        self._earlier: set[int] = set()

    def again(self, place: Place, data: bytes, now: float) -> Ready | None:
        """What to answer to a head that came a moment ago, if that was found and nothing has changed since."""
        found = self._found.get(data)
        if (
            found is not None
            and found.place is place
            and found.since <= now < found.until
            and found.revision == self._revision.number
            and (found.kept is None or found.kept.is_at_hand(now))
        ):
            return found
        return None

    def find(self, place: Place, head: Head, now: float) -> Ready | None:
        """What to answer, if that is ready and still holds."""
        key = (place, head.asked)
        found = self._ready.get(key) if self._ready.holds(key) else None
        if found is None:
            return None
        revision = self._revision.number
        if not (self._stands(found.standing, now) and found.is_at_hand(now)):
            self._ready.drop(key)
            return None
        self.heads.keep(head)
        said, until = found.head(now)
        ready = Ready(place, head, found, said, found.status, now, until, revision)
        if head.known:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[head.raw] = ready
        return ready

    def _gone(self, prepared: Prepared) -> None:
        self._found.clear()
        prepared.close()

    def _unknown(self, head: Head) -> None:
        head.known = False
        self._found.pop(head.raw, None)

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
        if key in self._asked or key in self._earlier:
            return True
        if len(self._asked) >= _MOST_ASKED // 2:
            # The older half goes at once: to forget one for each that comes takes longer than the rest.
            self._earlier, self._asked = self._asked, set()
        self._asked.add(key)
        return False

    def remember(self, place: Place, asked: bytes, prepared: Prepared) -> None:
        """That is the answer, while it holds; what may open something is not kept."""
        secret = may_open(asked.partition(b"\r\n")[2]) or holds_secret(prepared.target)
        if is_all(asked.lower()) and not secret:
            self._ready.put((place, asked), prepared, prepared.weight + 2 * len(asked))

    def close(self) -> None:
        """No answer is ready any more, and no file open."""
        self._ready.clear()
        self._found.clear()
        self._files.close()
