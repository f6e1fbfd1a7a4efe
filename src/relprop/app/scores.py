"""The scores of a model's classes, before any final softmax or sigmoid, and its probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relprop import targets
from relprop.attribution import Attribution
from relprop.explainer import Explainer

MOST = 20  # classes that are told, besides the target
Told = dict[str, Any]


def scores_told(attribution: Attribution, explainer: Explainer, labels: Sequence[str] | None) -> list[Told]:
    """Index, name, score and probability of the classes, the highest score first: up to MOST, and the target.

    Where the model scores no classes, there is one entry, for what was explained.
    """
    target = None if attribution.target is None else int(attribution.target[0])
    explained = float(attribution.score[0])
    output = targets.class_scores(attribution.output)
    if target is None or output is None:
        return [{"index": target, "name": attribution.label(0), "score": explained, "probability": None}]
    scores, chances = _scores(output, target, attribution, explainer)
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    shown = order[:MOST] if target in order[:MOST] else [*order[:MOST], target]
    return [
        {
            "index": index,
            "name": labels[index] if labels is not None and index < len(labels) else str(index),
            "score": _finite(scores[index]),
            "probability": None if chances is None else _finite(chances[index]),
        }
        for index in shown
    ]


def _scores(
    output: Tensor, target: int, attribution: Attribution, explainer: Explainer
) -> tuple[Tensor, Tensor | None]:
    """(scores, probabilities) of all classes, float64."""
    if torch.equal(output[target], attribution.score[0]):
        return output.double(), output.double().softmax(0) if len(output) > 1 else None
    # The model ends in a softmax or sigmoid, so its output holds no scores: they are asked for in a pass of their own.
    assert attribution.inputs is not None
    with explainer._recorded(attribution.inputs, [None]) as session:
        before = targets.before_squash(session.trace, targets.scores_of(session.trace, session.output))
    scores = before.detach()[0].double()
    normalised = len(scores) > 1 and bool(torch.isclose(output.exp().sum(), output.new_ones(())))
    chances = output.exp() if normalised and bool((output <= 0).all()) else output
    return scores, chances.double()


def _finite(value: Tensor) -> float | None:
    found = float(value)
    return found if math.isfinite(found) else None
