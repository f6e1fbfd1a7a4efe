"""Shorter ways that are right only where nothing has changed a value, a weight or a model meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.rules import AlphaBeta, Gamma, Rule, ZPlus

RULES = [Gamma(0.25), AlphaBeta(2, 1), ZPlus()]


def _lowered(h: Tensor) -> Tensor:
    return h.sub_(0.3)


def _lowered_through_a_view(h: Tensor) -> Tensor:
    h.view(-1).sub_(0.3)
    return h


def _lowered_under_a_view(h: Tensor) -> Tensor:
    view = h.view(h.shape)
    h.sub_(0.3)
    return view


def _written_into(h: Tensor) -> Tensor:
    h[:, :4] = h[:, :4] - 0.5
    return h


def _subtracted(h: Tensor) -> Tensor:
    return torch.add(h, h, alpha=-2)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "change", [_lowered, _lowered_through_a_view, _lowered_under_a_view, _written_into, _subtracted]
)
def test_a_sign_known_from_a_relu_is_forgotten_when_the_value_is_changed(
    change: Callable[[Tensor], Tensor], rule: Rule
) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 8).double().eval(), nn.Linear(8, 3).double().eval()
    x = torch.randn(4, 6).double()
    h = change(torch.relu(first(x)))
    assert (h < 0).any()
    whole = relprop.explain(lambda x: second(change(torch.relu(first(x)))), x, 0, rules=rule)
    given = relprop.explain(second, h.detach(), 0, rules=rule)
    assert torch.allclose(whole.score, given.score, rtol=1e-12)
    inside = relprop.explain(
        nn.Sequential(first, nn.ReLU(), _Change(change), nn.Identity(), second).eval(), x, 0, rules=rule, layers=["3"]
    )
    assert torch.allclose(inside.layers["3"], given.relevance, rtol=1e-10, atol=1e-14)


class _Change(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, h: Tensor) -> Tensor:
        return self.change(h)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(75, 4)).eval()


def _hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class _Interrupted(Rule):
    def redistribute(self, layer: object, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        raise KeyboardInterrupt


def test_an_interrupted_explanation_in_segments_leaves_the_model_as_it_was() -> None:
    model, x = _network(), torch.randn(2, 3, 5, 5)
    with pytest.raises(KeyboardInterrupt):
        relprop.explain(model, x, 1, rules=_Interrupted(), segments=["0", "1", "2"])
    assert _hooks(model) == 0
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_threads_share_a_model_in_segments_and_without() -> None:
    model, xs = _network(), [torch.randn(2, 3, 5, 5) for _ in range(3)]
    explainers = [relprop.Explainer(model, Gamma(0.25)), relprop.Explainer(model, Gamma(0.25), segments=["0", "1"])]
    expected = [relprop.explain(model, x, 1, rules=Gamma(0.25)).relevance for x in xs]
    found: list[bool] = []

    def work(i: int) -> None:
        for k in range(6):
            found.append(torch.equal(explainers[(i + k) % 2](xs[i], 1).relevance, expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 18
    assert _hooks(model) == 0
