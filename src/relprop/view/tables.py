"""Figures in tables, for a notebook: no scripts, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from relprop.conservation import NOT_DIVIDED, Conservation
from relprop.view.inline import inlined
from relprop.view.legend import number
from relprop.view.page import STYLE, definitions
from relprop.view.svg import clean

_WORTH = 1e-6  # of the score, from where on a loss is listed

_STYLE = """
.relprop h3 { font-size: 1em; font-weight: 600; margin: 1.2em 0 .4em; }
.relprop .scroll { overflow: auto; max-height: 32em; margin: .8em 0; }
.relprop .grid { border-collapse: collapse; font-size: .9em; margin: 0; text-align: left; }
.relprop .grid th { font-weight: 600; opacity: .75; text-align: left; white-space: nowrap; padding: .3em 1.2em .3em 0;
  border-bottom: 1px solid #8888; background: transparent; }
.relprop .grid td { text-align: left; vertical-align: top; padding: .25em 1.2em .25em 0;
  border-bottom: 1px solid #8883; background: transparent; }
.relprop .grid tr { background: transparent; }
.relprop .grid th.figure, .relprop .grid td.figure { text-align: right; white-space: nowrap; }
.relprop .note { font-size: .9em; margin: .4em 0 0; opacity: .85; max-width: 60em; }
.relprop .chart { display: block; max-width: 100%; border: 0; border-radius: 6px; margin: 0 0 .8em; }
""".strip()


def fragment(parts: Sequence[str], heading: str = "") -> str:
    """Parts made by the functions below, for a place inside another page, whose colours they take on."""
    head = f"<h2>{clean(heading)}</h2>\n" if heading else ""
    return inlined(f'<div class="relprop">\n{head}' + "\n".join(parts) + "\n</div>", f"{STYLE}\n{_STYLE}")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), title: str = "") -> str:
    """Texts in rows, those in the columns `right` at its right edge; long tables scroll."""
    head = "".join(f"<th{_kind(place, right)}>{clean(name)}</th>" for place, name in enumerate(columns))
    body = "\n".join(
        "<tr>" + "".join(f"<td{_kind(place, right)}>{clean(cell)}</td>" for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    said = f"<h3>{clean(title)}</h3>\n" if title else ""
    return (
        f'{said}<div class="scroll"><table class="grid">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def balance(found: Conservation, rules: str = "") -> str:
    """The score, what of it reached the input, and what took up the rest, by cause; before it the rules, if given."""
    return definitions(
        [
            *([("rules", rules)] if rules else []),
            ("score", number(found.score)),
            ("sum of relevance", number(found.relevance)),
            ("not passed to the input", number(found.difference) if found.redistributes else NOT_DIVIDED),
            *((f"taken up by: {cause}", number(amount)) for cause, amount in _largest_first(found.absorbed)),
        ]
    )


def losses(found: Conservation) -> str:
    """A table of the operations that took up a millionth of the score or more, the largest first; "" if none did."""
    worth = _WORTH * abs(found.score)
    lossy = [op for op in found.operations if max(map(abs, op.absorbed.values()), default=0.0) > worth]
    rows = [
        (
            op.module or "-",
            op.function,
            op.rule or "-",
            number(op.received),
            number(op.passed),
            ", ".join(
                f"{cause} {number(amount)}" for cause, amount in _largest_first(op.absorbed) if abs(amount) > worth
            ),
        )
        for op in sorted(lossy, key=lambda op: -abs(op.difference))
    ]
    return table(("module", "operation", "rule", "in", "out", "lost to"), rows, right=(3, 4)) if rows else ""


def notes(sentences: Sequence[str]) -> str:
    """What a reader should know."""
    return "\n".join(f'<p class="note">{clean(sentence)}</p>' for sentence in sentences)


def chart(png: bytes, alt: str) -> str:
    """A picture of curves."""
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return f'<img class="chart" src="{source}" alt="{clean(alt)}">'


def _largest_first(absorbed: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(absorbed.items(), key=lambda each: -abs(each[1]))


def _kind(place: int, right: Sequence[int]) -> str:
    return ' class="figure"' if place in right else ""
