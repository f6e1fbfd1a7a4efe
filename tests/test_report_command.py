"""`relprop report`: what it explains and tells, what it does with what can't be explained; and the demo's pages."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from report_pages import Page, png
from torch import nn
from typer.testing import CliRunner, Result

from relprop import Explainer, explain_text, zoo
from relprop.cli import app, report_work
from relprop.cli.console import Exit
from relprop.cli.report_inputs import sources

REVIEWS = "A warm, funny film.\n\nBoring from the first scene to the last.\n"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three digits in folders named after their classes, and what else is found in folders."""
    folder = tmp_path / "scans"
    for name, index in (("3/scan-2.png", 30), ("3/scan-10.png", 33), ("8/odd.png", 89)):
        png(index, folder / name)
    (folder / ".hidden.png").write_bytes(b"not looked at")
    (folder / "notes.md").write_text("left out")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def answer(*arguments: object, code: Exit = Exit.OK) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


class TestPictures:
    def test_figures_are_those_of_the_python_interface(self, scans: Path) -> None:
        told = answer(scans, "--model", "mnist-mlp", "--rules", "epsilon,deep-taylor", "--method", "lrp,gradient")
        images, _ = zoo.digits()
        explainer = Explainer(zoo.load("mnist-mlp"), bounds=(-1.0, 1.0))
        page = Page(Path("report.html"))
        assert [each["input"] for each in told["inputs"]] == ["3/scan-2.png", "3/scan-10.png", "8/odd.png"]
        for one, index, stored in zip(told["inputs"], (30, 33, 89), page.sheets, strict=True):
            compared = explainer.compare(images[index : index + 1], ["epsilon", "deep-taylor"], methods=["gradient"])
            assert [each["title"] for each in one["explanations"]] == list(compared)
            for figures, sheet, attribution in zip(one["explanations"], stored, compared.values(), strict=True):
                assert figures["score"] == sheet["score"] == pytest.approx(float(attribution.score[0]), rel=1e-6)
                assert figures["relevance"] == sheet["total"] == pytest.approx(float(attribution.total[0]), rel=1e-5)
                if figures["difference"] is not None:
                    assert figures["difference"] == pytest.approx(sum(figures["absorbed"].values()), abs=1e-4)
            assert one["explanations"][-1]["difference"] is None  # of the gradient

    def test_the_folder_tells_the_class(self, scans: Path) -> None:
        told = answer(scans, "--model", "mnist-mlp", "--truth", "folder")
        assert [(each["answer"], each["truth"], each["right"]) for each in told["inputs"]] == [
            ("3", "3", True),
            ("3", "3", True),
            ("3", "8", False),
        ]
        assert "2 of 3 answers right" in run(scans, "--model", "mnist-mlp", "--truth", "folder").stdout

    def test_the_model_follows_from_the_picture(self, scans: Path) -> None:
        result = run(scans, "--first", 1, "--json")
        told = json.loads(result.stdout)
        assert [each["model"] for each in told["inputs"]] == ["mnist-cnn"] and "model: mnist-cnn" in result.stderr
        assert "1 file left out" in result.stderr

    def test_one_class_is_explained_in_all(self, scans: Path) -> None:
        told = answer(scans, "--model", "mnist-cnn", "--target", 8)
        assert {each["explained"] for each in told["inputs"]} == {"8"}
        assert [each["answer"] for each in told["inputs"]] == ["3", "3", "8"]

    def test_a_program_of_ones_own_with_labels(self, scans: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 2)).eval()
        torch.export.save(torch.export.export(model, (torch.zeros(1, 1, 16, 16),)), "mine.pt2")
        Path("names.txt").write_text("left\nright\n")
        told = answer(scans, "--model", "mine.pt2", "--labels", "names.txt", "--mean", 0.5, "--std", 0.5)
        assert {each["answer"] for each in told["inputs"]} <= {"left", "right"}
        heat = Page(Path("report.html")).sheets[0][0]["heat"]
        assert (heat["width"], heat["height"]) == (16, 16)


class TestTexts:
    def test_lines_are_explained_by_every_method(self) -> None:
        Path("reviews.txt").write_text(REVIEWS)
        Path("answers.csv").write_text("1,positive\n3,positive\n")
        told = answer("--lines", "reviews.txt", "--method", "lrp,gradient", "--truth", "answers.csv")
        assert [each["input"] for each in told["inputs"]] == ["line 1", "line 3"]
        assert [each["right"] for each in told["inputs"]] == [True, False]
        entry = zoo.text_entry("reviews-en")
        expected = explain_text(entry.build(), entry.tokenizer, REVIEWS.splitlines()[0], labels=entry.labels)
        lrp, gradient = told["inputs"][0]["explanations"]
        assert lrp["relevance"] == pytest.approx(float(expected.total[0]), rel=1e-5)
        assert (gradient["method"], gradient["difference"]) == ("gradient", None)
        assert "funny" in Page(Path("report.html")).visible

    def test_files_and_pictures_in_one_report(self, scans: Path) -> None:
        (scans / "review.txt").write_text("Boring.\n")
        told = answer(scans)
        assert [each["model"] for each in told["inputs"]] == ["mnist-cnn"] * 3 + ["reviews-en"]
        assert [each["model"] for each in told["balances"]] == ["mnist-cnn", "reviews-en"]

    def test_names_of_lines_are_in_the_language_of_the_page(self) -> None:
        Path("reviews.txt").write_text(REVIEWS)
        answer("--lines", "reviews.txt", "--language", "ko", "--no-causes", "--title", "영화 리뷰")
        said = Page(Path("report.html")).visible
        assert "3번째 줄" in said and "line 3" not in said and "영화 리뷰" in said and "조사하지 않음" in said


