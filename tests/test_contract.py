"""The public contract: targets, layers, inputs, rule maps, threads, memory, and what is refused with which words."""

from __future__ import annotations

import copy
import gc
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, example, factory, in_float64, settle
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.errors import (
    InvalidFile,
    InvalidInput,
    InvalidOutput,
    InvalidRule,
    InvalidTarget,
    NonFinite,
    RelpropError,
    TrainingMode,
    UnsupportedFunction,
    UnsupportedModel,
)
from relprop.presets import PRESETS
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, Layer, Pass, Rule, WSquare, ZBox, Zero, ZPlus

BOUNDS = (-5.0, 5.0)


class Counting(nn.Module):
    """An MLP that counts its forward passes; the three scores have names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 6)
        self.fc2 = nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc2(F.relu(self.fc1(x)))


LABELS = ["cat", "dog", "horse"]


@pytest.fixture
def mlp() -> Counting:
    torch.manual_seed(0)
    return Counting().double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def conv_bn(double: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(2, 4, 3, padding=1),
            bn1=nn.BatchNorm2d(4),
            act1=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(4, 4, 3),
            act2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            fc=nn.Linear(16, 3),
        )
    )
    settle(model, bias=True)
    return model.double() if double else model


def images(size: int = 6, batch: int = 2) -> Tensor:
    return torch.rand(batch, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2 - 1


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    scale = float(expected.abs().max())
    assert found.shape == expected.shape
    assert float((found.double() - expected.double()).abs().max()) <= tolerance * max(scale, 1e-12)


# ---- targets


def test_no_target_is_each_samples_highest_score(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(mlp, x)
    best = mlp(x).max(1)
    assert torch.equal(found.target, best.indices)
    assert torch.equal(found.score, best.values)


@pytest.mark.parametrize(
    "target",
    [
        1,
        -2,
        [1, 1, 1],
        (1, -2, 1),
        torch.tensor([1, 1, 1]),
        torch.tensor([1, -2, 1], dtype=torch.int32),
        torch.tensor(1),
        np.int64(1),
        np.array([1, 1, 1]),
        "dog",
        ["dog", 1, "dog"],
        lambda output: output[:, 1],
        lambda output: output.select(1, 1) * 1,
    ],
)
def test_every_way_to_say_class_1_gives_the_same(mlp: Counting, x: Tensor, target: Any) -> None:
    """Fails if negative indices, names, tensors or functions are taken for another class."""
    expected = relprop.explain(mlp, x, lambda output: output.gather(1, torch.ones(3, 1).long())[:, 0])
    found = relprop.explain(mlp, x, target, labels=LABELS)
    assert torch.equal(found.score, mlp(x)[:, 1])
    close(found.relevance, expected.relevance)
    if not callable(target):
        assert torch.equal(found.target, torch.ones(3).long())
        assert found.label(0) == "dog"


def test_one_target_per_sample(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(mlp, x, [2, 0, 1])
    assert found.target.tolist() == [2, 0, 1]
    for i, t in enumerate([2, 0, 1]):
        close(found.relevance[i : i + 1], relprop.explain(mlp, x[i : i + 1], t).relevance)


def test_a_contrastive_target_is_the_difference_of_two(mlp: Counting, x: Tensor) -> None:
    """LRP-0 is linear in what is explained."""
    found = relprop.explain(mlp, x, lambda output: output[:, 1] - output[:, 0], rules=Zero())
    one, zero = relprop.explain(mlp, x, targets=[1, 0], rules=Zero())
    close(found.relevance, one.relevance - zero.relevance)
    assert found.target is None and found.label(0) == "score"


def test_names_come_from_the_model_if_it_has_them(mlp: Counting, x: Tensor) -> None:
    mlp.labels = LABELS
    assert relprop.explain(mlp, x, "horse").target.tolist() == [2, 2, 2]
    assert relprop.explain(mlp, x, "a", labels=["a", "b", "c"]).target.tolist() == [0, 0, 0]
    del mlp.labels
    mlp.config = type("Config", (), {"id2label": {0: "no", 1: "yes", 2: "maybe"}})()
    assert relprop.explain(mlp, x, "yes").labels == ("no", "yes", "maybe")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (3, r"out of range.*3 scores, 0 to 2"),
        (-4, "out of range"),
        ([0, 1], r"2 targets for a batch of 3.*targets=\["),
        (torch.tensor([0, 1]), "2 targets for a batch of 3"),
        ("dgo", r"no class named 'dgo'.*'dog'"),
        ("zzz", r"no class named 'zzz'.*cat, dog, horse"),
        (True, "True.*class index"),
        (1.0, "1.0.*class index"),
        ([1.0, 2.0, 0.0], "1.0.*class index"),
        (torch.tensor([1.0, 0.0, 1.0]), r"float32.*integers"),
        (torch.tensor([True, False, True]), r"bool.*integers"),
        (torch.zeros(3, 1).long(), r"shape \(3, 1\)"),
        (object(), "class index"),
        ({"class": 1}, "class index"),
        (lambda output: output, r"shape \(3, 3\).*one score per sample"),
        (lambda output: output.sum(), "one score per sample"),
        (lambda output: output[:2, 0], "one score per sample"),
        (lambda output: torch.ones(3), "does not depend on the input"),
        (lambda output: 3.0, "float.*does not depend on the input"),
        (lambda output: None, "does not depend on the input"),
    ],
)
def test_targets_that_the_output_does_not_have_are_refused(mlp: Counting, x: Tensor, target: Any, says: Any) -> None:
    """Each message says what was met and what to write instead."""
    with pytest.raises(InvalidTarget, match=re.compile(says, re.DOTALL)):
        relprop.explain(mlp, x, target, labels=LABELS)


def test_a_name_without_names_is_refused(mlp: Counting, x: Tensor) -> None:
    with pytest.raises(InvalidTarget, match=r"labels=\["):
        relprop.explain(mlp, x, "dog")


def test_target_and_targets_together_are_refused(mlp: Counting, x: Tensor) -> None:
    with pytest.raises(InvalidTarget, match="not both"):
        relprop.explain(mlp, x, 1, targets=[1])
    with pytest.raises(InvalidTarget, match="empty"):
        relprop.explain(mlp, x, targets=[])


# ---- one forward for many


def test_several_targets_share_one_forward(mlp: Counting, x: Tensor) -> None:
    """Fails if each target runs the model anew, or if one backward consumes what the next needs."""
    targets: list[Any] = [0, "horse", None, [2, 1, 0], lambda output: output[:, 0] - output[:, 2]]
    alone = [relprop.explain(mlp, x, t, labels=LABELS, rules=Gamma(0.5)) for t in targets]
    mlp.calls = 0
    together = relprop.explain(mlp, x, targets=targets, labels=LABELS, rules=Gamma(0.5), layers=["fc1"])
    assert mlp.calls == 1
    assert isinstance(together, list)
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.relevance, other.relevance)
        assert torch.equal(one.score, other.score)
    assert not torch.equal(together[0].layers["fc1"], together[1].layers["fc1"])


def test_several_rules_share_one_forward(mlp: Counting, x: Tensor) -> None:
    rules: list[Any] = [*PRESETS, "auto", Gamma(1.0), RuleMap([("fc1", Flat()), ("fc2", ZPlus())], name="mine")]
    alone = [relprop.explain(mlp, x, 1, rules=r, bounds=BOUNDS).relevance for r in rules]
    mlp.calls = 0
    together = relprop.Explainer(mlp, bounds=BOUNDS).compare(x, rules, 1, layers=["fc1"])
    assert mlp.calls == 1
    assert list(together) == [*PRESETS, "auto", "Gamma(gamma=1.0, eps=1e-06)", "mine"]
    for found, expected in zip(together.values(), alone, strict=True):
        close(found.relevance, expected, 1e-12)
        assert found.layers["fc1"].shape == (3, 6)


def test_an_explanation_is_one_forward(mlp: Counting, x: Tensor) -> None:
    relprop.explain(mlp, x)
    assert mlp.calls == 1
    relprop.check(mlp, x)
    assert mlp.calls == 2


# ---- seed


def test_a_seed_of_the_scores_one_class_is_that_target(mlp: Counting, x: Tensor) -> None:
    """Relevance starts where the seed says: the score at class 1 and nothing elsewhere is target=1."""
    seed = torch.zeros(3, 3, dtype=torch.float64)
    seed[:, 1] = mlp(x)[:, 1].detach()
    found = relprop.explain(mlp, x, seed=seed, rules=Epsilon(0.1))
    close(found.relevance, relprop.explain(mlp, x, 1, rules=Epsilon(0.1)).relevance)
    close(found.score, seed[:, 1])


def test_any_seed_is_conserved_without_biases() -> None:
    model, x = in_float64(*ARCHITECTURES["vgg"](False))
    seed = torch.randn(2, 5, dtype=torch.float64)
    found = relprop.explain(model, x, seed=seed, rules=Zero())
    close(found.relevance.flatten(1).sum(1), seed.sum(1))
    close(found.score, seed.sum(1))


@pytest.mark.parametrize(
    ("seed", "error", "says"),
    [
        (torch.ones(3), InvalidTarget, r"shape \(3,\).*\(3, 3\)"),
        ("scores", InvalidTarget, "score"),
        (1.0, InvalidTarget, "seed"),
        (torch.full((3, 3), float("nan")), NonFinite, "seed"),
    ],
)
def test_seeds_of_another_form_are_refused(mlp: Counting, x: Tensor, seed: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        relprop.explain(mlp, x, seed=seed)


def test_a_seed_at_an_output_of_zero_is_refused(x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU()).double().eval()
    nn.init.constant_(model[0].bias, -100)
    with pytest.raises(InvalidTarget, match="zero"):
        relprop.explain(model, x, seed=torch.ones(3, 2, dtype=torch.float64))


# ---- layers


def test_relevance_inside_the_network_sums_to_the_score_without_biases() -> None:
    model, x = in_float64(*ARCHITECTURES["resnet"](False))
    names = ["conv1", "bn1", "maxpool", "layer1", "layer1.0", "layer2.1", "avgpool", "fc"]
    found = relprop.explain(model, x, 1, rules=Zero(), layers=names)
    assert set(found.layers) == set(names)
    for name in names:
        close(found.layers[name].flatten(1).sum(1), found.score)
    assert found.layers["layer1"].shape == (2, 6, 8, 8)


def test_a_hidden_layers_relevance_is_value_times_gradient_under_lrp_0(mlp: Counting, x: Tensor) -> None:
    values: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        output.retain_grad()
        values["fc1"] = output

    handle = mlp.fc1.register_forward_hook(keep)
    mlp(x)[:, 1].sum().backward()
    handle.remove()
    hidden = values["fc1"]
    assert hidden.grad is not None
    found = relprop.explain(mlp, x, 1, rules=Zero(), layers=["fc1", "fc2"]).layers
    close(found["fc1"], (hidden * hidden.grad).detach())
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[:, 1] = mlp(x)[:, 1].detach()
    close(found["fc2"], expected)


def test_explaining_the_upper_part_alone_gives_the_layers_relevance() -> None:
    """Relevance at layer k is the explanation of the network from k on, for every preset without a first-layer rule."""
    model, x = conv_bn(), images()
    lower, upper = model[:3].eval(), model[3:].eval()
    hidden = lower(x).detach()
    for rules in ("epsilon", "epsilon-plus", "epsilon-alpha2-beta1", "gamma"):
        found = relprop.explain(model, x, 1, rules=rules, layers=["act1"]).layers["act1"]
        close(found, relprop.explain(upper, hidden, 1, rules=rules).relevance)


def test_a_convolution_folded_into_its_batch_norm_reports_the_batch_norms_relevance() -> None:
    """Fails if the folded convolution, whose output nothing else uses, reports zeros."""
    found = relprop.explain(conv_bn(), images(), 1, rules="epsilon-plus", layers=["conv1", "bn1"]).layers
    assert torch.equal(found["conv1"], found["bn1"])
    assert bool((found["conv1"] != 0).any())


def test_a_module_called_twice_reports_both_calls_together() -> None:
    layer = nn.Linear(4, 4, bias=False).double()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    x = torch.randn(2, 4, dtype=torch.float64)
    found = relprop.explain(Twice().eval(), x, 0, rules=Zero(), layers=["layer"])
    close(found.layers["layer"].sum(1), 2 * found.score)


def test_the_layers_are_the_same_with_and_without_a_report(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(mlp, x, 1, layers=["fc1"])
    before = found.layers["fc1"].clone()
    assert found.conservation.operations
    assert torch.equal(found.layers["fc1"], before)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["fc3"], r"no module named 'fc3'.*'fc1' or 'fc2'|no module named 'fc3'.*'fc2' or 'fc1'"),
        (["fc1", "nothing like it"], "no module named 'nothing like it'"),
        (["unused"], "'unused' was not called"),
    ],
)
def test_layers_that_are_not_there_are_refused(mlp: Counting, x: Tensor, layers: list[str], says: str) -> None:
    mlp.unused = nn.Identity()
    with pytest.raises(InvalidInput, match=says):
        relprop.explain(mlp.eval(), x, 1, layers=layers)


# ---- inputs


def test_relevance_has_the_structure_of_the_input() -> None:
    siamese, pair = in_float64(*ARCHITECTURES["siamese"](True))
    assert isinstance(pair, tuple)
    found = relprop.explain(siamese, pair, 1)
    assert isinstance(found.relevance, tuple) and [r.shape for r in found.relevance] == [t.shape for t in pair]
    assert isinstance(relprop.explain(siamese, list(pair), 1).relevance, (tuple, list))

    model, by_name = in_float64(*ARCHITECTURES["two_inputs"](True))
    assert isinstance(by_name, dict)
    found = relprop.explain(model, by_name, 1)
    assert isinstance(found.relevance, dict) and list(found.relevance) == list(by_name)
    assert isinstance(found.inputs, dict) and torch.equal(found.inputs["image"], by_name["image"])


def test_arguments_that_are_no_tensors_are_passed_on(x: Tensor) -> None:
    def model(x: Tensor, factor: float, flag: bool = False) -> Tensor:
        return x * factor if flag else -x

    found = relprop.explain(model, {"x": x, "factor": 3.0, "flag": True}, 1, rules=RuleMap([(lambda op: True, Zero())]))
    assert list(found.relevance) == ["x"]
    close(found.relevance["x"][:, 1], 3 * x[:, 1])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_sample_is_explained_alike_alone_and_in_a_batch(preset: str) -> None:
    """Fails if samples of a batch share a denominator, a sign test or a statistic."""
    model, x = in_float64(*ARCHITECTURES["resnet"](True))
    assert isinstance(x, Tensor)
    x = torch.cat([x, -x, x.flip(3)])[:5]
    x[1] = x[1].abs()  # one sample for which passes for negative inputs could be left out
    together = relprop.explain(model, x, rules=preset, bounds=BOUNDS)
    for i in range(len(x)):
        alone = relprop.explain(model, x[i : i + 1], rules=preset, bounds=BOUNDS)
        close(alone.relevance, together.relevance[i : i + 1], 1e-9)
        close(together[i].relevance, alone.relevance, 1e-9)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("name", ["vgg_bn", "resnet", "convnext", "efficientnet"])
def test_float32_is_close_to_float64(name: str, preset: str) -> None:
    if "alpha2" in preset:
        pytest.skip("alpha-beta amplifies rounding by a factor in each layer")
    model, x = ARCHITECTURES[name](True)
    single = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS).relevance
    assert single.dtype == torch.float32
    model, x = in_float64(model, x)
    double = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS).relevance
    close(single, double, 1e-3)


@pytest.mark.parametrize("preset", ["epsilon", "epsilon-plus", "epsilon-plus-flat", "gamma", "epsilon-gamma-box"])
@pytest.mark.parametrize("name", ["vgg_bn", "lenet", "efficientnet"])
def test_bfloat16_runs_and_agrees(name: str, preset: str) -> None:
    """Fails if a small eps or an intermediate in another type turns the map into noise, or raises."""
    model, x = ARCHITECTURES[name](True)
    assert isinstance(model, nn.Module) and isinstance(x, Tensor)
    target = 1
    single = relprop.explain(model, x, target, rules=preset, bounds=BOUNDS).relevance
    half = relprop.explain(copy.deepcopy(model).bfloat16(), x.bfloat16(), target, rules=preset, bounds=BOUNDS)
    assert half.relevance.dtype == torch.bfloat16
    assert correlation(half.relevance, single) > 0.99


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double().flatten(), b.double().flatten()]))[0, 1])


@pytest.mark.parametrize(
    "relaid",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], 1)[:, 3:],
        lambda x: torch.stack([x, x], -1)[..., 1],
        lambda x: x[:1].expand(2, -1, -1, -1),
    ],
    ids=["channels_last", "transposed", "sliced", "strided", "expanded"],
)
@pytest.mark.parametrize("preset", ["epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "gamma", "w-square"])
def test_the_layout_of_the_input_does_not_matter(relaid: Callable[[Tensor], Tensor], preset: str) -> None:
    model, x = in_float64(*ARCHITECTURES["vgg_bn"](True))
    assert isinstance(x, Tensor)
    other = relaid(x)
    expected = relprop.explain(
        model, other.clone(memory_format=torch.contiguous_format), 1, rules=preset, bounds=BOUNDS
    )
    close(relprop.explain(model, other, 1, rules=preset, bounds=BOUNDS).relevance, expected.relevance)


def test_a_channels_last_model_is_explained_alike() -> None:
    model, x = in_float64(*ARCHITECTURES["vgg_bn"](True))
    assert isinstance(model, nn.Module) and isinstance(x, Tensor)
    expected = relprop.explain(model, x, 1, rules="gamma").relevance
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    close(relprop.explain(other, x.to(memory_format=torch.channels_last), 1, rules="gamma").relevance, expected)


def test_an_input_that_requires_grad_is_left_alone(mlp: Counting, x: Tensor) -> None:
    """Fails if the user's graph is extended, freed, or given a gradient."""
    expected = relprop.explain(mlp, x, 1).relevance
    leaf = x.clone().requires_grad_()
    inner = leaf * 1.0
    for given in (leaf, inner):
        found = relprop.explain(mlp, given, 1)
        close(found.relevance, expected, 1e-12)
        assert not found.relevance.requires_grad and not found.score.requires_grad
    assert leaf.grad is None and leaf.is_leaf and inner.grad_fn is not None
    inner.sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(x))


