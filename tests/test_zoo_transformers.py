"""The zoo's Transformers: the networks are BERT and ViT as others write them, the word pieces are BERT's own."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import re
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.modified_gradient import relevance
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import relprop
from relprop import rules, zoo
from relprop.errors import InvalidFile, InvalidInput
from relprop.text.encoding import Encoding
from relprop.zoo import review_data, storage, train_transformer
from relprop.zoo.networks import MnistViT, ReviewTransformer
from relprop.zoo.sentiment import restore_transformer
from relprop.zoo.train_transformer import Recipe, crop, deal, from_bert, prune
from relprop.zoo.training import Encoded
from relprop.zoo.wordpiece import SPECIAL, WordPieces
from relprop.zoo.words import read_vocabulary, write_vocabulary

NAME = "reviews-en-transformer"
PIECES = (*SPECIAL, *"abcdefghilmnorstuvwy.,!'-", *(f"##{c}" for c in "abcdefghilmnorstuvwy"), "film", "##ing", "act")

needs_tokenizers = pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="needs tokenizers")


@pytest.fixture(scope="module")
def shipped() -> tuple[ReviewTransformer, WordPieces]:
    """The trained Transformer and its tokenizer."""
    return restore_transformer(storage.shipped(NAME))


@pytest.fixture(scope="module")
def small() -> ReviewTransformer:
    torch.manual_seed(0)
    return ReviewTransformer(50, width=12, heads=3, layers=2, places=9).double().eval()


def written(encoding: Encoding) -> list[str]:
    """The characters of each token as they stand in the text, those of special tokens left out."""
    spans = zip(encoding.offsets, encoding.special, strict=True)
    return [encoding.text[start:end] for (start, end), special in spans if not special]


# Texts, with everything that people write; characters that are in Unicode since long, as tokenizers differ in the new
alphabet = st.one_of(
    st.sampled_from("abcDon'tIs’ ,.!?<br />0189-\n\t"),
    st.sampled_from(
        ["é", "e\u0301", "İ", "ß", "Σ", "ς", "한", "日", "か", "😀", "\u00a0", "\u200b", "\ufffd", "\x07", "—"]
    ),
    st.characters(max_codepoint=0x2FF),
)
texts = st.lists(alphabet, max_size=30).map("".join)


# Word pieces


@pytest.mark.parametrize(
    ("text", "tokens", "words"),
    [
        ("A FILM.", ["a", "film", "."], [0, 1, 2]),
        ("filming acts", ["film", "##ing", "act", "##s"], [0, 0, 1, 1]),
        ("don't, 'tis", ["d", "##o", "##n", "'", "t", ",", "'", "t", "##i", "##s"], [0, 0, 0, 0, 0, 1, 2, 3, 3, 3]),
        ("Wéll-mäde", ["w", "##e", "##l", "##l", "-", "m", "##a", "##d", "##e"], [0, 0, 0, 0, 1, 2, 2, 2, 2]),
        ("film<br /><BR>film", ["film", "film"], [0, 1]),
        ("日film", ["[UNK]", "film"], [0, 1]),
        ("film\u200bing", ["film", "##ing"], [0, 0]),
        ("jazz film", ["[UNK]", "film"], [0, 1]),
        ("a" * 101, ["[UNK]"], [0]),
        (" \n", [], []),
        ("", [], []),
    ],
)
def test_text_is_cut_into_the_longest_pieces_there_are(text: str, tokens: list[str], words: list[int]) -> None:
    encoding = WordPieces(PIECES)(text)
    assert encoding.tokens == ("[CLS]", *tokens, "[SEP]")
    assert encoding.words == (None, *words, None)
    assert encoding.special == (True, *(False,) * len(tokens), True)
    assert encoding.unknown == tuple(token == "[UNK]" for token in encoding.tokens)
    assert [PIECES[id_] for id_ in encoding.ids] == list(encoding.tokens)


def test_pieces_know_their_characters_in_the_text() -> None:
    encoding = WordPieces(PIECES)("😀 FILMING<br />a\u0301ct İs")
    assert written(encoding) == ["😀", "FILM", "ING", "a\u0301ct", "İ", "s"]


def test_special_tokens_written_in_a_text_are_text() -> None:
    assert not set(WordPieces(PIECES)("[PAD] [CLS]").tokens[1:-1]) & {"[PAD]", "[CLS]", "[SEP]"}


@given(texts)
def test_pieces_follow_each_other_and_leave_out_no_letter(text: str) -> None:
    encoding = WordPieces(PIECES)(text)
    pieces = [(span, word) for span, word in zip(encoding.offsets, encoding.words, strict=True) if word is not None]
    assert all(a[0][1] <= b[0][0] or a[0] == b[0] for a, b in pairwise(pieces))
    assert all(b[1] - a[1] in (0, 1) for a, b in pairwise(pieces)) and (not pieces or pieces[0][1] == 0)
    covered = {place for (start, end), _ in pieces for place in range(start, end)}
    breaks = {place for match in re.finditer(r"<br\s*/?>", text, re.IGNORECASE) for place in range(*match.span())}
    letters = {place for place, c in enumerate(text) if unicodedata.category(c)[0] in "LNPS" and c != "\ufffd"}
    assert letters - breaks <= covered


def hugging_face(vocabulary: tuple[str, ...]) -> Any:
    """BERT's uncased tokenizer by the package tokenizers."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    ids = {piece: id_ for id_, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@needs_tokenizers
