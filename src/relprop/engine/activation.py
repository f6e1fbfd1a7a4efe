"""Activations: element by element, relevance passes through unchanged, v_z = v_a f(z) / z."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.operation import Kept
from relprop.engine.registry import kind, operation
from relprop.engine.call import Call
from relprop.rules.base import stabiliser

# Where f(0) is not zero, relevance can't pass on at z = 0; the share is stabilised.
EPS = 1e-6


class _Activation(torch.autograd.Function):
    """a = f(z) forward; v f(z) / z backward, f'(0) at z = 0."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], kept: Kept, z: Tensor) -> Tensor:
        ctx.f, ctx.kept = f, kept
        return f(z.detach())

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[override]
        z = ctx.kept.value
        return None, None, (v * ratio(ctx.f, z)).to(z.dtype)


def ratio(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z) / z, continued at 0."""
    with torch.enable_grad():
        origin = torch.zeros((), dtype=z.dtype, device=z.device, requires_grad=True)
        at_zero = f(origin)
        (slope,) = torch.autograd.grad(at_zero, origin)
    if not bool(at_zero.detach() == 0):
        return f(z) / (z + stabiliser(EPS, z))
    return torch.where(z == 0, slope, f(z) / z)


def pointwise(call: Call, z: Tensor, f: Callable[[Tensor], Tensor], role: str | None = None) -> Tensor:
    """Record a = f(z), f element by element."""
    op = call.begin("activation", [z], remainder="value zero")
    if call.trace.paths_everywhere or op.depth == 0:
        op.passes = (z,)
    z = call.tap(op, z)
    out: Tensor = _Activation.apply(f, call.trace.keep(z), z)  # type: ignore[no-untyped-call]
    return cast(Tensor, call.end(op, out, role))


@operation("relu", "leaky_relu", "abs", "rrelu", "threshold_at_zero", kind="activation")
def piecewise_linear(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """f(z) / z is the derivative: torch's own backward is right."""
    return call.native("activation", passes=(input,))


@operation("prelu", "_prelu_kernel", kind="activation")
def prelu(call: Call, input: Tensor, weight: Tensor) -> Any:
    if call.live(weight):
        call.refuse("its slope is computed from the input")
    return call.native("activation", passes=(input,))


@kind(
    "activation",
    # fmt: off
    "gelu", "silu", "elu", "selu", "celu", "mish", "softplus", "softsign", "tanhshrink", "softshrink",
    "hardshrink", "hardswish", "hardtanh", "relu6", "threshold", "logsigmoid", "log_sigmoid", "clamp", "clamp_min", "clamp_max",
    "atan", "asinh", "sinh", "cosh", "sin", "cos", "tan", "asin", "acos", "atanh", "expm1", "log1p", "exp", "exp2", "log", "log2", "log10",
    "sqrt", "square", "pow", "float_power", "erfc", "erfinv", "round", "floor", "ceil", "trunc", "nan_to_num", "frac", "logit",
    "lgamma", "digamma", "sinc", "i0", "ldexp",
    # fmt: on
)
def activation(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not call.live(input) or call.trace.live(args, kwargs):
        call.refuse("an activation of several signals. Write it with +, * and activations of one signal")
        return cast(Tensor, call.end(call.begin("unsupported"), call.run()))
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z, *args))), call.node(input).role_after(call.name))


@operation("sigmoid", "hardsigmoid", kind="activation")
def gate(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    out = pointwise(call, input, lambda z: cast(Tensor, call.run((z,))), "gate")
    call.squash(out, input)
    return out


@operation("tanh", "erf", kind="activation")
def squash(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """tanh and erf carry signals; plus a constant they are gates, as in 0.5 (1 + erf(x / sqrt 2))."""
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z,))), "squash")


@operation("rsqrt", "reciprocal", kind="activation")
def inverse(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z,))), "statistic")


@operation("glu", kind="product")
def glu(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    """a sigmoid(b): the gate gets nothing."""
    op = call.begin("product", [input])
    z = call.tap(op, input)
    out: Tensor = _Glu.apply(z, dim)  # type: ignore[no-untyped-call]
    return cast(Tensor, call.end(op, out))


class _Glu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        ctx.gate = x.chunk(2, dim)[1].sigmoid()
        return torch.nn.functional.glu(x, dim)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return torch.cat([v * ctx.gate, torch.zeros_like(v)], ctx.dim), None


@kind("constant", "sign", "heaviside", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
      "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor", "bernoulli", "argsort", "floor_divide", "fmod",
      "remainder", "signbit", "sgn", "bucketize", "searchsorted")  # fmt: skip
def constant(call: Call, *args: Any, **kwargs: Any) -> Any:
    """What these return has the form, not the value, of their argument (or only its sign)."""
    from relprop.engine.operation import map_tensors

    with torch.no_grad():
        return call.run(map_tensors(call.args, Tensor.detach), map_tensors(call.kwargs, Tensor.detach))
