"""The viewer, in JavaScript: as a folder of modules for the app, as one text for pages that fetch nothing."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

# Each module comes after those that it imports.
MODULES = (
    "dom", "colour", "language", "readout", "cursor", "heatmap", "passage", "legend", "balance", "operations", "scores",
    "downloads", "card", "viewer",
)  # fmt: skip

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_PASSED_ON = re.compile(r'^export \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const) (\w+))", re.MULTILINE)


def folder() -> Path:
    """Where the files are: `viewer.js`, which imports the modules beside it, and `viewer.css`."""
    return Path(str(files(__name__)))


def bundle() -> tuple[str, str]:
    """(css, js) for a page that holds them itself: <style>css</style> and, ahead of the page's own lines in the same
    element, <script type="module">js ...</script>, where what `viewer.js` exports are plain names.
    """
    parts = [_scope(name) for name in MODULES[:-1]]
    names, body = _unfolded("viewer")
    parts.append(f"const {{ {', '.join(names)} }} = (() => {{\n{body}return {{ {', '.join(names)} }};\n}})();\n")
    return _read("viewer.css"), "\n".join(parts)


def _scope(name: str) -> str:
    """A module as a constant with its exports: what else it declares stays its own."""
    names, body = _unfolded(name)
    return f"const {name}Module = (() => {{\n{body}return {{ {', '.join(names)} }};\n}})();\n"


def _unfolded(name: str) -> tuple[list[str], str]:
    """(exported names, text without import and export) of a module."""
    text = _read(f"{name}.js")
    passed_on = [each.strip() for match in _PASSED_ON.finditer(text) for each in match[1].split(",")]
    names = sorted(passed_on + _EXPORT.findall(text))
    return names, _EXPORT.sub("", _taken(_IMPORT, _taken(_PASSED_ON, text)))


def _taken(statement: re.Pattern[str], text: str) -> str:
    """The names of an import taken from the module's constant."""
    return statement.sub(r"const {\1} = \2Module;\n", text)


def _read(name: str) -> str:
    return (folder() / name).read_text(encoding="utf-8")
