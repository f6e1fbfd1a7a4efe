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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """W x + bias, which broadcasts against it; in memory of its own."""

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is None or bias.shape == weight.shape[:1]:
            return F.linear(x, weight, bias)
        return F.linear(x, weight).add_(bias)

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        xs, ws = torch.split_with_sizes(x, self.sizes, -1), torch.split_with_sizes(weight, self.sizes, 1)
        parts = zip(self.gates, xs, ws, strict=True)
        z = sum(F.linear(x, w) if r is None else r * F.linear(x, w) for r, x, w in parts)
        return _plus(cast(Tensor, z), bias)

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        batched = x if x.dim() == self.axes + 2 else x[None]
        if bias is not None:
            channels = weight.shape[1] * self.groups if self.transposed else weight.shape[0]
            bias = bias.reshape(-1).expand(channels).contiguous()
        z = torch.convolution(batched, weight, bias, *self._geometry())
        return z if x.dim() == self.axes + 2 else z[0]

    def backward(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        if x.dim() == self.axes + 1:
            return self.backward(s[None], weight, x[None])[0]
        if self._mixes_channels(weight) and s.is_contiguous():  # a matrix product costs less
            return torch.matmul(weight.flatten(1).T, s.flatten(2)).view(x.shape)
        gradient = torch.ops.aten.convolution_backward.default(
            s, x, weight, None, *self._geometry(), [True, False, False]
        )[0]
        return cast(Tensor, gradient)

    def _mixes_channels(self, weight: Tensor) -> bool:
        """Whether it is a 1 x 1 convolution, the same matrix at each place."""
        plain = self.groups == 1 and not self.transposed and set(self.stride) == {1} and not any(self.padding)
        return plain and set(weight.shape[2:]) == {1}

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.inner.forward(F.pad(x, self.pad), weight, bias)

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _plus(self.inner.forward(x, weight).permute(self.dims), bias)

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

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _plus(self.product(x, weight), bias)

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


def _plus(z: Tensor, bias: Tensor | None) -> Tensor:
    return z if bias is None else z.add_(bias)


def forward_sum(linear: LinearMap, xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """sum_k W_k x_k + bias."""
    if _stacks(linear, weights[0]) and xs[0].dim() == weights[0].dim():
        return linear.forward(torch.cat(list(xs), 1), torch.cat(list(weights), 1), bias)
    z = linear.forward(xs[0], weights[0], bias)
    for x, weight in zip(xs[1:], weights[1:], strict=True):
        z += linear.forward(x, weight)
    return z


def backward_each(linear: LinearMap, s: Tensor, weights: Sequence[Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """W_k^T s for each k, shaped like x."""
    if _stacks(linear, weights[0]) and x.dim() == weights[0].dim():
        like = x.new_empty(x.shape[0], x.shape[1] * len(weights), *x.shape[2:])
        return linear.backward(s, torch.cat(list(weights), 1), like).chunk(len(weights), 1)
    return tuple(linear.backward(s, weight, x) for weight in weights)


def _stacks(linear: LinearMap, weight: Tensor) -> bool:
    """Whether inputs side by side, as channels of one, cost less than one after the other: few channels leave a
    processor's vectors unfilled."""
    return isinstance(linear, Convolution) and not linear.transposed and linear.groups == 1 and weight.shape[1] <= 4
