"""The bounds: what explanations may cost, relative to one plain gradient of the same model in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from benchmarks.measure import Latency, Row
from benchmarks.methods import RECORDED
from benchmarks.startup import EXPLAIN, HELP, TORCH, Startup

BIG = ("vgg16", "vgg16-bn", "resnet50")
SEQUENCES = ("lstm-*", "gru-*", "transformer-*", "gpt2-*")
SMALLEST_MEMORY = 16.0  # MiB that the gradient must add for a ratio of memory to mean something


@dataclass(frozen=True)
class Bound:
    """The greatest ratio that these methods may have on these cases (patterns)."""

    cases: tuple[str, ...]
    methods: tuple[str, ...]
    limit: float

    def covers(self, case: str, method: str) -> bool:
        return method in self.methods and any(fnmatch(case, pattern) for pattern in self.cases)


TIME = (
    Bound(BIG, ("epsilon",), 1.15),
    Bound(BIG, ("epsilon-plus", "epsilon-plus-flat"), 1.6),
    Bound(BIG, ("gamma", "epsilon-gamma-box"), 1.8),
    Bound(BIG, ("epsilon-alpha2-beta1",), 2.2),
    Bound(SEQUENCES, ("epsilon", "attn-lrp", "cp-lrp"), 1.2),
)
MEMORY = tuple(Bound(bound.cases, bound.methods, 1.5) for bound in TIME)
LATENCY = (Bound(("lenet-1",), ("epsilon", f"epsilon, {RECORDED}"), 1.5),)
# Processor seconds more than `import torch`, all that a lazy import puts off included; seconds by the clock.
EXPLAIN_ADDS, HELP_TAKES = 0.15, 0.4


@dataclass(frozen=True)
class Verdict:
    """A bound beside what was measured; None where it was not."""

    what: str
    case: str
    limit: float
    measured: float | None
    unit: str = ""

    @property
    def text(self) -> str:
        if self.measured is None:
            return "not measured"
        shown = f"{self.measured:.2f}{self.unit}"
        return "met" if self.measured <= self.limit else f"not met: {shown}"


def verdicts(rows: Sequence[Row], latencies: Sequence[Latency], startups: Sequence[Startup]) -> list[Verdict]:
    """Each bound on each case that was run."""
    found = [
        Verdict(f"processor time, {row.method}", row.case, bound.limit, row.ratio[1] if row.ratio else None)
        for bound in TIME
        for row in rows
        if bound.covers(row.case, row.method)
    ]
    adds = {row.case: row.memory or 0.0 for row in rows if row.method == row.unit == "gradient"}
    found += [
        Verdict(f"peak memory added, {row.method}", row.case, bound.limit, row.memory_ratio)
        for bound in MEMORY
        for row in rows
        if bound.covers(row.case, row.method) and row.memory is not None and adds[row.case] >= SMALLEST_MEMORY
    ]
    found += [
        Verdict(f"latency at batch 1, {_way(each.method)}", each.case, bound.limit, each.ratio)
        for bound in LATENCY
        for each in latencies
        if bound.covers(each.case, each.method)
    ]
    for each in startups:
        if each.command == EXPLAIN:
            what = f"start-up, `{EXPLAIN}` more than `{TORCH}`, processor time"
            found.append(Verdict(what, "", EXPLAIN_ADDS, each.added_cpu, " s"))
        elif each.command == HELP:
            found.append(Verdict(f"start-up, `{HELP}`, wall", "", HELP_TAKES, each.wall, " s"))
    return found


def _way(method: str) -> str:
    return method if method.endswith(RECORDED) else f"{method}, step by step"
