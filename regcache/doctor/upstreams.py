"""Whether each registry can be reached from here: its name, the way there, TLS, an answer, and the time it tells."""

from __future__ import annotations

import socket
import ssl
import time
from statistics import median

from attrs import field, frozen

from regcache.doctor.finding import Finding, failure, ok, warning
from regcache.doctor.trust import Presented, context, distrusted, presented, trusted
from regcache.doctor.wire import Answer, Plain, Secure, Stream, connected, exchanged, tunnelled
from regcache.http.fields import parse_date
from regcache.http.origins import Origin
from regcache.http.proxies import Proxies, Proxy

__all__ = ["Probed", "clock", "probe"]

#: Seconds by which clocks may differ before it is worth a word.
_OFF = 60.0


@frozen
class Probed:
    """
    What came of it.

    :ivar offset: how many seconds the upstream's clock is ahead of ours; None if it did not say.
    """

    findings: list[Finding]
    offset: float | None = None


@frozen
class _Way:
    """
    The way to one origin.

    :ivar certified: the files of a client's certificate and its key, or none.
    """

    origin: Origin
    proxy: Proxy | None
    exempt: bool
    upstream_ca: str
    certified: tuple[str, str] | None
    until: float
    findings: list[Finding] = field(factory=list)

    @property
    def subject(self) -> str:
        """What it is called."""
        return f"{self.origin.scheme}://{self.origin.authority}"

    def fail(self, check: str, told: str, mend: str) -> None:
        """One step failed."""
        if self.exempt:
            mend += "; NO_PROXY has it asked directly, past the proxy"
        self.findings.append(failure(check, self.subject, told, mend))


def probe(
    url: str,
    proxies: Proxies,
    upstream_ca: str,
    seconds: float,
    certified: tuple[str, str] | None = None,
) -> Probed:
    """Ask an origin for its front page, and say what came of each step up to the first that failed."""
    origin = Origin.of(url)
    assert origin is not None
    proxy = proxies.to(origin.scheme, origin.host, origin.port)
    exempt = proxy is None and proxies.to(origin.scheme, "no-such-host.invalid", origin.port) is not None
    way = _Way(origin, proxy, exempt, upstream_ca, certified, time.monotonic() + seconds)
    sock = _reached(way)
    if sock is None:
        return Probed(way.findings)
    with sock:
        try:
            answer = _asked(way, sock)
        except (TimeoutError, ssl.SSLError, ConnectionError, OSError, ValueError) as error:
            way.fail(
                "answer", f"{_words(error)}", "see whether it is down, or something on the way cuts the connection"
            )
            return Probed(way.findings)
    return Probed(way.findings, _offset(answer)) if answer is not None else Probed(way.findings)


def _reached(way: _Way) -> socket.socket | None:
    """A connection to the origin, or to the proxy before it."""
    place = way.proxy.origin if way.proxy is not None else way.origin
    called = f"the proxy {way.proxy}" if way.proxy is not None else place.host
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        mend = "see that the name is right and that /etc/resolv.conf names a server that answers"
        way.fail("dns", f"{called} has no address: {told}.", mend)
        return None
    addresses = [(family, address) for family, _, _, _, address in found]
    told = ", ".join(dict.fromkeys(str(address[0]) for _, address in addresses))
    way.findings.append(ok("dns", way.subject, f"{called} is at {told}."))
    try:
        return connected(addresses, way.until)
    except OSError as error:
        mend = "see whether it is down, or a firewall is in between"
        if way.proxy is None and not way.exempt:
            mend += ", or whether a proxy is to be used (HTTPS_PROXY)"
        way.fail("connect", f"no connection to {called}, port {place.port}: {_words(error)}", mend)
        return None


