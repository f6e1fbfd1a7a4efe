"""What the zoo says of a model: its input, its labels, how a picture becomes its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    - `input_shape`: of one sample, (channels, height, width).
    - `bounds`: the lowest and the highest value a valid input can hold *after* `preprocess`, for box rules; each a
      float, or a tensor (channels, 1, 1).
    - `preprocess`: from a picture to the model's input (1, channels, height, width), float32.
    - `display`: from a picture to the RGB picture that the model saw (cropped, resized, ...), height x width as in
      `input_shape`, so that a heatmap lies on it pixel by pixel.
    - `build`: makes the trained model, in eval mode; `relprop.zoo.load(name)` calls it.
    - `read_labels`: gives the names of the model's outputs, in order; use `labels`.
    - `extra`: what to install besides relprop itself, as in `pip install "relprop[photos]"`; None for nothing.
    - `requires`: the modules that `extra` brings and this model needs.
    - `rules`: the preset to start with.
    """

    name: str
    summary: str
    input_shape: tuple[int, int, int]
    bounds: tuple[float | Tensor, float | Tensor]
    preprocess: Callable[[Image.Image], Tensor]
    display: Callable[[Image.Image], Image.Image]
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
