"""What Prometheus scrapes: it is what happened, has bounded labels, and costs a hit nothing of the library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from regcache.counts import Histogram
from regcache.errors import DigestMismatch, UpstreamError
from regcache.metrics import FAMILIES
from regcache.pulse import Pulse
from regcache.testing import FakeRegistry, Page, make_cache
from tests.origin import Origin
from tests.service import Running
from tests.wire import Wire

#: In the order in which the tests name their values.
LABELS = ("registry", "outcome", "upstream", "where")
DOCS = Path(__file__).parent.parent / "docs"


def scraped(service: Running) -> dict[tuple[str, tuple[str, ...]], float]:
    """The values, by name and labels."""
    status, _, body = service.get("-/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = (sample.labels.get(label) for label in LABELS)
            found[sample.name, tuple(value for value in labels if value is not None)] = sample.value
    return found


def test_requests_bytes_and_times_are_what_happened(service: Running, registry: Origin) -> None:
    """A miss and then a hit of one artifact: counted by outcome, in bytes, on both sides, and in the store."""
    path, origin = "/left/-/left-1.0.0.tgz", registry.url.rstrip("/")
    before, size = scraped(service), len(registry.body(path))
    assert service.get(f"npm{path}")[1]["X-Cache"] == "MISS"
    service.until(f"npm{path}", "HIT")
    found = scraped(service)
    hits = found["regcache_requests_total", ("npm", "hit")]
    misses = found["regcache_requests_total", ("npm", "miss")]
    assert misses >= 1 <= hits
    assert found["regcache_sent_bytes_total", ("npm", "hit")] == found["regcache_spared_bytes_total", ("npm",)]
    assert found["regcache_sent_bytes_total", ("npm", "hit")] == hits * size
    assert found["regcache_request_duration_seconds_count", ("npm", "hit")] == hits
    assert found["regcache_upstream_request_duration_seconds_count", (origin,)] >= 1
    assert found["regcache_upstream_received_bytes_total", (origin,)] >= size
    assert found["regcache_upstream_breaker_open", (origin,)] == 0
    assert found["regcache_store_entries", ()] > before["regcache_store_entries", ()]
    assert found["regcache_store_writable", ()] == 1
    assert found["regcache_requests_in_flight", ()] == 1
    assert found["process_open_fds", ()] > 3


def test_strangers_make_no_labels(service: Running) -> None:
    """Whatever clients ask for, the labels are the registries' names, fixed outcomes and configured upstreams."""
    for path in ("none", "none/%00", 'x"}/y', "pypi/../none", "-/nothing"):
        service.get(path)
    for name, labels in scraped(service):
        if name == "regcache_requests_total":
            assert labels[0] in ("npm", "pypi", "-"), labels
            assert labels[1] in ("hit", "miss", "stale", "revalidated", "bypass", "error"), labels


def test_every_metric_is_there_from_the_start(service: Running) -> None:
    """Each family is told, with its kind and its help, in both of Prometheus's formats, by its conventions."""
    service.get("-/health")
    for accept, parse in (("text/plain", text_string_to_metric_families), (OPEN, open_families)):
        status, fields, body = service.get("-/metrics", accept=accept)
        assert (status, fields.get_content_type()) == (200, accept.partition(";")[0])
        families = {one.name: one for one in parse(body.decode()) if one.name.startswith("regcache_")}
        kinds = {one.name: one.type for one in families.values()}
        assert kinds == {name.removesuffix("_total"): family.kind for name, family in FAMILIES.items()}
    for name, family in FAMILIES.items():
        assert (family.kind == "counter") == name.endswith("_total"), name


OPEN = "application/openmetrics-text; version=1.0.0"


def test_only_reading(service: Running) -> None:
    """Nothing is changed there."""
    assert service.get("-/metrics?x=1")[0] == 200
    assert Wire().connect(b"POST /-/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").value().startswith(b"HTTP/1.1 405")


def test_the_page_is_not_for_everybody() -> None:
    """Whoever may not see the other pages of the service does not see this one."""
    for lines in (b"Host: evil.example\r\n", b"Host: localhost\r\nOrigin: http://evil.example\r\n"):
        sent = Wire().connect(b"GET /-/metrics HTTP/1.1\r\n" + lines + b"\r\n").value()
        health = Wire().connect(b"GET /-/health HTTP/1.1\r\n" + lines + b"\r\n").value()
        assert sent.split()[1] == health.split()[1], sent
        assert sent.split()[1] in (b"403", b"421"), sent
    sent = Wire().connect(b"GET /-/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", address="10.0.0.9").value()
    assert sent.startswith(b"HTTP/1.1 403")


