"""What every command says and how it ends: tables, notes, JSON, errors as one line, exit codes."""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from relprop.errors import MissingExtra, RelpropError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

P = ParamSpec("P")
T = TypeVar("T")

WIDTH_OF_A_FILE = 160  # columns of a table that goes to a file or a pipe, unless COLUMNS says otherwise


class Exit(IntEnum):
    """What a command's exit code means; `EPILOG` tells users."""

    OK = 0
    ERROR = 1
    USAGE = 2
    SOME_FAILED = 3
    MISSING_EXTRA = 4


EPILOG = (
    "Exit codes: 0 fine; 1 an input, a model or an option's value can't be used (one line on stderr says why and what "
    "to do); 2 wrong usage; 3 some of several inputs failed; 4 a package is missing (the line says what to install)."
)


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """`command`, ending with one line on stderr and an exit code for every RelpropError; with --verbose, its trace."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except RelpropError as error:
            complain(error, verbose=bool(kwargs.get("verbose")))
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:  # whoever read the output has left
            raise
        except OSError as error:
            complain(
                RelpropError(f"the output can't be written ({error.strerror})"), verbose=bool(kwargs.get("verbose"))
            )
            raise typer.Exit(Exit.ERROR) from None

    return run


def exit_code(error: RelpropError) -> Exit:
    return Exit.MISSING_EXTRA if isinstance(error, MissingExtra) else Exit.ERROR


def complain(error: RelpropError, about: str = "", verbose: bool = False) -> None:
    """One line on stderr; `verbose`: after the trace of the error."""
    message = " ".join(str(error).split())
    if verbose:
        typer.echo("".join(traceback.format_exception(error)), err=True)
    typer.secho(f"relprop: {about}{': ' if about else ''}{message}", fg=typer.colors.RED, err=True)


def note(text: str) -> None:
    """Something worth knowing, on stderr, so that stdout holds results only."""
    typer.secho(text, dim=True, err=True)


def answer(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """`value` as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def terminal() -> Console:
    """The console on stdout; colours go with NO_COLOR, or where it is no terminal."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OF_A_FILE
    return Console(width=wide, highlight=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", right: Sequence[str] = ()) -> Table:
    """Plain texts as a table (a `[` in a file name is no markup); the columns in `right` hold figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def figure(value: float) -> str:
    """A signed figure with four digits."""
    return f"{value:+.4g}"


def causes(absorbed: Mapping[str, float], difference: float) -> str:
    """Where relevance went that did not reach the input, the largest cause first; below a thousandth of it none."""
    ordered = sorted(absorbed.items(), key=lambda item: -abs(item[1]))
    named = [f"{cause} {figure(amount)}" for cause, amount in ordered if abs(amount) > 1e-3 * abs(ordered[0][1])]
    return ", ".join(named) or ("nothing" if difference == 0 else figure(difference))


def progress(count: int) -> Progress:
    """A progress bar on stderr, for several inputs and where somebody looks."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(
        console=console, transient=True, redirect_stdout=False, disable=count < 2 or not console.is_terminal
    )
