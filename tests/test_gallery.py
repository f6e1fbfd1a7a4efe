"""Reports: the page's figures are those of the Python interface, it fetches nothing, and it works without scripts."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_pages import DIGITS, HOSTILE, PRESETS, Page, items
from torch import nn

from relprop import Explainer, explain_text, zoo
from relprop.errors import InvalidInput, NonFinite
from relprop.view.gallery import Gallery, Item, write_gallery


def values(sheet: dict[str, Any]) -> Any:
    """The map of a sheet as an array."""
    heat = sheet["heat"]
    raw = base64.b64decode(heat["values"])
    if heat.get("bits") == 16:
        return np.frombuffer(raw, "<f2").astype(np.float64).reshape(heat["height"], heat["width"]) * heat["unit"]
    return np.frombuffer(raw, "<f4").reshape(heat["height"], heat["width"])


def picture(uri: str | None) -> Any:
    assert uri is not None and uri.startswith("data:image/png;base64,")
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(zoo.load("mnist-mlp"), bounds=(-1.0, 1.0))


@pytest.fixture(scope="module")
def digits(explainer: Explainer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gallery]:
    path = tmp_path_factory.mktemp("report") / "digits.html"
    return path, write_gallery(path, items(explainer), title={"en": "Six digits", "ko": "숫자 여섯"})


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("report") / "reviews.html"
    entry, labels = zoo.text_entry("reviews-en"), [f"{name} {HOSTILE}" for name in ("bad", "good")]
    made = {
        method: explain_text(entry.build(), entry.tokenizer, f"Not boring. {HOSTILE}", method=method, labels=labels)
        for method in ("lrp", "gradient")
    }
    item = Item(f"name {HOSTILE}", made, f"model {HOSTILE}", truth=0, language="en")
    write_gallery(path, [item], title=f"title {HOSTILE}", introduction={"en": f"words {HOSTILE}", "ko": HOSTILE})
    return path, list(made.values())


class TestContent:
    def test_the_values_are_those_of_the_attributions(self, digits: tuple[Path, Gallery], explainer: Explainer) -> None:
        sheets = Page(digits[0]).sheets
        assert len(sheets) == len(DIGITS)
        for stored, item in zip(sheets, items(explainer), strict=True):
            for sheet, (title, attribution) in zip(stored, item.explanations.items(), strict=True):
                assert sheet["title"] == title and sheet["score"] == float(attribution.score[0])
                assert np.array_equal(values(sheet), attribution.relevance[0].sum(0).numpy())

    def test_the_figures_in_words_are_score_sum_and_cause(
        self, digits: tuple[Path, Gallery], explainer: Explainer
    ) -> None:
        said = Page(digits[0]).visible
        for item in items(explainer):
            for title, attribution in item.explanations.items():
                bias = attribution.conservation.absorbed["bias"]
                for value in (float(attribution.score[0]), float(attribution.total[0])):
                    assert f"{value:+.4g}".replace("-", "−") in said
                assert f"biases {bias:+.4g}".replace("-", "−") in said and title in said

    def test_the_table_has_the_means_of_each_method(self, digits: tuple[Path, Gallery], explainer: Explainer) -> None:
        told = {each.title: each for each in digits[1].balances}
        for title in PRESETS:
            of_each = [item.explanations[title] for item in items(explainer)]
            scores, sums = (np.array([float(getattr(a, key)[0]) for a in of_each]) for key in ("score", "total"))
            bias = np.mean([a.conservation.absorbed["bias"] for a in of_each])
            assert told[title].count == len(DIGITS) and told[title].absorbed is not None
            assert told[title].score == pytest.approx(scores.mean(), rel=1e-6)
            assert told[title].difference == pytest.approx(np.abs(scores - sums).mean(), abs=1e-5)
            assert told[title].absorbed["bias"] == pytest.approx(bias, rel=1e-6)
            assert f"{bias:+.4g}".replace("-", "−") in Page(digits[0]).visible

    def test_still_maps_are_white_at_zero_and_darkest_at_the_strongest(self, digits: tuple[Path, Gallery]) -> None:
        page = Page(digits[0])
        maps = [each["src"] for each in page.of("img") if (each["alt"] or "").startswith("Heatmap")]
        sheets = [sheet for stored in page.sheets for sheet in stored]
        assert len(maps) == len(sheets) == len(DIGITS) * len(PRESETS)
        for uri, sheet in zip(maps, sheets, strict=True):
            drawn, relevance = picture(uri), values(sheet)
            row, column = np.unravel_index(np.abs(relevance).argmax(), relevance.shape)
            full = (103, 0, 31) if relevance[row, column] > 0 else (5, 48, 97)  # the ends of ColorBrewer's RdBu
            assert tuple(drawn[row, column]) == full
            assert (drawn[relevance == 0] == 255).all()
            assert (drawn[relevance > 0.2 * sheet["limit"]] @ (1, 0, -1) > 0).all()

    def test_a_map_that_little_of_the_score_reaches_says_so(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
        with torch.no_grad():
            model[1].bias.fill_(1000.0)
        made = {"epsilon": Explainer(model, "epsilon")(torch.rand(1, 1, 8, 8))}
        write_gallery(tmp_path / "a.html", [Item("mostly bias", made)])
        assert "epsilon: little of the score reaches the input" in Page(tmp_path / "a.html").visible
        with torch.no_grad():
            model[1].bias.fill_(0.0)
        made = {"epsilon": Explainer(model, "epsilon")(torch.rand(1, 1, 8, 8))}
        write_gallery(tmp_path / "b.html", [Item("no bias", made)])
        assert "little of the score" not in Page(tmp_path / "b.html").visible

    def test_series_are_strips_with_a_row_for_each_channel(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2)).eval()
        attribution = Explainer(model, "epsilon")(torch.randn(1, 3, 20))
        write_gallery(tmp_path / "a.html", [Item("signal", {"epsilon": attribution}, "net")])
        page = Page(tmp_path / "a.html")
        ((sheet,),) = page.sheets
        assert np.array_equal(values(sheet), attribution.relevance[0].numpy())
        (strip,) = page.of("img")
        assert picture(strip["src"]).shape == (3, 20, 3) and "height:84px" in (strip["style"] or "")

    def test_right_and_wrong_answers_are_told_apart(self, digits: tuple[Path, Gallery]) -> None:
        flags = [each["data-right"] for each in Page(digits[0]).of("article")]
        assert flags == ["wrong" if index == 89 else "right" for index in DIGITS]
        assert "5 of 6 answers right" in Page(digits[0]).visible
        assert [entry.right for entry in digits[1].entries].count(False) == 1

    def test_words_have_the_relevance_of_the_explanation(self, reviews: tuple[Path, Any]) -> None:
        path, made = reviews
        (stored,) = Page(path).sheets
        for sheet, attribution in zip(stored, made, strict=True):
            assert [word["relevance"] for word in sheet["words"]] == [word.relevance for word in attribution.words]
        strongest = made[0].strongest[0]
        assert f'title="{strongest.text}: {strongest.relevance:+.4g}"'.replace("-", "−") in Page(path).source

    def test_a_method_that_does_not_divide_the_score_says_so(self, reviews: tuple[Path, Any]) -> None:
        said = Page(reviews[0]).visible
        assert said.count("does not divide the score up") == 1 and "red says how strongly" in said

    def test_sixteen_bits_halve_the_values_and_the_page_says_so(self, explainer: Explainer, tmp_path: Path) -> None:
        whole, halved = tmp_path / "32.html", tmp_path / "16.html"
        write_gallery(whole, items(explainer))
        write_gallery(halved, items(explainer), bits=16)
        for exact, rounded in zip(Page(whole).sheets, Page(halved).sheets, strict=True):
            for one, other in zip(exact, rounded, strict=True):
                assert len(other["heat"]["values"]) <= len(one["heat"]["values"]) / 2 + 4
                error = np.abs(values(one) - values(other))
                assert (error <= np.abs(values(one)) * 2**-11 + one["limit"] * 1e-7).all() and error.max() > 0
                assert one["score"] == other["score"] and one["total"] == other["total"]
        assert "11 bits" in Page(halved).visible and "11 bits" not in Page(whole).visible

    def test_the_page_says_what_was_not_examined(self, explainer: Explainer, tmp_path: Path) -> None:
        gallery = write_gallery(tmp_path / "a.html", items(explainer), causes=False)
        assert all(each.absorbed is None for each in gallery.balances)
        assert "not examined" in Page(tmp_path / "a.html").visible

    def test_korean_is_the_language_of_the_whole_page(self, explainer: Explainer, tmp_path: Path) -> None:
        write_gallery(tmp_path / "a.html", items(explainer), language="ko", title={"en": "Digits", "ko": "숫자"})
        page = Page(tmp_path / "a.html")
        assert page.of("html")[0]["lang"] == "ko" and "점수가 간 곳" in page.visible and "편향" in page.visible
        assert "Where the score went" not in page.visible and "숫자" in page.visible


class TestSelfContained:
    def test_nothing_refers_to_another_file_or_host(
        self, digits: tuple[Path, Gallery], reviews: tuple[Path, Any]
    ) -> None:
        for path in (digits[0], reviews[0]):
            page = Page(path)
            for _, attributes in page.elements:
                for name in ("src", "href", "action", "data", "poster", "srcset"):
                    assert (attributes.get(name) or "data:").startswith(("data:", "#"))
            assert not re.search(r"url\((?![\"']?data:)", page.source) and "@import" not in page.source
            assert not re.search(r"https?://(?!www\.w3\.org/)", page.source)
            (policy,) = [each["content"] for each in page.of("meta") if "http-equiv" in each]
            assert policy is not None and "default-src 'none'" in policy and "http" not in policy

    def test_names_labels_and_texts_cannot_break_out(self, reviews: tuple[Path, Any]) -> None:
        page = Page(reviews[0])
        assert [each.get("class") for each in page.of("script")] == ["sheets", "report", None]
        for what in ("name", "model", "title", "words", "bad", "Not boring."):
            assert f"{what} {HOSTILE}" in page.visible
        (stored,) = page.sheets
        assert stored[0]["text"] == f"Not boring. {HOSTILE}"

    def test_a_name_that_is_no_unicode_is_written_as_far_as_it_can_be(
        self, explainer: Explainer, tmp_path: Path
    ) -> None:
        images, _ = zoo.digits()
        compared = explainer.compare(images[:1], ["epsilon"])
        write_gallery(tmp_path / "a.html", [Item("caf\udce9 \x00.png", compared)])
        assert "caf\ufffd \ufffd.png" in Page(tmp_path / "a.html").visible


class TestKeepingWhatIsDone:
    def test_what_cannot_be_shown_is_named_and_the_rest_goes_on(self, explainer: Explainer, tmp_path: Path) -> None:
        def made() -> Iterator[Item]:
            first, second, *_ = items(explainer)
            second.first.relevance[0, 0, 0, 0] = float("nan")  # type: ignore[index]
            yield from (second, first)

        seen: list[Any] = []
        gallery = write_gallery(tmp_path / "a.html", made(), progress=lambda done, total: seen.append((done, total)))
        assert [name for name, _ in gallery.failures] == ["digit 12"] and len(gallery.entries) == 1
        assert "digit 12" in Page(tmp_path / "a.html").visible and "NaN" in Page(tmp_path / "a.html").visible
        assert seen == [(1, None), (2, None)]

    def test_an_interrupted_report_holds_what_was_done(self, explainer: Explainer, tmp_path: Path) -> None:
        def made() -> Iterator[Item]:
            yield next(items(explainer))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_gallery(tmp_path / "a.html", made())
        page = Page(tmp_path / "a.html")
        assert len(page.sheets) == 1 and "stopped before its end" in page.visible

    def test_nothing_is_written_where_nothing_was_done(self, tmp_path: Path) -> None:
        write_gallery(tmp_path / "a.html", [])
        assert not list(tmp_path.iterdir())

    def test_an_item_is_of_one_sample_and_a_page_ends_in_html(self, explainer: Explainer, tmp_path: Path) -> None:
        images, _ = zoo.digits()
        with pytest.raises(InvalidInput, match="2 samples"):
            Item("two", explainer.compare(images[:2], ["epsilon"]))
        with pytest.raises(InvalidInput, match="no explanation"):
            Item("none", {})
        for options in ({"language": "fr"}, {"bits": 8}):
            with pytest.raises(InvalidInput):
                Gallery(tmp_path / "a.html", **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="html"):
            Gallery(tmp_path / "a.pdf")

    def test_a_truth_that_is_no_class_is_refused(self, explainer: Explainer, tmp_path: Path) -> None:
        images, _ = zoo.digits()
        compared = explainer.compare(images[:1], ["epsilon"])
        with Gallery(tmp_path / "a.html") as gallery:
            for wrong in ("zero", 10, -1):
                with pytest.raises(InvalidInput, match="none of the model's classes"):
                    gallery.add(Item("a", compared, truth=wrong))
            assert gallery.add(Item("a", compared, truth="0")).right is True
            with pytest.raises(NonFinite):
                compared["epsilon"].score[0] = float("inf")
                gallery.add(Item("b", compared))
