"""The command line: `relprop image`, `text`, `report`, `check`, `export`, `serve`, `demo`, `models`, `rules`.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from relprop import __version__
from relprop.cli import catalogue, check, demo, export, image, report, serve, text
from relprop.cli.console import EPILOG
from relprop.cli.group import Group

app = typer.Typer(
    name="relprop",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EPILOG)(image.image)
app.command(epilog=EPILOG)(text.text)
app.command(epilog=EPILOG)(report.report)
app.command(epilog=EPILOG)(check.check)
app.command(epilog=EPILOG)(export.export)
app.command(epilog=EPILOG)(serve.serve)
app.command(epilog=EPILOG)(demo.demo)
app.command(epilog=EPILOG)(catalogue.models)
app.command(epilog=EPILOG)(catalogue.rules)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"relprop {__version__}")
        raise typer.Exit


@app.callback()
def _relprop(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Explain what a neural network decided: its score, redistributed onto its input.

    That is Layer-wise Relevance Propagation (LRP): red speaks for the decision, blue against it.

    Try [bold]relprop demo[/], then [bold]relprop image[/] with a picture of your own, or [bold]relprop text[/] with a
    sentence.
    """


def main() -> None:
    """Runs the command line. Letters that the output can't hold are written as their numbers."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
