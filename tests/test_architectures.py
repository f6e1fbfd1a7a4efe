"""Models as users write them, explained as they are: same output, conserved scores, the gradient where LRP is one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import (
    ARCHITECTURES,
    REFUSED,
    RELU_NETS,
    Checkpointed,
    Example,
    Model,
    apply,
    example,
    factory,
    in_float64,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import relprop
from relprop.errors import RelpropError, UnsupportedFunction, UnsupportedModel
from relprop.presets import PRESETS
from relprop.rules import Epsilon, Rule, Zero

BOUNDS = (-5.0, 5.0)
NAMES = sorted(ARCHITECTURES)
SQUASHED = {
    "softmax": lambda z: z.softmax(1),
    "log_softmax": lambda z: z.log_softmax(1),
    "sigmoid": torch.sigmoid,
}
TARGETS: dict[str, Any] = {
    "unet": lambda output: output[:, 1].mean((1, 2)),
    "tuple_output": lambda output: output[0][:, 1],
}


def target_of(name: str) -> Any:
    """Class 1, in the form that the model's output asks for."""
    return TARGETS.get(name, 1)


def build(name: str, bias: bool = False, double: bool = True) -> tuple[Model, Example]:
    model, x = ARCHITECTURES[name](bias)
    return in_float64(model, x) if double else (model, x)


