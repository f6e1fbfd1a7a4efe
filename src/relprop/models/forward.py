"""Does a model give the scores of the toolbox its weights came from, and if not, which usual mistake explains it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relprop.errors import InvalidInput, InvalidOutput, NonFinite
from relprop.models.keras import KerasNetwork
from relprop.models.mistakes import Inputs, mistakes
from relprop.models.prepare import prepare, refuse_training

_SHOWN = 5


@dataclass(frozen=True)
class ForwardReport:
    """Whether scores agree; true if they do.

    difference: the largest absolute difference between the model's scores and the reference.
    explanation: one sentence: that they agree, or the mistake that explains the difference, or that none does.
    table: (mistake, largest absolute difference without it), the closest first: those that explain the difference, or,
        if none does, all that were tried; empty if the scores agree.
    """

    agrees: bool
    difference: float
    explanation: str
    table: tuple[tuple[str, float], ...] = ()

    def __bool__(self) -> bool:
        return self.agrees

    def __str__(self) -> str:
        lines = [self.explanation]
        if len(self.table) > 1:
            lines += ["", "difference left  if"]
            lines += [f"{difference:<15.3g}  {what}" for what, difference in self.table[:_SHOWN]]
        return "\n".join(lines)


# What toolboxes may return in place of the scores.
_SQUASHED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda scores: scores.softmax(-1),
    "log-softmax": lambda scores: scores.log_softmax(-1),
    "sigmoid": torch.sigmoid,
}
_ROUNDING = 1e-3


def check_forward(
    model: Callable[..., Any], x: Any, reference: npt.ArrayLike, *, atol: float = 1e-5, rtol: float = 1e-4
) -> ForwardReport:
    """Compare a model's scores with those of the toolbox its weights came from, and look for the cause if they differ.

    model: a model in evaluation mode; only copies of it are changed.
    x: its input, a tensor or an array (floating-point arrays are given to it in its own dtype), tuple or dict of them;
        best with two samples or more, and where there is time, with more than one step.
    reference: the scores of that toolbox for x, shaped like the model's output.
    atol, rtol: scores agree where |score - reference| <= atol + rtol |reference|.

    Tried are: another gate order, transposed or reshaped weights, a bias too many or counted twice, directions swapped,
    time and batch swapped, channels last before a flatten, and each of them with the reference being a softmax or
    sigmoid of the scores. Two such mistakes at once are not looked for; nor any in the weights of a Keras model or of a
    function.

    Raises InvalidInput if the reference has another number of scores, NonFinite if it holds NaN.
    """
    prepared = prepare(model)
    refuse_training(prepared)
    if isinstance(x, Mapping):
        prepared, x = _Named(prepared, tuple(x)), tuple(x.values())
    given = _inputs(prepared, x)
    expected = _reference(reference)
    with torch.no_grad():
        scores = _scores(prepared(*given))
        comparison = _Comparison(expected, atol, rtol)
        same_size = comparison.same_size(scores)
        difference = comparison.difference(scores) if same_size else float("inf")
        if same_size and comparison.agrees(scores):
            return ForwardReport(True, difference, f"the scores agree: the largest difference is {difference:.3g}")
        tried = list(_tried(prepared, given, scores, comparison))
    if not same_size and not any(fits for _, _, fits in tried):
        raise InvalidInput(
            f"the model returns scores of shape {tuple(scores.shape)}, the reference has {tuple(expected.shape)}. "
            "Give the toolbox's scores for the same x, all samples of it"
        )
    return _report(difference, tried, comparison, prepared)


@dataclass(frozen=True)
class _Comparison:
    reference: Tensor
    atol: float
    rtol: float

    def same_size(self, scores: Tensor) -> bool:
        return _squeezed(scores).shape == _squeezed(self.reference).shape

    def difference(self, scores: Tensor) -> float:
        gap = (_squeezed(scores).double() - _squeezed(self.reference)).abs()
        return float(gap.max()) if gap.numel() else 0.0

    def agrees(self, scores: Tensor) -> bool:
        gap = (_squeezed(scores).double() - _squeezed(self.reference)).abs()
        return bool((gap <= self.atol + self.rtol * _squeezed(self.reference).abs()).all())

    def columns(self, scores: Tensor) -> Tensor | None:
        """One score for two classes as the probabilities (batch, 2) that some toolboxes return."""
        single = scores.numel() == scores.shape[0] if scores.dim() else False
        if single and self.reference.shape == (scores.shape[0], 2):
            p = scores.double().flatten().sigmoid()
            return torch.stack([1 - p, p], 1)
        return None


def _squeezed(scores: Tensor) -> Tensor:
    """Scores of shape (batch, 1) or (1, classes) as those of shape (batch,) or (classes,)."""
    return scores.squeeze()


def _readings(scores: Tensor, comparison: _Comparison) -> Iterator[tuple[str, Tensor]]:
    """The scores in each form that the reference may have, and what is so then."""
    scores = scores.double()
    if not comparison.same_size(scores):
        two = comparison.columns(scores)
        if two is not None:
            yield "the reference holds the probabilities of both classes, 1 - p and p, of the sigmoid of one score", two
        return
    yield "", scores
    for name, squash in _squashed(comparison.reference):
        yield f"the reference is the {name} of the scores", squash(scores)


def _squashed(values: Tensor) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """What values may have come through: a softmax only where a sample has several, and they add up to 1."""
    several = values.dim() > 1 and values.shape[-1] > 1
    chances = {"softmax": values, "log-softmax": values.exp(), "sigmoid": values}
    return [
        (name, squash)
        for name, squash in _SQUASHED.items()
        if bool(((chances[name] >= 0) & (chances[name] <= 1 + _ROUNDING)).all())
        and (name == "sigmoid" or (several and bool(((chances[name].sum(-1) - 1).abs() <= _ROUNDING).all())))
    ]


def _tried(
    model: Callable[..., Any], x: Inputs, scores: Tensor, comparison: _Comparison
) -> Iterator[tuple[str, float, bool]]:
    """(what would be so, difference then, whether the scores then agree) of everything that fits the reference."""
    for what, read in _readings(scores, comparison):
        if what:
            said = f"{what}. The weights are right: compare with the toolbox's scores before it"
            yield said, comparison.difference(read), comparison.agrees(read)
    yield from _inverse(scores, comparison)
    yield from _shifted(scores, comparison)
    if not isinstance(model, nn.Module) or isinstance(model, KerasNetwork):  # Keras holds its weights elsewhere
        return
    for mistake in mistakes(model, x):
        try:
            without = _scores(mistake.run(x))
        except (RuntimeError, ValueError, IndexError, InvalidOutput):  # the shapes don't allow this one
            continue
        if comparison.same_size(without.transpose(0, -1)) and not comparison.same_size(without):
            without = without.transpose(0, -1)
        for what, read in _readings(without, comparison):
            both = f"{mistake.what}; and {what}" if what else mistake.what
            yield both, comparison.difference(read), comparison.agrees(read)


def _inverse(scores: Tensor, comparison: _Comparison) -> Iterator[tuple[str, float, bool]]:
    """The scores are a softmax or sigmoid of the reference."""
    reference = comparison.reference
    if not comparison.same_size(scores):
        return
    other = _Comparison(scores.double(), comparison.atol, comparison.rtol)
    for name, squash in _squashed(other.reference):
        read = squash(reference)
        yield (
            f"the model's output is the {name} of the reference. The weights are right: compare its scores before it",
            other.difference(read),
            other.agrees(read),
        )


def _shifted(scores: Tensor, comparison: _Comparison) -> Iterator[tuple[str, float, bool]]:
    """The difference is the same for each sample: a bias at the output."""
    if not comparison.same_size(scores) or scores.dim() < 2 or scores.shape[0] < 2:
        return
    gap = comparison.reference.reshape(scores.shape) - scores.double()
    shift = gap[:1]
    what = (
        f"the toolbox adds {[round(v, 6) for v in shift.flatten().tolist()[:6]]} to the scores of each sample: a bias "
        "at the output is missing, or not the toolbox's"
    )
    yield what, comparison.difference(scores + shift), comparison.agrees(scores + shift)


def _report(
    difference: float, tried: list[tuple[str, float, bool]], comparison: _Comparison, model: Any
) -> ForwardReport:
    ordered = sorted(tried, key=lambda row: (not row[2], row[1]))
    table = tuple((what, d) for what, d, _ in ordered)
    size = f"the scores differ by up to {difference:.3g}" if np.isfinite(difference) else "the scores differ in number"
    fitting = tuple((what, d) for what, d, fits in ordered if fits)
    if fitting:
        others = len(fitting) - 1
        also = f" (so would {others} other{'s' * (others > 1)} below)" if others else ""
        return ForwardReport(False, difference, f"{size}. This explains it{also}: {fitting[0][0]}", fitting)
    advice = " ".join([*_small(difference, comparison), *_missing_biases(model)])
    none = f"{size}, and none of the {len(table)} mistakes tried, one at a time, explains it. {advice}".rstrip()
    return ForwardReport(False, difference, none, table)


def _small(difference: float, comparison: _Comparison) -> Iterator[str]:
    if difference <= 0.01 * float(comparison.reference.abs().max()):
        yield (
            "So little may be rounding in float32, or a constant: batch norm's eps is 1e-3 in Keras, 1e-5 in PyTorch; "
            "GELU is exact or by tanh."
        )


def _missing_biases(model: Any) -> Iterator[str]:
    """Layers with fewer biases than they might have: one that was left out can't be guessed, but asked for."""
    found = []
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU)):
            continue
        given = {key.split("_l")[0] for key, p in module.named_parameters(recurse=False) if "bias" in key and p.any()}
        if not given:
            found.append(f"{name or type(module).__name__} has none")
        elif isinstance(module, (nn.LSTM, nn.GRU)) and len(given) == 1:
            found.append(f"{name or type(module).__name__} has one of two, {given.pop()}")
    if found:
        yield f"Was a bias left out? {'; '.join(found)}."


