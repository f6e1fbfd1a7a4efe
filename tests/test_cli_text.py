"""`relprop text`: what it prints and writes, which model it takes, how errors end."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from relprop import zoo
from relprop.cli import app
from relprop.cli.console import Exit
from relprop.cli.text_network import language_of
from relprop.errors import InvalidFile, InvalidInput
from relprop.text import Encoding, load
from relprop.zoo import TextEntry

LABELS = ("negative", "positive")
LIKED = {"good": 2, "warm": 2, "좋다": 2, "bad": 3, "dull": 3, "재미없다": 3}
VALUES = [0.0, 0.1, 1.0, -2.0]


class Sentiment(nn.Module):
    """Adds up the values of the words: positive for what is liked, negative for the rest."""

    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 1)
        self.linear = nn.Linear(1, 2, bias=False)
        self.embedding.weight.data = torch.tensor(VALUES)[:, None]
        self.linear.weight.data = torch.tensor([[-1.0], [1.0]])
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(self.embedding(ids).sum(1))


def tokenizer(text: str) -> Encoding:
    found = list(re.finditer(r"\w+", text))
    ids = tuple(LIKED.get(each.group().lower(), 1) for each in found)
    return Encoding(
        text,
        ids,
        tokens=tuple(each.group() for each in found),
        offsets=tuple(each.span() for each in found),
        special=(False,) * len(ids),
        unknown=tuple(id_ == 1 for id_ in ids),
        words=tuple(range(len(ids))),
    )


@pytest.fixture(autouse=True)
def _small_models_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(name: str) -> TextEntry:
        if name not in ("reviews-en", "reviews-ko"):
            raise InvalidInput(f"the zoo has no model {name!r}")
        return TextEntry(
            name=name,
            summary="",
            language=name[-2:],
            tokenizer=tokenizer,
            build=Sentiment,
            read_labels=lambda: LABELS,
        )

    monkeypatch.setattr(zoo, "text_entry", entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["text", *map(str, arguments)], input=stdin)


def answer(*arguments: object, stdin: str | None = None) -> list[Any]:
    """The texts in the JSON of a command that ends well and has nothing else on stdout."""
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == Exit.OK, result.output
    told: list[Any] = json.loads(result.stdout)["texts"]
    return told


def plain(text: str) -> str:
    """`text` without the frames and line breaks of rich."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


class TestOneText:
    def test_the_words_are_painted_and_the_strongest_listed(self) -> None:
        result = run("A good film, but far too dull.")
        assert result.exit_code == Exit.OK
        lines = [line.rstrip() for line in result.stdout.split("\n")]
        assert lines[0] == "negative: +0.5 (lrp, auto: epsilon)"
        assert lines[1] == "A[-][?] good[--] film[-][?], but[-][?] far[-][?] too[-][?] dull[+++]."
        assert "[+] to [+++] evidence for negative" in lines[2]
        assert "score +0.5, sum of relevance +0.5" in lines
        rows = [line.split() for line in lines]
        assert ["dull", "+2"] in rows
        assert ["good", "-1"] in rows
        assert ["A", "-0.1", "not", "in", "the", "vocabulary"] in rows

    def test_json_has_every_word_with_its_place_and_the_sum(self) -> None:
        (told,) = answer("A good film!")
        (explained,) = told["explanations"]
        assert (told["text"], told["model"]) == ("A good film!", "reviews-en")
        assert [(w["text"], w["start"], w["end"], w["unknown"]) for w in explained["words"]] == [
            ("A", 0, 1, True),
            ("good", 2, 6, False),
            ("film", 7, 11, True),
        ]
        assert [w["relevance"] for w in explained["words"]] == pytest.approx([0.1, 1.0, 0.1])
        assert sum(w["relevance"] for w in explained["words"]) == pytest.approx(explained["relevance"])
        assert explained["score"] - explained["relevance"] == pytest.approx(explained["difference"])
        assert (explained["class"], explained["index"], explained["method"]) == ("positive", 1, "lrp")

    @pytest.mark.parametrize(("target", "label"), [("negative", "negative"), ("0", "negative"), ("1", "positive")])
    def test_the_class_is_named_or_counted(self, target: str, label: str) -> None:
        assert answer("good", "--target", target)[0]["explanations"][0]["class"] == label

    def test_several_targets_methods_and_presets_are_compared(self) -> None:
        arguments = ["dull", "-t", "0", "-t", "positive", "--method", "lrp,gradient", "-r", "epsilon", "-r", "gamma"]
        (told,) = answer(*arguments)
        assert [(e["class"], e["method"], e["rules"]) for e in told["explanations"]] == [
            (label, method, rules)
            for label in LABELS
            for method, rules in (("lrp", "epsilon"), ("lrp", "gamma"), ("gradient", "gradient (squared=True)"))
        ]
        out = run(*arguments).stdout
        assert out.count("evidence for positive") == 2  # a legend for each LRP explanation,
        assert out.count("the score of positive reacts to the word") == 1  # and one for the gradient's

    def test_labels_come_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("싫다\n좋다\n", encoding="utf-8")
        assert answer("good", "--labels", "names.txt")[0]["explanations"][0]["class"] == "좋다"


