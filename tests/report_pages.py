"""Reports for the tests, and what they ask of a page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from relprop import Explainer, zoo
from relprop.view.gallery import Item

PRESETS = ("epsilon", "deep-taylor")
DIGITS = (0, 12, 25, 89, 41, 93)  # 89 is misread
HOSTILE = '</script><script>window.hit = 1</script> & "quoted" <b>'


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text inside of each."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        inside = self.elements[-1][0] if self.elements else ""
        self.texts.append((inside, data))

    @property
    def sheets(self) -> list[list[dict[str, Any]]]:
        """What the page holds for its script, input by input."""
        found = re.findall(r'<script type="application/json" class="sheets">(.*?)</script>', self.source, re.DOTALL)
        return [json.loads(each) for each in found]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def visible(self) -> str:
        """All text that a reader sees, on one line."""
        return " ".join("".join(text for inside, text in self.texts if inside not in ("script", "style")).split())


def items(explainer: Explainer, presets: tuple[str, ...] = PRESETS) -> Iterator[Item]:
    """Six digits by a model that misreads one of them."""
    images, labels = zoo.digits()
    for index in DIGITS:
        compared = explainer.compare(images[index : index + 1], presets)
        yield Item(f"digit {index}", compared, "mnist-mlp", truth=int(labels[index]))


def png(index: int, path: Path) -> Path:
    """One of the zoo's digits as a file."""
    images, _ = zoo.digits()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((images[index, 0] + 1) * 127.5).round().byte().numpy()).save(path)
    return path
