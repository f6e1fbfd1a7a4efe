"""Pictures of flow as PNG with letters of the system's fonts, as SVG with real text, and on HTML pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from PIL import Image, ImageDraw

from relprop.view.colours import RGB
from relprop.view.flow_sheet import MARGIN, SMALL, Box, Entry, Label, Sheet, Stroke
from relprop.view.inline import inlined
from relprop.view.page import STYLE
from relprop.view.page import document as html
from relprop.view.svg import clean, data_uri, hexadecimal
from relprop.view.text import INK, NEGATIVE, PAPER, POSITIVE, Piece, marked, painted, takes_white
from relprop.view.text_font import missing, runs, width
from relprop.view.text_layout import lines

LEADING = 21
LEAST_WIDTH = 460  # room for the legend
_FINE = 3  # how many times larger shapes are drawn, for smooth edges
_GREY: RGB = (128, 128, 128)
_FRAME: RGB = (204, 204, 204)
_HAIR: RGB = (224, 224, 224)
_DASH = (5.0, 3.0)
_LEAST_STRENGTH = 0.4  # of a line's colour, so that a thin one is still seen

_STYLE = """
.relprop .flow { overflow-x: auto; margin: 0 0 .8em; }
.relprop .flow svg { display: block; max-width: max(100%, 60em); height: auto; }
.relprop .flow .still { display: block; max-width: 100%; border: 0; border-radius: 6px; }
.relprop .legend .sample { display: inline-block; border: 0; vertical-align: -.15em; margin-right: .5em; }
.relprop .legend.flows { max-width: 60em; }
""".strip()


def picture(sheet: Sheet, legend: bool) -> Image.Image:
    """The sheet as an RGB picture."""
    wide, high = _size(sheet, legend)
    sheet = _with_legend(sheet, wide) if legend else sheet
    fine = Image.new("RGB", (wide * _FINE, high * _FINE), PAPER)
    draw = ImageDraw.Draw(fine)
    for stroke in sheet.strokes:
        _draw_stroke(draw, stroke)
    for box in sheet.boxes:
        _draw_box(draw, box)
    made = fine.resize((wide, high), Image.Resampling.BOX)
    for label in sheet.labels:
        _draw_label(made, label)
    return made


def document(sheet: Sheet, legend: bool) -> str:
    """The sheet as a self-contained SVG document, titled and described for screen readers."""
    wide, high = _size(sheet, legend)
    whole = _with_legend(sheet, wide) if legend else sheet
    ground = f'<rect width="{wide}" height="{high}" fill="#fff"/>\n'
    return _svg(whole, wide, high, ground, "#000", named=True) + "\n"


def page(sheet: Sheet, legend: bool) -> str:
    """A whole HTML document, light or dark as the reader likes it."""
    drawn = _svg(sheet, sheet.width, sheet.height, "", "currentColor", named=False)
    shown = f'<div class="flow" role="img" aria-label="{clean(sheet.description)}">{drawn}</div>'
    entries = [(_sample(entry, "currentColor"), entry.text) for entry in sheet.legend if legend]
    return html("How relevance flowed", _body(sheet, shown, entries), _STYLE)


def fragment(sheet: Sheet, legend: bool) -> str:
    """The picture for a place inside another page, on paper of its own.

    It stands there as an image, since drawings are taken out of a notebook that is not trusted, but for their words.
    """
    still = f'<img class="still" src="{data_uri(document(sheet, legend=False))}" alt="{clean(sheet.description)}">'
    samples = [_sample(entry, "#808080") for entry in sheet.legend if legend]
    entries = [
        (f'<img class="sample" src="{data_uri(drawn)}" alt="">' if drawn else "", entry.text)
        for drawn, entry in zip(samples, sheet.legend, strict=False)
    ]
    return inlined(_body(sheet, f'<div class="flow">{still}</div>', entries), f"{STYLE}\n{_STYLE}")


def _body(sheet: Sheet, shown: str, entries: Sequence[tuple[str, str]]) -> str:
    """The heading, what shows the sheet, and the legend: (sample, text)."""
    legend = "\n".join(f"<p>{sample}{clean(text)}</p>" for sample, text in entries)
    return (
        f'<div class="relprop">\n<section>\n<h2>{clean(sheet.heading)}</h2>\n{shown}\n'
        f'<div class="legend flows">\n{legend}\n</div>\n</section>\n</div>'
    )


def _sample(entry: Entry, ink: str) -> str:
    """The cell that an entry of the legend speaks of, as a drawing; "" where there is none."""
    if entry.sample is None:
        return ""
    box = entry.sample
    drawn = "".join(_svg_box(replace(box, x=1, y=1), ink))
    wide, high = round(box.width) + 2, round(box.height) + 2
    size = f'width="{wide}" height="{high}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="sample" {size} aria-hidden="true">{drawn}</svg>'


def _size(sheet: Sheet, legend: bool) -> tuple[int, int]:
    if not legend:
        return sheet.width, sheet.height + MARGIN
    wide = max(sheet.width, LEAST_WIDTH)
    last = max((each.y for each in _legend(sheet, wide)), default=sheet.height)
    return wide, math.ceil(last + LEADING / 2 + MARGIN)


def _with_legend(sheet: Sheet, wide: int) -> Sheet:
    """The sheet with the legend among what is drawn."""
    drawn = list(_legend(sheet, wide))
    return replace(
        sheet,
        boxes=[*sheet.boxes, *(each for each in drawn if isinstance(each, Box))],
        labels=[*sheet.labels, *(each for each in drawn if isinstance(each, Label))],
    )


def _legend(sheet: Sheet, wide: int) -> Iterator[Box | Label]:
    """The heading and the legend in words, as things to draw below the figure."""
    y = sheet.height + MARGIN + 0.0
    letters = "".join(label.text for label in sheet.labels)
    lacking = missing(letters, SMALL)
    notes = [Entry(f"No font of this machine has all letters ({lacking[:8]}).")] if lacking else []
    for entry in (Entry(sheet.heading), *sheet.legend, *notes):
        indent = 0.0
        if entry.sample is not None:
            yield replace(entry.sample, x=float(MARGIN), y=y - entry.sample.height / 2)
            indent = entry.sample.width + 8
        for line in lines([Piece(entry.text)], SMALL, wide - 2 * MARGIN - indent):
            yield Label(MARGIN + indent, y, "".join(run.text for run in line))
            y += LEADING


def _sign(share: float) -> RGB:
    return POSITIVE if share > 0 else NEGATIVE


def _strength(stroke: Stroke) -> float:
    """How much of its colour a line has."""
    return _LEAST_STRENGTH + (1 - _LEAST_STRENGTH) * abs(stroke.share)


def _dashes(box: Box) -> list[tuple[float, float]]:
    """The mark at the foot of a cell, which says its sign: (left, right) of its strokes."""
    sign = marked(box.share) if box.strength == 1 and not math.isnan(box.share) else 0
    left, right = box.x + 3, box.x + box.width - 3
    if sign >= 0:
        return [(left, right)] if sign else []
    count = max(2, round((right - left) / 7))
    step = (right - left) / count
    return [(left + place * step + 1, left + (place + 1) * step - 1) for place in range(count)]


# As PNG


def _draw_box(draw: ImageDraw.ImageDraw, box: Box) -> None:
    corners = [edge * _FINE for edge in (box.x, box.y, box.x + box.width, box.y + box.height)]
    if math.isnan(box.share):
        draw.rectangle(corners, fill=PAPER)
        for edge in (1, 3):
            _draw_dots(draw, (corners[0], corners[edge]), (corners[2], corners[edge]))
        for edge in (0, 2):
            _draw_dots(draw, (corners[edge], corners[1]), (corners[edge], corners[3]))
        return
    share = box.share * box.strength
    draw.rectangle(corners, fill=painted(share), outline=_FRAME, width=_FINE)
    foot = (box.y + box.height - 4) * _FINE
    for left, right in _dashes(box):
        draw.line((left * _FINE, foot, right * _FINE, foot), fill=PAPER if takes_white(share) else INK, width=2 * _FINE)


def _draw_dots(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float]) -> None:
    length = math.dist(start, end)
    for step in range(0, round(length), 4 * _FINE):
        x, y = (a + (b - a) * step / length for a, b in zip(start, end, strict=True))
        draw.rectangle((x, y, x + _FINE, y + _FINE), fill=_GREY)


def _draw_stroke(draw: ImageDraw.ImageDraw, stroke: Stroke) -> None:
    colour = painted(math.copysign(_strength(stroke), stroke.share)) if stroke.share else _HAIR
    for start, end in _dashed(stroke) if stroke.share < 0 else [(stroke.start, stroke.end)]:
        ends = [coordinate * _FINE for point in (start, end) for coordinate in point]
        draw.line(ends, fill=colour, width=max(1, round(stroke.width * _FINE)))


def _dashed(stroke: Stroke) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The strokes of a dashed line."""
    (x, y), (end_x, end_y) = stroke.start, stroke.end
    length = math.hypot(end_x - x, end_y - y)
    at = 0.0
    while at < length:
        one, other = at / length, min(at + _DASH[0], length) / length
        yield (x + (end_x - x) * one, y + (end_y - y) * one), (x + (end_x - x) * other, y + (end_y - y) * other)
        at += sum(_DASH)


