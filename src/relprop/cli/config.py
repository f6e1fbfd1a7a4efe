"""`--config FILE`: the options of a command from a TOML file."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARAMETER = "config"
_NOT_IN_A_FILE = (PARAMETER, "help")


def _load(context: typer.Context, path: Path | None) -> None:
    """Makes what the file says the defaults of the command that runs."""
    if path is None or context.resilient_parsing:
        return
    try:
        context.default_map = defaults(context, path)
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx=context, param_hint="--config") from error


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=_load,
        is_eager=True,
        help="Options from a TOML file, named as here without the dashes: at the top for all commands, in a table "
        "[COMMAND] for one. What the command line says goes first.",
    ),
]


def with_config(command: Callable[..., Any], run: Callable[..., Any]) -> None:
    """Gives `run`, which calls `command`, the parameters of it and `config`, as typer reads them."""
    signature = inspect.signature(command, eval_str=True)
    given = inspect.Parameter(PARAMETER, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config)
    parameters = [*signature.parameters.values(), given]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}


def defaults(context: typer.Context, path: Path) -> dict[str, Any]:
    """The values of the options of the command that runs, by the names of its parameters.

    Raises ValueError for a file that can't be read, a key that no command has, and a value of the wrong kind.
    """
    content = _read(path)
    commands = _commands(context)
    options = {name: _options(command) for name, command in commands.items()}
    everywhere = {key for known in options.values() for key in known}
    own = options[context.info_name or ""]
    found = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            _require(key, options, f"[{key}] in {path}", "command")
            for inner in value:
                _require(inner, options[key], f"{inner!r} in [{key}] of {path}", "option")
        else:
            _require(key, everywhere, f"{key!r} in {path}", "option of any command")
            if key in own:
                found[key] = value
    found |= content.get(context.info_name or "", {})
    return {own[key].name: own[key].taken(value, f"{key!r} in {path}") for key, value in found.items()}


class _Option:
    """An option of a command: the parameter it is for, and the type of its values."""

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self.kind = name, kind

    def taken(self, value: Any, where: str) -> Any:
        """The value, as a list where the option may be given several times. Raises ValueError."""
        kinds = _kinds(self.kind)
        if not any(_fits(value, kind) for kind in kinds):
            raise ValueError(f"{where} is {_shown(value)}, expected {' or '.join(map(_told, kinds))}")
        several = any(get_origin(kind) is list for kind in kinds)
        return [value] if several and not isinstance(value, list) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return found
    except OSError as error:
        raise ValueError(f"the file {path} can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no TOML: it is not UTF-8 ({error.reason} at byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error


def _commands(context: typer.Context) -> Mapping[str, Any]:
    """All commands of the program, by name."""
    alone = {context.info_name or "": context.command}
    commands: Mapping[str, Any] = getattr(context.find_root().command, "commands", alone)
    return commands


def _options(command: Any) -> dict[str, _Option]:
    """The options of a command by their long names, without dashes."""
    kinds = get_type_hints(inspect.unwrap(command.callback))
    found = {}
    for parameter in command.params:
        long = [name[2:] for name in parameter.opts if name.startswith("--")]
        if long and parameter.name in kinds and parameter.name not in _NOT_IN_A_FILE:
            found[long[0]] = _Option(parameter.name, kinds[parameter.name])
    return found


def _require(key: str, known: Iterable[str], where: str, what: str) -> None:
    names = sorted(known)
    if key in names:
        return
    close = difflib.get_close_matches(key.replace("_", "-").lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
    raise ValueError(f"{where} is no {what}{hint}")


def _kinds(kind: Any) -> list[Any]:
    """The types that a value may have, None left out."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [member for member in members if member is not NoneType]


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of TOML is of this type; an option that may be given several times takes one, too."""
    inner = get_args(kind)
    if get_origin(kind) is list:
        return all(_fits(each, inner[0]) for each in (value if isinstance(value, list) else [value]))
    if get_origin(kind) is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(_fits, value, inner))
    if kind in (bool, int, float):
        number = isinstance(value, (int, float) if kind is float else kind)
        return number and isinstance(value, bool) == (kind is bool)
    return isinstance(value, str)


_TOLD = {bool: "true or false", int: "a whole number", float: "a number"}


def _told(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is list:
        return f"{_told(inner[0])}, or a list of such"
    if get_origin(kind) is tuple:
        return f"a list of {len(inner)}, each {_told(inner[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(repr(each.value) for each in kind)
    return _TOLD.get(kind, 'text in quotes, as "..."')


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
