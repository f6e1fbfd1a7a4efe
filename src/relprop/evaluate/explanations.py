"""Explanations to be measured: explainers, other functions, or relevance that is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from relprop.attribution import Attribution
from relprop.errors import InvalidInput, NonFinite
from relprop.explainer import Explainer
from relprop.methods import METHODS
from relprop.presets import Bounds

# A relprop.Explainer or another function of (x, target); or the relevance of each sample.
Explanation = Callable[..., Any] | Tensor | Sequence[Tensor]


def explainers(model: Callable[..., Any], names: Sequence[str], bounds: Bounds | None = None) -> dict[str, Explanation]:
    """An explainer for each name: "lrp" for LRP under the rules that fit the model, a method, or a preset of rules."""
    return {
        name: Explainer(model, method=name, bounds=bounds)
        if name == "lrp" or name in METHODS
        else Explainer(model, name, bounds=bounds)
        for name in names
    }


def checked_explanations(explanations: Mapping[str, Explanation], count: int) -> dict[str, Explanation]:
    """InvalidInput for what can't explain `count` samples."""
    example = "{'LRP': relprop.Explainer(model)}"
    if not isinstance(explanations, Mapping) or not explanations:
        raise InvalidInput(f"explanations: got {explanations!r}, expected named ones, such as {example}")
    for name, explanation in explanations.items():
        if callable(explanation) and not isinstance(explanation, Tensor):
            continue
        if not isinstance(explanation, (Tensor, list, tuple)):
            raise InvalidInput(f"the explanation {name!r} is {explanation!r}, expected a function, such as {example}")
        if len(explanation) != count:
            raise InvalidInput(f"the explanation {name!r} has relevance for {len(explanation)} samples of {count}")
    return dict(explanations)


def relevance_of(
    name: str, explanation: Explanation, x: Tensor, targets: Tensor, chosen: Sequence[int], positions: int
) -> Tensor:
    """The relevance of a batch, float64, in the shape of x or without what follows its `positions` dimensions.

    chosen: which of all samples the batch holds. Raises InvalidInput for relevance of another shape.
    """
    if callable(explanation) and not isinstance(explanation, Tensor):
        made = explanation(x, targets)
        made = made.relevance if isinstance(made, Attribution) else made
    else:
        made = pad_sequence([torch.as_tensor(explanation[i]) for i in chosen], batch_first=True)
    if not isinstance(made, Tensor) or made.shape[:positions] != x.shape[:positions] or made.dim() > x.dim():
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InvalidInput(
            f"the explanation {name!r} gave {shape} for a batch of shape {tuple(x.shape)}; expected relevance of that "
            f"shape, or of its first {positions} dimensions"
        )
    if not bool(torch.isfinite(made).all()):
        raise NonFinite(f"the explanation {name!r} holds NaN or infinity, by which nothing can be ordered")
    return made.detach().double()


def class_scores(model: Callable[..., Any], x: Tensor) -> Tensor:
    """What the model gives each class, (batch, classes). Raises InvalidInput for a model with another output."""
    with torch.no_grad():
        scores = model(x)
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != len(x) or scores.shape[1] < 2:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidInput(
            f"the model gave {shape} for {len(x)} samples, expected a score for each class, (batch, classes). Wrap it, "
            "for example as lambda x: model(x).logits, or for one score as lambda x: torch.stack([-model(x), "
            "model(x)], 1)"
        )
    return scores


def ranks(keys: Tensor) -> Tensor:
    """The place of each of the keys (batch, items) when a row's are ordered from the largest to the smallest, from 0.

    Equal ones keep the order they have.
    """
    return keys.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
