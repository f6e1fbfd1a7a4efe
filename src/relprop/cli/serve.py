"""`relprop serve`: the application in the browser, on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import relprop.app
from relprop.cli import options
from relprop.cli.console import reporting


@reporting
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model of yours, beside those of the zoo: FILE.pt2, a program saved by torch.export that looks at "
            "pictures, or a folder with a model and a tokenizer of Hugging Face (save_pretrained).",
        ),
    ] = None,
    labels: options.Labels = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    bounds: options.Bounds = None,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Where to listen; 0 takes a free one.")
    ] = relprop.app.PORT,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The address to listen at. With any other than the default everyone who reaches this machine can use "
            "the models.",
        ),
    ] = relprop.app.LOOPBACK,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of one computation; torch's own choice by default.")
    ] = None,
    verbose: options.Verbose = False,
) -> None:
    """Draw a digit, drop a picture, write a review, and watch what speaks for and against the model's decision.

    The page opens in the browser and talks to this machine alone. Nothing is kept when Ctrl-C ends it.

    [bold]Examples[/]

    relprop serve

    relprop serve --model mine.pt2 --labels names.txt --mean 0.5 --std 0.5

    relprop serve --model my-bert/ --port 8000 --no-browser

    From another machine: ssh -L 7860:localhost:7860 NAME, then open http://localhost:7860
    """
    own = {} if model is None else _own(model, labels, size, mean, std, bounds)
    if model is None:
        _refuse_without_model(labels, size, mean, std, bounds)
    relprop.app.serve(**own, host=host, port=port, open_browser=browser, threads=threads, verbose=verbose)


def _own(
    model: str,
    labels: str | None,
    size: int | None,
    mean: str | None,
    std: str | None,
    bounds: tuple[float, float] | None,
) -> dict[str, Any]:
    """What `relprop.app.serve` is told of the model."""
    from relprop import zoo
    from relprop.cli.network import framing, network
    from relprop.cli.text_network import is_folder, text_network

    if model in zoo.names():
        raise typer.BadParameter(f"the zoo's {model} is served anyway; leave it away", param_hint="--model")
    frame = framing(size, mean, std)
    if not is_folder(model):
        net = network(model, frame, bounds, labels)
        return {
            "model": net.model,
            "name": net.name,
            "labels": net.labels,
            "preprocess": net.preprocess,
            "bounds": net.bounds,
        }
    if frame.given or bounds is not None:
        raise typer.BadParameter(
            "they are for .pt2 files, and a folder's model reads text", param_hint="--size, --mean"
        )
    reads = text_network(model, labels)
    return {
        "model": reads.model,
        "name": Path(model).resolve().name,
        "labels": reads.labels,
        "tokenizer": reads.tokenizer,
    }


def _refuse_without_model(*given: object) -> None:
    if any(each is not None for each in given):
        raise typer.BadParameter(
            "--labels, --size, --mean, --std and --bounds are of a model of yours; name it", param_hint="--model"
        )
