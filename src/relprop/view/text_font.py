"""Fonts for text in any script: for each letter the first font of the system's that has it."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# After pillow's own font, which needs no file: Korean, Chinese and Japanese; then other scripts, symbols and emoji.
_FILES = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKkr-Regular.otf", "NotoSansKR-Regular.ttf", "NotoSansKR-Regular.otf",
    "NanumGothic.ttf", "malgun.ttf", "AppleSDGothicNeo.ttc", "AppleGothic.ttf", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf",
    "NotoEmoji-Regular.ttf", "Symbola.ttf", "seguiemj.ttf", "seguisym.ttf", "segoeui.ttf", "Arial Unicode.ttf",
    "arial.ttf",
)  # fmt: skip
_COUNT = 1 + len(_FILES)
_NO_LETTER = "\U0010fffe"  # never assigned: drawn as every font draws what it lacks


def runs(text: str, size: int) -> list[tuple[Font, str]]:
    """`text` as pieces of one font each, in order; a letter that no font has stays in the font before it."""
    pieces: list[tuple[int, str]] = []
    for letter in text:
        before = pieces[-1][0] if pieces else None
        chosen = _choice(letter, size, before)
        if pieces and chosen == before:
            pieces[-1] = chosen, pieces[-1][1] + letter
        else:
            pieces.append((chosen, letter))
    return [(_font(index, size) or _own(size), piece) for index, piece in pieces]


def missing(text: str, size: int) -> str:
    """The letters of `text` that no font has, each once."""
    return "".join(letter for letter in dict.fromkeys(text) if not _invisible(letter) and _first(letter, size) is None)


def width(text: str, size: int) -> float:
    """The width of a text in pixels."""
    return sum(_length(piece, font) for font, piece in runs(text, size))


@lru_cache(maxsize=4096)
def _length(text: str, font: Font) -> float:
    return float(font.getlength(text))


def _choice(letter: str, size: int, before: int | None) -> int:
    if before is not None and (_invisible(letter) or _has(before, letter, size)):
        return before
    found = 0 if _invisible(letter) else _first(letter, size)
    return found if found is not None else before or 0


@cache
def _first(letter: str, size: int) -> int | None:
    """The index of the first font that has a letter."""
    return next((index for index in range(_COUNT) if _has(index, letter, size)), None)


def _invisible(letter: str) -> bool:
    """Whether a letter is drawn as nothing, or as part of the one before: spaces, joiners, accents."""
    return letter.isspace() or unicodedata.category(letter) in ("Mn", "Me", "Cf", "Cc")


@cache
def _has(index: int, letter: str, size: int) -> bool:
    font = _font(index, size)
    return font is not None and _drawn(font, letter) != _drawn(font, _NO_LETTER)


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@cache
def _font(index: int, size: int) -> Font | None:
    if index == 0:
        return _own(size)
    try:
        return ImageFont.truetype(_FILES[index - 1], size)
    except OSError:
        return None


@cache
def _own(size: int) -> Font:
    return ImageFont.load_default(size=size)
