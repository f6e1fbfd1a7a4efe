"""`relprop demo`: digits, photographs and reviews explained, as tables and pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relprop.cli import options
from relprop.cli.console import answer, causes, figure, note, reporting, table, terminal

if TYPE_CHECKING:
    from relprop.demo import Case
    from relprop.text import TextAttribution

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
    from relprop.cli.text import told_of
    from relprop.demo import write_page
    from relprop.text import save

    cases = []
    for group in _groups(photos):
        cases += group
        if not as_json:
            _print(group)
    page, reviews_page = _made(out) / PAGE, out / REVIEWS
    write_page(cases, page)
    read = list(_reviews())
    save([each for review in read for each in review], reviews_page)
    if as_json:
        told = {"cases": [_told(case) for case in cases], "reviews": [[told_of(e) for e in each] for each in read]}
        answer({"page": str(page), "reviews_page": str(reviews_page), **told})
    else:
        for first, *_ in read:
            typer.echo(f"{first}\n")
        typer.echo(f"Heatmaps under all presets: {page}\nReviews by LRP and gradient: {reviews_page}")
    if open_page:
        typer.launch(page.resolve().as_uri())


def _groups(photos: bool) -> Iterator[list[Case]]:
    """The cases, one model after the other. Photographs are left out with a note where their packages are missing."""
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


def _reviews() -> Iterator[tuple[TextAttribution, ...]]:
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


def _told(case: Case) -> dict[str, object]:
    from relprop.cli.image import figures_of

    return {
        "picture": case.heading,
        "model": case.model,
        "claim": case.claim,
        "explanations": [figures_of(each) for each in case.compared.values()],
    }


def _print(cases: list[Case]) -> None:
    rows = []
    for case in cases:
        first = case.first
        balance = first.conservation
        score, relevance = figure(float(first.score[0])), figure(balance.relevance)
        rows.append((case.heading, case.claim, score, relevance, causes(balance.absorbed, balance.difference)))
    columns = ("picture", "explained", "score", "sum of relevance", "not passed to the input")
    title = f"{cases[0].model}, preset {cases[0].first.rules}"
    terminal().print(table(columns, rows, title, ("score", "sum of relevance")))
