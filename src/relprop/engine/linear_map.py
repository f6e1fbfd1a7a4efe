"""Linear maps x -> W x with any weights of the same shape: convolutions, matrices, contractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor


class LinearMap(Protocol):
    """What an affine operation does with weights, so that rules can do it with weights of their own."""

    @property
    def channel_axis(self) -> int | None:
        """The output axis that a per-channel constant may scale; None where there is no such axis."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x."""

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """W^T s, shaped like x."""

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The weights of x -> scale * (W x), `scale` of shape (channels,) or ()."""

    def one_sample(self, x: Tensor) -> Tensor:
        """A part of x, as small as may be, whose image broadcasts against W x."""

    @property
    def connections(self) -> LinearMap:
        """Which input feeds which output: with weights of one, it counts."""


@dataclass(frozen=True)
class Matrix:
    """z = x W^T over the last axis, W (out, in)."""

    channel_axis: int | None = -1

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return s @ weight

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale.reshape(-1, 1)

    def one_sample(self, x: Tensor) -> Tensor:
        return x[:1] if x.dim() > 1 else x

    @property
    def connections(self) -> LinearMap:
        return self


@dataclass(frozen=True, eq=False)
class Gated:
    """z = sum_k r_k * (x_k W_k^T), x and W holding the parts x_k and W_k side by side; r_k >= 0, None for one.

    A recurrent cell's linear operation on [x, h], where a gate scales what comes from h.
    """

    gates: tuple[Tensor | None, ...]
    sizes: tuple[int, ...]
    channel_axis: int | None = -1

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        xs, ws = torch.split_with_sizes(x, self.sizes, -1), torch.split_with_sizes(weight, self.sizes, 1)
        parts = zip(self.gates, xs, ws, strict=True)
        return cast(Tensor, sum(F.linear(x, w) if r is None else r * F.linear(x, w) for r, x, w in parts))

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        parts = zip(self.gates, torch.split_with_sizes(weight, self.sizes, 1), strict=True)
        return torch.cat([(s if r is None else r * s) @ w for r, w in parts], -1)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale.reshape(-1, 1)

    def one_sample(self, x: Tensor) -> Tensor:
        return x

    @property
    def connections(self) -> LinearMap:
        return Matrix()


@dataclass(frozen=True)
class Convolution:
    """A convolution or transposed convolution over 1 to 3 axes; x (batch, in, ...) or (in, ...)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    @property
    def axes(self) -> int:
        return len(self.stride)

    @property
    def channel_axis(self) -> int:
        return -1 - self.axes

    def _geometry(self) -> tuple[Sequence[int], Sequence[int], Sequence[int], bool, Sequence[int], int]:
        out = self.output_padding or (0,) * self.axes
        return self.stride, self.padding, self.dilation, self.transposed, out, self.groups

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        batched = x if x.dim() == self.axes + 2 else x[None]
        z = torch.convolution(batched, weight, None, *self._geometry())
        return z if x.dim() == self.axes + 2 else z[0]

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        if x.dim() == self.axes + 1:
            return self.backward(s[None], weight, x[None])[0]
        gradient = torch.ops.aten.convolution_backward.default(
            s, x, weight, None, *self._geometry(), [True, False, False]
        )[0]
        return cast(Tensor, gradient)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        ones = (1,) * self.axes
        if not self.transposed:
            return weight * scale.reshape(-1, 1, *ones)
        # A transposed kernel is (in, out / groups, ...): group by group, each has its own output channels.
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
        scale = scale.expand(self.groups * weight.shape[1]).reshape(self.groups, 1, weight.shape[1], *ones)
        return (grouped * scale).reshape(weight.shape)

    def one_sample(self, x: Tensor) -> Tensor:
        return x[:1] if x.dim() == self.axes + 2 else x

    @property
    def connections(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Padded:
    """A convolution whose input is first padded with zeros, as padding="same" does for even kernels."""

    inner: Convolution
    pad: tuple[int, ...]

    @property
    def channel_axis(self) -> int:
        return self.inner.channel_axis

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.inner.forward(F.pad(x, self.pad), weight)

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return F.pad(self.inner.backward(s, weight, F.pad(x, self.pad)), [-p for p in self.pad])

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return self.inner.scaled(weight, scale)

    def one_sample(self, x: Tensor) -> Tensor:
        return self.inner.one_sample(x)

    @property
    def connections(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Permuted:
    """A linear map whose output's axes are put in another order, as channels-last code does."""

    inner: LinearMap
    dims: tuple[int, ...]

    @property
    def channel_axis(self) -> int | None:
        axis = self.inner.channel_axis
        return None if axis is None else self.dims.index(axis % len(self.dims)) - len(self.dims)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.inner.forward(x, weight).permute(self.dims)

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        back = sorted(range(len(self.dims)), key=self.dims.__getitem__)
        return self.inner.backward(s.permute(back), weight, x)

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return self.inner.scaled(weight, scale)

    def one_sample(self, x: Tensor) -> Tensor:
        return self.inner.one_sample(x)

    @property
    def connections(self) -> LinearMap:
        return Permuted(self.inner.connections, self.dims)


@dataclass(frozen=True)
class Contraction:
    """Any other product linear in x and in W, such as an einsum or a constant matrix on the left."""

    product: Callable[[Tensor, Tensor], Tensor]
    channel_axis: int | None = None

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.product(x, weight)

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            probe = x.detach().requires_grad_()
            return torch.autograd.grad(self.product(probe, weight), probe, s)[0]

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale

    def one_sample(self, x: Tensor) -> Tensor:
        return x

    @property
    def connections(self) -> LinearMap:
        return self
