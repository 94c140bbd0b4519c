"""What registries inherit: a table of files, and how its indexes are read."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.registries import make
from regcache.registries.plain import Named, Row, Tree
from regcache.routes import Artifact, Document, Fact, RegistryOptions, Route, Source

URL = "https://tree.example/"
ONE, TWO = "1" * 64, "2" * 40


def listed(body: bytes) -> Iterator[Named]:
    """Lines of a path, a SHA-256 and a SHA-1; others that begin with an angle bracket."""
    for line in body.decode().splitlines():
        if line.startswith("<"):
            continue
        path, first, second = line.split()
        yield Named(path, {"sha256": first, "sha1": second, "crc32": "0"}, 7)


class Sums(Tree):
    """Files in folders with a list in each, and one above."""

    default_url = URL
    well_known = ("https://mirror.example/",)
    lines = ("sums {base}", "sums --again {base}x")
    table = (
        Row(path=r"(?:.+/)?SUMS(?:\.gz)?", reads=listed),
        Row(path=r"(?P<folder>.+)/(?P<package>[a-z]+)-.*", indexes=("{folder}/SUMS", "SUMS", "{folder}/none")),
        Row(path=r".*/(?P<sha256>[0-9A-Fa-f]+)", content_type="text/plain"),
        Row(path=r"news", mutable=True),
    )


SUMS = make(RegistryOptions(name="sums", type="sums", artifact_hosts=("more.example",)), Sums)


def route(path: str) -> Route:
    """What a path means."""
    return SUMS.route(RequestHead(method="GET", path=path))


def source(body: bytes, path: str = "x/SUMS") -> Source:
    """A document as it came."""
    return Source(body=body, content_type="text/plain", url=URL + path)


def test_a_file_is_named_by_its_indexes() -> None:
    """The indexes of a row are those files of the table that are indexes; others are left out."""
    found = route("/x//y/ab-1%2b2")
    assert isinstance(found, Artifact)
    assert (found.key, found.url) == ("x/y/ab-1+2", f"{URL}x/y/ab-1%2B2")
    assert [one.key for one in found.indexes] == ["x/y/SUMS", "SUMS"]
    assert (found.packages, found.mutable, found.digests) == (("ab",), False, ())


def test_a_path_proves_what_it_names() -> None:
    """A group that is named after an algorithm is proof; where what it matches is none, there is nothing."""
    found = route(f"/any/{ONE}")
    assert isinstance(found, Artifact)
    assert (found.digests, found.content_type) == ((Digest("sha256", ONE),), "text/plain")
    for path in ("/any/11", f"/any/{'A' * 64}", "/nothing/like/it", "/"):
        with pytest.raises(NotFound, match="type sums"):
            route(path)


def test_an_index_is_read() -> None:
    """Paths are relative to the index's folder or absolute, and never leave the upstream; what is no digest is none."""
    body = f"a-1 {ONE} {TWO}\n../b-1 {ONE} x\n/c/d-1 {ONE.upper()} {TWO}\n../../../../e-1 x x\n".encode()
    found = SUMS.facts("x/y/SUMS", source(body))
    both = (Digest("sha256", ONE), Digest("sha1", TWO))
    assert found == {
        "x/y/a-1": Fact(url=f"{URL}x/y/a-1", digests=both, size=7),
        "x/b-1": Fact(url=f"{URL}x/b-1", digests=both[:1], size=7),
        "c/d-1": Fact(url=f"{URL}c/d-1", digests=both, size=7),
        "e-1": Fact(url=f"{URL}e-1", size=7),
    }


@pytest.mark.parametrize("body", [b"<html>", b"<!DOCTYPE html>", b"\xff", b"a b", b"a b c d"])
def test_what_cannot_be_read_is_no_index(body: bytes) -> None:
    """Whatever goes wrong in a reader, the body is refused; so is a web page in which it finds nothing."""
    with pytest.raises(BadDocument):
        SUMS.facts("x/SUMS", source(body))
    assert SUMS.facts("x/SUMS", source(b"")) == SUMS.facts("x/SUMS", source(b"<other>")) == {}
    with pytest.raises(BadDocument):
        SUMS.facts("news", source(b""))


def test_an_index_is_served_as_it_came() -> None:
    """Also one whose name some servers take for a content coding, which has been undone."""
    body = f"a-1 {ONE} {TWO}\n".encode()
    assert isinstance(route("/x/SUMS.gz"), Document)
    assert SUMS.represent("x/SUMS", source(body), "as-is", "") == body
    assert gzip.decompress(SUMS.represent("x/SUMS.gz", source(body), "as-is", "")) == body


def test_what_is_inherited() -> None:
    """Hosts, publishing, errors and lines for clients come from the class's attributes."""
    assert all(map(SUMS.allows, (URL, "https://mirror.example/x", "https://more.example/x")))
    private = make(RegistryOptions(name="sums", type="sums", url="https://own.example/"), Sums)
    assert not private.allows("https://mirror.example/x")
    with pytest.raises(MethodNotAllowed, match="publish at the registry itself"):
        SUMS.route(RequestHead(method="PUT", path="/news"))
    assert SUMS.error(404, "None.") == ("text/plain; charset=utf-8", b"None.\n")
    assert SUMS.client_lines("http://h/s/") == ["sums http://h/s/", "sums --again http://h/s/x"]
