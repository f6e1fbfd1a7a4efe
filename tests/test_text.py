"""What an explanation of a text may be relied on to say and to show."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont
from torch import Tensor, nn

import relprop
from relprop.attribution import Attribution
from relprop.errors import InvalidFile, InvalidInput, InvalidTarget, NonFinite
from relprop.rules import Gamma
from relprop.text import Encoding, TextAttribution, TextExplainer, explain_text, load, save
from relprop.text.tokenizers import tokenize, words_in
from relprop.view.text import NEGATIVE, POSITIVE, luminance, painted, takes_white
from relprop.view.text_font import missing, runs, width
from relprop.view.text_layout import lines
from relprop.view.text_terminal import rendered

KOREAN = "이 영화 진짜 재미없다"
NASTY = "<script>alert('1')</script> & \"quotes\"\n\ttabs \x1b[31m\x00 end"
WORDS = re.compile(r"\S+")


class Bag(nn.Module):
    """The mean of the words' vectors, and a linear layer without bias: every word's share is known."""

    labels = ("negative", "positive")

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(size, 6)
        self.linear = nn.Linear(6, 2, bias=False)
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(self.embedding(ids).mean(1))

    def share(self, id_: int, count: int, target: int) -> float:
        """What one of `count` words adds to the score of `target`."""
        return float((self.linear.weight[target] @ self.embedding.weight[id_]).detach() / count)


class Masked(Bag):
    """A model of Hugging Face's kind: what the mask leaves out does not count."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        vectors = self.embedding(input_ids)
        if attention_mask is None:
            return self.linear(vectors.sum(1))
        return self.linear((vectors * attention_mask[..., None].to(vectors.dtype)).sum(1))


def split(text: str) -> Encoding:
    """The words that spaces separate, numbered as they come; those with a capital Z are unknown."""
    found = list(WORDS.finditer(text))
    size = len(found)
    return Encoding(
        text,
        ids=tuple(2 + len(each.group()) % 40 for each in found),
        tokens=tuple(each.group() for each in found),
        offsets=tuple(each.span() for each in found),
        special=(False,) * size,
        unknown=tuple("Z" in each.group() for each in found),
        words=tuple(range(size)),
    )


def explained(encoding: Encoding, values: list[float], **other: Any) -> TextAttribution:
    relevance = torch.tensor([values], dtype=torch.float64)
    given = {"target": torch.tensor([0]), "labels": ("negative", "positive"), "rules": "auto: epsilon", **other}
    return TextAttribution(encoding, Attribution(relevance, relevance.sum(1), **given))


def of(text: str, *values: float) -> TextAttribution:
    """The words of `text` with these values, the rest with none."""
    encoding = split(text)
    return explained(encoding, [*values, *[0.0] * (len(encoding) - len(values))])


def encoding(text: str, *tokens: tuple[str, int, int, int | None], unknown: tuple[int, ...] = ()) -> Encoding:
    """From (token, start, end, word) each; word None makes it special."""
    names, starts, ends, words = zip(*tokens, strict=True)
    return Encoding(
        text,
        ids=tuple(range(len(tokens))),
        tokens=names,
        offsets=tuple(zip(starts, ends, strict=True)),
        special=tuple(word is None for word in words),
        unknown=tuple(place in unknown for place in range(len(tokens))),
        words=words,
    )


