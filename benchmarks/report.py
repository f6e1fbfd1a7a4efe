"""results.md: the bounds, a table for each group of cases, latency, curves, start-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.bounds import verdicts
from benchmarks.cases import CASES
from benchmarks.curves import CURVES, LINEAR, Point, exponent
from benchmarks.machine import Stamp, machine, versions
from benchmarks.measure import Latency, Row
from benchmarks.messages import Messages
from benchmarks.methods import GRADIENT
from benchmarks.startup import Startup
from benchmarks.store import Part, Store
from benchmarks.timing import Quartiles

_INTRODUCTION = """# What an explanation costs

Made by `{command}`; parts that were measured in another run say so.
`make bench` runs all of it, `make bench BENCH=--quick` a short version.

{table}

**How to read it.** All methods of a case run in one process, once a turn, in an order shuffled anew each turn (with a
fixed seed), after a warm-up on one sample, with the garbage collected before each. *CPU* is process CPU time, *wall*
the clock's, of one call: medians over the turns, quartiles in brackets. A *ratio* is the median over the turns of the
method's time divided by that of the plain gradient in the same turn, so that a machine's drift cancels. The *gradient*
is one forward and one backward pass to the input, with parameters that require gradients, as an ordinary model's do
(weights get none computed); *frozen* is the same with parameters that don't, and rows of ours that are called frozen
are ratios to that. Explainers are kept, as for many inputs, so their modified weights are prepared once, in the
warm-up. Every explanation was checked to be finite, of the input's shape, and of the model's own score. *Memory* is
what the first call, preparation of weights included, adds to the peak of a fresh process; its ratio is to the
gradient's, and the bound is on it. *Further call* is what the second call of the same explainer adds at its peak.
*Recorded* rows are of `Explainer(..., compile="graph")`, its first call, which records, left out. Short calls are
measured in more turns than long ones, presets without a bound in two, peers in one.

**Peers** run on a copy of the model, with the options of the preset that they are named after. Their relevance is
compared with ours in float64, on a small input: *same relevance*, or by how much it differs (sum of absolute
differences over sum of absolute values). autolrp spreads the share of biases over the inputs, by a convention of its
own. Captum's z+ keeps the positive weights whatever the sign of an input, and its rules do not see additions written
as `a + b`, without a word: that is called *wrong*. Zennit gets its canonizers for batch norm, and one for the additions
of ResNet-50; it is imported with an empty stand-in for torchvision, if that is missing, which it doesn't use here."""


def render(store: Store, stamp: Stamp) -> str:
    """The whole page."""
    about = {**machine(), **versions(), "commit": stamp.commit, "date": stamp.date, "threads": str(stamp.threads)}
    page = [_INTRODUCTION.format(command=stamp.command, table=_table(["", ""], about.items()))]
    known = [part for part in store.parts("case") if part.name in CASES]
    cases = sorted(known, key=lambda part: list(CASES).index(part.name))
    rows = [row for part in cases for row in part.items]
    latencies = [item for part in store.parts("latency") for item in part.items]
    startups = [item for part in store.parts("startup") for item in part.items]
    page += _bounds(rows, latencies, startups)
    for group in dict.fromkeys(case.group for case in CASES.values()):
        chosen = [part for part in cases if CASES[part.name].group == group]
        if chosen:
            page.append(f"## {group[0].upper()}{group[1:]}\n\n{_elsewhere(chosen, stamp)}{_rows(chosen)}")
    if latencies:
        page.append(_latency(latencies, _elsewhere(store.parts("latency"), stamp)))
    page += _curves(store, stamp)
    messages = [item for part in store.parts("messages") for item in part.items]
    page += [_startup(startups, _elsewhere(store.parts("startup"), stamp))] if startups else []
    page += [_messages(messages, _elsewhere(store.parts("messages"), stamp))] if messages else []
    return "\n\n".join(page) + "\n"


def _bounds(rows: Sequence[Row], latencies: Sequence[Latency], startups: Sequence[Startup]) -> list[str]:
    found = verdicts(rows, latencies, startups)
    if not found:
        return []
    lines = [
        (each.what, each.case, f"{each.limit:g}{each.unit}", _number(each.measured, 2), each.text) for each in found
    ]
    met = sum(each.text == "met" for each in found)
    head = ["what", "case", "at most", "measured", "verdict"]
    memory = "" if any(row.memory for row in rows) else " Peak memory was not measured."
    text = f"As ratios to one plain gradient; start-up in seconds. {met} of {len(found)} met.{memory}"
    return [f"## Bounds\n\n{text}\n\n{_table(head, lines)}"]


def _rows(parts: Sequence[Part[Row]]) -> str:
    head = [
        "case",
        "method",
        "CPU, ms",
        "wall, ms",
        "CPU ratio",
        "wall ratio",
        "memory, MiB",
        "memory ratio",
        "further call, MiB",
        "turns",
        "relevance",
    ]
    lines = [
        (
            row.case,
            row.method,
            _spread(row.cpu, 1e3, 1),
            _spread(row.wall, 1e3, 1),
            _spread(row.ratio, 1, 2),
            _number(row.wall_ratio[1] if row.wall_ratio else None, 2),
            _number(row.memory, 1),
            _number(row.memory_ratio, 2),
            _number(row.further_memory, 1),
            str(row.turns or ""),
            row.note,
        )
        for part in parts
        for row in part.items
    ]
    return _table(head, lines)


def shown(section: str, items: Sequence[Any]) -> str:
    """What was measured, for the terminal."""
    tables: dict[str, Callable[[Sequence[Any]], str]] = {
        "case": _summary,
        "latency": _latency,
        "curve": _curve,
        "startup": _startup,
        "messages": _messages,
    }
    return tables[section](items)


