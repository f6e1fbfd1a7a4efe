"""A case measured: time of all methods in turns, then memory of each, as rows of a table."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks import memory
from benchmarks.cases import Case
from benchmarks.methods import GRADIENT, RECORDED, Comparison, Method, Run, Subject, methods, require_done
from benchmarks.peers import Peer
from benchmarks.timing import Quartiles, Taken, in_turns, latencies, quartiles

EXACT, CLOSE = 1e-3, 0.05


@dataclass
class Row:
    """One method on one case. Seconds of a call, ratios to `unit`; None where not measured.

    memory: MiB that the first call adds at its peak; further_memory: that a further call adds.
    """

    case: str
    group: str
    method: str
    unit: str
    turns: int = 0
    cpu: Quartiles | None = None
    wall: Quartiles | None = None
    ratio: Quartiles | None = None
    wall_ratio: Quartiles | None = None
    memory: float | None = None
    memory_ratio: float | None = None
    further_memory: float | None = None
    note: str = ""


def measure(case: Case, repeats: int, seconds: float, with_memory: bool, with_peers: bool) -> list[Row]:
    """The rows of a case, ours first checked to explain the score, the peers' compared with ours."""
    chosen = {name: method for name, method in methods(case).items() if with_peers or method.peer is None}
    rows = {name: Row(case.name, case.group, name, method.unit) for name, method in chosen.items()}
    subject, comparison = Subject(case), Comparison(case)
    runs: dict[str, Run] = {}
    for name, method in chosen.items():
        run = _ready(method, subject, comparison, rows[name])
        if run is not None:
            runs[name] = run
    del comparison
    actions = {name: partial(run, subject.x) for name, run in runs.items()}
    limits = {name: chosen[name].turns for name in actions}
    taken = in_turns(actions, limits, repeats, seconds, GRADIENT)
    for name, times in taken.items():
        _fill(rows[name], times, taken[chosen[name].unit])
    del subject, runs, actions
    gc.collect()
    if with_memory:
        asked = [name for name in taken if name != "forward" and not name.endswith(("frozen", RECORDED))]
        found = memory.added(case.name, asked)
        for name, mib in found.items():
            unit = found.get(chosen[name].unit)
            rows[name].memory, rows[name].further_memory = mib
            rows[name].memory_ratio = mib.first / unit.first if unit and unit.first else None
    return list(rows.values())


def _ready(method: Method, subject: Subject, comparison: Comparison, row: Row) -> Run | None:
    """The method after a first run on little; None for a peer that can't, with what it said in the row's note."""
    case, sample = subject.case, subject.x[:1]
    if method.peer is None:
        run = method.prepare(subject)
        require_done(method.name, run(sample), case, subject.model, sample)
        return run
    # Whatever a peer raises is its answer.
    try:
        away = comparison.deviation(method.peer)
        run = method.prepare(subject)
        run(case.small())
    except Exception as error:
        row.note = f"refuses: {_first_sentence(error)}"
        return None
    row.note = _verdict(away, method.peer)
    return run


def _first_sentence(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".replace("|", "/")
    return text.split(". ")[0][:110]


def _verdict(away: float, peer: Peer) -> str:
    if away <= EXACT:
        return "same relevance"
    size = f"{100 * away:.1f} %" if away < 1 else f"a factor of {away:.2g}"
    return f"wrong: off by {size}" if peer.skips_additions and away > CLOSE else f"differs: {size}"


def _fill(row: Row, times: Taken, unit: Taken) -> None:
    row.turns = len(times.cpu)
    row.cpu, row.wall = quartiles(list(times.cpu.values())), quartiles(list(times.wall.values()))
    row.ratio, row.wall_ratio = quartiles(times.ratios(unit)), quartiles(times.wall_ratios(unit))


@dataclass
class Latency:
    """Wall-clock seconds of single calls at batch 1; ratio of medians to the gradient's."""

    case: str
    method: str
    calls: int
    median: float
    p90: float
    ratio: float


def latency(case: Case, calls: int) -> list[Latency]:
    """Latencies of ours and of the gradient for one sample."""
    subject = Subject(case)
    sample = subject.x[:1]
    actions: dict[str, Callable[[], object]] = {}
    for name, method in methods(case).items():
        if method.peer is None:
            run = method.prepare(subject)
            require_done(name, run(sample), case, subject.model, sample)
            actions[name] = partial(run, sample)
    taken = {name: sorted(times) for name, times in latencies(actions, calls).items()}
    unit = quartiles(taken[GRADIENT])[1]
    return [
        Latency(case.name, name, calls, middle, times[int(0.9 * len(times))], middle / unit)
        for name, times in taken.items()
        for middle in [quartiles(times)[1]]
    ]
