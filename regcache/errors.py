"""
Everything that can go wrong, as one tree.

Each class knows the HTTP status a client is answered with; its docstring is the first sentence of what
the client reads, and the message given when it is raised is the rest: what happened, where, and what to do.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import ClassVar

__all__ = [
    "BadDocument",
    "BadRequest",
    "BlobDamaged",
    "CannotStore",
    "ConfigError",
    "ConnectFailed",
    "Crowded",
    "CutShort",
    "DigestMismatch",
    "Forbidden",
    "ForbiddenOrigin",
    "HeadersTooLarge",
    "LinksLeave",
    "MethodNotAllowed",
    "MisdirectedHost",
    "NotAcceptable",
    "NotFound",
    "NotStarted",
    "Offline",
    "PayloadTooLarge",
    "RegCacheError",
    "RequestTimeout",
    "TargetTooLong",
    "TooBusy",
    "TooLarge",
    "UpstreamError",
    "UpstreamStatus",
    "UpstreamTimeout",
    "Withdrawn",
    "shown",
]

_MOST_SHOWN = 1000
_SECRETS = re.compile(r"(?i)([?&][^=&\s]*(?:token|signature|credential|password|auth|secret|key|sig)[^=&\s]*=)[^&\s]*")
_USER = re.compile(r"//[^/?#\s]*@")


def shown(text: str) -> str:
    """
    Text that may hold what others sent, as it may be shown to anybody and logged.

    In one line of printable characters, without what signs or opens a URL.
    """
    safe = _USER.sub("//...@", _SECRETS.sub(r"\1...", text[:_MOST_SHOWN]))
    if safe.isprintable():
        return safe
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in safe)


class RegCacheError(Exception):
    """
    Something went wrong in regcache.

    :ivar detail: what happened, where, and what to do about it, in words for the person at the client; secrets and
        unprintable characters are taken out here.
    """

    status: ClassVar[int] = 500

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = shown(detail)

    @property
    def reason(self) -> str:
        """The reason phrase that goes with the status."""
        return HTTPStatus(self.status).phrase

    @property
    def text(self) -> str:
        """The whole message for a person: the class's first sentence and the detail."""
        first = (self.__doc__ or "").strip().partition("\n")[0]
        return f"{first} {self.detail}".strip()


class ConfigError(RegCacheError):
    """The configuration cannot be used."""


class BadRequest(RegCacheError):
    """The request cannot be understood."""

    status = 400


class Forbidden(RegCacheError):
    """This client may not use the cache."""

    status = 403


class NotFound(RegCacheError):
    """There is nothing at this address."""

    status = 404


class Withdrawn(NotFound):
    """The registry has withdrawn this."""


class MethodNotAllowed(RegCacheError):
    """This cache only reads."""

    status = 405

    def __init__(self, detail: str = "", allow: str = "GET, HEAD") -> None:
        super().__init__(detail)
        self.allow = allow


class NotAcceptable(RegCacheError):
    """None of the media types that the client accepts can be made here."""

    status = 406


class RequestTimeout(RegCacheError):
    """The request did not come whole in time."""

    status = 408


class PayloadTooLarge(RegCacheError):
    """The request body is too large."""

    status = 413


class TargetTooLong(RegCacheError):
    """The address asked for is too long."""

    status = 414


class MisdirectedHost(RegCacheError):
    """This cache does not answer under that host name."""

    status = 421


class HeadersTooLarge(RegCacheError):
    """The request's header fields are too large."""

    status = 431


class NotStarted(RegCacheError):
    """The cache is not running yet, or is stopping."""

    status = 503


class TooBusy(RegCacheError):
    """The cache is at its limit; try again shortly."""

    status = 503


class Offline(RegCacheError):
    """The cache is offline and holds no copy of this."""

    status = 504


class UpstreamError(RegCacheError):
    """The registry could not be used."""

    status = 502


class Crowded(TooBusy, UpstreamError):
    """The cache asks the registry as much as it may at once; try again shortly."""

    # Whoever has a stored copy is served that.
    status = 503


class ConnectFailed(UpstreamError):
    """No connection to the registry could be made."""


class UpstreamTimeout(UpstreamError):
    """The registry did not answer in time."""

    status = 504


class UpstreamStatus(UpstreamError):
    """
    The registry answered with an error.

    :ivar code: the status it sent.
    :ivar retry_after: seconds it asked us to wait, or None.
    """

    def __init__(self, detail: str, code: int, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.retry_after = retry_after


class CutShort(UpstreamError):
    """The registry's answer ended early."""


class LinksLeave(RegCacheError):
    """The registry's page leads past this cache."""

    status = 502


class BadDocument(UpstreamError):
    """The registry's answer is not what this registry serves."""


class DigestMismatch(UpstreamError):
    """What the registry sent does not match the digest it published; nothing was stored."""


class ForbiddenOrigin(UpstreamError):
    """The registry points to a host that this cache may not contact."""


class TooLarge(UpstreamError):
    """The registry's answer is larger than this cache accepts."""


class CannotStore(RegCacheError):
    """The cache cannot store anything now."""

    status = 503


class BlobDamaged(RegCacheError):
    """A stored body is missing or damaged."""
