"""The short ways that rules take, where a ReLU follows or no input is negative, lead where the long ones do.

The long way is taken behind clamp(min=0), which has a ReLU's values, but tells the engine nothing of signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracle import rules as messages
from oracle.dense import dense
from torch import Tensor, nn

import relprop
from relprop.engine.weights import checksum
from relprop.rules import AlphaBeta, Epsilon, Gamma, Layer, Rule, ZPlus
from relprop.rules import base as arithmetic

RULES: tuple[Rule, ...] = (
    Epsilon(0.1),
    Epsilon(0.0),
    ZPlus(),
    AlphaBeta(2.0, 1.0),
    AlphaBeta(1.5, 0.5, eps=0.0),
    Gamma(0.25),
    Gamma(10.0, eps=0.3),
    Gamma(0.0),
)

Activation = Callable[[Tensor], Tensor]


def unnamed(z: Tensor) -> Tensor:
    return z.clamp(min=0)


def in_place(z: Tensor) -> Tensor:
    return torch.relu_(z)


class Net(nn.Module):
    """Convolutions with and without batch norm, a residual block, and linear layers."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.third, self.norm = nn.Conv2d(5, 5, 1, bias=False), nn.BatchNorm2d(5)
        self.hidden, self.head = nn.Linear(5 * 9, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        y = self.activation(self.second(x))
        y = self.activation(self.norm(self.third(y)) + x)
        y = F.max_pool2d(y, 2)
        scores: Tensor = self.head(self.activation(self.hidden(y.flatten(1))))
        return scores


def networks(*activations: Activation) -> list[Net]:
    torch.manual_seed(3)
    nets = [Net(activation).double() for activation in activations]
    for p in nets[0].norm.parameters():
        nn.init.normal_(p)
    nets[0].norm.running_mean.normal_()
    for net in nets:
        net.load_state_dict(nets[0].state_dict())
        net.eval()
    return nets


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("activation", [torch.relu, in_place])
def test_what_follows_an_operation_changes_no_relevance(activation: Activation, rule: Rule) -> None:
    short, long = networks(activation, unnamed)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found, expected = (relprop.explain(net, x, 1, rules=rule).relevance for net in (short, long))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_reports_are_those_of_the_long_way(rule: Rule) -> None:
    short, long = networks(torch.relu, unnamed)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found, expected = (relprop.explain(net, x, 1, rules=rule) for net in (short, long))
    lost, expected_lost = found.conservation.absorbed, expected.conservation.absorbed
    assert lost.keys() - {"rounding"} == expected_lost.keys() - {"rounding"}
    for cause, amount in lost.items():
        assert amount == pytest.approx(expected_lost.get(cause, 0.0), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_output_that_others_use_too_gets_relevance_below_zero(rule: Rule) -> None:
    layer, head = nn.Linear(4, 6).double(), nn.Linear(6, 2).double()

    def model(activation: Activation) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            z = layer(x)
            scores: Tensor = head(activation(z) + 0.5 * z)
            return scores

        return forward

    x = torch.rand(3, 4, dtype=torch.float64)
    assert bool((layer(x) < 0).any())
    found, expected = (relprop.explain(model(a), x, 1, rules=rule).relevance for a in (torch.relu, unnamed))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


REARRANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "padded with -1": lambda a: F.pad(a, (1, 1), value=-1.0),
    "beside constants": lambda a: torch.cat([a, -torch.ones_like(a)], -1),
    "minus a constant": lambda a: a - 0.7,
    "minus another": lambda a: a - a.flip(-1) * 2,
    "added with a factor below zero": lambda a: torch.add(a, a.flip(-1), alpha=-2),
    "times -1": lambda a: a * -1.0,
    "masked": lambda a: a.masked_fill(a > 0.5, -1.0),
    "mean": lambda a: a.unflatten(-1, (3, 2)).mean(-1),
    "added": lambda a: a + a.flip(-1),
}


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("change", REARRANGED)
def test_only_what_keeps_its_sign_counts_as_not_negative(change: str, rule: Rule) -> None:
    torch.manual_seed(1)
    first = nn.Linear(4, 6).double()
    last = nn.Linear(REARRANGED[change](torch.zeros(1, 6)).shape[-1], 2).double()

    def model(activation: Activation) -> Callable[[Tensor], Tensor]:
        return lambda x: last(REARRANGED[change](activation(first(x))))

    x = torch.randn(3, 4, dtype=torch.float64)
    found, expected = (relprop.explain(model(a), x, 1, rules=rule).relevance for a in (torch.relu, unnamed))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "explicit"), [(AlphaBeta(2.0, 1.0), messages.alpha_beta), (Gamma(0.25), messages.gamma)]
)
def test_float32_keeps_small_parts_apart(rule: Rule, explicit: Any) -> None:
    """Where nearly all contributions are positive, the negative ones are no rounding of their difference."""
    torch.manual_seed(0)
    weight = torch.rand(8, 50, dtype=torch.float64)
    weight[:, ::7] *= -1e-5
    x = torch.rand(1, 50, dtype=torch.float64)
    layer, head = nn.Linear(50, 8, bias=False), nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
        head.weight.fill_(1.0)
    found = relprop.explain(
        nn.Sequential(layer, nn.ReLU(), head).eval(), x.float(), rules=[("first", rule), ("affine", Epsilon(0.0))]
    )
    w, x = layer.weight.detach().double(), x.float().double()
    start = (x @ w.T)[0]
    expected = explicit(dense(F.linear, w, None, (50,)), x[0], start).sum(0)
    torch.testing.assert_close(found.relevance[0].double(), expected, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_pieces_change_nothing(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    (net,) = networks(torch.relu)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    whole = relprop.explain(net, x, 1, rules=rule).relevance
    monkeypatch.setattr(arithmetic, "_PIECE", 7)
    assert torch.equal(relprop.explain(net, x, 1, rules=rule).relevance, whole)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_layers_before_and_behind_a_relu_are_told_in_full(rule: Rule) -> None:
    short, long = networks(torch.relu, unnamed)
    x, names = torch.randn(2, 2, 6, 6, dtype=torch.float64), ["first", "second", "norm", "hidden"]
    found, expected = (relprop.Explainer(net, rule)(x, 1, layers=names).layers for net in (short, long))
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)


def test_one_forward_serves_rules_and_targets_in_any_order() -> None:
    (net,) = networks(torch.relu)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    together = relprop.Explainer(net).compare(x, list(RULES), target=1)
    for rule, found in zip(RULES, together.values(), strict=True):
        assert torch.equal(found.relevance, relprop.explain(net, x, 1, rules=rule).relevance)
    again = relprop.Explainer(net, RULES[0])(x, targets=[1, 0, 1])
    assert torch.equal(again[0].relevance, again[2].relevance)


@pytest.mark.parametrize("rule", [Gamma(0.25), ZPlus()], ids=str)
def test_half_precision_meets_dead_units(rule: Rule) -> None:
    """z / d overflows where no relevance arrives."""
    layer, head = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        head.weight.fill_(1.0)
    model = nn.Sequential(layer, nn.ReLU(), head).half().eval()
    found = relprop.explain(model, torch.tensor([[1.0, 2.0]]).half(), 0, rules=rule).relevance
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0]]).half(), rtol=2e-3, atol=0)


