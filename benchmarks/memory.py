"""Peak memory: what calls of one method add to a process of its own: `python -m benchmarks.memory CASE METHOD`."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import relprop

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measurable() -> bool:
    """Whether this system tells the peak memory of a process, and lets it be reset: Linux does."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return _STATUS.exists()


class Added(NamedTuple):
    """MiB at the peak of a call over what the process had before it."""

    first: float  # preparation of weights included
    further: float  # the second call, with what was prepared kept


def added(case: str, methods: Sequence[str], workers: int = 2) -> dict[str, Added]:
    """What calls of each method add, each in a process of its own; methods that fail are left out."""
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda method: _in_process(case, method), methods)
    return {method: mib for method, mib in zip(methods, found, strict=True) if mib is not None}


def _in_process(case: str, method: str) -> Added | None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", case, method]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"  memory of {method} could not be measured: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return Added(*map(float, done.stdout.split()[-2:]))


def _measure(case_name: str, method_name: str) -> Added:
    from benchmarks.cases import CASES
    from benchmarks.methods import Subject, methods

    torch.set_num_threads(1)
    case = CASES[case_name]
    subject = Subject(case)
    x, run = subject.x, methods(case)[method_name].prepare(subject)
    # Code that is read when first used is no part of an explanation's memory.
    relprop.explain(nn.Linear(2, 2).eval(), torch.ones(1, 2), 0)
    first = _peak(lambda: run(x))
    gc.collect()
    # What is freed but not yet given back would hide as much of what the next call needs.
    ctypes.CDLL(None).malloc_trim(0)
    return Added(first, _peak(lambda: run(x)))


def _peak(call: Callable[[], object]) -> float:
    gc.collect()
    _RESET.write_text("5")
    before = _kib("VmRSS")
    found = call()
    after = _kib("VmHWM")
    del found
    return (after - before) / 1024


def _kib(name: str) -> int:
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(name))


if __name__ == "__main__":
    print(*_measure(sys.argv[1], sys.argv[2]))
