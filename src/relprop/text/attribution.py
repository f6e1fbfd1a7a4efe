"""What an explanation of a text is: relevance of its tokens and words; showing and saving it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from relprop.attribution import Attribution
from relprop.conservation import Conservation
from relprop.errors import InvalidFile
from relprop.text.encoding import Encoding

if TYPE_CHECKING:
    from PIL import Image

    from relprop.view.flow import Flow
    from relprop.view.text import Passage

FIGURES = (".json", ".npz")
STRONGEST = 10


@dataclass(frozen=True)
class Token:
    """What the model was given at one place, and its relevance; `start` and `end` are places in the text.

    `word` is the number that the tokenizer gives the token's word, None for special tokens.
    """

    token: str
    id: int
    start: int
    end: int
    relevance: float
    special: bool = False
    unknown: bool = False
    word: int | None = None


@dataclass(frozen=True)
class Word:
    """A word of the text, text[start:end], with the summed relevance of its `tokens`, given by their places.

    `unknown` says that a token of it is not in the vocabulary.
    """

    text: str
    start: int
    end: int
    relevance: float
    tokens: tuple[int, ...]
    unknown: bool = False


@dataclass(eq=False, repr=False, frozen=True)
class TextAttribution:
    """The relevance of every token and word of one text for a score.

    `relevance`, `score`, `target`, `total`, `conservation`, `rules`, `notes` and the like are those of `attribution`.

    Attributes:
        encoding: the text and its tokens.
        attribution: the explanation of the token ids, a batch of one; its relevance is (1, tokens).
        method: what computed it, as "lrp".
        has_sign: whether relevance speaks for and against; that of "gradient" only says how much the score reacts.
        source: where the text is from, which pictures of several texts tell; give it with dataclasses.replace.
        claim: what positive relevance speaks for, where it is no class, as '"Paris" as the next token'.
        continuation: the token whose score was explained, if it follows on text[:continues_at].
    """

    encoding: Encoding
    attribution: Attribution
    method: str = "lrp"
    has_sign: bool = True
    source: str = ""
    claim: str = ""
    continuation: str = ""
    continues_at: int = 0

    def __repr__(self) -> str:
        size = f"{len(self.words)} words, {len(self.special)} tokens apart"
        return (
            f"TextAttribution({size}, target={self.label}, score={float(self.score[0]):+.4g}, "
            f"total={float(self.total[0]):+.4g}, method={self.method!r}, rules={self.rules!r})"
        )

    # What it says

    @property
    def text(self) -> str:
        """The text, as it was given."""
        return self.encoding.text

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """What the model was given, in order, special tokens and padding included."""
        made = self.encoding
        values = self.relevance[0].detach().cpu().double().tolist()
        return tuple(
            Token(made.tokens[i], made.ids[i], *made.offsets[i], value, made.special[i], made.unknown[i], made.words[i])
            for i, value in enumerate(values)
        )

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The words in the order of the text, each with the sum of its tokens; those that share characters are one.

        The words and the `special` tokens together have all the relevance.
        """
        return tuple(_word(self.text, self.tokens, group) for group in _groups(self.text, self.tokens))

    @cached_property
    def special(self) -> tuple[Token, ...]:
        """The tokens that stand for no character of the text: padding, [CLS] and the like."""
        within = {place for word in self.words for place in word.tokens}
        return tuple(token for place, token in enumerate(self.tokens) if place not in within)

    @property
    def strongest(self) -> tuple[Word, ...]:
        """The words in order of |relevance|, the largest first."""
        return tuple(sorted(self.words, key=lambda word: -abs(word.relevance)))

    @property
    def relevance(self) -> Tensor:
        """(1, tokens)."""
        assert isinstance(self.attribution.relevance, Tensor)
        return self.attribution.relevance

    @property
    def score(self) -> Tensor:
        """(1,): the value that was explained."""
        return self.attribution.score

    @property
    def target(self) -> Tensor | None:
        """(1,) int64: the explained class; None where a function was explained."""
        return self.attribution.target

    @property
    def label(self) -> str:
        """The name of the explained class, or its number, or `claim`; "score" where there is none of them."""
        return self.claim or self.attribution.label(0)

    @property
    def total(self) -> Tensor:
        """(1,): the sum of relevance over all tokens."""
        return self.attribution.total

    @property
    def output(self) -> Any:
        """What the model returned."""
        return self.attribution.output

    @property
    def conservation(self) -> Conservation:
        """Where the relevance went, overall and operation by operation."""
        return self.attribution.conservation

    @property
    def rules(self) -> str:
        """The preset or rules that redistributed the score."""
        return self.attribution.rules

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names, by index."""
        return self.attribution.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know, as sentences."""
        known = sum(not word.unknown for word in self.words)
        if 2 * known >= len(self.words):
            return self.attribution.notes
        told = (
            f"only {known} of the {len(self.words)} words of this text {'is' if known == 1 else 'are'}"
            if known
            else "no word of this text is"
        )
        return (*self.attribution.notes, f"{told} in the model's vocabulary")

    def is_conservative(self, tol: float = 1e-3) -> bool:
        """Whether the relevance sums to the score, up to `tol` times |score|."""
        return self.attribution.is_conservative(tol)

    # Showing it

    def __str__(self) -> str:
        """The text with its words painted, for a terminal; signs in characters where there is no colour."""
        from relprop.view.text_terminal import rendered

        return rendered([self.passage()], sys.stdout)

    def table(self, most: int | None = STRONGEST) -> str:
        """The words in order of |relevance| as aligned lines: the `most` first, or all for None."""
        from relprop.view.text_terminal import table

        return table(self.passage(), most)

    def to_html(self) -> str:
        """The heatmap as a fragment for a page, without scripts: text, legend, figures, a table of the words."""
        from relprop.view.text_page import fragment

        return fragment([self.passage()])

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_pil(self, *, width: int = 720, legend: bool = True) -> Image.Image:
        """The heatmap as an RGB picture, `width` pixels wide. Raises InvalidInput for text that is too long."""
        from relprop.view.text_picture import picture

        return picture([self.passage()], width, legend)

    def flow(
        self, word: int | str | None = None, *, head: int | None = None, part: str | None = None, least: float = 0.1
    ) -> Flow:
        """How relevance flows through the model's blocks to the words, if it was explained with attention=True.

        As Attribution.flow, with a column for each word and special token. `word` is the one whose flow is shown in
        colour, by its place in `words` or as it is written; the other arguments and errors are the same. Saved texts
        don't keep what attention passed.
        """
        from relprop.view.flow_words import word_flow

        return word_flow(self, word, head=head, part=part, least=least)

    def to_dict(self) -> dict[str, Any]:
        """Everything as what JSON can hold; `relprop.text.load` reads it again from a saved file."""
        from relprop.text.archive import to_dict

        return to_dict(self)

    # Keeping it

    def save(self, path: str | PathLike[str], *, width: int = 720, legend: bool = True) -> None:
        """Writes a file of the kind that its ending names; it appears complete or not at all.

        .html, .svg and .png show the heatmap; `width` and `legend` as for `to_pil`. .json and .npz hold the figures,
        for `relprop.text.load`. Raises InvalidFile where that can't be done.
        """
        save([self], path, width=width, legend=legend)

    def passage(self) -> Passage:
        """What is shown of it: the text, with the continuation where it is explained."""
        from relprop.view.text import Passage, Shown

        # A token may end within a word, which is shown whole.
        at = next((word.end for word in self.words if word.start < self.continues_at < word.end), self.continues_at)
        told = f" → {self.continuation}" if self.continuation else ""
        if told and self.text[at:].strip():
            told = f" [{told.strip()}]"
        text = self.text[:at] + told + self.text[at:]

        def moved(place: int) -> int:
            return place + len(told) if place >= at else place

        words = tuple(
            Shown(
                word.text,
                start := moved(word.start),
                start + word.end - word.start,
                word.relevance,
                word.unknown,
                self._parts(word),
            )
            for word in self.words
        )
        apart = tuple(Shown(each.token, 0, 0, each.relevance, each.unknown) for each in self.special)
        return Passage(
            text,
            words,
            apart,
            claim=self.claim or self.attribution._claim(0),
            score=float(self.score[0]),
            method=self.method,
            has_sign=self.has_sign,
            rules=self.rules,
            notes=self.notes,
            source=self.source,
        )

    def _parts(self, word: Word) -> tuple[tuple[str, float], ...]:
        """The tokens of a word that has several."""
        if len(word.tokens) == 1:
            return ()
        return tuple((self.tokens[place].token, self.tokens[place].relevance) for place in word.tokens)


