"""Photos, reviews and comparisons in a browser: they are driven as a reader would, and show what Python computes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from app_page import (
    DIGITS,
    ENGLISH,
    KOREAN,
    THREE,
    as_input,
    as_shown,
    draw,
    drawn_bytes,
    explained,
    here,
    number,
    photo,
    png,
    ready,
    shown,
    still,
    view_of,
)
from browser import Opening
from PIL import Image

import relprop
from relprop import zoo
from relprop.rules import Epsilon, Gamma, ZPlus

pytest_plugins = ("app_fixtures",)


@pytest.fixture(scope="module")
def seen() -> Callable[..., relprop.Attribution]:
    """What Python computes of a picture, as the photo network sees it."""
    pytest.importorskip("efficientnet_lite_pytorch")
    entry = zoo.entry("efficientnet-lite0")
    model = zoo.load("efficientnet-lite0")

    def explaining(picture: Image.Image, **options: Any) -> relprop.Attribution:
        return relprop.explain(model, entry.preprocess(picture), bounds=entry.bounds, labels=entry.labels, **options)

    return explaining


Seen = Callable[..., relprop.Attribution]


def test_a_picture_is_uploaded_explained_and_found_again_by_its_link(
    opened: Opening, seen: Seen, tmp_path: Any
) -> None:
    picture = photo()
    file = tmp_path / "mine.png"
    file.write_bytes(png(picture))
    with opened("#photo") as page:
        ready(page)
        here(page).locator("input[type=file]").set_input_files(file)
        expected = seen(picture)
        named = expected.labels[int(expected.output.argmax())]
        card = ready(page, f"For and against {named}")
        still(page)
        assert shown(card)[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]
        link, text = page.url, card.inner_text()
    with opened("#" + urlsplit(link).fragment) as page:
        assert ready(page, named).inner_text() == text


def test_pictures_are_pasted_and_dropped(opened: Opening, seen: Seen) -> None:
    given = {"paste": photo(1), "drop": photo(2)}
    with opened("#photo") as page:
        ready(page)
        for kind, picture in given.items():
            page.evaluate(
                """([kind, text]) => {
                    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                    const transfer = new DataTransfer();
                    transfer.items.add(new File([bytes], 'mine.png', { type: 'image/png' }));
                    const options = { bubbles: true, cancelable: true };
                    const event = kind === 'paste' ? new ClipboardEvent(kind, { ...options, clipboardData: transfer })
                        : new DragEvent(kind, { ...options, dataTransfer: transfer });
                    document.querySelector('.photo .side').dispatchEvent(event);
                }""",
                [kind, base64.b64encode(png(picture)).decode()],
            )
            expected = seen(picture)
            score = f"{float(expected.score):+.{DIGITS}g}".replace("-", "−")
            page.locator(".photo .rp-balance").filter(has_text=score).wait_for()


def test_a_file_that_is_no_picture_is_answered_with_a_sentence(opened: Opening, tmp_path: Any) -> None:
    file = tmp_path / "notes.png"
    file.write_text("no picture at all")
    for locale, sentence in (("en-US", "notes.png: "), ("ko-KR", "사진 파일이 아닙니다")):
        with opened("#photo", refused=1, locale=locale) as page:
            ready(page)
            here(page).locator("input[type=file]").set_input_files(file)
            page.locator(".photo .message").filter(has_text=sentence).wait_for()
            assert "notes.png" in page.locator(".photo .message").inner_text()
            assert page.locator(".photo .rp-card").count() == 1


def test_a_long_picture_is_said_to_be_seen_in_its_middle(opened: Opening, seen: Seen, tmp_path: Any) -> None:
    sentence = "The network sees the middle square."
    with opened("#photo?picture=cat") as page:  # 451 x 300 pixels
        here(page).get_by_text(sentence).wait_for()
        for size, long in (((80, 100), False), ((80, 160), True)):
            file = tmp_path / "picture.png"
            file.write_bytes(png(photo().resize(size)))
            here(page).locator("input[type=file]").set_input_files(file)
            here(page).get_by_text(sentence).wait_for(state="visible" if long else "hidden")
            still(page)


def test_opacity_target_and_layer_of_a_photo(opened: Opening, seen: Seen) -> None:
    cat = zoo.photos()["cat"]
    with opened("#photo?picture=cat&rules=epsilon-gamma-box") as page:
        card = ready(page, "efficientnet-lite0 · epsilon-gamma-box")
        before = card.locator("canvas").first.evaluate("(canvas) => canvas.toDataURL()")
        slider = here(page).get_by_label("Heatmap over the picture", exact=True)
        slider.fill("0.3")
        assert card.locator("canvas").first.evaluate("(canvas) => canvas.toDataURL()") != before
        here(page).get_by_label("Explain another class").fill("lynx")
        here(page).get_by_label("Explain another class").press("Enter")
        ready(page, "For and against lynx")
        here(page).get_by_label("Relevance at").select_option("_blocks.8")
        card = ready(page, "at _blocks.8")
        still(page)
        expected = seen(cat, target="lynx", rules="epsilon-gamma-box", layers=["_blocks.8"])
        inside = expected.layers["_blocks.8"].double()
        assert shown(card)[:2] == [as_shown(float(expected.score)), as_shown(float(inside.sum()))]
        channels = card.locator(".rp-channel")
        assert channels.count() == 8
        strongest = int(inside[0].sum((1, 2)).abs().argmax())
        assert str(strongest) in channels.first.inner_text()
        assert view_of(page) | {"ink": ""} == {
            "picture": "cat", "rules": "epsilon-gamma-box", "opacity": "0.3", "target": view_of(page)["target"],
            "layer": "_blocks.8", "ink": "",
        }  # fmt: skip


def test_a_class_that_is_none_is_told_so(opened: Opening, seen: Seen) -> None:
    with opened("#photo") as page:
        ready(page)
        here(page).get_by_label("Explain another class").fill("unicorn stable")
        here(page).get_by_label("Explain another class").press("Enter")
        here(page).get_by_text("There is no class “unicorn stable”").wait_for()


def test_rules_are_set_layer_by_layer(opened: Opening, seen: Seen) -> None:
    cat = zoo.photos()["cat"]
    with opened("#photo?picture=cat") as page:
        ready(page)
        rows = page.locator(".rule-rows li")
        here(page).get_by_label("Rules", exact=True).select_option("own")
        rows.nth(4).wait_for()
        here(page).get_by_label("Row 2: which rule").select_option("Gamma")
        rows.nth(1).get_by_label("gamma").fill("0.5")
        rows.nth(1).get_by_label("gamma").press("Enter")
        rows.nth(0).get_by_role("button", name="Take the row away").click()
        here(page).get_by_role("button", name="Add a row").click()
        here(page).get_by_label("Row 5: where").fill("_conv_stem")
        here(page).get_by_label("Row 5: where").press("Enter")
        here(page).get_by_label("Row 5: which rule").select_option("ZPlus")
        for row in (5, 4, 3, 2):
            rows.nth(row - 1).get_by_role("button", name="Move up").click()
        still(page)
        rules = relprop.RuleMap(
            [
                ("_conv_stem", ZPlus()),
                ("conv", Gamma(0.5)),
                ("linear", Epsilon(1e-6)),
                ("sum", Epsilon(1e-6)),
                ("normaliser", Epsilon(1e-6)),
            ]
        )
        expected = seen(cat, rules=rules)
        assert shown(ready(page))[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]
        assert json.loads(view_of(page)["rules"])[0] == ["_conv_stem", "ZPlus()"]


def painted(page: Any, column: int, method: int) -> list[str]:
    """The words of a card, each with the relevance that a screen reader hears."""
    card = page.locator(".column").nth(column).locator(".rp-card").nth(method)
    return [word.get_attribute("aria-label") for word in card.locator(".rp-word").all()]


def test_an_english_review_is_painted_by_two_networks_and_three_methods(opened: Opening) -> None:
    with opened("#review") as page:
        here(page).get_by_label("Your review").fill(ENGLISH)
        page.locator(".column").nth(1).get_by_text("dull").first.wait_for()
        still(page)
        for column, name in enumerate(("reviews-en", "reviews-en-transformer")):
            entry = zoo.text_entry(name)
            for place, method in enumerate(("lrp", "gradient", "gradient_x_input")):
                found = relprop.explain_text(
                    zoo.load(name), entry.tokenizer, ENGLISH, method=method, labels=entry.labels
                )
                labels = painted(page, column, place)
                assert [label.split(":")[0] for label in labels] == [word.text for word in found.words]
                for label, word in zip(labels, found.words, strict=True):
                    assert number(label.split(": ")[1].split(",")[0]) == as_shown(word.relevance)


def test_deleting_a_word_shows_the_score_before_and_after(opened: Opening) -> None:
    entry = zoo.text_entry("reviews-en")

    def score(text: str) -> float:
        return float(relprop.explain_text(zoo.load("reviews-en"), entry.tokenizer, text, target="positive").score)

    with opened("#review?target=positive&text=" + ENGLISH) as page:
        page.locator(".column").nth(1).get_by_text("dull").first.wait_for()
        word = page.locator(".column").first.locator(".rp-word", has_text="dull").first
        word.focus()
        page.keyboard.press("Delete")
        still(page)
        shorter = "Not bad at all, but the story is."
        assert here(page).get_by_label("Your review").input_value() == shorter
        change = page.locator(".change").first.locator(".figures").inner_text().split()
        assert [number(each) for each in change] == [as_shown(score(ENGLISH)), as_shown(score(shorter))]
        word = page.locator(".column").first.locator(".rp-word", has_text="bad").first
        word.hover()
        page.locator(".column").first.locator(".rp-cross:visible").first.click()
        still(page)
        assert page.locator(".deleted s").all_inner_texts() == ["dull", "bad"]
        here(page).get_by_role("button", name="Bring all back").click()
        still(page)
        assert here(page).get_by_label("Your review").input_value() == ENGLISH
        assert not page.locator(".deleted").is_visible()


def test_a_deletion_leaves_the_choice_of_the_class_with_the_decision(opened: Opening) -> None:
    entry = zoo.text_entry("reviews-en")
    decided = relprop.explain_text(zoo.load("reviews-en"), entry.tokenizer, ENGLISH, labels=entry.labels)
    with opened("#review?text=" + ENGLISH) as page:
        page.locator(".column").nth(1).get_by_text("dull").first.wait_for()
        page.locator(".column").first.locator(".rp-word", has_text="dull").first.focus()
        page.keyboard.press("Delete")
        still(page)
        assert here(page).get_by_role("radio", name="the decision").is_checked()
        assert "target" not in view_of(page)
        before = page.locator(".change").first.locator(".figures").inner_text().split()[0]
        assert number(before) == as_shown(float(decided.score))


def test_a_korean_review_goes_to_the_network_that_reads_korean(opened: Opening) -> None:
    pytest.importorskip("kiwipiepy")
    with opened("#review", locale="ko-KR") as page:
        page.locator(".review textarea").press_sequentially(" ")
        page.locator(".review textarea").fill(KOREAN)
        page.locator(".column").get_by_text("재미없다").first.wait_for()
        still(page)
        entry = zoo.text_entry("reviews-ko")
        found = relprop.explain_text(zoo.load("reviews-ko"), entry.tokenizer, KOREAN)
        labels = painted(page, 0, 0)
        assert [number(label.split(": ")[1].split(",")[0]) for label in labels] == [
            as_shown(w.relevance) for w in found.words
        ]
        assert page.locator(".column").count() == 1
        assert "부정" in page.locator(".column .rp-class").filter(has=page.locator(":checked")).inner_text()


def test_a_model_whose_packages_are_missing_is_told_of(opened: Opening) -> None:
    with opened() as page:

        def without(route: Any) -> None:
            told = route.fetch().json()
            for model in told["models"]:
                if model["name"] == "reviews-ko":
                    model |= {
                        "available": False,
                        "missing": "Install relprop[korean].",
                        "labels": [],
                        "presets": [],
                        "methods": [],
                        "layers": [],
                    }
            route.fulfill(json=told)

        page.route("**/api/about", without)
        page.goto(page.url.split("#")[0] + "?#review?text=" + KOREAN)
        here(page).get_by_text("Install relprop[korean].").wait_for()
        assert page.locator(".column .rp-card").count() == 0


def test_typing_asks_once_it_rests_and_the_newest_text_wins(opened: Opening) -> None:
    with opened("#review?language=en") as page:
        still(page)
        asked: list[str] = []
        page.on(
            "request",
            lambda request: "explain" in request.url and asked.append(request.post_data_json["input"]["text"]),
        )
        area = here(page).get_by_label("Your review")
        area.fill("")
        area.press_sequentially("A film full of joy.", delay=20)
        page.locator(".column").first.get_by_text("joy").first.wait_for()
        still(page)
        assert asked[-2:] == ["A film full of joy."] * 2
        assert len(asked) <= 8


def tile(page: Any, name: str) -> Any:
    return page.locator(".tile", has=page.get_by_role("heading", name=name, exact=True))


def test_methods_and_rules_are_compared_on_the_digit_that_was_drawn(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        still(page)
        pixels = drawn_bytes(page)
        page.get_by_role("tab", name="Compare").click()
        ready(page, "epsilon-gamma-box", ".grid")
        still(page)
        assert (drawn_bytes(page) == pixels).all()
        explainer = relprop.Explainer(zoo.load("mnist-cnn"), bounds=(-1.0, 1.0))
        presets = ["epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "gamma"]
        for name, expected in explainer.compare(as_input(pixels), presets).items():
            assert shown(tile(page, name))[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]
        gradient = explained(pixels, method="gradient_x_input")
        assert shown(tile(page, "Gradient × input"))[1] == as_shown(float(gradient.total))


def test_tiles_are_added_removed_sorted_and_put_on_one_scale(opened: Opening) -> None:
    with opened("#compare?tiles=" + json.dumps([["lrp", "epsilon"], ["lrp", "gamma"], ["gradient", "auto"]])) as page:
        ready(page, "gamma", ".grid")
        still(page)
        scales = ".grid .rp-ticks span:last-child"
        assert len(set(page.locator(scales).all_inner_texts())) == 3
        here(page).get_by_role("radio", name="the same for all").check()
        assert len({text.lstrip("≥ +") for text in page.locator(scales).all_inner_texts()}) == 1
        here(page).get_by_label("Method", exact=True).select_option("lrp")
        page.locator(".adding").get_by_label("Rules", exact=True).select_option("deep-taylor")
        here(page).get_by_role("button", name="Add", exact=True).click()
        tile(page, "deep-taylor").wait_for()
        here(page).get_by_role("button", name="Take away: Gradient, squared").click()
        still(page)
        assert page.locator(".tile").count() == 3
        here(page).get_by_role("button", name="Sum of relevance").click()
        rows = page.locator(".table-panel tbody tr")
        sums = [number(rows.nth(i).locator("td").first.inner_text()) for i in range(3)]
        assert sums == sorted(sums)
        assert page.locator(".tile h3").all_inner_texts() == rows.locator("th").all_inner_texts()
        here(page).get_by_role("button", name="Sum of relevance").click()
        assert page.locator(".tile h3").all_inner_texts() == rows.locator("th").all_inner_texts()
        sums_down = [number(rows.nth(i).locator("td").first.inner_text()) for i in range(3)]
        assert sums_down == sorted(sums, reverse=True)


def test_a_review_is_compared(opened: Opening) -> None:
    with opened("#review?text=" + ENGLISH) as page:
        page.locator(".column").nth(1).get_by_text("dull").first.wait_for()
        page.get_by_role("tab", name="Compare").click()
        ready(page, "reviews-en", ".grid")
        here(page).get_by_label("Network", exact=True).select_option("reviews-en-transformer")
        ready(page, "cp-lrp", ".grid")
        still(page)
        entry = zoo.text_entry("reviews-en-transformer")
        found = relprop.explain_text(zoo.load(entry.name), entry.tokenizer, ENGLISH, rules="cp-lrp")
        assert shown(tile(page, "cp-lrp"))[:2] == [as_shown(float(found.score)), as_shown(float(found.total))]
