"""Products of a weight and a signal: the variants of Arras et al. 2019 for gates, AttnLRP and CP-LRP for attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.rules import Absolute, Epsilon, Half, ProductRule, Proportional, SignalTakesAll, Zero

EPS = 1e-6


def fixed(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stabilised(z: Tensor) -> Tensor:
    return z + EPS * torch.where(z < 0, -1.0, 1.0).double()


SHARES: dict[str, tuple[ProductRule, Callable[[Tensor, Tensor], Tensor]]] = {
    "all": (SignalTakesAll(), lambda g, s: torch.zeros_like(g)),
    "half": (Half(), lambda g, s: torch.full_like(g, 0.5)),
    "prop": (Proportional(), lambda g, s: g / stabilised(g + s)),
    "abs": (Absolute(), lambda g, s: g.abs() / (g.abs() + s.abs() + EPS)),
}


@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.parametrize("variant", SHARES)
def test_a_gate_takes_the_share_that_the_variant_gives_it(variant: str, gate_first: bool) -> None:
    """Explicit messages for (sigmoid(x U) * (x W)) V; fails if shares are swapped, halved twice or not passed on."""
    u, w, v, x = fixed(4, 5, seed=1), fixed(4, 5, seed=2), fixed(5, 3, seed=3), fixed(2, 4, seed=4)

    def model(x: Tensor) -> Tensor:
        gate, signal = torch.sigmoid(x @ u), x @ w
        return (gate * signal if gate_first else signal * gate) @ v

    rule, share = SHARES[variant]
    a, s = x @ u, x @ w
    gate = torch.sigmoid(a)
    product = gate * s
    relevance = product * v[:, 1]
    to_gate = relevance * share(gate, s)
    to_signal = relevance - to_gate if variant != "prop" and variant != "abs" else relevance * share(s, gate)
    # The sigmoid passes relevance on, stabilised where its argument is near zero.
    to_argument = to_gate * a / stabilised(a)
    expected = x * ((to_signal / s) @ w.T) + x * ((to_argument / a) @ u.T)
    rules = RuleMap([("gate", rule), ("affine", Zero())])
    found = relprop.explain(model, x, 1, rules=rules)
    torch.testing.assert_close(found.relevance, expected, rtol=1e-9, atol=1e-12)
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        weights = ((x @ q) @ (x @ k).transpose(-1, -2) / q.shape[1] ** 0.5).softmax(-1)
        return (weights @ (x @ v)).sum(1)

    return model


def test_attention_by_attn_lrp_meets_the_formulas() -> None:
    """R_A = A ((R / 2 O) V^T), R_V = V (A^T (R / 2 O)); softmax R_i = x_i (R_i - s_i sum R); half each for Q and K."""
    q, k, v, x = fixed(4, 3, seed=1), fixed(4, 3, seed=2), fixed(4, 2, seed=3), fixed(1, 5, 4, seed=4)
    found = relprop.explain(attention(q, k, v), x, 1, rules="attn-lrp")
    x = x[0]
    queries, keys, values = x @ q, x @ k, x @ v
    logits = queries @ keys.T / 3**0.5
    weights = logits.softmax(-1)
    out = weights @ values
    relevance = torch.zeros_like(out)
    relevance[:, 1] = out[:, 1]
    s = relevance / (2 * out)
    r_weights, r_values = weights * (s @ values.T), values * (weights.T @ s)
    r_logits = logits * (r_weights - weights * r_weights.sum(-1, keepdim=True))
    t = r_logits / (2 * logits)
    r_queries, r_keys = queries * (t @ keys / 3**0.5), keys * (t.T @ queries / 3**0.5)

    def linear(r: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        return x * ((r / stabilised(z)) @ weight.T)

    expected = linear(r_queries, queries, q) + linear(r_keys, keys, k) + linear(r_values, values, v)
    torch.testing.assert_close(found.relevance[0], expected, rtol=1e-9, atol=1e-12)


def test_attention_by_cp_lrp_is_lrp_with_the_weights_constant_and_conserves() -> None:
    q, k, v, x = fixed(4, 3, seed=1), fixed(4, 3, seed=2), fixed(4, 2, seed=3), fixed(2, 5, 4, seed=4)
    found = relprop.explain(attention(q, k, v), x, 1, rules="cp-lrp")
    weights = ((x @ q) @ (x @ k).transpose(-1, -2) / 3**0.5).softmax(-1)
    values = x @ v
    through = weights.transpose(-1, -2) @ torch.tensor([0.0, 1.0], dtype=torch.float64).expand(2, 5, 2)
    expected = x * ((through * values / stabilised(values)) @ v.T)
    torch.testing.assert_close(found.relevance, expected, rtol=1e-9, atol=1e-12)
    assert found.is_conservative(1e-4)
    assert found.rules == "cp-lrp"


def test_one_forward_serves_both_attention_presets() -> None:
    q, k, v, x = fixed(4, 3, seed=1), fixed(4, 3, seed=2), fixed(4, 2, seed=3), fixed(2, 5, 4, seed=4)
    model = attention(q, k, v)
    both = relprop.Explainer(model).compare(x, ["attn-lrp", "cp-lrp"], 1)
    for preset, found in both.items():
        torch.testing.assert_close(found.relevance, relprop.explain(model, x, 1, rules=preset).relevance)
    assert relprop.explain(model, x, 1).rules == "auto: attn-lrp"


def test_shares_element_by_element_are_refused_for_matrix_products() -> None:
    q, k, v, x = fixed(4, 3, seed=1), fixed(4, 3, seed=2), fixed(4, 2, seed=3), fixed(2, 5, 4, seed=4)
    rules = RuleMap([("attention", Absolute()), ("affine", Zero())])
    with pytest.raises(relprop.errors.InvalidRule, match=r"product of matrices.*Half"):
        relprop.explain(attention(q, k, v), x, 1, rules=rules)


def test_a_factor_computed_through_weights_is_no_activation_of_its_input() -> None:
    """x * tanh(2 (W x) + 1): two signals, half each, though constants folded into W x came in between."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 3).double()
    x = torch.randn(2, 3, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return (x * torch.tanh(2 * layer(x) + 1)).sum(1, keepdim=True)

    z = 2 * layer(x) + 1
    relevance = x * torch.tanh(z) / 2  # of x itself, and of z
    through = x * ((relevance / z) @ (2 * layer.weight))
    found = relprop.explain(model, x, 0, rules=Zero()).relevance
    torch.testing.assert_close(found, (relevance + through).detach())


def test_a_signal_plus_a_constant_times_the_signal_is_shared_in_halves() -> None:
    x, c = torch.tensor([[2.0, -1.0]]), torch.tensor([3.0, 0.5])
    found = relprop.explain(lambda x: (x * (x + c)).sum(1, keepdim=True), x, 0).relevance
    product = x * (x + c)
    torch.testing.assert_close(found, product / 2 + product / 2 * x / (x + c))


def test_the_sum_of_two_cells_outputs_is_an_ordinary_sum() -> None:
    """Two directions added up are no f c + i g: the stabiliser of linear operations is none of theirs."""
    torch.manual_seed(0)
    a, b, c, d = (nn.Linear(3, 2) for _ in range(4))
    x, y = torch.randn(1, 3), torch.randn(1, 3)

    def model(x: Tensor, y: Tensor) -> Tensor:
        return a(x).sigmoid() * b(x).tanh() + c(y).sigmoid() * d(y).tanh()

    def cell(x: Tensor, y: Tensor) -> Tensor:
        return a(x).sigmoid() * b(y).tanh() + c(x).sigmoid() * d(y).tanh()

    rules = {
        f: [op.rule for op in relprop.check(f, (x, y), rules=Epsilon(0.1)).operations if op.kind == "sum"]
        for f in (model, cell)
    }
    assert rules == {model: ["Zero()"], cell: [repr(Epsilon(0.1))]}


def test_a_sum_of_products_may_grow_after_an_input_of_it_was_overwritten() -> None:
    """x W + h U, then x changed in place, then + x V: the first x counts as it was."""
    torch.manual_seed(0)
    W, U, V = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
    head = nn.Linear(4, 2).double()
    x, h = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)

    def in_place(x: Tensor, h: Tensor) -> Tensor:
        x = x + 0.5
        z = x @ W + h @ U
        x.mul_(3)
        return head(torch.tanh(z + x @ V))

    def written_out(x: Tensor, h: Tensor) -> Tensor:
        x = x + 0.5
        return head(torch.tanh(x @ W + h @ U + (x * 3) @ V))

    torch.testing.assert_close(in_place(x, h), written_out(x, h))
    found, expected = (relprop.explain(f, (x, h), 1, rules=Zero()).relevance for f in (in_place, written_out))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rule", [Half(), SignalTakesAll(), Absolute()], ids=str)
