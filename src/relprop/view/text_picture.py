"""Explained texts as pictures: PNG with letters of the system's fonts, SVG with real text. Lengths are pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from relprop.errors import InvalidInput
from relprop.view.colours import RGB
from relprop.view.legend import number
from relprop.view.svg import clean, hexadecimal
from relprop.view.text import INK, PAPER, Passage, Piece, Shown, marked, painted, said, takes_white
from relprop.view.text_font import missing
from relprop.view.text_layout import Run, lines

MARGIN = 16
TEXT = 16  # the size of the text's letters,
LEADING = 29  # and how far its lines are apart
SMALL = 13
SMALL_LEADING = 21
LEAST_WIDTH = 200
MOST_HEIGHT = 30_000
BAR = (300, 12)  # the colour bar of the legend
_STEPS = 60  # of the colour bar
_GREY: RGB = (110, 110, 110)
_DASH = (5, 3)


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of one colour."""

    x: float
    y: float
    width: float
    height: float
    colour: RGB


@dataclass(frozen=True)
class Letters:
    """A run of letters on a baseline, with the ground, line and frame of its word."""

    run: Run
    x: float
    baseline: float
    size: int

    @property
    def colour(self) -> RGB:
        """The colour of the letters, and of the line below them."""
        return PAPER if takes_white(self.run.piece.share) else INK

    @property
    def ground(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of what is painted behind."""
        return self.x, self.baseline - 1.05 * self.size, self.x + self.run.width, self.baseline + 0.45 * self.size

    @property
    def line(self) -> float:
        """The height of the line that says the sign."""
        return self.baseline + 0.27 * self.size


@dataclass
class Sheet:
    """A picture as a list of things to draw."""

    width: int
    height: float = MARGIN
    bar: list[Rectangle] = field(default_factory=list)
    letters: list[Letters] = field(default_factory=list)

    def add(self, pieces: Sequence[Piece], size: int, leading: int) -> None:
        """Lines of text below what is there."""
        for line in lines(pieces, size, self.width - 2 * MARGIN):
            baseline = self.height + 0.5 * leading + 0.36 * size
            self.letters += [Letters(run, MARGIN + run.x, baseline, size) for run in line]
            self.height += leading


def picture(passages: Sequence[Passage], width: int, legend: bool) -> Image.Image:
    """The passages one below the other as an RGB picture. Raises InvalidInput for one that would be too high."""
    sheet = _sheet(passages, width, legend)
    lacking = missing("".join(letters.run.text for letters in sheet.letters), TEXT)
    if lacking:
        sheet.add([Piece(_lacking(lacking))], SMALL, SMALL_LEADING)
        sheet.height += MARGIN
    if sheet.height > MOST_HEIGHT:
        raise InvalidInput(
            f"the picture would be {sheet.height:,.0f} pixels high; save it as .html, or give a width= of more "
            f"than {width}"
        )
    made = Image.new("RGB", (sheet.width, round(sheet.height)), PAPER)
    draw = ImageDraw.Draw(made)
    for part in sheet.bar:
        draw.rectangle((part.x, part.y, part.x + part.width - 1, part.y + part.height - 1), fill=part.colour)
    for letters in sheet.letters:
        _draw(draw, letters)
    return made


def document(passages: Sequence[Passage], width: int, legend: bool) -> str:
    """The passages as a self-contained SVG document, titled and described for screen readers."""
    sheet = _sheet(passages, width, legend)
    height = round(sheet.height)
    title = "Relevance of words for " + ", ".join(dict.fromkeys(passage.claim for passage in passages))
    description = " ".join(f"{passage.heading}: {passage.summary}." for passage in passages)
    shapes = [
        f'<rect x="{part.x:.1f}" y="{part.y:.1f}" width="{part.width:.1f}" height="{part.height:.1f}" '
        f'fill="{hexadecimal(part.colour)}"/>'
        for part in sheet.bar
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{sheet.width}" height="{height}" '
            f'viewBox="0 0 {sheet.width} {height}" font-family="sans-serif">',
            f"<title>{clean(title)}</title>\n<desc>{clean(description)}</desc>",
            f'<rect width="{sheet.width}" height="{height}" fill="#fff"/>',
            *shapes,
            *(_svg(letters) for letters in sheet.letters if not letters.run.text.isspace() or letters.run.piece.word),
            "</svg>\n",
        ]
    )


def _sheet(passages: Sequence[Passage], width: int, legend: bool) -> Sheet:
    if isinstance(width, bool) or not isinstance(width, int) or width < LEAST_WIDTH:
        raise InvalidInput(f"width={width!r} is not the width of a picture: write a whole number from {LEAST_WIDTH}")
    sheet = Sheet(width)
    for passage in passages:
        if legend or len(passages) > 1:
            sheet.add([Piece(passage.heading)], SMALL, SMALL_LEADING)
        sheet.add(list(passage.pieces), TEXT, LEADING)
        if passage.apart:
            sheet.height += 4
            sheet.add(list(_apart(passage)), SMALL, SMALL_LEADING + 3)
        if legend:
            _add_legend(sheet, passage)
        sheet.height += MARGIN
    return sheet


def _apart(passage: Passage) -> Iterator[Piece]:
    yield Piece("apart from the text:")
    for each in passage.apart:
        yield Piece("  ")
        yield Piece(f"{each.text} {number(each.relevance)}", each, passage.share(each))


def _add_legend(sheet: Sheet, passage: Passage) -> None:
    sheet.height += 8
    long, high = min(BAR[0], sheet.width - 2 * MARGIN), BAR[1]
    low = -1.0 if passage.has_sign else 0.0
    for step in range(_STEPS):
        share = low + (1 - low) * step / (_STEPS - 1)
        left, right = (round(MARGIN + long * edge / _STEPS) for edge in (step, step + 1))
        sheet.bar.append(Rectangle(left, sheet.height, right - left, high, painted(share)))
    sheet.height += high + 2
    ends = f"{-passage.limit:.4g} to {number(passage.limit)}" if passage.has_sign else f"0 to {number(passage.limit)}"
    sheet.add([Piece(f"{ends}. No colour: no relevance. {passage.scale}")], SMALL, SMALL_LEADING)
    for sign in passage.signs:
        told = "red, underlined" if sign > 0 else "blue, dashed underline"
        sheet.add([_sample(0.6 * sign), Piece(f"  {told}: {passage.meaning(sign)}")], SMALL, SMALL_LEADING + 2)
    if passage.has_unknown:
        sheet.add([_sample(0.0, True), Piece("  dotted frame: not in the vocabulary")], SMALL, SMALL_LEADING + 2)
    sheet.add([Piece(f"{passage.summary}.")], SMALL, SMALL_LEADING)
    for note in passage.notes:
        sheet.add([Piece(f"Note: {note}.")], SMALL, SMALL_LEADING)


def _sample(share: float, unknown: bool = False) -> Piece:
    return Piece("word", Shown("word", 0, 0, share, unknown), share)


def _lacking(letters: str) -> str:
    named = ", ".join(f"U+{ord(letter):04X}" for letter in letters[:8])
    more = f" and {len(letters) - 8} more" if len(letters) > 8 else ""
    return f"No font of this machine has {named}{more}: drawn as boxes. Save as .html or .svg to see them."


def _draw(draw: ImageDraw.ImageDraw, letters: Letters) -> None:
    run = letters.run
    left, top, right, bottom = letters.ground
    if run.piece.share:
        draw.rectangle((round(left), top, round(right) - 1, bottom), fill=painted(run.piece.share))
    draw.text((letters.x, letters.baseline), run.text, fill=letters.colour, font=run.font, anchor="ls")
    sign = marked(run.piece.share)
    if sign:
        for start, end in _strokes(left, right) if sign < 0 else [(left, right)]:
            draw.line((round(start), letters.line, round(end) - 1, letters.line), fill=letters.colour, width=2)
    if run.piece.word is not None and run.piece.word.unknown:
        for x in range(round(left), round(right), 3):
            draw.point([(x, top - 1), (x, bottom + 1)], fill=_GREY)
        for y in range(round(top) - 1, round(bottom) + 2, 3):
            draw.point([(left - 1, y), (right, y)], fill=_GREY)


def _strokes(left: float, right: float) -> Iterator[tuple[float, float]]:
    """The strokes of a dashed line."""
    start = left
    while start < right:
        yield start, min(start + _DASH[0], right)
        start += sum(_DASH)


def _svg(letters: Letters) -> str:
    run = letters.run
    left, top, right, bottom = letters.ground
    share, word = run.piece.share, run.piece.word
    colour = hexadecimal(letters.colour)
    parts = []
    if share:
        parts.append(_box(left, top, right, bottom, f'fill="{hexadecimal(painted(share))}"'))
    fitted = f' textLength="{run.width:.1f}" lengthAdjust="spacingAndGlyphs"' if len(run.text) > 1 else ""
    parts.append(
        f'<text x="{letters.x:.1f}" y="{letters.baseline:.1f}" font-size="{letters.size}" fill="{colour}"{fitted} '
        f'style="white-space: pre">{clean(run.text)}</text>'
    )
    sign = marked(share)
    if sign:
        dashes = f' stroke-dasharray="{_DASH[0]} {_DASH[1]}"' if sign < 0 else ""
        parts.append(
            f'<path d="M{left:.1f} {letters.line:.1f}H{right:.1f}" stroke="{colour}" stroke-width="2"{dashes}/>'
        )
    if word is not None and word.unknown:
        frame = f'fill="none" stroke="{hexadecimal(_GREY)}" stroke-dasharray="1 2"'
        parts.append(_box(left - 0.5, top - 0.5, right + 0.5, bottom + 0.5, frame))
    drawn = "".join(parts)
    return f"<g><title>{clean(said(word))}</title>{drawn}</g>" if word is not None else drawn


def _box(left: float, top: float, right: float, bottom: float, style: str) -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" {style}/>'
