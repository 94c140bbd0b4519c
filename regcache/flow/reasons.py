"""Why there is no response, in words for a person."""

from __future__ import annotations

import os

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as neterror
from twisted.python.failure import Failure

from regcache.errors import ConnectFailed, CutShort, UpstreamError

__all__ = ["CLOSED", "explained"]

#: What Twisted says of a connection that was closed.
CLOSED = (neterror.ConnectionDone, neterror.ConnectionLost)


def explained(failure: Failure, host: str) -> UpstreamError:
    """Why there is no response, in words for a person."""
    error = failure.value
    if isinstance(error, neterror.DNSLookupError):
        return ConnectFailed(f"The name of {host} could not be looked up.")
    if isinstance(error, VerificationError):
        return ConnectFailed(f"TLS with {host} failed: its certificate is for another name.")
    if isinstance(error, SSL.Error):
        details = "; ".join(str(part[-1]) for part in (error.args[0] if error.args else ()) if part)
        return ConnectFailed(f"TLS with {host} failed: {details or type(error).__name__}.")
    if isinstance(error, CLOSED):
        return CutShort(f"{host} closed the connection before it answered.")
    number = getattr(error, "osError", None)
    # Twisted says the same twice, with the number in between.
    return ConnectFailed(f"{host}: {os.strerror(number)}." if isinstance(number, int) else f"{host}: {error}")
