"""Targets: which score of the model's output is explained."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.engine.trace import Trace
from relprop.errors import InvalidOutput, InvalidTarget, NonFinite

Target = int | str | Sequence[int | str] | Tensor | Callable[[Any], Tensor] | None


def parts(value: Any) -> list[tuple[str, Any]]:
    """The tensors in an output, with the expression that reaches each: [("['logits']", tensor), ...]."""
    if isinstance(value, Tensor):
        return [("", value)]
    if isinstance(value, dict):
        return [(f"[{k!r}]{e}", t) for k, v in value.items() for e, t in parts(v)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(f".{f}{e}", t) for f, v in zip(value._fields, value, strict=True) for e, t in parts(v)]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]{e}", t) for i, v in enumerate(value) for e, t in parts(v)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}{e}", t) for f in fields(value) for e, t in parts(getattr(value, f.name))]
    return []


def scores_of(trace: Trace, output: Any) -> Tensor:
    """The one tensor of an output that holds scores depending on the input."""
    found = [(name, t) for name, t in parts(output) if trace.node(t) is not None]
    if not found:
        raise InvalidOutput(
            f"the model returned {_describe(output)}, in which no tensor depends on a floating-point input. The score "
            "must be computed from the input by torch functions"
        )
    named = [(name, t) for name, t in found if name.strip("[]'.") in ("logits", "out")]
    if len(found) > 1 and len(named) != 1:
        listing = ", ".join(f"output{name} {tuple(t.shape)}" for name, t in found)
        raise InvalidTarget(
            f"the model returned several tensors ({listing}). Say which score to explain, for example "
            f"target=lambda output: output{next((n for n, t in found if t.dim() > 1), found[0][0])}[:, 0]"
        )
    scores: Tensor = (named or found)[0][1]
    return scores


def before_squash(trace: Trace, tensor: Tensor) -> Tensor:
    """The tensor before a final softmax, log_softmax or sigmoid, which only squash the score."""
    node = trace.node(tensor)
    while node is not None and node.unsquashed is not None:
        trace.notes["the final softmax or sigmoid was left out: the score before it was explained"] = None
        tensor = node.unsquashed
        node = trace.node(tensor)
    return tensor


def select(
    trace: Trace, output: Any, target: Target, labels: Sequence[str] | None, batch: int
) -> tuple[Tensor, Tensor | None]:
    """(score (batch,), class indices (batch,) or None for a callable)."""
    if callable(target) and not isinstance(target, Tensor):
        with trace:
            score = target(output)
        if not isinstance(score, Tensor) or trace.node(score) is None:
            raise InvalidTarget(
                f"the target function returned {_describe(score)}, which does not depend on the input. It must return "
                "a tensor of one score per sample, computed from its argument"
            )
        score = before_squash(trace, score)
        if score.dim() == 0 and batch == 1:
            with trace:
                score = score[None]
        if score.shape != (batch,):
            raise InvalidTarget(
                f"the target function returned shape {tuple(score.shape)} for a batch of {batch}; it must return one "
                f"score per sample, shape ({batch},)"
            )
        return score, None
    scores = before_squash(trace, scores_of(trace, output))
    if scores.dim() == 0 or scores.shape[0] != batch:
        raise InvalidOutput(
            f"the model returned shape {tuple(scores.shape)} for an input with first dimension {batch}: the first "
            "dimension of both must be the batch. Write x.unsqueeze(0) for a single sample; for a model that takes "
            "(time, batch, ...), relprop.explain(lambda x: model(x.transpose(0, 1)), x.transpose(0, 1)); or a target "
            "function"
        )
    if scores.dim() > 2:
        raise InvalidTarget(
            f"the model returned shape {tuple(scores.shape)}, more than one score per class. Say how to make one score "
            "per sample, for example target=lambda output: output[:, 3].sum((1, 2))"
        )
    values = scores.detach()
    index = indices(target, values[:, None] if values.dim() == 1 else values, labels)
    with trace:
        return (scores if scores.dim() == 1 else scores.gather(1, index[:, None].to(scores.device))[:, 0]), index


def indices(target: Target, scores: Tensor, labels: Sequence[str] | None) -> Tensor:
    """The class index of each sample, shape (batch,), from None (the highest score), indices or names."""
    batch, classes = scores.shape
    if labels and len(labels) != classes:
        raise InvalidTarget(f"there are {len(labels)} class names for {classes} scores; give labels=[...], one a score")
    if target is None:
        return scores.argmax(1)
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.dtype == torch.bool or target.dim() > 1:
            raise InvalidTarget(
                f"the target tensor has dtype {target.dtype} and shape {tuple(target.shape)}; expected integers of "
                f"shape ({batch},)"
            )
        target = target.tolist()
    if isinstance(target, np.ndarray) and target.ndim == 1:
        target = target.tolist()
    several = isinstance(target, Sequence) and not isinstance(target, str)
    each = list(target) if several else [target] * batch  # type: ignore[arg-type]
    if len(each) != batch:
        raise InvalidTarget(
            f"got {len(each)} targets for a batch of {batch}. Give one for all, or one per sample; for several targets "
            "of the same samples write targets=[...]"
        )
    return torch.tensor([_index(t, classes, labels) for t in each])


def _index(target: Any, classes: int, labels: Sequence[str] | None) -> int:
    if isinstance(target, str):
        if not labels:
            raise InvalidTarget(
                f"the target {target!r} is a name, but the model has no class names. Give labels=[...] or an index"
            )
        if target not in labels:
            close = difflib.get_close_matches(target, labels, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else _listing(labels)
            raise InvalidTarget(f"there is no class named {target!r}.{hint}")
        target = list(labels).index(target)
    if isinstance(target, bool) or not hasattr(target, "__index__"):
        raise InvalidTarget(
            f"got {target!r} ({type(target).__name__}) as a target; expected a class index, a class name, or a function"
        )
    index = int(operator.index(target))
    if not -classes <= index < classes:
        raise InvalidTarget(f"the target {index} is out of range: the model has {classes} scores, 0 to {classes - 1}")
    return index % classes


def _listing(labels: Sequence[str]) -> str:
    return f" The names are: {', '.join(labels)}." if len(labels) <= 10 else f" There are {len(labels)} names."


def require_finite(score: Tensor) -> None:
    """NonFinite if a score is NaN or infinite."""
    bad = (~torch.isfinite(score.detach())).nonzero().flatten().tolist()
    if bad:
        raise NonFinite(
            f"the score of sample {bad[0]} is {score[bad[0]].item()}, so there is nothing to redistribute. Check the "
            "input's scale and the model's parameters (torch.isfinite)"
        )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"a {type(value).__name__}"
