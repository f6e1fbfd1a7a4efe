"""The README's own code runs, from top to bottom, in one session."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import relprop
from relprop import zoo

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_every_block_runs_and_the_rule_of_ones_own_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"model": zoo.load("mnist-cnn"), "x": zoo.digits()[0][:2]}
    for block in blocks():
        exec(block, names)
    assert {path.name for path in tmp_path.iterdir()} == {"heatmap.png", "net.html", "review.html"}
    assert names["exact"].is_conservative(1e-5)  # type: ignore[attr-defined]
    assert names["found"].words[1].text == "bad"  # type: ignore[attr-defined]
    assert len(names["compared"]) == 4  # type: ignore[arg-type]

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3)
            self.features = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.features(self.stem(x).relu()).mean((2, 3)))

    report = relprop.check(Features().eval(), torch.rand(1, 1, 8, 8), rules=names["rules"])  # type: ignore[arg-type]
    applied = [op.rule.split("(")[0] for op in report.operations if op.rule]
    assert applied == ["ZBox", "Gamma", "Epsilon", "Epsilon"]
    own = names["TwiceGamma"]()  # type: ignore[operator]
    found = relprop.explain(zoo.load("mnist-cnn"), zoo.digits()[0][:1], rules=own)
    assert torch.isfinite(found.relevance).all() and found.relevance.abs().sum() > 0
