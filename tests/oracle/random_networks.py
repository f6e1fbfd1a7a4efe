"""Small random networks, drawn by hypothesis, with the rules to explain them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from .backward import RuleMap, first_affine, is_gate
from .network import AFFINE, BATCH_NORMS, Network, Node, run
from .rules import NAMED

LARGEST = 200
"""The most elements a tensor of one sample may have."""

UNSAVED = (*AFFINE, *BATCH_NORMS, "add", "sub", "add_constant", "mul_constant", "cat")
"""Operations whose output autograd does not keep, so that the next one may overwrite it."""


class Case(NamedTuple):
    """A network and its inputs, a batch of two each, float64."""

    network: Network
    inputs: list[Tensor]


class RuleSpec(NamedTuple):
    """A rule by its name in `rules.NAMED` and its options."""

    name: str
    options: dict[str, Any]


@dataclass
class Builder:
    """Nodes added one by one; shapes are those of one sample."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    generator: torch.Generator
    bias: bool
    nodes: list[Node] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def input(self, *shape: int) -> int:
        self.nodes.append(Node("input"))
        self.shapes.append(shape)
        return len(self.nodes) - 1

    def add(self, op: str, *inputs: int, tensors: Mapping[str, Tensor] | None = None, **options: Any) -> int:
        """The new node's index; its shape is found by running it on zeros."""
        return self.append(Node(op, inputs, options, tensors or {}))

    def append(self, node: Node) -> int:
        zeros = [torch.zeros(1, *self.shapes[i], dtype=torch.float64) for i in node.inputs]
        self.nodes.append(node)
        self.shapes.append(tuple(run(node, *zeros).shape[1:]))
        return len(self.nodes) - 1

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def signed(self, *shape: int) -> Tensor:
        """Magnitudes from 0.5 to 1.5, one in four negative."""
        return self.between(0.5, 1.5, *shape) * torch.where(self.between(0, 1, *shape) < 0.25, -1.0, 1.0)

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def weights(self, *shape: int, fan_in: int, out: int) -> dict[str, Tensor]:
        tensors = {"weight": self.normal(*shape, scale=fan_in**-0.5)}
        if self.bias and self.draw(st.booleans()):
            tensors["bias"] = self.normal(out, scale=0.3)
        return tensors

    def signals(self) -> list[int]:
        """Every node but gates: a sigmoid of zero is not zero, so as a signal it would make relevance from nothing."""
        return [k for k in range(len(self.nodes)) if not is_gate(Network(tuple(self.nodes)), k)]

    def same_shape(self, i: int) -> list[int]:
        return [k for k in self.signals() if self.shapes[k] == self.shapes[i]]

    def spatial(self, i: int) -> int:
        """The number of dimensions behind the channels."""
        return len(self.shapes[i]) - 1


# Each step adds nodes behind node i and returns the last one; None where it does not fit there.


def linear(b: Builder, i: int) -> int | None:
    features, out = b.shapes[i][-1], b.pick(range(2, 7))
    return b.add("linear", i, tensors=b.weights(out, features, fan_in=features, out=out))


