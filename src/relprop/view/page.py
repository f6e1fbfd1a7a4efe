"""Explanations as HTML: one self-contained page, or a fragment for a notebook. No scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from relprop.view.inline import inlined
from relprop.view.layout import LEAST_SIDE, LONGER_SIDE, SHORTER_SIDE
from relprop.view.legend import Legend
from relprop.view.svg import clean, data_uri, hexadecimal


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with a caption below; `alt` is what a reader is told who doesn't see it.

    `image` is a pillow image, or an SVG document.
    """

    image: Image.Image | str
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """One explained input: the input itself, what is known of it as (label, value) pairs, its heatmaps."""

    heading: str
    picture: Picture | None = None
    facts: Sequence[tuple[str, str]] = ()
    heatmaps: Sequence[Picture] = ()
    legend: Legend | None = None


BESIDE = 2  # so many heatmaps stand beside the input, more in a row of their own

STYLE = """
.relprop { color: inherit; background: transparent; font: 1em/1.45 system-ui, sans-serif; }
.relprop section { margin: 0 0 2em; }
.relprop h2 { font-size: 1.15em; line-height: 1.3; margin: .3em 0 .6em; overflow-wrap: anywhere; }
.relprop .row { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; margin: 0 0 .8em; }
.relprop figure { margin: 0; min-width: 8em; }
.relprop figure.wide { flex: 1 1 100%; }
.relprop img { display: block; max-width: 100%; border: 1px solid #8886; box-sizing: border-box; }
.relprop img.pixels { image-rendering: pixelated; }
.relprop figcaption { font-size: .85em; margin: .25em 0 0; overflow-wrap: anywhere; }
.relprop dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em 1em; margin: 0; flex: 1 1 22em; }
.relprop dt { float: none; width: auto; margin: 0; padding: 0; font-weight: 400; white-space: nowrap; opacity: .75; }
.relprop dd { margin: 0; padding: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.relprop .legend { font-size: .85em; max-width: 30em; }
.relprop .legend p { margin: .2em 0; }
.relprop .ticks { display: flex; justify-content: space-between; }
.relprop .bar { height: .8em; border: 1px solid #8886; }
.relprop .swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid #8886; }
""".strip()

_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 72em; padding: 1.2em; color: #1c1e21; background: #ffffff; }
h1 { font: 600 1.5em/1.3 system-ui, sans-serif; overflow-wrap: anywhere; }
.relprop section { border-top: 1px solid #8886; padding-top: 1em; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181c; } }
@media (max-width: 30em) {
  .relprop dl { grid-template-columns: 1fr; }
  .relprop dd { margin: 0 0 .4em; }
  .relprop figure.map { flex: 1 1 40%; }
}
""".strip()


def page(title: str, sections: Sequence[Section], introduction: str = "") -> str:
    """A whole HTML document: the introduction, then the sections. Every text is escaped."""
    return document(title, _body(sections, introduction))


def document(title: str, body: str, style: str = "") -> str:
    """A whole HTML document around a `body` of HTML, with further `style`; the title is escaped."""
    name = clean(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{STYLE}\n{_PAGE_STYLE}\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{name}</h1>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def fragment(sections: Sequence[Section], note: str = "") -> str:
    """The sections for a place inside another page, whose text colour and background they take on.

    All style lies on the elements, and maps have the size they are shown in: what a notebook that is not trusted takes
    away is not needed.
    """
    return inlined(_body([_enlarged(section) for section in sections], note), STYLE)


def _enlarged(section: Section) -> Section:
    """The section with its maps, of a pixel for each value, in the size they are shown in."""
    photo = None if section.picture is None else _as_shown(section.picture)
    return replace(section, picture=photo, heatmaps=[_as_shown(each) for each in section.heatmaps])


def _as_shown(picture: Picture) -> Picture:
    if isinstance(picture.image, str) or picture.image.width >= _shown(*picture.image.size)[0]:
        return picture
    return replace(picture, image=picture.image.resize(_shown(*picture.image.size), Image.Resampling.NEAREST))


def definitions(facts: Sequence[tuple[str, str]]) -> str:
    """(label, value) pairs as a list, escaped."""
    pairs = "\n".join(f"<dt>{clean(label)}</dt><dd>{clean(value)}</dd>" for label, value in facts)
    return f"<dl>\n{pairs}\n</dl>"


def _body(sections: Sequence[Section], note: str) -> str:
    said = f"<p>{clean(note)}</p>\n" if note else ""
    return f'<div class="relprop">\n{said}' + "\n".join(_section(section) for section in sections) + "\n</div>"


def _section(section: Section) -> str:
    parts = ["<section>", f"<h2>{clean(section.heading)}</h2>"]
    about = [_figure(section.picture)] if section.picture is not None else []
    facts = [definitions(section.facts)] if section.facts else []
    maps = [_figure(heatmap) for heatmap in section.heatmaps]
    few = len(maps) <= BESIDE and not any(isinstance(each.image, str) for each in section.heatmaps)
    parts += _row([*about, *maps, *facts]) if few else _row([*about, *facts]) + _row(maps)
    if section.legend is not None:
        parts.append(_legend(section.legend))
    return "\n".join([*parts, "</section>"])


def _row(parts: list[str]) -> list[str]:
    return ['<div class="row">', *parts, "</div>"] if parts else []


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{clean(picture.caption)}</figcaption>" if picture.caption else ""
    source = f'src="{data_uri(picture.image)}" alt="{clean(picture.alt or picture.caption)}"'
    if isinstance(picture.image, str):
        return f'<figure class="wide"><img class="bars" {source}>{caption}</figure>'
    width, height = _shown(*picture.image.size)
    # Only a strip may be squeezed in one direction where the page is narrow; other maps stand there two in a row.
    strip = max(width, height) > 4 * min(width, height)
    kind, tall = ("", f"{height}px") if strip else (' class="map"', "auto")
    pixels = ' class="pixels"' if picture.image.width < width else ""
    return (
        f'<figure{kind} style="max-width: {width}px"><img{pixels} style="width: {width}px; height: {tall}" {source}>'
        f"{caption}</figure>"
    )


def _shown(width: int, height: int) -> tuple[int, int]:
    """The size on the page, in CSS pixels, of a picture of width x height."""
    factor = min(SHORTER_SIDE / min(width, height), LONGER_SIDE / max(width, height))
    return max(LEAST_SIDE, round(width * factor)), max(LEAST_SIDE, round(height * factor))


def _legend(legend: Legend) -> str:
    colours = legend.colours
    stops = colours(np.linspace(-1.0 if colours.diverging else 0.0, 1.0, 21)).tolist()
    gradient = ", ".join(hexadecimal((red, green, blue)) for red, green, blue in stops)
    ticks = " ".join(f"<span>{clean(tick)}</span>" for tick in legend.ticks)
    entries = "\n".join(
        f'<p><span class="swatch" style="background: {hexadecimal(colour)}"></span>{clean(meaning)}</p>'
        for colour, meaning in legend.entries
    )
    return (
        f'<div class="legend">\n<div class="bar" style="background: linear-gradient(to right, {gradient})"></div>\n'
        f'<div class="ticks">{ticks}</div>\n{entries}\n<p>{clean(legend.scale)}</p>\n</div>'
    )
