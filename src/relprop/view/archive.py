"""A whole explanation in a file, to be read again: npz or safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relprop.attribution import Attribution, Tensors, named
from relprop.conservation import OperationFlow
from relprop.errors import InvalidFile
from relprop.view import files

FORMAT = "relprop attribution"
VERSION = 1


def write(attribution: Attribution, path: Path) -> None:
    """Writes the explanation in the format that the ending names, completely or not at all. Raises InvalidFile."""
    files.write_whole(path, files.WRITERS[path.suffix.lower()](*_packed(attribution)))


def read(path: Path) -> Attribution:
    """The explanation that `write` wrote. Raises InvalidFile for a file that is missing, damaged or something else."""
    tensors, header = files.read(path, FORMAT)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InvalidFile(f"{path} is not a {FORMAT}; attribution.save({path.name!r}) writes one.")
    if header.get("version") != VERSION:
        raise InvalidFile(
            f"{path} has version {header.get('version')!r} of the format, and this relprop reads version {VERSION}: "
            "read it with the relprop that wrote it."
        )
    try:
        return _checked(_unpacked(tensors, header))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidFile(f"{path} is not a whole {FORMAT}; missing or wrong: {error}.") from error


def _packed(attribution: Attribution) -> tuple[dict[str, Tensor], files.Header]:
    """The tensors of an explanation by name, and everything else as what JSON can hold."""
    tensors = {"score": attribution.score}
    if attribution.target is not None:
        tensors["target"] = attribution.target
    if isinstance(attribution.output, Tensor):
        tensors["output"] = attribution.output
    groups: dict[str, Tensors | None] = {
        "relevance": attribution.relevance,
        "inputs": attribution.inputs,
        "layers": attribution.layers,
        "attention": attribution.attention,
    }
    for group, members in groups.items():
        if members is not None:
            tensors |= {f"{group}.{place}": tensor for place, (_, tensor) in enumerate(named(members))}
    operations = attribution.known_operations
    header = {
        "format": FORMAT,
        "version": VERSION,
        "rules": attribution.rules,
        "labels": None if attribution.labels is None else list(attribution.labels),
        "notes": list(attribution.notes),
        "structure": {group: _structure(members) for group, members in groups.items()},
        "operations": None if operations is None else [_plain(operation) for operation in operations],
    }
    return {name: _stored(tensor) for name, tensor in tensors.items()}, header


def _unpacked(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Attribution:
    """The explanation that `_packed` took apart. Raises KeyError, TypeError or ValueError for parts that don't fit."""
    structure = header["structure"]
    relevance = _grouped(tensors, "relevance", structure["relevance"])
    layers = _grouped(tensors, "layers", structure["layers"])
    attention = _grouped(tensors, "attention", structure.get("attention", []))  # older files have none
    if relevance is None or len(relevance) == 0 or not isinstance(layers, dict) or not isinstance(attention, dict):
        raise ValueError("relevance, layers or attention")
    attribution = Attribution(
        relevance=relevance,
        score=tensors["score"],
        target=tensors.get("target"),
        output=tensors.get("output"),
        inputs=_grouped(tensors, "inputs", structure["inputs"]),
        rules=str(header["rules"]),
        labels=None if header["labels"] is None else tuple(str(label) for label in header["labels"]),
        layers=layers,
        attention=attention,
        notes=tuple(str(note) for note in header["notes"]),
    )
    if header["operations"] is not None:
        attribution.known_operations = tuple(OperationFlow(**operation) for operation in header["operations"])
    return attribution


def _checked(attribution: Attribution) -> Attribution:
    """The explanation, if its parts agree in their batch; ValueError otherwise."""
    score, target = attribution.score, attribution.target
    parts = [part for _, part in named(attribution.relevance)] + ([] if target is None else [target])
    if score.ndim != 1 or len(score) == 0 or any(part.ndim < 1 or len(part) != len(score) for part in parts):
        raise ValueError("relevance, score and target differ in their batch")
    return attribution


def _structure(members: Tensors | None) -> str | int | list[str] | None:
    """How a group of tensors is put together: "tensor", the length of a tuple, the names of a dict, or None."""
    if isinstance(members, Tensor):
        return "tensor"
    if isinstance(members, Mapping):
        return list(members)
    return None if members is None else len(members)


def _grouped(tensors: Mapping[str, Tensor], group: str, structure: Any) -> Tensors | None:
    """The tensors of a group, put together as `_structure` described."""
    if structure is None:
        return None
    if structure == "tensor":
        return tensors[f"{group}.0"]
    if isinstance(structure, int):
        return tuple(tensors[f"{group}.{place}"] for place in range(structure))
    return {str(name): tensors[f"{group}.{place}"] for place, name in enumerate(structure)}


def _plain(operation: OperationFlow) -> dict[str, Any]:
    return {**vars(operation), "absorbed": dict(operation.absorbed)}


def _stored(tensor: Tensor) -> Tensor:
    """A copy on the processor, since tensors that share memory can't both be stored."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
