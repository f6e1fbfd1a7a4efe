"""Relevance inside Transformers: of blocks, of attention heads, and of what passes from token to token."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop.attribution import load
from relprop.errors import InvalidInput
from relprop.rules import Half, SignalTakesAll, Zero

TOKENS, WIDTH, HEADS, VOCABULARY = 6, 8, 2, 20
RULES = {
    "cp-lrp": relprop.RuleMap([("affine", Zero()), ("attention", SignalTakesAll())]),
    "attn-lrp": relprop.RuleMap([("affine", Zero()), ("attention", Half())]),
}
BOTH = pytest.mark.parametrize("preset", RULES)
FORMS = ("by hand", "fused", "module")


class Attention(nn.Module):
    """Self-attention in one of three forms of the same weights, (batch, tokens, width)."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.whole = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor, padded: Tensor | None) -> Tensor:
        if self.form == "module":
            return self.whole(x, x, x, key_padding_mask=padded, need_weights=False)[0]
        q, k, v = (
            t.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for t in F.linear(x, self.whole.in_proj_weight, self.whole.in_proj_bias).chunk(3, -1)
        )
        allowed = None if padded is None else ~padded[:, None, None]
        if self.form == "fused":
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            o = (scores if allowed is None else scores.masked_fill(~allowed, -math.inf)).softmax(-1) @ v
        return self.whole.out_proj(o.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """A post-norm block, or a pre-norm one."""

    def __init__(self, form: str, first: bool) -> None:
        super().__init__()
        self.first = first
        self.attention = Attention(form)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, padded: Tensor | None) -> Tensor:
        if self.first:
            x = x + self.attention(self.norm1(x), padded)
            return x + self.narrow(self.wide(self.norm2(x)).relu())
        x = self.norm1(x + self.attention(x, padded))
        return self.norm2(x + self.narrow(self.wide(x).relu()))


class Encoder(nn.Module):
    """Token ids (batch, tokens), 0 for padding, to three scores."""

    def __init__(self, form: str, first: bool = False, blocks: int = 2) -> None:
        super().__init__()
        self.pieces = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block(form, first) for _ in range(blocks))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x, padded = self.pieces(ids), ids == 0
        for block in self.blocks:
            x = block(x, padded if bool(padded.any()) else None)
        return self.head(x[:, 0] + x[:, 1])


def encoder(form: str, first: bool = False) -> Encoder:
    """The same random weights in every form, biases and norms included; float64."""
    model = Encoder(form, first).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / math.sqrt(WIDTH) + (name.endswith("weight") and parameter.dim() == 1))
    return model


def sentence(padding: int = 0) -> Tensor:
    ids = torch.randint(1, VOCABULARY, (3, TOKENS), generator=torch.Generator().manual_seed(1))
    ids[1, TOKENS - padding :] = 0
    return ids


def halved(x: Tensor) -> Tensor:
    """x, whose gradient is half."""
    return 0.5 * x + 0.5 * x.detach()


