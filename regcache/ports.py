"""What is to be listened on: endpoints made complete, and sockets that were handed over."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path
from typing import Any

__all__ = ["completed", "mistaken", "tcp_address"]

_BACKLOG = 1024
_PORT = re.compile(r"(tcp6?|ssl):(?:port=)?([1-9]\d*)(?::|$)", re.ASCII)
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