class Blend(Rule):
    """Asks twice for what a ReLU's backward made."""

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        first = layer.backward(layer.stabilised(v, z, 0.5), layer.weight)
        return 0.5 * first + 0.5 * layer.backward(layer.stabilised(v, z, 0.5), layer.weight)


def test_a_rule_of_ones_own_keeps_what_arrived() -> None:
    (net,) = networks(torch.relu)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found, expected = (relprop.explain(net, x, 1, rules=rule).relevance for rule in (Blend(), Epsilon(0.5)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_number_beside_a_linear_operation_counts_in_double_precision() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3, bias=False).double(), torch.randn(2, 4, dtype=torch.float64)
    found = relprop.explain(lambda x: 0.3 * layer(x), x, 0, rules=Gamma(0.25, eps=0.0))
    torch.testing.assert_close(found.relevance.sum(1), found.score, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("gamma", [1e3, 1e6, 1e8])
@pytest.mark.parametrize("x", [1.0, -1.0])
def test_a_large_gamma_leaves_small_contributions_their_digits(gamma: float, x: float) -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(-x)
        layer.bias.fill_(2.0)
    found = relprop.explain(layer.eval(), torch.tensor([[x]]), 0, rules=Gamma(gamma)).relevance.item()
    assert found == pytest.approx(-1 / (2 * (1 + gamma) - 1), rel=1e-5)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "every second sign": lambda w: w * torch.tensor([1.0, -1.0]).repeat(w.numel() // 2).reshape(w.shape).to(w),
    "all signs": lambda w: -w,
    "places": lambda w: w.flip(0),
    "places in a row": lambda w: w.flip(-1),
    "one value": lambda w: w + torch.nn.functional.one_hot(torch.tensor(5), w.numel()).reshape(w.shape).to(w),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [4, 600], ids=["small", "large"])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_changed_behind_autograds_back_are_seen(change: str, size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(size, 2 * size).to(dtype)
    before, changed = checksum(weight), CHANGES[change](weight).to(dtype)
    assert checksum(weight.clone()) == before
    weight.data.copy_(changed)
    assert checksum(weight) != before


def test_an_explainer_sees_that_its_weights_changed() -> None:
    layer, x = nn.Linear(4, 2, bias=False).eval(), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    explainer = relprop.Explainer(layer, ZPlus())
    explainer(x, 0)
    layer.weight.data[:, 1] *= -1
    assert torch.equal(explainer(x, 0).relevance, relprop.explain(layer, x, 0, rules=ZPlus()).relevance)
