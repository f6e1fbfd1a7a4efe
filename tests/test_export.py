"""A saved program explains as the explainer does, without relprop, and whatever the values of the input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InvalidFile, InvalidInput, InvalidTarget, TrainingMode, UnsupportedModel
from relprop.export.recording import record
from relprop.rules import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Sigmoid(), nn.Linear(5, 4)).eval()


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    model = nn.Sequential(*layers, nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model[1].running_var.uniform_(0.5, 2)
    return model.eval()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: bool) -> None:
        super().__init__()
        self.layer = kind(3, 4, batch_first=True, **options)
        self.head = nn.Linear(4 * (1 + options.get("bidirectional", False)), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Handwritten(nn.Module):
    """A GRU in Python, whose gates are joined to linear operations as long as they are not negative."""

    def __init__(self) -> None:
        super().__init__()
        self.of_x, self.of_h, self.head = nn.Linear(3, 12), nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            (r, z, n), (r_h, z_h, n_h) = self.of_x(x[:, t]).chunk(3, -1), self.of_h(h).chunk(3, -1)
            z = torch.sigmoid(z + z_h)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
        return self.head(h)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
        self.encoder, self.head = nn.TransformerEncoder(block, 1, enable_nested_tensor=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Reading(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.network = nn.Embedding(11, 8), Attending()

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.network(self.embedding(input_ids) + torch.arange(input_ids.shape[1])[:, None] * 0.1)


def recurrent(kind: type[nn.RNNBase], **options: bool) -> nn.Module:
    torch.manual_seed(0)
    return Recurrent(kind, **options).eval()


def run(path: Path, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
    return torch.export.load(path).module()(*inputs, **named)


def same(found: Tensor, expected: Tensor) -> bool:
    """Up to rounding: where the program takes the general way, sums are added up in another order."""
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


CASES = {
    "mlp epsilon": (mlp, (6,), Epsilon()),
    "mlp z+": (mlp, (6,), ZPlus()),
    "mlp gamma": (mlp, (6,), Gamma()),
    "mlp alpha-beta": (mlp, (6,), AlphaBeta(2, 1)),
    "mlp box": (mlp, (6,), relprop.RuleMap([("first", ZBox(-9, 9)), ("affine", Gamma())])),
    "mlp w-square": (mlp, (6,), relprop.RuleMap([("first", WSquare()), ("affine", ZPlus())])),
    "mlp flat": (mlp, (6,), relprop.RuleMap([("first", Flat()), ("affine", AlphaBeta(2, 1))])),
    "mlp distribute": (mlp, (6,), Epsilon(1e-2, bias="distribute")),
    "conv epsilon": (convolutional, (2, 8, 8), "epsilon"),
    "conv z+": (convolutional, (2, 8, 8), "epsilon-plus"),
    "conv flat": (convolutional, (2, 8, 8), "epsilon-plus-flat"),
    "conv gamma": (convolutional, (2, 8, 8), "gamma"),
    "conv box": (convolutional, (2, 8, 8), "epsilon-gamma-box"),
    "conv alpha-beta": (convolutional, (2, 8, 8), "epsilon-alpha2-beta1"),
    "conv w-square": (convolutional, (2, 8, 8), "w-square"),
    "lstm epsilon": (lambda: recurrent(nn.LSTM, bidirectional=True), (2, 3), "epsilon"),
    "lstm gamma": (lambda: recurrent(nn.LSTM), (2, 3), Gamma()),
    "gru z+": (lambda: recurrent(nn.GRU), (2, 3), ZPlus()),
    "transformer attn-lrp": (Attending, (3, 8), "attn-lrp"),
    "transformer gamma": (Attending, (3, 8), "gamma"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_example_without_negative_values_decides_nothing(case: str) -> None:
    make, shape, rules = CASES[case]
    explainer = relprop.Explainer(make().eval(), rules, bounds=(-9, 9))
    example = torch.rand(2, *shape)
    graph = record(explainer, example).graph
    torch.manual_seed(1)
    for x in (torch.randn(3, *shape), -torch.rand(1, *shape), example):
        expected = explainer(x)
        score, relevance, target = graph(x)
        assert same(score, expected.score)
        assert same(relevance, expected.relevance)
        assert torch.equal(target, expected.target)


def test_a_gru_written_by_hand_is_exported_for_its_number_of_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    explainer = relprop.Explainer(Handwritten().eval(), "gamma")
    with pytest.raises(UnsupportedModel, match="dynamic_batch=False"):
        explainer.export(tmp_path / "explain.pt2", torch.rand(2, 2, 3))
    assert not (tmp_path / "explain.pt2").exists()
    graph, x = record(explainer, torch.rand(2, 2, 3), dynamic_batch=False).graph, torch.randn(2, 2, 3)
    assert same(graph(x)[1], explainer(x).relevance)


def test_the_program_runs_without_relprop(tmp_path: Path) -> None:
    model, x = convolutional(), torch.rand(2, 2, 8, 8)
    explainer = relprop.Explainer(model, "epsilon-plus-flat")
    explainer.export(tmp_path / "explain.pt2", x, target=1)
    torch.save(x, tmp_path / "x.pt")
    code = f"""
