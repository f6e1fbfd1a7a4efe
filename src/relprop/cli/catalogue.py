"""`relprop models` and `relprop rules`: what there is, and each in detail."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from relprop.cli import completion, options
from relprop.cli.console import answer, reporting, table, terminal
from relprop.errors import InvalidInput


def _name(names: Callable[[str], list[str]]) -> Any:
    return typer.Argument(metavar="[NAME]", help="Show this one in detail.", show_default=False, autocompletion=names)


Model = Annotated[str | None, _name(completion.models)]
Rule = Annotated[str | None, _name(completion.rules)]


@reporting
def models(name: Model = None, as_json: options.Json = False, verbose: options.Verbose = False) -> None:
    """The trained models that ship with relprop, or the card of one of them.

    [bold]Examples[/]

    relprop models

    relprop models mnist-cnn
    """
    from relprop import zoo

    if name is None:
        listed = [_model(each) for each in zoo.names()]
        if as_json:
            answer({"models": listed})
        else:
            terminal().print(
                table(("model", "what it reads", "input", "test error", "available"), [*map(_row, listed)])
            )
    elif as_json:
        answer({"models": [{**_model(name), "card": zoo.card(name)}]})
    else:
        _show_markdown(zoo.card(name))


@reporting
def rules(name: Rule = None, as_json: options.Json = False, verbose: options.Verbose = False) -> None:
    """The presets (which rule where) and the rules with their formulas, or one of them in detail.

    [bold]Examples[/]

    relprop rules

    relprop rules epsilon-gamma-box

    relprop rules ZBox
    """
    from relprop.rulebook import presets_told, rules_told

    presets, single = presets_told(), rules_told()
    if name is not None:
        presets, single = _chosen(name, presets, single)
    if as_json:
        answer({"presets": presets, "rules": single})
    elif name is None:
        console = terminal()
        console.print(table(("preset", "which rule where"), [(p["name"], p["summary"]) for p in presets]))
        console.print(table(("rule", "formula"), [(r["signature"], r["formula"]) for r in single]))
        console.print(
            "z_ij = x_i w_ij; z_j = sum_i z_ij + b_j; s(z) = 1 for z >= 0, else -1; w+ and w-: the positive "
            "and the negative part. In Python: relprop.explain(model, x, rules=...)",
            markup=False,
        )
    else:
        for preset in presets:
            print(_told_of_preset(preset))
        for rule in single:
            print(f"{rule['signature']}\n\n{rule['description']}\n\nIn Python: relprop.rules.{rule['signature']}")


def _model(name: str) -> dict[str, Any]:
    """What is told of a model, for JSON."""
    from relprop import zoo
    from relprop.zoo import storage

    entry = zoo.entry(name)
    measured = storage.shipped(name).with_suffix(".json")
    figures = json.loads(measured.read_text(encoding="utf-8")) if measured.is_file() else {}
    return {
        "name": name,
        "summary": entry.summary,
        "input_shape": list(entry.input_shape) if isinstance(entry, zoo.PictureEntry) else None,
        "language": entry.language if isinstance(entry, zoo.TextEntry) else None,
        "test_error_percent": figures.get("test_error_percent"),
        "test_images": figures.get("test_images"),
        "test_reviews": figures.get("test_reviews"),
        "available": entry.available,
        "install": None if entry.extra is None else f'pip install "relprop[{entry.extra}]"',
    }


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    error, measured = model["test_error_percent"], model["test_images"] or model["test_reviews"]
    shape, language = model["input_shape"], model["language"]
    return (
        model["name"],
        model["summary"],
        f"text ({language})" if shape is None else " x ".join(map(str, shape)),
        "not measured here" if error is None else f"{error:.2f} % of {measured:,}",
        "yes" if model["available"] else f"no: {model['install']}",
    )


def _chosen(
    name: str, presets: list[dict[str, Any]], single: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The preset and the rule of this name, in any case. Raises InvalidInput where there is neither."""
    found = [[each for each in group if each["name"].lower() == name.lower()] for group in (presets, single)]
    if not any(found):
        names = [each["name"] for each in (*presets, *single)]
        close = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1)
        hint = f" Did you mean {next(each for each in names if each.lower() == close[0])!r}?" if close else ""
        raise InvalidInput(f"there is no preset or rule {name!r}.{hint} There are: {', '.join(names)}")
    return found[0], found[1]


def _told_of_preset(preset: dict[str, Any]) -> str:
    lines = [preset["name"], "", preset["summary"]]
    if preset["entries"]:
        lines += ["", "The first that matches an operation is its rule:"]
        width = max(len(selector) for selector, _ in preset["entries"])
        lines += [f"  {selector.ljust(width)}  {rule}" for selector, rule in preset["entries"]]
    needed = ", bounds=(low, high)" if preset["needs_bounds"] else ""
    lines += ["", f"In Python: relprop.explain(model, x, rules={preset['name']!r}{needed})", ""]
    return "\n".join(lines)


def _show_markdown(text: str) -> None:
    """Rendered on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.markdown import Markdown

    terminal().print(Markdown(text))
