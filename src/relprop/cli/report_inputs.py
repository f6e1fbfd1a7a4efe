"""What `relprop report` is asked to explain: pictures and texts in files, folders and lines, and their true classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from relprop.cli.console import note
from relprop.cli.texts import numbered_lines, read
from relprop.errors import InvalidFile
from relprop.view.gallery.words import Words

TEXTS = (".txt",)
# What a folder is searched for; a file that is named itself may have any ending.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".avif")
FOLDER = "folder"


@dataclass(frozen=True)
class Source:
    """One input: a picture's or a text's file, or a text; `key` is what a table of truths calls it.

    `heading` stands above it in the page; by default its name.
    """

    name: str
    heading: Words = ""
    path: Path | None = None
    text: str | None = None
    truth: str | None = None
    key: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is read, rather than looked at."""
        return self.text is not None or (self.path is not None and self.path.suffix.lower() in TEXTS)

    def read(self) -> str:
        """The text. Raises InvalidFile."""
        return self.text if self.text is not None else read(str(self.path)).strip("\r\n")


def sources(paths: Sequence[str], lines: str | None, truth: str | None) -> list[Source]:
    """The inputs in order: the files of a folder by name, as people count. Raises InvalidFile, typer.BadParameter."""
    if not paths and lines is None:
        raise typer.BadParameter(
            "there is nothing to explain; give pictures, folders or .txt files, or --lines FILE", param_hint="PATH"
        )
    found = [source for path in paths for source in _of_path(Path(path))]
    if lines is not None:
        found += _of_lines(lines)
    return found if truth is None else _with_truths(found, truth)


def _of_path(path: Path) -> Iterator[Source]:
    if not path.is_dir():
        yield Source(str(path), path=path, key=path.name)
        return
    files = [each for each in path.rglob("*") if each.is_file() and not _hidden(each, path)]
    fitting = [each for each in files if each.suffix.lower() in (*PICTURES, *TEXTS)]
    if not fitting:
        raise InvalidFile(f"the folder {path} holds no picture and no .txt file; check the path")
    if len(fitting) < len(files):
        others = len(files) - len(fitting)
        note(f"{path}: {others} file{'s' if others > 1 else ''} left out, of other kinds than pictures and texts")
    for each in sorted(fitting, key=lambda file: _as_counted(str(file))):
        yield Source(str(each.relative_to(path)), path=each, key=each.name)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _as_counted(name: str) -> list[tuple[int, str]]:
    """A key that sorts scan-2 before scan-10."""
    return [(int(part), "") if part.isdigit() else (-1, part.casefold()) for part in re.split(r"([0-9]+)", name)]


def _of_lines(name: str) -> list[Source]:
    return [
        Source(f"line {number}", {"en": f"line {number}", "ko": f"{number}번째 줄"}, text=line, key=str(number))
        for number, line in numbered_lines(name)
    ]


def _with_truths(found: Sequence[Source], truth: str) -> list[Source]:
    """The inputs with their true classes; those that a table doesn't name have none."""
    known = _by_folder if truth == FOLDER else _by_table(truth)
    named = [replace(source, truth=known(source)) for source in found]
    if all(source.truth is None for source in named):
        raise InvalidFile(
            f"--truth {truth} names none of the {len(named)} inputs; it has to name files or line numbers"
        )
    return named


def _by_folder(source: Source) -> str | None:
    return None if source.path is None else source.path.resolve().parent.name


def _by_table(truth: str) -> Callable[[Source], str | None]:
    separator = "\t" if truth.lower().endswith(".tsv") else ","
    try:
        rows = [row for row in csv.reader(read(truth).splitlines(), delimiter=separator) if any(row)]
    except csv.Error as error:
        raise InvalidFile(f"--truth {truth}: this is no table of names and classes ({error})") from error
    odd = next((row for row in rows if len(row) != 2), None)
    if odd is not None:
        raise InvalidFile(
            f"--truth {truth}: the row {separator.join(odd)!r} is not a name and a class; write rows as "
            f"scan-1.png{separator}3, or 1{separator}positive for the first line of --lines"
        )
    table = {name.strip(): value.strip() for name, value in rows}
    return lambda source: table.get(source.name, table.get(source.key))
