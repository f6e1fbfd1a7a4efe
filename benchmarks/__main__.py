"""What explanations cost, against one plain gradient: times, memory, latency, scaling and start-up.

    python -m benchmarks [--quick] [--cases 'vgg16*' 'lstm-*'] [--out benchmarks/results.md]

Run it from the project's root. Each part is written to the results as soon as it is measured; with --cases only these
parts are measured anew, and the others stay as they are in the results.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple


class _Part(NamedTuple):
    section: str
    name: str
    measure: Callable[[], Sequence[Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    # Before torch is imported: its threads are counted once.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    import torch

    from benchmarks.machine import stamp
    from benchmarks.report import render, shown
    from benchmarks.store import Store

    torch.set_num_threads(options.threads)
    store, run = Store(options.out.with_suffix(".jsonl")), stamp(options.threads, _command(arguments))
    parts = _parts(options)
    begun = time.perf_counter()
    for number, part in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}, {time.perf_counter() - begun:.0f} s] {part.section}: {part.name}", flush=True)
        items = part.measure()
        store.add(part.section, part.name, run, items)
        options.out.write_text(render(store, run))
        print(shown(part.section, items), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s; results are in {options.out}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="GLOB",
        help="only the parts whose names match: of cases, curves, or latency, startup, messages",
    )
    parser.add_argument("--repeats", type=int, help="turns of a case (5; 2 with --quick)")
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="a case ends after these, with 3 turns at least (90)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer cases, sizes and repeats, no memory: a few minutes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.md"))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-curves", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the names of all parts")
    options = parser.parse_args(arguments)
    options.repeats = options.repeats or (2 if options.quick else 5)
    if options.list:
        print("\n".join(f"{part.section}: {part.name}" for part in _parts(options)))
        sys.exit()
    return options


def _command(arguments: Sequence[str] | None) -> str:
    """The command, but for where its results go."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--out" in given:
        place = given.index("--out")
        del given[place : place + 2]
    return shlex.join(["python", "-m", "benchmarks", *given])


def _parts(options: argparse.Namespace) -> list[_Part]:
    """What is to be measured, in the order of the report."""
    from benchmarks import memory, peers
    from benchmarks.cases import CASES
    from benchmarks.curves import CURVES, measure_curve
    from benchmarks.measure import latency, measure
    from benchmarks.messages import SIZES, against_messages
    from benchmarks.startup import startup

    with_memory = not (options.quick or options.no_memory)
    if with_memory and not memory.measurable():
        print("peak memory is not measured: only Linux tells it, in /proc/self")
        with_memory = False
    for library, version in peers.versions().items():
        if version == "not installed":
            print(f"{library} is not measured, as it is not installed: {peers.INSTALL[library]}")
    quick, repeats = options.quick, options.repeats
    timed = partial(measure, repeats=repeats, seconds=options.seconds, with_memory=with_memory)
    cases = [case for case in CASES.values() if case.quick or not quick or options.cases]
    calls = 100 if quick else 400
    # Peers are slow, and the small networks tell whether they are right.
    compared = {case.name: not options.no_peers and (not quick or case.group == "small") for case in cases}
    parts = [_Part("case", case.name, partial(timed, case, with_peers=compared[case.name])) for case in cases]
    parts.append(
        _Part("latency", "latency", lambda: [x for name in ("mlp-256", "lenet-1") for x in latency(CASES[name], calls)])
    )
    if not options.no_curves:
        parts += [_Part("curve", curve.name, partial(measure_curve, curve, min(repeats, 3), quick)) for curve in CURVES]
    parts.append(_Part("startup", "startup", lambda: startup(3 if quick else 7)))
    sizes = SIZES[:1] if quick else SIZES
    parts.append(_Part("messages", "messages", lambda: [against_messages(*size, min(repeats, 3)) for size in sizes]))
    patterns = options.cases or ["*"]
    return [part for part in parts if any(fnmatch(part.name, pattern) for pattern in patterns)]


if __name__ == "__main__":
    main()
