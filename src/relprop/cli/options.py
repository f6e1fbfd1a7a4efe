"""Options that several commands have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from relprop.cli import completion

MODEL_HELP = (
    "A model of the zoo (`relprop models` lists them), or a program saved by torch.export: NAME or FILE.pt2. Without "
    "it: mnist-cnn for a grey picture of 28 x 28 pixels, else efficientnet-lite0."
)

Bounds = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        help="The range of valid inputs after preprocessing, for box rules. Known for the zoo; for a .pt2 file it "
        "follows from --mean and --std.",
    ),
]
Labels = Annotated[
    str | None, typer.Option(metavar="FILE", help="The class names, one a line, in place of the model's own.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--rules",
        "-r",
        metavar="PRESET|RULE",
        autocompletion=completion.presets,
        help="A preset, or a rule for all layers as 'Gamma(0.25)' (`relprop rules` lists both).",
    ),
]
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--rules",
        "-r",
        metavar="PRESET|RULE",
        autocompletion=completion.presets,
        help="A preset, or a rule for all layers as 'Gamma(0.25)' (`relprop rules` lists both); several times, or with "
        "commas, to compare.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="METHOD[,METHOD]",
        autocompletion=completion.methods,
        help="lrp (the default), gradient, gradient_x_input, ...; several to compare.",
    ),
]
Lines = Annotated[
    str | None, typer.Option("--lines", metavar="FILE", help="A file with one text a line; - for standard input.")
]
Segments = Annotated[
    str | None,
    typer.Option(
        metavar="auto|NAME[,NAME]",
        help="For pictures that need too much memory: compute values again in the backward pass instead of keeping "
        "them, of these modules (names or patterns such as layer1.*) or of those that auto chooses. The result is the "
        "same.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="For .pt2: the side of the square input, if the program leaves it open; 224 by default.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="M[,M,M]", help="For .pt2: subtracted from the pixels, which are in 0..1, per channel; 0 by default."
    ),
]
Std = Annotated[
    str | None, typer.Option(metavar="S[,S,S]", help="For .pt2: what they are then divided by; 1 by default.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, and nothing else there.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show where in the program an error arose.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="CLASS",
        autocompletion=completion.classes,
        help="The class to explain, by name or index; several times for several. Without it: the one of the highest "
        "score.",
    ),
]


_COMMA = re.compile(r",(?![^()]*\))")  # between names; those of a rule's parameters are in brackets


def target_of(text: str | None, labels: Sequence[str] | None) -> int | str | None:
    """A class's name where there is one of that name, else its index."""
    if text is None or text in (labels or ()):
        return text
    try:
        return int(text)
    except ValueError:
        return text


def listed(given: Sequence[str] | None) -> list[str]:
    """What an option was given, several times or with commas, each once."""
    parts = [part.strip() for each in given or [] for part in re.split(_COMMA, each)]
    return list(dict.fromkeys(part for part in parts if part))


def segments_of(text: str | None) -> str | list[str] | None:
    """What --segments was given, as Explainer takes it."""
    return text if text is None or text == "auto" else listed([text])
