"""An explainer that runs recordings finds what one finds that follows each step."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InvalidInput, InvalidTarget, NonFinite, RelpropError, TrainingMode


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    return nn.Sequential(*layers).eval()


def same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus-flat", "gamma"])
def test_a_recording_is_explained_alike(rules: str) -> None:
    model, x = network(), torch.randn(3, 1, 6, 6)
    plain, recorded = relprop.Explainer(model, rules), relprop.Explainer(model, rules, compile="graph")
    for target in (None, 2, [0, 3, 1]):
        expected, found = plain(x, target), recorded(-x if target == 2 else x, target)
        expected = plain(-x, target) if target == 2 else expected
        assert same(found.relevance, expected.relevance)
        assert same(found.score, expected.score)
        assert torch.equal(found.target, expected.target)
        assert found.rules == expected.rules
    assert recorded(x).conservation.operations == plain(x).conservation.operations


def test_another_shape_is_recorded_anew() -> None:
    model = network()
    plain, recorded = relprop.Explainer(model, "gamma"), relprop.Explainer(model, "gamma", compile="graph")
    for batch in (1, 4, 1):
        x = torch.randn(batch, 1, 6, 6)
        assert same(recorded(x).relevance, plain(x).relevance)


@pytest.mark.parametrize("through", ["in place", ".data", "new parameter", "new module", "statistics"])
def test_changed_weights_are_seen(through: str) -> None:
    model, x = network(), torch.randn(2, 1, 6, 6)
    recorded = relprop.Explainer(model, "epsilon-plus", compile="graph")
    before = recorded(x).relevance
    with torch.no_grad():
        if through == "in place":
            model[0].weight.mul_(-1)
        elif through == ".data":
            model[4].weight.data.mul_(-1)
        elif through == "new parameter":
            model[4].weight.data = -model[4].weight.data
        elif through == "new module":
            model[4] = nn.Linear(48, 4).eval()
        else:
            model[1].running_mean += 1
    found = recorded(x).relevance
    assert same(found, relprop.Explainer(model, "epsilon-plus")(x).relevance)
    assert not same(found, before)


def test_what_can_not_be_explained_is_said_as_ever() -> None:
    model = network()
    recorded = relprop.Explainer(model, "epsilon", compile="graph")
    x = torch.randn(2, 1, 6, 6)
    recorded(x)
    with pytest.raises(NonFinite):
        recorded(torch.full_like(x, float("nan")))
    with pytest.raises(InvalidTarget):
        recorded(x, 4)
    with pytest.raises(InvalidTarget, match="compile="):
        recorded(x, lambda scores: scores[:, 0])
    with pytest.raises(InvalidInput, match="compile="):
        recorded(x, layers=["0"])
    with pytest.raises(InvalidInput, match="compile="):
        relprop.Explainer(model, method="gradient", compile=True)
    with pytest.raises(InvalidInput, match="compile"):
        relprop.Explainer(model, compile="fast")
    model.train()
    with pytest.raises(TrainingMode):
        recorded(x)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_through_torchs_compiler() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    plain, compiled = relprop.Explainer(model, "epsilon"), relprop.Explainer(model, "epsilon", compile=True)
    for x in (torch.rand(2, 6), torch.randn(2, 6)):
        assert same(compiled(x).relevance, plain(x).relevance)


def test_without_a_compiler_the_error_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    with pytest.raises(RelpropError, match='compile="graph"'):
        relprop.Explainer(model, "epsilon", compile=True)(torch.rand(2, 7))
