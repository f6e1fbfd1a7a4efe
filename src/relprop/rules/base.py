"""What a rule is, and what it sees of the operation it is applied to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.asking import recording
from relprop.errors import InvalidRule


class Layer(Protocol):
    """One affine operation z = W x + b as a rule sees it, batch norm and constant scales folded in.

    `x` has the operation's input shape, `z` and `v` its output shape; `weight` has whatever shape the
    operation's own function takes (a convolution kernel, a matrix).
    """

    @property
    def weight(self) -> Tensor:
        """The effective weights W."""

    @property
    def bias(self) -> Tensor | None:
        """The effective bias b, shaped to broadcast against z."""

    @property
    def nonnegative(self) -> bool:
        """Whether no input is below zero, so that passes for negative inputs can be left out."""

    def prepared(self, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        """make(W), computed once per explainer and kept under `name`."""

    def ones(self) -> Tensor:
        """One sample of the input shape: one for every element that depends on the model's input, zero for constants
        such as padding. Its image broadcasts against z."""

    def box(self, low: float | Tensor, high: float | Tensor) -> tuple[Tensor, Tensor]:
        """The range of this operation's input, one sample each, from the range of the model's input."""

    @property
    def rectified(self) -> bool:
        """Whether nothing but a ReLU used the output, so that no relevance arrives where z < 0."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """sum_i x_i w_ij, and a bias if one is given."""

    def forward_sum(self, xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
        """The sum of `forward` of several inputs, each with weights of its own."""

    def backward(self, s: Tensor, weight: Tensor) -> Tensor:
        """sum_j w_ij s_j, shaped like the input."""

    def backward_each(self, s: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """`backward` of the same s through several weights."""

    def spread(self, relevance: Tensor, eps: float = 0.0) -> Tensor:
        """sum_j R_j / (N_j + eps) over the outputs j that an input feeds, N_j being their number of inputs; shaped like
        the input. Only elements that depend on the model's input count."""

    def divide(self, relevance: Tensor, z: Tensor, eps: float, bias: Tensor | None = None) -> Tensor:
        """R_j / (z_j + eps s(z_j)), 0/0 = 0, noting what `bias`, eps and empty denominators absorb."""

    def stabilised(
        self, v: Tensor, z: Tensor, eps: float, bias: Tensor | None = None, *, spend: bool = False
    ) -> Tensor:
        """v_j z_j / (z_j + eps s(z_j)): `divide` of R_j = z_j v_j, in less memory. spend: v is not needed again and
        may be overwritten."""

    def share(
        self, v: Tensor, z: Tensor, d: Tensor, eps: float, bias: Tensor | None = None, part: float = 1.0
    ) -> Tensor:
        """part R_j / d_j, R_j = z_j v_j, written over d = z'_j + eps s(z'_j): `divide` by z'_j, in less memory."""

    def share_apart(
        self,
        v: Tensor,
        z: Tensor,
        below: Tensor,
        eps: float,
        biases: tuple[Tensor | None, Tensor | None],
        parts: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        """`share` by z - below and by below = z-_j - eps of a `rectified` output, written over v and below."""

    def note(self, cause: str, part: Tensor | None, s: Tensor) -> None:
        """Enter `part * s`, a share of relevance that no input gets, in the conservation report (if one is made)."""


class Rule:
    """How one affine operation shares the relevance of its outputs among its inputs.

    A rule of your own needs one method, and states whether its shares are proportional to the input's value::

        @dataclass(frozen=True)
        class TwiceGamma(relprop.rules.Rule):
            gamma: float = 0.5

            def redistribute(self, layer, x, z, v):
                w = layer.prepared(f"twice-gamma {self.gamma}", lambda w: w + 2 * self.gamma * w.clamp(min=0))
                s = layer.divide(z * v, layer.forward(x, w), eps=1e-6)
                return layer.backward(s, w)
    """

    @property
    def proportional(self) -> bool:
        """True: `redistribute` returns relevance per unit of value, v_x = R_x / x, and inputs that are zero
        get nothing. False: it returns the relevance R_x itself, which may be given to inputs that are zero."""
        return True

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        """v_x (or R_x, see `proportional`) at the input, shaped like x.

        `z`: the operation's output; `v`: relevance per unit of value there, so that R_j = z_j v_j.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no redistribute(layer, x, z, v)")

    def stabiliser(self) -> float:
        """eps for operations that only need one (sums, normalisers); rules without that meaning refuse."""
        raise InvalidRule(
            f"{self} has no meaning for a sum or normaliser. Write Zero() or Epsilon(eps) for them, "
            f'for example RuleMap([("sum", Epsilon(1e-6)), ("affine", {self})])'
        )


def stabiliser(eps: float, z: Tensor) -> Tensor:
    """eps s(z), shaped like z; s(0) = +1, and s(-0.0) = -1, where no relevance is or no share is left to divide."""
    return torch.copysign(z.new_tensor(eps), z)


# Elements of a piece: what is made of it on the way stays in the processor's cache.
_PIECE = 1 << 17


def in_pieces(step: Callable[..., object], *tensors: Tensor) -> None:
    """step(*pieces) of tensors of one shape, piece by piece, for a step that works element by element and writes into
    what it is given. Fresh memory for large temporaries costs many times what the arithmetic does."""
    if recording() or tensors[0].numel() <= _PIECE or not all(t.is_contiguous() for t in tensors):
        step(*tensors)
        return
    for pieces in zip(*(torch.split(t.view(-1), _PIECE) for t in tensors), strict=True):
        step(*pieces)


def weigh(eps: float, out: Tensor, v: Tensor, z: Tensor) -> None:
    """out = v z / (z + eps s(z)); out may be v."""
    d = stabiliser(eps, z).add_(z)
    torch.mul(torch.div(z, d, out=d), v, out=out)


def require(condition: bool, rule: str, met: Any, expected: str) -> None:
    """Refuse a rule's parameter with a sentence."""
    if not condition:
        raise InvalidRule(f"{rule}: got {met!r}, expected {expected}")


def is_number(*values: Any) -> bool:
    """Whether all are numbers."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
