"""Several upstreams of one registry."""

from __future__ import annotations

import hashlib
import json

import pytest
from msgspec.structs import replace
from zope.interface.verify import verifyObject

from regcache.errors import BadRequest, MethodNotAllowed, NotFound, Offline, RegCacheError, UpstreamError
from regcache.flow.reply import How
from regcache.http.messages import RequestHead
from regcache.http.policy import Rules
from regcache.interfaces import IOrdered
from regcache.registries import make
from regcache.registries.inorder import InOrder
from regcache.routes import Artifact, RegistryOptions
from regcache.testing import FakeRegistry, Kit, Page, make_cache

ONE, TWO, THREE = "https://one.example/", "https://two.example/", "https://three.example/"
OPTIONS = RegistryOptions(name="maven", type="maven", url=ONE).followed_by(TWO, THREE)
JAR, POM, METADATA = "g/a/1/a-1.jar", "g/a/1/a-1.pom", "g/a/maven-metadata.xml"
LISTED = b"<metadata/>"


def sha1(body: bytes) -> bytes:
    """A checksum as a repository keeps it."""
    return hashlib.sha1(body).hexdigest().encode()


def publish(kit: Kit, url: str, path: str = JAR, body: bytes = b"") -> bytes:
    """Put a file, by default one that tells where it is from, and its checksum at an upstream."""
    body = body or f"{path} of {url}".encode()
    kit.upstream.pages |= {url + path: Page(body=body), f"{url}{path}.sha1": Page(body=sha1(body))}
    return body


def spoil(kit: Kit, url: str, page: Page) -> None:
    """Let an upstream answer everything with that."""
    kit.upstream.pages |= {there: page for there in kit.upstream.pages if there.startswith(url)}
    for path in (JAR, POM, METADATA, f"{JAR}.asc"):
        kit.upstream.pages |= {url + path: page, f"{url}{path}.sha1": page}


def asked(kit: Kit) -> set[str]:
    """The upstreams that were asked since the last time."""
    found = {url for url in (ONE, TWO, THREE) for there in kit.upstream.urls() if there.startswith(url)}
    kit.upstream.asked.clear()
    return found


def restarted(kit: Kit, rules: Rules | None = None) -> Kit:
    """A new process on the same store, in front of the same upstreams."""
    again = make_cache(kit.registry, rules)
    again.store.entries, again.store.blobs = kit.store.entries, kit.store.blobs
    again.upstream.pages, again.wall = kit.upstream.pages, kit.wall
    return again


@pytest.fixture
def kit() -> Kit:
    """A cache in front of three empty repositories."""
    return make_cache(make(OPTIONS))


def test_what_is_made_of_several_urls() -> None:
    """A registry for each, the first with the keys that it has alone, each with keys of its own."""
    made = make(OPTIONS)
    assert isinstance(made, InOrder)
    assert verifyObject(IOrdered, made)
    assert made.options == OPTIONS
    assert [member.options.url for member in made.members] == [ONE, TWO, THREE]
    prefixes = [member.options.prefix for member in made.members]
    assert prefixes[0] == "maven/"
    assert len(set(prefixes)) == 3
    route = made.route(RequestHead(method="GET", path=f"/{JAR}"))
    assert isinstance(route, Artifact)
    assert route.url == ONE + JAR
    assert made.allows(f"{THREE}x")
    assert not made.allows("https://four.example/x")
    assert made.client_lines("http://cache/maven/") == made.members[0].client_lines("http://cache/maven/")


def test_the_first_that_has_it(kit: Kit) -> None:
    """Those behind it are not asked; those before it are, once."""
    bodies = [publish(kit, url) for url in (TWO, THREE)]
    assert kit.get(f"/{JAR}")[1] == bodies[0]
    assert asked(kit) == {ONE, TWO}
    reply, body = kit.get(f"/{JAR}")
    assert (reply.how, body) == (How.HIT, bodies[0])
    assert asked(kit) == set()


