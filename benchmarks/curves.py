"""Scaling: cost against batch, sequence length, depth, and the number of rules and targets that share one forward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

import relprop
from benchmarks import networks, sequences
from benchmarks.methods import GRADIENT, gradient
from benchmarks.timing import Action, in_turns, quartiles
from relprop.rules import Epsilon

Explain = Callable[[], object]
LINEAR = 1.05  # an exponent up to this counts as linear


@dataclass(frozen=True)
class Curve:
    """Sizes of one quantity, and what is timed at each: actions by name, the first of them the unit of the ratios."""

    name: str
    title: str
    quantity: str
    sizes: tuple[int, ...]
    actions: Callable[[int], dict[str, Action]]


@dataclass
class Point:
    """Median processor seconds of one action at one size; ratio to the unit, median over turns."""

    curve: str
    quantity: str
    size: int
    action: str
    cpu: float
    ratio: float


def _pick(output: Tensor) -> Tensor:
    return output[:, 1]


def _against_gradient(model: nn.Module, x: Tensor, presets: Sequence[str]) -> dict[str, Action]:
    explainers = {name: relprop.Explainer(model, name, bounds=(-1, 1)) for name in presets}
    run = gradient(model, _pick)
    boxed = x.clamp(-1, 1)
    return {
        GRADIENT: lambda: run(boxed),
        **{name: partial(explainer, boxed, 1) for name, explainer in explainers.items()},
    }


def _batch(size: int) -> dict[str, Action]:
    presets = ("epsilon", "epsilon-plus-flat", "epsilon-gamma-box")
    return _against_gradient(networks.resnet50(), networks.picture(size, 3, 64), presets)


def _steps(build: Callable[[], nn.Module], size: int) -> dict[str, Action]:
    return _against_gradient(build(), sequences.signal(16, size, 128), ("epsilon",))


def _tokens(size: int) -> dict[str, Action]:
    return _against_gradient(sequences.encoder(), sequences.signal(1, size, 384), ("attn-lrp", "cp-lrp"))


def _depth(size: int) -> dict[str, Action]:
    presets = ("epsilon", "epsilon-plus-flat", "gamma")
    return _against_gradient(networks.deep_convolutions(size), networks.picture(4, 3, 32), presets)


def _blocks(size: int) -> dict[str, Action]:
    model = sequences.encoder(layers=size, width=128, heads=4)
    return _against_gradient(model, sequences.signal(4, 64, 128), ("attn-lrp", "cp-lrp"))


def _shared_rules(size: int) -> dict[str, Action]:
    explainer = relprop.Explainer(networks.resnet50())
    x = networks.picture(4, 3, 64)
    rules = [Epsilon(10.0 ** -(6 + index)) for index in range(size)]
    alone = [relprop.Explainer(explainer.model, rule) for rule in rules]
    return {
        "one by one": lambda: [each(x, 1) for each in alone],
        "shared": lambda: explainer.compare(x, rules, 1),
    }


def _shared_targets(size: int) -> dict[str, Action]:
    explainer = relprop.Explainer(networks.resnet50(), "epsilon-plus-flat")
    x = networks.picture(4, 3, 64)
    return {
        "one by one": lambda: [explainer(x, target) for target in range(size)],
        "shared": lambda: explainer(x, targets=list(range(size))),
    }


CURVES = (
    Curve("curve-batch", "ResNet-50 at 64 x 64", "batch", (1, 2, 4, 8, 16, 32, 64), _batch),
    Curve(
        "curve-lstm",
        "LSTM, 128 units, batch 16",
        "steps",
        (25, 50, 100, 200, 400, 800),
        partial(_steps, sequences.lstm),
    ),
    Curve(
        "curve-gru", "GRU, 128 units, batch 16", "steps", (25, 50, 100, 200, 400, 800), partial(_steps, sequences.gru)
    ),
    Curve(
        "curve-transformer",
        "Transformer encoder, 6 layers, d 384, batch 1",
        "tokens",
        (25, 50, 100, 200, 400, 800),
        _tokens,
    ),
    Curve(
        "curve-depth-conv", "3 x 3 convolutions, 32 channels, 32 x 32, batch 4", "layers", (2, 4, 8, 16, 32, 64), _depth
    ),
    Curve(
        "curve-depth-transformer",
        "Transformer encoder, d 128, 64 tokens, batch 4",
        "blocks",
        (2, 4, 8, 16, 32, 64),
        _blocks,
    ),
    Curve("curve-rules", "ResNet-50 at 64 x 64, batch 4, epsilon rules", "rules", (1, 2, 4, 8), _shared_rules),
    Curve(
        "curve-targets", "ResNet-50 at 64 x 64, batch 4, epsilon-plus-flat", "targets", (1, 2, 4, 8), _shared_targets
    ),
)


def measure_curve(curve: Curve, repeats: int, quick: bool) -> list[Point]:
    """The curve's points; quick: its first, middle and last but one size only."""
    sizes = (curve.sizes[0], curve.sizes[len(curve.sizes) // 2], curve.sizes[-2]) if quick else curve.sizes
    points = []
    for size in dict.fromkeys(sizes):
        actions = curve.actions(size)
        for action in actions.values():
            action()
        unit = next(iter(actions))
        taken = in_turns(actions, dict.fromkeys(actions), repeats, seconds=20.0, unit=unit)
        for name, times in taken.items():
            ratio = quartiles(times.ratios(taken[unit]))[1]
            points.append(Point(curve.name, curve.quantity, size, name, quartiles(list(times.cpu.values()))[1], ratio))
    return points


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """p of the power law seconds = c size^p that fits best, by least squares of the logarithms."""
    xs, ys = [math.log(size) for size in sizes], [math.log(each) for each in seconds]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
