"""What pages say of themselves (folded cells, the theme's own words), in the language of the page."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

PROMPTS = {"en": ("Show the code", "Hide the code"), "ko": ("코드 보기", "코드 숨기기")}

# The theme has no Korean of its own.
KOREAN = {
    "Back to top": "맨 위로",
    "Home": "처음",
    "Next": "다음",
    "On this page": "이 쪽의 차례",
    "Previous": "이전",
    "Skip to content": "본문으로",
}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_prompts, priority=100)
    app.connect("html-page-context", set_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def set_prompts(app: Sphinx, config: Config) -> None:
    config["nb_code_prompt_show"], config["nb_code_prompt_hide"] = PROMPTS[config.language]


def set_words(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document) -> None:
    def translated(text: str) -> str:
        return KOREAN.get(" ".join(text.split())) or app.translator.gettext(text)

    if app.config.language == "ko":
        context["_"] = context["gettext"] = translated
