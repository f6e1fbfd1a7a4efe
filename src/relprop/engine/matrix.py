"""Matrix products: affine where one factor is a constant, products where both are signals."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from relprop.engine.affine import affine
from relprop.engine.call import Call
from relprop.engine.linear_map import Contraction, Matrix
from relprop.engine.product import two_signals
from relprop.engine.registry import operation
from relprop.engine.sum import fused


@operation("addmm", kind="linear")
def addmm(call: Call, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if call.live(input) or call.live(mat2):
        return cast(Tensor, fused(call, input, mat1, mat2, beta=beta, alpha=alpha))
    bias = input if beta == 1 else input * beta
    scale = None if alpha == 1 else torch.tensor(alpha, dtype=mat1.dtype)
    return affine(call, "linear", Matrix(), mat1, *_transposed(call, mat2), scale, bias.detach(), call.run)


@operation("matmul", "mm", "bmm", "mv", "dot", kind="linear")
def matmul(call: Call, input: Tensor, other: Tensor) -> Tensor:
    if call.live(input) and call.live(other):
        return cast(Tensor, two_signals(call, input, other))
    return _product(call, input, other)


@operation("inner", "tensordot", "linalg_vecdot", kind="linear")
def contraction(call: Call, input: Tensor, other: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if call.live(input) and call.live(other):
        return cast(Tensor, two_signals(call, input, other))
    live_first = call.live(input)
    x, w = (input, other) if live_first else (other, input)
    func = call.func

    def product(x: Tensor, w: Tensor) -> Tensor:
        return cast(Tensor, func(*((x, w) if live_first else (w, x)), *args, **kwargs))

    return affine(call, "linear", Contraction(product), x, w, None, None, call.run)


@operation("_grouped_mm", kind="linear")
def grouped(
    call: Call, input: Tensor, mat2: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """Rows in groups, each with a matrix of its own: z = x W_g, W (groups, in, out), offs the groups' ends; as mixtures
    of experts have it."""
    if call.live(mat2) or bias is not None or offs is None or (input.dim(), mat2.dim()) != (2, 3):
        call.refuse("of this form. Write it group by group: x[start:end] @ w[group]")
        return cast(Tensor, call.end(call.begin("unsupported"), call.run()))
    ends = offs.tolist()

    def product(x: Tensor, w: Tensor) -> Tensor:
        rows = zip([0, *ends[:-1]], ends, w, strict=True)
        parts = [x[start:end] @ matrix for start, end, matrix in rows]
        return torch.cat([*parts, x.new_zeros(len(x) - ends[-1], w.shape[-1])])

    return affine(call, "linear", Contraction(product), input, mat2, None, None, call.run)


@operation("einsum", kind="linear")
def einsum(call: Call, equation: str, *operands: Any, **kwargs: Any) -> Tensor:
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    live = [i for i, t in enumerate(tensors) if call.live(t)]
    if len(tensors) == 1:
        return cast(Tensor, call.native("sum", stabilised=True))
    if len(live) == 2 and len(tensors) == 2:
        return cast(Tensor, two_signals(call, tensors[0], tensors[1]))
    if len(live) != 1 or len(tensors) != 2:
        call.refuse("an einsum of more than two tensors; write it as several einsums of two")
        return cast(Tensor, call.end(call.begin("unsupported"), call.run()))
    x, w = tensors[live[0]], tensors[1 - live[0]]
    columns = _matrix_in(equation, live[0])
    if columns is not None:
        weight = call.trace.prepared.transposed(w) if columns == "first" else w
        return affine(call, "linear", Matrix(), x, weight, None, None, call.run)

    def product(x: Tensor, w: Tensor) -> Tensor:
        return torch.einsum(equation, *((x, w) if live[0] == 0 else (w, x)))

    return affine(call, "linear", Contraction(product), x, w, None, None, call.run)


def _matrix_in(equation: str, live: int) -> str | None:
    """Which axis of the constant factor the equation sums over ("first" or "last"), if it is x W or x W^T over x's last
    axis; else None."""
    left, _, result = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    x, w = operands[live], operands[1 - live]
    if len(w) != 2 or not w.isalpha() or not x or not result or x[:-1] != result[:-1] or "." in w:
        return None
    inner, outer = x[-1], result[-1]
    if inner == outer or inner in x[:-1] or outer in x:
        return None
    return {inner + outer: "first", outer + inner: "last"}.get(w)


def _product(call: Call, input: Tensor, other: Tensor) -> Tensor:
    """A matrix product of which one factor is live."""
    if call.live(input) and other.dim() == 3 and input.dim() == 3 and other.stride(0) == 0:
        other = other[0]  # one matrix for the whole batch, as exported programs have it
    if call.live(input) and other.dim() == 2:
        return affine(call, "linear", Matrix(), input, *_transposed(call, other), None, None, call.run)
    if call.live(input):
        x, w, product = input, other, call.func
    else:
        x, w = other, input

        def product(x: Tensor, w: Tensor) -> Tensor:
            return cast(Tensor, call.func(w, x))

    return affine(call, "linear", Contraction(product), x, w, None, None, call.run)


def _transposed(call: Call, weight: Tensor) -> tuple[Tensor]:
    """(in, out) weights as (out, in); the same tensor for the same weights, so that preparations are found again."""
    return (call.trace.prepared.transposed(weight),)
