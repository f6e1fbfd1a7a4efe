"""Any linear torch operation as a dense matrix, read off by pushing unit vectors through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """y = W x + b between flattened tensors of one sample.

    weight (m, n), bias (m,); connected (m, n) is True where input i feeds output j, whatever the weight there;
    shape is the input's shape before flattening (n elements).
    """

    weight: Tensor
    bias: Tensor
    connected: Tensor
    shape: tuple[int, ...]

    def scaled(self, scale: Tensor, shift: Tensor) -> Dense:
        """The operation followed by y * scale + shift, both (m,)."""
        return Dense(scale[:, None] * self.weight, scale * self.bias + shift, self.connected, self.shape)


def jacobian(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(W, b) of an affine function on batches of samples of the given shape: W (m, n) column by column, b = f(0)."""
    n = torch.Size(shape).numel()
    units = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    b = function(torch.zeros(1, *shape, dtype=torch.float64)).reshape(-1)
    columns = function(units).reshape(n, -1) - b
    return columns.T.contiguous(), b


def dense(
    function: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    weight: Tensor,
    bias: Tensor | None,
    shape: tuple[int, ...],
) -> Dense:
    """The dense form of function(x, weight, bias), e.g. F.conv2d with its stride and padding bound.

    W comes from the function without its bias, so that it holds the weights themselves, not differences from f(0);
    the connections come from the same function with all weights one.
    """
    W, _ = jacobian(lambda x: function(x, weight, None), shape)
    counts, _ = jacobian(lambda x: function(x, torch.ones_like(weight), None), shape)
    b = function(torch.zeros(1, *shape, dtype=torch.float64), weight, bias).reshape(-1)
    return Dense(W, b, counts != 0, shape)
