"""
Everything that can go wrong, as one tree.

Each class knows the HTTP status a client is answered with; its docstring is the first sentence of what
the client reads, and the message given when it is raised is the rest: what happened, where, and what to do.
"""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import ClassVar

__all__ = [
    "BadDocument",
    "BadRequest",
    "BlobDamaged",
    "CannotRead",
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
    "TooManyFailures",
    "Unauthorized",
    "Unneeded",
    "UpstreamBusy",
    "UpstreamError",
    "UpstreamStatus",
    "UpstreamTimeout",
    "Withdrawn",
    "holds_secret",
    "shown",
]

_MOST_SHOWN = 1000
#: Secrets are looked for beyond that: half of one must not be shown because it was cut off from what tells it.
_MOST_READ = 16 * _MOST_SHOWN
_WORDS = "token|signature|credential|password|passwd|auth|secret|key|sig"
_SECRETS = (
    re.compile(rf"(?i)([?&;][^=&;\s]*(?:{_WORDS})[^=&;\s]*=)[^&;\s]*"),
    # As in the files of clients and in fields of requests.
    re.compile(r"(?i)(_(?:auth\w*|password)\s*[=:]\s*)[^\s;,]+"),
    re.compile(r"(?i)((?:authorization|cookie)[\"']?\s*[:=]\s*)[^\r\n]+"),
    re.compile(r"(?i)(\b(?:basic|bearer)\s+)[a-z0-9+/=._~-]{8,}"),
)
_USER = re.compile(r"//[^/?#\s]*@")
#: Without any of this there is nothing to be left out. What begins with one of a few characters is found many times as
#: fast as the same said more plainly, in every line of the access log.
_TELLING = re.compile(r"[=:@Bb](?:(?<=[=:@])|(?<=\b[Bb])(?i:asic|earer)\s)")


def shown(text: str) -> str:
    """
    Text that may hold what others sent, as it may be shown to anybody and logged.

    In one line of printable characters, without what signs or opens a URL, and without credentials of header fields.
    """
    if len(text) <= _MOST_SHOWN and not _TELLING.search(text) and text.isprintable():
        return text
    safe = _USER.sub("//...@", text[:_MOST_READ])
    for secret in _SECRETS:
        safe = secret.sub(r"\1...", safe)
    safe = safe[:_MOST_SHOWN]
    if safe.isprintable():
        return safe
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in safe)


def holds_secret(text: str) -> bool:
    """Whether something stands in a text that :func:`shown` leaves out since it may open something."""
    return _TELLING.search(text) is not None and any(one.search(text) for one in (_USER, *_SECRETS))


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
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The response fields that go with it."""
        return (("retry-after", "5"),) if self.status == 503 else ()

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


class Unauthorized(RegCacheError):
    """This cache answers only those whom it knows."""

    status = 401

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """How to say who one is (RFC 7235 section 4.1), each way in a line of its own: not all clients split them."""
        return (
            ("www-authenticate", 'Basic realm="regcache", charset="UTF-8"'),
            ("www-authenticate", 'Bearer realm="regcache"'),
        )


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

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The methods that are."""
        return (("allow", self.allow),)


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


class TooManyFailures(RegCacheError):
    """
    Too often what was given was not right; try again later.

    :param wait: the seconds until then.
    """

    status = 429

    def __init__(self, detail: str = "", wait: float = 60.0) -> None:
        super().__init__(detail)
        self._wait = wait

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """When."""
        return (("retry-after", str(math.ceil(self._wait))),)


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


class CannotRead(TooBusy, UpstreamError):
    """The cache cannot read a document just now; try again shortly."""

    # As above.
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
    """

    def __init__(self, detail: str, code: int) -> None:
        super().__init__(detail)
        self.code = code


class UpstreamBusy(UpstreamStatus):
    """
    The registry has asked for patience; try again later.

    Whoever has a stored copy is served that; others are told what it said, so that clients wait as long as it wants
    them to, and not as they would for a registry that is broken. That the cache asked too often is no fault of the
    client's: a 429 becomes 503, too, after which every client tries again.

    :ivar wait: seconds that it asked for, or None.
    """

    status = 503

    def __init__(self, detail: str, code: int, wait: float | None = None) -> None:
        super().__init__(detail, code)
        self.wait = wait

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """When."""
        return super().fields if self.wait is None else (("retry-after", str(max(math.ceil(self.wait), 1))),)


class CutShort(UpstreamError):
    """The registry's answer ended early."""


class Unneeded(CutShort):
    """The rest of the registry's answer was not wanted any more."""


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
