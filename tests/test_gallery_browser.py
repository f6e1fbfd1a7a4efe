"""Reports in a browser that reaches nothing: sorting, filtering, values, both languages, and no scripts at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import chromium
from report_pages import DIGITS, HOSTILE, PRESETS, items

from relprop import Attribution, Explainer, explain_text, zoo
from relprop.view.gallery import Gallery, Item, write_gallery

SHOWN = "document.querySelectorAll('article.item:not([hidden])')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a report from the disk; nothing else may be asked for, and nothing may go wrong in it."""
    contexts, wrong = [], []

    def open_page(path: Path, fragment: str = "", scripts: bool = True, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=scripts, locale="en", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        address = path.as_uri() + fragment
        allowed = (path.as_uri(), "data:", "blob:")
        page.on("request", lambda asked: asked.url.startswith(allowed) or wrong.append(f"asked for {asked.url}"))
        page.goto(address)
        if scripts:
            page.wait_for_selector("html.interactive")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(zoo.load("mnist-mlp"), bounds=(-1.0, 1.0))


@pytest.fixture(scope="module")
def digits(explainer: Explainer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gallery]:
    path = tmp_path_factory.mktemp("report") / "digits.html"
    with Gallery(path, title={"en": "Six digits", "ko": "숫자 여섯"}) as gallery:
        for item in items(explainer):
            gallery.add(item)
        gallery.fail("broken.png", "the picture is damaged")
    return path, gallery


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "hostile.html"
    entry, labels = zoo.text_entry("reviews-en"), [f"{name} {HOSTILE}" for name in ("bad", "good")]
    made = {
        method: explain_text(entry.build(), entry.tokenizer, f"Not boring. {HOSTILE}", method=method, labels=labels)
        for method in ("lrp", "gradient")
    }
    texts = {"en": f"words {HOSTILE}", "ko": HOSTILE}
    write_gallery(path, [Item(HOSTILE, made, HOSTILE, truth=0, language="en")], title=HOSTILE, introduction=texts)
    return path


def names(page: Any) -> list[str]:
    found: list[str] = page.evaluate(f"[...{SHOWN}].map((each) => each.querySelector('h3').textContent)")
    return found


def first(gallery: Gallery, key: str) -> list[float]:
    """A figure of each input's first explanation."""
    return [getattr(entry.figures[0], key) for entry in gallery.entries]


class TestGallery:
    @pytest.mark.parametrize("key", ["score", "total"])
    @pytest.mark.parametrize("down", [False, True])
    def test_inputs_are_sorted_by_score_and_by_sum(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery], key: str, down: bool
    ) -> None:
        path, gallery = digits
        page = opened(path)
        page.get_by_label("Sort by").select_option({"score": "score", "total": "sum"}[key])
        if down:
            page.get_by_role("button", name="Ascending").click()
        order = sorted(zip(first(gallery, key), DIGITS, strict=True), reverse=down)
        assert names(page) == [f"digit {index}" for _, index in order]

    def test_inputs_are_sorted_by_what_stayed_in_the_network_name_and_class(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery]
    ) -> None:
        path, gallery = digits
        page = opened(path)
        assert names(page) == [f"digit {index}" for index in DIGITS]
        page.get_by_label("Sort by").select_option("difference")
        apart = [abs(each) for each in first(gallery, "difference")]
        assert names(page) == [f"digit {index}" for _, index in sorted(zip(apart, DIGITS, strict=True))]
        page.get_by_label("Sort by").select_option("name")
        assert names(page) == [f"digit {index}" for index in sorted(DIGITS)]  # 12 before 89, as people count
        page.get_by_label("Sort by").select_option("class")
        read = [entry.answer for entry in gallery.entries]
        assert names(page) == [
            f"digit {index}" for _, index in sorted(zip(read, DIGITS, strict=True), key=lambda e: e[0])
        ]

    def test_inputs_are_sorted_by_the_first_method_that_is_shown(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery]
    ) -> None:
        path, gallery = digits
        page = opened(path)
        page.get_by_role("button", name="epsilon", exact=True).click()
        assert page.locator(".tile.map:visible").count() == len(DIGITS)
        page.get_by_label("Sort by").select_option("sum")
        sums = [entry.figures[1].total for entry in gallery.entries]
        assert names(page) == [f"digit {index}" for _, index in sorted(zip(sums, DIGITS, strict=True))]

    def test_wrong_answers_classes_and_names_are_found(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery]
    ) -> None:
        page = opened(digits[0])
        page.get_by_label("Answers").select_option("wrong")
        assert names(page) == ["digit 89"] and page.get_by_text("1 of 6 shown").is_visible()
        page.get_by_label("Answers").select_option("right")
        assert len(names(page)) == 5
        page.get_by_label("Class", exact=True).select_option("3")  # what 89 is read as, wrongly
        assert names(page) == []
        page.get_by_role("button", name="Show all").click()
        assert len(names(page)) == 6 and page.get_by_label("Class", exact=True).input_value() == ""
        page.get_by_label("Find", exact=True).fill("T 4")
        assert names(page) == ["digit 41"]

    def test_what_failed_is_named(self, opened: Callable[..., Any], digits: tuple[Path, Gallery]) -> None:
        page = opened(digits[0])
        assert page.get_by_text("1 could not be explained").is_visible()
        assert "the picture is damaged" in page.get_by_role("listitem").filter(has_text="broken.png").inner_text()

    def test_maps_share_a_scale_where_that_is_chosen(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery], explainer: Explainer
    ) -> None:
        page = opened(digits[0])
        largest = [
            {title: float(each.relevance.sum(1).abs().max()) for title, each in item.explanations.items()}
            for item in items(explainer)
        ]
        own, shared = _darkest(page), max(max(each.values()) for each in largest)
        assert len(own) == len(DIGITS) * len(PRESETS) and all(own)
        page.get_by_label("Full colour").select_option("item")
        of_item = [each[title] == max(each.values()) for each in largest for title in PRESETS]
        assert _darkest(page) == of_item
        page.get_by_label("Full colour").select_option("all")
        assert _darkest(page) == [each[title] == shared for each in largest for title in PRESETS]


