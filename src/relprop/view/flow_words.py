"""The flow of relevance between the words of a text: sub-words added up, special tokens in columns of their own."""

from __future__ import annotations

from dataclasses import replace

from relprop.errors import InvalidInput
from relprop.text.attribution import TextAttribution
from relprop.view.flow import Flow, place_of


def word_flow(
    explained: TextAttribution, word: int | str | None, *, head: int | None, part: str | None, least: float
) -> Flow:
    """The flow of a text. Arguments and errors as for `TextAttribution.flow`."""
    tokens = explained.attribution.flow(head=head, part=part, least=least)
    first = _first_place(explained, tokens, part)
    within = range(first, first + len(tokens.tokens))
    special = [place for place, token in enumerate(explained.tokens) if token in explained.special]
    columns = [(each.tokens, each.text) for each in explained.words]
    columns += [((place,), explained.tokens[place].token) for place in special]
    shown = sorted((each for each in columns if each[0][0] in within), key=lambda each: each[0])
    states = tokens.states.copy()
    states[0] = explained.relevance[0, first : within.stop].detach().cpu().double().numpy()
    flow = replace(tokens, states=states, claim=explained.claim or tokens.claim).merged(
        [[place - first for place in places] for places, _ in shown], [text for _, text in shown]
    )
    if word is None:
        return flow
    names = [text for _, text in columns] if isinstance(word, str) else [each.text for each in explained.words]
    chosen = columns[place_of(word, names, "word")]
    if chosen not in shown:
        raise InvalidInput(f"word={word!r} is not among what {flow.blocks[0]!r} and its kin read; choose another part=")
    return flow.of(shown.index(chosen))


def _first_place(explained: TextAttribution, tokens: Flow, part: str | None) -> int:
    """The place among the text's tokens of the first one that the blocks have: a decoder's are the last."""
    count, read = len(explained.tokens), len(tokens.tokens)
    if read == count or (part is not None and read < count):
        in_decoder = any(each.startswith("decoder") for each in tokens.blocks[0].split("."))
        return count - read if in_decoder else 0
    raise InvalidInput(
        f"the text has {count} tokens, and the model's blocks have {read}, so it is open which column is which word. "
        "The figures are in attribution.layers and attribution.attention"
    )
