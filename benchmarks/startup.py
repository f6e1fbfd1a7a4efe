"""Start-up: what relprop adds to `import torch`, and how long `relprop --help` takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

TORCH, EXPLAIN, HELP = "import torch", "import torch, relprop; relprop.explain", "relprop --help"
_WITH_TORCH = ("import torch, relprop", EXPLAIN)
_COMMANDS = {
    **{code: ["-c", code] for code in (TORCH, "import relprop", *_WITH_TORCH)},
    HELP: ["-m", "relprop", "--help"],
}


@dataclass
class Startup:
    """Median seconds of a fresh process; how much more than `import torch` in the same turn, where that is in it."""

    command: str
    processes: int
    wall: float
    cpu: float
    added_wall: float | None = None
    added_cpu: float | None = None


def startup(repeats: int) -> list[Startup]:
    """The commands in turn, each in fresh processes, after one to warm the file cache."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in _COMMANDS}
    for turn in range(repeats + 1):
        for name, arguments in _COMMANDS.items():
            times = _process([sys.executable, *arguments])
            if turn:
                taken[name].append(times)
    return [_summary(name, times, taken[TORCH]) for name, times in taken.items()]


def _summary(name: str, times: Sequence[tuple[float, float]], unit: Sequence[tuple[float, float]]) -> Startup:
    wall, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    if name not in _WITH_TORCH:
        return Startup(name, len(times), wall, cpu)
    more = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(times, unit, strict=True)]
    added_wall, added_cpu = (statistics.median(each) for each in zip(*more, strict=True))
    return Startup(name, len(times), wall, cpu, added_wall, added_cpu)


def _process(command: Sequence[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a process."""
    begun = sum(os.times()[2:4])
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    return wall, sum(os.times()[2:4]) - begun
