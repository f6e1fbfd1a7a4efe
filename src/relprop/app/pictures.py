"""Uploaded pictures: checked before they are decoded, kept in memory, and never sent back as they came."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from relprop import zoo
from relprop.app.asking import BYTES, PIXELS
from relprop.app.recent import Recent
from relprop.app.refusals import Refused
from relprop.errors import InvalidInput, MissingExtra
from relprop.zoo.pictures import DAMAGED, is_svg, plain

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
KEPT = 256_000_000  # bytes of uploads and their previews
PREVIEW = 1024  # pixels of a preview's longer side
# Models enlarge a picture until its shorter side fits them, so the longer one of a narrow strip would fill the memory.
NARROWEST = 50


@dataclass(frozen=True)
class Kept:
    """An uploaded file, its sides once it is upright, and a preview as PNG."""

    content: bytes
    width: int
    height: int
    preview: bytes

    @property
    def nbytes(self) -> int:
        return len(self.content) + len(self.preview)


class Pictures:
    """The zoo's photographs, and what was uploaded last."""

    def __init__(self) -> None:
        self._uploads: Recent[str, Kept] = Recent(KEPT, lambda kept: kept.nbytes)
        self._photos: dict[str, Image.Image] | None = None
        self._lock = threading.Lock()

    def add(self, content: bytes) -> tuple[str, Kept]:
        """Keeps a file's picture; returns its name, made from the content, and what is kept. Raises Refused."""
        name = hashlib.sha256(content).hexdigest()[:32]
        known = self._uploads.get(name)
        if known is None:
            upright = decoded(content)
            known = self._uploads.put(name, Kept(content, upright.width, upright.height, preview(upright)))
        return name, known

    def open(self, name: str) -> Image.Image:
        """The picture of this name, upright, in RGB. Raises Refused where it is not, or no longer, here."""
        if name in self.samples():
            return self.samples()[name]
        return decoded(self._kept(name).content)

    def preview(self, name: str) -> bytes:
        """The picture as PNG, its longer side at most PREVIEW pixels."""
        if name in self.samples():
            return preview(self.samples()[name])
        return self._kept(name).preview

    def samples(self) -> dict[str, Image.Image]:
        """The zoo's photographs by name; none where they are not installed, as the models' list says."""
        with self._lock:
            if self._photos is None:
                try:
                    self._photos = zoo.photos()
                except MissingExtra:
                    self._photos = {}
            return self._photos

    def _kept(self, name: str) -> Kept:
        found = self._uploads.get(name)
        if found is None:
            raise Refused(404, "no_such_picture", "This picture is no longer held by the server. Choose it again.")
        return found


def decoded(content: bytes) -> Image.Image:
    """A file's picture, upright, in RGB; of an animation the first. Raises Refused for what is no picture, damaged or
    too large, which its header says before anything is decoded."""
    if not content:
        raise Refused(422, "empty", "The file is empty.")
    if len(content) > BYTES:
        raise Refused(413, "too_large", f"The file is larger than {BYTES // 1_000_000} MB. Make it smaller.")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        _require_size(picture.width, picture.height)
        picture.load()
        return plain(picture)
    except UnidentifiedImageError:
        raise Refused(422, "no_picture", _unidentified(content)) from None
    except Image.DecompressionBombError:
        raise _too_many_pixels() from None
    except InvalidInput as error:
        raise Refused(422, "invalid_input", f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    except (*DAMAGED, MemoryError) as error:
        told = " ".join(str(error).split())[:200]
        raise Refused(422, "damaged", f"The picture is damaged or truncated ({told}). Get or save it again.") from error


def preview(picture: Image.Image) -> bytes:
    """A picture as PNG, made smaller if it is large."""
    small = picture.copy()
    small.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def _require_size(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise _too_many_pixels(f"{width:,} x {height:,}, ")
    if max(width, height) > NARROWEST * max(1, min(width, height)):
        raise Refused(
            422,
            "too_narrow",
            f"The picture is {width:,} x {height:,} pixels, too narrow for a model to see it. Cut a part out of it.",
        )


def _too_many_pixels(size: str = "") -> Refused:
    return Refused(
        413,
        "too_large",
        f"The picture is too large: {size}more than {PIXELS // 1_000_000} million pixels. Make it smaller.",
    )


def _unidentified(content: bytes) -> str:
    if is_svg(content[:1024]):
        return "SVG is a drawing and has no pixels. Save it as PNG first."
    listed = f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
    return f"This is no picture that can be read: {listed} can. Save it as PNG first."
