"""Programs saved by torch.export: .pt2 files."""

from __future__ import annotations

import zipfile
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from relprop.errors import InvalidFile


def load_program(path: str | PathLike[str]) -> nn.Module:
    """The model in a .pt2 file, ready to explain. Raises InvalidFile if it is missing or is no such file.

    Export a model in evaluation mode: torch.export.save(torch.export.export(model.eval(), (x,)), path).
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidFile(f"there is no file {str(file)!r}")
    if not zipfile.is_zipfile(file):
        raise InvalidFile(
            f"{str(file)!r} is no program saved by torch.export. Make one with "
            "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')"
        )
    try:
        program = torch.export.load(str(file))
    except Exception as error:  # torch raises whatever its parts raise
        raise InvalidFile(
            f"{str(file)!r} can't be read as a program of torch.export ({type(error).__name__}: {error}). TorchScript "
            "files (torch.jit.save) and plain checkpoints (torch.save) are not programs"
        ) from error
    return program.module()
