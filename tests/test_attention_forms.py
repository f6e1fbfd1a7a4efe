"""Attention in the many forms in which people write it down: each is the same formula, and is explained as it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_networks import additive, alibi, causal, split
from attention_rules import EITHER, LRP_0, in_double_precision  # noqa: F401  (a fixture for all tests of this file)
from oracle.attention_gradient import FREE, Functions, Modified, relevance
from torch import Tensor, nn

import relprop
from relprop.errors import NonFinite, TrainingMode

Logits = Callable[[Tensor], Tensor]


def fixed(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# The weights of all: two heads of width 4 on x (B, 5, 8), three classes.
W = {name: fixed(8, 8, seed=seed) / 3 for seed, name in enumerate("qkvo")}
B = {name: fixed(8, seed=10 + seed) / 3 for seed, name in enumerate("qkvo")}
HEAD = fixed(3, 8, seed=20)
LATENTS = fixed(3, 8, seed=21)
SINK = fixed(2, 1, 1, seed=22)
SCALE = 0.5


def project(x: Tensor, f: Functions = FREE) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (B, heads, T, width)."""
    q, k, v = (split(f.linear(x, W[name], B[name]), 2) for name in "qkv")
    return q, k, v


def scores(seen: Tensor, f: Functions = FREE) -> Tensor:
    """(B, 3) from what was seen (B, heads, T, width)."""
    return f.linear(f.linear(seen.transpose(1, 2).flatten(2), W["o"], B["o"]), HEAD).sum(1)


def formula(f: Functions, x: Tensor, logits_of: Logits = lambda t: t, norm: Logits = lambda t: t) -> Tensor:
    q, k, v = project(x, f)
    logits = f.matmul(norm(q), norm(k).transpose(-2, -1)) * SCALE
    return scores(f.attend(f.softmax(logits_of(logits)), v), f)


def assert_explained_as(
    user: Callable[[Tensor], Tensor], by_formula: Callable[[Functions, Tensor], Tensor], preset: str
) -> None:
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(user(x), by_formula(FREE, x), rtol=1e-10, atol=1e-10)
    found = relprop.explain(user, x, 1, rules=LRP_0[preset])
    expected = relevance(lambda x: by_formula(Modified(cp=preset == "cp-lrp"), x), x, 1)
    largest = expected.abs().max().item()
    torch.testing.assert_close(found.relevance, expected, rtol=0, atol=1e-8 * largest)
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)


# ---- the plain formula, written differently


def einsum_with_spaces(x: Tensor) -> Tensor:
    q, k, v = project(x)
    weights = torch.softmax(torch.einsum("b h i d, b h j d -> b h i j", q, k) * SCALE, -1)
    return scores(torch.einsum("...ij,...jd->...id", weights, v))


def einsum_heads_last(x: Tensor) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in project(x))
    weights = torch.softmax(torch.einsum("bihd,bjhd->bhij", q, k) * SCALE, -1)
    return scores(torch.einsum("bhij,bjhd->bihd", weights, v).transpose(1, 2))


def projected_at_once(x: Tensor) -> Tensor:
    """As timm writes a ViT."""
    weight, bias = torch.cat([W[n] for n in "qkv"]), torch.cat([B[n] for n in "qkv"])
    q, k, v = F.linear(x, weight, bias).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    weights = F.dropout(((q * SCALE) @ k.transpose(-2, -1)).softmax(dim=-1), 0.1, training=False)
    return scores(weights @ v)


def head_by_head(x: Tensor) -> Tensor:
    parts = []
    for q, k, v in zip(*(t.unbind(1) for t in project(x)), strict=True):
        parts.append(torch.bmm(torch.softmax(torch.bmm(q, k.mT).mul(SCALE), 2), v))
    return scores(torch.stack(parts, 1))


def keys_first(x: Tensor) -> Tensor:
    """Logits (S, T): the softmax runs over dimension -2."""
    q, k, v = project(x)
    weights = ((k @ q.mT) * SCALE).softmax(-2)
    return scores(weights.transpose(-2, -1) @ v)


