"""The book: both languages have the same pages and the same code, notebooks are in step, broken links are found."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import check_links  # noqa: E402
import pair  # noqa: E402

CHAPTERS = [chapter for language in pair.LANGUAGES for chapter in pair.chapters(language)]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md"))]

CODE = re.compile(r"^(?P<fence>`{3,}).*\n(?:.*\n)*?(?P=fence)$|`[^`\n]+`", re.M)
LINK = re.compile(r"""(?:\]\(|\b(?:src|href)=")(?P<path>[^)#"\s:]*)(?:#(?P<anchor>[^)"\s]+))?[)"]""")


class WithoutWords(ast.NodeTransformer):
    """A cell's code but for what it says: strings may differ between the languages, f-strings in order and padding."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("...") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        shown = [part for part in node.values if isinstance(part, ast.FormattedValue)]
        values = [ast.FormattedValue(self.visit(part.value), part.conversion, None) for part in shown]
        return ast.JoinedStr(sorted(values, key=ast.dump))  # type: ignore[arg-type]


def code(chapter: Path) -> list[str]:
    """The code of each cell, without words and comments; Jupyter's own commands (%config ...) as they are."""
    cells = jupytext.read(chapter, fmt="md:myst").cells
    return [stripped(cell.source) for cell in cells if cell.cell_type == "code"]


def stripped(source: str) -> str:
    lines = source.splitlines()
    commands = [line for line in lines if line.startswith("%")]
    python = "\n".join(line for line in lines if line not in commands)
    return "\n".join([*commands, ast.unparse(WithoutWords().visit(ast.parse(python)))])


def test_both_languages_have_the_same_pages() -> None:
    english, korean = ({path.name for path in (DOCS / language).glob("*.md")} for language in pair.LANGUAGES)
    assert english == korean
    assert {"index.md", "scratch.md", "digits.md", "reviews.md", "reference.md"} <= english


# Each edition of the reviews goes deeper into the reviews of its own language.
TRANSLATED = [chapter for chapter in pair.chapters("en") if chapter.stem != "reviews"]


@pytest.mark.parametrize("chapter", TRANSLATED, ids=lambda path: path.stem)
def test_both_languages_run_the_same_code(chapter: Path) -> None:
    translated = DOCS / "ko" / chapter.name
    assert code(chapter)
    assert code(translated) == code(chapter)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_notebook_is_in_step_with_its_chapter(chapter: Path) -> None:
    text = pair.partner(chapter).read_text(encoding="utf-8")
    assert text == pair.notebook(chapter), "run: python docs/pair.py"
    cells = nbformat.reads(text, as_version=4).cells
    assert all(not cell.outputs for cell in cells if cell.cell_type == "code")
    # A closing fold or fence that was not understood would be left over.
    assert not [cell.source for cell in cells if cell.cell_type == "markdown" and ":::" in cell.source]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_links_to_a_heading_of_a_notebook_lead_to_an_anchor(chapter: Path) -> None:
    start = pair.partner(chapter)
    for link in LINK.finditer(written(start)):
        end = (start.parent / link["path"]).resolve() if link["path"] else start
        if link["anchor"] and end.suffix == ".ipynb":
            assert written(end).count(f'<a id="{link["anchor"]}"></a>') == 1, link[0]


def written(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_images_lead_to_a_file(page: Path) -> None:
    paths = [link["path"] for link in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8")))]
    ends = [(page.parent / path).resolve() for path in paths if path]
    assert not [end for end in ends if not end.exists() or not end.is_relative_to(ROOT)]


def test_a_link_to_no_file_is_seen() -> None:
    text = "[a](gone.md#x) ![b](c.png) [d](https://e.org/f) `[g](h.md)` [i](#j)\n```python\n[k](l.md)\n```\n"
    assert [link["path"] for link in LINK.finditer(CODE.sub("", text))] == ["gone.md", "c.png", ""]


def test_no_notebook_is_left_without_its_chapter() -> None:
    assert set(pair.NOTEBOOKS.glob("*/*.ipynb")) == {pair.partner(chapter) for chapter in CHAPTERS}


def test_broken_links_and_foreign_resources_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a><a href="b.html#nowhere">x</a><a href="c.html">x</a>'
        '<a href="https://example.org/p">x</a><img src="gone.png"><script src="https://example.org/x.js"></script>'
        '<link rel="stylesheet" href="//example.org/y.css">'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">There</h1><a href="#here">x</a><a href=".//a.html">x</a>')
    (tmp_path / "z.css").write_text('@font-face { src: url("https://example.org/f.woff2"); }')
    found, outside = check_links.problems(tmp_path)
    assert len(found) == 8, found
    for part in ("#nowhere", "c.html", "gone.png", "x.js", "y.css", "#here", ".//a", "z.css"):
        assert sum(part in each for each in found) == 1
    assert outside == {"https://example.org/p", "https://example.org/x.js"}


def test_a_sound_page_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="top"><a href="#top">x</a><img src="data:image/png;base64,AA=="></p>')
    assert check_links.problems(tmp_path) == ([], set())