@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_pieces_are_those_of_hugging_face(text: str, shipped: tuple[ReviewTransformer, WordPieces]) -> None:
    assert_as_hugging_face(re.sub(r"<br\s*/?>", " ", text, flags=re.IGNORECASE), shipped[1])


@needs_tokenizers
def test_reviews_are_cut_as_by_hugging_face(shipped: tuple[ReviewTransformer, WordPieces]) -> None:
    for _, text in zoo.reviews():
        assert_as_hugging_face(text, shipped[1])


def assert_as_hugging_face(text: str, ours: WordPieces) -> None:
    theirs, encoding = hugging_face(ours.vocabulary).encode(text), ours(text)
    assert list(encoding.ids[1:-1]) == theirs.ids
    assert list(encoding.offsets[1:-1]) == theirs.offsets


def test_what_is_not_a_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected a text but got list"):
        WordPieces(PIECES)(["a", "film"])  # type: ignore[arg-type]


def test_a_vocabulary_of_something_else_is_refused(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "some.txt", ["<padding>", "<unknown>", "film"])
    with pytest.raises(InvalidFile, match=r"first lines are not \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        read_vocabulary(tmp_path / "some.txt", SPECIAL)


# The network that reads reviews


def bert(layers: int = 2) -> Any:
    """A small BertModel with weights at random, its second segment's and its pooler's unused."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=96,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    return transformers.BertModel(config).double().eval()


def test_the_network_is_bert_with_a_mean_and_a_linear_layer() -> None:
    model = bert()
    rows = list(range(0, 40, 2))
    ours = from_bert(model.state_dict(), rows).eval()
    ids = torch.tensor([[2, 7, 5, 9, 3], [2, 6, 3, 0, 0], [2, 3, 0, 0, 0]])
    mask = (ids != 0).long()
    states = model(input_ids=torch.tensor(rows)[ids], attention_mask=mask).last_hidden_state
    mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    assert torch.allclose(ours(ids), ours.linear(mean), rtol=0, atol=1e-12)


def test_weights_of_another_network_are_no_encoder() -> None:
    with pytest.raises(InvalidInput, match="does not hold the weights of a BertModel"):
        from_bert(MnistViT().state_dict(), [0])


def test_a_padded_batch_gives_each_text_what_it_gets_alone(small: ReviewTransformer) -> None:
    rows = [[7], [3, 4, 5, 6, 7], [9, 1, 9]]
    batch = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    alone = torch.cat([small(torch.tensor([row])) for row in rows])
    assert torch.allclose(small(batch), alone, rtol=0, atol=1e-14)


def test_without_gradients_the_scores_are_the_same(small: ReviewTransformer) -> None:
    batch = torch.tensor([[7, 8, 9, 3], [5, 6, 0, 0]])
    scores = small(batch)
    with torch.no_grad():  # torch takes its own fast path through the layers
        assert torch.allclose(small(batch), scores, rtol=0, atol=1e-14)


def test_a_row_of_padding_alone_has_a_score(small: ReviewTransformer) -> None:
    scores = small(torch.tensor([[0, 0, 0], [4, 5, 0]]))
    assert torch.isfinite(scores).all()
    assert torch.allclose(scores[0], small(torch.tensor([[0]]))[0], rtol=0, atol=1e-14)


def test_the_ids_are_not_changed(small: ReviewTransformer) -> None:
    ids = torch.tensor([[0, 0], [4, 0]])
    small(ids)
    assert ids.tolist() == [[0, 0], [4, 0]]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.zeros(1, 0, dtype=torch.int64), r"reads ids \(batch, tokens\).*tokenizer\(text\)\.ids"),
        (torch.tensor([1, 2]), r"reads ids \(batch, tokens\)"),
        (torch.zeros(1, 3), r"ReviewTransformer reads ids \(batch, tokens\).*torch.float32"),
        (torch.ones(1, 10, dtype=torch.int64), "reads 9 tokens at most, .* but got 10: give it a shorter text"),
    ],
    ids=["no tokens", "no batch", "float", "too many"],
)
def test_what_the_network_cant_read_is_refused(small: ReviewTransformer, ids: Tensor, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        small(ids)


# The network that reads digits


def test_the_vision_transformer_is_one_of_torchs_encoder_layers() -> None:
    torch.manual_seed(0)
    model = MnistViT(width=16, heads=2, blocks=3).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    layer = nn.TransformerEncoderLayer(
        16, 2, 32, activation="gelu", norm_first=True, batch_first=True, dtype=torch.float64
    )
    encoder = nn.TransformerEncoder(layer, 3, norm=model.norm, enable_nested_tensor=False).eval()
    names = {"qkv.": "self_attn.in_proj_", "out.": "self_attn.out_proj."}
    state = {}
    for key, value in model.blocks.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[f"layers.{key}"] = value
    encoder.load_state_dict(state | {f"norm.{key}": value for key, value in model.norm.state_dict().items()})
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(2, 49, 16) @ model.patches.weight.reshape(16, 16).T
    tokens = torch.cat([model.token.repeat(2, 1, 1), patches + model.patches.bias], dim=1) + model.places
    assert torch.allclose(model(x), model.linear(encoder(tokens)[:, 0]), rtol=0, atol=1e-12)


# Weights in bytes


def test_a_weight_in_a_byte_is_off_by_half_a_step_of_its_row_at_most(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, again = (ReviewTransformer(50, width=12, heads=3, layers=1, places=9) for _ in range(2))
    with torch.no_grad():
        model.pieces.weight[7] *= 1e-30
    storage.save(model, tmp_path / "bytes.safetensors", in_bytes=True)
    storage.restore(again, tmp_path / "bytes.safetensors")
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        step = before.abs().amax(-1, keepdim=True) / 127 if before.dim() == 2 else before.abs() / 1000
        assert ((before - after).abs() <= step * 0.501).all(), name
    assert not again.pieces.weight[0].any()


def test_weights_in_bytes_take_half_of_the_room(tmp_path: Path) -> None:
    model = ReviewTransformer(500, width=96, layers=1, places=9)
    for name, in_bytes in (("halves", False), ("bytes", True)):
        storage.save(model, tmp_path / name, in_bytes=in_bytes)
    assert (tmp_path / "bytes").stat().st_size < 0.56 * (tmp_path / "halves").stat().st_size


# The trained classifier


def test_the_classifier_is_in_the_catalogue() -> None:
    entry = zoo.text_entry(NAME)
    assert entry is zoo.entry(NAME) and (entry.language, entry.extra, entry.rules) == ("en", None, "auto")
    assert entry.labels == ("negative", "positive") and entry.available


def test_the_classifier_is_ready_to_use(shipped: tuple[ReviewTransformer, WordPieces]) -> None:
    model, tokenizer = shipped
    assert isinstance(zoo.load(NAME), ReviewTransformer) and model.labels == ("negative", "positive")
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert len(tokenizer.vocabulary) == len(set(tokenizer.vocabulary)) == len(model.pieces.weight)
    assert not model.pieces.weight[0].any() and model.pieces.weight[1:].any(1).all()
    assert zoo.text_entry(NAME).tokenizer("A fine film.").tokens == ("[CLS]", "a", "fine", "film", ".", "[SEP]")


def test_every_word_of_letters_can_be_cut(shipped: tuple[ReviewTransformer, WordPieces]) -> None:
    encoding = shipped[1]("Xyzzyq Brzęczyszczykiewicz supercalifragilistic")
    assert not any(encoding.unknown)


def test_the_weights_are_small() -> None:
    weights = storage.shipped(NAME)
    assert weights.stat().st_size <= 25_000_000 and weights.with_suffix(".txt").stat().st_size < 200_000
    assert storage.shipped("mnist-vit").stat().st_size < 400_000


def test_the_weights_are_stored_in_bytes() -> None:
    stored = load_file(storage.shipped(NAME))
    assert stored["pieces.weight"].dtype == torch.int8 and stored["norm.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful, moving film.", 1),
        ("Boring and badly acted.", 0),
        ("Not bad at all!", 1),
        ("This is not a good film.", 0),
    ],
)
def test_a_plain_verdict_is_understood(shipped: tuple[ReviewTransformer, WordPieces], text: str, label: int) -> None:
    model, tokenizer = shipped
    with torch.no_grad():
        assert int(model(torch.tensor([tokenizer(text).ids])).argmax()) == label


def test_the_card_states_the_measured_figures() -> None:
    figures = json.loads(storage.shipped(NAME).with_suffix(".json").read_text(encoding="utf-8"))
    card = zoo.card(NAME)
    confusion = figures["test_confusion"]
    right = confusion[0][0] + confusion[1][1]
    assert figures["test_reviews"] == 5_000 == sum(map(sum, confusion)) == right + figures["test_errors"]
    assert figures["test_accuracy_percent"] == round(100 * right / 5_000, 2)
    assert f"**{figures['test_accuracy_percent']:.2f} %** ({right:,} of 5,000)" in card
    assert figures["sentences"] == 1_000 and figures["sentences_accuracy_percent"] >= 82
    assert f"**{figures['sentences_accuracy_percent']:.2f} %**" in card
    for label, row in zip(("negative", "positive"), confusion, strict=True):
        share = figures[f"test_accuracy_percent_{label}"]
        assert share == round(100 * max(row) / sum(row), 2)
        assert f"| {label} | {row[0]:,} | {row[1]:,} | {share:.2f} % |" in card
    assert f"| parameters | {figures['parameters']:,} |" in card
    assert figures["parameters"] == sum(parameter.numel() for parameter in zoo.load(NAME).parameters())
    assert f"{figures['training_reviews']:,}" in card and f"{figures['validation_reviews']:,}" in card
    assert f"**{figures['validation_accuracy_percent']:.2f} %**" in card
    assert f"{figures['epochs']} epochs" in card
    assert f"seed {figures['seed']}, 1 thread and torch {figures['torch'].split('+')[0]} " in card
    assert figures["threads"] == 1 and "--evaluate" in card


# Training


def encoded(*lengths: int) -> list[Encoded]:
    return [Encoded(torch.arange(100 * n, 100 * n + length), 0) for n, length in enumerate(lengths)]


def test_a_review_is_cut_to_a_window_between_its_first_and_last_token() -> None:
    (review,) = encoded(30)
    assert crop(review, 30).ids.tolist() == crop(review, 40, random.Random(0)).ids.tolist() == list(range(30))
    assert crop(review, 6).ids.tolist() == [0, 1, 2, 3, 4, 29]
    chance, starts = random.Random(0), set()
    for _ in range(500):
        first, *inner, last = crop(review, 6, chance).ids.tolist()
        assert (first, last) == (0, 29) and inner == list(range(inner[0], inner[0] + 4))
        starts.add(inner[0])
    assert starts == set(range(1, 26))


def test_every_epoch_sees_the_short_reviews_and_its_part_of_the_long_ones() -> None:
    reviews = encoded(5, 20, 7, 21, 22, 23, 24)
    epochs = deal(reviews, Recipe(epochs=4, window=10, parts=3), random.Random(0))
    seen = [sorted(len(each.ids) for each in epoch) for epoch in epochs]
    assert all(lengths[:2] == [5, 7] for lengths in seen)
    assert sorted(length for lengths in seen[:3] for length in lengths[2:]) == [20, 21, 22, 23, 24]
    assert seen[3] == seen[0] and max(map(len, seen)) - min(map(len, seen)) <= 1


def test_pruning_keeps_what_occurs_and_all_single_characters() -> None:
    vocabulary = ("[PAD]", "film", "[UNK]", "act", "[CLS]", "a", "##s", "##ing", "[SEP]", "[MASK]", "z")
    kept = prune(vocabulary, ["film acting", "films"], occurrences=1)
    assert kept == (*SPECIAL, "film", "act", "a", "##s", "##ing", "z")
    assert prune(vocabulary, ["film acting", "films"], occurrences=2) == (*SPECIAL, "film", "a", "##s", "z")


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The arguments that name a little data set, whose reviews can be told by their words, and a little encoder."""
    for name, value in {"TEST": 20, "VALIDATION": 10, "SENTENCES": 8}.items():
        monkeypatch.setattr(review_data, name, value)
    recipe = {"learning_rate": 3e-3, "occurrences": 1, "batch": 8, "averaging": 0.8}
    monkeypatch.setattr(train_transformer, "Recipe", lambda: Recipe(**recipe))  # type: ignore[arg-type]
    monkeypatch.setattr("relprop.zoo.sentiment.ReviewTransformer", lambda n: ReviewTransformer(n, width=24, layers=1))
    path, chance = tmp_path / "reviews.csv", random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "source"])
        for index in range(120):
            filler = " ".join(chance.choices(["film", "act", "films", "acting"], k=5))
            verdict = ("bad, bad", "fine!")[index % 2]
            table.writerow([f"{filler} {verdict} {index}", index % 2, "imdb" if index % 3 else "rotten_tomatoes"])
    pieces = [
        "[PAD]",
        "[unused]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "film",
        "act",
        "##ing",
        "##s",
        "bad",
        "fine",
        *"!,0123456789",
    ]
    write_vocabulary(tmp_path / "vocab.txt", [*pieces, *(f"##{digit}" for digit in range(10))])
    save_file(little_bert(len(pieces) + 10), tmp_path / "model.safetensors")
    return ["--data", str(path), "--encoder", str(tmp_path)]


