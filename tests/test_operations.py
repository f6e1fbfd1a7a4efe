"""Every operation, one at a time, against explicit messages over its dense matrix, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracle import rules as oracle
from oracle.dense import Dense, dense
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.engine import functions
from relprop.engine.operation import tensors_in
from relprop.engine.registry import REGISTRY
from relprop.errors import RelpropError, TrainingMode, UnsupportedFunction
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, Zero, ZPlus

aten = torch.ops.aten
Function = Callable[[Tensor], Tensor]
TOLERANCE = 1e-9


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fixed(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same in each run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everywhere(eps: float = 0.0, rule: Rule | None = None) -> RuleMap:
    """A rule for affine operations, a stabiliser for sums and normalisers."""
    return RuleMap([("affine", rule or Zero()), (lambda op: True, Epsilon(eps))])


def explained(model: Function, x: Tensor, R: Tensor, rules: Any = None) -> Tensor:
    if isinstance(model, nn.Module):
        model.eval()
    attribution = relprop.explain(model, x, seed=R, rules=everywhere() if rules is None else rules)
    assert torch.equal(attribution.output, model(x.clone())), "the forward value is not the model's own, bit for bit"
    found: Tensor = attribution.relevance
    assert found.shape == x.shape
    return found


def agree(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    error = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    assert float(error) <= tolerance, f"relative error {float(error):.2e}\n{found}\n{expected}"


def relevance_for(y: Tensor) -> Tensor:
    """Some relevance for every output that is not zero."""
    return fixed(*y.shape, seed=7).masked_fill(y == 0, 0)


def jacobian(function: Function, x: Tensor) -> Tensor:
    """J (outputs, inputs), by torch's own derivative."""
    J: Tensor = torch.autograd.functional.jacobian(lambda t: function(t.clone()), x)
    return J.reshape(-1, x.numel())


def linear_form(function: Function, x: Tensor) -> Dense:
    """y = J x + b."""
    J = jacobian(function, x)
    b = function(x.clone()).flatten() - J @ x.flatten()
    return Dense(J, b, J != 0, tuple(x.shape))


def named(cases: dict[str, Any]) -> Any:
    return [pytest.param(case, id=name) for name, case in cases.items()]


# ---- carriers

X = (2, 3, 4, 4)
MASK = fixed(*X, seed=1) > 0
INDEX = torch.tensor([2, 0, 0])
PLACES = torch.randint(0, 3, X, generator=torch.Generator().manual_seed(2))


def assigned(x: Tensor) -> Tensor:
    y = torch.zeros(2, 3, 4, 4)
    y[:, 1:] = x[:, :2]
    return y


def assigned_in(x: Tensor) -> Tensor:
    x[:, 0] = x[:, 1]
    return x


CARRIERS: dict[str, Function] = {
    "view": lambda x: x.view(6, 16),
    "view_as": lambda x: x.view_as(torch.empty(6, 16)),
    "reshape": lambda x: x.reshape(-1, 4),
    "torch.reshape": lambda x: torch.reshape(x, (4, 24)),
    "reshape_as": lambda x: x.reshape_as(torch.empty(6, 16)),
    "flatten": lambda x: x.flatten(1),
    "nn.Flatten": nn.Flatten(),
    "ravel": lambda x: x.ravel(),
    "unflatten": lambda x: x.unflatten(1, (3, 1)),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, 2),
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "movedim": lambda x: x.movedim(1, 3),
    "t": lambda x: x[0, 0].t(),
    ".T": lambda x: x[0, 0].T,
    ".mT": lambda x: x.mT,
    "adjoint": lambda x: x.adjoint(),
    "cat": lambda x: torch.cat([x, x[:, :1]], 1),
    "concat": lambda x: torch.concat([x, torch.ones(2, 3, 4, 4)]),
    "stack": lambda x: torch.stack([x, x.flip(0)], 1),
    "hstack": lambda x: torch.hstack([x, x]),
    "vstack": lambda x: torch.vstack([x, x]),
    "dstack": lambda x: torch.dstack([x, x]),
    "column_stack": lambda x: torch.column_stack([x[0, 0], x[1, 0]]),
    "block_diag": lambda x: torch.block_diag(x[0, 0], x[1, 1]),
    "cartesian_prod": lambda x: torch.cartesian_prod(x[0, 0, 0], x[0, 0, 1]),
    "split": lambda x: x.split(2, 1)[1],
    "split sizes": lambda x: x.split([1, 2], 1)[1],
    "tensor_split": lambda x: x.tensor_split(2, 1)[0],
    "chunk": lambda x: x.chunk(2, 2)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "iteration": lambda x: torch.stack(list(x)[::-1]),
    "unpacking": lambda x: torch.cat([*x.chunk(2)][::-1]),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad value": lambda x: F.pad(x, (1, 1), value=0.5),
    "pad negative": lambda x: F.pad(x, (-1, 1)),
    "pad reflect": lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"),
    "pad replicate": lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"),
    "pad circular": lambda x: F.pad(x, (2, 1, 1, 2), mode="circular"),
    "nn.ReflectionPad1d": lambda x: nn.ReflectionPad1d(1)(x[0]),
    "nn.ReplicationPad3d": nn.ReplicationPad3d(1),
    "nn.ZeroPad2d": nn.ZeroPad2d(1),
    "nn.ConstantPad2d": nn.ConstantPad2d(1, 0.3),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "expand_as": lambda x: x[:1].expand_as(x),
    "broadcast_to": lambda x: x[:1].broadcast_to(2, 3, 4, 4),
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x[:1], torch.ones(2, 1, 1, 1))[0],
    "repeat": lambda x: x.repeat(2, 1, 1, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: x.tile(2),
    "flip": lambda x: x.flip(1, 3),
    "roll": lambda x: x.roll(1, 2),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "fftshift": lambda x: torch.fft.fftshift(x, dim=-1),
    "x[1]": lambda x: x[1],
    "x[:, -1]": lambda x: x[:, -1],
    "x[..., 1:3]": lambda x: x[..., 1:3],
    "x[::2, None]": lambda x: x[::2, None],
    "x[mask]": lambda x: x[MASK],
    "x[:, index]": lambda x: x[:, INDEX],
    "x[index, index]": lambda x: x[torch.tensor([0, 1]), torch.tensor([2, 2])],
    "x[:, list, 1:]": lambda x: x[:, [0, 2], 1:],
    "x[tensor of its own]": lambda x: x[:, x[0, :, 0, 0].argsort()],
    "x[...] = part": assigned,
    "x[:, 0] = x[:, 1]": assigned_in,
    "select": lambda x: x.select(1, 2),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "narrow_copy": lambda x: x.clone().narrow(2, 1, 2),
    "index_select": lambda x: x.index_select(1, INDEX),
    "gather": lambda x: x.gather(1, PLACES),
    "take": lambda x: x.take(torch.tensor([5, 90, 5])),
    "take_along_dim": lambda x: x.take_along_dim(PLACES, 1),
    "masked_select": lambda x: x.masked_select(MASK),
    "where": lambda x: torch.where(MASK, x, x.flip(0)),
    "where constant": lambda x: torch.where(MASK, x, 0.5),
    "where its own sign": lambda x: torch.where(x > 0, x, -0.5),
    "masked_fill": lambda x: x.masked_fill(MASK, -3.0),
    "masked_fill_": lambda x: x.masked_fill_(MASK, 0.0),
    "masked_scatter": lambda x: x.masked_scatter(MASK, x.flip(0)),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([1]), 0.5),
    "index_copy": lambda x: x.index_copy(1, torch.tensor([1]), x[:, 2:]),
    "index_put": lambda x: x.index_put((torch.tensor([1]),), x[0]),
    "index_add": lambda x: torch.zeros(2, 4, 4, 4).index_add(1, torch.tensor([3, 0, 1]), x),
    "scatter": lambda x: torch.zeros(X).scatter(1, torch.tensor([2, 0, 1])[:, None, None].expand(X), x),
    "select_scatter": lambda x: x.select_scatter(x[:, 1], 1, 0),
    "slice_scatter": lambda x: x.slice_scatter(x[:, :1], 1, 1, 2),
    "diagonal_scatter": lambda x: x[0, 0].diagonal_scatter(x[1, 1, 0]),
    "fill_ in a view": lambda x: x.index_fill_(0, torch.tensor([1]), 2.0),
    "copy_": lambda x: torch.zeros(2, 3, 4, 4).copy_(x),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.transpose(1, 2), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x.transpose(1, 2), 2),
    "F.unfold": lambda x: F.unfold(x, 2, padding=1),
    "Tensor.unfold": lambda x: x.unfold(2, 3, 1),
    "as_strided": lambda x: x.as_strided((3, 2), (2, 7), 1),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "diag": lambda x: x[0, 0].diag(),
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
    "diag_embed": lambda x: x.diag_embed(),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0, 0], x[0, 0, 1], indexing="ij")[1],
    "atleast_3d": lambda x: torch.atleast_3d(x[0, 0]),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.transpose(0, 1).contiguous(),
    "+x": lambda x: +x,
    "to": lambda x: x.to(torch.float64),
    "to device": lambda x: x.to("cpu"),
    "type_as": lambda x: x.type_as(torch.zeros(1)),
    "double": lambda x: x.double(),
    "detach": lambda x: x.detach(),
    ".data": lambda x: x.data,
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "nn.Dropout2d": nn.Dropout2d().eval(),
    "nn.AlphaDropout": nn.AlphaDropout().eval(),
    "nn.Identity": nn.Identity(),
    "nn.Unflatten": nn.Unflatten(1, (3, 1)),
}  # fmt: skip


@pytest.mark.parametrize("carrier", named(CARRIERS))
def test_relevance_moves_as_values_move(carrier: Function) -> None:
    x = fixed(*X)
    y = carrier(x.clone())
    J = jacobian_of_values(carrier, x)
    assert ((J == 0) | (J == 1)).all(), "a carrier copies values"
    R = relevance_for(y)
    agree(explained(carrier, x, R), (J.T @ R.flatten()).reshape(x.shape))


def jacobian_of_values(function: Function, x: Tensor) -> Tensor:
    """J by differences, which sees through detach()."""
    y = function(x.clone()).flatten().double()
    columns = []
    for i in range(x.numel()):
        shifted = x.clone()
        shifted.view(-1)[i] += 2.0**-20
        columns.append((function(shifted).flatten().double() - y) * 2.0**20)
    return torch.stack(columns, 1).round(decimals=6)


