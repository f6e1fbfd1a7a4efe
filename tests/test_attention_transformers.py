"""Small BERT, GPT-2, LLaMA, Mixtral and ViT of Hugging Face, as they are, against their formulas by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_networks import additive, attend, causal, randomised, rotate_half, split
from attention_rules import EITHER, LRP_0, in_double_precision  # noqa: F401  (a fixture for all tests of this file)
from oracle.attention_gradient import FREE, Functions, Modified, relevance
from torch import Tensor, nn

import relprop

transformers = pytest.importorskip("transformers")

PADDED = torch.tensor([[False] * 6, [False, False, False, False, True, True]])
WORDS, PAD = 20, 0


# ---- the same computations by hand, on embeddings or pixels, with the functions that are given


def new_gelu(z: Tensor) -> Tensor:
    return F.gelu(z, approximate="tanh")


def bert(model: Any, f: Functions, x: Tensor, allowed: Tensor) -> Tensor:
    parts = model.bert.embeddings
    x = x + parts.position_embeddings.weight[: x.shape[1]] + parts.token_type_embeddings.weight[0]
    x = f(parts.LayerNorm, x)
    for layer in model.bert.encoder.layer:
        own, out = layer.attention.self, layer.attention.output
        q, k, v = (split(f(part, x), own.num_attention_heads) for part in (own.query, own.key, own.value))
        seen = attend(q, k, v, f, lambda logits: logits + additive(allowed))
        x = f(out.LayerNorm, f(out.dense, seen.transpose(1, 2).flatten(2)) + x)
        hidden = f.activation(F.gelu, f(layer.intermediate.dense, x))
        x = f(layer.output.LayerNorm, f(layer.output.dense, hidden) + x)
    return f(model.classifier, f.activation(torch.tanh, f(model.bert.pooler.dense, x[:, 0])))


def gpt2(model: Any, f: Functions, x: Tensor, allowed: Tensor) -> Tensor:
    def conv1d(layer: Any, x: Tensor) -> Tensor:
        return f.linear(x, layer.weight.T, layer.bias)

    body = model.transformer
    x = x + body.wpe.weight[: x.shape[1]]
    for block in body.h:
        q, k, v = conv1d(block.attn.c_attn, f(block.ln_1, x)).chunk(3, -1)
        q, k, v = (split(t, block.attn.num_heads) for t in (q, k, v))
        seen = attend(q, k, v, f, lambda logits: logits + additive(allowed))
        x = conv1d(block.attn.c_proj, seen.transpose(1, 2).flatten(2)) + x
        hidden = f.activation(new_gelu, conv1d(block.mlp.c_fc, f(block.ln_2, x)))
        x = x + conv1d(block.mlp.c_proj, hidden)
    return last_token(f(model.score, f(body.ln_f, x)), allowed)


def llama(model: Any, f: Functions, x: Tensor, allowed: Tensor) -> Tensor:
    def rms_norm(norm: Any, x: Tensor) -> Tensor:
        """In float32, as the model does it."""
        single = x.to(torch.float32)
        scale = f.statistic(torch.rsqrt(single.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon))
        return norm.weight * (single * scale).to(x.dtype)

    def swiglu(mlp: Any, x: Tensor) -> Tensor:
        return f(mlp.down_proj, f.gated(f.activation(F.silu, f(mlp.gate_proj, x)), f(mlp.up_proj, x)))

    def mixture(mlp: Any, x: Tensor) -> Tensor:
        """Every expert on every token, its weight zero where it was not chosen."""
        weights = f.softmax(f.linear(x, mlp.gate.weight).to(torch.float32))
        best, chosen = weights.topk(mlp.gate.top_k, -1)
        best = best / f.statistic(best.sum(-1, keepdim=True))
        out = torch.zeros_like(x)
        for e in range(mlp.experts.num_experts):
            gate, up = f.linear(x, mlp.experts.gate_up_proj[e]).chunk(2, -1)
            made = f.linear(f.gated(f.activation(F.silu, gate), up), mlp.experts.down_proj[e])
            out = out + f.weigh((best * (chosen == e)).sum(-1, keepdim=True), made)
        return out

    config = model.config
    cos, sin = model.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    for layer in model.model.layers:
        own, h = layer.self_attn, rms_norm(layer.input_layernorm, x)
        q = split(f(own.q_proj, h), config.num_attention_heads)
        k, v = (split(f(part, h), config.num_key_value_heads) for part in (own.k_proj, own.v_proj))
        q, k = (t * cos[:, None] + rotate_half(t) * sin[:, None] for t in (q, k))
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        seen = attend(q, k, v, f, lambda logits: logits + additive(allowed))
        x = x + f(own.o_proj, seen.transpose(1, 2).flatten(2))
        x = x + (mixture if hasattr(layer.mlp, "experts") else swiglu)(
            layer.mlp, rms_norm(layer.post_attention_layernorm, x)
        )
    return last_token(f(model.score, rms_norm(model.model.norm, x)), allowed)


def vit(model: Any, f: Functions, x: Tensor, allowed: Tensor) -> Tensor:
    parts = model.vit.embeddings
    x = f(parts.patch_embeddings.projection, x).flatten(2).transpose(1, 2)
    x = torch.cat([parts.cls_token.expand(len(x), 1, -1), x], 1) + parts.position_embeddings
    for layer in model.vit.layers:
        own, h = layer.attention, f(layer.layernorm_before, x)
        q, k, v = (split(f(part, h), own.num_attention_heads) for part in (own.q_proj, own.k_proj, own.v_proj))
        seen = attend(q, k, v, f, lambda logits: logits)
        x = f(own.o_proj, seen.transpose(1, 2).flatten(2)) + x
        hidden = f.activation(F.gelu, f(layer.mlp.fc1, f(layer.layernorm_after, x)))
        x = f(layer.mlp.fc2, hidden) + x
    return f(model.classifier, f(model.vit.layernorm, x)[:, 0])


def last_token(scores: Tensor, allowed: Tensor) -> Tensor:
    """Of each sequence, at the last token that any query sees; allowed: (B, 1, T, T)."""
    last = allowed.any(-2)[:, 0].long().cumsum(-1).argmax(-1)
    return scores[torch.arange(len(scores)), last.expand(len(scores))]


# ---- the models


@dataclass(frozen=True)
class Case:
    """A model class of transformers, its configuration, and the same by hand.

    exact: everything is computed in float64; where not, float32 in between limits the agreement.
    """

    model: str
    config: str
    options: dict[str, Any]
    by_hand: Callable[[Any, Functions, Tensor, Tensor], Tensor]
    causal: bool = False
    exact: tuple[str, ...] = ("eager", "sdpa")


SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
OF_TOKENS = {"vocab_size": WORDS, "max_position_embeddings": 16, "pad_token_id": PAD, "num_labels": 3}
LLAMA = {**SIZES, **OF_TOKENS, "num_attention_heads": 4, "num_key_value_heads": 2}
CASES = {
    "BERT": Case("BertForSequenceClassification", "BertConfig", {**SIZES, **OF_TOKENS}, bert),
    "GPT-2": Case(
        "GPT2ForSequenceClassification",
        "GPT2Config",
        {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": 12, "n_positions": 16, **OF_TOKENS},
        gpt2,
        causal=True,
    ),
    "LLaMA": Case(
        "LlamaForSequenceClassification", "LlamaConfig", {**LLAMA, "attention_bias": True}, llama, causal=True, exact=()
    ),
    "Mixtral": Case(
        "MixtralForSequenceClassification",
        "MixtralConfig",
        {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
        llama,
        causal=True,
        exact=(),
    ),
    "ViT": Case(
        "ViTForImageClassification",
        "ViTConfig",
        {**SIZES, "image_size": 8, "patch_size": 4, "num_labels": 3},
        vit,
        exact=("sdpa",),
    ),
}


def build(case: Case, implementation: str, experts: str = "eager") -> Any:
    config = getattr(transformers, case.config)(**case.options)
    config._attn_implementation, config._experts_implementation = implementation, experts
    return randomised(getattr(transformers, case.model)(config))


def allowed_by(case: Case, padded: Tensor | None) -> Tensor:
    """(B or 1, 1, T, T)."""
    allowed = causal(6, 6) if case.causal else torch.ones(6, 6, dtype=torch.bool)
    return allowed[None, None] if padded is None else allowed & ~padded[:, None, None]


def assert_same(found: Tensor, expected: Tensor, exact: bool) -> None:
    largest = expected.abs().max().item()
    assert largest > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=(1e-8 if exact else 2e-6) * largest)


@EITHER
@pytest.mark.parametrize("padded", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "ViT"])
def test_language_models(name: str, implementation: str, padded: Tensor | None, preset: str) -> None:
    case = CASES[name]
    model, exact = build(case, implementation), implementation in case.exact
    ids = torch.randint(1, WORDS, (2, 6))
    inputs = {"input_ids": ids}
    if padded is not None:
        ids[padded] = PAD
        inputs["attention_mask"] = (~padded).long()
    allowed = allowed_by(case, padded)
    x = model.get_input_embeddings()(ids).detach()
    close = {"rtol": 0.0, "atol": 1e-9 if exact else 1e-5}
    torch.testing.assert_close(model(**inputs).logits, case.by_hand(model, FREE, x, allowed), **close)
    before = {key: t.clone() for key, t in model.state_dict().items()}

    modified = Modified(cp=preset == "cp-lrp")
    expected = relevance(lambda x: case.by_hand(model, modified, x, allowed), x, 1)
    found = relprop.explain(model, inputs, 1, rules=LRP_0[preset])
    assert_same(found.relevance["input_ids"], expected.sum(-1), exact)
    if padded is not None:
        assert bool((found.relevance["input_ids"][padded] == 0).all())
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())


@EITHER
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["BERT", "LLaMA"])
def test_embeddings_given_by_the_user(name: str, implementation: str, preset: str) -> None:
    """Every value of inputs_embeds, (B, T, d)."""
    case = CASES[name]
    model, x = build(case, implementation), torch.randn(1, 6, 8)
    modified = Modified(cp=preset == "cp-lrp")
    expected = relevance(lambda x: case.by_hand(model, modified, x, allowed_by(case, None)), x, 2)
    found = relprop.explain(model, {"inputs_embeds": x}, 2, rules=LRP_0[preset]).relevance["inputs_embeds"]
    assert_same(found, expected, implementation in case.exact)


@EITHER
@pytest.mark.parametrize(("experts", "dtype"), [("batched_mm", torch.float64), ("grouped_mm", torch.float32)])
def test_mixtures_whose_experts_are_multiplied_together(experts: str, dtype: torch.dtype, preset: str) -> None:
    """grouped_mm knows no float64."""
    model, ids = build(CASES["Mixtral"], "sdpa", experts).to(dtype), torch.randint(1, WORDS, (2, 6))
    expected = relprop.explain(build(CASES["Mixtral"], "sdpa"), {"input_ids": ids}, 1, rules=LRP_0[preset]).relevance
    found = relprop.explain(model, {"input_ids": ids}, 1, rules=LRP_0[preset]).relevance["input_ids"]
    largest = expected["input_ids"].abs().max().item()
    torch.testing.assert_close(found.double(), expected["input_ids"], rtol=0, atol=1e-4 * largest)


@EITHER
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_vision_transformer(implementation: str, preset: str) -> None:
    case, exact = CASES["ViT"], implementation in CASES["ViT"].exact
    model, x = build(case, implementation), torch.randn(2, 3, 8, 8)
    nothing = torch.ones(1)
    close = {"rtol": 0.0, "atol": 1e-9 if exact else 1e-5}
    torch.testing.assert_close(model(x).logits, case.by_hand(model, FREE, x, nothing), **close)
    modified = Modified(cp=preset == "cp-lrp")
    expected = relevance(lambda x: case.by_hand(model, modified, x, nothing), x, 1)
    assert_same(relprop.explain(model, x, 1, rules=LRP_0[preset]).relevance, expected, exact)


@pytest.mark.parametrize("preset", ["attn-lrp", "cp-lrp"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "ViT"])
def test_both_implementations_of_attention_agree(name: str, preset: str) -> None:
    ids = torch.randint(1, WORDS, (2, 6))
    fused, eager = (build(CASES[name], implementation) for implementation in ("sdpa", "eager"))
    found, expected = (
        relprop.explain(m, {"input_ids": ids}, 1, rules=preset).relevance["input_ids"] for m in (fused, eager)
    )
    assert_same(found, expected, bool(CASES[name].exact))


def test_a_language_model_head_explains_the_next_token() -> None:
    """The score of token 7 after the last position, by GPT-2 with its cache on."""
    config = transformers.GPT2Config(**CASES["GPT-2"].options)
    model = randomised(transformers.GPT2LMHeadModel(config))
    ids = torch.randint(1, WORDS, (2, 6))
    found = relprop.explain(model, {"input_ids": ids}, lambda output: output.logits[:, -1, 7], rules=LRP_0["attn-lrp"])

    class AsClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer, self.score = model.transformer, model.lm_head

    allowed = allowed_by(CASES["GPT-2"], None)
    x = model.get_input_embeddings()(ids).detach()
    expected = relevance(lambda x: gpt2(AsClassifier(), Modified(), x, allowed), x, 7)
    assert_same(found.relevance["input_ids"], expected.sum(-1), True)
