"""
What every registry must do, as tests: subclass :class:`RegistryContract`, say what a small upstream of yours holds, and
let pytest collect it.

The real decisions, transfers and documents run in front of the registry; the upstream is pages in memory.
"""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

from attrs import evolve
from zope.interface.verify import verifyObject

from regcache.errors import BadDocument
from regcache.flow.reply import How
from regcache.http.messages import Kind
from regcache.interfaces import IRegistry
from regcache.routes import Artifact, Checksum, Document, Local, Moved, Resource, Source
from regcache.testing.kit import BASE, Page
from regcache.testing.samples import Ask, Sampled

__all__ = ["RegistryContract"]

_OTHER_BASE = "https://packages.example/deep/our%20tools/"
#: What must mean nothing, or something of the registry's own: it climbs, names another host, or breaks the request.
_HOSTILE = (
    *("..", "%2e%2e", ".%2e", "..%2f..%2fetc%2fpasswd", "..;", "%2e%2e%3b", "..%5c", "%00", "a%0d%0aHost:%20evil.test"),
    *("http://evil.test/", "//evil.test/", "%2f%2fevil.test%2f", "@evil.test", ":80@evil.test", "%40evil.test%2fx"),
    *("%ff%fe", "%", "%zz", "\\\\evil.test\\x", "x" * 5000, "-", "_", "~", "%20", "?", "%3f", "%23", "a%2fb", "..."),
)
#: What no upstream of packages sends on purpose, and all send sometimes.
_RUBBISH = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe\x00",
    b"\x1f\x8b\x08\x00broken",
    b"<!DOCTYPE html><html><head><title>Log in</title></head><body><a href='/login'>here</a></body></html>",
    b'{"name": 1, "versions": 2, "files": 3, "items": 4, "resources": 5}',
    b"[" * 100_000,
)
#: A character that is percent-encoded, one that may be (RFC 3986 section 2.3), or another.
_SPELT = re.compile("(%[0-9A-Fa-f]{2})|([A-Za-z0-9._~-])|(.)")


