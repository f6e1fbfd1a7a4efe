"""scikit-learn's multilayer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from relprop.errors import InvalidInput, UnsupportedModel
from relprop.models.sequential import Linear, sequential

_ACTIVATIONS = {"identity": (), "relu": ("relu",), "tanh": ("tanh",), "logistic": ("sigmoid",), "softmax": ("softmax",)}


def is_estimator(model: Any) -> bool:
    """Whether a model is one of scikit-learn's."""
    return any(kind.__module__.split(".")[0] == "sklearn" for kind in type(model).__mro__)


def from_sklearn(estimator: Any) -> nn.Sequential:
    """A fitted MLPClassifier or MLPRegressor as a network, in evaluation mode, of the estimator's dtype.

    The network takes (batch, features). A classifier returns what `predict_proba` returns, a regressor (batch,
    outputs). Explained are the scores before the last softmax or sigmoid. With two classes these are the log-odds of
    each class against the other, z and -z: the estimator holds the weights of z only, the network those of both.
    `labels` of the network are the names in `classes_`.

    Raises UnsupportedModel for other estimators, InvalidInput for one that is not fitted.
    """
    _require_perceptron(estimator)
    if not hasattr(estimator, "coefs_"):
        raise InvalidInput(f"the {type(estimator).__name__} is not fitted; call fit(X, y) first")
    weights, biases = list(estimator.coefs_), list(estimator.intercepts_)
    classes = getattr(estimator, "classes_", None)
    if classes is not None and estimator.n_outputs_ == 1:
        if len(classes) != 2:
            raise UnsupportedModel(f"the classifier knows one class only, {classes[0]!r}: there is nothing to explain")
        weights[-1] = np.concatenate([-weights[-1], weights[-1]], 1)
        biases[-1] = np.concatenate([-biases[-1], biases[-1]])
    if estimator.out_activation_ not in _ACTIVATIONS:
        raise UnsupportedModel(
            f"the {type(estimator).__name__} ends in {estimator.out_activation_!r}; from_sklearn knows "
            f"{', '.join(_ACTIVATIONS)}"
        )
    hidden, final = _ACTIVATIONS[estimator.activation], _ACTIVATIONS[estimator.out_activation_]
    layers: list[Any] = []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        layers += [Linear(weight, bias), *(hidden if i < len(weights) - 1 else final)]
    network = sequential(layers, layout="keras")
    if classes is not None:
        network.labels = tuple(map(str, classes))  # type: ignore[assignment]
    return network


def _require_perceptron(estimator: Any) -> None:
    kinds = {kind.__name__ for kind in type(estimator).__mro__}
    if is_estimator(estimator) and kinds & {"MLPClassifier", "MLPRegressor"}:
        return
    name = type(estimator).__name__
    if "Pipeline" in kinds:
        raise UnsupportedModel(
            "got a Pipeline; give its last step, from_sklearn(pipeline[-1]), and the input that it sees: "
            "torch.from_numpy(pipeline[:-1].transform(X))"
        )
    raise UnsupportedModel(f"got {name}; from_sklearn takes scikit-learn's MLPClassifier and MLPRegressor")
