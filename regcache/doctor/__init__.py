"""
What is wrong, and how to mend it: the machine, the network and the service, each check with a deadline of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from regcache.config import Config
from regcache.doctor import itself, machine, surroundings, upstreams
from regcache.doctor.finding import Finding, Level, failure, ok
from regcache.doctor.together import together
from regcache.doctor.upstreams import Probed
from regcache.errors import ConfigError
from regcache.http.proxies import DIRECT, Proxies

__all__ = ["Finding", "Level", "Patient", "diagnose"]


@frozen(kw_only=True)
class Patient:
    """
    What is looked at.

    :ivar environ: the service's own environment where one runs, else this process's.
    :ivar origins: those of the upstreams, by registry.
    :ivar endpoints: what a service would listen on; empty where one runs.
    :ivar bases: where a running one is reached, by registry.
    :ivar pid: of a running one; 0 where none runs.
    :ivar descriptors: how many a service that is started here may have.
    :ivar sockets: why its admin socket cannot be used, by path.
    """

    config: Config
    environ: Mapping[str, str]
    origins: Mapping[str, list[str]]
    endpoints: tuple[str, ...] = ()
    bases: tuple[tuple[str, str], ...] = ()
    pid: int = 0
    descriptors: int = 0
    sockets: Mapping[str, str] = {}

    def as_told(self, said: Mapping[str, Any]) -> Patient:
        """The same, as a running service says of itself."""
        known = {name: said[name] for name in ("offline", "upstream_ca", "min_free", "max_size")}
        return evolve(
            self,
            config=evolve(self.config, **known),
            environ=_environ_of(said["pid"]) or self.environ,
            origins=said["origins"],
            endpoints=(),
            bases=tuple((name, base) for name, base in said["bases"]),
            pid=said["pid"],
        )


def _environ_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where that cannot be seen."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(one).partition("=") for one in raw.split(b"\0") if b"=" in one)
    return {name: value for name, _, value in pairs}


def diagnose(patient: Patient, seconds: float) -> list[Finding]:
    """
    All that is found.

    :param seconds: the most that each check may take, all at the same time.
    """
    config, origins = patient.config, list(dict.fromkeys(one for urls in patient.origins.values() for one in urls))
    checks: dict[str, Callable[[], list[Finding] | Probed]] = {
        "configuration": lambda: surroundings.configuration(config, patient.environ),
        "proxies": lambda: surroundings.proxies(patient.environ, origins),
    }
    if not config.offline:
        checks |= {f"upstream {url}": _probing(patient, url, seconds) for url in origins}
    checks["disk"] = lambda: machine.disk(Path(config.cache_dir), config.min_free, config.max_size)
    checks["descriptors"] = lambda: _descriptors(patient)
    checks |= _service(patient, seconds)
    # Each has a deadline of its own that tells more; this one is for what cannot be cut short.
    found = together(checks, seconds + 1)
    findings: list[Finding] = []
    offsets: dict[str, float] = {}
    for name, result in found.items():
        if isinstance(result, Probed):
            findings += result.findings
            if result.offset is not None:
                offsets[name.partition(" ")[2]] = result.offset
        elif isinstance(result, Exception):
            check, _, subject = name.partition(" ")
            told = str(result) or type(result).__name__
            findings.append(failure(check, subject, told, "see what holds it up: a name server, a disk or a network"))
        else:
            findings += result
    if config.offline:
        return [*findings, ok("upstream", "", "the cache is offline: none is asked.")]
    return [*findings, *upstreams.clock(offsets)]


def _probing(patient: Patient, url: str, seconds: float) -> Callable[[], Probed]:
    config = patient.config
    try:
        proxies = Proxies.of(patient.environ)
    except ConfigError:
        proxies = DIRECT
    of = next(name for name, urls in patient.origins.items() if url in urls)
    said = config.credentials.get(of)
    certified = (said.certificate, said.key) if said is not None and said.certificate else None
    return lambda: upstreams.probe(url, proxies, config.upstream_ca, seconds, certified)


def _descriptors(patient: Patient) -> list[Finding]:
    most, used = machine.limit_of(patient.pid) or (0, 0) if patient.pid else (patient.descriptors, 0)
    if not most:
        return [ok("descriptors", "", "cannot be seen on this system.")]
    return machine.descriptors(most, used, patient.config.max_connections)


def _service(patient: Patient, seconds: float) -> dict[str, Callable[[], list[Finding] | Probed]]:
    if not patient.pid:
        return {"service": lambda: itself.free(patient.endpoints, patient.sockets)}

    def health(base: str, name: str) -> Callable[[], list[Finding]]:
        return lambda: itself.health(base, name, seconds)

    def answers(base: str, name: str) -> Callable[[], list[Finding]]:
        return lambda: itself.answers(base, name, seconds)

    roots = {base.removesuffix(f"{name}/"): (base, name) for name, base in patient.bases}
    return {
        "service": lambda: [ok("service", "", f"runs as process {patient.pid}.")],
        **{f"service {root}": health(*place) for root, place in roots.items()},
        **{f"service {base}": answers(base, name) for name, base in patient.bases},
    }