def test_parameters_need_not_require_grad(mlp: Counting, x: Tensor) -> None:
    expected = relprop.explain(mlp, x, 1, rules="epsilon-plus-flat").relevance
    mlp.requires_grad_(False)
    assert torch.equal(relprop.explain(mlp, x, 1, rules="epsilon-plus-flat").relevance, expected)
    assert not any(p.requires_grad for p in mlp.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=lambda c: c.__name__)
@pytest.mark.parametrize("preset", [*sorted(PRESETS), "auto"])
def test_under_the_callers_no_grad_or_inference_mode(context: Any, preset: str) -> None:
    """Fails if the caller's mode switches off what an explanation is made with."""
    model, x = conv_bn(), images()
    expected = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS, layers=["conv1"])
    with context():
        explainer = relprop.Explainer(model, preset, bounds=BOUNDS)
        found = explainer(x, 1, layers=["conv1"])
        made_inside = explainer(x * 1.0, 1)
        assert not torch.is_grad_enabled()
        assert found.conservation.operations
    assert torch.equal(found.relevance, expected.relevance)
    assert torch.equal(made_inside.relevance, expected.relevance)
    assert torch.equal(found.layers["conv1"], expected.layers["conv1"])
    assert torch.equal(explainer(x, 1).relevance, expected.relevance)