# Written into a tensor in place: a zero that was overwritten can't be told from one that was not.
ASSIGNMENTS = ("x[...] = part", "x[:, 0] = x[:, 1]", "index_add", "copy_")


@pytest.mark.parametrize("name", [name for name in CARRIERS if name not in ASSIGNMENTS])
def test_a_rule_for_zero_inputs_sees_through_a_carrier(name: str) -> None:
    """Flat gives a share to inputs that are zero, also where a carrier lies between the input and the layer, and none
    to constants that the carrier put beside them."""
    carrier, x = CARRIERS[name], fixed(*X)
    x = x * (fixed(*X, seed=26) > 0)
    carried = carrier(x.clone()).flatten()
    weight = fixed(3, len(carried), seed=27)
    R = relevance_for(weight @ carried)
    # Where the values decide which values move, a difference would see the decision change.
    J = jacobian(carrier, x) if "its own" in name else jacobian_of_values(carrier, x)
    moved = (J != 0).any(1)
    flat = oracle.flat(Dense(weight, torch.zeros(3), moved.expand(3, -1), (len(carried),)), carried, R).sum(0)
    found = explained(lambda x: F.linear(carrier(x).flatten(), weight), x, R, everywhere(rule=Flat()))
    agree(found, (J.T @ flat).reshape(x.shape))


# ---- sums

GRID = fixed(2, 3, 5, 2, seed=3).tanh()

SUMS: dict[str, Function] = {
    "x + y": lambda x: x + x.flip(1),
    "x + constant": lambda x: x + fixed(3, 1, 4, seed=4),
    "constant + x": lambda x: fixed(4, seed=4) + x,
    "2 + x": lambda x: 2 + x,
    "add alpha": lambda x: torch.add(x, x.flip(0), alpha=0.3),
    "add constant alpha": lambda x: torch.add(x, fixed(4, seed=4), alpha=-2),
    "add_": lambda x: x.add_(x.flip(1), alpha=2),
    "+=": lambda x: x.__iadd__(fixed(4, seed=4)),
    "broadcast": lambda x: x + x[:, :1, :1],
    "x - y": lambda x: x - x.flip(1),
    "x - 3": lambda x: x - 3,
    "3 - x": lambda x: 3 - x,
    "constant - x": lambda x: fixed(4, seed=4) - x,
    "sub alpha": lambda x: torch.sub(x, x.flip(1), alpha=0.5),
    "subtract": lambda x: torch.subtract(x, x.flip(1)),
    "rsub": lambda x: torch.rsub(x, x.flip(1), alpha=0.5),
    "sub_": lambda x: x.sub_(x.flip(2)),
    "sum": lambda x: x.sum(),
    "sum dims": lambda x: x.sum((1, 3), keepdim=True),
    "torch.sum": lambda x: torch.sum(x, 1),
    "sum by name": lambda x: torch.sum(input=x, dim=1),
    "nansum": lambda x: x.nansum(1),
    "mean": lambda x: x.mean((2, 3)),
    "mean of all": lambda x: x.mean(),
    "nanmean": lambda x: x.nanmean(1),
    "sum_to_size": lambda x: x.sum_to_size(3, 1, 4),
    "trace": lambda x: x[0, 0].trace(),
    "avg_pool1d": lambda x: F.avg_pool1d(x[0], 3, stride=2, padding=1, ceil_mode=True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "avg_pool2d of real values only": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "avg_pool2d divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "avg_pool3d": lambda x: F.avg_pool3d(x, 2, padding=1, ceil_mode=True, count_include_pad=False),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x[0], 3),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    "adaptive_avg_pool2d to 1": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x, (2, 3, 1)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest 1d": lambda x: F.interpolate(x[0], 7),
    "nearest 3d": lambda x: F.interpolate(x[None], (2, 3, 5)),
    "nearest-exact": lambda x: F.interpolate(x, (3, 7), mode="nearest-exact"),
    "linear": lambda x: F.interpolate(x[0], 7, mode="linear"),
    "linear aligned": lambda x: F.interpolate(x[0], 7, mode="linear", align_corners=True),
    "bilinear": lambda x: F.interpolate(x, (3, 7), mode="bilinear"),
    "bilinear aligned": lambda x: F.interpolate(x, (3, 7), mode="bilinear", align_corners=True),
    "bilinear antialias": lambda x: F.interpolate(x, (3, 2), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, (3, 7), mode="bicubic"),
    "bicubic antialias": lambda x: F.interpolate(x, (3, 2), mode="bicubic", antialias=True),
    "trilinear": lambda x: F.interpolate(x[None], (2, 3, 5), mode="trilinear", align_corners=True),
    "area": lambda x: F.interpolate(x, (3, 2), mode="area"),
    "nn.Upsample": nn.Upsample(scale_factor=2, mode="bilinear"),
    "cumsum": lambda x: x.cumsum(3),
    "diff": lambda x: x.diff(dim=2),
    "diff appended": lambda x: torch.diff(x, dim=2, append=x[:, :, :1]),
    "F.fold": lambda x: F.fold(x.reshape(2, 12, 4), (3, 3), 2),
    "grid_sample": lambda x: F.grid_sample(x, GRID, align_corners=False),
    "grid_sample nearest": lambda x: F.grid_sample(x, GRID, mode="nearest", padding_mode="border", align_corners=True),
    "affine_grid": lambda x: F.affine_grid(x[:, 0, :2, :3], (2, 1, 3, 3), align_corners=False),
    "einsum of one": lambda x: torch.einsum("bchw->bw", x),
    "einsum of a diagonal": lambda x: torch.einsum("bcii->bc", x),
    "index_add": lambda x: x.index_add(1, torch.tensor([0, 0, 2]), x, alpha=2),
    "scatter_add": lambda x: torch.zeros(2, 3, 4, 4).scatter_add(1, PLACES, x),
    "scatter_reduce mean": lambda x: x.scatter_reduce(1, PLACES, x, "mean"),
    "index_put accumulate": lambda x: x.index_put((torch.tensor([1, 1]),), x, accumulate=True),
    "negative": lambda x: -x,
    "times constant": lambda x: x * fixed(4, seed=4),
    "constant / constant": lambda x: x / 3,
}  # fmt: skip
# Not sums of the table, and so without a stabiliser.
UNSTABILISED = (
    "index_add", "scatter_add", "scatter_reduce mean", "index_put accumulate", "negative", "times constant",
    "constant / constant",
)  # fmt: skip


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("name", SUMS)
def test_each_summand_gets_its_share(name: str, eps: float) -> None:
    x, function = fixed(*X), SUMS[name]
    R = relevance_for(function(x.clone()))
    applied = 0.0 if name in UNSTABILISED else eps
    expected = oracle.epsilon(linear_form(function, x), x.flatten(), R.flatten(), eps=applied).sum(0)
    agree(explained(function, x, R, everywhere(eps)), expected.reshape(x.shape))


# ---- activations


@dataclass(frozen=True)
class Activation:
    """a = f(z); `positive` where f is defined for positive numbers only, `within` for those between -1 and 1."""

    f: Function
    domain: str = "real"

    def input(self) -> Tensor:
        z = fixed(2, 9, seed=5)
        if self.domain == "positive":
            return z.abs() + 0.1
        if self.domain == "within":
            return z.tanh()
        z[0, 0], z[1, 3] = 0.0, 0.0
        z[0, 1], z[1, 1] = 4.0, -4.0
        return z


SLOPES = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3], dtype=torch.float64)

