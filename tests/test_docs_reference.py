"""The reference page names everything public, in both languages, and its tables come from the code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import relprop
from relprop.cli import app
from relprop.presets import PRESETS

DOCS = Path(__file__).parents[1] / "docs"
MODULES = ["errors", "evaluate", "methods", "models", "rules", "targets", "text", "view", "zoo"]
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:data):: (?P<name>[\w.]+)$", re.M)


def shown(language: str) -> list[str]:
    return DIRECTIVE.findall((DOCS / language / "reference.md").read_text(encoding="utf-8"))


def public(module: ModuleType) -> set[str]:
    """The public names of a module: what it lists, else the classes that it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return set(listed)
    return {
        name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
    }


def home(name: str) -> Any:
    """The object that a dotted name on the page stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The extension that makes the tables; it needs what the docs need."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("reference", DOCS / "_ext" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_on_the_page_exists() -> None:
    names = shown("en")
    assert len(names) == len(set(names)) > 100
    for name in names:
        home(name)


def test_everything_at_the_top_is_on_the_page() -> None:
    described = {id(home(name)) for name in shown("en")}
    for name in set(relprop.__all__) - set(MODULES):
        assert id(getattr(relprop, name)) in described, name


@pytest.mark.parametrize("name", [*MODULES, "app"])
def test_everything_in_a_public_module_is_on_the_page(name: str) -> None:
    module = importlib.import_module(f"relprop.{name}")
    described = {id(home(each)) for each in shown("en")}
    missing = [each for each in public(module) if id(getattr(module, each)) not in described]
    assert public(module) and not missing, missing


def test_all_public_modules_are_looked_at() -> None:
    assert {name for name in relprop.__all__ if inspect.ismodule(getattr(relprop, name))} <= {*MODULES, "app"}


def test_both_languages_show_the_same() -> None:
    assert shown("ko") == shown("en")


def test_the_table_of_presets_has_all_of_them(reference: ModuleType) -> None:
    table = "\n".join(reference.presets())
    for preset in PRESETS.values():
        assert f'| `"{preset.name}"` |' in table
        assert preset.summary.replace("*", "\\*") in table
    assert "`('linear', Gamma(0.05))`" in table


def test_commands_are_listed_with_all_their_options(reference: ModuleType) -> None:
    import typer.main

    lines = list(reference.commands())
    group: Any = typer.main.get_command(app)
    assert set(group.commands) >= {"image", "text", "check", "serve", "report"}
    for name, command in group.commands.items():
        start = lines.index(f"```{{rubric}} relprop {name}")
        end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("```{rubric}")), len(lines))
        section = "\n".join(lines[start:end])
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert all(f"`{word}`" in section for word in reference.words(parameter)), parameter.name


def test_arguments_become_fields_and_signs_stay_signs(reference: ModuleType) -> None:
    def f(x: Any, low: float, high: float) -> None:
        """Widens |x| by `low` and *args_.

        x: the input, w*x,
            and more.
        low, high: the range.

        Raises InvalidInput: never; other: words.
        """

    made = reference.restructured(inspect.getdoc(f).splitlines(), reference.arguments(f))  # type: ignore[union-attr]
    assert made == [
        "Widens \\|x\\| by ``low`` and \\*args\\_.",
        "",
        ":param x: the input, w\\*x,",
        "    and more.",
        ":param low: the range.",
        ":param high: the range.",
        "",
        "Raises InvalidInput: never; other: words.",
    ]
