"""Activations: element by element, relevance passes through unchanged, v_z = v_a f(z) / z."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from relprop.asking import unrecorded
from relprop.engine.call import Call
from relprop.engine.operation import map_tensors
from relprop.engine.registry import kind, operation
from relprop.errors import TrainingMode, UnsupportedFunction
from relprop.rules.base import stabiliser

if TYPE_CHECKING:
    from relprop.engine.trace import Trace

# Where f(0) is not zero, relevance can't pass on at z = 0; the share is stabilised.
EPS = 1e-6


class _Activation(torch.autograd.Function):
    """a = f(z) forward; v f(z) / z backward, f'(0) at z = 0."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], trace: Trace, z: Tensor) -> Tensor:
        a = f(z.detach())
        if not isinstance(a, Tensor):
            raise UnsupportedFunction(
                f"a function that was registered as an activation returned a {type(a).__name__}, not one tensor. Take "
                "back relprop.register(...), and explain a version of the model without that function"
            )
        a = a.clone() if a._is_view() or a.untyped_storage()._cdata == z.untyped_storage()._cdata else a
        ctx.f, ctx.run, ctx.z, ctx.a = f, trace.run, trace.keep(z), trace.keep(a)
        ctx.set_materialize_grads(False)
        return a

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[None, None, Tensor | None]:
        if v is None:
            return None, None, None
        z = ctx.z.value
        passed = _ratio(ctx.f, z, ctx.a.value).mul_(v).to(z.dtype)
        if ctx.run.last:
            ctx.z = ctx.a = None
        return None, None, passed


def _ratio(f: Callable[[Tensor], Tensor], z: Tensor, a: Tensor) -> Tensor:
    """a / z for a = f(z), continued at 0 by f'(0), and stabilised where f(0) is not 0."""
    with unrecorded():
        origin = torch.zeros((), dtype=z.dtype, device=z.device)
        at_zero, slope = _at(f, origin)
    if at_zero.dim():  # f has other constants for each element
        at_zero, slope = _at(f, torch.zeros_like(z))
        passed = torch.where(z == 0, slope, a / z)
        return torch.where(at_zero == 0, passed, a / stabiliser(EPS, z).add_(z))
    if float(at_zero):
        return a / stabiliser(EPS, z).add_(z)
    return (a / z).nan_to_num_(float(slope), math.inf, -math.inf)  # in one pass: only 0 / 0 is no number


def _at(f: Callable[[Tensor], Tensor], origin: Tensor) -> tuple[Tensor, Tensor]:
    """(f(0), f'(0)); an infinite slope, as of a square root, counts as 0: there is no relevance at f(0) = 0."""
    with torch.enable_grad():
        origin.requires_grad_()
        value = f(origin)
        if not value.requires_grad:  # a step function
            return value, torch.zeros_like(value)
        (slope,) = torch.autograd.grad(value.sum(), origin)
    return value.detach(), slope.nan_to_num(0.0, 0.0, 0.0)


def pointwise(call: Call, z: Tensor, f: Callable[[Tensor], Tensor], role: str | None = None) -> Tensor:
    """Record a = f(z), f element by element."""
    op = call.begin("activation", [z], remainder="value zero")
    paths = call.paths(op, call.args, passes=(z,))
    z = call.tap(op, z)
    out: Tensor = _Activation.apply(f, call.trace, z)  # type: ignore[no-untyped-call]
    if out.shape != z.shape:
        call.refuse("its constants give it another shape. Write x.expand(...) for its input first")
    return cast(Tensor, call.end(op, out, role, paths))


