"""The texts that are explained: given in quotes, from files, line by line, from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from relprop.errors import InvalidFile, RelpropError

STANDARD_INPUT = "-"
_SHOWN_OF_A_TEXT = 40  # letters, where a message says which text it is about


@dataclass(frozen=True)
class Source:
    """A text, and where it is from; `error` instead of the text where it can't be read."""

    name: str
    text: str = ""
    error: RelpropError | None = None


def sources(words: Sequence[str], files: Sequence[str], lines: str | None) -> Iterator[Source]:
    """The texts that were asked for, in order. Raises typer.BadParameter where there is none, or a text in pieces."""
    if len(words) > 1:
        joined = " ".join(words)
        raise typer.BadParameter(
            f'got {len(words)} texts; put a text of several words in quotes, as "{joined[:_SHOWN_OF_A_TEXT]}", and '
            "several texts into a file for --lines",
            param_hint="TEXT",
        )
    names = [*files, *([lines] if lines is not None else []), *(word for word in words if word == STANDARD_INPUT)]
    if names.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("standard input can be read once", param_hint=STANDARD_INPUT)
    if not words and not names:
        raise typer.BadParameter(
            "there is no text; give one in quotes, or --file FILE, --lines FILE, or - for standard input: relprop text "
            '"A warm, funny film."',
            param_hint="TEXT",
        )
    for word in words:
        yield _document(word) if word == STANDARD_INPUT else Source(_short(word), word)
    yield from map(_document, files)
    if lines is not None:
        yield from _of_lines(lines)


def _document(name: str) -> Source:
    """A file as one text, without the line break at its end."""
    shown = "standard input" if name == STANDARD_INPUT else name
    try:
        return Source(shown, read(name).removesuffix("\n").removesuffix("\r"))
    except InvalidFile as error:
        return Source(shown, error=error)


def _of_lines(name: str) -> Iterator[Source]:
    """The lines of a file that aren't empty, each a text."""
    for number, line in numbered_lines(name):
        yield Source(f"line {number}", line)


def numbered_lines(name: str) -> list[tuple[int, str]]:
    """The lines of a file that aren't empty, with their numbers, from 1. Raises InvalidFile, too if there is none."""
    found = [(number, line) for number, line in enumerate(read(name).splitlines(), start=1) if line.strip()]
    if not found:
        raise InvalidFile(f"--lines {name}: there is no text in it; give a file with one text a line")
    return found


def read(name: str) -> str:
    """What a text file holds, or standard input for `-`. Raises InvalidFile."""
    try:
        content = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InvalidFile(f"the file {name!r} can't be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InvalidFile(
            f"the text in {name!r} is not UTF-8 ({error.reason} at byte {error.start}); convert it first, for Korean "
            "as iconv -f CP949 -t UTF-8"
        ) from error


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_OF_A_TEXT else f"{flat[:_SHOWN_OF_A_TEXT]}..."
