"""
What is counted, as Prometheus reads it.

Nothing of the library is touched while requests are answered: the samples are made from plain numbers when they are
asked for, in a registry of the library that lives as long as that one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from attrs import field, frozen
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from regcache._version import __version__
from regcache.counts import OTHER, Asked, Counts, Histogram
from regcache.flow.reply import Reply
from regcache.http.messages import Headers

__all__ = ["FAMILIES", "Family", "Scene", "rendered"]


@frozen
class Family:
    """One metric: ``counter``, ``gauge`` or ``histogram``; its labels; what it says, in one line."""

    kind: str
    labels: tuple[str, ...]
    help: str


_REGISTRY, _ANSWER, _UPSTREAM = ("registry",), ("registry", "outcome"), ("upstream",)
#: Every metric of ours, by name as it is scraped.
FAMILIES: Mapping[str, Family] = {
    "regcache_build_info": Family("gauge", ("version",), "Always 1; the version that runs."),
    "regcache_requests_total": Family("counter", _ANSWER, "Requests that were answered, by outcome."),
    "regcache_request_duration_seconds": Family("histogram", _ANSWER, "Time from a request's head to its last byte."),
    "regcache_sent_bytes_total": Family("counter", _ANSWER, "Bytes of bodies sent to clients."),
    "regcache_spared_bytes_total": Family("counter", _REGISTRY, "Bytes sent that the upstream did not have to send."),
    "regcache_stale_answers_total": Family("counter", _REGISTRY, "Stored copies sent since the upstream failed."),
    "regcache_coalesced_requests_total": Family("counter", _REGISTRY, "Requests that joined one under way upstream."),
    "regcache_requests_in_flight": Family("gauge", (), "Requests that are being answered."),
    "regcache_fetches_in_flight": Family("gauge", (), "Artifacts that are being fetched."),
    "regcache_upstream_request_duration_seconds": Family(
        "histogram", _UPSTREAM, "Time from a request to an upstream until the head of its answer."
    ),
    "regcache_upstream_errors_total": Family("counter", _UPSTREAM, "Requests with no answer, or 429, or a 5xx."),
    "regcache_upstream_received_bytes_total": Family("counter", _UPSTREAM, "Bytes of bodies that came."),
    "regcache_upstream_breaker_open": Family("gauge", _UPSTREAM, "1 while the upstream is known to be in trouble."),
    "regcache_store_bytes": Family("gauge", (), "Bytes that the stored bodies take on the disk."),
    "regcache_store_limit_bytes": Family("gauge", (), "The most that they may take; 0 for no limit."),
    "regcache_store_entries": Family("gauge", (), "Entries in the store."),
    "regcache_store_writable": Family("gauge", (), "1 while something can be stored."),
    "regcache_evictions_total": Family("counter", (), "Entries that made room for others."),
    "regcache_verification_failures_total": Family(
        "counter", ("where",), "Bodies that were not what they should be: when fetched, or found in the store."
    ),
    "regcache_access_log_lost_lines_total": Family("counter", (), "Lines of the access log that were not written."),
    "regcache_reactor_lag_seconds": Family(
        "histogram", (), "By how much the reactor was late, looked at every second."
    ),
}


@frozen(kw_only=True)
class Scene:
    """
    How the service is at this moment.

    :ivar registries: the origins of the upstreams of each registry whose numbers may be told.
    :ivar usage: bytes and entries in the store.
    :ivar limit: bytes that it may have; 0 for any.
    :ivar writable: whether something can be stored.
    :ivar answering: requests that are being answered.
    :ivar fetching: artifacts that are being fetched.
    :ivar lost_lines: lines of the access log that could not be written.
    :ivar in_trouble: whether the breaker of an origin is open.
    """

    registries: Mapping[str, Iterable[str]]
    usage: tuple[int, int]
    limit: int
    writable: bool
    answering: int
    fetching: int
    lost_lines: int
    in_trouble: Callable[[str], bool] = field(repr=False)


#: The values of a metric's labels, and its value.
_Values = Iterable[tuple[tuple[str, ...], float]]


class _Samples(Collector):
    def __init__(self, counts: Counts, scene: Scene, own: str) -> None:
        self._counts, self._scene = counts, scene
        names = {*scene.registries, own}
        self._answers = {labels: one for labels, one in counts.answers.items() if labels[0] in names}
        closed = set(counts.upstreams) - {one for urls in scene.registries.values() for one in urls}
        # What several have in common is told to whoever may read all of them.
        told = counts.upstreams if not closed - {OTHER} else set(counts.upstreams) - closed
        self._upstreams: dict[str, Asked] = {origin: counts.upstreams[origin] for origin in told}

    def collect(self) -> Iterator[Metric]:
        for name, values in self._plain():
            family = FAMILIES[name]
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            made = kind(name, family.help, labels=family.labels)
            for labels, value in values:
                made.add_metric(labels, value)
            yield made
        answers = [(labels, one.seconds) for labels, one in self._answers.items()]
        yield _histogram("regcache_request_duration_seconds", answers)
        asked = [((origin,), one.seconds) for origin, one in self._upstreams.items()]
        yield _histogram("regcache_upstream_request_duration_seconds", asked)
        yield _histogram("regcache_reactor_lag_seconds", [((), self._counts.lag)])

    def _plain(self) -> Iterator[tuple[str, _Values]]:
        counts, scene, upstreams = self._counts, self._scene, self._upstreams
        yield "regcache_build_info", [((__version__,), 1)]
        yield "regcache_requests_total", [(labels, sum(one.seconds.counts)) for labels, one in self._answers.items()]
        yield "regcache_sent_bytes_total", [(labels, one.sent) for labels, one in self._answers.items()]
        yield "regcache_spared_bytes_total", [((name,), counts.spared(name)) for name in scene.registries]
        yield "regcache_stale_answers_total", [((name,), counts.number(name, "stale")) for name in scene.registries]
        yield "regcache_coalesced_requests_total", [((name,), counts.coalesced[name]) for name in scene.registries]
        yield "regcache_requests_in_flight", [((), scene.answering)]
        yield "regcache_fetches_in_flight", [((), scene.fetching)]
        yield "regcache_upstream_errors_total", [((origin,), one.errors) for origin, one in upstreams.items()]
        yield "regcache_upstream_received_bytes_total", [((origin,), one.received) for origin, one in upstreams.items()]
        open_now = [((origin,), int(scene.in_trouble(origin))) for origin in upstreams if origin != OTHER]
        yield "regcache_upstream_breaker_open", open_now
        yield "regcache_store_bytes", [((), scene.usage[0])]
        yield "regcache_store_limit_bytes", [((), scene.limit)]
        yield "regcache_store_entries", [((), scene.usage[1])]
        yield "regcache_store_writable", [((), int(scene.writable))]
        yield "regcache_evictions_total", [((), counts.evicted)]
        failures = [(("fetched",), counts.unverified), (("stored",), counts.damaged)]
        yield "regcache_verification_failures_total", failures
        yield "regcache_access_log_lost_lines_total", [((), scene.lost_lines)]


def _histogram(name: str, values: Iterable[tuple[tuple[str, ...], Histogram]]) -> HistogramMetricFamily:
    made = HistogramMetricFamily(name, FAMILIES[name].help, labels=FAMILIES[name].labels)
    for labels, one in values:
        names = [*map(floatToGoString, one.bounds), "+Inf"]
        made.add_metric(labels, list(zip(names, accumulate(one.counts), strict=True)), one.total)
    return made


def rendered(counts: Counts, scene: Scene, own: str, accept: str) -> Reply:
    """
    The page for Prometheus, in the format that it asks for.

    :param own: the label of requests that are no registry's.
    :param accept: the value of the request's Accept field.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(counts, scene, own))
    ProcessCollector(registry=registry)
    encode, kind = choose_encoder(accept)
    headers = Headers.of({"content-type": kind, "cache-control": "no-store"})
    return Reply(status=200, headers=headers, body=encode(registry))
