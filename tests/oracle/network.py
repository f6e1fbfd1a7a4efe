"""Whole networks as data: a list of nodes in the order they run, and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """One operation: what it does (a key of FUNCTIONS, or "input"), on which earlier nodes.

    options and tensors are the keyword arguments of its function, tensors in float64; normalisers need "eps".
    module names the submodule that holds its parameters ("n3" for node 3 unless given); nodes of one name share it.
    style says how `as_module` writes it, where the operation has that form: "module", "functional", "inplace" or, for
    relu, "inplace_module".
    """

    op: str
    inputs: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    module: str | None = None
    style: str = "module"


@dataclass(frozen=True)
class Network:
    """Nodes in the order they run, the inputs ("input" nodes) first; the last node is the output."""

    nodes: tuple[Node, ...]

    @property
    def inputs(self) -> list[int]:
        return [index for index, node in enumerate(self.nodes) if node.op == "input"]

    def name(self, index: int) -> str:
        """The submodule's name in `as_module(network)`."""
        return self.nodes[index].module or f"n{index}"

    def consumers(self, index: int) -> list[int]:
        """The nodes that use this one, once for each use."""
        return [user for user, node in enumerate(self.nodes) for source in node.inputs if source == index]


AFFINE: dict[str, Callable[..., Tensor]] = {
    "linear": F.linear,
    "conv1d": F.conv1d,
    "conv2d": F.conv2d,
    "conv3d": F.conv3d,
    "conv_transpose1d": F.conv_transpose1d,
    "conv_transpose2d": F.conv_transpose2d,
    "conv_transpose3d": F.conv_transpose3d,
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
}

SUMS: dict[str, Callable[..., Tensor]] = {
    "add": lambda *x: sum(x[1:], x[0]),
    "sub": lambda x, y: x - y,
    "add_constant": lambda x, *, constant: x + constant,
    "constant_minus": lambda x, *, constant: constant - x,
    "sum": torch.sum,
    "mean": torch.mean,
    "cumsum": torch.cumsum,
    "avg_pool1d": F.avg_pool1d,
    "avg_pool2d": F.avg_pool2d,
    "avg_pool3d": F.avg_pool3d,
    "adaptive_avg_pool1d": F.adaptive_avg_pool1d,
    "adaptive_avg_pool2d": F.adaptive_avg_pool2d,
    "interpolate": F.interpolate,
}

CARRIERS: dict[str, Callable[..., Tensor]] = {
    "cat": lambda *x, dim: torch.cat(x, dim),
    "flatten": lambda x: x.flatten(1),
    "reshape": lambda x, *, shape: x.reshape(len(x), *shape),
    "slice": lambda x, *, dim, start, stop: x.narrow(dim, start, stop - start),
    "pad": F.pad,
    "permute": lambda x, *, dims: x.permute(dims),
}

POOLS: dict[str, Callable[..., Any]] = {
    "max_pool1d": F.max_pool1d,
    "max_pool2d": F.max_pool2d,
    "max_pool3d": F.max_pool3d,
}

BATCH_NORMS: dict[str, Callable[..., Tensor]] = {
    "batch_norm1d": F.batch_norm,
    "batch_norm2d": F.batch_norm,
    "batch_norm3d": F.batch_norm,
}

NORMALISERS: dict[str, Callable[..., Tensor]] = {
    **BATCH_NORMS,
    "layer_norm": F.layer_norm,
    "group_norm": F.group_norm,
    "rms_norm": F.rms_norm,
}

PRODUCTS: dict[str, Callable[..., Tensor]] = {
    "mul": lambda x, y: x * y,
    "mul_constant": lambda x, *, constant: x * constant,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **AFFINE, **ACTIVATIONS, **SUMS, **CARRIERS, **POOLS, **NORMALISERS, **PRODUCTS
}  # fmt: skip


def run(node: Node, *x: Tensor) -> Tensor:
    """The node's value for its inputs' values, batch first."""
    result: Tensor = FUNCTIONS[node.op](*x, **node.options, **node.tensors)
    return result


def values(network: Network, *inputs: Tensor) -> list[Tensor]:
    """The value of every node, batch first."""
    given = iter(inputs)
    found: list[Tensor] = []
    for node in network.nodes:
        found.append(next(given) if node.op == "input" else run(node, *(found[i] for i in node.inputs)))
    return found
