"""What a registry can do wrong, as scripts for :class:`tests.faulty.Faulty`."""

from __future__ import annotations

import gzip
from collections.abc import Iterable

from attrs import evolve

from tests.faulty import Asked, End, Page, Script, Step, head_of, well, wire

__all__ = [
    "broken_gzip",
    "closing_kept",
    "cut",
    "cut_chunked",
    "cut_gzip",
    "cut_unannounced",
    "endless_head",
    "flipped",
    "garbage",
    "gzip_bomb",
    "in_place",
    "many_fields",
    "redirect",
    "reset_in_body",
    "silent",
    "status",
    "surplus",
    "trickling",
    "two_framings",
    "unannounced",
]

#: Seconds between the bytes that trickle.
_DRIP = 0.01
_PIECE = 1 << 16


def _split(asked: Asked, page: Page, where: str) -> tuple[bytes, bytes]:
    """An answer in two parts: before its *start*, in mid-*head*, at the *body*'s start, or in the *middle* of that."""
    whole = wire(asked, page)
    body = whole.index(b"\r\n\r\n") + 4
    at = {"start": 0, "head": body // 2, "body": body, "middle": body + len(page.body) // 2}[where]
    return whole[:at], whole[at:]


def cut(where: str, end: End = End.CLOSE) -> Script:
    """The answer ends there."""
    return lambda asked, page: [_split(asked, page, where)[0], end]


def silent(where: str) -> Script:
    """Nothing more comes from there on, and the connection stays."""
    return cut(where, End.SILENCE)


def trickling(where: str) -> Script:
    """From there on, a byte comes now and then."""

    def script(asked: Asked, page: Page) -> Iterable[Step]:
        before, after = _split(asked, page, where)
        yield before
        for byte in after:
            yield _DRIP
            yield bytes([byte])

    return script


def reset_in_body(asked: Asked, page: Page) -> Iterable[Step]:
    """Half of it comes, and is read; then the connection is reset."""
    return [_split(asked, page, "middle")[0], 0.02, End.RESET]


def cut_chunked(asked: Asked, page: Page) -> Iterable[Step]:
    """One whole chunk, half of another, and the end."""
    half = page.body[: len(page.body) // 2]
    yield head_of(page, None, chunked=True)
    if asked.method != "HEAD":
        yield b"%x\r\n%b\r\n%x\r\n%b" % (len(half), half, len(half), half[:-10])
    yield End.CLOSE


def unannounced(asked: Asked, page: Page) -> Iterable[Step]:
    """All of it, with no length: the connection's end is its end."""
    return [head_of(page, None) + (b"" if asked.method == "HEAD" else page.body), End.CLOSE]


def cut_unannounced(asked: Asked, page: Page) -> Iterable[Step]:
    """Half of it, with no length, as if that were all."""
    return unannounced(asked, evolve(page, body=page.body[: len(page.body) // 2]))


def surplus(asked: Asked, page: Page) -> Iterable[Step]:
    """Ten bytes more than announced."""
    return [head_of(page, len(page.body) - 10), b"" if asked.method == "HEAD" else page.body]


def in_place(page: Page) -> Script:
    """That page in place of every other."""
    return lambda asked, _page: [wire(asked, page)]


def flipped(asked: Asked, page: Page) -> Iterable[Step]:
    """One bit is wrong: an index is no JSON by that, an artifact has another digest."""
    return [wire(asked, evolve(page, body=bytes([page.body[0] ^ 1]) + page.body[1:]))]


def _coded(asked: Asked, page: Page, body: bytes) -> Iterable[Step]:
    return [wire(asked, evolve(page, body=body, fields=(*page.fields, ("Content-Encoding", "gzip"))))]


def broken_gzip(asked: Asked, page: Page) -> Iterable[Step]:
    """It says that it is gzip, and is not."""
    return _coded(asked, page, b"\x1f\x8b\x08\x00" + page.body)


def cut_gzip(asked: Asked, page: Page) -> Iterable[Step]:
    """The coded body is whole as HTTP sees it, and lacks its end."""
    return _coded(asked, page, gzip.compress(page.body)[:-20])


_BOMB = gzip.compress(bytes(16 << 20))


def gzip_bomb(asked: Asked, page: Page) -> Iterable[Step]:
    """16 kB that unpack to a thousand times as much."""
    return _coded(asked, page, _BOMB)


def status(code: int, *fields: tuple[str, str]) -> Script:
    """That status for everything."""
    return in_place(Page(code, f"it was {code}\n".encode(), "text/plain", fields))


def redirect(code: int, location: str = "") -> Script:
    """A redirect of everything to there, or to itself."""

    def script(asked: Asked, _page: Page) -> Iterable[Step]:
        return [wire(asked, Page(code, b"moved\n", "text/plain", (("Location", location or asked.path),)))]

    return script


def endless_head(_asked: Asked, _page: Page) -> Iterable[Step]:
    """A head of 50 MB, if anybody reads so much."""
    yield b"HTTP/1.1 200 OK\r\nX-Much: "
    for _ in range((50 << 20) // _PIECE):
        yield b"x" * _PIECE
        yield 0.0


def many_fields(asked: Asked, page: Page) -> Iterable[Step]:
    """10,000 header fields."""
    return [wire(asked, evolve(page, fields=(*page.fields, *((f"X-{n}", "x") for n in range(10_000)))))]


def two_framings(_asked: Asked, page: Page) -> Iterable[Step]:
    """Content-Length and Transfer-Encoding together (RFC 9112 section 6.1)."""
    return [head_of(page, 5, chunked=True) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(page.body), page.body)]


def garbage(_asked: Asked, page: Page) -> Iterable[Step]:
    """A body without a head, as HTTP/0.9 has it."""
    return [b"<html>" + page.body, End.CLOSE]


def closing_kept(asked: Asked, page: Page) -> Iterable[Step]:
    """Connections are closed under whoever uses them again; all else is well."""
    return [End.CLOSE] if asked.number > 1 else well(asked, page)
