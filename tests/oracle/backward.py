"""Relevance of a whole network by explicit messages: R (never R / value), node by node, in float64.

What each kind of node sends to its inputs:

    affine      what its rule says, on its dense matrix; an eval-mode batch norm, and a multiplication or addition of
                per-channel constants, that directly follows an affine node is one affine operation with it; linear
                nodes that are added up are one, too, on the inputs of both
    activation  R unchanged
    sum         each summand's share x_i c_ij / (sum_j + eps s(sum_j)); constants keep theirs
    product     a sigmoid gate gets nothing, the signal all; two signals get half each; constants get nothing
    normaliser  the statistics are constants, the remaining linear map shares as a sum
    selection   all to the winner
    carrier     R moves with the values
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dense import Dense, dense, jacobian
from .network import (
    ACTIVATIONS,
    AFFINE,
    BATCH_NORMS,
    CARRIERS,
    FUNCTIONS,
    NORMALISERS,
    POOLS,
    SUMS,
    Network,
    Node,
    run,
    values,
)
from .rules import Rule, share

RuleMap = Callable[[int, Node], Rule]


def relevance(
    network: Network,
    inputs: Tensor | Sequence[Tensor],
    rules: RuleMap,
    *,
    target: int | Sequence[int] | None = None,
    seed: Tensor | None = None,
    sum_eps: float = 0.0,
    normaliser_eps: float = 0.0,
) -> list[Tensor]:
    """The relevance of each input node, shaped like the inputs, batch first.

    rules(index, node) gives the rule of an affine node (for a folded chain: of the affine node it starts with).
    target is a class of a (batch, classes) output, one or one per sample, whose score is redistributed; seed instead is
    the relevance to start from, shaped like the output.
    """
    found = relevances(network, inputs, rules, target=target, seed=seed, sum_eps=sum_eps, normaliser_eps=normaliser_eps)
    return [found[index] for index in network.inputs]


def relevances(
    network: Network,
    inputs: Tensor | Sequence[Tensor],
    rules: RuleMap,
    *,
    target: int | Sequence[int] | None = None,
    seed: Tensor | None = None,
    sum_eps: float = 0.0,
    normaliser_eps: float = 0.0,
) -> list[Tensor]:
    """The relevance at every node's output, as `relevance`; zero where none arrives.

    Inside a folded chain the intermediate outputs receive only what their other consumers send.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    output = values(network, *inputs)[-1]
    if seed is None:
        seed = one_hot(output, target) * output
    backward = _Backward(network, rules, sum_eps, normaliser_eps)
    samples = [
        backward.sample(values(network, *(x[n : n + 1] for x in inputs)), seed[n : n + 1]) for n in range(len(output))
    ]
    return [torch.cat(parts) for parts in zip(*samples, strict=True)]


def one_hot(output: Tensor, target: int | Sequence[int] | None) -> Tensor:
    """Ones at the target class of each sample of a (batch, classes) output; the highest score where target is None."""
    if target is None:
        index = output.argmax(1)
    else:
        index = torch.as_tensor(target).expand(len(output))
    return F.one_hot(index, output.shape[1]).to(output.dtype)


