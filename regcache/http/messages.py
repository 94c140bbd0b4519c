"""
The values that travel through regcache: headers, request and response heads, digests, stored records.

All are frozen; none knows how it is sent or where it lies.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import msgspec

from regcache.errors import BadRequest

__all__ = ["STRENGTH", "Digest", "Headers", "Kind", "RequestHead", "Stored"]

#: Digest algorithms that count as proof, strongest first; those with ``h1`` are of what a body holds (Go's dirhash).
STRENGTH = ("sha512", "sha384", "sha256", "blake2b_256", "zip_h1", "mod_h1", "sha1", "md5")
_RANKS = {algorithm: rank for rank, algorithm in enumerate(STRENGTH)}

#: What a query may consist of (RFC 3986 section 3.4, and what browsers send unescaped that all read alike).
_QUERY = re.compile(r'[!"$-;=?-\[\]-~]*')
_HEX = re.compile("[0-9a-f]*")
_HEX_LENGTH = {
    "sha512": 128,
    "sha384": 96,
    "sha256": 64,
    "blake2b_256": 64,
    "zip_h1": 64,
    "mod_h1": 64,
    "sha1": 40,
    "md5": 32,
}


class Headers(msgspec.Struct, frozen=True, gc=False):
    """
    Header fields in the order they came; names in lower case, values as latin-1 text.

    Several are made for each request: it takes a third of the time that a class of attrs takes.

    :ivar items: the fields, one pair per line received.
    """

    items: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
        """Headers from pairs or a mapping; names are lower-cased here and nowhere else."""
        pairs = fields.items() if isinstance(fields, dict | Mapping) else fields
        return cls(tuple([(name.lower(), value) for name, value in pairs]))

    def get(self, name: str, default: str = "") -> str:
        """The field's value; several lines are joined by a comma, as RFC 9110 section 5.3 allows."""
        found = None
        for key, value in self.items:
            if key == name:
                found = value if found is None else f"{found}, {value}"
        return found or default

    def lines(self, name: str) -> list[str]:
        """Every line of the field, in order; for fields that may not be joined."""
        return [value for key, value in self.items if key == name]

    def __contains__(self, name: object) -> bool:
        return name in dict(self.items)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)

    def without(self, *names: str) -> Headers:
        """These headers, less the named fields."""
        gone = set(names)
        return Headers(tuple([pair for pair in self.items if pair[0] not in gone]))

    def replacing(self, fields: Mapping[str, str]) -> Headers:
        """These headers, with the given fields in place of any of the same name."""
        if not fields:
            return self
        extra = {name.lower(): value for name, value in fields.items()}
        return Headers((*[pair for pair in self.items if pair[0] not in extra], *extra.items()))


class Digest(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """
    A digest of a body: an algorithm of :data:`STRENGTH` and its value in lower-case hexadecimal.

    :raises ValueError: for what is none.
    """

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        value = self.value
        if _HEX_LENGTH.get(self.algorithm) != len(value) or not _HEX.fullmatch(value):
            raise ValueError(f"not a {self.algorithm} digest: {value[:140]!r}")

    @classmethod
    def from_base64(cls, algorithm: str, text: str) -> Digest:
        """
        A digest from its base64 form, as in npm's ``integrity`` (W3C Subresource Integrity).

        :raises ValueError: if it is not one.
        """
        try:
            return cls(algorithm, base64.b64decode(text, validate=True).hex())
        except binascii.Error as error:
            raise ValueError(str(error)) from None

    @property
    def base64(self) -> str:
        """Its value in base64."""
        return base64.b64encode(bytes.fromhex(self.value)).decode()

    @staticmethod
    def strongest(digests: Iterable[Digest]) -> Digest | None:
        """The one to verify by, or None of none."""
        found = None
        for digest in digests:
            if found is None or _RANKS[digest.algorithm] < _RANKS[found.algorithm]:
                found = digest
        return found


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a client asks of one registry.

    ``msgspec.structs.replace`` makes a copy with other fields, at which it does not look.

    :ivar method: in upper case.
    :ivar path: below the registry's mount, as sent (still percent-encoded), beginning with ``/``.
    :ivar query: as sent, without the question mark.
    :ivar headers: the request's fields.
    :ivar base: the URL of the registry's mount as this client reaches it, ending with ``/``.
    :ivar body: the request's body, for the few routes that relay one.
    :ivar content: the same where it is only passed on: to be read from its beginning, in pieces.
    :ivar chunked: whether the client can tell the end of a body of unannounced length from a cut (RFC 9112
        section 7.1).
    :raises regcache.errors.BadRequest: for a query that could not be passed on as it is.
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = Headers()
    base: str = "http://localhost/"
    body: bytes = b""
    content: BinaryIO | None = None
    chunked: bool = True

    def __post_init__(self) -> None:
        if self.query and not _QUERY.fullmatch(self.query):
            raise BadRequest("The query is not well formed.")


class Kind(enum.Enum):
    """
    What a stored body is, in the order in which eviction takes them.

    A derived representation can be made again from its document without asking anybody; an artifact can be
    fetched again; losing a document loses the name of everything it lists, so it goes last.
    """

    DERIVED = "derived"
    ARTIFACT = "artifact"
    DOCUMENT = "document"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """
    One entry of the store: what is known about a body on disk.

    One is made for each look into the index, in a tenth of the time that a class of attrs takes.
    ``msgspec.structs.replace`` makes a copy with other fields.

    Times are seconds since the epoch by the wall clock, since they outlive the process.

    :ivar key: unique in the store; begins with the registry's name and a slash.
    :ivar registry: the registry's name.
    :ivar kind: what it is.
    :ivar parent: for an artifact the key of the index document that names it, for a derived representation
        the key of its document; else empty.
    :ivar source: for a derived representation, what it was derived from and by: stale when that differs.
    :ivar url: where the body came from, after redirects.
    :ivar headers: the upstream's end-to-end header fields worth keeping.
    :ivar digest: SHA-256 of the body, in hexadecimal: the blob's name.
    :ivar size: of the body, in bytes.
    :ivar digests: further digests of the body, as far as anybody needs them.
    :ivar verified: whether a digest published by the registry agreed with the body; of a document that may not change,
        also whether the upstream has sent the same twice.
    :ivar stored_at: when the body was stored.
    :ivar validated_at: when the upstream last vouched for it.
    :ivar withdrawn: the status (404, 410 or 451) by which the upstream withdrew it since, or 0.
    """

    key: str
    registry: str
    kind: Kind
    parent: str = ""
    source: str = ""
    url: str = ""
    headers: Headers = Headers()
    digest: str
    size: int
    digests: tuple[Digest, ...] = ()
    verified: bool = False
    stored_at: float
    validated_at: float
    withdrawn: int = 0