class TestOneInput:
    def test_every_value_can_be_read(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery], explainer: Explainer
    ) -> None:
        page = opened(digits[0])
        page.get_by_role("link", name="digit 12").click()
        dialog = page.get_by_role("dialog", name="digit 12")
        attribution = _explained(explainer, 12, "deep-taylor")
        plane = dialog.locator(".rp-card").nth(1).locator(".rp-plane")
        plane.scroll_into_view_if_needed()
        box = plane.bounding_box()
        for row, column in ((14, 14), (9, 20)):
            page.mouse.move(box["x"] + (column + 0.5) / 28 * box["width"], box["y"] + (row + 0.5) / 28 * box["height"])
            value = float(attribution.relevance[0, 0, row, column])
            said = dialog.locator(".rp-card").nth(1).locator(".rp-readout").inner_text()
            assert f"row {row}, column {column}" in said and f"{value:+.4g}".replace("-", "−") in said

    def test_values_of_sixteen_bits_are_read_as_stored(
        self, opened: Callable[..., Any], explainer: Explainer, tmp_path: Path
    ) -> None:
        write_gallery(tmp_path / "a.html", items(explainer, ("deep-taylor",)), bits=16)
        page = opened(tmp_path / "a.html", "#item-1")
        plane = page.get_by_role("dialog").locator(".rp-plane")
        plane.scroll_into_view_if_needed()
        box = plane.bounding_box()
        page.mouse.move(box["x"] + 14.5 / 28 * box["width"], box["y"] + 14.5 / 28 * box["height"])
        said = page.get_by_role("dialog").locator(".rp-tip").inner_text().replace("−", "-")
        exact = float(_explained(explainer, 12, "deep-taylor").relevance[0, 0, 14, 14])
        assert float(said) == pytest.approx(exact, rel=1e-3) and exact != 0

    def test_the_keyboard_opens_steps_and_closes(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery]
    ) -> None:
        page = opened(digits[0])
        page.get_by_label("Answers").select_option("right")
        page.get_by_role("link", name="digit 25").focus()
        page.keyboard.press("Enter")
        heading = page.locator("dialog h2")
        assert heading.inner_text() == "digit 25" and page.get_by_text("3 of 5").is_visible()
        page.keyboard.press("ArrowRight")
        assert heading.inner_text() == "digit 41"  # 89 is wrong, and left out
        assert page.url.endswith("#item-4")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Escape")
        page.wait_for_url("**/digits.html")  # a closed dialog tells of it a little later
        assert not page.get_by_role("dialog").is_visible()
        assert page.evaluate("document.activeElement.textContent") == "digit 25"

    def test_an_address_leads_to_an_input(self, opened: Callable[..., Any], digits: tuple[Path, Gallery]) -> None:
        assert opened(digits[0], "#item-3").locator("dialog h2").inner_text() == "digit 89"
        assert not opened(digits[0], "#item-99").get_by_role("dialog").is_visible()


