"""Several explanations at once: a dict or list of them, which a notebook shows as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from relprop.attribution import MOST_IN_NOTEBOOK, Attribution
from relprop.errors import RelpropError

if TYPE_CHECKING:
    from relprop.text.attribution import TextAttribution
    from relprop.view.page import Section

Explanation = TypeVar("Explanation", Attribution, "TextAttribution")


class Comparison(dict[str, Explanation]):
    """Explanations of the same score, by the name of what made each; in a notebook their heatmaps side by side."""

    def _repr_html_(self: Comparison[Any]) -> str:
        texts = _texts(self.values())
        if texts:
            return _shown_texts(texts)
        return _shown(self, min(map(len, self.values()), default=0), lambda: _side_by_side(self))


class Explanations(list[Any]):
    """Explanations in their order, of several targets or texts; in a notebook one below the other."""

    def _repr_html_(self) -> str:
        texts = _texts(self)
        if texts:
            return _shown_texts(texts)
        return _shown(self, sum(map(len, self)), lambda: (part for each in self for part in _first(each)))


def _texts(several: Iterable[Any]) -> list[TextAttribution]:
    return [each for each in several if not isinstance(each, Attribution)]


def _shown_texts(texts: Sequence[TextAttribution]) -> str:
    from relprop.view.text_page import fragment

    return fragment([each.passage() for each in texts[:MOST_IN_NOTEBOOK]], _note(len(texts), "texts"))


def _shown(several: Any, count: int, sections: Callable[[], Iterable[Section]]) -> str:
    """The first sections of `count`; in words where there is no picture of them."""
    from relprop.view.page import fragment
    from relprop.view.svg import clean

    try:
        made = list(islice(sections(), MOST_IN_NOTEBOOK))
    except RelpropError as error:
        return f"<pre>{clean(repr(several))}</pre><p>{clean(str(error))}</p>"
    return fragment(made, _note(count, "samples"))


def _side_by_side(compared: Comparison[Any]) -> list[Section]:
    """A section for each of the first samples, with the heatmaps of all explanations."""
    from relprop.view.legend import Legend

    rows = [(name, _first(each)) for name, each in compared.items()]
    made = []
    for index, first in enumerate(rows[0][1] if rows else []):
        heatmaps = [
            replace(heatmap, caption=f"{name}: {heatmap.caption}", alt=f"{name}: {heatmap.alt}")
            for name, sections in rows
            for heatmap in sections[index].heatmaps
        ]
        facts = [fact for fact in first.facts if fact[0] in ("explained", "score")]
        made.append(replace(first, heatmaps=heatmaps, facts=facts, legend=None))
    if made:
        made[-1] = replace(made[-1], legend=Legend("what is explained", None))
    return made


def _first(attribution: Attribution) -> list[Section]:
    from relprop.view.style import Style

    return attribution[:MOST_IN_NOTEBOOK]._sections(None, Style(legend=True))


def _note(count: int, what: str) -> str:
    return f"The first {MOST_IN_NOTEBOOK} of {count} {what}." if count > MOST_IN_NOTEBOOK else ""
