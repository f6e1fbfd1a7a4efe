"""Models from arrays: the same scores as the toolbox they come from, and the cause named where they are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import models
from relprop.errors import InvalidInput, InvalidOutput, NonFinite, TrainingMode, UnsupportedModel
from relprop.models import Conv, Linear, check_forward

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def arrays(layer: nn.Module, suffix: str = "") -> list[np.ndarray]:
    return [getattr(layer, name + suffix).detach().numpy().copy() for name in NAMES]


def keras_layout(weights: list[np.ndarray]) -> list[np.ndarray]:
    return [weights[0].T, weights[1].T, weights[2] + weights[3]]


def blocks_in(order: str, weights: list[np.ndarray], own: str = "ifgo") -> list[np.ndarray]:
    """Weights whose blocks have PyTorch's order, in another."""
    split = [dict(zip(own, np.split(w, len(own)), strict=True)) for w in weights]
    return [np.concatenate([part[letter] for letter in order]) for part in split]


def recurrent(kind: type[nn.LSTM] | type[nn.GRU], bidirectional: bool = False, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(5, 7, batch_first=True, bidirectional=bidirectional, dtype=torch.float64, **options).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# ---- LSTM and GRU


@pytest.mark.parametrize("name", ["bilstm_small", "bilstm_60x60"])
def test_reference_scores_of_bidirectional_lstms(name: str) -> None:
    with np.load(GOLDEN / f"{name}.npz") as data:
        golden = dict(data)
    model = models.lstm(
        [golden[n] for n in NAMES],
        [golden[f"{n}_reverse"] for n in NAMES],
        embedding=golden["embedding"],
        head=(golden["linear_weight"], golden["linear_weight_reverse"]),
    )
    scores = model(torch.from_numpy(golden["words"])[None])
    np.testing.assert_allclose(scores.detach().numpy()[0], golden["scores"], rtol=1e-12)
    assert check_forward(model, golden["words"][None], golden["scores"])


@pytest.mark.parametrize("order", ["ifgo", "igfo", "ifco", "ogif", "IFGO"])
def test_every_gate_order_gives_the_same_lstm(order: str, x: torch.Tensor) -> None:
    layer = recurrent(nn.LSTM)
    stored = blocks_in(order.lower().replace("c", "g"), arrays(layer))
    torch.testing.assert_close(models.lstm(stored, gate_order=order)(x), layer(x)[1][0][0], rtol=0, atol=0)


@pytest.mark.parametrize("biases", [0, 1, 2])
def test_no_bias_one_and_two(biases: int, x: torch.Tensor) -> None:
    layer = recurrent(nn.LSTM)
    for name in NAMES[2 + biases :]:
        nn.init.zeros_(getattr(layer, name))
    model = models.lstm(arrays(layer)[: 2 + biases])
    torch.testing.assert_close(model(x), layer(x)[1][0][0], rtol=0, atol=1e-15)
    assert model.recurrent.bias == (biases > 0)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_keras_layout_gives_the_same_lstm(bidirectional: bool, x: torch.Tensor) -> None:
    layer = recurrent(nn.LSTM, bidirectional)
    head = nn.Linear(14 if bidirectional else 7, 2, dtype=torch.float64)
    model = models.lstm(
        keras_layout(arrays(layer)),
        keras_layout(arrays(layer, "_reverse")) if bidirectional else None,
        head=head.weight.detach().numpy().T,
        head_bias=head.bias.detach().numpy(),
    )
    last = torch.cat(list(layer(x)[1][0]), 1)
    torch.testing.assert_close(model(x), head(last), rtol=0, atol=1e-14)


def test_one_head_on_both_directions_equals_two(x: torch.Tensor) -> None:
    layer = recurrent(nn.LSTM, True)
    head = np.random.default_rng(0).normal(size=(2, 14))
    both = models.lstm(arrays(layer), arrays(layer, "_reverse"), head=head)
    parts = models.lstm(arrays(layer), arrays(layer, "_reverse"), head=(head[:, :7], head[:, 7:]))
    assert torch.equal(both(x), parts(x))


@pytest.mark.parametrize("order", [None, "rzn", "zrh"])
def test_gru_in_both_layouts(order: str | None, x: torch.Tensor) -> None:
    layer = recurrent(nn.GRU)
    expected = layer(x)[1][0]
    stored = arrays(layer) if order is None else blocks_in(order.replace("h", "n"), arrays(layer), "rzn")
    torch.testing.assert_close(models.gru(stored, gate_order=order)(x), expected, rtol=0, atol=0)
    w = blocks_in("zrn", arrays(layer), "rzn")
    as_keras = [w[0].T, w[1].T, np.stack([w[2], w[3]])]
    torch.testing.assert_close(models.gru(as_keras)(x), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_and_the_model_ready(dtype: type) -> None:
    weights = [w.astype(dtype) for w in arrays(recurrent(nn.LSTM))]
    model = models.lstm(weights, embedding=np.ones((4, 5), dtype), head=np.ones((2, 7), dtype))
    assert {p.dtype for p in model.parameters()} == {torch.from_numpy(np.ones(1, dtype)).dtype}
    assert not model.training
    assert [type(m) for m in model.children()] == [nn.Embedding, nn.LSTM, nn.Linear]


def test_the_arrays_are_copied() -> None:
    weights = arrays(recurrent(nn.LSTM))
    model = models.lstm(weights)
    before = copy.deepcopy(model.state_dict())
    for w in weights:
        w += 1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def good() -> dict[str, Any]:
    return {"weights": arrays(recurrent(nn.LSTM))}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda g: g["weights"].__setitem__(0, g["weights"][0].T), InvalidInput, "write weight_ih.T"),
        (lambda g: g["weights"].__setitem__(1, np.ones((27, 7))), InvalidInput, r"\(4d, d\).*\(d, 4d\)"),
        (lambda g: g["weights"].__setitem__(2, np.ones(7)), InvalidInput, r"bias_ih.*\(28,\)"),
        (lambda g: g["weights"].__setitem__(0, np.ones((28, 5), int)), InvalidInput, r"astype\('float32'\)"),
        (lambda g: g["weights"].__setitem__(0, np.ones((28, 5), np.float32)), InvalidInput, "in one dtype"),
        (lambda g: g["weights"].__setitem__(0, np.full((28, 5), np.nan)), NonFinite, "140 of 140"),
        (lambda g: g["weights"].__setitem__(0, [[1.0], [1.0, 2.0]]), InvalidInput, "rows of equal length"),
        (lambda g: g.update(weights=g["weights"][:1]), InvalidInput, "got 1 arrays"),
        (lambda g: g.update(weights=g["weights"] * 2), InvalidInput, "got 8 arrays"),
        (lambda g: g.update(weights=g["weights"][0]), InvalidInput, "got ndarray"),
        (lambda g: g.update(gate_order="ifog2"), InvalidInput, "ifog2"),
        (lambda g: g.update(gate_order="iffo"), InvalidInput, "each of the letters"),
        (lambda g: g.update(embedding=np.ones((9, 4))), InvalidInput, r"\(tokens, 5\)"),
        (lambda g: g.update(head=np.ones((7, 3))), InvalidInput, "head.T"),
        (lambda g: g.update(head=np.ones((3, 14))), InvalidInput, r"\(classes, 7\)"),
        (lambda g: g.update(head=(np.ones((3, 7)), np.ones((3, 7)))), InvalidInput, "2 matrices for 1 direction"),
        (lambda g: g.update(head=np.ones((3, 7)), head_bias=np.ones(2)), InvalidInput, r"expected \(3,\)"),
        (lambda g: g.update(head_bias=np.ones(2)), InvalidInput, "without a head"),
        (lambda g: g.update(reverse=keras_layout(g["weights"])), InvalidInput, "same layout"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[dict[str, Any]], None], error: type, words: str) -> None:
    given = good()
    change(given)
    with pytest.raises(error, match=words):
        models.lstm(**given)


