"""Progress of long work: a bar on a terminal or in a notebook, nothing where nobody looks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar

Item = TypeVar("Item")
Progress = Callable[[int, Any], object]

EVERY = 0.1  # seconds between two pictures of a bar
_WIDTH = 32  # of the bar, in letters
ERASE = "\x1b[K"  # from where a bar begins, as the cursor stands there between two pictures of it

_NOTEBOOK = (
    '<div style="display: flex; align-items: center; font: 13px/1.6 system-ui, sans-serif">'
    '<span style="width: {label}ch">{said}</span>'
    '<div style="width: 240px; height: 6px; margin: 0 12px; background: rgba(128,128,128,0.3); border-radius: 3px">'
    '<div style="width: {share:.1f}%; height: 6px; background: rgb(178,24,43); border-radius: 3px"></div></div>'
    "<span>{count}</span></div>"
)


@contextlib.contextmanager
def telling(progress: bool | Progress | None, label: str) -> Iterator[Progress]:
    """What to call with (done, total), total None where it isn't known; `label` says what is done.

    progress: a function of the caller's own, which is called so; True for a bar, on stderr if that is a terminal, or in
        the notebook that runs this; it goes when the work has ended. False and None: nothing is shown.
    """
    if callable(progress):
        yield progress
        return
    show = _shown_at(label) if progress else None
    if show is None:
        yield lambda done, total: None
        return
    last = 0.0

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY or done == total:
            last = now
            show(done, total)

    try:
        yield tell
    finally:
        show(None, None)


def told(
    items: Sequence[Item], progress: bool | Progress | None, label: str, size: Callable[[Item], int] = lambda _: 1
) -> Iterator[Item]:
    """The items one by one; `progress` as for `telling`, of which each counts `size` when it has been dealt with."""
    done, total = 0, sum(map(size, items))
    with telling(progress, label) as tell:
        for item in items:
            yield item
            done += size(item)
            tell(done, total)


def _shown_at(label: str) -> Callable[[int | None, int | None], None] | None:
    """What shows (done, total), and for (None, None) takes the bar away; None where nobody looks."""
    shell = _notebook()
    if shell is not None:
        return _in_notebook(label)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return _on_terminal(label)
    return None


def _notebook() -> Any:
    """The shell of the notebook that runs this; None elsewhere, as in IPython's own terminal."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return shell if hasattr(shell, "kernel") else None


def _on_terminal(label: str) -> Callable[[int | None, int | None], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    def show(done: int | None, total: int | None) -> None:
        if done is None:
            sys.stderr.write(ERASE)
        else:
            full = _WIDTH if not total else round(_WIDTH * min(1.0, done / total))
            bar = Text.assemble(("━" * full, "red"), ("─" * (_WIDTH - full), "dim")) if total else Text("")
            console.print(Text.assemble(f"{label}  ", bar, f"  {_count(done, total)}"), end="\r", overflow="crop")
        sys.stderr.flush()

    return show


def _in_notebook(label: str) -> Callable[[int | None, int | None], None]:
    display: Any = import_module("IPython.display").display

    def content(done: int | None, total: int | None) -> dict[str, str]:
        if done is None:
            return {"text/plain": "", "text/html": ""}
        said = _count(done, total)
        share = 100.0 * min(1.0, done / total) if total else 0.0
        return {
            "text/plain": f"{label}  {said}",
            "text/html": _NOTEBOOK.format(label=len(label) + 1, said=label, share=share, count=said),
        }

    handle: Any = None

    def show(done: int | None, total: int | None) -> None:
        nonlocal handle
        if handle is not None:
            handle.update(content(done, total), raw=True)
        elif done is not None:
            handle = display(content(done, total), raw=True, display_id=True)

    return show


def _count(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"
