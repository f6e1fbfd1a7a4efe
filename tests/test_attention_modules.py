"""torch's attention modules: the same relevance however they are called, as their formulas by hand, padded or not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_networks import additive, causal, randomised
from attention_rules import EITHER, LRP_0, in_double_precision  # noqa: F401  (a fixture for all tests of this file)
from oracle.attention_gradient import FREE, Functions, Modified, relevance
from torch import Tensor, nn

import relprop

TOLERANCE = 1e-10


def assert_same(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Equal up to a part of the largest expected value."""
    found, expected = ((t,) if isinstance(t, Tensor) else tuple(t) for t in (found, expected))
    assert len(found) == len(expected)
    largest = max(t.abs().max().item() for t in expected)
    assert largest > 1e-3
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * largest)


# ---- by hand, from the modules' own weights


def projections(module: nn.MultiheadAttention) -> list[tuple[Tensor, Tensor | None]]:
    """(weight, bias) of queries, keys and values."""
    if module.in_proj_weight is None:
        weights: Any = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    else:
        weights = module.in_proj_weight.chunk(3)
    biases: Any = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    return list(zip(weights, biases, strict=True))


def multihead(
    module: nn.MultiheadAttention, f: Functions, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """nn.MultiheadAttention by hand, batch first; mask: (B or 1, heads or 1, T, S), added to the logits."""
    q, k, v = (f.linear(t, *p) for t, p in zip((query, key, value), projections(module), strict=True))
    if module.bias_k is not None:
        k = torch.cat([k, module.bias_k.expand(len(k), 1, -1)], 1)
        v = torch.cat([v, module.bias_v.expand(len(v), 1, -1)], 1)
    if module.add_zero_attn:
        k, v = (F.pad(t, (0, 0, 0, 1)) for t in (k, v))
    q, k, v = (t.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    logits = f.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = logits + F.pad(mask, (0, logits.shape[-1] - mask.shape[-1]))
    return f(module.out_proj, f.attend(f.softmax(logits), v).transpose(1, 2).flatten(2))


def encoder_layer(layer: nn.TransformerEncoderLayer, f: Functions, x: Tensor, mask: Tensor | None = None) -> Tensor:
    def attention(x: Tensor) -> Tensor:
        return multihead(layer.self_attn, f, x, x, x, mask)

    def feed_forward(x: Tensor) -> Tensor:
        return f(layer.linear2, f.activation(layer.activation, f(layer.linear1, x)))

    if layer.norm_first:
        x = x + attention(f(layer.norm1, x))
        return x + feed_forward(f(layer.norm2, x))
    x = f(layer.norm1, x + attention(x))
    return f(layer.norm2, x + feed_forward(x))


def encoder(module: nn.TransformerEncoder, f: Functions, x: Tensor, mask: Tensor | None = None) -> Tensor:
    for layer in module.layers:
        x = encoder_layer(layer, f, x, mask)
    return x if module.norm is None else f(module.norm, x)


def decoder(
    module: nn.TransformerDecoder, f: Functions, y: Tensor, memory: Tensor, mask: Tensor, memory_mask: Tensor | None
) -> Tensor:
    for layer in module.layers:

        def own(y: Tensor, layer: Any = layer) -> Tensor:
            return multihead(layer.self_attn, f, y, y, y, mask)

        def cross(y: Tensor, layer: Any = layer) -> Tensor:
            return multihead(layer.multihead_attn, f, y, memory, memory, memory_mask)

        def feed_forward(y: Tensor, layer: Any = layer) -> Tensor:
            return f(layer.linear2, f.activation(layer.activation, f(layer.linear1, y)))

        parts = ((layer.norm1, own), (layer.norm2, cross), (layer.norm3, feed_forward))
        for norm, part in parts:
            y = y + part(f(norm, y)) if layer.norm_first else f(norm, y + part(y))
    return y if module.norm is None else f(module.norm, y)


# ---- nn.MultiheadAttention

PADDED = torch.tensor([[False] * 5, [False, False, False, True, True]])
ALLOWED = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
BIAS = torch.randn(3, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
PER_HEAD = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
BY_PADDING = additive(~PADDED)[:, None, None]
# Masks as nn.MultiheadAttention takes them, and what they add to the logits (B, heads, T, S).
MASKINGS: dict[str, tuple[dict[str, Any], Tensor | None]] = {
    "none": ({}, None),
    "padding": ({"key_padding_mask": PADDED}, BY_PADDING),
    "additive padding": ({"key_padding_mask": additive(~PADDED)}, BY_PADDING),
    "boolean": ({"attn_mask": ~ALLOWED}, additive(ALLOWED)[None, None]),
    "additive": ({"attn_mask": BIAS}, BIAS[None, None]),
    "per head": ({"attn_mask": PER_HEAD}, PER_HEAD.view(2, 2, 3, 5)),
    "boolean per head": (
        {"attn_mask": (PER_HEAD < 0) & (torch.arange(5) != 1)},
        additive((PER_HEAD >= 0) | (torch.arange(5) == 1)).view(2, 2, 3, 5),
    ),
    "causal": ({"attn_mask": ~causal(3, 5), "is_causal": True}, additive(causal(3, 5))[None, None]),
    "both": ({"attn_mask": BIAS, "key_padding_mask": additive(~PADDED)}, BIAS[None, None] + BY_PADDING),
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "keys and values added": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "other widths": {"kdim": 3, "vdim": 5},
    "all of it": {"kdim": 3, "vdim": 5, "add_bias_kv": True, "add_zero_attn": True},
}


class Multihead(nn.Module):
    """nn.MultiheadAttention and a linear head, summed over queries; by hand where functions are given."""

    def __init__(self, batch_first: bool = True, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first, **options)
        self.head, self.batch_first = nn.Linear(4, 3), batch_first
        self.options: dict[str, Any] = {}
        randomised(self)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All batch first."""
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        out, _ = self.attention(query, key, value, **self.options)
        return self.head(out if self.batch_first else out.transpose(0, 1)).sum(1)

    def by_hand(self, f: Functions, mask: Tensor | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda q, k, v: f(self.head, multihead(self.attention, f, q, k, v, mask)).sum(1)


def by_gradient(
    network: Callable[..., Tensor], inputs: tuple[Tensor, ...], target: int, preset: str
) -> tuple[Tensor, ...]:
    """Input x gradient of a network of Modified functions; zero for an input that does not count."""
    given = [x.detach().clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(network(*given)[:, target].sum(), given, allow_unused=True)
    pairs = zip(inputs, gradients, strict=True)
    return tuple(torch.zeros_like(x) if g is None else x * g for x, g in pairs)


@EITHER
@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_multihead_attention_is_its_formula(kind: str, masking: str, need_weights: bool, preset: str) -> None:
    options, mask = MASKINGS[masking]
    if options.get("is_causal") and (kind in ("keys and values added", "zero attention", "all of it")):
        pytest.skip("torch itself drops the mask then")
    model = Multihead(**KINDS[kind])
    model.options = options | {"need_weights": need_weights}
    attention = model.attention
    inputs = (torch.randn(2, 3, 4), torch.randn(2, 5, attention.kdim), torch.randn(2, 5, attention.vdim))
    torch.testing.assert_close(model(*inputs), model.by_hand(FREE, mask)(*inputs), rtol=1e-10, atol=1e-10)
    found = relprop.explain(model, inputs, 1, rules=LRP_0[preset])
    modified = model.by_hand(Modified(cp=preset == "cp-lrp"), mask)
    assert_same(found.relevance, by_gradient(modified, inputs, 1, preset))
    assert_same(found.relevance, relprop.explain(model.by_hand(FREE, mask), inputs, 1, rules=LRP_0[preset]).relevance)
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)


@EITHER
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_may_come_second(kind: str, preset: str) -> None:
    first, second = Multihead(True, **KINDS[kind]), Multihead(False, **KINDS[kind])
    attention = first.attention
    inputs = (torch.randn(2, 3, 4), torch.randn(2, 5, attention.kdim), torch.randn(2, 5, attention.vdim))
    found, expected = (relprop.explain(m, inputs, 1, rules=LRP_0[preset]).relevance for m in (second, first))
    assert_same(found, expected)


@EITHER
@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no weights"])
def test_self_attention_of_one_tensor(need_weights: bool, preset: str) -> None:
    """Queries, keys and values are one tensor, for which torch projects all three at once."""
    model = Multihead()
    model.options = {"need_weights": need_weights}
    x = torch.randn(2, 5, 4)
    modified = model.by_hand(Modified(cp=preset == "cp-lrp"), None)
    found = relprop.explain(lambda x: model(x, x, x), x, 1, rules=LRP_0[preset]).relevance
    assert_same(found, relevance(lambda x: modified(x, x, x), x, 1))


@EITHER
def test_keys_and_values_of_one_tensor(preset: str) -> None:
    """Torch projects the two at once."""
    model = Multihead()
    inputs = (torch.randn(2, 3, 4), torch.randn(2, 5, 4))
    modified = model.by_hand(Modified(cp=preset == "cp-lrp"), None)
    found = relprop.explain(lambda x, y: model(x, y, y), inputs, 1, rules=LRP_0[preset]).relevance
    assert_same(found, by_gradient(lambda x, y: modified(x, y, y), inputs, 1, preset))


@EITHER
def test_weights_that_are_returned_can_be_explained(preset: str) -> None:
    """Where a score is made of the attention weights themselves, they are explained like any other output."""
    model = Multihead()
    x = torch.randn(2, 5, 4)

    def of_weights(x: Tensor) -> Tensor:
        _, weights = model.attention(x, x, x, need_weights=True, average_attn_weights=False)
        return weights.diagonal(dim1=-2, dim2=-1).sum(-1)

    def by_hand(x: Tensor) -> Tensor:
        (wq, bq), (wk, bk), _ = projections(model.attention)
        q, k = (F.linear(x, w, b).unflatten(-1, (2, -1)).transpose(1, 2) for w, b in ((wq, bq), (wk, bk)))
        return (q @ k.transpose(-2, -1) * 2**-0.5).softmax(-1).diagonal(dim1=-2, dim2=-1).sum(-1)

    found, expected = (relprop.explain(m, x, 0, rules=LRP_0[preset]).relevance for m in (of_weights, by_hand))
    assert_same(found, expected)


# ---- nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer


class Stack(nn.Module):
    """A stack of nn.TransformerEncoderLayer and a linear head on the mean over tokens that are no padding."""

    def __init__(
        self, padded: Tensor | None = None, *, nested: bool = True, norm: bool = False, **options: Any
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
        last = nn.LayerNorm(8) if norm else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nested tensors that torch can't use here
            self.encoder = nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=nested)
        self.head, self.padded = nn.Linear(8, 3), padded
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(FREE, self.encoder(x, src_key_padding_mask=self.padded))

    def by_hand(self, f: Functions) -> Callable[[Tensor], Tensor]:
        mask = None if self.padded is None else additive(~self.padded)[:, None, None]
        return lambda x: self.scores(f, encoder(self.encoder, f, x, mask))

    def scores(self, f: Functions, hidden: Tensor) -> Tensor:
        if self.padded is None:
            return f(self.head, hidden.mean(1))
        kept = (~self.padded)[..., None]
        return f(self.head, (hidden * kept).sum(1) / kept.sum(1))


STACKS: dict[str, dict[str, Any]] = {
    "norm last": {},
    "norm first": {"norm_first": True, "norm": True},
    "gelu": {"activation": "gelu"},
    "gelu function": {"activation": F.gelu, "norm_first": True},
    "silu module": {"activation": nn.SiLU()},
    "no bias": {"bias": False},
}


@EITHER
@pytest.mark.parametrize("padded", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("kind", STACKS)
def test_an_encoder_is_its_formula(kind: str, padded: Tensor | None, preset: str) -> None:
    """In evaluation torch has a fused way through each layer and nested tensors for padding: they change nothing."""
    model = Stack(padded, **STACKS[kind])
    x = torch.randn(2, 5, 8)
    by_hand = model.by_hand(FREE)
    with torch.no_grad():
        torch.testing.assert_close(model(x), by_hand(x), rtol=1e-9, atol=1e-9)
    found = relprop.explain(model, x, 1, rules=LRP_0[preset]).relevance
    assert_same(found, relevance(model.by_hand(Modified(cp=preset == "cp-lrp")), x, 1))
    assert_same(found, relprop.explain(by_hand, x, 1, rules=LRP_0[preset]).relevance)


@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("padded", [None, PADDED], ids=["whole", "padded"])
def test_the_way_for_inference_changes_nothing(padded: Tensor | None, mode: Any, frozen: bool) -> None:
    """Under no_grad, or with parameters that need no gradient, torch takes its fused way through a layer."""
    model = Stack(padded).requires_grad_(not frozen)
    x = torch.randn(2, 5, 8)
    expected = relprop.explain(Stack(padded, nested=False), x, 1, rules="attn-lrp").relevance
    with mode():
        found = relprop.explain(model, x, 1, rules="attn-lrp")
        once_more = model(x)
    assert_same(found.relevance, expected)
    torch.testing.assert_close(found.output, once_more, rtol=1e-9, atol=1e-9)


def test_the_users_switch_for_the_fast_way_is_left_alone() -> None:
    for enabled in (False, True):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            relprop.explain(Stack(), torch.randn(2, 5, 8), 1)
            assert torch.backends.mha.get_fastpath_enabled() is enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


@EITHER
@pytest.mark.parametrize("norm_first", [False, True], ids=["norm last", "norm first"])
def test_a_decoder_is_its_formula(norm_first: bool, preset: str) -> None:
    """Causal self-attention and attention to a padded memory; both inputs are explained."""
    layer = nn.TransformerDecoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first, activation="gelu")
    module = randomised(nn.TransformerDecoder(layer, 2, nn.LayerNorm(8) if norm_first else None))
    head = randomised(nn.Linear(8, 3))
    inputs = (torch.randn(2, 3, 8), torch.randn(2, 5, 8))
    forbidden = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)

    def model(y: Tensor, memory: Tensor) -> Tensor:
        padded = {"memory_key_padding_mask": additive(~PADDED)}
        return head(module(y, memory, tgt_mask=forbidden, tgt_is_causal=True, **padded)[:, -1])

    def by_hand(f: Functions) -> Callable[..., Tensor]:
        return lambda y, memory: f(head, decoder(module, f, y, memory, forbidden[None, None], BY_PADDING)[:, -1])

    torch.testing.assert_close(model(*inputs), by_hand(FREE)(*inputs), rtol=1e-10, atol=1e-10)
    found = relprop.explain(model, inputs, 1, rules=LRP_0[preset]).relevance
    assert_same(found, by_gradient(by_hand(Modified(cp=preset == "cp-lrp")), inputs, 1, preset))
    assert_same(found, relprop.explain(by_hand(FREE), inputs, 1, rules=LRP_0[preset]).relevance)


@EITHER
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_whole_transformer_is_its_formula(batch_first: bool, preset: str) -> None:
    module = randomised(nn.Transformer(8, 2, 1, 1, 12, batch_first=batch_first))
    head = randomised(nn.Linear(8, 3))
    inputs = (torch.randn(2, 5, 8), torch.randn(2, 3, 8))
    forbidden = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)

    def model(x: Tensor, y: Tensor) -> Tensor:
        if not batch_first:
            return head(module(x.transpose(0, 1), y.transpose(0, 1), tgt_mask=forbidden)[-1])
        return head(module(x, y, tgt_mask=forbidden)[:, -1])

    def by_hand(f: Functions) -> Callable[..., Tensor]:
        def network(x: Tensor, y: Tensor) -> Tensor:
            memory = encoder(module.encoder, f, x)
            return f(head, decoder(module.decoder, f, y, memory, forbidden[None, None], None)[:, -1])

        return network

    torch.testing.assert_close(model(*inputs), by_hand(FREE)(*inputs), rtol=1e-10, atol=1e-10)
    found = relprop.explain(model, inputs, 1, rules=LRP_0[preset]).relevance
    assert_same(found, by_gradient(by_hand(Modified(cp=preset == "cp-lrp")), inputs, 1, preset))


# ---- batches


@EITHER
@pytest.mark.parametrize("kind", STACKS)
def test_padding_changes_nothing(kind: str, preset: str) -> None:
    """A short sequence alone, and padded next to a longer one; what is put there does not matter either."""
    x = torch.randn(2, 5, 8)
    x[1, 3:] = 100.0
    both = relprop.explain(Stack(PADDED, **STACKS[kind]), x, 1, rules=preset)
    alone = relprop.explain(Stack(None, **STACKS[kind]), x[1:, :3], 1, rules=preset)
    torch.testing.assert_close(both.score[1:], alone.score, rtol=1e-12, atol=1e-12)
    assert_same(both.relevance[1:, :3], alone.relevance, 1e-12)
    assert bool((both.relevance[1, 3:] == 0).all())


@EITHER
@pytest.mark.parametrize("kind", STACKS)
def test_a_batch_is_explained_as_one_by_one(kind: str, preset: str) -> None:
    model, x = Stack(None, **STACKS[kind]), torch.randn(3, 5, 8)
    single = [relprop.explain(model, x[n : n + 1], n, rules=preset).relevance for n in range(3)]
    assert_same(relprop.explain(model, x, [0, 1, 2], rules=preset).relevance, torch.cat(single), 1e-12)
