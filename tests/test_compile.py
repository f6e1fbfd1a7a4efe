"""An explainer that runs recordings finds what one finds that follows each step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InvalidInput, InvalidTarget, NonFinite, RelpropError, TrainingMode
from relprop.export.recording import record
from relprop.export.running import function_of


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


def test_the_function_that_runs_computes_what_was_recorded_bit_by_bit() -> None:
    class Gated(nn.Module):
        """Writes into parts of its state, whose results nothing else reads."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0][:, -1])

    torch.manual_seed(0)
    for model, x in ((network(), torch.randn(3, 1, 6, 6)), (Gated().eval(), torch.randn(3, 2, 3))):
        recording = record(relprop.Explainer(model, "epsilon-plus"), x, dynamic_batch=False)
        for found, expected in zip(function_of(recording.graph)(x), recording.graph(x), strict=True):
            assert torch.equal(found, expected)


def test_another_shape_is_recorded_anew() -> None:
    model = network()
    plain, recorded = relprop.Explainer(model, "gamma"), relprop.Explainer(model, "gamma", compile="graph")
    for batch in (1, 4, 1):
        x = torch.randn(batch, 1, 6, 6)
        assert same(recorded(x).relevance, plain(x).relevance)


@pytest.mark.parametrize("through", ["in place", ".data", "new parameter", "new module", "statistics", "places"])
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
        elif through == "statistics":
            model[1].running_mean += 1
        else:  # a sum of the values would not tell
            model[0].weight.data.copy_(model[0].weight.flip(-1))
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
    def without(graph: Any, **_: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("No working C++ compiler found")  # as torch does, at the first call

        return call

    monkeypatch.setattr(torch, "compile", without)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    with pytest.raises(RelpropError, match=r'No working C\+\+ compiler found.*compile="graph"'):
        relprop.Explainer(model, "epsilon", compile=True)(torch.rand(2, 7))


def test_an_encoder_behind_a_linear_layer_is_joined_with_it_as_step_by_step() -> None:
    """In a recording, a dropout that does nothing must not come between two linear operations that are added."""
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(16, 2, 12, batch_first=True)
    model = nn.Sequential(nn.Linear(6, 16), layer, nn.Flatten(), nn.Linear(9 * 16, 3)).double().eval()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    for rules in ("epsilon", "attn-lrp"):
        expected = relprop.Explainer(model, rules)(x, 1).relevance
        assert torch.equal(relprop.Explainer(model, rules, compile="graph")(x, 1).relevance, expected)


def test_one_is_no_true() -> None:
    with pytest.raises(InvalidInput, match="compile: got 1, expected True"):
        relprop.Explainer(nn.Linear(2, 2).eval(), compile=1)  # type: ignore[arg-type]


def test_an_explainer_that_records_is_exported_as_one_that_does_not(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), torch.rand(2, 6)
    relprop.Explainer(model, "epsilon", compile="graph").export(tmp_path / "explain.pt2", x, 1)
    score, relevance = torch.export.load(tmp_path / "explain.pt2").module()(x)
    expected = relprop.explain(model, x, 1, rules="epsilon")
    assert same(relevance, expected.relevance) and same(score, expected.score)
