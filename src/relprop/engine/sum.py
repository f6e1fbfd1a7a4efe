"""Sums: each summand gets its share x_i / (sum + eps s(sum)); without eps that is torch's own backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.activation import pointwise
from relprop.engine.affine import fold, foldable, per_channel
from relprop.engine.call import Call
from relprop.engine.joint import join, same_cell
from relprop.engine.registry import kind, operation

FUNCTIONS = """
    sum nansum mean nanmean cumsum trace diff sum_to_size col2im affine_grid_generator
    avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa
"""


@kind("sum", *FUNCTIONS.split())
def linear_without_weights(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("sum", stabilised=True, role=_attention(call))


def _attention(call: Call) -> str | None:
    """The role of a sum: attention weights that are added up, or averaged over heads, stay what they are."""
    return "attention" if call.common_role() == "attention" else None


@operation("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", kind="sum")
def grid_sample(call: Call, input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Where to look is no value of its own: a grid computed from the input counts as constant, like a gate."""
    if not call.live(input):
        call.refuse("it reads a constant picture at places computed from the input")
        return call.end(call.begin("unsupported"), call.run())
    return call.native("sum", (input, grid.detach(), *args), stabilised=True)


@operation("add", "sub", "rsub", kind="sum")
def add(call: Call, input: Any, other: Any, *third: Any, alpha: float = 1) -> Any:
    if third:  # add(input, alpha, other), which torch still takes
        alpha, other = other, third[0]
    if call.live(input) and call.live(other):
        joint = _joint(call, input, other, alpha)
        if joint is not None:
            return joint
        cell = _cell(call, input, other)
        if cell is not None:
            return cell
        return call.native("sum", stabilised=True, role=_attention(call))
    tensor, constant = (input, other) if call.live(input) else (other, input)
    record = foldable(call, tensor)
    role = _role_of_sum(call.node(tensor).role, constant)
    if record is not None:
        shift = per_channel(record, tensor, constant)
        shape = torch.broadcast_shapes(tensor.shape, _shape(constant))  # type: ignore[no-untyped-call]
        if shift is not None and shape == tensor.shape:
            scale, shift = _scale_and_shift(call.name, tensor is input, shift, alpha)
            out = fold(call, record, tensor, scale, shift, lambda: cast(Tensor, call.run()))
            call.node(out).role = role
            return out
    node = call.node(tensor)
    if role == "gate" and call.trace.gates and node.role == "gate":
        # 1 - z is a gate like z, and hands it what it gets.
        args = call.args
        return pointwise(call, tensor, lambda z: cast(Tensor, call.run(_with(args, tensor, z))), role)
    joint = _joint(call, input, other, alpha)
    if joint is not None:
        return joint
    # A constant shift in front of the first affine operation normalises the input: rules that give relevance itself
    # see through it. Divided by x - mean, relevance would explode where x is near the mean.
    passes = (tensor,) if node.operation.depth == 0 else ()
    return call.native("sum", stabilised=True, role=role, remainder="bias", passes=passes)


def _with(args: tuple[Any, ...], tensor: Tensor, z: Tensor) -> tuple[Any, ...]:
    """The arguments with z in a tensor's place."""
    return tuple(z if each is tensor else each for each in args)


def _cell(call: Call, input: Tensor, other: Tensor) -> Any:
    """f c + i g, as recurrent cells have it; where c is a constant, the gate f gets nothing for it."""
    nodes = call.node(input), call.node(other)
    gates = nodes[0].gate, nodes[1].gate
    if gates[0] is None or gates[1] is None or not same_cell(call.trace, gates[0], gates[1]):
        return None
    constant = [node.gated is not None and node.gated[1] is None for node in nodes]
    if all(constant) or (call.inplace and constant[0]):
        return None
    args = tuple(t.detach() if alone else t for t, alone in zip((input, other), constant, strict=True))
    out = call.native("sum", (*args, *call.args[2:]), stabilised=True, remainder="constant")
    call.node(out).operation.cell = True
    return out


def _joint(call: Call, input: Any, other: Any, alpha: float) -> Tensor | None:
    """One linear operation, where both summands belong to one."""
    if alpha != 1:
        return None
    if call.name == "rsub":
        input, other = other, input
    return join(call, input, other, 1 if call.name == "add" else -1)


def _role_of_sum(role: str | None, constant: Any) -> str | None:
    """The role of a tensor plus a constant: 1 + tanh(x) is a gate, and x + 3 will be one when clamped to 0 ... 6."""
    number = float(torch.as_tensor(constant).detach()) if torch.as_tensor(constant).numel() == 1 else None
    if role == "squash":
        return None if number is None else "gate"
    return "plus three" if role is None and number == 3 else role


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


def _addcmul(c: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return c + (a * b if value == 1 else value * (a * b))


def _addcdiv(c: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return c + value * (a / b)


def _lerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    return (1 - weight) * start + weight * end


def _plus_product(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """addmv, addmm and baddbmm."""
    product = a @ b
    scaled = product if alpha == 1 else alpha * product
    return scaled if beta == 0 else scaled + (c if beta == 1 else beta * c)


def _addbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    scaled = alpha * (a @ b).sum(0)
    return scaled if beta == 0 else scaled + beta * c


FUSED: dict[str, Callable[..., Tensor]] = {
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    "addmv": _plus_product,
    "baddbmm": _plus_product,
    "addbmm": _addbmm,
    "addmm": _plus_product,  # registered in matrix.py, where it is affine as long as two of the three are constants
}


@operation(*(name for name in FUSED if name != "addmm"), kind="sum")
def fused(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Products and sums in one call: each is seen on its own, and the value is that of the fused function."""
    if call.inplace:  # what is overwritten stays a factor
        args = (call.decompose(torch.clone, args[0]), *args[1:])
    return call.written_out(FUSED[call.name], *args, **kwargs)


@operation("neg", kind="sum")
def negate(call: Call, input: Tensor) -> Any:
    record = foldable(call, input)
    if record is not None:
        return fold(call, record, input, torch.tensor(-1.0, dtype=input.dtype), None, lambda: cast(Tensor, call.run()))
    return call.native("sum", role=call.node(input).role, passes=(input,))
