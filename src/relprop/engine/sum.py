"""Sums: each summand gets its share x_i / (sum + eps s(sum)); without eps that is torch's own backward."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.affine import fold, foldable, per_channel
from relprop.engine.registry import kind, operation
from relprop.engine.call import Call


@kind(
    "sum",
    # fmt: off
    "sum", "mean", "nansum", "nanmean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "cumsum", "trace", "diff", "col2im", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "affine_grid_generator",
    # fmt: on
)
def linear_without_weights(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("sum", stabilised=True)


@operation("add", "sub", "rsub", kind="sum")
def add(call: Call, input: Any, other: Any, *, alpha: float = 1) -> Any:
    if call.live(input) and call.live(other):
        return call.native("sum", stabilised=True)
    tensor, constant = (input, other) if call.live(input) else (other, input)
    record = foldable(call, tensor)
    if record is not None:
        shift = per_channel(record, tensor, constant)
        if shift is not None and torch.broadcast_shapes(tensor.shape, _shape(constant)) == tensor.shape:
            scale, shift = _scale_and_shift(call.name, tensor is input, shift, alpha)
            return fold(call, record, tensor, scale, shift, lambda: cast(Tensor, call.run()))
    node = call.node(tensor)
    role = "gate" if node.role == "squash" else node.role
    return call.native("sum", stabilised=True, role=role, remainder="bias")


def _scale_and_shift(name: str, live_first: bool, c: Tensor, alpha: float) -> tuple[Tensor | None, Tensor]:
    """z -> scale z + shift for z + alpha c, c + alpha z, z - alpha c, c - alpha z."""
    if name == "rsub":  # rsub(a, b) = b - alpha a
        name, live_first = "sub", not live_first
    sign = -1 if name == "sub" else 1
    if live_first:
        return None, sign * alpha * c
    return (None if sign * alpha == 1 else torch.full_like(c, sign * alpha).reshape(-1)[0]), c


def _shape(constant: Any) -> tuple[int, ...]:
    return tuple(constant.shape) if isinstance(constant, Tensor) else ()


@operation("addcmul", "lerp", "addcdiv", "addmv", "baddbmm", "addbmm", kind="sum")
def combined(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Linear as long as only one of several factors is live."""
    if call.live(args[0]) + any(call.live(a) for a in args[1:]) == 1 and sum(call.live(a) for a in args) == 1:
        return call.native("sum", stabilised=True, remainder="bias")
    call.refuse("several signals in one call. Write it as separate products and sums")
    return call.end(call.begin("unsupported"), call.run())


@operation("neg", kind="sum")
def negate(call: Call, input: Tensor) -> Any:
    record = foldable(call, input)
    if record is not None:
        return fold(call, record, input, torch.tensor(-1.0, dtype=input.dtype), None, lambda: cast(Tensor, call.run()))
    return call.native("sum", role=call.node(input).role, passes=(input,))
