"""What the benchmarks share: one plain gradient, medians of CPU time, peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def gradient(model: nn.Module, x: Tensor) -> None:
    """One forward and one backward pass to the input."""
    x = x.clone().requires_grad_()
    torch.autograd.grad(model(x)[:, 1].sum(), x)


def medians(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median process CPU time of each case in seconds, interleaved, after one run to warm up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, case in cases.items():
            start = time.process_time()
            case()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_added(case: Callable[[], object]) -> float:
    """MiB by which a case raises this process' peak memory; for one case in a fresh process, on Linux."""
    before = _peak()
    case()
    return _peak() - before


def _peak() -> float:
    # Not getrusage, whose peak begins with that of the process which started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
