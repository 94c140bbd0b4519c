"""
Every fault, and what comes of it for every kind of request.

``docs/faults.md`` is made from this, by ``python -m tests.fault_table``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from attrs import field, frozen

from tests import fault_scripts as does
from tests.faulty import End, Page, Script

__all__ = ["FAULTS", "HOUR", "PAGE", "REQUESTS", "Fault", "page"]

HOUR = 3600.0
DAY = 24 * HOUR
PAGE = Path(__file__).parent.parent / "docs" / "faults.md"

#: Each kind of request, and what it says in the page.
REQUESTS = {
    "index": "an index that is not stored",
    "fresh": "an index younger than `refresh-after`",
    "ageing": "an index past `refresh-after`",
    "expired": "an index past its `ttl`",
    "file": "an artifact that is not stored; its index is",
    "alone": "an artifact that is not stored, nor its index",
    "stored": "an artifact that is stored",
    "tree": "a file past its `ttl` for which nothing vouches",
    "range": "a range of an artifact that is not stored",
    "head": "HEAD for an artifact that is not stored, nor its index",
    "crowd": "100 clients at once for an artifact that is not stored",
    "herd": "100 clients at once for an index past its `ttl`",
}

Row = Mapping[str, str]


def _row(base: Row | None = None, **cells: str) -> Row:
    """A row like another; ``cold`` stands for all requests with nothing to fall back to, ``old`` for those with."""
    found = dict(base or {})
    groups = {"cold": ("index", "file", "alone", "range", "head", "crowd"), "old": ("expired", "tree", "herd")}
    for name, cell in cells.items():
        found |= dict.fromkeys(groups.get(name, (name,)), cell)
    return {request: found[request] for request in REQUESTS}


_STANDS = "HIT, kept, HIT"
#: The registry is in trouble: who can do without it does so, and is not made to wait for its return either.
_DOWN = _row(
    cold="502, nothing, MISS", fresh=_STANDS, ageing=_STANDS, stored=_STANDS, old="STALE, kept, STALE then HIT"
)
_SILENT = _row(_DOWN, cold="504, nothing, MISS")
#: The registry is there and answers nothing of use: it is asked again the next time.
_USELESS = _row(_DOWN, ageing="HIT, kept, REVALIDATED", old="STALE, kept, REVALIDATED")
#: It says so itself, and clients are told.
_BUSY = _row(_USELESS, cold="503, nothing, MISS")
#: What its HEAD says is believed.
_BODY = _row(_USELESS, head="MISS, nothing, MISS")
_CUT = _row(_BODY, file="cut, nothing, MISS", alone="cut, nothing, MISS", crowd="cut, nothing, MISS")
_WELL = _row(
    cold="MISS, stored, HIT",
    head="MISS, nothing, MISS",
    fresh=_STANDS,
    stored=_STANDS,
    ageing="REVALIDATED, kept, HIT",
    old="REVALIDATED, kept, HIT",
)
_GONE = _row(_WELL, cold="404, nothing, MISS", ageing="404, hidden, REVALIDATED", old="404, hidden, REVALIDATED")
_CLOCK = _row(_WELL, index="MISS, stored, REVALIDATED", ageing="REVALIDATED, kept, REVALIDATED")
_CLOCK = _row(_CLOCK, fresh="REVALIDATED, kept, REVALIDATED", old="REVALIDATED, kept, REVALIDATED")


@frozen
class Fault:
    """
    One fault.

    :ivar row: what comes of it, by request: what the client sees, what is stored then, and what the next request gets,
        a minute later and with all well again.
    :ivar script: what the registry's answers become.
    :ivar hangs: whether somebody has to lose patience.
    :ivar astray: a URL that everything redirects to; ``{port}`` is that of a server that nobody may ask.
    :ivar refuses: whether nobody listens.
    :ivar names: what is wrong with the names, see :class:`tests.fault_lab.Lab`.
    :ivar shown: the certificate that is shown.
    :ivar others: whether other names are asked for before.
    :ivar clock: by how many seconds our own clock is off.
    :ivar boots: whether the service starts with that clock.
    :ivar sleeps: whether the clock is right, and we slept.
    """

    section: str
    name: str
    row: Row
    script: Script | None = None
    hangs: bool = field(default=False, kw_only=True)
    astray: str = field(default="", kw_only=True)
    refuses: bool = field(default=False, kw_only=True)
    names: str = field(default="", kw_only=True)
    shown: str = field(default="", kw_only=True)
    others: bool = field(default=False, kw_only=True)
    clock: float = field(default=0.0, kw_only=True)
    boots: bool = field(default=False, kw_only=True)
    sleeps: bool = field(default=False, kw_only=True)


_CONNECTION, _SLOW, _BODIES, _ANSWERS = "The connection", "Silence", "Bodies", "Answers"
_HEADS, _TLS, _OWN = "Heads", "TLS", "Our own clock"
_LOGIN = Page(200, b"<!doctype html><html><body>Log in</body></html>", "text/html; charset=utf-8")
_EMPTY = Page(200, b"{}", "application/json")
_MINUTE = ("Retry-After", "30")
_UNPROVEN = _row(_BODY, tree="UNPROVEN, unproven, UNPROVEN then UNPROVEN then UNPROVEN")
_WAITED = _row(_SILENT, head="MISS, nothing, MISS", ageing="HIT, kept, REVALIDATED", tree="STALE, kept, REVALIDATED")

FAULTS = (
    Fault(_CONNECTION, "refused", _DOWN, refuses=True),
    Fault(_CONNECTION, "no such host name", _DOWN, names="none"),
    Fault(_CONNECTION, "closed before the answer", _DOWN, does.cut("start")),
    Fault(_CONNECTION, "reset before the answer", _DOWN, does.cut("start", End.RESET)),
    Fault(_CONNECTION, "kept connections closed under us", _WELL, does.closing_kept),
    Fault(_SLOW, "the name look-up hangs", _SILENT, names="silent", hangs=True),
    Fault(_SLOW, "connected, and silent", _SILENT, does.silent("start"), hangs=True),
    Fault(_SLOW, "silent within the head", _SILENT, does.silent("head"), hangs=True),
    Fault(_SLOW, "the head trickles", _SILENT, does.trickling("start"), hangs=True),
    Fault(_SLOW, "silent after the head", _WAITED, does.silent("body"), hangs=True),
    Fault(_SLOW, "the body trickles", _WAITED, does.trickling("body"), hangs=True),
    Fault(
        _SLOW,
        "silent in mid-body",
        _row(
            _WAITED,
            file="cut, nothing, MISS",
            alone="cut, nothing, MISS",
            crowd="cut, nothing, MISS",
            range="MISS, nothing, MISS",
        ),
        does.silent("middle"),
        hangs=True,
    ),
    Fault(_BODIES, "cut short of its Content-Length", _row(_CUT, range="MISS, nothing, MISS"), does.cut("middle")),
    Fault(_BODIES, "cut in a chunk", _row(_CUT, range="cut, nothing, MISS"), does.cut_chunked),
    Fault(_BODIES, "reset in mid-body", _row(_CUT, range="MISS, nothing, MISS"), does.reset_in_body),
    Fault(_BODIES, "whole, of no stated length", _row(_WELL, tree="MISS, kept, REVALIDATED"), does.unannounced),
    Fault(
        _BODIES,
        "cut, of no stated length",
        _row(_CUT, range="cut, nothing, MISS", tree="UNPROVEN, kept, REVALIDATED"),
        does.cut_unannounced,
    ),
    Fault(_BODIES, "more bytes than announced", _row(_DOWN, head="MISS, nothing, MISS"), does.surplus),
    Fault(
        _BODIES,
        "a flipped bit",
        _row(_UNPROVEN, alone="UNPROVEN, unproven, MISS"),
        does.flipped,
    ),
    Fault(_BODIES, "a login page, with 200", _BODY, does.in_place(_LOGIN)),
    Fault(_BODIES, "`{}`, with 200", _UNPROVEN, does.in_place(_EMPTY)),
    Fault(_BODIES, "broken gzip", _BODY, does.broken_gzip),
    Fault(_BODIES, "gzip without its end", _BODY, does.cut_gzip),
    Fault(_BODIES, "a gzip bomb", _BODY, does.gzip_bomb),
    Fault(_ANSWERS, "301 in a circle", _USELESS, does.redirect(301)),
    Fault(_ANSWERS, "302 to a foreign host", _USELESS, astray="http://foreign.test:{port}/"),
    Fault(_ANSWERS, "302 to loopback", _USELESS, astray="http://127.0.0.1:{port}/"),
    Fault(_ANSWERS, "302 to `file:`", _USELESS, does.redirect(302, "file:///etc/passwd")),
    Fault(_ANSWERS, "304, asked for or not", _row(_WELL, cold="502, nothing, MISS"), does.status(304)),
    Fault(_ANSWERS, "401 for everything", _USELESS, does.status(401, ("WWW-Authenticate", "Basic"))),
    Fault(_ANSWERS, "403 for everything: a token expired", _USELESS, does.status(403)),
    Fault(_ANSWERS, "404 after 200", _GONE, does.status(404)),
    Fault(_ANSWERS, "410 after 200", _GONE, does.status(410)),
    Fault(
        _ANSWERS,
        "404 for everything at once",
        _row(_USELESS, cold="404, nothing, MISS"),
        does.status(404),
        others=True,
    ),
    Fault(_ANSWERS, "429 with Retry-After", _BUSY, does.status(429, _MINUTE)),
    Fault(_ANSWERS, "500", _USELESS, does.status(500)),
    Fault(_ANSWERS, "502", _USELESS, does.status(502)),
    Fault(_ANSWERS, "503 with Retry-After", _BUSY, does.status(503, _MINUTE)),
    Fault(_HEADS, "a head of 50 MB", _DOWN, does.endless_head),
    Fault(_HEADS, "10,000 header fields", _DOWN, does.many_fields),
    Fault(_HEADS, "cut in the head", _DOWN, does.cut("head")),
    Fault(_HEADS, "Content-Length with Transfer-Encoding", _DOWN, does.two_framings),
    Fault(_HEADS, "no head at all: HTTP/0.9", _DOWN, does.garbage),
    Fault(_TLS, "an expired certificate", _DOWN, shown="expired"),
    Fault(_TLS, "a self-signed certificate", _DOWN, shown="self-signed"),
    Fault(_TLS, "a certificate for another host", _DOWN, shown="wrong host"),
    Fault(_OWN, "an hour ahead", _CLOCK, clock=HOUR),
    Fault(_OWN, "an hour behind", _CLOCK, clock=-HOUR),
    Fault(_OWN, "a day ahead", _CLOCK, clock=DAY),
    Fault(_OWN, "a day behind", _CLOCK, clock=-DAY),
    Fault(_OWN, "at 1970, on boot", _CLOCK, clock=-1_800_000_000.0, boots=True),
    Fault(
        _OWN,
        "right, after eight hours of sleep",
        _row(_WELL, fresh="REVALIDATED, kept, HIT"),
        clock=8 * HOUR,
        sleeps=True,
    ),
)

_HEAD = """\
# Faults, and what comes of them

