"""Inputs: what may be given to a model to be explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from relprop.asking import finite, known
from relprop.engine.trace import Trace
from relprop.errors import InvalidInput, NonFinite
from relprop.presets import Bounds

# Rounding may carry a value at the bound beyond it.
_SLACK = 1e-3

Inputs = Tensor | tuple[Any, ...] | list[Any] | dict[str, Any]


def checked_inputs(x: Any) -> Inputs:
    """InvalidInput or NonFinite for what can't be explained."""
    if isinstance(x, PackedSequence):
        raise InvalidInput(
            "got a PackedSequence as input; give the padded tensor (batch, time, ...) and pack it inside the function "
            "that is explained: lambda x: model(pack_padded_sequence(x, lengths, batch_first=True))"
        )
    if isinstance(x, str):
        raise InvalidInput("got a str as input; of a text write relprop.explain_text(model, tokenizer, text)")
    if isinstance(x, Mapping):  # what tokenizers of transformers return is one, and no dict
        x = dict(x)
    if not isinstance(x, (Tensor, tuple, list, dict)):
        raise InvalidInput(
            f"got a {type(x).__name__} as input; give a tensor of shape (batch, ...), for example "
            "torch.from_numpy(array)[None], or a tuple or dict of tensors for several inputs"
        )
    items = [(None, x)] if isinstance(x, Tensor) else list(x.items() if isinstance(x, dict) else enumerate(x))
    if not any(isinstance(v, Tensor) for _, v in items):
        hint = '; write tokenizer(text, return_tensors="pt")' if isinstance(x, dict) and "input_ids" in x else ""
        raise InvalidInput(f"the input holds no tensor{hint}")
    for key, value in items:
        if isinstance(value, Tensor):
            _check_tensor(key, value)
    return x


def _check_tensor(key: Any, value: Tensor) -> None:
    name = input_name(key)
    if value.dim() == 0 or value.numel() == 0:
        raise InvalidInput(f"{name} has shape {tuple(value.shape)}; expected a batch of samples, (batch, ...)")
    if value.is_meta:
        raise InvalidInput(f"{name} is on the meta device, which holds no values")
    if value.is_complex():
        raise InvalidInput(f"{name} is complex ({value.dtype}); relevance is defined for real values")
    if value.is_floating_point() and not finite(value):
        count = int((~torch.isfinite(value)).sum())
        raise NonFinite(f"{name} holds {count} values that are NaN or infinite. Clean them: torch.nan_to_num(x)")


def input_name(key: Any) -> str:
    return "the input" if key is None else f"input {key!r}"


def integer_input(trace: Trace) -> InvalidInput:
    dtypes = ", ".join(sorted({str(given.tensor.dtype) for given in trace.inputs}))
    # Token ids come as (batch, tokens), and a model may refuse their number before it embeds them.
    ids = all(given.tensor.dtype == torch.int64 and given.tensor.dim() == 2 for given in trace.inputs)
    tokens = "; token ids may be no more than the model has places for" if ids else ""
    return InvalidInput(
        f"the input is of integers ({dtypes}) and goes through no embedding. Convert an image first, as in training: "
        f"x.float() / 255{tokens}"
    )


def misread_ids(trace: Trace, error: Exception) -> InvalidInput | None:
    """What an embedding meant when it refused its ids, if that is what happened."""
    told = str(error)
    if isinstance(error, IndexError) and "index out of range" in told:
        ids = [given.tensor for given in trace.inputs if not given.tensor.is_floating_point()]
        if ids:
            return no_place(ids)
    if isinstance(error, RuntimeError) and "'indices'" in told and "scalar types" in told:
        return InvalidInput("an embedding of the model takes ids, and got numbers of another type. Write ids.long()")
    return None


def no_place(ids: Sequence[Tensor]) -> InvalidInput:
    """What an embedding means that finds no row for one of these ids, or for where it stands."""
    low, high = min(int(t.min()) for t in ids), max(int(t.max()) for t in ids)
    return InvalidInput(
        f"the model can't look up a token: the ids go from {low} to {high}, over {ids[0].shape[-1]} tokens. "
        "Give the ids of the tokenizer it was trained with, and no more tokens than the model has places for"
    )


def checked_bounds(bounds: Any) -> Bounds | None:
    if bounds is None:
        return None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise InvalidInput(
            f"bounds: got {bounds!r}, expected (low, high), numbers or tensors of shape (channels, 1, 1)"
        )
    for bound in bounds:
        if not isinstance(bound, (int, float, Tensor)) or isinstance(bound, bool):
            raise InvalidInput(
                f"bounds: got {bound!r} ({type(bound).__name__}), expected numbers or tensors of shape (channels, 1, 1)"
            )
    return bounds[0], bounds[1]


def require_within(x: Inputs, bounds: Bounds | None) -> None:
    """InvalidInput if a value lies outside of the range that was given as the range of valid inputs."""
    if bounds is None:
        return
    for tensor in x.values() if isinstance(x, dict) else [x] if isinstance(x, Tensor) else x:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            continue
        low, high = (torch.as_tensor(b, dtype=tensor.dtype, device=tensor.device) for b in bounds)
        try:
            outside = (tensor < low - _SLACK * (high - low)) | (tensor > high + _SLACK * (high - low))
        except RuntimeError:
            raise InvalidInput(
                f"bounds: shapes {tuple(low.shape)} and {tuple(high.shape)} do not broadcast against an input of shape "
                f"{tuple(tensor.shape)}; write numbers, or tensors of shape (channels, 1, 1)"
            ) from None
        if known(outside.any()):
            raise InvalidInput(
                f"bounds: {int(outside.sum())} input values lie outside of them (the input ranges from "
                f"{float(tensor.min()):g} to {float(tensor.max()):g}). Give the range that valid inputs have after "
                "preprocessing, for example bounds=(-1, 1)"
            )


def checked_labels(labels: Any) -> tuple[str, ...]:
    """Class names by index, from a list, or from a dict by index."""
    if isinstance(labels, dict) and all(isinstance(key, int) for key in labels):
        labels = [labels[key] for key in sorted(labels)]
    if isinstance(labels, str) or not isinstance(labels, (list, tuple)) or not all(isinstance(n, str) for n in labels):
        raise InvalidInput(f'labels: got {labels!r}, expected a list of class names such as ["cat", "dog"]')
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if list(labels).count(name) > 1)
        raise InvalidInput(f"labels: {twice!r} stands there twice; a class name must name one class")
    return tuple(labels)