class TestEncoding:
    good: ClassVar = {
        "text": "ab c",
        "ids": (1, 2),
        "tokens": ("ab", "c"),
        "offsets": ((0, 2), (3, 4)),
        "special": (False, False),
        "unknown": (False, True),
        "words": (0, 1),
    }

    def test_lists_arrays_and_tensors_become_tuples(self) -> None:
        given = {**self.good, "ids": torch.tensor([1, 2]), "offsets": np.array([[0, 2], [3, 4]]), "special": [0, 0]}
        assert Encoding(**given) == Encoding(**self.good)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("text", b"ab c", "text is of type bytes"),
            ("ids", (1,), "1 ids, 2 tokens"),
            ("ids", (1.5, 2), r"ids\[0\] is 1.5"),
            ("ids", (1, -2), "ids start at 0"),
            ("tokens", ("ab", 3), r"tokens\[1\] is of type int"),
            ("tokens", "ab", "tokens is a str"),
            ("tokens", None, "tokens is of type NoneType"),
            ("offsets", ((0, 2), (3, 5)), r"\(3, 5\), for the token 'c', but the text has 4 characters"),
            ("offsets", ((2, 0), (3, 4)), "not bytes"),
            ("offsets", ((-1, 2), (3, 4)), "not bytes"),
            ("offsets", ((0, 2), 3), "expected a pair"),
            ("words", (0, None), "belongs to no word"),
            ("special", (True, False), "said to belong to word 0"),
        ],
    )
    def test_fields_that_do_not_fit_are_refused_by_name(self, field: str, value: Any, said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            Encoding(**{**self.good, field: value})  # type: ignore[arg-type]

    def test_two_stand_one_below_the_other(self) -> None:
        first = encoding("a film", ("[CLS]", 0, 0, None), ("a", 0, 1, 0), ("film", 2, 6, 1), unknown=(2,))
        second = encoding("so so", ("so", 0, 2, 0), ("so", 3, 5, 1))
        both = first + second
        assert both.text == "a film\nso so"
        assert [both.text[start:end] for start, end in both.offsets] == ["", "a", "film", "so", "so"]
        assert both.ids == first.ids + second.ids
        assert both.words == (None, 0, 1, 2, 3)
        assert both.unknown == (False, False, True, False, False)
        start = encoding("", ("<pad>", 0, 0, None))
        assert (first + start).text == "a film"
        assert (first + start).offsets[-1] == (6, 6)
        assert (first + (start + second)).text == both.text


class TestTokenizers:
    text = "Good film, isn't it"
    ids: ClassVar = [5, 6, 7, 8, 9, 10]
    tokens: ClassVar = ["good", "film", ",", "isn", "##'t", "it"]
    offsets: ClassVar = [(0, 4), (5, 9), (9, 10), (11, 14), (14, 16), (17, 19)]
    words = (0, 1, 2, 3, 3, 4)

    @pytest.mark.parametrize("form", ["dict", "tensors", "tuple", "found", "object", "hugging"])
    def test_every_form_of_answer_is_read_alike(self, form: str) -> None:
        class Spoken:
            ids, tokens, offsets = self.ids, self.tokens, self.offsets

        answers: dict[str, Any] = {
            "dict": {"ids": self.ids, "tokens": self.tokens, "offsets": self.offsets},
            "tensors": {
                "input_ids": torch.tensor([self.ids]),
                "tokens": self.tokens,
                "offset_mapping": torch.tensor([self.offsets]),
            },
            "tuple": (self.ids, self.tokens, self.offsets),
            "found": (self.ids, self.tokens),
            "object": Spoken(),
            "hugging": {"input_ids": self.ids, "tokens": self.tokens, "offset_mapping": self.offsets},
        }
        found = tokenize(lambda text: answers[form], self.text).encoding
        assert found.ids == tuple(self.ids)
        assert found.offsets == tuple(self.offsets)
        assert found.words == self.words
        assert not any(found.special)
        assert not any(found.unknown)

    def test_an_encoding_is_taken_as_it_is(self) -> None:
        assert tokenize(split, self.text).encoding == split(self.text)

    def test_the_masks_and_words_of_the_tokenizer_are_kept(self) -> None:
        answer = {
            "input_ids": [[1, 5, 6, 2, 0]],
            "tokens": ["[CLS]", "ab", "##c", "[SEP]", "[PAD]"],
            "offset_mapping": [[(0, 0), (0, 2), (2, 3), (0, 0), (0, 0)]],
            "special_tokens_mask": [[1, 0, 0, 1, 1]],
            "attention_mask": [[1, 1, 1, 1, 0]],
            "word_ids": [None, 0, 0, None, None],
        }
        found = tokenize(lambda text: answer, "abc")
        assert found.attention_mask == (1, 1, 1, 1, 0)
        assert found.encoding.special == (True, False, False, True, True)
        assert found.encoding.words == (None, 0, 0, None, None)

    def test_what_has_no_word_and_no_letters_is_special_without_a_mask(self) -> None:
        answer = {"ids": [1, 5], "tokens": ["<s>", "ab"], "offsets": [(0, 0), (0, 2)], "words": [None, 0]}
        assert tokenize(lambda text: answer, "ab").encoding.special == (True, False)

    def test_a_tokenizer_that_takes_the_whole_text_for_one_word_is_not_believed(self) -> None:
        answer = {
            "ids": [1, 2, 3],
            "tokens": ["▁good", "▁fi", "lm"],
            "offsets": [(0, 4), (4, 7), (7, 9)],
            "words": [0, 0, 0],
        }
        assert tokenize(lambda text: answer, "good film").encoding.words == (0, 1, 1)

    def test_words_end_at_spaces_and_punctuation_but_not_inside_of_words(self) -> None:
        text = "well-made, don't! 영화는"
        letters = [(i, i + 1) for i in range(len(text))]
        found = words_in(text, letters, [False] * len(text))
        joined: dict[int | None, str] = {}
        for letter, word in zip(text, found, strict=True):
            joined[word] = joined.get(word, "") + letter
        assert list(joined.values()) == ["well-made", ",", " ", "don't", "!", " ", "영화는"]

    def test_tokens_are_found_again_in_order_whatever_their_case_and_marks(self) -> None:
        answer = ([1, 2, 3, 4], ["▁the", "Ġfilm", "##s", "the"])
        assert tokenize(lambda text: answer, "The Films, The").encoding.offsets == ((0, 3), (4, 8), (8, 9), (11, 14))

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (([1, 2], ["good", "<unk>"]), r"'<unk>' \(place 1\) is not found in the text after 'Good'"),
            (([1], ["a", "b"], [(0, 1)]), "1 ids and 2 tokens"),
            ({"tokens": ["a"]}, "no 'ids'"),
            ({"ids": [1], "offsets": [(0, 1)]}, "no 'tokens'"),
            ([1, 2, 3], "returned a list"),
            ({"ids": [1], "tokens": ["a"], "offsets": [3]}, "3 as a token's offsets"),
            (([], [], []), "found no token"),
        ],
    )
    def test_answers_that_say_too_little_are_refused_with_what_was_expected(self, answer: Any, said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            tokenize(lambda text: answer, "Good film")

    def test_offsets_into_another_text_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="of another text, 'good' instead of 'GOOD'"):
            tokenize(lambda text: split(text.lower()), "GOOD")

    @pytest.mark.parametrize(("text", "said"), [("", "the text is empty"), (" \n ", "no token"), (3, "got a int")])
    def test_texts_without_words_are_refused(self, text: Any, said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            tokenize(split, text)

    def test_half_characters_are_refused_with_their_place(self) -> None:
        with pytest.raises(InvalidInput, match=r"character 2 of the text is U\+DCFF"):
            tokenize(split, "a \udcff")

    def test_what_is_no_tokenizer_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="is a dict, which can't be called"):
            tokenize({}, "a")

    def test_slow_tokenizers_are_refused_with_the_line_to_write(self) -> None:
        class Slow:
            is_fast = False

        with pytest.raises(InvalidInput, match="use_fast=True"):
            tokenize(Slow(), "a")