class TestWhatFails:
    def test_what_cannot_be_explained_is_named_and_the_rest_goes_on(self, scans: Path) -> None:
        (scans / "8" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
        told = answer(scans, "--model", "mnist-cnn", code=Exit.SOME_FAILED)
        (failure,) = told["failures"]
        assert failure["input"] == "8/broken.png" and "damaged" in failure["error"] and len(told["inputs"]) == 3
        said = Page(Path("report.html")).visible
        assert "8/broken.png" in said and failure["error"] in said and "1 could not be explained" in said

    def test_a_page_of_failures_only_ends_in_an_error(self, tmp_path: Path) -> None:
        Path("broken.png").write_bytes(b"nothing of a picture")
        result = run("broken.png", "missing.png", "--out", "all.html")
        assert result.exit_code == Exit.ERROR and "missing.png" in result.stderr
        assert "2 could not be explained" in Page(Path("all.html")).visible

    def test_an_interrupted_report_is_written(self, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        explain = report_work.Work.__call__

        def once(work: Any, source: Any) -> Any:
            if source.name != "3/scan-2.png":
                raise KeyboardInterrupt
            return explain(work, source)

        monkeypatch.setattr(report_work.Work, "__call__", once)
        result = run(scans, "--model", "mnist-mlp")
        page = Page(Path("report.html"))
        assert result.exit_code == Exit.INTERRUPTED and len(page.sheets) == 1 and "stopped before" in page.visible

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            ((), Exit.USAGE, "nothing to explain"),
            (("scans", "--rules", "epsilon", "--method", "gradient"), Exit.USAGE, "presets are for lrp"),
            (("scans", "--rules", "no-such-preset"), Exit.ERROR, "no-such-preset"),
            (("scans", "--method", "no-such-method"), Exit.ERROR, "no-such-method"),
            (("scans", "--model", "no-such-model"), Exit.ERROR, "no-such-model"),
            (("scans", "--language", "fr"), Exit.ERROR, "English"),
            (("scans", "--out", "page.pdf"), Exit.ERROR, ".html"),
            (("scans", "--out", "no/such/page.html"), Exit.ERROR, "no folder"),
            (("scans", "--clip", "0"), Exit.ERROR, "percentile"),
            (("scans", "--bits", "8"), Exit.ERROR, "16"),
            (("scans", "--truth", "no.csv"), Exit.ERROR, "no.csv"),
            (("--lines", "no.txt"), Exit.ERROR, "no.txt"),
        ],
    )
    def test_what_cannot_be_asked_for_is_said_before_any_work(
        self, scans: Path, arguments: tuple[str, ...], code: Exit, said: str
    ) -> None:
        result = run(*arguments)
        assert result.exit_code == code and said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
        assert not list(Path().glob("**/*.html"))

    def test_a_table_of_truths_has_two_columns_and_names_inputs(self, scans: Path) -> None:
        Path("wide.csv").write_text("scan-2.png,3,sure\n")
        assert "not a name and a class" in run(scans, "--truth", "wide.csv").stderr
        Path("other.csv").write_text("elsewhere.png,3\n")
        assert "names none" in run(scans, "--truth", "other.csv").stderr
        Path("long.csv").write_text(f"three.png,{'3' * 200_000}\n")
        assert "no table" in run(scans, "--truth", "long.csv").stderr
        Path("some.tsv").write_text("scan-10.png\t3\n")
        assert [each.truth for each in sources([str(scans)], None, "some.tsv")] == [None, "3", None]

    def test_an_empty_folder_is_an_error(self, scans: Path) -> None:
        shutil.rmtree(scans / "3")
        shutil.rmtree(scans / "8")
        result = run(scans)
        assert result.exit_code == Exit.ERROR and "no picture" in result.stderr


class TestDemo:
    @pytest.fixture(scope="class")
    @staticmethod
    def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Page]:
        folder = tmp_path_factory.mktemp("demo")
        result = CliRunner().invoke(app, ["demo", "--no-photos", "--out", str(folder), "--json"])
        assert result.exit_code == Exit.OK, result.output
        return Page(folder / "index.html"), Page(folder / "reviews.html")

    def test_the_pages_are_reports_of_every_digit_the_mistake_and_the_reviews(self, pages: tuple[Page, Page]) -> None:
        digits, reviews = pages
        assert len(digits.sheets) == 33 and sum(map(len, digits.sheets)) == 10 * 4 + 10 * 3 + 13 * 4
        assert all(digits.visible.count(f"A handwritten {digit}, read as {digit}") >= 2 for digit in range(10))
        assert "A mistake: 8, read as 3" in digits.visible and "3 rather than 8" in digits.visible
        assert "30 of 31 answers right" in digits.visible  # the digit that is asked about three times counts once
        assert "boring" in reviews.visible and all(len(stored) == 2 for stored in reviews.sheets)

    def test_they_are_small_and_fetch_nothing(self, pages: tuple[Page, Page]) -> None:
        for page in pages:
            addresses = [each[name] for _, each in page.elements for name in ("src", "href") if each.get(name)]
            assert all(address is not None and address.startswith(("data:", "#")) for address in addresses)
            assert len(page.source) < 5e6

    def test_every_heading_is_in_both_languages(self, pages: tuple[Page, Page]) -> None:
        for page in pages:
            named = [each for tag, each in page.elements if "data-words" in each and tag in ("span", "h1", "h2", "b")]
            assert len(named) > len(page.sheets)
            for each in named:
                words = json.loads(each["data-words"] or "")
                assert words["en"] != words["ko"] and re.search("[가-힣]", words["ko"])
