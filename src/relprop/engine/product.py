"""Products: what a gate or statistic multiplies takes all the relevance; two signals take half each."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.activation import pointwise
from relprop.engine.affine import fold, foldable, per_channel
from relprop.engine.call import Call, on_gradient
from relprop.engine.joint import remember_gate
from relprop.engine.operation import Node, Operation, map_tensors
from relprop.engine.registry import operation
from relprop.errors import InvalidRule
from relprop.rules import ProductRule

Share = Callable[[Tensor], Tensor | None]

# Factors that only scale what they multiply.
SCALES = {"gate", "statistic"}


@operation("mul", kind="product")
def multiply(call: Call, input: Any, other: Any) -> Any:
    if call.live(input) and call.live(other):
        return two_signals(call, input, other)
    tensor, constant = (input, other) if call.live(input) else (other, input)
    return _scaled(call, tensor, constant, False)


@operation("div", kind="product")
def divide(call: Call, input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    options = {} if rounding_mode is None else {"rounding_mode": rounding_mode}
    if call.live(input) and call.live(other):
        if rounding_mode is not None:
            call.refuse("a division of two signals that rounds. Write it without rounding_mode")
        by_hand = _softmax_by_hand(call, input, other)
        if by_hand is not None:
            return by_hand
        # What a signal is divided by normalises it.
        call.kwargs = options
        return call.native("product", (input, other.detach()), role=call.node(input).role, passes=(input,))
    if call.live(other):
        return pointwise(call, other, lambda z: cast(Tensor, call.run((input, z), options)), "statistic")
    if rounding_mode is not None:
        return pointwise(call, input, lambda z: cast(Tensor, call.run((z, other), options)))
    return _scaled(call, input, other, True)


def _softmax_by_hand(call: Call, e: Tensor, total: Tensor) -> Any:
    """exp(z) / sum exp(z), over one axis, as the softmax of z that it is; None for other quotients."""
    node = call.node(e)
    of = call.node(total).function_of or call.node(total)
    axes = [axis for axis, size in enumerate(e.shape) if total.dim() == e.dim() and total.shape[axis] != size]
    if node.exponent is None or of.operation.name != "sum" or of.operation.sources != (node,) or len(axes) != 1:
        return None
    exponent, version = node.exponent
    if exponent._version != version:  # overwritten since
        return None
    return call.written_out(lambda: exponent.softmax(axes[0]))


@operation("floor_divide", kind="product")
def floor_divide(call: Call, input: Any, other: Any) -> Any:
    call.func = torch.div
    return divide(call, input, other, rounding_mode="floor")


@operation("outer", "kron", "cross", kind="product")
def bilinear(call: Call, input: Tensor, other: Tensor, *args: Any, **kwargs: Any) -> Any:
    if call.live(input) and call.live(other):
        return two_signals(call, input, other)
    return call.native("product")


@operation("prod", kind="product")
def product(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """n signals take R / n each."""
    out = call.native("product", role=call.node(input).role)
    n = max(input.numel(), 1) / max(out.numel(), 1)
    on_gradient(out, lambda v: v / n)
    return out


def _scaled(call: Call, tensor: Tensor, constant: Any, inverse: bool) -> Any:
    """A signal times a constant: folded into the affine operation before it, else relevance passes unchanged."""
    record = foldable(call, tensor)
    if record is not None:
        scale = per_channel(record, tensor, constant)
        if scale is not None:
            scale = 1 / scale if inverse else scale
            return fold(call, record, tensor, scale, None, lambda: cast(Tensor, call.run()))
    out = call.native("product", role=call.node(tensor).role, passes=(tensor,))
    if call.name == "mul" and call.node(tensor).role == "gate" and isinstance(constant, Tensor):
        remember_gate(call, tensor, constant, out)
    return out


def two_signals(call: Call, a: Tensor, b: Tensor) -> Any:
    """A product, of elements or of matrices, of two live factors."""
    role_a, role_b = call.node(a).role, call.node(b).role
    elementwise = call.name == "mul"
    if elementwise and role_a is None and role_b is None:
        # x f(x), as in x relu6(x + 3) / 6, is an activation of x, whose factor f(x) is a gate.
        role_a = "gate" if _activates(call.node(a), call.node(b)) else None
        role_b = "gate" if _activates(call.node(b), call.node(a)) else None
    if role_a != role_b:
        for weight, signal, role in ((a, b, role_a), (b, a, role_b)):
            if role == "attention" or (role == "gate" and call.trace.gates):
                return _shared(call, role, weight, signal)
            if role in SCALES:
                out = call.native("product", _replaced(call, weight), passes=(signal,) if elementwise else ())
                if role == "gate" and elementwise:
                    remember_gate(call, weight, signal, out)
                return out
    if elementwise and role_a is None and role_b is None:
        activated = [call.node(factor).operation.kind == "activation" for factor in (a, b)]
        if activated[0] != activated[1]:  # silu(g) * u
            return _shared(call, "gated", *((a, b) if activated[0] else (b, a)))
    return _shared(call, "product", a, b, role_a if role_a == role_b and role_a in SCALES else None)


def _activates(factor: Node, signal: Node) -> bool:
    """Whether the factor is f(signal), element by element, with an activation in f."""
    return factor.function_of is signal and factor.activated


def _shared(call: Call, kind: str, a: Tensor, b: Tensor, role: str | None = None) -> Any:
    """A product whose factors get their own parts of autograd's v: a weight and a signal what the rule for this kind
    says, two signals half each, whatever their values."""
    call.functional = call.inplace  # an edge is a view, which must not be overwritten
    made: list[Operation] = []
    elementwise, size = call.name == "mul", a.numel() + b.numel()
    # Rules that go by the factors' values need them, element by element.
    values = [call.trace.keep(a), call.trace.keep(b)] if elementwise and kind != "product" else []
    to_come = {0, 1}
    collected = call.trace.keep(a) if kind == "attention" and call.trace.attention is not None else None
    in_order = _queries_by_keys(call, a) if collected is not None and not elementwise else None
    if collected is not None and elementwise:
        call.trace.notes[
            f"{call.where}: attention weights multiply their values element by element there, which `attention` does "
            "not tell; written as a matrix product (weights @ values), it does"
        ] = None

    def shares() -> tuple[float | Tensor, float | Tensor]:
        if kind == "product":
            return 0.5, 0.5
        if not elementwise:
            return matrix_shares(made[0])
        rule = made[0].rule
        assert isinstance(rule, ProductRule)
        return rule.shares(*(each.value for each in values)) if rule.elementwise else _shares_of(rule)

    def common(s: float | Tensor, t: float | Tensor) -> float | None:
        """The part of v that both factors get, if it is one number, and is best taken where v arrives."""
        return s if isinstance(s, float) and s == t and math.prod(made[0].shape) < size else None

    def share(v: Tensor, factor: int) -> Tensor | None:
        both = shares()
        part, own = common(*both), both[factor]
        if collected is not None and in_order is not None and factor == 0:
            assert call.trace.attention is not None
            call.trace.attention[made[0].index] = in_order(collected.value * (v if part is None else v / part))
        to_come.discard(factor)
        if call.trace.run.last and not to_come and isinstance(own, float):
            values.clear()
        if part is not None:
            return v
        return None if isinstance(own, float) and own == 0 else v * own

    edges = {id(factor): call.edge(factor, made, partial(share, factor=i)) for i, factor in enumerate((a, b))}
    passes = (a, b) if elementwise and kind in ("product", "gated") else ()
    args = tuple(map_tensors(call.args, lambda t: edges.get(id(t), t)))
    call.kwargs = map_tensors(call.kwargs, lambda t: edges.get(id(t), t))
    out = call.native(kind, args, role=role, passes=passes, shares=shares, measured=True)
    made.append(call.node(out).operation)
    on_gradient(out, lambda v: None if (part := common(*shares())) is None else v * part)
    if elementwise and kind == "gate":
        call.node(out).gate = call.node(a)
    return out


def _queries_by_keys(call: Call, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """How to put the axes of attention weights in the order (..., queries, keys), from the product that they are in."""
    if call.name != "einsum":
        second = len(call.args) > 1 and call.args[1] is weights
        return lambda t: t.transpose(-2, -1) if second else t
    operands, arrow, result = str(call.args[0]).replace(" ", "").replace("...", "").partition("->")
    if not arrow:  # the result's axes are those that stand once, in the order of the alphabet
        result = "".join(sorted(axis for axis in set(operands) - {","} if operands.count(axis) == 1))
    tensors = call.args[1] if isinstance(call.args[1], (list, tuple)) else call.args[1:]
    mine, other = operands.split(",") if tensors[0] is weights else reversed(operands.split(","))
    batch = [axis for axis in mine if axis in other and axis in result]
    queries = [axis for axis in mine if axis not in other]
    keys = [axis for axis in mine if axis in other and axis not in result]

    def ordered(t: Tensor) -> Tensor:
        lead = t.dim() - len(mine)
        place = {axis: lead + i for i, axis in enumerate(mine)}
        t = t.permute(*range(lead), *(place[axis] for axis in (*batch, *queries, *keys)))
        t = t.flatten(t.dim() - len(keys)) if keys else t.unsqueeze(-1)
        if not queries:
            return t.unsqueeze(-2)
        return t.flatten(t.dim() - 1 - len(queries), -2)

    return ordered


def matrix_shares(op: Operation) -> tuple[float, float]:
    """(share of the weights, share of the signal) in a product of matrices."""
    rule = op.rule
    assert isinstance(rule, ProductRule)
    if rule.elementwise:
        raise InvalidRule(f"{rule} shares element by element, {op.where} is a product of matrices. Use Half()")
    return _shares_of(rule)


def _shares_of(rule: ProductRule) -> tuple[float, float]:
    """The shares of a rule that does not go by the factors' values."""
    weight, signal = rule.shares(torch.empty(0), torch.empty(0))
    return float(weight), float(signal)


def _replaced(call: Call, factor: Tensor) -> tuple[Any, ...]:
    """The call's arguments with a factor as a constant."""

    def constant(t: Tensor) -> Tensor:
        return t.detach() if t is factor else t

    call.kwargs = map_tensors(call.kwargs, constant)
    return cast("tuple[Any, ...]", map_tensors(call.args, constant))