def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm with its deviation a constant."""
    centred = x - x.mean(-1, keepdim=True)
    return norm.weight * centred / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt().detach() + norm.bias


class Expected:
    """What is to come out, by autograd through the formulas with statistics held constant: relevance is value times
    gradient. Half of what a product of two signals gets goes to each of them; under CP-LRP attention weights are
    constants."""

    def __init__(self, model: Encoder, ids: Tensor, target: int, preset: str) -> None:
        share = halved if preset == "attn-lrp" else (lambda x: x)
        x = self.embedded = model.pieces(ids).detach().requires_grad_()
        allowed = (ids != 0)[:, None, None]
        outputs, self.weights, self.values, self.mixed = [], [], [], []
        for block in model.blocks:
            whole = block.attention.whole
            given = normed(block.norm1, x) if block.first else x
            q, k, v = (
                t.unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for t in F.linear(given, whole.in_proj_weight, whole.in_proj_bias).chunk(3, -1)
            )
            scores = share(q) @ share(k).transpose(-2, -1) / math.sqrt(q.shape[-1])
            weights = scores.masked_fill(~allowed, -math.inf).softmax(-1)
            weights = share(weights) if preset == "attn-lrp" else weights.detach()
            mixed = weights @ share(v)
            mixed.retain_grad()
            x = x + whole.out_proj(mixed.transpose(1, 2).flatten(-2))
            x = x if block.first else normed(block.norm1, x)
            z = block.wide(normed(block.norm2, x) if block.first else x)
            x = x + block.narrow(z.relu())
            x = x if block.first else normed(block.norm2, x)
            x.retain_grad()
            outputs.append(x)
            self.weights.append(weights)
            self.values.append(v)
            self.mixed.append(mixed)
        self.score = model.head(x[:, 0] + x[:, 1])[:, target]
        self.score.sum().backward()
        self.blocks = [(x * x.grad).detach() for x in outputs]
        self.relevance = (self.embedded * self.embedded.grad).sum(-1)

    def heads(self, block: int) -> Tensor:
        """(batch, heads, queries): the relevance of the heads' outputs, before they are projected."""
        mixed = self.mixed[block]
        return (mixed * mixed.grad).sum(-1).detach()

    def messages(self, block: int) -> Tensor:
        """(batch, heads, queries, keys): weight times the value of the key times the gradient at the query."""
        gradient = self.mixed[block].grad
        return torch.einsum("bhqk,bhkd,bhqd->bhqk", self.weights[block], self.values[block], gradient).detach()


@BOTH
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", [False, True], ids=["post-norm", "pre-norm"])
def test_blocks_heads_and_messages_are_value_times_modified_gradient(form: str, first: bool, preset: str) -> None:
    model, ids = encoder(form, first), sentence()
    found = relprop.explain(model, ids, 2, rules=RULES[preset], attention=True)
    expected = Expected(model, ids, 2, preset)
    assert len(found.attention) == len(model.blocks)
    assert torch.allclose(found.score, expected.score, rtol=0, atol=1e-12)
    assert torch.allclose(found.relevance, expected.relevance, rtol=0, atol=1e-10)
    for place, (name, passed) in enumerate(found.attention.items()):
        assert name.startswith(f"blocks.{place}.attention")
        assert torch.allclose(passed, expected.messages(place), rtol=0, atol=1e-10)
        assert torch.allclose(passed.sum(-1), expected.heads(place), rtol=0, atol=1e-10)
        assert torch.allclose(found.heads[name], expected.heads(place).sum(-1), rtol=0, atol=1e-10)
        assert torch.allclose(found.layers[f"blocks.{place}"], expected.blocks[place], rtol=0, atol=1e-10)
        assert expected.messages(place).abs().max() > 1e-3


@BOTH
@pytest.mark.parametrize("form", FORMS)
def test_a_padded_key_is_passed_exactly_nothing(form: str, preset: str) -> None:
    model, ids = encoder(form), sentence(padding=2)
    found = relprop.explain(model, ids, 0, rules=RULES[preset], attention=True)
    expected = Expected(model, ids, 0, preset)
    for place, passed in enumerate(found.attention.values()):
        assert torch.equal(passed[1, :, :, -2:], torch.zeros(HEADS, TOKENS, 2, dtype=torch.float64))
        assert bool((passed[[0, 2], :, :, -2:] != 0).any())
        assert torch.allclose(passed, expected.messages(place), rtol=0, atol=1e-10)


@BOTH
@pytest.mark.parametrize("form", FORMS)
def test_a_head_without_values_has_no_relevance(form: str, preset: str) -> None:
    model = encoder(form)
    wide = WIDTH // HEADS
    with torch.no_grad():  # the rows of the first block's second head among the values
        model.blocks[0].attention.whole.in_proj_weight[2 * WIDTH + wide :] = 0
        model.blocks[0].attention.whole.in_proj_bias[2 * WIDTH + wide :] = 0
    first, second = relprop.explain(model, sentence(), 1, rules=RULES[preset], attention=True).heads.values()
    assert torch.equal(first[:, 1], torch.zeros(3, dtype=torch.float64))
    assert bool((first[:, 0] != 0).all()) and bool((second != 0).all())


