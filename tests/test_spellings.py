"""The same computation in other spellings gives the same relevance: keywords, forms taken from a signal, buffers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.errors import UnsupportedFunction
from relprop.rules import Gamma, SignalTakesAll, Zero

Function = Callable[[Tensor], Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, W, B = drawn(3, 4), drawn(4, 5, seed=1), drawn(5, seed=2)
EXPERTS, ENDS = drawn(3, 4, 5, seed=3), torch.tensor([2, 2, 3], dtype=torch.int32)


def in_pieces(x: Tensor) -> Tensor:
    buffer = torch.empty(3, 8, dtype=x.dtype)
    buffer[:, :4].copy_(x)
    buffer[:, 4:].copy_(2 * x)
    return buffer.square() @ torch.cat([W, W])


def added_in_pieces(x: Tensor) -> Tensor:
    buffer = torch.zeros(3, 8, dtype=x.dtype)
    buffer[:, :4] += x
    buffer.narrow(1, 4, 4).add_(2 * x)
    return buffer.square() @ torch.cat([W, W])


PAIRS: dict[str, tuple[Function, Function]] = {
    "bmm by keyword": (
        lambda x: torch.bmm(x[:, :, None], mat2=x[:, None]).flatten(1),
        lambda x: (x[:, :, None] @ x[:, None]).flatten(1),
    ),
    "addmm by keyword": (lambda x: torch.addmm(B, mat2=W, mat1=x), lambda x: x @ W + B),
    "baddbmm by keyword": (
        lambda x: B[:4].baddbmm(batch1=x[:, :, None], batch2=x[:, None], alpha=2.0, beta=0.5).flatten(1),
        lambda x: (2.0 * (x[:, :, None] @ x[:, None]) + 0.5 * B[:4]).flatten(1),
    ),
    "addcmul by keyword": (lambda x: torch.addcmul(x, tensor2=x, tensor1=x, value=3), lambda x: x + 3 * (x * x)),
    "mul by keyword": (lambda x: torch.mul(other=x, input=x), lambda x: x * x),
    "linear by keyword": (lambda x: F.linear(input=x, bias=B, weight=W.T), lambda x: x @ W + B),
    "where by keyword": (
        lambda x: torch.where(condition=X > 0, input=x, other=2 * x) @ W,
        lambda x: torch.where(X > 0, x, 2 * x) @ W,
    ),
    "masked_fill by keyword": (
        lambda x: x.masked_fill(mask=X > 0, value=0.0) @ W,
        lambda x: x.masked_fill(X > 0, 0.0) @ W,
    ),
    "a constant of a signal's type": (lambda x: (x * B[:4].type_as(x)) @ W, lambda x: (x * B[:4]) @ W),
    "a constant of a signal's shape": (lambda x: (x * B[:4].expand_as(x)) @ W, lambda x: (x * B[:4]) @ W),
    "a constant moved to a signal": (lambda x: (x + B[:4].to(x)) @ W, lambda x: (x + B[:4]) @ W),
    "a constant seen as a signal": (
        lambda x: (x + X.flatten().view_as(x)) @ W,
        lambda x: (x + X) @ W,
    ),
    "a buffer written in pieces": (in_pieces, lambda x: torch.cat([x, 2 * x], 1).square() @ torch.cat([W, W])),
    "a buffer added to in pieces": (added_in_pieces, lambda x: torch.cat([x, 2 * x], 1).square() @ torch.cat([W, W])),
}


@pytest.mark.parametrize("rules", [RuleMap([("affine", Zero())]), RuleMap([("affine", Gamma(0.3))])], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_two_spellings_share_alike(name: str, rules: RuleMap) -> None:
    one, other = PAIRS[name]
    if name.startswith(("bmm", "baddbmm", "addcmul", "mul")):
        rules = RuleMap([("affine", Zero())], name="for models without weights too")
    found, expected = relprop.explain(one, X, 1, rules=rules), relprop.explain(other, X, 1, rules=rules)
    assert torch.allclose(found.score, expected.score, rtol=1e-14)
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-12, atol=1e-14)
    assert float(found.relevance.abs().sum()) > 0


@pytest.mark.parametrize("rule", [Zero(), Gamma(0.3)], ids=str)
def test_rows_in_groups_share_as_their_own_matrices_do(rule: relprop.rules.Rule) -> None:
    """torch's grouped product takes single precision only; the rule's own products are those of the parts."""
    x, w = drawn(16, 16).float(), drawn(3, 16, 16, seed=1).float()
    ends = torch.tensor([4, 4, 16], dtype=torch.int32)
    rules = RuleMap([("affine", rule)])

    def apart(x: Tensor) -> Tensor:
        return torch.cat([x[:4] @ w[0], x[4:] @ w[2]])

    found = relprop.explain(lambda x: torch._grouped_mm(x, w, offs=ends), x, 1, rules=rules)
    expected = relprop.explain(apart, x, 1, rules=rules)
    assert torch.allclose(found.relevance, expected.relevance, rtol=1e-4, atol=1e-5)


def test_a_grouped_product_of_another_form_is_refused_by_name() -> None:
    x, w = drawn(16, 16).float(), drawn(16, 16, seed=1).float()
    ends = torch.tensor([8, 16], dtype=torch.int32)
    with pytest.raises(UnsupportedFunction, match=r"_grouped_mm[\s\S]*x\[start:end\]"):
        relprop.explain(lambda x: torch._grouped_mm(x, w, offs=ends).sum(0), x, target=lambda y: y[:, 0])


ROUTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "topk of a softmax": lambda z: z.softmax(-1).topk(2).values,
    "softmax of a topk": lambda z: z.topk(2).values.softmax(-1),
    "largest of a softmax": lambda z: z.softmax(-1).amax(-1, keepdim=True).expand(-1, 2),
    "sorted": lambda z: z.softmax(-1).sort(-1, descending=True).values[:, :2],
    "renormalised": lambda z: (lambda w: w / w.sum(-1, keepdim=True))(z.softmax(-1).topk(2).values),
    "averaged over heads": lambda z: z.unflatten(-1, (2, -1)).softmax(-1).mean(1),
    "sigmoid": lambda z: z.sigmoid().topk(2).values,
    "in single precision": lambda z: z[:, :2].float().softmax(-1).type_as(z),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_chosen_weights_stay_weights(name: str) -> None:
    """CP-LRP: what routes tokens to experts counts as constant, so nothing is lost. Fails if topk forgets roles."""
    w, u = drawn(4, 4, seed=5), drawn(4, 2, seed=6)
    rules = RuleMap([("affine", Zero()), ("attention", SignalTakesAll())])
    found = relprop.explain(lambda x: (ROUTERS[name](x @ w) * (x @ u)).sum(-1, keepdim=True), X, rules=rules)
    tolerance = 1e-6 if "single" in name else 1e-12
    assert torch.allclose(found.total, found.score, rtol=tolerance)


def test_a_softmax_written_out_is_one_unless_its_argument_was_overwritten() -> None:
    """Fails if what exp was taken of is looked up after it holds something else."""
    u, v = drawn(4, 6, seed=10), drawn(4, 6, seed=11)
    cp = RuleMap([("affine", Zero()), ("attention", SignalTakesAll())])

    def by_hand(x: Tensor) -> Tensor:
        e = (x @ u).exp()
        return (e / e.sum(-1, keepdim=True) * (x @ v)).sum(-1, keepdim=True)

    def of_torch(x: Tensor) -> Tensor:
        return ((x @ u).softmax(-1) * (x @ v)).sum(-1, keepdim=True)

    def overwritten(x: Tensor) -> Tensor:
        z = x @ u
        e = z.exp()
        z.mul_(2)
        return (e / e.sum(-1, keepdim=True) * (x @ v)).sum(-1, keepdim=True)

    for rules in (cp, RuleMap([("affine", Zero())])):
        found, expected = relprop.explain(by_hand, X, rules=rules), relprop.explain(of_torch, X, rules=rules)
        assert torch.allclose(found.relevance, expected.relevance, rtol=1e-10)
        assert torch.equal(found.output, by_hand(X))
    assert torch.allclose(relprop.explain(overwritten, X, rules=cp).score, of_torch(X)[:, 0])


def encoder(**options: bool) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2, **options).double().eval()


def test_padding_that_a_fast_path_would_treat_otherwise_is_noted() -> None:
    x, padded = drawn(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    layers = encoder()
    found = relprop.explain(lambda x: layers(x, src_key_padding_mask=padded).mean(1), x)
    assert any("fast path" in note and "enable_nested_tensor=False" in note for note in found.notes)
    plain = encoder(enable_nested_tensor=False)
    assert not relprop.explain(lambda x: plain(x, src_key_padding_mask=padded).mean(1), x).notes


@pytest.mark.parametrize("inside", [False, True])
def test_the_blocks_of_a_transformer_are_found(inside: bool) -> None:
    """Fails if the whole encoder, as one member of a Sequential, is taken for a block."""

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)

    layers = encoder()
    model = nn.Sequential(nn.Identity(), layers, Mean()).eval() if inside else layers
    prefix = "1.layers" if inside else "layers"
    target = None if inside else (lambda y: y[:, 0, 0])
    found = relprop.explain(model, drawn(2, 5, 8), target, attention=True)
    assert list(found.layers) == [f"{prefix}.0", f"{prefix}.1"]
    assert list(found.attention) == [f"{prefix}.0.self_attn", f"{prefix}.1.self_attn"]
    chosen = relprop.explain(model, drawn(2, 5, 8), target, layers=[f"{prefix}.?.linear2"])
    assert list(chosen.layers) == [f"{prefix}.0.linear2", f"{prefix}.1.linear2"]


def test_asking_for_gradients_inside_of_forward_changes_nothing() -> None:
    """As gradient checkpointing and adapters do it with an embedding's output."""
    embedding, linear = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()
    ids = torch.arange(6).reshape(2, 3)

    def asking(ids: Tensor) -> Tensor:
        words = embedding(ids)
        words.requires_grad_(True)
        scores: Tensor = linear(words.mean(1).requires_grad_())
        return scores

    found = relprop.explain(asking, ids, 1)
    assert torch.equal(found.relevance, relprop.explain(lambda ids: linear(embedding(ids).mean(1)), ids, 1).relevance)
