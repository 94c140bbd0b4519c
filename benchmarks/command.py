"""
The command line of all measurements and of each: what to measure, how often, and where the results go.

Prints a table of ratios with their targets. Only ratios count; absolute figures are there to understand them.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.report import Row, table, write_json
from benchmarks.servers import APACHE, find, version

__all__ = ["Groups", "run"]

#: What can be measured, by name.
Groups = Mapping[str, Callable[[Lab], list[Row]]]


def machine() -> dict[str, object]:
    """Where and with what it was measured."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") >> 30
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "machine": f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}, {memory} GiB",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}",
        "compared": f"nginx {version('nginx')}, Apache {version(find(*APACHE) or APACHE[0])}, wrk {version('wrk')}",
    }


def options(groups: Groups, arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure, and print a table of ratios.")
    parser.add_argument("--only", nargs="+", choices=[*groups], metavar="NAME", help=f"some of {', '.join(groups)}")
    parser.add_argument(
        "--rounds", type=_positive, metavar="N", help="how often each is measured (default: 5; 1 with --short)"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=1, metavar="N", help="how long each load lasts (default: 1)"
    )
    parser.add_argument("--short", action="store_true", help="less of everything, to see whether it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"a number of 1 or more is wanted, not {text}")


def run(groups: Groups, arguments: list[str] | None = None) -> int:
    """Measure and print; the status of the process: 1 if anything could not be measured."""
    given = options(groups, arguments)
    rounds = given.rounds or (1 if given.short else 5)
    about, rows, broken = machine(), list[Row](), False
    # Everything is here, also for whoever reaches the world through a proxy.
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    # Whoever ends this ends the servers, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Path(directory), rounds=rounds, seconds=given.seconds, short=given.short)
        try:
            for name in given.only or groups:
                since = time.monotonic()
                try:
                    rows += groups[name](lab)
                except KeyboardInterrupt:
                    # What was found until then is told.
                    broken = True
                    break
                except Exception as error:
                    broken = True
                    rows.append(Row(name, (), note=f"not measured: {type(error).__name__}: {error}"))
                sys.stderr.write(f"{name}: {time.monotonic() - since:.0f} s\n")
        finally:
            lab.close()
    about["seconds"] = round(time.monotonic() - began)
    sys.stdout.write("".join(f"{key}: {value}\n" for key, value in about.items()) + "\n" + table(rows))
    if given.json:
        write_json(given.json, about, rows)
    return int(broken)
