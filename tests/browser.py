"""Pages in a real browser that reaches no other host: a server of its own, and what the page said and asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium")
REQUIRED = os.environ.get("RELPROP_BROWSER") == "1"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Opening = Callable[..., AbstractContextManager[Any]]
LOCAL = ("data", "blob", "file", "about")


@dataclass
class Visit:
    """A page, its complaints, and the addresses on other hosts that it asked for: none was answered."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Where there is no chromium the test is skipped, or fails with RELPROP_BROWSER=1."""
    if CHROMIUM is None:
        if REQUIRED:
            pytest.fail("RELPROP_BROWSER=1, and there is no chromium on the PATH")
        pytest.skip("no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Any, host: str = "", **options: Any) -> Iterator[Visit]:
    """A fresh page whose requests to any host but `host` ("127.0.0.1:8000") are refused and noted.

    options: as for playwright's `Browser.new_context`: viewport, locale, color_scheme, has_touch, ...
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US"} | options)
    visit = Visit(context.new_page())

    def judge(route: Any) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in LOCAL or (host and address.netloc == host):
            route.continue_()
        else:
            visit.elsewhere.append(route.request.url)
            route.abort()

    context.route("**/*", judge)
    visit.page.on(
        "console", lambda message: message.type in ("error", "warning") and visit.complaints.append(message.text)
    )
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    try:
        yield visit
    finally:
        context.close()


@contextmanager
def serving(**options: Any) -> Iterator[str]:
    """The address of a running application, "http://127.0.0.1:8000"; options as for relprop.app.create."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from relprop import app
    from relprop.app.serving import running

    with running(app.create(**options)) as (address, _):
        yield address.rstrip("/")


def host_of(address: str) -> str:
    """Host and port of an address."""
    return urlsplit(address).netloc
