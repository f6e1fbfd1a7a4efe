"""The viewer draws what the sheet says and tells it to eyes, ears and fingers: in a browser that reaches nothing."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from browser import chromium
from PIL import Image

from relprop import Explainer, zoo
from relprop.view import assets
from relprop.view.colours import colour_map
from relprop.view.image import heatmap as drawn
from relprop.view.legend import number as said
from relprop.view.panels import Panel
from relprop.view.sheet import palette
from relprop.view.sheet import sheet as sheet_of
from relprop.view.style import Style

ORIGIN = "http://viewer.test"
TABLE = colour_map("RdBu_r").table
PALETTE = base64.b64encode(TABLE.tobytes()).decode()
INJECTED = "<img src=x onerror='window.hurt=1'><b>bold</b>"
CLAIM = {"index": 3, "name": "3"}

Page = Any
Sheet = dict[str, Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Page]]:
    """Opens pages with the viewer as `V`, on which nothing outside the folder can be reached and nothing may fail."""
    contexts, wrong = [], []

    def serve(route: Any) -> None:
        address = urlsplit(route.request.url)
        if not route.request.url.startswith(ORIGIN):
            wrong.append(f"asked for {route.request.url}")
            route.abort()
        elif address.path == "/":
            route.fulfill(content_type="text/html", body=_page())
        else:
            route.fulfill(path=assets.folder() / address.path.strip("/"))

    def open_page(language: str = "en", width: int = 1000, scheme: str = "light", **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        context.route("**/*", serve)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.goto(f"{ORIGIN}/")
        page.wait_for_function("window.V !== undefined")
        page.evaluate("given => V.configure(given)", {"palette": PALETTE, "language": language})
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _page() -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<title>viewer</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/viewer.css">'
        '<body style="margin: 8px; background: var(--rp-page)"><main id="main"></main>'
        '<script type="module">import * as V from "/viewer.js"; window.V = V;</script>'
    )


def show(page: Page, part: str, *given: Any, options: str = "{}") -> None:
    """Draws a part of the viewer, kept as `shown`; `options` is JavaScript."""
    page.evaluate(f"given => {{ window.shown = V.{part}(...given, {options}); main.append(shown); }}", list(given))


def encoded(values: np.ndarray) -> dict[str, Any]:
    height, width = values.shape
    return {"width": width, "height": height, "values": base64.b64encode(values.astype("<f4").tobytes()).decode()}


def picture(values: np.ndarray, **changes: Any) -> Sheet:
    total, limit = float(values.sum()), float(np.abs(values).max())
    return {
        "kind": "picture", "model": "net", "method": "lrp", "rules": "epsilon", "title": "epsilon", "target": CLAIM,
        "claim": "class 3", "layer": None, "score": total + 1.5, "total": total, "redistributes": True, "signed": True,
        "absorbed": {"bias": 2.0, "stabiliser": -0.5}, "limit": limit, "notes": [], "heat": encoded(values),
        "picture": None, "channels": [], **changes,
    }  # fmt: skip


def passage(text: str, words: dict[str, float], **changes: Any) -> Sheet:
    """A sheet of a text, whose words are found one after the other."""
    found, place = [], 0
    for word, relevance in words.items():
        start = text.index(word, place)
        place = start + len(word)
        found.append({"text": word, "start": start, "end": place, "relevance": relevance, "known": True})
    tokens = [{"text": "[CLS]", "start": None, "end": None, "relevance": 0.25}]
    tokens += [{key: word[key] for key in ("text", "start", "end", "relevance")} for word in found]
    total = sum(words.values()) + 0.25
    return {
        "kind": "text", "model": "net", "method": "lrp", "rules": "epsilon", "title": "epsilon", "layer": None,
        "target": {"index": 1, "name": "positive"}, "claim": "positive", "score": total, "total": total,
        "redistributes": True, "signed": True, "absorbed": {}, "limit": max(map(abs, words.values()), default=0.0),
        "notes": [], "text": text, "language": "en", "words": found, "tokens": tokens, "special": 0.25, "picture": None,
        **changes,
    }  # fmt: skip


def values_of(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(height, width)).astype(np.float32)
    values[0, 0] = 0.0
    return values


def figure(text: str) -> float:
    return float(text.replace("\u2212", "-"))


def text_of(page: Page, selector: str) -> str:
    found: str = page.locator(selector).first.inner_text()
    return found


PIXELS = """element => {
  const { width, height } = element.querySelector("canvas");
  return [width, height, [...element.querySelector("canvas").getContext("2d").getImageData(0, 0, width, height).data]];
}"""


def pixels(page: Page) -> np.ndarray:
    width, height, data = page.evaluate(f"({PIXELS})(shown)")
    return np.array(data).reshape(height, width, 4)


# What it says


def test_numbers_are_those_of_saved_pages(opened: Callable[..., Page]) -> None:
    values = [0.1, -2.0, 12.3456, -0.00012344, 4.2e-9, 123.456, -99999.7, 3.5e7, 1e-4, 0.99999]
    shown = opened().evaluate("values => values.map(V.number)", values)
    assert [figure(text) for text in shown] == [float(said(value)) for value in values]
    assert all(text[0] == ("+" if value > 0 else "\u2212") for text, value in zip(shown, values, strict=True))


def test_both_languages_have_the_same_words_with_the_same_blanks(opened: Callable[..., Page]) -> None:
    words = opened().evaluate("import('/language.js').then((module) => module.WORDS)")
    assert list(words["en"]) == list(words["ko"])
    blank = re.compile(r"\{\w+\}")
    for key, english in words["en"].items():
        assert sorted(blank.findall(english)) == sorted(blank.findall(words["ko"][key])), key


def test_every_cause_that_the_engine_names_has_words(opened: Callable[..., Page]) -> None:
    source = Path(assets.__file__).parents[2] / "engine"
    text = "\n".join(path.read_text() for path in source.rglob("*.py"))
    causes = set(re.findall(r'(?:remainder=|remainder: str = |absorb\(|note\()"([^"]+)"', text)) | {"initial state"}
    assert {"bias", "stabiliser", "softmax", "value zero"} < causes
    for language in ("en", "ko"):
        page = opened(language)
        for cause in causes:
            assert page.evaluate("key => V.say(key) + V.say(`why_${key}`)", cause)


# The map


def test_the_canvas_has_the_colours_of_python(opened: Callable[..., Page]) -> None:
    values, page = values_of(9, 13), opened()
    show(page, "heatmap", picture(values, limit=0.8))
    shares = values.astype(np.float64) / 0.8
    found = pixels(page)
    assert (found[..., :3] == colour_map("RdBu_r")(shares)).all()
    assert (found[..., 3] == 255).all()
    assert (np.abs(shares) > 1).any()


def test_the_palette_of_the_app_has_the_same_colours(opened: Callable[..., Page]) -> None:
    shares, page = np.linspace(-1, 1, 1001, dtype=np.float32).reshape(7, 143), opened()
    page.evaluate("palette => V.configure({ palette })", palette())
    show(page, "heatmap", picture(shares, limit=1.0))
    found, expected = pixels(page)[..., :3].reshape(-1, 3), colour_map("RdBu_r")(shares.reshape(-1)).astype(int)
    assert np.abs(found - expected).max() <= 3  # it may have fewer of them
    assert (found[[0, 500, 1000]] == expected[[0, 500, 1000]]).all()


def test_a_limit_of_the_readers_rescales_the_colours(opened: Callable[..., Page]) -> None:
    values, page = values_of(4, 4), opened()
    show(page, "heatmap", picture(values), options="{ limit: 5 }")
    assert (pixels(page)[..., :3] == colour_map("RdBu_r")(values.astype(np.float64) / 5)).all()


def test_over_a_picture_it_is_as_opaque_as_in_saved_pictures(opened: Callable[..., Page]) -> None:
    values, page = values_of(6, 6), opened()
    black = "data:image/png;base64," + base64.b64encode(_png(Image.new("L", (6, 6)))).decode()
    sheet = picture(values, limit=1.0, picture={"width": 6, "height": 6, "src": black})
    show(page, "heatmap", sheet, options="{ opacity: 0.6 }")
    # Over black, a composite is colour times opacity.
    style = Style(overlay=0.6)
    expected = np.asarray(drawn(Panel(values.astype(np.float64), base=Image.new("L", (6, 6))), 1.0, style), dtype=float)
    found = pixels(page)
    assert np.abs(found[..., :3] * found[..., 3:] / 255 - expected).max() <= 2  # both have eight bits for each step
    assert page.locator(".rp-base").get_attribute("src") == black


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_pointing_tells_the_value_of_a_real_explanation(opened: Callable[..., Page]) -> None:
    x = zoo.digits()[0][30:31]
    attribution = Explainer(zoo.load("mnist-cnn"), bounds=(-1, 1))(x, target=3)
    relevance = attribution.relevance
    assert isinstance(relevance, torch.Tensor)
    page = opened()
    show(page, "card", sheet_of(attribution, model="mnist-cnn"))
    box = page.locator(".rp-plane").bounding_box()
    for row, column in ((14, 11), (0, 0), (27, 27)):
        page.mouse.move(box["x"] + (column + 0.5) * box["width"] / 28, box["y"] + (row + 0.5) * box["height"] / 28)
        value = said(float(relevance[0, 0, row, column])).replace("-", "\u2212")
        told = text_of(page, ".rp-readout")
        assert f"row {row}, column {column}: " in told
        assert figure(told.split(": ")[1].split()[0]) == float(said(float(relevance[0, 0, row, column])))
        assert figure(text_of(page, ".rp-tip")) == figure(value)
        assert page.locator(".rp-readout").get_attribute("aria-live") == "off"
    page.mouse.move(0, 0)
    assert page.locator(".rp-tip").is_hidden()


def test_the_keyboard_goes_from_value_to_value(opened: Callable[..., Page]) -> None:
    values, page = values_of(12, 20), opened()
    show(page, "heatmap", picture(values))
    page.keyboard.press("Tab")

    def at() -> tuple[int, int]:
        told = text_of(page, ".rp-readout")
        row, column, value = re.match(r"row (\d+), column (\d+): (\S+)", told).groups()  # type: ignore[union-attr]
        assert figure(value) == float(said(float(values[int(row), int(column)])))
        assert ("evidence for 3" in told) == (values[int(row), int(column)] > 0)
        return int(row), int(column)

    most, least = (np.unravel_index(place, values.shape) for place in (values.argmax(), values.argmin()))
    assert at() == tuple(most)
    assert page.locator(".rp-readout").get_attribute("aria-live") == "polite"
    page.keyboard.press("-")
    assert at() == tuple(least)
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    assert at() == (0, 0)
    assert "neither for nor against" in text_of(page, ".rp-readout")
    for key, expected in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("Shift+ArrowRight", (1, 11)),
                          ("ArrowLeft", (1, 10)), ("ArrowUp", (0, 10)), ("ArrowUp", (0, 10)), ("End", (0, 19)),
                          ("PageDown", (11, 19)), ("ArrowRight", (11, 19))):  # fmt: skip
        page.keyboard.press(key)
        assert at() == expected
    page.keyboard.press("Escape")
    assert page.locator(".rp-ring").is_hidden()


def test_the_label_says_where_the_strongest_evidence_is(opened: Callable[..., Page]) -> None:
    values = np.zeros((9, 9), np.float32)
    values[1, 7], values[8, 0] = 0.5, -0.25
    page = opened()
    show(page, "heatmap", picture(values))
    label = page.locator(".rp-plane").get_attribute("aria-label")
    assert "evidence for it: +0.5, upper right, row 1, column 7" in label
    assert "evidence against it: \u22120.25, lower left, row 8, column 0" in label


def test_a_series_has_strips_and_a_time_axis(opened: Callable[..., Page]) -> None:
    values, page = values_of(3, 60), opened()
    show(page, "card", picture(values, kind="series"))
    assert pixels(page).shape == (3, 60, 4)
    assert page.locator(".rp-tick").all_inner_texts() == ["0", "10", "20", "30", "40", "50"]
    page.locator(".rp-plane").hover()
    assert text_of(page, ".rp-readout").startswith("time step 30, channel 1: ")


def test_channels_of_a_layer_are_small_maps_on_one_scale(opened: Callable[..., Page]) -> None:
    values, page = values_of(4, 4), opened()
    shown = ((7, values), (2, values / 2))
    channels = [{"index": index, "sum": float(part.sum()), "heat": encoded(part)} for index, part in shown]
    show(page, "card", picture(values, layer="conv2", channels=channels))
    assert [text.split("\n") for text in page.locator(".rp-channel figcaption").all_inner_texts()] == [
        ["channel 7", said(float(values.sum())).replace("-", "\u2212")],
        ["channel 2", said(float(values.sum() / 2)).replace("-", "\u2212")],
    ]
    second = page.evaluate(f"({PIXELS})(shown.querySelectorAll('.rp-channel')[1])")[2]
    expected = colour_map("RdBu_r")(values.astype(np.float64) / 2 / np.abs(values).max())
    assert (np.array(second).reshape(4, 4, 4)[..., :3] == expected).all()


def test_the_keyboard_reads_a_channel_too(opened: Callable[..., Page]) -> None:
    values, page = values_of(4, 4), opened()
    channels = [{"index": 7, "sum": 1.0, "heat": encoded(values)}]
    show(page, "card", picture(values, layer="conv2", channels=channels))
    page.locator(".rp-channel .rp-plane").focus()
    page.keyboard.press("Home")
    page.keyboard.press("PageDown")
    assert text_of(page, ".rp-readout").startswith("channel 7, row 3, column 0: ")


# The legend


@pytest.mark.parametrize(("language", "words"), [
    ("en", ["evidence against 3", "evidence for 3"]),
    ("ko", ["3에 대한 반대 근거", "3에 대한 찬성 근거"]),
])  # fmt: skip
def test_the_legend_says_what_the_colours_mean(opened: Callable[..., Page], language: str, words: list[str]) -> None:
    page = opened(language)
    show(page, "legend", picture(values_of(4, 4), limit=0.5))
    assert page.locator(".rp-meaning").all_inner_texts() == words
    # Some values lie beyond full colour.
    assert page.locator(".rp-ticks span").all_inner_texts() == ["\u2264 \u22120.5", "0", "\u2265 +0.5"]


def test_the_legend_of_a_gradient_has_no_sign(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "legend", picture(np.abs(values_of(4, 4)), limit=9.0, signed=False, method="gradient"))
    assert page.locator(".rp-ticks span").all_inner_texts() == ["0", "+9"]
    assert "against" not in text_of(page, ".rp-legend")


# Score and sum


def test_the_balance_adds_up_to_the_score(opened: Callable[..., Page]) -> None:
    sheet, page = picture(values_of(5, 5)), opened()
    show(page, "card", sheet)
    rows = dict(text.split("\n") for text in page.locator(".rp-causes summary").all_inner_texts())
    assert rows.keys() == {"Sum of relevance", "Biases", "Stabiliser"}
    assert figure(text_of(page, ".rp-figures dd")) == float(said(sheet["score"]))
    assert sum(map(figure, rows.values())) == pytest.approx(sheet["score"], abs=2e-3)  # figures of four digits
    bar = page.locator(".rp-balance-bar").bounding_box()
    amounts = {"arrived": sheet["total"], "1": 2.0, "2": -0.5}  # by shade
    whole = sum(map(abs, amounts.values()))
    for shade, amount in amounts.items():
        part = page.locator(f".rp-balance-bar .rp-part[data-shade='{shade}']").bounding_box()
        assert part["width"] / bar["width"] == pytest.approx(abs(amount) / whole, abs=0.01)


def test_what_a_cause_means_opens_with_the_keyboard(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "card", picture(values_of(5, 5)))
    page.locator(".rp-causes summary").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator(".rp-causes details[open] p").inner_text() == page.evaluate("V.say('why_bias')")


def test_causes_that_leave_something_open_say_so(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "card", picture(values_of(5, 5), absorbed={"bias": 1.0}))
    rows = dict(text.split("\n") for text in page.locator(".rp-causes summary").all_inner_texts())
    assert rows["Biases"] == "+1"
    assert rows["Other"] == "+0.5"


def test_of_a_gradient_the_sum_is_not_set_against_the_score(opened: Callable[..., Page]) -> None:
    page = opened()
    sheet = picture(values_of(5, 5), redistributes=False, method="gradient", absorbed=None)
    show(page, "card", sheet)
    assert page.locator(".rp-balance-bar").is_hidden()
    assert "its sum is not meant to be the score" in text_of(page, ".rp-balance")
    page.evaluate("sheet => shown.update(sheet)", {**sheet, "method": "integrated_gradients"})
    assert "minus that of its baseline" in text_of(page, ".rp-balance")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_where_little_of_the_score_arrives_the_card_says_how_to_read_it(
    opened: Callable[..., Page], language: str
) -> None:
    page = opened()
    page.evaluate("language => V.configure({language})", language)
    sentence = page.locator(".rp-balance > .rp-small:visible")
    show(page, "card", picture(values_of(5, 5), score=9.17, total=0.002))
    assert {"en": "proportions", "ko": "비율"}[language] in sentence.inner_text()
    for plain in ({"total": 0.5}, {"total": -0.5}, {"layer": "conv1"}, {"redistributes": False, "method": "gradient"}):
        page.evaluate(
            "sheet => shown.update(sheet)", picture(values_of(5, 5), **{"score": 9.17, "total": 0.002, **plain})
        )
        assert not sentence.filter(has_text={"en": "proportions", "ko": "비율"}[language]).count()


def test_rules_of_ones_own_have_a_name_below_the_heading(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "card", picture(values_of(5, 5), rules="[('conv', Gamma(0.25))]"), options="{heading: 'class 3'}")
    assert text_of(page, ".rp-about").endswith(" · custom rules")


# Operations, downloads, notes


ANSWER = """({ absorbed: { bias: 1.5 }, operations: [
  { name: "features.0", function: "torch.conv2d", rule: "Gamma(0.25)", received: 12.5, passed: 11,
    lost: { bias: 1.5, rounding: 1e-8 } },
  { name: "", function: "torch.relu", rule: "", received: 11, passed: 11, lost: {} },
] })"""


def test_the_table_of_operations_is_computed_when_it_is_opened(opened: Callable[..., Page]) -> None:
    page = opened()
    options = f"{{ operations: async () => {{ window.asked = (window.asked ?? 0) + 1; return {ANSWER}; }} }}"
    show(page, "card", picture(values_of(5, 5), absorbed={}), options=options)
    assert page.evaluate("window.asked") is None
    page.get_by_text("Operations and rules").click()
    page.wait_for_selector("tbody tr")
    cells = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in page.locator("tbody tr").all()]
    assert cells == [
        ["features.0\ntorch.conv2d", "Gamma(0.25)", "+12.5", "+11", "biases +1.5"],
        ["torch.relu", "", "+11", "+11", ""],
    ]
    assert "Biases" in text_of(page, ".rp-causes")  # and the balance knows the cause now
    assert page.evaluate("window.asked") == 1


def test_a_table_that_could_not_be_computed_says_why_and_can_be_asked_again(opened: Callable[..., Page]) -> None:
    page = opened()
    options = f"""{{ operations: async () => {{
      window.asked = (window.asked ?? 0) + 1;
      if (asked === 1) throw new Error("The server is not there.");
      return {ANSWER};
    }} }}"""
    show(page, "card", picture(values_of(5, 5)), options=options)
    page.get_by_text("Operations and rules").click()
    assert "The server is not there." in text_of(page, "[role=alert]:not(:empty)")
    page.get_by_text("Try again").click()
    page.wait_for_selector("tbody tr")


def test_an_answer_that_comes_too_late_is_not_shown(opened: Callable[..., Page]) -> None:
    page = opened()
    options = "{ operations: () => new Promise((resolve) => (window.answer = resolve)) }"
    show(page, "card", picture(values_of(5, 5), absorbed={}), options=options)
    page.get_by_role("button", name="Where did it stay?").click()
    page.evaluate("sheet => shown.update(sheet)", picture(-values_of(5, 5), absorbed={}))
    page.evaluate(f"answer({ANSWER})")
    page.wait_for_timeout(50)
    assert page.locator(".rp-cause").all_inner_texts() == ["Sum of relevance", "Stayed in the network"]
    assert page.locator("tbody").count() == 0


def test_where_it_stayed_is_asked_without_opening_the_table(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "card", picture(values_of(5, 5), absorbed={}), options=f"{{ operations: async () => {ANSWER} }}")
    page.get_by_role("button", name="Where did it stay?").click()
    page.locator(".rp-cause", has_text="biases").wait_for()
    assert page.locator("table").is_hidden()


def test_files_made_in_the_page_hold_the_figures(opened: Callable[..., Page]) -> None:
    values, page = values_of(3, 4), opened()
    show(page, "card", picture(values), options='{ downloads: "local" }')
    made = {}
    for kind in ("CSV", "PNG", "SVG"):
        page.locator(".rp-menu > summary").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=kind).click()
        made[kind] = waiting.value
    assert made["PNG"].suggested_filename == "relprop-net-3-epsilon.png"
    table = Path(made["CSV"].path()).read_text(encoding="utf-8-sig").splitlines()
    assert table[0] == "row,column,relevance"
    assert [float(line.split(",")[2]) for line in table[1:]] == values.ravel().astype(float).tolist()
    large = Image.open(made["PNG"].path()).convert("RGB")
    small = np.asarray(large.resize((4, 3), Image.Resampling.NEAREST))
    assert (small == colour_map("RdBu_r")(values.astype(np.float64) / np.abs(values).max())).all()
    assert "<script" not in Path(made["SVG"].path()).read_text()


def test_a_download_of_the_servers_is_saved_and_a_failure_told(opened: Callable[..., Page]) -> None:
    page = opened()
    files = '{ npz: async () => new Blob(["figures"]), png: async () => { throw new Error("No room."); } }'
    show(page, "card", picture(values_of(3, 3)), options=f"{{ downloads: {files} }}")
    page.locator(".rp-menu > summary").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="NPZ").click()
    assert Path(waiting.value.path()).read_text() == "figures"
    page.locator(".rp-menu > summary").click()
    page.get_by_role("button", name="PNG").click()
    page.get_by_text("No room.").wait_for()


# Words


TEXT = "Not  bad \U0001f3ac at\tall!\n\n정말 좋다 <b>&amp;"
WORDS = {"Not": 0.5, "bad": -1.0, "\U0001f3ac": 0.02, "at": 0.0, "all": 0.25, "정말": 0.4, "좋다": 0.9}


def test_a_text_is_shown_as_it_is_with_its_words_painted(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "words", passage(TEXT, WORDS))
    assert page.locator(".rp-text").text_content() == TEXT
    assert page.locator(".rp-word").all_text_contents() == list(WORDS)
    for place, relevance in enumerate(WORDS.values()):
        word = page.locator(".rp-word").nth(place)
        word.hover()
        assert figure(text_of(page, ".rp-readout").split(": ")[1].split()[0]) == relevance
        colour = colour_map("RdBu_r").colour(0.8 if relevance > 0 else -0.8)
        painted = word.evaluate("word => getComputedStyle(word).backgroundColor")
        if abs(relevance) not in (0.0, 1.0):
            assert painted == f"rgba({colour[0]}, {colour[1]}, {colour[2]}, {abs(relevance):g})"


def test_the_keyboard_goes_from_word_to_word_and_deletes(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "words", passage(TEXT, WORDS), options="{ remove: (word) => (window.removed = word) }")
    page.keyboard.press("Tab")
    assert "Not: +0.5 evidence for positive" in text_of(page, ".rp-readout")
    page.keyboard.press("ArrowRight")
    assert "bad: \u22121 evidence against positive" in text_of(page, ".rp-readout")
    page.locator(".rp-word").last.hover()  # where the pointer is does not matter to the keyboard
    page.keyboard.press("Delete")
    assert page.evaluate("removed.text") == "bad"
    page.evaluate("sheet => shown.update(sheet)", passage("Not at all", {"Not": 0.5, "at": 0.1, "all": 0.2}))
    assert page.evaluate("document.activeElement.textContent") == "at"  # what came in its place
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.textContent") == "all"
    assert page.locator(".rp-word[tabindex='0']").count() == 1


def test_the_pointer_deletes_a_word_by_its_cross(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "words", passage(TEXT, WORDS), options="{ remove: (word) => (window.removed = word) }")
    page.locator(".rp-word").nth(4).hover()
    page.get_by_role("button", name="Delete the word all").click()
    assert page.evaluate("[removed.text, removed.start]") == ["all", TEXT.index("all")]


def test_from_right_to_left_the_left_key_goes_forward(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "words", passage("لم يكن سيئا", {"لم": 0.5, "يكن": 0.1, "سيئا": -0.4}))
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == "يكن"


CONTRASTS = """word => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = parse(getComputedStyle(word.closest(".rp-card")).backgroundColor);
  const [r, g, b, a = 1] = parse(getComputedStyle(word).backgroundColor);
  const ground = [r, g, b].map((c, i) => a * c + (1 - a) * paper[i]);
  const [low, high] = [light(ground), light(parse(getComputedStyle(word).color).slice(0, 3))].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_painted_words_stay_readable(opened: Callable[..., Page], scheme: str) -> None:
    words = {f"w{place}": place / 20 for place in range(-20, 21)}
    page = opened(scheme=scheme)
    show(page, "card", passage(" ".join(words), words))
    found = page.locator(".rp-word, .rp-sample").evaluate_all(f"all => all.map({CONTRASTS})")
    assert len(found) == 43
    assert min(found) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(scheme=scheme)
    show(page, "card", picture(values_of(4, 4), notes=["a note"]))
    for part in (".rp-about", ".rp-scale", ".rp-readout-words", ".rp-cause", ".rp-notes li", ".rp-figures dt"):
        assert page.locator(part).first.evaluate(CONTRASTS) >= 4.5, part


