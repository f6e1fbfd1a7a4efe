"""The engine against the explicit-message oracle: every operation, every rule, random networks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import (
    Case,
    Network,
    as_module,
    everywhere,
    networks,
    relevance,
    relevances,
    rule_map,
    rules_by_module,
    values,
)
from oracle import rules as oracle_rules
from oracle.backward import is_gate
from oracle.network import AFFINE, BATCH_NORMS, NORMALISERS, SUMS
from oracle.random_networks import RuleSpec
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, Zero, ZPlus

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-9
DIVIDED = {*AFFINE, *SUMS, *NORMALISERS}

OURS: dict[str, type[Rule]] = {
    "zero": Zero,
    "epsilon": Epsilon,
    "gamma": Gamma,
    "alpha_beta": AlphaBeta,
    "zplus": ZPlus,
    "zbox": ZBox,
    "wsquare": WSquare,
    "flat": Flat,
    "pass": Pass,
}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300)).item()


def ours(spec: RuleSpec) -> Rule:
    return OURS[spec.name](**spec.options)


def is_proportional(spec: RuleSpec) -> bool:
    return spec.name in ("zero", "epsilon", "gamma", "alpha_beta", "zplus") and "bias" not in spec.options


def shifts_the_input(network: Network) -> bool:
    """Whether a constant is added, by a batch norm too, where some way from the input has met no affine operation."""
    before_affine: set[int] = set()
    for i, node in enumerate(network.nodes):
        if node.op == "input" or (node.op not in AFFINE and any(source in before_affine for source in node.inputs)):
            before_affine.add(i)
    return any(
        network.nodes[i].op in ("add_constant", "constant_minus") or network.nodes[i].op in BATCH_NORMS
        for i in before_affine
    )


def adds_a_gated_linear(network: Network) -> bool:
    """Whether a linear operation's output is added to gate times another's: to the engine that is one operation on both
    their inputs, as the candidate of a GRU is (see test_recurrent.py), to the oracle a sum."""

    def gated(i: int) -> bool:
        node = network.nodes[i]
        return node.op == "mul" and any(
            is_gate(network, a) and network.nodes[b].op == "linear" for a, b in (node.inputs, node.inputs[::-1])
        )

    return any(node.op in ("add", "sub") and any(map(gated, node.inputs)) for node in network.nodes)


def compared(case: Case, specs: dict[str, RuleSpec], eps: float) -> None:
    """Both give the same relevance for every input."""
    network, inputs = case
    assume(not eps or not adds_a_gated_linear(network))
    nodewise = relevances(network, inputs, rule_map(network, specs), target=0, sum_eps=eps, normaliser_eps=eps)
    expected = [nodewise[i] for i in network.inputs]
    # R / z magnifies the rounding of z by 1 / z: where a value happens to be tiny, two right answers differ.
    assume(min(float(v[v != 0].abs().min()) for v in values(network, *inputs) if (v != 0).any()) > 1e-5)
    if not all(is_proportional(spec) for spec in specs.values()):
        # A constant shift at the input is preprocessing to rules that give relevance itself; the oracle shares with it.
        assume(not shifts_the_input(network))
        # Padding made before a convolution counts like its own, as no input; to the oracle it is one.
        assume(all(node.op != "pad" for node in network.nodes))
        # And relevance given to an operation whose output is exactly zero is lost, with a word (see test_traps.py).
        divided = [v for node, v in zip(network.nodes, values(network, *inputs), strict=True) if node.op in DIVIDED]
        assume(all((v != 0).all() for v in divided))
    entries = [(lambda op, name=name: op.affine and op.module == name, ours(s)) for name, s in specs.items()]
    rules = RuleMap([*entries, ("sum", Epsilon(eps)), ("normaliser", Epsilon(eps)), ("affine", Zero())])
    found = relprop.explain(as_module(network), tuple(inputs), 0, rules=rules).relevance
    scale = max(float(r.abs().max()) for r in nodewise)
    for ours_, oracle in zip(found, expected, strict=True):
        error = float((ours_ - oracle).abs().max()) / max(scale, 1e-3)
        assert error <= TOLERANCE, (
            error,
            specs,
            [(node.op, node.inputs, node.style) for node in network.nodes],
        )


def boxes_at_the_input_only(network: Network, specs: dict[str, RuleSpec]) -> dict[str, RuleSpec]:
    """A box rule needs the range of its own input, which is known where that is the model's input."""
    inside = {
        network.name(i)
        for i, node in enumerate(network.nodes)
        if node.inputs and network.nodes[node.inputs[0]].op != "input"
    }
    return {name: RuleSpec("flat", {}) if s.name == "zbox" and name in inside else s for name, s in specs.items()}