@BOTH
def test_relevance_of_blocks_is_what_the_operations_between_them_left(preset: str) -> None:
    model, ids = encoder("by hand", first=True), sentence()
    found = relprop.explain(model, ids, 2, rules=RULES[preset], attention=True)
    sums = [float(found.score.sum())] + [float(found.layers[f"blocks.{place}"].sum()) for place in (1, 0)]
    lost = dict.fromkeys(("head", "blocks.1", "blocks.0"), 0.0)
    for operation in found.conservation.operations:
        for name in lost:
            if operation.module == name or operation.module.startswith(f"{name}."):
                lost[name] += sum(operation.absorbed.values())
    assert sums[0] - sums[1] == pytest.approx(lost["head"], abs=1e-9)
    assert sums[1] - sums[2] == pytest.approx(lost["blocks.1"], abs=1e-9)
    assert abs(lost["blocks.1"]) > 1e-3


def test_without_biases_cp_lrp_gives_every_block_the_whole_score() -> None:
    model, ids = encoder("fused"), sentence()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    found = relprop.explain(model, ids, 1, rules=RULES["cp-lrp"], attention=True)
    for relevance in found.layers.values():
        assert torch.allclose(relevance.sum((1, 2)), found.score, rtol=0, atol=1e-10)
    flow = found.flow(1)
    assert flow.states.sum(1) == pytest.approx([float(found.score[1])] * 3, abs=1e-10)
    # Then every state is what the tokens above passed to it, and what stayed on it.
    arrived = flow.messages.sum(1) - flow.messages.diagonal(axis1=1, axis2=2) + flow.kept
    assert arrived == pytest.approx(flow.states[:-1], abs=1e-10)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_attention_passed_is_saved_and_loaded(suffix: str, tmp_path: Path) -> None:
    saved = relprop.explain(encoder("fused"), sentence(), 1, attention=True)
    saved.save(tmp_path / f"made{suffix}")
    loaded = load(tmp_path / f"made{suffix}")
    assert list(loaded.attention) == list(saved.attention) and list(loaded.layers) == list(saved.layers)
    assert all(torch.equal(loaded.attention[name], saved.attention[name]) for name in saved.attention)
    assert (loaded.flow(2).messages == saved.flow(2).messages).all()
    assert (loaded.flow(2).states == saved.flow(2).states).all()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_from_before_attention_is_still_read(suffix: str, tmp_path: Path) -> None:
    from relprop.view import archive, files

    saved = relprop.explain(encoder("fused"), sentence(), 1, layers=["blocks.0"])
    tensors, header = archive._packed(saved)
    del header["structure"]["attention"]
    (tmp_path / f"old{suffix}").write_bytes(files.WRITERS[suffix](tensors, header))
    loaded = load(tmp_path / f"old{suffix}")
    assert loaded.attention == {} and torch.equal(loaded.layers["blocks.0"], saved.layers["blocks.0"])


def test_asking_for_attention_changes_nothing_else() -> None:
    model, ids = encoder("fused"), sentence()
    before = copy.deepcopy(model.state_dict())
    plain = relprop.explain(model, ids, 1)
    assert plain.attention == {} and plain.layers == {}
    found = relprop.explain(model, ids, 1, attention=True)
    assert torch.equal(found.relevance, plain.relevance) and torch.equal(found.output, plain.output)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_several_targets_have_each_their_own_attention() -> None:
    model, ids = encoder("module"), sentence()
    explainer = relprop.Explainer(model)
    together = explainer(ids, targets=[0, 2], attention=True)
    for found, target in zip(together, (0, 2), strict=True):
        alone = explainer(ids, target, attention=True)
        for name in alone.attention:
            assert torch.equal(found.attention[name], alone.attention[name])
        for name in alone.layers:
            assert torch.equal(found.layers[name], alone.layers[name])
    first, second = (next(iter(found.attention.values())) for found in together)
    assert not torch.allclose(first, second)


def test_rules_are_compared_as_ever_after_attention_was_asked_for() -> None:
    model, ids = encoder("module"), sentence()
    explainer = relprop.Explainer(model)
    explainer(ids, 1, attention=True)
    for rules, found in explainer.compare(ids, ["attn-lrp", "cp-lrp"], 1).items():
        assert torch.equal(found.relevance, relprop.explain(model, ids, 1, rules=rules).relevance)
        assert found.attention == {}