def test_a_theme_on_the_root_wins(opened: Callable[..., Page]) -> None:
    page = opened(scheme="light")
    show(page, "card", picture(values_of(4, 4)))
    read = "getComputedStyle(shown).backgroundColor"
    light = page.evaluate(read)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate(read) != light
    assert opened(scheme="dark").evaluate("getComputedStyle(document.body).backgroundColor") == page.evaluate(
        "getComputedStyle(document.body).backgroundColor"
    )


def test_tokens_are_behind_a_click_and_those_apart_are_marked(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "card", passage(TEXT, WORDS))
    assert page.locator(".rp-tokens").is_hidden()
    page.get_by_text("Tokens the model was given (8)").click()
    assert page.locator(".rp-apart").inner_text().split("\n") == ["[CLS]", "+0.25"]
    assert page.locator(".rp-within .rp-figure").inner_text() == "+0.25"


# Classes


SCORES = [{"index": i, "name": str(i), "score": 2.0 - i, "probability": 0.5 / (i + 1)} for i in range(4)]


def test_classes_are_radio_buttons(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "scores", SCORES, options="{ selected: 0, choose: (index) => (window.chosen = index) }")
    assert page.get_by_role("radio").count() == 4
    assert text_of(page, ".rp-class").split("\n") == ["0", "50.0%", "+2.000"]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("chosen") == 1
    page.get_by_role("radio").last.click()
    assert page.evaluate("chosen") == 3