def save(
    attributions: Sequence[TextAttribution], path: str | PathLike[str], *, width: int = 720, legend: bool = True
) -> None:
    """Writes several explanations into one file, as `TextAttribution.save` does for one; .npz holds only one."""
    from relprop.text import archive
    from relprop.view.files import write_whole

    path = Path(path)
    drawn = _PICTURES.get(path.suffix.lower())
    if drawn is not None:
        write_whole(path, drawn([each.passage() for each in attributions], width, legend))
    elif path.suffix.lower() in FIGURES:
        archive.write(attributions, path)
    else:
        raise InvalidFile(
            f"{path.name!r} does not say what to save: use one of the endings {', '.join(_PICTURES)} for a picture, "
            f"{' or '.join(FIGURES)} for the figures."
        )


def _html(passages: Sequence[Passage], width: int, legend: bool) -> bytes:
    from relprop.view.text_page import page

    return page(passages).encode()


def _svg(passages: Sequence[Passage], width: int, legend: bool) -> bytes:
    from relprop.view.text_picture import document

    return document(passages, width, legend).encode()


def _png(passages: Sequence[Passage], width: int, legend: bool) -> bytes:
    import io

    from relprop.view.text_picture import picture

    buffer = io.BytesIO()
    picture(passages, width, legend).save(buffer, "PNG")
    return buffer.getvalue()


