"""Where the words of a text go in a picture: lines no wider than it, in the order of reading. Lengths are pixels."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from relprop.view.text import Piece
from relprop.view.text_font import Font, runs, width

TAB = "    "


@dataclass(frozen=True)
class Run:
    """Letters of one font and one piece of the text; `x` is their left end, `width` their length."""

    text: str
    font: Font
    piece: Piece
    x: float
    width: float


@dataclass(frozen=True)
class _Atom:
    """Letters of one piece that are all spaces or all not; `level` as in Unicode's bidirectional algorithm."""

    text: str
    piece: Piece
    width: float
    level: int = 0

    @property
    def is_space(self) -> bool:
        return self.text.isspace()


def lines(pieces: Iterable[Piece], size: int, most: float) -> list[list[Run]]:
    """The pieces as lines of runs, at most `most` wide. Broken at spaces, and inside what is longer than a line."""
    made: list[list[Run]] = []
    for paragraph in _paragraphs(pieces, size):
        base = _base(paragraph)
        levelled = _levelled(paragraph, base)
        for line in _broken(levelled, size, most):
            made.append(_placed(_reordered(line), size, most, from_right=base == 1))
    return made


def plain(text: str) -> str:
    """`text` as it is drawn: every character that steers something is replaced by one that shows it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", TAB)
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)


def _paragraphs(pieces: Iterable[Piece], size: int) -> list[list[_Atom]]:
    found: list[list[_Atom]] = [[]]
    for piece in pieces:
        for place, part in enumerate(plain(piece.text).split("\n")):
            if place:
                found.append([])
            found[-1] += [_Atom(letters, piece, width(letters, size)) for letters in _split_spaces(part)]
    return found


def _split_spaces(text: str) -> list[str]:
    """The text as stretches that are all spaces or all not."""
    parts: list[str] = []
    for letter in text:
        if parts and parts[-1][-1].isspace() == letter.isspace():
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def _broken(atoms: Sequence[_Atom], size: int, most: float) -> list[list[_Atom]]:
    """The atoms as lines, without the spaces at their ends."""
    found: list[list[_Atom]] = [[]]
    used = 0.0
    for cluster in _clusters(atoms):
        length = sum(atom.width for atom in cluster)
        if cluster[0].is_space:
            found[-1] += cluster
            used += length
            continue
        if used + length > most and used:
            found.append([])
            used = 0.0
        parts = cluster if length <= most else [part for atom in cluster for part in _cut(atom, size)]
        for part in parts:
            if used + part.width > most and used:
                found.append([])
                used = 0.0
            found[-1].append(part)
            used += part.width
    for line in found:
        while line and line[-1].is_space:
            line.pop()
    return found


def _clusters(atoms: Sequence[_Atom]) -> list[list[_Atom]]:
    """Atoms that have no space between them, as a word and the comma after it, together."""
    found: list[list[_Atom]] = []
    for atom in atoms:
        if found and not atom.is_space and not found[-1][-1].is_space:
            found[-1].append(atom)
        else:
            found.append([atom])
    return found


def _cut(atom: _Atom, size: int) -> list[_Atom]:
    """An atom as its letters, each with what is joined to it."""
    parts: list[str] = []
    for letter in atom.text:
        joined = parts and (unicodedata.category(letter) in ("Mn", "Me", "Cf") or parts[-1][-1] == "\u200d")
        if joined:
            parts[-1] += letter
        else:
            parts.append(letter)
    return [replace(atom, text=part, width=width(part, size)) for part in parts]


def _placed(atoms: Sequence[_Atom], size: int, most: float, *, from_right: bool) -> list[Run]:
    """The atoms of a line as runs, from left to right as they are seen."""
    x = most - sum(atom.width for atom in atoms) if from_right else 0.0
    made = []
    for atom in atoms:
        parts = runs(atom.text, size)
        for font, letters in parts[::-1] if atom.level % 2 else parts:
            length = atom.width if letters == atom.text else float(font.getlength(letters))
            made.append(Run(letters, font, atom.piece, x, length))
            x += length
    return made


def _base(atoms: Sequence[_Atom]) -> int:
    """1 where the first letter with a direction is written from right to left, else 0."""
    return next((side for atom in atoms if (side := _side(atom.text)) is not None), 0)


def _levelled(atoms: Sequence[_Atom], base: int) -> list[_Atom]:
    """The atoms with the level each is read at: spaces and signs go with their neighbours where these agree."""
    sides = [_side(atom.text) for atom in atoms]
    before, after = _carried(sides), _carried(sides[::-1])[::-1]
    made = []
    for atom, side, left, right in zip(atoms, sides, before, after, strict=True):
        known = side if side is not None else left if left == right and left is not None else base
        made.append(replace(atom, level=known if base == 0 or known == 1 else 2))
    return made


def _carried(sides: Sequence[int | None]) -> list[int | None]:
    """For each place the last known side up to it."""
    found: list[int | None] = []
    for side in sides:
        found.append(side if side is not None or not found else found[-1])
    return found


def _side(text: str) -> int | None:
    """1 for letters written from right to left, 0 from left to right, None for signs that have no direction."""
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind in ("R", "AL"):
            return 1
        if kind in ("L", "EN", "AN"):
            return 0
    return None


def _reordered(atoms: Sequence[_Atom]) -> list[_Atom]:
    """Rule L2 of Unicode's bidirectional algorithm: from the highest level down, reverse what is at it or above."""
    line = list(atoms)
    for level in range(max((atom.level for atom in line), default=0), 0, -1):
        start = 0
        while start < len(line):
            end = start
            while end < len(line) and line[end].level >= level:
                end += 1
            line[start:end] = line[start:end][::-1]
            start = end + 1
    return line