def test_what_gates_a_signal_shares_on_relevance_paths_too(rule: ProductRule) -> None:
    """silu(x U) * (x W), then a rule that gives relevance itself; fails if the last pass has let go of the factors."""
    u, w, v, x = fixed(4, 5, seed=1), fixed(4, 5, seed=2), fixed(5, 3, seed=3), fixed(2, 4, seed=4)

    def model(x: Tensor) -> Tensor:
        return (torch.nn.functional.silu(x @ u) * (x @ w)) @ v

    rules = RuleMap([("gated", rule), ("last", Epsilon(1e-3, bias="distribute")), ("affine", Zero())])
    found = relprop.explain(model, x, 1, rules=rules)
    a, s = torch.nn.functional.silu(x @ u), x @ w
    z, start = a * s, ((a * s) @ v)[:, 1]
    rest = 1e-3 * torch.where(start < 0, -1.0, 1.0)
    to_product = (z * v[:, 1] + rest[:, None] / 5) / (start + rest)[:, None] * start[:, None]
    if isinstance(rule, Absolute):
        to_gate = to_product * a.abs() / (a.abs() + s.abs() + rule.eps)
        to_signal = to_product * s.abs() / (a.abs() + s.abs() + rule.eps)
    else:
        part = 0.5 if isinstance(rule, Half) else 0.0
        to_gate, to_signal = part * to_product, (1 - part) * to_product
    expected = x * ((to_gate / (x @ u)) @ u.T) + x * ((to_signal / s) @ w.T)
    torch.testing.assert_close(found.relevance, expected, rtol=1e-8, atol=1e-11)
