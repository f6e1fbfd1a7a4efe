"""A model that looks at pictures: one of the zoo, or a program of torch.export with its preprocessing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image
from torch import Tensor, nn

from relprop import zoo
from relprop.cli.console import note_chosen
from relprop.cli.pictures import fitting_model
from relprop.errors import InvalidFile, InvalidInput
from relprop.explainer import Explainer
from relprop.models import load_program
from relprop.models.stages import Segments
from relprop.presets import Bounds
from relprop.zoo.pictures import Layout

DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Network:
    """A model, and how a picture becomes its input; `bounds` is the range of that input, for box rules."""

    name: str
    model: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    bounds: Bounds | None
    labels: tuple[str, ...] | None = None
    rules: str = "auto"


@dataclass(frozen=True)
class Framing:
    """How pictures become the input of a program: cut to `size`, pixels x in 0..1 as (x - mean) / std."""

    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def given(self) -> bool:
        """Whether anything was asked for."""
        return self != Framing()


class Networks:
    """The network for a picture: the one asked for, or the zoo's for a picture of its look; each made once."""

    def __init__(
        self,
        asked: str | None,
        frame: Framing,
        bounds: tuple[float, float] | None,
        labels: str | None,
        segments: Segments | None = None,
    ) -> None:
        self._asked, self._frame, self._bounds, self._labels, self._segments = asked, frame, bounds, labels, segments
        self._made: dict[str, tuple[Network, Explainer]] = {}
        if asked is not None:
            self._of(asked)

    def of(self, picture: Image.Image) -> tuple[Network, Explainer]:
        """The network and its explainer."""
        if self._asked is not None:
            return self._of(self._asked)
        name = fitting_model(picture)
        known = name in self._made
        pair = self._of(name)
        if not known:
            note_chosen(name)
        return pair

    def _of(self, name: str) -> tuple[Network, Explainer]:
        if name not in self._made:
            net = network(name, self._frame, self._bounds, self._labels)
            explainer = Explainer(net.model, net.rules, bounds=net.bounds, segments=self._segments, labels=net.labels)
            self._made[name] = net, explainer
        return self._made[name]


def framing(size: int | None, mean: str | None, std: str | None) -> Framing:
    """From the options of the command line. Raises typer.BadParameter."""
    made = Framing(size, _figures("--mean", mean), _figures("--std", std))
    if made.std is not None and min(made.std) <= 0:
        raise typer.BadParameter(f"got {std!r}, expected figures above 0", param_hint="--std")
    return made


def network(name: str, frame: Framing, bounds: tuple[float, float] | None = None, labels: str | None = None) -> Network:
    """The model `name`: one of the zoo, or a .pt2 file. `bounds` and the file `labels` replace what it brings along."""
    found = _program(Path(name), frame) if Path(name).suffix or Path(name).is_file() else _of_the_zoo(name, frame)
    if bounds is not None:
        found = replace(found, bounds=bounds)
    return found if labels is None else replace(found, labels=read_labels(Path(labels)))


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one a line. Raises InvalidFile."""
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(
            f"the labels {str(path)!r} can't be read ({error}); give a text file, one name a line"
        ) from error
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise InvalidFile(f"the labels {str(path)!r} hold no name; give a text file, one name a line")
    return tuple(name.strip() for name in names)


def _of_the_zoo(name: str, frame: Framing) -> Network:
    entry = zoo.picture_entry(name)
    if frame.given:
        raise typer.BadParameter(
            f"the zoo's {name} has its own preprocessing; they are for .pt2 files", param_hint="--size, --mean, --std"
        )
    return Network(name, entry.build(), entry.preprocess, entry.bounds, entry.labels, entry.rules)


def _program(path: Path, frame: Framing) -> Network:
    model = load_program(path)
    shape = _input_shape(model, path)
    layout = Layout.of(shape, frame.size or DEFAULT_SIZE)
    if layout is None:
        raise InvalidInput(
            f"{path.name} takes samples of shape {_told(shape)}, and a picture has 1 channel (grey) or 3 (colour), "
            "first or last; use relprop.load_program and relprop.explain in Python for other inputs"
        )
    if frame.size is not None and (layout.height, layout.width) != (frame.size, frame.size):
        raise typer.BadParameter(
            f"{path.name} takes {layout.height} x {layout.width} pixels and no other", param_hint="--size"
        )
    mean = _per_channel("--mean", frame.mean or (0.0,), layout)
    std = _per_channel("--std", frame.std or (1.0,), layout)
    bounds = ((0 - mean) / std, (1 - mean) / std)
    return Network(path.name, model, lambda picture: (layout.pixels(picture) - mean) / std, bounds)


def _input_shape(model: Any, path: Path) -> tuple[int | None, ...]:
    """The sides of one sample of the program's input, None where it leaves them open. Raises InvalidInput for what is
    not one input (batch, ...) of three sides."""
    inputs = [node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder"]
    shapes = [
        tuple(side if isinstance(side, int) else None for side in i.shape) for i in inputs if isinstance(i, Tensor)
    ]
    if len(inputs) != 1 or not shapes or len(shapes[0]) != 4:
        met = ", ".join(map(_told, shapes))
        raise InvalidInput(
            f"{path.name} takes {len(inputs)} input(s) of shape {met or 'unknown'}, and a picture is one input (batch, "
            "channels, height, width); use relprop.load_program and relprop.explain in Python"
        )
    if shapes[0][0] not in (1, None):
        raise InvalidInput(
            f"{path.name} takes batches of {shapes[0][0]} only; export it with an example of one picture, or with "
            "dynamic_shapes={0: torch.export.Dim('batch')}"
        )
    return shapes[0][1:]


def _told(shape: Sequence[int | None]) -> str:
    return str(tuple("any" if side is None else side for side in shape))


def _per_channel(option: str, figures: Sequence[float], layout: Layout) -> Tensor:
    """The figures of all channels, or the one for each."""
    if len(figures) not in (1, layout.channels):
        raise typer.BadParameter(f"got {len(figures)} figures for {layout.channels} channel(s)", param_hint=option)
    return layout.per_channel(torch.tensor(figures))


def _figures(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        figures = tuple(float(part) for part in text.split(","))
    except ValueError:
        figures = (math.nan,)
    if not all(map(math.isfinite, figures)):
        raise typer.BadParameter(f"got {text!r}, expected figures such as 0.485,0.456,0.406", param_hint=option)
    return figures
