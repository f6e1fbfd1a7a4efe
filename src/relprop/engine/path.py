"""Relevance paths: tensors of the same value as an operation's input, whose backward takes relevance R itself.

Rules that give relevance to inputs that are zero (ZBox, Flat, WSquare) can't express it per unit of value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.engine.operation import Operation
from relprop.errors import InvalidRule

if TYPE_CHECKING:
    from relprop.engine.trace import Trace


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
            ctx.op.flow.passed -= lost
            ctx.op.flow.absorb("value zero", lost)
        return None, torch.where(empty, 0, relevance / ctx.value), None


class _Through(torch.autograd.Function):
    """R -> equal parts of R for each source, element by element; the value is the operation's own output."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, *sources: Tensor) -> Tensor:
        ctx.parts = len(sources)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(relevance / ctx.parts,) * ctx.parts


def relevance_path(trace: Trace, tensor: Tensor, user: Operation) -> Tensor:
    """The relevance path of a live tensor, built from its provenance for the operation `user`."""
    node = trace.node(tensor)
    assert node is not None
    if node.path is None:
        op = node.operation
        replay = node.replay or op.replay
        if op.moves and replay is not None:
            node.path = replay(lambda t: relevance_path(trace, t, user) if trace.node(t) is not None else t)
        elif op.passes and all(source.shape == tensor.shape for source in op.passes):
            paths = [relevance_path(trace, source, user) for source in op.passes]
            node.path = _Through.apply(tensor.detach(), *paths)  # type: ignore[no-untyped-call]
        else:
            node.path = _Division.apply(user, tensor, trace.report)  # type: ignore[no-untyped-call]
    assert node.path is not None
    return node.path


def replayed(trace: Trace, tensor: Tensor, value: float | Tensor) -> Tensor:
    """What a live tensor near the input would be, were every input element `value` (one bound of a box)."""
    node = trace.node(tensor)
    if node is None:
        return tensor
    if node.operation.kind == "input":
        assert node.path is not None
        leaf = node.path
        bound = torch.as_tensor(value, dtype=leaf.dtype, device=leaf.device)
        return bound.expand(leaf.shape)
    replay = node.replay or node.operation.replay
    if replay is None or not (node.operation.moves or node.operation.kind in ("sum", "product")):
        raise InvalidRule(
            f"a box rule needs the range of its operation's input, but behind {node.operation.where} the range of the "
            "model's input is not known. Use another rule for the first layer, for example WSquare() or Flat()"
        )
    with torch.no_grad():
        return replay(lambda t: replayed(trace, t, value))