@settings(max_examples=80, deadline=None)
@given(networks())
def test_random_networks_agree_with_the_oracle_under_lrp_0(case: Case) -> None:
    network, inputs = case
    expected = relevance(network, inputs, everywhere(oracle_rules.zero), target=0)
    found = relprop.explain(as_module(network), tuple(inputs), 0, rules=Zero()).relevance
    scale = max(float(r.abs().max()) for r in expected)
    for ours_, oracle in zip(found, expected, strict=True):
        assert float((ours_ - oracle).abs().max()) <= TOLERANCE * max(scale, 1e-3)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_random_networks_agree_with_the_oracle_under_random_rules(data: st.DataObject) -> None:
    case = data.draw(networks())
    specs = boxes_at_the_input_only(case.network, data.draw(rules_by_module(case.network)))
    compared(case, specs, data.draw(st.sampled_from([0.0, 1e-6, 1e-2])))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_rules_that_give_relevance_to_zero_inputs_agree_with_the_oracle_in_hidden_layers(data: st.DataObject) -> None:
    case = data.draw(networks())
    specs = boxes_at_the_input_only(case.network, data.draw(rules_by_module(case.network, hidden=True)))
    compared(case, specs, data.draw(st.sampled_from([0.0, 1e-6, 1e-2])))


# ---- reference figures

RULES: dict[str, Rule] = {
    "epsilon_1e-6": Epsilon(1e-6),
    "epsilon_0.5": Epsilon(0.5),
    "gamma_0.25": Gamma(0.25),
    "zplus": ZPlus(),
    "alpha2_beta1": AlphaBeta(2, 1),
    "alpha1_beta0": AlphaBeta(1, 0),
    "zbox": ZBox(-3, 3),
    "wsquare": WSquare(bias=True),
    "flat": Flat(),
}
LAYERS: dict[str, Callable[..., Tensor]] = {
    "linear_signed": F.linear,
    "linear_positive": F.linear,
    "conv2d_signed": partial(F.conv2d, stride=2, padding=1),
    "conv2d_positive_groups": partial(F.conv2d, padding=1, groups=2),
    "conv1d_dilated": partial(F.conv1d, dilation=2),
    "convtranspose2d": partial(F.conv_transpose2d, stride=2, padding=1),
}


@pytest.fixture(scope="module")
def figures() -> dict[str, Tensor]:
    with np.load(GOLDEN / "rules_per_layer.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_rule_meets_the_reference_figures(figures: dict[str, Tensor], layer: str, rule: str) -> None:
    weight, bias = figures[f"{layer}/weight"], figures[f"{layer}/bias"]

    def model(x: Tensor) -> Tensor:
        return LAYERS[layer](x, weight, bias)

    found = relprop.explain(model, figures[f"{layer}/x"], seed=figures[f"{layer}/R"], rules=RULES[rule])
    assert relative_error(found.relevance, figures[f"{layer}/{rule}"]) <= TOLERANCE


PRESETS = [
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
    "epsilon-gamma-box",
]


def test_a_conv_net_with_batch_norm_meets_the_reference_figures_under_all_presets_from_one_forward() -> None:
    with np.load(GOLDEN / "cnn_batchnorm.npz") as file:
        data = {name: torch.from_numpy(file[name]) for name in file.files}
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(108, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )
    model.double().eval()
    model.load_state_dict({name[6:]: value for name, value in data.items() if name.startswith("state/")})
    found = relprop.Explainer(model, bounds=(-3, 3)).compare(data["x"], PRESETS, data["target"])
    for preset, attribution in found.items():
        assert torch.equal(attribution.output, model(data["x"]))
        assert torch.allclose(attribution.output, data["scores"])
        assert relative_error(attribution.relevance, data[f"relevance/{preset}"]) <= TOLERANCE, preset


def test_prepared_weights_are_let_go_of_with_their_explainer() -> None:
    """Not by the collector of cycles, which counts objects: a few hold the memory of a model."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)).eval()
    explainer = relprop.Explainer(model, Gamma(0.5))
    explainer(torch.rand(1, 1, 3, 3))
    made = [weakref.ref(t) for e in explainer._prepared._entries.values() for f in e.folded for t in f.made.values()]
    assert made
    gc.disable()
    try:
        del explainer
        assert [each() for each in made] == [None] * len(made)
    finally:
        gc.enable()


def test_prepared_weights_are_let_go_of_with_their_model() -> None:
    explainer = relprop.Explainer(lambda x: F.linear(x, *held), Gamma(0.5))
    held = [torch.randn(2, 3)]
    explainer(torch.rand(1, 3))
    assert explainer._prepared.nbytes > 0
    held.clear()
    gc.collect()
    assert explainer._prepared.nbytes == 0
