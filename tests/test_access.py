"""Who may ask, under which name, and by which URL they reached us."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache import values
from regcache.access import Access, Peer, _host_of
from regcache.config import Config, Listen
from regcache.errors import BadRequest, Forbidden, MisdirectedHost, RegCacheError
from regcache.http.messages import Headers

LOCAL = "10.0.0.9:8650"
PROXIES = "10.0.0.0/24,fd00::/64"


def access(allow: str = "127.0.0.0/8,::1", trust: str = "", **more: Any) -> Access:
    """The rules of a service."""
    return Access(Config(cache_dir="/x", allow=values.networks(allow), trust_proxy=values.networks(trust), **more))


def forwarded(*lines: str) -> Headers:
    """A request that says it came by way of others."""
    return Headers.of([("X-Forwarded-For", line) for line in lines])


# Who.


@pytest.mark.parametrize("host", ["127.0.0.1", "127.200.1.1", "::1", "::ffff:127.0.0.1", "::FFFF:7F00:1", "::1%lo"])
def test_loopback(host: str) -> None:
    """This machine may ask, in any spelling of its address."""
    assert not access().peer(host, Headers()).trusted


@pytest.mark.parametrize("host", ["10.0.0.1", "128.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "::2", "0.0.0.0", "::"])
def test_others(host: str) -> None:
    """Nobody else may, and is told by which address and which option."""
    with pytest.raises(Forbidden) as caught:
        access().peer(host, Headers())
    shown = host.partition("%")[0].removeprefix("::ffff:")
    assert shown in caught.value.text
    assert "--allow" in caught.value.text
    assert caught.value.status == 403


def test_allowed_networks() -> None:
    """Whoever is in an allowed network may ask; loopback only if it is named too; mapped IPv4 is IPv4."""
    for allow in ("10.0.0.0/8", "::ffff:10.0.0.0/104"):
        rules = access(allow)
        assert rules.peer("10.1.2.3", Headers()) == Peer("10.1.2.3", False)
        assert rules.peer("::ffff:10.1.2.3", Headers()) == Peer("10.1.2.3", False)
        for host in ("127.0.0.1", "::a01:203", "11.0.0.1"):
            with pytest.raises(Forbidden):
                rules.peer(host, Headers())
    assert access("fe80::/10").peer("fe80::1%eth0", Headers()) == Peer("fe80::1", False)
    assert access("0.0.0.0/0,::/0").peer("2001:db8::1", Headers()).address == "2001:db8::1"


def test_unix_sockets() -> None:
    """Whoever may open the socket may ask; what it says of others does not count."""
    assert access("10.0.0.0/8", PROXIES).peer("", forwarded("10.1.2.3")) == Peer("", False)


def test_no_address() -> None:
    """A peer without an address that can be read may not ask."""
    with pytest.raises(Forbidden, match="--allow"):
        access("0.0.0.0/0,::/0").peer("somewhere", Headers())


@pytest.mark.parametrize(
    ("direct", "lines", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["192.168.1.1"], "192.168.1.1"),
        ("10.0.0.1", ["1.1.1.1, 192.168.1.1"], "192.168.1.1"),
        ("10.0.0.1", ["1.1.1.1", "192.168.1.1"], "192.168.1.1"),
        ("10.0.0.1", ["192.168.1.1, 10.0.0.2"], "192.168.1.1"),
        ("10.0.0.1", ["1.1.1.1, 192.168.1.1, 10.0.0.2 , 10.0.0.3"], "192.168.1.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense, 192.168.1.1,"], "192.168.1.1"),
        ("10.0.0.1", ["::ffff:192.168.1.1"], "192.168.1.1"),
        ("10.0.0.1", ["192.168.1.1:4711"], "192.168.1.1"),
        ("10.0.0.1", ["[fd12::1]:4711, 10.0.0.2:80"], "fd12::1"),
        ("10.0.0.1", ["[fd12::1]"], "fd12::1"),
        ("10.0.0.1", ["fd12::1"], "fd12::1"),
        ("::ffff:10.0.0.1", ["192.168.1.1"], "192.168.1.1"),
        ("fd00::5", ["192.168.1.1, ::ffff:10.0.0.2"], "192.168.1.1"),
        ("192.168.9.9", ["192.168.1.1"], "192.168.9.9"),
        ("192.168.9.9", ["nonsense"], "192.168.9.9"),
    ],
)
def test_forwarded_for(direct: str, lines: list[str], client: str) -> None:
    """The client is the rightmost address on the way that is not a trusted proxy; what strangers say is ignored."""
    rules = access("192.168.0.0/16,10.0.0.0/24,fd12::/16", PROXIES)
    assert rules.peer(direct, forwarded(*lines)).address == client


@pytest.mark.parametrize("text", ["unknown", "192.168.1.1, nonsense", "192.168.1.1;x", "192.168.1.1.1", "_hidden"])
def test_forwarded_nonsense(text: str) -> None:
    """A trusted proxy that says what is no address is not believed, nor is its own address taken instead."""
    with pytest.raises(BadRequest, match="X-Forwarded-For"):
        access("0.0.0.0/0", PROXIES).peer("10.0.0.1", forwarded(text))


def test_the_client_counts_not_the_proxy() -> None:
    """Through a trusted proxy only allowed clients may ask, and a client cannot make itself one."""
    rules = access("127.0.0.0/8", "127.0.0.1")
    assert rules.peer("127.0.0.1", Headers()) == Peer("127.0.0.1", True)
    assert rules.peer("127.0.0.1", forwarded("127.0.0.2")) == Peer("127.0.0.2", True)
    for line in ("192.168.1.1", "127.0.0.2, 192.168.1.1", "127.0.0.1, 192.168.1.1, 127.0.0.1"):
        with pytest.raises(Forbidden, match=r"192\.168\.1\.1"):
            rules.peer("127.0.0.1", forwarded(line))
    with pytest.raises(Forbidden, match=r"10\.0\.0\.1"):
        access("127.0.0.0/8").peer("10.0.0.1", forwarded("127.0.0.1"))


@given(st.lists(st.ip_addresses().map(str) | st.text(max_size=8), max_size=4), st.ip_addresses())
def test_any_way(hops: list[str], direct: Any) -> None:
    """However somebody came, the client is in an allowed network, or is refused."""
    rules = access("127.0.0.0/8,2000::/3", "0.0.0.0/1,fe80::/10")
    try:
        peer = rules.peer(str(direct), forwarded(", ".join(hops)))
    except (Forbidden, BadRequest):
        return
    assert rules.peer(peer.address, Headers())


# Under which name.

STRANGER, PROXY = Peer("192.168.1.1", False), Peer("192.168.1.1", True)


def reached(rules: Access, host: str | None, peer: Peer = STRANGER, secure: bool = False, **more: str) -> str:
    """The scheme and authority by which a client reached us."""
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    headers = Headers.of({**fields, **({} if host is None else {"Host": host})})
    return rules.host(headers, peer, secure, LOCAL)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("localhost", "localhost"),
        ("localhost:8650", "localhost:8650"),
        ("LocalHost.", "localhost"),
        ("ip6-localhost", "ip6-localhost"),
        ("127.0.0.1:8650", "127.0.0.1:8650"),
        ("127.0.0.1:08650", "127.0.0.1:8650"),
        ("127.9.9.9", "127.9.9.9"),
        ("[::1]:8650", "[::1]:8650"),
        ("[0:0::1]", "[::1]"),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ("10.0.0.9", "10.0.0.9"),
        ("10.0.0.9:80", "10.0.0.9"),
        ("[::ffff:10.0.0.9]", "10.0.0.9"),
        ("build", "build"),
        ("build.corp.example:8650", "build.corp.example:8650"),
        ("BUILD", "build"),
    ],
)
def test_own_names(host: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It answers under loopback's names, the machine's, long and short, and the address that was connected to.

    However they are spelled, links to it are spelled in one way.
    """
    monkeypatch.setattr("socket.gethostname", lambda: "Build.corp.example")
    assert reached(access(), host) == f"http://{shown}"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "build.evil.example",
        "corp.example",
        "10.0.0.8",
        "[fe80::1]",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        ":8650",
    ],
)
def test_other_names(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under any other name, which somebody's name server may have pointed here, it says so and names the option."""
    monkeypatch.setattr("socket.gethostname", lambda: "build.corp.example")
    with pytest.raises(MisdirectedHost, match="--hosts") as caught:
        reached(access(), host)
    assert caught.value.status == 421


def test_named_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named hosts take the place of the machine's name; loopback and the public URL's host are always right."""
    monkeypatch.setattr("socket.gethostname", lambda: "build")
    rules = access(hosts=("Cache.example", "10.0.0.7", "fd00:0::7"), public_url="https://Public.example:444/x/")
    for host in ("cache.example:1", "cache.example", "10.0.0.7", "[fd00::7]:81", "localhost", "public.example"):
        assert reached(rules, host) == f"http://{host}"
    for host in ("build", "sub.cache.example"):
        with pytest.raises(MisdirectedHost):
            reached(rules, host)
    assert reached(access(public_url="https://public.example/"), "build") == "http://build"


def test_any_name() -> None:
    """With a star it answers under any name, but still only under what can be one."""
    assert reached(access(hosts=("*",)), "anything.example:81") == "http://anything.example:81"
    with pytest.raises(BadRequest):
        reached(access(hosts=("*",)), "any thing")


@pytest.mark.parametrize(
    "host",
    [
        "user@localhost",
        "user:pw@localhost",
        "localhost/x",
        "localhost?x",
        "localhost#x",
        "local host",
        "local\thost",
        "localhost:x",
        "localhost:70000",
        "localhost:0",
        "[::1",
        "::1]",
        'localhost"',
        "<localhost>",
        "localhost\\x",
        "localhost, localhost",
        "lo\u00e7alhost",
    ],
)
def test_malformed_hosts(host: str) -> None:
    """A Host field that is none is refused, whoever sends it, and whatever names are allowed."""
    for rules in (access(), access(hosts=("*",))):
        with pytest.raises(BadRequest):
            reached(rules, host)


def test_long_hosts_are_not_remembered() -> None:
    """Whoever asks would choose how much memory that takes."""
    _host_of.cache_clear()
    with pytest.raises(BadRequest):
        access(hosts=("*",)).host(Headers.of({"host": "a" * 301}), Peer("::1", False), False, LOCAL)
    assert _host_of.cache_info().currsize == 0


def test_two_hosts() -> None:
    """A request with two Host fields could mean two things."""
    headers = Headers.of([("Host", "localhost"), ("Host", "localhost")])
    with pytest.raises(BadRequest, match="more than one"):
        access().host(headers, STRANGER, False, LOCAL)


def test_no_host() -> None:
    """A client that names no host gets links to the address it connected to."""
    assert reached(access(), None) == f"http://{LOCAL}"
    assert reached(access(), "") == f"http://{LOCAL}"
    assert access().host(Headers(), STRANGER, True, "[::1]:8650") == "https://[::1]:8650"


def test_scheme() -> None:
    """The scheme is the connection's; a trusted proxy's word counts more, a stranger's not at all."""
    rules = access()
    assert reached(rules, "localhost") == "http://localhost"
    assert reached(rules, "localhost", secure=True) == "https://localhost"
    assert reached(rules, "localhost", x_forwarded_proto="https") == "http://localhost"
    assert reached(rules, "localhost", PROXY, x_forwarded_proto="HTTPS") == "https://localhost"
    assert reached(rules, "localhost", PROXY, True, x_forwarded_proto="http") == "http://localhost"
    assert reached(rules, "localhost", PROXY, x_forwarded_proto="http, https") == "https://localhost"
    assert reached(rules, "localhost", PROXY, x_forwarded_proto="javascript") == "http://localhost"


def test_forwarded_host() -> None:
    """The name that a trusted proxy was asked under counts, if it is one of ours; a stranger's word does not."""
    rules = access(hosts=("cache.example",))
    assert reached(rules, "10.0.0.9", x_forwarded_host="cache.example") == "http://10.0.0.9"
    assert reached(rules, "10.0.0.9", PROXY, x_forwarded_host="cache.example:444") == "http://cache.example:444"
    assert reached(rules, "10.0.0.9", PROXY, x_forwarded_host="evil.example, cache.example") == "http://cache.example"
    assert reached(rules, "10.0.0.9", PROXY, x_forwarded_host="") == "http://10.0.0.9"
    with pytest.raises(MisdirectedHost):
        reached(rules, "10.0.0.9", PROXY, x_forwarded_host="evil.example")
    with pytest.raises(BadRequest):
        reached(rules, "10.0.0.9", PROXY, x_forwarded_host="a/b")


@given(st.text(st.characters(max_codepoint=255), max_size=20))
def test_any_host(text: str) -> None:
    """Whatever the Host field holds, it is refused or is fit to stand in a link."""
    for rules in (access(), access(hosts=("*",))):
        try:
            found = reached(rules, text)
        except RegCacheError:
            continue
        assert not set(found.removeprefix("http://")) & set(' \t\r\n/\\?#@"<>')


# By which URL.


@pytest.mark.parametrize(
    ("prefix", "path", "url"),
    [
        ("", "npm/", "http://localhost:8650/npm/"),
        ("/", "npm/", "http://localhost:8650/npm/"),
        ("/cache", "npm/", "http://localhost:8650/cache/npm/"),
        ("/cache/", "", "http://localhost:8650/cache/"),
        ("", "", "http://localhost:8650/"),
        ("/a%20b/c/", "pypi/", "http://localhost:8650/a%20b/c/pypi/"),
    ],
)
def test_base(prefix: str, path: str, url: str) -> None:
    """A registry's URL is what the client reached us by, the path we are mounted at, and the registry's own."""
    assert access().base("http://localhost:8650", prefix, path) == url


def test_public_base() -> None:
    """The public URL stands for everything before the registry's own path."""
    rules = access(public_url="https://public.example/x/")
    assert rules.base("http://localhost:8650", "/cache/", "npm/") == "https://public.example/x/npm/"


@pytest.mark.parametrize(
    ("listen", "path", "url"),
    [
        ((), "", "http://localhost:8000/"),
        ((Listen("tcp:8650"), Listen("tcp:8000", "npm")), "", "http://localhost:8000/"),
        ((Listen("tcp:8650"), Listen("tcp:8000", "npm")), "npm/", "https://public.example/npm/"),
        ((Listen("tcp:8000", "npm"),), "", "https://public.example/"),
    ],
)
def test_the_public_url_is_that_of_all_registries(listen: tuple[Listen, ...], path: str, url: str) -> None:
    """A registry alone on its own port has it only where there is no shared port."""
    rules = access(listen=listen, public_url="https://public.example/")
    assert rules.base("http://localhost:8000", "", path) == url