def tensors(value: Any) -> list[Tensor]:
    """The tensors in an input, an output or a relevance, in order."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = vars(value)
    items = value.values() if isinstance(value, dict) else value
    return [t for item in items for t in tensors(item)]


def per_sample(relevance: Any) -> Tensor:
    """(batch,): the relevance of all inputs together."""
    return sum(r.flatten(1).sum(1) for r in tensors(relevance))  # type: ignore[return-value]


def gradient_x_input(model: Model, x: Example, name: str) -> list[Tensor]:
    """By autograd, on the same class as `target_of`."""
    leaves = [t.clone().requires_grad_() for t in tensors(x)]
    if isinstance(x, dict):
        output = model(**dict(zip(x, leaves, strict=True)))
    else:
        output = model(*leaves)
    target = target_of(name)
    if callable(target):
        score = target(output)
    else:
        score = next(t for t in tensors(output) if t.dim() == 2)[:, target]
    return [g * t.detach() for g, t in zip(torch.autograd.grad(score.sum(), leaves), leaves, strict=True)]


def assert_close(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal up to `tolerance` times the largest value."""
    found, expected = tensors(found), tensors(expected)
    assert len(found) == len(expected)
    scale = max(float(e.abs().max()) for e in expected)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert float((f - e).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("rules", ["auto", "w-square"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_output_is_the_models_own_bit_for_bit(name: str, bias: bool, rules: str) -> None:
    """Fails if an operation is recomputed in another way than torch does, as a batch norm folded in the forward.

    "w-square" also on hidden layers asks for relevance paths everywhere, for which in-place calls run out of place.
    """
    model, x = build(name, bias, double=False)
    with torch.no_grad():
        expected = apply(model, x)
    found = relprop.explain(model, x, target_of(name), rules=rules).output
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
    for f, e in zip(tensors(found), tensors(expected), strict=True):
        assert f.dtype == e.dtype and torch.equal(f, e)
        assert not f.requires_grad


@pytest.mark.parametrize("rule", [Zero(), Epsilon(1e-9)], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_without_biases_the_relevance_sums_to_the_score(name: str, rule: Rule) -> None:
    """Fails if any operation on the way loses, doubles or invents relevance: a residual sum, a cat, a gate."""
    model, x = build(name)
    attribution = relprop.explain(model, x, target_of(name), rules=rule)
    tolerance = 1e-9 if isinstance(rule, Zero) else 1e-6
    torch.testing.assert_close(per_sample(attribution.relevance), attribution.score, rtol=tolerance, atol=tolerance)
    assert [r.shape for r in tensors(attribution.relevance)] == [t.shape for t in tensors(x)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", sorted(RELU_NETS))
def test_on_relu_nets_lrp_0_is_gradient_x_input(name: str, bias: bool) -> None:
    """Fails if relevance goes to the wrong place while its sum stays right: the value of every pixel is compared."""
    model, x = build(name, bias)
    found = relprop.explain(model, x, target_of(name), rules=Zero())
    assert_close(found.relevance, gradient_x_input(model, x, name))


@pytest.mark.parametrize("name", sorted(SQUASHED))
def test_before_a_final_squash_lrp_0_is_gradient_x_input_too(name: str) -> None:
    """Fails if the squashing function is differentiated instead of left out."""
    model, x = build(name)
    assert isinstance(model, nn.Module)
    found = relprop.explain(model, x, 1, rules=Zero())
    model.squash = nn.Identity()
    assert_close(found.relevance, gradient_x_input(model, x, name))
    torch.testing.assert_close(SQUASHED[name](apply(model, x)), found.output)


@pytest.mark.parametrize("preset", [*PRESETS, "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_gives_finite_maps_and_accounts_for_every_loss(name: str, preset: str) -> None:
    """Fails on a division by zero, or if an operation drops relevance without saying why.

    The causes that absorbed relevance add up to the difference between score and relevance.
    """
    model, x = build(name, bias=True)
    attribution = relprop.explain(model, x, target_of(name), rules=preset, bounds=BOUNDS)
    for r, t in zip(tensors(attribution.relevance), tensors(x), strict=True):
        assert r.shape == t.shape and r.dtype == t.dtype
        assert bool(torch.isfinite(r).all())
        assert bool((r != 0).any())
    balance = attribution.conservation
    received = sum(abs(op.received) for op in balance.operations)
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9 * received + 1e-9)
    assert "other" not in balance.absorbed


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_check_finds_nothing_unsupported(name: str, bias: bool) -> None:
    """Fails if an operation of any architecture is unknown, or nameless in the table."""
    model, x = build(name, bias)
    report = relprop.check(model, x, target_of(name))
    assert report.ok and report.unsupported == ()
    assert report.operations and all(op.function and op.kind for op in report.operations)
    assert report.operations[-1].function in str(report)


# ---- models that must be refused

CULPRITS: dict[str, tuple[type[RelpropError], str]] = {
    "custom_function": (UnsupportedFunction, "DoubledGradient"),
    "traced": (UnsupportedModel, r"TorchScript[\s\S]*torch\.export"),
    "scripted": (UnsupportedModel, r"TorchScript[\s\S]*torch\.export"),
    "quantised": (UnsupportedModel, r"quantised"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cant_be_seen_is_refused_by_name(name: str) -> None:
    """Fails if a map is returned for a model whose functions the trace can't see."""
    model, x = REFUSED[name]()
    error, culprit = CULPRITS[name]
    with pytest.raises(error, match=culprit):
        relprop.explain(model, x, lambda output: (output["logits"] if isinstance(output, dict) else output)[:, 0])


def test_check_lists_what_would_be_refused_instead_of_raising() -> None:
    """Fails if a report needs a supported model, or leaves out the function's name."""
    model, x = REFUSED["custom_function"]()
    report = relprop.check(model, x)
    assert not report.ok
    assert any("DoubledGradient" in line for line in report.unsupported)
    assert "DoubledGradient" in str(report)


def test_a_scripted_part_of_a_model_is_refused_by_its_name() -> None:
    """Fails if only whole models are looked at."""
    model, x = REFUSED["traced"]()
    with pytest.raises(UnsupportedModel, match="module '1'"):
        relprop.explain(nn.Sequential(nn.Identity(), model).eval(), x)


# ---- wrappers: the model inside is what is explained


def compiled_inside(model: nn.Module) -> nn.Module:
    """One child of the model compiled, in its place."""
    name, child = next((n, c) for n, c in model.named_children() if list(c.parameters()))
    setattr(model, name, torch.compile(child))
    return model


def compiled_in_place(model: nn.Module) -> nn.Module:
    for child in model.children():
        child.compile(backend="eager")
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": torch.compile,
    "compile_eager": lambda model: torch.compile(model, backend="eager"),
    "compiled_part": compiled_inside,
    "compiled_in_place": compiled_in_place,
    "data_parallel": nn.DataParallel,
    "compiled_data_parallel": lambda model: torch.compile(nn.DataParallel(model)),
    "data_parallel_compiled": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["vgg_bn", "resnet", "efficientnet", "channel_attention"])
def test_a_wrapped_model_is_explained_like_the_one_inside(name: str, wrapper: str) -> None:
    """Fails if a compiled region swallows the functions in it, or if batch norm isn't folded inside of it."""
    model, x = build(name, bias=True)
    plain = relprop.explain(model, x, 1, rules="epsilon-plus-flat").relevance
    wrapped = WRAPPERS[wrapper](copy.deepcopy(model)).eval()
    found = relprop.explain(wrapped, x, 1, rules="epsilon-plus-flat").relevance
    assert torch.equal(found, plain)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_layers_of_a_wrapped_model_have_the_names_of_the_module_inside(wrapper: str) -> None:
    """Fails if a user must write `module.` or `_orig_mod.` before a layer's name."""
    model, x = build("vgg_bn", bias=True)
    layers = ["features.3", "features", "classifier.0"]
    plain = relprop.explain(model, x, 1, layers=layers).layers
    wrapped = WRAPPERS[wrapper](copy.deepcopy(model)).eval()
    found = relprop.explain(wrapped, x, 1, layers=layers).layers
    assert set(found) == set(layers)
    assert all(torch.equal(found[layer], plain[layer]) for layer in layers)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_modules_of_a_wrapped_model_are_named_alike_in_rule_maps_and_reports(wrapper: str) -> None:
    """Fails if a glob that matches in the plain model matches nothing in the wrapped one."""
    model, x = build("vgg_bn", bias=True)
    rules = [("features.*", relprop.rules.ZPlus()), ("classifier.*", Epsilon(1e-6))]
    plain = relprop.check(model, x, 1, rules=relprop.RuleMap(rules))
    wrapped = WRAPPERS[wrapper](copy.deepcopy(model)).eval()
    found = relprop.check(wrapped, x, 1, rules=relprop.RuleMap(rules))
    assert [op.module for op in found.operations] == [op.module for op in plain.operations]


def test_a_model_that_was_compiled_and_run_before_is_seen_all_the_same() -> None:
    """Fails if code compiled in an earlier call is taken from dynamo's cache, where no function is seen."""
    model, x = build("lenet", bias=True)
    assert isinstance(model, nn.Module) and isinstance(x, Tensor)
    plain = relprop.explain(model, x, 1)
    outer = nn.Sequential(torch.compile(model, backend="eager"), nn.Identity()).eval()
    outer(x)
    outer(x.clone().requires_grad_())
    assert torch.equal(relprop.explain(outer, x, 1).relevance, plain.relevance)
    torch._dynamo.reset()


def test_a_compiled_function_inside_forward_is_seen() -> None:
    """Fails if only modules are unwrapped."""

    @torch.compile(backend="eager")
    def head(x: Tensor) -> Tensor:
        return F.gelu(x) * 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(6, 8)
            self.fc2 = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(head(self.fc1(x)))

    torch.manual_seed(0)
    model, x = Net().double().eval(), example(6).double()
    with torch.no_grad():
        model(x)
    plain = nn.Sequential(model.fc1, nn.GELU(), Scale(2), model.fc2).eval()
    assert_close(relprop.explain(model, x, 1).relevance, relprop.explain(plain, x, 1).relevance)
    torch._dynamo.reset()


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


# ---- activation checkpointing


class Reentrant(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + checkpoint(self.block, x, use_reentrant=True)
        return self.fc(F.relu(x).mean((2, 3)))


class NotCheckpointed(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.block(x)
        return self.fc(F.relu(x).mean((2, 3)))


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus-flat", "gamma", "w-square"])
def test_activation_checkpointing_changes_nothing(rules: str) -> None:
    """Fails if what the rules need is recomputed outside of the trace, or twice."""
    model, x = in_float64(*factory(Checkpointed, (1, 8, 8))(True))
    plain, _ = in_float64(*factory(NotCheckpointed, (1, 8, 8))(True))
    found = relprop.explain(model, x, 1, rules=rules).relevance
    assert torch.equal(found, relprop.explain(plain, x, 1, rules=rules).relevance)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus-flat", "gamma"])
def test_reentrant_checkpointing_is_right_or_refused_by_name(rules: str) -> None:
    """Fails if relevance through the checkpointed block is silently lost or is the plain gradient."""
    model, x = in_float64(*factory(Reentrant, (1, 8, 8))(True))
    plain, _ = in_float64(*factory(NotCheckpointed, (1, 8, 8))(True))
    try:
        found = relprop.explain(model, x, 1, rules=rules).relevance
    except UnsupportedFunction as error:
        assert "Checkpoint" in str(error)
        return
    assert_close(found, relprop.explain(plain, x, 1, rules=rules).relevance)
