"""The HTML of a report: complete without scripts, and what the script needs to make it interactive."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relprop import __version__
from relprop.view.gallery import still
from relprop.view.gallery.assets import script, style
from relprop.view.gallery.item import LARGE, Balance, Entry, Figures, Item, balances
from relprop.view.gallery.words import LANGUAGES, SAID, Words, in_language, number, said
from relprop.view.panels import input_picture
from relprop.view.sheet import palette
from relprop.view.svg import clean

# Nothing is ever fetched: the browser itself is told to refuse.
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
OPEN_ROWS = 6  # a longer table of balances is closed at first
LEAST_NAMED = 1e-2  # of the largest cause; lesser ones are not named

STRIP = 28  # CSS pixels of a channel in a series, as in the viewer
TALLEST = 336  # of all channels together

Sheets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Contents:
    """What a report says besides its articles."""

    title: Words
    introduction: Words
    language: str
    entries: Sequence[Entry]
    failures: Sequence[tuple[str, str]]
    rounded: bool = False
    interrupted: bool = False

    @property
    def name(self) -> Words:
        """The title, or what stands for one."""
        return self.title or dict(zip(LANGUAGES, SAID["title"], strict=True))


def page(contents: Contents, article: Callable[[int], bytes]) -> Iterator[bytes]:
    """The document, piece by piece; `article(index)` gives what `article` made of each entry."""
    yield _head(contents).encode()
    for place, group in enumerate(dict.fromkeys(entry.under for entry in contents.entries)):
        members = [index for index, entry in enumerate(contents.entries) if entry.under == group]
        yield _group_head(place, [contents.entries[index] for index in members], contents.language).encode()
        yield from map(article, members)
        yield b"</div></section>\n"
    yield _foot(contents).encode()


def article(index: int, item: Item, entry: Entry, sheets: Sheets, language: str, bits: int = 32) -> str:
    """One input: its heading, the tiles with picture and heatmaps, its sheets for the script."""
    tiles = [_tile(sheet, figures, language) for sheet, figures in zip(sheets.values(), entry.figures, strict=True)]
    picture = (item.picture or _seen(item)) if entry.kind == "picture" else None
    if picture is not None:
        tiles.insert(0, _input(picture, entry, language))
    first, kinds = entry.figures[0], f"{entry.kind}{' large' if entry.large else ''}"
    stored = [sheet if bits == 32 else still.halved(sheet) for sheet in sheets.values()]
    return (
        f'<article class="item {kinds}" id="item-{index}" data-index="{index}" '
        f'data-class="{clean(entry.label)}" data-right="{_flag(entry.right)}">\n'
        f'<header><h3><a href="#item-{index}">{_words("span", item.name, language)}</a></h3>'
        f"{_badges(entry, language)}</header>\n"
        f'<p class="answer">{_said("score", language)} <b>{number(first.score)}</b> · '
        f"{_said('explained', language)} {_words('b', entry.explained, language)}</p>\n"
        f'<div class="tiles">{"".join(tiles)}</div>\n{_little(entry, language)}{_json(stored, "sheets")}</article>\n'
    )


def _flag(right: bool | None) -> str:
    return "" if right is None else "right" if right else "wrong"


def _seen(item: Item) -> Any:
    inputs = getattr(item.first, "inputs", None)
    return None if inputs is None or isinstance(inputs, (dict, tuple)) else input_picture(inputs[0].double().numpy())


def _badges(entry: Entry, language: str) -> str:
    if entry.truth is None or entry.right is None:
        return ""
    flag = _flag(entry.right)
    told = "" if entry.right else f" <span>({_said('truth', language)}: {clean(entry.truth)})</span>"
    return f'<p class="badge {flag}">{_said(flag, language)}{told}</p>'


def _input(picture: Any, entry: Entry, language: str) -> str:
    name = in_language(entry.name, language)
    small = ' class="pixels"' if max(picture.size) <= LARGE else ""
    return (
        f'<figure class="tile input"><img{small} width="{picture.width}" height="{picture.height}" decoding="async" '
        f'src="{still.data_uri(picture)}" {_said_of("alt", "alt_input", language, name=name)}>'
        f"<figcaption><b>{_said('input', language)}</b></figcaption></figure>"
    )


def _tile(sheet: Mapping[str, Any], figures: Figures, language: str) -> str:
    """A heatmap or painted text, its method, the sum of relevance and where the rest went."""
    title = clean(figures.title)
    said_below = (
        f'<figcaption><b>{clean(figures.title)}</b> <span class="figures">'
        f"{_said('sum_short', language, sum=number(figures.total))}"
        f"{_causes(figures, language)}</span></figcaption>"
    )
    if sheet["kind"] == "text":
        lang = f' lang="{clean(sheet["language"])}"' if sheet["language"] else ""
        drawn = f'<div class="drawn text" dir="auto"{lang}>{still.painted(sheet)}</div>'
        return f'<figure class="tile map" data-method="{title}">{said_below}{drawn}</figure>'
    heat = sheet["heat"]
    width, height = heat["width"], heat["height"]
    kind = ' class="pixels"' if max(width, height) <= LARGE or sheet["kind"] == "series" else ""
    tall = f' style="height:{max(40, min(TALLEST, STRIP * height))}px"' if sheet["kind"] == "series" else ""
    alt = _said_of("alt", "alt_map", language, title=figures.title, claim=sheet["claim"], sum=number(figures.total))
    drawn = (
        f'<div class="drawn"><img{kind}{tall} width="{width}" height="{height}" decoding="async" '
        f'src="{still.data_uri(still.heatmap(sheet))}" {alt}></div>'
    )
    return f'<figure class="tile map" data-method="{title}">{drawn}{said_below}</figure>'


def _little(entry: Entry, language: str) -> str:
    """A word on the methods that bring next to nothing of the score to the input."""
    methods = ", ".join(figures.title for figures in entry.figures if figures.little_arrived)
    return _said("little_arrived", language, "p", "little", methods=methods) + "\n" if methods else ""


def _causes(figures: Figures, language: str) -> str:
    """What was not passed to the input, the two largest causes of it."""
    named = _named(figures.absorbed or {})[:2]
    told = ", ".join(f"{_cause(cause, language)} {number(amount)}" for cause, amount in named)
    return f'<span class="lost">{told}</span>' if told else ""


def _named(absorbed: Mapping[str, float]) -> list[tuple[str, float]]:
    """The causes by size, without the negligible ones."""
    ordered = sorted(absorbed.items(), key=lambda item: -abs(item[1]))
    return [(cause, amount) for cause, amount in ordered if abs(amount) > LEAST_NAMED * abs(ordered[0][1])]


def _cause(cause: str, language: str) -> str:
    return _said(f"cause {cause}", language) if f"cause {cause}" in SAID else f"<span>{clean(cause)}</span>"


# The page around the articles


def _head(contents: Contents) -> str:
    language = contents.language
    title = clean(in_language(contents.name, language))
    introduction = _words("p", contents.introduction, language, "lead") if contents.introduction else ""
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta name="generator" content="relprop {__version__}">\n<title>{title}</title>\n'
        f'<style>\n{style()}\n</style>\n</head>\n<body>\n<header class="top">\n'
        f'<div class="bar"><p class="mark">relprop <span>·</span> {_said("mark", language)}</p>'
        f'<div class="preferences" id="preferences" hidden></div></div>\n'
        f"{_words('h1', contents.name, language)}\n{introduction}\n{_facts(contents)}\n{_legend(contents)}\n</header>\n"
        f"<main>\n{_balance(contents)}{_failures(contents)}"
        '<form class="tools" id="tools" hidden></form>\n'
    )


def _facts(contents: Contents) -> str:
    language, entries = contents.language, contents.entries
    known = [entry.right for entry in entries if entry.right is not None]
    facts = [_counted(len(entries), "one_input", "inputs", language)]
    if known:
        facts.append(_said("right_of", language, right=sum(known), known=len(known)))
    if contents.failures:
        facts.append(_counted(len(contents.failures), "one_failed", "failed", language))
    lines = [f'<p class="facts">{" <i>·</i> ".join(facts)}</p>']
    if contents.interrupted:
        lines.append(_said("interrupted", language, "p", "warning"))
    return "\n".join(lines)


def _counted(count: int, one: str, several: str, language: str) -> str:
    return _said(one, language) if count == 1 else _said(several, language, count=count)


def _legend(contents: Contents) -> str:
    language = contents.language
    unsigned = not all(each.signed for entry in contents.entries for each in entry.figures)
    further = f" {_said('reading_unsigned', language)}" if unsigned else ""
    return (
        f'<div class="key"><div class="scale"><span>{_said("against", language)}</span><i></i>'
        f"<span>{_said('for', language)}</span></div><p>{_said('reading', language)}{further}</p></div>"
    )


def _group_head(place: int, entries: Sequence[Entry], language: str) -> str:
    tiles = max(len(entry.figures) + (entry.kind == "picture") for entry in entries)
    looks = {"large": any(entry.large for entry in entries), "texts": any(entry.kind == "text" for entry in entries)}
    kinds = [name for name, fits in looks.items() if fits]
    group = entries[0].group
    heading = _words("h2", group, language) if group else ""
    return (
        f'<section class="group" id="group-{place}" data-group="{place}">{heading}\n'
        f'<div class="{" ".join(["items", *kinds])}" style="--tiles:{tiles}">\n'
    )


def _balance(contents: Contents) -> str:
    """The table of means: of each method in each group."""
    language, rows = contents.language, balances(contents.entries)
    if not rows:
        return ""
    grouped = len({in_language(row.group, language) for row in rows}) > 1 or bool(rows[0].group)
    columns = [*(["model"] if grouped else []), "method", "count", "score", "sum", "difference", "causes"]
    head = "".join(f'<th scope="col" class="{_aligned(key)}">{_said(key, language)}</th>' for key in columns)
    counts = Counter(in_language(row.group, language) for row in rows)
    body, before = [], None
    for row in rows:
        group = in_language(row.group, language)
        body.append(_balance_row(row, counts[group] if grouped and group != before else 0, language))
        before = group
    opened = " open" if len(rows) <= OPEN_ROWS else ""
    return (
        f'<details class="balance"{opened}><summary><h2>{_said("balance", language)}</h2></summary>'
        f'<p>{_said("balance_about", language)}</p><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>\n"
    )


def _aligned(key: str) -> str:
    return "figure" if key in ("count", "score", "sum", "difference") else "text"


def _balance_row(row: Balance, spanned: int, language: str) -> str:
    """A row; where `spanned` is above 0 it begins with the name of its group, which stands beside so many rows."""
    if not row.redistributes:
        lost = _said("no_redistribution", language)
    elif row.absorbed is None:
        lost = _said("unknown", language)
    else:
        named = [f"{_cause(cause, language)} {number(amount)}" for cause, amount in _named(row.absorbed)]
        lost = ", ".join(named) or _said("none", language)
    apart = number(row.difference).lstrip("+") if row.redistributes else "–"
    named_group = f'<td class="of" rowspan="{spanned}">{_words("span", row.group, language)}</td>' if spanned else ""
    return (
        f'<tr{" class=first" if spanned else ""}>{named_group}<th scope="row">{clean(row.title)}</th>'
        f'<td class="figure">{row.count}</td><td class="figure">{number(row.score)}</td>'
        f'<td class="figure">{number(row.total)}</td><td class="figure">{apart}</td><td>{lost}</td></tr>'
    )


def _failures(contents: Contents) -> str:
    if not contents.failures:
        return ""
    rows = "".join(f"<li><b>{clean(name)}</b> {clean(why)}</li>" for name, why in contents.failures)
    return f'<section class="failures"><h2>{_said("failures", contents.language)}</h2><ul>{rows}</ul></section>\n'


def _foot(contents: Contents) -> str:
    language = contents.language
    notes = dict.fromkeys(note for entry in contents.entries for note in entry.notes)
    listed = "".join(f"<li>{clean(note)}</li>" for note in notes)
    said_of_notes = f'<section class="notes"><h2>{_said("notes", language)}</h2><ul>{listed}</ul></section>'
    rounded = _said("rounded", language, "p") if contents.rounded else ""
    report = {
        "palette": palette(),
        "words": {name: {key: both[place] for key, both in SAID.items()} for place, name in enumerate(LANGUAGES)},
        "figures": [[_figures_of(each) for each in entry.figures] for entry in contents.entries],
        "facts": [_facts_of(entry) for entry in contents.entries],
    }
    return (
        f"{said_of_notes if listed else ''}</main>\n<footer>{rounded}"
        f"{_said('made_by', language, 'p', version=__version__)}</footer>\n"
        f'<dialog id="closer" aria-labelledby="closer-name"></dialog>\n{_json(report, "report")}'
        f'<script type="module">\n{script()}\n</script>\n</body>\n</html>\n'
    )


def _figures_of(figures: Figures) -> dict[str, Any]:
    """What inputs are sorted by, and what their colours mean."""
    return {
        "method": figures.title,
        "score": figures.score,
        "sum": figures.total,
        "difference": abs(figures.difference),
        "limit": figures.limit,
        "unit": "score" if figures.redistributes else figures.title,
    }


def _facts_of(entry: Entry) -> dict[str, Any]:
    """What the detail view says of an entry."""
    return {
        "model": entry.model,
        "explained": entry.explained if isinstance(entry.explained, str) else dict(entry.explained),
        "answer": entry.answer,
        "truth": entry.truth,
        "score": entry.figures[0].score,
        "notes": list(entry.notes),
    }


# Words and figures


def _said(key: str, language: str, tag: str = "span", kind: str = "", **values: str | int) -> str:
    """A sentence that the script can say in the other language."""
    filled = f' data-values="{clean(json.dumps(values))}"' if values else ""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<{tag}{of_kind} data-say="{key}"{filled}>{clean(said(key, language, **values))}</{tag}>'


def _said_of(attribute: str, key: str, language: str, **values: str) -> str:
    """The same in an attribute."""
    told = clean(said(key, language, **values))
    return f'{attribute}="{told}" data-say-{attribute}="{key}" data-values="{clean(json.dumps(values))}"'


def _words(tag: str, words: Words, language: str, kind: str = "") -> str:
    """What a user wrote, in one language or in several."""
    of_kind = f' class="{kind}"' if kind else ""
    several = "" if isinstance(words, str) else f' data-words="{clean(json.dumps(dict(words)))}"'
    return f"<{tag}{of_kind}{several}>{clean(in_language(words, language))}</{tag}>"


def _json(value: Any, name: str) -> str:
    """Data for the script. Without `<` it can't end the element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="{name}">{text}</script>\n'