class TestPage:
    def test_the_language_changes_everything_and_back(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery]
    ) -> None:
        page = opened(digits[0])
        before = page.locator("body").inner_text()
        page.get_by_role("button", name="한국어").click()
        said = page.locator("body").inner_text()
        assert page.evaluate("document.documentElement.lang") == "ko" and page.title() == "숫자 여섯"
        for english in ("Where the score went", "Sort by", "sum ", "biases", "right"):
            assert english in before and english not in said
        page.get_by_role("link", name="digit 12").click()
        assert "찬성 근거" in page.get_by_role("dialog").inner_text()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="English").click()
        assert page.locator("body").inner_text() == before

    def test_light_and_dark_can_be_chosen(self, opened: Callable[..., Any], digits: tuple[Path, Gallery]) -> None:
        page = opened(digits[0], color_scheme="light")
        light = "getComputedStyle(document.body).backgroundColor"
        first_seen = page.evaluate(light)
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(light) != first_seen
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(light) == first_seen
        assert opened(digits[0], color_scheme="dark").evaluate(light) != first_seen

    def test_hostile_names_labels_and_texts_are_only_text(self, opened: Callable[..., Any], hostile: Path) -> None:
        page = opened(hostile)
        page.get_by_role("button", name="한국어").click()
        page.get_by_role("button", name="English").click()
        page.locator("h3 a").click()
        assert page.evaluate("window.hit") is None
        assert page.locator("dialog h2").inner_text() == " ".join(HOSTILE.split())
        assert page.locator("dialog .rp-text").first.inner_text() == f"Not boring. {HOSTILE}"

    @pytest.mark.parametrize("scripts", [True, False])
    def test_a_phone_shows_all_without_sideways_scrolling(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery], hostile: Path, scripts: bool
    ) -> None:
        for path in (digits[0], hostile):
            page = opened(path, width=360, scripts=scripts)
            widths = [box["x"] + box["width"] for box in map(_box, page.locator("article, h1, header").all()) if box]
            assert widths and max(widths) <= 360

    def test_without_scripts_pictures_and_figures_are_there(
        self, opened: Callable[..., Any], digits: tuple[Path, Gallery]
    ) -> None:
        page = opened(digits[0], scripts=False)
        assert page.locator("article img:visible").count() == len(DIGITS) * (1 + len(PRESETS))
        assert not page.locator("form, dialog, button").filter(visible=True).count()
        said = page.locator("main").inner_text()
        for entry in digits[1].entries:
            for each in entry.figures:
                assert f"sum {each.total:+.4g}".replace("-", "−") in said
        assert "broken.png" in said and "Where the score went" in said

    def test_print_leaves_the_controls_out(self, opened: Callable[..., Any], digits: tuple[Path, Gallery]) -> None:
        page = opened(digits[0])
        page.emulate_media(media="print")
        assert not page.locator(".tools, .preferences").filter(visible=True).count()
        assert page.locator("article:visible").count() == len(DIGITS)


def _explained(explainer: Explainer, index: int, preset: str) -> Attribution:
    images, _ = zoo.digits()
    found: Attribution = explainer.compare(images[index : index + 1], [preset])[preset]
    assert isinstance(found.relevance, torch.Tensor)
    return found


def _box(locator: Any) -> Any:
    return locator.bounding_box()


def _darkest(page: Any) -> list[bool]:
    """Whether each map, drawn once it was scrolled to, holds a pixel of full colour."""
    for article in page.locator("article").all():
        article.scroll_into_view_if_needed()
        article.locator("canvas").first.wait_for()
    found: list[bool] = page.evaluate(
        """[...document.querySelectorAll('article canvas')].map((canvas) => {
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const is = (i, colour) => colour.every((value, k) => data[4 * i + k] === value);
          const full = (i) => is(i, [103, 0, 31]) || is(i, [5, 48, 97]);
          return [...Array(data.length / 4).keys()].some(full);
        })"""
    )
    return found