def test_one_sample_has_its_own_attention() -> None:
    whole = relprop.explain(encoder("module"), sentence(), 1, attention=True)
    for name, passed in whole[1].attention.items():
        assert torch.equal(passed, whole.attention[name][1:2])
    assert (whole[1].flow().states == whole.flow(1).states).all()


def test_only_lrp_passes_relevance_on() -> None:
    with pytest.raises(InvalidInput, match="attention="):
        relprop.explain(encoder("fused"), sentence(), 1, method="gradient", attention=True)


def test_relevance_of_neurons_by_the_names_of_their_layers() -> None:
    found = relprop.explain(encoder("fused"), sentence(), 1, rules=RULES["cp-lrp"], layers=["blocks.*.wide"])
    assert list(found.layers) == ["blocks.0.wide", "blocks.1.wide"]
    for relevance in found.layers.values():
        assert relevance.shape == (3, TOKENS, 2 * WIDTH)


def test_blocks_of_a_sequence_first_encoder_come_batch_first() -> None:
    """Three samples of three tokens: no shape tells tokens from samples. Fails if the module's own order is kept."""
    torch.manual_seed(0)

    def encoder(batch_first: bool) -> nn.TransformerEncoder:
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()

    first, second = encoder(True), encoder(False)
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 3, 8, dtype=torch.float64)

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = second.layers

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = second(x.transpose(0, 1)).transpose(0, 1)
            return out

    def score(y: Tensor) -> Tensor:
        return y[:, 0, 0]

    expected = relprop.explain(first, x, score, attention=True)
    found = relprop.explain(Turned().eval(), x, score, attention=True)
    assert list(found.layers) == list(expected.layers) == ["layers.0", "layers.1"]
    for name, relevance in expected.layers.items():
        torch.testing.assert_close(found.layers[name], relevance, rtol=1e-9, atol=1e-12)


ORDERS = {
    "queries by keys": ("bqhd,bkhd->bhqk", 3, "bhqk,bkhd->bqhd"),
    "keys by queries": ("bqhd,bkhd->bhkq", 2, "bhkq,bkhd->bqhd"),
    "heads last": ("bqhd,bkhd->bqkh", 2, "bqkh,bkhd->bqhd"),
    "values first": ("bqhd,bkhd->bhqk", 3, "bkhd,bhqk->bqhd"),
    "any axes": ("...qhd,...khd->...hkq", -2, "...hkq,...khd->...qhd"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_attention_is_told_queries_by_keys_in_whatever_order_it_is_written(order: str) -> None:
    torch.manual_seed(0)
    project = nn.Linear(8, 8).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    scores, keys, output = ORDERS[order]

    def by_einsum(x: Tensor) -> Tensor:
        q = project(x).unflatten(-1, (2, 4))
        weights = torch.einsum(scores, q, q).softmax(keys)
        factors = (q, weights) if order == "values first" else (weights, q)
        return torch.einsum(output, *factors).flatten(2)[:, 0]

    def fused(x: Tensor) -> Tensor:
        q = project(x).unflatten(-1, (2, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, q, scale=1.0).transpose(1, 2).flatten(2)[:, 0]

    found, expected = (relprop.explain(f, x, 1, attention=True).attention["attention"] for f in (by_einsum, fused))
    assert found.shape == (2, 2, 5, 5)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_pooling_by_attention_has_one_query_for_each_sample() -> None:
    torch.manual_seed(0)
    score = nn.Linear(8, 1).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)

    def weights(x: Tensor) -> Tensor:
        w: Tensor = score(x).squeeze(-1).softmax(1)
        return w

    found = relprop.explain(lambda x: torch.einsum("bt,btd->bd", weights(x), x), x, 1, attention=True)
    expected = relprop.explain(lambda x: torch.bmm(weights(x)[:, None], x)[:, 0], x, 1, attention=True)
    assert found.attention["attention"].shape == (3, 1, 1, 5)
    torch.testing.assert_close(found.attention["attention"], expected.attention["attention"])
    by_elements = relprop.explain(lambda x: (weights(x)[..., None] * x).sum(1), x, 1, attention=True)
    assert by_elements.attention == {} and "element by element" in by_elements.notes[0]
