"""A sheet: one explanation of one sample as the plain dict that the viewer draws, in the app and in reports."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.attribution import LRP, Attribution, named
from relprop.errors import InvalidInput, NonFinite
from relprop.presets import AUTO, PRESETS
from relprop.view.colours import colour_map
from relprop.view.panels import Sample, panels, with_limits
from relprop.view.style import Style

if TYPE_CHECKING:
    from relprop.text import TextAttribution

Sheet = dict[str, Any]
Array = NDArray[np.float64]

MOST_CHANNELS = 8  # of a layer, shown one by one
PALETTE = "RdBu_r"
_AUTOMATIC = f"{AUTO}: "  # before the name of a preset that was chosen for the user
_SQUARED = "squared=True"  # among the options of a method whose relevance has no sign


def sheet(
    attribution: Attribution | TextAttribution,
    index: int = 0,
    *,
    model: str = "",
    method: str | None = None,
    title: str | None = None,
    layer: str | None = None,
    picture: Image.Image | None = None,
    clip: float | None = None,
    language: str = "",
    kind: str | None = None,
) -> Sheet:
    """What the viewer draws of sample `index`: values of plain Python, which JSON can hold.

    model: the name of the model, as it is shown.
    method: what computed it; by default what the attribution says.
    title: a short name of how it was made; by default the preset, "custom rules", or the method.
    layer: shows the relevance at the output of this layer, one of `attribution.layers`, instead of the input's.
    picture: what the model saw, (width, height) as the relevance or in its proportions.
    clip: the percentile of |R| that gets full colour, as for `Attribution.to_pil`; the largest |R| by default.
    language: of a text, as in ISO 639-1, "en".
    kind: "picture" or "series"; by default a picture where the relevance has channels, height and width.

    Where relevance went that is not passed on is told (`absorbed`) if `attribution.conservation` was asked for before.

    Raises InvalidInput for what is no picture, text or series: several inputs, volumes; NonFinite for figures that are
    NaN or infinite.
    """
    if isinstance(attribution, Attribution):
        whole, told = attribution, _of_values(attribution, index, layer, clip, kind)
        method, claim = method or whole.method, whole._claim(index)
        told["picture"] = None if picture is None else encoded(picture)
        signed = _SQUARED not in whole.rules
    else:
        whole, told = attribution.attribution, _of_text(attribution, language)
        method, claim = method or attribution.method, attribution.claim or whole._claim(0)
        signed = attribution.has_sign
    redistributes = method == LRP
    made = {
        "model": model,
        "method": method,
        "rules": whole.rules if redistributes else "",
        "title": title or short_name(whole.rules, method),
        "target": _target(attribution, index),
        "claim": claim,
        "layer": layer,
        "score": float(whole.score[index]),
        "absorbed": _absorbed(whole, layer) if redistributes else None,
        "redistributes": redistributes,
        "signed": signed,
        "notes": list(attribution.notes),
        **told,
    }
    if not all(map(math.isfinite, (made["score"], made["total"], made["limit"]))):
        raise NonFinite("the score or the sum of relevance is NaN or infinite, so there is nothing to show of it")
    return made


def short_name(rules: str, method: str = LRP) -> str:
    """How an explanation was made in a few words: a preset's name, "custom rules", or the method's name."""
    if method != LRP:
        return method
    name = rules.removeprefix(_AUTOMATIC)
    return name if name in PRESETS else "custom rules" if name.startswith("[") else name or LRP


def encoded(picture: Image.Image) -> dict[str, Any]:
    """A picture as the viewer takes it: its sides, and a PNG as a data address."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    source = f"data:image/png;base64,{_base64(buffer.getvalue())}"
    return {"width": picture.width, "height": picture.height, "src": source}


def palette() -> str:
    """The colours of saved pictures from -limit to +limit, with zero in the middle: three bytes each, in base64."""
    return _base64(colour_map(PALETTE).table.tobytes())


def heat(values: Array) -> dict[str, Any]:
    """A map (height, width) as the viewer takes it: float32, little-endian, row by row, in base64."""
    height, width = values.shape
    return {"width": width, "height": height, "values": _base64(values.astype("<f4").tobytes())}