def test_classes_in_a_new_order_keep_the_focus(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "scores", SCORES, options="{ selected: 2, choose: () => {} }")
    page.keyboard.press("Tab")
    page.evaluate("list => shown.update(list, { selected: 2 })", SCORES[::-1])
    assert page.locator(".rp-class-name").all_inner_texts() == ["3", "2", "1", "0"]
    assert page.evaluate("document.activeElement.closest('label').querySelector('.rp-class-name').textContent") == "2"
    assert page.locator(":checked").count() == 1


# All of it


def test_markup_in_what_is_told_stays_text(opened: Callable[..., Page]) -> None:
    page, sign = opened(), {"index": 0, "name": INJECTED}
    table = ANSWER.replace("features.0", INJECTED.replace('"', "'")).replace("Gamma(0.25)", "<i>rule</i>")
    words = passage(f"a {INJECTED} z", {INJECTED: 1.0}, target=sign, notes=[INJECTED], title=INJECTED, model=INJECTED)
    show(page, "card", words, options=f"{{ operations: async () => {table}, remove: () => {{}} }}")
    told = {"target": sign, "notes": [INJECTED], "title": INJECTED, "absorbed": {INJECTED: 1.5}}
    show(page, "card", picture(values_of(3, 3), **told))
    show(page, "scores", [{"index": 0, "name": INJECTED, "score": 1.0, "probability": 0.5}])
    page.get_by_text("Operations and rules").first.click()
    page.wait_for_selector("tbody tr")
    page.locator(".rp-word").hover()
    page.locator(".rp-plane").hover()
    page.wait_for_timeout(50)
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img:not(.rp-base), main b, main i").count() == 0
    assert page.locator(".rp-word").text_content() == INJECTED
    assert page.locator(".rp-heading").last.text_content() == INJECTED


