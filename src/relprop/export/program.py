"""An explanation as a .pt2 file of torch.export, which runs without relprop."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from relprop.attribution import named
from relprop.errors import InvalidFile, RelpropError
from relprop.export.recording import Recording, record
from relprop.inputs import Inputs
from relprop.targets import Target
from relprop.view.files import write_whole

if TYPE_CHECKING:
    from relprop.explainer import Explainer

# By how much, of the largest value, results may differ: in units of the type's rounding.
_ROUNDINGS = 1e4


def export(
    explainer: Explainer, path: str | PathLike[str], x: Inputs, target: Target = None, *, dynamic_batch: bool = True
) -> None:
    """See Explainer.export."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in (".pt2", ".onnx"):
        raise InvalidFile(
            f"{file.name!r} does not say what to write: end it in .pt2 for a program of torch.export, in .onnx for ONNX"
        )
    recording = record(explainer, x, target, dynamic_batch=dynamic_batch)
    program = exported(recording)
    if suffix == ".onnx":
        from relprop.export.onnx import to_onnx

        write_whole(file, to_onnx(program, _results(recording)))
        return
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_whole(file, buffer.getbuffer())


def exported(recording: Recording) -> ExportedProgram:
    """The recording as torch.export's program, after it was run on the example, and on another number of samples."""
    given = recording.arguments
    batch = Dim("batch") if recording.dynamic_batch else None
    shapes = {name: None if batch is None else {0: batch} for name in recording.names}
    # An example of one sample would make a program for one sample alone.
    args, kwargs = _passed(recording, given if batch is None else [_samples(t, 2) for t in given])
    program = torch.export.export(recording.graph, args, kwargs, dynamic_shapes=shapes)
    other = [] if batch is None else [[_samples(t, 2 if len(t) == 1 else 1) for t in given]]
    for arguments in (given, *other):
        args, kwargs = _passed(recording, arguments)
        require_same(program.module()(*args, **kwargs), recording.explained(*arguments))
    return program


def _results(recording: Recording) -> list[str]:
    """What the results are called, one by one."""
    _, relevance, *highest = recording.explained(*recording.arguments)
    parts = [name.removeprefix("input ") for name, _ in named(relevance)]
    return ["score", *(f"relevance_{part}" if part else "relevance" for part in parts), *["target"][: len(highest)]]


def _samples(tensor: Tensor, count: int) -> Tensor:
    """That many samples: the first one, again and again."""
    return tensor[:1].repeat_interleave(count, 0)


def _passed(recording: Recording, arguments: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """(positional arguments, arguments by name) of the program."""
    if recording.by_name:
        return (), dict(zip(recording.names, arguments, strict=True))
    return tuple(arguments), {}


def require_same(found: Any, expected: Any) -> None:
    """Refuse a program that doesn't find what the explainer finds."""
    for mine, own in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        if not _agree(mine, own):
            raise RelpropError(
                f"for {len(own)} samples the recorded program finds something else than the explainer: values of up to "
                f"{float(own.abs().max()):g} differ by {float((mine - own).abs().max()):g}. Please report this, with "
                "the model"
            )


def _agree(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape or not expected.is_floating_point():
        return torch.equal(found, expected)
    tolerance = _ROUNDINGS * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    return float((found - expected).abs().max()) <= tolerance
