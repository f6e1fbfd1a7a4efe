"""Affine operations: linear, convolutions, products with weights; the place where rules apply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from relprop.asking import known, recording
from relprop.engine.call import Call
from relprop.engine.linear_map import (
    Contraction,
    Convolution,
    Gated,
    LinearMap,
    Matrix,
    Padded,
    Permuted,
    backward_each,
    forward_sum,
)
from relprop.engine.operation import Kept, Node, Operation, inner
from relprop.engine.path import bounds_at, live_mask, relevance_path
from relprop.engine.registry import operation
from relprop.engine.trace import Trace
from relprop.engine.weights import Folded
from relprop.errors import InvalidInput, InvalidRule
from relprop.rules import WSquare
from relprop.rules.base import in_pieces, stabiliser, weigh

if TYPE_CHECKING:
    from relprop.engine.joint import Term


@dataclass(eq=False)
class Affine:
    """z = scale * (W x) + bias, with everything that rules ask of it (see relprop.rules.Layer)."""

    op: Operation
    trace: Trace
    linear: LinearMap
    source: Tensor
    raw_weight: Tensor
    scale: Tensor | None
    constant: Tensor | None
    x: Kept

    def __post_init__(self) -> None:
        # Of a joint operation: its summands.
        self.terms: tuple[Term, ...] = ()
        self._nonnegative: bool | None = None
        # The output's provenance.
        self.node: Node | None = None
        self._prepared = self.trace.prepared
        self._folded: Folded | None = None
        self.report = self.trace.report

    def release(self) -> None:
        """Let go of all values. The live tensor may since have been overwritten with what this operation made."""
        self.op.z = None
        self.terms = ()
        for name in ("source", "x", "trace", "node"):
            self.__dict__.pop(name, None)

    @property
    def dtype(self) -> torch.dtype:
        return self.x.value.dtype

    @property
    def weight(self) -> Tensor:
        if self.scale is None and self.raw_weight.dtype == self.dtype:
            return self.raw_weight.detach()
        return self.prepared("w", lambda w: w)

    @property
    def bias(self) -> Tensor | None:
        return None if self.constant is None else self.constant.to(self.dtype)

    @property
    def nonnegative(self) -> bool:
        if self._nonnegative is None:
            self._nonnegative = known(self.x.value.min() >= 0)
        return self._nonnegative

    @property
    def rectified(self) -> bool:
        node = self.node
        return node is not None and node.rectified and node.consumers == 1 and node.path is None

    def prepared(self, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        if self._folded is None:
            self._folded = self._prepared.folded(self.raw_weight, self.scale, self.linear)
        return self._folded.get(self.raw_weight, self.dtype, name, make)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.linear.forward(x, weight, bias)

    def forward_sum(self, xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
        return forward_sum(self.linear, xs, weights, bias)

    def backward(self, s: Tensor, weight: Tensor) -> Tensor:
        return self.linear.backward(s, weight, self.x.value)

    def backward_each(self, s: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return backward_each(self.linear, s, weights, self.x.value)

    def ones(self) -> Tensor:
        mask = live_mask(self.op.sources[0])
        ones = torch.ones_like(self.x.value) if mask is None else mask.to(self.x.value)
        return self.linear.one_sample(ones)

    def spread(self, relevance: Tensor, eps: float = 0.0) -> Tensor:
        linear, inputs, connected = self.linear.connections, self.ones(), self.prepared("1", torch.ones_like)
        count = linear.forward(inputs, connected).expand_as(relevance)
        s = self.divide(relevance, count, eps)
        return inputs * linear.backward(s, connected, self.x.value)

    def box(self, low: float | Tensor, high: float | Tensor) -> tuple[Tensor, Tensor]:
        try:
            bounds = bounds_at(self.op.sources[0], low, high)
        except RuntimeError:
            shapes = " and ".join(str(tuple(torch.as_tensor(bound).shape)) for bound in (low, high))
            raise InvalidInput(
                f"the bounds have shapes {shapes}, which do not broadcast against the model's input; write numbers, "
                "or tensors of shape (channels, 1, 1)"
            ) from None
        a, b = (self.linear.one_sample(bound.to(self.dtype)).contiguous() for bound in bounds)
        return a, b

    def divide(self, relevance: Tensor, z: Tensor, eps: float, bias: Tensor | None = None) -> Tensor:
        d = stabiliser(eps, z).add_(z)
        s = torch.div(relevance, d, out=None if self.report or d.shape != relevance.shape else d)
        if not eps:
            s.masked_fill_(z == 0, 0)
        self._account(relevance, d, s, eps, bias)
        return s

    def stabilised(
        self, v: Tensor, z: Tensor, eps: float, bias: Tensor | None = None, *, spend: bool = False
    ) -> Tensor:
        if self.report or not eps:
            return self.divide(z * v, z, eps, bias)
        # What a ReLU's backward made belongs to nobody else.
        s = v if spend and self.rectified else torch.empty_like(v)
        in_pieces(partial(weigh, eps), s, v, z)
        return s

    def share(
        self, v: Tensor, z: Tensor, d: Tensor, eps: float, bias: Tensor | None = None, part: float = 1.0
    ) -> Tensor:
        if eps and not self.report:
            in_pieces(partial(_shared, part), d, z, v)
            return d
        relevance = part * z * v
        s = relevance / d
        if not eps:
            s.masked_fill_(d == 0, 0)
        self._account(relevance, d, s, eps, bias)
        return s

    def share_apart(
        self,
        v: Tensor,
        z: Tensor,
        below: Tensor,
        eps: float,
        biases: tuple[Tensor | None, Tensor | None],
        parts: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        if eps and not self.report:
            in_pieces(partial(_shared_apart, eps, parts), v, z, below)
            return v, below
        above = torch.sub(z, below).clamp_(min=eps)
        s_above = self.share(v, z, above, eps, biases[0], parts[0])
        return s_above, self.share(v, z, below, eps, biases[1], parts[1])

    def _account(self, relevance: Tensor, d: Tensor, s: Tensor, eps: float, bias: Tensor | None) -> None:
        """Note what the bias, the stabiliser and empty denominators absorb of s = R / d, d = z + eps s(z)."""
        if self.report:
            empty = d.abs() == eps
            self.note("bias", bias, s)
            self.note("empty denominator", relevance * empty, torch.ones_like(s))
            self.note("stabiliser", stabiliser(eps, d) * ~empty, s)

    def note(self, cause: str, part: Tensor | None, s: Tensor) -> None:
        if self.report and part is not None:
            self.op.flow.absorb(cause, inner(part.expand_as(s), s))

    def redistribute(self, v: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(v at the input, R at the input): one of the two, as the rule gives it."""
        unused = self.op.z is None or self.op.index not in self.op.run.rules
        if unused and (recording() or not bool(v.any())):
            # Nothing used this output but an operation that it was folded into; autograd may still bring zeros.
            return None, None
        x, z = self.x.value, self.op.output().value
        rule = self.op.rule
        if isinstance(rule, WSquare) and isinstance(self.linear, Gated):
            raise InvalidRule(
                f"{rule} was given to {self.op.where}, whose weights a gate scales: there it has no meaning. Put an "
                'entry before it: ("linear", Epsilon(1e-6))'
            )
        out = rule.redistribute(self, x, z, v.to(z.dtype))
        if self.report:
            self.op.flow.received += inner(z, v)
            self.op.flow.passed += inner(x, out) if rule.proportional else float(out.double().sum())
        if self.op.run.last:
            self.release()
        return (out, None) if rule.proportional else (None, out)


