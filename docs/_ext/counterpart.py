"""Tells each page's template where the same page is in the other language."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NAMES = {"en": "English", "ko": "한국어"}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_languages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_languages(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document) -> None:
    """`languages`: (code, name, address of this page in it) of each, the page's own language included."""
    root = context["pathto"]("", 1).rstrip("/")
    home = f"{root}/.." if root else ".."
    context["languages"] = [(code, name, f"{home}/{code}/{page}.html") for code, name in NAMES.items()]
