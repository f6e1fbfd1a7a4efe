"""`relprop check`: which operations a model consists of, which rule each gets, where relevance is lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relprop.cli import completion, options
from relprop.cli.console import Exit, answer, causes, figure, note_chosen, reporting, table, terminal

if TYPE_CHECKING:
    from torch import Tensor

    from relprop.cli.network import Network
    from relprop.conservation import OperationFlow
    from relprop.models.stages import Segments
    from relprop.presets import Rules
    from relprop.report import Report

DIGIT = 30  # the first 3 of the zoo's digits


@reporting
def check(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="A picture. The zoo's models bring one.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=completion.picture_models,
            help="A zoo name, or FILE.pt2; by default as `relprop image`.",
        ),
    ] = None,
    rules: options.Preset = None,
    bounds: options.Bounds = None,
    shape: Annotated[
        str | None, typer.Option(metavar="N,C,H,W", help="A random input of this shape in place of a picture.")
    ] = None,
    segments: options.Segments = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Whether a model can be explained: its operations, the rule of each, and where relevance is lost.

    The exit code is 1 if an operation is not supported.

    [bold]Examples[/]

    relprop check

    relprop check --model efficientnet-lite0 --rules epsilon-gamma-box

    relprop check --model mine.pt2 --shape 1,3,224,224
    """
    from relprop.cli.network import framing, network
    from relprop.rulebook import rules_of

    if path is not None and shape is not None:
        raise typer.BadParameter("give a picture or --shape, not both", param_hint="--shape")
    sides = _sides(shape)
    net = network(model or _fitting(path), framing(size, mean, std), bounds)
    x, what = _input(net, path, sides)
    report = _checked(net, x, rules_of(rules or net.rules, net.bounds), options.segments_of(segments))
    if as_json:
        answer(_told(report, net.name, what))
    else:
        _print(report, net.name, what)
    if not report.ok:
        raise typer.Exit(Exit.ERROR)


def _fitting(path: Path | None) -> str:
    """The model that `relprop image` would take for this picture."""
    from relprop.cli.pictures import fitting_model, open_picture

    if path is None:
        return "mnist-cnn"
    name = fitting_model(open_picture(path))
    note_chosen(name)
    return name


def _input(net: Network, path: Path | None, shape: tuple[int, ...] | None) -> tuple[Tensor, str]:
    """An input for the model, and what it is."""
    from relprop import zoo
    from relprop.cli.pictures import open_picture

    if shape is not None:
        return _noise(net, shape), f"uniform noise of shape {shape}, seed 0"
    if path is not None:
        return net.preprocess(open_picture(path)), str(path)
    if net.name not in zoo.names():
        raise typer.BadParameter(
            f"{net.name} needs an input: give a picture, or --shape 1,3,224,224", param_hint="PATH"
        )
    if zoo.picture_entry(net.name).input_shape == (1, 28, 28):
        return zoo.digits()[0][DIGIT : DIGIT + 1], "a handwritten 3"
    return net.preprocess(zoo.photos()["cat"]), "the photograph of a cat"


def _noise(net: Network, shape: tuple[int, ...]) -> Tensor:
    """Random numbers that are in bounds in every channel."""
    import torch

    low, high = (torch.as_tensor(bound) for bound in net.bounds or (0.0, 1.0))
    return low.max() + (high.min() - low.max()) * torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _checked(net: Network, x: Tensor, rules: Rules, segments: Segments | None) -> Report:
    """The report. Raises InvalidInput where the model can't take an input of this shape."""
    import relprop
    from relprop.errors import InvalidInput

    try:
        return relprop.Explainer(net.model, rules, bounds=net.bounds, segments=segments).check(x)
    except (RuntimeError, AssertionError) as error:  # as torch, and the guards of a program, raise it
        raise InvalidInput(f"{net.name} can't take an input of shape {tuple(x.shape)}: {error}") from error


def _sides(shape: str | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        sides = tuple(int(side) for side in shape.split(","))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 1 or math.prod(sides) > 2**30:
        raise typer.BadParameter(f"got {shape!r}, expected whole numbers such as 1,3,224,224", param_hint="--shape")
    return sides


def _told(report: Report, model: str, what: str) -> dict[str, Any]:
    told: dict[str, Any] = {"model": model, "input": what, "ok": report.ok, "notes": list(report.notes)}
    operations = [
        {
            "index": op.index,
            "function": op.function,
            "module": op.module,
            "kind": op.kind,
            "rule": op.rule,
            **({"received": op.received, "passed": op.passed, "absorbed": dict(op.absorbed)} if report.ok else {}),
        }
        for op in report.operations
    ]
    if not report.ok:
        return {**told, "unsupported": list(report.unsupported), "operations": operations}
    balance = report.conservation
    return {
        **told,
        "rules": report.rules,
        "score": report.score,
        "relevance": report.relevance,
        "difference": balance.difference,
        "absorbed": balance.absorbed,
        "operations": operations,
    }


def _row(op: OperationFlow) -> tuple[str, ...]:
    operation = op.function.replace("torch.nn.functional.", "F.").replace("torch.ops.aten.", "aten.")
    absorbed = {cause: amount for cause, amount in op.absorbed.items() if abs(amount) > 1e-6 * abs(op.received)}
    lost = causes(absorbed, 0.0) if absorbed else ""
    return (
        str(op.index),
        op.module or "-",
        operation,
        op.kind,
        op.rule or "-",
        figure(op.received),
        figure(op.passed),
        lost,
    )


def _print(report: Report, model: str, what: str) -> None:
    columns = ("#", "module", "operation", "kind", "rule", "in", "out", "lost to")
    rows = [_row(op) if report.ok else (*_row(op)[:5], "", "", "") for op in report.operations]
    console = terminal()
    console.print(table(columns, rows, f"{model}, {what}", ("#", "in", "out")))
    if report.ok:
        balance = report.conservation
        lost = causes(balance.absorbed, balance.difference)
        console.print(f"rules: {report.rules}", markup=False)
        console.print(
            f"score {figure(report.score)} = relevance {figure(report.relevance)} + not passed to the input "
            f"{figure(balance.difference)} ({lost})",
            markup=False,
        )
    else:
        console.print(f"not supported ({len(report.unsupported)}):", markup=False)
        for each in report.unsupported:
            console.print(f"- {each}", markup=False)
    for text in report.notes:
        console.print(f"note: {text}", markup=False)
