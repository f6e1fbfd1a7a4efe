"""The weights that ship with the package: stored in half precision, used in single precision."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from relprop.errors import InvalidFile

_SCALE = ".scale"  # after the name of a matrix in bytes
_FOLDER = Path(__file__).parent / "weights"


def shipped(name: str) -> Path:
    """Where the weights of the zoo's model `name` lie."""
    return _FOLDER / f"{name}.safetensors"


def vocabulary(name: str) -> Path:
    """Where the vocabulary of the zoo's model `name` lies, one of those that read text."""
    return _FOLDER / f"{name}.txt"


def save(model: nn.Module, path: Path, *, in_bytes: bool = False) -> None:
    """Write the model's weights to `path` as float16.

    in_bytes: matrices in half of that: as int8, with a scale for each row, the largest of its magnitudes over 127.
    """
    stored: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if in_bytes and value.dim() == 2:
            scale = (value.detach().abs().amax(dim=1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
            stored[key], stored[key + _SCALE] = (value.detach() / scale).round().to(torch.int8), scale
        else:
            stored[key] = value.detach().to(torch.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = to_bytes({key: value.contiguous() for key, value in stored.items()})
    path.write_bytes(content)  # save_file would let nobody but the owner read the file


def restore(model: nn.Module, path: Path) -> None:
    """Fill `model` with the weights at `path`, converted to the model's own dtype.

    Raises `InvalidFile` where there is no such file, or where it holds the weights of another network.
    """
    try:
        stored = load_file(path)
        scales = {key: stored.pop(key) for key in list(stored) if key.endswith(_SCALE)}
        for key, scale in scales.items():
            stored[key.removesuffix(_SCALE)] = stored[key.removesuffix(_SCALE)] * scale
        model.load_state_dict(stored)
    except (OSError, SafetensorError) as error:
        raise InvalidFile(
            f"{path} can't be read as safetensors ({error}): check the path; if it is the zoo's own, reinstall relprop"
        ) from error
    except RuntimeError as error:
        raise InvalidFile(
            f"{path} does not hold the weights of a {type(model).__name__}: name the model it was written for ({error})"
        ) from error