import sys
sys.modules["relprop"] = None
import torch
score, relevance = torch.export.load({str(tmp_path / "explain.pt2")!r}).module()(torch.load({str(tmp_path / "x.pt")!r}))
torch.save((score, relevance), {str(tmp_path / "found.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
    score, relevance = torch.load(tmp_path / "found.pt")
    expected = explainer(x, target=1)
    assert same(score, expected.score)
    assert same(relevance, expected.relevance)


def test_another_shape_is_refused_and_not_miscomputed(tmp_path: Path) -> None:
    relprop.Explainer(mlp(), "epsilon").export(tmp_path / "any.pt2", torch.rand(2, 6))
    relprop.Explainer(mlp(), "epsilon").export(tmp_path / "two.pt2", torch.rand(2, 6), dynamic_batch=False)
    for path, shape in ((tmp_path / "any.pt2", (2, 7)), (tmp_path / "two.pt2", (3, 6)), (tmp_path / "any.pt2", (6,))):
        with pytest.raises((RuntimeError, ValueError, AssertionError, IndexError)):
            run(path, torch.rand(shape))


@pytest.mark.parametrize("target", [2, "c"])
def test_one_class_for_all_samples(target: int | str) -> None:
    explainer = relprop.Explainer(mlp(), "epsilon", labels=["a", "b", "c", "d"])
    x = torch.randn(3, 6)
    score, relevance = record(explainer, torch.rand(2, 6), target).graph(x)
    assert torch.equal(score, explainer.model(x)[:, 2].detach())
    assert same(relevance, explainer(x, 2).relevance)


def test_a_tensor_of_classes_becomes_an_input(tmp_path: Path) -> None:
    explainer = relprop.Explainer(mlp(), "epsilon")
    explainer.export(tmp_path / "explain.pt2", torch.rand(2, 6), torch.tensor([0, 1]))
    x, target = torch.randn(3, 6), torch.tensor([3, 1, 2])
    score, relevance = run(tmp_path / "explain.pt2", x, target)
    expected = explainer(x, target)
    assert same(score, expected.score)
    assert same(relevance, expected.relevance)
    with pytest.raises((RuntimeError, IndexError)):
        run(tmp_path / "explain.pt2", x, torch.tensor([3, 1, 4]))


def test_a_function_as_target() -> None:
    explainer = relprop.Explainer(mlp(), "gamma")
    x = torch.randn(3, 6)
    graph = record(explainer, torch.rand(2, 6), lambda scores: scores[:, 1]).graph
    assert same(graph(x)[1], explainer(x, 1).relevance)


def test_a_list_of_classes_belongs_to_the_example_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidTarget, match=r"torch.tensor\(\[3, 5\]\)"):
        relprop.Explainer(mlp(), "epsilon").export(tmp_path / "explain.pt2", torch.rand(2, 6), [0, 1])


def test_token_ids_by_name_with_any_repetition(tmp_path: Path) -> None:
    explainer = relprop.Explainer(Reading().eval(), "attn-lrp")
    explainer.export(tmp_path / "explain.pt2", {"input_ids": torch.arange(5)[None]})
    ids = torch.tensor([[1, 1, 1, 10, 0], [9, 8, 7, 7, 7]])
    relevance = run(tmp_path / "explain.pt2", input_ids=ids)[1]
    expected = explainer({"input_ids": ids})
    assert same(relevance["input_ids"], expected.relevance["input_ids"])


def test_two_inputs(tmp_path: Path) -> None:
    linear = mlp()
    explainer = relprop.Explainer(lambda a, b: linear(a * 2 + b.abs()), "epsilon")
    explainer.export(tmp_path / "explain.pt2", (torch.rand(2, 6), torch.rand(2, 6)))
    a, b = torch.randn(3, 6), torch.randn(3, 6)
    _, relevance, _ = run(tmp_path / "explain.pt2", a, b)
    expected = explainer((a, b)).relevance
    assert all(same(mine, theirs) for mine, theirs in zip(relevance, expected, strict=True))


def test_double_precision_agrees_to_its_rounding() -> None:
    explainer = relprop.Explainer(convolutional().double(), "gamma")
    graph = record(explainer, torch.rand(2, 2, 8, 8).double()).graph
    x = torch.randn(2, 2, 8, 8).double()
    expected = explainer(x).relevance
    assert (graph(x)[1] - expected).abs().max() <= 1e-13 * expected.abs().max()


def test_a_second_run_finds_the_same(tmp_path: Path) -> None:
    """Constants that are written to in place, here a state that starts as a parameter, are new in every run."""

    class Summing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.head = nn.Parameter(torch.rand(2, 6)), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = self.start.detach().clone()
            state += x
            state *= 2
            return self.head(state)

    explainer = relprop.Explainer(Summing().eval(), "epsilon")
    explainer.export(tmp_path / "explain.pt2", torch.rand(2, 6), dynamic_batch=False)
    program, x = torch.export.load(tmp_path / "explain.pt2").module(), torch.randn(2, 6)
    first, second = program(x), program(x)
    assert torch.equal(first[0], second[0])
    assert same(second[1], explainer(x).relevance)


def test_a_model_that_asks_its_input_is_refused_where_it_asks(tmp_path: Path) -> None:
    linear = nn.Linear(6, 3)

    def asking(x: Tensor) -> Tensor:
        return linear(x) if bool(x.sum() > 0) else linear(-x)

    with pytest.raises(UnsupportedModel, match=r"test_export.py, line \d+: return linear\(x\) if"):
        relprop.Explainer(asking, "epsilon").export(tmp_path / "explain.pt2", torch.rand(2, 6))


def test_a_model_that_counts_its_samples_needs_their_number(tmp_path: Path) -> None:
    linear = nn.Linear(6, 3)

    def counting(x: Tensor) -> Tensor:
        return linear(x) if x.shape[0] > 2 else linear(-x)

    explainer = relprop.Explainer(counting, "epsilon")
    with pytest.raises(UnsupportedModel, match=r"number of samples \(.*test_export.py, line"):
        explainer.export(tmp_path / "explain.pt2", torch.rand(3, 6))
    explainer.export(tmp_path / "explain.pt2", torch.rand(3, 6), dynamic_batch=False)
    x = torch.randn(3, 6)
    assert same(run(tmp_path / "explain.pt2", x)[1], explainer(x).relevance)


def test_signs_that_values_decide_are_refused(tmp_path: Path) -> None:
    rules = relprop.RuleMap([("gate", Absolute()), ("affine", Gamma())])
    explainer, x = relprop.Explainer(recurrent(nn.GRU), rules), torch.rand(1, 2, 3)
    explainer(x)
    with pytest.raises(UnsupportedModel, match="depends on the values"):
        explainer.export(tmp_path / "explain.pt2", x)


def test_what_is_no_explanation_to_export(tmp_path: Path) -> None:
    x = torch.rand(2, 6)
    with pytest.raises(InvalidInput, match="only LRP"):
        relprop.Explainer(mlp(), method="gradient").export(tmp_path / "explain.pt2", x)
    with pytest.raises(InvalidFile, match=r"\.pt2"):
        relprop.Explainer(mlp()).export(tmp_path / "explain.bin", x)
    with pytest.raises(TrainingMode):
        relprop.Explainer(mlp().train()).export(tmp_path / "explain.pt2", x)
    with pytest.raises(InvalidInput, match="dynamic_batch=False"):
        explainer = relprop.Explainer(lambda a, b: mlp()(a) + b.sum(), "epsilon")
        explainer.export(tmp_path / "explain.pt2", (x, torch.rand(1, 3)))
    assert not list(tmp_path.iterdir())


def test_explaining_goes_on_as_before_an_export(tmp_path: Path) -> None:
    model = convolutional()
    explainer, x = relprop.Explainer(model, "gamma"), torch.rand(2, 2, 8, 8)
    before, state = explainer(x), {name: value.clone() for name, value in model.state_dict().items()}
    explainer.export(tmp_path / "explain.pt2", x)
    assert torch.equal(explainer(x).relevance, before.relevance)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
