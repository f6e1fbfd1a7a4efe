"""Fixtures of the tests in a browser: one server for all, a browser for each file, a fresh page for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import Opening, chromium, host_of, serving, visiting


# Not for the session: while playwright is started, no event loop of another test can run in the same thread.
@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with serving() as running:
        yield running


@pytest.fixture
def opened(started: Any, address: str) -> Opening:
    """A fresh page at a view; when it is left, it must not have complained nor asked any other host.

    `refused`: how many requests the server is to refuse, which the browser itself notes.
    """

    @contextmanager
    def opening(view: str = "", at: str = address, refused: int = 0, **options: Any) -> Iterator[Any]:
        with visiting(started, host_of(at), **options) as visit:
            visit.page.set_default_timeout(60_000)
            visit.page.goto(f"{at}/{view}")
            yield visit.page
            assert [each for each in visit.complaints if "Failed to load resource" not in each] == []
            assert len(visit.complaints) == refused
            assert visit.elsewhere == []

    return opening
