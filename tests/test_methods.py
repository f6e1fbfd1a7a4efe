"""The other attribution methods: each against a computation of a few lines that shares nothing with it."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, LeNet, ResNet, in_float64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import relprop
from relprop import Explainer, methods
from relprop.errors import (
    InvalidInput,
    InvalidOutput,
    InvalidRule,
    InvalidTarget,
    MissingExtra,
    NonFinite,
    TrainingMode,
    UnsupportedModel,
)
from relprop.methods import Gradient, IntegratedGradients, Occlusion, SmoothGrad

OURS = (
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "smoothgrad",
    "guided_backprop",
    "deconvnet",
    "occlusion",
)


class TextLSTM(nn.Module):
    """A tutorial's classifier of padded reviews: embedding, packed bidirectional LSTM, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(10, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.embedding(ids), lengths)

    def head(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.fc(torch.cat([h[0], h[1]], 1))


class TwoLayers(nn.Module):
    """W2 relu(W1 x), the ReLU written in one of its spellings."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 3)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.relu(self.second(self.relu(self.first(x)))))


class Frozen(nn.Module):
    """What holds a gradient back in training and is no part of what the model computes."""

    def __init__(self, frozen: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone, self.head, self.frozen = nn.Linear(6, 5), nn.Linear(5, 3), frozen

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frozen(self.backbone, x).tanh())


def no_grad(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)


def inference(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return layer(x)


def detached(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x).detach()


def data(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x).data


def masked_in_place(z: Tensor) -> Tensor:
    z[z < 0] = 0
    return z


def relu_of_halves(z: Tensor) -> Tensor:
    z[:, :3].relu_()
    z[:, 3:] = F.relu(z[:, 3:])
    return z


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda z: F.relu(z, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.relu_(),
    "clamp": lambda z: z.clamp(min=0),
    "clamp_": lambda z: z.clamp_(0),
    "clamp_min": lambda z: z.clamp_min(0.0),
    "threshold": lambda z: F.threshold(z, 0, 0),
    "aten": lambda z: torch.ops.aten.relu.default(z),
    "views in place": relu_of_halves,
}


def at_random(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model in float64 with parameters of its own, biases included."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / math.sqrt(
            parameter[0].numel() if parameter.dim() > 1 else 4
        )
    return model


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_autograd(f: Callable[[Tensor], Tensor], x: Tensor, target: int | Tensor) -> Tensor:
    """df_target/dx, sample by sample."""
    rows = []
    for i, row in enumerate(x):
        leaf = row[None].clone().requires_grad_()
        wanted = target if isinstance(target, int) else int(target[i])
        f(leaf)[0, wanted].backward(inputs=[leaf])
        assert leaf.grad is not None
        rows.append(leaf.grad)
    return torch.cat(rows)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# ---- images and vectors


def lenet() -> tuple[nn.Module, Tensor]:
    return at_random(LeNet(True)), draw(3, 1, 28, 28)


def test_gradient_is_the_squared_derivative() -> None:
    model, x = lenet()
    expected = by_autograd(model, x, 4)
    assert expected.abs().max() > 1e-3
    close(relprop.explain(model, x, 4, method="gradient").relevance, expected**2)


def test_gradient_with_its_sign() -> None:
    model, x = lenet()
    close(relprop.explain(model, x, 4, method=Gradient(squared=False)).relevance, by_autograd(model, x, 4))


def test_gradient_x_input() -> None:
    model, x = lenet()
    close(relprop.explain(model, x, 4, method="gradient_x_input").relevance, x * by_autograd(model, x, 4))


def test_the_highest_score_is_explained_by_default() -> None:
    model, x = lenet()
    attribution = relprop.explain(model, x, method="gradient")
    best = model(x).argmax(1)
    assert attribution.target is not None
    assert torch.equal(attribution.target, best)
    close(attribution.score, model(x).detach().amax(1))
    close(attribution.relevance, by_autograd(model, x, best) ** 2)


def test_integrated_gradients_follows_the_highest_score_of_the_input() -> None:
    model, x = lenet()
    best = model(x).argmax(1)
    assert len(set((x / 8).flatten(1).sum(1).tolist())) == 3
    expected = x * sum(by_autograd(model, x * (k + 0.5) / 8, best) for k in range(8)) / 8
    close(relprop.explain(model, x, method=IntegratedGradients(steps=8)).relevance, expected)


def test_integrated_gradients_sum_to_the_difference_of_scores() -> None:
    model = at_random(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    x, baseline = draw(4, 6), draw(1, 6, seed=2)
    attribution = relprop.explain(model, x, 1, method=IntegratedGradients(steps=200, baseline=baseline))
    difference = (model(x) - model(baseline))[:, 1].detach()
    torch.testing.assert_close(attribution.total, difference, rtol=0, atol=1e-4)
    assert attribution.notes == ()


def test_integrated_gradients_says_when_the_steps_are_too_few() -> None:
    model = at_random(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    attribution = relprop.explain(model, 20 * draw(4, 6), 1, method=IntegratedGradients(steps=1))
    assert any("more than 1 steps" in note for note in attribution.notes), attribution.notes


def test_integrated_gradients_of_a_linear_model_are_exact_in_one_step() -> None:
    model = at_random(nn.Linear(6, 3))
    x, baseline = draw(4, 6), draw(6, seed=2)
    found = relprop.explain(model, x, 2, method=IntegratedGradients(steps=1, baseline=baseline)).relevance
    close(found, (x - baseline) * model.weight[2].detach())


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    model, x = lenet()
    plain = relprop.explain(model, x, 4, method="gradient").relevance
    close(relprop.explain(model, x, 4, method=SmoothGrad(samples=3, noise=0.0)).relevance, plain)


def test_smoothgrad_of_a_square_has_the_noise_it_says() -> None:
    # df/dx = 2 x: the averaged gradient minus 2 x is twice the averaged noise, sigma^2 / samples each.
    x = draw(2, 4000)
    method = SmoothGrad(samples=20, noise=0.1, squared=False)
    found = relprop.explain(lambda x: x.square().sum(1, keepdim=True), x, 0, method=method).relevance
    drawn = (found - 2 * x) / 2
    sigma = 0.1 * (x.amax(1) - x.amin(1))
    for row, expected in zip(drawn, sigma / math.sqrt(20), strict=True):
        assert abs(float(row.mean())) < 4 * float(expected) / math.sqrt(4000)
        assert abs(float(row.std() / expected) - 1) < 0.05


def test_smoothgrad_is_the_same_each_time_and_alone_and_differs_by_seed() -> None:
    model, x = lenet()
    first = relprop.explain(model, x, 4, method=SmoothGrad(samples=3)).relevance
    assert torch.equal(first, relprop.explain(model, x, 4, method=SmoothGrad(samples=3)).relevance)
    close(relprop.explain(model, x[1:2], 4, method=SmoothGrad(samples=3)).relevance, first[1:2])
    other = relprop.explain(model, x, 4, method=SmoothGrad(samples=3, seed=1)).relevance
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "gradient"])
def test_relus_backwards(method: str, relu: Callable[[Tensor], Tensor]) -> None:
    model, x = at_random(TwoLayers(relu)), draw(5, 6)
    w1, w2, w3 = (layer.weight.detach() for layer in (model.first, model.second, model.third))
    z1 = x @ w1.T + model.first.bias.detach()
    z2 = z1.clamp(min=0) @ w2.T + model.second.bias.detach()
    r = w3[1].expand(5, -1)
    for z, w in ((z2, w2), (z1, w1)):
        if method != "deconvnet":
            r = r * (z > 0)
        if method != "gradient":
            r = r * (r > 0)
        r = r @ w
    attribution = relprop.explain(model, x, 1, method=Gradient(squared=False) if method == "gradient" else method)
    close(attribution.relevance, r)
    assert attribution.notes == ()
    close(attribution.score, (z2.clamp(min=0) @ w3.T + model.third.bias.detach())[:, 1])


def test_guided_backprop_at_relu6_cuts_on_both_sides() -> None:
    layer, x = at_random(nn.Linear(4, 40)), 8 * draw(3, 4)
    z = layer(x).detach()
    assert ((z > 6).any() and (z < 0).any() and ((z > 0) & (z < 6)).any()).item()
    v = draw(40, seed=3)
    for relu6 in (nn.ReLU6(), F.relu6, lambda z: F.hardtanh(z, 0.0, 6.0), lambda z: z.clamp(0, 6)):
        found = relprop.explain(
            lambda x, relu6=relu6: (relu6(layer(x)) @ v)[:, None], x, 0, method="guided_backprop"
        ).relevance
        close(found, (v.clamp(min=0) * ((z > 0) & (z < 6))) @ layer.weight.detach())


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_a_model_without_relus_is_told_that_it_has_none(method: str) -> None:
    model, x = at_random(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))), draw(4, 6)
    attribution = relprop.explain(model, x, 1, method=method)
    close(attribution.relevance, by_autograd(model, x, 1))
    assert any("no ReLU" in note for note in attribution.notes)


def test_occlusion_is_the_mean_fall_of_the_score() -> None:
    model, x = at_random(LeNet(True)), draw(2, 1, 28, 28)
    method = Occlusion(patch=10, stride=6, baseline=0.5)
    expected, count = torch.zeros_like(x), torch.zeros_like(x)
    with torch.no_grad():
        for top in (0, 6, 12, 18):
            for left in (0, 6, 12, 18):
                hidden = x.clone()
                hidden[:, :, top : top + 10, left : left + 10] = 0.5
                drop = model(x)[:, 4] - model(hidden)[:, 4]
                expected[:, :, top : top + 10, left : left + 10] += drop[:, None, None, None]
                count[:, :, top : top + 10, left : left + 10] += 1
    close(relprop.explain(model, x, 4, method=method).relevance, expected / count)


def test_occlusion_of_a_linear_model_is_what_each_value_contributes() -> None:
    model, x = at_random(nn.Linear(6, 3)), draw(4, 6)
    close(relprop.explain(model, x, 2, method="occlusion").relevance, x * model.weight[2].detach())


@pytest.mark.parametrize(
    ("shape", "patch", "window"),
    [
        ((3, 32, 24), None, (3, 4, 3)),  # an eighth of each side, all channels
        ((32, 24, 3), None, (4, 3, 3)),  # channels last
        ((7, 5), None, (1, 5)),  # a time step
        ((1, 20), 3, (1, 3)),  # a signal
        ((9,), None, (1,)),
        ((2, 8, 8, 8), 4, (2, 4, 4, 4)),
        ((4, 20), (4, 5), (4, 5)),  # (channels, time), said explicitly
    ],
)
def test_windows_cover_every_value(shape: tuple[int, ...], patch: Any, window: tuple[int, ...]) -> None:
    from relprop.methods.windows import windows

    count = torch.zeros(shape)
    found = windows(shape, patch, None)
    for place in found:
        count[place] += 1
    assert torch.equal(count, torch.ones(shape))
    assert tuple(count[found[0]].shape) == window


def test_occlusion_needs_no_gradient() -> None:
    weight = draw(6, 3)

    def steps(x: Tensor) -> Tensor:
        return (x > 0).double() @ weight

    x = draw(4, 6)
    found = relprop.explain(steps, x, 1, method=Occlusion()).relevance
    close(found, (x > 0).double() * weight[:, 1])
    with pytest.raises(InvalidOutput, match="occlusion"):
        relprop.explain(steps, x, 1, method="gradient")


def test_progress_is_reported() -> None:
    model, x = at_random(nn.Linear(6, 3)), draw(2, 6)
    calls: list[tuple[int, int]] = []
    for method in (
        Occlusion(progress=lambda *done: calls.append(done)),
        IntegratedGradients(steps=6, progress=lambda *done: calls.append(done)),
        SmoothGrad(samples=6, progress=lambda *done: calls.append(done)),
    ):
        calls.clear()
        relprop.explain(model, x, 0, method=method)
        assert calls == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("method", [methods.Lime, methods.KernelShap])
def test_progress_of_surrogates_is_reported_and_can_end_them(method: Any) -> None:
    pytest.importorskip("captum")
    model, x = at_random(nn.Linear(6, 3)), draw(2, 6)
    calls: list[tuple[int, int]] = []
    watched = method(samples=20, progress=lambda *done: calls.append(done))
    close(
        relprop.explain(model, x, 0, method=watched).relevance,
        relprop.explain(model, x, 0, method=method(samples=20)).relevance,
    )
    assert sorted(set(calls)) == [(i, 40) for i in range(1, 41)]

    def leave(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relprop.explain(model, x, 0, method=method(samples=20, progress=leave))


# ---- words


def reviews() -> tuple[TextLSTM, Tensor, Tensor]:
    model = TextLSTM()
    at_random(model)
    ids = torch.tensor([[4, 7, 4, 29, 3], [5, 6, 0, 0, 0], [9, 1, 2, 8, 0]])
    return model, ids, torch.tensor([5, 2, 4])


def embedding_gradient(model: TextLSTM, ids: Tensor, lengths: Tensor, target: int) -> tuple[Tensor, Tensor]:
    embedded = model.embedding(ids).detach().requires_grad_()
    model.head(embedded, lengths)[:, target].sum().backward(inputs=[embedded])
    assert embedded.grad is not None
    return embedded.detach(), embedded.grad


def test_words_are_explained_at_their_embeddings() -> None:
    model, ids, lengths = reviews()
    e, g = embedding_gradient(model, ids, lengths, 1)
    for method, expected in (
        ("gradient", g.square().sum(-1)),
        (Gradient(squared=False), g.sum(-1)),
        ("gradient_x_input", (g * e).sum(-1)),
    ):
        attribution = relprop.explain(model, (ids, lengths), 1, method=method)
        (found,) = attribution.relevance
        assert found.shape == ids.shape
        close(found, expected)
        assert (found[1, 2:] == 0).all()  # padding
        close(attribution.score, model(ids, lengths)[:, 1].detach())
        assert torch.equal(attribution.inputs[0], ids)


def test_integrated_gradients_of_words() -> None:
    model, ids, lengths = reviews()
    e = model.embedding(ids).detach()
    pad = model.embedding.weight[17].detach()
    for baseline, base in ((0.0, torch.zeros_like(e)), ((torch.tensor(17), None), pad.expand_as(e))):
        total = torch.zeros_like(e)
        for k in range(4):
            point = (base + (k + 0.5) / 4 * (e - base)).requires_grad_()
            model.head(point, lengths)[:, 1].sum().backward(inputs=[point])
            assert point.grad is not None
            total += point.grad
        method = IntegratedGradients(steps=4, baseline=baseline)
        (found,) = relprop.explain(model, (ids, lengths), 1, method=method).relevance
        close(found, ((e - base) * total / 4).sum(-1))


def test_occlusion_of_words() -> None:
    model, ids, lengths = reviews()
    scores = model(ids, lengths)[:, 1].detach()
    zeroed, unknown = torch.zeros(3, 5).double(), torch.zeros(3, 5).double()
    for t in range(5):
        embedded = model.embedding(ids).detach()
        embedded[:, t] = 0
        zeroed[:, t] = scores - model.head(embedded, lengths)[:, 1].detach()
        replaced = ids.clone()
        replaced[:, t] = 17
        unknown[:, t] = scores - model(replaced, lengths)[:, 1].detach()
    close(relprop.explain(model, (ids, lengths), 1, method="occlusion").relevance[0], zeroed)
    method = Occlusion(baseline=(torch.tensor(17), None))
    close(relprop.explain(model, (ids, lengths), 1, method=method).relevance[0], unknown)


def test_ids_through_two_embeddings_add_up() -> None:
    a, b, head = at_random(nn.Embedding(9, 4)), at_random(nn.Embedding(9, 3), 5), at_random(nn.Linear(7, 2), 6)
    ids = torch.tensor([[1, 2, 8], [3, 3, 0]])

    def model(ids: Tensor) -> Tensor:
        return head(torch.cat([a(ids), b(ids)], -1).tanh().mean(1))

    embedded = torch.cat([a(ids), b(ids)], -1).detach().requires_grad_()
    head(embedded.tanh().mean(1))[:, 1].sum().backward(inputs=[embedded])
    assert embedded.grad is not None
    close(relprop.explain(model, ids, 1, method="gradient").relevance, embedded.grad.square().sum(-1))


def test_time_steps_of_a_sequence() -> None:
    lstm, head = at_random(nn.LSTM(4, 5, batch_first=True)), at_random(nn.Linear(5, 2))

    def model(x: Tensor) -> Tensor:
        return head(lstm(x)[1][0][-1])

    x = draw(2, 6, 4)
    expected = torch.zeros(2, 6).double()
    for t in range(6):
        hidden = x.clone()
        hidden[:, t] = 0
        expected[:, t] = (model(x) - model(hidden))[:, 0].detach()
    close(relprop.explain(model, x, 0, method="occlusion").relevance, expected[..., None].expand(2, 6, 4))
    close(relprop.explain(model, x, 0, method="gradient").relevance, by_autograd(model, x, 0) ** 2)


# ---- what all methods have in common


def softmaxed(x: Tensor) -> Tensor:
    return F.softmax(core(x), -1)


def in_words(x: Tensor) -> dict[str, Any]:
    return {"logits": core(x), "hidden_states": (x * 2,), "mask": torch.ones_like(x)}


core = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
at_random(core)


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize(
    ("model", "target"),
    [
        (core, None),
        (softmaxed, None),
        (softmaxed, lambda p: p[:, 2]),
        (lambda x: F.log_softmax(core(x), 1).clone(), [0, 1, 2, 1]),
        (lambda x: torch.sigmoid(core(x)[:, 0]).double(), None),
        (lambda x: core(x).softmax(1)[:, 1:].squeeze(-1), 1),
        (in_words, 0),
        (lambda x: 2 * core(x).softmax(1), 0),
    ],
    ids=["plain", "softmax", "picked", "log_softmax", "sigmoid", "slice", "dict", "inner softmax"],
)
def test_every_method_explains_the_score_that_lrp_explains(method: str, model: Any, target: Any) -> None:
    x = draw(4, 6)
    lrp, other = (relprop.explain(model, x, target, method=m) for m in ("lrp", method))
    close(other.score, lrp.score)
    if lrp.target is not None:
        assert torch.equal(other.target, lrp.target)
    assert type(other.output) is type(lrp.output)
    assert [note for note in other.notes if "left out" in note] == [note for note in lrp.notes if "left out" in note]
    assert other.rules.startswith(method)
    assert other.relevance.shape == x.shape
    assert other.relevance.abs().max() > 1e-6
    assert other.conservation.operations == ()
    # A sum that isn't meant to be the score is no loss of relevance.
    assert not other.conservation.redistributes
    assert "not passed" not in str(other.conservation) and "does not divide" in str(other.conservation)


@pytest.mark.parametrize("frozen", [no_grad, inference, detached, data])
def test_what_holds_gradients_back_in_training_does_not_here(frozen: Any) -> None:
    model, x = at_random(Frozen(frozen)), draw(4, 6)
    free = at_random(Frozen(lambda layer, x: layer(x)))
    expected = by_autograd(free, x, 1)
    close(relprop.explain(model, x, 1, method=Gradient(squared=False)).relevance, expected)
    with torch.inference_mode():
        close(relprop.explain(model, x, 1, method=Gradient(squared=False)).relevance, expected)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_models_as_users_write_them(name: str) -> None:
    model, x = in_float64(*ARCHITECTURES[name](True))
    target: Any = {
        "unet": lambda output: output[:, 1].mean((1, 2)),
        "tuple_output": lambda output: output[0][:, 1],
    }.get(name, 1)
    lrp = relprop.explain(model, x, target)
    signed, occluded, guided = (
        relprop.explain(model, x, target, method=method)
        for method in (Gradient(squared=False), Occlusion(), "guided_backprop")
    )
    for other in (signed, occluded, guided):
        close(other.score, lrp.score)
    for part in (parts(other.relevance) for other in (occluded, guided)):
        assert [r.shape for r in part] == [r.shape for r in parts(lrp.relevance)]
        assert sum(float(r.abs().sum()) for r in part) > 0
    expected = numeric(lambda x: relprop.explain(model, x, target, method=Occlusion(patch=10**6)).score, x, signed)
    torch.testing.assert_close(*expected, rtol=1e-4, atol=1e-7)


def parts(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value.values() if isinstance(value, dict) else value)


def numeric(score: Callable[[Any], Tensor], x: Any, attribution: Any) -> tuple[Tensor, Tensor]:
    """(the derivative along a direction by the gradient, the same by a difference of scores)."""
    inputs = parts(x)
    directions = [draw(*t.shape, seed=i) for i, t in enumerate(inputs)]

    def moved(step: float) -> Any:
        changed = [t + step * d for t, d in zip(inputs, directions, strict=True)]
        if isinstance(x, Tensor):
            return changed[0]
        return dict(zip(x, changed, strict=True)) if isinstance(x, dict) else tuple(changed)

    gradients = parts(attribution.relevance)
    along = sum((g * d).flatten(1).sum(1) for g, d in zip(gradients, directions, strict=True))
    assert isinstance(along, Tensor)
    return along, (score(moved(1e-6)) - score(moved(-1e-6))) / 2e-6


def test_code_that_overwrites_what_its_backward_needs() -> None:
    def careless(x: Tensor) -> Tensor:
        a = core[0](x)
        b = a.sigmoid()
        c = b * a
        a.mul_(0)
        b.add_(1)
        return c.cumsum(1)

    def careful(x: Tensor) -> Tensor:
        a = core[0](x)
        return (a.sigmoid() * a).cumsum(1)

    x = draw(4, 6)
    close(relprop.explain(careless, x, 3, method=Gradient(squared=False)).relevance, by_autograd(careful, x, 3))


@pytest.mark.parametrize("method", OURS)
def test_the_model_is_as_it_was(method: str) -> None:
    model = ResNet(True).eval()
    before = copy.deepcopy(model.state_dict())
    modules = [(name, id(module), dict(vars(module))) for name, module in model.named_modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    x = draw(2, 3, 32, 32).float()
    given = x.clone()
    relprop.explain(model, x, method=method if method != "integrated_gradients" else IntegratedGradients(steps=2))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert [(name, id(m)) for name, m in model.named_modules()] == [(name, i) for name, i, _ in modules]
    assert all(set(vars(m)) == set(known) for m, (_, _, known) in zip(model.modules(), modules, strict=True))
    assert hooks == [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()
    ]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, given)
    assert x.grad is None
    assert not x.requires_grad


@pytest.mark.parametrize("method", OURS)
def test_several_inputs(method: str) -> None:
    first, second = at_random(nn.Linear(4, 3)), at_random(nn.Linear(5, 3), 3)

    def model(*, a: Tensor, b: Tensor, scale: float) -> Tensor:
        return torch.relu(first(a) + second(b)) * scale

    x = {"a": draw(2, 4), "b": draw(2, 5, seed=2), "scale": 3.0}
    attribution = relprop.explain(model, x, 1, method=method)
    assert {name: r.shape for name, r in attribution.relevance.items()} == {"a": (2, 4), "b": (2, 5)}
    if method == "gradient_x_input":
        z = (first(x["a"]) + second(x["b"])).detach()[:, 1:2]
        close(attribution.relevance["b"], 3 * (z > 0) * x["b"] * second.weight[1].detach())


class Remembering(nn.Module):
    """Writes what it computed to a buffer, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("last", torch.zeros(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.last.copy_(self.layer(x))
        return self.last * 2


@pytest.mark.parametrize("method", ["lrp", *OURS])
def test_a_buffer_that_the_model_writes_holds_no_graph_afterwards(method: str) -> None:
    model, x = at_random(Remembering()), draw(4, 6)
    attribution = relprop.explain(model, x, 1, method=method)
    close(attribution.score, 2 * model.layer(x)[:, 1].detach())
    assert attribution.relevance.abs().max() > 1e-3
    assert not model.last.requires_grad
    copy.deepcopy(model)


def test_a_sparse_factor() -> None:
    neighbours = (draw(6, 6) > 0).double()
    x = draw(4, 6)
    found = relprop.explain(
        lambda x: core(torch.sparse.mm(neighbours.to_sparse(), x.T).T), x, 1, method=Gradient(squared=False)
    ).relevance
    close(found, by_autograd(lambda x: core(x @ neighbours.T), x, 1))


def test_a_program_of_torch_export(tmp_path: Any) -> None:
    model, x = at_random(TwoLayers(F.relu)), draw(4, 6)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    program = relprop.load_program(tmp_path / "model.pt2")
    for method in ("guided_backprop", "occlusion", "gradient"):
        close(
            relprop.explain(program, x, 1, method=method).relevance,
            relprop.explain(model, x, 1, method=method).relevance,
        )


@pytest.mark.parametrize("method", OURS)
def test_mistakes_are_answered_as_for_lrp(method: str) -> None:
    def message(kind: type[Exception], which: str, model: Any, x: Any, **options: Any) -> str:
        with pytest.raises(kind) as caught:
            relprop.explain(model, x, method=which, **options)
        return str(caught.value)

    x = draw(4, 6)
    training = nn.Sequential(nn.Linear(6, 3), nn.Dropout()).double()
    for kind, model, inputs, options in (
        (TrainingMode, training, x, {}),
        (InvalidTarget, core, x, {"target": 3}),
        (InvalidTarget, core, x, {"target": "cat", "labels": ["dog", "cow", "car"]}),
        (InvalidTarget, lambda x: x[:, None].expand(4, 2, 6), x, {}),
        (NonFinite, lambda x: core(x) / 0, x, {}),
        (NonFinite, core, x * float("nan"), {}),
        (InvalidInput, core, "x", {}),
        (InvalidInput, lambda x: x.double(), torch.ones(4, 6, dtype=torch.int64), {}),
        (InvalidInput, core, x.float(), {}),
        (InvalidInput, core, x, {"bounds": (0, 1)}),
    ):
        assert message(kind, method, model, inputs, **options) == message(kind, "lrp", model, inputs, **options)
    for function in (lambda x: F.dropout(core(x)), lambda x: F.batch_norm(core(x), None, None, training=True)):
        message(TrainingMode, method, function, x)


def test_options_that_there_are_not() -> None:
    model, x = at_random(nn.Linear(6, 3)), draw(2, 6)
    with pytest.raises(InvalidInput, match=r"no method 'gradent'. Did you mean 'gradient'\?.*lrp, gradient, "):
        relprop.explain(model, x, method="gradent")
    with pytest.raises(InvalidInput, match=r"no option 'step'. It has steps, baseline, progress"):
        methods.method_of("integrated_gradients", step=3)
    assert str(methods.method_of("integrated_gradients", steps=3)) == "integrated_gradients (steps=3, baseline=0)"
    assert methods.method_of("lrp") is None
    with pytest.raises(InvalidInput, match="steps=0"):
        IntegratedGradients(steps=0)
    with pytest.raises(InvalidInput, match="noise=-1"):
        SmoothGrad(noise=-1)
    with pytest.raises(InvalidInput, match="larger than patch"):
        relprop.explain(model, x, method=Occlusion(patch=1, stride=2))
    with pytest.raises(InvalidInput, match="one for each dimension"):
        relprop.explain(model, x, method=Occlusion(patch=(1, 2)))
    with pytest.raises(InvalidInput, match="broadcast"):
        relprop.explain(model, x, method=Occlusion(baseline=torch.zeros(5)))
    with pytest.raises(InvalidInput, match="token ids"):
        relprop.explain(
            nn.Embedding(4, 2).eval(),
            torch.ones(1, 3).long(),
            lambda o: o.sum((1, 2)),
            method=Occlusion(baseline=torch.zeros(3)),
        )
    with pytest.raises(InvalidRule, match="rules are LRP's"):
        relprop.explain(model, x, method="gradient", rules="epsilon")
    with pytest.raises(InvalidTarget, match="seed"):
        relprop.explain(model, x, method="gradient", seed=torch.ones(2, 3))
    with pytest.raises(InvalidInput, match="layers"):
        relprop.explain(model, x, method="gradient", layers=[""])


def test_compare_takes_rules_and_methods() -> None:
    explainer = relprop.Explainer(core, "epsilon")
    x = draw(4, 6)
    found = explainer.compare(x, ["epsilon", "gamma"], 1, methods=["lrp", "gradient", IntegratedGradients(steps=4)])
    assert list(found) == ["epsilon", "gamma", "lrp", "gradient", "integrated_gradients (steps=4, baseline=0)"]
    close(found["lrp"].relevance, found["epsilon"].relevance)
    close(found["gradient"].relevance, by_autograd(core, x, 1) ** 2)
    assert list(explainer.compare(x, methods=["gradient"])) == ["gradient"]
    for wrong in ({}, {"methods": "gradient"}):
        with pytest.raises(InvalidInput, match="compare"):
            explainer.compare(x, **wrong)
    several = relprop.explain(core, x, targets=[0, 2], method="gradient")
    close(several[1].relevance, by_autograd(core, x, 2) ** 2)


def test_lrp_alone_does_not_load_the_methods() -> None:
    import subprocess
    import sys

    code = (
        "import sys, torch, relprop; relprop.explain(torch.nn.Linear(2, 2).eval(), torch.ones(1, 2)); "
        "sys.exit(any(name.startswith(('relprop.methods', 'captum')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- by Captum


class Modules(nn.Module):
    """A convolutional network of modules, each used once, with the softmax that relprop leaves out."""

    def __init__(self, *, softmax: bool, inplace: bool = False) -> None:
        super().__init__()
        self.stem, self.act1, self.pool = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2)
        self.last, self.act2, self.head = nn.Conv2d(4, 5, 3), nn.ReLU(inplace), nn.Linear(20, 3)
        self.norm = nn.BatchNorm2d(5)
        self.out: nn.Module = nn.Softmax(1) if softmax else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act1(self.stem(x)))
        return self.out(self.head(self.act2(self.norm(self.last(x))).flatten(1)))


def pair(**options: bool) -> tuple[nn.Module, nn.Module]:
    """The network with its softmax, and the same without."""
    return at_random(Modules(softmax=True, **options)), at_random(Modules(softmax=False, **options))


@pytest.mark.parametrize("inplace", [False, True])
def test_deeplift_is_captums(inplace: bool) -> None:
    attr = pytest.importorskip("captum.attr")
    (model, plain), x = pair(inplace=inplace), draw(3, 2, 8, 8)
    before = [set(vars(m)) for m in model.modules()]
    baseline = draw(2, 8, 8, seed=5)
    attribution = relprop.explain(model, x, 1, method=methods.DeepLift(baseline=baseline))
    expected = attr.DeepLift(plain).attribute(x, baselines=baseline.expand_as(x).contiguous(), target=1)
    close(attribution.relevance, expected.detach())
    close(attribution.score, plain(x)[:, 1].detach())
    assert before == [set(vars(m)) for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_deeplift_of_words_sums_to_the_difference_of_scores() -> None:
    pytest.importorskip("captum")
    words = at_random(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 2)))
    ids = torch.tensor([[1, 2, 8], [3, 3, 0]])
    attribution = relprop.explain(words, ids, 1, method=methods.DeepLift(baseline=torch.tensor(5)))
    close(attribution.total, (words(ids) - words(torch.full_like(ids, 5)))[:, 1].detach())
    assert attribution.relevance.shape == (2, 3)


def test_deeplift_refuses_what_captum_would_get_wrong() -> None:
    pytest.importorskip("captum")
    x = draw(2, 6)
    with pytest.raises(UnsupportedModel, match=r"torch.relu in forward.*ReLU"):
        relprop.explain(at_random(TwoLayers(torch.relu)), x, method="deeplift")
    with pytest.raises(UnsupportedModel, match="used once"):
        relprop.explain(at_random(TwoLayers(nn.ReLU())), x, method="deeplift")
    with pytest.raises(UnsupportedModel, match="mul"):
        relprop.explain(lambda x: x * x, x, method="deeplift")
    close(relprop.explain(lambda x: F.softmax(2 * x, 1), x, 1, method="deeplift").total, 2 * x[:, 1])


@pytest.mark.parametrize("method", ["deeplift", "grad_cam"])
def test_captums_hooks_are_never_on_the_model_that_others_use(method: str) -> None:
    pytest.importorskip("captum")
    _, model = pair()
    explainer, x = Explainer(model, method=method), draw(4, 2, 8, 8)
    alone = explainer(x).relevance
    hooked: list[bool] = []
    together: list[Any] = []

    class Watched(Modules):
        def forward(self, x: Tensor) -> Tensor:
            hooked.append(any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()))
            return super().forward(x)

    model.__class__ = Watched
    threads = [threading.Thread(target=lambda: together.append(explainer(x).relevance)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hooked
    assert not any(hooked)
    assert [bool(torch.equal(alone, each)) for each in together] == [True] * 6


def test_a_model_that_cannot_be_copied_is_told_by_methods_with_hooks() -> None:
    pytest.importorskip("captum")
    _, model = pair()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(UnsupportedModel, match="can't be copied"):
        relprop.explain(model, draw(1, 2, 8, 8), method="grad_cam")


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layer", [None, "stem"])
def test_grad_cam_is_captums(layer: str | None, inplace: bool) -> None:
    attr = pytest.importorskip("captum.attr")
    (model, plain), x = pair(inplace=inplace), draw(3, 2, 8, 8)
    found = relprop.explain(model, x, 1, method=methods.GradCam(layer=layer)).relevance
    cam = attr.LayerGradCam(plain, plain.get_submodule(layer or "last")).attribute(x, 1, relu_attributions=True)
    expected = F.interpolate(cam, (8, 8), mode="bilinear")[:, 0].detach()
    assert expected.abs().max() > 1e-3
    close(found.sum(1), expected)
    assert found.shape == x.shape
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_grad_cam_of_words() -> None:
    pytest.importorskip("captum")
    embedding, conv, head = at_random(nn.Embedding(9, 4)), at_random(nn.Conv1d(4, 6, 3)), at_random(nn.Linear(6, 2))

    class TextCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.conv, self.head = embedding, conv, head

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.relu(self.conv(self.embedding(ids).mT)).amax(2))

    ids = torch.tensor([[1, 2, 8, 4, 4], [3, 3, 0, 1, 7]])
    maps = conv(embedding(ids).mT).detach().requires_grad_()
    head(torch.relu(maps).amax(2))[:, 1].sum().backward(inputs=[maps])
    assert maps.grad is not None
    cam = (maps.grad.mean(2, keepdim=True) * maps.detach()).sum(1, keepdim=True).clamp(min=0)
    found = relprop.explain(TextCNN().eval(), ids, 1, method="grad_cam").relevance
    close(found, F.interpolate(cam, 5, mode="linear")[:, 0])


def test_grad_cam_says_where_there_is_no_map() -> None:
    pytest.importorskip("captum")
    with pytest.raises(UnsupportedModel, match="no convolution"):
        relprop.explain(core, draw(2, 6), method="grad_cam")
    weight = draw(3, 2, 3, 3)
    with pytest.raises(UnsupportedModel, match=r"torch.conv2d in forward"):
        relprop.explain(lambda x: F.conv2d(x, weight).mean((2, 3)), draw(2, 2, 8, 8), method="grad_cam")
    with pytest.raises(InvalidInput, match="Did you mean 'last'"):
        relprop.explain(pair()[0], draw(2, 2, 8, 8), method=methods.GradCam(layer="lest"))


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
def test_surrogates_are_captums(method: str) -> None:
    attr = pytest.importorskip("captum.attr")
    pytest.importorskip("sklearn")
    (model, plain), x = pair(), draw(2, 2, 8, 8)
    corners = torch.tensor([[1, 3], [7, 9]]).repeat_interleave(4, 0).repeat_interleave(4, 1)  # as from a superpixel map
    found = relprop.explain(
        model, x, 1, method=methods.method_of(method, samples=30, segments=corners, seed=3)
    ).relevance
    for i in range(2):
        torch.manual_seed(3)
        algorithm = {"lime": attr.Lime, "kernel_shap": attr.KernelShap}[method](plain)
        expected = algorithm.attribute(
            x[i : i + 1], baselines=0.0, target=1, n_samples=30, feature_mask=(corners // 2 - corners // 7)[None, None]
        )
        close(found[i : i + 1], expected.double())
    assert found.abs().max() > 1e-3


def test_kernel_shap_of_a_sum_over_words_is_what_each_contributes() -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    words = at_random(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2, bias=False)))
    ids = torch.tensor([[1, 2, 8], [3, 3, 0]])
    before = torch.random.get_rng_state()
    method = methods.KernelShap(samples=40)
    found = relprop.explain(words, ids, lambda output: output[:, :, 1].sum(1), method=method).relevance
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(found, words(ids)[:, :, 1].detach(), rtol=0, atol=1e-5)


def test_without_captum_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "captum", None)
    for method in ("lime", "grad_cam", "deeplift", "kernel_shap"):
        with pytest.raises(MissingExtra, match=r'pip install "relprop\[captum\]"'):
            relprop.explain(core, draw(2, 6), method=method)
