"""Keras 3 models on the torch backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from relprop.errors import InvalidFile, MissingExtra, UnsupportedModel

_SET_BACKEND = 'os.environ["KERAS_BACKEND"] = "torch", before the first `import keras` of the process'


class KerasNetwork(nn.Module):
    """A Keras model called as PyTorch calls models: inputs as arguments, by position or name, and in inference mode."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.training = False  # of this module only; Keras is told with each call
        labels = getattr(model, "labels", None)
        if labels is not None:
            self.labels = tuple(labels)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        names = [tensor.name for tensor in getattr(self.model, "inputs", None) or ()]
        if kwargs and len(names) > 1 and set(names) == set(kwargs):
            structure = self.model._inputs_struct
            values = kwargs if isinstance(structure, dict) else [kwargs[name] for name in names]
            return self.model(values, training=False)
        if len(args) > 1 and len(names) == len(args):
            return self.model(list(args), training=False)
        return self.model(*args, training=False, **kwargs)


def load_keras(path: str | PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The Keras model in a .keras or .h5 file, on the torch backend; needs `pip install "relprop[keras]"`.

    custom_objects: name -> class or function, for what is not Keras' own.

    Where Keras was not imported yet and KERAS_BACKEND is not set, sets it to "torch". Note that Keras' Dense layers
    multiply float64 in float32, so scores and relevance have no more than that precision.

    Raises InvalidFile if the file is missing or no such file, UnsupportedModel if Keras runs on another backend,
    MissingExtra without Keras.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidFile(f"there is no file {str(file)!r}")
    if file.suffix not in (".keras", ".h5", ".hdf5"):
        raise InvalidFile(f"{str(file)!r} is no .keras or .h5 file. Make one with model.save('model.keras')")
    keras = _keras()
    try:
        return keras.models.load_model(str(file), custom_objects=custom_objects, compile=False)
    except Exception as error:  # Keras raises whatever its parts raise
        if file.name.endswith(".weights.h5") or "No model config found" in str(error):
            advice = "It holds weights only: build the model, then model.load_weights(...)"
        else:
            advice = "Was it saved by model.save(...), and are its own classes in custom_objects?"
        raise InvalidFile(
            f"{str(file)!r} can't be read as a Keras model ({type(error).__name__}: {error}). {advice}"
        ) from error


def _keras() -> Any:
    """Keras on the torch backend."""
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        chosen = os.environ["KERAS_BACKEND"]
        if chosen != "torch":
            raise UnsupportedModel(f"KERAS_BACKEND is {chosen!r}. Set {_SET_BACKEND}")
    try:
        keras = import_module("keras")
        import_module("h5py")
    except ImportError as error:
        raise MissingExtra(f'Keras can\'t be imported ({error}): pip install "relprop[keras]"') from error
    _require_torch_backend(keras)
    return keras


def _require_torch_backend(keras: Any) -> None:
    version = str(getattr(keras, "__version__", "?"))
    if int(version.split(".")[0]) < 3:
        raise UnsupportedModel(f"Keras {version} runs on TensorFlow only; install Keras 3 and set {_SET_BACKEND}")
    backend = keras.config.backend()
    if backend != "torch":
        raise UnsupportedModel(
            f"Keras runs on the backend {backend!r}, which relprop can't see into. Set {_SET_BACKEND}"
        )


def is_keras(model: Any) -> bool:
    """Whether a model or layer is one of Keras'; does not import it."""
    return not isinstance(model, type) and _is_keras_type(type(model))  # type: ignore[arg-type]  # a type is hashable


@lru_cache(maxsize=1024)
def _is_keras_type(kind: type) -> bool:
    homes = {each.__module__.split(".")[0] for each in kind.__mro__}
    return bool(homes & {"keras", "tf_keras"})


def refuse_keras(model: Any) -> None:
    """UnsupportedModel if a Keras model is not on the torch backend, or has no weights yet."""
    if not isinstance(model, nn.Module):
        keras = sys.modules.get("keras")
        on = f"the backend {keras.config.backend()!r}" if keras and hasattr(keras, "config") else "TensorFlow"
        raise UnsupportedModel(
            f"the Keras model {getattr(model, 'name', '')!r} runs on {on}, which relprop can't see into. Save it, "
            f"model.save('model.keras'); set {_SET_BACKEND}; and load it: relprop.models.load_keras('model.keras')"
        )
    if not model.built:
        raise UnsupportedModel(
            f"the Keras model {model.name!r} has no weights yet. Call it once, model(x), and load its weights"
        )


def sublayers(layer: Any) -> Iterator[tuple[str, nn.Module]]:
    """(name, layer) of the layers and torch modules directly in a Keras layer, by the names Keras gives them.

    The cell of a recurrent layer counts as part of it: whether Keras calls it depends on the layer's options.
    """
    cell = getattr(layer, "cell", None)
    for child in layer._flatten_layers(include_self=False, recursive=False):
        if child is not cell:
            yield child.name, child
    wrapped = getattr(layer, "module", None)
    if isinstance(wrapped, nn.Module):
        yield "module", wrapped