class TestModel:
    @pytest.mark.parametrize(
        ("text", "model"),
        [
            ("이 영화 진짜 재미없다", "reviews-ko"),
            ("Avengers Endgame 최고", "reviews-ko"),
            ("ㅋㅋㅋㅋ", "reviews-ko"),
            ("This film is bad", "reviews-en"),
            ("Parasite (기생충) is a great film", "reviews-en"),
            ("!!! 10/10", "reviews-en"),
        ],
    )
    def test_it_goes_by_the_script_and_says_so(self, text: str, model: str) -> None:
        result = run(text)
        assert f"model: {model}, as none was given" in result.stderr
        assert "model:" not in result.stdout

    def test_the_one_asked_for_is_taken_without_a_word(self) -> None:
        result = run("이 영화", "--model", "reviews-en", "--json")
        assert json.loads(result.stdout)["texts"][0]["model"] == "reviews-en"
        assert result.stderr == ""

    def test_a_text_without_words_is_not_korean(self) -> None:
        assert language_of("") == "en"

    def test_an_unknown_one_ends_the_command(self) -> None:
        result = run("good", "--model", "reviews-fr")
        assert result.exit_code == Exit.ERROR
        assert result.stderr.startswith("relprop: the zoo has no model 'reviews-fr'. There is no folder 'reviews-fr'")
        assert "Nothing is downloaded: save a model of Hugging Face once by model.save_pretrained(" in result.stderr
        assert result.stdout == ""

    def test_one_that_is_not_there_fails_for_each_text_alike(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def damaged() -> nn.Module:
            raise InvalidFile("the weights are damaged")

        entry = dataclasses.replace(zoo.text_entry("reviews-en"), build=damaged)
        monkeypatch.setattr(zoo, "text_entry", lambda name: entry)
        result = run("--lines", "-", stdin="good\nbad\n")
        assert result.exit_code == Exit.ERROR
        assert result.stderr.split("\n")[1:] == [
            "relprop: line 1: the weights are damaged",
            "relprop: line 2: the weights are damaged",
            "",
        ]


class TestSources:
    def test_standard_input_is_one_text(self) -> None:
        (told,) = answer("-", stdin="good\nbad\n")
        assert (told["source"], told["text"]) == ("standard input", "good\nbad")

    def test_a_file_is_one_text_and_several_are_several(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes("\ufeffgood\r\nfilm\r\n".encode())
        (tmp_path / "b.txt").write_text("dull", encoding="utf-8")
        told = answer("--file", "a.txt", "-f", "b.txt")
        assert [(each["source"], each["text"]) for each in told] == [("a.txt", "good\r\nfilm"), ("b.txt", "dull")]

    @pytest.mark.parametrize("stdin", [None, "good\n\n  \n이 영화 재미없다\n"])
    def test_lines_are_a_text_each_with_a_model_each(self, stdin: str | None, tmp_path: Path) -> None:
        (tmp_path / "all.txt").write_text("good\n\n  \n이 영화 재미없다\n", encoding="utf-8")
        told = answer("--lines", "-" if stdin else "all.txt", stdin=stdin)
        assert [(each["source"], each["model"]) for each in told] == [
            ("line 1", "reviews-en"),
            ("line 4", "reviews-ko"),
        ]

    def test_each_of_several_texts_has_a_heading(self, tmp_path: Path) -> None:
        (tmp_path / "all.txt").write_text("good\ndull\n", encoding="utf-8")
        out = run("--lines", "all.txt").stdout
        assert re.findall(r"^line \d \(reviews-en\)", out, re.MULTILINE) == [
            "line 1 (reviews-en)",
            "line 2 (reviews-en)",
        ]

    def test_what_can_be_explained_is_although_some_can_not(self, tmp_path: Path) -> None:
        (tmp_path / "all.txt").write_text("good\n...\n", encoding="utf-8")
        result = run("--lines", "all.txt", "--json")
        assert result.exit_code == Exit.SOME_FAILED
        first, second = json.loads(result.stdout)["texts"]
        assert first["explanations"]
        assert second["error"]["type"] == "InvalidInput"
        assert "relprop: line 2: the tokenizer found no token in '...'" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "stdin", "said"),
        [
            ([""], None, "relprop: the text is empty"),
            (["-"], "", "relprop: standard input: the text is empty"),
            (["--file", "none.txt"], None, "relprop: none.txt: the file 'none.txt' can't be read"),
            (["--lines", "none.txt"], None, "relprop: the file 'none.txt' can't be read"),
            (["--lines", "-"], "\n \n", "there is no text in it"),
            (["-"], "좋다".encode("cp949"), "is not UTF-8"),
            (["good", "--target", "neutral"], None, "neutral"),
            (["good", "--method", "magic"], None, "there is no method 'magic'"),
            (["good", "--rules", "magic"], None, "magic"),
            (["good", "--labels", "none.txt"], None, "the labels 'none.txt' can't be read"),
        ],
    )
    def test_errors_are_one_line(self, arguments: list[str], stdin: Any, said: str) -> None:
        result = run(*arguments, stdin=stdin)
        assert result.exit_code == Exit.ERROR
        assert result.stdout == ""
        errors = [line for line in result.stderr.split("\n") if not line.startswith("model: ")]
        assert said in errors[0]
        assert errors[1:] == [""]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "there is no text"),
            (["too", "bad"], 'put a text of several words in quotes, as "too bad"'),
            (["-", "--lines", "-"], "standard input can be read once"),
            (["good", "--out", "map"], "names no kind of file"),
            (["good", "--method", "gradient", "--rules", "epsilon"], "presets are for lrp"),
        ],
    )
    def test_wrong_usage_is_said_with_the_way_to_write_it(self, arguments: list[str], said: str) -> None:
        result = run(*arguments)
        assert result.exit_code == Exit.USAGE
        assert said in plain(result.stderr)


