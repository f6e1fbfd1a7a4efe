"""Small trained models to try explanations on, with digits, photographs and reviews to feed them."""

from __future__ import annotations

from relprop.zoo.catalogue import card, entry, load, names, picture_entry, text_entry
from relprop.zoo.entries import Entry, PictureEntry, TextEntry
from relprop.zoo.imagenet import photos
from relprop.zoo.mnist import digits
from relprop.zoo.networks import MnistCNN, MnistMLP, MnistViT, ReviewLSTM, ReviewTransformer
from relprop.zoo.sentiment import reviews

__all__ = [
    "Entry",
    "MnistCNN",
    "MnistMLP",
    "MnistViT",
    "PictureEntry",
    "ReviewLSTM",
    "ReviewTransformer",
    "TextEntry",
    "card",
    "digits",
    "entry",
    "load",
    "names",
    "photos",
    "picture_entry",
    "reviews",
    "text_entry",
]
