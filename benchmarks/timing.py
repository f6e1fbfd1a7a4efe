"""Time: processor and wall-clock time of several methods, measured in turns, and latencies of single calls."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Action = Callable[[], object]
Quartiles = tuple[float, float, float]

SHORT = 0.02  # seconds: shorter calls are repeated within a turn
MANY_TURNS = 25  # a short case gets more turns than asked for, for a second each of those
FEWEST_TURNS = 3


@dataclass
class Taken:
    """Seconds of one call, by turn."""

    cpu: dict[int, float] = field(default_factory=dict)
    wall: dict[int, float] = field(default_factory=dict)

    def ratios(self, unit: Taken) -> list[float]:
        """Processor time over that of the unit in the same turn, so that a machine's drift cancels."""
        return [cpu / unit.cpu[turn] for turn, cpu in self.cpu.items()]

    def wall_ratios(self, unit: Taken) -> list[float]:
        return [wall / unit.wall[turn] for turn, wall in self.wall.items()]


def in_turns(
    actions: Mapping[str, Action],
    limits: Mapping[str, int | None],
    repeats: int,
    seconds: float,
    unit: str,
) -> dict[str, Taken]:
    """Times of all actions, each once a turn, in an order that is shuffled anew for each turn.

    limits: the turns an action takes part in, None for all. A case that takes longer than `seconds` ends early, after
    three turns at the least; a short one gets more turns than `repeats`, within a second for each of those.
    """
    shuffled = random.Random(0)
    calls = _calls(actions[unit])
    taken = {name: Taken() for name in actions}
    begun, lasting = time.perf_counter(), 0.0  # lasting: of those that take part in every turn
    turn = 0
    while turn < repeats or (turn < MANY_TURNS and lasting < min(repeats, seconds)):
        present = [name for name, limit in limits.items() if limit is None or turn < limit]
        shuffled.shuffle(present)
        for name in present:
            taken[name].cpu[turn], taken[name].wall[turn] = _once(actions[name], calls)
            lasting += calls * taken[name].wall[turn] if limits[name] is None else 0.0
        turn += 1
        if turn >= FEWEST_TURNS and time.perf_counter() - begun + lasting / turn > seconds:
            break
    return taken


def _calls(action: Action) -> int:
    start = time.perf_counter()
    action()
    return max(1, min(50, round(SHORT / (time.perf_counter() - start))))


def _once(action: Action, calls: int) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        action()
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def latencies(actions: Mapping[str, Action], calls: int) -> dict[str, list[float]]:
    """Wall-clock seconds of every single call, the actions in shuffled order, after ten calls to warm up."""
    shuffled = random.Random(0)
    names = list(actions)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for call in range(calls + 10):
        shuffled.shuffle(names)
        for name in names:
            start = time.perf_counter()
            actions[name]()
            if call >= 10:
                taken[name].append(time.perf_counter() - start)
    return taken


def quartiles(values: list[float]) -> Quartiles:
    """Lower quartile, median and upper quartile; of one or two values their least, median and greatest."""
    if len(values) < 3:
        return min(values), statistics.median(values), max(values)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
