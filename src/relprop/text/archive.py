"""Explanations of texts in files, to be read again: JSON, or npz."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from relprop.attribution import Attribution
from relprop.errors import InvalidFile, RelpropError
from relprop.text.attribution import FIGURES, TextAttribution
from relprop.text.encoding import Encoding
from relprop.view import files

FORMAT = "relprop text attribution"
VERSION = 1


def to_dict(made: TextAttribution) -> dict[str, Any]:
    """The explanation as what JSON can hold. Floats are written so that they are read back exactly."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "text": made.text,
        "source": made.source,
        "claim": made.claim,
        "continuation": made.continuation,
        "continues_at": made.continues_at,
        "method": made.method,
        "has_sign": made.has_sign,
        "rules": made.rules,
        "label": made.label,
        "target": None if made.target is None else int(made.target[0]),
        "labels": None if made.labels is None else list(made.labels),
        "score": float(made.score[0]),
        "relevance": float(made.total[0]),
        "dtype": str(made.relevance.dtype).removeprefix("torch."),
        "words": [asdict(word) for word in made.words],
        "tokens": [asdict(token) for token in made.tokens],
        "notes": list(made.attribution.notes),
    }


def from_dict(told: Mapping[str, Any]) -> TextAttribution:
    """The explanation that `to_dict` wrote down. Raises KeyError, TypeError or ValueError for parts that don't fit."""
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']!r}")
    if told["version"] != VERSION:
        raise ValueError(f"its version is {told['version']!r}, and this relprop reads version {VERSION}")
    tokens, dtype = told["tokens"], getattr(torch, told["dtype"])
    encoding = Encoding(
        text=told["text"],
        ids=tuple(token["id"] for token in tokens),
        tokens=tuple(token["token"] for token in tokens),
        offsets=tuple((token["start"], token["end"]) for token in tokens),
        special=tuple(token["special"] for token in tokens),
        unknown=tuple(token["unknown"] for token in tokens),
        words=tuple(token["word"] for token in tokens),
    )
    attribution = Attribution(
        relevance=torch.tensor([[token["relevance"] for token in tokens]], dtype=torch.float64).to(dtype),
        score=torch.tensor([told["score"]], dtype=torch.float64).to(dtype),
        target=None if told["target"] is None else torch.tensor([told["target"]]),
        inputs=torch.tensor([encoding.ids]),
        rules=str(told["rules"]),
        labels=None if told["labels"] is None else tuple(map(str, told["labels"])),
        notes=tuple(map(str, told["notes"])),
    )
    return TextAttribution(
        encoding,
        attribution,
        str(told["method"]),
        bool(told["has_sign"]),
        str(told["source"]),
        str(told.get("claim", "")),
        str(told.get("continuation", "")),
        int(told.get("continues_at", 0)),
    )


def write(attributions: Sequence[TextAttribution], path: Path) -> None:
    """Writes .json, a list where there are several, or .npz, of one. Raises InvalidFile."""
    told = [to_dict(each) for each in attributions]
    if path.suffix.lower() == ".json":
        content = json.dumps(told[0] if len(told) == 1 else told, indent=2, ensure_ascii=False, allow_nan=False)
        files.write_whole(path, (content + "\n").encode())
        return
    if len(told) != 1:
        raise InvalidFile(f"{path.name!r} holds one explanation, and there are {len(told)}; save them as .json")
    made = attributions[0]
    tensors = {"relevance": made.relevance, "score": made.score, "ids": torch.tensor([made.encoding.ids])}
    files.write_whole(path, files.to_npz({name: each.detach().cpu() for name, each in tensors.items()}, told[0]))


def load(path: str | PathLike[str]) -> Any:
    """What `TextAttribution.save` wrote as .json or .npz: a TextAttribution; a list of them where several were saved.

    Nothing in the file is executed. Raises InvalidFile for a file that is missing, damaged or something else.
    """
    path = Path(path)
    if path.suffix.lower() not in FIGURES:
        raise InvalidFile(f"{path.name!r} names no {FORMAT}: those are in files ending in {' or '.join(FIGURES)}.")
    told = _read_json(path) if path.suffix.lower() == ".json" else files.read(path, FORMAT)[1]
    try:
        return [from_dict(each) for each in told] if isinstance(told, list) else from_dict(told)
    except (KeyError, TypeError, ValueError, AttributeError, RelpropError) as error:
        raise InvalidFile(f"{path} is not a whole {FORMAT}; missing or wrong: {error}.") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidFile(f"{path} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InvalidFile(f"{path} is no {FORMAT}, or a damaged one: {error}.") from error