class TestOut:
    @pytest.mark.parametrize("ending", ["html", "svg", "png", "json", "npz"])
    def test_the_ending_says_what_is_written(self, ending: str, tmp_path: Path) -> None:
        result = run("A good film", "--out", f"map.{ending}")
        assert result.exit_code == Exit.OK
        assert f"wrote map.{ending}" in result.stdout
        content = (tmp_path / f"map.{ending}").read_bytes()
        starts = {"html": b"<!doctype html>", "svg": b"<svg ", "png": b"\x89PNG", "json": b"{", "npz": b"PK"}
        assert content.startswith(starts[ending])
        if ending in ("json", "npz"):
            assert load(tmp_path / f"map.{ending}").text == "A good film"

    def test_methods_stand_on_one_page_with_a_legend_each(self, tmp_path: Path) -> None:
        (told,) = [
            json.loads(run("A good film", "--method", "lrp,gradient_x_input", "--out", "map.html", "--json").stdout)
        ]
        html = (tmp_path / "map.html").read_text(encoding="utf-8")
        assert told["written"] == "map.html"
        assert html.count('<div class="text"') == html.count('<div class="legend">') == 2
        assert "(gradient_x_input)" in html
        assert "<script" not in html

    def test_figures_of_several_explanations_do_not_fit_an_npz(self) -> None:
        result = run("good", "--target", "0", "--target", "1", "--out", "map.npz")
        assert result.exit_code == Exit.ERROR
        assert "holds one explanation, and there are 2" in result.stderr

    def test_a_folder_that_is_not_there_is_named(self) -> None:
        result = run("good", "--out", "none/map.html")
        assert result.exit_code == Exit.ERROR
        assert "there is no folder none" in result.stderr


