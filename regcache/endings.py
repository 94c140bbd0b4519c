"""What the service is configured with and that ends by itself: certificates, and tokens that say when."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from OpenSSL import crypto

from regcache.config import Config
from regcache.ports import tls_files

__all__ = ["SOON", "Ending", "endings"]

#: Seconds before its end from which something is said to end soon.
SOON = 14 * 86400.0
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@frozen
class Ending:
    """
    Something that ends.

    :ivar what: where it is configured.
    :ivar ends: when, in seconds of the wall clock; None if it cannot be read.
    """

    what: str
    ends: float | None


def endings(config: Config, served: Iterable[str]) -> list[Ending]:
    """
    What ends, whenever that is; reads the files again, and belongs into a thread.

    :param served: the registries whose certificates and tokens are looked at.
    """
    found = list(_listening(config))
    for name in served:
        said = config.credentials.get(name)
        if said is not None and said.certificate:
            found.append(Ending(f"registries.{name}.client-cert", _certificates_end(said.certificate)))
        ends = None if said is None else _token_ends(said.authorization)
        if ends is not None:
            found.append(Ending(f"registries.{name}.auth", ends))
    return found


def _listening(config: Config) -> Iterator[Ending]:
    for one in config.listen:
        for file in tls_files(one.place)[:1]:
            yield Ending(f"listen ssl:{one.place.split(':')[1]}", _certificates_end(file))


def _certificates_end(file: str) -> float | None:
    """When the first of the certificates in a PEM file ends."""
    try:
        found = _CERTIFICATE.findall(Path(file).read_bytes())
        said = [crypto.load_certificate(crypto.FILETYPE_PEM, one).get_notAfter() for one in found]
        ends = [datetime.strptime((one or b"").decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC) for one in said]
        return min(one.timestamp() for one in ends)
    except (OSError, ValueError, crypto.Error):
        return None


def _token_ends(authorization: str) -> float | None:
    """When a token ends that says so itself (RFC 7519 section 4.1.4)."""
    pieces = authorization.rpartition(" ")[2].split(".")
    if len(pieces) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
