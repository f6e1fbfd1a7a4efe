"""The weights that ship with the package: stored in half precision, used in single precision."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from relprop.errors import InvalidFile

_FOLDER = Path(__file__).parent / "weights"


def shipped(name: str) -> Path:
    """Where the weights of the zoo's model `name` lie."""
    return _FOLDER / f"{name}.safetensors"


def vocabulary(name: str) -> Path:
    """Where the vocabulary of the zoo's model `name` lies, one of those that read text."""
    return _FOLDER / f"{name}.txt"


def save(model: nn.Module, path: Path) -> None:
    """Write the model's weights to `path` as float16."""
    halves = {key: value.detach().to(torch.float16).contiguous() for key, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(halves))  # save_file would let nobody but the owner read the file


def restore(model: nn.Module, path: Path) -> None:
    """Fill `model` with the weights at `path`, converted to the model's own dtype.

    Raises `InvalidFile` where there is no such file, or where it holds the weights of another network.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InvalidFile(
            f"{path} can't be read as safetensors ({error}): check the path; if it is the zoo's own, reinstall relprop"
        ) from error
    except RuntimeError as error:
        raise InvalidFile(
            f"{path} does not hold the weights of a {type(model).__name__}: name the model it was written for ({error})"
        ) from error
