"""Keras 3 models on the torch backend: what they explain is what the same weights explain in torch."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.config.backend() != "torch":
    pytest.skip("Keras runs on another backend", allow_module_level=True)
pytest.importorskip("h5py")

import relprop  # noqa: E402
from relprop import models  # noqa: E402
from relprop.errors import InvalidFile, InvalidInput, TrainingMode, UnsupportedModel  # noqa: E402
from relprop.models import Conv, Linear  # noqa: E402
from relprop.rules import Epsilon, Gamma  # noqa: E402

L = keras.layers
IDS = torch.tensor([[3, 9, 4, 1, 7, 2], [5, 5, 8, 6, 1, 3]])
PADDED = torch.tensor([[3, 9, 4, 1, 0, 0], [5, 5, 8, 6, 1, 3]])
SIZES = {torch.float32: 1e-5, torch.float64: 1e-9}


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """The type that Keras computes in. Of its own accord it does matrix products of float64 in float32."""
    monkeypatch.setitem(keras.src.backend.common.dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield getattr(torch, request.param)
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


double = pytest.mark.parametrize("dtype", ["float64"], indirect=True)


def built(layers: list[Any] | Any, x: Tensor) -> Any:
    """A Keras model with random weights, biases and statistics included."""
    model = keras.Sequential(layers) if isinstance(layers, list) else layers
    model(x)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        values = rng.normal(scale=0.5, size=variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


def weights(layer: Any) -> list[np.ndarray]:
    return [np.array(w) for w in layer.get_weights() if w.dtype.kind == "f"]


def assert_same_relevance(
    ours: Any, twin: Callable[..., Any], x: Tensor, x_twin: Tensor | None = None, **how: Any
) -> None:
    """Explanations of a Keras model and its twin in torch agree, for each class, x channels last against first."""
    image = x_twin is not None
    expected = relprop.explain(twin, x if x_twin is None else x_twin, target=1, **how)
    found = relprop.explain(ours, x, target=1, **how)
    size = SIZES[expected.relevance.dtype]
    torch.testing.assert_close(found.score, expected.score, rtol=size, atol=size)
    relevance = expected.relevance.movedim(1, -1) if image else expected.relevance
    torch.testing.assert_close(found.relevance, relevance, rtol=0, atol=size * float(relevance.abs().max()))
    assert found.relevance.abs().max() > 0


# ---- recurrent


under_each_rule = pytest.mark.parametrize(
    ("dtype", "rules"),
    [
        ("float32", "auto"),
        ("float32", Epsilon(0.1)),
        ("float64", "epsilon"),
        ("float64", Epsilon(0.01)),
        ("float64", Epsilon(0.1)),
    ],
    indirect=["dtype"],
)


def lstm_twin(model: Any) -> models.RecurrentNetwork:
    embedding, recurrent, dense = weights(model.layers[0]), weights(model.layers[1]), weights(model.layers[-1])
    w, reverse = recurrent[:3], recurrent[3:] or None
    return models.lstm(w, reverse, embedding=embedding[0], head=dense[0], head_bias=dense[1])


@under_each_rule
def test_lstm_classifier(dtype: torch.dtype, rules: Any) -> None:
    model = built([L.Embedding(10, 5), L.LSTM(8), L.Dropout(0.5), L.Dense(2, activation="sigmoid")], IDS)
    assert_same_relevance(model, lstm_twin(model), IDS, rules=rules)


@under_each_rule
def test_lstm_with_recurrent_dropout(dtype: torch.dtype, rules: Any) -> None:
    layers = [
        L.Embedding(10, 5),
        L.LSTM(8, dropout=0.2, recurrent_dropout=0.2),
        L.Dense(2, activation="sigmoid"),
    ]
    model = built(layers, IDS)
    assert_same_relevance(model, lstm_twin(model), IDS, rules=rules)


class Merged(nn.Module):
    """The two directions' last states merged in another way than beside each other."""

    def __init__(self, states: nn.Module, head: nn.Module, merge: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.states, self.head, self.merge = states, head, merge

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.merge(*self.states(x).chunk(2, 1)))


MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) / 2,
}