@pytest.mark.parametrize("restart", [False, True])
def test_it_is_remembered(kit: Kit, restart: bool) -> None:
    """What came from a later upstream goes on coming from it, though an earlier one has the like by now."""
    publish(kit, TWO, METADATA, LISTED)
    kit.get(f"/{METADATA}")
    publish(kit, ONE, METADATA, b"<metadata>1</metadata>")
    kit.advance(3600)
    kit = restarted(kit) if restart else kit
    asked(kit)
    reply, body = kit.get(f"/{METADATA}")
    assert (reply.how, body) == (How.REVALIDATED, LISTED)
    assert asked(kit) == {TWO}


def test_one_that_has_it_no_more(kit: Kit) -> None:
    """When the upstream says that it is gone, the others are asked."""
    publish(kit, TWO, METADATA, LISTED)
    kit.get(f"/{METADATA}")
    del kit.upstream.pages[TWO + METADATA]
    publish(kit, THREE, METADATA, b"<metadata>3</metadata>")
    kit.advance(3600)
    assert kit.get(f"/{METADATA}")[1] == b"<metadata>3</metadata>"
    asked(kit)
    kit.advance(300)
    assert kit.get(f"/{METADATA}")[0].how is How.HIT
    assert asked(kit) == set()


def test_what_cannot_be_stored_is_remembered_as_well(kit: Kit) -> None:
    """A full disk does not make a file change hands."""
    body = publish(kit, TWO)
    kit.store.refuses = True
    assert kit.get(f"/{JAR}")[1] == body
    publish(kit, ONE)
    kit.advance(120)
    assert kit.get(f"/{JAR}")[1] == body


@pytest.mark.parametrize("path", [JAR, METADATA, f"{JAR}.sha1", f"{METADATA}.sha1", f"{JAR}.asc"])
@pytest.mark.parametrize("trouble", [Page(status=503), Page(status=403), Page(cut=1, body=LISTED), None])
def test_trouble_is_not_absence(kit: Kit, path: str, trouble: Page | None) -> None:
    """While an earlier upstream cannot be asked, nothing is taken from a later one or said to be absent."""
    publish(kit, TWO, path, LISTED)
    publish(kit, TWO, path.removesuffix(".sha1").removesuffix(".asc"), LISTED)
    if trouble is None:
        kit.upstream.down = True
    else:
        spoil(kit, ONE, trouble)
    with pytest.raises(UpstreamError):
        kit.get(f"/{path}")
    assert asked(kit) == {ONE}


def test_trouble_of_an_earlier_one_spares_what_is_stored(kit: Kit) -> None:
    """What is stored from a later upstream is answered without an earlier one; trouble of its own makes it stale."""
    body = publish(kit, TWO)
    publish(kit, TWO, METADATA, LISTED)
    kit.get(f"/{JAR}")
    kit.get(f"/{METADATA}")
    spoil(kit, ONE, Page(status=503))
    kit.advance(2 * 86400)
    assert kit.get(f"/{JAR}")[1] == body
    assert kit.get(f"/{METADATA}")[0].how is How.REVALIDATED
    spoil(kit, TWO, Page(status=503))
    kit.advance(2 * 86400)
    reply, listed = kit.get(f"/{METADATA}")
    assert (reply.how, listed) == (How.STALE, LISTED)


def test_nobody_has_it(kit: Kit) -> None:
    """All are asked before it is said that there is none, and not again at once."""
    for path in (JAR, METADATA, f"{JAR}.sha1", f"{METADATA}.sha1", f"{JAR}.asc"):
        kit.advance(120)
        with pytest.raises(NotFound):
            kit.get(f"/{path}")
        assert asked(kit) == {ONE, TWO, THREE}
    with pytest.raises(NotFound):
        kit.get(f"/{JAR}.asc")


