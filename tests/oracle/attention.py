"""Relevance through the parts of a Transformer as explicit messages, one matrix, row or head at a time, in NumPy.

Rows of a message matrix are upper units j, columns lower units i: messages[j, i] = R_{i<-j}; what the lower units get
is `messages.sum(0)`. Everything is float64. With s(z) = +1 for z >= 0, else -1:

    linear       z_ij / (z_j + eps s(z_j)) R_j, z_ij = x_i w_ji; the bias keeps its share
    softmax      y = s(x): AttnLRP's x_i (delta_ij - y_i) R_j; entries of minus infinity send and get nothing
    matmul       O = A V: A_ik V_kj / (2 O_ij + eps s(O_ij)) R_ij, to A_ik and the same to V_kj
    product      of n signals: R_j / n to each
    normaliser   statistics constant: what is left is linear, with the shift for a bias

(AttnLRP: Achtibat et al. 2024, propositions 3.1 to 3.4; CP-LRP: Ali et al. 2022, equations 6 and 7.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def sign(z: Array) -> Array:
    """s(z): +1 for z >= 0, else -1."""
    return np.where(z >= 0, 1.0, -1.0)


def over(R: Array, denominator: Array, eps: float = 0.0) -> Array:
    """R / (denominator + eps s(denominator)); zero where that is zero."""
    stabilised = denominator + eps * sign(denominator)
    empty = stabilised == 0
    return np.where(empty, 0.0, R / np.where(empty, 1.0, stabilised))


# ---- one vector to one vector: messages (m, n), of x (n,) and the relevance R (m,) of the output


def linear(x: Array, weight: Array, bias: Array, R: Array, eps: float = 0.0) -> Array:
    """Of weight x + bias, shapes (m, n) x (n,) + (m,)."""
    z = weight * x
    messages: Array = z * over(R, z.sum(1) + bias, eps)[:, None]
    return messages


def exponentials(x: Array) -> Array:
    """softmax(x) of a vector; zeros where all of it is minus infinity."""
    allowed = x > -np.inf
    if not allowed.any():
        return np.zeros_like(x)
    e = np.where(allowed, np.exp(x - x[allowed].max()), 0.0)
    y: Array = e / e.sum()
    return y


def softmax(x: Array, R: Array) -> Array:
    """Of softmax(x), shape (n,): AttnLRP's rule, the terms x_i dy_j/dx_i R_j / y_j of its Taylor expansion at x."""
    y = exponentials(x)
    messages = np.zeros((len(x), len(x)))
    for j in range(len(x)):
        for i in range(len(x)):
            if x[i] > -np.inf and x[j] > -np.inf:
                messages[j, i] = x[i] * (float(i == j) - y[i]) * R[j]
    return messages


def layer_norm_matrix(x: Array, weight: Array, eps: float) -> Array:
    """diag(weight / sigma) (1 - 1/n): centring, then scaling by the constant 1 / sigma."""
    n = len(x)
    sigma = np.sqrt(((x - x.mean()) ** 2).mean() + eps)
    matrix: Array = (weight / sigma)[:, None] * (np.eye(n) - np.full((n, n), 1 / n))
    return matrix


def rms_norm_matrix(x: Array, weight: Array, eps: float) -> Array:
    return np.diag(weight / np.sqrt((x**2).mean() + eps))


def group_norm_matrix(x: Array, weight: Array, groups: int, eps: float) -> Array:
    """On x (channels, places) as one row, channel by channel; weight (channels,)."""
    matrix = np.zeros((x.size, x.size))
    size = x.size // groups
    scale = np.repeat(weight, x.shape[1])
    for start in range(0, x.size, size):
        block = slice(start, start + size)
        matrix[block, block] = layer_norm_matrix(x.reshape(-1)[block], scale[block], eps)
    return matrix


# ---- products


def matmul(A: Array, V: Array, R: Array, eps: float = 0.0) -> tuple[Array, Array]:
    """What A (t, s) and V (s, d) get of the relevance (t, d) of A V."""
    O = A @ V  # noqa: E741  (the paper's letter)
    to_A, to_V = np.zeros_like(A), np.zeros_like(V)
    for i in range(A.shape[0]):
        for j in range(V.shape[1]):
            share = over(R[i, j], 2 * O[i, j], eps)
            for k in range(A.shape[1]):
                to_A[i, k] += A[i, k] * V[k, j] * share
                to_V[k, j] += A[i, k] * V[k, j] * share
    return to_A, to_V


