"""`relprop report`: explain many pictures or texts, as one page to sort, filter and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relprop.cli import completion, options
from relprop.cli.console import Exit, answer, causes, complain, exit_code, figure, reporting, table, terminal
from relprop.errors import RelpropError
from relprop.progress import telling

if TYPE_CHECKING:
    from relprop.view.gallery import Balance, Entry, Gallery

PAGE = Path("report.html")


@reporting
def report(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Pictures, text files (.txt) or folders of them, with the folders inside.",
            show_default=False,
        ),
    ] = None,
    lines: options.Lines = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=completion.models,
            help="A model of the zoo (`relprop models` lists them), a program saved by torch.export (FILE.pt2), or for "
            "texts a folder of Hugging Face's save_pretrained. Without it, by what each input looks like.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="CLASS",
            autocompletion=completion.classes,
            help="The class to explain in all inputs, by name or index. Without it: in each the one of the highest "
            "score.",
        ),
    ] = None,
    rules: options.Presets = None,
    method: options.Methods = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="folder|FILE",
            help="Which classes are right: `folder`, if each file is in a folder named after its class, or a table "
            "(.csv, .tsv) of a file's name or a line's number, and the class.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page, ending in .html.")] = PAGE,
    title: Annotated[str, typer.Option(help="The heading of the page.", show_default=False)] = "",
    language: Annotated[
        str, typer.Option(metavar="en|ko", help="Of the page when it opens; a reader can switch.")
    ] = "en",
    clip: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="The percentile of |relevance| that gets full colour. By default 99.5 for pictures of more than 64 "
            "pixels a side, where few pixels have most of it, else 100.",
        ),
    ] = None,
    first: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N of the inputs.", show_default=False)
    ] = None,
    bits: Annotated[
        int,
        typer.Option(
            metavar="32|16", help="How precisely values are stored: 16 halves a page of photographs, and says so in it."
        ),
    ] = 32,
    find_causes: Annotated[
        bool,
        typer.Option(
            "--causes/--no-causes",
            help="Whether to look where relevance stayed that didn't reach the input; costs as much as explaining "
            "once more.",
        ),
    ] = True,
    bounds: options.Bounds = None,
    labels: options.Labels = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Explain many pictures or texts, and write one page: a gallery to sort, filter, compare and look into.

    The page is one file that needs no network: open it from the disk, mail it, archive it.
    Without JavaScript it shows the same heatmaps and figures, still.
    An input that can't be explained is named in it, and the rest goes on.

    [bold]Examples[/]

    relprop report holiday/ --out holiday.html --open

    relprop report scans/*.png --model mnist-cnn --rules epsilon,epsilon-gamma-box,deep-taylor

    relprop report test/ --model mine.pt2 --labels names.txt --truth folder --mean 0.5 --std 0.5

    relprop report --lines reviews.txt --method lrp,gradient --title "Film reviews"

    relprop report --lines reviews.txt --truth answers.csv --language ko --json > figures.json
    """
    from relprop.cli.network import framing
    from relprop.cli.report_inputs import sources
    from relprop.cli.report_work import Work
    from relprop.cli.ways import Ways
    from relprop.view.gallery import Gallery
    from relprop.view.gallery.words import in_language

    wanted = sources(paths or [], lines, truth)[:first]
    gallery = Gallery(out, title=title, language=language, bits=bits, causes=find_causes)
    work = Work(model, Ways(rules, method), target, clip, framing(size, mean, std), bounds, labels)
    errors: list[RelpropError] = []
    with gallery, telling(len(wanted) > 1, "explaining") as tell:
        for done, source in enumerate(wanted, start=1):
            try:
                gallery.add(work(source))
            except RelpropError as error:
                complain(error, source.name, verbose)
                gallery.fail(in_language(source.heading or source.name, language), error)
                errors.append(error)
            tell(done, len(wanted))
    if as_json:
        answer(told_of(gallery))
    else:
        _print(gallery)
    if open_page:
        typer.launch(gallery.path.resolve().as_uri())
    if errors:
        raise typer.Exit(Exit.SOME_FAILED if len(errors) < len(wanted) else exit_code(errors[0]))


def told_of(gallery: Gallery) -> dict[str, Any]:
    """What is told of a report, for JSON."""
    return {
        "page": str(gallery.path),
        "inputs": [_told_of_entry(entry) for entry in gallery.entries],
        "failures": [{"input": name, "error": why} for name, why in gallery.failures],
        "balances": [_told_of_balance(each) for each in gallery.balances],
    }


def _told_of_entry(entry: Entry) -> dict[str, Any]:
    from relprop.view.gallery.words import in_language

    return {
        "input": in_language(entry.name, "en"),
        "model": entry.model,
        "explained": entry.explained,
        "answer": entry.answer,
        "truth": entry.truth,
        "right": entry.right,
        "explanations": [
            {
                "title": each.title,
                "method": each.method,
                "rules": each.rules,
                "score": each.score,
                "relevance": each.total,
                "difference": each.difference if each.redistributes else None,
                "absorbed": each.absorbed,
            }
            for each in entry.figures
        ],
        "notes": list(entry.notes),
    }


def _told_of_balance(balance: Balance) -> dict[str, Any]:
    return {
        "model": balance.group,
        "title": balance.title,
        "count": balance.count,
        "score": balance.score,
        "relevance": balance.total,
        "difference": balance.difference if balance.redistributes else None,
        "absorbed": balance.absorbed,
    }


def _print(gallery: Gallery) -> None:
    from relprop.view.gallery.words import in_language

    rows = [
        (
            in_language(each.group, "en"),
            each.title,
            str(each.count),
            figure(each.score),
            figure(each.total),
            _lost(each),
        )
        for each in gallery.balances
    ]
    columns = ("model", "method", "inputs", "mean score", "mean sum of relevance", "not passed to the input")
    console = terminal()
    if rows:
        console.print(table(columns, rows, right=columns[2:5]))
    known = [entry.right for entry in gallery.entries if entry.right is not None]
    if known:
        console.print(f"{sum(known)} of {len(known)} answers right", highlight=False)
    if gallery.failures:
        console.print(f"{_counted(gallery.failures)} could not be explained and named in the page", markup=False)
    console.print(f"wrote {gallery.path} ({gallery.path.stat().st_size / 1e6:.1f} MB)", markup=False, soft_wrap=True)


def _lost(balance: Balance) -> str:
    if not balance.redistributes:
        return "this method does not divide the score up"
    return "not examined" if balance.absorbed is None else causes(balance.absorbed, balance.score - balance.total)


def _counted(failures: Sequence[object]) -> str:
    return "1 input" if len(failures) == 1 else f"{len(failures)} inputs"