@pytest.mark.parametrize("first", [False, True])
def test_a_checksum_belongs_to_its_file(kit: Kit, first: bool) -> None:
    """It comes from the upstream that the file comes from, though that has none and another has one of its own."""
    for url in (ONE, TWO):
        publish(kit, url)
    del kit.upstream.pages[f"{ONE}{JAR}.sha1"]
    if not first:
        kit.get(f"/{JAR}")
    asked(kit)
    with pytest.raises(NotFound):
        kit.get(f"/{JAR}.sha1")
    assert asked(kit) <= {ONE}


def test_a_signature_belongs_to_its_file(kit: Kit) -> None:
    """Another upstream's signature of another file of that name is none."""
    publish(kit, ONE)
    publish(kit, TWO)
    publish(kit, TWO, f"{JAR}.asc")
    kit.get(f"/{JAR}")
    asked(kit)
    with pytest.raises(NotFound):
        kit.get(f"/{JAR}.asc")
    assert asked(kit) == {ONE}
    signature = publish(kit, ONE, f"{JAR}.asc")
    kit.advance(120)
    assert kit.get(f"/{JAR}.asc")[1] == signature


@pytest.mark.parametrize("restart", [False, True])
def test_what_is_published_together_comes_together(kit: Kit, restart: bool) -> None:
    """Once a version's description came from one upstream, its archive is looked for there first."""
    publish(kit, TWO, POM)
    kit.get(f"/{POM}")
    publish(kit, ONE)
    body = publish(kit, TWO)
    kit = restarted(kit) if restart else kit
    assert kit.get(f"/{JAR}")[1] == body
    publish(kit, THREE, "g/a/1/a-1-sources.jar")
    assert kit.get("/g/a/1/a-1-sources.jar")[1] == b"g/a/1/a-1-sources.jar of " + THREE.encode()


def test_each_has_its_own_entries(kit: Kit) -> None:
    """The same name from two upstreams is two entries, and neither is taken for the other."""
    one = publish(kit, ONE)
    kit.get(f"/{JAR}")
    two = publish(kit, TWO)
    for url, body in ((ONE, one), (TWO, two)):
        alone = make_cache(make(RegistryOptions(name="maven", type="maven", url=url)))
        alone.upstream.pages = kit.upstream.pages
        assert alone.get(f"/{JAR}")[1] == body
    reversed_ = restarted(kit)
    reversed_.registry = make(RegistryOptions(name="maven", type="maven", url=TWO).followed_by(THREE))
    reversed_.store.entries.clear()
    assert reversed_.get(f"/{JAR}")[1] == two
    assert all(THREE not in url for url in reversed_.upstream.urls())


def test_offline(kit: Kit) -> None:
    """What is stored of any is served; of what is not, nobody is asked, and it is not said to be absent."""
    body = publish(kit, THREE)
    kit.get(f"/{JAR}")
    kit = restarted(kit, Rules(offline=True))
    assert kit.get(f"/{JAR}")[1] == body
    assert kit.get(f"/{JAR}.md5")[1] == hashlib.md5(body).hexdigest().encode()
    for path in (POM, METADATA, f"{POM}.sha1"):
        with pytest.raises(Offline):
            kit.get(f"/{path}")
    assert kit.upstream.asked == []


def test_requests_that_mean_nothing(kit: Kit) -> None:
    """What is refused by one is refused by all, with its own status."""
    for path, method, error in (
        ("/", "GET", NotFound),
        (f"/{JAR}", "PUT", MethodNotAllowed),
        ("/%zz", "GET", BadRequest),
    ):
        with pytest.raises(error):
            kit.get(path, method)
    assert kit.upstream.asked == []


# An index that names files.


class Shop(FakeRegistry):
    """A registry to which an address under ``/only/`` means something if its upstream is the second."""

    def route(self, request: RequestHead) -> object:  # type: ignore[override]
        if request.path.startswith("/only/") and not self.options.place:
            raise NotFound("Not here.")
        return super().route(request)


