"""What a test does on a page of the application, and what it reads there."""

from __future__ import annotations

import base64
import io
import re
import zlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import relprop
from relprop import zoo

DIGITS = 4  # significant digits of a number on the page
THREE = [
    (0.3, 0.28),
    (0.42, 0.2),
    (0.6, 0.22),
    (0.66, 0.35),
    (0.5, 0.48),
    (0.68, 0.6),
    (0.6, 0.77),
    (0.4, 0.8),
    (0.3, 0.7),
]
SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]
ENGLISH = "Not bad at all, but the story is dull."
KOREAN = "이 영화 진짜 재미없다."


def shown(card: Any) -> list[float]:
    """The numbers of a card's balance: score, sum of relevance, ..."""
    return [
        number(text) for text in re.findall(r"[+−]\d[\d.]*(?:e[+−]?\d+)?", card.locator(".rp-balance").inner_text())
    ]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def as_shown(value: float) -> Any:
    """A value to the digits that the page writes."""
    return pytest.approx(float(f"{value:.{DIGITS}g}"), rel=1e-9)


def here(page: Any) -> Any:
    """The open tab."""
    return page.locator("[role=tabpanel]:not([hidden])")


def ready(page: Any, text: str | None = None, within: str = ".explained") -> Any:
    """The card of the open tab, once it has the heading `text`."""
    cards = here(page).locator(f"{within} .rp-card")
    if text is not None:
        cards.locator(".rp-header").filter(has_text=text).first.wait_for()
    cards.first.wait_for()
    return cards.first


def still(page: Any) -> None:
    """Wait until nothing is asked any more and the address says what is shown."""
    page.wait_for_timeout(200)
    page.wait_for_function("() => !document.querySelector('[role=tabpanel]:not([hidden]) [data-busy]')")
    page.wait_for_timeout(150)


def view_of(page: Any) -> dict[str, str]:
    """What the address says of the open tab."""
    _, _, query = urlsplit(page.url).fragment.partition("?")
    return {name: values[-1] for name, values in parse_qs(query).items()}


def drawn_bytes(page: Any) -> np.ndarray[Any, Any]:
    """The 28 x 28 bytes that the link holds."""
    text = view_of(page)["ink"]
    packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return np.frombuffer(zlib.decompress(packed, -15), np.uint8).reshape(28, 28)


def as_input(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    return zoo.mnist.scale(torch.from_numpy(pixels.astype(np.float32)))[None, None]


def explained(pixels: np.ndarray[Any, Any], model: str = "mnist-cnn", **options: Any) -> relprop.Attribution:
    return relprop.explain(zoo.load(model), as_input(pixels), bounds=(-1.0, 1.0), **options)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def photo(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)


def draw(page: Any, points: list[tuple[float, float]], steps: int = 5) -> None:
    box = page.locator(".surface").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=steps)
    page.mouse.up()
