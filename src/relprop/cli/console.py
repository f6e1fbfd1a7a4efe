"""What every command says and how it ends: tables, notes, JSON, errors as one line, exit codes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from relprop.cli.config import PARAMETER, with_config
from relprop.errors import MissingExtra, RelpropError
from relprop.progress import ERASE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

P = ParamSpec("P")
T = TypeVar("T")

UsageErrors: Any = typer.BadParameter.__mro__[2]  # the base of all that typer raises for wrong usage

WIDTH_OF_A_FILE = 160  # columns of a table that goes to a file or a pipe, unless COLUMNS says otherwise


class Exit(IntEnum):
    """What a command's exit code means; `EPILOG` tells users."""

    OK = 0
    ERROR = 1
    USAGE = 2
    SOME_FAILED = 3
    MISSING_EXTRA = 4
    BUG = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells tell it
    NO_READER = 141  # 128 + SIGPIPE


EPILOG = (
    "Exit codes: 0 fine; 1 an input, a model or an option's value can't be used (one line on stderr says why and what "
    "to do); 2 wrong usage; 3 some of several inputs failed; 4 a package is missing (the line says what to install); "
    "70 a bug of relprop (--verbose shows where); 130 interrupted; 141 nobody reads the output any more."
)


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """`command` with the option --config, and ending with one line on stderr and an exit code for every error.

    With --verbose, the line comes after the error's trace.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        kwargs.pop(PARAMETER, None)  # its callback has done the work
        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort, UsageErrors):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(_told(error, verbose=bool(kwargs.get("verbose")))) from None

    with_config(command, run)
    return run


def _told(error: BaseException, verbose: bool) -> Exit:
    """Says what ended a command; its exit code."""
    if isinstance(error, BrokenPipeError):
        return _without_reader()
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        return Exit.INTERRUPTED
    if isinstance(error, RelpropError):
        complain(error, verbose=verbose)
        return exit_code(error)
    if verbose:
        _show_trace(error)
    if isinstance(error, OSError):
        say(f"a file or the output can't be read or written ({error.strerror or error})")
        return Exit.ERROR
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # numpy's and torch's
        say(f"there is not enough memory ({error})")
        return Exit.ERROR
    shown = "" if verbose else "; --verbose shows where it arose"
    say(f"this is a bug of relprop, please report it ({type(error).__name__}: {error}){shown}")
    return Exit.BUG


def _without_reader() -> Exit:
    """Whoever read the output has left, as `head` does: nothing more is written, nor tried to be at the end."""
    with contextlib.suppress(OSError, ValueError):  # no file behind it, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.NO_READER


def exit_code(error: RelpropError) -> Exit:
    return Exit.MISSING_EXTRA if isinstance(error, MissingExtra) else Exit.ERROR


def complain(error: RelpropError, about: str = "", verbose: bool = False) -> None:
    """One line on stderr; `verbose`: after the trace of the error."""
    if verbose:
        _show_trace(error)
    say(f"{about}: {error}" if about else str(error))


def say(message: str) -> None:
    """What went wrong, as one line on stderr, without what would steer a terminal."""
    _to_stderr(f"relprop: {_plain(message)}", "red")


def note(text: str) -> None:
    """Something worth knowing, on stderr, so that stdout holds results only."""
    _to_stderr(_plain(text), "dim")


def note_chosen(model: str) -> None:
    """Says which model was taken where none was asked for."""
    note(f"model: {model}, as none was given (--model chooses another)")


def _plain(text: str) -> str:
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in " ".join(text.split()))


def _show_trace(error: BaseException) -> None:
    _to_stderr("".join(traceback.format_exception(error)).rstrip(), "")


def _to_stderr(text: str, style: str) -> None:
    """In colour where stderr shows it: NO_COLOR, FORCE_COLOR and TERM=dumb are respected."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if sys.stderr.isatty() and not console.is_dumb_terminal:  # there may be a bar
        sys.stderr.write(ERASE)
    console.print(Text(text, style=style), soft_wrap=True)


def answer(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """`value` as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def terminal() -> Console:
    """The console on stdout; colours go with NO_COLOR, or where it is no terminal."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OF_A_FILE
    made = Console(width=wide, highlight=False)
    made.on_broken_pipe = _raise_broken_pipe  # type: ignore[method-assign]
    return made


def _raise_broken_pipe() -> None:
    """Instead of rich's own end of the program, so that all output ends the same way."""
    raise BrokenPipeError


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
