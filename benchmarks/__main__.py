"""What explanations cost, against one plain gradient: times, memory, latency, scaling and start-up.

    python -m benchmarks [--quick] [--cases 'vgg16*' 'lstm-*'] [--out benchmarks/results.md]

Run it from the project's root. Each part is written to the results as soon as it is measured; with --cases only these
parts are measured anew, and the others stay as they are in the results, which are kept beside the page, as .jsonl.
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
    parser = _parser()
    options = _checked(parser, arguments)
    # Before torch is imported: its threads are counted once.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    import torch

    from benchmarks.machine import stamp
    from benchmarks.report import render, shown
    from benchmarks.store import Store

    torch.set_num_threads(options.threads)
    parts = _chosen(parser, options)
    if options.list:
        print("\n".join(part.name for part in parts))
        return
    _say_what_is_missing(options)
    store, run = Store(options.out.with_suffix(".jsonl")), stamp(options.threads, _command(arguments))
    begun = time.perf_counter()
    for number, part in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}, {time.perf_counter() - begun:.0f} s] {part.section}: {part.name}", flush=True)
        items = part.measure()
        store.add(part.section, part.name, run, items)
        options.out.write_text(render(store, run))
        print(shown(part.section, items), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s; results are in {options.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="GLOB",
        help="only the parts whose names match one of these patterns; --list prints the names",
    )
    parser.add_argument("--repeats", type=int, help="turns of a case (5; 2 with --quick)")
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="time for a case in s; at least 3 turns are measured (90)"
    )
    parser.add_argument("--threads", type=int, default=1, help="processor threads of torch (1); memory is taken with 1")
    parser.add_argument("--quick", action="store_true", help="fewer cases, sizes and repeats, no memory: a few minutes")
    results = Path("benchmarks/results.md")
    parser.add_argument("--out", type=Path, default=results, help=f"page to write, its data beside it ({results})")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory away")
    parser.add_argument("--no-curves", action="store_true", help="leave scaling with batch, length and depth away")
    parser.add_argument("--no-peers", action="store_true", help="leave Captum, autolrp and Zennit away")
    parser.add_argument("--list", action="store_true", help="print the names of the parts, measure nothing")
    return parser


def _checked(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    options = parser.parse_args(arguments)
    if options.repeats is None:
        options.repeats = 2 if options.quick else 5
    for name in ("repeats", "threads", "seconds"):
        given = getattr(options, name)
        if not given >= 1:
            parser.error(f"--{name} must be at least 1, not {given:g}")
    if not options.out.parent.is_dir():
        parser.error(f"the folder of --out does not exist: {options.out.parent}")
    if options.out.is_dir() or options.out.suffix != ".md":
        parser.error(f"--out must be the name of a Markdown file, such as results.md, not {options.out}")
    return options


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[_Part]:
    """The parts that --cases asks for; an error for a pattern that matches none."""
    parts = _parts(options)
    patterns = options.cases or ["*"]
    for pattern in patterns:
        if not any(fnmatch(part.name, pattern) for part in parts):
            parser.error(f"--cases {pattern} matches nothing; there is {', '.join(part.name for part in parts)}")
    return [part for part in parts if any(fnmatch(part.name, pattern) for pattern in patterns)]


def _say_what_is_missing(options: argparse.Namespace) -> None:
    from benchmarks import memory, peers

    if _with_memory(options) and not memory.measurable():
        print("peak memory is not measured: only Linux tells it, in /proc/self")
    for library, version in peers.versions().items():
        if version == "not installed" and not options.no_peers:
            print(f"{library} is not measured, as it is not installed: {peers.INSTALL[library]}")


def _with_memory(options: argparse.Namespace) -> bool:
    return not (options.quick or options.no_memory)


def _command(arguments: Sequence[str] | None) -> str:
    """The command, but for where its results go."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--out" in given:
        place = given.index("--out")
        del given[place : place + 2]
    return shlex.join(["python", "-m", "benchmarks", *given])


def _parts(options: argparse.Namespace) -> list[_Part]:
    """What can be measured, in the order of the report."""
    from benchmarks import memory
    from benchmarks.cases import CASES
    from benchmarks.curves import CURVES, measure_curve
    from benchmarks.measure import latency, measure
    from benchmarks.messages import SIZES, against_messages
    from benchmarks.startup import startup

    with_memory = _with_memory(options) and memory.measurable()
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
    return parts


if __name__ == "__main__":
    main()
