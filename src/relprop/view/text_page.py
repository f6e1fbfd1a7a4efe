"""Explained texts as HTML: a self-contained page, or a fragment for a notebook. No scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence

from relprop.view.colours import RGB
from relprop.view.inline import inlined
from relprop.view.legend import number
from relprop.view.page import STYLE, definitions, document
from relprop.view.svg import clean
from relprop.view.text import NEGATIVE, POSITIVE, Passage, Shown, listed, marked, said, takes_white

LISTED = 10  # words in the open part of the table

_STYLE = """
.relprop .texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26em), 1fr)); gap: 0 2em; }
.relprop .texts > section { min-width: 0; }
.relprop .text { font-size: 1.15em; line-height: 1.95; white-space: pre-wrap; unicode-bidi: plaintext;
  overflow-wrap: anywhere; word-break: keep-all; margin: 0 0 .8em; max-width: 48em; }
.relprop .p { border-radius: .2em .2em 0 0; padding: .12em 0; border-bottom: 2px solid; }
.relprop .n { border-radius: .2em .2em 0 0; padding: .12em 0; border-bottom: 2px dashed; }
.relprop .on { color: #fff; }
.relprop .unknown { outline: 1px dotted; outline-offset: 1px; }
.relprop .apart { font-size: .9em; line-height: 2; overflow-wrap: anywhere; margin: 0 0 .8em; }
.relprop .apart .w { display: inline-block; line-height: 1.4; padding: .12em .3em; }
.relprop .texts dl { font-size: .9em; margin: .8em 0 0; }
.relprop .key { margin-right: .5em; }
.relprop .ranks { border-collapse: collapse; font-size: .9em; margin: .8em 0 0; width: 100%; max-width: 30em; }
.relprop .ranks th { text-align: left; font-weight: normal; opacity: .75; }
.relprop .ranks td { text-align: left; }
.relprop .first tr { background: transparent; }
.relprop .first td, .relprop .first th { padding: .1em .6em .1em 0; border-bottom: 1px solid #8883;
  overflow-wrap: anywhere; }
.relprop .ranks td.figure, .relprop .ranks th.figure { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.relprop .rank { width: 2.5em; }
.relprop summary { cursor: pointer; font-size: .9em; margin: .6em 0 0; }
""".strip()

# Black and white give every colour the best contrast there is.
_PAGE_STYLE = """
.relprop .text, .relprop .apart, .relprop .key { color: #000; }
@media (prefers-color-scheme: dark) { .relprop .text, .relprop .apart, .relprop .key { color: #fff; } }
""".strip()


def page(passages: Sequence[Passage], title: str = "The words that were relevant") -> str:
    """A whole HTML document with all passages, beside each other where there is room. Every text is escaped."""
    return document(title, _body(passages), f"{_STYLE}\n{_PAGE_STYLE}")


def fragment(passages: Sequence[Passage], note: str = "") -> str:
    """The passages for a place inside another page, whose text colour and background they take on; all style lies on
    the elements."""
    said = f"<p>{clean(note)}</p>\n" if note else ""
    return inlined(said + _body(passages), f"{STYLE}\n{_STYLE}")


def _body(passages: Sequence[Passage]) -> str:
    sections = "\n".join(_section(passage) for passage in passages)
    return f'<div class="relprop">\n<div class="texts">\n{sections}\n</div>\n</div>'


def _section(passage: Passage) -> str:
    text = "".join(
        clean(piece.text) if piece.word is None else _word(piece.text, piece.word, piece.share)
        for piece in passage.pieces
    )
    parts = [f"<section>\n<h2>{clean(passage.heading)}</h2>", f'<div class="text" dir="auto">{text}</div>']
    if passage.apart:
        chips = " ".join(
            _word(f"{each.text} {number(each.relevance)}", each, passage.share(each)) for each in passage.apart
        )
        parts.append(f'<p class="apart">apart from the text: {chips}</p>')
    parts += [_legend(passage), definitions(passage.facts), _tables(passage), "</section>"]
    return "\n".join(parts)


def _word(text: str, word: Shown, share: float) -> str:
    classes = " ".join(["w", *_classes(share), *(["unknown"] if word.unknown else [])])
    return f'<span class="{classes}"{_background(share)} title="{clean(said(word))}">{clean(text)}</span>'


def _classes(share: float) -> list[str]:
    sign = marked(share)
    return [name for name, fits in (("p", sign > 0), ("n", sign < 0), ("on", takes_white(share))) if fits]


def _background(share: float) -> str:
    """The colour laid over the page's own background, so that zero shows nothing else, dark or light."""
    opacity = f"{abs(share):.3f}".rstrip("0").rstrip(".")
    return (
        f' style="background:rgba({_channels(POSITIVE if share > 0 else NEGATIVE)},{opacity})"'
        if opacity != "0"
        else ""
    )


def _legend(passage: Passage) -> str:
    limit = number(passage.limit)
    low = f"rgb({_channels(NEGATIVE)}), " if passage.has_sign else ""
    ticks = [f"-{passage.limit:.4g}", "0", limit] if passage.has_sign else ["0", limit]
    entries = [_entry(_sample(sign), f"{_told(sign)}: {passage.meaning(sign)}") for sign in passage.signs]
    if passage.has_unknown:
        entries.append(_entry('<span class="w unknown">word</span>', "dotted frame: not in the model's vocabulary"))
    bar = f"linear-gradient(to right, {low}transparent, rgb({_channels(POSITIVE)}))"
    return "\n".join(
        [
            f'<div class="legend">\n<div class="bar" style="background: {bar}"></div>',
            '<div class="ticks">' + " ".join(f"<span>{clean(tick)}</span>" for tick in ticks) + "</div>",
            *entries,
            f"<p>No colour: no relevance. {clean(passage.scale)}</p>\n</div>",
        ]
    )


def _entry(sample: str, meaning: str) -> str:
    return f'<p><span class="key">{sample}</span>{clean(meaning)}</p>'


def _sample(sign: int) -> str:
    share = 0.6 * sign
    return f'<span class="{" ".join(["w", *_classes(share)])}"{_background(share)}>word</span>'


def _told(sign: int) -> str:
    return "red, underlined" if sign > 0 else "blue, dashed underline"


def _tables(passage: Passage) -> str:
    words = passage.strongest
    if not words:
        return ""
    first = _table(words[:LISTED], 1)
    if len(words) <= LISTED:
        return first
    rest = _table(words[LISTED:], LISTED + 1)
    return f"{first}\n<details><summary>{_others(len(words) - LISTED)}</summary>\n{rest}\n</details>"


def _table(words: Sequence[Shown], rank: int) -> str:
    """The words from this rank on. There may be thousands after the first, so only those have lines."""
    rows = "\n".join(
        f'<tr><td class="figure">{place}</td><td><bdi>{clean(word.text)}</bdi>{_about(word)}</td>'
        f'<td class="figure">{number(word.relevance)}</td></tr>'
        for place, word in enumerate(words, start=rank)
    )
    return (
        f'<table class="ranks{" first" if rank == 1 else ""}">\n'
        '<thead><tr><th class="figure rank">rank</th><th>word</th><th class="figure">relevance</th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _about(word: Shown) -> str:
    """The parts of a word, and whether the model knows it."""
    about = [clean(listed(word.parts))] if word.parts else []
    if word.unknown:
        about.append("not in the vocabulary")
    return f" <small>({'; '.join(about)})</small>" if about else ""


def _channels(colour: RGB) -> str:
    return ",".join(map(str, colour))


def _others(count: int) -> str:
    return "the other word" if count == 1 else f"the other {count} words"
