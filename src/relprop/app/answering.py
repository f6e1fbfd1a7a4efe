"""Answers: what a model makes of an input, as sheets for the viewer, tables and files."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

from relprop.app.asking import Explain, Kind, Question, Single
from relprop.app.models import Models, Served
from relprop.app.pictures import Pictures
from relprop.app.readers import Found, Watch
from relprop.app.refusals import Refused, refusal, sentence
from relprop.app.scores import scores_told
from relprop.attribution import LRP, Attribution
from relprop.errors import RelpropError
from relprop.text import TextAttribution
from relprop.view.sheet import encoded, sheet, short_name

# Methods that evaluate the model many times; they wait for one another, not the others for them.
SLOW = frozenset(("integrated_gradients", "smoothgrad", "occlusion", "lime", "kernel_shap"))

Explained = Attribution | TextAttribution


class Answers:
    """Answers the questions of requests. What it raises is a RelpropError or Refused."""

    def __init__(self, models: Models, pictures: Pictures) -> None:
        self.models, self.pictures = models, pictures

    def explain(self, asked: Explain, watch: Watch) -> dict[str, Any]:
        """The body of the answer to /api/explain."""
        began = time.perf_counter()
        served = self.models[asked.model]
        given = served.reader.given(asked.input, self.pictures)
        found = served.reader.explain(given, asked.target, asked.questions, watch)
        first = next((each for each in found if not isinstance(each, RelpropError)), None)
        if first is None:
            raise found[0]  # type: ignore[misc]
        whole = _whole(first)
        return {
            "model": served.name,
            "target": None if first.target is None else {"index": int(first.target[0]), "name": _label(first)},
            "scores": scores_told(whole, served.reader.explainer, whole.labels),
            "picture": None if given.picture is None else encoded(given.picture),
            "sheets": [_sheet(served, each, q) for each, q in zip(found, asked.questions, strict=True)],
            "milliseconds": round(1000 * (time.perf_counter() - began), 2),
        }

    def operations(self, asked: Single, watch: Watch) -> dict[str, Any]:
        """The body of the answer to /api/operations."""
        if asked.question.method != LRP:
            raise Refused(
                422, "no_operations", f"Only LRP goes operation by operation; {asked.question.method} does not."
            )
        _, found = self._one(asked, watch)
        balance = _whole(found).conservation
        return {
            "absorbed": balance.absorbed,
            "operations": [
                {
                    "index": each.index,
                    "name": each.module,
                    "function": each.function,
                    "kind": each.kind,
                    "rule": each.rule,
                    "received": each.received,
                    "passed": each.passed,
                    "lost": dict(each.absorbed),
                }
                for each in balance.operations
            ],
        }

    def file(self, kind: Kind, asked: Single, watch: Watch) -> tuple[str, bytes]:
        """(name, content) of the file that `save` writes of an explanation."""
        served, found = self._one(asked, watch)
        name = _file_name(served, found, asked.question, kind)
        style: dict[str, Any] = {}
        if isinstance(found, Attribution) and kind != "npz":
            style = {"clip": served.reader.clip}
            found = found if asked.question.layer is None else _of_layer(found, asked.question.layer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            found.save(path, **style)
            return name, path.read_bytes()

    def _one(self, asked: Single, watch: Watch) -> tuple[Served, Explained]:
        served = self.models[asked.model]
        given = served.reader.given(asked.input, self.pictures)
        (found,) = served.reader.explain(given, asked.target, (asked.question,), watch)
        if isinstance(found, RelpropError):
            raise found
        return served, found


def _sheet(served: Served, found: Found, question: Question) -> dict[str, Any]:
    """The sheet of an answer, or why there is none."""
    if isinstance(found, RelpropError):
        return {"error": sentence(found), "code": refusal(found).code}
    try:
        return sheet(
            found,
            model=served.name,
            method=question.method,
            layer=question.layer,
            clip=served.reader.clip,
            language=served.language,
        )
    except RelpropError as error:
        return {"error": sentence(error), "code": refusal(error).code}


def _whole(found: Explained) -> Attribution:
    return found if isinstance(found, Attribution) else found.attribution


def _label(found: Explained) -> str:
    return found.label(0) if isinstance(found, Attribution) else found.label


def _of_layer(found: Attribution, layer: str) -> Attribution:
    """The relevance at a layer, to be drawn as that of an input is."""
    return Attribution(
        relevance=found.layers[layer],
        score=found.score,
        target=found.target,
        rules=found.rules,
        labels=found.labels,
        notes=(f"relevance at the output of {layer}", *found.notes),
    )


def _file_name(served: Served, found: Explained, question: Question, kind: str) -> str:
    """A name of plain letters that says what the file holds."""
    how = short_name(_whole(found).rules, question.method)
    parts = [served.name, _label(found), how, question.layer or ""]
    plain = [re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.")[:40] for part in parts]
    return "_".join(part for part in plain if part) + f".{kind}"
