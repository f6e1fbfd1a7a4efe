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
    if not _is_program(file):
        raise InvalidFile(
            f"{str(file)!r} is no program saved by torch.export (files of torch.save and torch.jit.save are none). "
            "Make one with torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')"
        )
    try:
        program = torch.export.load(str(file))
    except Exception as error:  # torch raises whatever its parts raise
        raise InvalidFile(
            f"{str(file)!r} can't be read as a program of torch.export ({type(error).__name__}: {error}). Was it saved "
            "by a newer torch, or cut off?"
        ) from error
    return program.module()


def _is_program(file: Path) -> bool:
    """Whether the archive holds what torch.export writes, in today's format or that of torch 2.4."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = [name.rsplit("/", 1)[-1] for name in archive.namelist()]
    return "archive_format" in names or "serialized_exported_program.json" in names
