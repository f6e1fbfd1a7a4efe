"""What is served: the zoo's models, loaded when first used, and the user's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from relprop import zoo
from relprop.app.fitting import drawing_between, fitted
from relprop.app.own import Model
from relprop.app.readers import Reader, Values, Words, layers_of
from relprop.app.refusals import Refused
from relprop.errors import InvalidInput
from relprop.explainer import Explainer
from relprop.models.huggingface import is_pipeline, model_of, pixels_of
from relprop.models.prepare import refuse_training
from relprop.presets import AUTO
from relprop.view.style import PHOTO_CLIP
from relprop.zoo import mnist
from relprop.zoo.entries import Entry, PictureEntry, TextEntry

DIGIT_SHAPE = (1, 28, 28)

# The zoo's models in the order in which they are offered.
_TITLES = {
    "mnist-cnn": "CNN",
    "mnist-mlp": "MLP",
    "mnist-vit": "Vision Transformer",
    "efficientnet-lite0": "EfficientNet-Lite0",
    "reviews-en": "LSTM",
    "reviews-en-transformer": "Transformer",
    "reviews-ko": "LSTM (Korean)",
}
_NOT_OF_THE_ZOO = ("deeplift",)  # by Captum, which knows none of the zoo's activations


@dataclass(eq=False)
class Served:
    """A model that can be asked; `reader` makes what reads for it, once, when it is first needed.

    `missing` says in a sentence what to install; "" where nothing is missing. `methods` are the names of those that
    make sense for it.
    """

    name: str
    kind: str
    title: str
    summary: str
    make: Callable[[], Reader]
    language: str = ""
    input_shape: tuple[int, ...] | None = None
    rules: str = AUTO
    missing: str = ""
    without: Sequence[str] = ()
    _reader: Reader | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def reader(self) -> Reader:
        """What reads for this model. Raises Refused where a package is missing."""
        if self.missing:
            raise Refused(501, "missing_extra", self.missing)
        with self._lock:
            if self._reader is None:
                self._reader = self.make()
            return self._reader


class Models:
    """All that is served, by name."""

    def __init__(self, own: Iterable[Model], with_zoo: bool) -> None:
        found = [_own(model) for model in own]
        names = {each.name for each in found}
        if with_zoo:
            found += [_of_zoo(zoo.entry(name), title) for name, title in _TITLES.items() if name not in names]
        if not found:
            raise InvalidInput("there is no model to serve: give one, or serve the zoo's")
        self._by_name = {each.name: each for each in found}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> Served:
        """The model of this name. Raises Refused where there is none."""
        if name not in self._by_name:
            listed = ", ".join(self._by_name)
            raise Refused(404, "no_such_model", f"There is no model {name[:80]!r}. There are: {listed}.")
        return self._by_name[name]


def _of_zoo(entry: Entry, title: str) -> Served:
    extra = f'{title} needs packages that are not installed: pip install "relprop[{entry.extra}]"'
    missing = "" if entry.available else extra
    if isinstance(entry, TextEntry):
        return Served(
            entry.name,
            "text",
            title,
            entry.summary,
            lambda: Words(entry.build(), entry.tokenizer, entry.labels),
            language=entry.language,
            rules=entry.rules,
            missing=missing,
            without=_NOT_OF_THE_ZOO,
        )
    assert isinstance(entry, PictureEntry)
    digit = entry.input_shape == DIGIT_SHAPE

    def values() -> Reader:
        explainer = Explainer(entry.build(), bounds=entry.bounds, labels=entry.labels)
        return Values(
            explainer,
            entry.input_shape,
            preprocess=entry.preprocess,
            display=entry.display,
            draw=mnist.scale if digit else None,
            clip=None if digit else PHOTO_CLIP,
            layers=layers_of(explainer.model, torch.zeros(1, *entry.input_shape)),
        )

    return Served(
        entry.name,
        "digit" if digit else "picture",
        title,
        entry.summary,
        values,
        input_shape=entry.input_shape,
        rules=entry.rules,
        missing=missing,
        without=_NOT_OF_THE_ZOO,
    )


def _own(model: Model) -> Served:
    """A user's model, checked at once, so that what is wrong with it is told where it was given."""
    pipeline = is_pipeline(model.model)
    if model.tokenizer is not None or (pipeline and getattr(model.model, "tokenizer", None) is not None):
        words = Words(model.model, model.tokenizer, model.labels)
        refuse_training(words.explainer.model)
        kind, shape, reader = "text", None, words
    else:
        kind, shape, reader = _own_values(model, pipeline)
    summary = model.summary or f"{type(model.model).__name__}, a model of yours"
    return Served(
        model.name, kind, model.name, summary, lambda: reader, model.language, input_shape=shape, rules=model.rules
    )


def _own_values(model: Model, pipeline: bool) -> tuple[str, tuple[int, ...] | None, Any]:
    """(kind, input shape, reader) of a user's model for pictures or series."""
    shape = None if model.input_shape is None else tuple(model.input_shape)
    preprocess = model.preprocess
    if pipeline and preprocess is None:
        preprocess = _pixels_by(model.model)
    if preprocess is None and shape is None:
        raise InvalidInput(
            f"what does {model.name!r} read? Give preprocess=..., from a picture to its input; tokenizer=..., for "
            "text; or input_shape=(3, 224, 224), the shape of one sample"
        )
    low, high = model.bounds or (0.0, 1.0)
    bounds = model.bounds
    if preprocess is None and shape is not None and len(shape) == 3:
        preprocess, bounds = fitted(shape, low, high), (low, high)
    network = model_of(model.model, text=False) if pipeline else model.model
    explainer = Explainer(network, bounds=bounds, labels=model.labels)
    refuse_training(explainer.model)
    series = preprocess is None
    digit = shape == DIGIT_SHAPE and model.preprocess is None
    example = torch.zeros(1, *shape) + torch.as_tensor(low) if shape else None
    reader = Values(
        explainer,
        shape,
        preprocess=preprocess,
        draw=drawing_between(low, high) if digit else None,
        clip=PHOTO_CLIP if not (digit or series) else None,
        layers=[] if example is None else layers_of(explainer.model, example),
    )
    return "series" if series else "digit" if digit else "picture", shape, reader


def _pixels_by(pipeline: Any) -> Callable[[Any], Any]:
    return lambda picture: pixels_of(pipeline, picture)
