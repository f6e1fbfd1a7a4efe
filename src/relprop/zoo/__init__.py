"""Small trained models to try explanations on, with digits and photographs to feed them."""

from __future__ import annotations

from relprop.zoo.catalogue import card, entry, load, names
from relprop.zoo.entries import Entry
from relprop.zoo.imagenet import photos
from relprop.zoo.mnist import digits
from relprop.zoo.networks import MnistCNN, MnistMLP

__all__ = ["Entry", "MnistCNN", "MnistMLP", "card", "digits", "entry", "load", "names", "photos"]
