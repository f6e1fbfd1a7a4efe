"""Where everything goes in a picture of flow: cells in rows of tokens, lines between them. Lengths are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from relprop.view.flow import Flow, Heads
from relprop.view.legend import number
from relprop.view.text_font import width
from relprop.view.text_layout import plain

Array = NDArray[np.float64]

MARGIN = 16
SMALL = 13  # the size of letters
GAP = 6
CELL = 22  # the height of a cell
ROOM = (920, 460)  # what columns and rows share, where they have room
COLUMNS = (16, 40, 96)  # the least width, the most under upright words, the most
ROWS = (58, 84)  # from row to row, cell included
WIDEST = 7.0  # of a line
HAIR = 0.8
AIR = 3  # between a cell and its lines
FAINT = 0.18  # of the strength of a colour, for what is not about the chosen token
LONGEST = 110  # a word's length below its column
MOST_COLUMNS = 72
HEAD = 34  # from head to head


@dataclass(frozen=True)
class Box:
    """A cell, `share` of full colour; NaN for one that has no relevance. `strength` in (0, 1] pales it."""

    x: float
    y: float
    width: float
    height: float
    share: float
    said: str = ""
    strength: float = 1.0


@dataclass(frozen=True)
class Stroke:
    """A line; `share` has its sign and its strength, 0 for a grey one."""

    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    share: float
    said: str = ""


@dataclass(frozen=True)
class Label:
    """A line of letters; (x, y) is on its middle height, at its start, middle or end as `anchor` says.

    `upright` letters run from below upwards and end at y.
    """

    x: float
    y: float
    text: str
    anchor: str = "start"
    upright: bool = False
    bold: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of the legend, after a cell such as it speaks of."""

    text: str
    sample: Box | None = None


@dataclass
class Sheet:
    """A picture as a list of things to draw, and what is said of it."""

    heading: str
    description: str
    width: int = 0
    height: int = 0
    boxes: list[Box] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    legend: list[Entry] = field(default_factory=list)


def flow_sheet(flow: Flow) -> Sheet:
    """Rows of cells, the input below and the last block on top; lines from each query down to the keys."""
    flow, gathered = _gathered(flow)
    rows, columns = flow.states.shape
    column, upright = _column(flow.tokens)
    pitch = min(max(ROOM[1] / rows, ROWS[0]), ROWS[1])
    left = _left(rows)
    places = _Places(left, column, [MARGIN + pitch * (rows - 1 - row) for row in range(rows)])
    sheet = Sheet(_heading(flow), _told(flow))
    limit = _cells(sheet, flow, places)
    right = left + columns * column + GAP
    sheet.width = _ends(sheet, [_row(row) for row in range(rows)], flow.states.sum(1), places.tops, right)
    sheet.height = round(_words(sheet, flow, places, upright) + GAP)
    said = _lines(sheet, flow, places)
    about = [] if flow.token is None else [Entry(f"In colour: what goes by way of {flow.tokens[flow.token]!r}.")]
    sheet.legend = [
        *about,
        *_colours(sheet, flow.claim, limit, "these cells" if flow.token is None else "its cells"),
        *said,
    ]
    if gathered:
        sheet.legend.append(Entry(f"…: {gathered} tokens of little relevance, those side by side added up."))
    if not np.isfinite(flow.states[0]).all():
        sheet.legend.append(Entry("dotted frame: the relevance of this input is not by token", _sample(float("nan"))))
    sheet.legend += [Entry(f"Note: {note}.") for note in flow.notes]
    return sheet


def heads_sheet(heads: Heads) -> Sheet:
    """A cell for each head, a row for each block, the last on top."""
    rows, columns = heads.values.shape
    left, tops = _left(rows), [MARGIN + (rows - 1 - row) * (CELL + GAP) for row in range(rows)]
    limit = float(np.nanmax(np.abs(heads.values)))
    sheet = Sheet(_heading(heads), f"Relevance of {columns} attention heads in {rows} blocks.")
    for row, values in enumerate(heads.values.tolist()):
        sheet.boxes += [
            Box(
                left + head * HEAD,
                tops[row],
                HEAD - 4,
                CELL,
                value / (limit or 1.0),
                f"{_row(row + 1)}, head {head}: {number(value)}",
            )
            for head, value in enumerate(values)
            if np.isfinite(value)
        ]
    y = MARGIN + rows * (CELL + GAP) + SMALL / 2
    sheet.labels += [Label(left + (head + 0.5) * HEAD - 2, y, str(head), "middle") for head in range(columns)]
    sheet.labels.append(Label(left - 2 * GAP, y, "head", "end"))
    names = [_row(row + 1) for row in range(rows)]
    sheet.width = _ends(sheet, names, np.nansum(heads.values, axis=1), tops, left + columns * HEAD + GAP)
    sheet.height = round(y + SMALL / 2 + GAP)
    sheet.legend = [
        *_colours(sheet, heads.claim, limit, "these heads"),
        Entry("Each cell: what passed through a head, over all queries and keys. Heads are counted from 0."),
        *(Entry(f"Note: {note}.") for note in heads.notes),
    ]
    return sheet