def test_a_keras_gru_that_resets_before_the_product_is_no_nn_gru() -> None:
    with pytest.raises(InvalidInput, match="reset_after=False"):
        models.gru([np.ones((5, 21)), np.ones((7, 21)), np.ones(21)])


# ---- feed-forward networks


def test_convolutional_network_in_torch_layout() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    ).double()
    w = [p.detach().numpy() for p in net.parameters()]
    built = models.sequential(
        [Conv(w[0], w[1], stride=2, padding=1, groups=2), "relu", nn.MaxPool2d(2), "flatten", Linear(w[2], w[3])]
    )
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    assert torch.equal(built(x), net(x))


def channels_last_network(dims: int) -> tuple[list[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Arrays in Keras' layout and the network written in NumPy: valid convolution, ReLU, flatten, linear."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*(3,) * dims, 2, 4))
    dense = rng.normal(size=(4 * 4**dims, 3))
    bias, dense_bias = rng.normal(size=4), rng.normal(size=3)

    def forward(x: np.ndarray) -> np.ndarray:
        axes = tuple(range(1, dims + 1))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3,) * dims, axis=axes)  # (n, ..., c, 3...)
        letters = "hw"[:dims]
        z = np.einsum(f"n{letters.upper()}c{letters},{letters}co->n{letters.upper()}o", windows, kernel) + bias
        return np.maximum(z, 0).reshape(len(x), -1) @ dense + dense_bias

    return [kernel, bias, dense, dense_bias], forward


