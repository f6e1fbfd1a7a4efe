"""Handwritten digits: the classifiers, how a picture becomes their input, and a hundred digits to play with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from relprop.zoo import storage
from relprop.zoo.entries import PictureEntry
from relprop.zoo.networks import DIGITS, MnistCNN, MnistMLP, MnistViT
from relprop.zoo.pictures import plain

NETWORKS: dict[str, type[nn.Module]] = {"mnist-mlp": MnistMLP, "mnist-cnn": MnistCNN, "mnist-vit": MnistViT}

_SUMMARIES = {
    "mnist-mlp": "handwritten digits, three linear layers with ReLU (MNIST)",
    "mnist-cnn": "handwritten digits, two convolutions with max pooling, two linear layers (MNIST)",
    "mnist-vit": "handwritten digits, a vision Transformer with four blocks of attention (MNIST)",
}


def scale(pixels: Tensor) -> Tensor:
    """Grey values from [0, 255] to [-1, 1]: black is -1 exactly, white 1 exactly; any shape."""
    return pixels / 127.5 - 1


def preprocess(picture: Image.Image) -> Tensor:
    """A picture of one digit as the classifiers' input (1, 1, 28, 28) in [-1, 1]."""
    return scale(torch.from_numpy(np.array(_grey(picture), dtype=np.float32)))[None, None]


def display(picture: Image.Image) -> Image.Image:
    """The 28 x 28 pixels that the classifiers see of a picture: the digit in white on black, as RGB."""
    return _grey(picture).convert("RGB")


def digits() -> tuple[Tensor, Tensor]:
    """A hundred digits that the classifiers were not trained on: the first ten of each class among MNIST's test digits.

    None was picked by hand. They are grouped by class (index 30 is the first 3), in the order of the test set
    within a class; the array `positions` of digits.npz says where in the test set each one stands.

    Returns the images, float32 (100, 1, 28, 28) in [-1, 1], and their labels, int64 (100,).
    """
    with np.load(Path(__file__).parent / "digits.npz") as stored:
        images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
    return scale(images[:, None].float()), labels.long()


def _grey(picture: Image.Image) -> Image.Image:
    """White on black, 28 x 28; a picture that is not square keeps its proportions on a black ground."""
    grey = plain(picture).convert("L")
    if np.asarray(grey).mean() > 127:  # MNIST's ground is black, paper is white
        grey = ImageOps.invert(grey)
    if grey.size == (28, 28):
        return grey
    return ImageOps.pad(grey, (28, 28), method=Image.Resampling.BILINEAR, color=0)


def _entry(name: str) -> PictureEntry:
    def build() -> nn.Module:
        model = NETWORKS[name]()
        storage.restore(model, storage.shipped(name))
        return model.eval()

    return PictureEntry(
        name=name,
        summary=_SUMMARIES[name],
        input_shape=(1, 28, 28),
        bounds=(-1.0, 1.0),
        preprocess=preprocess,
        display=display,
        build=build,
        read_labels=lambda: DIGITS,
        rules="attn-lrp-vit" if name == "mnist-vit" else "auto",
    )


ENTRIES = tuple(_entry(name) for name in NETWORKS)
