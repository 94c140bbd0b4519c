"""The command ``doctor``."""

from __future__ import annotations

import argparse
import os
import resource

from regcache import registries
from regcache.commands.outcome import Code, Failed
from regcache.commands.output import Column, Output
from regcache.commands.running import running
from regcache.commands.stopped import DEFAULT_ENDPOINT
from regcache.commands.work import settings
from regcache.config import Config
from regcache.doctor import Finding, Level, Patient, diagnose
from regcache.doctor.finding import failure
from regcache.flow.upstream import origins_of
from regcache.places import admin_sockets, too_long

__all__ = ["doctor"]

_COLUMNS = (Column("", 7), Column("CHECK", 13), Column("FOUND"))


def doctor(said: argparse.Namespace, out: Output) -> Code:
    """What is wrong."""
    try:
        found = diagnose(_patient(settings(said)), said.timeout)
    except Failed as error:
        found = [failure("configuration", "", str(error), "mend that first: nothing else could be checked")]
    worst = max(found, key=lambda one: list(Level).index(one.level)).level
    code = {Level.OK: Code.DONE, Level.WARNING: Code.WARNINGS, Level.FAILURE: Code.NO}[worst]
    if out.as_json:
        out.result({"worst": worst.value, "findings": [one.as_json() for one in found]}, [])
    else:
        out.table(_COLUMNS, [[_row(one) for one in found]])
    return code


def _row(one: Finding) -> tuple[str, str, str]:
    told = f"{one.subject}: {one.told}" if one.subject else one.told
    return one.level.value, one.check, f"{told} To mend it: {one.mend}." if one.mend else told


def _patient(config: Config) -> Patient:
    made = {one.name: registries.make(one) for one in config.registries}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    path = admin_sockets(config.cache_dir, os.environ)[0]
    patient = Patient(
        config=config,
        environ=os.environ,
        origins={name: origins_of(one) for name, one in made.items()},
        endpoints=tuple(one.place for one in config.listen) or (DEFAULT_ENDPOINT,),
        # The service takes all that it may have.
        descriptors=1 << 20 if hard == resource.RLIM_INFINITY else hard,
        sockets={path: "the path of its admin socket is too long."} if too_long(path) else {},
    )
    service = running(config, os.environ)
    return patient if service is None else patient.as_told(service.ask("self"))
