"""Baselines: the values that stand for "nothing there"."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InvalidInput
from relprop.inputs import input_name
from relprop.methods.evaluation import Evaluation, Used, map_inputs
from relprop.methods.plain import Key

Baseline = float | Tensor | tuple[Any, ...] | dict[str, Any]


def baseline_values(evaluation: Evaluation, baseline: Baseline) -> dict[Key, Tensor]:
    """The baseline of everything that is explained, in the shape that it has in the model.

    baseline: a number; or a tensor that broadcasts against the input; for token ids a tensor of ids (the padding or
    the unknown token's), which the model's own embedding turns into values. For several inputs a tuple or dict of
    such, in the form of the inputs.
    """
    facts = evaluation.facts
    wanted = {used.place: _of(baseline, used, len(facts.used)) for used in facts.used}
    given = {used.place: _ids(used, wanted[used.place]) for used in facts.used if used.tokens}
    ids = {place: tensor for place, tensor in given.items() if tensor is not None}
    embedded = _embedded(evaluation, ids) if ids else {}
    values = {}
    for used in facts.used:
        for key in used.keys:
            values[key] = embedded[key] if used.place in ids else _filled(facts.values[key], wanted[used.place], used)
    return values


def _of(baseline: Any, used: Used, count: int) -> Any:
    """What the baseline says of one input."""
    name = input_name(used.key)
    if isinstance(baseline, dict):
        if used.key not in baseline:
            raise InvalidInput(f"baseline: it has no entry for {name}; give one for every input that is explained")
        return baseline[used.key]
    if isinstance(baseline, (tuple, list)):
        if not isinstance(used.key, int) or used.key >= len(baseline):
            raise InvalidInput(f"baseline: got {len(baseline)} of them and none for {name}; give one for every input")
        return baseline[used.key]
    if isinstance(baseline, Tensor) and count > 1:
        raise InvalidInput(
            f"baseline: got one tensor and {count} inputs are explained. Give a number, or a tuple or dict of "
            "baselines in the form of the inputs"
        )
    return baseline


def _ids(used: Used, value: Any) -> Tensor | None:
    """Baseline ids in the shape of the token ids; None where the baseline is a number."""
    if not isinstance(value, Tensor):
        return None
    if value.is_floating_point() or value.dtype == torch.bool:
        raise InvalidInput(
            f"baseline: {input_name(used.key)} holds token ids, and the baseline is of {value.dtype}. Give ids, such "
            "as torch.tensor(padding_id), or a number to fill the embedding's output with"
        )
    return _expanded(value, used.shape, used)


def _embedded(evaluation: Evaluation, ids: dict[int, Tensor]) -> dict[Key, Tensor]:
    places = itertools.count()  # of tensors only

    def replaced(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        new = ids.get(next(places))
        return value if new is None else new.to(value)

    return evaluation.embedded(map_inputs(evaluation.x, replaced))


def _filled(value: Tensor, baseline: Any, used: Used) -> Tensor:
    if isinstance(baseline, Tensor):
        return _expanded(baseline.detach(), tuple(value.shape), used).to(value)
    if isinstance(baseline, bool) or not isinstance(baseline, (int, float)):
        raise InvalidInput(
            f"baseline: got {baseline!r} for {input_name(used.key)}, expected a number or a tensor that broadcasts "
            f"against shape {tuple(value.shape)}"
        )
    return torch.full_like(value, baseline)


def _expanded(tensor: Tensor, shape: tuple[int, ...], used: Used) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError:
        raise InvalidInput(
            f"baseline: shape {tuple(tensor.shape)} does not broadcast against that of {input_name(used.key)}, {shape}"
        ) from None