def _of_values(
    attribution: Attribution, index: int, layer: str | None, clip: float | None, kind: str | None
) -> dict[str, Any]:
    """What a sheet says of the relevance of numbers, at the input or at a layer."""
    values = _relevance(attribution, index, layer)
    style = Style(clip=clip)
    shown = panels(values, None, style)
    if len(shown) != 1:
        raise InvalidInput(
            f"relevance of shape {values.shape} is a volume, which the viewer doesn't show; look at its slices with "
            "attribution.to_pil(), or sum over one side first"
        )
    (sample,) = with_limits([Sample("", 0.0, 0.0, shown)], style)
    total = float(values.sum()) if layer is not None else float(attribution._sums()[index])
    return {
        "kind": kind or ("picture" if values.ndim == 3 else "series"),
        "total": total,
        "limit": sample.limit,
        "heat": heat(shown[0].heat),
        "channels": [] if layer is None else _channels(values, style),
    }


def _relevance(attribution: Attribution, index: int, layer: str | None) -> Array:
    """The relevance of one sample, at the input or at the output of a layer."""
    if layer is not None:
        if layer not in attribution.layers:
            listed = ", ".join(attribution.layers) or "none; explain with layers=[...]"
            raise InvalidInput(f"there is no relevance of the layer {layer!r}. There is of: {listed}")
        found = attribution.layers[layer]
        if len(found) != len(attribution):
            raise InvalidInput(
                f"the layer {layer!r} has relevance of shape {tuple(found.shape)}, whose first side is not the "
                f"{len(attribution)} samples"
            )
        return _array(found[index])
    inputs = named(attribution.relevance)
    if len(inputs) != 1:
        names = ", ".join(name for name, _ in inputs)
        raise InvalidInput(f"the viewer shows one input, and there are {len(inputs)}: {names}; show them one by one")
    return _array(inputs[0][1][index])


def _channels(values: Array, style: Style) -> list[dict[str, Any]]:
    """The channels (channels, height, width) of the largest |sum|, the largest first."""
    if values.ndim != 3:
        return []
    sums = values.sum((1, 2))
    strongest = np.argsort(-np.abs(sums), kind="stable")[:MOST_CHANNELS].tolist()
    return [{"index": each, "sum": float(sums[each]), "heat": heat(values[each])} for each in strongest]


def _of_text(attribution: TextAttribution, language: str) -> dict[str, Any]:
    """What a sheet says of the relevance of words."""
    passage = attribution.passage()  # refuses what has no colour
    within = {place for word in attribution.words for place in word.tokens}
    return {
        "kind": "text",
        "total": float(attribution.attribution._sums()[0]),
        "limit": passage.limit,
        "picture": None,
        "text": attribution.text,
        "language": language,
        "words": [
            {
                "text": word.text,
                "start": word.start,
                "end": word.end,
                "relevance": word.relevance,
                "known": not word.unknown,
            }
            for word in attribution.words
        ],
        "tokens": [
            {
                "text": token.token,
                "start": token.start if place in within else None,
                "end": token.end if place in within else None,
                "relevance": token.relevance,
            }
            for place, token in enumerate(attribution.tokens)
        ],
        "special": sum((token.relevance for token in attribution.special), 0.0),
    }


def _target(attribution: Attribution | TextAttribution, index: int) -> dict[str, Any] | None:
    """The class that was explained; None for a function's score."""
    if attribution.target is None:
        return None
    name = attribution.label(index) if isinstance(attribution, Attribution) else attribution.label
    return {"index": int(attribution.target[index]), "name": name}


def _absorbed(attribution: Attribution, layer: str | None) -> dict[str, float]:
    """Where the difference of score and relevance went, by cause, so far as it is known; figures are of a batch."""
    if layer is not None or attribution.known_operations is None or len(attribution) != 1:
        return {}
    return {cause: float(amount) for cause, amount in attribution.conservation.absorbed.items()}


def _array(tensor: Any) -> Array:
    values: Array = tensor.detach().cpu().double().numpy()
    return values


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
