"""The oracle itself: it meets the reference figures and the identities that every rule obeys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    Case,
    Network,
    Node,
    as_module,
    by_kind,
    everywhere,
    networks,
    relevance,
    rule_map,
    rules,
    rules_by_module,
    values,
)
from oracle.dense import Dense, dense
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"

LAYERS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "linear_signed": F.linear,
    "linear_positive": F.linear,
    "conv2d_signed": partial(F.conv2d, stride=2, padding=1),
    "conv2d_positive_groups": partial(F.conv2d, padding=1, groups=2),
    "conv1d_dilated": partial(F.conv1d, dilation=2),
    "convtranspose2d": partial(F.conv_transpose2d, stride=2, padding=1),
}

RULES: dict[str, rules.Rule] = {
    "epsilon_1e-6": partial(rules.epsilon, eps=1e-6),
    "epsilon_0.5": partial(rules.epsilon, eps=0.5),
    "gamma_0.25": partial(rules.gamma, gamma=0.25),
    "zplus": rules.zplus,
    "alpha2_beta1": partial(rules.alpha_beta, alpha=2.0, beta=1.0),
    "alpha1_beta0": partial(rules.alpha_beta, alpha=1.0, beta=0.0),
    "zbox": partial(rules.zbox, low=-3.0, high=3.0),
    "wsquare": rules.wsquare,
    "flat": rules.flat,
}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest deviation, relative to the largest expected relevance."""
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def figures() -> dict[str, Tensor]:
    with np.load(GOLDEN / "rules_per_layer.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def layer_of(figures: dict[str, Tensor], layer: str) -> tuple[Dense, Tensor, Tensor]:
    """The layer's dense form, its flattened inputs (batch, n) and the relevance of its outputs (batch, m)."""
    x, R = figures[f"{layer}/x"], figures[f"{layer}/R"]
    op = dense(LAYERS[layer], figures[f"{layer}/weight"], figures[f"{layer}/bias"], tuple(x.shape[1:]))
    return op, x.flatten(1), R.flatten(1)


@pytest.mark.parametrize("layer", LAYERS)
def test_dense_form_computes_the_layer(figures: dict[str, Tensor], layer: str) -> None:
    op, x, _ = layer_of(figures, layer)
    assert relative_error(x @ op.weight.T + op.bias, figures[f"{layer}/y"].flatten(1)) < 1e-12


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_messages_meet_the_reference_figures(figures: dict[str, Tensor], layer: str, rule: str) -> None:
    op, x, R = layer_of(figures, layer)
    actual = torch.stack([RULES[rule](op, x_n, R_n).sum(0) for x_n, R_n in zip(x, R, strict=True)])
    assert relative_error(actual, figures[f"{layer}/{rule}"].flatten(1)) < 1e-9


@pytest.mark.parametrize(
    "rule",
    [
        partial(rules.epsilon, eps=0.01, bias="distribute"),
        partial(rules.zbox, low=-3.0, high=3.0, eps=0.0),
        partial(rules.wsquare, bias=False, eps=0.0),
        partial(rules.flat, eps=0.0),
    ],
    ids=["epsilon_distribute", "zbox", "wsquare", "flat"],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_rules_that_leave_the_bias_nothing_conserve_exactly(
    figures: dict[str, Tensor], layer: str, rule: rules.Rule
) -> None:
    op, x, R = layer_of(figures, layer)
    messages = rule(op, x[0], R[0])
    torch.testing.assert_close(messages.sum(1), R[0], rtol=1e-9, atol=1e-12)
    assert bool((messages[~op.connected] == 0).all())


def test_gamma_without_a_boost_is_epsilon(figures: dict[str, Tensor]) -> None:
    op, x, R = layer_of(figures, "conv2d_signed")
    expected = rules.epsilon(op, x[0], R[0])
    torch.testing.assert_close(rules.gamma(op, x[0], R[0], gamma=0.0), expected)


def test_a_border_of_a_convolution_connects_only_real_inputs(figures: dict[str, Tensor]) -> None:
    op, _, _ = layer_of(figures, "conv2d_signed")
    connections = op.connected.sum(1).reshape(4, 4, 4)
    assert connections[0, 0, 0] == 3 * 2 * 2
    assert connections[0, 1, 1] == 3 * 3 * 3


def test_an_empty_denominator_sends_nothing() -> None:
    op = Dense(torch.tensor([[1.0, 1.0]]), torch.zeros(1), torch.ones(1, 2, dtype=torch.bool), (2,))
    x, R = torch.tensor([3.0, -3.0]), torch.ones(1)
    assert rules.zero(op, x, R).tolist() == [[0.0, 0.0]]
    assert rules.epsilon(op, torch.zeros(2), R, eps=0.0).tolist() == [[0.0, 0.0]]


def test_pass_leaves_relevance_unchanged() -> None:
    op = Dense(torch.eye(3), torch.zeros(3), torch.eye(3) != 0, (3,))
    R = torch.tensor([1.0, -2.0, 3.0])
    assert rules.pass_(op, torch.randn(3), R).sum(0).tolist() == R.tolist()


def conv_net(state: dict[str, Tensor]) -> Network:
    """The nn.Sequential behind cnn_batchnorm.npz; node k + 1 is its layer k."""

    def tensors(layer: int) -> dict[str, Tensor]:
        prefix = f"{layer}."
        names = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        names.pop("num_batches_tracked", None)
        return names

    layers: list[tuple[str, dict[str, Any]]] = [
        ("conv2d", {"padding": 1}),
        ("batch_norm2d", {"eps": 1e-5}),
        ("relu", {}),
        ("conv2d", {"padding": 1}),
        ("batch_norm2d", {"eps": 1e-5}),
        ("relu", {}),
        ("max_pool2d", {"kernel_size": 2}),
        ("conv2d", {}),
        ("relu", {}),
        ("avg_pool2d", {"kernel_size": 2}),
        ("flatten", {}),
        ("linear", {}),
        ("relu", {}),
        ("linear", {}),
    ]
    nodes = [Node(op, (k,), options, tensors(k)) for k, (op, options) in enumerate(layers)]
    return Network((Node("input"), *nodes))


CONV_NET_RULES: dict[str, dict[str, rules.Rule]] = {
    "epsilon-plus": {"conv": rules.zplus},
    "epsilon-plus-flat": {"conv": rules.zplus, "first": rules.flat},
    "epsilon-alpha2-beta1": {"conv": rules.alpha_beta},
    "epsilon-alpha2-beta1-flat": {"conv": rules.alpha_beta, "first": rules.flat},
    "epsilon-gamma-box": {"conv": rules.gamma, "first": partial(rules.zbox, low=-3.0, high=3.0)},
}


@pytest.mark.parametrize("preset", CONV_NET_RULES)
def test_a_conv_net_with_batch_norm_meets_the_reference_figures(preset: str) -> None:
    with np.load(GOLDEN / "cnn_batchnorm.npz") as file:
        figures = {name: torch.from_numpy(file[name]) for name in file.files}
    network = conv_net({name.removeprefix("state/"): t for name, t in figures.items() if name.startswith("state/")})
    x, target, expected = figures["x"][:2], figures["target"][:2].tolist(), figures[f"relevance/{preset}"][:2]
    torch.testing.assert_close(values(network, x)[-1], figures["scores"][:2])

    chosen = by_kind(network, linear=rules.epsilon, **CONV_NET_RULES[preset])
    (R,) = relevance(network, x, chosen, target=target, sum_eps=1e-6)
    assert relative_error(R, expected) < 1e-9


@settings(max_examples=60, deadline=None)
@given(networks())
def test_the_module_computes_what_the_network_says(case: Case) -> None:
    model = as_module(case.network)
    kept = [x.clone() for x in case.inputs]
    torch.testing.assert_close(model(*case.inputs), values(case.network, *case.inputs)[-1], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(x, before) for x, before in zip(case.inputs, kept, strict=True))


@settings(max_examples=40, deadline=None)
@given(networks(bias=False))
def test_lrp_0_conserves_where_nothing_adds_a_constant(case: Case) -> None:
    score = values(case.network, *case.inputs)[-1][:, 0]
    R = relevance(case.network, case.inputs, everywhere(rules.zero), target=0)
    total = sum(r.flatten(1).sum(1) for r in R)
    scale = sum(r.flatten(1).abs().sum(1) for r in R)
    assert bool(((total - score).abs() <= 1e-9 * (1 + scale)).all())


@settings(max_examples=40, deadline=None)
@given(networks(piecewise_linear=True))
def test_lrp_0_is_gradient_x_input_where_the_network_is_piecewise_linear(case: Case) -> None:
    inputs = [x.clone().requires_grad_() for x in case.inputs]
    gradients = torch.autograd.grad(as_module(case.network)(*inputs)[:, 0].sum(), inputs)
    R = relevance(case.network, case.inputs, everywhere(rules.zero), target=0)
    for x, gradient, r in zip(case.inputs, gradients, R, strict=True):
        torch.testing.assert_close(r, x * gradient, rtol=1e-7, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_rule_gives_finite_relevance_everywhere(data: st.DataObject) -> None:
    case = data.draw(networks())
    specs = data.draw(rules_by_module(case.network, hidden=True))
    for R in relevance(case.network, case.inputs, rule_map(case.network, specs), target=[0, 2]):
        assert bool(R.isfinite().all())


def scalars(*values: float) -> Tensor:
    return torch.tensor([list(values)], dtype=torch.float64)


def seeded(network: Network, *inputs: Tensor, **options: float) -> list[list[float]]:
    """The relevance of each input under LRP-0, the output's value being the seed."""
    seed = values(network, *inputs)[-1]
    return [R[0].tolist() for R in relevance(network, inputs, everywhere(rules.zero), seed=seed, **options)]


def test_a_sum_of_3_and_minus_1_shares_3_and_minus_1() -> None:
    network = Network((Node("input"), Node("input"), Node("add", (0, 1))))
    assert seeded(network, scalars(3), scalars(-1)) == [[3.0], [-1.0]]
    assert seeded(network, scalars(3), scalars(-1), sum_eps=1.0) == [[2.0], [-2 / 3]]


def test_a_constant_keeps_its_share() -> None:
    bias = {"weight": torch.ones(1, 1, dtype=torch.float64), "bias": torch.tensor([-3.0], dtype=torch.float64)}
    linear = Network((Node("input"), Node("linear", (0,), tensors=bias)))
    constant = Network((Node("input"), Node("add_constant", (0,), tensors={"constant": torch.tensor([-3.0]).double()})))
    assert seeded(linear, scalars(2)) == seeded(constant, scalars(2)) == [[2.0]]


def test_a_dead_pixel_gets_nothing_from_an_average() -> None:
    network = Network((Node("input"), Node("relu", (0,)), Node("mean", (1,), {"dim": 1, "keepdim": True})))
    assert seeded(network, scalars(-4, 0, 6)) == [[0.0, 0.0, 2.0]]


def test_a_gate_gets_nothing_and_two_signals_half_each() -> None:
    gated = Network((Node("input"), Node("input"), Node("sigmoid", (0,)), Node("mul", (2, 1))))
    assert seeded(gated, scalars(0), scalars(3)) == [[0.0], [1.5]]
    product = Network((Node("input"), Node("input"), Node("mul", (0, 1))))
    assert seeded(product, scalars(2), scalars(3)) == [[3.0], [3.0]]


def test_the_winner_of_a_max_pool_takes_all() -> None:
    network = Network((Node("input"), Node("max_pool1d", (0,), {"kernel_size": 3})))
    assert seeded(network, scalars(1, 5, 2)[None]) == [[[0.0, 5.0, 0.0]]]


def test_a_batch_norm_folds_for_its_own_consumer_only() -> None:
    """x -> conv -> bn -> a, and conv -> b: a sees the folded weights, b the convolution's own."""
    weight = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    norm = {"running_mean": torch.zeros(1).double(), "running_var": torch.ones(1).double()}
    norm |= {"weight": torch.tensor([-2.0]).double(), "bias": torch.tensor([0.0]).double()}
    network = Network(
        (
            Node("input"),
            Node("conv1d", (0,), tensors={"weight": weight}),
            Node("batch_norm1d", (1,), {"eps": 0.0}, norm),
            Node("cat", (1, 2), {"dim": 1}),
        )
    )
    x = torch.tensor([[[5.0], [3.0]]], dtype=torch.float64)
    zplus = everywhere(partial(rules.zplus, eps=0.0))
    (unfolded,) = relevance(network, x, zplus, seed=torch.tensor([[[1.0], [0.0]]]).double())
    (folded,) = relevance(network, x, zplus, seed=torch.tensor([[[0.0], [1.0]]]).double())
    assert unfolded.flatten().tolist() == [1.0, 0.0]
    assert folded.flatten().tolist() == [0.0, 1.0]


def test_a_batch_norm_elsewhere_shares_with_its_shift() -> None:
    norm = {"running_mean": torch.zeros(1).double(), "running_var": torch.ones(1).double()}
    norm |= {"weight": torch.tensor([2.0]).double(), "bias": torch.tensor([1.0]).double()}
    network = Network((Node("input"), Node("batch_norm1d", (0,), {"eps": 0.0}, norm)))
    assert seeded(network, scalars(3)) == [[6.0]]
    assert seeded(network, scalars(3), normaliser_eps=5.0) == [[3.5]]


def test_layer_norm_shares_what_centring_moves() -> None:
    """y_0 = (2/3 x_0 - 1/3 x_1 - 1/3 x_2) / std; the statistics are constants."""
    network = Network((Node("input"), Node("layer_norm", (0,), {"normalized_shape": (3,), "eps": 0.0})))
    (R,) = relevance(network, scalars(6, 1, 2), everywhere(rules.zero), seed=scalars(9, 0, 0))
    torch.testing.assert_close(R, scalars(12, -1, -2))


def test_a_module_used_twice_adds_up() -> None:
    twice = {"weight": torch.tensor([[2.0]], dtype=torch.float64)}
    network = Network(
        (
            Node("input"),
            Node("input"),
            Node("linear", (0,), tensors=twice),
            Node("linear", (1,), tensors=twice, module="n2"),
            Node("add", (2, 3)),
            Node("add", (4, 2)),
        )
    )
    assert seeded(network, scalars(3), scalars(1)) == [[12.0], [2.0]]
    assert [name for name, _ in as_module(network).named_children()] == ["n2"]