def _asked(way: _Way, sock: socket.socket) -> Answer | None:
    """Through tunnel and TLS; None if one of them failed, which is told."""
    stream: Stream = Plain(sock, way.until)
    origin, proxy = way.origin, way.proxy
    if proxy is not None and proxy.origin.scheme == "https":
        secured = _secured(way, stream, proxy.origin.host, f"proxy {proxy}")
        if secured is None:
            return None
        stream = secured
    if proxy is not None and origin.scheme == "https":
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        said = tunnelled(stream, proxy, f"{host}:{origin.port}")
        if said.status != 200:
            mend = "give the right user and password in HTTPS_PROXY" if said.status == 407 else "ask who runs the proxy"
            way.fail("proxy", f"the proxy {proxy} answers {said.status} instead of a tunnel.", mend)
            return None
        way.findings.append(ok("proxy", way.subject, f"through {proxy}."))
    if origin.scheme == "https":
        secured = _secured(way, stream, origin.host, way.subject)
        if secured is None:
            return None
        stream = secured
    through = proxy is not None and origin.scheme == "http"
    answer = exchanged(
        stream, "HEAD", f"{way.subject}/" if through else "/", origin.authority, proxy if through else None
    )
    told = f"answers with status {answer.status}."
    if answer.status >= 500:
        way.findings.append(
            warning("answer", way.subject, told, "it is in trouble; what is stored is served meanwhile")
        )
    else:
        way.findings.append(ok("answer", way.subject, told))
    return answer


def _secured(way: _Way, stream: Stream, host: str, subject: str) -> Secure | None:
    trust = context(way.upstream_ca)
    if way.certified is not None:
        trust.load_cert_chain(*way.certified)
    try:
        secured = Secure(stream, trust, host)
    except ssl.SSLCertVerificationError as error:
        shown = _shown_anyhow(way, host)
        way.findings.append(distrusted(subject, error, shown))
        return None
    except ssl.SSLError as error:
        mend = "see that TLS is spoken there, of version 1.2 or later, and that nothing on the way answers instead"
        way.fail("tls", f"no TLS with {host}: {error.reason or error}.", mend)
        return None
    way.findings.append(trusted(subject, presented(secured.tls), secured.tls.version()))
    return secured


def _shown_anyhow(way: _Way, host: str) -> Presented:
    """The certificate that is not trusted, for its words alone; from a connection over which nothing is asked."""
    if way.proxy is not None:
        return Presented()
    try:
        with socket.create_connection(
            (way.origin.host, way.origin.port), max(way.until - time.monotonic(), 0.1)
        ) as sock:
            return presented(Secure(Plain(sock, way.until), context(verify=False), host).tls)
    except (OSError, ValueError):
        return Presented()


def _offset(answer: Answer) -> float | None:
    told = parse_date(str(answer.fields.get("Date", "")))
    return None if told is None else told - answer.at


def clock(offsets: dict[str, float]) -> list[Finding]:
    """
    This machine's clock against those of the upstreams, and theirs against each other's.

    :param offsets: how many seconds each is ahead of ours.
    """
    if not offsets:
        return [ok("clock", "", "no upstream told the time, so that it could not be checked.")]
    ours = median(offsets.values())
    if abs(ours) > _OFF:
        told = f"this machine's clock is {_span(ours)} {'behind' if ours > 0 else 'ahead of'} the upstreams'."
        return [warning("clock", "", told, "set it, and have it kept right by NTP (timedatectl set-ntp true)")]
    off = {name: by for name, by in offsets.items() if abs(by) > _OFF}
    mend = "whoever runs it has to set it; ages of what comes from there are wrong"
    return [
        *(
            warning("clock", name, f"its clock is {_span(by)} {'ahead of' if by > 0 else 'behind'} ours.", mend)
            for name, by in off.items()
        ),
        ok("clock", "", f"within {_OFF:.0f} s of the upstreams'."),
    ]


def _span(seconds: float) -> str:
    seconds = abs(seconds)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _words(error: Exception) -> str:
    """An error as a sentence."""
    if isinstance(error, TimeoutError):
        return "nothing came in time."
    told = getattr(error, "strerror", None) or str(error)
    return told if told.endswith(".") else f"{told}."
