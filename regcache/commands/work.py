"""What each command does: it returns how the program ends."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

from regcache import registries
from regcache.commands import telling
from regcache.commands.outcome import Code, Failed
from regcache.commands.output import Output
from regcache.commands.running import Running, running
from regcache.commands.stopped import Stopped, opened
from regcache.config import Config, load
from regcache.errors import ConfigError
from regcache.words import counted, sized

__all__ = ["ls", "purge", "refresh", "settings", "show", "status", "verify"]

_GIVEN = ("config", "cache_dir", "registries", "listen", "public_url")


def settings(said: argparse.Namespace) -> Config:
    """
    The configuration, as the service would read it.

    :raises Failed: if it is wrong.
    """
    given = {name.replace("_", "-"): getattr(said, name, None) for name in _GIVEN}
    options: dict[str, str | list[str]] = {name: value for name, value in given.items() if value}
    try:
        return load(options, os.environ, lambda kind: registries.factory(kind).option_names)
    except ConfigError as error:
        raise Failed(error.detail, Code.USAGE) from None


@contextlib.contextmanager
def _cache(said: argparse.Namespace, *, stopped: bool = True) -> Iterator[Running | Stopped]:
    """
    The running service, or the cache alone where none runs.

    :param stopped: whether that will do.
    """
    config = settings(said)
    service = running(config, os.environ)
    if service is not None:
        yield service
    elif stopped:
        with opened(config) as cache:
            yield cache
    else:
        raise Failed(f"No service runs on {config.cache_dir}.", Code.NOT_RUNNING)


def _parts(cache: Running | Stopped, command: str, **asked: str) -> Generator[Any, None, None]:
    """What is answered, part by part until the last."""
    after: str | None = ""
    while after is not None:
        part = cache.ask(command, after=after, **asked)
        yield part
        after = part["next"]


def status(said: argparse.Namespace, out: Output) -> Code:
    """How the service is."""
    try:
        with _cache(said, stopped=False) as cache:
            found = cache.ask("status")
    except Failed as error:
        if out.as_json and error.code is Code.NOT_RUNNING:
            out.result({"running": False}, [])
        raise
    out.pairs(found, telling.status(found))
    return Code.DONE


def ls(said: argparse.Namespace, out: Output) -> Code:
    """What is stored."""
    with _cache(said) as cache:
        parts = (part["entries"] for part in _parts(cache, "ls", pattern=telling.meant(said.pattern)))
        first = next(parts)
        if said.pattern and not first:
            raise _nothing(said)

        def whole() -> Iterator[Any]:
            yield first
            yield from parts

        if out.as_json:
            out.listed(whole())
        else:
            out.table(telling.ENTRY_COLUMNS, map(telling.entries, whole()))
    return Code.DONE


def show(said: argparse.Namespace, out: Output) -> Code:
    """An entry."""
    if not said.name:
        raise Failed("An empty name is nothing's; 'regcache ls' lists what is stored.", Code.USAGE)
    with _cache(said) as cache:
        found = cache.ask("show", name=telling.meant(said.name))
    out.pairs(found, telling.entry(found))
    return Code.NO if found.get("wrong") else Code.DONE


def purge(said: argparse.Namespace, out: Output) -> Code:
    """Forget entries."""
    tally = {"entries": 0, "bytes": 0}

    def keys(parts: Iterator[Any]) -> Iterator[list[str]]:
        for part in parts:
            tally["entries"] += len(part["purged"])
            tally["bytes"] += part["bytes"]
            yield part["purged"]

    with _cache(said) as cache:
        found = keys(_parts(cache, "purge", pattern=_meant(said), metadata="1" if said.metadata else ""))
        first = next(found)
        if not first:
            raise _nothing(said)

        def whole() -> Iterator[list[str]]:
            yield first
            yield from found

        if out.as_json:
            out.listed(whole(), '{"purged": [', lambda: f'], "bytes": {tally["bytes"]}}}')
        else:
            with out.progress("entries") as tell:
                for _ in whole():
                    tell(tally["entries"], tally["entries"])
            told = counted(tally["entries"], "entry", "entries")
            out.result(None, [f"Forgotten: {told}, {sized(tally['bytes'])}."])
    return Code.DONE


def refresh(said: argparse.Namespace, out: Output) -> Code:
    """Ask registries for documents."""
    outcomes: dict[str, str] = {}
    with _cache(said, stopped=False) as cache, out.progress("documents") as tell:
        for part in _parts(cache, "refresh", pattern=_meant(said)):
            outcomes |= part["refreshed"]
            tell(len(outcomes), len(outcomes))
    if not outcomes:
        raise Failed(f"No document that is stored is like {said.pattern!r}.")
    out.result({"refreshed": outcomes}, telling.refreshed(outcomes))
    return Code.NO if any(one.startswith("failed") for one in outcomes.values()) else Code.DONE


def verify(said: argparse.Namespace, out: Output) -> Code:
    """Read every body."""
    damaged: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    with _cache(said) as cache, out.progress("bodies") as tell, contextlib.closing(cache.verify(said.repair)) as steps:
        for step in steps:
            if "checked" in step:
                result = {**step, "damaged": damaged, "repaired": bool(damaged and said.repair)}
                continue
            tell(step["done"], step["of"])
            if step["wrong"]:
                again = {"refetched": step["refetched"]} if "refetched" in step else {}
                damaged.append({"digest": step["digest"], "wrong": step["wrong"], **again})
    out.result(result, telling.verified(result, repair=said.repair))
    failed = any(told.startswith("failed") for one in damaged for told in one.get("refetched", {}).values())
    return Code.NO if damaged and (failed or not said.repair) else Code.DONE


def _meant(said: argparse.Namespace) -> str:
    if not said.pattern:
        raise Failed("An empty pattern would mean everything; '*' says so.", Code.USAGE)
    return telling.meant(said.pattern)


def _nothing(said: argparse.Namespace) -> Failed:
    return Failed(f"Nothing that is stored is like {said.pattern!r}.")


#: A command.
Command = Callable[[argparse.Namespace, Output], Code]
