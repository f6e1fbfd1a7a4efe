"""What the zoo says of a model: what it reads, its labels, how a picture or a text becomes its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from PIL import Image
from torch import Tensor, nn

from relprop.text.encoding import Encoding


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the zoo: a `PictureEntry` or a `TextEntry`.

    - `build`: makes the trained model, in eval mode; `relprop.zoo.load(name)` calls it.
    - `read_labels`: gives the names of the model's outputs, in order; use `labels`.
    - `extra`: what to install besides relprop itself, as in `pip install "relprop[photos]"`; None for nothing.
    - `requires`: the modules that `extra` brings and this model needs.
    - `rules`: the preset to start with.
    """

    name: str
    summary: str
    build: Callable[[], nn.Module]
    read_labels: Callable[[], tuple[str, ...]]
    extra: str | None = None
    requires: tuple[str, ...] = ()
    rules: str = "auto"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's outputs, in order; raises `MissingExtra` where `available` is False."""
        return self.read_labels()

    @property
    def available(self) -> bool:
        """Whether everything that this model needs is installed."""
        return all(find_spec(module) is not None for module in self.requires)


@dataclass(frozen=True, kw_only=True)
class PictureEntry(Entry):
    """A model that looks at pictures.

    - `input_shape`: of one sample, (channels, height, width).
    - `bounds`: the lowest and the highest value a valid input can hold *after* `preprocess`, for box rules; each a
      float, or a tensor (channels, 1, 1).
    - `preprocess`: from a picture to the model's input (1, channels, height, width), float32.
    - `display`: from a picture to the RGB picture that the model saw (cropped, resized, ...), height x width as in
      `input_shape`, so that a heatmap lies on it pixel by pixel.
    """

    input_shape: tuple[int, int, int]
    bounds: tuple[float | Tensor, float | Tensor]
    preprocess: Callable[[Image.Image], Tensor]
    display: Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, kw_only=True)
class TextEntry(Entry):
    """A model that reads text: its input is ids (batch, tokens), int64, shorter texts filled up with 0 at the end.

    - `language`: of the texts, as in ISO 639-1: "en", "ko".
    - `tokenizer`: from a text to an `Encoding`, whose `ids` are the model's input; raises `MissingExtra` where
      `available` is False.
    """

    language: str
    tokenizer: Callable[[str], Encoding]
