"""
The seams: where one part of regcache can be replaced by another.

Values that cross them are in :mod:`regcache.http.messages` and :mod:`regcache.routes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from regcache.errors import UpstreamError
    from regcache.http.messages import Digest, Headers, RequestHead, Stored
    from regcache.routes import Facts, Release, Route, Source

__all__ = [
    "IBody",
    "IOrdered",
    "IPartial",
    "IReceiver",
    "IRegistry",
    "IResponse",
    "ISendable",
    "IStore",
    "IStoredBody",
    "IUpstream",
]

T = TypeVar("T")


class IRegistry(Interface):
    """
    What one ecosystem means: its addresses, its documents, its links and its digests.

    A provider is pure: values in, values out, no I/O, no clock. It is made as ``factory(options)`` from a
    :class:`regcache.routes.RegistryOptions`, by the entry points of the group ``regcache.registries``, once in the
    service and once in the helper process that derives documents. A factory is a class with two attributes of its
    own: ``default_url`` (the public upstream, or empty where there is none) and ``option_names`` (the keys of
    ``options.extra`` it knows). A wrong option raises :class:`regcache.errors.ConfigError`.
    """

    options = Attribute("The RegistryOptions it was made with, ``url`` filled in.")
    version = Attribute("An int, raised whenever a representation or facts would come out differently.")
    algorithms = Attribute("Digest algorithms to compute for an artifact whose digest is not known beforehand.")

    def route(request: RequestHead) -> Route:
        """
        What this request means.

        Routing works on the raw path. Only GET, HEAD and what is to be relayed mean anything.

        :raises regcache.errors.RegCacheError: a 4xx for what means nothing here.
        """

    def facts(document: str, source: Source) -> Facts:
        """
        What a document says about artifacts, by artifact key.

        Called before any representation is made or anything is stored: this is where a login page in place of
        an index is refused.

        :param document: the document's key.
        :raises regcache.errors.BadDocument: if it is not what this registry serves there.
        """

    def represent(document: str, source: Source, representation: str, base: str) -> bytes:
        """
        The form of a document that a client is sent, its links leading back through the proxy.

        :param base: the URL of the registry's mount, ending with ``/``; empty where the representation is not
            ``linked``.
        :raises regcache.errors.BadDocument: as for :meth:`facts`.
        """

    def allows(url: str) -> bool:
        """Whether this registry may contact the host of that URL: its own, its well-known or its artifact hosts."""

    def release(key: str, parent: str) -> Release | None:
        """
        Which package, and which version of it, the entry of a document or an artifact belongs to; None for what belongs
        to none, such as a list of all packages. For people who look: where a key may mean several, the likeliest.

        :param key: of the entry, within the registry.
        :param parent: likewise the key of the document that names it; empty where none does.
        """

    def error(status: int, text: str) -> tuple[str, bytes]:
        """An error as this ecosystem's clients show it to a person: Content-Type and body."""

    def client_lines(base: str) -> list[str]:
        """Lines to copy that point this ecosystem's usual clients at the mount ``base``."""


class IOrdered(IRegistry):
    """
    A registry with several upstreams: a registry each, which are asked in order.

    What a document or an artifact means is the affair of the member that has it; the rest is the first member's.
    """

    members = Attribute("The registries, in order; the keys of their entries differ.")


class IBody(Interface):
    """
    Bytes that can be read at any offset, whether they are all there yet or not.

    Reading one never disturbs another reader.
    """

    size = Attribute("The whole length in bytes, or None while it is not known.")

    def read(offset: int, length: int) -> bytes | Deferred[bytes]:
        """
        Some bytes from ``offset``: at least one and at most ``length``, or none at the very end.

        The answer is given at once if it is at hand; else a Deferred of the caller's own fires with it, or fails
        with a RegCacheError when the rest will never come. Cancelling it disturbs nobody else.
        """

    def close() -> None:
        """The reader needs no more. Harmless when repeated."""