class TestHuggingFace:
    text = "This film isn't Ωonderful"

    @pytest.fixture
    def tokenizer(self) -> Any:
        tokenizers = pytest.importorskip("tokenizers")
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "this", "film", "is", "##n", "'", "t"]
        made = tokenizers.Tokenizer(
            tokenizers.models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
        )
        made.normalizer = tokenizers.normalizers.BertNormalizer()
        made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        return made

    def check(self, tokenizer: Any) -> None:
        found = tokenize(tokenizer, self.text)
        assert found.encoding.ids == (2, 4, 5, 6, 7, 8, 9, 1, 3)
        assert found.encoding.words == (None, 0, 1, 2, 2, 3, 4, 5, None)
        assert found.encoding.special == (True, *[False] * 7, True)
        assert found.encoding.unknown == (*[False] * 7, True, False)
        assert found.encoding.offsets[3:5] == ((10, 12), (12, 13))
        assert found.attention_mask == (1,) * 9

    def test_a_tokenizer_of_tokenizers(self, tokenizer: Any) -> None:
        self.check(tokenizer)

    def test_a_fast_tokenizer_of_transformers(self, tokenizer: Any) -> None:
        transformers = pytest.importorskip("transformers")
        self.check(transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))

    def test_padding_is_masked_and_shown_apart(self, tokenizer: Any) -> None:
        tokenizer.enable_padding(length=12, pad_id=0, pad_token="[PAD]")
        found = explain_text(Masked(), tokenizer, self.text, 1)
        assert [token.token for token in found.special] == ["[CLS]", "[SEP]", *["[PAD]"] * 3]
        assert [token.relevance for token in found.special[2:]] == [0.0] * 3
        alone = explain_text(Masked(), lambda text: tokenize(tokenizer, text).encoding, self.text, 1)
        assert [token.relevance for token in alone.special[2:]] != [0.0] * 3  # nothing told the model of the padding


class TestExplainText:
    def test_each_word_gets_what_it_adds_to_the_score(self) -> None:
        model = Bag()
        found = explain_text(model, split, "a fine, fine film", "positive", rules="epsilon")
        ids = split("a fine, fine film").ids
        assert [word.text for word in found.words] == ["a", "fine,", "fine", "film"]
        for word, id_ in zip(found.words, ids, strict=True):
            assert word.relevance == pytest.approx(model.share(id_, 4, 1), rel=1e-5)
        assert int(found.target[0]) == 1  # type: ignore[index]
        assert found.label == "positive"
        assert found.relevance.shape == (1, 4)
        assert found.rules == "epsilon"
        assert found.is_conservative(1e-4)
        assert found.conservation.relevance == pytest.approx(float(found.total[0]))

    def test_several_texts_are_explained_each_as_if_alone(self) -> None:
        model, texts = Bag(), ["a fine film", "bad", "so so, but long"]
        steps: list[tuple[int, int]] = []
        found = explain_text(model, split, texts, [0, 1, "negative"], progress=lambda *step: steps.append(step))
        assert steps == [(1, 3), (2, 3), (3, 3)]
        for one, text, target in zip(found, texts, [0, 1, 0], strict=True):
            assert torch.equal(one.relevance, explain_text(model, split, text, target).relevance)
            assert one.label == Bag.labels[target]

    def test_one_target_holds_for_all_texts(self) -> None:
        assert [each.label for each in explain_text(Bag(), split, ["a", "b c"], "negative")] == ["negative"] * 2
        margin = explain_text(Bag(), split, ["a", "b c"], lambda scores: scores[:, 1] - scores[:, 0])
        assert [each.target for each in margin] == [None, None]

    def test_the_mask_reaches_a_model_that_takes_one(self) -> None:
        def padded(text: str) -> dict[str, Any]:
            made = split(text)
            return {
                "ids": [*made.ids, 0],
                "tokens": [*made.tokens, "<pad>"],
                "offsets": [*made.offsets, (0, 0)],
                "special": [*made.special, True],
                "attention_mask": [1] * len(made) + [0],
            }

        found = explain_text(Masked(), padded, "a fine film")
        assert found.special[0].relevance == 0.0
        assert torch.equal(found.relevance[:, :-1], explain_text(Masked(), split, "a fine film").relevance)

    @pytest.mark.parametrize("method", ["gradient_x_input", "gradient"])
    def test_other_methods_explain_the_same_score(self, method: str) -> None:
        model = Bag()
        found = explain_text(model, split, "a fine film", 1, method=method)
        assert found.method == method
        assert float(found.score[0]) == float(explain_text(model, split, "a fine film", 1).score[0])
        if method == "gradient":  # the squared norm of the mean's weights, the same for every word
            expected = float((model.linear.weight[1].detach() / 3).square().sum())
            assert [word.relevance for word in found.words] == pytest.approx([expected] * 3)
            assert not found.has_sign
            assert "against" not in found.to_html()
        else:
            shares = [model.share(id_, 3, 1) for id_ in split("a fine film").ids]
            assert [word.relevance for word in found.words] == pytest.approx(shares)

    def test_one_explainer_serves_many_texts(self) -> None:
        explainer = TextExplainer(Bag(), split, "epsilon", labels=["no", "yes"])
        assert explainer("a fine film", "yes").label == "yes"
        assert explainer("another", 0).label == "no"

    @pytest.mark.parametrize("target", [None, "positive", relprop.targets.contrast("positive", "negative")])
    def test_compared_explanations_are_those_of_single_calls(self, target: Any) -> None:
        model, entry = relprop.zoo.load("reviews-en-transformer"), relprop.zoo.text_entry("reviews-en-transformer")
        text, gamma = "Not bad at all, but far too long.", Gamma(0.25)
        together = TextExplainer(model, entry.tokenizer, attention=True).compare(
            text, ["attn-lrp", "epsilon", gamma], target, methods=["lrp", "gradient"]
        )
        assert list(together) == ["attn-lrp", "epsilon", str(gamma), "lrp", "gradient"]
        options: list[dict[str, Any]] = [{"rules": each} for each in ("attn-lrp", "epsilon", gamma)]
        options += [{}, {"method": "gradient"}]
        for found, option in zip(together.values(), options, strict=True):
            alone = TextExplainer(model, entry.tokenizer, **option)(text, target)
            assert torch.equal(found.relevance, alone.relevance) and torch.equal(found.score, alone.score)
            for name in ("encoding", "method", "has_sign", "rules", "label", "claim", "notes", "words", "special"):
                assert getattr(found, name) == getattr(alone, name)
        assert together["epsilon"].flow() is not None
        shown = together._repr_html_()
        assert all(f"{word.relevance:+.4g}" in shown for each in together.values() for word in each.words[:1])

    def test_ids_beyond_the_embedding_say_which_tokenizer_to_give(self) -> None:
        with pytest.raises(InvalidInput, match=r"the ids go from 3 to 6.* it was trained with"):
            explain_text(Bag(4), split, "a fine film")

    @pytest.mark.parametrize(
        ("texts", "target", "error", "said"),
        [
            ([], None, InvalidInput, "holds no text"),
            (["a", ""], None, InvalidInput, "the text is empty"),
            (["a", 3], None, InvalidInput, "got a int"),
            (b"a", None, InvalidInput, "got a bytes"),
            (["a", "b"], [1], InvalidTarget, "1 targets for 2 texts"),
            ("a", "postive", InvalidTarget, "positive"),
        ],
    )
    def test_what_can_not_be_explained_is_said(self, texts: Any, target: Any, error: type, said: str) -> None:
        with pytest.raises(error, match=said):
            explain_text(Bag(), split, texts, target)


