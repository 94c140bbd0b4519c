"""Any HTTP tree."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from regcache.errors import BadDocument, BadRequest, ConfigError, MethodNotAllowed
from regcache.http.messages import RequestHead
from regcache.interfaces import IRegistry
from regcache.registries import make
from regcache.routes import Artifact, RegistryOptions, Source
from regcache.testing import Ask, Page, RegistryContract, Sample

UPSTREAM = "https://host.example/dist/"
TREE = make(RegistryOptions(name="nodejs", type="generic", url=UPSTREAM, artifact_hosts=("cdn.example",)))


def artifact(path: str, query: str = "", method: str = "GET") -> Artifact:
    """The file that a request means."""
    found = TREE.route(RequestHead(method=method, path=path, query=query))
    assert isinstance(found, Artifact)
    return found


def test_provides_the_interface() -> None:
    """The module does what a registry must."""
    assert verifyObject(IRegistry, TREE)


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("/index.json", "", "index.json"),
        ("/v1/node%20v1.tgz", "", "v1/node%20v1.tgz"),
        ("/v1/", "", "v1/"),
        ("/v1", "", "v1"),
        ("/", "", ""),
        ("//a//b", "", "/a//b"),
        ("/%61+b%7e", "", "a%2Bb~"),
        ("/a%2Bb", "", "a%2Bb"),
        ("/g%2fp/x", "", "g%2Fp/x"),
        ("/a", "b=c&d=%20", "a?b=c&d=%20"),
        ("/a%3Fb", "c", "a%3Fb?c"),
        ("/a%23b", "", "a%23b"),
    ],
)
def test_paths(path: str, query: str, found: str) -> None:
    """A path has one spelling, keeps its slashes and its query, and leads to the same place below the upstream."""
    for method in ("GET", "HEAD"):
        file = artifact(path, query, method)
        assert (file.key, file.url) == (found, UPSTREAM + found)


def test_nothing_is_known() -> None:
    """What lies in the tree may change and cannot be verified; it keeps the type that it came with."""
    file = artifact("/x.tar.gz")
    assert file.mutable
    assert file.content_type == ""
    assert (file.digests, file.indexes, file.proof) == ((), (), None)
    assert TREE.algorithms == ()
    source = Source(body=b"", content_type="text/html", url=UPSTREAM)
    with pytest.raises(BadDocument):
        TREE.facts("x", source)


@pytest.mark.parametrize("path", ["/../x", "/a/%2e%2e/x", "/a%2f..%2fx", "/..;/x", "/a%5cb", "/a%00", "/%zz", "*"])
def test_hostile_paths(path: str) -> None:
    """A path that climbs out of the tree, or hides something, is refused."""
    with pytest.raises(BadRequest):
        artifact(path)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_path(text: str) -> None:
    """Whatever is asked for is refused, or lies below the upstream."""
    path, _, query = text.partition("?")
    try:
        file = artifact("/" + path, query)
    except BadRequest:
        return
    assert file.url.startswith(UPSTREAM)
    assert file.url.isascii()
    assert urlsplit(file.url).netloc == "host.example"
    assert not {".", ".."} & set(urlsplit(file.url).path.split("/"))
    assert TREE.allows(file.url)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(method: str) -> None:
    """A tree is only read."""
    with pytest.raises(MethodNotAllowed, match=method):
        artifact("/x", method=method)


def test_hosts() -> None:
    """Its own origin and the named hosts may be contacted, wherever it redirects to, and no other."""
    assert TREE.allows("https://host.example/elsewhere")
    assert TREE.allows("https://cdn.example/x")
    assert not TREE.allows("https://evil.example/x")
    assert not TREE.allows("http://host.example/dist/")


def test_it_needs_an_upstream() -> None:
    """Without an upstream there is nothing to serve, and the complaint shows how to name one."""
    with pytest.raises(ConfigError, match=r"nodejs=generic\+https://HOST/PATH/"):
        make(RegistryOptions(name="nodejs", type="generic"))


def test_upstream_without_a_slash() -> None:
    """An upstream is a directory, whether its URL ends with a slash or not."""
    tree = make(RegistryOptions(name="nodejs", type="generic", url=UPSTREAM.rstrip("/")))
    found = tree.route(RequestHead(method="GET", path="/x"))
    assert isinstance(found, Artifact)
    assert found.url == f"{UPSTREAM}x"


def test_errors_and_client_lines() -> None:
    """Errors are plain text, and the line to copy names the mount."""
    assert TREE.error(504, "It is offline.") == ("text/plain; charset=utf-8", b"It is offline.\n")
    assert TREE.client_lines("http://cache/nodejs/") == ["curl -O http://cache/nodejs/PATH"]


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "generic"

    def sample(self) -> Sample:
        pages = {f"{UPSTREAM}v1/tree.tar.gz": Page(body=b"a tree of files")}
        return Sample(
            url=UPSTREAM,
            pages=pages,
            documents=(),
            artifacts={Ask("/v1/tree.tar.gz"): f"{UPSTREAM}v1/tree.tar.gz"},
            verified=False,
            nameless=frozenset({Ask("/v1/tree.tar.gz")}),
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask, body
        return []