class ISendable(Interface):
    """Bytes that the kernel can put on a socket by itself."""

    def send(fd: int, offset: int, length: int) -> int | Deferred[Any] | None:
        """
        Put some bytes from ``offset`` on a socket that does not block; how many, none if it takes no more for now.

        Where they would have to be waited for, a Deferred of the caller's own fires once they may be at hand. None
        says that they have to be read instead.

        :raises OSError: if the socket is broken.
        :raises regcache.errors.RegCacheError: if the bytes will never be there.
        """


class IStoredBody(ISendable):
    """A body that is whole and stays as it is: an IBody that can be opened again."""

    def is_warm(offset: int, length: int) -> bool:
        """Whether these bytes are at hand; if so, ``send`` takes that for granted from now on."""

    def again() -> IBody:
        """
        Another reader of the same bytes, whether this one is closed or not.

        :raises regcache.errors.RegCacheError: as IStore.open.
        """


class IReceiver(Interface):
    """Who takes a body from an upstream; both methods are called on the reactor thread."""

    def received(data: bytes) -> None:
        """Some bytes came, which follow those before; none come once it has ended."""

    def ended(error: UpstreamError | None, certain: bool) -> None:
        """
        No more bytes come; called once.

        :param error: why the body is not whole, or None.
        :param certain: whether the framing shows that nothing is missing; False when a close was the only end.
        """


class IResponse(Interface):
    """
    An upstream's response: its head, and a body that waits until somebody takes it.

    One of ``deliver`` and ``abort`` must be called, or ``whole`` have been of use, or its connection is held for ever.
    """

    status = Attribute("The status, an int.")
    headers = Attribute("All fields, those of the connection included: a Headers.")
    length = Attribute("The announced length of the body in bytes, or None.")

    def deliver(receiver: IReceiver) -> None:
        """Let the body flow; may be called once."""

    def whole(most: int) -> bytes | None:
        """
        The body, if all of it has come with the head, by an announced length of no more than ``most``; None if not.

        It is taken then, as if by ``deliver``.
        """

    def pause() -> None:
        """Let nothing more come for now; what is on its way still does."""

    def resume() -> None:
        """Go on after a pause."""

    def abort() -> None:
        """The body is not wanted (any more): the connection is closed and the receiver hears nothing more."""


class IUpstream(Interface):
    """Puts one request to one registry: follows no redirect, decodes nothing, keeps no cookie."""

    def request(
        method: str, url: str, headers: Headers, body: bytes | BinaryIO = b"", interim: Interim | None = None
    ) -> Deferred[IResponse]:
        """
        Ask. Fires when the head of the response is there; every status is a response.

        Fails with ConnectFailed, or with CutShort if what comes back is not a whole HTTP head. Cancelling it abandons
        the request; it fails with CancelledError then. There is no time limit.

        :param body: of the request; a file is read in pieces, from its beginning, as the other side takes them.
        :param interim: told the heads that come before it (1xx). Who is told them gets what HTTP says that comes: more
            bytes than were announced are dropped, and are no error then.
        """


class IPartial(Interface):
    """
    A body on its way into the store. Its owner writes some pieces at a time and ends it once.

    States: *open* (write), *over* (committed or aborted).
    """

    written = Attribute("Bytes that can be read, an int.")
    counted = Attribute("Whether the store bounds by itself how many like this wait to be stored: it needs no file.")

    def write(*pieces: bytes) -> Deferred[None]:
        """
        Append them, one after the other; fires when all their bytes can be read.

        Fails with CannotStore when the disk refuses; the bytes already written stay readable.
        """

    def read(offset: int, length: int) -> bytes | Deferred[bytes]:
        """Some of the bytes already written, as IBody.read."""

    def examine(look: Callable[[BinaryIO], T]) -> Deferred[T]:
        """
        What ``look`` finds in the whole body, which it gets as a file open for reading, in a thread.

        For whoever needs to read to and fro, when all has been written and before it is committed. Fails with what
        ``look`` raises.
        """

    def retain() -> None:
        """One more reader; the bytes stay readable until as many release()."""

    def release() -> None:
        """One reader less."""

    def abort() -> None:
        """Give it up: what is on disk goes as soon as no reader is left."""