def _summary(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        time = f"{_spread(row.cpu, 1e3, 1):>26s} ms  {_spread(row.ratio, 1, 2):>20s}" if row.cpu else f"{'':51s}"
        memory = f"  {row.memory:7.1f} MiB {_number(row.memory_ratio, 2):>5s}" if row.memory is not None else ""
        lines.append(f"  {row.method:32s}{time}{memory}  {row.note}")
    return "\n".join(lines)


def _latency(latencies: Sequence[Latency], elsewhere: str = "") -> str:
    head = ["case", "method", "median, ms", "90 %, ms", "ratio", "calls"]
    lines = [
        (
            each.case,
            each.method,
            f"{1e3 * each.median:.2f}",
            f"{1e3 * each.p90:.2f}",
            f"{each.ratio:.2f}",
            str(each.calls),
        )
        for each in latencies
    ]
    text = (
        "Wall-clock time of single calls; ratios of medians to the gradient's. A preset's row is of its steps, one "
        'by one,\nthat called recorded of the same with `compile="graph"`, after the first call.'
    )
    return f"## Latency at batch 1\n\n{elsewhere}{text}\n\n{_table(head, lines)}"


def _curves(store: Store, stamp: Stamp) -> list[str]:
    parts = {part.name: part for part in store.parts("curve")}
    chosen = [parts[curve.name] for curve in CURVES if curve.name in parts]
    if not chosen:
        return []
    intro = (
        "## Scaling\n\nCPU time in ms, in brackets its ratio to the first column's. The last line is p in "
        "cost = c size^p, fitted to\nthe larger half of the sizes, where fixed costs don't hide the growth; "
        f"up to {LINEAR} counts as linear."
    )
    return [intro, *(_scaling(part, stamp) for part in chosen)]


def _scaling(part: Part[Any], stamp: Stamp) -> str:
    title = next(curve.title for curve in CURVES if curve.name == part.name)
    return f"### {title} (`{part.name}`)\n\n{_elsewhere([part], stamp)}{_curve(part.items)}"


def _curve(points: Sequence[Point]) -> str:
    sizes = list(dict.fromkeys(point.size for point in points))
    actions = list(dict.fromkeys(point.action for point in points))
    at = {(point.size, point.action): point for point in points}
    unit = actions[0]
    lines = []
    for size in sizes:
        cells = [f"{1e3 * at[size, a].cpu:.1f}" + (f" ({at[size, a].ratio:.2f})" if a != unit else "") for a in actions]
        lines.append((str(size), *cells))
    half = sizes[-max(2, (len(sizes) + 1) // 2) :]
    fitted = {action: exponent(half, [at[size, action].cpu for size in half]) for action in actions}
    lines.append(("p", *(f"{p:.2f}" for p in fitted.values())))
    worse = [action for action, p in fitted.items() if p > max(LINEAR, fitted[unit] + LINEAR - 1)]
    verdict = (
        f"Grows faster than linearly, and than {_named(unit)}: {', '.join(worse)}."
        if worse
        else (f"Grows linearly or slower, or no faster than {_named(unit)}.")
    )
    return f"{_table([points[0].quantity, *actions], lines)}\n\n{verdict}"


def _named(unit: str) -> str:
    return f"the {unit}" if unit == GRADIENT else unit


def _startup(startups: Sequence[Startup], elsewhere: str = "") -> str:
    head = ["command", "wall, s", "CPU, s", "more than `import torch`: wall", "CPU", "processes"]
    lines = []
    for each in startups:
        seconds = (each.wall, each.cpu, each.added_wall, each.added_cpu)
        lines.append((f"`{each.command}`", *(_number(s, 2) for s in seconds), str(each.processes)))
    text = (
        "Medians over fresh processes, in turns; what is more than `import torch`, of the differences within a turn.\n"
        "`import relprop` puts off most of its imports: those are made when `relprop.explain` is first looked up."
    )
    return f"## Start-up\n\n{elsewhere}{text}\n\n{_table(head, lines)}"


def _messages(messages: Sequence[Messages], elsewhere: str = "") -> str:
    head = ["units", "steps", "relprop, batch", "ms a sequence", "message matrices, ms", "times as much"]
    lines = []
    for m in messages:
        sizes = (str(m.units), str(m.steps), str(m.batch))
        lines.append((*sizes, f"{1e3 * m.relprop:.2f}", f"{1e3 * m.messages:.1f}", f"{m.messages / m.relprop:.0f}"))
    text = (
        "The relevance of an LSTM's inputs by relprop for a whole batch, in time a sequence, against the textbook's "
        "way for one\nsequence: for each step a matrix of messages from every unit to every unit before it, in NumPy."
    )
    return f"## Against explicit message matrices\n\n{elsewhere}{text}\n\n{_table(head, lines)}"


def _elsewhere(parts: Sequence[Part[object]], stamp: Stamp) -> str:
    """Says which parts come from another run than this one."""
    runs: dict[Stamp, list[str]] = {}
    for part in parts:
        if part.stamp != stamp:
            runs.setdefault(part.stamp, []).append(part.name)
    said = [
        f"{', '.join(names)}: {run.date}, commit {run.commit}, {run.threads} thread(s), {run.machine}, `{run.command}`."
        for run, names in runs.items()
    ]
    return "\n".join(said) + "\n\n" if said else ""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _spread(found: Quartiles | None, scale: float, digits: int) -> str:
    if found is None:
        return ""
    low, middle, high = (f"{scale * each:.{digits}f}" for each in found)
    return f"{middle} ({low}-{high})"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