def in_another_type(x: Tensor) -> Tensor:
    q, k, v = project(x)
    return scores(F.softmax(q @ k.mT * SCALE, dim=-1, dtype=torch.float64).to(q.dtype).type_as(v) @ v)


def in_place(x: Tensor) -> Tensor:
    q, k, v = project(x)
    logits = q.mul_(SCALE).matmul(k.mT).add_(0.25)
    return scores(F.softmax(logits.sub_(0.25), -1).matmul(v))


def minus_the_largest(x: Tensor) -> Tensor:
    """Before the softmax, which does not mind."""
    q, k, v = project(x)
    logits = q @ k.mT * SCALE
    return scores((logits - logits.max(-1, keepdim=True).values.detach()).softmax(-1) @ v)


def softmax_by_hand(x: Tensor) -> Tensor:
    q, k, v = project(x)
    e = torch.exp(q @ k.mT * SCALE)
    return scores((e / e.sum(-1, keepdim=True)) @ v)


def softmax_by_hand_minus_the_largest(x: Tensor) -> Tensor:
    q, k, v = project(x)
    logits = q @ k.mT * SCALE
    e = torch.exp(logits - logits.max(-1, keepdim=True)[0])
    return scores((e / e.sum(-1, keepdim=True)) @ v)


def fused(x: Tensor) -> Tensor:
    return scores(F.scaled_dot_product_attention(*project(x), scale=SCALE))


def by_the_function_of_nn(x: Tensor) -> Tensor:
    """F.multi_head_attention_forward, sequence first."""
    weight, bias = torch.cat([W[n] for n in "qkv"]), torch.cat([B[n] for n in "qkv"])
    t = x.transpose(0, 1)
    options: dict[str, Any] = {"training": False, "need_weights": False}
    out, _ = F.multi_head_attention_forward(
        t, t, t, 8, 2, weight, bias, None, None, False, 0.0, W["o"], B["o"], **options
    )
    return F.linear(out.transpose(0, 1), HEAD).sum(1)


PLAIN = (
    einsum_with_spaces,
    einsum_heads_last,
    projected_at_once,
    head_by_head,
    keys_first,
    in_another_type,
    in_place,
    minus_the_largest,
    softmax_by_hand,
    softmax_by_hand_minus_the_largest,
    fused,
    by_the_function_of_nn,
)


@EITHER
@pytest.mark.parametrize("form", PLAIN)
def test_forms_of_the_plain_formula(form: Callable[[Tensor], Tensor], preset: str) -> None:
    assert_explained_as(form, formula, preset)


# ---- variants of the formula


def baddbmm_with_alibi(x: Tensor) -> Tensor:
    """As BLOOM writes it."""
    q, k, v = (t.flatten(0, 1) for t in project(x))
    bias = alibi(2, 5, 5).expand(len(x), 2, 5, 5).reshape(-1, 5, 5)
    logits = torch.baddbmm(bias, q, k.transpose(1, 2), beta=1.0, alpha=SCALE)
    return scores(torch.bmm(F.softmax(logits, -1), v).unflatten(0, (len(x), 2)))


def with_alibi(f: Functions, x: Tensor) -> Tensor:
    return formula(f, x, lambda logits: logits + alibi(2, 5, 5))


def capped(f: Functions, x: Tensor) -> Tensor:
    """Gemma 2: logits between -2 and 2."""
    return formula(f, x, lambda logits: f.activation(torch.tanh, logits / 2) * 2)


def masked_in_place(x: Tensor) -> Tensor:
    q, k, v = project(x)
    return scores(q.matmul(k.mT).mul_(SCALE).add_(additive(causal(5, 5))).softmax(-1).matmul(v))


def masked(f: Functions, x: Tensor) -> Tensor:
    return formula(f, x, lambda logits: logits + additive(causal(5, 5)))