def test_a_redrawn_card_keeps_its_elements_and_its_height(opened: Callable[..., Page]) -> None:
    page = opened()
    show(page, "card", picture(values_of(8, 8)))
    page.locator(".rp-causes summary").nth(1).click()
    page.evaluate("window.before = [...shown.querySelectorAll('canvas, .rp-readout, .rp-causes details, h3')]")
    height = page.evaluate("shown.offsetHeight")
    other = picture(-2 * values_of(8, 8)[::-1], score=-123.4)
    page.evaluate("sheet => shown.update(sheet)", other)
    assert page.evaluate("before.every((element) => shown.contains(element))")
    assert page.evaluate("shown.offsetHeight") == height
    assert page.locator(".rp-causes details[open]").count() == 1
    expected = -2 * values_of(8, 8)[::-1]
    assert (pixels(page)[..., :3] == colour_map("RdBu_r")(expected.astype(np.float64) / np.abs(expected).max())).all()
    assert figure(text_of(page, ".rp-figures dd")) == -123.4


def test_the_slider_fades_from_picture_to_map_and_the_legend_follows(opened: Callable[..., Page]) -> None:
    source = "data:image/png;base64," + base64.b64encode(_png(Image.new("L", (4, 4), 90))).decode()
    page = opened()
    sheet = picture(values_of(4, 4), picture={"width": 4, "height": 4, "src": source})
    show(page, "card", sheet, options="{ opacity: 0.5, slider: true }")
    assert "The picture in grey: no relevance." in text_of(page, ".rp-legend")
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    assert (pixels(page)[..., 3] == 255).all()
    assert "White: no relevance." in text_of(page, ".rp-legend")
    page.keyboard.press("Home")
    assert (pixels(page)[..., 3] == 0).all()