class _Named(nn.Module):
    """A model that takes its inputs by name, called by position."""

    def __init__(self, model: Callable[..., Any], names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Any) -> Any:
        return self.model(**dict(zip(self.names, values, strict=True)))


def _inputs(model: Callable[..., Any], x: Any) -> Inputs:
    """The model's arguments, arrays as tensors of the model's dtype."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), None)

    def tensor(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise InvalidInput(f"x is of dtype {array.dtype}; give numbers, or tokens as integer ids")
        found = torch.from_numpy(np.array(array))
        if found.is_floating_point():
            return found if dtype is None else found.to(dtype)
        return found.long()

    return tuple(tensor(value) for value in x) if isinstance(x, tuple) else (tensor(x),)


def _reference(reference: npt.ArrayLike) -> Tensor:
    values = reference.detach().cpu() if isinstance(reference, Tensor) else torch.from_numpy(np.array(reference))
    if not values.is_floating_point():
        raise InvalidInput(f"the reference is of {values.dtype}; give scores, not labels")
    if not bool(torch.isfinite(values).all()):
        raise NonFinite("the reference holds NaN or infinity; give the scores that the toolbox computed")
    return values.double()


def _scores(output: Any) -> Tensor:
    """The one tensor of scores in a model's output."""
    logits = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    found = logits if isinstance(logits, Tensor) else output
    if not isinstance(found, Tensor):
        raise InvalidOutput(
            f"the model returned a {type(output).__name__}; give a function that returns the scores, for example "
            "check_forward(lambda x: model(x)[0], x, reference)"
        )
    return found.detach().cpu()