def test_a_model_made_in_inference_mode() -> None:
    """Its parameters are inference tensors, which autograd can't save."""
    expected = relprop.explain(conv_bn(), images(), 1).relevance
    with torch.inference_mode():
        model, x = conv_bn(), images()
    assert torch.equal(relprop.explain(model, x, 1).relevance, expected)


@pytest.mark.parametrize("preset", ["epsilon", "epsilon-plus-flat", "gamma", "epsilon-gamma-box"])
def test_under_autocast(preset: str) -> None:
    """The scores are the model's own under autocast, and the map is close to the one in full precision."""
    model, x = ARCHITECTURES["vgg_bn"](True)
    assert isinstance(x, Tensor)
    single = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            output = model(x)
        found = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS)
        balance = found.conservation
    assert found.relevance.dtype == torch.float32
    assert torch.equal(found.output, output)
    assert correlation(found.relevance, single.relevance) > 0.99
    assert balance.operations


@pytest.mark.parametrize(
    "squash", [lambda z: z.softmax(1), lambda z: F.log_softmax(z, 1), torch.sigmoid, nn.Softmax(1)]
)
def test_a_final_squash_is_left_out_with_a_note(mlp: Counting, x: Tensor, squash: Any) -> None:
    expected = relprop.explain(mlp, x, 1)
    found = relprop.explain(lambda x: squash(mlp(x)), x, 1)
    assert torch.equal(found.relevance, expected.relevance)
    assert torch.equal(found.score, expected.score)
    close(found.output, squash(mlp(x)).detach())
    assert any("left out" in note for note in found.notes)
    assert not any("left out" in note for note in expected.notes)
    assert any("left out" in note for note in relprop.check(lambda x: squash(mlp(x)), x, 1).notes)