ACTIVATIONS: dict[str, Function | Activation] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "x.relu()": lambda z: z.relu(),
    "x.relu_()": lambda z: z.relu_(),
    "F.relu inplace": lambda z: F.relu(z, inplace=True),
    "F.relu_": lambda z: F.relu_(z),
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU inplace": nn.ReLU(inplace=True),
    "hidden relu_": lambda z: (2 * z).relu_(),
    "x.clamp(min=0)": lambda z: z.clamp(min=0),
    "maximum by name": lambda z: torch.clamp(input=z, min=0.0),
    "clamp_min_": lambda z: z.clamp_min_(0.0),
    "clamp max": lambda z: z.clamp(max=0.5),
    "clamp both": lambda z: z.clamp(-0.5, 0.5),
    "clamp above zero": lambda z: z.clamp(0.2, 2.0),
    "clamp to tensors": lambda z: z.clamp(-SLOPES, SLOPES),
    "clamp to tensors above zero": lambda z: torch.clamp(z, SLOPES - 0.2, SLOPES + 1),
    "clip": lambda z: torch.clip(z, -1, 1),
    "relu6": F.relu6,
    "nn.ReLU6 inplace": nn.ReLU6(inplace=True),
    "hardtanh": F.hardtanh,
    "hardtanh_": lambda z: F.hardtanh_(z, -0.5, 2.0),
    "leaky_relu": lambda z: F.leaky_relu(z, 0.2),
    "leaky_relu_": lambda z: F.leaky_relu_(z, 0.2),
    "nn.PReLU": nn.PReLU(init=0.3).double(),
    "prelu per channel": lambda z: F.prelu(z, SLOPES),
    "rrelu": lambda z: F.rrelu(z, 0.1, 0.3, training=False),
    "nn.RReLU": nn.RReLU().eval(),
    "threshold": lambda z: F.threshold(z, 0.5, 0.0),
    "threshold to a value": lambda z: F.threshold(z, 0.5, -1.0),
    "elu": F.elu,
    "elu_": lambda z: F.elu_(z, 0.5),
    "selu": F.selu,
    "celu": lambda z: F.celu(z, 0.5),
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "nn.GELU": nn.GELU("tanh"),
    "silu": F.silu,
    "silu inplace": lambda z: F.silu(z, inplace=True),
    "mish": F.mish,
    "softplus": F.softplus,
    "softplus beta": lambda z: F.softplus(z, beta=2.0),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "F.sigmoid": F.sigmoid,
    "sigmoid_": lambda z: z.sigmoid_(),
    "special.expit": torch.special.expit,
    "nn.Sigmoid": nn.Sigmoid(),
    "tanh": torch.tanh,
    "F.tanh": F.tanh,
    "tanh_": lambda z: z.tanh_(),
    "erf": torch.erf,
    "erfc": torch.erfc,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "logsigmoid": F.logsigmoid,
    "abs": lambda z: z.abs(),
    "abs()": abs,
    "square": lambda z: z.square(),
    "z ** 2": lambda z: z**2,
    "z ** 3": lambda z: torch.pow(z, 3),
    "pow_": lambda z: z.pow_(2),
    "pow by name": lambda z: z.pow(exponent=2),
    "pow of tensors": lambda z: z.pow(torch.tensor([1.0, 2, 3, 1, 2, 3, 1, 2, 3])),
    "2 ** z": lambda z: 2**z,
    "z ** -0.5": Activation(lambda z: z**-0.5, "positive"),
    "z ** 0.5": Activation(lambda z: z**0.5, "positive"),
    "float_power": Activation(lambda z: z.float_power(1.5), "positive"),
    "sqrt": Activation(torch.sqrt, "positive"),
    "rsqrt": Activation(torch.rsqrt, "positive"),
    "reciprocal": Activation(torch.reciprocal, "positive"),
    "1 / z": Activation(lambda z: 1 / z, "positive"),
    "constant / z": Activation(lambda z: SLOPES / z, "positive"),
    "exp": torch.exp,
    "exp_": lambda z: z.exp_(),
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": Activation(torch.log, "positive"),
    "log2": Activation(torch.log2, "positive"),
    "log10": Activation(torch.log10, "positive"),
    "log1p": Activation(torch.log1p, "positive"),
    "logit": Activation(lambda z: torch.logit(z.abs() * 0.5 + 0.2), "within"),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": Activation(torch.asin, "within"),
    "acos": Activation(torch.acos, "within"),
    "atan": torch.atan,
    "arctan": torch.arctan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "arccosh": Activation(lambda z: torch.arccosh(z + 1), "positive"),
    "atanh": Activation(torch.atanh, "within"),
    "deg2rad": torch.deg2rad,
    "special.ndtr": torch.special.ndtr,
    "special.log_ndtr": torch.special.log_ndtr,
    "sinc": torch.sinc,
    "lgamma": Activation(torch.lgamma, "positive"),
    "digamma": Activation(torch.digamma, "positive"),
    "i0": torch.i0,
    "round": torch.round,
    "round decimals": lambda z: z.round(decimals=1),
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "frac": torch.frac,
    "sign": torch.sign,
    "sgn": torch.sgn,
    "z // 0.7": lambda z: z // 0.7,
    "div floor": lambda z: torch.div(z, 0.3, rounding_mode="floor"),
    "z % 0.7": lambda z: z % 0.7,
    "fmod": lambda z: torch.fmod(z, SLOPES),
    "remainder_": lambda z: z.remainder_(0.7),
    "nan_to_num": lambda z: z.nan_to_num(),
    "ldexp": lambda z: torch.ldexp(z, torch.tensor(2)),
    "fake_quantize": lambda z: torch.fake_quantize_per_tensor_affine(z, 0.1, 3, -8, 8),
}  # fmt: skip
# Not of the input itself, but of something computed from it by operations with a share of their own.
SHIFTED = ("logit", "arccosh")


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in SHIFTED])
def test_relevance_passes_an_activation_unchanged(name: str) -> None:
    case = ACTIVATIONS[name]
    activation = case if isinstance(case, Activation) else Activation(case)
    z = activation.input()
    a = activation.f(z.clone())
    # Another step after it, since a sigmoid that comes last is left out.
    found = explained(lambda z: 1.0 * activation.f(z), z, R := relevance_for(a))
    at_zero = activation.f(torch.zeros_like(z))
    # Where f(0) is not 0 the share z / z needs a stabiliser, 1e-6.
    expected = torch.where(at_zero == 0, R.masked_fill(z == 0, 0), R * z / (z + 1e-6 * oracle.sign(z)))
    agree(found, expected)


@pytest.mark.parametrize("name", SHIFTED)
def test_relevance_passes_an_activation_of_a_sum(name: str) -> None:
    case = ACTIVATIONS[name]
    assert isinstance(case, Activation)
    x = case.input()
    assert torch.isfinite(explained(case.f, x, relevance_for(case.f(x)))).all()


@pytest.mark.parametrize("model", [torch.sqrt, lambda x: x.abs() ** 0.5, lambda x: (x * x).sum(1).sqrt()])
def test_a_root_of_zero_gives_no_nan(model: Function) -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    y = model(x)
    agree(explained(model, x, y), torch.tensor([[0.0, 0.0], [0.0, 2.0 if y.dim() == 2 else 4.0]]))


def test_random_slopes_are_refused() -> None:
    with pytest.raises(TrainingMode, match="rrelu"):
        relprop.explain(lambda x: F.rrelu(x, training=True), fixed(2, 3))


# ---- products

A, B = fixed(3, 4, seed=8), fixed(3, 4, seed=9)


def passed(x: Tensor, R: Tensor) -> Tensor:
    return R


def halved_first(x: Tensor, R: Tensor) -> Tensor:
    """All of it to the first half of the columns."""
    return torch.cat([R, torch.zeros_like(R)], 1)


def swiglu(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return F.silu(a) * b


def squeeze_excite(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True) @ torch.ones(1, 1))


def layer_norm_by_hand(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)


def layer_norm_by_var(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, -1, keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def centred_share(x: Tensor, R: Tensor) -> Tensor:
    """The share of x - mean(x)."""
    n = x.shape[-1]
    s = R / (x - x.mean(-1, keepdim=True))
    return x * (s - s.sum(-1, keepdim=True) / n)


def matmul_halves(x: Tensor, R: Tensor) -> Tensor:
    a, b = x.chunk(2)
    s = R / (2 * (a @ b.mT))
    return torch.cat([a * (s @ b), b * (s.mT @ a)])


@dataclass(frozen=True)
class Product:
    """y = f(x) for x of a shape, and the relevance of x given that of y."""

    f: Function
    expected: Callable[[Tensor, Tensor], Tensor] = passed
    shape: tuple[int, ...] = (3, 4)


PRODUCTS: dict[str, Product] = {
    "constant * x": Product(lambda x: A * x),
    "x * constant": Product(lambda x: x * A),
    "x * 2": Product(lambda x: x * 2),
    "mul_": Product(lambda x: x.mul_(A)),
    "x / constant": Product(lambda x: x / A),
    "div_": Product(lambda x: x.div_(3)),
    "true_divide": Product(lambda x: torch.true_divide(x, A)),
    "-x": Product(lambda x: -x),
    "gate * signal": Product(lambda x: torch.sigmoid(x.flip(0)) * x),
    "signal * gate": Product(lambda x: x * torch.sigmoid(x.flip(0))),
    "gate by name": Product(lambda x: torch.mul(input=torch.sigmoid(x.flip(0)), other=x)),
    "signal.mul_(gate)": Product(lambda x: (1 * x).mul_(torch.sigmoid(x.flip(0)))),
    "gate.mul_(signal)": Product(lambda x: torch.sigmoid(x.flip(0)).mul_(x)),
    "hardsigmoid gate": Product(lambda x: x * F.hardsigmoid(x)),
    "1 - gate": Product(lambda x: (1 - torch.sigmoid(x.flip(0))) * x),
    "scaled, reshaped gate": Product(lambda x: x * (2 * torch.sigmoid(x.T)).reshape(3, 4)),
    "tanh gate": Product(lambda x: x * (0.5 * (1 + torch.tanh(x.flip(0))))),
    "tanh gate, the other way round": Product(lambda x: (0.5 * torch.tanh(x.flip(0)) + 0.5) * x),
    "erf gate": Product(lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    "hard sigmoid by hand": Product(lambda x: x * F.relu6(x.flip(0) + 3) / 6),
    "hard sigmoid by clamp": Product(lambda x: ((x.flip(0) + 3).clamp(0, 6) / 6) * x),
    "hard sigmoid of a layer": Product(lambda x: x * (F.hardtanh(F.linear(x, torch.eye(4)) + 3, 0, 6) / 6)),
    "sign": Product(lambda x: x * x.sign()),
    "silu by hand": Product(lambda x: x * torch.sigmoid(x)),
    "norm": Product(lambda x: x / x.norm(dim=1, keepdim=True)),
    "normalize": Product(lambda x: F.normalize(x, dim=1)),
    "rms": Product(lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)),
    "rms by a power": Product(lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-5) ** -0.5),
    "rms by 1 / sqrt": Product(lambda x: x * (1 / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))),
    "std": Product(lambda x: x / (x.std(-1, keepdim=True) + 1e-5)),
    "var": Product(lambda x: x * (x.var(-1, keepdim=True) + 1e-5).rsqrt()),
    "max": Product(lambda x: x / x.abs().amax(1, keepdim=True)),
    "x / (1 + |x|)": Product(lambda x: x / (1 + x.abs())),
    "div by a signal": Product(lambda x: x.div(x.flip(0))),
    "div_ by a signal": Product(lambda x: (1 * x).div_(x.exp())),
    "exp / sum of exp": Product(
        lambda x: x.exp() / x.exp().sum(1, keepdim=True), lambda x, R: R * x / (x + 1e-6 * oracle.sign(x))
    ),
    "layer norm by hand": Product(layer_norm_by_hand, centred_share),
    "layer norm by var_mean": Product(layer_norm_by_var, centred_share),
    "x * x": Product(lambda x: x * x),
    "two signals": Product(lambda x: x[:, :2] * x[:, 2:], lambda x, R: torch.cat([R, R], 1) / 2),
    "two signals, broadcast": Product(
        lambda x: x * x[:, :1].detach(), lambda x, R: R / 2 + torch.cat([R.sum(1, True) / 2, 0 * R[:, 1:]], 1)
    ),
    "three signals": Product(lambda x: x.prod(1), lambda x, R: R[:, None].expand(3, 4) / 4),
    "prod of all": Product(lambda x: x.prod(), lambda x, R: R.expand(3, 4) / 12),
    "glu": Product(lambda x: F.glu(x, 1), halved_first),
    "glu by hand": Product(lambda x: x[:, :2] * torch.sigmoid(x[:, 2:]), halved_first),
    "swiglu": Product(swiglu, lambda x, R: torch.cat([R, R], 1) / 2),
    "squeeze-excite": Product(squeeze_excite, shape=(2, 1, 3, 3)),
    "matmul": Product(lambda x: x.chunk(2)[0] @ x.chunk(2)[1].mT, matmul_halves, (4, 3)),
    "mm": Product(lambda x: torch.mm(x.chunk(2)[0], x.chunk(2)[1].t()), matmul_halves, (4, 3)),
    "bmm": Product(lambda x: torch.bmm(x.chunk(2)[0], x.chunk(2)[1].mT), matmul_halves, (4, 3, 3)),
    "einsum": Product(lambda x: torch.einsum("bij,bkj->bik", *x.chunk(2)), matmul_halves, (4, 3, 3)),
    "outer": Product(
        lambda x: torch.outer(x[0], x[1]),
        lambda x, R: torch.cat([torch.stack([R.sum(1), R.sum(0)]) / 2, torch.zeros(1, 4)]),
    ),
    "addcmul": Product(lambda x: torch.addcmul(x[:1], x[1:2], x[2:]), lambda x, R: addcmul_share(x, R)),
    "lerp by a gate": Product(
        lambda x: torch.lerp(x[:1], x[1:2], torch.sigmoid(x[2:])), lambda x, R: lerp_share(x, R)
    ),
}  # fmt: skip