def conv(b: Builder, i: int) -> int | None:
    d, channels = b.spatial(i), b.shapes[i][0]
    if d == 0:
        return linear(b, i)
    groups = b.pick([g for g in (1, 1, 2, channels) if channels % g == 0])
    out = groups * b.pick(range(1, 1 + max(1, 4 // groups)))
    kernel, stride, padding, dilation = b.pick([1, 2, 3]), b.pick([1, 1, 2]), b.pick([0, 1]), b.pick([1, 1, 2])
    sizes = [(n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in b.shapes[i][1:]]
    if min(sizes) < 1 or out * torch.Size(sizes).numel() > LARGEST:
        return None
    shape = (out, channels // groups, *[kernel] * d)
    tensors = b.weights(*shape, fan_in=channels // groups * kernel**d, out=out)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return b.add(f"conv{d}d", i, tensors=tensors, **options)


def conv_transpose(b: Builder, i: int) -> int | None:
    d, channels = b.spatial(i), b.shapes[i][0]
    groups = b.pick([g for g in (1, 1, 2) if channels % g == 0])
    out, kernel, stride, padding = groups * b.pick([1, 2]), b.pick([2, 3]), b.pick([1, 2]), b.pick([0, 1])
    sizes = [(n - 1) * stride - 2 * padding + kernel for n in b.shapes[i][1:]]
    if d == 0 or min(sizes) < 1 or out * torch.Size(sizes).numel() > LARGEST:
        return None
    shape = (channels, out // groups, *[kernel] * d)
    tensors = b.weights(*shape, fan_in=channels // groups * kernel**d // stride**d, out=out)
    return b.add(f"conv_transpose{d}d", i, tensors=tensors, stride=stride, padding=padding, groups=groups)


def batch_norm(b: Builder, i: int) -> int:
    channels = b.shapes[i][0]
    shift = 0.3 if b.bias else 0.0
    tensors = {
        "running_mean": b.normal(channels, scale=shift),
        "running_var": b.between(0.5, 2.0, channels),
    }
    if b.draw(st.booleans()):
        tensors |= {"weight": b.signed(channels), "bias": b.normal(channels, scale=shift)}
    return b.add(f"batch_norm{max(1, b.spatial(i))}d", i, tensors=tensors, eps=1e-5)


def conv_batch_norm(b: Builder, i: int) -> int | None:
    """A convolution (or linear layer), then what folds into it, up to three times."""
    last = conv(b, i)
    for _ in range(b.pick([1, 1, 2, 3])):
        if last is not None:
            last = b.pick([batch_norm, batch_norm, scale_channels, shift_channels])(b, last)
    return last


def residual_block(b: Builder, i: int) -> int | None:
    """x + f(x) of two 3 x 3 convolutions (two linear layers) with a ReLU between, each with what folds into it."""
    last, channels, d = i, b.shapes[i][0], b.spatial(i)
    for k in range(2):
        shape, fan_in = (channels, channels, *[3] * d), channels * 3**d
        tensors = b.weights(*shape, fan_in=fan_in, out=channels)
        options = {"padding": 1} if d else {}
        last = b.add(f"conv{d}d" if d else "linear", last, tensors=tensors, **options)
        if b.draw(st.booleans()):
            last = batch_norm(b, last)
        if k == 0:
            last = b.add("relu", last)
    return b.add("relu", b.add("add", *b.pick([(last, i), (i, last)])))


def channel_shape(b: Builder, i: int) -> tuple[int, ...]:
    """What broadcasts one number per channel; an empty shape, a scalar, now and then."""
    return b.pick([(), *[(b.shapes[i][0], *[1] * b.spatial(i))] * 2])


def scale_channels(b: Builder, i: int) -> int | None:
    return b.add("mul_constant", i, tensors={"constant": b.signed(*channel_shape(b, i))})


def shift_channels(b: Builder, i: int) -> int | None:
    if not b.bias:
        return None
    return b.add("add_constant", i, tensors={"constant": b.normal(*channel_shape(b, i), scale=0.5)})


def scale_everywhere(b: Builder, i: int) -> int | None:
    return b.add("mul_constant", i, tensors={"constant": b.signed(*b.shapes[i])})


def shift_everywhere(b: Builder, i: int) -> int | None:
    if not b.bias:
        return None
    return b.add("add_constant", i, tensors={"constant": b.normal(*b.shapes[i], scale=0.5)})


def piecewise_activation(b: Builder, i: int) -> int | None:
    return b.add(b.pick(["relu", "relu", "leaky_relu"]), i)


def smooth_activation(b: Builder, i: int) -> int | None:
    return b.add(b.pick(["tanh", "gelu", "silu", "elu"]), i)


def pool(b: Builder, i: int) -> int | None:
    d = b.spatial(i)
    if d == 0 or min(b.shapes[i][1:]) < 2:
        return None
    op, padding = b.pick([f"avg_pool{d}d", f"max_pool{d}d"]), b.pick([0, 0, 1])
    return b.add(op, i, kernel_size=2, stride=b.pick([1, 2]), padding=padding)


def resize(b: Builder, i: int) -> int | None:
    d = b.spatial(i)
    if d not in (1, 2):
        return None
    if b.draw(st.booleans()):
        return b.add(f"adaptive_avg_pool{d}d", i, output_size=b.pick([1, 2, 3]))
    if torch.Size(b.shapes[i]).numel() * 2**d > LARGEST:
        return None
    mode = b.pick(["nearest", {1: "linear", 2: "bilinear"}[d]])
    options = {} if mode == "nearest" else {"align_corners": False}
    return b.add("interpolate", i, scale_factor=2, mode=mode, **options)


def add(b: Builder, i: int) -> int | None:
    """A sum or difference with any node of the same shape, also with itself (sums only)."""
    other = b.pick(b.same_shape(i))
    first, second = b.pick([(i, other), (other, i)])
    op = b.pick(["add", "add", "add", "sub"])
    return b.add("add" if i == other else op, first, second)


def cat(b: Builder, i: int) -> int | None:
    other = b.pick([k for k in b.signals() if b.spatial(k) == b.spatial(i) and b.shapes[k][1:] == b.shapes[i][1:]])
    if (b.shapes[i][0] + b.shapes[other][0]) * torch.Size(b.shapes[i][1:]).numel() > LARGEST:
        return None
    return b.add("cat", *b.pick([(i, other), (other, i)]), dim=1)


def move(b: Builder, i: int) -> int | None:
    """A slice of the channels, a border of zeros, or a transposition."""
    kind, d = b.pick(["slice", "pad", "permute"]), b.spatial(i)
    if kind == "slice" and b.shapes[i][0] > 1:
        start = b.pick(range(b.shapes[i][0] - 1))
        return b.add("slice", i, dim=1, start=start, stop=b.pick(range(start + 1, b.shapes[i][0] + 1)))
    if kind == "pad" and d and torch.Size([n + 1 for n in b.shapes[i]]).numel() <= LARGEST:
        return b.add("pad", i, pad=(1, 0))
    if kind == "permute" and d >= 2:
        return b.add("permute", i, dims=(0, 1, *range(d + 1, 1, -1)))
    return None


def running_sum(b: Builder, i: int) -> int | None:
    return b.add("mul_constant", b.add("cumsum", i, dim=-1), tensors={"constant": torch.tensor(0.5).double()})


def add_mean(b: Builder, i: int) -> int | None:
    """x + its mean over space (over the features of a flat node), broadcast."""
    dims = tuple(range(2, 2 + b.spatial(i))) or (1,)
    return b.add("add", i, b.add(b.pick(["mean", "mean", "sum"]), i, dim=dims, keepdim=True))


def gate(b: Builder, i: int) -> int | None:
    """x * sigmoid(something of the same shape), or squeeze and excitation."""
    if b.spatial(i) and b.draw(st.booleans()):
        means = b.add("mean", i, dim=tuple(range(2, 2 + b.spatial(i))))
        channels = b.shapes[i][0]
        logits = b.add("linear", means, tensors=b.weights(channels, channels, fan_in=channels, out=channels))
        open_ = b.add("reshape", b.add("sigmoid", logits), shape=(channels, *[1] * b.spatial(i)))
    else:
        open_ = b.add("sigmoid", b.pick(b.same_shape(i)))
        if b.draw(st.booleans()):
            open_ = b.add("constant_minus", open_, tensors={"constant": torch.tensor(1.0).double()})
    return b.add("mul", *b.pick([(open_, i), (i, open_)]))


def product(b: Builder, i: int) -> int | None:
    return b.add("mul", i, b.pick(b.same_shape(i)))


def normalise(b: Builder, i: int) -> int | None:
    """A layer, group or RMS norm of more than two elements."""
    size, shift = b.shapes[i][-1], 0.3 if b.bias else 0.0
    op = b.pick(["layer_norm", "rms_norm", "group_norm"])
    if op == "group_norm" and b.spatial(i) and torch.Size(b.shapes[i][1:]).numel() > 2:
        channels = b.shapes[i][0]
        tensors = {"weight": b.signed(channels), "bias": b.normal(channels, scale=shift)}
        return b.add(op, i, tensors=tensors, num_groups=b.pick([1, channels]), eps=1e-5)
    if op == "group_norm" or size < 3:
        return None
    tensors = {"weight": b.signed(size)}
    if op == "layer_norm":
        tensors["bias"] = b.normal(size, scale=shift)
    return b.add(op, i, tensors=tensors, normalized_shape=(size,), eps=1e-5)


def reuse(b: Builder, i: int) -> int | None:
    """The module of an earlier affine node, applied once more."""
    twins = [k for k, node in enumerate(b.nodes) if node.op in AFFINE and b.shapes[node.inputs[0]] == b.shapes[i]]
    if not twins:
        return None
    k = b.pick(twins)
    twin = b.nodes[k]
    name = twin.module or f"n{k}"
    return b.append(Node(twin.op, (i,), twin.options, twin.tensors, name))


LINEAR_STEPS = [
    conv, conv, conv, conv_batch_norm, conv_batch_norm, conv_batch_norm, residual_block, residual_block, conv_transpose,
    batch_norm, piecewise_activation, piecewise_activation, piecewise_activation, pool, pool, resize, add, add, cat,
    move, running_sum, add_mean, scale_channels, shift_channels, scale_everywhere, shift_everywhere, reuse, reuse,
]  # fmt: skip
"""Steps that keep the network piecewise linear."""

OTHER_STEPS = [smooth_activation, gate, gate, product, normalise]


SPACES: dict[int, list[tuple[int, ...]]] = {0: [()], 1: [(6,), (9,)], 2: [(4, 4), (5, 6)], 3: [(3, 3, 3)]}
"""The spatial sizes of an input, by their number."""


@st.composite
def networks(
    draw: Any, *, bias: bool | None = None, piecewise_linear: bool = False, most_steps: int = 8, inplace: bool = True
) -> Case:
    """A random network with a linear head to three classes, and inputs for it.

    bias=False leaves out everything that adds a constant, bias=None decides by a draw. A piecewise linear network has
    no gates, products, smooth activations or normalisers that depend on the sample, so that LRP-0 is gradient x input.
    inplace=False keeps out functions that overwrite their input.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    b = Builder(draw, generator, draw(st.booleans()) if bias is None else bias)
    d = b.pick([2, 2, 2, 2, 0, 0, 1, 3])
    channels = b.pick([1, 2, 3]) if d else b.pick(range(3, 9))
    shape = (channels, *b.pick(SPACES[d]))
    starts = [b.input(*shape) for _ in range(b.pick([1, 1, 1, 2]))]
    steps = LINEAR_STEPS if piecewise_linear else LINEAR_STEPS + OTHER_STEPS
    for _ in range(draw(st.integers(2, most_steps))):
        latest = b.signals()[-1]
        b.pick(steps)(b, b.pick([latest, latest, latest, *b.signals()]))
    head(b)
    network = styled(draw, Network(tuple(b.nodes)), b.shapes, inplace)
    x = [b.normal(2, *b.shapes[i]) for i in starts]
    return Case(network, [t.abs() for t in x] if draw(st.booleans()) else x)


def head(b: Builder) -> None:
    """Three class scores from every node that nothing uses yet."""
    used = {source for node in b.nodes for source in node.inputs}
    flat = []
    for i in [i for i in range(len(b.nodes)) if i not in used]:
        if b.spatial(i) and b.draw(st.booleans()):
            i = b.add("mean", i, dim=tuple(range(2, 2 + b.spatial(i))))
        flat.append(b.add("flatten", i) if b.spatial(i) else i)
    features = flat[0] if len(flat) == 1 else b.add("cat", *flat, dim=1)
    size = b.shapes[features][0]
    b.add("linear", features, tensors=b.weights(3, size, fan_in=size, out=3))


def styled(draw: Any, network: Network, shapes: list[tuple[int, ...]], inplace: bool) -> Network:
    """The network with some nodes written as functions, and in every second network what may be in place so."""
    nodes = []
    overwriting = inplace and draw(st.booleans())
    for index, node in enumerate(network.nodes):
        styles = ["module", "functional"] if node.module is None and not shared(network, index) else ["module"]
        if overwriting and may_overwrite(network, index, shapes):
            styles = ["inplace", "inplace_module"] if node.op == "relu" else ["inplace"]
        style = draw(st.sampled_from(styles))
        nodes.append(Node(node.op, node.inputs, node.options, node.tensors, node.module, style))
    return Network(tuple(nodes))


def shared(network: Network, index: int) -> bool:
    """Whether another node uses this node's module."""
    return any(node.module == f"n{index}" for node in network.nodes)


def may_overwrite(network: Network, index: int, shapes: list[tuple[int, ...]]) -> bool:
    """Whether the node's first input is of no use to any other node, nor to autograd."""
    node = network.nodes[index]
    if node.op not in ("relu", "add", "sub", "mul_constant", "add_constant"):
        return False
    first = node.inputs[0]
    return network.consumers(first) == [index] and network.nodes[first].op in UNSAVED and shapes[first] == shapes[index]


@st.composite
def rule_specs(draw: Any, *, for_input: bool) -> RuleSpec:
    """A random rule; those whose shares are not proportional to the values only where for_input is True."""
    eps = draw(st.sampled_from([1e-6, 1e-2, 0.3]))
    signed = [
        RuleSpec("zero", {}),
        RuleSpec("epsilon", {"eps": eps}),
        RuleSpec("gamma", {"gamma": draw(st.sampled_from([0.25, 1.0])), "eps": eps}),
        RuleSpec("alpha_beta", {"alpha": 2.0, "beta": 1.0, "eps": eps}),
        RuleSpec("zplus", {"eps": eps}),
    ]
    others = [
        RuleSpec("epsilon", {"eps": eps, "bias": "distribute"}),
        RuleSpec("zbox", {"low": -4.0, "high": 5.0, "eps": eps}),
        RuleSpec("wsquare", {"bias": draw(st.booleans()), "eps": eps}),
        RuleSpec("flat", {"eps": eps}),
    ]
    return draw(st.sampled_from(signed + others if for_input else signed))


@st.composite
def rules_by_module(draw: Any, network: Network, *, hidden: bool = False) -> dict[str, RuleSpec]:
    """A rule for every module of an affine node, by the module's name in `as_module`.

    Rules whose shares are not proportional to the values come at the first affine nodes only, unless hidden is True.
    """
    first = {network.name(i) for i in first_affine(network)}
    names = dict.fromkeys(network.name(i) for i, node in enumerate(network.nodes) if node.op in AFFINE)
    return {name: draw(rule_specs(for_input=hidden or name in first)) for name in names}


def rule_map(network: Network, specs: Mapping[str, RuleSpec]) -> RuleMap:
    """What `relevance` takes as rules."""

    def choose(index: int, node: Node) -> Callable[..., Tensor]:
        spec = specs[network.name(index)]
        return partial(NAMED[spec.name], **spec.options)

    return choose
