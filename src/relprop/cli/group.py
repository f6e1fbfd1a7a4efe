"""The program as a whole: wrong usage and what ends it early are one line and an exit code, too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from relprop.cli.console import Exit, UsageErrors, say


class Group(TyperGroup):
    """Commands, whose wrong usage is told as their other errors are."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command that the arguments name, and ends the program unless `standalone_mode` is False."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except UsageErrors as error:
            if not standalone_mode:
                raise
            _end(error)
        except typer.Abort:
            if not standalone_mode:
                raise
            say("interrupted")
            code = Exit.INTERRUPTED
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else Exit.OK)


def _end(error: Any) -> NoReturn:
    """One line on stderr and the exit code of wrong usage."""
    if type(error).__name__ != "NoArgsIsHelpError":  # then the help was shown already
        context = getattr(error, "ctx", None)
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:] + _from_a_file(error, context)
        say(message if context is None else f"{message} (see {context.command_path} --help)")
    sys.exit(error.exit_code)


def _from_a_file(error: Any, context: Any) -> str:
    """Where a value that isn't valid is from, if it isn't from the command line."""
    name = getattr(getattr(error, "param", None), "name", None)
    source = None if context is None or name is None else context.get_parameter_source(name)
    return " (from the file of --config)" if source is not None and source.name == "DEFAULT_MAP" else ""