def addcmul_share(x: Tensor, R: Tensor) -> Tensor:
    s = R / (x[:1] + x[1:2] * x[2:])
    return torch.cat([x[:1] * s, x[1:2] * x[2:] * s / 2, x[1:2] * x[2:] * s / 2])


def lerp_share(x: Tensor, R: Tensor) -> Tensor:
    """The share of (1 - g) a + g b, the gate without any."""
    g = torch.sigmoid(x[2:])
    a, b = (1 - g) * x[:1], g * x[1:2]
    return torch.cat([a, b, 0 * a]) * R / (a + b)


@pytest.mark.parametrize("case", named(PRODUCTS))
def test_products_by_the_roles_of_their_factors(case: Product) -> None:
    x = fixed(*case.shape, seed=6)
    R = relevance_for(case.f(x.clone()))
    agree(explained(case.f, x, R), case.expected(x, R))


def test_a_vector_added_to_tanh_makes_no_gate() -> None:
    """(tanh(a) + b) * x multiplies two signals."""
    x = fixed(3, 4)
    b = fixed(4, seed=1)
    R = relevance_for(x)
    a = torch.tanh(x.flip(0))
    expected = R / 2 + (R / 2 * a / (a + b)).flip(0)
    agree(explained(lambda x: x * (torch.tanh(x.flip(0)) + b), x, R), expected)


# ---- statistics on their own: homogeneous functions, whose derivative times x adds up to a multiple of them

STATISTICS: dict[str, Function] = {
    "norm": lambda x: x.norm(dim=1),
    "norm 1": lambda x: torch.norm(x, 1),
    "norm 3": lambda x: x.norm(3, dim=(1,)),
    "norm inf": lambda x: x.norm(float("inf"), dim=1),
    "linalg.norm": lambda x: torch.linalg.norm(x),
    "linalg.vector_norm": lambda x: torch.linalg.vector_norm(x, 2.5, dim=1),
    "linalg.matrix_norm": lambda x: torch.linalg.matrix_norm(x),
    "nuclear": lambda x: torch.linalg.norm(x, "nuc"),
    "std": lambda x: x.std(1),
    "std biased": lambda x: x.std(1, unbiased=False),
    "std of all": lambda x: torch.std(x),
    "var": lambda x: x.var(1),
    "var corrected": lambda x: x.var(1, correction=0),
    "std_mean": lambda x: torch.cat(torch.std_mean(x, 1)),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, 1)),
    "quantile": lambda x: x.quantile(0.3, dim=1),
    "dist": lambda x: torch.dist(x[0], x[1]),
    "cdist": lambda x: torch.cdist(x[:2], x[1:], p=1.0),
    "pdist": lambda x: F.pdist(x),
}  # fmt: skip


@pytest.mark.parametrize("statistic", named(STATISTICS))
def test_a_statistic_conserves(statistic: Function) -> None:
    """Also centred ones: std(a x) = a std(x), so sum_i x_i d std / d x_i = std; var needs half of its derivative."""
    x = fixed(3, 4)
    y = statistic(x)
    R = relevance_for(y)
    J = jacobian(statistic, x)
    degrees = (J @ x.flatten()) / y.flatten().masked_fill(y.flatten() == 0, 1)
    s = (R / y.masked_fill(y == 0, 1)).flatten() / degrees.masked_fill(degrees == 0, 1)
    found = explained(statistic, x, R)
    agree(found, (x.flatten() * (J.T @ s)).reshape(x.shape))
    torch.testing.assert_close(found.sum(), R.sum())


# ---- normalisers


@dataclass(frozen=True)
class Normaliser:
    """y = f(x), and the same function of t with the statistics of x."""

    f: Function
    frozen: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, ...] = (2, 4, 3, 3)


W4, B4, MEAN, VAR = fixed(4, seed=10), fixed(4, seed=11), fixed(4, seed=12), fixed(4, seed=13).square() + 0.1


def column(c: Tensor, x: Tensor) -> Tensor:
    return c.reshape(-1, *(1,) * (x.dim() - 2))


