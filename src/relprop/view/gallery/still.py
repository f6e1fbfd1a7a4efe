"""What a report shows without scripts, heatmaps as small pictures and painted words; and how it keeps their values."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.view.colours import colour_map
from relprop.view.gallery.words import number
from relprop.view.svg import clean
from relprop.view.text import NEGATIVE, POSITIVE, marked, takes_white

# Colours of a map: as many below zero, which is white, as above it.
_ZERO = 127
_PALETTE = colour_map("RdBu_r")(np.linspace(-1.0, 1.0, 2 * _ZERO + 1)).tobytes()


def heatmap(sheet: Mapping[str, Any]) -> Image.Image:
    """The map of a sheet in the palette's colours, a pixel for each value."""
    values, limit = _values(sheet["heat"]), sheet["limit"]
    shares = np.clip(values / limit, -1.0, 1.0) if limit > 0 else np.zeros_like(values)
    picture = Image.fromarray(np.rint((shares + 1.0) * _ZERO).astype(np.uint8), mode="P")
    picture.putpalette(_PALETTE)
    return picture


def halved(sheet: Mapping[str, Any]) -> dict[str, Any]:
    """The sheet with the values of its map in 16 bits, in units of the largest |value|."""
    if "heat" not in sheet:
        return dict(sheet)
    values = _values(sheet["heat"])
    unit = float(np.abs(values).max()) or 1.0
    stored = base64.b64encode((values / unit).astype("<f2").tobytes()).decode("ascii")
    return {**sheet, "heat": {**sheet["heat"], "values": stored, "bits": 16, "unit": unit}}


def data_uri(picture: Image.Image) -> str:
    """A picture as PNG, for an attribute of HTML."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _values(heat: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(heat["values"]), dtype="<f4").reshape(heat["height"], heat["width"])


def painted(sheet: Mapping[str, Any]) -> str:
    """The text of a sheet as HTML, its words coloured and marked with their sign."""
    text, place, parts = sheet["text"], 0, []
    for word in sheet["words"]:
        parts += [clean(text[place : word["start"]]), _word(word, sheet["limit"], sheet["signed"])]
        place = word["end"]
    return "".join([*parts, clean(text[place:])])


def _word(word: Mapping[str, Any], limit: float, signed: bool) -> str:
    share = max(-1.0, min(1.0, word["relevance"] / limit)) if limit > 0 else 0.0
    sign, full = marked(share) if signed else 0, POSITIVE if share > 0 else NEGATIVE
    kinds = ["w", *(["p"] if sign > 0 else ["n"] if sign < 0 else []), *(["on"] if takes_white(share) else [])]
    colour = f"rgba({','.join(map(str, full))},{abs(share):.3f})"
    title = clean(f"{word['text']}: {number(word['relevance'])}")
    return f'<span class="{" ".join(kinds)}" style="background:{colour}" title="{title}">{clean(word["text"])}</span>'
