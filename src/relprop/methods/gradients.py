"""Methods that are made of gradients.

Of token ids, the gradient is that by the embedding's output, and a word's relevance is summed over the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from relprop.methods.base import Method, require_count, require_number
from relprop.methods.baseline import Baseline, baseline_values
from relprop.methods.evaluation import Evaluation
from relprop.methods.plain import Key, Rectified
from relprop.progress import Progress, told

# From this part of f(x) - f(baseline) on, a sum that misses it is worth a note.
_NOTED_GAP = 0.05


@dataclass(frozen=True, eq=False)
class Gradient(Method):
    """Sensitivity analysis (Simonyan et al. 2014; Arras et al. 2017): R_i = (df/dx_i)^2, for each pixel or other value.

    A word gets the squared L2 norm of the gradient by its embedding. With squared=False R_i = df/dx_i with its sign,
    and for a word the sum of it over the embedding.
    """

    name: ClassVar[str] = "gradient"
    squared: bool = True

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        gradients, _ = evaluation.gradient()
        return evaluation.summed(_shown(gradients, self.squared))


@dataclass(frozen=True, eq=False)
class GradientTimesInput(Method):
    """R_i = x_i df/dx_i; a word gets the inner product of its embedding and the gradient."""

    name: ClassVar[str] = "gradient_x_input"

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        gradients, _ = evaluation.gradient()
        return evaluation.summed({key: g * evaluation.facts.values[key] for key, g in gradients.items()})


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Method):
    """R_i = (x_i - b_i) times the mean of df/dx_i on the straight way from the baseline b to x (Sundararajan et al.
    2017).

    The sum over i is f(x) - f(b), but for the sum over steps that stands for the integral (midpoint rule); a note says
    when the two differ by more than 5 %.

    steps: points on the way, each one forward and backward pass. baseline: a number or an input of the same form; for
    token ids a number fills the embedding's output, a tensor of ids is embedded. progress: True for
    a bar, or a function of (done, total).
    """

    name: ClassVar[str] = "integrated_gradients"
    steps: int = 50
    baseline: Baseline = 0.0
    progress: bool | Progress | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_count(self.name, "steps", self.steps, 50)

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        base = baseline_values(evaluation, self.baseline)
        way = {key: value - base[key] for key, value in evaluation.facts.values.items()}
        total: dict[Key, Tensor] = {}
        for step in told(range(self.steps), self.progress, self.name):
            part = (step + 0.5) / self.steps
            gradients, _ = evaluation.gradient(lambda key, _: base[key] + part * way[key])  # noqa: B023
            total = {key: g + total[key] if total else g for key, g in gradients.items()}
        relevance = evaluation.summed({key: way[key] * g / self.steps for key, g in total.items()})
        self._note_gap(evaluation, evaluation.score(lambda key, _: base[key]), relevance)
        return relevance

    def _note_gap(self, evaluation: Evaluation, at_baseline: Tensor, relevance: list[Tensor]) -> None:
        difference = (evaluation.facts.score - at_baseline).double()
        found = torch.stack([r.double().flatten(1).sum(1) for r in relevance]).sum(0)
        worst = float(((found - difference).abs() / difference.abs().clamp(min=1e-12)).max())
        if worst > _NOTED_GAP:
            evaluation.notes[
                f"the sums of integrated gradients miss f(x) - f(baseline) by up to {worst:.0%}; more than "
                f"{self.steps} steps bring them closer"
            ] = None


@dataclass(frozen=True, eq=False)
class SmoothGrad(Method):
    """The gradient, averaged over copies of the input with Gaussian noise (Smilkov et al. 2017).

    R_i is its square, as for `gradient`; with squared=False the average itself, with its sign.

    samples: how many copies, each one forward and backward pass. noise: its standard deviation, as a part of
    (largest - smallest value) of a sample's input; for words of their embeddings. seed: of the noise, which is the same
    for every sample of a batch, so that none depends on its neighbours. progress: True for
    a bar, or a function of (done, total).
    """

    name: ClassVar[str] = "smoothgrad"
    samples: int = 50
    noise: float = 0.15
    seed: int = 0
    squared: bool = True
    progress: bool | Progress | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_count(self.name, "samples", self.samples, 50)
        require_number(self.name, "noise", self.noise, 0.15)

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)  # on the processor: the same noise on every device

        def noisy(key: Key, value: Tensor) -> Tensor:
            drawn = torch.randn(value.shape[1:], generator=generator, dtype=torch.float64).to(value)
            rows = value.flatten(1) if value.dim() > 1 else value[:, None]
            spread = (rows.amax(1) - rows.amin(1)).reshape(-1, *[1] * (value.dim() - 1))
            return value + self.noise * spread * drawn

        total: dict[Key, Tensor] = {}
        for _ in told(range(self.samples), self.progress, self.name):
            gradients, _rectifiers = evaluation.gradient(noisy)
            total = {key: g + total[key] if total else g for key, g in gradients.items()}
        return evaluation.summed(_shown({key: g / self.samples for key, g in total.items()}, self.squared))


@dataclass(frozen=True, eq=False)
class GuidedBackprop(Method):
    """The gradient, of which only what is positive passes a ReLU backwards (Springenberg et al. 2015).

    R_i has the sign of what arrives, and a word's is its sum over the embedding; with squared=True as for `gradient`.
    """

    name: ClassVar[str] = "guided_backprop"
    squared: bool = False

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        return _rectified(evaluation, Rectified.GUIDED, self)


@dataclass(frozen=True, eq=False)
class DeconvNet(Method):
    """The gradient, of which a ReLU passes backwards what is positive, whatever it cut forwards (Zeiler and Fergus
    2014).

    Max pools give to their winners ("switches"). R_i and `squared` as for guided backpropagation.
    """

    name: ClassVar[str] = "deconvnet"
    squared: bool = False

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        return _rectified(evaluation, Rectified.DECONV, self)


def _rectified(evaluation: Evaluation, rectified: Rectified, method: GuidedBackprop | DeconvNet) -> list[Tensor]:
    gradients, rectifiers = evaluation.gradient(rectified=rectified)
    if rectifiers == 0:
        evaluation.notes[f"the model has no ReLU, which {method.name} is about: this is its plain gradient"] = None
    return evaluation.summed(_shown(gradients, method.squared))


def _shown(gradients: dict[Key, Tensor], squared: bool) -> dict[Key, Tensor]:
    return {key: g.square() for key, g in gradients.items()} if squared else gradients
