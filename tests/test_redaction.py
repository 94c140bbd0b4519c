"""What is never shown: secrets in URLs and header fields, in logs, in the access log and in what clients are told."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure

from regcache import errors
from regcache.errors import ConfigError, UpstreamError, shown
from regcache.lines import FORMATS, Line
from regcache.logs import Log
from tests.origin import Origin
from tests.service import Running
from tests.test_web import get, send

SECRET = "hunter2/+=Zz9"
TEXTS = [
    "https://user:{}@host/path",
    "https://{}@host/path",
    "GET http://user:{}@host/ HTTP/1.1",
    "see https://host/x?token={}&page=2",
    "https://host/x?a=1&X-Amz-Signature={}&page=2",
    "https://host/x?X-Amz-Credential={}",
    "https://host/x?X-Amz-Security-Token={}",
    "https://host/x?sig={}&se=2026",
    "https://host/x?access_key={}",
    "https://host/x?a=1;password={}",
    "//host/npm/:_authToken={}",
    "//host/npm/:_auth = {}",
    "//host/npm/:_password={}",
    "Authorization: Bearer {}",
    "Proxy-Authorization: Basic {}",
    "authorization={}",
    "{{'Authorization': '{}'}}",
    "Set-Cookie: session={}; Secure",
    "it sent Bearer {} along",
    "it sent basic {} along",
]


@pytest.mark.parametrize("text", TEXTS)
def test_secrets(text: str) -> None:
    """None is shown, however it stands in a text; what says where it was is."""
    secret = SECRET.replace("/", "") if "@" in text else SECRET
    secret = secret.replace("+", "") if "?" in text else secret
    told = shown(text.format(secret))
    assert "hunter2" not in told
    assert "Zz9" not in told
    assert "..." in told


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8650/@scope/name?page=2",
        "/npm/@scope%2fname/-/name-1.0.0.tgz",
        "the basic form",
        "https://host/simple/token/",
        "/pypi/simple/bearer/",
        "a password is missing",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    """It is shown as it is."""
    assert shown(text) == text


def test_what_is_cut_off() -> None:
    """A secret is not shown because the text was cut before what tells it."""
    for length in range(960, 1040):
        told = shown("x" * length + "https://user:hunter2@host/" + "y" * 5000)
        assert "hunter" not in told
        assert len(told) <= 1000


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """It is one line of what can be printed, and showing it again changes nothing of that."""
    assert shown(text).isprintable()


def test_every_way_out() -> None:
    """Errors, log fields and lines of the access log go through the same."""
    url = "https://user:hunter2@host/x?token=hunter2"
    assert "hunter2" not in ConfigError(url).detail + UpstreamError(url).text
    line = Line(when=0.0, method="GET", target=url, status=200, outcome="hit", seconds=0.0)
    assert "hunter2" not in "".join(form(line) for form in FORMATS.values())
    told = io.StringIO()
    observer = textFileLogObserver(told)
    globalLogPublisher.addObserver(observer)
    try:
        Log().error("{url} and {error}", url=url, error=OSError(url))
    finally:
        globalLogPublisher.removeObserver(observer)
    assert "host/x" in told.getvalue()
    assert "hunter2" not in told.getvalue()


def test_a_bug_is_told_with_its_place() -> None:
    """Where it happened is what there is to mend; the text of the error is shown as any is."""
    told = io.StringIO()
    observer = textFileLogObserver(told)
    globalLogPublisher.addObserver(observer)
    try:
        for failure in (None, Failure(OSError("https://user:hunter2@host/\nlast"))):
            try:
                raise OSError("https://user:hunter2@host/\nlast")
            except OSError:
                Log().failure("A bug ended {what}.", failure=failure, what="it")
    finally:
        globalLogPublisher.removeObserver(observer)
    lines = told.getvalue().splitlines()
    assert "test_a_bug_is_told_with_its_place" in told.getvalue()
    assert sum("A bug ended it." in line for line in lines) == 2
    assert sum(line.endswith(r"OSError: https://...@host/\nlast") for line in lines) == 2


PATHS = {
    "a query of the client's": get("/npm/left?token=hunter2"),
    "an absolute form": get("http://user:hunter2@localhost/npm/left"),
    "no registry": get("/none/x?password=hunter2"),
    "a field": get("/npm/left", "Authorization: Bearer hunter2hunter2"),
    "a user": get("/npm/left", "Authorization: Basic dXNlcjpodW50ZXIy"),
    "a cookie": get("/npm/left", "Cookie: session=hunter2"),
    "a foreign page": get("/npm/left", "Origin: http://user:hunter2@evil.example"),
    "a host": get("/npm/left", "Host: user:hunter2@localhost"),
    "a link past the cache": get("/pypi/simple/linked/"),
    "a redirect": get("/npm/moved"),
    "a failing registry": get("/npm/failing?sig=hunter2"),
}


def test_a_running_service(tmp_path: Path, origin: Origin) -> None:
    """Whatever comes from clients or from registries, neither logs nor answers repeat the secrets in it."""
    origin.add_tarball("left", "1.0.0")
    origin.add("/moved", b"x", "application/json")
    page = b'<a href="https://user:hunter2@other.example/x.whl?token=hunter2">x</a>'
    origin.add("/simple/linked/", page, "text/html")
    origin.spoil = lambda path, answer: (500, "text/plain", b"Bearer hunter2hunter2") if "failing" in path else answer
    log = tmp_path / "access.log"
    service = Running(tmp_path, origin, "--access-log", str(log), "--access-log-hits", "--strict-links")
    try:
        for name, raw in PATHS.items():
            status, fields, body = send(service, raw)
            assert b"hunter2" not in body, name
            assert "hunter2" not in repr(fields), name
            assert b"dXNlcjpodW50ZXIy" not in body
            assert status in (200, 400, 403, 404, 421, 502, 504), name
        said = service.said + service.stop() + log.read_text()
    finally:
        service.kill()
    assert "hunter2" not in said
    assert "dXNlcjpodW50ZXIy" not in said
    assert len(log.read_text().splitlines()) >= len(PATHS) - 1


@given(
    st.lists(
        st.sampled_from([*"bBaSic\u017f\u0130\u0131x_ =:@\n", "basic", "BASIC ", "bearer\t", "earer ", "éBasic "]),
        max_size=8,
    )
)
def test_what_tells_of_a_secret(pieces: list[str]) -> None:
    """It is looked for in a quicker way than it is said here."""
    text = "".join(pieces)
    plainly = re.search(r"(?i)[=:@]|\b(?:basic|bearer)\s", text)
    assert (errors._TELLING.search(text) is None) is (plainly is None)
