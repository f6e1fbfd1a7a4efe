"""Functions whose gradient is relevance per unit of value, v = R / value, so that input x gradient is LRP by autograd.

`FREE` holds the functions as a user calls them, `Modified` the same values with the gradient of a rule. A network that
is written in terms of such functions is explained twice: with FREE by relprop, with Modified by `relevance`. What
Modified does to v, s(z) = +1 for z >= 0, else -1:

    linear        v z / (z + eps s(z)), then the gradient; the bias keeps its share
    activation    z const(f(z) / z)
    softmax       AttnLRP: the gradient, since x_i (s_i v_i - s_i sum_j s_j v_j) = x_i (R_i - s_i sum_j R_j)
                  CP-LRP: constant
    two signals   (a const(b) + const(a) b) / 2; a gate times a signal: const(g) b, and so under CP-LRP for attention
                  weights and for an activation that gates (SwiGLU)
    normaliser    the gradient with its statistic constant; the mean is a sum like any other

(AttnLRP: Achtibat et al. 2024, section 3; CP-LRP: Ali et al. 2022, section 4.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Functions:
    """The functions of a Transformer, as torch has them."""

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """What an nn.Linear, a norm or an activation of torch makes of x, or a module that is written in Functions."""
        result: Tensor = module(x)
        return result

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def activation(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        return function(z)

    def softmax(self, x: Tensor, dim: int = -1) -> Tensor:
        return x.softmax(dim)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """The product of two signals, such as queries and keys."""
        return a @ b

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        """The product of two signals, element by element."""
        return a * b

    def attend(self, weights: Tensor, values: Tensor) -> Tensor:
        """Attention weights @ values."""
        return weights @ values

    def weigh(self, weights: Tensor, values: Tensor) -> Tensor:
        """Attention weights * values, element by element."""
        return weights * values

    def gate(self, gate: Tensor, signal: Tensor) -> Tensor:
        """A gate (a sigmoid) times a signal."""
        return gate * signal

    def gated(self, activation: Tensor, signal: Tensor) -> Tensor:
        """An activation times a signal, as in SwiGLU."""
        return activation * signal

    def statistic(self, t: Tensor) -> Tensor:
        """A standard deviation, a root mean square, or one over it."""
        return t


FREE = Functions()


@dataclass(frozen=True)
class Modified(Functions):
    """The same values, with v for a gradient. eps: of linear operations; cp: CP-LRP instead of AttnLRP.

    What requires a gradient counts as dependent on the input, so parameters must be frozen.
    """

    cp: bool = False
    eps: float = 0.0

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        if isinstance(module, nn.Linear):
            return self.linear(x, module.weight, module.bias)
        if isinstance(module, nn.LayerNorm):
            dims = tuple(range(-len(module.normalized_shape), 0))
            centred = x - x.mean(dims, keepdim=True)
            return self.affine(centred * self.rsqrt(centred, dims, module.eps), module.weight, module.bias)
        if isinstance(module, nn.RMSNorm):
            dims = tuple(range(-len(module.normalized_shape), 0))
            eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps
            return self.affine(x * self.rsqrt(x, dims, eps), module.weight, None)
        if type(module).__module__ == "torch.nn.modules.activation":
            return self.activation(module, x)
        return super().__call__(module, x)

    def rsqrt(self, centred: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
        return self.statistic((centred.square().mean(dims, keepdim=True) + eps).rsqrt())

    def affine(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        x = x if weight is None else x * weight
        return x if bias is None else x + bias

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        z = F.linear(x, weight, bias)
        stabilised = z + self.eps * torch.where(z >= 0, 1.0, -1.0).to(z)
        factor = (z / stabilised).detach() if self.eps else torch.ones_like(z)
        return (z * (1 - factor)).detach() + z * factor

    def activation(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        at_zero = z == 0
        slope = (function(z) / torch.where(at_zero, torch.ones_like(z), z)).detach()
        return torch.where(at_zero, function(z), z * slope)

    def softmax(self, x: Tensor, dim: int = -1) -> Tensor:
        weights = x.softmax(dim)
        return weights.detach() if self.cp else weights

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        if not (a.requires_grad and b.requires_grad):  # one is a constant, and the product linear in the other
            return a @ b
        return (a @ b.detach() + a.detach() @ b) / 2

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        if not (a.requires_grad and b.requires_grad):
            return a * b
        return (a * b.detach() + a.detach() * b) / 2

    def attend(self, weights: Tensor, values: Tensor) -> Tensor:
        return weights.detach() @ values if self.cp else self.matmul(weights, values)

    def weigh(self, weights: Tensor, values: Tensor) -> Tensor:
        return weights.detach() * values if self.cp else self.mul(weights, values)

    def gate(self, gate: Tensor, signal: Tensor) -> Tensor:
        return gate.detach() * signal

    def gated(self, activation: Tensor, signal: Tensor) -> Tensor:
        return activation.detach() * signal if self.cp else self.mul(activation, signal)

    def statistic(self, t: Tensor) -> Tensor:
        return t.detach()


def relevance(network: Callable[[Tensor], Tensor], x: Tensor, target: int) -> Tensor:
    """Input x gradient of the target's score, shaped like x; the network is written with Modified functions."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[:, target].sum(), x)
    return (x * gradient).detach()