def test_a_language_chosen_later_is_spoken_from_the_next_update_on(opened: Callable[..., Page]) -> None:
    page, sheet = opened(), picture(values_of(4, 4))
    show(page, "card", sheet, options=f"{{ operations: async () => {ANSWER} }}")
    page.get_by_text("Operations and rules").click()
    page.wait_for_selector("tbody tr")
    page.evaluate("sheet => { V.configure({ language: 'ko' }); shown.update(sheet); }", sheet)
    assert page.evaluate("shown.lang") == "ko"
    assert re.search("[A-Za-z]{4,}", page.evaluate("shown.querySelector('.rp-side').innerText")) is None


@pytest.mark.parametrize("language", ["en", "ko"])
def test_nothing_is_wider_than_the_narrowest_phone(opened: Callable[..., Page], language: str) -> None:
    page = opened(language, width=320)
    name = {"index": 1, "name": "a class with a long name, incomprehensibilities"}
    show(page, "card", picture(values_of(28, 28), target=name), options=f"{{ operations: async () => {ANSWER} }}")
    show(page, "card", picture(values_of(3, 200), kind="series"), options='{ downloads: "local" }')
    show(page, "card", passage(TEXT + "x" * 90, WORDS, target=name), options="{ remove: () => {} }")
    show(page, "scores", [{**SCORES[0], "name": name["name"]}])
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    page.wait_for_selector("tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_page_can_hold_the_viewer_itself(opened: Callable[..., Page]) -> None:
    css, script = assets.bundle()
    assert "</script" not in script
    assert "</style" not in css
    assert re.search(r"^\s*(import|export)\b", script, re.MULTILINE) is None
    page = opened()
    names = page.evaluate("Object.keys(V)")
    page.evaluate("""([css, script, names]) => {
      document.querySelector("link[rel=stylesheet]").remove();
      const style = document.createElement("style");
      style.textContent = css;
      const module = document.createElement("script");
      module.type = "module";
      module.textContent = `${script}\\nwindow.V = { ${names} };`;
      delete window.V;
      document.head.append(style, module);
    }""", [css, script, ", ".join(names)])  # fmt: skip
    page.wait_for_function("window.V !== undefined")
    page.evaluate("given => V.configure(given)", {"palette": PALETTE, "language": "en"})
    values = values_of(5, 5)
    show(page, "card", picture(values))
    assert (pixels(page)[..., :3] == colour_map("RdBu_r")(values.astype(np.float64) / np.abs(values).max())).all()


def test_the_bundle_has_every_module() -> None:
    assert sorted(path.stem for path in assets.folder().glob("*.js")) == sorted(assets.MODULES)
