"""The page around the tabs: links, language, colours, keys, narrow screens, models of one's own."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
import torch
from app_page import THREE, as_shown, draw, drawn_bytes, here, ready, shown, still, view_of
from browser import Opening, serving
from torch import nn

import relprop

pytest_plugins = ("app_fixtures",)


def test_a_link_restores_the_view_on_a_fresh_page(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        here(page).get_by_label("Network", exact=True).select_option("mnist-mlp")
        here(page).get_by_label("Rules", exact=True).select_option("gamma")
        page.locator(".digit .rp-class").nth(8).click()
        card = ready(page, "For and against 8")
        still(page)
        link, text, pixels = page.url, card.inner_text(), drawn_bytes(page)
    with opened("#" + urlsplit(link).fragment) as page:
        card = ready(page, "For and against 8")
        still(page)
        assert card.inner_text() == text
        assert here(page).get_by_label("Network", exact=True).input_value() == "mnist-mlp"
        assert (drawn_bytes(page) == pixels).all()
        assert page.url == link


def test_back_and_forward_go_through_the_views(opened: Opening) -> None:
    with opened() as page:
        ready(page, "For and against 3")
        page.locator(".digit .rp-class").nth(5).click()
        ready(page, "For and against 5")
        still(page)
        page.get_by_role("tab", name="Review").click()
        page.locator(".column .rp-card").first.wait_for()
        still(page)
        page.go_back()
        ready(page, "For and against 5")
        assert page.get_by_role("tab", name="Digit").get_attribute("aria-selected") == "true"
        page.go_back()
        ready(page, "For and against 3")
        page.go_forward()
        ready(page, "For and against 5")


@pytest.mark.parametrize(
    "view",
    [
        "#digit?ink=garbage",
        "#digit?rules=[[",
        "#photo?layer=nowhere",
        "#compare?tiles={",
        "#nothing",
        "#digit?target=x",
    ],
)
def test_a_damaged_link_opens_all_the_same(opened: Opening, view: str) -> None:
    with opened(view) as page:
        page.locator("[role=tabpanel]:not([hidden]) .rp-card").first.wait_for()


def test_a_picture_that_the_server_no_longer_holds_is_told_so(opened: Opening) -> None:
    with opened("#photo?picture=0123456789abcdef", refused=1) as page:
        here(page).get_by_text("This picture is no longer held by the server.").wait_for()


def test_the_whole_interface_changes_its_language(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        ready(page, "For and against 3")
        still(page)
        pixels = drawn_bytes(page)
        page.locator(".settings").get_by_role("radio", name="한국어").check()
        ready(page, "3에 대한 찬성·반대 근거")
        still(page)
        assert page.locator("html").get_attribute("lang") == "ko"
        for tab in ("숫자", "사진", "리뷰", "비교"):
            page.get_by_role("tab", name=tab).click()
            page.locator("[role=tabpanel]:not([hidden]) .rp-card").first.wait_for()
            text = page.locator("header.top, [role=tabpanel]:not([hidden]) .lede").all_inner_texts()
            assert not re.search(r"Network|Rules|Draw|Look|Write|Compare|Colour", " ".join(text))
        page.get_by_role("tab", name="숫자").click()
        still(page)
        assert (drawn_bytes(page) == pixels).all()
        page.locator(".digit").get_by_role("button", name="되돌리기").click()
        still(page)
        assert view_of(page)["ink"] == "none"  # the strokes were still at hand
        page.reload()
        page.get_by_role("tab", name="숫자").wait_for()


def test_every_word_of_the_interface_is_there_in_both_languages() -> None:
    from relprop.app.web import STATIC

    told = re.findall(r'^  "?([\w.-]+)"?: \["(.+?)", "(.+?)"\],$', (STATIC / "words.js").read_text(), re.MULTILINE)
    keys = {key for key, _, _ in told}
    sources = "".join(path.read_text() for path in STATIC.glob("*.js"))
    asked = set(re.findall(r'\bt\("([\w.-]+)"', sources)) | set(
        re.findall(r'data-words="([\w.-]+)"', (STATIC / "index.html").read_text())
    )
    assert len(keys) > 100 and asked <= keys
    for key, english, korean in told:
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", korean)), key


def test_light_dark_and_the_system(opened: Opening) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(color_scheme="dark") as page:
        ready(page)
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Colours").click()
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        ready(page)
        assert page.evaluate(ground) == light
        page.get_by_role("button", name="Colours").click()
        assert page.evaluate(ground) == dark
        page.get_by_role("button", name="Colours").click()
        assert page.locator("html").get_attribute("data-theme") is None


def test_the_link_is_copied(opened: Opening) -> None:
    with opened(permissions=["clipboard-read", "clipboard-write"]) as page:
        draw(page, THREE)
        ready(page, "For and against 3")
        page.get_by_role("button", name="Copy a link").click()
        page.get_by_text("Link copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        assert "ink=" in unquote(page.url)


def test_the_keyboard_reaches_everything(opened: Opening) -> None:
    with opened() as page:
        ready(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "tab-digit"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-photo"
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.id") == "tab-compare"
        page.keyboard.press("Home")
        name = "(document.activeElement.getAttribute('aria-label') ?? '').split(':')[0]"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate(name))
        assert {"Drawing pad", "Undo", "Clear", "A handwritten 7", "Copy a link to this view", "Colours"} <= reached
        page.locator(".digit .rp-class input:checked").focus()
        page.keyboard.press("ArrowDown")
        ready(page, "For and against 4")
        assert page.evaluate("document.activeElement.closest('.rp-class').innerText").startswith("4")


@pytest.mark.parametrize("view", ["#digit", "#photo", "#review", "#compare"])
def test_every_control_has_a_name_and_no_width_is_too_narrow(opened: Opening, view: str) -> None:
    with opened(view, viewport={"width": 320, "height": 700}) as page:
        page.locator("[role=tabpanel]:not([hidden]) .rp-card").first.wait_for()
        still(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, textarea, [tabindex="0"]')]
                .filter((control) => control.checkVisibility() && !control.closest('[aria-hidden=true]'))
                .filter((control) => !control.getAttribute('aria-label') && !control.textContent.trim())
                .filter((control) => !control.labels?.length)
                .map((control) => control.outerHTML)"""
        )
        assert nameless == []


def test_a_series_model_of_ones_own(opened: Opening) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    values = [0.5, -1.25, 2.0, 0.0, 1.5, -0.75, 0.25, 3.0]
    served = serving(model=model, name="valves", labels=["open", "shut", "leaking"], input_shape=(8,), zoo=False)
    with served as at, opened(at=at) as page:
        assert page.get_by_role("tab", name="Series").get_attribute("aria-selected") == "true"
        here(page).get_by_label("Values").fill("0.5, -1.25 2\t0; 1.5 nonsense")
        here(page).get_by_text("Line 1: “nonsense” is not a number.").wait_for()
        here(page).get_by_label("Values").fill(" ".join(map(str, values)))
        card = ready(page, "valves")
        still(page)
        expected = relprop.explain(model, torch.tensor([values]))
        assert shown(card)[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]
        assert page.locator(".series .rp-class").count() == 3


def test_a_picture_model_of_ones_own_is_chosen_at_first(opened: Opening) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    served = serving(model=model, name="mine", labels=["plain", "striped"], input_shape=(3, 32, 32))
    with served as at, opened(at=at) as page:
        card = ready(page, "mine")
        assert page.get_by_role("tab", name="Photo").get_attribute("aria-selected") == "true"
        assert page.locator(".photo").get_by_label("Network", exact=True).input_value() == "mine"
        assert len(shown(card)) >= 2
