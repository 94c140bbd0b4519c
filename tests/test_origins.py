"""The allow-list of hosts that a registry may contact."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.errors import ConfigError
from regcache.flow.upstream import _origin_of as _named
from regcache.flow.upstream import origin_of
from regcache.http.origins import Origin, Origins, _origin_of
from regcache.http.paths import _quoted, quote

UPSTREAM = "https://index.example/simple/"


@pytest.mark.parametrize(
    "url",
    [
        "https://index.example/other",
        "https://INDEX.Example:443/x",
        "https://index.example:/x",
        "https://cdn.example.org/a",
        "https://a.b.files.example/x",
        "http://10.0.0.1:8080/x",
        "https://10.0.0.1:8080/x",
        "https://[::1]:8443/x",
        "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/",
        "https://XN--bcher-kva.example/",
    ],
)
def test_allowed(url: str) -> None:
    """The upstream's own origin and whatever a pattern names may be contacted, in any spelling."""
    patterns = ["cdn.example.org", "*.Files.Example", "10.0.0.1:8080", "[::1]:8443", "bücher.example"]
    assert Origins.of([UPSTREAM], patterns).allows(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://index.example/simple/",
        "https://index.example:444/",
        "https://files.example/",
        "https://evilfiles.example/",
        "https://a.files.example:8443/",
        "http://a.files.example/",
        "http://cdn.example.org/",
        "https://cdn.example.org.evil.example/",
        "https://user@index.example/",
        "https://user:token@index.example/",
        "https://index.example@evil.example/",
        "https://evil.example\\@index.example/",
        "https://evil.example\\.index.example/",
        "https://index.example\t/",
        " https://index.example/",
        "https://index.example%2eevil/",
        "https://index.example./",
        "https://index.example:99999/",
        "https://[::1/",
        "https://[index.example]/",
        "//index.example/",
        "/simple/",
        "ftp://index.example/",
        "file:///etc/passwd",
        "https:///simple/",
        "https:index.example/",
        "https://index.example/\ud800",
        "https://" + "\xfc." * 200 + "example/",
        "",
    ],
)
def test_refused(url: str) -> None:
    """Any other origin, user information and all that parsers read differently is refused."""
    assert not Origins.of([UPSTREAM], ["cdn.example.org", "*.files.example"]).allows(url)


def test_plain_http_upstream() -> None:
    """A pattern without a port stands for plain http as well only where the upstream is plain http itself."""
    origins = Origins.of(["http://index.example:8081/simple/"], ["cdn.example.org", "*.files.example"])
    assert origins.allows("http://cdn.example.org/x")
    assert origins.allows("http://a.files.example/x")
    assert origins.allows("https://cdn.example.org/x")
    assert not origins.allows("http://index.example/x")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "*.",
        "*.*.example",
        "https://files.example",
        "files.example/",
        "user@files.example",
        "files.example:",
        "files.example:0",
        "files.example:x",
        "files.example:70000",
        "*.files.example:8080",
        "fi les.example",
        "files..example",
        "-files.example",
        "[::1",
        "\N{SNOWMAN}\N{ZERO WIDTH JOINER}.example",
    ],
)
def test_bad_pattern(pattern: str) -> None:
    """A pattern that is none of the three forms is refused by its name."""
    with pytest.raises(ConfigError) as caught:
        Origins.of([UPSTREAM], [pattern])
    assert repr(pattern) in caught.value.detail


def test_bad_url() -> None:
    """An upstream with credentials in its URL is refused without repeating them."""
    with pytest.raises(ConfigError) as caught:
        Origins.of(["https://user:secret@index.example/simple/"])
    assert "index.example" in caught.value.detail
    assert "secret" not in caught.value.detail


def test_authority() -> None:
    """The authority names the port only where it is not the scheme's own, and brackets IPv6 addresses."""
    texts = ["https://A.example:443/", "http://a.example:443/", "http://[::1]/x", "https://[::1]:8443/x"]
    found = [origin.authority for text in texts if (origin := Origin.of(text))]
    assert found == ["a.example", "a.example:443", "[::1]", "[::1]:8443"]


@given(st.text(alphabet="ab.:/@?#[]%-1", max_size=20), st.text(alphabet="ab/?#:@[].", max_size=10))
def test_what_follows_changes_nothing(text: str, rest: str) -> None:
    """The origin stands at the beginning of a URL, whatever comes after the host."""
    assert Origin.of(f"http://{text}/{rest}") == Origin.of(f"http://{text}/")


@given(st.text(alphabet="abc.:/@\\?#[]%- \t\n0*é", max_size=30))
def test_nothing_slips_through(text: str) -> None:
    """However a URL is scrambled, what is allowed has the upstream's host right behind the scheme."""
    url = "https://" + text
    if Origins.of(["https://abc.a/"]).allows(url):
        assert url[:13].lower() == "https://abc.a"
        assert url[13:14] in ("", "/", "?", "#", ":")


def test_nothing_long_is_remembered() -> None:
    """Whoever writes a registry's pages would choose how much memory that takes."""
    _origin_of.cache_clear()
    assert Origin.of(f"https://{'a' * 1000}.example/x") is None
    assert Origin.of(f"https://ann:{'a' * 1000}@a.example/x") is None
    assert Origin.of(f"{'a' * 1000}://a.example/x") is None
    assert _origin_of.cache_info().currsize == 0
    assert Origin.of("https://" + ".".join(["a" * 63] * 3) + ".example:65535/" + "x" * 1000) is not None


@pytest.mark.parametrize(
    ("of", "memory", "beginning"),
    [(origin_of, _named, "https://a.example/"), (quote, _quoted, "+")],
)
def test_long_urls_are_read_each_time(of: Any, memory: Any, beginning: str) -> None:
    """They are as good as others, and remembered by none."""
    memory.cache_clear()
    assert of(f"{beginning}{'x' * 900}")
    assert memory.cache_info().currsize == 1
    assert of(f"{beginning}{'x' * 2000}")
    assert memory.cache_info().currsize == 1