@dataclass
class _Backward:
    """One backward pass of messages; the dense matrices are kept from sample to sample."""

    network: Network
    rules: RuleMap
    sum_eps: float
    normaliser_eps: float
    matrices: dict[int, Any] = field(default_factory=dict)

    def sample(self, value: list[Tensor], seed: Tensor) -> list[Tensor]:
        """The relevance at every node for one sample; value[i] and the seed have a batch of one."""
        R = [torch.zeros_like(v) for v in value]
        R[-1] += seed
        for index in reversed(range(len(value))):
            node = self.network.nodes[index]
            if node.op == "input" or not R[index].any():
                continue
            starts = affine_starts(self.network, index, value)
            if starts:
                sources = tuple(self.network.nodes[start].inputs[0] for start in starts)
                sent = self.affine(index, starts, value, [value[source] for source in sources], R[index])
            else:
                x = [value[i] for i in node.inputs]
                sent, sources = self.send(index, node, x, value[index], R[index]), node.inputs
            for source, part in zip(sources, sent, strict=True):
                R[source] += part.reshape(R[source].shape)
        return R

    def send(self, index: int, node: Node, x: list[Tensor], y: Tensor, R: Tensor) -> list[Tensor]:
        """What the node sends to each of its inputs."""
        if node.op in ACTIVATIONS:
            return [R]
        if node.op in SUMS:
            return self.shares(index, node, x, y, R)
        if node.op in CARRIERS:
            return [W.T @ R.flatten() for W in self.linear_parts(index, node, x)]
        if node.op in POOLS:
            return [winner(node, x[0], R)]
        if node.op in NORMALISERS:
            W = normaliser_matrix(node, x[0])
            return [share(x[0].flatten() * W, y.flatten(), R.flatten(), self.normaliser_eps).sum(0)]
        if node.op == "mul_constant":
            return [unbroadcast(R, x[0].shape)]
        if node.op == "mul":
            return self.product(node, x, R)
        raise ValueError(f"no relevance is defined for {node.op!r}")

    def affine(self, index: int, starts: list[int], value: list[Tensor], x: list[Tensor], R: Tensor) -> list[Tensor]:
        """sum_j R_{i<-j} of the affine operation that ends at this node, for the input of each of its starts."""
        if index not in self.matrices:
            self.matrices[index] = affine_matrix(self.network, index, value)
        rule = self.rules(starts[0], self.network.nodes[starts[0]])
        joint = torch.cat([x_k.flatten() for x_k in x])
        sent: Tensor = rule(self.matrices[index], joint, R.flatten()).sum(0)
        return list(sent.split([x_k.numel() for x_k in x]))

    def shares(self, index: int, node: Node, x: list[Tensor], y: Tensor, R: Tensor) -> list[Tensor]:
        """R_{i<-j} = x_i c_ij / (y_j + eps s(y_j)) R_j, summed over j, for each summand."""
        parts = self.linear_parts(index, node, x)
        return [
            share(x_k.flatten() * W, y.flatten(), R.flatten(), self.sum_eps).sum(0)
            for x_k, W in zip(x, parts, strict=True)
        ]

    def linear_parts(self, index: int, node: Node, x: list[Tensor]) -> list[Tensor]:
        """The matrix of each input of a linear node, the other inputs zero."""
        if index not in self.matrices:
            shapes = [tuple(x_k.shape[1:]) for x_k in x]
            self.matrices[index] = [linear_part(node, shapes, k) for k in range(len(x))]
        parts: list[Tensor] = self.matrices[index]
        return parts

    def product(self, node: Node, x: list[Tensor], R: Tensor) -> list[Tensor]:
        """A gate takes nothing and the signal all; two signals, or two gates, take half each."""
        gates = [is_gate(self.network, i) for i in node.inputs]
        takes = [0.5, 0.5] if gates[0] == gates[1] else [float(not gate) for gate in gates]
        return [unbroadcast(part * R, x_k.shape) for part, x_k in zip(takes, x, strict=True)]


def linear_part(node: Node, shapes: Sequence[tuple[int, ...]], k: int) -> Tensor:
    """The matrix (m, n_k) of a linear node with respect to input k, the other inputs zero."""

    def only_k(x: Tensor) -> Tensor:
        others = [torch.zeros(len(x), *shape, dtype=x.dtype) for shape in shapes]
        return run(node, *others[:k], x, *others[k + 1 :])

    return jacobian(only_k, shapes[k])[0]


def affine_starts(network: Network, index: int, value: list[Tensor]) -> list[int]:
    """The conv or linear nodes at which the affine operation that ends at this node starts; none if it is none.

    Per-channel constants fold into a conv or linear node, and linear nodes that are added up are one operation,
    whatever constants are added to them.
    """
    node = network.nodes[index]
    if node.op in AFFINE:
        return [index]
    if node.op in (*BATCH_NORMS, "mul_constant", "add_constant"):
        starts = affine_starts(network, node.inputs[0], value)
        linear = node.op == "add_constant" and all(network.nodes[start].op == "linear" for start in starts)
        folds = (
            linear
            or node.op in BATCH_NORMS
            or all(per_channel(node.tensors["constant"], network.nodes[start]) for start in starts)
        )
        return starts if folds else []
    if node.op in ("add", "sub") and len({value[i].shape for i in node.inputs}) == 1:
        parts = [affine_starts(network, i, value) for i in node.inputs]
        if all(part and all(network.nodes[start].op == "linear" for start in part) for part in parts):
            return [start for part in parts for start in part]
    return []


def per_channel(constant: Tensor, affine: Node) -> bool:
    """Whether the constant is a scalar or one number per output channel of the affine node."""
    if constant.numel() == 1:
        return True
    weight = affine.tensors["weight"]
    if affine.op == "linear":
        return constant.shape == (weight.shape[0],)
    groups = affine.options.get("groups", 1)
    channels = weight.shape[1] * groups if "transpose" in affine.op else weight.shape[0]
    return constant.shape == (channels, *[1] * (weight.dim() - 2))