class IStore(Interface):
    """
    Entries by key, bodies by digest.

    All methods are called on the reactor thread and never block it. The store is started by its service; before
    that and after its stop, nothing is found and creating raises CannotStore.
    """

    revision = Attribute("A Revision: while it is the same, peek says the same of what it was asked for before.")
    crowded = Attribute("Whether what waits in memory for the disk is all that may: what comes now had to be a file.")

    def caught_up() -> Deferred[None]:
        """
        While it is crowded: fires as soon as that may have changed, and within a second.

        On a disk so slow that it takes longer, the next ones do not wait until something has been written.
        """

    def peek(key: str) -> Stored | None:
        """The entry if it is known on this machine: the synchronous half of a look-up."""

    def glance(keys: Sequence[str]) -> list[Stored | None]:
        """As peek of each, for whoever may never ask again: nothing else is forgotten for it."""

    def keep(entry: Stored) -> None:
        """What a glance has found a moment ago is asked for again: it is what peek says from now on."""

    def find(key: str, beside: Sequence[str] = ()) -> Deferred[Stored | None]:
        """
        The entry wherever it may be; today what peek says. The awaitable half of a look-up.

        :param beside: entries that will be looked up next if this one is not there, for the price of one look-up.
        """

    def find_all(keys: Sequence[str]) -> Deferred[dict[str, Stored]]:
        """Those of several entries that are there, by key, for the price of one look-up."""

    def children(parent: str) -> Deferred[list[Stored]]:
        """The entries whose ``parent`` is this key."""

    def open(entry: Stored) -> IBody:
        """
        Read an entry's body. The bytes stay readable until close(), whatever becomes of the entry.

        :raises regcache.errors.BlobDamaged: if the blob is missing or has another size; the entry is gone then.
        :raises regcache.errors.TooBusy: if it cannot be opened now.
        """

    def read(entry: Stored) -> bytes | None:
        """The whole body of an entry, if it is small and can be read at once: for whoever wants no more of it."""

    def create(observe: Callable[[bytes], object] = ..., expected: int | None = None, most: int = 0) -> IPartial:
        """
        A new body to write.

        :param observe: given each chunk to write, once and in order, also one that is refused then; perhaps in a
            thread, to hash it there.
        :param expected: its length, if known.
        :param most: bytes that it may have, 0 for any; a write that passes them fails with CannotStore.
        :raises regcache.errors.CannotStore: if it would not fit, the disk is too full, or is read-only.
        """

    def adopt(digest: Digest, observe: Callable[[bytes], object] = ...) -> Deferred[IPartial | None]:
        """
        The body with that digest, if it stands in the store already: by its SHA-256 whichever entry names it, or none;
        by another of those that no entry names.

        It is read whole and found right before this fires, and is as good as one just written: to be committed or
        aborted, which leaves it where it stands.

        :param observe: given each piece of it, in order; perhaps in a thread.
        """

    def commit(partial: IPartial, entry: Stored) -> Deferred[None]:
        """
        Make what was written the body of an entry, durably, in place of any entry of that key.

        The entry's digest and size are the caller's word: they must be those of the bytes that were written. Fires
        when the entry can be found. Fails with CannotStore, which costs nothing but the copy.
        """

    def put(entry: Stored, body: bytes) -> Deferred[None]:
        """Store a small body that is in memory and can be made again: as commit, but it need not outlive a crash."""

    def update(entry: Stored) -> None:
        """Replace the record of a stored body; later look-ups see it at once. Of an absent key: no effect."""

    def drop(key: str) -> Deferred[None]:
        """Forget an entry; its blob goes when nothing else names it and nobody reads it."""

    def used(key: str, now: float) -> None:
        """An entry was served: remembered in batches, for eviction and statistics."""

    def usage() -> tuple[int, int]:
        """Bytes allocated on disk, and number of entries."""


#: What takes an interim response: its status and its fields (RFC 9110 section 15.2).
if TYPE_CHECKING:
    Interim = Callable[[int, Headers], None]

# The callable that makes a registry from its options; its class attributes are described in IRegistry.
if TYPE_CHECKING:
    from regcache.routes import RegistryOptions

    RegistryFactory = Callable[[RegistryOptions], IRegistry]