@pytest.mark.parametrize("dims", [1, 2])
def test_keras_layout_with_channels_last_before_the_flatten(dims: int) -> None:
    (kernel, bias, dense, dense_bias), forward = channels_last_network(dims)
    x = np.random.default_rng(1).normal(size=(2, *(6,) * dims, 2))
    net = models.sequential(
        [Conv(kernel, bias), "relu", "flatten", nn.Dropout(0.5), Linear(dense, dense_bias)], layout="keras"
    )
    scores = net(torch.from_numpy(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(scores.detach().numpy(), forward(x), rtol=1e-12)


def test_named_activations_are_torchs() -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    for name in ("relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "softplus"):
        net = models.sequential([Linear(np.eye(3)), name])
        assert torch.equal(net(x), getattr(torch.nn.functional, name)(x))
    assert torch.equal(models.sequential([Linear(np.eye(3)), "softmax"])(x), x.softmax(1))


@pytest.mark.parametrize(
    ("layers", "layout", "words"),
    [
        ([Linear(np.ones(3))], "torch", "two dimensions"),
        ([Conv(np.ones((3, 3)))], "torch", "three dimensions"),
        ([Conv(np.ones((3, 2, 3, 3)), stride=2, padding="same")], "torch", "ZeroPad2d"),
        ([Conv(np.ones((3, 2, 3, 3)), groups=2)], "torch", "divisible by groups"),
        ([Linear(np.ones((3, 3)), np.ones(2))], "torch", r"expected \(3,\)"),
        ([Linear(np.ones((3, 3)), np.ones(3, np.float32))], "torch", "one dtype"),
        ([Linear(np.ones((3, 3))), "swush"], "torch", r"layers\[1\]: got 'swush'"),
        ([Linear(np.ones((3, 3)))], "jax", '"torch" or "keras"'),
        ([], "torch", "a list such as"),
        (Linear(np.ones((3, 3))), "torch", "a list such as"),
        ([Conv(np.ones((3, 2, 4))), "flatten", Linear(np.ones((9, 2)))], "keras", "don't divide"),
        ([Conv(np.ones((3, 2, 4))), "flatten", nn.LayerNorm(8), Linear(np.ones((8, 2)))], "keras", "LayerNorm"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: Any, layout: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        models.sequential(layers, layout)


# ---- scikit-learn


def features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(60, 4))


def fitted(kind: str, y: np.ndarray, **options: Any) -> Any:
    network = pytest.importorskip("sklearn.neural_network")
    return getattr(network, kind)(hidden_layer_sizes=(8, 5), max_iter=15, random_state=0, **options).fit(features(), y)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_classifier_gives_predict_proba(activation: str, task: str) -> None:
    x = features()
    y = {
        "binary": np.where(x[:, 0] > 0, "yes", "no"),
        "multiclass": np.array(["a", "b", "c"])[np.digitize(x[:, 1], [-0.5, 0.5])],
        "multilabel": (x[:, :3] > 0).astype(int),
    }[task]
    estimator = fitted("MLPClassifier", y, activation=activation)
    model = models.from_sklearn(estimator)
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach().numpy(), estimator.predict_proba(x), atol=1e-12)
    assert model.labels == {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "multilabel": ("0", "1", "2")}[task]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressor_gives_predict(outputs: int) -> None:
    x = features()
    estimator = fitted("MLPRegressor", x[:, 0] if outputs == 1 else x[:, :2], activation="tanh")
    scores = models.from_sklearn(estimator)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(scores.squeeze(), estimator.predict(x), atol=1e-12)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_with_two_classes_each_is_explained_by_its_log_odds() -> None:
    x = features()
    estimator = fitted("MLPClassifier", np.where(x[:, 0] > 0, "yes", "no"))
    yes, no = relprop.explain(models.from_sklearn(estimator), torch.from_numpy(x), targets=["yes", "no"])
    p = estimator.predict_proba(x)[:, 1]
    np.testing.assert_allclose(yes.score.numpy(), np.log(p / (1 - p)), rtol=1e-9)
    torch.testing.assert_close(no.relevance, -yes.relevance)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_what_is_no_fitted_perceptron_is_refused() -> None:
    network = pytest.importorskip("sklearn.neural_network")
    pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(network.MLPClassifier())
    linear = pytest.importorskip("sklearn.linear_model").LogisticRegression()
    with pytest.raises(InvalidInput, match=r"call fit\(X, y\)"):
        models.from_sklearn(network.MLPClassifier())
    with pytest.raises(UnsupportedModel, match=r"pipeline\[-1\]"):
        models.from_sklearn(pipeline)
    with pytest.raises(UnsupportedModel, match="got LogisticRegression"):
        models.from_sklearn(linear)
    with pytest.raises(UnsupportedModel, match="one class only"):
        models.from_sklearn(fitted("MLPClassifier", np.array(["a"] * 60)))
    for estimator in (network.MLPClassifier(), linear):
        with pytest.raises(UnsupportedModel, match="from_sklearn"):
            relprop.explain(estimator, torch.from_numpy(features()))


# ---- check_forward


def lstm_with_head(bidirectional: bool = False) -> models.RecurrentNetwork:
    layer = recurrent(nn.LSTM, bidirectional)
    rng = np.random.default_rng(3)
    reverse = arrays(layer, "_reverse") if bidirectional else None
    width = 14 if bidirectional else 7
    return models.lstm(arrays(layer), reverse, head=rng.normal(size=(4, width)), head_bias=rng.normal(size=4))


def parts_of(model: models.RecurrentNetwork) -> dict[str, Any]:
    assert model.head is not None
    return {
        "weights": arrays(model.recurrent),
        "reverse": arrays(model.recurrent, "_reverse") if model.recurrent.bidirectional else None,
        "head": model.head.weight.detach().numpy().copy(),
        "head_bias": model.head.bias.detach().numpy().copy(),
    }


def test_the_same_model_agrees(x: torch.Tensor) -> None:
    model = lstm_with_head()
    report = check_forward(model, x.numpy(), model(x).detach().numpy())
    assert report
    assert report.agrees
    assert report.difference == 0
    assert "agree" in str(report)
    assert report.table == ()


def test_another_gate_order_is_recognised(x: torch.Tensor) -> None:
    right = lstm_with_head()
    parts = parts_of(right)
    parts["weights"] = blocks_in("igfo", parts["weights"])
    report = check_forward(models.lstm(**parts), x, right(x))
    assert not report
    assert 'gate_order="igfo"' in report.explanation
    assert check_forward(models.lstm(**parts, gate_order="igfo"), x, right(x))


def test_a_gate_order_that_was_given_wrongly_is_recognised(x: torch.Tensor) -> None:
    right = lstm_with_head()
    parts = parts_of(right)
    parts["weights"] = blocks_in("ogif", parts["weights"])
    wrong = models.lstm(**parts, gate_order="igfo")
    assert 'gate_order="ogif"' in check_forward(wrong, x, right(x)).explanation


def test_a_gru_of_the_other_order_or_convention_is_recognised(x: torch.Tensor) -> None:
    layer = recurrent(nn.GRU)
    expected = layer(x)[1][0]
    wrong = models.gru(blocks_in("zrn", arrays(layer), "rzn"))
    assert 'gate_order="zrn"' in check_forward(wrong, x, expected).explanation
    other = arrays(layer)
    for w in other:
        w[7:14] *= -1
    assert "update gate" in check_forward(models.gru(other), x, expected).explanation


def test_a_square_matrix_that_is_transposed_is_recognised() -> None:
    rng = np.random.default_rng(0)
    weights, x = [rng.normal(size=(5, 5)), rng.normal(size=(2, 5))], rng.normal(size=(3, 5))
    expected = np.maximum(x @ weights[0].T, 0) @ weights[1].T
    model = models.sequential([Linear(weights[0].T), "relu", Linear(weights[1])])
    assert "0.weight is transposed" in check_forward(model, x, expected).explanation


def test_square_blocks_that_are_transposed_are_recognised(x: torch.Tensor) -> None:
    right = lstm_with_head()
    parts = parts_of(right)
    parts["weights"][1] = np.concatenate([block.T for block in np.split(parts["weights"][1], 4)])
    assert "each gate's square block" in check_forward(models.lstm(**parts), x, right(x)).explanation


def test_a_reshape_in_place_of_a_transposition_is_recognised(x: torch.Tensor) -> None:
    right = lstm_with_head()
    parts = parts_of(right)
    kernel = parts["weights"][0].T
    parts["weights"][0] = kernel.reshape(28, 5)
    report = check_forward(models.lstm(**parts), x, right(x))
    assert "weight_ih_l0 was reshaped" in report.explanation


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["weights"].__setitem__(3, p["weights"][2]), "bias_hh"),
        (lambda p: p.update(head_bias=2 * p["head_bias"]), "the toolbox adds"),
        (lambda p: p.update(head_bias=None), "a bias at the output is missing"),
    ],
)
def test_a_bias_missing_or_doubled_is_recognised(
    change: Callable[[dict[str, Any]], None], words: str, x: torch.Tensor
) -> None:
    parts = parts_of(lstm_with_head())
    parts["weights"] = parts["weights"][:3]
    right = models.lstm(**parts)
    parts["weights"] = [*parts["weights"], np.zeros(28)]
    change(parts)
    report = check_forward(models.lstm(**parts), x, right(x))
    assert not report
    assert "This explains it" in report.explanation
    assert words in report.explanation


def test_a_bias_that_was_left_out_inside_is_asked_for(x: torch.Tensor) -> None:
    parts = parts_of(lstm_with_head())
    right = models.lstm(**parts)
    parts["weights"] = parts["weights"][:2]
    report = check_forward(models.lstm(**parts), x, right(x))
    assert "none of the" in report.explanation
    assert "recurrent has none" in report.explanation
    assert report.table
    one = check_forward(models.lstm(**parts | {"weights": parts_of(right)["weights"][:3]}), x, right(x))
    assert "recurrent has one of two, bias_ih" in one.explanation


@pytest.mark.parametrize("what", ["weights", "head", "both"])
def test_swapped_directions_are_recognised(what: str, x: torch.Tensor) -> None:
    right = lstm_with_head(bidirectional=True)
    parts = parts_of(right)
    if what != "head":
        parts["weights"], parts["reverse"] = parts["reverse"], parts["weights"]
    if what != "weights":
        parts["head"] = np.concatenate([parts["head"][:, 7:], parts["head"][:, :7]], 1)
    report = check_forward(models.lstm(**parts), x, right(x))
    assert "This explains it" in report.explanation
    assert {
        "weights": "weights of the two",
        "head": "the head has",
        "both": "in the recurrent weights and in the head",
    }[what] in report.explanation


class FirstDimension(nn.Module):
    """A model whose author forgot batch_first."""

    def __init__(self, batch_first: bool, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = last
        self.lstm = nn.LSTM(5, 7, batch_first=batch_first)
        self.head = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, (hidden, _) = self.lstm(x)
        return self.head(hidden[-1] if self.last else states)


@pytest.mark.parametrize("last", [False, True])
def test_a_forgotten_batch_first_is_recognised(last: bool, x: torch.Tensor) -> None:
    right, wrong = FirstDimension(True, last).eval(), FirstDimension(False, last).eval()
    report = check_forward(wrong, x.float(), right(x.float()))
    assert not report
    assert "batch_first=True" in str(report)


def test_time_and_batch_swapped_in_the_input_are_recognised() -> None:
    model = lstm_with_head()
    square = torch.randn(4, 4, 5, dtype=torch.float64)
    assert "x.transpose(0, 1)" in check_forward(model, square.transpose(0, 1), model(square)).explanation


@pytest.mark.parametrize("squash", ["softmax", "log_softmax", "sigmoid"])
def test_scores_and_probabilities_are_told_apart(squash: str, x: torch.Tensor) -> None:
    model = lstm_with_head()
    scores = model(x)
    squashed = getattr(scores, squash)(-1) if "softmax" in squash else scores.sigmoid()
    name = squash.replace("_", "-")
    assert f"the reference is the {name} of the scores" in check_forward(model, x, squashed).explanation

    def probabilities(given: torch.Tensor) -> torch.Tensor:
        scores = model(given)
        return getattr(scores, squash)(-1) if "softmax" in squash else scores.sigmoid()

    assert f"output is the {name} of the reference" in check_forward(probabilities, x, scores).explanation


def test_a_mistake_is_recognised_behind_a_softmax_too(x: torch.Tensor) -> None:
    right = lstm_with_head()
    parts = parts_of(right)
    parts["weights"] = blocks_in("igfo", parts["weights"])
    report = check_forward(models.lstm(**parts), x, right(x).softmax(1))
    assert 'gate_order="igfo"' in report.explanation
    assert "softmax" in report.explanation


def test_nothing_but_the_cause_is_shown_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(5, 5)), rng.normal(size=(3, 5))
    model = models.sequential([Linear(kernel), "softmax"])
    report = check_forward(model, x, np.exp(x @ kernel) / np.exp(x @ kernel).sum(1, keepdims=True))
    assert str(report) == report.explanation
    assert [what for what, _ in report.table] == [
        "0.weight is transposed, which its square shape does not show: give its .T"
    ]


def test_scores_are_no_probabilities(x: torch.Tensor) -> None:
    report = check_forward(lstm_with_head(), x, torch.randn(3, 4))
    assert not any("softmax" in what or "sigmoid" in what for what, _ in report.table)


def test_a_small_difference_is_asked_about() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3))
    report = check_forward(nn.BatchNorm1d(3).double().eval(), values, values / np.sqrt(1 + 1e-3))
    assert "eps is 1e-3 in Keras" in report.explanation


