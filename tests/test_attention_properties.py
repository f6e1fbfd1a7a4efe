"""What holds of every Transformer: conservation and where relevance is lost, any shape and mask, low precision."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_networks import D, Encoder, Style, additive, causal, randomised
from attention_rules import EITHER, LRP_0, in_double_precision  # noqa: F401  (a fixture for all tests of this file)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import attention as oracle
from torch import Tensor, nn

import relprop


def without_bias(style: Style, seed: int = 0) -> nn.Module:
    """A random encoder whose linear layers and norms add nothing."""
    model = randomised(Encoder(style), seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return model


# ---- conservation

CONSERVED = {
    "rms norm": Style(norm="rms norm"),
    "rms norm by hand, norm last": Style(norm="rms norm by hand", norm_first=False, activation="gelu"),
    "layer norm without shift": Style(),
    "layer norm by hand": Style(norm="layer norm by pow", norm_first=False),
    "layer norm, silu": Style(activation="silu", mask="masked_fill"),
    "LLaMA's parts": Style(norm="rms norm", feed_forward="swiglu", position="rotary", mask="additive"),
    "gates": Style(norm="rms norm", feed_forward="glu", heads=4, kv_heads=2),
    "a mixture": Style(norm="rms norm", feed_forward="mixture, renormalised"),
    "fused": Style(norm="rms norm", product="sdpa", mask="masked_fill"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CONSERVED)
def test_cp_lrp_conserves_exactly_where_nothing_is_added(name: str, seed: int) -> None:
    """Also with layer norm, whose centring is a sum like any other, as long as it has no shift."""
    model, x = without_bias(CONSERVED[name], seed), torch.randn(3, 5, D)
    found = relprop.explain(model, x, 1, rules=LRP_0["cp-lrp"])
    torch.testing.assert_close(found.relevance.flatten(1).sum(1), found.score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CONSERVED)
def test_attn_lrp_loses_only_in_softmax_where_nothing_is_added(name: str) -> None:
    model, x = without_bias(CONSERVED[name]), torch.randn(3, 5, D)
    balance = relprop.explain(model, x, 1, rules=LRP_0["attn-lrp"]).conservation
    assert abs(balance.absorbed["softmax"]) > 1e-6
    assert balance.absorbed["softmax"] == pytest.approx(balance.difference, rel=1e-8)
    assert all(abs(lost) < 1e-9 for cause, lost in balance.absorbed.items() if cause != "softmax")


@EITHER
@pytest.mark.parametrize(
    "style",
    [
        Style(position="learned", mask="additive"),
        Style(norm_first=False, product="sdpa", mask="masked_fill"),
        Style(norm="rms norm by hand", feed_forward="swiglu", position="alibi"),
        Style(feed_forward="mixture", position="rotary"),
    ],
)
def test_what_each_operation_absorbs_adds_up(style: Style, preset: str) -> None:
    model, x = randomised(Encoder(style)), torch.randn(2, 5, D)
    for rules in (preset, LRP_0[preset]):
        balance = relprop.explain(model, x, 1, rules=rules).conservation
        for operation in balance.operations:
            assert sum(operation.absorbed.values()) == pytest.approx(operation.difference, abs=1e-9)
        assert sum(balance.absorbed.values()) == pytest.approx(balance.score - balance.relevance, abs=1e-9)


# ---- one attention, in any shape and under any mask


class OneAttention(nn.Module):
    """Linear layers without bias, attention fused or by hand, a linear layer without bias; one head."""

    def __init__(self, width: int, mask: Tensor, with_fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(3, width, bias=False) for _ in range(3))
        self.head, self.mask, self.with_fused = nn.Linear(width, 2, bias=False), mask, with_fused
        randomised(self)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(y), self.v(y)
        if self.with_fused:
            return self.head(F.scaled_dot_product_attention(q, k, v, self.mask.to(x))).sum(1)
        weights = (q @ k.mT * q.shape[-1] ** -0.5 + self.mask.to(x)).softmax(-1)
        return self.head(weights @ v).sum(1)

    def by_messages(self, x: Tensor, y: Tensor, cp: bool) -> tuple[np.ndarray, np.ndarray, float]:
        """What x and y get if class 1 is explained, and what softmax and mask keep."""
        layers = (self.q, self.k, self.v)
        given = [t.detach().numpy() for t in (x, y, y)]
        weights = [layer.weight.detach().numpy() for layer in layers]
        q, k, v = (t @ w.T for t, w in zip(given, weights, strict=True))
        mask, scale = self.mask.numpy(), q.shape[-1] ** -0.5
        out, head = oracle.forward(q, k, v, mask, scale), self.head.weight.detach().numpy()
        start = np.zeros((*out.shape[:-1], 2))
        start[..., 1] = (out @ head.T)[..., 1]
        R = oracle.linear_layer(out, head, np.zeros(2), start)
        parts = oracle.attention(*(t[:, None] for t in (q, k, v)), R[:, None], mask, scale, cp)
        kept = R.sum() - sum(part.sum() for part in parts)
        to_q, to_k, to_v = (
            oracle.linear_layer(t, w, np.zeros(len(w)), part[:, 0])
            for t, w, part in zip(given, weights, parts, strict=True)
        )
        return to_q, to_k + to_v, float(kept)


@st.composite
def masks(draw: Callable[..., int], queries: int, keys: int) -> Tensor:
    kind = draw(st.sampled_from(["none", "causal", "boolean", "bias", "bias and boolean"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    allowed = torch.rand(queries, keys, generator=generator) < 0.7
    bias = torch.randn(queries, keys, generator=generator, dtype=torch.float64)
    return {
        "none": torch.zeros(queries, keys, dtype=torch.float64),
        "causal": additive(causal(queries, keys)),
        "boolean": additive(allowed),
        "bias": bias,
        "bias and boolean": bias + additive(allowed),
    }[kind]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(list(LRP_0)), st.booleans())
def test_attention_of_any_shape_under_any_mask(data: st.DataObject, preset: str, with_fused: bool) -> None:
    """By messages; rows in which nothing may be seen are zeros if fused. What is lost is named."""
    batch, queries, keys, width = (data.draw(st.integers(1, 4)) for _ in range(4))
    mask = data.draw(masks(queries, keys))
    empty = ~torch.isfinite(mask).any(1)
    assume(not bool(empty.all() if with_fused else empty.any()))  # eager attention makes NaN of such a row
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    x, y = (torch.randn(batch, n, 3, generator=generator, dtype=torch.float64) for n in (queries, keys))
    model = OneAttention(width, mask, with_fused)
    found = relprop.explain(model, (x, y), 1, rules=LRP_0[preset])
    *expected, kept = model.by_messages(x, y, preset == "cp-lrp")
    for ours, wanted in zip(found.relevance, expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(wanted), rtol=1e-7, atol=1e-9 * np.abs(expected[1]).max())
    assert found.conservation.difference == pytest.approx(kept, abs=1e-8)
    named = [lost for cause, lost in found.conservation.absorbed.items() if cause != "rounding"]
    assert sum(named) == pytest.approx(kept, abs=1e-8)


# ---- low precision


@EITHER
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)], ids=str
)
@pytest.mark.parametrize("product", ["matmul", "sdpa"])
@pytest.mark.parametrize("mask", ["none", "additive", "masked_fill"])
def test_low_precision_stays_near(mask: str, product: str, dtype: torch.dtype, tolerance: float, preset: str) -> None:
    """Finite, of the model's type, and as near as its numbers allow."""
    style = Style(mask="where" if mask == "additive" else mask, product=product, activation="gelu")
    model, x = randomised(Encoder(style)), torch.randn(2, 5, D)
    expected = relprop.explain(model, x, 1, rules=preset).relevance
    found = relprop.explain(copy.deepcopy(model).to(dtype), x.to(dtype), 1, rules=preset).relevance
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_the_model_is_left_as_it_was() -> None:
    """No gradient on its parameters, no hook, and training goes on."""
    model, x = randomised(Encoder(Style(product="sdpa"))), torch.randn(2, 5, D)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    relprop.explain(model, x, 1, rules="attn-lrp")
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad and p.is_leaf for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    model.train()(x).sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "relative" not in name)