def _row(row: int) -> str:
    """What a row of states is called."""
    return f"block {row}" if row else "input"


def _left(rows: int) -> float:
    """Where the cells start, after the names of the rows."""
    return MARGIN + max(_length(_row(row)) for row in range(rows + 1)) + 2 * GAP


def _ends(sheet: Sheet, names: Sequence[str], totals: Array, tops: Sequence[float], right: float) -> int:
    """Adds the names of the rows before them, and their sums behind, where they are known; returns the width of all."""
    sums = [f"sum {number(total)}" if np.isfinite(total) else "" for total in totals.tolist()]
    for name, total, top in zip(names, sums, tops, strict=True):
        sheet.labels.append(Label(_left(len(names)) - 2 * GAP, top + CELL / 2, name, "end"))
        sheet.labels.append(Label(right, top + CELL / 2, total))
    return round(right + max(map(_length, sums)) + MARGIN)


@dataclass(frozen=True)
class _Places:
    """Where columns and rows are."""

    left: float
    column: float
    tops: Sequence[float]

    def middle(self, token: int) -> float:
        """The middle of a column."""
        return self.left + (token + 0.5) * self.column


def _gathered(flow: Flow) -> tuple[Flow, int]:
    """The flow with at most MOST_COLUMNS columns: beside the strongest tokens the others are added up, those that stand
    side by side in one column; and how many tokens those are."""
    size = len(flow.tokens)
    if size <= MOST_COLUMNS:
        return flow, 0
    strength = np.nanmax(np.abs(flow.states), axis=0)
    if flow.token is not None:
        strength[flow.token] = np.inf
    order = np.argsort(-strength, kind="stable")
    for count in range(MOST_COLUMNS, 0, -1):
        groups: list[list[int]] = []
        chosen = set(order[:count].tolist())
        for place in range(size):
            if place in chosen or not groups or groups[-1][-1] in chosen:
                groups.append([place])
            else:
                groups[-1].append(place)
        if len(groups) <= MOST_COLUMNS:
            break
    names = [flow.tokens[group[0]] if group[0] in chosen else "…" for group in groups]
    return flow.merged(groups, names), size - count


def _column(tokens: Sequence[str]) -> tuple[float, bool]:
    """How wide columns are, and whether the words below run upwards."""
    longest = max(_length(name) for name in tokens) + 2 * GAP
    if longest <= COLUMNS[2] and longest * len(tokens) <= ROOM[0]:
        return max(longest, COLUMNS[1]), False
    return min(max(ROOM[0] / len(tokens), COLUMNS[0]), COLUMNS[1]), True


def _cells(sheet: Sheet, flow: Flow, places: _Places) -> float:
    """Adds a cell for each state; returns the relevance of full colour: of the chosen token's column, or of all."""
    about = flow.states if flow.token is None else flow.states[:, flow.token]
    limit = float(np.nanmax(np.abs(about), initial=0.0))
    gap = 4 if places.column >= 24 else 2
    for row, values in enumerate(flow.states.tolist()):
        for token, value in enumerate(values):
            said = f"{flow.tokens[token]}, {_row(row)}: {number(value) if np.isfinite(value) else 'not by token'}"
            sheet.boxes.append(
                Box(
                    places.middle(token) - places.column / 2 + gap / 2,
                    places.tops[row],
                    places.column - gap,
                    CELL,
                    max(-1.0, min(1.0, value / (limit or 1.0))) if np.isfinite(value) else value,
                    said,
                    1.0 if flow.token in (None, token) else FAINT,
                )
            )
    return limit


def _lines(sheet: Sheet, flow: Flow, places: _Places) -> list[Entry]:
    """Adds the lines between neighbouring rows, the weakest first; returns what the legend says of them."""
    layers, size = flow.kept.shape
    layer, query, key = np.indices((layers, size, size)).reshape(3, -1)
    slanted = query != key
    passed = _Kind(layer[slanted], query[slanted], key[slanted], flow.messages.ravel()[slanted])
    layer, query = np.indices((layers, size)).reshape(2, -1)
    kept = _Kind(layer, query, query, flow.kept.ravel())
    said, left_out = [], 0
    for kind, meaning in ((kept, "Upright"), (passed, "Slanted")):
        about = kind.about(flow.token)
        limit = float(np.abs(kind.value[about]).max(initial=0.0))
        strong = np.abs(kind.value) >= max(flow.least * limit, np.finfo(float).tiny)
        left_out += int((about & ~strong & (kind.value != 0)).sum())
        if flow.token is not None:
            of_all = flow.least * float(np.abs(kind.value).max(initial=0.0))
            sheet.strokes += kind.strokes((np.abs(kind.value) >= of_all) & ~about, 0.0, flow, places)
        sheet.strokes += kind.strokes(strong & about, limit, flow, places)
        said.append(Entry(f"{meaning} lines: {_MEANING[meaning, flow.head is not None]}; the widest is {limit:.4g}."))
    said.append(Entry("Each kind of line has a scale of its own. On the right: the sum of each row."))
    if left_out:
        said.append(Entry(f"Lines left out: {left_out:,}, each with less than {flow.least:.0%} of the widest."))
    if flow.head is not None:
        said.append(Entry(f"Lines of head {flow.head} alone, counted from 0; cells of the whole network."))
    return said


