"""How relevance flows through a Transformer, block by block and token by token, and through its attention heads."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index as whole_number
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from relprop.errors import InvalidFile, InvalidInput, NonFinite

if TYPE_CHECKING:
    from PIL import Image

    from relprop.view.flow_sheet import Sheet

Array = NDArray[np.float64]

PICTURES = (".png", ".svg", ".html")


class Drawing(ABC):
    """Something that is shown as one picture."""

    @abstractmethod
    def sheet(self) -> Sheet:
        """What is drawn, and what is said of it."""

    def to_pil(self, *, legend: bool = True) -> Image.Image:
        """The picture in RGB, with the legend below or without it."""
        from relprop.view.flow_files import picture

        return picture(self.sheet(), legend)

    def save(self, path: str | PathLike[str], *, legend: bool = True) -> None:
        """Writes .png, .svg or .html, as the ending says; the file appears complete or not at all.

        Raises InvalidFile where that can't be done.
        """
        from relprop.view.files import write_whole
        from relprop.view.flow_files import document, page

        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in PICTURES:
            raise InvalidFile(f"{path.name!r} names no picture: use one of the endings {', '.join(PICTURES)}.")
        if suffix == ".png":
            buffer = io.BytesIO()
            self.to_pil(legend=legend).save(buffer, "PNG", optimize=True)
            write_whole(path, buffer.getvalue())
            return
        made = document(self.sheet(), legend) if suffix == ".svg" else page(self.sheet(), legend)
        write_whole(path, made.encode())

    def _repr_html_(self) -> str:
        """The picture in a notebook, in the colours of the page, without scripts."""
        from relprop.view.flow_files import fragment

        return fragment(self.sheet(), legend=True)


@dataclass(frozen=True, eq=False, repr=False)
class Flow(Drawing):
    """The relevance of one sample at the output of every block, and what attention passed from token to token.

    Attributes:
        states: (blocks + 1, tokens), the input's relevance first, then that at each block's output, summed over its
            width; NaN in the first row where the input has no relevance token by token.
        passed: for each block (heads, queries, keys), what came to the query by way of each key, before attention
            weights and values share it.
        elsewhere: (blocks, tokens), what cross attention passed to the tokens of another part of the model.
        tokens: what is written below each column.
        blocks: the names of the blocks' modules, the first that runs first.
        claim, score: what positive relevance speaks for, and the value that was explained.
        rules: the preset or rules that redistributed it.
        token: the column whose flow is shown in colour, the others faintly; None for all.
        head: the attention head whose lines are shown; None for the sum of all.
        least: lines of less than this share of the widest are not drawn.
        notes: what a reader should know, as sentences.

    Raises NonFinite for relevance that has no picture, InvalidInput for a token, head or share that there is not.
    """

    states: Array
    passed: tuple[Array, ...]
    elsewhere: Array
    tokens: tuple[str, ...]
    blocks: tuple[str, ...]
    claim: str
    score: float
    rules: str = ""
    token: int | None = None
    head: int | None = None
    least: float = 0.1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(np.isfinite(values).all() for values in (self.states[1:], self.elsewhere, *self.passed)):
            raise NonFinite("the relevance inside the network holds NaN or infinity, so there is no picture of it")
        if not (isinstance(self.least, (int, float)) and 0 <= self.least < 1):
            raise InvalidInput(f"least={self.least!r} is not a share of the widest line; write a number such as 0.1")
        fewest = min(len(each) for each in self.passed)
        if self.head is not None and not 0 <= self.head < fewest:
            raise InvalidInput(f"head={self.head!r}: the blocks have {fewest} heads; write head=0 to head={fewest - 1}")

    def __repr__(self) -> str:
        return f"Flow({len(self.blocks)} blocks, {len(self.tokens)} tokens, {self.claim}: {self.score:+.4g})"

    @cached_property
    def messages(self) -> Array:
        """(blocks, queries, keys): what attention passed, of the chosen head or summed over heads."""
        return np.stack([each.sum(0) if self.head is None else each[self.head] for each in self.passed])

    @cached_property
    def kept(self) -> Array:
        """(blocks, tokens): what a state did not pass to other tokens: it went around attention, or to its own token.

        Of one head, what it passed to its own token.
        """
        own: Array = np.diagonal(self.messages, axis1=1, axis2=2)
        kept: Array = own if self.head is not None else self.states[1:] - self.elsewhere - self.messages.sum(-1) + own
        return kept

    def heads(self) -> Heads:
        """The relevance that passed through each head of each block, as a picture of its own."""
        most = max(len(each) for each in self.passed)
        values = np.full((len(self.blocks), most), np.nan)
        for row, each in zip(values, self.passed, strict=True):
            row[: len(each)] = each.sum((1, 2))
        return Heads(values, self.blocks, self.claim, self.score, self.rules, self.notes)

    def of(self, token: int | str) -> Flow:
        """The same flow with one token in colour, given by its column or by what is written below it."""
        return replace(self, token=place_of(token, self.tokens, "token"))

    def merged(self, groups: Sequence[Sequence[int]], names: Sequence[str]) -> Flow:
        """The flow between groups of tokens, each a column with its name; their relevance is added up."""
        joins = np.zeros((len(groups), len(self.tokens)))
        for row, places in zip(joins, groups, strict=True):
            row[list(places)] = 1.0
        chosen = None if self.token is None else int(joins[:, self.token].argmax())
        return replace(
            self,
            states=self.states @ joins.T,
            passed=tuple(joins @ each @ joins.T for each in self.passed),
            elsewhere=self.elsewhere @ joins.T,
            tokens=tuple(names),
            token=chosen,
        )

    def sheet(self) -> Sheet:
        from relprop.view.flow_sheet import flow_sheet

        return flow_sheet(self)


@dataclass(frozen=True, eq=False, repr=False)
class Heads(Drawing):
    """The relevance of one sample that passed through each attention head.

    Attributes:
        values: (blocks, heads); NaN where a block has fewer heads than others.
        blocks: the names of the blocks' modules, the first that runs first.
        claim, score, rules, notes: as for the flow.
    """

    values: Array
    blocks: tuple[str, ...]
    claim: str
    score: float
    rules: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Heads({self.values.shape[0]} blocks, {self.values.shape[1]} heads, {self.claim}: {self.score:+.4g})"

    def sheet(self) -> Sheet:
        from relprop.view.flow_sheet import heads_sheet

        return heads_sheet(self)


def place_of(wanted: int | str, names: Sequence[str], word: str) -> int:
    """The place of one of `names`, given by its index or by itself.

    `word` says in errors what the names are: the argument that was given. Raises InvalidInput for none or several.
    """
    if isinstance(wanted, str):
        places = [place for place, name in enumerate(names) if name == wanted]
        if len(places) == 1:
            return places[0]
        if places:
            raise InvalidInput(
                f"{word}={wanted!r} stands at {', '.join(map(str, places))}; write which, as {word}={places[0]}"
            )
        shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
        raise InvalidInput(f"there is no {word} {wanted!r}; there are {shown}")
    try:
        place = whole_number(wanted)
    except TypeError:
        raise InvalidInput(f"{word}={wanted!r}: write the {word} itself or its index, as {word}=0") from None
    if isinstance(wanted, bool) or not -len(names) <= place < len(names):
        raise InvalidInput(f"{word}={wanted!r}: there are {len(names)}; write {word}=0 to {word}={len(names) - 1}")
    return place % len(names)
