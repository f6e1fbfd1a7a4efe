"""What the page must know before anything is asked: models, rules, presets, methods, samples."""

from __future__ import annotations

import base64
import inspect
from importlib.util import find_spec
from typing import Any

from relprop import __version__, zoo
from relprop.app.asking import LIMITS
from relprop.app.models import Models, Served
from relprop.app.pictures import Pictures
from relprop.app.readers import methods_for, presets_of
from relprop.attribution import LRP
from relprop.methods import METHODS
from relprop.rulebook import SELECTORS, presets_told, rules_told
from relprop.view.sheet import palette

Told = dict[str, Any]

_EACH_CLASS = (0, 1, 9)  # of the ten digits of a class
_CAPTUM = ("lime", "grad_cam", "deeplift", "kernel_shap")
BY_CAPTUM = ("captum.attr", "sklearn.linear_model")  # what these methods need
_LRP = "Layer-wise Relevance Propagation: the score is redistributed, layer by layer, by rules"


def about(models: Models, pictures: Pictures) -> Told:
    """The body of the answer to /api/about; models that have not been used yet are loaded."""
    return {
        "version": __version__,
        "palette": palette(),
        "limits": LIMITS,
        "models": [_model(each) for each in models],
        "presets": presets_told(),
        "rules": rules_told(),
        "selectors": [{"name": name, "summary": summary} for name, summary in SELECTORS.items()],
        "methods": [{"name": LRP, "summary": _LRP}, *(_method(name) for name in METHODS if _installed(name))],
        "samples": {
            "digits": _digits(),
            "pictures": [
                {"picture": name, "name": name, "width": picture.width, "height": picture.height}
                for name, picture in pictures.samples().items()
            ],
            "texts": [{"language": language, "text": text} for language, text in zoo.reviews()],
        },
    }


def _model(served: Served) -> Told:
    told = {
        "name": served.name,
        "kind": served.kind,
        "title": served.title,
        "summary": served.summary,
        "labels": [],
        "language": served.language,
        "input": None if served.input_shape is None else list(served.input_shape),
        "layers": [],
        "rules_default": served.rules,
        "presets": [],
        "methods": [],
        "available": not served.missing,
        "missing": served.missing,
    }
    if served.missing:
        return told
    reader = served.reader
    return told | {
        "labels": list(reader.labels or ()),
        "layers": list(reader.layers),
        "presets": presets_of(reader),
        "methods": [name for name in methods_for(reader.explainer.model, served.without) if _installed(name)],
    }


def _method(name: str) -> Told:
    """A method's name, and the first sentence of its description."""
    described = " ".join((inspect.getdoc(METHODS[name]) or "").split("\n\n")[0].split())
    return {"name": name, "summary": described}


def _installed(name: str) -> bool:
    return name not in _CAPTUM or all(find_spec(each.split(".")[0]) is not None for each in BY_CAPTUM)


def _digits() -> list[Told]:
    images, labels = zoo.digits()
    pixels = ((images + 1) * 127.5).round().byte()
    return [
        {"digit": base64.b64encode(pixels[i].numpy().tobytes()).decode("ascii"), "label": int(labels[i])}
        for i in range(len(labels))
        if i % 10 in _EACH_CLASS
    ]
