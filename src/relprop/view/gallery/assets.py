"""The script and the style of a report: the viewer's, and the gallery's own."""

from __future__ import annotations

import re
from importlib.resources import files

from relprop.view.assets import bundle

# In one script, what a module exports is there for those after it.
_MODULES = ("elements.js", "gallery.js")
_BETWEEN = re.compile(r'^import \{[^}]*\} from "[^"]*";\n|^export (?=function)', re.MULTILINE)


def style() -> str:
    """The content of the page's <style>."""
    return f"{bundle()[0]}\n{_read('gallery.css')}"


def script() -> str:
    """The content of the page's module script: the viewer's names, then what uses them."""
    return "\n".join([bundle()[1], *(_BETWEEN.sub("", _read(name)) for name in _MODULES)])


def _read(name: str) -> str:
    return files("relprop.view.gallery").joinpath(name).read_text(encoding="utf-8")