@operation("relu", "leaky_relu", "abs", kind="activation")
def piecewise_linear(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """f(z) / z is the derivative: torch's own backward is right."""
    if call.name == "relu":
        call.node(input).rectified = True
    return call.native("activation", passes=() if input.is_complex() else (input,))


@operation("rrelu", kind="activation")
def random_relu(
    call: Call, input: Tensor, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, *_: Any, **__: Any
) -> Any:
    if training:
        raise TrainingMode(
            f"{call.title} in {call.where} draws its slopes at random, so there is no one decision to explain. "
            "Write model.eval(), and pass training=self.training to a functional rrelu"
        )
    return call.native("activation", passes=(input,))


@operation("prelu", "_prelu_kernel", kind="activation")
def prelu(call: Call, input: Tensor, weight: Tensor) -> Any:
    if call.live(weight):
        call.refuse("its slope is computed from the input")
        return call.end(call.begin("unsupported"), call.run())
    return call.native("activation", passes=(input,))


FUNCTIONS = """
    gelu silu elu selu celu mish softplus softsign tanhshrink softshrink hardshrink hardswish hardtanh relu6 threshold
    log_sigmoid clamp clamp_min clamp_max nan_to_num square sqrt exp exp2 expm1 log log2 log10 log1p logit
    sin cos tan asin acos atan sinh cosh asinh acosh atanh deg2rad rad2deg sinc
    erfc erfcx erfinv ndtr log_ndtr ndtri entr lgamma digamma i0 i0e i1 i1e ldexp
    round floor ceil trunc frac fmod remainder fake_quantize_per_tensor_affine
"""


# They let values pass, but for those out of bounds: what goes in, gates for example, comes out.
BOUNDS = {"nan_to_num", "clamp", "clamp_min", "clamp_max"}


@kind("activation", *FUNCTIONS.split())
def activation(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not call.live(input) or call.trace.live(args, kwargs):
        call.refuse("an activation of several signals. Write it with +, * and activations of one signal")
        return cast(Tensor, call.end(call.begin("unsupported"), call.run()))
    role = call.node(input).role_after_activation

    def f(z: Tensor) -> Tensor:
        return cast(Tensor, call.run((z, *args), kwargs))

    if call.name in BOUNDS and role is None and call.node(input).role in ("gate", "attention"):
        role = call.node(input).role
    if call.node(input).role == "plus three" and f(input.new_tensor([-1.0, 3.0, 7.0])).tolist() == [0.0, 3.0, 6.0]:
        role = "gate"  # relu6(x + 3), six times a hard sigmoid
    out = pointwise(call, input, f, role)
    if call.name == "exp" and not call.inplace:
        call.node(out).exponent = input, input._version
    return out


@operation("pow", "float_power", kind="activation")
def power(call: Call, input: Any, exponent: Any) -> Tensor:
    if call.live(input) and call.live(exponent):
        call.refuse("a power whose base and exponent are both signals. Write it as exp(exponent * log(base))")
        return cast(Tensor, call.end(call.begin("unsupported"), call.run()))
    if call.live(exponent):
        return pointwise(call, exponent, lambda z: cast(Tensor, call.run((input, z), {})))
    # A negative power divides, as in x * (x.square().mean() + eps).pow(-0.5).
    divides = not isinstance(exponent, Tensor) and exponent < 0
    role = "statistic" if divides else call.node(input).role_after_activation
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z, exponent), {})), role)


@operation("sigmoid", "hardsigmoid", kind="activation")
def gate(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    out = pointwise(call, input, lambda z: cast(Tensor, call.run((z,), {})), "gate")
    call.squash(out, input)
    return out


@operation("sign", "sgn", kind="activation")
def sign(call: Call, input: Tensor) -> Tensor:
    """A signal in a binarised network; a gate in x.abs() written as x * x.sign()."""
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z,), {})), "gate")


@operation("tanh", "erf", kind="activation")
def squash(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """tanh and erf carry signals; plus a constant they are gates, as in 0.5 (1 + erf(x / sqrt 2))."""
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z,), {})), "squash")


@operation("rsqrt", "reciprocal", kind="activation")
def inverse(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return pointwise(call, input, lambda z: cast(Tensor, call.run((z,), {})), "statistic")


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
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        return torch.cat([v * ctx.gate, torch.zeros_like(v)], ctx.dim), None


CONSTANT = """
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like
    new_zeros new_ones new_empty new_empty_strided new_full new_tensor
    eq ne lt le gt ge not_equal less less_equal greater greater_equal heaviside
    logical_and logical_or logical_xor logical_not
"""


@kind("constant", *CONSTANT.split())
def constant(call: Call, *args: Any, **kwargs: Any) -> Any:
    """What these return has the form, not the value, of their argument, or is true or false (as 1 or 0 in place)."""
    if call.name.startswith(("new_", "full_")) and call.trace.live(args[1:], kwargs):
        call.refuse("it copies values out of the graph. Write torch.stack(...) or x.expand(...)")
    with torch.no_grad():
        return call.run(map_tensors(call.args, Tensor.detach), map_tensors(call.kwargs, Tensor.detach))
