"""Feed-forward networks from arrays: linear layers and convolutions with what comes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from relprop.errors import InvalidInput
from relprop.models.arrays import Array, channels_first, fill, linear, require_one_dtype, require_vector, tensor_of

Layout = Literal["torch", "keras"]

_NAMED: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "flatten": nn.Flatten,
}

# What may stand between a Flatten and the next Linear without caring for the order of the values.
_ORDERLESS = (nn.Identity, nn.Dropout, nn.Flatten, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SELU, nn.GELU, nn.SiLU,
              nn.Softplus, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh)  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """A linear layer's arrays: weight (out, in), in Keras' layout the kernel (in, out); bias (out,)."""

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class Conv:
    """A convolution's arrays, over one dimension or two, and its options, which are PyTorch's.

    weight: (out, in / groups, length) or (out, in / groups, height, width); in Keras' layout (length, in / groups,
        out) or (height, width, in / groups, out). bias: (out,).
    padding: a number, one per dimension, or "same", with stride 1 only. dilation, groups: as in torch.nn.Conv2d.
    """

    weight: Array
    bias: Array | None = None
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] | Literal["same", "valid"] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1


def sequential(layers: Sequence[Linear | Conv | nn.Module | str], layout: Layout = "torch") -> nn.Sequential:
    """A feed-forward network from arrays, in evaluation mode, of the arrays' dtype.

    layers: in the order in which they are applied. `Linear` and `Conv` hold arrays; an activation is named ("relu",
        "tanh", "sigmoid", "softmax", "elu", "selu", "gelu", "silu", "softplus"), as is "flatten"; anything else, such
        as pooling, is a module of torch's: nn.MaxPool2d(2).
    layout: of the arrays. "torch": (out, in) and (out, in, height, width). "keras": kernels (in, out) and (height,
        width, in, out), which are transposed.

    The network takes PyTorch's channels first, (batch, channels, height, width), in either layout: write
    `x.transpose(0, 3, 1, 2)` for images with channels last. So a Flatten puts the channels first, and with
    layout="keras" the inputs of the Linear after it are put in that order too, from (height, width, channels). A
    Flatten with no Conv before it leaves the order as it is in x.

    Raises InvalidInput for shapes and options that don't fit, NonFinite for NaN.
    """
    if layout not in ("torch", "keras"):
        raise InvalidInput(f'layout: got {layout!r}, expected "torch" or "keras"')
    if isinstance(layers, (str, Linear, Conv, nn.Module)) or not layers:
        raise InvalidInput(f"layers: got {layers!r}, expected a list such as [Linear(weight, bias), 'relu', ...]")
    builder = _Builder(keras=layout == "keras")
    network = nn.Sequential(*(builder.module(i, layer) for i, layer in enumerate(layers)))
    require_one_dtype({name: p.detach() for name, p in network.named_parameters()})
    return network.eval()


class _Builder:
    """Makes modules one after the other; knows the channels of what comes in."""

    def __init__(self, keras: bool) -> None:
        self.keras = keras
        self.channels: int | None = None
        self.flattened = False

    def module(self, index: int, layer: Linear | Conv | nn.Module | str) -> nn.Module:
        name = f"layers[{index}]"
        if isinstance(layer, Linear):
            return self._linear(name, layer)
        if isinstance(layer, Conv):
            return self._conv(name, layer)
        if isinstance(layer, nn.Module):
            return self._as_it_is(name, layer)
        if layer == "softmax":
            return nn.Softmax(-1)
        if not isinstance(layer, str) or layer not in _NAMED:
            raise InvalidInput(
                f"{name}: got {layer!r}, expected Linear, Conv, a torch module, or one of "
                f"{', '.join(map(repr, [*_NAMED, 'softmax']))}"
            )
        return self._as_it_is(name, _NAMED[layer]())

    def _as_it_is(self, name: str, module: nn.Module) -> nn.Module:
        if self.flattened and self.channels is not None and self.keras and not isinstance(module, _ORDERLESS):
            raise InvalidInput(
                f"{name}: {type(module).__name__} between a flatten and its Linear may depend on the order of the "
                "values, which is (height, width, channels) in Keras. Put it elsewhere, or give all arrays in "
                "PyTorch's layout"
            )
        self.flattened = self.flattened or isinstance(module, nn.Flatten)
        return module

    def _linear(self, name: str, layer: Linear) -> nn.Linear:
        weight = tensor_of(f"{name}.weight", layer.weight)
        if weight.dim() != 2:
            raise InvalidInput(f"{name}.weight has shape {tuple(weight.shape)}; a Linear's has two dimensions")
        if self.keras:
            weight = self._channels_first(name, weight.T)
        self.channels, self.flattened = None, False
        return linear(weight, _bias(name, layer.bias, weight))

    def _channels_first(self, name: str, weight: Tensor) -> Tensor:
        """The columns after a Flatten of (positions, channels) in the order (channels, positions)."""
        if not self.flattened or self.channels is None:
            return weight
        if weight.shape[1] % self.channels:
            raise InvalidInput(
                f"{name}.weight takes {weight.shape[1]} inputs, which the {self.channels} channels before the flatten "
                "don't divide. Is a layer missing, or the kernel transposed?"
            )
        return channels_first(weight, self.channels)

    def _conv(self, name: str, layer: Conv) -> nn.Module:
        weight = tensor_of(f"{name}.weight", layer.weight)
        if weight.dim() not in (3, 4):
            raise InvalidInput(
                f"{name}.weight has shape {tuple(weight.shape)}; a convolution's has three dimensions, or four "
                "over images"
            )
        if self.keras:
            weight = weight.movedim((-1, -2), (0, 1))
        bias = _bias(name, layer.bias, weight)
        module = _conv_module(name, layer, weight, bias is not None)
        fill(module.weight, weight)
        if bias is not None and module.bias is not None:
            fill(module.bias, bias)
        self.channels, self.flattened = weight.shape[0], False
        return module


def _conv_module(name: str, layer: Conv, weight: Tensor, bias: bool) -> nn.Conv1d | nn.Conv2d:
    if layer.padding == "same" and any(s != 1 for s in _each(layer.stride)):
        raise InvalidInput(
            f'{name}: padding="same" with stride {layer.stride} pads the far side more, depending on the input\'s '
            "size. Put nn.ZeroPad2d((left, right, top, bottom)) before it and leave padding away"
        )
    channels = weight.shape[1] * layer.groups
    kind: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if weight.dim() == 3 else nn.Conv2d
    try:
        return kind(
            channels,
            weight.shape[0],
            tuple(weight.shape[2:]),  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=bias,
            dtype=weight.dtype,
        )
    except ValueError as error:
        raise InvalidInput(f"{name}: {error} (weight {tuple(weight.shape)}, in PyTorch's layout)") from error


def _each(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _bias(name: str, array: Array | None, weight: Tensor) -> Tensor | None:
    if array is None:
        return None
    bias = tensor_of(f"{name}.bias", array)
    require_vector(f"{name}.bias", bias, weight.shape[0], "one number for each output of its weight")
    if bias.dtype != weight.dtype:
        raise InvalidInput(f"{name}.bias is of {bias.dtype}, its weight of {weight.dtype}. Give both in one dtype")
    return bias
