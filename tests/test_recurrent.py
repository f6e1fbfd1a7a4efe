"""Recurrent layers: reference figures, the oracle, gradient x input with constant gates, the same loops by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import recurrent as oracle
from recurrent_networks import (
    CONSTANT,
    FREE,
    STYLES,
    Alone,
    Attention,
    CellByCell,
    ConvLSTM,
    CoupledLSTM,
    LastStates,
    Loop,
    LSTMConv,
    MinimalGatedUnit,
    Packed,
    Reader,
    Regression,
    Residual,
    Squashes,
    Translation,
    Weights,
    Words,
)
from torch import Tensor, nn

import relprop
from relprop import RuleMap
from relprop.engine.recurrent import direction
from relprop.errors import InvalidInput, InvalidRule, TrainingMode
from relprop.rules import (
    Absolute,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Half,
    Pass,
    Proportional,
    Rule,
    SignalTakesAll,
    WSquare,
    ZBox,
    Zero,
    ZPlus,
)

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-9
KINDS = ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---- what is compared


def recurrent(kind: str, e: int = 3, d: int = 4, *, seed: int = 0, **options: Any) -> nn.RNNBase:
    """A batch-first nn.LSTM, nn.GRU or nn.RNN in eval mode."""
    torch.manual_seed(seed)
    options = {"batch_first": True} | options
    if kind.startswith("RNN"):
        options["nonlinearity"] = kind[4:].lower()
    return getattr(nn, kind[:3] if kind.startswith("RNN") else kind)(e, d, **options).double().eval()


def states_of(layer: nn.RNNBase, batch: int) -> tuple[Tensor, ...]:
    """Random initial states, (batch, layers x directions, size)."""
    count = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or layer.hidden_size] + [layer.hidden_size] * (layer.mode == "LSTM")
    return tuple(torch.randn(batch, count, size).double() for size in sizes)


def width_of(layer: nn.RNNBase) -> int:
    """How many values a hidden state of the last layer has."""
    return (layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional)


def reader(layer: nn.RNNBase, steps: int) -> Reader:
    size = steps * width_of(layer) + sum(s.numel() for s in states_of(layer, 1))
    return Reader(layer, nn.Linear(size, 3).double()).eval()


def by_hand(model: Any, style: str = "cat", squash: Squashes = FREE) -> Any:
    """The same model with a Loop in place of its recurrent layer."""
    twin = copy.copy(model)
    twin._modules = {**model._modules, "recurrent": Loop(model.recurrent, style, squash)}
    return twin


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def by_oracle(
    model: Reader, target: int, rule: oracle.Rule, x: Tensor, *states: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """What a Reader's inputs, hidden states and initial states get: (B, T, e), (B, T, width), each (B, cells, size)."""
    network = oracle.Recurrent.of(model.recurrent.mode.lower(), arrays(model.recurrent))
    weight, bias = (t.detach().numpy()[[target]] for t in (model.head.weight, model.head.bias))
    found: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = []
    for n in range(len(x)):
        initial = None
        if states:
            initial = [tuple(s[n, k].numpy() for s in states) for k in range(len(network.cells))]
        run = oracle.forward(network, x[n].numpy(), initial)
        last = [np.stack(parts) for parts in zip(*run.states, strict=True)]
        features = np.concatenate([run.output.ravel(), *(s.ravel() for s in last)])
        R = oracle.linear(weight, bias, features, weight @ features + bias, rule)
        cuts = np.cumsum([run.output.size, *(s.size for s in last)])[:-1]
        R_output, *R_last = np.split(R, cuts)
        R_last = [part.reshape(s.shape) for part, s in zip(R_last, last, strict=True)]
        R_states = [tuple(part[k] for part in R_last) for k in range(len(network.cells))]
        R_output = R_output.reshape(run.output.shape)
        got = oracle.relevance(network, run, rule, R_output, R_states)
        found.append((got.x, R_output, [np.stack(parts) for parts in zip(*got.states, strict=True)]))
    of_x, of_hidden, of_states = zip(*found, strict=True)
    stacked = [torch.from_numpy(np.stack(parts)) for parts in zip(*of_states, strict=True)]
    return torch.from_numpy(np.stack(of_x)), torch.from_numpy(np.stack(of_hidden)), stacked


def error(actual: Any, expected: Any) -> float:
    """The largest deviation, relative to the largest expected relevance, over all inputs together."""
    actual, expected = ([t] if isinstance(t, Tensor) else list(t) for t in (actual, expected))
    assert [tuple(t.shape) for t in actual] == [tuple(t.shape) for t in expected]
    scale = max(float(t.abs().max()) for t in expected) or 1.0
    return max(float((a - b).abs().max()) for a, b in zip(actual, expected, strict=True)) / scale


def require_sums_to(relevance: Any, score: Tensor) -> None:
    """Each sample's relevance, over all inputs, is its score, to 1e-9 of what was added up."""
    total = sum(r.flatten(1).sum(1) for r in relevance)
    scale = sum(r.flatten(1).abs().sum(1) for r in relevance)
    assert bool(((total - score).abs() <= 1e-9 * (1 + scale)).all())


def gradient_x_input(model: Callable[..., Tensor], *inputs: Tensor, target: int | None = 1) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = model(*leaves)
    score = output if target is None else output[:, target]
    return [g * x for g, x in zip(torch.autograd.grad(score.sum(), leaves), inputs, strict=True)]


GATES: dict[str, Callable[[float], Rule]] = {
    "signal-take-all": lambda _: SignalTakesAll(),
    "half": lambda _: Half(),
    "absolute": lambda eps: Absolute(eps),
    "proportional": lambda eps: Proportional(eps),
}


def rules_of(rule: oracle.Rule) -> RuleMap:
    """The rule map that asks for what the oracle's rule describes."""
    return RuleMap([("affine", Epsilon(rule.eps, rule.bias)), ("gate", GATES[rule.gate](rule.gate_eps))])


LRP_0 = RuleMap([("affine", Zero()), ("attention", SignalTakesAll())])


def stabilised(eps: float) -> RuleMap:
    """For loops by hand: the sums that recurrent layers have inside follow the same rule as their affine parts."""
    return RuleMap([("affine", Epsilon(eps)), ("sum", Epsilon(eps))])


# ---- the oracle itself


@dataclass(frozen=True)
class Figures:
    """A bidirectional LSTM with a linear head, and the authors' figures for one sequence."""

    values: dict[str, np.ndarray]

    @property
    def x(self) -> np.ndarray:
        return self.values["embedding"][self.values["words"]]

    @property
    def head(self) -> np.ndarray:
        return np.hstack([self.values["linear_weight"], self.values["linear_weight_reverse"]])

    @property
    def classes(self) -> range:
        return range(len(self.head))

    def expected(self, label: int, eps: float, bias: str) -> tuple[np.ndarray, float]:
        end = f"class{label}_eps{eps}_bias{float(bias == 'distribute')}"
        return self.values[f"relevance_{end}"], float(self.values[f"relevance_rest_{end}"])

    def model(self) -> Reader:
        size, d = self.x.shape[1], self.head.shape[1] // 2
        layer = nn.LSTM(size, d, bidirectional=True, batch_first=True).double().eval()
        layer.load_state_dict({name: torch.from_numpy(self.values[name]) for name, _ in layer.named_parameters()})
        head = nn.Linear(2 * d, len(self.head), bias=False).double()
        head.load_state_dict({"weight": torch.from_numpy(self.head)})
        return WithStates(layer, head).eval()


