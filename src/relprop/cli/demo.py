"""`relprop demo`: digits, photographs and reviews explained, as tables and pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relprop.cli import options
from relprop.cli.console import answer, causes, figure, note, reporting, table, terminal

if TYPE_CHECKING:
    from relprop.view.gallery import Item

PAGE = "index.html"
REVIEWS = "reviews.html"


@reporting
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the page goes.")] = Path("demo"),
    photos: Annotated[
        bool, typer.Option("--photos/--no-photos", help="The photographs too, or the digits only.")
    ] = True,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Explain ten handwritten digits, a misread one, two photographs and ten film reviews; write pages of heatmaps.

    One page shows each picture under several presets side by side; the table has the first of them. The other shows
    the English and Korean reviews, their words painted by LRP and by the gradient.

    [bold]Examples[/]

    relprop demo --open

    relprop demo --no-photos --out heatmaps/
    """
    from relprop import demo as shown
    from relprop.cli.text import told_of
    from relprop.view.gallery import Gallery

    folder = _made(out)
    page, reviews_page = folder / PAGE, folder / REVIEWS
    cases: list[Item] = []
    read: list[Item] = []
    with Gallery(page, title=shown.TITLE, introduction=shown.INTRODUCTION) as gallery:
        for group in _groups(photos):
            cases += [item for item in group if gallery.add(item)]
            if not as_json:
                _print(group)
    with Gallery(reviews_page, title=shown.REVIEWS_TITLE, introduction=shown.REVIEWS_INTRODUCTION) as gallery:
        for item in _reviews():
            gallery.add(item)
            read.append(item)
    if as_json:
        told = {
            "cases": [_told(item) for item in cases],
            "reviews": [[told_of(each) for each in item.explanations.values()] for item in read],  # type: ignore[arg-type]
        }
        answer({"page": str(page), "reviews_page": str(reviews_page), **told})
    else:
        for item in read:
            typer.echo(f"{item.first}\n")
        typer.echo(f"Heatmaps under all presets: {page}\nReviews by LRP and gradient: {reviews_page}")
    if open_page:
        typer.launch(page.resolve().as_uri())


def _groups(photos: bool) -> Iterator[list[Item]]:
    """The pictures, one model after the other. Photographs are left out with a note where packages are missing."""
    from relprop import demo
    from relprop.errors import MissingExtra

    if photos:
        try:
            yield list(demo.photographs())
        except MissingExtra as error:
            note(f"digits only: {error}")
    yield list(demo.digits("mnist-cnn"))
    yield list(demo.digits("mnist-vit"))
    yield [*demo.digits("mnist-mlp"), *demo.mistake()]


def _reviews() -> Iterator[Item]:
    """The reviews in both languages; Korean ones are left out with a note where their package is missing."""
    from relprop import demo
    from relprop.errors import MissingExtra

    for name in demo.REVIEWS:
        try:
            yield from demo.reviews(name)
        except MissingExtra as error:
            note(f"no reviews by {name}: {error}")


def _made(folder: Path) -> Path:
    from relprop.errors import InvalidFile

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidFile(f"the folder {folder} can't be made ({error.strerror}); give another --out") from error
    return folder


def _told(item: Item) -> dict[str, object]:
    from relprop.cli.image import figures_of
    from relprop.view.gallery.words import in_language

    return {
        "picture": in_language(item.name, "en"),
        "model": item.model,
        "claim": in_language(item.claim, "en"),
        "explanations": [figures_of(each) for each in item.explanations.values()],  # type: ignore[arg-type]
    }


def _print(items: list[Item]) -> None:
    from relprop.view.gallery.words import in_language

    rows = []
    for item in items:
        score, balance = float(item.first.score[0]), item.first.conservation
        lost = causes(balance.absorbed, balance.difference)
        name, claim = in_language(item.name, "en"), in_language(item.claim, "en")
        rows.append((name, claim, figure(score), figure(balance.relevance), lost))
    columns = ("picture", "explained", "score", "sum of relevance", "not passed to the input")
    title = f"{items[0].model}, preset {items[0].first.rules}"
    terminal().print(table(columns, rows, title, ("score", "sum of relevance")))