def little_bert(rows: int, width: int = 24) -> dict[str, Tensor]:
    """The weights of a BertModel of one layer, at random, under the names it has for them."""
    torch.manual_seed(2)
    matrices = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
    matrices |= {"attention.output.dense": (width, width)}
    matrices |= {"intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width)}
    state = {
        f"embeddings.{kind}_embeddings.weight": torch.randn(count, width)
        for kind, count in {"word": rows, "position": 512, "token_type": 2}.items()
    }
    for name, (high, wide) in matrices.items():
        state[f"encoder.layer.0.{name}.weight"] = torch.randn(high, wide) / wide**0.5
        state[f"encoder.layer.0.{name}.bias"] = torch.zeros(high)
    for name in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        state |= {f"{name}.LayerNorm.weight": torch.ones(width), f"{name}.LayerNorm.bias": torch.zeros(width)}
    return state


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(train_transformer.main)
    result = CliRunner().invoke(app, [*arguments, "--threads", str(torch.get_num_threads())])
    return result.exit_code, result.output


def test_training_is_repeatable_and_learns(little: list[str], tmp_path: Path) -> None:
    made = []
    for out in (tmp_path / "a.safetensors", tmp_path / "b.safetensors"):
        code, said = run(*little, "--out", str(out), "--epochs", "15")
        assert code == 0, said
        assert "epoch 1/15" in said and "epoch 15/15" in said and "validation loss" in said
        made.append([out.with_suffix(suffix).read_bytes() for suffix in (".safetensors", ".txt", ".json")])
    assert made[0] == made[1]
    figures = json.loads(made[0][2])
    assert (figures["model"], figures["epochs"], figures["seed"], figures["test_reviews"]) == (NAME, 15, 0, 20)
    assert figures["test_errors"] == 0 and figures["sentences_accuracy_percent"] == 100
    code, said = run(*little, "--out", str(tmp_path / "a.safetensors"), "--evaluate")
    assert code == 0 and json.loads(said).items() <= figures.items()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arguments, folder: arguments[:2], "--encoder is missing"),
        (lambda arguments, folder: arguments, "--out is missing"),
        (lambda arguments, folder: [*arguments[:2], "--encoder", str(folder / "no"), "--out", "a"], "can't be read"),
    ],
)
def test_a_mistake_on_the_command_line_is_said_without_a_traceback(
    change: Callable[[list[str], Path], list[str]], said: str, little: list[str], tmp_path: Path
) -> None:
    code, output = run(*change(little, tmp_path))
    assert code == 1 and output.startswith("Invalid") and said in output


