"""Arrays from elsewhere as tensors of a model, checked one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relprop.errors import InvalidInput, NonFinite

Array = npt.ArrayLike


def tensor_of(name: str, array: Array) -> Tensor:
    """A copy of a floating-point array as a tensor of the same dtype. Raises InvalidInput and NonFinite."""
    values = _numpy(name, array)
    if values.dtype.kind != "f":
        raise InvalidInput(f"{name} is of dtype {values.dtype}; weights are floating-point: {name}.astype('float32')")
    try:
        tensor = torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise InvalidInput(f"{name} is of dtype {values.dtype}, which torch lacks: {name}.astype('float64')") from error
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise NonFinite(
            f"{name} holds NaN or infinity in {bad} of {tensor.numel()} places. Check where it was read from"
        )
    return tensor


def _numpy(name: str, array: Array) -> npt.NDArray[Any]:
    if isinstance(array, Tensor):
        return array.detach().cpu().numpy()
    try:
        return np.asarray(array)
    except ValueError as error:
        raise InvalidInput(f"{name} is no array: {error}. Give numbers in rows of equal length") from error


def require_one_dtype(tensors: dict[str, Tensor]) -> torch.dtype:
    """The dtype that all tensors have; InvalidInput if they differ."""
    first, *others = tensors
    for name in others:
        if tensors[name].dtype != tensors[first].dtype:
            raise InvalidInput(
                f"{name} is of {tensors[name].dtype}, {first} of {tensors[first].dtype}. Give all in one dtype: "
                "w.astype('float64')"
            )
    return tensors[first].dtype


def require_vector(name: str, tensor: Tensor, size: int, meaning: str) -> None:
    """InvalidInput unless the tensor has the shape (size,)."""
    if tensor.shape != (size,):
        raise InvalidInput(f"{name} has shape {tuple(tensor.shape)}; expected ({size},), {meaning}")


def fill(parameter: nn.Parameter | Tensor, values: Tensor) -> None:
    """Set a parameter of a module that was just made."""
    with torch.no_grad():
        parameter.copy_(values)


def channels_first(weight: Tensor, channels: int) -> Tensor:
    """Columns of a weight (out, positions * channels), channels last, in the order (channels, positions)."""
    out, width = weight.shape
    return weight.reshape(out, width // channels, channels).transpose(1, 2).reshape(out, width)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """An nn.Linear from its weight (out, in) and bias (out,)."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    fill(module.weight, weight)
    if bias is not None:
        fill(module.bias, bias)
    return module