def shops(shop: type[Shop] = Shop) -> Kit:
    """A cache in front of two upstreams with an index each."""
    options = RegistryOptions(name="fake", type="fake", url=ONE).followed_by(TWO)
    return make_cache(InOrder([shop(options), shop(options.further[0])]))


def list_at(kit: Kit, url: str, *names: str) -> None:
    """Publish an index and the files in it."""
    index = {}
    for name in names:
        body = f"{name} of {url}".encode()
        index[name] = hashlib.sha256(body).hexdigest()
        kit.upstream.pages[f"{url}files/{name}"] = Page(body=body)
    kit.upstream.pages[f"{url}index"] = Page(body=json.dumps(index).encode())


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_belongs_to_the_upstream_of_its_index(restart: bool) -> None:
    """A client that has seen the index of one upstream gets no other upstream's file of that name."""
    kit = shops()
    list_at(kit, TWO, "a", "b")
    kit.get("/index")
    list_at(kit, ONE, "a", "b")
    kit = restarted(kit) if restart else kit
    assert kit.get("/files/a")[1] == b"a of " + TWO.encode()
    kit.upstream.pages[f"{TWO}files/b"] = Page(status=503)
    with pytest.raises(RegCacheError) as caught:
        kit.get("/files/b")
    assert caught.value.status >= 500
    del kit.upstream.pages[f"{TWO}files/b"]
    kit.advance(120)
    with pytest.raises(NotFound):
        kit.get("/files/b")


class Guessing(Shop):
    """A registry whose files may be of an index that is asked for second."""

    def route(self, request: RequestHead) -> object:  # type: ignore[override]
        found = super().route(request)
        if not isinstance(found, Artifact):
            return found
        likelier = replace(found.indexes[0], key="none", url=f"{self.options.url}none", family="none")
        return replace(found, indexes=(likelier, *found.indexes), family="none")


def test_an_index_that_may_not_be_of_the_file() -> None:
    """Having the index of something of a like name does not keep the other upstreams from being asked."""
    kit = shops(Guessing)
    list_at(kit, ONE, "a")
    kit.get("/index")
    kit.upstream.pages[f"{TWO}files/b"] = Page(body=b"b")
    assert kit.get("/files/b")[1] == b"b"


@pytest.mark.parametrize("restart", [False, True])
def test_a_gem_whose_name_can_be_read_in_two_ways(restart: bool) -> None:
    """Whoever publishes a gem of the likelier name at a later upstream is not asked first for the other."""
    options = RegistryOptions(name="rubygems", type="rubygems", url=ONE).followed_by(TWO)
    kit = make_cache(make(options))
    kit.upstream.pages |= {
        f"{TWO}info/foo": Page(body=b"---\n1-2 |ruby:>= 1\n1-3 |ruby:>= 1\n"),
        f"{TWO}gems/foo-1-2.gem": Page(body=b"another's"),
        f"{TWO}gems/foo-1-3.gem": Page(body=b"another's"),
        f"{ONE}info/foo-1": Page(body=b"---\n2 |ruby:>= 1\n"),
        f"{ONE}gems/foo-1-2.gem": Page(body=b"ours"),
    }
    kit.get("/info/foo")
    assert kit.get("/gems/foo-1-3.gem")[1] == b"another's"
    kit = restarted(kit) if restart else kit
    assert kit.get("/gems/foo-1-2.gem")[1] == b"ours"


def test_a_file_before_its_index() -> None:
    """With a lock file only, the first upstream that has the file gives it."""
    kit = shops()
    list_at(kit, TWO, "a")
    assert kit.get("/files/a")[1] == b"a of " + TWO.encode()
    assert kit.get("/files/a")[0].detail == ""


def test_an_address_that_only_a_later_one_knows() -> None:
    """Meaning nothing to one upstream is no reason to refuse what means something to the next."""
    kit = shops()
    kit.upstream.pages[f"{TWO}only/x"] = Page(body=b"x")
    kit.upstream.pages[f"{ONE}only/x"] = Page(body=b"y")
    assert kit.get("/only/x")[1] == b"x"