def _shared(part: float, d: Tensor, z: Tensor, v: Tensor) -> None:
    """d = part z v / d."""
    relevance = z * v  # first: where no relevance is, z / d may overflow
    if part != 1:
        relevance.mul_(part)
    torch.div(relevance, d, out=d)


def _shared_apart(eps: float, parts: tuple[float, float], v: Tensor, z: Tensor, below: Tensor) -> None:
    """v, below = part_1 z v / (z - below), part_2 z v / below; where z < 0, and v = 0, any divisor but zero will do."""
    relevance = z * v
    above = torch.sub(z, below).clamp_(min=eps)
    torch.div(relevance, above, out=v).mul_(parts[0])
    torch.div(relevance, below, out=below).mul_(parts[1])


class _AffineFunction(torch.autograd.Function):
    """Forward: the model's own value. Backward: the rule, with one edge for v and one for R."""

    @staticmethod
    def forward(ctx: Any, affine: Affine, value: Callable[[], Tensor], x: Tensor, path: Tensor | None) -> Tensor:
        ctx.affine = affine
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        out = value()
        return out.clone() if out._is_view() else out  # autograd forbids changing a view made in here in place

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Any, ...]:
        if v is None:
            return None, None, None, None
        with torch.autocast(v.device.type, enabled=False):
            v_x, relevance = ctx.affine.redistribute(v)
        return (
            None,
            None,
            None if v_x is None else v_x.to(ctx.dtype),
            None if relevance is None else relevance.to(ctx.dtype),
        )


def affine(
    call: Call,
    kind: str,
    linear: LinearMap,
    source: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    constant: Tensor | None,
    value: Callable[[], Tensor],
    folded: Affine | None = None,
) -> Tensor:
    """Run and record one affine operation."""
    trace = call.trace
    op = call.begin(kind, [source], affine=True, remainder="rule")
    op.keeps_output = True
    nonnegative = call.node(source).nonnegative
    if folded is not None:
        op.function, op.module, op.module_type = folded.op.function, folded.op.module, folded.op.module_type
        op.function += f" + {call.title}"
    record = Affine(op, trace, linear, source, weight, scale, constant, trace.keep(source))
    path = relevance_path(trace, source) if op.first or trace.paths_everywhere else None
    out: Tensor = _AffineFunction.apply(record, value, source, path)  # type: ignore[no-untyped-call]
    call.end(op, out)
    record.node = call.node(out)
    record._nonnegative = nonnegative or None
    trace.affine[op.index] = record
    if folded is not None:
        for watch in folded.op.watchers:
            trace.watch(out, watch)
        op.watchers = folded.op.watchers
    if out.dtype != record.dtype:  # autocast computed in a narrower type
        record.x = trace.keep(source.detach().to(out.dtype))
    return out