def _draw_label(made: Image.Image, label: Label) -> None:
    wide = width(label.text, SMALL)
    if not label.upright:
        start = label.x - {"start": 0.0, "middle": wide / 2, "end": wide}[label.anchor]
        _write(ImageDraw.Draw(made), start, label.y + 0.36 * SMALL, label.text, INK, PAPER, label.bold)
        return
    mask = Image.new("L", (math.ceil(wide) + 4, SMALL + 8))
    _write(ImageDraw.Draw(mask), 0, 0.5 * mask.height + 0.36 * SMALL, label.text, 255, 0, label.bold)
    turned = mask.rotate(90, expand=True)
    # The last letter is at the top.
    top = label.y - (mask.width - wide)
    made.paste(INK, (round(label.x - turned.width / 2), round(top)), turned)


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, ink: RGB | int, paper: RGB | int, bold: bool
) -> None:
    for font, letters in runs(text, SMALL):
        draw.text((x, y), letters, fill=ink, font=font, anchor="ls", stroke_width=0.25 if bold else 0, stroke_fill=ink)
        x += float(font.getlength(letters))


# As SVG


def _svg(sheet: Sheet, wide: int, high: int, ground: str, ink: str, *, named: bool) -> str:
    title = f"<title>{clean(sheet.heading)}</title>\n<desc>{clean(sheet.description)}</desc>\n" if named else ""
    shapes = [
        *(_svg_stroke(stroke) for stroke in sheet.strokes),
        *(part for box in sheet.boxes for part in _svg_box(box, ink)),
        *(_svg_label(label) for label in sheet.labels),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="{SMALL}" fill="{ink}">\n{title}{ground}'
        + "\n".join(shapes)
        + "\n</svg>"
    )


