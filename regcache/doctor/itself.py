"""The service itself: whether it answers where it listens, or whether it could listen there."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from regcache.doctor.finding import Finding, failure, ok, warning
from regcache.doctor.trust import context
from regcache.doctor.wire import Answer, Plain, Secure, Stream, connected, exchanged
from regcache.http.origins import Origin
from regcache.ports import tcp_address

__all__ = ["answers", "free", "health"]

_START = "start it (systemctl start regcache, or regcache serve)"


def health(base: str, name: str, seconds: float) -> list[Finding]:
    """
    Whether the service says that it is ready.

    :param base: the URL of a registry's mount.
    :param name: the registry's name, which may be the end of that.
    """
    root = base.removesuffix(f"{name}/")
    answer = _asked(f"{root}-/health/ready", seconds)
    if isinstance(answer, Finding):
        return [answer]
    if answer.status == 200:
        return [ok("service", root, "says that it is ready.")]
    if answer.status == 401:
        return [ok("service", root, "answers, and wants to know who asks.")]
    if answer.status == 404:
        # A registry alone at the root of its port, where a path may be anything.
        return []
    return [_refused(root, answer.status)]


def answers(base: str, name: str, seconds: float) -> list[Finding]:
    """What a tiny request to a registry's mount is answered."""
    answer = _asked(base, seconds)
    if isinstance(answer, Finding):
        return [answer]
    if answer.status == 401:
        return [ok("service", base, f"{name} answers, and asks who one is, as it should with --auth.")]
    if answer.status < 500 and answer.status not in (403, 421):
        return [ok("service", base, f"{name} answers with status {answer.status}.")]
    return [_refused(base, answer.status)]


def _refused(subject: str, status: int) -> Finding:
    told = f"answers with status {status}."
    if status == 403:
        return warning("service", subject, told, "this machine is not among those of --allow")
    if status == 421:
        return warning("service", subject, told, "the name is not among those of --hosts")
    return failure("service", subject, told, "see the service's log, and regcache status")


def _asked(url: str, seconds: float) -> Answer | Finding:
    origin = Origin.of(url)
    assert origin is not None
    until, path = time.monotonic() + seconds, urlsplit(url).path
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        sock = connected([(family, address) for family, _, _, _, address in found], until)
    except OSError as error:
        told = f"cannot be connected to: {error.strerror or error}."
        return failure("service", url, told, "see --listen and --public-url, and that no firewall is in between")
    with sock:
        stream: Stream = Plain(sock, until)
        try:
            if origin.scheme == "https":
                stream = Secure(stream, context(), origin.host)
            return exchanged(stream, "GET", path, origin.authority)
        except ssl.SSLCertVerificationError as error:
            told = f"its own certificate is not trusted here: {error.verify_message}."
            return warning("service", url, told, "have clients trust its issuer, or give it one that they trust")
        except (OSError, ValueError) as error:
            why = "nothing came in time" if isinstance(error, TimeoutError) else str(error).rstrip(".")
            return failure("service", url, f"does not answer: {why}.", "see its log; if it hangs, restart it")


def free(endpoints: Iterable[str], sockets: Mapping[str, str]) -> list[Finding]:
    """
    That no service runs, and whether it could listen.

    :param sockets: why the admin socket cannot be used, by its path; mostly empty.
    """
    found = [warning("service", "", "it does not run.", _START)]
    for endpoint in endpoints:
        kind, _, rest = endpoint.partition(":")
        place = tcp_address(endpoint)
        if place is not None:
            found.append(_bindable(endpoint, place[1] or "0.0.0.0", place[2]))
        elif kind == "unix":
            path = Path(rest.partition(":")[0].removeprefix("address="))
            found.append(_takeable(path))
    mend = "set a shorter RUNTIME_DIRECTORY or --cache-dir, or these commands do not reach the service"
    found += [warning("service", path, why, mend) for path, why in sockets.items()]
    return found


def _takeable(path: Path) -> Finding:
    with socket.socket(socket.AF_UNIX) as probe:
        if path.is_socket() and probe.connect_ex(str(path)) == 0:
            return failure("ports", str(path), "somebody else listens there.", "end it, or choose another (--listen)")
    if not path.parent.is_dir():
        return failure("ports", str(path), "its directory is not there.", f"make {path.parent}")
    return ok("ports", str(path), "is free.")


def _bindable(endpoint: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            # With that option another listener is only met here.
            probe.listen(1)
    except OSError as error:
        mend = {
            errno.EADDRINUSE: f"end what listens there (ss -ltnp 'sport = {port}'), or choose another (--listen)",
            errno.EACCES: "ports below 1024 want root, CAP_NET_BIND_SERVICE, or a systemd socket unit",
            errno.EADDRNOTAVAIL: "this machine has no such address; choose another (--listen)",
        }.get(error.errno or 0, "choose another (--listen)")
        return failure("ports", endpoint, f"cannot be listened on: {error.strerror}.", mend)
    return ok("ports", endpoint, "is free.")
