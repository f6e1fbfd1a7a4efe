"""Normalisers: their statistics count as constants; the scale passes, centring and shift share."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.affine import fold, foldable
from relprop.engine.call import Call
from relprop.engine.operation import map_tensors
from relprop.engine.registry import operation
from relprop.errors import TrainingMode


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / std * w + b forward; backward with std constant: v_x = C (v w / std), C the centring."""

    @staticmethod
    def forward(ctx: Any, call: Call, args: tuple[Any, ...], form: _Form, x: Tensor) -> Any:
        ctx.run, ctx.x, ctx.form = call.trace.run, call.trace.keep(x), form
        ctx.set_materialize_grads(False)
        # Autograd forbids changing a view made in here in place.
        return map_tensors(call.run(args), lambda t: t.clone() if t._is_view() else t)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *_: Any) -> tuple[None, None, None, Tensor | None]:
        if v is None:
            return None, None, None, None
        passed = ctx.form.redistribute(ctx.x.value, v)
        if ctx.run.last:
            ctx.x = None
        return None, None, None, passed


class _Form:
    """Which elements share statistics: `groups` of the channels (None: the last `axes` axes)."""

    def __init__(self, weight: Tensor | None, eps: float | None, groups: int | None, axes: int, centred: bool) -> None:
        self.weight, self.eps, self.groups, self.axes, self.centred = weight, eps, groups, axes, centred

    def redistribute(self, x: Tensor, v: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.detach()
        if weight is not None and self.groups is not None:
            v, weight = v * weight.reshape(-1, *(1,) * (x.dim() - 2)), None
        # Statistics in single precision at least, as torch's own kernels have them.
        dtype = torch.promote_types(x.dtype, torch.float32)
        rows, u = self._rows(x).to(dtype), self._rows(v).to(dtype)
        weight = None if weight is None else weight.flatten().to(dtype)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        if not self.centred:
            u = u if weight is None else u * weight
            return (u * rows.square().mean(-1, keepdim=True).add_(eps).rsqrt_()).reshape(x.shape).to(x.dtype)
        width = rows.shape[-1:]
        _, mean, rstd = torch.native_layer_norm(rows, width, None, None, eps)
        # Torch's backward has a term for the spread, with the normalised input in it. At an input that is its own mean
        # it is zero: what is left is the derivative with the spread constant, rstd * (w v - mean(w v)).
        level = torch.zeros_like(rows)
        wanted = [True, False, False]
        backward = torch.ops.aten.native_layer_norm_backward.default
        u = cast(Tensor, backward(u, level, width, torch.zeros_like(mean), rstd, weight, None, wanted)[0])
        return u.reshape(x.shape).to(x.dtype)

    def _rows(self, x: Tensor) -> Tensor:
        """One row for each set of elements with statistics of its own."""
        if self.groups is None:
            return x.flatten(-self.axes)
        return x.reshape(x.shape[0], self.groups, -1)


def _normalise(call: Call, x: Tensor, form: _Form) -> Any:
    _require_constants(call, x)
    op = call.begin("normaliser", [x], remainder="bias")
    op.keeps_output = True
    args = map_tensors(call.args, lambda t: t.detach())
    out = _Normalise.apply(call, args, form, call.tap(op, x))  # type: ignore[no-untyped-call]
    if isinstance(out, tuple):  # the native forms return their statistics too
        out = (out[0], *(t.detach() for t in out[1:]))
    return call.end(op, out)


def _require_constants(call: Call, x: Tensor) -> None:
    """Refuse weights and biases that are computed from the input."""
    if len(call.trace.live(call.args, call.kwargs)) > 1:
        call.refuse(f"its weights are computed from the input. Write {call.name} without weights, then * and +")


@operation("layer_norm", "native_layer_norm", kind="normaliser")
def layer_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Any:
    return _normalise(call, input, _Form(weight, eps, None, len(tuple(normalized_shape)), True))


@operation("rms_norm", kind="normaliser")
def rms_norm(
    call: Call, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Any:
    return _normalise(call, input, _Form(weight, eps, None, len(tuple(normalized_shape)), False))


@operation("group_norm", kind="normaliser")
def group_norm(
    call: Call,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Any:
    return _normalise(call, input, _Form(weight, eps, num_groups, 0, True))


@operation("native_group_norm", kind="normaliser")
def native_group_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    size: int,
    groups: int,
    eps: float,
) -> Any:
    return _normalise(call, input, _Form(weight, eps, groups, 0, True))


@operation("instance_norm", kind="normaliser")
def instance_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Any:
    if not use_input_stats:
        assert running_mean is not None and running_var is not None
        return _batch_norm(call, input, weight, bias, running_mean, running_var, eps)
    return _normalise(call, input, _Form(weight, eps, input.shape[1], 0, True))


@operation("batch_norm", kind="normaliser")
def batch_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Any:
    if training or running_mean is None or running_var is None:
        raise TrainingMode(
            f"{call.title} in {call.where} normalises with the statistics of the batch, so one sample's score depends "
            "on the others. Write model.eval(), with track_running_stats=True for its batch norms"
        )
    return _batch_norm(call, input, weight, bias, running_mean, running_var, eps)


@operation("_native_batch_norm_legit_no_training", kind="normaliser")
def batch_norm_no_training(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Any:
    call.func, call.args = torch.batch_norm, (
        input, weight, bias, running_mean, running_var, False, momentum, eps, False
    )  # fmt: skip
    call.kwargs = {}
    return _batch_norm(call, input, weight, bias, running_mean, running_var, eps), None, None


def _batch_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Any:
    """y = scale x + shift with the running statistics; part of the affine operation before it, if there is one."""
    _require_constants(call, input)
    record = foldable(call, input)
    axis = None if record is None else record.linear.channel_axis
    if record is not None and axis is not None and input.dim() + axis == 1:
        scale = torch.rsqrt(variance.detach().to(input.dtype) + eps)
        if weight is not None:
            scale = scale * weight.detach()
        shift = -mean.detach() * scale
        if bias is not None:
            shift = shift + bias.detach()
        return fold(call, record, input, scale, shift, lambda: cast(Tensor, call.run()))
    # In front of the first affine operation it normalises the input, see `add` in sum.py.
    passes = (input,) if call.node(input).operation.depth == 0 else ()
    return call.native("normaliser", stabilised=True, remainder="bias", passes=passes)
