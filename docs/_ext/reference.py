"""The reference: docstrings of this project as Sphinx reads them, and tables of presets and commands from the code."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from rich.text import Text
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ARGUMENT = re.compile(r"^(?P<names>\w+(?:, \w+)*): (?P<text>.+)$")
CODE = re.compile(r"(``[^`]+``|:\w+:`[^`]+`|`[^`]+`)")
OPTION = re.compile(r"(?<![\w`-])(--[a-z][\w-]*)")
SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:", "Note:")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon, which reads the sections
    app.add_css_file("reference.css")
    app.add_directive("presets", Presets)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured(lines, arguments(obj))


def arguments(obj: Any) -> set[str]:
    """The names of what a function or class takes."""
    try:
        return set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return set()


def restructured(lines: list[str], known: set[str]) -> list[str]:
    """A docstring in which `name: text`, for an argument, is a field, and signs such as * and | are themselves."""
    made: list[str] = []
    fields = False  # whether the last paragraph was a field; another one right after it is one, too
    for paragraph in paragraphs(lines):
        found = ARGUMENT.match(paragraph[0])
        names = found["names"].split(", ") if found else []
        if found and (fields or set(names) <= known):
            if made and made[-1].strip() and not fields:
                made.append("")
            text = [found["text"], *paragraph[1:]]
            for name in names:
                made += [f":param {name}: {escaped(text[0])}", *map(escaped, text[1:])]
            fields = True
            continue
        if fields and paragraph[0].strip():
            made.append("")
        fields = False
        literal = (
            bool(made) and any(line.rstrip().endswith("::") for line in made[-2:]) and paragraph[0].startswith(" ")
        )
        made += paragraph if literal else [line if line.strip() in SECTIONS else escaped(line) for line in paragraph]
    return made


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """The lines in groups: an argument with what is indented below it, a piece of code, or a single line."""
    place = 0
    while place < len(lines):
        end = place + 1
        if ARGUMENT.match(lines[place]):
            while end < len(lines) and lines[end].startswith(" "):
                end += 1
        elif lines[place].startswith(" ") and place >= 2 and lines[place - 2].rstrip().endswith("::"):
            while end < len(lines) and (lines[end].startswith(" ") or not lines[end].strip()):
                end += 1
        yield lines[place:end]
        place = end


def escaped(text: str) -> str:
    """Code in single backticks as code; elsewhere *, | and _ as they are."""
    parts = CODE.split(text)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f"`{part}`" if part.startswith("`") and not part.startswith("``") else part
        else:
            parts[place] = re.sub(r"_(?!\w)", r"\\_", re.sub(r"([*|`])", r"\\\1", part))
    return "".join(parts)


class Presets(SphinxDirective):
    """A table of the presets, with their rule maps."""

    def run(self) -> list[nodes.Node]:
        return parsed(self, list(presets()))


class Commands(SphinxDirective):
    """Each command of the command line, with its arguments and options."""

    def run(self) -> list[nodes.Node]:
        return parsed(self, list(commands()))


def parsed(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    """The nodes of MyST that a directive made."""
    container = nodes.container(classes=["reference-table"])
    directive.state.nested_parse(StringList(lines, source="reference"), 0, container)
    return [container]


def presets() -> Iterator[str]:
    from relprop.presets import PRESETS

    yield from ("| `rules=` | entries, the first match wins |", "| --- | --- |")
    for preset in PRESETS.values():
        entries = preset.build((-1.0, 1.0) if preset.needs_bounds else None)
        shown = "<br>".join(f"`({selector!r}, {short(rule)})`" for selector, rule in entries)
        bounds = "<br>with `bounds=(low, high)`, here (-1, 1)" if preset.needs_bounds else ""
        yield f'| `"{preset.name}"` | {cell(preset.summary)}{bounds}<br>{shown} |'


def short(rule: Any) -> str:
    """A rule with the parameters that tell it from others of its kind."""
    name = type(rule).__name__
    values = [
        getattr(rule, field.name)
        for field in dataclasses.fields(rule)
        if field.init and field.name != "bias" and (field.name != "eps" or name == "Epsilon")
    ]
    return f"{name}({', '.join(f'{value:g}' for value in values)})"


def commands() -> Iterator[str]:
    import typer.main

    group: Any = typer.main.get_command(importlib.import_module("relprop.cli").app)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield from ("", f"```{{rubric}} relprop {name}", "```", "")
        yield from help_of(command.help or "")
        yield from ("", "| argument | |", "| --- | --- |")
        for each in command.params:
            if not getattr(each, "hidden", False):
                said = cell(plain(getattr(each, "help", None) or ""))
                yield f"| {'<br>'.join(f'`{word}`' for word in words(each))} | {said}{default(each)} |"
        yield ""


def words(parameter: Any) -> list[str]:
    """How an argument or option is written."""
    if parameter.param_type_name == "argument":
        return [(parameter.metavar or parameter.name).upper()]
    return [*parameter.opts, *parameter.secondary_opts]


def default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value == () or value == [] or isinstance(value, bool) or callable(value):
        return ""
    return f" (`{getattr(value, 'value', value)}`)"


def help_of(text: str) -> Iterator[str]:
    """A command's help in Markdown; what it gives to write stands by itself."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(plain(text)).replace("\b\n", "")):
        if re.match(r"(\S+ .*\| )?relprop ", paragraph):
            yield from ("```sh", paragraph, "```", "")
        elif paragraph != "Examples":
            yield from (*map(coded, paragraph.splitlines()), "")


def plain(text: str) -> str:
    """Help without rich's markup."""
    return Text.from_markup(text).plain


def cell(text: str) -> str:
    """A text as the cell of a table."""
    return coded(" ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "\\<"))


def coded(text: str) -> str:
    """A text whose options, such as --out, are code."""
    return OPTION.sub(r"`\1`", text)
