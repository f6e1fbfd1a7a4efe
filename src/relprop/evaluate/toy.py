"""A toy task that tells the product rules apart: an LSTM adds or subtracts two numbers among distractors.

After Arras et al. 2019, "Explaining and interpreting LSTMs": since the network computes n_a + n_b or
n_a - n_b, it is known what the relevance of the two numbers should be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from relprop.evaluate.measurement import Measurement, Table
from relprop.explainer import Explainer
from relprop.methods import Method, Occlusion
from relprop.progress import Progress, told
from relprop.rulemap import RuleMap
from relprop.rules import Absolute, Epsilon, Half, ProductRule, Proportional, SignalTakesAll

SHORTEST, LONGEST = 4, 10
TASKS = {"addition": 1.0, "subtraction": -1.0}  # what n_b is multiplied by
TEST_SEQUENCES = 2_500
LEAST_SCORE = 0.2  # below it, in absolute value, (R_a + R_b) / y says nothing
PRODUCT_RULES: dict[str, ProductRule] = {
    "signal-take-all": SignalTakesAll(),
    "half": Half(),
    "absolute": Absolute(),
    "proportional": Proportional(),
}
# Occlusion of one value after the other: a whole time step would count for each of its two values.
METHODS: dict[str, str | Method] = {"gradient_x_input": "gradient_x_input", "occlusion": Occlusion(patch=(1, 1))}


class Sequences(NamedTuple):
    """Sequences of the toy task.

    x: (sequences, 10, 2), zero after a sequence's end. At the places a < b it holds (0, n_a) and (0, n_b), with n
    uniform in [-1, -0.5] and [0.5, 1]; everywhere else (d, 0), with d uniform in [0.5, 1], or drawn as n if signed.
    lengths: (sequences,), from 4 to 10. places: (sequences, 2), a and b.
    """

    x: Tensor
    lengths: Tensor
    places: Tensor

    @property
    def numbers(self) -> Tensor:
        """(sequences, 2): n_a and n_b."""
        return self.x[:, :, 1].gather(1, self.places)

    def results(self, sign: float) -> Tensor:
        """(sequences,): n_a + sign n_b, what the network should say."""
        return self.numbers[:, 0] + sign * self.numbers[:, 1]


def sequences(count: int, chance: torch.Generator, signed: bool = False) -> Sequences:
    """Sequences of the toy task, float64; `signed`: with distractors of both signs."""
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=chance)
    inside = torch.arange(LONGEST) < lengths[:, None]
    sizes = 0.5 + 0.5 * torch.rand(count, LONGEST, generator=chance, dtype=torch.float64)
    signs = 1 - 2 * torch.randint(0, 2, (count, LONGEST), generator=chance)
    lots = torch.rand(count, LONGEST, generator=chance).masked_fill(~inside, -1)
    places = lots.topk(2, dim=1).indices.sort(dim=1).values
    chosen = torch.zeros(count, LONGEST, dtype=torch.bool).scatter(1, places, True)
    distractors = sizes * (signs if signed else 1) * (inside & ~chosen)
    return Sequences(torch.stack([distractors, sizes * signs * chosen], 2), lengths, places)


class Calculator(nn.Module):
    """One LSTM cell and a linear head: (batch, time, 2), float64, to (batch, 1).

    Without `bias` the head has none, and the cell's candidate is trained with its own at zero: a constant in these
    places would hold a part of the score that belongs to no input. The gates have theirs in any case.
    """

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 1, batch_first=True, dtype=torch.float64)
        self.head = nn.Linear(1, 1, bias=bias, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Fidelity:
    """How well relevance tells what one network computed.

    Attributes:
        first: the correlation of n_a with R_a, over the test sequences.
        second: that of the summand n_b or -n_b with R_b.
        ratio: the mean of (R_a + R_b) / y, over the test sequences whose score y is at least 0.2 in absolute value.
    """

    first: float
    second: float
    ratio: float


@dataclass(frozen=True)
class ToyFigures(Measurement):
    """What `measure` found: for each task and explanation the figures of every network, and their errors (MSE)."""

    figures: dict[str, dict[str, tuple[Fidelity, ...]]]
    errors: dict[str, tuple[float, ...]]

    def tables(self) -> tuple[Table, ...]:
        return tuple(self._table(task) for task in self.figures)

    def _table(self, task: str) -> Table:
        summand = "n_b" if TASKS[task] > 0 else "-n_b"
        rows = tuple(
            (name, *(_percent([getattr(each, key) for each in row]) for key in ("first", "second", "ratio")))
            for name, row in self.figures[task].items()
        )
        errors = self.errors[task]
        counted = "1 network" if len(errors) == 1 else f"{len(errors)} networks"
        title = f"{task.capitalize()}, {counted} (MSE {min(errors):.1e} to {max(errors):.1e}), in percent"
        return Table(title, ("", "corr(n_a, R_a)", f"corr({summand}, R_b)", "(R_a + R_b) / y"), rows)


def explainers(model: nn.Module, eps: float) -> dict[str, Callable[..., Any]]:
    """LRP under each product rule, and the methods to compare with; `eps` is the stabiliser of the affine rule."""
    found: dict[str, Callable[..., Any]] = {
        name: Explainer(model, RuleMap([("affine", Epsilon(eps)), ("gate", rule)]))
        for name, rule in PRODUCT_RULES.items()
    }
    return found | {name: Explainer(model, method=method) for name, method in METHODS.items()}


def measure(
    networks: Mapping[str, Sequence[nn.Module]],
    *,
    eps: float = 1e-6,
    signed: bool = False,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> ToyFigures:
    """The figures of networks trained on each task (see `relprop.evaluate.toy_training.train`).

    eps: the stabiliser. signed: distractors of both signs. progress: True for a bar, or a
        function of (networks done, networks to do).
    """
    data = sequences(TEST_SEQUENCES, torch.Generator().manual_seed(seed), signed)
    todo = [(task, model) for task, models in networks.items() for model in models]
    figures: dict[str, dict[str, tuple[Fidelity, ...]]] = {task: {} for task in networks}
    errors: dict[str, tuple[float, ...]] = {}
    for task, model in told(todo, progress, "explaining networks"):
        for name, explain in explainers(model, eps).items():
            found = fidelity(explain, data, TASKS[task])
            figures[task][name] = (*figures[task].get(name, ()), found)
        errors[task] = (*errors.get(task, ()), error(model, data, TASKS[task]))
    return ToyFigures(figures, errors)


def fidelity(explain: Callable[..., Any], data: Sequences, sign: float) -> Fidelity:
    """The figures of one explainer, which is given the sequences of each length together."""
    relevance, scores = torch.zeros(data.x.shape[:2], dtype=torch.float64), torch.zeros(len(data.x)).double()
    for length in range(SHORTEST, LONGEST + 1):
        rows = data.lengths == length
        if bool(rows.any()):
            made = explain(data.x[rows, :length], 0)
            relevance[rows, :length], scores[rows] = made.relevance.sum(2), made.score
    first, second = relevance.gather(1, data.places).unbind(1)
    clear = scores.abs() >= LEAST_SCORE
    return Fidelity(
        correlation(data.numbers[:, 0], first),
        correlation(sign * data.numbers[:, 1], second),
        float(((first + second) / scores)[clear].mean()),
    )


@torch.no_grad()
def error(model: nn.Module, data: Sequences, sign: float) -> float:
    """The mean squared error of a network."""
    total = 0.0
    for length in range(SHORTEST, LONGEST + 1):
        rows = data.lengths == length
        if bool(rows.any()):
            said = model(data.x[rows, :length])[:, 0]
            total += float((said - data.results(sign)[rows]).square().sum())
    return total / len(data.x)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two series; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = a.norm() * b.norm()
    return float((a @ b) / size) if float(size) > 0 else 0.0


def _percent(values: Sequence[float]) -> str:
    """The mean and the standard deviation."""
    shares = 100 * torch.tensor(values, dtype=torch.float64)
    return f"{float(shares.mean()):.2f} ({float(shares.std(correction=0)):.2f})"
