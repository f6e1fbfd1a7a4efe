"""An explanation as ONNX finds in another runtime what the explainer finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import UnsupportedModel
from relprop.presets import Rules
from relprop.rules import Flat, Gamma, ZPlus

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(3, 2, batch_first=True), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def convolutional() -> nn.Module:
    first = (nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(3, 2, 3, stride=2))
    return nn.Sequential(*first, nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(50, 3))


@pytest.mark.parametrize(
    ("make", "shape", "rules"),
    [
        (convolutional, (1, 8, 8), relprop.RuleMap([("first", Flat()), ("conv", ZPlus()), ("affine", Gamma())])),
        (Last, (2, 3), "epsilon"),
        (Attending, (3, 4), "attn-lrp"),
    ],
)
def test_another_runtime_finds_the_same(
    make: type[nn.Module], shape: tuple[int, ...], rules: Rules, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    explainer = relprop.Explainer(make().eval(), rules)
    explainer.export(tmp_path / "explain.onnx", torch.rand(2, *shape))
    session = onnxruntime.InferenceSession(tmp_path / "explain.onnx")
    assert [each.name for each in session.get_outputs()] == ["score", "relevance", "target"]
    x = torch.randn(3, *shape)
    score, relevance, target = map(torch.from_numpy, session.run(None, {"x": x.numpy()}))
    expected = explainer(x)
    assert (score - expected.score).abs().max() <= 1e-5 * expected.score.abs().max()
    assert (relevance - expected.relevance).abs().max() <= 1e-4 * expected.relevance.abs().max()
    assert torch.equal(target, expected.target)


def test_what_onnx_has_no_form_for_is_refused(tmp_path: Path) -> None:
    linear = nn.Linear(5, 3)
    explainer = relprop.Explainer(lambda x: torch.special.i0e(linear(x)), "epsilon")
    with pytest.raises(UnsupportedModel, match=r"\.pt2"):
        explainer.export(tmp_path / "explain.onnx", torch.rand(2, 5))
    assert not list(tmp_path.iterdir())