class TestWords:
    def test_sub_tokens_add_up_to_their_word(self) -> None:
        made = encoding(
            "unwatchable mess", ("un", 0, 2, 0), ("##watch", 2, 7, 0), ("##able", 7, 11, 0), ("mess", 12, 16, 1)
        )
        found = explained(made, [0.5, -0.25, 1.0, 2.0])
        assert [(w.text, w.start, w.end, w.relevance, w.tokens) for w in found.words] == [
            ("unwatchable", 0, 11, 1.25, (0, 1, 2)),
            ("mess", 12, 16, 2.0, (3,)),
        ]
        assert [(t.token, t.relevance) for t in found.tokens][:2] == [("un", 0.5), ("##watch", -0.25)]

    def test_special_tokens_and_padding_stand_apart_and_stay_in_the_sum(self) -> None:
        made = encoding(
            "a b", ("[CLS]", 0, 0, None), ("a", 0, 1, 0), ("b", 2, 3, 1), ("[SEP]", 3, 3, None), ("[PAD]", 0, 0, None)
        )
        found = explained(made, [8.0, 1.0, 2.0, 16.0, 32.0])
        assert [word.relevance for word in found.words] == [1.0, 2.0]
        assert [(token.token, token.relevance) for token in found.special] == [
            ("[CLS]", 8.0),
            ("[SEP]", 16.0),
            ("[PAD]", 32.0),
        ]
        assert float(found.total[0]) == 59.0

    def test_a_token_without_letters_counts_with_its_word_or_apart(self) -> None:
        made = encoding("ab c", ("▁", 0, 0, 0), ("ab", 0, 2, 0), ("▁", 2, 2, 1), ("c", 3, 4, 2))
        found = explained(made, [1.0, 2.0, 4.0, 8.0])
        assert [(word.text, word.relevance) for word in found.words] == [("ab", 3.0), ("c", 8.0)]
        assert [(token.token, token.relevance) for token in found.special] == [("▁", 4.0)]

    def test_words_that_share_letters_are_one(self) -> None:
        made = encoding("봤다 끝", ("보", 0, 1, 0), ("었", 0, 1, 1), ("다", 1, 2, 1), ("끝", 3, 4, 2))
        found = explained(made, [1.0, 2.0, 4.0, 8.0])
        assert [(word.text, word.relevance, word.tokens) for word in found.words] == [
            ("봤다", 7.0, (0, 1, 2)),
            ("끝", 8.0, (3,)),
        ]

    def test_the_space_before_a_word_is_no_part_of_it(self) -> None:
        found = explained(encoding("a  b\n", ("a", 0, 1, 0), ("Ġb", 1, 5, 1)), [1.0, 2.0])
        assert [(word.text, word.start, word.end) for word in found.words] == [("a", 0, 1), ("b", 3, 4)]

    def test_a_word_with_an_unknown_part_is_marked(self) -> None:
        made = encoding("abc d", ("ab", 0, 2, 0), ("c", 2, 3, 0), ("d", 4, 5, 1), unknown=(1,))
        assert [word.unknown for word in explained(made, [1.0, 1.0, 1.0]).words] == [True, False]

    def test_a_text_of_mostly_unknown_words_says_so(self) -> None:
        mostly = of("Zap is Zip", 1.0, 0.5, -1.0)
        assert mostly.notes == ("only 1 of the 3 words of this text is in the model's vocabulary",)
        found = of("Zap Zip", 1.0, -1.0)
        assert found.notes == ("no word of this text is in the model's vocabulary",)
        assert escape(found.notes[0]) in found.to_html()
        assert of("Zap is", 1.0).notes == ()

    def test_the_strongest_come_first_whatever_their_sign(self) -> None:
        assert [word.text for word in of("a b c", 1.0, -3.0, 2.0).strongest] == ["b", "c", "a"]


spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 6), st.booleans()), min_size=1, max_size=12
)


class TestAnyText:
    @settings(max_examples=150, deadline=None)
    @given(st.text(min_size=1, max_size=30), spans, st.randoms(use_true_random=False))
    def test_nothing_of_sum_or_text_is_lost(self, text: str, drawn: Any, random: Any) -> None:
        tokens = []
        for start, length, word, special in drawn:
            start = min(start, len(text))
            end = min(start + length, len(text))
            tokens.append(("t", start, end, None if special else word))
        values = [random.uniform(-1, 1) for _ in tokens]
        found = explained(encoding(text, *tokens), values)
        sums = [word.relevance for word in found.words] + [token.relevance for token in found.special]
        assert sum(sums) == pytest.approx(sum(values), abs=1e-12)
        passage = found.passage()
        assert "".join(piece.text for piece in passage.pieces) == text
        places = [place for word in found.words for place in word.tokens]
        assert len(set(places)) == len(places)
        seen = Page(found.to_html()).texts[0]
        assert seen.replace("\r\n", "\n") == shown_in_xml(text).replace("\r\n", "\n")


def shown_in_xml(text: str) -> str:
    """Text as XML can hold it: what it can't is replaced by one sign each."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


class Page(HTMLParser):
    """What a browser would find: tags, the painted texts, the titles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("class") == "text":
            self.texts.append("")
            self._inside = 1
        elif self._inside:
            self._inside += 1

    def handle_endtag(self, tag: str) -> None:
        self._inside = max(0, self._inside - 1)

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data

    @property
    def words(self) -> list[dict[str, str | None]]:
        """The attributes of the painted words, those of the legend left out."""
        return [found for tag, found in self.tags if tag == "span" and "title" in found]


def unstyled(html: str) -> str:
    """The HTML without the styles of its elements."""
    return re.sub(r' style="[^"]*"', "", html)


class TestHtml:
    def test_the_text_stands_there_as_it_was_given_and_runs_nothing(self) -> None:
        for html in (of(NASTY, 1.0, -2.0).to_html(), *[_page(of(NASTY, 1.0, -2.0))]):
            found = Page(html)
            assert found.texts == [shown_in_xml(NASTY)]
            assert "script" not in {tag for tag, _ in found.tags}
            assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
            assert "http" not in html

    def test_the_largest_word_has_full_colour_and_zero_the_colour_of_the_page(self) -> None:
        words = Page(of("a b c d", 2.0, -1.0, 0.0, 0.001).to_html()).words
        assert str(words[0]["style"]).endswith(f"background:rgba({','.join(map(str, POSITIVE))},1)")
        assert str(words[1]["style"]).endswith(f"background:rgba({','.join(map(str, NEGATIVE))},0.5)")
        assert "style" not in words[2]
        assert "style" in words[3]

    def test_the_sign_is_in_the_line_below_too(self) -> None:
        words = Page(of("a b c d", 2.0, -1.0, 0.0, 0.01).to_html()).words
        assert ["p" in str(word["class"]).split() for word in words] == [True, False, False, False]
        assert ["n" in str(word["class"]).split() for word in words] == [False, True, False, False]

    def test_each_value_can_be_read_on_the_word_and_in_the_table(self) -> None:
        html = of("good Zed", 0.125, -0.25).to_html()
        assert [word["title"] for word in Page(html).words] == ["good: +0.125", "Zed: -0.25, not in the vocabulary"]
        rows = re.findall(r"<tr><td.*?>(\d+)</td><td><bdi>(.*?)</bdi>.*?</td><td.*?>(.*?)</td></tr>", unstyled(html))
        assert rows == [("1", "Zed", "-0.25"), ("2", "good", "+0.125")]

    def test_the_parts_of_a_word_are_told_with_it(self) -> None:
        made = encoding("봤다 끝", ("보", 0, 1, 0), ("었<", 0, 1, 0), ("다", 1, 2, 0), ("끝", 3, 4, 1))
        html = explained(made, [1.0, 0.5, -0.25, 2.0]).to_html()
        assert [word["title"] for word in Page(html).words] == ["봤다: +1.25 = 보 +1, 었< +0.5, 다 -0.25", "끝: +2"]
        assert "<bdi>봤다</bdi> <small>(보 +1, 었&lt; +0.5, 다 -0.25)</small>" in html

    def test_every_word_of_a_long_text_is_in_the_table_and_most_of_it_folded_away(self) -> None:
        text = " ".join(f"w{i}" for i in range(3000))
        html = of(text, *[float(i) for i in range(3000)]).to_html()
        assert len(re.findall("<tr><td", unstyled(html))) == 3000
        assert html.index("the other 2990 words") > html.index("<details>") > html.index(">w2990<")

    def test_the_legend_says_in_words_what_the_colours_mean(self) -> None:
        html = of("a b", 1.0, -2.0).to_html()
        assert "red, underlined: evidence for negative" in html
        assert "blue, dashed underline: evidence against negative" in html
        assert "Full colour: a relevance of 2, the largest of these words." in html
        assert "vocabulary" not in html
        assert "dotted frame: not in the model&#x27;s vocabulary" in of("Z b", 1.0).to_html()

    def test_score_sum_rules_and_notes_are_said_and_escaped(self) -> None:
        html = explained(split("a b"), [1.0, 0.5], notes=("x < y",), labels=("<neg>", "pos")).to_html()
        html = unstyled(html)
        for said in (
            "&lt;neg&gt;: +1.5",
            "<dd>lrp, auto: epsilon</dd>",
            "<dd>x &lt; y</dd>",
            "<dt>sum of relevance</dt><dd>+1.5</dd>",
        ):
            assert said in html
        assert "<neg>" not in html

    def test_special_tokens_are_painted_apart_and_never_pale_the_words(self) -> None:
        made = encoding("a", ("[CLS]", 0, 0, None), ("a", 0, 1, 0))
        words = Page(explained(made, [-40.0, 2.0]).to_html()).words
        assert [word["title"] for word in words] == ["a: +2", "[CLS]: -40"]
        assert all(str(word["style"]).endswith(",1)") for word in words)

    def test_a_text_without_relevance_is_shown_without_colour(self) -> None:
        html = of("a b").to_html()
        assert not any("style" in word for word in Page(html).words)
        assert "No word has any relevance." in html

    def test_letters_can_be_read_on_every_colour(self) -> None:
        for share in np.linspace(-1, 1, 201).tolist():
            ground = luminance(painted(share)) + 0.05
            letters = 1.05 if takes_white(share) else 0.05
            assert max(ground, letters) / min(ground, letters) >= 4.5  # WCAG 2, level AA
        assert painted(0.0) == (255, 255, 255)

    def test_a_notebook_shows_the_same(self) -> None:
        found = of("a b", 1.0)
        assert found._repr_html_() == found.to_html()