def _svg_box(box: Box, ink: str) -> list[str]:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    said = f"<title>{clean(box.said)}</title>" if box.said else ""
    if math.isnan(box.share):
        return [f'<rect {place} fill="none" stroke="#808080" stroke-dasharray="1 3">{said}</rect>']
    share = box.share * box.strength
    colour = f'fill="{hexadecimal(_sign(share))}" fill-opacity="{abs(share):.3f}"'
    parts = [f'<rect {place} {colour} stroke="#808080" stroke-opacity="0.45">{said}</rect>']
    strokes = "".join(f"M{left:.1f} {box.y + box.height - 4:.1f}H{right:.1f}" for left, right in _dashes(box))
    if strokes:
        parts.append(f'<path d="{strokes}" stroke="{"#fff" if takes_white(share) else ink}" stroke-width="2"/>')
    return parts


def _svg_stroke(stroke: Stroke) -> str:
    (x, y), (end_x, end_y) = stroke.start, stroke.end
    colour = f'stroke="{hexadecimal(_sign(stroke.share))}" stroke-opacity="{_strength(stroke):.2f}"'
    if not stroke.share:
        colour = 'stroke="#808080" stroke-opacity="0.25"'
    dashes = f' stroke-dasharray="{_DASH[0]:g} {_DASH[1]:g}"' if stroke.share < 0 else ""
    return (
        f'<path d="M{x:.1f} {y:.1f}L{end_x:.1f} {end_y:.1f}" {colour} stroke-width="{stroke.width:.1f}"{dashes}>'
        f"<title>{clean(stroke.said)}</title></path>"
    )


def _svg_label(label: Label) -> str:
    weight = ' font-weight="bold"' if label.bold else ""
    if label.upright:
        x, y = label.x + 0.36 * SMALL, label.y
        place = f'transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="end"'
    else:
        place = f'x="{label.x:.1f}" y="{label.y + 0.36 * SMALL:.1f}" text-anchor="{label.anchor}"'
    return f'<text {place}{weight} style="white-space: pre">{clean(label.text)}</text>'
