"""The command ``client-config``: the lines for clients, or the clients' own files."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regcache.clients import Client, clients_of
from regcache.clients.files import NoBackup, changed, difference, undone, written
from regcache.clients.malformed import Malformed
from regcache.commands.outcome import Code, Failed
from regcache.commands.output import Output
from regcache.commands.running import running
from regcache.commands.stopped import client_config as from_configuration
from regcache.commands.work import settings

__all__ = ["client_config"]


def client_config(said: argparse.Namespace, out: Output) -> Code:
    """Point clients at a registry."""
    config = settings(said)
    service = running(config, os.environ)
    if service and (said.registries or said.listen or said.public_url):
        told = "The service runs, and says itself where it is reached"
        raise Failed(f"{told}; --registries, --listen and --public-url count only where none does.", Code.USAGE)
    found = service.ask("client-config", name=said.name) if service else from_configuration(config, said.name)
    clients = clients_of(found["type"], found["url"], os.environ, Path.cwd())
    chosen = _chosen(clients, said)
    if not (said.write or said.dry_run or said.undo):
        lines = found["lines"] if not said.client else [line for one in chosen for line in _by_hand(one)]
        out.result({**found, "lines": lines}, lines)
        return Code.DONE
    if not clients:
        raise Failed(f"The clients of {said.name!r} have no file that is known; copy the lines.")
    first: dict[Path | None, str] = {None: ""}
    done = []
    for one in chosen:
        if first.setdefault(one.file, one.name) in ("", one.name):
            done.append(_done(one, said))
        else:
            same = f"it is the file of {first[one.file]}"
            done.append({"client": one.name, "file": str(one.file), "outcome": "unchanged", "told": same})
    out.result({"name": said.name, "url": found["url"], "clients": done}, _told(done))
    return Code.NO if any(one["outcome"] == "failed" for one in done) else Code.DONE


def _chosen(clients: list[Client], said: argparse.Namespace) -> list[Client]:
    names = [one.name for one in clients]
    for name in said.client:
        if name not in names:
            raise Failed(f"{said.name} has no client {name!r}; there are: {', '.join(names) or 'none'}.", Code.USAGE)
    return [one for one in clients if not said.client or one.name in said.client]


def _by_hand(one: Client) -> Iterator[str]:
    """What to put where."""
    if one.file is None:
        yield one.instead
        return
    yield f"# {one.name}: in {one.file}"
    try:
        yield from one.edit("").splitlines()
    except Malformed as error:
        raise Failed(f"{one.name}: {error}") from None


def _done(one: Client, said: argparse.Namespace) -> dict[str, Any]:
    """What came of one client."""
    told: dict[str, Any] = {"client": one.name, "file": str(one.file or "")}
    if one.file is None:
        return {**told, "outcome": "by hand", "told": one.instead}
    absent = not any(map(shutil.which, one.programs)) and not one.file.exists()
    if absent and one.name not in said.client:
        return {**told, "outcome": "skipped", "told": f"it is not installed here; --client {one.name} does it anyway"}
    try:
        if said.undo:
            kept = undone(one.file, one.edit)
            return {**told, "outcome": "undone", "told": f"from {kept}" if kept else "the file is gone"}
        before, after = changed(one.file, one.edit)
        if before == after:
            return {**told, "outcome": "unchanged", "told": "it is as it should be"}
        lines = difference(one.file, before, after)
        if said.dry_run:
            return {**told, "outcome": "would change", "told": "", "difference": lines}
        kept = written(one.file, before, after)
    except NoBackup as error:
        return {**told, "outcome": "failed" if one.name in said.client else "skipped", "told": str(error)}
    except Malformed as error:
        return {**told, "outcome": "failed", "told": f"{error}; it is left as it is"}
    return {**told, "outcome": "written", "told": f"before: {kept}" if kept else "it is new", "difference": lines}


def _told(done: list[dict[str, Any]]) -> Iterator[str]:
    for one in done:
        where = f"{one['client']}: {one['file']}" if one["file"] else one["client"]
        yield f"{where}: {one['outcome']}" + (f": {one['told']}" if one["told"] else "")
        yield from (f"    {line}" for line in one.get("difference", []))