def _page(found: TextAttribution) -> str:
    from relprop.view.text_page import page

    return page([found.passage()])


SVG = "{http://www.w3.org/2000/svg}"


class TestPictures:
    def svg(self, found: TextAttribution, tmp_path: Path, **style: Any) -> ET.Element:
        found.save(tmp_path / "map.svg", **style)
        return ET.parse(tmp_path / "map.svg").getroot()

    def test_the_svg_holds_every_word_with_its_value(self, tmp_path: Path) -> None:
        root = self.svg(of(f"{KOREAN} <b>&", 1.0, -0.5), tmp_path, legend=False)
        groups = [(g.findtext(f"{SVG}title"), g.findtext(f"{SVG}text")) for g in root.iter(f"{SVG}g")]
        assert groups == [
            ("이: +1", "이"),
            ("영화: -0.5", "영화"),
            ("진짜: +0", "진짜"),
            ("재미없다: +0", "재미없다"),
            ("<b>&: +0", "<b>&"),
        ]
        strokes = [path.get("stroke-dasharray") for path in root.iter(f"{SVG}path")]
        assert strokes == [None, "5 3"]

    def test_control_characters_do_not_break_the_svg(self, tmp_path: Path) -> None:
        root = self.svg(of(NASTY, 1.0), tmp_path)
        assert "\ufffd[31m\ufffd" in "".join(str(text.text) for text in root.iter(f"{SVG}text"))

    def test_the_largest_word_is_red_and_zero_white(self) -> None:
        pixels = np.asarray(of("mmmm mmmm mmmm", 1.0, -1.0).to_pil(legend=False))
        assert (pixels == POSITIVE).all(-1).any()
        assert (pixels == NEGATIVE).all(-1).any()
        plain = np.asarray(of("mmmm mmmm mmmm").to_pil(legend=False))
        assert (plain[..., 0] == plain[..., 1]).all()
        assert (plain[..., 1] == plain[..., 2]).all()

    def test_positive_lines_are_whole_and_negative_ones_dashed(self) -> None:
        """Below the letters, the row of the line changes between ground and line only where it is dashed."""
        for value, changes in ((1.0, 0), (-1.0, 6)):
            pixels = np.asarray(of("mmmmmm", value).to_pil(legend=False))
            ground = (pixels == (POSITIVE if value > 0 else NEGATIVE)).all(-1)
            left, right = np.flatnonzero(ground.any(0))[[0, -1]]
            rows = [row for row in range(len(pixels)) if (pixels[row, left:right] == 255).all(-1).any()]
            line = (
                pixels[[row for row in rows if ground[:row].any() and ground[row:].any()][-1], left:right] == 255
            ).all(-1)
            assert np.count_nonzero(np.diff(line.astype(int))) >= changes
            assert line.all() == (value > 0)

    def test_a_picture_is_as_wide_as_asked_and_wraps(self) -> None:
        found = of("word " * 100, 1.0)
        narrow, wide = found.to_pil(width=300), found.to_pil(width=900)
        assert (narrow.width, wide.width) == (300, 900)
        assert narrow.height > 2 * wide.height

    def test_no_line_is_wider_than_the_picture(self) -> None:
        found = of(f"{'extremely' * 60} 재미없다 " + "x" * 500 + "!", 1.0, -1.0, 0.5)
        made = lines(found.passage().pieces, 16, 268)
        assert len(made) > 10
        assert all(run.x + run.width <= 268.5 for line in made for run in line)
        assert "".join(run.text for line in made for run in line).replace(" ", "") == found.text.replace(" ", "")

    def test_a_comma_stays_with_its_word(self) -> None:
        pieces = (
            explained(encoding("aaaa bbbb, c", ("aaaa", 0, 4, 0), ("bbbb", 5, 9, 1), (",", 9, 10, 2)), [1.0, 2.0, 3.0])
            .passage()
            .pieces
        )
        room = width("aaaa bbbb", 16) + 1
        assert ["".join(run.text for run in line) for line in lines(pieces, 16, room)] == ["aaaa", "bbbb, c"]

    def test_a_document_beyond_all_measure_is_refused_with_a_way_out(self) -> None:
        with pytest.raises(InvalidInput, match=r"save it as \.html"):
            of("line\n" * 1100).to_pil()

    @pytest.mark.parametrize("width", [10, 300.5, True, "wide"])
    def test_an_impossible_width_is_refused(self, width: Any) -> None:
        with pytest.raises(InvalidInput, match="is not the width of a picture"):
            of("a").to_pil(width=width)

    def test_korean_is_drawn_with_letters_not_with_boxes(self) -> None:
        try:
            ImageFont.truetype("NotoSansCJK-Regular.ttc")
        except OSError:
            pytest.skip("this machine has not the font that is asked for first")
        assert missing(KOREAN, 16) == ""
        (font, _), *others = runs("재미", 16)
        assert not others
        drawn = {letter: bytes(font.getmask(letter)) for letter in ("재", "미", "\U0010fffe")}
        assert len(set(drawn.values())) == 3

    def test_letters_without_a_font_are_named_in_the_picture(self) -> None:
        nobody = "\U000e0100\ue000"
        assert missing(f"a{nobody}", 16) == "\ue000"
        plain, boxed = of("ab", 1.0).to_pil(), of("a\ue000", 1.0).to_pil()
        assert boxed.height > plain.height

    def test_right_to_left_text_is_placed_from_the_right(self) -> None:
        made = lines(of("אבג דה abc").passage().pieces, 16, 400)[0]
        assert [run.text for run in made] == ["abc", " ", "דה", " ", "אבג"]
        assert made[-1].x + made[-1].width == pytest.approx(400)
        mixed = lines(of("abc אבג דה xyz").passage().pieces, 16, 400)[0]
        assert [run.text for run in mixed if run.text != " "] == ["abc", "דה", "אבג", "xyz"]

    def test_blank_lines_and_tabs_stay(self) -> None:
        made = lines(of("a\n\n\tb\r\nc").passage().pieces, 16, 400)
        assert ["".join(run.text for run in line) for line in made] == ["a", "", "    b", "c"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTerminal:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLORTERM", "truecolor")

    found = of("good bad\nso Zo", 3.0, -1.5, 0.0, 0.3)

    def line(self, stream: io.StringIO) -> str:
        """The painted text: all between the heading and the legend."""
        return "\n".join(rendered([self.found.passage()], stream).split("\n")[1:3])

    def test_a_file_gets_signs_in_characters(self) -> None:
        assert self.line(io.StringIO()) == "good[+++] bad[--]\nso Zo[+][?]"

    def test_no_color_gives_signs_in_characters_on_a_terminal_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        assert re.sub(r"\x1b\[[\d;]*m", "", self.line(Terminal())) == "good[+++] bad[--]\nso Zo[+][?]"
        assert "48;" not in rendered([self.found.passage()], Terminal())

    def test_a_terminal_gets_colours_with_positive_words_underlined(self) -> None:
        first, second = self.line(Terminal()).split("\n")
        good, bad = re.findall(r"\x1b\[([\d;]*)m(\w+)\x1b\[0m", first)
        assert good == ("4;38;2;255;255;255;48;2;190;18;40", "good")
        assert bad[1] == "bad"
        assert not bad[0].startswith("4;")
        assert "48;2;" in bad[0]
        assert second.startswith("so \x1b[4;38;2;")  # weak: letters in colour, no ground
        assert "48;2;" not in second

    def test_the_legend_and_the_scale_are_lines_of_their_own(self) -> None:
        lines = rendered([self.found.passage()], io.StringIO()).split("\n")
        assert lines[3:6] == [
            "[+] to [+++] evidence for negative; [-] to [---] evidence against negative; [?] not in the vocabulary",
            "The strongest of these words: a relevance of 3.",
            "score +1.8, sum of relevance +1.8",
        ]

    def test_sixteen_colours_keep_red_and_blue_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLORTERM")
        monkeypatch.setenv("TERM", "xterm")
        first = self.line(Terminal()).split("\n")[0]
        assert re.findall(r"\x1b\[([\d;]*)m(\w+)", first) == [("4;97;41", "good"), ("97;44", "bad")]

    def test_print_paints_for_where_it_goes(self, capsys: pytest.CaptureFixture[str]) -> None:
        print(self.found)
        assert "good[+++] bad[--]" in capsys.readouterr().out

    def test_a_text_can_not_steer_the_terminal(self) -> None:
        found = of("a\x1b[2Jb \x9b31m c\x07\x7f", 1.0)
        for stream in (io.StringIO(), Terminal()):
            out = re.sub(r"\x1b\[[\d;]*m", "", rendered([found.passage()], stream))
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)
            assert "a\ufffd[2Jb" in out
        assert "\x1b" not in found.table()

    def test_the_table_is_aligned_in_columns_of_the_terminal(self) -> None:
        from rich.cells import cell_len

        table = of("재미없다 ok Zz", -1.5, 0.25, 1.0).table().split("\n")
        assert [line.split()[:3] for line in table] == [
            ["1", "재미없다", "-1.5"],
            ["2", "Zz", "+1"],
            ["3", "ok", "+0.25"],
        ]
        ends = {cell_len(line.removesuffix("  not in the vocabulary")) for line in table}
        assert len(ends) == 1

    def test_the_table_says_how_many_words_it_leaves_out(self) -> None:
        found = of("a b c", 1.0, 2.0, 3.0)
        assert found.table(1).endswith("... and 2 more words")
        assert len(found.table(None).split("\n")) == 3

    def test_repr_is_one_line(self) -> None:
        assert repr(self.found) == (
            "TextAttribution(4 words, 0 tokens apart, target=negative, score=+1.8, total=+1.8, method='lrp', "
            "rules='auto: epsilon')"
        )


