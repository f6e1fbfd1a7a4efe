"""How relevance flows between the words of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from huggingface_models import bert, t5, unigram, wordpiece

import relprop
from relprop.errors import InvalidInput

TEXT = "The unwatchable film, not the plot."


@pytest.fixture(scope="module")
def explained() -> Any:
    model = bert("BertForSequenceClassification")
    return relprop.explain_text(model, wordpiece(), TEXT, target=0, attention=True)


def test_words_are_columns_and_their_pieces_add_up(explained: Any) -> None:
    flow = explained.flow()
    word = next(word for word in explained.words if len(word.tokens) > 1)
    assert flow.tokens == ("[CLS]", *(word.text for word in explained.words), "[SEP]")
    column = flow.tokens.index(word.text)
    assert flow.states[0, column] == pytest.approx(word.relevance, abs=1e-12)
    for row, relevance in zip(flow.states[1:], explained.attribution.layers.values(), strict=True):
        assert row[column] == pytest.approx(float(relevance[0, list(word.tokens)].sum()), abs=1e-12)
        assert row.sum() == pytest.approx(float(relevance.sum()), abs=1e-12)
    for passed, of_tokens in zip(flow.messages, explained.attribution.attention.values(), strict=True):
        to_first = of_tokens[0, :, list(word.tokens), 0].sum()
        assert passed[column, 0] == pytest.approx(float(to_first), abs=1e-12)


def test_one_word_is_chosen_by_itself_or_its_place(explained: Any) -> None:
    place = next(place for place, word in enumerate(explained.words) if word.text == "film")
    chosen = explained.flow("film")
    assert chosen.token == explained.flow(place).token == chosen.tokens.index("film")
    assert explained.flow("[SEP]").token == len(chosen.tokens) - 1
    with pytest.raises(InvalidInput, match="no word 'cinema'; there are 'The', 'unwatchable'"):
        explained.flow("cinema")
    with pytest.raises(InvalidInput, match=r"there are \d+; write word=0"):
        explained.flow(len(explained.words))


def test_a_text_says_what_was_explained(explained: Any) -> None:
    flow = explained.flow(head=1, least=0.2)
    assert (flow.claim, flow.score, flow.head, flow.least) == (explained.label, float(explained.score[0]), 1, 0.2)
    assert flow.rules == explained.rules


def test_a_text_without_attention_is_refused() -> None:
    found = relprop.explain_text(bert("BertForSequenceClassification"), wordpiece(), TEXT, target=0)
    with pytest.raises(InvalidInput, match="attention=True"):
        found.flow()


def test_several_texts_have_their_own() -> None:
    texts = [TEXT, "The film"]
    found = relprop.explain_text(bert("BertForSequenceClassification"), wordpiece(), texts, attention=True)
    assert [len(each.flow().tokens) for each in found] == [len(each.words) + 2 for each in found]


def test_encoder_and_decoder_each_have_their_words() -> None:
    text = {"text": "The film is great", "prefix": "the plot"}
    found = relprop.explain_text(t5(), unigram(), text, attention=True)
    with pytest.raises(InvalidInput, match="part='encoder' or part='decoder'"):
        found.flow()
    encoder, decoder = found.flow(part="encoder"), found.flow(part="decoder")
    read, written = set(encoder.tokens), set(decoder.tokens)
    assert {"film", "great"} <= read and "plot" in written and "film" not in written
    both = np.concatenate([encoder.states[0], decoder.states[0]])
    assert both.sum() == pytest.approx(float(found.total[0]), abs=1e-9)
    assert decoder.of("plot").token is not None
    with pytest.raises(InvalidInput, match="part="):
        found.flow("plot", part="encoder")