class WithStates(Reader):
    """A linear head on the last hidden states of all layers and directions."""

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        given = tuple(state.transpose(0, 1).contiguous() for state in states)
        _, last = self.recurrent(x, given or None)
        return self.head(last[0].transpose(0, 1).flatten(1))


@pytest.fixture(scope="module", params=["small", "60x60"])
def figures(request: pytest.FixtureRequest) -> Figures:
    with np.load(GOLDEN / f"bilstm_{request.param}.npz") as file:
        return Figures({name: file[name] for name in file.files})


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("eps", [0.001, 0.1])
def test_the_oracle_meets_the_reference_figures(figures: Figures, eps: float, bias: str) -> None:
    network, rule = oracle.Recurrent.of("lstm", figures.values), oracle.Rule(eps, bias)
    run = oracle.forward(network, figures.x)
    features = np.concatenate([h for h, _ in run.states])
    scores = figures.head @ features
    assert np.abs(scores - figures.values["scores"]).max() < 1e-12
    for label in figures.classes:
        seed = np.where(np.arange(len(scores)) == label, scores, 0)
        R = np.split(oracle.linear(figures.head, np.zeros(len(scores)), features, seed, rule), 2)
        found = oracle.relevance(network, run, rule, R_states=[(part, np.zeros_like(part)) for part in R])
        relevance, rest = figures.expected(label, eps, bias)
        assert np.abs(found.x - relevance).max() <= TOLERANCE * np.abs(relevance).max()
        assert found.rest == pytest.approx(rest, rel=1e-9, abs=1e-15)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "three layers, bidirectional": {"num_layers": 3, "bidirectional": True},
    "dropout between": {"num_layers": 2, "dropout": 0.5},
}
ARRANGEMENTS = [(kind, name, options) for kind in KINDS for name, options in OPTIONS.items()]
ARRANGEMENTS += [
    ("LSTM", "projection", {"proj_size": 2}),
    ("LSTM", "projection, two layers, bidirectional", {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
]
arrangements = pytest.mark.parametrize(
    ("kind", "options"), [(k, o) for k, _, o in ARRANGEMENTS], ids=[f"{k}-{name}" for k, name, _ in ARRANGEMENTS]
)


WRITTEN = [(kind, options, "matmul") for kind, _, options in ARRANGEMENTS]
WRITTEN += [(kind, {"bidirectional": True}, style) for kind in KINDS for style in STYLES if style != "matmul"]
written = pytest.mark.parametrize(
    ("kind", "options", "style"),
    WRITTEN,
    ids=[f"{kind}-{'-'.join(options) or 'plain'}-{style}" for kind, options, style in WRITTEN],
)


@arrangements
def test_the_oracle_computes_what_torch_computes(kind: str, options: dict[str, Any]) -> None:
    layer = recurrent(kind, **options)
    x, states = torch.randn(1, 5, 3), states_of(layer, 1)
    given = tuple(s.transpose(0, 1).contiguous() for s in states)
    out, last = layer(x, given if kind == "LSTM" else given[0])
    network = oracle.Recurrent.of(kind.lower(), arrays(layer))
    initial = [tuple(s[0, k].numpy() for s in states) for k in range(len(network.cells))]
    run = oracle.forward(network, x[0].numpy(), initial)
    torch.testing.assert_close(torch.from_numpy(run.output), out[0].detach(), rtol=1e-12, atol=1e-12)
    for part, expected in zip(zip(*run.states, strict=True), last if kind == "LSTM" else [last], strict=True):
        torch.testing.assert_close(torch.from_numpy(np.stack(part)), expected[:, 0].detach(), rtol=1e-12, atol=1e-12)


@arrangements
def test_the_oracle_is_gradient_x_input_with_constant_gates_at_eps_0(kind: str, options: dict[str, Any]) -> None:
    layer = recurrent(kind, **options)
    model, x, states = reader(layer, 4), torch.randn(2, 4, 3), states_of(layer, 2)
    of_x, _, of_states = by_oracle(model, 1, oracle.Rule(eps=0), x, *states)
    expected = gradient_x_input(by_hand(model, squash=CONSTANT), x, *states)
    assert error([of_x, *of_states], expected) < TOLERANCE


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_conserves_where_bias_and_stabiliser_are_distributed(kind: str, gate: str) -> None:
    layer = recurrent(kind, num_layers=2, bidirectional=True)
    model, x, states = reader(layer, 4), torch.randn(2, 4, 3), states_of(layer, 2)
    rule = oracle.Rule(0.01, "distribute", gate, gate_eps=0)
    of_x, _, of_states = by_oracle(model, 1, rule, x, *states)
    require_sums_to([of_x, *of_states], model(x, *states)[:, 1])


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def test_one_lstm_cell_worked_out_by_hand() -> None:
    """h = o tanh(c), c = i g; under half, o and tanh(c) get h / 2 each, i and g h / 4; x its part w x of w x + b."""
    w, b, x = [0.5, -1.0, 2.0, -0.7], [0.3, 0.1, -0.4, 0.2], 1.5
    cell = oracle.LSTMCell(np.array(w)[:, None], np.zeros((4, 1)), np.array(b), np.zeros(4))
    run = oracle.forward(oracle.Recurrent(((cell,),)), np.array([[x]]))
    a = [w_k * x + b_k for w_k, b_k in zip(w, b, strict=True)]
    h = sigmoid(a[3]) * math.tanh(sigmoid(a[0]) * math.tanh(a[2]))
    assert run.output[0, 0] == pytest.approx(h, rel=1e-12)
    found = {
        gate: oracle.relevance(oracle.Recurrent(((cell,),)), run, oracle.Rule(0, gate=gate), run.output).x[0, 0]
        for gate in ("signal-take-all", "half")
    }
    of_i, of_g, of_o = (w[k] * x / a[k] for k in (0, 2, 3))
    assert found["signal-take-all"] == pytest.approx(h * of_g, rel=1e-12)
    assert found["half"] == pytest.approx(h / 2 * of_o + h / 4 * of_i + h / 4 * of_g, rel=1e-12)


def test_one_gru_cell_worked_out_by_hand() -> None:
    """h' = (1 - z) n + z h, n = tanh(a), a = w x + b + r (u h + b'): of n's relevance x gets w x / a, h r u h / a."""
    W, U, b, b_state = (np.array(v) for v in ([0.4, -0.6, 1.1], [0.2, 0.9, -0.8], [0.1, 0.2, 0.3], [-0.3, 0.5, 0.7]))
    cell, x, h = oracle.GRUCell(W[:, None], U[:, None], b, b_state), 1.2, -0.5
    network = oracle.Recurrent(((cell,),))
    run = oracle.forward(network, np.array([[x]]), [(np.array([h]),)])
    r, z = (sigmoid(W[k] * x + b[k] + U[k] * h + b_state[k]) for k in (0, 1))
    a = W[2] * x + b[2] + r * (U[2] * h + b_state[2])
    new, kept = (1 - z) * math.tanh(a), z * h
    assert run.output[0, 0] == pytest.approx(new + kept, rel=1e-12)
    found = oracle.relevance(network, run, oracle.Rule(0), run.output)
    assert found.x[0, 0] == pytest.approx(new * W[2] * x / a, rel=1e-12)
    assert found.states[0][0][0] == pytest.approx(kept + new * r * U[2] * h / a, rel=1e-12)


# ---- reference figures


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("eps", [0.001, 0.1])
def test_a_bidirectional_lstm_meets_the_reference_figures(figures: Figures, eps: float, bias: Any) -> None:
    model, x = figures.model(), torch.from_numpy(figures.x)[None]
    zeros = torch.zeros(1, 2, model.recurrent.hidden_size)
    explainer = relprop.Explainer(model, Epsilon(eps, bias))
    alone = explainer(x, targets=list(figures.classes))
    with_states = explainer((x, zeros, zeros.clone()), targets=list(figures.classes))
    for label, one, three in zip(figures.classes, alone, with_states, strict=True):
        relevance, rest = figures.expected(label, eps, bias)
        assert float(one.score) == pytest.approx(float(figures.values["scores"][label]), rel=1e-12)
        assert error(one.relevance[0], torch.from_numpy(relevance)) <= TOLERANCE
        assert error(three.relevance[0][0], torch.from_numpy(relevance)) <= TOLERANCE
        assert float(sum(r.sum() for r in three.relevance[1:])) == pytest.approx(rest, rel=1e-9, abs=1e-15)


def test_the_gradient_of_a_bidirectional_lstm_meets_the_reference_figures(figures: Figures) -> None:
    """Sensitivity is the gradient's square; times the input it keeps its sign."""
    model, x = figures.model(), torch.from_numpy(figures.x)[None]
    for label in figures.classes:
        gradient = torch.from_numpy(figures.values[f"gradient_class{label}"])
        sensitivity = relprop.explain(model, x, label, method="gradient").relevance[0]
        assert error(sensitivity, gradient**2) <= TOLERANCE
        signed = relprop.explain(model, x, label, method="gradient_x_input").relevance[0]
        assert error(signed, gradient * x[0]) <= TOLERANCE


# ---- the oracle


@dataclass(frozen=True)
class Case:
    """A random recurrent layer under a head, inputs for it, and a rule."""

    model: Reader
    x: Tensor
    states: tuple[Tensor, ...]
    rule: oracle.Rule
    target: int

    @property
    def inputs(self) -> Any:
        return (self.x, *self.states) if self.states else self.x


@st.composite
def cases(draw: Any, *, gates: tuple[str, ...] = ("signal-take-all",), biases: tuple[str, ...] = ("absorb",)) -> Case:
    kind = draw(st.sampled_from(["LSTM", "LSTM", "GRU", "GRU", "RNN_TANH", "RNN_RELU"]))
    d = draw(st.integers(1, 5))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if kind == "LSTM" and d > 1 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, d - 1))
    e, steps, batch = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    layer = recurrent(kind, e, d, seed=draw(st.integers(0, 2**31 - 1)), **options)
    model, x = reader(layer, steps), torch.randn(batch, steps, e).double()
    states = states_of(layer, batch) if draw(st.booleans()) else ()
    eps, bias = draw(st.sampled_from([0.0, 1e-3, 0.1])), draw(st.sampled_from(biases))
    rule = oracle.Rule(eps, bias, draw(st.sampled_from(gates)), gate_eps=0.05)
    return Case(model, x, states, rule, draw(st.integers(0, 2)))