def test_a_target_function_may_pick_a_probability_and_explains_its_score(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(lambda x: {"p": mlp(x).softmax(1)}, x, lambda output: output["p"][:, 2])
    assert torch.equal(found.score, mlp(x)[:, 2])
    assert any("left out" in note for note in found.notes)


class Named(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Returned(OrderedDict):  # type: ignore[type-arg]
    """A dictionary of a type of its own, as libraries return them."""


@pytest.mark.parametrize("form", [Named, lambda a, b: Returned(logits=a, hidden=b), lambda a, b: {"out": a, "aux": b}])
def test_outputs_of_several_tensors_keep_their_form(mlp: Counting, x: Tensor, form: Any) -> None:
    found = relprop.explain(lambda x: form(mlp(x), mlp.fc1(x)), x, 1)
    assert type(found.output) is type(form(x, x))
    assert torch.equal(found.score, mlp(x)[:, 1])


def test_a_regression_of_one_score_per_sample(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(lambda x: mlp(x)[:, 1], x)
    assert torch.equal(found.score, mlp(x)[:, 1])
    assert torch.equal(found.relevance, relprop.explain(mlp, x, 1).relevance)


# ---- threads


def in_threads(count: int, job: Callable[[int], None]) -> None:
    """Run job(0), ..., job(count - 1) at once and raise what any of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            start.wait()
            job(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_two_explainers_of_one_model_in_two_threads() -> None:
    """Fails if anything that one explanation needs is kept on the model or globally."""
    model, x = conv_bn(), images()
    rules: list[Any] = ["epsilon-plus-flat", Gamma(0.5)]
    inputs = [x, -x.flip(2)]
    expected = [relprop.explain(model, i, 1, rules=r, layers=["act1"]) for r, i in zip(rules, inputs, strict=True)]

    def job(k: int) -> None:
        explainer = relprop.Explainer(model, rules[k])
        for _ in range(25):
            found = explainer(inputs[k], 1, layers=["act1"])
            assert torch.equal(found.relevance, expected[k].relevance)
            assert torch.equal(found.layers["act1"], expected[k].layers["act1"])

    in_threads(2, job)


def test_one_explainer_in_several_threads() -> None:
    """Fails if prepared weights or the state of a backward pass are shared unprotected."""
    model, x = conv_bn(), images(batch=1)
    inputs = [x * s for s in (1, -1, 0.5)]
    expected = [relprop.explain(model, i, rules="gamma").relevance for i in inputs]
    for _ in range(8):
        explainer = relprop.Explainer(model, "gamma")

        def job(k: int, explainer: relprop.Explainer = explainer) -> None:
            for _ in range(5):
                assert torch.equal(explainer(inputs[k]).relevance, expected[k])

        in_threads(3, job)


def test_a_plain_forward_in_another_thread_is_not_traced(mlp: Counting, x: Tensor) -> None:
    expected = mlp(x)
    explanation = relprop.explain(mlp, x, 1).relevance

    def job(k: int) -> None:
        for _ in range(30):
            if k:
                assert torch.equal(mlp(x), expected)
            else:
                assert torch.equal(relprop.explain(mlp, x, 1, layers=["fc1"]).relevance, explanation)

    in_threads(2, job)


# ---- an explainer and weights that change


def step_of_sgd(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    model(images()).square().sum().backward()
    optimizer.step()


def through_data(model: nn.Module) -> None:
    for p in model.parameters():
        p.data.mul_(-0.7)


def one_value_through_data(model: nn.Module) -> None:
    model.conv2.weight.data[3, 3, 2, 2] += 5  # type: ignore[union-attr, operator]


def through_data_assigned(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data * 0.5 - 0.1


def through_numpy(model: nn.Module) -> None:
    for p in model.parameters():
        p.detach().numpy()[:] *= -0.5


def loaded(model: nn.Module) -> None:
    model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})


def loaded_assigned(model: nn.Module) -> None:
    model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()}, assign=True)


def batch_norm_statistics(model: nn.Module) -> None:
    model.bn1.running_var.mul_(7)  # type: ignore[union-attr, operator]
    model.bn1.running_mean.add_(0.3)  # type: ignore[union-attr, operator]


def replaced(model: nn.Module) -> None:
    model.conv2.weight = nn.Parameter(-model.conv2.weight.detach())  # type: ignore[union-attr, operator]


CHANGES = [
    step_of_sgd,
    through_data,
    one_value_through_data,
    through_data_assigned,
    through_numpy,
    loaded,
    loaded_assigned,
    batch_norm_statistics,
    replaced,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_an_explainer_sees_weights_that_changed_since(change: Callable[[nn.Module], None], preset: str) -> None:
    """Fails if weights prepared for a rule outlive the ones they were made of."""
    model, x = conv_bn(), images()
    explainer = relprop.Explainer(model, preset, bounds=BOUNDS)
    before = explainer(x, 1).relevance
    change(model)
    model.eval()
    expected = relprop.explain(copy.deepcopy(model), x, 1, rules=preset, bounds=BOUNDS).relevance
    assert not torch.equal(before, expected)
    close(explainer(x, 1).relevance, expected, 1e-12)


def test_one_value_changed_through_data_in_a_large_layer_is_seen() -> None:
    """Fails if only a sample of a large weight is compared with what was prepared."""
    model = nn.Sequential(nn.Linear(128, 128, bias=False), nn.ReLU(), nn.Linear(128, 3)).double().eval()
    x = torch.rand(1, 128, dtype=torch.float64)
    explainer = relprop.Explainer(model, ZPlus())
    explainer(x, 1)
    model[0].weight.data[5, 7] += 100
    expected = relprop.explain(copy.deepcopy(model), x, 1, rules=ZPlus()).relevance
    close(explainer(x, 1).relevance, expected)


def test_a_report_asked_for_after_the_model_changed_is_refused(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(mlp, x, 1)
    with torch.no_grad():
        mlp.fc2.bias.add_(1)
    with pytest.raises(RelpropError, match="Explain again"):
        found.conservation  # noqa: B018


# ---- memory


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


class Accumulating(nn.Module):
    """Residual sums and activations written over their inputs."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.fc = nn.Linear(4, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.conv1(x), inplace=True)
        h += self.conv2(h)
        h *= torch.sigmoid(self.conv2(h))
        F.elu_(h).tanh_()
        h[:, 0] = 0
        return self.fc(h.mean((2, 3)))


MODELS = {**ARCHITECTURES, "accumulating": factory(Accumulating, (2, 6, 6))}


def inner_layers(model: Any) -> list[str]:
    """The modules of a model that are called and return a tensor: those without children."""
    modules = model.named_modules() if isinstance(model, nn.Module) else []
    return [name for name, m in modules if name and not list(m.children()) and not isinstance(m, nn.ModuleList)]


@pytest.mark.parametrize("rules", ["epsilon-plus-flat", "w-square"])
@pytest.mark.parametrize("name", ["vgg_bn", "efficientnet", "accumulating"])
def test_explaining_many_times_keeps_no_tensors(name: str, rules: str) -> None:
    """Fails if recorded graphs, prepared weights or kept values pile up."""
    model, x = MODELS[name](True)
    explainer = relprop.Explainer(model, rules)
    layers = inner_layers(model)[:2]
    explainer(x, 1, layers=layers)
    before = live_tensors()
    for k in range(10):
        found = explainer(x, k % 3, layers=layers)
        if k % 5 == 0:
            found.conservation  # noqa: B018
            explainer.check(x)
    del found
    assert live_tensors() <= before


def test_fifty_explanations_keep_no_tensors() -> None:
    """The same, fifty times."""
    model, x = conv_bn(), images()
    explainer = relprop.Explainer(model)
    explainer(x)
    before = live_tensors()
    for _ in range(50):
        explainer(x)
    assert live_tensors() <= before


@pytest.mark.parametrize("rules", ["epsilon-plus-flat", "w-square"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_graph_is_freed_without_the_garbage_collector(name: str, rules: str) -> None:
    """Fails if operations and tensors refer to each other in a circle when the explanation is done."""
    model, x = MODELS[name](True)
    if not isinstance(model, nn.Module):
        pytest.skip("no modules to look into")
    target = {"unet": lambda o: o[:, 0].mean((1, 2)), "tuple_output": lambda o: o[0][:, 0]}.get(name, 1)
    relprop.explain(model, x, target, rules=rules)  # what torch imports on first use keeps its caller's tensors
    inside: list[weakref.ref[Tensor]] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            inside.append(weakref.ref(output))

    for module in list(model.modules())[1:]:
        module.register_forward_hook(look)
    gc.collect()
    gc.disable()
    try:
        found = relprop.explain(model, x, target, rules=rules)
        assert not any(ref() is not None for ref in inside)
        assert found.conservation.operations
        assert not any(ref() is not None for ref in inside)
    finally:
        gc.enable()


def test_the_graph_is_freed_when_layers_are_asked_for() -> None:
    """Fails if what collects a layer's relevance holds on to the layer's tensor and with it to the graph."""
    model, x = conv_bn(), images()
    inside: list[weakref.ref[Tensor]] = []
    model.act1.register_forward_hook(lambda m, args, out: inside.append(weakref.ref(out)))
    found = relprop.explain(model, x, 1, layers=["conv1", "act1", "fc"])
    gc.collect()
    assert len(found.layers) == 3
    assert inside and inside[0]() is None


def test_asking_for_layers_leaves_no_trace_in_the_notes(mlp: Counting, x: Tensor) -> None:
    """Fails if the machinery's own detach() is recorded as one of the model's."""
    assert relprop.explain(mlp, x, 1, layers=["fc1", "fc2"]).notes == relprop.explain(mlp, x, 1).notes == ()


class Words(nn.Module):
    """Token ids with learned positions and a mask; the score is linear in the word vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.positions = nn.Embedding(10, 8)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        if mask is not None:
            x = x * mask[..., None].float()
        return self.head(x.mean(1))


def test_token_ids_are_explained_at_the_embedding() -> None:
    """A word's relevance is its vector's share of the score; what positions add is a constant's."""
    model = settle(Words(), True)
    ids = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(3))
    shares = model.words(ids) @ model.head.weight[1] / 5
    found = relprop.explain(model, ids, 1, rules=Zero())
    assert found.relevance.shape == (2, 5)
    torch.testing.assert_close(found.relevance, shares.detach())
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    masked = relprop.explain(model, {"ids": ids, "mask": mask}, 1, rules=Zero())
    assert list(masked.relevance) == ["ids"]
    torch.testing.assert_close(masked.relevance["ids"], (shares * mask).detach())


def test_the_graph_is_freed_after_an_error_too(mlp: Counting, x: Tensor) -> None:
    inside: list[weakref.ref[Tensor]] = []
    mlp.fc1.register_forward_hook(lambda m, args, out: inside.append(weakref.ref(out)))
    with pytest.raises(InvalidTarget):
        relprop.explain(mlp, x, 17)
    gc.collect()
    assert inside and inside[0]() is None


def test_an_explainer_does_not_keep_a_models_old_weights_alive() -> None:
    model, x = conv_bn(), images()
    explainer = relprop.Explainer(model, "gamma")
    explainer(x)
    old = weakref.ref(model.conv2.weight)
    replaced(model)
    gc.collect()
    assert old() is None


# ---- what is refused


def test_training_mode_is_refused_by_name(mlp: Counting, x: Tensor) -> None:
    with pytest.raises(TrainingMode, match=r"the model is in training mode.*model\.eval\(\)"):
        relprop.explain(mlp.train(), x)
    mlp.eval().fc1.train()
    with pytest.raises(TrainingMode, match="'fc1'"):
        relprop.explain(mlp, x)
    assert mlp.calls == 0


def test_functional_training_is_refused(mlp: Counting, x: Tensor) -> None:
    with pytest.raises(TrainingMode, match=r"dropout.*training=self\.training"):
        relprop.explain(lambda x: mlp(F.dropout(x, 0.5)), x)
    with pytest.raises(TrainingMode, match="statistics of the batch"):
        relprop.explain(lambda x: mlp(F.batch_norm(x, None, None, training=True)), x)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (np.zeros((2, 4)), InvalidInput, r"ndarray.*torch\.from_numpy"),
        ([[0.0, 1.0]], InvalidInput, "no tensor"),
        (3.0, InvalidInput, "float"),
        (None, InvalidInput, "NoneType"),
        ("x", InvalidInput, "str"),
        ((), InvalidInput, "no tensor"),
        ({}, InvalidInput, "no tensor"),
        (torch.zeros(0, 4), InvalidInput, r"\(0, 4\).*batch"),
        (torch.tensor(1.0), InvalidInput, r"\(\).*batch"),
        (torch.zeros(2, 4, dtype=torch.complex64), InvalidInput, "complex"),
        (torch.zeros(2, 4, dtype=torch.uint8), InvalidInput, r"integers.*x\.float\(\)"),
        (torch.zeros(2, 4, dtype=torch.int64), InvalidInput, r"integers.*x\.float\(\)"),
        (torch.zeros(2, 4, dtype=torch.bool), InvalidInput, r"x\.float\(\)"),
        (torch.full((2, 4), float("nan"), dtype=torch.float64), NonFinite, "8 values.*nan_to_num"),
        (torch.full((2, 4), float("inf"), dtype=torch.float64), NonFinite, "infinite"),
    ],
)
def test_inputs_that_cant_be_explained_are_refused(mlp: Counting, given: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=re.compile(says, re.DOTALL)):
        relprop.explain(mlp, given)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_an_image_of_integers_is_refused_before_a_convolution(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInput, match=r"x\.float\(\) / 255"):
        relprop.explain(conv_bn(), torch.zeros(1, 2, 6, 6, dtype=dtype))


def test_a_model_that_converts_integers_itself_is_refused_with_the_same_words() -> None:
    """Fails if an image of integers that the model divides by 255 gets a map of nothing."""
    model = conv_bn()
    with pytest.raises(InvalidInput, match=r"x\.float\(\) / 255"):
        relprop.explain(lambda x: model(x.double() / 255), torch.full((1, 2, 6, 6), 7, dtype=torch.uint8))


def test_the_models_own_errors_come_through(mlp: Counting) -> None:
    """Fails if an error of the user's own code is dressed as one of relprop's."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        relprop.explain(mlp, torch.zeros(2, 5, dtype=torch.float64))


def test_a_single_sample_without_a_batch_is_refused(mlp: Counting, x: Tensor) -> None:
    with pytest.raises(InvalidOutput, match="unsqueeze"):
        relprop.explain(mlp, x[0])


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (lambda x: x.shape[0], InvalidOutput, "int"),
        (lambda x: None, InvalidOutput, "NoneType"),
        (lambda x: x.argmax(1), InvalidOutput, "no tensor depends"),
        (lambda x: torch.ones(3, 2), InvalidOutput, "no tensor depends"),
        (lambda x: torch.ones_like(x), InvalidOutput, "no tensor depends"),
        (lambda x: (x * 2, x * 3), InvalidTarget, r"several tensors.*target=lambda"),
        (lambda x: (x * 2)[:, :, None].expand(-1, -1, 5), InvalidTarget, r"target=lambda output"),
        (lambda x: (x * 2).sum(), InvalidOutput, "batch"),
        (lambda x: x * float("nan"), NonFinite, "score of sample 0 is nan"),
        (lambda x: x / 0.0, NonFinite, "score of sample 0"),
    ],
)
def test_outputs_that_cant_be_explained_are_refused(x: Tensor, model: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=re.compile(says, re.DOTALL)):
        relprop.explain(model, x)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear, r"class Linear; write Linear\(\.\.\.\)"),
        ({"weight": torch.ones(2)}, "load_state_dict"),
        ("model.pt", "can't be called"),
        (None, "can't be called"),
    ],
    ids=["class", "state dict", "path", "None"],
)
def test_what_is_no_model_is_refused(model: Any, says: str) -> None:
    with pytest.raises(UnsupportedModel, match=says):
        relprop.Explainer(model)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.linalg.matrix_exp(x[:, :, None] * x[:, None]).sum(1), "matrix_exp"),
        (lambda x: torch.fft.fft(x).angle(), "angle"),
        (lambda x: torch.from_numpy(x.detach().numpy()) + x, "numpy"),
        (lambda x: F.linear(x, x.T @ x), "computed from the input"),
        (lambda x: torch.special.bessel_j0(x), "bessel_j0"),
        (lambda x: torch.add(x, x, out=torch.empty(3, 4, dtype=torch.float64)), "out="),
    ],
    ids=["linalg", "angle", "numpy", "dynamic weights", "special", "out="],
)
def test_functions_that_nobody_described_are_refused_by_name(x: Tensor, function: Any, name: str) -> None:
    """Never a silent fall-back to the plain gradient."""

    class Part(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    model = nn.Sequential(nn.Identity(), Part()).eval()
    with pytest.raises(UnsupportedFunction, match=re.escape(name)) as error:
        relprop.explain(model, x, 0)
    assert "'1'" in str(error.value)
    report = relprop.check(model, x, 0)
    assert not report.ok and any(name in line for line in report.unsupported)


def test_all_unsupported_functions_are_listed_at_once(x: Tensor) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x) + torch.special.bessel_j1(x)

    with pytest.raises(UnsupportedFunction, match=r"2 functions[\s\S]*bessel_j0[\s\S]*bessel_j1"):
        relprop.explain(model, x, 0)


def test_a_registered_function_is_explained(x: Tensor) -> None:
    """The line that the message advises is the line that helps."""
    from relprop.engine.registry import REGISTRY

    def model(x: Tensor) -> Tensor:
        return torch.special.bessel_j1(2 * x)

    with pytest.raises(UnsupportedFunction) as error:
        relprop.explain(model, x, 0)
    advice = re.search(r'relprop\.register\("(.*?)", kind=\.\.\.\)', str(error.value))
    assert advice is not None
    relprop.register(advice[1], kind="activation")
    try:
        found = relprop.explain(model, x, 0, rules=RuleMap([(lambda op: True, Zero())]))
        close(found.relevance[:, 0], found.score)
    finally:
        del REGISTRY[advice[1]]


# ---- rules and bounds that are refused


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("epsilon-pluss", "Did you mean 'epsilon-plus'.*The presets are: auto, "),
        ("nothing of the kind", "The presets are: auto, "),
        (Epsilon, r"class Epsilon; write Epsilon\(|Epsilon\("),
        ([("conv", Gamma)], r"the class Gamma; write Gamma\(\)"),
        ([("conv", "gamma")], r"'gamma' as a rule"),
        ([("conv", 0.25)], "0.25 as a rule"),
        ([Gamma()], r"\(selector, rule\)"),
        ([("conv", Gamma(), 1)], r"\(selector, rule\)"),
        ([(3, Gamma())], "3 as a selector.*affine.*conv.*linear"),
        (None, "preset"),
        (3, "preset"),
        ({"conv": Gamma()}, "preset"),
    ],
)
def test_rules_that_are_none_are_refused(rules: Any, says: str) -> None:
    with pytest.raises(InvalidRule, match=re.compile(says, re.DOTALL)):
        relprop.Explainer(conv_bn(), rules)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([("conv", Gamma())], r"no entry.*module 'fc'.*\(\"affine\", Epsilon\(\)\)"),
        ([("convs*", Gamma()), ("affine", Zero())], "'convs\\*' matches no operation.*'conv2'.*'fc'"),
        ([("Conv", Gamma()), ("affine", Zero())], "'Conv' matches no operation"),
        ([(nn.Conv1d, Gamma()), ("affine", Zero())], "Conv1d matches no operation"),
        ([(lambda op: False, Gamma())], "no entry|matches nothing"),
        ([], "no entry|matches nothing"),
        ([("sum", Gamma()), ("affine", Zero())], r"no meaning for a sum.*Epsilon\(eps\)"),
        ([("affine", Pass())], r"Pass\(\) needs.*output has its input's shape"),
    ],
)
def test_rule_maps_that_do_not_fit_the_model_are_refused(rules: Any, says: str) -> None:
    with pytest.raises(InvalidRule, match=re.compile(says, re.DOTALL)):
        relprop.explain(conv_bn(), images(), 1, rules=RuleMap(rules))


def test_a_rule_map_that_matches_nothing_is_refused(x: Tensor) -> None:
    with pytest.raises(InvalidRule, match="matches nothing"):
        relprop.explain(lambda x: x * 2, x, 1, rules=RuleMap([("conv", Gamma())]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Epsilon(-1), r"Epsilon\(eps\).*-1.*>= 0"),
        (lambda: Epsilon(1e-6, bias="share"), "absorb.*distribute"),
        (lambda: Gamma(-0.1), ">= 0"),
        (lambda: AlphaBeta(2, 2), "alpha - beta = 1"),
        (lambda: AlphaBeta(0, -1), "alpha - beta = 1"),
        (lambda: ZBox(1, 0), "low < high"),
        (lambda: ZBox(torch.zeros(3, 1, 1), torch.tensor([1.0, 0.0, 1.0])[:, None, None]), "low < high"),
        (lambda: ZBox(0, 1, eps=-1), ">= 0"),
    ],
)
def test_parameters_that_a_rule_cant_have_are_refused(make: Callable[[], Rule], says: str) -> None:
    with pytest.raises(InvalidRule, match=says):
        make()


def test_a_box_preset_without_bounds_is_refused() -> None:
    with pytest.raises(InvalidRule, match=r"bounds=\(-1, 1\)"):
        relprop.Explainer(conv_bn(), "epsilon-gamma-box")


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ((1, -1), "low < high"),
        ((1, 1), "low < high"),
        (3, r"\(low, high\)"),
        ((1, 2, 3), r"\(low, high\)"),
        ((torch.zeros(5, 1, 1) - 5, torch.ones(5, 1, 1) * 5), r"\(5, 1, 1\).*\(channels, 1, 1\)"),
        ((torch.zeros(2, 7, 7) - 5, 5.0), r"\(2, 7, 7\)"),
        (("low", "high"), "numbers|tensors"),
        ((float("nan"), 1.0), "low < high|finite|numbers"),
    ],
)
def test_bounds_that_are_none_are_refused(bounds: Any, says: str) -> None:
    with pytest.raises((InvalidInput, InvalidRule), match=re.compile(says, re.DOTALL)):
        relprop.explain(conv_bn(), images(), 1, rules="epsilon-gamma-box", bounds=bounds)


# ---- rule maps


def rules_of(model: Any, x: Any, rules: RuleMap) -> dict[str, str]:
    """{module: rule} of a model's affine operations."""
    report = relprop.check(model, x, 1, rules=rules)
    return {op.module: op.rule for op in report.operations if op.kind in ("conv", "linear")}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([("conv", Gamma()), ("linear", Zero())], ["Gamma", "Gamma", "Zero"]),
        ([("affine", ZPlus())], ["ZPlus", "ZPlus", "ZPlus"]),
        ([("conv?", Gamma()), ("*", Zero())], ["Gamma", "Gamma", "Zero"]),
        ([("conv2", Gamma()), ("affine", Zero())], ["Zero", "Gamma", "Zero"]),
        ([(nn.Linear, Gamma()), (nn.Module, Zero())], ["Zero", "Zero", "Gamma"]),
        ([(nn.modules.conv._ConvNd, Gamma()), ("affine", Zero())], ["Gamma", "Gamma", "Zero"]),
        ([("first", Flat()), ("last", Zero()), ("affine", Gamma())], ["Flat", "Gamma", "Zero"]),
        ([("affine", Zero()), ("first", Flat())], ["Zero", "Zero", "Zero"]),
        ([("conv", Gamma()), ("conv1", Zero()), ("affine", Flat())], ["Gamma", "Gamma", "Flat"]),
        ([(lambda op: op.shape[1:] == (4, 4, 4), Flat()), ("affine", Zero())], ["Zero", "Flat", "Zero"]),
        (
            [(lambda op: op.affine and op.module_type is nn.Linear, Flat()), ("affine", Zero())],
            ["Zero", "Zero", "Flat"],
        ),
        ([(lambda op: op.kind == "conv" and not op.first, Flat()), ("affine", Zero())], ["Zero", "Flat", "Zero"]),
    ],
)
def test_the_first_matching_selector_wins(entries: Any, expected: list[str]) -> None:
    found = rules_of(conv_bn(), images(), RuleMap(entries))
    assert [rule.split("(")[0] for rule in found.values()] == expected
    assert list(found) == ["conv1", "conv2", "fc"]


