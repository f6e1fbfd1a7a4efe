"""`relprop export`: an explanation as one program, which runs without relprop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relprop.cli import completion, options
from relprop.cli.console import answer, reporting, terminal
from relprop.progress import telling

if TYPE_CHECKING:
    from torch import Tensor

    from relprop.cli.network import Network
    from relprop.explainer import Explainer

_SIDE = 64  # of the picture of noise that is the example: its values decide nothing


@reporting
def export(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=completion.picture_models,
            help="A model of the zoo (`relprop models` lists them), or a program saved by torch.export: NAME or "
            "FILE.pt2.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="What to write: .pt2 for a program of torch.export, .onnx for ONNX."
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="CLASS",
            autocompletion=completion.classes,
            help="The class to explain, by name or index. Without it: the one of the highest score, which the program "
            "returns too.",
        ),
    ] = None,
    rules: options.Preset = None,
    bounds: options.Bounds = None,
    labels: options.Labels = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    any_number: Annotated[
        bool | None,
        typer.Option(
            "--any-number/--one-picture",
            help="Whether the program takes any number of pictures at once; by default where the model does.",
        ),
    ] = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Write the explanation of a model's pictures as one program: input in, score and relevance out.

    It runs with torch alone, or as .onnx in any runtime of ONNX, on pictures that were cut and scaled as for the model.
    --mean and --std say how that is done, which gives the range of valid inputs.

    [bold]Examples[/]

    relprop export --model mnist-cnn --out digits.pt2

    relprop export --model mine.pt2 --rules epsilon-plus-flat --size 224 --out explain.pt2

    relprop export --model mine.pt2 --target 3 --one-picture --out explain.onnx
    """
    import relprop
    from relprop.cli.network import framing, network
    from relprop.rulebook import rules_of

    if out.resolve() == Path(model).resolve():
        raise typer.BadParameter(f"{out} is the model itself, which is not overwritten", param_hint="--out")
    net = network(model, framing(size, mean, std), bounds, labels)
    chosen = rules_of(rules or net.rules, net.bounds)
    explainer = relprop.Explainer(net.model, chosen, bounds=net.bounds, labels=net.labels)
    example = _example(net)
    possible = _takes_several(net)
    if any_number and not possible:
        raise typer.BadParameter(
            f"{net.name} takes one picture at a time, and so does its explanation; export the model with "
            "dynamic_shapes={0: torch.export.Dim('batch')}",
            param_hint="--any-number",
        )
    several = possible if any_number is None else any_number
    used = _written(explainer, net, out, example, target, several)
    sides = ["batch" if several else len(example), *example.shape[1:]]
    results = ["score", "relevance"] if target is not None else ["score", "relevance", "target"]
    how = _use(out, results)
    told = {"model": net.name, "rules": used, "written": str(out), "input": sides, "results": results, "use": how}
    if as_json:
        answer(told)
        return
    console = terminal()
    console.print(f"wrote {out}: {net.name}, explained by {used}", markup=False, soft_wrap=True)
    console.print(f"takes x ({', '.join(map(str, sides))}), {_preprocessing(net)}", markup=False, soft_wrap=True)
    console.print(f"use: {how}", markup=False, soft_wrap=True)


def _example(net: Network) -> Tensor:
    """A picture of noise as the model's input."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    return net.preprocess(Image.fromarray(pixels))


def _takes_several(net: Network) -> bool:
    """Whether the model takes any number of pictures: all but programs that were exported for one."""
    import torch

    if not isinstance(net.model, torch.fx.GraphModule):
        return True
    given = [node.meta["val"] for node in net.model.graph.nodes if node.op == "placeholder" and "val" in node.meta]
    return not any(isinstance(value.shape[0], int) for value in given)


def _written(explainer: Explainer, net: Network, out: Path, example: Tensor, target: str | None, several: bool) -> str:
    """Writes the program; the rules that were used. Raises InvalidInput where the model can't take such an input."""
    from relprop.errors import InvalidInput

    wanted = options.target_of(target, net.labels)
    with telling(True, "recording the explanation") as tell:
        tell(0, 2)
        try:
            used: Any = explainer(example, wanted).rules
        except (RuntimeError, AssertionError) as error:  # as torch, and the guards of a program, raise it
            raise InvalidInput(f"{net.name} can't take an input of shape {tuple(example.shape)}: {error}") from error
        tell(1, 2)
        explainer.export(out, example, wanted, dynamic_batch=several)
    return str(used)


def _preprocessing(net: Network) -> str:
    from relprop import zoo

    if net.name in zoo.names():
        return f"as relprop.zoo.picture_entry({net.name!r}).preprocess makes it of a picture"
    return "pixels in 0..1, less --mean, divided by --std"


def _use(out: Path, results: list[str]) -> str:
    """The line of Python that runs the file."""
    names = ", ".join(results)
    if out.suffix.lower() == ".onnx":
        return f'{names} = onnxruntime.InferenceSession("{out}").run(None, {{"x": x}})'
    return f'{names} = torch.export.load("{out}").module()(x)'
