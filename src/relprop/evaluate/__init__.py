"""Does the explanation hold? Word deletion, pixel flipping, and a toy task with known answers."""

from __future__ import annotations

from relprop.evaluate.deletion import WordDeletion, word_deletion
from relprop.evaluate.flipping import PixelFlipping, pixel_flipping
from relprop.evaluate.measurement import Curves, Measurement, Table

__all__ = ["Curves", "Measurement", "PixelFlipping", "Table", "WordDeletion", "pixel_flipping", "word_deletion"]