def test_first_and_last_come_from_the_graph() -> None:
    """Fails if the first layer is the one registered first."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 3)
            self.skip = nn.Linear(4, 4)
            self.middle = nn.Linear(4, 4)
            self.start = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.start(x))
            return self.last(F.relu(self.middle(h)) + self.skip(x))

    rules = RuleMap([("first", Flat()), ("last", Zero()), ("affine", Gamma())])
    found = rules_of(Backwards().eval(), torch.randn(2, 4), rules)
    # Both layers that take the input are first ones, though one is on a shorter way.
    assert {name: rule.split("(")[0] for name, rule in found.items()} == {
        "start": "Flat", "skip": "Flat", "middle": "Gamma", "last": "Zero",
    }  # fmt: skip


def test_a_model_of_one_layer_is_first_and_last() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    assert rules_of(model, x, RuleMap([("first", Flat()), ("affine", Zero())])) == {"": "Flat(eps=1e-06)"}
    assert rules_of(model, x, RuleMap([("last", Flat()), ("affine", Zero())])) == {"": "Flat(eps=1e-06)"}


def test_auto_is_decided_from_the_operations_and_written_on_the_result(mlp: Counting, x: Tensor) -> None:
    assert "epsilon-plus-flat" in relprop.explain(conv_bn(), images()).rules
    found = relprop.explain(mlp, x)
    assert "epsilon" in found.rules and "plus" not in found.rules
    by_hand = relprop.explain(conv_bn(), images(), 1, rules="epsilon-plus-flat").relevance
    assert torch.equal(relprop.explain(conv_bn(), images(), 1).relevance, by_hand)


def test_a_preset_is_the_rule_map_it_is_described_as() -> None:
    stabilised = [("sum", Epsilon(1e-6)), ("normaliser", Epsilon(1e-6))]
    described = {
        "epsilon": [("affine", Epsilon(1e-6))],
        "epsilon-plus": [("conv", ZPlus()), ("linear", Epsilon(1e-6)), *stabilised],
        "epsilon-plus-flat": [("first", Flat()), ("conv", ZPlus()), ("linear", Epsilon(1e-6)), *stabilised],
        "epsilon-gamma-box": [
            ("first", ZBox(*BOUNDS)), ("conv", Gamma(0.25)), ("linear", Epsilon(1e-6)), *stabilised,
        ],
        "epsilon-alpha2-beta1": [("conv", AlphaBeta(2, 1)), ("linear", Epsilon(1e-6)), *stabilised],
        "gamma": [("affine", Gamma(0.25)), *stabilised],
        "w-square": [("affine", WSquare()), *stabilised],
        "deep-taylor": [("first", ZBox(*BOUNDS)), ("affine", ZPlus()), *stabilised],
    }  # fmt: skip
    model, x = conv_bn(), images()
    for name, entries in described.items():
        by_name = relprop.explain(model, x, 1, rules=name, bounds=BOUNDS)
        assert by_name.rules == name
        assert torch.equal(by_name.relevance, relprop.explain(model, x, 1, rules=RuleMap(entries)).relevance), name
    without = relprop.explain(model, x, 1, rules="deep-taylor").relevance
    by_hand = RuleMap([("first", WSquare()), ("affine", ZPlus()), *stabilised])
    assert torch.equal(without, relprop.explain(model, x, 1, rules=by_hand).relevance)


# ---- boxes


def test_bounds_per_channel_equal_the_scalar_ones_where_they_are_equal() -> None:
    model, x = conv_bn(), images()
    scalar = relprop.explain(model, x, 1, rules="epsilon-gamma-box", bounds=(-1.5, 2.0)).relevance
    forms: list[tuple[Any, Any]] = [
        (torch.full((2, 1, 1), -1.5), torch.full((2, 1, 1), 2.0)),
        (torch.full((1, 2, 1, 1), -1.5), 2.0),
        (torch.tensor(-1.5), torch.full((2, 6, 6), 2.0)),
        (torch.full((2, 1, 1), -1.5, dtype=torch.float64, requires_grad=True), 2),
    ]
    for bounds in forms:
        close(relprop.explain(model, x, 1, rules="epsilon-gamma-box", bounds=bounds).relevance, scalar)


def test_bounds_of_each_channel_are_that_channels() -> None:
    """A 1 x 1 convolution by hand: R_i = (x_i w_i - l_i w_i+ - h_i w_i-) / sum of the same, times the score."""
    conv = nn.Conv2d(2, 1, 1, bias=False).double()
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1))
    x = torch.tensor([0.5, 0.25], dtype=torch.float64).reshape(1, 2, 1, 1)
    low, high = torch.tensor([-1.0, -2.0]).reshape(2, 1, 1), torch.tensor([1.0, 3.0]).reshape(2, 1, 1)
    found = relprop.explain(lambda x: conv(x).flatten(1), x, 0, rules=ZBox(low, high, eps=0.0)).relevance.flatten()
    # x w - l w+ - h w-: 1 + 2 = 3 and -0.25 + 3 = 2.75; score 0.75
    close(found, torch.tensor([3, 2.75], dtype=torch.float64) / 5.75 * 0.75)


@pytest.mark.parametrize(
    ("before", "weight_of"),
    [
        (lambda x: x.flatten(1), lambda w: w),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), lambda w: w.view(3, 2, 4, 4).permute(0, 2, 3, 1).flatten(1)),
        (lambda x: x.flip(1).reshape(2, -1), lambda w: w.view(3, 2, 4, 4).flip(1).flatten(1)),
        (lambda x: torch.cat([x[:, 1:], x[:, :1]], 1).view(2, -1), lambda w: w.view(3, 2, 4, 4).flip(1).flatten(1)),
        (lambda x: torch.stack(x.unbind(1), 1).flatten(1), lambda w: w),
        (lambda x: F.pad(x, (1, 1))[..., 1:-1].flatten(1), lambda w: w),
        (lambda x: F.dropout(x, 0.5, training=False).contiguous().clone().flatten(1), lambda w: w),
    ],
    ids=["flatten", "permute", "flip", "cat", "stack", "pad", "dropout"],
)
@pytest.mark.parametrize("rule", ["box", "flat", "w-square"])
def test_rules_of_the_first_layer_see_through_rearrangements(before: Any, weight_of: Any, rule: str) -> None:
    """Zero pixels get their share behind a flatten or permute; bounds per channel arrive where the channels went."""
    weight = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x = torch.rand(2, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    x[:, :, 1] = 0
    low, high = torch.tensor([-1.0, -2.0]).reshape(2, 1, 1), torch.tensor([1.0, 3.0]).reshape(2, 1, 1)
    rules = {"box": ZBox(low, high), "flat": Flat(), "w-square": WSquare()}[rule]
    found = relprop.explain(lambda x: F.linear(before(x), weight_of(weight)), x, 1, rules=rules).relevance
    conv = weight.view(3, 2, 4, 4)
    close(found, relprop.explain(lambda x: F.conv2d(x, conv).flatten(1), x, 1, rules=rules).relevance)
    assert bool((found[:, :, 1] != 0).all())
    close(found.flatten(1).sum(1), F.linear(x.flatten(1), weight)[:, 1], 1e-4)


@pytest.mark.parametrize("preset", ["epsilon-gamma-box", "epsilon-plus-flat", "w-square", "deep-taylor"])
def test_a_normalisation_in_front_of_the_first_layer_moves_the_box(preset: str) -> None:
    """bounds are of the model's input: (x - mean) / std inside the model has the box ((low - mean) / std, ...).

    The rules of the first layer say how much each pixel matters, also where it is at the mean; fails if
    R x / (x - mean) explodes there.
    """
    model, x = conv_bn(), images()
    mean, std = torch.tensor([0.4, 0.5]).double()[:, None, None], torch.tensor([0.2, 0.3]).double()[:, None, None]
    low, high = (-1 - mean) / std, (1 - mean) / std
    outside = relprop.explain(model, (x - mean) / std, 1, rules=preset, bounds=(low, high)).relevance
    inside = relprop.explain(lambda x: model((x - mean) / std), x, 1, rules=preset, bounds=(-1, 1))
    close(inside.relevance, outside, 1e-4)


# ---- a rule of one's own


@dataclass(frozen=True)
class TwiceGamma(Rule):
    """The example in the documentation of relprop.rules.Rule."""

    gamma: float = 0.5

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        w = layer.prepared(f"twice-gamma {self.gamma}", lambda w: w + 2 * self.gamma * w.clamp(min=0))
        s = layer.divide(z * v, layer.forward(x, w), eps=1e-6)
        return layer.backward(s, w)


def test_a_rule_of_ones_own_in_ten_lines_equals_the_built_in_one() -> None:
    """On non-negative inputs without biases and with positive scores, TwiceGamma(g) is Gamma(2 g)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3, bias=False))
    with torch.no_grad():
        model[3].weight.abs_()
    model.double().eval()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    found = relprop.explain(model, x, 1, rules=TwiceGamma(0.5))
    close(found.relevance, relprop.explain(model, x, 1, rules=Gamma(1.0)).relevance)
    assert "TwiceGamma(gamma=0.5)" in str(relprop.check(model, x, 1, rules=TwiceGamma(0.5)))


