"""explain_text of Hugging Face's models: the score of each head, words from sub-words, what the pictures say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_models import ENTITIES, LABELS, MASK, bert, bpe, gpt2, reloaded, t5, transformers, unigram, wordpiece
from torch import Tensor

import relprop
from relprop import targets
from relprop.errors import InvalidInput, InvalidTarget, TrainingMode, UnsupportedModel
from relprop.text import TextAttribution, TextExplainer, explain_text, load

REVIEW = "The unwatchable film isn't wonderful."
FRANCE = "Paris is the capital of France."
QUESTION = {"question": "What is the capital of France?", "context": "London is in England. Paris is the capital."}


def classifier(**options: Any) -> Any:
    return bert("BertForSequenceClassification", id2label=LABELS, **options)


def by_hand(model: Any, given: Any, score: Any) -> tuple[Tensor, Tensor]:
    """(score, relevance of the tokens) by relprop.explain, which knows no text."""
    found = relprop.explain(model, given, score)
    return found.score, found.relevance["input_ids"]


def same(found: TextAttribution, model: Any, given: Any, score: Any) -> None:
    """The text's explanation is that of the function `score` of the model's output, with all of its relevance."""
    expected, relevance = by_hand(model, given, score)
    assert torch.allclose(found.score, expected, rtol=1e-12)
    assert torch.allclose(found.score, score(model(**given)).detach(), rtol=1e-12)
    assert torch.allclose(found.relevance, relevance, rtol=1e-9, atol=1e-13)
    shown = sum(word.relevance for word in found.words) + sum(token.relevance for token in found.special)
    assert shown == pytest.approx(float(relevance.sum()), rel=1e-9)


def difference(found: TextAttribution, model: Any, given: Any, score: Any, other: Any) -> None:
    """As `same`, of a contrast: as LRP is linear in the scores, its relevance is the difference of the two."""
    scores, relevances = zip(*(by_hand(model, given, each) for each in (score, other)), strict=True)
    assert torch.allclose(found.score, scores[0] - scores[1], rtol=1e-12)
    assert torch.allclose(found.relevance, relevances[0] - relevances[1], rtol=1e-9, atol=1e-12)


class TestClassification:
    @pytest.mark.parametrize("target", [None, 0, "POSITIVE", "MIXED"])
    def test_words_are_sums_of_their_sub_words(self, target: Any) -> None:
        model, tokenizer = classifier(), wordpiece()
        found = explain_text(model, tokenizer, REVIEW, target=target)
        given = tokenizer(REVIEW, return_tensors="pt")
        index = (
            int(model(**given).logits.argmax())
            if target is None
            else {**{v: k for k, v in LABELS.items()}, 0: 0}[target]
        )
        same(found, model, given, lambda out: out.logits[:, index])
        assert found.label == LABELS[index]
        relevance = by_hand(model, given, lambda out: out.logits[:, index])[1][0].tolist()
        places = given.word_ids()
        assert places.count(1) > 2  # unwatchable, in pieces
        sums = [
            sum(r for r, p in zip(relevance, places, strict=True) if p == word) for word in range(max(places[1:-1]) + 1)
        ]
        assert [word.relevance for word in found.words] == pytest.approx(sums, rel=1e-9)
        assert [word.text for word in found.words][:3] == ["The", "unwatchable", "film"]
        assert [(token.token, token.relevance) for token in found.special] == [
            ("[CLS]", pytest.approx(relevance[0])),
            ("[SEP]", pytest.approx(relevance[-1])),
        ]

    def test_a_pipeline_brings_everything_along(self) -> None:
        model, tokenizer = classifier(), wordpiece()
        pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
        found = explain_text(pipe, REVIEW)
        assert found.label == pipe(REVIEW)[0]["label"]
        probabilities = model(**tokenizer(REVIEW, return_tensors="pt")).logits.softmax(1).detach()
        assert float(probabilities.max()) == pytest.approx(pipe(REVIEW)[0]["score"], rel=1e-6)
        assert torch.equal(found.relevance, explain_text(model, tokenizer, REVIEW).relevance)
        assert torch.equal(found.relevance, TextExplainer(pipe)(REVIEW).relevance)

    def test_the_tokenizer_by_place_or_by_name(self) -> None:
        model, tokenizer = classifier(), wordpiece()
        expected = explain_text(model, tokenizer, REVIEW, "MIXED")
        for found in (
            explain_text(model, REVIEW, tokenizer=tokenizer, target="MIXED"),
            explain_text(model, REVIEW, "MIXED", tokenizer=tokenizer),
            explain_text(model, text=REVIEW, tokenizer=tokenizer, target="MIXED"),
        ):
            assert torch.equal(found.relevance, expected.relevance)

    def test_why_one_class_and_not_another(self) -> None:
        model, tokenizer = classifier(), wordpiece()
        given = tokenizer(REVIEW, return_tensors="pt")
        found = explain_text(model, tokenizer, REVIEW, targets.contrast("POSITIVE", "NEGATIVE"))
        difference(found, model, given, lambda out: out.logits[:, 1], lambda out: out.logits[:, 0])
        assert found.label == "POSITIVE rather than NEGATIVE"
        best = int(model(**given).logits.argmax())
        other = (best + 1) % 3
        default = explain_text(model, tokenizer, REVIEW, targets.contrast(None, other))
        difference(default, model, given, lambda out: out.logits[:, best], lambda out: out.logits[:, other])
        assert default.label == f"{LABELS[best]} rather than {LABELS[other]}"

    def test_two_texts_at_once(self) -> None:
        model, tokenizer = classifier(), wordpiece()
        found = explain_text(model, tokenizer, {"text": FRANCE, "text_pair": "London is in England."}, "MIXED")
        given = tokenizer(FRANCE, "London is in England.", return_tensors="pt")
        assert given["token_type_ids"].max() == 1
        same(found, model, given, lambda out: out.logits[:, 2])
        assert found.text == f"{FRANCE}\nLondon is in England."
        assert [word.text for word in found.words][:2] == ["Paris", "is"]
        assert found.words[-2].text == "England"
        assert found.text[found.words[-2].start : found.words[-2].end] == "England"
        assert [token.token for token in found.special] == ["[CLS]", "[SEP]", "[SEP]"]

    def test_several_texts_are_each_explained_alone(self) -> None:
        model, tokenizer = classifier(), wordpiece()
        found = explain_text(model, tokenizer, [REVIEW, FRANCE], ["MIXED", "POSITIVE"])
        for each, text, target in zip(found, (REVIEW, FRANCE), ("MIXED", "POSITIVE"), strict=True):
            assert torch.equal(each.relevance, explain_text(model, tokenizer, text, target).relevance)

    def test_from_a_folder(self, tmp_path: Path) -> None:
        model, tokenizer = reloaded(classifier(), tmp_path), reloaded(wordpiece(), tmp_path)
        found = explain_text(model, tokenizer, REVIEW)
        assert torch.allclose(found.relevance, explain_text(classifier(), wordpiece(), REVIEW).relevance, atol=1e-13)

    def test_a_model_in_training_mode_is_refused_before_it_is_run(self) -> None:
        model = classifier()
        model.train()
        with pytest.raises(TrainingMode):
            explain_text(model, wordpiece(), REVIEW, targets.contrast(None, 1))


class TestLength:
    LONG = " ".join([REVIEW] * 6)

    def test_too_long_is_said_with_the_line_to_write(self) -> None:
        with pytest.raises(InvalidInput, match=r"tokens, and the model reads at most 40.*truncation=True"):
            explain_text(classifier(), wordpiece(), self.LONG)

    def test_cut_with_a_note(self) -> None:
        model, tokenizer = classifier(), wordpiece()
        found = explain_text(model, tokenizer, self.LONG, 1, truncation=True)
        given = tokenizer(self.LONG, truncation=True, max_length=40, return_tensors="pt")
        same(found, model, given, lambda out: out.logits[:, 1])
        assert len(found.tokens) == 40
        (note,) = [each for each in found.notes if "cut" in each]
        assert note.endswith(repr(self.LONG[: found.words[-1].end][-30:]))
        assert found.text == self.LONG
        assert "the text was cut" in found.to_html()

    def test_a_short_text_has_no_note(self) -> None:
        assert not any("cut" in note for note in explain_text(classifier(), wordpiece(), FRANCE, truncation=True).notes)

    def test_a_pipeline_that_cuts(self) -> None:
        pipe = transformers.pipeline("text-classification", model=classifier(), tokenizer=wordpiece(), truncation=True)
        assert any("cut" in note for note in explain_text(pipe, self.LONG).notes)

    def test_places_that_the_model_lacks(self) -> None:
        model = gpt2(n_positions=4)
        model.config.n_positions = 100
        for target in (None, " the"):
            with pytest.raises(InvalidInput, match="no more tokens than the model has places for"):
                explain_text(model, bpe(), FRANCE, target)


class TestTokenClassification:
    def model(self) -> Any:
        return bert("BertForTokenClassification", id2label=ENTITIES)

    def logits(self) -> Tensor:
        return self.model()(**self.given()).logits[0].detach()

    def given(self) -> Any:
        return wordpiece()(FRANCE, return_tensors="pt")

    def explain(self, target: Any = None) -> TextAttribution:
        return explain_text(self.model(), wordpiece(), FRANCE, target)

    def test_the_strongest_entity_is_the_default(self) -> None:
        words = self.logits()[1:-1]  # without [CLS] and [SEP]
        place, label = divmod(int(words[:, 1:].argmax()), 2)
        found = self.explain()
        same(found, self.model(), self.given(), lambda out: out.logits[:, place + 1, label + 1])
        word = self.given().word_ids()[place + 1]
        assert found.label == f'{ENTITIES[label + 1]} of "{found.words[word].text}"'

    def test_a_label_is_explained_where_it_is_strongest(self) -> None:
        place = 1 + int(self.logits()[1:-1, 2].argmax())
        same(self.explain("PER"), self.model(), self.given(), lambda out: out.logits[:, place, 2])

    @pytest.mark.parametrize("position", ["France", "Paris"])
    def test_a_word_stands_for_its_first_token(self, position: str) -> None:
        word = ["Paris", "is", "the", "capital", "of", "France"].index(position)
        place = self.given().word_ids().index(word)
        found = self.explain(targets.at(position, "LOC"))
        same(found, self.model(), self.given(), lambda out: out.logits[:, place, 1])
        assert found.label == f'LOC of "{position}"'
        best = int(self.logits()[place].argmax())
        same(self.explain(targets.at(position)), self.model(), self.given(), lambda out: out.logits[:, place, best])

    def test_one_label_rather_than_another(self) -> None:
        found = self.explain(targets.contrast(targets.at(1, "LOC"), "O"))
        difference(found, self.model(), self.given(), lambda out: out.logits[:, 1, 1], lambda out: out.logits[:, 1, 0])
        assert found.label == 'LOC of "Paris" rather than O of "Paris"'

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("LCO", "Did you mean 'LOC'"),
            (targets.at("Fran", "LOC"), "there is no 'Fran' in the text"),
            (targets.at(99, "LOC"), "no position 99: the text has"),
            (targets.answer(1, 2), "is no score of BertForTokenClassification"),
            (targets.contrast("LOC", None), r"contrast\(None, against\)"),
            (targets.contrast("LOC", "LOC"), "is what is explained already"),
        ],
    )
    def test_what_is_not_there_is_said(self, target: Any, said: str) -> None:
        with pytest.raises(InvalidTarget, match=said):
            self.explain(target)

    def test_a_word_that_stands_there_twice(self) -> None:
        with pytest.raises(InvalidTarget, match=r"'the' stands in the text 2 times; .* one of 1, 3"):
            explain_text(self.model(), wordpiece(), "the film the", targets.at("the", "LOC"))


class TestQuestionAnswering:
    def model(self) -> Any:
        return bert("BertForQuestionAnswering")

    def given(self) -> Any:
        return wordpiece()(QUESTION["question"], QUESTION["context"], return_tensors="pt")

    def place(self, word: str) -> int:
        """The first token of a word of the context."""
        return self.given().char_to_token(QUESTION["context"].index(word), sequence_index=1)

    def check_span(self, found: TextAttribution, start: int, end: int) -> None:
        """As LRP is linear in the scores, the relevance for a span is that for its start and that for its end."""
        scores = (lambda o: o.start_logits[:, start]), (lambda o: o.end_logits[:, end])
        parts = [by_hand(self.model(), self.given(), score) for score in scores]
        assert torch.allclose(found.score, parts[0][0] + parts[1][0], rtol=1e-12)
        assert torch.allclose(found.relevance, parts[0][1] + parts[1][1], rtol=1e-9, atol=1e-12)

    def test_the_default_is_the_models_own_answer(self) -> None:
        output, sequence = self.model()(**self.given()), self.given().sequence_ids(0)
        best, edges = -float("inf"), (0, 0)
        for start in range(len(sequence)):
            for end in range(start, min(start + 15, len(sequence))):
                score = float((output.start_logits[0, start] + output.end_logits[0, end]).detach())
                if sequence[start] == sequence[end] == 1 and score > best:
                    best, edges = score, (start, end)
        found = explain_text(self.model(), wordpiece(), QUESTION)
        self.check_span(found, *edges)
        offsets = wordpiece()(QUESTION["question"], QUESTION["context"], return_offsets_mapping=True)
        spans, context = offsets["offset_mapping"], QUESTION["context"]
        start, end = spans[edges[0]][0], spans[edges[1]][1]
        # Where the answer begins or ends inside of a word depends on the vocabulary; whole words are shown.
        words = [match.span() for match in re.finditer(r"\w+|[^\w\s]", context)]
        start = max(first for first, _ in words if first <= start)
        end = min(last for _, last in words if last >= end)
        assert found.label == f'the answer "{context[start:end]}"'

    def test_question_and_context_are_shown_one_below_the_other(self) -> None:
        found = explain_text(self.model(), wordpiece(), QUESTION)
        assert found.text == f"{QUESTION['question']}\n{QUESTION['context']}"
        assert [word.text for word in found.words if "capital" in word.text] == ["capital", "capital"]
        assert [token.token for token in found.special] == ["[CLS]", "[SEP]", "[SEP]"]

    def test_an_answer_as_text(self) -> None:
        start, end = self.place("in"), self.place(".") - 1
        found = explain_text(self.model(), wordpiece(), QUESTION, "in England")
        self.check_span(found, start, end)
        assert found.label == 'the answer "in England"'

    def test_its_start_by_a_word_and_its_end_by_a_place(self) -> None:
        start = self.place("Paris")
        found = explain_text(self.model(), wordpiece(), QUESTION, targets.answer(start="Paris"))
        same(found, self.model(), self.given(), lambda o: o.start_logits[:, start])
        found = explain_text(self.model(), wordpiece(), QUESTION, targets.answer(end=start))
        same(found, self.model(), self.given(), lambda o: o.end_logits[:, start])
        assert found.label == 'the end of the answer at "Paris"'

    def test_one_answer_rather_than_another(self) -> None:
        paris, london = self.place("Paris"), self.place("London")
        found = explain_text(
            self.model(), wordpiece(), QUESTION, targets.contrast(targets.answer("Paris"), targets.answer("London"))
        )
        difference(
            found, self.model(), self.given(), lambda o: o.start_logits[:, paris], lambda o: o.start_logits[:, london]
        )

    @pytest.mark.parametrize(
        ("text", "target", "error", "said"),
        [
            (FRANCE, None, InvalidInput, r'\{"question": \.\.\., "context": \.\.\.\}'),
            (QUESTION, "Berlin", InvalidTarget, "no 'Berlin' in the text"),
            (QUESTION, 3, InvalidTarget, "expected the answer as text"),
            (QUESTION, targets.answer(99), InvalidTarget, "no position 99: the text has"),
            (QUESTION, targets.answer(), InvalidTarget, "say where it starts or ends"),
            (QUESTION, targets.contrast("Paris", None), InvalidTarget, r"contrast\(None, against\)"),
            (QUESTION, targets.contrast("Paris", "Paris"), InvalidTarget, "is what is explained already"),
            ({"question": "a", "text": "b"}, None, InvalidInput, "'question' and 'context'"),
            ({"question": "a", "context": ""}, None, InvalidInput, "the text is empty"),
        ],
    )
    def test_what_can_not_be_answered_is_said(self, text: Any, target: Any, error: type, said: str) -> None:
        with pytest.raises(error, match=said):
            explain_text(self.model(), wordpiece(), text, target)

    def test_two_texts_need_a_tokenizer_that_takes_them(self) -> None:
        with pytest.raises(InvalidInput, match="two texts at once: only a tokenizer of transformers"):
            explain_text(self.model(), lambda text: ([1], ["a"]), QUESTION)


class TestMaskedWords:
    TEXT = f"{MASK} is the capital of France."

    def given(self) -> Any:
        return wordpiece()(self.TEXT, return_tensors="pt")

    def test_the_most_likely_word_is_the_default(self) -> None:
        model = bert("BertForMaskedLM")
        best = int(model(**self.given()).logits[0, 1].argmax())
        found = explain_text(transformers.pipeline("fill-mask", model=model, tokenizer=wordpiece()), self.TEXT)
        same(found, model, self.given(), lambda out: out.logits[:, 1, best])
        assert found.label == f'"{wordpiece().decode([best])}" at "{MASK}"'

    def test_a_word_and_one_against_another(self) -> None:
        model, vocabulary = bert("BertForMaskedLM"), wordpiece().get_vocab()
        the, film = vocabulary["the"], vocabulary["is"]
        same(explain_text(model, wordpiece(), self.TEXT, "The"), model, self.given(), lambda o: o.logits[:, 1, the])
        found = explain_text(model, wordpiece(), self.TEXT, targets.contrast("the", "is"))
        difference(found, model, self.given(), lambda out: out.logits[:, 1, the], lambda out: out.logits[:, 1, film])

    def test_which_of_two_masks(self) -> None:
        model, text = bert("BertForMaskedLM"), f"{MASK} is {MASK}"
        with pytest.raises(InvalidTarget, match=r"has 2 of \[MASK\]; say which: target=relprop\.targets\.at\(1\).* 3"):
            explain_text(model, wordpiece(), text)
        given = wordpiece()(text, return_tensors="pt")
        found = explain_text(model, wordpiece(), text, targets.at(3, "the"))
        same(found, model, given, lambda out: out.logits[:, 3, wordpiece().get_vocab()["the"]])

    @pytest.mark.parametrize(
        ("text", "target", "said"),
        [
            (FRANCE, None, r"the text has no \[MASK\]; write it in place of the word"),
            (TEXT, "unwatchable", r"'unwatchable' is \d+ tokens, '.*a model says one at a time"),
            (TEXT, "語", "'語' is not in the vocabulary"),
            (TEXT, 1.5, "got 1.5 as a token"),
        ],
    )
    def test_what_is_not_there_is_said(self, text: str, target: Any, said: str) -> None:
        with pytest.raises(InvalidTarget, match=said):
            explain_text(bert("BertForMaskedLM"), wordpiece(), text, target)


class TestNextToken:
    PROMPT = "Paris is the capital of"

    def given(self, text: str = PROMPT) -> Any:
        return bpe()(text, return_tensors="pt")

    def id(self, token: str) -> int:
        (found,) = bpe()(token)["input_ids"]
        return found

    def test_the_most_likely_one_at_the_end_is_the_default(self) -> None:
        model = gpt2()
        best = int(model(**self.given()).logits[0, -1].argmax())
        found = explain_text(transformers.pipeline("text-generation", model=model, tokenizer=bpe()), self.PROMPT)
        same(found, model, self.given(), lambda out: out.logits[:, -1, best])
        assert found.continuation == (bpe().decode([best]).strip() or bpe().convert_ids_to_tokens(best))

    def test_any_token_by_its_text_or_id(self) -> None:
        model, the = gpt2(), self.id(" the")
        for target in (" the", the, "Ġthe", targets.next_token(" the")):
            same(explain_text(model, bpe(), self.PROMPT, target), model, self.given(), lambda o: o.logits[:, -1, the])

    @pytest.mark.parametrize("position", [4, "is", -4])
    def test_at_any_position_what_follows_gets_nothing(self, position: Any) -> None:
        model, the, given = gpt2(), self.id(" the"), self.given()
        place = {
            "is": [t for t, w in enumerate(given.word_ids()) if w == 1][-1],
            -4: len(given["input_ids"][0]) - 4,
        }.get(position, position)
        found = explain_text(model, bpe(), self.PROMPT, targets.next_token(" the", position=position))
        same(found, model, given, lambda out: out.logits[:, place, the])
        assert torch.equal(found.relevance[:, place + 1 :], torch.zeros_like(found.relevance[:, place + 1 :]))
        end = bpe()(self.PROMPT, return_offsets_mapping=True)["offset_mapping"][place][1]
        alone = explain_text(model, bpe(), self.PROMPT[:end], " the")
        assert torch.allclose(found.relevance[:, : place + 1], alone.relevance, rtol=0, atol=1e-12)

    def test_why_this_word_and_not_that_one(self) -> None:
        model, the, and_ = gpt2(), self.id(" the"), self.id(" and")
        found = explain_text(model, bpe(), self.PROMPT, targets.contrast(" the", " and"))
        difference(found, model, self.given(), lambda out: out.logits[:, -1, the], lambda out: out.logits[:, -1, and_])
        parts = [explain_text(model, bpe(), self.PROMPT, each) for each in (" the", " and")]
        assert float(found.score) == pytest.approx(float(parts[0].score - parts[1].score))
        assert found.label == '" the" as the next token rather than " and"'

    def test_a_token_that_begins_a_word_is_told_from_one_within_it(self) -> None:
        claims = [explain_text(gpt2(), bpe(), self.PROMPT, each).label for each in (" the", "he")]
        assert claims == ['" the" as the next token', '"he" as the next token']

    def test_words_have_the_spaces_of_bytes_left_out(self) -> None:
        found = explain_text(gpt2(), bpe(), f"{self.PROMPT} 한국 😀!")
        assert [word.text for word in found.words] == ["Paris", "is", "the", "capital", "of", "한국", "😀!"] or [
            word.text for word in found.words
        ] == ["Paris", "is", "the", "capital", "of", "한국", "😀", "!"]
        assert found.special == ()

    def test_a_token_without_letters_is_shown_as_the_vocabulary_writes_it(self) -> None:
        assert explain_text(gpt2(), bpe(), self.PROMPT, "\n").continuation == "Ċ"
        assert explain_text(gpt2(), bpe(), self.PROMPT, " ").continuation == "Ġ"
        assert explain_text(gpt2(), bpe(), self.PROMPT, "\x07").continuation == bpe().tokenize("\x07")[0]

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            (" Londonderry", r"' Londonderry' is \d tokens, 'Ġ'.*give the id of one"),
            (9999, "target 9999 is out of range"),
            (-1, "ids start at 0"),
            (targets.next_token(" the", position="Berlin"), "no 'Berlin' in the text"),
            (targets.contrast(" the", " the"), "' the' is what is explained already"),
        ],
    )
    def test_what_is_not_there_is_said(self, target: Any, said: str) -> None:
        with pytest.raises(InvalidTarget, match=said):
            explain_text(gpt2(), bpe(), self.PROMPT, target)

    def test_an_end_that_the_tokenizer_adds_is_told(self) -> None:
        model = bert("BertLMHeadModel", is_decoder=True)
        found = explain_text(model, wordpiece(), FRANCE)
        assert any("[SEP] at the end" in note for note in found.notes)

    def test_pictures_show_what_comes_next(self, tmp_path: Path) -> None:
        found = explain_text(gpt2(), bpe(), self.PROMPT, targets.contrast(" the", " and"))
        assert "of → the (rather than and)" in re.sub(r"\[[+-]+\]", "", str(found))
        html = found.to_html()
        assert "→ the (rather than and)</div>" in html
        assert (
            "evidence for &quot; the&quot; as the next token" in html or 'evidence for " the" as the next token' in html
        )
        inside = explain_text(gpt2(), bpe(), self.PROMPT, targets.next_token(" and", position="is")).passage()
        assert inside.text == "Paris is [→ and] the capital of"
        assert [inside.text[word.start : word.end] for word in inside.words] == self.PROMPT.split()
        for ending in ("json", "npz"):
            found.save(tmp_path / f"found.{ending}")
            again = load(tmp_path / f"found.{ending}")
            assert (again.label, again.passage().text) == (found.label, found.passage().text)
            assert torch.equal(again.relevance, found.relevance)


class TestEncoderAndDecoder:
    TEXT = "The film is great"

    def given(self, *decoded: int) -> Any:
        return {**unigram()(self.TEXT, return_tensors="pt"), "decoder_input_ids": torch.tensor([[0, *decoded]])}

    def check(self, found: TextAttribution, given: Any, score: Any) -> None:
        expected = relprop.explain(t5(), given, score)
        rows = torch.cat([expected.relevance["input_ids"], expected.relevance["decoder_input_ids"]], 1)
        assert torch.allclose(found.score, expected.score, rtol=1e-12)
        assert torch.allclose(found.relevance, rows, rtol=1e-9, atol=1e-13)

    def test_the_first_token_of_the_answer(self) -> None:
        best = int(t5()(**self.given()).logits[0, -1].argmax())
        found = explain_text(t5(), unigram(), self.TEXT)
        self.check(found, self.given(), lambda out: out.logits[:, -1, best])
        assert [token.token for token in found.special] == ["</s>", "<pad>"]

    def test_after_what_the_decoder_wrote_so_far(self) -> None:
        written = unigram()("the plot", add_special_tokens=False)["input_ids"]
        one, other = 20, 21
        found = explain_text(t5(), unigram(), {"text": self.TEXT, "prefix": "the plot"}, targets.contrast(one, other))
        parts = [
            explain_text(t5(), unigram(), {"text": self.TEXT, "prefix": "the plot"}, each) for each in (one, other)
        ]
        self.check(parts[0], self.given(*written), lambda out: out.logits[:, -1, one])
        assert torch.allclose(found.relevance, parts[0].relevance - parts[1].relevance, rtol=1e-9, atol=1e-12)
        assert found.text == f"{self.TEXT}\nthe plot"
        assert [word.text for word in found.words] == ["The", "film", "is", "great", "the", "plot"]
        assert found.continues_at == len(found.text)

    @pytest.mark.parametrize(
        ("text", "target", "error", "said"),
        [
            (TEXT, targets.next_token(3, position=1), InvalidTarget, '"prefix"'),
            ({"text": TEXT, "prefix": ""}, None, InvalidInput, "the text is empty"),
        ],
    )
    def test_what_can_not_be_explained_is_said(self, text: Any, target: Any, error: type, said: str) -> None:
        with pytest.raises(error, match=said):
            explain_text(t5(), unigram(), text, target)

    def test_only_decoders_have_a_prefix(self) -> None:
        with pytest.raises(InvalidInput, match="BertForSequenceClassification has none; leave it away"):
            explain_text(classifier(), wordpiece(), {"text": FRANCE, "prefix": "a"})

    def test_a_decoder_without_a_start(self) -> None:
        model = t5()
        model.config.decoder_start_token_id = None
        with pytest.raises(InvalidInput, match=r"model\.config\.decoder_start_token_id = tokenizer\.pad_token_id"):
            explain_text(model, unigram(), self.TEXT)


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "named", "error", "said"),
        [
            ((), {}, InvalidInput, "there is no text"),
            ((REVIEW,), {}, InvalidInput, r"there is no tokenizer; write explain_text\(model, tokenizer, text\)"),
            ((REVIEW, 1, 2), {}, TypeError, "got 4 arguments by position"),
            ((REVIEW,), {"text": FRANCE}, TypeError, "text by name"),
            ((REVIEW,), {"traget": 1}, TypeError, "traget by name"),
        ],
    )
    def test_what_does_not_fit_is_said(self, given: Any, named: Any, error: type, said: str) -> None:
        with pytest.raises(error, match=said):
            explain_text(classifier(), *given, **named)

    def test_a_model_without_a_head(self) -> None:
        with pytest.raises(InvalidTarget, match=r"it has no head\. Load it with one, as AutoModelForSequenceClass"):
            explain_text(bert("BertModel"), wordpiece(), REVIEW)
        direction = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = explain_text(
            bert("BertModel"), wordpiece(), REVIEW, lambda out: out.last_hidden_state[:, 0] @ direction
        )
        assert found.relevance.abs().sum() > 0

    def test_a_choice_between_texts_is_explained_by_the_line_it_says(self) -> None:
        model, tokenizer = bert("BertForMultipleChoice"), wordpiece()
        with pytest.raises(UnsupportedModel, match=r"relprop\.explain\(model, \{name: each\[None\]"):
            explain_text(model, tokenizer, REVIEW)
        question, choices = "What is the capital?", ["Paris", "London", "the film"]
        read = tokenizer([question] * len(choices), choices, padding=True, return_tensors="pt")
        given = {name: each[None] for name, each in read.items()}
        found = relprop.explain(model, given, target=0)
        assert torch.equal(found.score, model(**given).logits[:, 0].detach())
        assert found.relevance["input_ids"].shape == given["input_ids"].shape
        assert found.relevance["input_ids"][0, 0].abs().sum() > 0

    def test_outputs_of_another_form_are_explained_by_a_function(self) -> None:
        for model, text in (
            (classifier(return_dict=False), REVIEW),
            (bert("BertForQuestionAnswering", return_dict=False), QUESTION),
        ):
            with pytest.raises(InvalidTarget, match=r"target=lambda output: output\[0\]\[:, 3\]"):
                explain_text(model, wordpiece(), text, targets.contrast(None, 1))
            found = explain_text(model, wordpiece(), text, lambda output: output[0][:, 1])
            assert found.relevance.abs().sum() > 0

    def test_pipelines_that_are_something_else(self) -> None:
        pipe = transformers.pipeline("text-classification", model=classifier(), tokenizer=wordpiece())
        with pytest.raises(
            UnsupportedModel, match=r"text-classification pipeline.*relprop\.explain_text\(pipeline, text\)"
        ):
            relprop.explain(pipe, torch.ones(1, 3))
        entailment = bert(
            "BertForSequenceClassification",
            id2label={0: "contradiction", 1: "entailment"},
            label2id={"contradiction": 0, "entailment": 1},
        )
        zero = transformers.pipeline("zero-shot-classification", model=entailment, tokenizer=wordpiece())
        with pytest.raises(UnsupportedModel, match=r'"text_pair": .*target="entailment"'):
            explain_text(zero, REVIEW)
