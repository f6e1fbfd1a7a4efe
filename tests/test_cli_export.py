"""`relprop export` writes programs that explain as `relprop image` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import relprop
from relprop import zoo
from relprop.cli import app
from relprop.cli.console import Exit


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def network(tmp_path: Path) -> nn.Module:
    """As one.pt2 for one picture, as any.pt2 for any number of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).eval()
    torch.export.save(torch.export.export(model, (torch.rand(1, 1, 6, 6),)), "one.pt2")
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (torch.rand(2, 1, 6, 6),), dynamic_shapes=batch), "any.pt2")
    return model


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def test_the_line_that_is_printed_runs_the_file_of_a_zoo_model() -> None:
    result = run("--model", "mnist-cnn", "--out", "digits.pt2")
    assert result.exit_code == Exit.OK, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("use: ")).removeprefix("use: ")
    x = zoo.digits()[0][[3, 33, 77]]
    found = {"torch": torch, "x": x}
    exec(line, found)
    entry = zoo.picture_entry("mnist-cnn")
    expected = relprop.explain(zoo.load("mnist-cnn"), x, rules=entry.rules, bounds=entry.bounds)
    assert same(found["relevance"], expected.relevance)
    assert torch.equal(found["target"], expected.target)
    assert "x (batch, 1, 28, 28)" in result.stdout


def test_a_program_takes_as_many_pictures_as_its_model(network: nn.Module) -> None:
    for model, sides in (("one.pt2", [1, 1, 6, 6]), ("any.pt2", ["batch", 1, 6, 6])):
        result = run("--model", model, "--out", "explain.pt2", "--target", 2, "--rules", "gamma", "--json")
        assert result.exit_code == Exit.OK, result.output
        told = json.loads(result.stdout)
        assert (told["input"], told["results"], told["rules"]) == (sides, ["score", "relevance"], "gamma")
        x = torch.rand(1 if sides[0] == 1 else 3, 1, 6, 6)
        score, relevance = torch.export.load("explain.pt2").module()(x)
        expected = relprop.explain(network, x, 2, rules="gamma")
        assert same(score, expected.score)
        assert same(relevance, expected.relevance)


def test_bounds_follow_from_the_preprocessing(network: nn.Module) -> None:
    options = ("--rules", "epsilon-gamma-box", "--mean", "0.5", "--std", "0.25")
    assert run("--model", "any.pt2", "--out", "explain.pt2", *options).exit_code == Exit.OK
    x = torch.rand(2, 1, 6, 6) * 4 - 2
    expected = relprop.explain(network, x, rules="epsilon-gamma-box", bounds=(-2, 2))
    assert same(torch.export.load("explain.pt2").module()(x)[1], expected.relevance)


def test_errors_are_sentences(network: nn.Module) -> None:
    for options, code, part in (
        (("--model", "any.pt2", "--out", "explain.bin"), Exit.ERROR, ".onnx for ONNX"),
        (("--model", "mnist-cn", "--out", "explain.pt2"), Exit.ERROR, "did you mean 'mnist-cnn'?"),
        (("--model", "missing.pt2", "--out", "explain.pt2"), Exit.ERROR, "there is no file"),
        (("--model", "any.pt2", "--out", "explain.pt2", "--target", 4), Exit.ERROR, "out of range"),
        (("--model", "any.pt2", "--out", "no/explain.pt2"), Exit.ERROR, "no folder"),
        (("--model", "one.pt2", "--out", "explain.pt2", "--any-number"), Exit.USAGE, "takes one picture at a time"),
        (("--model", "any.pt2", "--out", "any.pt2"), Exit.USAGE, "is the model itself"),
        (("--model", "any.pt2", "--out", "explain.pt2", "--size", 9), Exit.USAGE, "6 x 6 pixels"),
    ):
        result = run(*options)
        assert result.exit_code == code, result.output
        assert part in " ".join(result.output.split())
    assert not Path("explain.pt2").exists()