def with_sinks(f: Functions, x: Tensor) -> Tensor:
    """GPT-OSS: a learned logit per head takes its share of the weights and is dropped."""
    q, k, v = project(x, f)
    logits = f.matmul(q, k.transpose(-2, -1)) * SCALE
    logits = torch.cat([logits, SINK.expand(len(x), 2, 5, 1)], -1)
    if f is FREE:
        logits = logits - logits.max(-1, keepdim=True).values
    return scores(f.attend(f.softmax(logits)[..., :-1], v), f)


def normalised_by_torch(x: Tensor) -> Tensor:
    q, k, v = project(x)
    return scores((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * SCALE).softmax(-1) @ v)


def normalised(f: Functions, x: Tensor) -> Tensor:
    """Cosine attention (Swin 2)."""
    return formula(f, x, norm=lambda t: t / f.statistic(t.norm(dim=-1, keepdim=True).clamp_min(1e-12)))


def rms_normalised_by_torch(x: Tensor) -> Tensor:
    q, k, v = (F.rms_norm(t, (4,), None, 1e-6) if i < 2 else t for i, t in enumerate(project(x)))
    return scores(F.scaled_dot_product_attention(q, k, v, scale=SCALE))


def rms_normalised(f: Functions, x: Tensor) -> Tensor:
    """Queries and keys normalised (Qwen 3)."""
    return formula(f, x, norm=lambda t: t * f.statistic((t.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()))


def pooled_by_weights(x: Tensor) -> Tensor:
    weights = F.softmax(F.linear(x, HEAD[:1]), 1)
    return F.linear((weights * x).sum(1), HEAD)


def pooled_by_bmm(x: Tensor) -> Tensor:
    weights = F.softmax(F.linear(x, HEAD[:1]), 1)
    return F.linear(torch.bmm(weights.transpose(1, 2), x)[:, 0], HEAD)


def pooled(f: Functions, x: Tensor) -> Tensor:
    """One score for each token, and their weighted sum."""
    return f.linear(f.weigh(f.softmax(f.linear(x, HEAD[:1]), 1), x).sum(1), HEAD)


def shifted_windows(f: Functions, x: Tensor) -> Tensor:
    """Swin: four tokens rolled by one, in windows of two, with a mask and a bias per distance."""
    table = fixed(3, seed=23)
    distance = torch.arange(2)[:, None] - torch.arange(2) + 1
    parted = additive(torch.tensor([[[True, True], [True, True]], [[True, False], [False, True]]]))
    rolled = torch.roll(x[:, :4], -1, 1).reshape(-1, 2, 8)
    q, k, v = project(rolled, f)
    logits = f.matmul(q, k.transpose(-2, -1)) * SCALE + table[distance]
    logits = (logits.view(-1, 2, 2, 2, 2) + parted[None, :, None]).view(-1, 2, 2, 2)
    seen = f.attend(f.softmax(logits), v).transpose(1, 2).reshape(-1, 4, 8)
    back = torch.roll(seen, 1, 1)
    return scores(split(back, 2), f) + f.linear(x, HEAD).sum(1)


VARIANTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Functions, Tensor], Tensor]]] = {
    "baddbmm with alibi": (baddbmm_with_alibi, with_alibi),
    "capped": (lambda x: capped(FREE, x), capped),
    "masked in place": (masked_in_place, masked),
    "sinks": (lambda x: with_sinks(FREE, x), with_sinks),
    "normalised": (normalised_by_torch, normalised),
    "normalised by hand": (lambda x: normalised(FREE, x), normalised),
    "rms normalised": (rms_normalised_by_torch, rms_normalised),
    "rms normalised by hand": (lambda x: rms_normalised(FREE, x), rms_normalised),
    "pooled by weights": (pooled_by_weights, pooled),
    "pooled by bmm": (pooled_by_bmm, pooled),
    "shifted windows": (lambda x: shifted_windows(FREE, x), shifted_windows),
}


@EITHER
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_the_formula(name: str, preset: str) -> None:
    assert_explained_as(*VARIANTS[name], preset)


# ---- what may happen to attention weights without making signals of them

KEEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "masked_fill": lambda w: w.masked_fill(~causal(5, 5), 0.0),
    "times a mask": lambda w: w * causal(5, 5),
    "tril": torch.tril,
    "where": lambda w: torch.where(w > 0.1, w, torch.zeros_like(w)),
    "nan_to_num": torch.nan_to_num,
    "renormalised": lambda w: (w * causal(5, 5)) / ((w * causal(5, 5)).sum(-1, keepdim=True) + 1e-9),
    "normalize": lambda w: F.normalize(w * causal(5, 5), p=1.0, dim=-1),
    "mean over heads": lambda w: w.mean(1, keepdim=True),
    "with the residual": lambda w: (w + torch.eye(5)) / 2,
    "gather": lambda w: w.gather(-1, torch.arange(4, -1, -1).expand_as(w)),
    "best two": lambda w: torch.zeros_like(w).scatter(-1, w.topk(2, -1).indices, w.topk(2, -1).values),
    "best two of a clone": lambda w: w.clone().index_copy_(-1, torch.tensor([0, 3]), w.topk(2, -1)[0]),
}


@pytest.mark.parametrize("name", KEEPS)
def test_attention_weights_stay_weights_under_cp_lrp(name: str) -> None:
    """However they are masked, chosen, moved or normalised, no relevance goes to them."""

    def model(f: Functions, x: Tensor) -> Tensor:
        q, k, v = project(x, f)
        return scores(f.attend(KEEPS[name](f.softmax(q @ k.mT * SCALE)), v), f)

    assert_explained_as(lambda x: model(FREE, x), model, "cp-lrp")


# ---- constants among queries, keys and values


def partly_constant(f: Functions, x: Tensor, constant: str, with_fused: bool) -> Tensor:
    """Queries, keys or values are learned and do not depend on the input, whose first three tokens count."""
    q, k, v = (
        split(f.linear(x[:, :3], W[name], B[name]), 2)
        if name not in constant
        else split(F.linear(LATENTS, W[name], B[name]).expand(len(x), -1, -1), 2)
        for name in "qkv"
    )
    if with_fused:
        return scores(F.scaled_dot_product_attention(q, k, v, scale=SCALE), f)
    return scores(f.attend(f.softmax(f.matmul(q, k.transpose(-2, -1)) * SCALE), v), f)


@EITHER
@pytest.mark.parametrize("with_fused", [False, True], ids=["eager", "fused"])
@pytest.mark.parametrize("constant", ["q", "k", "v", "qk", "qv", "kv"])
def test_a_constant_factor_takes_no_half(constant: str, with_fused: bool, preset: str) -> None:
    """Learned queries (Perceiver, pooling heads), keys or values: the other factor takes all.

    Where values are constant the weights are the only signal, so that CP-LRP, too, goes through their softmax.
    """
    assert_explained_as(
        lambda x: partly_constant(FREE, x, constant, with_fused),
        lambda f, x: partly_constant(f, x, constant, False),
        "attn-lrp" if "v" in constant else preset,
    )


@pytest.mark.parametrize("with_fused", [False, True], ids=["eager", "fused"])
@pytest.mark.parametrize("constant", ["v", "qv", "kv"])
def test_weights_of_constant_values_are_the_signal_under_cp_lrp(constant: str, with_fused: bool) -> None:
    """Nothing else carries the score, and a note says so."""
    x = torch.randn(2, 5, 8)
    cp, attn = (
        relprop.explain(lambda x: partly_constant(FREE, x, constant, with_fused), x, 1, rules=rules)
        for rules in LRP_0.values()
    )
    torch.testing.assert_close(cp.relevance, attn.relevance, rtol=1e-9, atol=1e-11)
    assert any("softmax" in note for note in cp.notes)