class RegistryContract(Sampled):
    """
    The contract. A subclass gives :attr:`type` and :meth:`sample`, and :meth:`links` if its documents hold any;
    ``test_…`` methods are the promises.

    :cvar type: the entry point's name.
    :cvar factory: the class, for as long as no entry point leads to it.
    :cvar transient: the statuses that say nothing of what was asked for.
    """

    transient: tuple[int, ...] = (500, 502, 503, 504, 429, 401, 403, 407)

    def test_it_provides_the_interface(self) -> None:
        """The module does what a registry must, and says where its public upstream is."""
        registry = self.registry(self.sample())
        assert verifyObject(IRegistry, registry)
        assert isinstance(registry.version, int)
        assert registry.options.url.endswith("/")

    def test_routes_stay_inside_the_configured_hosts(self) -> None:
        """Whatever is asked for, only the upstream, and what the sample allows beside it, would be contacted."""
        sample = self.sample()
        registry = self.registry(sample)
        hosts = {urlsplit(sample.url).netloc, *sample.hosts}
        for ask in self._asks(sample):
            for url in self._reached(registry.route(ask.head())):
                assert urlsplit(url).netloc in hosts, f"{ask.path} leads to {url}"
                assert registry.allows(url), url
        disguised = f"https://{urlsplit(sample.url).netloc}@evil.test/"
        for url in ("https://evil.test/", "http://127.0.0.1:1/", "file:///etc/passwd", disguised):
            assert not registry.allows(url), url

    def test_hostile_paths(self) -> None:
        """A path that climbs, names a host, or is none is refused with a 4xx, or means something of the registry's."""
        sample = self.sample()
        registry = self.registry(sample)
        hosts = {urlsplit(sample.url).netloc, *sample.hosts}
        paths = {"/"} | {f"/{piece}" for piece in _HOSTILE}
        for ask in self._asks(sample):
            parts = ask.path.partition("?")[0].split("/")
            for at in range(1, len(parts)):
                paths |= {"/".join([*parts[:at], piece, *parts[at + 1 :]]) for piece in _HOSTILE}
        for path in sorted(paths):
            for url in self._reached_if_any(registry, path):
                found = urlsplit(url)
                assert found.netloc in hosts, f"{path[:80]} leads to {url[:200]}"
                assert not {"..", "."} & set(found.path.split("/")), path
                assert not re.search(r"[\x00-\x20\x7f-\uffff\\]", url), path

    def test_every_spelling_is_one(self) -> None:
        """A path means the same, or leads to it, however much of it is encoded: nothing is fetched or kept twice."""
        sample = self.sample()
        registry = self.registry(sample)
        for ask in self._asks(sample):
            path, mark, query = ask.path.partition("?")
            for encoded in (str.lower, str.upper):
                pieces = [other or encoded(old or f"%{ord(new):x}") for old, new, other in _SPELT.findall(path)]
                other = "".join(pieces)
                found = registry.route(Ask(other + mark + query, ask.fields).head())
                assert found in (registry.route(ask.head()), Moved(ask.path)), other

    def test_documents_lead_back_through_the_proxy(self) -> None:
        """No link that a client would follow leaves the proxy, under whatever address the client knows it."""
        sample = self.sample()
        kit = self.kit(sample)
        for base in (BASE, _OTHER_BASE):
            for ask in sample.documents:
                reply, body = self._get(kit, ask, base=base)
                assert reply.status == 200, ask.path
                for link in self.links(ask, body):
                    found = urljoin(base + ask.path[1:], link)
                    assert found.startswith(base), f"{ask.path} holds {link}"
                    route = kit.registry.route(Ask("/" + found.removeprefix(base)).head(base))
                    assert route is not None

    def test_rewriting_is_idempotent(self) -> None:
        """A cache behind a cache says the same: what was rewritten comes out of another rewriting as it is."""
        sample = self.sample()
        kit = self.kit(sample)
        behind = self.behind(sample)
        for ask in sample.documents:
            route = behind.route(ask.head())
            if not isinstance(route, Document):
                continue
            reply, body = self._get(kit, ask)
            source = Source(body=body, content_type=reply.headers.get("content-type"), url=BASE + ask.path[1:])
            base = BASE if route.linked else ""
            assert behind.represent(route.key, source, route.representation, base) == body, ask.path

    def test_a_lock_file_is_enough(self) -> None:
        """Every artifact is fetched, and verified, although no index was asked for before."""
        sample = self.sample()
        for ask, url in sample.artifacts.items():
            kit = self.kit(sample)
            _, body = self._get(kit, ask)
            assert body == sample.pages[url].body, ask.path
            stored = [entry for entry in kit.store.entries.values() if entry.size == len(body) and entry.url == url]
            assert stored, f"{ask.path} is not stored"
            assert all(entry.verified for entry in stored) or not sample.verified, f"{ask.path} is not verified"
            assert kit.upstream.urls().count(url) == 1

    def test_what_is_stored_has_a_name(self) -> None:
        """Every key says what it is of, or that it is of no package; whatever a client made a key of."""
        sample = self.sample()
        registry = self.registry(sample)
        kit = self.kit(sample)
        for ask in self._asks(sample):
            self._get(kit, ask)
        prefix = registry.options.prefix
        for entry in [one for one in kit.store.entries.values() if one.kind is not Kind.DERIVED]:
            release = registry.release(entry.key.removeprefix(prefix), entry.parent.removeprefix(prefix))
            assert release is None or release.package, entry.key
            for cut in range(len(entry.key.removeprefix(prefix))):
                registry.release(entry.key.removeprefix(prefix)[:cut], "")

    def test_a_checksum_is_of_what_was_sent(self) -> None:
        """Of what may change, it can be known which copy a client was sent that asks for the checksum next."""
        sample = self.sample()
        registry = self.registry(sample)
        for ask in self._asks(sample):
            route = registry.route(ask.head())
            if isinstance(route, Checksum) and isinstance(route.of, Artifact):
                assert route.of.sidecars or not route.of.mutable, ask.path

    def test_a_wrong_artifact_is_never_stored(self) -> None:
        """A byte flipped or the end cut off upstream: the client sees a failure, and the next request gets it right."""
        sample = self.sample()
        for ask, url in sample.artifacts.items() if sample.verified else ():
            page = sample.pages[url]
            flipped = evolve(page, body=page.body[:-1] + bytes([page.body[-1] ^ 1]))
            for bad in (flipped, evolve(page, cut=len(page.body) // 2)):
                kit = self.kit(sample)
                kit.upstream.pages[url] = bad
                assert self._status(kit, ask) >= 500, f"{ask.path} was answered"
                assert not [entry for entry in kit.store.entries.values() if entry.url == url], ask.path
                kit.upstream.pages[url] = page
                kit.advance(60)
                assert self._get(kit, ask)[1] == page.body

    def test_head_equals_get(self) -> None:
        """HEAD is answered with the head of the GET, before and after something is stored."""
        sample = self.sample()
        for ask in self._asks(sample):
            kit = self.kit(sample)
            cold, _ = self._get(kit, ask, "HEAD")
            self._get(kit, ask)
            reply, _ = self._get(kit, ask)
            head, _ = self._get(kit, ask, "HEAD")
            assert cold.status == head.status == reply.status == 200, ask.path
            assert head.headers == reply.headers, ask.path
            assert head.length == reply.length, ask.path
            assert cold.length in (None, reply.length), ask.path

    def test_transient_failures_are_5xx(self) -> None:
        """An upstream in trouble is never read as "there is none", which clients would remember."""
        sample = self.sample()
        for ask in self._asks(sample):
            if isinstance(self.registry(sample).route(ask.head()), Local | Moved):
                continue
            for status in () if isinstance(self.registry(sample).route(ask.head()), Resource) else self.transient:
                kit = self.kit(sample)
                kit.upstream.pages = {url: Page(status=status, body=b"no") for url in sample.pages}
                assert self._status(kit, ask) >= 500, f"{ask.path} with {status}"
            kit = self.kit(sample)
            kit.upstream.down = True
            assert self._status(kit, ask) >= 500, ask.path

    def test_what_is_not_there_is_404(self) -> None:
        """An upstream that has none of it says so through the proxy."""
        sample = self.sample()
        for ask in self._asks(sample):
            if isinstance(self.registry(sample).route(ask.head()), Local | Moved):
                continue
            kit = self.kit(sample)
            kit.upstream.pages = {}
            assert self._status(kit, ask) in (404, 410), ask.path

    def test_an_outage_costs_nothing_that_was_served(self) -> None:
        """What was answered once is answered again with the upstream gone, a month later."""
        sample = self.sample()
        kit = self.kit(sample)
        before = {ask: self._get(kit, ask)[1] for ask in self._asks(sample)}
        kit.upstream.down = True
        kit.advance(30 * 86400)
        for ask, body in before.items():
            assert self._get(kit, ask)[1] == body, ask.path

    def test_conditional_requests(self) -> None:
        """A client that has it is told so; one that has another gets it whole."""
        sample = self.sample()
        kit = self.kit(sample)
        for ask in self._asks(sample):
            self._get(kit, ask)
            reply, body = self._get(kit, ask)
            etag = reply.headers.get("etag")
            if not etag and isinstance(kit.registry.route(ask.head()), Local):
                continue
            if not etag and isinstance(kit.registry.route(ask.head()), Resource):
                continue
            assert etag, ask.path
            same, nothing = self._get(kit, ask, If_None_Match=etag)
            assert (same.status, nothing) == (304, b""), ask.path
            other, whole = self._get(kit, ask, If_None_Match='"another"')
            assert (other.status, whole) == (200, body), ask.path
            modified = reply.headers.get("last-modified")
            assert modified or not isinstance(kit.registry.route(ask.head()), Artifact | Document), ask.path
            if modified:
                since, nothing = self._get(kit, ask, If_Modified_Since=modified)
                assert (since.status, nothing) == (304, b""), ask.path

    def test_ranges(self) -> None:
        """A part of an artifact is that part of its bytes; a part beyond its end is refused."""
        sample = self.sample()
        kit = self.kit(sample)
        for ask, url in sample.artifacts.items():
            self._get(kit, ask)
            whole = sample.pages[url].body
            reply, part = self._get(kit, ask, Range="bytes=1-3")
            assert (reply.status, part) == (206, whole[1:4]), ask.path
            assert reply.headers.get("content-range") == f"bytes 1-3/{len(whole)}"
            assert self._get(kit, ask, Range="bytes=-4")[1] == whole[-4:]
            beyond, _ = self._get(kit, ask, Range=f"bytes={len(whole)}-")
            assert beyond.status == 416, ask.path

    def test_rubbish_is_no_document(self) -> None:
        """What is no index is refused as that, whatever it is; nothing else comes of it."""
        sample = self.sample()
        registry = self.registry(sample)
        for ask in sample.documents:
            route = registry.route(ask.head())
            if not isinstance(route, Document):
                continue
            there = sample.pages.get(route.url, Page(body=b"x" * 40)).body
            for body in (*_RUBBISH, there[: len(there) // 3]):
                for kind in (route.content_type, "text/html; charset=utf-8"):
                    source = Source(body=body, content_type=kind, url=route.url)
                    with suppress(BadDocument):
                        registry.facts(route.key, source)
                    with suppress(BadDocument):
                        registry.represent(route.key, source, route.representation, BASE if route.linked else "")

    def test_a_login_page_is_no_document(self) -> None:
        """A web page with 200 in place of an index is the upstream's trouble, and does not replace what is stored."""
        sample = self.sample()
        for ask in sample.documents:
            route = self.registry(sample).route(ask.head())
            if not isinstance(route, Document):
                continue
            kit = self.kit(sample)
            page = Page(body=_RUBBISH[7], headers={"content-type": "text/html"})
            kit.upstream.pages = dict.fromkeys(sample.pages, page)
            assert self._status(kit, ask) >= 500, ask.path
            kit = self.kit(sample)
            _, body = self._get(kit, ask)
            kit.upstream.pages = dict.fromkeys(sample.pages, page)
            kit.advance(2 * 86400)
            reply, again = self._get(kit, ask)
            assert (reply.how, again) == (How.STALE, body), ask.path

    def test_names_of_another_are_never_asked_for(self) -> None:
        """Whatever would tell the upstream a name that belongs to another registry is refused, and nobody is asked."""
        sample = self.sample()
        kit = self.kit(evolve(sample, options={**sample.options, "elsewhere": ("*",)}))
        for ask in sample.nameless:
            assert self._status(kit, ask) == 200, ask.path
        kit.upstream.asked.clear()
        for ask in {*self._asks(sample)} - sample.nameless:
            assert self._status(kit, ask) == 404, ask.path
        assert kit.upstream.asked == []

    def test_a_second_upstream_gives_what_the_first_has_not(self) -> None:
        """Behind an upstream without any of it, everything is as in front of the sample alone, also in an outage."""
        if self.follows:
            # There is one that can be followed.
            return
        sample = self.sample()
        alone, several = self.kit(sample), self._behind_an_empty_one(sample)
        for ask in self._asks(sample):
            assert self._get(several, ask)[1] == self._get(alone, ask)[1], ask.path
        several.upstream.down = True
        several.advance(30 * 86400)
        for ask in self._asks(sample):
            assert self._get(several, ask)[1] == self._get(alone, ask)[1], ask.path

    def test_trouble_of_the_first_upstream_is_not_absence(self) -> None:
        """While the first cannot say whether it has something, the second is not asked for it."""
        if self.follows:
            return
        sample = self.sample()
        for ask in self._asks(sample):
            kit = self._behind_an_empty_one(sample)
            route = kit.registry.route(ask.head())
            if isinstance(route, Local | Moved):
                continue
            kit.upstream.pages |= dict.fromkeys(self._reached(route), Page(status=503))
            assert self._status(kit, ask) >= 500, ask.path

    def test_nothing_is_written(self) -> None:
        """Publishing through a cache is refused, with a text for a person."""
        sample = self.sample()
        kit = self.kit(sample)
        for ask in self._asks(sample):
            for method in ("PUT", "DELETE", "PATCH"):
                assert self._status(kit, ask, method) == 405, f"{method} {ask.path}"
        assert kit.upstream.asked == []

    def test_errors_can_be_read(self) -> None:
        """An error has a type and holds its text."""
        kind, body = self.registry(self.sample()).error(404, "There is none of it.")
        assert "/" in kind
        assert b"There is none of it." in body

    def test_clients_are_told_how(self) -> None:
        """The lines that point clients here name the mount, whatever it is."""
        registry = self.registry(self.sample())
        for base in (BASE, _OTHER_BASE, "http://[::1]:8650/x/"):
            lines = registry.client_lines(base)
            assert any(base.rstrip("/") in line for line in lines)
            assert all("\n" not in line for line in lines)