def test_both_probabilities_of_one_score(x: torch.Tensor) -> None:
    parts = parts_of(lstm_with_head())
    model = models.lstm(parts["weights"], head=parts["head"][:1])
    p = model(x).sigmoid()
    assert "both classes" in check_forward(model, x, torch.cat([1 - p, p], 1)).explanation
    assert check_forward(model, x, model(x)[:, 0])


@pytest.mark.parametrize("dims", [1, 2])
def test_channels_last_before_a_flatten_are_recognised(dims: int) -> None:
    (kernel, bias, dense, dense_bias), forward = channels_last_network(dims)
    x = np.random.default_rng(1).normal(size=(2, *(6,) * dims, 2))
    weight = np.moveaxis(kernel, (-1, -2), (0, 1))
    wrong = models.sequential([Conv(weight, bias), "relu", "flatten", Linear(dense.T, dense_bias)])
    report = check_forward(wrong, np.moveaxis(x, -1, 1), forward(x))
    assert "3.weight follows a flatten that had the 4 channels last" in report.explanation


def test_the_model_is_not_changed(x: torch.Tensor) -> None:
    model = lstm_with_head(bidirectional=True)
    before = {key: (value, value._version, value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    assert not check_forward(model, x, torch.randn(3, 4))
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    for key, (value, version, clone) in before.items():
        assert after[key] is value
        assert value._version == version
        assert torch.equal(value, clone)


def test_the_table_starts_with_what_comes_closest(x: torch.Tensor) -> None:
    report = check_forward(lstm_with_head(), x, torch.randn(3, 4))
    differences = [difference for _, difference in report.table]
    assert differences == sorted(differences)
    assert len(str(report).splitlines()) <= 12


def test_what_can_not_be_compared_is_refused(x: torch.Tensor) -> None:
    model = lstm_with_head()
    with pytest.raises(InvalidInput, match=r"\(3, 4\).*\(2, 4\)"):
        check_forward(model, x, np.ones((2, 4)))
    with pytest.raises(NonFinite, match="reference"):
        check_forward(model, x, np.full((3, 4), np.nan))
    with pytest.raises(InvalidInput, match="not labels"):
        check_forward(model, x, np.ones((3, 4), int))
    with pytest.raises(InvalidInput, match="dtype <U1"):
        check_forward(model, np.array(["a"]), np.ones((3, 4)))
    with pytest.raises(InvalidOutput, match=r"model\(x\)\[0\]"):
        check_forward(nn.LSTM(5, 7, batch_first=True).eval(), x.float(), np.ones((3, 4)))
    with pytest.raises(TrainingMode):
        check_forward(lstm_with_head().train(), x, np.ones((3, 4)))


def test_arrays_take_the_models_dtype() -> None:
    model = models.sequential([Linear(np.ones((2, 3), np.float32))])
    assert check_forward(model, np.ones((4, 3)), np.full((4, 2), 3.0))
    assert check_forward(model, np.ones((4, 3), np.float32), [[3.0, 3.0]] * 4)


def test_inputs_by_name_are_checked_too() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            scores: Tensor = self.linear(left - right)
            return scores

    model = Two().eval()
    left, right = np.ones((4, 3)), np.arange(12.0).reshape(4, 3)
    weight, bias = (p.detach().numpy() for p in (model.linear.weight, model.linear.bias))
    reference = (left - right) @ weight.T + bias
    assert check_forward(model, {"right": right, "left": left}, reference)
    report = check_forward(model, {"right": right, "left": left}, reference - 2 * bias)
    assert not report and "bias" in report.explanation