def affine_matrix(network: Network, index: int, value: list[Tensor]) -> Dense:
    """The dense form of the affine operation that ends at this node, on the inputs of its starts one after another."""
    node = network.nodes[index]
    if node.op in AFFINE:
        options = node.options

        def function(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return AFFINE[node.op](x, weight, bias, **options)

        shape = tuple(value[node.inputs[0]].shape[1:])
        return dense(function, node.tensors["weight"], node.tensors.get("bias"), shape)
    parts = [affine_matrix(network, i, value) for i in node.inputs]
    if node.op in ("add", "sub"):
        signs = [1.0, *[1.0 if node.op == "add" else -1.0] * (len(parts) - 1)]
        signed = [
            p.scaled(torch.full_like(p.bias, s), torch.zeros_like(p.bias)) for p, s in zip(parts, signs, strict=True)
        ]
        weight, connected = torch.cat([p.weight for p in signed], 1), torch.cat([p.connected for p in signed], 1)
        return Dense(weight, sum((p.bias for p in signed[1:]), signed[0].bias), connected, (weight.shape[1],))
    output_shape = tuple(value[index].shape[1:])
    zeros, ones = (f(1, *output_shape, dtype=torch.float64) for f in (torch.zeros, torch.ones))
    shift = run(node, zeros)
    return parts[0].scaled((run(node, ones) - shift).flatten(), shift.flatten())


def normaliser_matrix(node: Node, x: Tensor) -> Tensor:
    """The matrix of the normaliser with its statistics held constant at what they are for x."""
    shape = tuple(x.shape[1:])
    if node.op in BATCH_NORMS:
        return jacobian(lambda t: run(node, t), shape)[0]
    weight, eps = node.tensors.get("weight"), node.options["eps"]
    if node.op == "group_norm":
        groups = node.options["num_groups"]
        sigma = (grouped(x, groups).var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        scale = 1.0 if weight is None else weight.reshape(-1, *[1] * (x.dim() - 2))

        def function(t: Tensor) -> Tensor:
            t_grouped = grouped(t, groups)
            return ((t_grouped - t_grouped.mean(-1, keepdim=True)) / sigma).reshape(t.shape) * scale

        return jacobian(function, shape)[0]
    dims = tuple(range(-len(node.options["normalized_shape"]), 0))
    scale = 1.0 if weight is None else weight
    if node.op == "rms_norm":
        rms = (x.square().mean(dims, keepdim=True) + eps).sqrt()
        return jacobian(lambda t: t / rms * scale, shape)[0]
    sigma = (x.var(dims, unbiased=False, keepdim=True) + eps).sqrt()
    return jacobian(lambda t: (t - t.mean(dims, keepdim=True)) / sigma * scale, shape)[0]


def grouped(x: Tensor, groups: int) -> Tensor:
    """(batch, groups, everything else)."""
    return x.reshape(len(x), groups, -1)


def winner(node: Node, x: Tensor, R: Tensor) -> Tensor:
    """All relevance of a max pool's output to the input that won."""
    _, index = FUNCTIONS[node.op](x, **node.options, return_indices=True)
    empty = torch.zeros_like(x).flatten(2)
    return empty.scatter_add(2, index.flatten(2), R.flatten(2))


def is_gate(network: Network, index: int) -> bool:
    """Whether a node's value is a sigmoid, moved, chosen from, scaled by a constant or subtracted from one."""
    node = network.nodes[index]
    if node.op == "sigmoid":
        return True
    keeps_role = node.op in (*CARRIERS, *POOLS, "mul_constant", "constant_minus")
    return keeps_role and all(is_gate(network, i) for i in node.inputs)


def unbroadcast(R: Tensor, shape: Sequence[int]) -> Tensor:
    """R summed over the dimensions along which a factor of this shape was broadcast."""
    return R.sum_to_size(*shape)


def first_affine(network: Network) -> list[int]:
    """The affine nodes that some path reaches from an input without passing another affine node."""
    open_ = [index in network.inputs for index in range(len(network.nodes))]
    first = []
    for index, node in enumerate(network.nodes):
        reached = any(open_[i] for i in node.inputs)
        if reached and node.op in AFFINE:
            first.append(index)
        elif reached:
            open_[index] = True
    return first


def everywhere(rule: Rule) -> RuleMap:
    """The same rule at every affine node."""
    return lambda index, node: rule


def by_kind(network: Network, *, conv: Rule, linear: Rule, first: Rule | None = None) -> RuleMap:
    """One rule for convolutions, one for linear layers, another for the first affine operations where given."""
    starts = first_affine(network)

    def choose(index: int, node: Node) -> Rule:
        if first is not None and index in starts:
            return first
        return linear if node.op == "linear" else conv

    return choose
