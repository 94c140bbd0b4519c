"""TLS as the service speaks it to registries, and what may be said of a certificate that it does not trust."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime

from attrs import frozen
from OpenSSL import crypto

from regcache.doctor.finding import Finding, failure, ok, warning
from regcache.endings import SOON

__all__ = ["Presented", "context", "distrusted", "presented", "trusted"]

#: Why a certificate is not trusted, by OpenSSL's number, and what to do about it.
_REASONS = {
    9: ("is not valid yet", "set this machine's clock; if that is right, the other side's certificate is wrong"),
    10: ("has expired", "whoever runs it has to renew it; if many have expired, set this machine's clock"),
    18: ("is self-signed", "if it is the right one, name it in --upstream-ca"),
    19: ("has a self-signed root that is not trusted", "if it is the right one, name it in --upstream-ca"),
    20: (
        "comes from an issuer that is not trusted",
        "name the issuer's certificate in --upstream-ca; it may be that of a proxy that opens TLS on the way, or the"
        " other side may leave out a certificate of its chain",
    ),
    62: ("is for another host", "the address is wrong, or something on the way answers in its place"),
}
_REASONS[21] = _REASONS[20]
_REASONS[64] = _REASONS[62]


@frozen
class Presented:
    """
    What a server showed, trusted or not.

    :ivar ends: when it ends, in seconds of the wall clock; None if that cannot be read.
    """

    issuer: str = ""
    ends: float | None = None


def context(upstream_ca: str = "", *, verify: bool = True) -> ssl.SSLContext:
    """
    The system's trust, and the certificates of one file.

    :raises OSError: if that cannot be read.
    """
    made = ssl.create_default_context()
    if upstream_ca:
        made.load_verify_locations(upstream_ca)
    if not verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def presented(tls: ssl.SSLObject) -> Presented:
    """What was shown."""
    raw = tls.getpeercert(binary_form=True)
    if not raw:
        return Presented()
    found = crypto.load_certificate(crypto.FILETYPE_ASN1, raw)
    issuer = found.to_cryptography().issuer.rfc4514_string()
    try:
        ends = datetime.strptime((found.get_notAfter() or b"").decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return Presented(issuer)
    return Presented(issuer, ends.timestamp())


def trusted(subject: str, shown: Presented, version: str | None) -> Finding:
    """Its certificate is trusted; it may end soon."""
    told = f"{version or 'TLS'}, its certificate is trusted"
    if shown.ends is None:
        return ok("tls", subject, f"{told}.")
    left = shown.ends - time.time()
    until = f"{told} and valid until {_day(shown.ends)}"
    if left < SOON:
        return warning("tls", subject, f"{until}, {left / 86400:.0f} days from now.", "whoever runs it has to renew it")
    return ok("tls", subject, f"{until}.")


def distrusted(subject: str, error: ssl.SSLCertVerificationError, shown: Presented) -> Finding:
    """Its certificate is not trusted."""
    what, mend = _REASONS.get(
        error.verify_code, (f"is not trusted: {error.verify_message}", "see that it is the right one")
    )
    told = f"its certificate {what}"
    if error.verify_code == 10 and shown.ends is not None and shown.ends < time.time():
        told += f", on {_day(shown.ends)}"
    if shown.issuer:
        told += f" (issued by {shown.issuer})"
    return failure("tls", subject, f"{told}.", mend)


def _day(stamp: float) -> str:
    return datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d")