@pytest.mark.parametrize("merge", ["concat", "mul", "sum", "ave"])
@under_each_rule
def test_bidirectional_lstm(merge: str, rules: Any, dtype: torch.dtype) -> None:
    model = built([L.Embedding(10, 5), L.Bidirectional(L.LSTM(6), merge_mode=merge), L.Dense(2)], IDS)
    if merge == "concat":
        assert_same_relevance(model, lstm_twin(model), IDS, rules=rules)
        return
    table, w, dense = (weights(layer) for layer in model.layers)
    head = models.sequential([Linear(*dense)], layout="keras")
    twin = Merged(models.lstm(w[:3], w[3:], embedding=table[0]), head, MERGES[merge])
    assert_same_relevance(model, twin.eval(), IDS, rules=rules)


@under_each_rule
@pytest.mark.parametrize("options", [{}, {"recurrent_dropout": 0.3}])
def test_gru(options: dict[str, float], rules: Any, dtype: torch.dtype) -> None:
    model = built([L.Embedding(10, 5), L.GRU(6, **options), L.Dense(2)], IDS)
    table, w, dense = (weights(layer) for layer in model.layers)
    twin = models.gru(w, embedding=table[0], head=dense[0], head_bias=dense[1])
    assert_same_relevance(model, twin, IDS, rules=rules)


class ResetBefore(nn.Module):
    """A GRU whose reset gate works before the product, after Cho et al. (2014), gates z, r, h as in Keras."""

    def __init__(self, w: list[np.ndarray], table: np.ndarray, head: nn.Module) -> None:
        super().__init__()
        self.kernel, self.recurrent, self.bias = (nn.Parameter(torch.from_numpy(a)) for a in w)
        self.table = nn.Parameter(torch.from_numpy(table))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        d = self.recurrent.shape[0]
        h = torch.zeros(len(x), d, dtype=self.kernel.dtype)
        k, u, b = self.kernel, self.recurrent, self.bias
        for e in nn.functional.embedding(x, self.table).unbind(1):
            z = torch.sigmoid(e @ k[:, :d] + h @ u[:, :d] + b[:d])
            r = torch.sigmoid(e @ k[:, d : 2 * d] + h @ u[:, d : 2 * d] + b[d : 2 * d])
            n = torch.tanh(torch.cat([e, r * h], 1) @ torch.cat([k[:, 2 * d :], u[:, 2 * d :]]) + b[2 * d :])
            h = z * h + (1 - z) * n
        return self.head(h)


@under_each_rule
def test_gru_that_resets_before_the_product(rules: Any, dtype: torch.dtype) -> None:
    model = built([L.Embedding(10, 5), L.GRU(6, reset_after=False), L.Dense(2)], IDS)
    table, w, dense = (weights(layer) for layer in model.layers)
    twin = ResetBefore(w, table[0], models.sequential([Linear(*dense)], layout="keras"))
    assert_same_relevance(model, twin.eval(), IDS, rules=rules)


class Plain(nn.Module):
    """Recurrent layers of torch's one after the other, then a linear layer on the last state."""

    def __init__(self, table: np.ndarray, layers: list[nn.RNNBase], head: nn.Module) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.from_numpy(table))
        self.layers = nn.ModuleList(layers)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        for layer in self.layers:
            x = layer(x)[0]
        return self.head(x[:, -1])


def filled(layer: nn.RNNBase, w: list[np.ndarray]) -> nn.RNNBase:
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(w[0].T))
        layer.weight_hh_l0.copy_(torch.from_numpy(w[1].T))
        layer.bias_ih_l0.copy_(torch.from_numpy(w[2]))
        layer.bias_hh_l0.zero_()
    return layer


@under_each_rule
def test_simple_rnn(rules: Any, dtype: torch.dtype) -> None:
    model = built([L.Embedding(10, 5), L.SimpleRNN(6), L.Dense(2)], IDS)
    table, w, dense = (weights(layer) for layer in model.layers)
    layer = filled(nn.RNN(5, 6, batch_first=True, dtype=dtype), w)
    twin = Plain(table[0], [layer], models.sequential([Linear(*dense)], layout="keras")).eval()
    assert_same_relevance(model, twin, IDS, rules=rules)


