"""Attention: explicit messages operation by operation, whole Transformers by autograd with modified gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_networks import (
    ACTIVATIONS,
    MASKS,
    NORMS,
    PRODUCTS,
    ROTARY,
    D,
    Decoder,
    Encoder,
    Style,
    randomised,
    with_functions,
)
from attention_rules import EITHER, LRP_0, in_double_precision  # noqa: F401  (a fixture for all tests of this file)
from oracle import attention as oracle
from oracle.attention_gradient import FREE, Modified, relevance
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.rules import Epsilon, Zero

TOLERANCE = 1e-8


def assert_same(found: Tensor, expected: Tensor | np.ndarray) -> None:
    """Equal up to TOLERANCE of the largest expected value."""
    expected = torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


# ---- explicit messages: an operation between two linear layers


class Between(nn.Module):
    """linear, operation, linear, summed over everything but samples and classes. One first layer for each operand."""

    def __init__(self, operation: Callable[..., Tensor], operands: int, d: int, e: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Linear(4, d) for _ in range(operands))
        self.after, self.operation = nn.Linear(e, 3), operation
        randomised(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: (batch, ..., 4) for each operand, or one for all. Returns (batch, 3)."""
        return self.after(self.operation(*self.operands(inputs))).flatten(1, -2).sum(1)

    def operands(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        inputs = inputs * (len(self.before) // len(inputs))
        return [layer(x) for layer, x in zip(self.before, inputs, strict=True)]

    def at_operation(self, *inputs: Tensor, eps: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
        """The operands, and the relevance of the operation's output if class 1 is explained, by messages."""
        operands = self.operands(inputs)
        out = self.operation(*operands)
        start = torch.zeros_like(self.after(out))
        start[..., 1] = self.after(out)[..., 1]
        weights = arrays(self.after.weight, self.after.bias)
        x, R = arrays(out, start)
        return arrays(*operands), oracle.linear_layer(x, *weights, R, eps)

    def at_inputs(self, inputs: tuple[Tensor, ...], R: list[np.ndarray], eps: float = 0.0) -> list[np.ndarray]:
        """From the relevance of the operands to that of the inputs."""
        given = inputs * (len(self.before) // len(inputs))
        found = [
            oracle.linear_layer(*arrays(x, layer.weight, layer.bias), r, eps)
            for x, layer, r in zip(given, self.before, R, strict=True)
        ]
        return [sum(found)] if len(inputs) == 1 else found


@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_meets_the_messages_of_attn_lrp(masked: bool, eps: float) -> None:
    forbidden = torch.tensor([[False, True, False, False, True]]) if masked else torch.zeros(1, 5, dtype=torch.bool)
    model = Between(lambda x: x.masked_fill(forbidden, -math.inf).softmax(-1), 1, 5, 5)
    x = torch.randn(3, 2, 4)
    (logits,), R = model.at_operation(x, eps=eps)
    logits = np.where(forbidden.numpy(), -np.inf, logits)
    expected = model.at_inputs((x,), [oracle.by_rows(oracle.softmax, logits, R)], eps)[0]
    rules = RuleMap([("affine", Epsilon(eps) if eps else Zero())])
    assert_same(relprop.explain(model, x, 1, rules=rules).relevance, expected)


def test_softmax_over_another_dimension_meets_the_messages() -> None:
    """The constants keep the sum over that dimension from being one whatever the input."""
    model = Between(lambda x: torch.softmax(x, 1) * torch.tensor([[1.0], [-2.0]]), 1, 5, 5)
    x = torch.randn(3, 2, 4)
    (logits,), R = model.at_operation(x)
    rows = oracle.by_rows(oracle.softmax, logits.swapaxes(1, 2), R.swapaxes(1, 2)).swapaxes(1, 2)
    expected = model.at_inputs((x,), [rows])[0]
    assert_same(relprop.explain(model, x, 1, rules=Zero()).relevance, expected)


@pytest.mark.parametrize("product", [torch.matmul, torch.bmm, lambda a, b: torch.einsum("nij,njk->nik", a, b)])
def test_a_product_of_two_matrices_meets_the_messages(product: Callable[..., Tensor]) -> None:
    model = Between(lambda a, b: product(a, b.transpose(1, 2)), 2, 5, 3)
    x, y = torch.randn(2, 4, 4), torch.randn(2, 3, 4)
    (a, b), R = model.at_operation(x, y)
    parts = [oracle.matmul(a[n], b[n].T, R[n]) for n in range(2)]
    expected = model.at_inputs((x, y), [np.stack([p[0] for p in parts]), np.stack([p[1].T for p in parts])])
    for found, wanted in zip(
        relprop.explain(model, (x, y), 1, rules=LRP_0["attn-lrp"]).relevance, expected, strict=True
    ):
        assert_same(found, wanted)


@pytest.mark.parametrize(
    "product",
    [lambda a, b: a * b, torch.mul, lambda a, b: torch.einsum("nij,nij->nij", a, b), lambda a, b: a.clone().mul_(b)],
)
def test_a_product_element_by_element_meets_the_messages(product: Callable[..., Tensor]) -> None:
    model = Between(product, 2, 5, 5)
    x = torch.randn(2, 3, 4)
    operands, R = model.at_operation(x)
    expected = model.at_inputs((x,), oracle.product(operands, R))[0]
    assert_same(relprop.explain(model, x, 1, rules=Zero()).relevance, expected)


NORMALISERS: dict[str, tuple[Callable[..., Tensor], Callable[..., np.ndarray]]] = {
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (5,), w, b, 1e-2),
        lambda x, w: oracle.layer_norm_matrix(x, w, 1e-2),
    ),
    "rms_norm": (lambda x, w, b: F.rms_norm(x, (5,), w, 1e-2) + b, lambda x, w: oracle.rms_norm_matrix(x, w, 1e-2)),
}


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("name", NORMALISERS)
def test_a_normaliser_meets_the_messages(name: str, eps: float) -> None:
    """With a stabiliser of its own, which the shift shares in a layer norm."""
    if name == "rms_norm" and eps:
        pytest.skip("its shift is a sum of its own here")
    function, matrix = NORMALISERS[name]
    weight, shift = torch.randn(5), torch.randn(5)
    model = Between(lambda x: function(x, weight, shift), 1, 5, 5)
    x = torch.randn(3, 2, 4)
    (z,), R = model.at_operation(x)
    w, b = arrays(weight, shift)
    expected = oracle.by_rows(lambda z, R: oracle.linear(z, matrix(z, w), b, R, eps), z, R)
    rules = RuleMap([("affine", Zero()), ("normaliser", Epsilon(eps) if eps else Zero())])
    assert_same(relprop.explain(model, x, 1, rules=rules).relevance, model.at_inputs((x,), [expected])[0])


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_group_norm_meets_the_messages(eps: float) -> None:
    weight, shift = torch.randn(4), torch.randn(4)
    model = Between(lambda x: F.group_norm(x, 2, weight, shift, 1e-2), 1, 5, 5)
    x = torch.randn(3, 4, 4)
    (z,), R = model.at_operation(x)
    w, b = arrays(weight, shift)

    def messages(z: np.ndarray, R: np.ndarray) -> np.ndarray:
        matrix = oracle.group_norm_matrix(z.reshape(4, 5), w, 2, 1e-2)
        return oracle.linear(z, matrix, np.repeat(b, 5), R, eps)

    expected = oracle.by_rows(messages, z.reshape(3, 20), R.reshape(3, 20)).reshape(3, 4, 5)
    rules = RuleMap([("affine", Zero()), ("normaliser", Epsilon(eps) if eps else Zero())])
    assert_same(relprop.explain(model, x, 1, rules=rules).relevance, model.at_inputs((x,), [expected])[0])


# ---- explicit messages: scaled_dot_product_attention

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 4, 3, 5, 2
ALLOWED = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)


def masked(allowed: Tensor) -> np.ndarray:
    return np.where(allowed.numpy(), 0.0, -np.inf)


def per_sample(seed: int) -> Tensor:
    """A mask of its own for each sample, in which every query sees a key."""
    allowed = torch.rand(BATCH, 1, QUERIES, KEYS, generator=torch.Generator().manual_seed(seed)) < 0.6
    return allowed | (torch.arange(KEYS) == 2)


BIAS = torch.randn(HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
NOTHING = np.zeros((QUERIES, KEYS))
DEFAULT_SCALE = WIDTH**-0.5
# Arguments of scaled_dot_product_attention; the mask they mean; the scale; the number of key and value heads.
ATTENTIONS: dict[str, tuple[dict[str, Any], np.ndarray, float, int]] = {
    "plain": ({}, NOTHING, DEFAULT_SCALE, HEADS),
    "no dropout": ({"dropout_p": 0.0}, NOTHING, DEFAULT_SCALE, HEADS),
    "scale": ({"scale": 0.3}, NOTHING, 0.3, HEADS),
    "boolean mask": ({"attn_mask": ALLOWED}, masked(ALLOWED), DEFAULT_SCALE, HEADS),
    "additive mask": ({"attn_mask": torch.from_numpy(masked(ALLOWED))}, masked(ALLOWED), DEFAULT_SCALE, HEADS),
    "bias": ({"attn_mask": BIAS}, BIAS.numpy(), DEFAULT_SCALE, HEADS),
    "bias and mask": (
        {"attn_mask": BIAS.masked_fill(~ALLOWED, -math.inf), "scale": 1.7},
        BIAS.numpy() + masked(ALLOWED),
        1.7,
        HEADS,
    ),
    "mask per sample": ({"attn_mask": per_sample(3)}, masked(per_sample(3)), DEFAULT_SCALE, HEADS),
    "causal": ({"is_causal": True}, oracle.causal(QUERIES, KEYS), DEFAULT_SCALE, HEADS),
    "grouped": ({"enable_gqa": True}, NOTHING, DEFAULT_SCALE, 2),
    "one key head": ({"enable_gqa": True, "scale": 0.9}, NOTHING, 0.9, 1),
    "grouped and causal": ({"enable_gqa": True, "is_causal": True}, oracle.causal(QUERIES, KEYS), DEFAULT_SCALE, 2),
    "grouped and masked": ({"enable_gqa": True, "attn_mask": ALLOWED}, masked(ALLOWED), DEFAULT_SCALE, 2),
}


class Fused(nn.Module):
    """Three linear layers, scaled_dot_product_attention, a linear layer, the sum over queries."""

    def __init__(self, heads: int, kv_heads: int, width: int, value_width: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, heads * width), nn.Linear(4, kv_heads * width)
        self.v, self.head = nn.Linear(4, kv_heads * value_width), nn.Linear(heads * value_width, 3)
        self.heads, self.kv_heads, self.options = heads, kv_heads, options
        randomised(self)

    def operands(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., heads, T, width) of each."""
        pairs = ((self.q, x, self.heads), (self.k, y, self.kv_heads), (self.v, z, self.kv_heads))
        q, k, v = (layer(t).unflatten(-1, (heads, -1)).transpose(-3, -2) for layer, t, heads in pairs)
        return q, k, v

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(*self.operands(x, y, z), **self.options)
        return self.head(out.transpose(-3, -2).flatten(-2)).flatten(1, -2).sum(1)

    def by_messages(
        self, inputs: tuple[Tensor, ...], mask: np.ndarray, scale: float, cp: bool, eps: float = 0.0
    ) -> list[np.ndarray]:
        operands = arrays(*self.operands(*inputs))
        out = oracle.forward(*operands, mask, scale).swapaxes(-3, -2)
        merged = out.reshape(*out.shape[:-2], -1)
        weight, bias = arrays(self.head.weight, self.head.bias)
        start = np.zeros((*merged.shape[:-1], 3))
        start[..., 1] = (merged @ weight.T + bias)[..., 1]
        R = oracle.linear_layer(merged, weight, bias, start, eps).reshape(out.shape).swapaxes(-3, -2)
        found = []
        for x, layer, r in zip(
            inputs, (self.q, self.k, self.v), oracle.attention(*operands, R, mask, scale, cp), strict=True
        ):
            r = r.swapaxes(-3, -2)
            flat = r.reshape(*r.shape[:-2], -1)
            found.append(oracle.linear_layer(*arrays(x, layer.weight, layer.bias), flat, eps))
        return found


def assert_attention(model: Fused, inputs: tuple[Tensor, ...], mask: np.ndarray, scale: float, preset: str) -> None:
    expected = model.by_messages(inputs, mask, scale, cp=preset == "cp-lrp")
    found = relprop.explain(model, inputs, 1, rules=LRP_0[preset])
    for ours, wanted in zip(found.relevance, expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(wanted), rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    assert np.abs(expected[2]).max() > 1e-3
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)


@EITHER
@pytest.mark.parametrize("name", ATTENTIONS)
def test_fused_attention_meets_the_messages(name: str, preset: str) -> None:
    options, mask, scale, kv_heads = ATTENTIONS[name]
    model = Fused(HEADS, kv_heads, WIDTH, WIDTH, options)
    inputs = (torch.randn(BATCH, QUERIES, 4), torch.randn(BATCH, KEYS, 4), torch.randn(BATCH, KEYS, 4))
    assert_attention(model, inputs, mask, scale, preset)


@EITHER
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (1, 5), (5, 2), (3, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_of_other_lengths_and_wider_values(queries: int, keys: int, causal: bool, preset: str) -> None:
    model = Fused(2, 2, 3, 5, {"is_causal": causal})
    inputs = (torch.randn(2, queries, 4), torch.randn(2, keys, 4), torch.randn(2, keys, 4))
    mask = oracle.causal(queries, keys) if causal else np.zeros((queries, keys))
    assert_attention(model, inputs, mask, 3**-0.5, preset)


@EITHER
def test_fused_attention_with_more_batch_dimensions(preset: str) -> None:
    model = Fused(2, 2, 3, 3, {})
    inputs = (torch.randn(2, 3, 3, 4), torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4))
    assert_attention(model, inputs, np.zeros((3, 5)), 3**-0.5, preset)


@EITHER
def test_fused_attention_without_a_dimension_of_heads(preset: str) -> None:
    by_heads = Fused(1, 1, 3, 3, {})

    def model(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(by_heads.q(x), by_heads.k(y), by_heads.v(z))
        return by_heads.head(out).sum(1)

    inputs = (torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4))
    expected = by_heads.by_messages(inputs, np.zeros((3, 5)), 3**-0.5, cp=preset == "cp-lrp")
    for ours, wanted in zip(relprop.explain(model, inputs, 1, rules=LRP_0[preset]).relevance, expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(wanted), rtol=0, atol=TOLERANCE * np.abs(wanted).max())


@EITHER
@pytest.mark.parametrize("which", ["masked by -inf", "masked by a boolean"])
def test_a_query_that_may_see_nothing_gives_nothing(which: str, preset: str) -> None:
    """Fused attention returns zeros for it; the other queries are explained as if alone."""
    allowed = ALLOWED.clone()
    allowed[1] = False
    mask = allowed if which == "masked by a boolean" else torch.from_numpy(masked(allowed))
    model = Fused(HEADS, HEADS, WIDTH, WIDTH, {"attn_mask": mask})
    inputs = (torch.randn(BATCH, QUERIES, 4), torch.randn(BATCH, KEYS, 4), torch.randn(BATCH, KEYS, 4))
    assert bool(torch.isfinite(model(*inputs)).all())
    assert_attention(model, inputs, masked(allowed), DEFAULT_SCALE, preset)


# ---- whole Transformers: gradient x input of the modified network


def assert_as_by_autograd(
    build: Callable[..., nn.Module], style: Style, preset: str, x: Tensor | None = None, **options: Any
) -> None:
    x = torch.randn(2, 5, D) if x is None else x
    cp = preset == "cp-lrp"
    model = with_functions(build, FREE, style, **options)
    modified = with_functions(build, Modified(cp=cp), style, **options)
    torch.testing.assert_close(model(x), modified(x), rtol=1e-10, atol=1e-10)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = relprop.explain(model, x, 1, rules=LRP_0[preset])
    assert_same(found.relevance, relevance(modified, x, 1))
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@EITHER
@pytest.mark.parametrize("norm_first", [True, False], ids=["norm first", "norm last"])
@pytest.mark.parametrize("norm", NORMS)
def test_encoders_by_their_norm(norm: str, norm_first: bool, preset: str) -> None:
    assert_as_by_autograd(Encoder, Style(norm=norm, norm_first=norm_first), preset)


@EITHER
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_encoders_by_their_activation(activation: str, preset: str) -> None:
    assert_as_by_autograd(Encoder, Style(activation=activation), preset)


@EITHER
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norm_first", [True, False], ids=["norm first", "norm last"])
def test_encoders_by_their_mask(mask: str, norm_first: bool, preset: str) -> None:
    assert_as_by_autograd(Encoder, Style(mask=mask, norm_first=norm_first, activation="gelu"), preset)


@EITHER
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("mask", ["none", "masked_fill"])
def test_encoders_by_how_attention_is_written(product: str, mask: str, preset: str) -> None:
    assert_as_by_autograd(Encoder, Style(product=product, mask=mask), preset)


@EITHER
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "alibi", "relative", *ROTARY])
def test_encoders_by_their_positions(position: str, preset: str) -> None:
    assert_as_by_autograd(Encoder, Style(position=position, mask="additive", heads=1, kv_heads=1), preset)


@EITHER
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_encoders_with_fewer_key_heads(kv_heads: int, preset: str) -> None:
    assert_as_by_autograd(Encoder, Style(heads=4, kv_heads=kv_heads, position="rotary", mask="where"), preset)


@EITHER
@pytest.mark.parametrize(
    "feed_forward", ["swiglu", "geglu", "glu", "mixture", "mixture, renormalised", "mixture, chosen first"]
)
def test_encoders_by_their_feed_forward_part(feed_forward: str, preset: str) -> None:
    """SwiGLU: two signals; GLU: a gate; a mixture: its router's softmax is a weight like attention's."""
    assert_as_by_autograd(Encoder, Style(feed_forward=feed_forward, norm="rms norm by hand"), preset)


@EITHER
@pytest.mark.parametrize(
    "style",
    [Style(), Style(norm="rms norm by hand", feed_forward="swiglu"), Style(product="sdpa", mask="masked_fill")],
    ids=["plain", "LLaMA's parts", "fused"],
)
def test_decoders_with_cross_attention(style: Style, preset: str) -> None:
    assert_as_by_autograd(Decoder, style, preset)


@EITHER
def test_token_ids_are_explained_at_the_embedding(preset: str) -> None:
    style = Style(position="learned", mask="additive", norm_first=False)
    ids = torch.randint(0, 20, (2, 5))
    model = with_functions(Encoder, FREE, style, words=20)
    modified = with_functions(Encoder, Modified(cp=preset == "cp-lrp"), style, words=20)
    expected = relevance(modified.embedded, modified.embedding(ids), 2).sum(-1)
    assert_same(relprop.explain(model, ids, 2, rules=LRP_0[preset]).relevance, expected)


@EITHER
@pytest.mark.parametrize("mask", ["none", "masked_fill"])
def test_epsilon_of_linear_operations_as_the_presets_have_it(mask: str, preset: str) -> None:
    """Nets without constants right after a linear layer, which fold into it, and without sums of linear layers."""
    style = Style(norm_first=False, mask=mask, activation="gelu")
    model = with_functions(Encoder, FREE, style)
    x = torch.randn(2, 5, D)
    for rules, eps in ((preset, 1e-6), (RuleMap([("affine", Epsilon(0.05)), *LRP_0[preset].entries]), 0.05)):
        modified = with_functions(Encoder, Modified(cp=preset == "cp-lrp", eps=eps), style)
        assert_same(relprop.explain(model, x, 1, rules=rules).relevance, relevance(modified, x, 1))