_PASSED = "relevance that attention passed from a token (above) to one that it looked at (below)"
_MEANING = {  # by kind of line, and whether it is of one head
    ("Upright", False): "relevance that stayed on the token, around attention or by way of it",
    ("Upright", True): "relevance that attention passed from a token to itself",
    ("Slanted", False): _PASSED,
    ("Slanted", True): _PASSED,
}


@dataclass(frozen=True)
class _Kind:
    """Lines of one kind: from `query` in the row above to `key` in the row of `layer`."""

    layer: NDArray[np.intp]
    query: NDArray[np.intp]
    key: NDArray[np.intp]
    value: Array

    def about(self, token: int | None) -> NDArray[np.bool_]:
        """Which of them go by way of a token."""
        if token is None:
            return np.ones(len(self.value), dtype=bool)
        about: NDArray[np.bool_] = (self.query == token) | (self.key == token)
        return about

    def strokes(self, which: NDArray[np.bool_], limit: float, flow: Flow, places: _Places) -> list[Stroke]:
        """These lines, the weakest first; with no limit, grey hairs."""
        widest = min(WIDEST, places.column / 3)
        made = []
        for place in np.flatnonzero(which)[np.argsort(np.abs(self.value[which]), kind="stable")].tolist():
            layer, query, key = int(self.layer[place]), int(self.query[place]), int(self.key[place])
            share = float(self.value[place]) / limit if limit else 0.0
            above, below = flow.tokens[query], flow.tokens[key]
            ends = above if query == key else f"{above} to {below}"
            made.append(
                Stroke(
                    (places.middle(query), places.tops[layer + 1] + CELL + AIR),
                    (places.middle(key), places.tops[layer] - AIR),
                    max(HAIR, widest * abs(share)),
                    share,
                    f"block {layer + 1}, {ends}: {number(float(self.value[place]))}",
                )
            )
        return made


def _words(sheet: Sheet, flow: Flow, places: _Places, upright: bool) -> float:
    """Adds the words below the columns; returns where they end."""
    top = places.tops[0] + CELL + GAP
    shown = [_elided(name) for name in flow.tokens]
    for token, text in enumerate(shown):
        y = top if upright else top + SMALL / 2
        sheet.labels.append(Label(places.middle(token), y, text, "middle", upright, token == flow.token))
    return top + (max(map(_length, shown)) if upright else SMALL + 4)


def _elided(name: str) -> str:
    """A token as it is written: on one line, cut with an ellipsis where it is long."""
    text = plain(name).replace("\n", "↵")
    if not text.strip():
        text = "␣" * len(text)
    if _length(text) <= LONGEST:
        return text
    while text and _length(text + "…") > LONGEST:
        text = text[:-1]
    return text + "…"


def _length(text: str) -> float:
    return width(text, SMALL)


def _colours(sheet: Sheet, claim: str, limit: float, what: str) -> list[Entry]:
    """What the colours of the cells and lines say; `limit` is the relevance of full colour."""
    shares = [box.share for box in sheet.boxes] + [stroke.share for stroke in sheet.strokes]
    signs = [1, -1] if any(share < 0 for share in shares) else [1]
    full = f"Full colour: a relevance of {limit:.4g}, the largest of {what}." if limit else ""
    told = {1: ("red, solid", "for"), -1: ("blue, dashed", "against")}
    return [
        *(Entry(f"{told[sign][0]}: evidence {told[sign][1]} {claim}", _sample(0.6 * sign)) for sign in signs),
        Entry(f"No colour: no relevance. {full}".strip()),
    ]


def _sample(share: float) -> Box:
    return Box(0, 0, 24, 14, share)


def _heading(shown: Flow | Heads) -> str:
    """What was explained, by which rules."""
    return f"{shown.claim}: {number(shown.score)}" + (f" ({shown.rules})" if shown.rules else "")


def _told(flow: Flow) -> str:
    """The figures in sentences, for those who don't see the picture."""
    sums = flow.states.sum(1).tolist()
    rows = "; ".join(f"{_row(row)} {number(total)}" for row, total in enumerate(sums) if np.isfinite(total))
    return f"Relevance of {len(flow.tokens)} tokens through {len(flow.blocks)} blocks. Sums: {rows}."