def values_only(A: Array, V: Array, R: Array, eps: float = 0.0) -> Array:
    """What V (s, d) gets of A V with A constant: CP-LRP."""
    O = A @ V  # noqa: E741
    to_V = np.zeros_like(V)
    for i in range(A.shape[0]):
        for j in range(V.shape[1]):
            to_V[:, j] += A[i] * V[:, j] * over(R[i, j], O[i, j], eps)
    return to_V


def product(signals: Sequence[Array], R: Array) -> list[Array]:
    """What each of n signals of one shape gets of the relevance of their product."""
    return [R / len(signals) for _ in signals]


# ---- attention


@dataclass(frozen=True)
class Head:
    """softmax(scale Q K^T + mask) V for q (t, d), k (s, d), v (s, e); mask (t, s), minus infinity where forbidden."""

    q: Array
    k: Array
    v: Array
    mask: Array
    scale: float

    @property
    def products(self) -> Array:
        return self.q @ self.k.T

    @property
    def logits(self) -> Array:
        return self.scale * self.products + self.mask

    @property
    def weights(self) -> Array:
        return np.stack([exponentials(row) for row in self.logits])

    @property
    def out(self) -> Array:
        out: Array = self.weights @ self.v
        return out

    def attn_lrp(self, R: Array) -> tuple[Array, Array, Array]:
        """What q, k and v get of the relevance (t, e) of the output."""
        to_weights, to_v = matmul(self.weights, self.v, R)
        logits = self.logits
        to_logits = np.stack([softmax(x, r).sum(0) for x, r in zip(logits, to_weights, strict=True)])
        # The mask is one more summand of the logits and keeps its share; scaling passes.
        finite = np.where(np.isfinite(logits), logits, 1.0)
        to_products = np.where(np.isfinite(logits), self.scale * self.products * over(to_logits, finite), 0.0)
        to_q, to_k_transposed = matmul(self.q, self.k.T, to_products)
        return to_q, to_k_transposed.T, to_v

    def cp_lrp(self, R: Array) -> tuple[Array, Array, Array]:
        return np.zeros_like(self.q), np.zeros_like(self.k), values_only(self.weights, self.v, R)


def causal(queries: int, keys: int) -> Array:
    """An additive mask: query t sees keys 0..t, as is_causal of scaled_dot_product_attention."""
    mask = np.zeros((queries, keys))
    for t in range(queries):
        mask[t, t + 1 :] = -np.inf
    return mask


def attention(
    q: Array, k: Array, v: Array, R: Array, mask: Array, scale: float, cp: bool
) -> tuple[Array, Array, Array]:
    """What q (..., h, t, d), k (..., g, s, d), v (..., g, s, e) get of R (..., h, t, e), h a multiple of g.

    mask broadcasts to (..., h, t, s). Query head i reads key and value head i // (h / g).
    """
    to_q, to_k, to_v = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    mask = np.broadcast_to(mask, (*q.shape[:-1], k.shape[-2]))
    for index in np.ndindex(q.shape[:-2]):
        shared = index if not index else (*index[:-1], index[-1] // (q.shape[-3] // k.shape[-3]))
        head = Head(q[index], k[shared], v[shared], mask[index], scale)
        found = head.cp_lrp(R[index]) if cp else head.attn_lrp(R[index])
        to_q[index] += found[0]
        to_k[shared] += found[1]
        to_v[shared] += found[2]
    return to_q, to_k, to_v


def forward(q: Array, k: Array, v: Array, mask: Array, scale: float) -> Array:
    """The value of what `attention` explains."""
    mask = np.broadcast_to(mask, (*q.shape[:-1], k.shape[-2]))
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for index in np.ndindex(q.shape[:-2]):
        shared = index if not index else (*index[:-1], index[-1] // (q.shape[-3] // k.shape[-3]))
        out[index] = Head(q[index], k[shared], v[shared], mask[index], scale).out
    return out


# ---- arrays of any shape, the last dimension a vector


def by_rows(messages: Callable[..., Array], *arrays: Array) -> Array:
    """messages(row of each array).sum(0), row by row."""
    shape = arrays[0].shape[:-1]
    rows = [messages(*(a[index] for a in arrays)).sum(0) for index in np.ndindex(shape)]
    return np.stack(rows).reshape(*shape, -1)


def linear_layer(x: Array, weight: Array, bias: Array, R: Array, eps: float = 0.0) -> Array:
    """The relevance of x (..., n) from that (..., m) of a linear layer's output."""
    return by_rows(lambda x, R: linear(x, weight, bias, R, eps), x, R)