def require_the_oracles(case: Case) -> None:
    of_x, _, of_states = by_oracle(case.model, case.target, case.rule, case.x, *case.states)
    found = relprop.explain(case.model, case.inputs, case.target, rules=rules_of(case.rule)).relevance
    expected = [of_x, *of_states] if case.states else [of_x]
    assert error(list(found) if case.states else [found], expected) < TOLERANCE


@settings(max_examples=40, deadline=None)
@given(cases())
def test_a_random_recurrent_layer_meets_the_oracle(case: Case) -> None:
    require_the_oracles(case)


@settings(max_examples=40, deadline=None)
@given(cases(biases=("distribute",)))
def test_a_random_recurrent_layer_that_distributes_meets_the_oracle(case: Case) -> None:
    require_the_oracles(case)


@settings(max_examples=40, deadline=None)
@given(cases(gates=("half", "absolute", "proportional"), biases=("absorb", "distribute")))
def test_a_random_recurrent_layer_whose_gates_take_relevance_meets_the_oracle(case: Case) -> None:
    require_the_oracles(case)


@pytest.mark.parametrize(
    ("bias", "gate"),
    [("absorb", "signal-take-all"), ("distribute", "signal-take-all"), ("distribute", "half"), ("absorb", "absolute")],
)
@arrangements
def test_every_arrangement_under_every_rule_meets_the_oracle(
    kind: str, options: dict[str, Any], bias: str, gate: str
) -> None:
    layer = recurrent(kind, **options)
    model, x = reader(layer, 4), torch.randn(2, 4, 3)
    require_the_oracles(Case(model, x, states_of(layer, 2), oracle.Rule(0.01, bias, gate, 0.05), 1))


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("given_states", [False, True], ids=["zeros", "given"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_called_step_by_step_meets_the_oracle(kind: str, given_states: bool, bias: str) -> None:
    """nn.LSTMCell, nn.GRUCell, nn.RNNCell: each call is one step of the layer."""
    options = {"nonlinearity": kind[4:].lower()} if kind.startswith("RNN") else {}
    cell = getattr(nn, f"{kind[:3] if kind.startswith('RNN') else kind}Cell")(3, 4, **options)
    model = CellByCell(cell, nn.Linear(5 * 4, 3)).eval()
    x, states = torch.randn(2, 5, 3), tuple(torch.randn(2, 4) for _ in range(1 + (kind == "LSTM")))
    network, rule = oracle.Recurrent.of_cell(kind.lower(), arrays(cell)), oracle.Rule(0.01, bias)
    weight, bias_ = (t.detach().numpy()[[1]] for t in (model.head.weight, model.head.bias))
    expected = []
    for n in range(len(x)):
        initial = [tuple(s[n].numpy() for s in states)] if given_states else None
        run = oracle.forward(network, x[n].numpy(), initial)
        features = run.output.ravel()
        R = oracle.linear(weight, bias_, features, weight @ features + bias_, rule)
        found = oracle.relevance(network, run, rule, R.reshape(run.output.shape))
        expected.append([found.x, *found.states[0]])
    of_inputs = [torch.from_numpy(np.stack(parts)) for parts in zip(*expected, strict=True)]
    inputs = (x, *states) if given_states else (x,)
    found = relprop.explain(model, inputs, 1, rules=Epsilon(0.01, bias)).relevance
    assert error(found, of_inputs[: len(inputs)]) < TOLERANCE


# ---- conservation


@pytest.mark.parametrize("gate", ["signal-take-all", "half"])
@arrangements
def test_with_bias_and_stabiliser_distributed_the_sum_is_the_score(
    kind: str, options: dict[str, Any], gate: str
) -> None:
    layer = recurrent(kind, **options)
    model, inputs = reader(layer, 5), (torch.randn(3, 5, 3), *states_of(layer, 3))
    found = relprop.explain(model, inputs, 2, rules=rules_of(oracle.Rule(0.01, "distribute", gate)))
    require_sums_to(found.relevance, model(*inputs)[:, 2])


@pytest.mark.parametrize("pack", ["unsorted", "sequences"])
@arrangements
def test_with_bias_and_stabiliser_distributed_the_sum_is_the_score_of_a_packed_batch(
    kind: str, options: dict[str, Any], pack: str
) -> None:
    layer = recurrent(kind, **options)
    model, x = packed(layer, [3, 5, 1], pack)
    inputs = (x, *states_of(layer, 3))
    found = relprop.explain(model, inputs, 2, rules=Epsilon(0.01, "distribute"))
    if kind != "RNN_RELU":
        require_sums_to(found.relevance, model(*inputs)[:, 2])
    else:  # a sum over time of zeros has no summand that could take its share
        balance = found.conservation
        assert balance.difference == pytest.approx(balance.absorbed.get("value zero", 0), abs=1e-9)


@pytest.mark.parametrize(
    ("bias", "gate"), [("absorb", "signal-take-all"), ("distribute", "signal-take-all"), ("absorb", "absolute")]
)
@arrangements
def test_the_report_says_where_the_difference_went(kind: str, options: dict[str, Any], bias: Any, gate: str) -> None:
    """What initial states of zero get counts as a difference where they are not given."""
    model, x = reader(recurrent(kind, **options), 4), torch.randn(2, 4, 3)
    found = relprop.explain(model, x, 1, rules=rules_of(oracle.Rule(0.01, bias, gate)))
    balance = found.conservation
    assert balance.relevance == pytest.approx(float(found.relevance.sum()), abs=1e-9)
    assert balance.score == pytest.approx(float(found.score.sum()), abs=1e-9)
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)
    assert {op.module for op in balance.operations if op.kind == "recurrent"} == {"recurrent"}
    for op in balance.operations:
        assert sum(op.absorbed.values()) == pytest.approx(op.difference, abs=1e-9)


# ---- eps -> 0, and loops by hand


@pytest.mark.parametrize("rule", [Zero(), Epsilon(0)], ids=repr)
@arrangements
def test_lrp_0_is_gradient_x_input_with_constant_gates(kind: str, options: dict[str, Any], rule: Rule) -> None:
    """tanh(z) counts as z * const(tanh(z) / z)."""
    layer = recurrent(kind, **options)
    model, inputs = reader(layer, 5), (torch.randn(2, 5, 3), *states_of(layer, 2))
    found = relprop.explain(model, inputs, 1, rules=rule).relevance
    assert error(found, gradient_x_input(by_hand(model, squash=CONSTANT), *inputs)) < TOLERANCE


@written
def test_a_loop_by_hand_is_explained_through_roles_alone(kind: str, options: dict[str, Any], style: str) -> None:
    """At eps 0: the loop = torch's layer = gradient x input with constant gates."""
    layer = recurrent(kind, **options)
    model, inputs = reader(layer, 3), (torch.randn(2, 3, 3), *states_of(layer, 2))
    found = relprop.explain(by_hand(model, style), inputs, 1, rules=LRP_0).relevance
    assert error(found, gradient_x_input(by_hand(model, squash=CONSTANT), *inputs)) < TOLERANCE
    assert error(found, relprop.explain(model, inputs, 1, rules=LRP_0).relevance) < TOLERANCE


@written
def test_a_loop_by_hand_shares_as_torchs_layer(kind: str, options: dict[str, Any], style: str) -> None:
    """x W + h U + b is one linear operation on [x, h], also in GRU's candidate, where a gate weighs h's part."""
    layer = recurrent(kind, **options)
    model, inputs = reader(layer, 3), (torch.randn(2, 3, 3), *states_of(layer, 2))
    of_x, _, of_states = by_oracle(model, 1, oracle.Rule(0.01), *inputs)
    found = relprop.explain(by_hand(model, style), inputs, 1, rules=stabilised(0.01)).relevance
    assert error(found, [of_x, *of_states]) < TOLERANCE


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_starts_from_zeros_shares_as_torchs_layer(kind: str, style: str) -> None:
    model, x = reader(recurrent(kind, num_layers=2, bidirectional=True), 3), torch.randn(2, 3, 3)
    found = relprop.explain(by_hand(model, style), x, 1, rules=stabilised(0.01)).relevance
    assert error(found, by_oracle(model, 1, oracle.Rule(0.01), x)[0]) < TOLERANCE
    assert error(found, relprop.explain(model, x, 1, rules=Epsilon(0.01)).relevance) < TOLERANCE


def attention(recurrent: Any, squash: Squashes) -> nn.Module:
    return Attention(recurrent, 4, squash)


MIXES: dict[str, Callable[[Any, Squashes], nn.Module]] = {
    "attention over hidden states": attention,
    "convolution, then recurrent": lambda layer, _: ConvLSTM(layer, 3, 4),
    "recurrent, then convolution": lambda layer, _: LSTMConv(layer, 3, 4),
    "residual, used twice": lambda layer, _: Residual(layer, 3, 4),
    "encoder and decoder": lambda layer, _: Translation(layer, layer, 4),
    "last states": lambda layer, _: LastStates(layer, nn.Linear(4, 3)),
}


@pytest.mark.parametrize("written", ["module", "loop"])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_mix_with_others(kind: str, mix: str, written: str) -> None:
    """At eps 0: gradient x input with gates and attention weights constant."""
    layer, x = recurrent(kind), torch.randn(2, 5, 3)
    torch.manual_seed(1)
    model = MIXES[mix](layer if written == "module" else Loop(layer, "matmul"), FREE).eval()
    torch.manual_seed(1)
    constant = MIXES[mix](Loop(layer, squash=CONSTANT), CONSTANT).eval()
    torch.testing.assert_close(model(x), constant(x))
    found = relprop.explain(model, x, 1, rules=LRP_0).relevance
    assert error(found, gradient_x_input(constant, x)) < TOLERANCE


Tensors3 = Callable[[Tensor, Tensor, Tensor], Tensor]

MIXTURES: dict[str, Tensors3] = {
    "1 - z": lambda z, n, h: (1 - z) * n + z * h,
    "rsub": lambda z, n, h: torch.rsub(z, 1) * n + h * z,
    "ones - z": lambda z, n, h: (torch.ones_like(z) - z) * n + z * h,
    "difference": lambda z, n, h: n + z * (h - n),
    "four terms": lambda z, n, h: n - z * n + z * h,
    "lerp": lambda z, n, h: torch.lerp(n, h, z),
}
CANDIDATES: dict[str, Tensors3] = {
    "r * s": lambda a, r, s: a + r * s,
    "s * r": lambda a, r, s: s * r + a,
    "addcmul": lambda a, r, s: torch.addcmul(a, r, s),
}


@pytest.mark.parametrize("from_zeros", [True, False], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_gru_may_be_written_in_many_ways(mixture: str, candidate: str, from_zeros: bool) -> None:
    """At eps 0. From zeros the first r * (U h + b') is a gate times a constant, a bias: the gate gets nothing."""
    layer, head = recurrent("GRU"), nn.Linear(4, 3)
    weights, x = Weights.of(layer, "_l0"), torch.randn(2, 4, 3)

    def model(x: Tensor, h: Tensor | None = None) -> Tensor:
        h = x.new_zeros(len(x), 4) if h is None else h
        for x_t in x.unbind(1):
            input_r, input_z, input_n = weights.input_part(x_t, "linears").chunk(3, 1)
            state_r, state_z, state_n = weights.state_part(h).chunk(3, 1)
            r, z = torch.sigmoid(input_r + state_r), torch.sigmoid(input_z + state_z)
            h = MIXTURES[mixture](z, torch.tanh(CANDIDATES[candidate](input_n, r, state_n)), h)
        return head(h)

    def torchs(x: Tensor, h: Tensor | None = None) -> Tensor:
        return head(layer(x, None if h is None else h[None])[0][:, -1])

    inputs = (x,) if from_zeros else (x, torch.randn(2, 4))
    found, expected = (relprop.explain(m, inputs, 1, rules=LRP_0).relevance for m in (model, torchs))
    assert error(found, expected) < TOLERANCE


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_program_of_single_steps_is_explained_alike(kind: str) -> None:
    """torch.export may take a recurrent layer apart into matrix products and gates."""
    model, x = classifier(kind), torch.randn(2, 2, 3)
    program = torch.export.export(model, (x,)).run_decompositions().module()
    found = relprop.explain(program, x, 1, rules=LRP_0).relevance
    assert error(found, relprop.explain(model, x, 1, rules=LRP_0).relevance) < TOLERANCE


@pytest.mark.parametrize("unit", [MinimalGatedUnit, CoupledLSTM])
def test_recurrent_units_that_torch_does_not_have(unit: Any) -> None:
    torch.manual_seed(3)
    model, x = unit(3, 4).eval(), torch.randn(2, 5, 3)
    constant = copy.deepcopy(model)
    constant.squash = CONSTANT
    found = relprop.explain(model, x, 1, rules=LRP_0).relevance
    assert error(found, gradient_x_input(constant, x)) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_regression_of_a_one_dimensional_signal(kind: str) -> None:
    model, signal = Regression(recurrent(kind, 1), 4).eval(), torch.randn(3, 7)
    found = relprop.explain(model, signal, rules=Zero())
    torch.testing.assert_close(found.score, model(signal).detach())
    constant = gradient_x_input(by_hand(model, squash=CONSTANT), signal, target=None)
    assert error(found.relevance, constant) < TOLERANCE


@pytest.mark.parametrize("written", ["cat", "matmul"])
def test_gates_that_take_half_do_so_in_a_loop_too(written: str) -> None:
    """A sigmoid among recorded functions divides by its argument with a stabiliser of 1e-6, within a layer it does not:
    arguments here are around 0.1 to 1, so that the two agree to some 1e-5."""
    layer = recurrent("LSTM")
    model, inputs = reader(layer, 3), (torch.randn(2, 3, 3), *states_of(layer, 2))
    rules = RuleMap([*stabilised(0.1).entries, ("gate", Half())])
    found = relprop.explain(by_hand(model, written), inputs, 1, rules=rules).relevance
    of_x, _, of_states = by_oracle(model, 1, oracle.Rule(0.1, gate="half"), *inputs)
    assert error(found, [of_x, *of_states]) < 1e-4


# ---- joint linear operations


def in_place(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    z = x @ W
    z += h @ U
    z += b
    return z


def used_twice(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    part = x @ W
    return torch.cat([part + h @ U + b, part], 1)[:, : len(b)]


JOINT: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "products, then bias": lambda x, h, W, U, b: x @ W + h @ U + b,
    "bias in between": lambda x, h, W, U, b: x @ W + b + h @ U,
    "bias first": lambda x, h, W, U, b: b + (x @ W + h @ U),
    "the other way round": lambda x, h, W, U, b: h @ U + x @ W + b,
    "torch.add": lambda x, h, W, U, b: torch.add(torch.add(x @ W, h @ U), b),
    "difference": lambda x, h, W, U, b: x @ W - h @ -U + b,
    "in place": in_place,
    "half each, twice": lambda x, h, W, U, b: 2 * (0.5 * (x @ W) + 0.5 * (h @ U)) + b,
    "linear layers": lambda x, h, W, U, b: torch.nn.functional.linear(x, W.T, b) + torch.nn.functional.linear(h, U.T),
    "addmm": lambda x, h, W, U, b: torch.addmm(x @ W + b, h, U),
    "einsum": lambda x, h, W, U, b: torch.einsum("bi,ij->bj", x, W) + torch.einsum("bi,ij->bj", h, U) + b,
    "python sum": lambda x, h, W, U, b: sum([x @ W, h @ U, b]),
    "gate by gate": lambda x, h, W, U, b: torch.cat(
        [x @ w + h @ u + c for w, u, c in zip(W.chunk(2, 1), U.chunk(2, 1), b.chunk(2), strict=True)], 1
    ),
    "in three parts": lambda x, h, W, U, b: x[:, :1] @ W[:1] + x[:, 1:] @ W[1:] + h @ U + b,
    "ahead of the loop": lambda x, h, W, U, b: (torch.stack([x, -x], 1) @ W)[:, 0] + h @ U + b,
    "with a step dimension": lambda x, h, W, U, b: (x[:, None] @ W + h[:, None] @ U + b)[:, 0],
    "a part used twice": used_twice,
}


@pytest.mark.parametrize("rule", [Epsilon(0.3), Zero(), Gamma(0.25, eps=0.3), ZPlus(eps=0.3)], ids=repr)
@pytest.mark.parametrize("spelling", JOINT)
def test_products_that_are_added_up_are_one_linear_operation(spelling: str, rule: Rule) -> None:
    """x W + h U + b shares as one linear layer on [x, h]: its denominator is the whole."""
    x, h, W, U, b = (torch.randn(*shape) for shape in [(3, 4), (3, 5), (4, 6), (5, 6), (6,)])
    head = nn.Linear(6, 3)

    def model(x: Tensor, h: Tensor) -> Tensor:
        return head(torch.tanh(JOINT[spelling](x, h, W, U, b)))

    def joint(x: Tensor, h: Tensor) -> Tensor:
        return head(torch.tanh(torch.nn.functional.linear(torch.cat([x, h], 1), torch.cat([W, U]).T, b)))

    torch.testing.assert_close(model(x, h), joint(x, h))
    rules = RuleMap([("affine", rule), ("sum", Epsilon(0.3))])
    found, expected = (relprop.explain(m, (x, h), 1, rules=rules) for m in (model, joint))
    assert error(found.relevance, expected.relevance) < TOLERANCE
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)


def test_a_part_that_goes_elsewhere_too_shares_on_its_own_there() -> None:
    """u = x W; tanh(u + h U) is joint, while what another layer sends to u is u's alone."""
    x, h, W, U = (torch.randn(*shape) for shape in [(3, 4), (3, 5), (4, 6), (5, 6)])
    first, second = nn.Linear(6, 3), nn.Linear(6, 3)

    def model(x: Tensor, h: Tensor) -> Tensor:
        u = x @ W
        return first(torch.tanh(u + h @ U)) + second(torch.relu(u))

    def apart(x: Tensor, h: Tensor) -> Tensor:
        joint = torch.cat([x, h], 1) @ torch.cat([W, U])
        return first(torch.tanh(joint)) + second(torch.relu(x @ W))

    for rule in (Epsilon(0.3), ZPlus(eps=0.3)):
        found, expected = (relprop.explain(m, (x, h), 1, rules=rule).relevance for m in (model, apart))
        assert error(found, expected) < TOLERANCE


def test_what_is_added_to_an_activation_is_no_linear_operation_with_it() -> None:
    """x + relu(h U): the sum shares first, as everywhere."""
    x, h, U = torch.randn(3, 6), torch.randn(3, 5), torch.randn(5, 6)
    head = nn.Linear(6, 3)
    rules = RuleMap([("affine", Epsilon(0.3)), ("sum", Epsilon(0.2))])
    found = relprop.explain(lambda x, h: head(x + torch.relu(h @ U)), (x, h), 1, rules=rules).relevance
    part = torch.relu(h @ U)
    total = x + part
    score = head(total)[:, 1].detach()

    def divided(z: Tensor, eps: float) -> Tensor:
        return z + torch.where(z >= 0, eps, -eps)

    R = total * head.weight[1].detach() * (score / divided(score, 0.3))[:, None] / divided(total, 0.2)
    R_h = h * ((part * R / divided(h @ U, 0.3)) @ U.T)
    assert error(found, [x * R, R_h]) < TOLERANCE


# ---- packed sequences


def packed(layer: nn.RNNBase, lengths: list[int], pack: str) -> tuple[Packed, Tensor]:
    """A model of packed sequences and a padded batch for it."""
    count = layer.num_layers * (1 + layer.bidirectional)
    head = nn.Linear(width_of(layer) + count * (layer.proj_size or layer.hidden_size), 3)
    return Packed(layer, head, lengths, pack).eval(), torch.randn(len(lengths), max(lengths), 3)


def require_each_as_alone(layer: nn.RNNBase, lengths: list[int], pack: str, rule: Rule, given_states: bool) -> None:
    model, x = packed(layer, lengths, pack)
    states = states_of(layer, len(lengths)) if given_states else ()
    found = relprop.explain(model, (x, *states), 1, rules=rule)
    alone = Alone(layer, model.head, lengths).eval()
    for n, length in enumerate(lengths):
        one = relprop.explain(alone, (x[n : n + 1, :length], *(s[n : n + 1] for s in states)), 1, rules=rule)
        torch.testing.assert_close(found.score[n], one.score[0])
        assert error(found.relevance[0][n, :length], one.relevance[0][0]) < TOLERANCE
        assert bool((found.relevance[0][n, length:] == 0).all())
        for got, expected in zip(found.relevance[1:], one.relevance[1:], strict=True):
            assert error(got[n], expected[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("pack", "lengths", "bias"),
    [("sorted", [5, 3, 3, 1], "absorb"), ("unsorted", [2, 5, 1], "distribute"), ("sequences", [2, 4, 3], "absorb")],
    ids=["sorted", "unsorted", "sequences"],
)
@arrangements
def test_each_sequence_of_a_packed_batch_gets_what_it_gets_alone(
    kind: str, options: dict[str, Any], pack: str, lengths: list[int], bias: Any
) -> None:
    rule = Epsilon(0.01, bias)
    require_each_as_alone(recurrent(kind, **options), lengths, pack, rule, given_states=pack != "sequences")


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans(), st.integers(0, 999))
def test_random_lengths(kind: str, lengths: list[int], bidirectional: bool, seed: int) -> None:
    layer = recurrent(kind, seed=seed, bidirectional=bidirectional, num_layers=1 + seed % 2)
    require_each_as_alone(layer, lengths, "unsorted", Epsilon(0.01), given_states=bool(seed % 3))


@pytest.mark.parametrize("kind", KINDS)
def test_each_sequence_of_a_batch_gets_what_it_gets_alone(kind: str) -> None:
    model, x = reader(recurrent(kind, num_layers=2, bidirectional=True), 5), torch.randn(4, 5, 3)
    explainer = relprop.Explainer(model, Epsilon(0.01))
    together = explainer(x, 1).relevance
    assert error(together, torch.cat([explainer(x[n : n + 1], 1).relevance for n in range(4)])) < TOLERANCE


def test_lengths_of_zero_are_torchs_own_error() -> None:
    model, x = packed(recurrent("LSTM"), [3, 0], "unsorted")
    with pytest.raises(RuntimeError, match="greater than 0"):
        relprop.explain(model, x, 1, rules=Epsilon())


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3)], ids=["no sequence", "no step"])
def test_nothing_to_read_is_refused(shape: tuple[int, ...]) -> None:
    model = LastStates(recurrent("LSTM"), nn.Linear(4, 3)).eval()
    with pytest.raises(InvalidInput, match=r"shape"):
        relprop.explain(model, torch.zeros(shape), 1)