def test_the_rule_in_the_documentation_is_the_one_tested_here() -> None:
    documented = Rule.__doc__ or ""
    for line in (
        "w = layer.prepared(",
        "s = layer.divide(z * v, layer.forward(x, w), eps=1e-6)",
        "layer.backward(s, w)",
    ):
        assert line in documented


@dataclass(frozen=True)
class Even(Rule):
    """Every input of a layer the same, whatever the weights: relevance itself, also to zeros."""

    @property
    def proportional(self) -> bool:
        return False

    def redistribute(self, layer: Layer, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
        ones = layer.prepared("even", torch.ones_like)
        return layer.backward(z * v / layer.forward(layer.ones(), ones), ones)


def test_a_rule_of_ones_own_may_give_relevance_to_zeros() -> None:
    model, x = conv_bn(), images()
    x[:, :, 2:4] = 0
    mine = relprop.explain(model, x, 1, rules=[("first", Even()), ("affine", Epsilon(1e-6))]).relevance
    close(mine, relprop.explain(model, x, 1, rules=[("first", Flat(0.0)), ("affine", Epsilon(1e-6))]).relevance)
    assert bool((mine[:, :, 2:4] != 0).any())


def test_a_rule_without_redistribute_says_what_it_lacks(mlp: Counting, x: Tensor) -> None:
    class Empty(Rule):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty defines no redistribute"):
        relprop.explain(mlp, x, 1, rules=Empty())


# ---- exported programs


@pytest.mark.parametrize("preset", ["epsilon", "epsilon-plus", "epsilon-plus-flat", "gamma", "epsilon-gamma-box"])
@pytest.mark.parametrize("name", ["mlp", "vgg_bn", "resnet", "lenet"])
def test_an_exported_program_is_explained_like_its_module(name: str, preset: str, programs: Programs) -> None:
    """Fails if an aten overload is unknown, or batch norm is folded in the module only."""
    model, x = ARCHITECTURES[name](True)
    loaded = programs(name)
    expected = relprop.explain(model, x, 1, rules=preset, bounds=BOUNDS)
    found = relprop.explain(loaded, x, 1, rules=preset, bounds=BOUNDS)
    close(found.relevance, expected.relevance, 1e-4)
    close(found.score, expected.score, 1e-5)
    if preset == "epsilon":
        affine = [op.kind for op in found.conservation.operations if op.kind in ("conv", "linear")]
        assert affine == [op.kind for op in expected.conservation.operations if op.kind in ("conv", "linear")]


Programs = Callable[[str], nn.Module]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    made: dict[str, nn.Module] = {}

    def get(name: str) -> nn.Module:
        if name not in made:
            model, x = ARCHITECTURES[name](True)
            assert isinstance(model, nn.Module)
            path = tmp_path_factory.mktemp("programs") / f"{name}.pt2"
            torch.export.save(torch.export.export(model, (x,)), path)
            made[name] = relprop.load_program(path)
        return made[name]

    return get


def test_files_that_are_no_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"no file '.*missing\.pt2'"):
        relprop.load_program(tmp_path / "missing.pt2")
    text = tmp_path / "text.pt2"
    text.write_text("no program")
    with pytest.raises(InvalidFile, match=r"torch\.export\.save"):
        relprop.load_program(text)
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({"weight": torch.ones(2)}, checkpoint)
    with pytest.raises(InvalidFile, match=r"torch\.export"):
        relprop.load_program(checkpoint)