@under_each_rule
def test_lstms_on_top_of_each_other(rules: Any, dtype: torch.dtype) -> None:
    model = built([L.Embedding(10, 5), L.LSTM(6, return_sequences=True), L.LSTM(4), L.Dense(2)], IDS)
    table, first, second, dense = (weights(layer) for layer in model.layers)
    layers = [
        filled(nn.LSTM(5, 6, batch_first=True, dtype=dtype), first),
        filled(nn.LSTM(6, 4, batch_first=True, dtype=dtype), second),
    ]
    twin = Plain(table[0], layers, models.sequential([Linear(*dense)], layout="keras")).eval()
    assert_same_relevance(model, twin, IDS, rules=rules)


class FromStates(nn.Module):
    """A recurrent layer of torch's from given states, then a linear layer on the last output."""

    def __init__(self, layer: nn.RNNBase, head: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Tensor:
        return self.head(self.layer(x, h[None] if c is None else (h[None], c[None]))[0][:, -1])


@pytest.mark.parametrize("kind", ["LSTM", "SimpleRNN"])
@under_each_rule
def test_given_initial_states_are_inputs_with_their_share(kind: str, rules: Any, dtype: torch.dtype) -> None:
    given = [torch.randn(2, 6, 5, dtype=dtype), *(torch.randn(2, 4, dtype=dtype) for _ in range(1 + (kind == "LSTM")))]
    inputs = [keras.Input(tuple(tensor.shape[1:])) for tensor in given]
    recurrent, dense = getattr(L, kind)(4), L.Dense(2)
    model = built(keras.Model(inputs, dense(recurrent(inputs[0], initial_state=inputs[1:]))), given)
    layer = filled((nn.LSTM if kind == "LSTM" else nn.RNN)(5, 4, batch_first=True, dtype=dtype), weights(recurrent))
    twin = FromStates(layer, models.sequential([Linear(*weights(dense))], layout="keras")).eval()
    found = relprop.explain(model, tuple(given), target=1, rules=rules).relevance
    expected = relprop.explain(twin, tuple(given), target=1, rules=rules).relevance
    size = SIZES[dtype] * max(float(r.abs().max()) for r in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=size)
        assert theirs.abs().max() > 0


MASKABLE = [
    ("LSTM", {}),
    ("LSTM", {"recurrent_dropout": 0.2}),
    ("GRU", {}),
    ("GRU", {"reset_after": False}),
    ("SimpleRNN", {}),
]


@pytest.mark.parametrize(("kind", "options"), MASKABLE)
@double
def test_masked_tokens_get_nothing_and_the_others_what_they_get_alone(
    kind: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    model = built([L.Embedding(10, 5, mask_zero=True), getattr(L, kind)(6, **options), L.Dense(2)], PADDED)
    together = relprop.explain(model, PADDED, target=1, rules=Epsilon(0.1))
    alone = relprop.explain(model, PADDED[:1, :4], target=1, rules=Epsilon(0.1))
    torch.testing.assert_close(together.relevance[0, :4], alone.relevance[0], rtol=1e-9, atol=1e-12)
    assert (together.relevance[0, 4:] == 0).all()


@under_each_rule
def test_masked_bidirectional_lstm(rules: Any, dtype: torch.dtype) -> None:
    model = built([L.Embedding(10, 5, mask_zero=True), L.Bidirectional(L.LSTM(6)), L.Dense(2)], PADDED)
    together = relprop.explain(model, PADDED, target=1, rules=rules)
    expected = relprop.explain(lstm_twin(model), PADDED[:1, :4], target=1, rules=rules).relevance[0]
    size = SIZES[dtype] * float(expected.abs().max())
    torch.testing.assert_close(together.relevance[0, :4], expected, rtol=0, atol=size)
    assert (together.relevance[0, 4:] == 0).all()


# ---- feed-forward


under_each_preset = pytest.mark.parametrize(
    ("dtype", "rules"),
    [
        ("float32", "epsilon-plus-flat"),
        ("float64", "epsilon"),
        ("float64", "epsilon-plus"),
        ("float64", Gamma(0.25)),
        ("float64", "epsilon-alpha2-beta1"),
        ("float64", "epsilon-plus-flat"),
    ],
    indirect=["dtype"],
)


@under_each_preset
def test_dense_network(rules: Any, dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, dtype=dtype)
    model = built([L.Dense(7, activation="relu"), L.Dense(4, activation="tanh"), L.Dense(3, activation="softmax")], x)
    a, b, c = (Linear(*weights(layer)) for layer in model.layers)
    twin = models.sequential([a, "relu", b, "tanh", c, "softmax"], layout="keras")
    assert_same_relevance(model, twin, x, rules=rules)


def batch_norm(layer: Any) -> nn.BatchNorm2d:
    gamma, beta, mean, variance = map(torch.from_numpy, weights(layer))
    norm = nn.BatchNorm2d(len(gamma), eps=layer.epsilon, dtype=gamma.dtype)
    with torch.no_grad():
        norm.weight.copy_(gamma)
        norm.bias.copy_(beta)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return norm


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@under_each_preset
def test_convolutional_network(rules: Any, dtype: torch.dtype) -> None:
    x = torch.rand(2, 10, 10, 3, dtype=dtype)
    model = built(
        [
            L.Conv2D(4, 3, activation="relu"),
            L.Conv2D(5, 3, padding="same"),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, activation="softmax"),
        ],
        x,
    )
    first, second, dense = (weights(model.layers[i]) for i in (0, 1, -1))
    twin = models.sequential(
        [
            Conv(*first),
            "relu",
            Conv(*second, padding="same"),
            batch_norm(model.layers[2]).eval(),
            "relu",
            nn.MaxPool2d(2),
            Mean(),
            Linear(*dense),
            "softmax",
        ],
        layout="keras",
    )
    assert_same_relevance(model, twin, x, x.movedim(-1, 1), rules=rules)


@under_each_preset
def test_dense_after_a_flatten_of_channels_last(rules: Any, dtype: torch.dtype) -> None:
    x = torch.rand(2, 8, 8, 3, dtype=dtype)
    model = built([L.Conv2D(4, 3, activation="relu"), L.AveragePooling2D(2), L.Flatten(), L.Dense(3)], x)
    conv, dense = weights(model.layers[0]), weights(model.layers[-1])
    twin = models.sequential([Conv(*conv), "relu", nn.AvgPool2d(2), "flatten", Linear(*dense)], layout="keras")
    assert_same_relevance(model, twin, x, x.movedim(-1, 1), rules=rules)


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(2)


@under_each_preset
def test_convolution_over_time(rules: Any, dtype: torch.dtype) -> None:
    x = torch.randn(2, 9, 5, dtype=dtype)
    model = built([L.Conv1D(4, 3, activation="relu"), L.MaxPooling1D(), L.GlobalMaxPooling1D(), L.Dense(3)], x)
    conv, dense = weights(model.layers[0]), weights(model.layers[-1])
    twin = models.sequential([Conv(*conv), "relu", nn.MaxPool1d(2), Largest(), Linear(*dense)], layout="keras")
    assert_same_relevance(model, twin, x, x.movedim(-1, 1), rules=rules)


class Separable(nn.Module):
    def __init__(self, depthwise: np.ndarray, pointwise: np.ndarray, bias: np.ndarray, head: nn.Module) -> None:
        super().__init__()
        _, _, channels, times = depthwise.shape
        weight = depthwise.transpose(2, 3, 0, 1).reshape(channels * times, 1, *depthwise.shape[:2])
        self.net = models.sequential(
            [Conv(weight, groups=channels), Conv(pointwise.transpose(3, 2, 0, 1), bias), "relu", Mean()]
        )
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


@under_each_preset
def test_separable_convolution(rules: Any, dtype: torch.dtype) -> None:
    x = torch.rand(2, 8, 8, 3, dtype=dtype)
    model = built([L.SeparableConv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(2)], x)
    head = models.sequential([Linear(*weights(model.layers[-1]))], layout="keras")
    twin = Separable(*weights(model.layers[0]), head).eval()
    assert_same_relevance(model, twin, x, x.movedim(-1, 1), rules=rules)


class Branches(nn.Module):
    def __init__(self, first: Conv, second: Conv, head: Linear) -> None:
        super().__init__()
        self.first = models.sequential([first, "relu"], layout="keras")
        self.second = models.sequential([second], layout="keras")
        self.head = models.sequential([head], layout="keras")

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(a)
        return self.head(torch.cat([a + b, a], 1).mean((2, 3)))


def branches() -> Any:
    x = keras.Input((6, 6, 2))
    a = L.Conv2D(3, 3, padding="same", activation="relu", name="first")(x)
    b = L.Conv2D(3, 3, padding="same", name="second")(a)
    both = L.Concatenate()([L.Add()([a, b]), a])
    return keras.Model(x, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(both)))