This page is made from the tests' own table, which a test holds against a real service: each fault is put before each
kind of request, on real sockets, and the outcome has to be the one that stands here. After each it is seen that no
file, socket, timer or waiter is left behind, and that what is stored is what its digest says.

Each cell says what the client sees; what is stored then; and what the same request gets a minute later, with all well
again.

* `HIT`, `MISS`, `REVALIDATED`, `STALE`: a whole, right answer that came about like that (`X-Cache`).
* `UNPROVEN`: a whole answer whose bytes are not the registry's, which nobody could know: nothing that vouches for them
  could be asked. It is not called immutable, is asked for again soon, and goes once its index says otherwise. Ranges
  that end before the last bytes of a fill are sent as they come.
* `cut`: the connection is cut, so that no client takes what came for the whole. Of what has come whole with its
  head, up to 64 KiB, nothing is sent before it is found good: clients see a status then.
* `nothing`, `kept`, `stored`, `hidden`, `unproven`: no entry; the copy from before; a new and right one; the copy from
  before, marked withdrawn; one that nothing vouches for.
* `STALE then HIT`: the breaker spares clients the wait, and one request beside them sees that all is well.

However many clients ask at once, the registry is asked as by one.

The requests:

"""


def page() -> str:
    """The page, as it has to be."""
    lines = [f"* **{name}**: {what}" for name, what in REQUESTS.items()]
    lines += ["", f"{len(FAULTS)} faults, {len(REQUESTS)} requests each: {len(FAULTS) * len(REQUESTS)} outcomes."]
    for section, faults in groupby(FAULTS, lambda fault: fault.section):
        lines += ["", f"## {section}", "", f"| fault | {' | '.join(REQUESTS)} |", "|---" * (1 + len(REQUESTS)) + "|"]
        lines += [f"| {fault.name} | {' | '.join(fault.row.values())} |" for fault in faults]
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"{PAGE} is made\n")