# ---- a few steps at a time


@pytest.fixture(params=[1, 40], ids=["a step at a time", "two or more"])
def short_spans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direction, "SPAN", request.param)


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize("eps", [0.0, 0.01])
@arrangements
def test_steps_taken_in_spans_meet_the_oracle_for_every_target(kind: str, options: dict[str, Any], eps: float) -> None:
    layer = recurrent(kind, **options)
    model, x, states, rule = reader(layer, 7), torch.randn(2, 7, 3), states_of(layer, 2), oracle.Rule(eps)
    found = relprop.Explainer(model, rules_of(rule))((x, *states), targets=[0, 1, 2])
    for target, attribution in enumerate(found):
        of_x, _, of_states = by_oracle(model, target, rule, x, *states)
        assert error(attribution.relevance, [of_x, *of_states]) < TOLERANCE


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [1, 6, 2], [4, 4]])
@arrangements
def test_packed_steps_taken_in_spans(kind: str, options: dict[str, Any], lengths: list[int]) -> None:
    require_each_as_alone(recurrent(kind, **options), lengths, "unsorted", Epsilon(0.01), given_states=True)


@arrangements
def test_the_report_is_the_same_in_spans(kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = packed(recurrent(kind, **options), [5, 3, 1], "unsorted")
    explainer = relprop.Explainer(model, Epsilon(0.01))

    def taken_up() -> list[float]:
        absorbed = explainer(x, 1).conservation.absorbed
        return [absorbed.get(cause, 0.0) for cause in ("bias", "stabiliser", "initial state")]

    whole = taken_up()
    monkeypatch.setattr(direction, "SPAN", 1)
    assert taken_up() == pytest.approx(whole, rel=1e-9, abs=1e-12)
    assert any(whole)


# ---- the contract


def classifier(kind: str = "LSTM", **options: Any) -> LastStates:
    layer = recurrent(kind, **options)
    return LastStates(layer, nn.Linear(width_of(layer), 3), 1 + layer.bidirectional).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_epsilon_for_recurrent_layers(kind: str) -> None:
    model, x = classifier(kind), torch.randn(2, 5, 3)
    found = relprop.explain(model, x, 1)
    assert found.rules == "auto: epsilon"
    assert torch.equal(found.relevance, relprop.explain(model, x, 1, rules="epsilon").relevance)


@pytest.mark.parametrize("order", ["convolution, then recurrent", "recurrent, then convolution"])
def test_auto_fits_convolutions_and_recurrent_layers_together(order: str) -> None:
    model, x = MIXES[order](recurrent("LSTM"), FREE).eval(), torch.randn(2, 5, 3)
    found = relprop.explain(model, x, 1)
    assert found.rules.startswith("auto")
    assert bool(found.relevance.isfinite().all())


@pytest.mark.parametrize("selector", ["recurrent", "affine", "linear", "rec*", nn.LSTM, nn.Module], ids=str)
def test_a_recurrent_layers_rule_is_chosen_like_any_other(selector: Any) -> None:
    layer, steps = recurrent("LSTM"), 4
    model, x = reader(layer, steps), torch.randn(2, steps, 3)
    chosen = RuleMap([("head", Epsilon(0.1)), (selector, Epsilon(0.1)), ("affine", Epsilon(7))])
    expected, _, _ = by_oracle(model, 1, oracle.Rule(0.1), x)
    assert error(relprop.explain(model, x, 1, rules=chosen).relevance, expected) < TOLERANCE


def test_a_gate_rule_alone_is_not_enough() -> None:
    with pytest.raises(InvalidRule, match=r'"affine"'):
        relprop.explain(classifier(), torch.randn(2, 5, 3), 1, rules=RuleMap([("gate", Half())]))


@pytest.mark.parametrize("rule", [Gamma(0.25), AlphaBeta(2, 1), ZPlus()], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_signed_rules_share_as_in_a_loop_with_one_linear_layer_on_both_inputs(kind: str, rule: Rule) -> None:
    layer = recurrent(kind, num_layers=2, bidirectional=True)
    model, inputs = reader(layer, 3), (torch.randn(2, 3, 3), *states_of(layer, 2))
    found = relprop.explain(model, inputs, 1, rules=rule).relevance
    assert error(found, relprop.explain(by_hand(model, "cat"), inputs, 1, rules=rule).relevance) < TOLERANCE


@pytest.mark.parametrize("rule", [Flat(), WSquare(), ZBox(-9, 9), Pass()], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_rules_that_mean_nothing_for_a_recurrent_layer_are_refused(kind: str, rule: Rule) -> None:
    rules = RuleMap([("head", Epsilon()), ("affine", rule)])
    with pytest.raises(InvalidRule, match=r"(?s)recurrent.*Epsilon"):
        relprop.explain(classifier(kind), torch.randn(2, 5, 3), 1, rules=rules, bounds=(-9, 9))


def test_layers_gives_the_relevance_of_the_hidden_states() -> None:
    model, x = reader(recurrent("LSTM", bidirectional=True), 4), torch.randn(2, 4, 3)
    with torch.no_grad():
        model.head.weight[:, 4 * 8 :] = 0  # it reads the output alone
    found = relprop.explain(model, x, 1, rules=Epsilon(0.01), layers=["recurrent"]).layers["recurrent"]
    assert error(found, by_oracle(model, 1, oracle.Rule(0.01), x)[1]) < TOLERANCE


@pytest.mark.parametrize("batch_first", [True, False])
def test_what_the_last_states_get_is_seen_at_the_hidden_states(batch_first: bool) -> None:
    layer, head = recurrent("LSTM", bidirectional=True, batch_first=batch_first), nn.Linear(8, 3)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = layer

        def forward(self, x: Tensor) -> Tensor:
            return head(torch.cat(list(layer(x if batch_first else x.transpose(0, 1))[1][0]), 1))

    x = torch.randn(2, 4, 3)
    found = relprop.explain(Model().eval(), x, 1, rules=Zero(), layers=["recurrent"]).layers["recurrent"]
    found = found if batch_first else found.transpose(0, 1)
    with torch.no_grad():
        last = torch.cat(list(layer(x if batch_first else x.transpose(0, 1))[1][0]), 1)
    expected = torch.zeros(2, 4, 8)
    expected[:, -1, :4], expected[:, 0, 4:] = (last * head.weight[1].detach()).split(4, 1)
    torch.testing.assert_close(found, expected)


class Stacked(nn.Module):
    """A recurrent layer on the hidden states of another."""

    def __init__(self, lower: nn.RNNBase, upper: nn.RNNBase, head: nn.Linear) -> None:
        super().__init__()
        self.lower, self.upper, self.head = lower, upper, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.upper(self.lower(x)[0])[0][:, -1])


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_relevance_inside_a_stack_is_what_the_upper_part_alone_gives(kind: str, bias: Any) -> None:
    torch.manual_seed(5)
    model = Stacked(recurrent(kind), recurrent(kind, 4, 4, seed=1), nn.Linear(4, 3)).eval()
    x, rule = torch.randn(2, 4, 3), Epsilon(0.01, bias)
    found = relprop.explain(model, x, 1, rules=rule, layers=["lower"]).layers["lower"]
    hidden = model.lower(x)[0].detach()
    upper = relprop.explain(lambda h: model.head(model.upper(h)[0][:, -1]), hidden, 1, rules=rule)
    assert error(found, upper.relevance) < TOLERANCE


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_layers_in_one_module_are_one_on_top_of_the_other(kind: str, bias: Any) -> None:
    both = recurrent(kind, num_layers=2)
    lower, upper = recurrent(kind), recurrent(kind, 4, 4)
    lower.load_state_dict({n: p for n, p in both.state_dict().items() if n.endswith("l0")})
    upper.load_state_dict({n.replace("l1", "l0"): p for n, p in both.state_dict().items() if n.endswith("l1")})
    head, x = nn.Linear(4, 3), torch.randn(2, 4, 3)
    one = relprop.explain(LastStates(both, head).eval(), x, 1, rules=Epsilon(0.01, bias))
    two = relprop.explain(Stacked(lower, upper, head).eval(), x, 1, rules=Epsilon(0.01, bias))
    torch.testing.assert_close(one.score, two.score)
    assert error(one.relevance, two.relevance) < TOLERANCE


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_two_parts_is_the_sequence(kind: str, bias: Any) -> None:
    """The state of the first part starts the second: relevance goes on through it."""
    layer, head, x = recurrent(kind), nn.Linear(4, 3), torch.randn(2, 6, 3)

    def in_parts(x: Tensor) -> Tensor:
        _, state = layer(x[:, :2])
        return head(layer(x[:, 2:], state)[0][:, -1])

    whole = relprop.explain(LastStates(layer, head).eval(), x, 1, rules=Epsilon(0.01, bias))
    parts = relprop.explain(in_parts, x, 1, rules=Epsilon(0.01, bias))
    assert error(parts.relevance, whole.relevance) < TOLERANCE


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_get_the_sum_over_their_embedding(kind: str, bias: Any) -> None:
    model = Words(classifier(kind), 10, 3).eval()
    ids = torch.tensor([[1, 5, 2, 9, 1], [0, 3, 3, 4, 8]])
    found = relprop.explain(model, ids, 2, rules=Epsilon(0.01, bias)).relevance
    vectors = relprop.explain(model.model, model.embedding(ids).detach(), 2, rules=Epsilon(0.01, bias)).relevance
    assert found.shape == (2, 5)
    assert error(found, vectors.sum(2)) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_without_batch_dimension_inside_a_model(kind: str) -> None:
    layer, head, x = recurrent(kind), nn.Linear(4, 3), torch.randn(1, 5, 3)
    found = relprop.explain(lambda x: head(layer(x[0])[0][-1:]), x, 1, rules=Epsilon(0.01)).relevance
    expected = relprop.explain(LastStates(layer, head).eval(), x, 1, rules=Epsilon(0.01)).relevance
    assert error(found, expected) < TOLERANCE


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_zeros_that_nothing_reads_gets_no_relevance_under_absorb(kind: str, bias: Any) -> None:
    """A zero input has no contribution; distributed, it gets its part of bias and stabiliser."""
    x = torch.randn(1, 4, 3)
    x[:, 1] = 0
    found = relprop.explain(classifier(kind), x, 1, rules=Epsilon(0.01, bias)).relevance[:, 1]
    assert bool((found == 0).all()) == (bias == "absorb")


@pytest.mark.parametrize("kind", KINDS)
def test_steps_after_the_one_that_is_read_get_nothing(kind: str) -> None:
    layer, head, x = recurrent(kind), nn.Linear(4, 3), torch.randn(2, 5, 3)
    found = relprop.explain(lambda x: head(layer(x)[0][:, 2]), x, 1, rules=Epsilon(0.01, "distribute")).relevance
    assert bool((found[:, 3:] == 0).all())
    before = relprop.explain(LastStates(layer, head).eval(), x[:, :3], 1, rules=Epsilon(0.01, "distribute")).relevance
    assert error(found[:, :3], before) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_initial_states_that_are_parameters_take_their_share_with_them(kind: str) -> None:
    layer, head, x = recurrent(kind), nn.Linear(4, 3), torch.randn(2, 3, 3)
    start = tuple(nn.Parameter(torch.randn(1, 1, 4)) for _ in range(1 + (kind == "LSTM")))

    def model(x: Tensor) -> Tensor:
        state = tuple(s.expand(1, len(x), 4).contiguous() for s in start)
        return head(layer(x, state if len(state) == 2 else state[0])[0][:, -1])

    def with_inputs(x: Tensor, *states: Tensor) -> Tensor:
        state = tuple(s[None] for s in states)
        return head(layer(x, state if len(state) == 2 else state[0])[0][:, -1])

    found = relprop.explain(model, x, 1, rules=Epsilon(0.01))
    states = tuple(s.detach().expand(1, 2, 4)[0].clone() for s in start)
    expected = relprop.explain(with_inputs, (x, *states), 1, rules=Epsilon(0.01))
    assert error(found.relevance, expected.relevance[0]) < TOLERANCE
    balance = found.conservation
    assert sum(balance.absorbed.values()) == pytest.approx(balance.difference, abs=1e-9)


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
def test_one_state_given_for_both_adds_up(bias: Any) -> None:
    layer, head = recurrent("LSTM"), nn.Linear(4, 3)
    x, h = torch.randn(2, 3, 3), torch.randn(2, 4)
    rule = Epsilon(0.01, bias)
    once = relprop.explain(lambda x, h: head(layer(x, (h[None], h[None]))[0][:, -1]), (x, h), 1, rules=rule).relevance
    twice = relprop.explain(
        lambda x, h, c: head(layer(x, (h[None], c[None]))[0][:, -1]), (x, h, h.clone()), 1, rules=rule
    ).relevance
    assert error(once, [twice[0], twice[1] + twice[2]]) < TOLERANCE


class Counting(LastStates):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(x)


def test_several_targets_and_rules_share_one_forward() -> None:
    model, x = Counting(recurrent("LSTM"), nn.Linear(4, 3)).eval(), torch.randn(2, 5, 3)
    rules = [Epsilon(0.01), Epsilon(0.01, "distribute"), rules_of(oracle.Rule(0.01, gate="half"))]
    Counting.calls = 0
    several = relprop.explain(model, x, targets=[0, 2], rules=Epsilon(0.01))
    assert Counting.calls == 1
    compared = relprop.Explainer(model).compare(x, rules, 2)
    assert Counting.calls == 2
    for target, found in zip([0, 2], several, strict=True):
        assert torch.equal(found.relevance, relprop.explain(model, x, target, rules=Epsilon(0.01)).relevance)
    for rule, found in zip(rules, compared.values(), strict=True):
        assert error(found.relevance, relprop.explain(model, x, 2, rules=rule).relevance) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_it_was(kind: str) -> None:
    """Its parameters, its flat weights, its hooks; training goes on with an optimizer made before."""
    model, x = classifier(kind, num_layers=2, bidirectional=True), torch.randn(2, 5, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = {name: (id(p), p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    flat, output = [id(w) for w in model.recurrent._flat_weights], model(x)
    for rule in (Epsilon(0.01), Epsilon(0.01, "distribute"), rules_of(oracle.Rule(0.01, gate="half"))):
        found = relprop.explain(model, x, 1, rules=rule)
        assert torch.equal(found.output, output)
    assert [id(w) for w in model.recurrent._flat_weights] == flat
    assert torch.equal(model(x), output)
    for name, p in model.named_parameters():
        assert id(p) == before[name][0] and p.requires_grad == before[name][2] and p.grad is None
        assert torch.equal(p, before[name][1])
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    model.train()(x).sum().backward()
    optimizer.step()
    assert not any(torch.equal(p, before[name][1]) for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_training_mode_is_refused(kind: str) -> None:
    model = classifier(kind, num_layers=2, dropout=0.5)
    model.recurrent.train()
    with pytest.raises(TrainingMode, match="recurrent"):
        relprop.explain(model, torch.randn(2, 5, 3), 1)


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_lower_precision_is_close_to_float64(kind: str, bias: Any) -> None:
    """float32 has 7 digits, bfloat16 not quite 3, and rounding goes through eight steps. The stabiliser is large enough
    for a rounded pre-activation to keep its sign."""
    model, x = classifier(kind, d=16, bidirectional=True), torch.randn(4, 8, 3)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        lower, y = copy.deepcopy(model).to(dtype), x.to(dtype)
        found = relprop.explain(lower, y, 1, rules=Epsilon(0.1, bias)).relevance
        expected = relprop.explain(lower.double(), y.double(), 1, rules=Epsilon(0.1, bias)).relevance
        assert found.dtype == dtype
        assert error(found.double(), expected) < tolerance


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_under_the_callers_no_grad_or_inference_mode(context: Any) -> None:
    model, x = classifier(), torch.randn(2, 5, 3)
    expected = relprop.explain(model, x, 1, rules=Epsilon(0.01)).relevance
    with context():
        assert torch.equal(relprop.explain(model, x, 1, rules=Epsilon(0.01)).relevance, expected)


def test_a_frozen_layer_is_explained_alike() -> None:
    model, x = classifier(), torch.randn(2, 5, 3)
    expected = relprop.explain(model, x, 1, rules=Epsilon(0.01)).relevance
    found = relprop.explain(model.requires_grad_(False), x, 1, rules=Epsilon(0.01)).relevance
    assert error(found, expected) < 1e-12  # torch itself computes a frozen layer's last bits otherwise


def test_an_explainer_sees_weights_that_changed_since() -> None:
    model, x = classifier(), torch.randn(2, 5, 3)
    explainer = relprop.Explainer(model, Epsilon(0.01))
    before = explainer(x, 1).relevance
    with torch.no_grad():
        model.recurrent.weight_hh_l0.mul_(1.5)
    after = explainer(x, 1).relevance
    assert not torch.allclose(before, after)
    assert torch.equal(after, relprop.explain(model, x, 1, rules=Epsilon(0.01)).relevance)


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_states_that_are_exactly_zero_stay_finite(kind: str, bias: Any) -> None:
    """Without biases an input of zeros leaves every pre-activation and state at zero: 0/0 counts as 0."""
    model, x = classifier(kind, bias=False), torch.randn(2, 4, 3)
    x[0] = 0
    for eps in (0.0, 0.01):
        found = relprop.explain(model, x, 1, rules=Epsilon(eps, bias)).relevance
        assert bool(found.isfinite().all())
        assert eps or bool((found[0] == 0).all())


def test_large_values_that_saturate_every_gate_stay_finite() -> None:
    for kind in ("LSTM", "GRU"):
        model, x = classifier(kind), 1e4 * torch.randn(2, 4, 3)
        for gate in GATES:
            rules = rules_of(oracle.Rule(0.01, "distribute", gate))
            assert bool(relprop.explain(model, x, 1, rules=rules).relevance.isfinite().all())


def test_a_share_below_zero_is_refused_where_weights_are_told_apart_by_sign() -> None:
    model, x = reader(recurrent("GRU"), 3), torch.randn(2, 3, 3)
    rules = RuleMap([("recurrent", ZPlus()), ("gate", Proportional()), ("affine", Epsilon())])
    with pytest.raises(InvalidRule, match="share below zero"):
        relprop.explain(model, x, 1, rules=rules)


def test_squared_weights_have_no_meaning_where_a_gate_scales_them() -> None:
    """As in a GRU written by hand, whose torch twin refuses them too."""
    a, b, c = (nn.Linear(3, 2).double() for _ in range(3))

    def model(x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(a(x) + c(x).sigmoid() * b(h))

    with pytest.raises(InvalidRule, match="a gate scales"):
        relprop.explain(model, (torch.randn(1, 3), torch.randn(1, 3)), 1, rules="w-square")
