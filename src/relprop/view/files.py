"""Files: written whole or not at all; named tensors with a header, as npz or safetensors."""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from relprop.errors import InvalidFile

HEADER = "relprop"

Header = dict[str, Any]


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes a file that appears complete or not at all, replacing one that is there. Raises InvalidFile."""
    if not path.parent.is_dir():
        raise InvalidFile(f"{path} can't be written: there is no folder {path.parent}. Make it first, or name another.")
    # In the same folder, since a file moves in one step only within a file system; opened plainly, so that it gets the
    # permissions any new file gets.
    unfinished = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        try:
            with open(unfinished, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidFile(f"{path} can't be written: {error.strerror or error}.") from error


def to_npz(tensors: Mapping[str, Tensor], header: Header) -> bytes:
    """As a compressed npz archive. What NumPy has no type for, as bfloat16, is stored as float32 and noted."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    widened: dict[str, str] = {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = tensor.numpy()
        except TypeError:
            arrays[name] = tensor.to(torch.float32).numpy()
            widened[name] = str(tensor.dtype).removeprefix("torch.")
    text = json.dumps({**header, "widened": widened})
    arrays[HEADER] = np.frombuffer(text.encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_npz(path: Path) -> tuple[dict[str, Tensor], Header]:
    """What `to_npz` stored; nothing in the file is executed."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header: Header = json.loads(arrays.pop(HEADER).tobytes())
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name, dtype in header["widened"].items():
        tensors[name] = tensors[name].to(_dtype(dtype))
    return tensors, header


def to_safetensors(tensors: Mapping[str, Tensor], header: Header) -> bytes:
    """As safetensors, with the header in its metadata; every type is kept."""
    return save(dict(tensors), metadata={HEADER: json.dumps(header)})


def from_safetensors(path: Path) -> tuple[dict[str, Tensor], Header]:
    """What `to_safetensors` stored."""
    with safe_open(str(path), framework="pt") as file:
        header: Header = json.loads((file.metadata() or {})[HEADER])
        # Cloned, since the tensors of an open file are mapped into memory and change with it.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, header  # noqa: SIM118


WRITERS: dict[str, Callable[[Mapping[str, Tensor], Header], bytes]] = {".npz": to_npz, ".safetensors": to_safetensors}
# RuntimeError: a zip archive that is encrypted or packed in an unknown way.
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)

READERS: dict[str, Callable[[Path], tuple[dict[str, Tensor], Header]]] = {
    ".npz": from_npz,
    ".safetensors": from_safetensors,
}


def read(path: Path, what: str) -> tuple[dict[str, Tensor], Header]:
    """The tensors, in the processor's memory, and the header of a file that should hold `what`. Raises InvalidFile."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidFile(f"{path.name!r} names no {what}: those are in files ending in {' or '.join(READERS)}.")
    if not path.is_file():
        raise InvalidFile(f"There is no file {path}.")
    try:
        return reader(path)
    except KeyError as error:
        raise InvalidFile(f"{path} is not a whole {what}: {error.args[0]!r} is missing.") from error
    except _UNREADABLE as error:
        raise InvalidFile(f"{path} is no {what}, or a damaged one: {error}.") from error


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is not a type of number")
    return dtype
