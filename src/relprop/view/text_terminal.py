"""Explained texts for a terminal: words in colour, or with their signs in characters where there is none."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from relprop.view.colours import RGB
from relprop.view.legend import number
from relprop.view.text import PAPER, Passage, Piece, marked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Terminals have dark or light backgrounds, and don't say which: letters of these colours can be read on both, and the
# grounds run from a middle tone to full colour under white letters.
_LETTERS: dict[int, RGB] = {1: (214, 84, 84), -1: (70, 140, 205)}
_GROUNDS: dict[int, tuple[RGB, RGB]] = {1: ((150, 84, 88), (190, 18, 40)), -1: ((84, 104, 138), (20, 92, 190))}
# For terminals of sixteen colours.
_NAMES = {1: "red", -1: "blue"}
_GROUND_FROM = 0.35  # the share from which a word gets a ground
_LEVELS = (1 / 3, 2 / 3)  # shares from which a word without colour gets a second and a third sign


@dataclass(frozen=True)
class _Colours:
    """What a console can show: any colours, and if so, only the sixteen that have names."""

    any: bool
    named: bool

    def style(self, share: float) -> str:
        """Colour by share; what speaks for the class is underlined too, so that the sign is not in the colour alone."""
        sign = marked(share)
        if sign == 0:
            return ""
        line = "underline " if sign > 0 else ""
        strong = abs(share) >= _GROUND_FROM
        if self.named:
            return f"{line}bright_white on {_NAMES[sign]}" if strong else f"{line}bright_{_NAMES[sign]}"
        if not strong:
            return f"{line}{_hex(_LETTERS[sign])}"
        low, high = _GROUNDS[sign]
        step = (abs(share) - _GROUND_FROM) / (1 - _GROUND_FROM)
        red, green, blue = (round(a + step * (b - a)) for a, b in zip(low, high, strict=True))
        return f"{line}{_hex(PAPER)} on {_hex((red, green, blue))}"


def rendered(passages: Sequence[Passage], stream: TextIO) -> str:
    """The passages as characters for `stream`, with the escape codes of colours if it shows them (see NO_COLOR)."""
    from rich.console import Console

    shown = Console(file=stream, force_jupyter=False)
    made = io.StringIO()
    console = Console(
        file=made,
        force_jupyter=False,
        force_terminal=shown.is_terminal,
        color_system=shown.color_system if has_colours(shown) else None,  # type: ignore[arg-type]
        width=shown.width,
        highlight=False,
    )
    for place, passage in enumerate(passages):
        if place:
            console.print()
        show(passage, console)
    return made.getvalue().rstrip("\n")


def has_colours(console: Console) -> bool:
    """Whether a console shows colours: it is a terminal that has some, and NO_COLOR is not set."""
    return console.color_system is not None and not console.no_color


def show(passage: Passage, console: Console) -> None:
    """Prints heading, text, tokens apart, legend and notes. The lines of the text are left to the terminal to break."""
    from rich.text import Text

    colours = _Colours(has_colours(console), console.color_system == "standard")
    console.print(Text(visible(passage.heading), style="bold"), soft_wrap=True)
    console.print(_painted(passage, colours), soft_wrap=True)
    if passage.apart:
        console.print(_apart(passage, colours), soft_wrap=True)
    console.print(_legend(passage, colours), soft_wrap=True)
    console.print(Text(visible(passage.summary)), soft_wrap=True)
    for note in passage.notes:
        console.print(Text(visible(f"note: {note}")), soft_wrap=True)


def table(passage: Passage, most: int | None) -> str:
    """The words in order of |relevance|: rank, word, relevance, aligned for letters that are two columns wide too."""
    from rich.cells import cell_len

    words = passage.strongest[:most]
    rows = [
        (str(rank), visible(" ".join(word.text.split())), number(word.relevance)) for rank, word in enumerate(words, 1)
    ]
    widths = [max((cell_len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = []
    for (rank, text, relevance), word in zip(rows, words, strict=True):
        gap = " " * (widths[1] - cell_len(text))
        unknown = "  not in the vocabulary" if word.unknown else ""
        lines.append(f"{rank:>{widths[0]}}  {text}{gap}  {relevance:>{widths[2]}}{unknown}")
    if len(words) < len(passage.words):
        lines.append(f"... and {len(passage.words) - len(words)} more words")
    return "\n".join(lines)


def visible(text: str) -> str:
    """`text` without what would steer a terminal: control characters other than line breaks and tabs are replaced."""
    text = text.replace("\r\n", "\n")
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)


def _painted(passage: Passage, colours: _Colours) -> Text:
    from rich.text import Text

    made = Text()
    for piece in passage.pieces:
        _append(made, piece, colours)
    return made


def _append(made: Text, piece: Piece, colours: _Colours) -> None:
    unknown = piece.word is not None and piece.word.unknown
    if colours.any:
        made.append(visible(piece.text), style=colours.style(piece.share))
    else:
        made.append(visible(piece.text) + _signs(piece.share))
    if unknown:
        made.append("[?]")


def _signs(share: float) -> str:
    """One to three signs by strength."""
    sign = marked(share)
    count = 1 + sum(abs(share) >= level for level in _LEVELS)
    return f"[{('+' if sign > 0 else '-') * count}]" if sign else ""


def _apart(passage: Passage, colours: _Colours) -> Text:
    from rich.text import Text

    made = Text("apart from the text:")
    for each in passage.apart:
        made.append(" ")
        _append(made, Piece(f"{each.text} {number(each.relevance)}", each, passage.share(each)), colours)
    return made


def _legend(passage: Passage, colours: _Colours) -> Text:
    from rich.text import Text

    made = Text()
    for sign in passage.signs:
        if colours.any:
            made.append("red, underlined" if sign > 0 else "blue", style=colours.style(0.9 * sign))
        else:
            made.append("[+] to [+++]" if sign > 0 else "[-] to [---]")
        made.append(f" {visible(passage.meaning(sign))}; ")
    if passage.has_unknown:
        made.append("[?] not in the vocabulary; ")
    made.right_crop(2)
    made.append("\n")
    made.append(passage.scale if colours.any or not passage.limit else _strongest(passage))
    return made


def _strongest(passage: Passage) -> str:
    return f"The strongest of these words: a relevance of {passage.limit:.4g}."


def _hex(colour: RGB) -> str:
    return "#" + bytes(colour).hex()