_PICTURES: dict[str, Callable[[Sequence[Any], int, bool], bytes]] = {".html": _html, ".svg": _svg, ".png": _png}


def _groups(text: str, tokens: Sequence[Token]) -> list[list[int]]:
    """The places of each word's tokens, words in the order of the text; words that share characters are one."""
    by_word: dict[int, list[int]] = {}
    for place, token in enumerate(tokens):
        if token.word is not None:
            by_word.setdefault(token.word, []).append(place)
    spans = []
    for places in by_word.values():
        written = [tokens[place] for place in places if tokens[place].end > tokens[place].start]
        if written:
            spans.append((min(token.start for token in written), max(token.end for token in written), places))
    merged: list[tuple[int, list[int]]] = []  # (end, places)
    for start, end, places in sorted(spans):
        if merged and start < merged[-1][0]:
            merged[-1] = max(end, merged[-1][0]), [*merged[-1][1], *places]
        else:
            merged.append((end, places))
    return [places for _, places in merged]


def _word(text: str, tokens: Sequence[Token], places: Sequence[int]) -> Word:
    own = [tokens[place] for place in places]
    written = [token for token in own if token.end > token.start]
    start, end = min(token.start for token in written), max(token.end for token in written)
    bare = text[start:end].strip()
    if bare:  # some tokenizers count the space before a word as part of it
        start += len(text[start:end]) - len(text[start:end].lstrip())
        end = start + len(bare)
    return Word(
        text[start:end],
        start,
        end,
        sum(token.relevance for token in own),
        tuple(sorted(places)),
        any(token.unknown for token in own),
    )