class TestFiles:
    found = explained(
        encoding(
            f"{KOREAN}\n😀", ("[CLS]", 0, 0, None), ("이", 0, 1, 0), ("영화", 2, 4, 1), ("😀", 13, 14, 2), unknown=(3,)
        ),
        [0.1, 1 / 3, -2e-7, 5.0],
        notes=("a note",),
    )

    @pytest.mark.parametrize("name", ["map.json", "map.npz", "MAP.JSON"])
    def test_figures_come_back_exactly(self, name: str, tmp_path: Path) -> None:
        self.found.save(tmp_path / name)
        back = load(tmp_path / name)
        assert back.encoding == self.found.encoding
        assert torch.equal(back.relevance, self.found.relevance)
        assert torch.equal(back.score, self.found.score)
        assert back.to_dict() == self.found.to_dict()
        assert back.to_html() == self.found.to_html()

    def test_half_precision_and_a_target_function_come_back(self, tmp_path: Path) -> None:
        attribution = replace(self.found.attribution, relevance=self.found.relevance.half(), target=None, labels=None)
        TextAttribution(self.found.encoding, attribution, "gradient", False).save(tmp_path / "map.json")
        back = load(tmp_path / "map.json")
        assert back.relevance.dtype == torch.float16
        assert (back.target, back.labels, back.label, back.method, back.has_sign) == (
            None,
            None,
            "score",
            "gradient",
            False,
        )

    def test_several_go_into_one_file(self, tmp_path: Path) -> None:
        both = [self.found, of("a b", 1.0)]
        for ending in ("html", "svg", "png", "json"):
            save(both, tmp_path / f"both.{ending}")
        assert [each.text for each in load(tmp_path / "both.json")] == [self.found.text, "a b"]
        assert Page((tmp_path / "both.html").read_text(encoding="utf-8")).texts == [self.found.text, "a b"]
        with pytest.raises(InvalidFile, match="holds one explanation, and there are 2"):
            save(both, tmp_path / "both.npz")

    def test_json_is_for_other_programs_too(self, tmp_path: Path) -> None:
        self.found.save(tmp_path / "map.json")
        told = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))
        assert told["text"] == self.found.text
        assert [(word["text"], word["relevance"]) for word in told["words"]] == [
            ("이", 1 / 3),
            ("영화", -2e-7),
            ("😀", 5.0),
        ]
        assert sum(token["relevance"] for token in told["tokens"]) == pytest.approx(told["relevance"])

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("map.txt", b"", "names no relprop text attribution"),
            ("none.json", None, "can't be read"),
            ("map.json", b"{", "or a damaged one"),
            ("map.json", b"{}", "missing or wrong: 'format'"),
            ("map.json", b'{"format": "other"}', "its format is 'other'"),
            ("map.json", b'{"format": "relprop text attribution", "version": 9}', "its version is 9"),
            ("map.json", b"3", "missing or wrong"),
            ("map.npz", b"no archive", "damaged"),
        ],
    )
    def test_other_files_are_refused(self, name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidFile, match=said):
            load(tmp_path / name)

    def test_offsets_outside_of_the_text_are_refused(self, tmp_path: Path) -> None:
        told = self.found.to_dict()
        told["text"] = "short"
        (tmp_path / "map.json").write_text(json.dumps(told), encoding="utf-8")
        with pytest.raises(InvalidFile, match="the text has 5 characters"):
            load(tmp_path / "map.json")

    def test_an_ending_that_says_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidFile, match="'map' does not say what to save"):
            self.found.save(tmp_path / "map")

    def test_relevance_without_colour_is_refused(self) -> None:
        with pytest.raises(NonFinite, match="NaN or infinity"):
            of("a b", float("nan")).to_html()


def test_auto_gives_no_flat_rule_to_embedded_words() -> None:
    """A convolution over words: what the flat rule would give each word is the same, whatever the word."""

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.conv, self.linear = nn.Embedding(20, 8), nn.Conv1d(8, 6, 3), nn.Linear(6, 2)

        def forward(self, ids: Tensor) -> Tensor:
            scores: Tensor = self.linear(torch.relu(self.conv(self.embed(ids).mT)).amax(-1))
            return scores

    assert relprop.explain(Convolution().eval(), torch.arange(9)[None]).rules == "auto: epsilon-plus"