# Explanations


def test_the_models_are_explained_as_they_are(shipped: tuple[ReviewTransformer, WordPieces]) -> None:
    model, tokenizer = shipped
    ids = torch.tensor([tokenizer("A warm, funny film.").ids])
    attribution = relprop.explain(model, ids)
    assert attribution.rules == "auto: attn-lrp" and attribution.relevance.shape == ids.shape
    assert torch.equal(attribution.output, model(ids))
    vit, (digits, _) = zoo.load("mnist-vit"), zoo.digits()
    attribution = relprop.explain(vit, digits[:3])
    assert attribution.rules == "auto: attn-lrp" and attribution.relevance.shape == digits[:3].shape
    assert torch.equal(attribution.output, vit(digits[:3]))


class NamedIds(nn.Module):
    """A model of token ids under the name by which the oracle knows them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("softmax", "rule"), [("taylor", rules.Half()), ("constant", rules.SignalTakesAll())], ids=["attn-lrp", "cp-lrp"]
)
@pytest.mark.parametrize("name", [NAME, "mnist-vit"])
def test_the_relevance_is_the_oracles(name: str, softmax: str, rule: rules.ProductRule) -> None:
    model = zoo.load(name).double()
    if name == NAME:
        x = torch.tensor([zoo.text_entry(NAME).tokenizer("Not bad at all! I expected nothing.").ids])
        expected = relevance(NamedIds(model), {"input_ids": x}, softmax=softmax)["input_ids"]
    else:
        x = zoo.digits()[0][::40].double()
        expected = relevance(model, {"x": x}, softmax=softmax)["x"]
    found = relprop.explain(model, x, rules=relprop.RuleMap([("affine", rules.Zero()), ("attention", rule)]))
    assert torch.allclose(found.relevance, expected, rtol=1e-10, atol=1e-12) and expected.abs().max() > 0.1


def test_padding_changes_no_relevance() -> None:
    model, tokenizer = zoo.load(NAME).double(), zoo.text_entry(NAME).tokenizer
    rows = [tokenizer(text).ids for text in ("Dull.", "A warm, funny film with wonderful actors.")]
    batch = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    together = relprop.explain(model, batch, target=1).relevance
    for row, found in zip(rows, together, strict=True):
        alone = relprop.explain(model, torch.tensor([row]), target=1).relevance[0]
        assert torch.allclose(found[: len(row)], alone, rtol=1e-9, atol=1e-12)
        assert not found[len(row) :].any()


@pytest.mark.parametrize(
    ("text", "word", "label"),
    [
        ("The actors are wonderful in this film.", "wonderful", "positive"),
        ("The second half of the film is boring.", "boring", "negative"),
        ("It is the story of two brothers, and a masterpiece.", "masterpiece", "positive"),
    ],
)
def test_the_word_that_carries_the_verdict_has_the_most_relevance(text: str, word: str, label: str) -> None:
    attribution = relprop.explain_text(zoo.load(NAME), zoo.text_entry(NAME).tokenizer, text)
    assert attribution.label == label
    assert attribution.strongest[0].text == word and attribution.strongest[0].relevance > 0


def test_relevant_patches_matter_more_to_the_vision_transformer_than_irrelevant_ones() -> None:
    model, (digits, labels) = zoo.load("mnist-vit"), zoo.digits()
    x, y = digits[::5], labels[::5]
    order = (
        relprop.explain(model, x, target=y)
        .relevance.unfold(2, 4, 4)
        .unfold(3, 4, 4)
        .sum((1, 4, 5))
        .flatten(1)
        .argsort(dim=1)
    )

    def score_without(patches: Tensor) -> float:
        kept = torch.ones(len(x), 49).scatter(1, patches, 0).view(-1, 1, 7, 7)
        pixels = kept.repeat_interleave(4, 2).repeat_interleave(4, 3)
        with torch.no_grad():
            scores = model((x + 1) * pixels - 1)  # black instead
        return float(scores.gather(1, y[:, None]).mean())

    assert score_without(order[:, -6:]) < score_without(order[:, :6]) - 3
