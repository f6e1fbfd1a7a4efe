"""Every rule as explicit messages R_{i<-j}, an (m, n) matrix: what output j sends to input i.

Notation: x (n,) the input, W (m, n), b (m,), R (m,) the relevance of the outputs; z_ij = x_i w_ij, written z (m, n);
z_j = sum_i z_ij + b_j; s(z) = +1 for z >= 0, else -1; (.)+ and (.)- are the positive and negative parts.
A share of an empty (zero) denominator is zero. The relevance of the inputs is `messages.sum(0)`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .dense import Dense

Rule = Callable[[Dense, Tensor, Tensor], Tensor]
Bound = float | Tensor


def sign(z: Tensor) -> Tensor:
    """s(z): +1 for z >= 0, else -1."""
    return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)


def share(numerator: Tensor, denominator: Tensor, R: Tensor, eps: float = 0.0) -> Tensor:
    """numerator_ij / (denominator_j + eps s(denominator_j)) R_j; zero where that denominator is zero."""
    stabilised = denominator + eps * sign(denominator)
    factor = torch.where(stabilised == 0, 0.0, R / torch.where(stabilised == 0, 1.0, stabilised))
    return numerator * factor[:, None]


def positive(t: Tensor) -> Tensor:
    """t+ = max(t, 0)."""
    return t.clamp(min=0)


def negative(t: Tensor) -> Tensor:
    """t- = min(t, 0)."""
    return t.clamp(max=0)


def zero(op: Dense, x: Tensor, R: Tensor) -> Tensor:
    """R_{i<-j} = z_ij / z_j R_j."""
    z = x * op.weight
    return share(z, z.sum(1) + op.bias, R)


def epsilon(op: Dense, x: Tensor, R: Tensor, *, eps: float = 1e-6, bias: str = "absorb") -> Tensor:
    """R_{i<-j} = z_ij / (z_j + eps s(z_j)) R_j.

    bias="distribute": (z_ij + (b_j + eps s(z_j)) / N_j) / (z_j + eps s(z_j)) R_j, over the N_j inputs connected to j.
    """
    z = x * op.weight
    total = z.sum(1) + op.bias
    if bias == "distribute":
        N = op.connected.sum(1).clamp(min=1)
        z = z + op.connected * ((op.bias + eps * sign(total)) / N)[:, None]
    elif bias != "absorb":
        raise ValueError(f'bias must be "absorb" or "distribute", not {bias!r}')
    return share(z, total, R, eps)


def gamma(op: Dense, x: Tensor, R: Tensor, *, gamma: float = 0.25, eps: float = 1e-6) -> Tensor:
    """z_j > 0: z'_ij = x_i+ (w + g w+)_ij + x_i- (w + g w-)_ij, b'_j = b_j + g b_j+;
    z_j < 0: z'_ij = x_i+ (w + g w-)_ij + x_i- (w + g w+)_ij, b'_j = b_j + g b_j-;
    R_{i<-j} = z'_ij / (z'_j + eps s(z'_j)) R_j with z'_j = sum_i z'_ij + b'_j; z_j = 0 sends nothing.
    """
    W, b = op.weight, op.bias
    z = (x * W).sum(1) + b
    up, down = W + gamma * positive(W), W + gamma * negative(W)
    raised = positive(x) * up + negative(x) * down
    lowered = positive(x) * down + negative(x) * up
    sent_raised = share(raised, raised.sum(1) + b + gamma * positive(b), R, eps)
    sent_lowered = share(lowered, lowered.sum(1) + b + gamma * negative(b), R, eps)
    return (z > 0)[:, None] * sent_raised + (z < 0)[:, None] * sent_lowered


def alpha_beta(op: Dense, x: Tensor, R: Tensor, *, alpha: float = 2.0, beta: float = 1.0, eps: float = 1e-6) -> Tensor:
    """R_{i<-j} = (alpha z_ij+ / (p_j + eps s(p_j)) - beta z_ij- / (n_j + eps s(n_j))) R_j,
    p_j = sum_i z_ij+ + b_j+, n_j = sum_i z_ij- + b_j-.
    """
    z = x * op.weight
    p = positive(z).sum(1) + positive(op.bias)
    n = negative(z).sum(1) + negative(op.bias)
    return alpha * share(positive(z), p, R, eps) - beta * share(negative(z), n, R, eps)


def zplus(op: Dense, x: Tensor, R: Tensor, *, eps: float = 1e-6) -> Tensor:
    """R_{i<-j} = z_ij+ / (p_j + eps s(p_j)) R_j, p_j = sum_i z_ij+ + b_j+."""
    return alpha_beta(op, x, R, alpha=1.0, beta=0.0, eps=eps)


def zbox(op: Dense, x: Tensor, R: Tensor, *, low: Bound, high: Bound, eps: float = 1e-6) -> Tensor:
    """q_ij = x_i w_ij - l_i w_ij+ - h_i w_ij-; R_{i<-j} = q_ij / (q_j + eps s(q_j)) R_j, q_j = sum_i q_ij, no bias.

    low and high are scalars or tensors that broadcast against one sample.
    """
    low_x, high_x = (torch.as_tensor(t, dtype=x.dtype).broadcast_to(op.shape).reshape(-1) for t in (low, high))
    q = x * op.weight - low_x * positive(op.weight) - high_x * negative(op.weight)
    return share(q, q.sum(1), R, eps)


def wsquare(op: Dense, x: Tensor, R: Tensor, *, bias: bool = True, eps: float = 1e-6) -> Tensor:
    """R_{i<-j} = w_ij^2 / (v_j + eps) R_j, v_j = sum_i w_ij^2, plus b_j^2 where the bias counts."""
    squares = op.weight**2
    v = squares.sum(1) + (op.bias**2 if bias else 0)
    return share(squares, v, R, eps)


def flat(op: Dense, x: Tensor, R: Tensor, *, eps: float = 1e-6) -> Tensor:
    """R_{i<-j} = 1 / (N_j + eps) R_j for the N_j inputs connected to j."""
    ones = op.connected.to(x.dtype)
    return share(ones, ones.sum(1), R, eps)


def pass_(op: Dense, x: Tensor, R: Tensor) -> Tensor:
    """R_{i<-i} = R_i: relevance goes through unchanged, where input and output have as many elements."""
    if len(x) != len(R):
        raise ValueError(f"Pass needs as many inputs as outputs, not {len(x)} and {len(R)}")
    return torch.diag(R)


NAMED: dict[str, Callable[..., Tensor]] = {
    "zero": zero,
    "epsilon": epsilon,
    "gamma": gamma,
    "alpha_beta": alpha_beta,
    "zplus": zplus,
    "zbox": zbox,
    "wsquare": wsquare,
    "flat": flat,
    "pass": pass_,
}
