"""The digit tab in a browser: what it shows of a drawing is what Python computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from app_page import (
    SEVEN,
    THREE,
    as_input,
    as_shown,
    draw,
    drawn_bytes,
    explained,
    here,
    number,
    ready,
    shown,
    still,
    view_of,
)
from browser import Opening

import relprop
from relprop import zoo

pytest_plugins = ("app_fixtures",)


def test_a_digit_drawn_with_the_mouse_has_the_scores_and_the_sum_that_python_computes(opened: Opening) -> None:
    with opened() as page:
        ready(page)
        draw(page, THREE)
        still(page)
        card = ready(page, "3")
        expected = explained(drawn_bytes(page))
        assert int(expected.output.argmax()) == 3
        assert shown(card)[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]
        bars = page.locator(".digit .rp-class")
        assert bars.count() == 10
        scores = [number(bars.nth(i).locator(".rp-class-score").inner_text()) for i in range(10)]
        assert scores == pytest.approx(expected.output[0].tolist(), abs=5e-3)


def test_the_map_is_painted_from_the_relevance(opened: Opening) -> None:
    with opened() as page:
        draw(page, SEVEN)
        still(page)
        pixels = page.locator(".digit .rp-plane canvas").evaluate(
            "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
        )
        painted = np.array(pixels).reshape(28, 28, 4)[..., :3].astype(int)
        relevance = explained(drawn_bytes(page)).relevance[0, 0].numpy()
        share = relevance / np.abs(relevance).max()
        red, green, blue = painted[..., 0], painted[..., 1], painted[..., 2]
        assert (painted[np.abs(share) < 1e-3] == 255).mean() > 0.99
        assert (red > blue)[share > 0.02].all() and (blue > red)[share < -0.02].all()
        order = np.argsort(np.abs(share), axis=None)[-20:]
        assert (green.ravel()[order] < 200).all()


def test_a_drawing_is_reduced_as_mnist_digits_are(opened: Opening) -> None:
    with opened() as page:
        small = [(0.2 + 0.4 * x, 0.1 + 0.4 * y) for x, y in THREE]
        here(page).get_by_role("radio", name="Thin").check()
        draw(page, small)
        still(page)
        pixels = drawn_bytes(page).astype(float)
        rows, columns = np.nonzero(pixels > 25)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)
        centre = np.array([(pixels.sum(1) @ np.arange(28)), (pixels.sum(0) @ np.arange(28))]) / pixels.sum()
        assert centre == pytest.approx([13.5, 13.5], abs=0.1)
        assert pixels.max() == 255 and ((pixels > 0) & (pixels < 255)).any()
        seen = page.locator(".eye canvas").evaluate(
            "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
        )
        assert seen == drawn_bytes(page).ravel().tolist()


def test_another_class_is_explained_by_a_click_and_the_decision_again(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        ready(page, "For and against 3")
        page.locator(".digit .rp-class").nth(8).click()
        card = ready(page, "For and against 8")
        still(page)
        expected = explained(drawn_bytes(page), target=8)
        assert shown(card)[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]
        assert view_of(page)["target"] == "8"
        here(page).get_by_role("button", name="Follow the decision").click()
        ready(page, "For and against 3")


def test_network_and_preset_are_chosen(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        here(page).get_by_label("Network", exact=True).select_option("mnist-vit")
        ready(page, "mnist-vit · attn-lrp-vit")
        here(page).get_by_label("Rules", exact=True).select_option("cp-lrp")
        card = ready(page, "mnist-vit · cp-lrp")
        still(page)
        expected = explained(drawn_bytes(page), "mnist-vit", rules="cp-lrp")
        assert shown(card)[:2] == [as_shown(float(expected.score)), as_shown(float(expected.total))]


def test_undo_and_clear(opened: Opening) -> None:
    with opened() as page:
        draw(page, SEVEN)
        still(page)
        seven = drawn_bytes(page)
        draw(page, [(0.4, 0.55), (0.65, 0.55)])
        still(page)
        assert (drawn_bytes(page) != seven).any()
        page.locator(".digit").get_by_role("button", name="Undo").click()
        still(page)
        assert (drawn_bytes(page) == seven).all()
        here(page).get_by_role("button", name="Clear").click()
        here(page).get_by_text("The heatmap appears as soon as you draw.").wait_for()
        still(page)
        assert view_of(page)["ink"] == "none"


def test_a_finger_draws_and_does_not_scroll(opened: Opening) -> None:
    with opened(has_touch=True, viewport={"width": 360, "height": 780}) as page:
        ready(page)
        box = page.locator(".surface").bounding_box()
        touches = page.context.new_cdp_session(page)
        for kind, (x, y) in [("touchStart", SEVEN[0]), *(("touchMove", place) for place in SEVEN[1:])]:
            at = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
        touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        ready(page, "For and against 7")
        assert page.evaluate("scrollY") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_pen_draws_wider_under_pressure(opened: Opening) -> None:
    widths = []
    for pressure in (0.2, 0.9):
        with opened() as page:
            ready(page)
            box = page.locator(".surface").bounding_box()
            pen = page.context.new_cdp_session(page)
            for kind, y in [("mousePressed", 0.2), ("mouseMoved", 0.5), ("mouseMoved", 0.8), ("mouseReleased", 0.8)]:
                place = {"x": box["x"] + 0.5 * box["width"], "y": box["y"] + y * box["height"]}
                button = {"button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen", "force": pressure}
                pen.send("Input.dispatchMouseEvent", {"type": kind} | place | button)
            still(page)
            widths.append(int((drawn_bytes(page)[14] > 127).sum()))
    assert widths[0] < widths[1]


def test_the_keyboard_draws(opened: Opening) -> None:
    with opened() as page:
        ready(page)
        page.locator(".surface").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Shift+Tab")
        for keys in (["ArrowUp"] * 10, [" "], ["ArrowDown"] * 20, [" "]):
            for key in keys:
                page.keyboard.press(key)
        ready(page, "For and against 1")
        still(page)
        assert np.ptp(np.nonzero(drawn_bytes(page) > 25)[0]) > 17
        page.keyboard.press("Delete")
        here(page).get_by_text("The heatmap appears as soon as you draw.").wait_for()


def test_a_sample_is_explained_as_it_is(opened: Opening) -> None:
    with opened() as page:
        here(page).get_by_role("button", name="A handwritten 5").click()
        ready(page, "For and against 5")
        still(page)
        images, labels = zoo.digits()
        first = images[int((labels == 5).nonzero()[0])][None]
        assert torch.equal(as_input(drawn_bytes(page)), first)


def test_the_heatmap_lies_under_the_ink_where_the_network_looks(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        ready(page, "For and against 3")
        blank = page.locator(".under").evaluate("(canvas) => canvas.toDataURL()")
        here(page).get_by_role("switch", name="Heatmap under the ink").check()
        page.wait_for_function("(blank) => document.querySelector('.under').toDataURL() !== blank", arg=blank)
        still(page)
        assert view_of(page)["under"] == "1"


def test_the_heatmap_follows_the_pen(opened: Opening, record_property: Callable[[str, object], None]) -> None:
    """One question at a time is on its way, and the last one that was asked is the one that is shown."""
    with opened() as page:
        ready(page)
        still(page)
        page.evaluate("""() => {
            window.moved = []; window.painted = []; window.asked = 0; window.most = 0;
            addEventListener('pointermove', () => moved.push(performance.now()), true);
            const put = CanvasRenderingContext2D.prototype.putImageData;
            CanvasRenderingContext2D.prototype.putImageData = function (...values) {
                if (this.canvas.classList.contains('rp-canvas')) painted.push(performance.now());
                return put.apply(this, values);
            };
            const ask = window.fetch;
            window.fetch = async (...values) => {
                most = Math.max(most, ++asked);
                try { return await ask(...values); } finally { asked -= 1; }
            };
        }""")
        box = page.locator(".surface").bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 80)
        page.mouse.down()
        for step in range(40):
            page.mouse.move(box["x"] + 100 + 4 * step, box["y"] + 80 + 5 * step)
            page.wait_for_timeout(25)
        page.mouse.up()
        still(page)
        moved, painted, most = page.evaluate("[moved, painted, most]")
        assert most == 1
        assert len(painted) >= 5 and painted[-1] > moved[-1]
        waits = [next(paint for paint in painted if paint > move) - move for move in moved if painted[-1] > move]
        record_property("pen to heatmap, ms: median, largest", (round(float(np.median(waits))), round(max(waits))))
        expected = explained(drawn_bytes(page))
        assert shown(ready(page))[0] == as_shown(float(expected.score))


def test_the_table_of_operations_tells_where_the_difference_went(opened: Opening) -> None:
    with opened() as page:
        draw(page, THREE)
        card = ready(page, "For and against 3")
        still(page)
        card.get_by_text("Operations and rules").click()
        card.locator(".rp-operations tbody tr").nth(3).wait_for()
        table = card.locator(".rp-operations").inner_text()
        expected = explained(drawn_bytes(page))
        for name in ("conv1", "conv2", "linear1", "linear2"):
            assert name in table
        bias = expected.conservation.absorbed["bias"]
        assert as_shown(bias) in shown(card)


def test_a_download_is_what_save_writes(opened: Opening, tmp_path: Any) -> None:
    with opened() as page:
        draw(page, THREE)
        card = ready(page, "For and against 3")
        still(page)
        expected = explained(drawn_bytes(page))
        for kind in ("png", "svg", "html", "npz"):
            if not card.locator(".rp-menu-list").is_visible():
                card.locator(".rp-menu summary").click()
            with page.expect_download() as download:
                card.locator(f".rp-menu-list [data-kind={kind}]").click()
            path = tmp_path / download.value.suggested_filename
            download.value.save_as(path)
            assert path.suffix == f".{kind}"
            if kind == "npz":
                assert torch.equal(relprop.load(path).relevance, expected.relevance)
            elif kind == "png":
                expected.save(tmp_path / "expected.png")
                assert path.read_bytes() == (tmp_path / "expected.png").read_bytes()
            else:
                text = path.read_text()
                assert f"{float(expected.score):.4g}" in text
                assert f"{float(expected.relevance.abs().max()):.4g}" in text
