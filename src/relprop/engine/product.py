"""Products: what a gate or statistic multiplies takes all the relevance; two signals take half each."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from relprop.engine.affine import fold, foldable, per_channel
from relprop.engine.registry import operation
from relprop.engine.call import Call, on_gradient

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
    if rounding_mode is not None:
        call.refuse("a division that rounds. Write it without rounding_mode")
        return call.end(call.begin("unsupported"), call.run())
    if call.live(input) and call.live(other):
        # What a signal is divided by normalises it.
        return call.native("product", (input, other.detach()))
    if call.live(input):
        return _scaled(call, input, other, True)
    if other.shape == getattr(input, "shape", other.shape) or getattr(input, "numel", lambda: 1)() == 1:
        from relprop.engine.activation import pointwise

        return pointwise(call, other, lambda z: cast(Tensor, call.run((input, z))), "statistic")
    call.refuse("a constant divided by a signal of another shape. Write (1 / signal) * constant")
    return call.end(call.begin("unsupported"), call.run())


def _scaled(call: Call, tensor: Tensor, constant: Any, inverse: bool) -> Any:
    """A signal times a constant: folded into the affine operation before it, else relevance passes unchanged."""
    record = foldable(call, tensor)
    if record is not None:
        scale = per_channel(record, tensor, constant)
        if scale is not None:
            scale = 1 / scale if inverse else scale
            return fold(call, record, tensor, scale, None, lambda: cast(Tensor, call.run()))
    return call.native("product", role=call.node(tensor).role, passes=(tensor,))


def two_signals(call: Call, a: Tensor, b: Tensor) -> Any:
    """A product, of elements or of matrices, of two live factors."""
    role_a, role_b = call.node(a).role, call.node(b).role
    elementwise = call.name == "mul"
    if role_a in SCALES and role_b not in SCALES:
        return call.native("product", _replaced(call, a), passes=(b,) if elementwise else ())
    if role_b in SCALES and role_a not in SCALES:
        return call.native("product", _replaced(call, b), passes=(a,) if elementwise else ())
    # Element by element each factor takes half, whatever its value; a matrix product has no such correspondence.
    passes = (a, b) if elementwise else ()
    out = call.native("product", role=role_a if role_a == role_b else None, passes=passes)
    on_gradient(out, _half)
    return out


def _replaced(call: Call, factor: Tensor) -> tuple[Any, ...]:
    """The call's arguments with a factor as a constant."""
    from relprop.engine.operation import map_tensors

    return cast(
        "tuple[Any, ...]", map_tensors(call.args, lambda t: t.detach() if t is factor else t)
    )


def _half(v: Tensor) -> Tensor:
    return v * 0.5