def test_without_the_library() -> None:
    """The cache works, and the page says what to install."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from tests import ways; from tests.wire import Wire; ways.heed()\n"
        "sent = Wire().connect(b'GET /-/metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n').value()\n"
        "print(sent.decode())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=DOCS.parent, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("HTTP/1.1 404")
    assert "pip install prometheus-client" in ended.stdout


def test_a_hit_touches_nothing_of_the_library() -> None:
    """What answers requests does not so much as import it."""
    code = (
        "import sys; from tests import ways; from tests.wire import Wire; ways.heed()\n"
        "Wire().connect(b'GET /npm/ HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n"
        "sys.exit('prometheus_client' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=DOCS.parent, timeout=60).returncode == 0


def test_a_body_that_is_wrong_is_counted() -> None:
    """One that is not what the index says is a failure of verification, and an upstream that fails an error."""
    kit = make_cache()
    kit.upstream.pages["http://registry.test/index"] = Page(body=json.dumps({"a": "0" * 64}).encode())
    kit.upstream.pages["http://registry.test/files/a"] = Page(body=b"something else" * 1000)
    counts = kit.cache.context.upstream.counts
    asked: list[Any] = []
    kit.ask("/index").addBoth(asked.append)
    with pytest.raises(DigestMismatch):
        kit.get("/files/a")
    assert counts.unverified == 1
    assert isinstance(kit.registry, FakeRegistry)
    errors = counts.upstream("http://registry.test").errors
    kit.upstream.down = True
    with pytest.raises(UpstreamError):
        kit.get("/files/b")
    assert counts.upstream("http://registry.test").errors > errors


def test_requests_that_join_another_are_counted() -> None:
    """Of three for one artifact at once, two spare the upstream a request."""
    kit = make_cache()
    kit.upstream.hangs = True
    for _ in range(3):
        kit.ask("/files/a").addErrback(lambda _: None)
    kit.clock.advance(1000)
    assert kit.cache.context.upstream.counts.coalesced["fake"] >= 2


def test_histogram() -> None:
    """A bound belongs to the range below it; what is above all of them is counted as well."""
    made = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        made.observe(value)
    assert (made.counts, made.total) == ([2, 1, 1], 12.0)


def test_the_reactor_is_seen_to_be_late() -> None:
    """A turn that took long makes the next beat late by that much; once stopped there is no timer."""
    clock = Clock()
    seen: list[float] = []
    pulse = Pulse(clock, 1.0, seen.append)
    pulse.start()
    clock.advance(1.0)
    clock.advance(3.5)
    assert seen == [0.0, 2.5]
    pulse.stop()
    assert clock.getDelayedCalls() == []


def test_the_documentation_tells_every_metric() -> None:
    """The table is made from the code; the labels and the alerts are what it has."""
    text = (DOCS / "metrics.md").read_text("utf-8")
    assert "{from-code} metrics" in text
    labels = set(re.findall(r"^\| `([a-z]+)` \| [^|]+ \|$", text, re.MULTILINE))
    assert labels == {label for family in FAMILIES.values() for label in family.labels}
    assert series(text) <= SERIES


def test_the_dashboard_asks_for_what_there_is() -> None:
    """Every expression names metrics and labels that exist, and every metric has a place."""
    board = json.loads((DOCS / "grafana" / "regcache.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [one["definition"] for one in board["templating"]["list"] if "definition" in one]
    used = {one for text in asked for one in series(text)}
    assert used <= SERIES
    assert {name for name in FAMILIES if any(one.startswith(name) for one in used)} == set(FAMILIES)
    for text in asked:
        for name, inside in re.findall(r"(regcache_\w+)\{([^}]*)\}", text):
            family = FAMILIES[name.removesuffix("_bucket")]
            assert set(re.findall(r"(\w+)(?:=~|!=|=)", inside)) <= {*family.labels, "job", "instance"}, text
    places = [panel["gridPos"] for panel in board["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)


#: What can be asked for in a query: histograms as what they are made of.
SERIES = {
    series
    for name, family in FAMILIES.items()
    for series in ([f"{name}_{part}" for part in ("bucket", "sum", "count")] if family.kind == "histogram" else [name])
}


def series(text: str) -> set[str]:
    """What is asked for in a text, the plain names in tables left out."""
    return set(re.findall(r"(?<![`\w])regcache_\w+", text))