def test_examples_are_what_the_factory_says() -> None:
    """The helper used throughout gives batches of two, float32."""
    model, x = factory(lambda bias: nn.Linear(3, 2, bias=bias), (3,))(True)
    assert isinstance(model, nn.Linear) and not model.training
    assert isinstance(x, Tensor) and x.shape == (2, 3) and x.dtype == torch.float32
    assert torch.equal(x, example(3))


# ---- what a first user ran into


@pytest.mark.parametrize("options", [{}, {"affine": True}, {"track_running_stats": True}], ids=str)
def test_an_in_place_activation_may_follow_an_instance_norm(options: dict[str, bool]) -> None:
    """Fails if a normaliser hands out a view, which autograd lets nobody change."""
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4, **options)
    layers = [nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)]
    plain = nn.Sequential(*layers).double().eval()
    in_place = nn.Sequential(*layers[:2], nn.ReLU(inplace=True), *layers[3:]).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for rules in ("epsilon-plus-flat", "epsilon", "w-square"):
        close(
            relprop.explain(in_place, x, 1, rules=rules).relevance, relprop.explain(plain, x, 1, rules=rules).relevance
        )


def test_a_softmax_that_weighs_nothing_is_no_attention_to_auto() -> None:
    """The difference of two probabilities keeps the softmax; the convolutions still decide the preset."""
    model = nn.Sequential(conv_bn(), nn.Softmax(1)).eval()
    found = relprop.explain(model, images(), lambda output: output[:, 1] - output[:, 0])
    assert found.rules == "auto: epsilon-plus-flat"
    assert any("softmax is part of what is explained" in note for note in found.notes)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, x: relprop.explain(m, x, targets=3), r"targets: got 3, expected a list"),
        (lambda m, x: relprop.explain(m, x, 1, seed=torch.ones(3, 3)), "not both"),
        (lambda m, x: relprop.Explainer(m).compare(x, "epsilon"), r"compare: got 'epsilon', expected a list"),
        (lambda m, x: relprop.explain(m, x, labels=["a", "b"]), "2 class names for 3 scores"),
        (lambda m, x: relprop.explain(m, x, labels=["a", "b", "a"]), "'a' stands there twice"),
        (lambda m, x: relprop.explain(m, x, labels="abc"), "expected a list of class names"),
        (lambda m, x: relprop.explain(m, x.half()), r"the input is of torch\.float16.*Write x\.to\(torch\."),
        (lambda m, x: relprop.explain(m, x.to("meta")), "meta device"),
        (lambda m, x: Gamma("x"), "expected a number"),  # type: ignore[arg-type]
        (lambda m, x: relprop.register(3, "sum"), "expected a function or its name"),  # type: ignore[arg-type]
    ],
)
def test_slips_of_a_first_user_get_a_sentence(mlp: Counting, x: Tensor, call: Any, says: str) -> None:
    with pytest.raises(RelpropError, match=says):
        call(mlp, x)