@EITHER
def test_pooling_by_a_learned_query_of_multihead_attention(preset: str) -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    query = nn.Parameter(torch.randn(1, 2, 8))

    def model(x: Tensor) -> Tensor:
        return F.linear(module(query.expand(len(x), -1, -1), x, x, need_weights=False)[0], HEAD).sum(1)

    def by_formula(f: Functions, x: Tensor) -> Tensor:
        (wq, wk, wv), (bq, bk, bv) = (t.detach().chunk(3) for t in (module.in_proj_weight, module.in_proj_bias))
        q = split(F.linear(query.detach(), wq, bq), 2)
        k, v = (split(f.linear(x, w, b), 2) for w, b in ((wk, bk), (wv, bv)))
        seen = f.attend(f.softmax(f.matmul(q, k.transpose(-2, -1)) * SCALE), v).transpose(1, 2).flatten(2)
        out = f.linear(seen, module.out_proj.weight.detach(), module.out_proj.bias.detach())
        return f.linear(out, HEAD).sum(1)

    assert_explained_as(model, by_formula, preset)


# ---- a query that may see nothing

NONE_FOR_THE_FIRST = torch.ones(5, 5, dtype=torch.bool).index_fill(0, torch.tensor(0), False)


@EITHER
def test_zeros_in_place_of_the_nan_of_an_empty_row_are_explained_as_fused_attention(preset: str) -> None:
    def eager(x: Tensor) -> Tensor:
        q, k, v = project(x)
        logits = (q @ k.mT * SCALE).masked_fill(~NONE_FOR_THE_FIRST, -math.inf)
        return scores(torch.nan_to_num(logits.softmax(-1)) @ v)

    def with_mask(x: Tensor) -> Tensor:
        return scores(F.scaled_dot_product_attention(*project(x), attn_mask=NONE_FOR_THE_FIRST, scale=SCALE))

    x = torch.randn(2, 5, 8)
    found, expected = (relprop.explain(f, x, 1, rules=LRP_0[preset]).relevance for f in (eager, with_mask))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("tokens", [slice(None), slice(1, None)], ids=["in the score", "beside the score"])
def test_the_nan_of_an_empty_row_is_an_error(tokens: slice) -> None:
    """Eager attention gives NaN for it; never is relevance NaN in silence."""

    def model(x: Tensor) -> Tensor:
        q, k, v = project(x)
        logits = (q @ k.mT * SCALE).masked_fill(~NONE_FOR_THE_FIRST, -math.inf)
        return scores((logits.softmax(-1) @ v)[:, :, tokens])

    with pytest.raises(NonFinite):
        relprop.explain(model, torch.randn(2, 5, 8), 1)


def test_the_nan_of_multihead_attention_that_returns_weights_is_an_error() -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    padded = torch.tensor([[True] * 5, [False] * 5])
    x = torch.randn(2, 5, 8)
    with pytest.raises(NonFinite, match="sample 0"):
        relprop.explain(lambda x: module(x, x, x, key_padding_mask=padded)[0].sum(1), x, 1)


@EITHER
def test_a_row_masked_by_the_lowest_number_looks_everywhere(preset: str) -> None:
    """As transformers masks: the softmax of equal numbers is uniform, and that is what is explained."""
    mask = additive(NONE_FOR_THE_FIRST).clamp(min=torch.finfo(torch.float64).min)

    def model(f: Functions, x: Tensor) -> Tensor:
        return formula(f, x, lambda logits: logits + mask)

    x = torch.randn(2, 5, 8)
    expected = relevance(lambda x: model(Modified(cp=preset == "cp-lrp"), x), x, 1)
    found = relprop.explain(lambda x: model(FREE, x), x, 1, rules=LRP_0[preset]).relevance
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("with_fused", [False, True], ids=["eager", "fused"])
def test_attention_weights_dropped_at_random_are_an_error(with_fused: bool) -> None:
    def model(x: Tensor) -> Tensor:
        q, k, v = project(x)
        if with_fused:
            return scores(F.scaled_dot_product_attention(q, k, v, dropout_p=0.1))
        return scores(F.dropout((q @ k.mT).softmax(-1), 0.1) @ v)

    with pytest.raises(TrainingMode, match="at random"):
        relprop.explain(model, torch.randn(2, 5, 8), 1)
