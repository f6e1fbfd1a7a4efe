"""A model of the user's, and what the application must know of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from relprop.errors import InvalidInput

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from relprop.presets import Bounds
    from relprop.text.tokenizers import Tokenizer

_NAME = re.compile(r"[\w][\w .()+-]{0,79}")


@dataclass(frozen=True, eq=False)
class Model:
    """A model to serve: `relprop.app.serve([Model(first, name="first", ...), Model(second, name="second", ...)])`.

    What it reads follows from what is given: text with a tokenizer, or from a pipeline of transformers; pictures with
    `preprocess` or an input shape (channels, height, width); series with an input shape (features,) or (channels,
    time); drawings with (1, 28, 28) and no `preprocess`.

    Attributes:
        model: as for relprop.explain.
        name: how it is called in the application.
        labels: class names, by default the model's own.
        preprocess: from a picture (PIL) to the model's input (1, channels, height, width).
        input_shape: of one sample. For pictures without `preprocess`, which are then cut to these sides and scaled from
            0..255 to `bounds`.
        tokenizer: as for relprop.explain_text.
        bounds: (low, high), the range of valid inputs; for pictures without `preprocess` (0, 1) by default.
        language: of texts, as in ISO 639-1, "en".
        rules: the preset to start with.
        summary: what the model does, in a few words.
    """

    model: Any
    name: str = "your model"
    labels: Sequence[str] | None = None
    preprocess: Callable[[Image.Image], Tensor] | None = None
    input_shape: Sequence[int] | None = None
    tokenizer: Tokenizer | None = None
    bounds: Bounds | None = None
    language: str = ""
    rules: str = "auto"
    summary: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise InvalidInput(f"name={self.name!r} is no name to show: write up to 80 letters, digits, spaces, . - +")
        shape = self.input_shape
        if shape is not None and not (0 < len(shape) <= 3 and all(isinstance(n, int) and n > 0 for n in shape)):
            raise InvalidInput(
                f"input_shape={shape!r}: write the shape of one sample, (features,), (channels, time) or (channels, "
                "height, width), without the batch"
            )


def models_of(
    model: Any,
    name: str | None,
    labels: Sequence[str] | None,
    preprocess: Callable[[Image.Image], Tensor] | None,
    input_shape: Sequence[int] | None,
    tokenizer: Tokenizer | None,
    bounds: Bounds | None,
    language: str,
    rules: str,
) -> list[Model]:
    """The models that a user gives to `serve`. Raises InvalidInput for names that are not unique."""
    said = {
        "labels": labels,
        "preprocess": preprocess,
        "input_shape": input_shape,
        "tokenizer": tokenizer,
        "bounds": bounds,
        "language": language or None,
        "rules": None if rules == "auto" else rules,
    }
    options = {key: value for key, value in said.items() if value is not None}
    if model is None:
        if options or name is not None:
            raise InvalidInput(f"{', '.join(options) or 'name'}: of which model? Write serve(model, ...)")
        return []
    if isinstance(model, Mapping):
        found = [_named(each, str(called), options) for called, each in model.items()]
    elif isinstance(model, (list, tuple)):
        found = [
            _named(each, None if isinstance(each, Model) else f"model {i}", options) for i, each in enumerate(model, 1)
        ]
    else:
        found = [_named(model, name, options)]
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise InvalidInput(f"the models' names must differ, got: {', '.join(names)}")
    return found


def _named(model: Any, name: str | None, options: Mapping[str, Any]) -> Model:
    """A model with its options; those of a `Model` are its own."""
    if not isinstance(model, Model):
        return Model(model, **options) if name is None else Model(model, name, **options)
    if options:
        raise InvalidInput(f"{', '.join(options)}: write it into the Model, Model(model, {next(iter(options))}=...)")
    return model if name is None else replace(model, name=name)