# ---- folding: constants right after an affine operation become part of it


def foldable(call: Call, tensor: Tensor) -> Affine | None:
    """The affine operation that made this tensor, if it did so directly or but for the order of the axes."""
    node = call.trace.node(tensor)
    if node is None:
        return None
    op, dims = node.operation, tuple(range(tensor.dim()))
    while op.permutation is not None:
        order = op.permutation()
        dims = tuple(order[d] for d in dims)
        op = op.sources[0].operation
    record = call.trace.affine.get(op.index)
    if record is None or call.trace.node(record.source) is not op.sources[0]:
        return None
    if dims == tuple(range(len(dims))):
        return record
    linear = Permuted(record.linear, dims)
    constant = record.constant
    if constant is not None and constant.dim() > 0:
        constant = _along(constant.reshape(-1), linear.channel_axis)
    return replace(record, linear=linear, constant=constant)


def per_channel(record: Affine, tensor: Tensor, constant: Any) -> Tensor | None:
    """A constant as (channels,) or () if it is one number a channel of the affine operation's output."""
    if isinstance(constant, complex) or (isinstance(constant, Tensor) and constant.is_complex()):
        return None
    c = torch.as_tensor(constant, dtype=tensor.dtype, device=tensor.device).detach()
    if c.numel() == 1 and c.dim() <= tensor.dim():
        return c.reshape(())
    axis = record.linear.channel_axis
    if axis is None or c.dim() > tensor.dim():
        return None
    position = c.dim() + axis
    if position < 0 or c.shape[position] != tensor.shape[axis] or c.numel() != tensor.shape[axis]:
        return None
    return c.reshape(-1)


def fold(
    call: Call, record: Affine, tensor: Tensor, scale: Tensor | None, shift: Tensor | None, value: Callable[[], Tensor]
) -> Tensor:
    """The affine operation z' = scale * z + shift, with an edge of its own to the first one's input."""
    total_scale, constant = record.scale, record.constant
    axis = record.linear.channel_axis
    if scale is not None:
        total_scale = scale if total_scale is None else total_scale * scale
        constant = None if constant is None else constant * _along(scale, axis)
    if shift is not None:
        moved = _along(shift, axis)
        constant = moved if constant is None else constant + moved
    return affine(
        call, record.op.kind, record.linear, record.source, record.raw_weight, total_scale, constant, value, record
    )


def _along(c: Tensor, axis: int | None) -> Tensor:
    """A per-channel constant shaped to broadcast against the output."""
    return c if axis is None or c.dim() == 0 else c.reshape(-1, *(1,) * (-1 - axis))


# ---- the functions


@operation("conv1d", "conv2d", "conv3d", kind="conv")
def convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    axes = weight.dim() - 2
    stride, dilation = _tuple(stride, axes), _tuple(dilation, axes)
    linear: LinearMap
    if isinstance(padding, str):
        totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        inner_map = Convolution(stride, tuple(t // 2 for t in totals), dilation, groups=groups)
        extra = [side for t in reversed(totals) for side in (0, t % 2)]
        linear = Padded(inner_map, tuple(extra)) if any(extra) else inner_map
    else:
        linear = Convolution(stride, _tuple(padding, axes), dilation, groups=groups)
    return _with_weight(call, "conv", linear, input, weight, bias)


@operation("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", kind="conv")
def conv_transpose(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    axes = weight.dim() - 2
    linear = Convolution(
        _tuple(stride, axes), _tuple(padding, axes), _tuple(dilation, axes), True, _tuple(output_padding, axes), groups
    )
    return _with_weight(call, "conv", linear, input, weight, bias)


@operation("convolution", "_convolution", kind="conv")
def general_convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> Tensor:
    axes = weight.dim() - 2
    linear = Convolution(
        _tuple(stride, axes),
        _tuple(padding, axes),
        _tuple(dilation, axes),
        transposed,
        _tuple(output_padding, axes),
        groups,
    )
    return _with_weight(call, "conv", linear, input, weight, bias)


@operation("linear", kind="linear")
def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    linear_map: LinearMap = Matrix() if weight.dim() == 2 else Contraction(torch.nn.functional.linear)
    return _with_weight(call, "linear", linear_map, input, weight, bias)


def _with_weight(
    call: Call, kind: str, linear: LinearMap, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    if call.live(weight) or call.live(bias) or not call.live(input):
        call.refuse("its weights are computed from the input. relprop explains layers whose weights are constants")
        return cast(Tensor, call.end(call.begin("unsupported"), call.run()))
    constant = None if bias is None else _along(bias.detach(), linear.channel_axis)
    return affine(call, kind, linear, input, weight, None, constant, call.run)


def _tuple(value: Any, axes: int) -> tuple[int, ...]:
    """One number an axis."""
    if isinstance(value, int):
        return (value,) * axes
    numbers = tuple(int(v) for v in value)
    return numbers * axes if len(numbers) == 1 else numbers