def test_help_teaches_by_examples() -> None:
    said = plain(run("--help").stdout)
    assert 'relprop text "이 영화 진짜 재미없다"' in said
    assert "cat review.txt | relprop text -" in said


def test_a_page_of_several_texts_tells_which_is_which() -> None:
    assert run("--lines", "-", "--out", "both.html", stdin="good\nbad\n").exit_code == 0
    headings = re.findall(r"<h2>([^<]*)", Path("both.html").read_text(encoding="utf-8"))
    assert [heading.split(": ")[:2] for heading in headings] == [["line 1", "positive"], ["line 2", "negative"]]
    run("good", "--out", "one.html")
    assert "<h2>positive: " in Path("one.html").read_text(encoding="utf-8")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Folders as save_pretrained writes them: a classifier, a language model."""
    pytest.importorskip("transformers")
    from huggingface_models import LABELS as CLASSES
    from huggingface_models import bert, bpe, gpt2, wordpiece

    made = {
        "classifier": (bert("BertForSequenceClassification", id2label=CLASSES), wordpiece()),
        "answers": (bert("BertForQuestionAnswering"), wordpiece()),
        "headless": (bert("BertModel"), wordpiece()),
        "writer": (gpt2(), bpe()),
    }
    for name, (model, tokenizer) in made.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


class TestFolder:
    def explained(self, *arguments: object) -> Any:
        (told,) = answer(*arguments)
        (found,) = told["explanations"]
        return found

    def by_python(self, folder: Path, text: str, target: Any) -> Any:
        import relprop
        from relprop.models.huggingface_folder import load_folder

        return relprop.explain_text(*load_folder(folder), text, target=target)

    def same(self, told: Any, expected: Any) -> None:
        assert [word["relevance"] for word in told["words"]] == [word.relevance for word in expected.words]
        assert told["class"] == expected.label
        assert told["score"] == float(expected.score)

    def test_a_classifier(self, folders: Path) -> None:
        for target in (None, "MIXED", "1"):
            told = self.explained(
                "The film is great", "--model", folders / "classifier", *(["--target", target] if target else [])
            )
            self.same(told, self.by_python(folders / "classifier", "The film is great", {"1": 1}.get(target, target)))

    def test_one_class_rather_than_another(self, folders: Path) -> None:
        from relprop.targets import contrast

        told = self.explained(
            "The film", "--model", "classifier", "--target", "MIXED", "--against", "NEGATIVE", "--method", "lrp"
        )
        self.same(told, self.by_python(folders / "classifier", "The film", contrast("MIXED", "NEGATIVE")))
        assert told["class"] == "MIXED rather than NEGATIVE"

    def test_what_a_language_model_writes_next(self, folders: Path) -> None:
        from relprop.targets import contrast

        text = "Paris is the capital of"
        self.same(self.explained(text, "--model", "writer"), self.by_python(folders / "writer", text, None))
        told = self.explained(text, "--model", "writer", "--target", " the", "--against", " and")
        self.same(told, self.by_python(folders / "writer", text, contrast(" the", " and")))
        result = run(text, "--model", "writer", "--target", " the", "--against", " and")
        assert "→ the (rather than and)" in result.stdout
        assert result.stderr == ""

    def test_no_network_is_asked(self, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def asked(*given: Any, **named: Any) -> Any:
            raise AssertionError("the network was asked")

        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(socket.socket, "connect", asked)
        monkeypatch.setattr(socket, "getaddrinfo", asked)
        for folder in ("classifier", "writer"):
            assert run("Paris is the capital of", "--model", folder).exit_code == Exit.OK
        for name in ("someone/some-model", "bert-base-uncased"):
            result = run("Paris", "--model", name)
            assert result.exit_code == Exit.ERROR
            assert "Nothing is downloaded" in result.stderr

    def test_a_figure_is_a_token_there(self, folders: Path) -> None:
        told = self.explained("Paris is", "--model", "writer", "--target", "3")
        assert told["class"] == '"3" as the next token'

    def test_it_is_read_in_single_precision(self, folders: Path) -> None:
        from relprop.models.huggingface_folder import load_folder

        model, _ = load_folder(folders / "classifier")
        assert not model.training
        assert {each.dtype for each in model.parameters()} == {torch.float32}

    def test_too_long_and_cut(self, folders: Path) -> None:
        long = "The film is great. " * 20
        result = run(long, "--model", "classifier")
        assert result.exit_code == Exit.ERROR
        assert "the model reads at most 40" in plain(result.stderr)
        cut = self.explained(long, "--model", "classifier", "--truncation")
        assert any("the text was cut" in note for note in cut["notes"])

    def test_a_model_of_the_zoo_against_another_class(self) -> None:
        told = self.explained("good dull dull", "--model", "reviews-en", "--against", "positive")
        assert told["class"] == "negative rather than positive"
        assert told["score"] == pytest.approx(2 * (2.0 + 2.0 - 1.0))

    @pytest.mark.parametrize(
        ("folder", "change", "said"),
        [
            ("classifier", "tokenizer.json", "holds no tokenizer (tokenizer.json); write tokenizer.save_pretrained("),
            ("classifier", "config.json", "is no folder of a Hugging Face model"),
            ("classifier", "model.safetensors", "can't be read by transformers"),
            ("headless", None, "it has no head"),
            ("answers", None, '{"question": ..., "context": ...}'),
        ],
    )
    def test_what_is_missing_is_said(self, folders: Path, folder: str, change: str | None, said: str) -> None:
        if change is not None:
            (folders / folder / change).unlink()
        result = run("The film is great", "--model", folder)
        assert result.exit_code == Exit.ERROR
        assert said in plain(result.stderr)
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize(
        ("architectures", "said"),
        [
            (["MyOwnModel"], "which transformers"),
            ([], "does not say which model it is of"),
            (["BertForTokenClassification"], "classifier.bias is missing, and would be random, as 1 more"),
        ],
    )
    def test_what_the_configuration_does_not_fit(self, folders: Path, architectures: list[str], said: str) -> None:
        file = folders / "headless" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": architectures}))
        result = run("The film is great", "--model", "headless")
        assert result.exit_code == Exit.ERROR
        assert said in plain(result.stderr)

    def test_damaged_weights(self, folders: Path) -> None:
        (folders / "classifier" / "model.safetensors").write_bytes(b"damaged")
        result = run("The film is great", "--model", "classifier")
        assert result.exit_code == Exit.ERROR
        assert "can't be read by transformers" in plain(result.stderr)

    def test_without_transformers_it_says_what_to_install(self, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        result = run("The film is great", "--model", "classifier")
        assert result.exit_code == Exit.MISSING_EXTRA
        assert 'pip install "relprop[huggingface]"' in plain(result.stderr)


class TestFlow:
    TEXT = "A charming film, funny and never dull."

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (("--model", "reviews-en", "--flow", "flow.svg"), Exit.ERROR, "reviews-en has none"),
            (("--flow", "flow.gif"), Exit.USAGE, "names no kind of picture"),
            (("--method", "lrp,gradient", "--flow", "flow.svg"), Exit.USAGE, "one explanation"),
            (("--method", "gradient", "--flow", "flow.svg"), Exit.USAGE, "by lrp"),
            (("--target", "negative", "--target", "positive", "--flow", "flow.svg"), Exit.USAGE, "for one target"),
        ],
    )
    def test_where_there_is_none_that_is_said(self, arguments: tuple[str, ...], code: Exit, said: str) -> None:
        result = run(self.TEXT, *arguments)
        assert result.exit_code == code and said in plain(result.stderr) and not Path("flow.svg").exists()
