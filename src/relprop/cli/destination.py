"""Where `relprop image` writes: a folder, or a file named by the user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import typer

from relprop.attribution import PICTURES
from relprop.errors import InvalidFile
from relprop.view.files import WRITERS

ENDINGS = (*PICTURES, *WRITERS)
_LONGEST_NAME = 60


class Destination:
    """Gives each explanation a file of its own; never one of the pictures that are explained.

    `out` is a folder (made if needed), or a file with one of ENDINGS; `alone` says that there is one explanation only,
    for which that file is meant to the letter. Raises typer.BadParameter for an `out` that can't be met.
    """

    def __init__(self, out: str, pictures: Sequence[Path], alone: bool) -> None:
        path = Path(out)
        self.file = path if path.suffix and not out.endswith(("/", "\\")) and not path.is_dir() else None
        self.folder = path.parent if self.file else path
        self.alone = alone
        self._taken = {picture.resolve() for picture in pictures}
        if self.file is None:
            return
        if self.file.suffix.lower() not in ENDINGS:
            raise typer.BadParameter(
                f"{out!r} names no kind of file: write one of {', '.join(ENDINGS)}, or a folder as {out}/",
                param_hint="--out",
            )
        if len(pictures) > 1:
            raise typer.BadParameter(
                f"{out!r} is one file for {len(pictures)} pictures; give a folder", param_hint="--out"
            )

    def place(self, picture: Path, *words: str) -> Path:
        """The file for an explanation of `picture`, named after it and `words`. Raises InvalidFile."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidFile(
                f"the folder {self.folder} can't be made ({error.strerror}); give another --out"
            ) from error
        if self.file is not None and self.alone:
            if self.file.resolve() in self._taken:
                raise InvalidFile(
                    f"--out {self.file} is the picture itself, which is not overwritten; give another name"
                )
            return self.file
        model = self.file or picture.with_suffix(".png")
        stem = ".".join([model.stem, *(_plain(word) for word in words if word)])
        path = self.folder / f"{stem}{model.suffix}"
        number = 1
        while path.resolve() in self._taken:
            number += 1
            path = self.folder / f"{stem}-{number}{model.suffix}"
        self._taken.add(path.resolve())
        return path


def _plain(word: str) -> str:
    """A class or rule as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", word)[:_LONGEST_NAME].strip("-.")
