"""`relprop image`: explain what a model sees in picture files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relprop.cli import completion, options
from relprop.cli.console import (
    Exit,
    answer,
    causes,
    complain,
    exit_code,
    figure,
    reporting,
    table,
    terminal,
)
from relprop.errors import InvalidInput, RelpropError
from relprop.progress import telling

if TYPE_CHECKING:
    from relprop.attribution import Attribution
    from relprop.cli.destination import Destination
    from relprop.cli.network import Networks
    from relprop.cli.ways import Ways

TOP = 3


@reporting
def image(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Picture files: PNG, JPEG, WebP, ...")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", autocompletion=completion.picture_models, help=options.MODEL_HELP
        ),
    ] = None,
    target: options.Targets = None,
    rules: options.Presets = None,
    bounds: options.Bounds = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER|FILE",
            help="Where to write. The ending of a FILE says what: .png, .svg, .html; .npz, .safetensors for figures.",
        ),
    ] = ".",
    cmap: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completion.colour_maps,
            help="Colours: RdBu_r (the default), bwr, seismic, coldnhot; gray or hot where nothing is negative.",
        ),
    ] = None,
    overlay: Annotated[
        float | None,
        typer.Option(metavar="ALPHA", help="Lay the heatmap over the picture, with this opacity in (0, 1]."),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(metavar="P", help="The percentile of |relevance| that gets full colour, as 99.5.")
    ] = None,
    segments: options.Segments = None,
    labels: options.Labels = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Explain what a model sees in pictures: a heatmap of each, and where the relevance went.

    Red speaks for the class, blue against it. Writes PICTURE.PRESET.png into the current folder, or to --out.

    [bold]Examples[/]

    relprop image cat.jpg

    relprop image cat.jpg --target tabby --target "Egyptian cat"

    relprop image cat.jpg --rules epsilon --rules epsilon-gamma-box --out maps/

    relprop image cat.jpg --out cat.html --overlay 0.7 --clip 99.5

    relprop image scans/*.png --model mnist-cnn --json > result.json

    relprop image scan.png --model mine.pt2 --segments auto --config lab.toml

    relprop image x.jpg --model mine.pt2 --labels names.txt --mean 0.5 --std 0.5
    """
    from relprop.cli.destination import Destination
    from relprop.cli.network import Networks, framing
    from relprop.cli.ways import Ways
    from relprop.view.style import Style

    ways = Ways(rules)
    targets: list[str | None] = list(dict.fromkeys(target)) if target else [None]
    given = {"cmap": cmap, "overlay": overlay, "clip": clip}
    style: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    Style(**style)
    alone = len(paths) == len(targets) == len(ways) == 1
    destination = Destination(out, paths, alone)
    networks = Networks(model, framing(size, mean, std), bounds, labels, options.segments_of(segments))
    work = _Work(networks, targets, ways, destination, style)
    found, errors = _each(paths, work, verbose)
    if as_json:
        answer({"images": found})
    else:
        for told in found:
            if "error" not in told:
                _print(told)
    if errors:
        raise typer.Exit(Exit.SOME_FAILED if len(errors) < len(paths) else exit_code(errors[0]))


@dataclass
class _Work:
    """What is done with each picture."""

    networks: Networks
    targets: Sequence[str | None]
    ways: Ways
    destination: Destination
    style: dict[str, Any]

    def __call__(self, path: Path) -> dict[str, Any]:
        """Explains one picture and writes its heatmaps; what is told of it."""
        from relprop.cli.pictures import open_picture

        picture = open_picture(path)
        net, explainer = self.networks.of(picture)
        x = net.preprocess(picture)
        told: list[dict[str, Any]] = []
        top: list[dict[str, Any]] = []
        for target in self.targets:
            wanted = options.target_of(target, net.labels)
            for attribution in self.ways.explain(explainer, x, wanted, net.rules, net.bounds).values():
                _require_labels(attribution)
                top = top or _top(attribution)
                told.append(self._written(path, attribution))
        return {"file": str(path), "model": net.name, "top": top, "explanations": told}

    def _written(self, path: Path, attribution: Attribution) -> dict[str, Any]:
        told = figures_of(attribution)
        label = attribution.label(0) if len(self.targets) > 1 else ""
        file = self.destination.place(path, label, attribution.rules.removeprefix("auto: "))
        attribution.save(file, 0, **self.style)
        return {**told, "written": str(file)}


def figures_of(attribution: Attribution) -> dict[str, Any]:
    """What is told of one explained sample, for JSON."""
    conservation = attribution.conservation
    return {
        "class": attribution.label(0),
        "index": None if attribution.target is None else int(attribution.target[0]),
        "rules": attribution.rules,
        "score": float(attribution.score[0]),
        "relevance": conservation.relevance,
        "difference": conservation.difference,
        "absorbed": conservation.absorbed,
        "notes": list(attribution.notes),
    }


def _each(
    paths: Sequence[Path], work: Callable[[Path], dict[str, Any]], verbose: bool
) -> tuple[list[dict[str, Any]], list[RelpropError]]:
    """What is told of each picture, in order, and the errors among it."""
    found: list[dict[str, Any]] = []
    errors: list[RelpropError] = []
    with telling(len(paths) > 1, "explaining pictures") as tell:
        for done, path in enumerate(paths, start=1):
            try:
                told = work(path)
            except RelpropError as error:
                complain(error, str(path), verbose)
                errors.append(error)
                told = {"file": str(path), "error": {"type": type(error).__name__, "message": str(error)}}
            found.append(told)
            tell(done, len(paths))
    return found, errors


def _print(told: dict[str, Any]) -> None:
    rows = [
        (
            each["class"],
            figure(each["score"]),
            each["rules"],
            figure(each["relevance"]),
            causes(each["absorbed"], each["difference"]),
        )
        for each in told["explanations"]
    ]
    columns = ("class", "score", "rules", "sum of relevance", "not passed to the input")
    console = terminal()
    console.print(table(columns, rows, f"{told['file']} ({told['model']})", ("score", "sum of relevance")))
    if told["top"]:
        best = ", ".join(f"{each['class']} {figure(each['score'])}" for each in told["top"])
        console.print(f"highest scores: {best}", markup=False)
    for each in told["explanations"]:
        console.print(f"wrote {each['written']}", markup=False, soft_wrap=True)
    for text in dict.fromkeys(text for each in told["explanations"] for text in each["notes"]):
        console.print(f"note: {text}", markup=False)


def _require_labels(attribution: Attribution) -> None:
    scores = _scores(attribution)
    if attribution.labels is not None and scores and len(attribution.labels) != len(scores):
        raise InvalidInput(
            f"there are {len(attribution.labels)} class names for {len(scores)} scores; give one for each with --labels"
        )


def _scores(attribution: Attribution) -> list[float]:
    """What the model returned for the one sample, if that is one figure per class."""
    from relprop.targets import class_scores

    scores = class_scores(attribution.output)
    return [] if scores is None else scores.double().tolist()


def _top(attribution: Attribution) -> list[dict[str, Any]]:
    scores = _scores(attribution)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:TOP]
    labels = attribution.labels
    return [{"class": labels[i] if labels else str(i), "index": i, "score": scores[i]} for i in order]
