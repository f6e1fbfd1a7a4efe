"""Writes the notebooks that pair with the executed chapters: python docs/pair.py

Each chapter docs/LANGUAGE/NAME.md is what is edited; notebooks/LANGUAGE/NAME.ipynb is the same for Jupyter, without
outputs. What Jupyter does not show (quoted sources, folds, boxes) is written in plain Markdown there.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from textwrap import dedent

import jupytext
import nbformat
from myst_parser.parsers.options import options_to_items
from myst_parser.slugs import github_slugify
from nbformat import NotebookNode
from sphinx.config import Config
from sphinx.directives.code import LiteralIncludeReader

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks"
LANGUAGES = ("en", "ko")

DIRECTIVE = re.compile(
    r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w-]+)\} *(?P<title>.*)\n(?P<body>(?:.*\n)*?)(?P=fence)$", re.M
)
OPTION = re.compile(r":[\w-]+:")
ROLE = re.compile(r"\{(?:py:)?\w+\}`(?:~|([^`<]*)<)?([^`>]*)>?`")
LINK = re.compile(r"\]\((?P<page>(?!https?:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
TARGET = re.compile(r"^\(([\w-]+)\)=\n", re.M)
HEADING = re.compile(r"(?<!\)=\n)^#{2,4} (.+)$", re.M)
LEADS = re.compile(r"\]\((?P<page>[^)#\s:]*)#(?P<anchor>[^)\s]+)\)")


def chapters(language: str) -> list[Path]:
    """The executed chapters: those whose head names a kernel."""
    found = sorted((HERE / language).glob("*.md"))
    return [path for path in found if "\nkernelspec:" in path.read_text(encoding="utf-8")[:600]]


def partner(chapter: Path) -> Path:
    """Where the notebook of a chapter is."""
    return NOTEBOOKS / chapter.parent.name / f"{chapter.stem}.ipynb"


def notebook(chapter: Path) -> str:
    """The text of a chapter's notebook: no outputs, and the same whenever it is written."""
    made = jupytext.read(chapter, fmt="md:myst")
    names = linked(chapter)
    cells = []
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = relinked(plain(named(cell.source, names) + "\n", chapter), chapter).strip()
        if cell.source.strip() and cell.cell_type != "raw":
            cells.append(cell)
    for place, cell in enumerate(cells):
        cell.id = sha256(f"{place} {cell.source}".encode()).hexdigest()[:8]
    metadata = {"kernelspec": dict(made.metadata.kernelspec), "language_info": {"name": "python"}}
    paired = NotebookNode(nbformat=4, nbformat_minor=5, metadata=NotebookNode(metadata), cells=cells)
    nbformat.validate(paired)
    return nbformat.writes(paired).rstrip() + "\n"


def linked(chapter: Path) -> set[str]:
    """The anchors of a chapter that it and the other chapters of its language link to."""
    found = set()
    for source in chapters(chapter.parent.name):
        leads = LEADS.finditer(source.read_text(encoding="utf-8"))
        found |= {lead["anchor"] for lead in leads if (lead["page"] or source.name) == chapter.name}
    return found


def named(text: str, names: set[str]) -> str:
    """A MyST target above each heading of these names, where it has none: Jupyter's own anchors are spelt otherwise."""

    def heading(match: re.Match[str]) -> str:
        name = github_slugify(match[1])
        return f"({name})=\n{match[0]}" if name in names else match[0]

    return HEADING.sub(heading, text)


def plain(text: str, chapter: Path) -> str:
    """MyST as the Markdown that Jupyter shows."""

    def directive(match: re.Match[str]) -> str:
        options, body = parse(match["body"])
        body = plain(body, chapter)
        name, title = match["name"], match["title"].strip()
        if name == "literalinclude":
            caption = f"*{options['caption']}*\n\n" if "caption" in options else ""
            return caption + quoted(chapter.parent / title, options)
        if name == "dropdown":
            return f"<details>\n<summary>{title}</summary>\n\n{body.strip()}\n\n</details>"
        if name == "math":
            return f"$$\n{body.strip()}\n$$"
        lines = ([f"**{title}**", ""] if title else []) + body.strip().splitlines()
        return "\n".join(f"> {line}".rstrip() for line in lines)

    text = DIRECTIVE.sub(directive, TARGET.sub(r'<a id="\1"></a>\n', text))
    return ROLE.sub(lambda match: f"`{(match[1] or match[2]).strip()}`", text)


def relinked(text: str, chapter: Path) -> str:
    """The text with links that start from the notebook."""
    return LINK.sub(lambda match: f"]({moved(match['page'], chapter)}{match['anchor'] or ''})", text)


def parse(body: str) -> tuple[dict[str, str], str]:
    """(the options of a directive, what comes below them)."""
    lines = body.splitlines()
    given = list(takewhile(OPTION.match, lines))
    options, _ = options_to_items("\n".join(line[1:] for line in given))
    return dict(options), "\n".join(lines[len(given) :]) + "\n"


def quoted(path: Path, options: dict[str, str]) -> str:
    """The lines of a source that a chapter quotes, as Sphinx finds them; an error where there are none."""
    options = {name: value for name, value in options.items() if name not in ("caption", "dedent")}
    text, _ = LiteralIncludeReader(str(path), options, Config({}, {})).read()
    return f"```python\n{dedent(text).rstrip()}\n```"


def moved(page: str, chapter: Path) -> str:
    """A link from the chapter, as one from its notebook: to a notebook, where the page has one."""
    target = (chapter.parent / page).resolve()
    if target.parent == chapter.parent.resolve() and target in chapters(chapter.parent.name):
        target = partner(target)
    return Path(os.path.relpath(target, partner(chapter).parent)).as_posix()


def main() -> None:
    for language in LANGUAGES:
        (NOTEBOOKS / language).mkdir(parents=True, exist_ok=True)
        kept = {partner(chapter) for chapter in chapters(language)}
        for chapter in chapters(language):
            partner(chapter).write_text(notebook(chapter), encoding="utf-8")
        for left in set((NOTEBOOKS / language).glob("*.ipynb")) - kept:
            left.unlink()


if __name__ == "__main__":
    main()
