"""What is to be listened on: endpoints made complete, their certificates, and sockets that were handed over."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from OpenSSL import SSL
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from regcache.errors import ConfigError

__all__ = ["Secured", "completed", "mistaken", "refused", "tcp_address", "tls_files"]

_BACKLOG = 1024
_PORT = re.compile(r"(tcp6?|ssl):(?:port=)?([1-9]\d*)(?::|$)", re.ASCII)
#: What to do about what a machine says of an address.
_ADVICE = {
    errno.EADDRINUSE: "end what uses it, or choose another with --listen",
    errno.EADDRNOTAVAIL: "name an address of this machine with --listen",
    errno.EACCES: "take a port from 1024 on, or have systemd open it (a .socket unit)",
}
_INTERFACE = re.compile(r":interface=((?:\\.|[^:\\])*)")


def tcp_address(endpoint: str) -> tuple[str, str, int] | None:
    """
    The kind, the interface and the port of an endpoint on TCP; None for another, or one that any port will do for.

    The interface is empty for all of them.
    """
    found = _PORT.match(endpoint)
    if found is None:
        return None
    interface = _INTERFACE.search(endpoint)
    return found[1], interface[1].replace("\\", "") if interface is not None else "", int(found[2])


def completed(endpoint: str) -> str:
    """
    An endpoint with our own defaults in place of Twisted's: a queue of connections that holds a whole build farm, and
    UNIX sockets for their owner alone. A UNIX socket that nobody listens on makes room.
    """
    kind, _, rest = endpoint.partition(":")
    if kind in ("tcp", "tcp6", "ssl", "unix") and "backlog=" not in rest:
        endpoint = f"{endpoint}:backlog={_BACKLOG}"
    if kind != "unix":
        return endpoint
    path = rest.partition(":")[0].removeprefix("address=")
    with socket.socket(socket.AF_UNIX) as probe:
        # So is a file refused that is none.
        if Path(path).is_socket() and probe.connect_ex(path) == errno.ECONNREFUSED:
            Path(path).unlink(missing_ok=True)
            # Its number may be that of another process by now: in a container it always is.
            Path(f"{path}.lock").unlink(missing_ok=True)
    return endpoint if "mode=" in rest else f"{endpoint}:mode=600"


def mistaken(port: Any) -> ValueError | None:
    """
    What is wrong with a socket that was handed over, if it is not what the endpoint says.

    Twisted would take one kind of address for another, and nobody would be known by his own.
    """
    if not isinstance(getattr(port, "socket", None), socket.socket):
        return None
    with socket.socket(fileno=os.dup(port.fileno())) as handed:
        found = handed.family
    if found == port.socket.family:
        return None
    return ValueError(f"the socket is one of domain={found.name.removeprefix('AF_')}")


def refused(endpoint: str, problem: Exception) -> str:
    """What is wrong with an endpoint that cannot be listened on, and what to do about it, for a person."""
    number = problem.errno if isinstance(problem, OSError) else None
    told = os.strerror(number) if number else str(problem).removesuffix(".")
    if endpoint.startswith("unix:") and number != errno.EADDRINUSE:
        advice = "see that its directory is there, and that this user can write in it"
    else:
        advice = _ADVICE.get(number or 0, "choose another with --listen")
    return f"{endpoint} cannot be listened on: {told}; {advice}."


def tls_files(endpoint: str) -> tuple[str, ...]:
    """The files of an ``ssl`` endpoint, as :func:`serverFromString` has them, its certificate first; none of others."""
    kind, *parts = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", endpoint))
    if kind != "ssl":
        return ()
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    key = named.get("privateKey", "server.pem")
    more = (named.get("extraCertChain", ""), named.get("dhParameters", ""))
    return tuple(dict.fromkeys((named.get("certKey") or key, key, *filter(None, more))))


@implementer(IOpenSSLServerConnectionCreator)
class Secured:
    """
    The reactor for an ``ssl`` endpoint: its port shows each new connection the certificate that was read last.

    :param endpoint: as it is listened on.
    """

    def __init__(self, reactor: Any, endpoint: str) -> None:
        self._reactor, self._endpoint = reactor, endpoint
        self._options: Any = None

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        self._options = contextFactory
        return self._reactor.listenSSL(port, factory, self, backlog=backlog, interface=interface)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        make = getattr(self._options, "serverConnectionForTLS", None)
        # Older versions of Twisted do the rest themselves.
        return SSL.Connection(self._options.getContext(), None) if make is None else make(protocol)

    def read(self) -> Callable[[], None]:
        """
        Read the files anew; blocks. What is returned puts them to use.

        :raises regcache.errors.ConfigError: if they cannot be used.
        """
        caught: list[Any] = []
        catching = SimpleNamespace(listenSSL=lambda *_, contextFactory, **__: caught.append(contextFactory))
        try:
            serverFromString(catching, self._endpoint).listen(None)
            # Only here is seen whether certificate and key belong together.
            caught[0].getContext()
        except Exception as error:
            # Whatever OpenSSL has against them; its own text says little, and nothing where a file is not PEM.
            told = getattr(error, "strerror", None) or "they are no PEM files of a certificate and its key"
            raise ConfigError(f"{', '.join(tls_files(self._endpoint))}: {told}.") from None

        def use() -> None:
            self._options = caught[0]

        return use
