"""Which architectures are explained? `python -m relprop.models.families --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from relprop.cli.console import reporting

app = typer.Typer(
    name="python -m relprop.models.families",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@reporting
def families(
    only: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME]", help="Some of them, by model_type, such as bert,gpt2.")
    ] = None,
    oracle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare values, too: tests/oracle/modified_gradient.py of a checkout."),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put the table in its place in docs/en/architectures.md.")
    ] = None,
) -> None:
    """Explain a small random network of each architecture, and print a table of what was found."""
    from relprop.models.families import chosen, table
    from relprop.models.families.measure import load_oracle, measured

    families = chosen(only.split(",") if only else None)
    compared = None if oracle is None else load_oracle(oracle)
    if write is not None:
        table.require_place(write, only)
    with typer.progressbar(families, label="explaining", file=sys.stderr) as bar:
        findings = [measured(family, compared) for family in bar]
    typer.echo(table.markdown(findings))
    if write is not None:
        table.write(write, findings)


if __name__ == "__main__":
    app()
