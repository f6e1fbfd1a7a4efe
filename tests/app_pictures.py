"""Pictures of every tab, light and dark, wide and narrow, in both languages: `python tests/app_pictures.py FOLDER`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from app_page import THREE, draw, still
from browser import chromium, host_of, serving, visiting

SIZES = {"wide": (1280, 900), "phone": (360, 780)}
LOCALES = {"en": "en-US", "ko": "ko-KR"}
SCHEMES = ("light", "dark")
TABS = ("digit", "photo", "review", "compare")


def take(page: Any, folder: Path, name: str) -> None:
    """All tabs of an open page, each from top to bottom."""
    page.set_default_timeout(120_000)
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        page.locator(f"#panel-{tab} .rp-card").first.wait_for()
        if tab == "digit":
            draw(page, THREE)
        still(page)
        page.screenshot(path=folder / f"{tab}-{name}.png", full_page=True)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as address, chromium() as browser:
        for size, language, scheme in itertools.product(SIZES, LOCALES, SCHEMES):
            width, height = SIZES[size]
            options = {"locale": LOCALES[language], "color_scheme": scheme, "has_touch": size == "phone"}
            with visiting(browser, host_of(address), viewport={"width": width, "height": height}, **options) as visit:
                visit.page.goto(address)
                take(visit.page, folder, f"{size}-{language}-{scheme}")
            print(f"{size} {language} {scheme}", *visit.complaints, *visit.elsewhere)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