@under_each_preset
def test_functional_model_with_branches(rules: Any, dtype: torch.dtype) -> None:
    x = torch.rand(2, 6, 6, 2, dtype=dtype)
    model = built(branches(), x)
    first, second, head = (weights(model.get_layer(name)) for name in ("first", "second", "head"))
    twin = Branches(Conv(*first, padding="same"), Conv(*second, padding="same"), Linear(*head)).eval()
    assert_same_relevance(model, twin, x, x.movedim(-1, 1), rules=rules)


def test_ids_of_any_integer_type_are_ids_and_arrays_are_refused() -> None:
    model = built([L.Embedding(10, 5), L.LSTM(6), L.Dense(2)], IDS)
    expected = relprop.explain(model, IDS, target=1).relevance
    assert torch.equal(relprop.explain(model, IDS.int(), target=1).relevance, expected)
    assert torch.equal(relprop.explain(model, IDS.short(), target=1).relevance, expected)
    with pytest.raises(InvalidInput, match=r"torch\.from_numpy"):
        relprop.explain(model, IDS.numpy())


def test_several_inputs_by_position_and_by_name() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], L.Dense(2)(L.Concatenate()([a, b])))
    given = torch.randn(2, 4), torch.randn(2, 3)
    by_position = relprop.explain(model, given, target=0).relevance
    by_name = relprop.explain(model, {"b": given[1], "a": given[0]}, target=0).relevance
    kernel = torch.from_numpy(model.get_weights()[0][:, 0])
    torch.testing.assert_close(by_position[0], given[0] * kernel[:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_position[1], given[1] * kernel[4:], rtol=1e-4, atol=1e-5)
    assert torch.equal(by_name["a"], by_position[0])
    assert torch.equal(by_name["b"], by_position[1])


# ---- names, modes, files


def test_layers_have_their_keras_names() -> None:
    model = built(
        keras.Sequential(
            [
                L.Embedding(10, 5, name="words"),
                L.LSTM(6, name="lstm", return_sequences=True),
                L.Bidirectional(L.LSTM(4, name="inner", recurrent_dropout=0.1), name="both"),
                L.Dense(3, activation="relu", name="dense"),
                L.Dense(2, name="dense_1"),
            ]
        ),
        IDS,
    )
    found = {op.module for op in relprop.check(model, IDS).operations}
    assert {"lstm", "both", "both.forward_inner", "both.backward_inner", "dense", "dense_1"} <= found
    assert not any("_layers" in name or "_functional" in name or "cell" in name for name in found)
    layers = relprop.explain(model, IDS, layers=["lstm", "dense"]).layers
    assert layers["lstm"].shape == (2, 6, 6)
    assert layers["dense"].shape == (2, 3)


def test_rule_maps_select_layers_by_their_keras_names() -> None:
    x = torch.randn(2, 5)
    model = built([L.Dense(4, activation="relu", name="dense"), L.Dense(2, name="dense_1")], x)
    rules = relprop.RuleMap([("dense_1", Epsilon(0.5)), ("dense", Gamma(0.25))])
    shown = {op.module: op.rule for op in relprop.check(model, x, rules=rules).operations if op.kind == "linear"}
    assert shown == {"dense": repr(Gamma(0.25)), "dense_1": repr(Epsilon(0.5))}


def test_a_model_inside_a_model_and_inside_a_torch_module() -> None:
    inner = keras.Sequential([L.Dense(3, name="hidden")], name="inner")
    x = torch.randn(2, 5)
    model = built([inner, L.Dense(2, name="head")], x)
    assert {"inner.hidden", "head"} <= {op.module for op in relprop.check(model, x).operations}
    outer = nn.Sequential(nn.Linear(5, 5), model).eval()
    assert {"0", "1.inner.hidden", "1.head"} <= {op.module for op in relprop.check(outer, x).operations}


def test_dropout_does_not_run_whatever_torch_says_of_the_mode() -> None:
    x = torch.randn(2, 5)
    model = built([L.Dense(50), L.Dropout(0.5), L.Dense(2)], x)
    scores = model(x, training=False)
    assert model.training  # as Keras leaves it
    attribution = relprop.explain(model.train(), x, target=1)
    torch.testing.assert_close(attribution.score, scores[:, 1].detach())
    assert model.training


def test_torch_modules_in_a_keras_model_must_be_in_evaluation_mode() -> None:
    x = torch.randn(2, 5)
    wrapped = keras.layers.TorchModuleWrapper(nn.Sequential(nn.Linear(5, 40), nn.Dropout(0.5)), name="wrapped")
    model = keras.Sequential([wrapped, L.Dense(2)])
    model(x)
    wrapped.module.train()
    with pytest.raises(TrainingMode, match=r"'wrapped\.module'"):
        relprop.explain(model, x)
    wrapped.module.eval()
    scores = model(x, training=False)
    torch.testing.assert_close(relprop.explain(model, x, target=0).score, scores[:, 0].detach())
    assert not any(module.training for module in wrapped.module.modules())


def test_the_model_is_not_changed() -> None:
    model = built([L.Embedding(10, 5), L.LSTM(6, dropout=0.2), L.Dropout(0.1), L.Dense(2)], IDS)
    before = [(v.value, v.value._version, v.value.detach().clone()) for v in model.variables]
    keys = {layer: set(layer.__dict__) for layer in model._flatten_layers()}
    relprop.explain(model, IDS, layers=[model.layers[1].name])
    assert relprop.check(model, IDS).ok
    for variable, (value, version, clone) in zip(model.variables, before, strict=True):
        assert variable.value is value
        assert value._version == version
        assert torch.equal(value.detach(), clone)
    assert {layer: set(layer.__dict__) for layer in model._flatten_layers()} == keys


def test_a_model_is_trained_on_after_an_explanation() -> None:
    x, y = np.random.default_rng(0).normal(size=(32, 5)).astype("float32"), np.arange(32) % 2
    model = keras.Sequential([L.Dense(4, activation="relu"), L.BatchNormalization(), L.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    relprop.explain(model, torch.from_numpy(x[:2]))
    before = model.get_weights()[0].copy()
    model.fit(x, y, verbose=0)
    assert not np.array_equal(model.get_weights()[0], before)


def test_class_names_of_the_model() -> None:
    x = torch.randn(2, 5)
    model = built([L.Dense(2)], x)
    model.labels = ["cat", "dog"]
    assert relprop.explain(model, x, target="dog").target.tolist() == [1, 1]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_files(suffix: str, tmp_path: Path) -> None:
    model = built([L.Embedding(10, 5), L.LSTM(6), L.Dense(2, activation="sigmoid")], IDS)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = models.load_keras(path)
    assert torch.equal(relprop.explain(loaded, IDS).relevance, relprop.explain(model, IDS).relevance)
    assert models.load_keras(str(path)).name == model.name


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no file"):
        models.load_keras(tmp_path / "missing.keras")
    for name in ("model.pt", "model.keras", "model.h5"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(InvalidFile, match=name):
            models.load_keras(tmp_path / name)
    model = built([L.Dense(2)], torch.ones(1, 3))
    model.save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(InvalidFile, match="weights only"):
        models.load_keras(tmp_path / "only.weights.h5")


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no weights yet"):
        relprop.explain(keras.Sequential([L.Dense(2)]), torch.ones(1, 3))


def run(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_another_backend_is_refused_with_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Layer:
        name = "elsewhere"

        def __call__(self, x: Any) -> Any:
            return x

    Layer.__module__ = "keras.src.layers.layer"
    with pytest.raises(UnsupportedModel, match=r'os\.environ\["KERAS_BACKEND"\] = "torch".*load_keras'):
        relprop.explain(Layer(), torch.ones(1, 3))

    (tmp_path / "model.keras").write_bytes(b"")
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(UnsupportedModel, match=r'os\.environ\["KERAS_BACKEND"\] = "torch"'):
        models.load_keras(tmp_path / "model.keras")


TEXT = "this film was not good at all , sorry"
VOCABULARY = {word: 1100 * (i + 1) for i, word in enumerate(TEXT.split())}
LOAD_AND_EXPLAIN = f"""
import json, re, sys, torch, relprop, relprop.models
from relprop.rules import Epsilon

def tokenizer(text):
    spans = [found.span() for found in re.finditer(r"\\S+", text)]
    words = [text[start:end] for start, end in spans]
    return {{"ids": [{VOCABULARY}[word] for word in words], "tokens": words, "offsets": spans}}

for path in {{paths}}:
    model = relprop.models.load_keras(path)
    ids = torch.tensor([list({VOCABULARY}.values())])
    found = relprop.explain(model, ids, target=1, rules=Epsilon(0.1), layers=["lstm"])
    words = relprop.explain_text(model, tokenizer, {TEXT!r}, target=1).words
    rules = relprop.RuleMap([("lst*", Epsilon(0.5)), ("affine", Epsilon(0.1))])
    shown = {{op.module: op.rule for op in relprop.check(model, ids, rules=rules).operations if op.kind == "linear"}}
    print(json.dumps([
        float(found.score[0]), found.relevance[0].tolist(), found.layers["lstm"][0].tolist(),
        [word.text for word in words], [word.relevance for word in words], shown,
    ]))
"""


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_tutorial_classifiers_load_in_a_process_where_nothing_is_set(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    last = {"activation": "sigmoid", "name": "dense"}
    tutorials = {
        "64": [L.Embedding(10001, 128), L.LSTM(64, name="lstm"), L.Dropout(0.5), L.Dense(2, **last)],
        "128": [
            L.Embedding(10001, 128),
            L.LSTM(128, dropout=0.2, recurrent_dropout=0.2, name="lstm"),
            L.Dense(2, **last),
        ],
    }
    ids = torch.tensor([list(VOCABULARY.values())])
    paths, twins = [], []
    for name, layers in tutorials.items():
        model = keras.Sequential(layers)
        model(ids)
        for suffix in (".keras", ".h5"):
            paths.append(str(tmp_path / f"{name}{suffix}"))
            model.save(paths[-1])
            twins.append(lstm_twin(model))
    printed = run(LOAD_AND_EXPLAIN.replace("{paths}", repr(paths))).splitlines()
    for line, twin in zip(printed, twins, strict=True):
        score, relevance, inside, words, of_words, rules = json.loads(line)
        expected = relprop.explain(twin, ids, target=1, rules=Epsilon(0.1))
        # An untrained score is a small difference of larger terms, in float32.
        assert score == pytest.approx(float(expected.score[0]), rel=1e-5, abs=1e-7)
        assert_close(relevance, expected.relevance[0])
        states = twin.recurrent(twin.embedding(ids))[1][0][0, 0].detach()  # the bias is zero
        assert_close(inside, states * twin.head.weight[1].detach() * score / (score + math.copysign(0.1, score)))
        assert words == TEXT.split()
        assert_close(of_words, relprop.explain(twin, ids, target=1).relevance[0])
        assert rules == {"lstm": repr(Epsilon(0.5)), "dense": repr(Epsilon(0.1))}


def assert_close(found: list[float], expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_importing_relprop_does_not_import_keras() -> None:
    code = "import sys, torch, relprop, relprop.models; relprop.explain(torch.nn.Linear(2, 2).eval(), torch.ones(1, 2))"
    assert run(f"{code}; print('keras' in sys.modules, 'sklearn' in sys.modules)") == "False False"
