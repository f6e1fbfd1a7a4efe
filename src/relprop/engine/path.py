"""Relevance paths: tensors of the same value as an operation's input, whose backward takes relevance R itself.

Rules that give relevance to inputs that are zero (ZBox, Flat, WSquare) can't express it per unit of value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.engine.operation import Node, Operation
from relprop.errors import InvalidRule

if TYPE_CHECKING:
    from relprop.engine.trace import Trace

# Element by element and monotone in their one live argument, so that bounds go through them.
_MONOTONE = {"add", "sub", "rsub", "neg", "mul", "div", "batch_norm"}


class _Division(torch.autograd.Function):
    """R -> v = R / value, at the output of an affine or sum operation; what meets a zero is lost, and noted."""

    @staticmethod
    def forward(ctx: Any, op: Operation, tensor: Tensor, report: bool) -> Tensor:
        ctx.op, ctx.value, ctx.report = op, tensor.detach().clone(), report
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor, None]:
        empty = ctx.value == 0
        if ctx.report:
            lost = float((relevance.double() * empty).sum())
            ctx.op.flow.received += lost
            ctx.op.flow.absorb("value zero", lost)
        return None, torch.where(empty, 0, relevance / ctx.value), None


Shares = Callable[[], "Sequence[float | Tensor]"]


class _Through(torch.autograd.Function):
    """R -> its share of R for each source, element by element; the value is the operation's own output."""

    @staticmethod
    def forward(ctx: Any, shares: Shares | None, output: Tensor, *sources: Tensor) -> Tensor:
        ctx.shares = shares or partial(_equal, len(sources))
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(relevance * share for share in ctx.shares())


def _equal(parts: int) -> list[float]:
    return [1 / parts] * parts


def relevance_path(trace: Trace, tensor: Tensor) -> Tensor:
    """The relevance path of a live tensor; where it goes no further back, a division by its value."""
    node = trace.node(tensor)
    assert node is not None
    if node.path is None:
        path: Tensor = _Division.apply(node.operation, tensor, trace.report)  # type: ignore[no-untyped-call]
        node.path = path
    return node.path


def path_past(node: Node) -> Tensor | None:
    """A node's path, if it leads past the tensor to its sources; not if it divides by the value and comes back."""
    divides = node.path is not None and isinstance(node.path.grad_fn, _Division._backward_cls)
    return None if divides else node.path


def through(output: Tensor, sources: Sequence[Tensor], shares: Shares | None) -> Tensor | None:
    """The path of an output to which its sources' paths lead element by element, in these shares (None: equal ones);
    None if shapes differ."""
    if not sources or any(source.shape != output.shape for source in sources):
        return None
    path: Tensor = _Through.apply(shares, output.detach(), *sources)  # type: ignore[no-untyped-call]
    return path


def bounds_at(node: Node, low: float | Tensor, high: float | Tensor) -> tuple[Tensor, Tensor]:
    """The range of a tensor near the input, from the range of the model's input."""
    with torch.no_grad():
        a, b = _replayed(node, low), _replayed(node, high)
    return torch.minimum(a, b), torch.maximum(a, b)


def _replayed(node: Node, value: float | Tensor) -> Tensor:
    """What a tensor would be, were every element of the model's input `value`."""
    op = node.operation
    if op.kind == "input":
        assert node.path is not None
        return torch.as_tensor(value, dtype=node.path.dtype, device=node.path.device).expand(node.path.shape)
    name = op.name
    if node.replay is None or not (op.kind in ("carrier", "selection") or (name in _MONOTONE and len(op.sources) == 1)):
        raise InvalidRule(
            f"a box rule needs the range of its operation's input, but behind {op.where} the range of the model's "
            "input is not known. Use another rule for the first layer, for example WSquare() or Flat()"
        )
    return node.replay(lambda source: _replayed(source, value))


def live_mask(node: Node) -> Tensor | None:
    """One for each element that depends on the input, zero for constants that carriers put beside them (padding,
    cat with a constant); None where all do."""
    if node.replay is None or node.operation.kind != "carrier":
        return None
    with torch.no_grad():
        return _filled(node, 1.0) - _filled(node, 0.0)


def _filled(node: Node, value: float) -> Tensor:
    """What a rearranged tensor would be, were every element that depends on the input `value`."""
    if node.replay is None or node.operation.kind != "carrier":
        return torch.full(node.shape, value, device=node.device)
    return node.replay(lambda source: _filled(source, value))