def test_labels_may_be_a_dict_by_index(mlp: Counting, x: Tensor) -> None:
    found = relprop.explain(mlp, x, "b", labels={0: "a", 1: "b", 2: "c"})  # type: ignore[arg-type]
    assert found.target is not None and found.target.tolist() == [1] * len(x)


def test_what_no_registration_could_mend_is_not_advised() -> None:
    model, x = nn.Bilinear(4, 4, 3), torch.randn(2, 5, 4)
    with pytest.raises(relprop.errors.UnsupportedFunction, match="einsum") as error:
        relprop.explain(lambda x: model(x, x)[:, -1], x, 1)
    assert "relprop.register" not in str(error.value)


@pytest.mark.parametrize("rules", ["epsilon-plus-flat", "w-square", "deep-taylor", "epsilon"])
def test_relevance_at_a_layer_counts_what_zero_giving_rules_hand_past_its_values(rules: str) -> None:
    """A Flatten in front of Flat, a ReLU in front of WSquare: all relevance of what follows arrives there.

    Fails if only relevance per unit of value is collected, which is none where a rule gives relevance itself.
    """
    torch.manual_seed(1)
    layers = [nn.Identity(), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)]
    model = nn.Sequential(*layers).double().eval()
    x = torch.rand(2, 2, 4, dtype=torch.float64)
    x[:, 0] = 0
    found = relprop.explain(model, x, 1, rules=rules, layers=["0", "1", "3"])
    close(found.layers["0"], found.relevance)
    close(found.layers["1"], found.relevance.flatten(1))
    passed = next(op.passed for op in found.conservation.operations if op.module == "4")
    assert float(found.layers["3"].sum()) == pytest.approx(passed)


def test_a_score_that_comes_straight_out_of_a_layer_or_a_sum_follows_its_rule() -> None:
    """Nothing uses such a score any more; fails if its value is then missing to the rule or to the stabiliser."""
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[2.0, -1.0]], dtype=torch.float64) / 1.5
    close(relprop.explain(lambda x: x @ w, x, rules=Epsilon(0.5)).relevance, expected)
    rules = RuleMap([("sum", Epsilon(0.5))])
    close(relprop.explain(lambda x: (x * w).sum(1), x, rules=rules).relevance, expected)
    close(relprop.explain(lambda x: x * w, x, lambda y: y[:, 0] + y[:, 1], rules=rules).relevance, expected)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.full((2, 3), 9), "ids go from 9 to 9, over 3 tokens"),
        (torch.ones(2, 3), r"ids\.long\(\)"),
    ],
    ids=["beyond the embedding", "floating point"],
)
def test_ids_that_an_embedding_refuses_get_a_sentence(ids: Tensor, says: str) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(relprop.errors.InvalidInput, match=says):
        relprop.explain(model, ids, 1)


def test_token_ids_rearranged_before_the_embedding_are_explained_where_they_came_from() -> None:
    torch.manual_seed(0)
    embedding, head = nn.Embedding(20, 4).double(), nn.Linear(4, 3).double()
    weigh = torch.arange(1.0, 4.0, dtype=torch.float64)[:, None]
    ids = torch.randint(20, (3, 3))

    def plain(ids: Tensor) -> Tensor:
        return head((embedding(ids) * weigh).mean(1))

    def rearranged(ids: Tensor) -> Tensor:
        return head((embedding(ids.t().flip(1).float().long()).transpose(0, 1) * weigh).mean(1).flip(0))

    def beside(ids: Tensor) -> Tensor:
        start = torch.full((len(ids), 1), 7)
        return head((embedding(torch.cat([start, torch.nn.functional.pad(ids, (0, 1))], 1))[:, 1:4] * weigh).mean(1))

    expected = relprop.explain(plain, ids, 1).relevance
    for model in (rearranged, beside):
        torch.testing.assert_close(model(ids), plain(ids))
        torch.testing.assert_close(relprop.explain(model, ids, 1).relevance, expected)
    torch.testing.assert_close(
        relprop.explain(rearranged, ids, 1, method="gradient_x_input").relevance,
        relprop.explain(plain, ids, 1, method="gradient_x_input").relevance,
    )


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_an_embedding_bag_is_an_embedding_and_a_sum(mode: str) -> None:
    torch.manual_seed(0)
    bag, head = nn.EmbeddingBag(20, 4, mode=mode, padding_idx=0).double(), nn.Linear(4, 3).double()
    ids = torch.tensor([[3, 5, 3, 0], [1, 0, 0, 0]])
    found = relprop.explain(nn.Sequential(bag, head).eval(), ids, 1, rules=relprop.rules.Zero())
    assert torch.equal(found.output, head(bag(ids)).detach())
    counts = (ids != 0).sum(1, keepdim=True) if mode == "mean" else 1
    expected = (bag.weight[ids] @ head.weight[1]) * (ids != 0) / counts
    torch.testing.assert_close(found.relevance, expected.detach())


def test_a_sigmoid_in_place_at_the_end_is_left_out_like_any_other() -> None:
    head = nn.Linear(4, 2)
    found = relprop.explain(lambda x: torch.sigmoid_(head(x)), x := torch.randn(2, 4), 1)
    torch.testing.assert_close(found.score, head(x)[:, 1].detach())


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (("gate", relprop.rules.ZPlus()), r"SignalTakesAll\(\), Half\(\)"),
        (("recurrent", relprop.rules.Half()), r'"gate", Half\(\)'),
    ],
    ids=["gate: ZPlus", "recurrent: Half"],
)
def test_rules_for_products_and_for_layers_are_not_mixed_up(entry: Any, says: str) -> None:
    with pytest.raises(InvalidRule, match=says):
        relprop.RuleMap([entry, ("affine", relprop.rules.Epsilon())])


def test_a_packed_sequence_is_to_be_packed_inside() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(3, 4)])
    with pytest.raises(relprop.errors.InvalidInput, match="pack it inside"):
        relprop.explain(nn.LSTM(4, 2).eval(), packed)  # type: ignore[arg-type]


def test_the_names_there_are_are_listed_where_they_are_few(mlp: Counting, x: Tensor) -> None:
    with pytest.raises(relprop.errors.InvalidTarget, match="The names are: no, yes, maybe"):
        relprop.explain(mlp, x, "zzz", labels=["no", "yes", "maybe"])


def test_a_recurrent_layers_small_stabiliser_is_called_by_its_name() -> None:
    torch.manual_seed(0)
    layer, head = nn.LSTM(6, 5, batch_first=True, bias=False).double(), nn.Linear(5, 3, bias=False).double()
    found = relprop.explain(lambda x: head(layer(x)[1][0][-1]), torch.randn(1, 7, 6).double(), 2)
    absorbed = found.conservation.absorbed
    assert abs(absorbed["stabiliser"]) > 1e3 * abs(absorbed.get("rounding", 0.0))