def running(x: Tensor, t: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = (t - column(MEAN, t)) / (column(VAR, t) + 1e-5).sqrt()
    return y if weight is None or bias is None else y * column(weight, t) + column(bias, t)


def layer_normed(x: Tensor, t: Tensor, dims: int = 1, weight: Any = 1.0, bias: Any = 0.0) -> Tensor:
    axes = tuple(range(-dims, 0))
    sigma = (x.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return (t - t.mean(axes, keepdim=True)) / sigma * weight + bias


def group_normed(x: Tensor, t: Tensor, groups: int, weight: Any = 1.0, bias: Any = 0.0) -> Tensor:
    rows_x, rows_t = (v.reshape(len(v), groups, -1) for v in (x, t))
    sigma = (rows_x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return ((rows_t - rows_t.mean(-1, keepdim=True)) / sigma).reshape(t.shape) * weight + bias


def local_response(x: Tensor, t: Tensor) -> Tensor:
    return t * (F.local_response_norm(x, 2) / x)


def batch_norm(module: type[nn.Module], affine: bool) -> nn.Module:
    norm: Any = module(4, affine=affine, dtype=torch.float64)
    norm.running_mean.copy_(MEAN)
    norm.running_var.copy_(VAR)
    if affine:
        norm.weight.data.copy_(W4)
        norm.bias.data.copy_(B4)
    return norm.eval()  # type: ignore[no-any-return]


def instance_norm(**statistics: Any) -> Function:
    return lambda x: F.instance_norm(x, weight=W4, bias=B4, **statistics)


EPS64 = torch.finfo(torch.float64).eps
TRIPLE = (fixed(3, 3, seed=14), fixed(3, 3, seed=15))

NORMS: dict[str, Normaliser] = {
    "batch_norm": Normaliser(
        lambda x: F.batch_norm(x, MEAN, VAR, W4, B4), lambda x, t: running(x, t, W4, B4)
    ),
    "BatchNorm1d of rows": Normaliser(
        batch_norm(nn.BatchNorm1d, True), lambda x, t: running(x, t, W4, B4), (3, 4)
    ),
    "BatchNorm1d": Normaliser(batch_norm(nn.BatchNorm1d, False), lambda x, t: running(x, t, None, None), (2, 4, 3)),
    "BatchNorm2d": Normaliser(batch_norm(nn.BatchNorm2d, True), lambda x, t: running(x, t, W4, B4)),
    "BatchNorm3d": Normaliser(
        batch_norm(nn.BatchNorm3d, False), lambda x, t: running(x, t, None, None), (1, 4, 2, 3, 2)
    ),
    "after a relu": Normaliser(
        lambda x: F.batch_norm(F.relu(x), MEAN, VAR, W4, B4), lambda x, t: running(x, t * (x > 0), W4, B4)
    ),
    "layer_norm": Normaliser(lambda x: F.layer_norm(x, (3,)), layer_normed),
    "layer_norm of two axes": Normaliser(
        lambda x: F.layer_norm(x, (3, 3), *TRIPLE), lambda x, t: layer_normed(x, t, 2, *TRIPLE)
    ),
    "nn.LayerNorm": Normaliser(nn.LayerNorm(4, dtype=torch.float64), layer_normed, (2, 3, 4)),
    "layer_norm without bias": Normaliser(
        lambda x: F.layer_norm(x, (4,), weight=W4), lambda x, t: layer_normed(x, t, weight=W4), (4,)
    ),
    "group_norm": Normaliser(
        lambda x: F.group_norm(x, 2, W4, B4), lambda x, t: group_normed(x, t, 2, column(W4, x), column(B4, x))
    ),
    "group_norm of rows": Normaliser(lambda x: F.group_norm(x, 2), lambda x, t: group_normed(x, t, 2), (3, 8)),
    "nn.GroupNorm": Normaliser(nn.GroupNorm(1, 4, affine=False), lambda x, t: group_normed(x, t, 1), (2, 4, 5)),
    "instance_norm": Normaliser(
        instance_norm(), lambda x, t: group_normed(x, t, 4, column(W4, x), column(B4, x))
    ),
    "instance_norm running": Normaliser(
        instance_norm(running_mean=MEAN, running_var=VAR, use_input_stats=False), lambda x, t: running(x, t, W4, B4)
    ),
    "nn.InstanceNorm1d": Normaliser(nn.InstanceNorm1d(4).eval(), lambda x, t: group_normed(x, t, 4), (2, 4, 5)),
    "nn.InstanceNorm3d tracked": Normaliser(
        batch_norm(partial(nn.InstanceNorm3d, track_running_stats=True), False),  # type: ignore[arg-type]
        lambda x, t: running(x, t, None, None),
        (1, 4, 2, 2, 3),
    ),
    "rms_norm": Normaliser(
        lambda x: F.rms_norm(x, (3,), TRIPLE[0][0]),
        lambda x, t: t / (x.square().mean(-1, keepdim=True) + EPS64).sqrt() * TRIPLE[0][0],
    ),
    "rms_norm of two axes": Normaliser(
        lambda x: F.rms_norm(x, (3, 3), eps=1e-3),
        lambda x, t: t / (x.square().mean((-1, -2), keepdim=True) + 1e-3).sqrt(),
    ),
    "native_layer_norm": Normaliser(
        lambda x: torch.native_layer_norm(x, (3, 3), *TRIPLE, 1e-5)[0], lambda x, t: layer_normed(x, t, 2, *TRIPLE)
    ),
    "native_group_norm": Normaliser(
        lambda x: torch.native_group_norm(x, W4, B4, 2, 4, 9, 2, 1e-5)[0],
        lambda x, t: group_normed(x, t, 2, column(W4, x), column(B4, x)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("case", named(NORMS))
def test_the_statistics_of_a_normaliser_are_constants(case: Normaliser, eps: float) -> None:
    x = fixed(*case.shape, seed=16)
    y = case.f(x.clone())
    agree(case.frozen(x, x), y)
    R = relevance_for(y)
    form = linear_form(lambda t: case.frozen(x, t), x)
    rules = RuleMap([("normaliser", Epsilon(eps)), (lambda op: True, Zero())])
    expected = oracle.epsilon(form, x.flatten(), R.flatten(), eps=eps).sum(0)
    agree(explained(case.f, x, R, rules), expected.reshape(x.shape))


def test_local_response_norm_divides_by_a_constant() -> None:
    x = fixed(2, 4, 3, 3)
    R = relevance_for(x)
    agree(explained(lambda x: F.local_response_norm(x, 2), x, R), R)


@pytest.mark.parametrize(
    "model",
    [lambda x: F.layer_norm(x, (4,), weight=x[0]), lambda x: F.batch_norm(x, MEAN, VAR, bias=x[0])],
)
def test_a_normaliser_with_weights_from_the_input_is_refused(model: Function) -> None:
    with pytest.raises(UnsupportedFunction, match="computed from the input"):
        relprop.explain(model, fixed(2, 4), seed=fixed(2, 4))


# ---- selections

UNPOOL = F.max_pool2d(fixed(*X), 2, return_indices=True)[1]

SELECTIONS: dict[str, Function] = {
    "max_pool1d": lambda x: F.max_pool1d(x[0], 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "max_pool2d ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool2d dilated": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "max_pool2d with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool3d": lambda x: F.max_pool3d(x, 2, padding=1, ceil_mode=True),
    "nn.MaxPool2d": nn.MaxPool2d(2),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x[0], 3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x, 2),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1, return_indices=False),
    "max": lambda x: x.max(),
    "max dim": lambda x: x.max(1).values,
    "max of two": lambda x: torch.max(x, x.flip(1)),
    "max with a constant": lambda x: torch.max(x, fixed(4, seed=1)),
    "min dim": lambda x: torch.min(x, 2)[0],
    "min of two": lambda x: torch.min(x, x.flip(1)),
    "amax": lambda x: x.amax((1, 2)),
    "amin": lambda x: x.amin((2, 3), keepdim=True),
    "aminmax": lambda x: torch.cat(tuple(x.aminmax(dim=1))),
    "maximum": lambda x: torch.maximum(x, x.flip(3)),
    "minimum": lambda x: torch.minimum(x, fixed(4, seed=2)),
    "fmax": lambda x: torch.fmax(x, x.flip(3)),
    "topk": lambda x: x.topk(2, 1).values,
    "sort": lambda x: x.sort(3, descending=True)[0],
    "msort": lambda x: x.msort(),
    "argsort": lambda x: x.take_along_dim(x.argsort(1), 1),
    "median": lambda x: x.median(),
    "median dim": lambda x: x.median(1).values,
    "nanmedian": lambda x: x.nanmedian(3)[0],
    "kthvalue": lambda x: x.kthvalue(2, 1)[0],
    "mode": lambda x: x.mode(1)[0],
    "cummax": lambda x: x.cummax(2)[0],
    "max_unpool2d": lambda x: F.max_unpool2d(x[:, :, :2, :2], UNPOOL, 2),
    "max_pool and unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "argmax": lambda x: x[torch.arange(2), x.mean((2, 3)).argmax(1)],
    "scatter_reduce amax": lambda x: x.scatter_reduce(1, PLACES.fill_(0), x, "amax")[:, :1],
}  # fmt: skip


@pytest.mark.parametrize("selection", named(SELECTIONS))
def test_the_winner_takes_all(selection: Function) -> None:
    x = fixed(*X)
    R = relevance_for(selection(x.clone()))
    J = jacobian(selection, x)
    expected = (J.T @ R.flatten()).reshape(x.shape)
    if selection is not SELECTIONS["scatter_reduce amax"]:
        assert ((J == 0) | (J == 1)).all()
    agree(explained(selection, x, R), expected)


# ---- affine operations, each with every rule


@dataclass(frozen=True)
class Affine:
    """z = then(f(before(x), weight, bias)); `before` is a carrier, `then` scales and shifts each channel."""

    f: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    weight: Tensor
    bias: Tensor | None
    shape: tuple[int, ...]
    then: Function = lambda z: z
    before: Function = lambda x: x

    def model(self, x: Tensor) -> Tensor:
        return self.then(self.f(self.before(x), self.weight, self.bias))

    def dense(self) -> Dense:
        """The operation that follows `before`, on its whole input as one sample."""
        shape = tuple(self.before(torch.zeros(self.shape)).shape)

        def f(samples: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return torch.stack([self.f(x, weight, bias) for x in samples])

        op = dense(f, self.weight, self.bias, shape)
        z = self.f(torch.zeros(shape), self.weight, self.bias)
        shift = self.then(torch.zeros_like(z))
        return op.scaled((self.then(torch.ones_like(z)) - shift).flatten(), shift.flatten())


def plain(f: Callable[[Tensor, Tensor], Tensor], weight: Tensor, shape: tuple[int, ...]) -> Affine:
    return Affine(lambda x, w, b: f(x, w), weight, None, shape)


def conv(axes: int, shape: tuple[int, ...], weight: tuple[int, ...], bias: bool = True, **options: Any) -> Affine:
    function: Any = [F.conv1d, F.conv2d, F.conv3d][axes - 1]
    return Affine(partial(function, **options), fixed(*weight), fixed(weight[0], seed=1) if bias else None, shape)


def transposed(axes: int, shape: tuple[int, ...], weight: tuple[int, ...], **options: Any) -> Affine:
    function: Any = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][axes - 1]
    channels = weight[1] * options.get("groups", 1)
    return Affine(partial(function, **options), fixed(*weight), fixed(channels, seed=1), shape)


@dataclass(frozen=True)
class Padding(Affine):
    """A convolution module that pads by copies of its input."""

    mode: str = "reflect"

    def model(self, x: Tensor) -> Tensor:
        module = nn.Conv2d(2, 3, 3, padding=1, padding_mode=self.mode)
        module.weight, module.bias = nn.Parameter(self.weight), nn.Parameter(self.bias)
        y: Tensor = module(x)
        return y


def padded_conv(mode: str) -> Affine:
    before = partial(F.pad, pad=(1, 1, 1, 1), mode=mode)
    return Padding(F.conv2d, fixed(3, 2, 3, 3), fixed(3, seed=1), (1, 2, 4, 4), before=before, mode=mode)


def folded(start: Affine, then: Function) -> Affine:
    return Affine(start.f, start.weight, start.bias, start.shape, then)


SCALE, SHIFT = torch.tensor([-1.5, 0.5, 2.0], dtype=torch.float64), torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
MEAN3, VAR3 = fixed(3, seed=17), fixed(3, seed=18).square() + 0.1


def normed(z: Tensor) -> Tensor:
    """A batch norm with negative scales."""
    return F.batch_norm(z, MEAN3, VAR3, SCALE, SHIFT)


def per_channel_in_place(z: Tensor) -> Tensor:
    z *= SCALE[:, None, None]
    z += SHIFT[:, None, None]
    return z


LINEAR = Affine(F.linear, fixed(3, 5), fixed(3, seed=1), (2, 5))
CONV = conv(2, (1, 2, 4, 4), (3, 2, 3, 3), padding=1)
TRANSPOSED = transposed(2, (1, 6, 2, 3), (6, 1, 3, 3), stride=2, groups=3)

AFFINE: dict[str, Affine] = {
    "linear": LINEAR,
    "linear 1-D": Affine(F.linear, fixed(3, 5), fixed(3, seed=1), (5,)),
    "linear 3-D": Affine(F.linear, fixed(3, 5), fixed(3, seed=1), (2, 2, 5)),
    "linear 4-D without bias": Affine(F.linear, fixed(3, 5), None, (1, 2, 2, 5)),
    "linear one output": Affine(F.linear, fixed(1, 5), fixed(1, seed=1), (2, 5)),
    "x @ W": plain(lambda x, w: x @ w, fixed(5, 3), (2, 5)),
    "x @ W 3-D": plain(lambda x, w: x @ w, fixed(5, 3), (2, 2, 5)),
    "x @ w": plain(lambda x, w: x @ w, fixed(5), (2, 5)),
    "W @ x": plain(lambda x, w: w @ x, fixed(3, 2), (2, 5)),
    "W @ x vector": plain(lambda x, w: w @ x, fixed(3, 5), (5,)),
    "torch.mm": plain(torch.mm, fixed(5, 3), (2, 5)),
    "torch.mm of weights first": plain(lambda x, w: torch.mm(w, x), fixed(3, 2), (2, 5)),
    "batched weights": plain(torch.matmul, fixed(2, 5, 3), (2, 4, 5)),
    "bmm": plain(torch.bmm, fixed(2, 5, 3), (2, 4, 5)),
    "mv": plain(torch.mv, fixed(5), (2, 5)),
    "mv of weights": plain(lambda x, w: torch.mv(w, x), fixed(3, 5), (5,)),
    "dot": plain(torch.dot, fixed(5), (5,)),
    "inner": plain(torch.inner, fixed(3, 5), (2, 5)),
    "addmm": Affine(lambda x, w, b: torch.addmm(torch.zeros(3) if b is None else b, x, w), fixed(5, 3), SHIFT, (2, 5)),
    "addmm beta alpha": Affine(
        lambda x, w, b: torch.addmm(torch.zeros(3) if b is None else b, x, w, beta=0.5, alpha=-2.0),
        fixed(5, 3), SHIFT, (2, 5),
    ),
    "einsum": plain(lambda x, w: torch.einsum("bi,oi->bo", x, w), fixed(3, 5), (2, 5)),
    "einsum weights first": plain(lambda x, w: torch.einsum("hio,bi->bho", w, x), fixed(2, 5, 3), (2, 5)),
    "conv1d": conv(1, (2, 2, 6), (3, 2, 3), stride=2, padding=1),
    "conv2d": CONV,
    "conv2d without bias": conv(2, (2, 2, 4, 4), (3, 2, 2, 2), bias=False),
    "conv2d stride": conv(2, (1, 2, 5, 6), (3, 2, 3, 3), stride=(2, 3), padding=(1, 0)),
    "conv2d dilation": conv(2, (1, 2, 5, 5), (3, 2, 2, 2), dilation=(2, 3), padding=2),
    "conv2d groups": conv(2, (1, 4, 4, 4), (6, 2, 2, 2), groups=2),
    "conv2d depthwise": conv(2, (1, 3, 4, 4), (6, 1, 3, 3), groups=3, padding=1),
    "conv2d same": conv(2, (1, 2, 4, 4), (3, 2, 3, 3), padding="same"),
    "conv2d same, even": conv(2, (1, 2, 4, 5), (3, 2, 2, 4), padding="same"),
    "conv2d same, dilated": conv(2, (1, 2, 4, 5), (3, 2, 2, 3), padding="same", dilation=3),
    "conv2d valid": conv(2, (1, 2, 4, 4), (3, 2, 3, 2), padding="valid"),
    "conv2d of one sample": conv(2, (2, 4, 4), (3, 2, 3, 3), padding=1),
    "conv1d same of one sample": conv(1, (2, 6), (3, 2, 4), padding="same"),
    "conv2d rest": conv(2, (1, 1, 6, 6), (2, 1, 3, 3), stride=2),
    "conv3d": conv(3, (1, 2, 3, 3, 3), (2, 2, 2, 2, 2), padding=1, stride=2),
    "conv2d reflect": padded_conv("reflect"),
    "conv2d circular": padded_conv("circular"),
    "conv_transpose1d": transposed(1, (2, 2, 4), (2, 3, 3), stride=2, padding=1, output_padding=1),
    "conv_transpose2d": transposed(2, (1, 2, 3, 3), (2, 3, 3, 3), stride=2),
    "conv_transpose2d groups": transposed(2, (1, 4, 2, 3), (4, 2, 2, 2), groups=2, dilation=2, padding=1),
    "conv_transpose2d of one sample": transposed(2, (2, 3, 3), (2, 3, 2, 2)),
    "conv_transpose3d": transposed(3, (1, 2, 2, 2, 2), (2, 2, 2, 2, 2), stride=2, output_padding=1),
    "torch.convolution": Affine(
        lambda x, w, b: torch.convolution(x, w, b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
        fixed(3, 2, 3, 3), SHIFT, (1, 2, 4, 4),
    ),
    "conv + batch norm": folded(CONV, normed),
    "conv + two batch norms": folded(CONV, lambda z: normed(normed(z))),
    "conv1d + batch norm": folded(conv(1, (2, 2, 5), (3, 2, 2), bias=False), normed),
    "linear + batch norm": folded(LINEAR, normed),
    "conv_transpose groups + batch norm": folded(TRANSPOSED, normed),
    "conv * scale + shift": folded(CONV, lambda z: z * SCALE[:, None, None] + SHIFT[:, None, None]),
    "conv * scale + shift in place": folded(CONV, per_channel_in_place),
    "conv * scale of shape (1, C, 1, 1)": folded(CONV, lambda z: SCALE.reshape(1, 3, 1, 1) * z),
    "conv + scalar": folded(CONV, lambda z: z + 2),
    "scalar tensor * conv": folded(CONV, lambda z: torch.tensor(-0.5) * z),
    "conv / scale": folded(CONV, lambda z: z / SCALE[:, None, None]),
    "-conv": folded(CONV, lambda z: -z),
    "x @ K + b": folded(plain(lambda x, w: x @ w, fixed(5, 3), (2, 5)), lambda z: z + SHIFT),
    "b + x @ K": folded(plain(lambda x, w: x @ w, fixed(5, 3), (2, 2, 5)), lambda z: SHIFT + z),
    "linear.add_(b, alpha=2)": folded(LINEAR, lambda z: z.add_(SHIFT, alpha=2)),
    "1 - linear": folded(LINEAR, lambda z: 1 - z),
    "b - linear": folded(LINEAR, lambda z: torch.sub(SHIFT, z, alpha=0.5)),
    "rsub(linear, b)": folded(LINEAR, lambda z: torch.rsub(z, SHIFT, alpha=2)),
    "linear / 3": folded(LINEAR, lambda z: z / 3),
    "linear.div_(3).mul_(-2)": folded(LINEAR, lambda z: z.div_(3).mul_(-2)),
    "LayerScale": folded(LINEAR, lambda z: z * SCALE),
}  # fmt: skip

# The seed of relevance may stand at zero outputs nowhere; the inputs have zeros and, where asked for, one sign only.
RULES: dict[str, tuple[Rule, oracle.Rule]] = {
    "Zero": (Zero(), oracle.zero),
    "Epsilon": (Epsilon(1e-2), partial(oracle.epsilon, eps=1e-2)),
    "Epsilon distribute": (Epsilon(1e-2, bias="distribute"), partial(oracle.epsilon, eps=1e-2, bias="distribute")),
    "Gamma": (Gamma(0.25), partial(oracle.gamma, gamma=0.25)),
    "AlphaBeta(2, 1)": (AlphaBeta(2, 1), oracle.alpha_beta),
    "AlphaBeta(1, 0)": (AlphaBeta(1, 0), oracle.zplus),
    "ZPlus": (ZPlus(), oracle.zplus),
    "ZBox": (ZBox(-4.0, 5.0), partial(oracle.zbox, low=-4.0, high=5.0)),
    "WSquare": (WSquare(), partial(oracle.wsquare, bias=False)),
    "WSquare with bias": (WSquare(bias=True), oracle.wsquare),
    "Flat": (Flat(), oracle.flat),
}


@pytest.mark.parametrize("name", AFFINE)
def test_every_affine_operation_under_every_rule(name: str) -> None:
    case = AFFINE[name]
    form = case.dense()
    for x in (fixed(*case.shape, seed=19), fixed(*case.shape, seed=20).abs()):
        x.view(-1)[1] = 0.0
        y = case.model(x).detach()
        at_operation = case.before(x).flatten()
        moved = jacobian(case.before, x).T
        agree((form.weight @ at_operation + form.bias).reshape(y.shape), y)
        R = relevance_for(y)
        for ours, theirs in RULES.values():
            expected = (moved @ theirs(form, at_operation, R.flatten()).sum(0)).reshape(x.shape)
            try:
                agree(explained(case.model, x, R, everywhere(rule=ours)), expected)
            except AssertionError as error:
                raise AssertionError(f"{name} under {ours}: {error}") from error


def test_box_bounds_per_channel() -> None:
    low, high = torch.tensor([-3.0, -4.0])[:, None, None], torch.tensor([4.0, 5.0])[:, None, None]
    x = fixed(1, 2, 4, 4)
    R = relevance_for(CONV.model(x))
    expected = oracle.zbox(CONV.dense(), x.flatten(), R.flatten(), low=low[None], high=high[None])
    agree(explained(CONV.model, x, R, everywhere(rule=ZBox(low, high))), expected.sum(0).reshape(x.shape))


@pytest.mark.parametrize(
    "case", [Affine(F.linear, fixed(5, 5), fixed(5), (2, 5)), conv(2, (1, 2, 4, 4), (2, 2, 3, 3), padding=1)]
)
def test_pass_leaves_relevance_as_it_is(case: Affine) -> None:
    x = fixed(*case.shape)
    R = relevance_for(case.model(x))
    agree(explained(case.model, x, R, everywhere(rule=Pass())), R)


def test_a_batch_norm_over_another_axis_does_not_fold() -> None:
    """The channels of a linear layer on (batch, time, features) are the features; a batch norm counts time."""
    x = fixed(2, 3, 5)
    R = relevance_for(fixed(2, 3, 3))
    found = explained(lambda x: normed(F.linear(x, LINEAR.weight)), x, R, everywhere(rule=ZPlus()))
    z = F.linear(x, LINEAR.weight)
    scale = SCALE / (VAR3 + 1e-5).sqrt()
    passed_on = R * z * scale[:, None] / normed(z)
    form = plain(F.linear, LINEAR.weight, (2, 3, 5)).dense()
    agree(found, oracle.zplus(form, x.flatten(), passed_on.flatten()).sum(0).reshape(x.shape))


# ---- fused functions are the operations they consist of

M, V, BATCH = fixed(4, 4, seed=23), fixed(4, seed=24), fixed(2, 4, 4, seed=25)

FUSED: dict[str, tuple[Function, Function]] = {
    "addcmul of a constant": (lambda x: torch.addcmul(x, M, M, value=0.5), lambda x: x + 0.5 * (M * M)),
    "addcmul": (lambda x: x.addcmul(x.t(), x.exp(), value=2), lambda x: x + 2 * (x.t() * x.exp())),
    "addcmul by a gate": (lambda x: torch.addcmul(M, x.sigmoid(), x), lambda x: M + x.sigmoid() * x),
    "addcmul_": (lambda x: (1 * x).addcmul_(x, M), lambda x: x + x * M),
    "addcdiv": (lambda x: torch.addcdiv(x, x.t(), M), lambda x: x + x.t() / M),
    "addcdiv by a signal": (lambda x: torch.addcdiv(M, M, x), lambda x: M + M / x),
    "addcdiv_": (lambda x: (1 * x).addcdiv_(x, x.exp(), value=3), lambda x: x + 3 * (x / x.exp())),
    "lerp": (lambda x: torch.lerp(x, M, 0.3), lambda x: 0.7 * x + 0.3 * M),
    "lerp by a gate": (lambda x: x.lerp(x.t(), x.sigmoid()), lambda x: (1 - x.sigmoid()) * x + x.sigmoid() * x.t()),
    "lerp_": (lambda x: (1 * x).lerp_(x.t(), x.sigmoid()), lambda x: (1 - x.sigmoid()) * x + x.sigmoid() * x.t()),
    "addmv": (lambda x: torch.addmv(V, x, V, alpha=2), lambda x: V + 2 * (x @ V)),
    "addmv_": (lambda x: x[0].clone().addmv_(M, x[1]), lambda x: x[0] + M @ x[1]),
    "baddbmm": (lambda x: torch.baddbmm(BATCH, x.expand(2, 4, 4), BATCH), lambda x: BATCH + x.expand(2, 4, 4) @ BATCH),
    "baddbmm of two signals": (
        lambda x: torch.baddbmm(BATCH, x.expand(2, 4, 4), x.exp().expand(2, 4, 4), beta=0.5, alpha=0.1),
        lambda x: 0.5 * BATCH + 0.1 * (x.expand(2, 4, 4) @ x.exp().expand(2, 4, 4)),
    ),
    "baddbmm without": (
        lambda x: torch.baddbmm(BATCH * math.nan, x.expand(2, 4, 4), BATCH, beta=0), lambda x: x.expand(2, 4, 4) @ BATCH
    ),
    "addbmm": (lambda x: torch.addbmm(M, x.expand(2, 4, 4), BATCH), lambda x: (x.expand(2, 4, 4) @ BATCH).sum(0) + M),
    "addmm of two signals": (lambda x: torch.addmm(V, x, x.t()), lambda x: V + x @ x.t()),
}  # fmt: skip


@pytest.mark.parametrize("case", named(FUSED))
def test_a_fused_function_is_its_parts(case: tuple[Function, Function]) -> None:
    x = fixed(4, 4)
    whole, parts = case
    R = relevance_for(parts(x))
    rules = everywhere(1e-3, Gamma(0.3))
    agree(explained(whole, x, R, rules), explained(parts, x, R, rules), 1e-7)


# ---- what can't be shared is refused

REFUSED: dict[str, Function] = {
    "bilinear": lambda x: F.bilinear(x, x, fixed(2, 4, 4)),
    "bilinear of one signal": lambda x: F.bilinear(x, fixed(3, 4), fixed(2, 4, 4)),
    "cosine_similarity": lambda x: F.cosine_similarity(x[:1], x[1:]),
    "logsumexp": lambda x: x.logsumexp(1),
    "cumprod": lambda x: x.cumprod(1),
    "pow of two signals": lambda x: x.abs() ** x,
    "clamp between signals": lambda x: x.clamp(min=x.flip(0)),
    "clamp of a constant": lambda x: torch.clamp(A, min=x),
    "clamp to a larger shape": lambda x: x[:1].clamp(min=A),
    "fmod by a signal": lambda x: torch.fmod(A, x),
    "floor division of two signals": lambda x: x // x.flip(0),
    "atan2": lambda x: torch.atan2(x, A),
    "hypot": lambda x: torch.hypot(x, x.flip(0)),
    "a slope from the input": lambda x: F.prelu(x, x[0, :1]),
    "weights from the input": lambda x: F.linear(A, x, x[:, 0]),
    "convolution by the input": lambda x: F.conv1d(torch.ones(1, 4, 3), x[:, :, None]),
    "scatter multiply": lambda x: x.scatter(1, torch.zeros(3, 1, dtype=torch.long), 2.0, reduce="multiply"),
    "scatter_reduce prod": lambda x: x.scatter_reduce(1, torch.zeros(3, 4, dtype=torch.long), x, "prod"),
    "new_tensor": lambda x: x + x.new_tensor(x[0, 0]),
    "bits": lambda x: torch.cat([x, x.view(torch.float32).double()], 1),
    "random numbers": lambda x: x.sigmoid().bernoulli() + x,
    "angle": lambda x: torch.fft.rfft(x).angle(),
    "activation of complex numbers": lambda x: torch.complex(x, x).tanh().abs(),
    "out=": lambda x: torch.add(x, x, out=torch.empty(3, 4)),
    "a grid of its own": lambda x: F.grid_sample(torch.ones(1, 1, 3, 3), x[None, None, :, :2], align_corners=False),
    "einsum of three": lambda x: torch.einsum("ij,ij,ij->i", x, x, A),
    "loss": lambda x: F.mse_loss(x, A),
    "determinant": lambda x: torch.linalg.det(x[:, :3]),
}  # fmt: skip


@pytest.mark.parametrize("model", named(REFUSED))
def test_what_has_no_share_is_refused_by_name(model: Function) -> None:
    with pytest.raises(UnsupportedFunction, match=r"torch|Tensor"):
        relprop.explain(lambda x: torch.cat([model(x).flatten(), x.flatten()]), fixed(3, 4), target=lambda y: y[:3])


def test_a_grid_computed_from_the_input_counts_as_a_gate() -> None:
    x = fixed(*X)
    grid = x[:, :3, :, :2].tanh()
    R = relevance_for(F.grid_sample(x, grid, align_corners=False))
    J = jacobian(lambda t: F.grid_sample(t, grid, align_corners=False), x)
    y = F.grid_sample(x, grid, align_corners=False)
    s = (R / y.masked_fill(y == 0, 1)).flatten()
    found = explained(lambda x: F.grid_sample(x, x[:, :3, :, :2].tanh(), align_corners=False), x, R)
    agree(found, (x.flatten() * (J.T @ s)).reshape(x.shape))


def test_a_mask_from_a_comparison_in_place_keeps_the_models_value() -> None:
    x = fixed(3, 4)
    R = relevance_for(x * (x > 0))
    agree(explained(lambda x: x * x.clone().gt_(0.0), x, R), R)


# ---- the report accounts for all relevance

REPORTED: dict[str, tuple[Function, tuple[int, ...]]] = {
    **{name: (f, X) for name, f in {**SUMS, **SELECTIONS}.items()},
    **{name: (case.f, case.shape) for name, case in {**PRODUCTS, **NORMS}.items()},
    **{name: (case.model, case.shape) for name, case in AFFINE.items()},
}


@pytest.mark.parametrize("name", REPORTED)
def test_the_report_says_where_relevance_went(name: str) -> None:
    function, shape = REPORTED[name]
    if isinstance(function, nn.Module):
        function.eval()
    x = fixed(*shape)
    y = function(x.clone())
    if y.dim() == 0 or len(y) != len(x):
        return  # a report counts samples
    R = relevance_for(y)
    found = relprop.explain(function, x, seed=R, rules=everywhere(1e-2, Gamma(0.2))).conservation
    assert found.score == pytest.approx(float(R.sum()))
    assert found.difference == pytest.approx(sum(found.absorbed.values()), abs=1e-9)
    for operation in found.operations:
        assert operation.difference == pytest.approx(sum(operation.absorbed.values()), abs=1e-9)


# ---- the same functions under their aten names

ATEN: dict[str, tuple[Function, Function]] = {
    "view": (lambda x: aten.view.default(x, [6, 16]), lambda x: x.view(6, 16)),
    "permute": (lambda x: aten.permute.default(x, [0, 2, 1, 3]), lambda x: x.permute(0, 2, 1, 3)),
    "slice": (lambda x: aten.slice.Tensor(x, 2, 1, 3), lambda x: x[:, :, 1:3]),
    "select": (lambda x: aten.select.int(x, 1, 2), lambda x: x[:, 2]),
    "constant_pad_nd": (lambda x: aten.constant_pad_nd.default(x, [1, 1], 0.5), lambda x: F.pad(x, (1, 1), value=0.5)),
    "_to_copy": (lambda x: aten._to_copy.default(x, dtype=torch.float64), lambda x: x.clone()),
    "add": (lambda x: aten.add.Tensor(x, aten.flip.default(x, [0]), alpha=2), lambda x: x + 2 * x.flip(0)),
    "add_": (lambda x: aten.add_.Tensor(x, fixed(4)), lambda x: x + fixed(4)),
    "mean": (lambda x: aten.mean.dim(x, [2, 3], True), lambda x: x.mean((2, 3), True)),
    "_adaptive_avg_pool2d": (
        lambda x: aten._adaptive_avg_pool2d.default(x, [2, 2]),
        lambda x: F.adaptive_avg_pool2d(x, 2),
    ),
    "upsample": (
        lambda x: aten.upsample_bilinear2d.vec(x, [6, 6], False, None),
        lambda x: F.interpolate(x, (6, 6), mode="bilinear"),
    ),
    "max_pool2d_with_indices": (
        lambda x: aten.max_pool2d_with_indices.default(x, [2, 2], [2, 2])[0],
        lambda x: F.max_pool2d(x, 2),
    ),
    "relu_": (lambda x: aten.relu_.default(x), F.relu),
    "gelu": (lambda x: aten.gelu.default(x, approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "hardtanh": (lambda x: aten.hardtanh.default(x, 0.0, 6.0), F.relu6),
    "pow": (lambda x: aten.pow.Tensor_Scalar(x, 2), lambda x: x**2),
    "mul": (lambda x: aten.mul.Tensor(x, aten.sigmoid.default(x)), lambda x: x * x.sigmoid()),
    "div": (lambda x: aten.div.Tensor(x, aten.linalg_vector_norm.default(x)), lambda x: x / x.norm()),
    "mm": (lambda x: aten.mm.default(x[0, 0], fixed(4, 2)), lambda x: x[0, 0] @ fixed(4, 2)),
    "addmm": (
        lambda x: aten.addmm.default(fixed(2), x[0, 0], fixed(4, 2)),
        lambda x: F.linear(x[0, 0], fixed(4, 2).t(), fixed(2)),
    ),
    "bmm": (lambda x: aten.bmm.default(x[0], x[1]), lambda x: x[0] @ x[1]),
    "conv2d": (
        lambda x: aten.conv2d.default(x, fixed(2, 3, 3, 3), fixed(2), [1, 1], [1, 1]),
        lambda x: F.conv2d(x, fixed(2, 3, 3, 3), fixed(2), padding=1),
    ),
    "convolution": (
        lambda x: aten.convolution.default(x, fixed(2, 3, 3, 3), None, [2, 2], [0, 0], [1, 1], False, [0, 0], 1),
        lambda x: F.conv2d(x, fixed(2, 3, 3, 3), stride=2),
    ),
    "native_layer_norm": (
        lambda x: aten.native_layer_norm.default(x, [4], fixed(4), None, 1e-5)[0],
        lambda x: F.layer_norm(x, (4,), fixed(4)),
    ),
    "native_group_norm": (
        lambda x: aten.native_group_norm.default(x, None, None, 2, 3, 16, 3, 1e-5)[0],
        lambda x: F.group_norm(x, 3),
    ),
    "batch norm": (
        lambda x: aten._native_batch_norm_legit_no_training.default(x, SCALE, SHIFT, MEAN3, VAR3, 0.1, 1e-5)[0],
        normed,
    ),
    "_softmax": (lambda x: 1.0 * aten._softmax.default(x, 1, False), lambda x: 1.0 * x.softmax(1)),
}  # fmt: skip


@pytest.mark.parametrize("case", named(ATEN))
def test_aten_spellings_are_the_same_operations(case: tuple[Function, Function]) -> None:
    x = fixed(*X)
    spelled, usual = case
    y = usual(x)
    R = relevance_for(y)
    rules = everywhere(1e-3, Gamma(0.3))
    agree(relprop.explain(spelled, x, seed=R, rules=rules).relevance, explained(usual, x, R, rules))


class Many(nn.Module):
    """A network of many operations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding="same"), nn.BatchNorm2d(6)
        self.deconv, self.group = nn.ConvTranspose2d(6, 3, 2, stride=2), nn.GroupNorm(3, 3)
        self.head, self.ln, self.rms = nn.Linear(48, 8), nn.LayerNorm(8), nn.RMSNorm(8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm(self.conv(x)))
        y = y * torch.sigmoid(y.mean((2, 3), keepdim=True))
        y = F.max_pool2d(F.pad(y, (1, 1, 1, 1), mode="reflect"), 2)
        y = F.gelu(self.group(self.deconv(y[:, :, :2, :2])))
        y = torch.cat([F.interpolate(y, (2, 2), mode="bilinear"), F.adaptive_avg_pool2d(y, 2), y[:, :, ::2, 1::2]], 1)
        y = torch.cat([y.flatten(1), F.avg_pool2d(x, 2).flatten(1)], 1)
        y = F.silu(self.ln(self.head(y)))
        y = self.rms(y + F.normalize(y, dim=1)) + F.glu(torch.cat([y, y**2], 1))
        return self.out(F.elu(y, inplace=True))


@pytest.mark.parametrize("decomposed", [False, True])
def test_an_exported_program_is_explained_like_its_model(decomposed: bool) -> None:
    model = Many().eval()
    model.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    x = fixed(2, 3, 4, 4)
    program = torch.export.export(model, (x,))
    if decomposed:
        program = program.run_decompositions()
    exported = program.module()
    rules = everywhere(rule=Gamma(0.25))  # an rms_norm taken apart has no stabiliser
    agree(relprop.explain(exported, x, 1, rules=rules).relevance, relprop.explain(model, x, 1, rules=rules).relevance)


# ---- the tables


def spellings() -> set[str]:
    """The names, as the registry has them, of everything that torch can call."""
    homes = (torch, torch.Tensor, F, torch._C._nn, torch.special, torch.linalg, torch.fft, torch._VF)
    found = set()
    for home in homes:
        for name in dir(home):
            candidate = getattr(home, name, None)
            if callable(candidate) and not isinstance(candidate, type):
                found.add(functions.identify(candidate)[0])
    found |= {f"get {name}" for name in dir(torch.Tensor)}
    operators = torch._C._dispatch_get_all_op_names()
    return found | {op.removeprefix("aten::").split(".")[0] for op in operators if op.startswith("aten::")}


def test_every_registered_name_is_a_function_of_torch() -> None:
    younger_than_2_4 = {"_upsample_lanczos2d_aa"}
    assert set(REGISTRY) - spellings() <= younger_than_2_4


def arguments() -> dict[str, Callable[[Callable[..., Any], Tensor], Any]]:
    """Ways to call a function on x (2, 3, 4, 4), by what they look like."""
    c = fixed(*X, seed=21).abs() + 0.5
    places, mask = PLACES.clamp(max=1), MASK
    v = partial(fixed, seed=22)
    return {
        "(x)": lambda f, x: f(x),
        "(x, 2)": lambda f, x: f(x, 2),
        "(x, 0.7)": lambda f, x: f(x, 0.7),
        "(x, 1, 2)": lambda f, x: f(x, 1, 2),
        "(x, .2, .8)": lambda f, x: f(x, 0.2, 0.8),
        "(x, dim)": lambda f, x: f(x, dim=1),
        "(x, (3, 4))": lambda f, x: f(x, (3, 4)),
        "(x, [4])": lambda f, x: f(x, [4]),
        "(x, dims, dims)": lambda f, x: f(x, (0, 1), (1, 0)),
        "(x, c)": lambda f, x: f(x, c),
        "(c, x)": lambda f, x: f(c, x),
        "(2.0, x)": lambda f, x: f(2.0, x),
        "(x, y)": lambda f, x: f(x, x * x),
        "(x, y, c)": lambda f, x: f(x, x * x, c),
        "(c, c, x)": lambda f, x: f(c, c, x),
        "(x, y, z)": lambda f, x: f(x, x * x, x * 3),
        "([x, y])": lambda f, x: f([x, x * x]),
        "(x, 0, index)": lambda f, x: f(x, 0, torch.tensor([1, 0])),
        "(x, 1, places)": lambda f, x: f(x, 1, places),
        "(x, mask, y)": lambda f, x: f(x, mask, x * x),
        "(x, 1, places, y)": lambda f, x: f(x, 1, places, x * x),
        "(x, 0, index, y)": lambda f, x: f(x, 0, torch.tensor([1, 0]), x * x),
        "(x, (index,), y)": lambda f, x: f(x, (torch.tensor([1, 0]),), x * x),
        "matrix": lambda f, x: f(x[0, 0]),
        "two matrices": lambda f, x: f(x[0, 0], x[1, 1]),
        "matrix and weights": lambda f, x: f(x[0, 0], v(4, 4)),
        "weights and matrix": lambda f, x: f(v(4, 4), x[0, 0]),
        "weights and vector": lambda f, x: f(v(4, 4), x[0, 0, 0]),
        "two vectors": lambda f, x: f(x[0, 0, 0], x[1, 0, 0]),
        "three matrices": lambda f, x: f(x[0, 0], x[0, 1], x[1, 0]),
        "constant plus batched product": lambda f, x: f(v(3, 4, 4), x[0], v(3, 4, 4)),
        "constant plus matrix product": lambda f, x: f(v(4, 4), x[0, 0], v(4, 4)),
        "convolution": lambda f, x: f(x, v(3, 3, 2, 2)),
        "batch norm": lambda f, x: f(x, v(3), v(3).abs(), v(3), v(3), False, 0.1, 1e-5, False),
        "group norm": lambda f, x: f(x, 3, v(3), v(3)),
        "grid": lambda f, x: f(x, x[:, :, :, :2].tanh()),
        "einsum": lambda f, x: f("bchw,wk->bchk", x, v(4, 5)),
        "type": lambda f, x: f(x, torch.float64),
    }  # fmt: skip


LEFT_OUT = (
    "quantize", "mkldnn", "cudnn", "miopen", "fbgemm", "sparse", "cuda", "dlpack", "resize", "apply", "backward",
    "share_memory", "pin_memory", "record_stream", "storage", "module_load",
)  # fmt: skip


def overridable() -> dict[str, Callable[..., Any]]:
    """Functions that torch lets others intercept, one of each name, without those that reach out of the model."""
    found: dict[str, Callable[..., Any]] = {}
    for listed in torch.overrides.get_overridable_functions().values():
        for function in listed:
            name, inplace = functions.identify(function)
            if inplace or name.startswith(("_", "get ", "set ")) or any(word in name for word in LEFT_OUT):
                continue
            found.setdefault(name, function)
    return found


# What may depend on the input and give it no relevance: a new tensor of whatever is in memory.
WITHOUT_VALUES = {"empty_like", "new_empty", "new_empty_strided"}
# Errors of torch's own that a call that works without gradients may meet.
TORCH_ERRORS = ("not differentiable", "takes 3 positional arguments", "0D", "index 0 - got")


def outcome(function: Callable[..., Any], way: Callable[..., Any]) -> set[str]:
    """What comes of explaining each floating-point result: "loud", "relevance", "lost", or nothing if it is no call."""
    x = fixed(*X).abs() + 0.25
    try:
        results, again = floats(way(function, x.clone())), floats(way(function, x.clone()))
        others = floats(way(function, x * 1.1 + 0.05))
    except Exception:
        return set()
    if not len(results) == len(again) == len(others):
        return set()
    outcomes = set()
    for i, (y, other) in enumerate(zip(results, others, strict=True)):
        random = not torch.equal(y, again[i])
        if random or y.shape != other.shape or torch.equal(y, other) or not torch.isfinite(y).all():
            continue

        def model(x: Tensor, i: int = i) -> Tensor:
            return torch.cat([floats(way(function, x))[i].reshape(-1), x.reshape(-1)])

        R = torch.cat([(y * (fixed(*y.shape) + 2)).reshape(-1), torch.zeros(x.numel())])
        try:
            relevance = relprop.explain(model, x, seed=R, rules=everywhere()).relevance
        except RelpropError:
            outcomes.add("loud")
        except Exception as error:
            known = any(text in str(error) for text in TORCH_ERRORS)
            outcomes.add("loud" if known else f"{type(error).__name__}: {error}")
        else:
            outcomes.add("relevance" if torch.isfinite(relevance).all() and relevance.any() else "lost")
    return outcomes


def floats(value: Any) -> list[Tensor]:
    return [t for t in tensors_in(value) if t.dtype == torch.float64 and t.numel() and t.layout == torch.strided]


@pytest.mark.filterwarnings("ignore")
def test_no_function_loses_relevance_silently() -> None:
    """Every function that torch lets us see, called in many ways: an error, or relevance."""
    explained_by_name: dict[str, set[str]] = {}
    problems = []
    for name, function in overridable().items():
        for look, way in arguments().items():
            found = outcome(function, way)
            explained_by_name.setdefault(name, set()).update(found)
            bad = {o for o in found if o not in ("loud", "relevance")}
            if bad and name not in WITHOUT_VALUES:
                problems.append(f"{name}{look}: {', '.join(sorted(bad))}")
    assert not problems, "\n".join(problems)
    called = [name for name, found in explained_by_name.items() if found]
    assert len(called) > 300, "too few functions could be called for this test to say anything"


# ---- functions that nobody has described


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"act": Bessel()})
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.block["act"](x))
        return y


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j1(x)


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def test_an_unknown_function_is_named_with_its_module_and_the_line_that_registers_it() -> None:
    with pytest.raises(UnsupportedFunction) as raised:
        relprop.explain(Unknown().eval(), fixed(2, 4), 0)
    message = str(raised.value)
    assert "bessel_j1" in message
    assert "'block.act'" in message
    assert 'relprop.register("bessel_j1", kind=...)' in message


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", [torch.special.bessel_j1, "bessel_j1", "torch.special.bessel_j1"])
def test_registering_a_function_makes_it_work(name: Any) -> None:
    relprop.register(name, kind="activation")
    model = Unknown().eval()
    x = fixed(2, 4)
    a = torch.special.bessel_j1(x)
    expected = relprop.explain(model.head, a, 0, rules="epsilon").relevance
    agree(relprop.explain(model, x, 0, rules="epsilon").relevance, expected)


def test_registering_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RelpropError, match="activation"):
        relprop.register("bessel_j1", kind="activtion")
