"""--config: options from a TOML file, for every command, with what is wrong in it said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from relprop import zoo
from relprop.cli import app
from relprop.cli.console import Exit


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = zoo.digits()[0][30, 0]
    Image.fromarray(((image + 1) * 127.5).round().byte().numpy()).save("three.png")


def run(*arguments: str, config: str | None = None) -> Result:
    if config is not None:
        Path("options.toml").write_text(config, encoding="utf-8")
        arguments = (*arguments, "--config", "options.toml")
    return CliRunner().invoke(app, list(arguments))


def explanations(*arguments: str, config: str | None = None) -> list[dict[str, Any]]:
    result = run("image", "three.png", *arguments, config=config)
    assert result.exit_code == Exit.OK, result.output
    (image,) = json.loads(result.stdout)["images"]
    found: list[dict[str, Any]] = image["explanations"]
    return found


def names_of_commands() -> list[str]:
    return [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


ALL = """
rules = ["epsilon", "gamma"]
[image]
out = "maps/"
target = ["3", "5"]
bounds = [-1, 1]
overlay = 1
json = true
"""


def test_the_file_is_as_good_as_the_line() -> None:
    line = ("--rules", "epsilon", "--rules", "gamma", "--target", "3", "--target", "5")
    told = explanations(config=ALL)
    assert told == explanations(*line, "--bounds", "-1", "1", "--overlay", "1", "--json", "--out", "maps/")
    assert [(each["class"], each["rules"]) for each in told] == [
        ("3", "epsilon"),
        ("3", "gamma"),
        ("5", "epsilon"),
        ("5", "gamma"),
    ]
    assert {Path(each["written"]).parent for each in told} == {Path("maps")}


def test_the_line_goes_first() -> None:
    told = explanations("--target", "8", "--rules", "epsilon-plus", config=ALL)
    assert [(each["class"], each["rules"]) for each in told] == [("8", "epsilon-plus")]


def test_a_table_goes_before_what_stands_at_the_top() -> None:
    told = explanations(config='rules = "gamma"\njson = true\n[image]\nrules = "epsilon"\n')
    assert [each["rules"] for each in told] == ["epsilon"]


def test_what_other_commands_have_is_left_to_them() -> None:
    config = 'method = "gradient"\nmodel = "mnist-mlp"\njson = true\n[text]\nlabels = "x.txt"\n'
    result = run("check", config=config)
    assert result.exit_code == Exit.OK and json.loads(result.stdout)["model"] == "mnist-mlp"


def test_options_that_must_be_given_can_be_given_there() -> None:
    result = run("export", config='[export]\nmodel = "nix.pt2"\nout = "a.pt2"\n')
    assert result.exit_code == Exit.ERROR and "nix.pt2" in result.stderr


@pytest.mark.parametrize("command", names_of_commands())
def test_every_command_has_it_and_says_so(command: str) -> None:
    assert "--config" in run(command, "--help").stdout
    result = run(command, config="verbsoe = true")
    assert result.exit_code == Exit.USAGE
    assert "'verbsoe' in options.toml is no option of any command; did you mean 'verbose'?" in result.stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[image]\noverlai = 0.5", "'overlai' in [image] of options.toml is no option; did you mean 'overlay'?"),
        ("[imag]\nout = 'a'", "[imag] in options.toml is no command; did you mean 'image'?"),
        ("[check]\nany_number = true", "'any_number' in [check] of options.toml is no option; there are bounds, "),
        ("[export]\nany_number = true", "is no option; did you mean 'any-number'?"),
        ("[image]\nconfig = 'other.toml'", "'config' in [image] of options.toml is no option"),
        ("overlay = '0.5'", "'overlay' in options.toml is '0.5', expected a number"),
        ("overlay = true", "'overlay' in options.toml is true, expected a number"),
        ("json = 1", "'json' in options.toml is 1, expected true or false"),
        ("size = 2.5", "'size' in options.toml is 2.5, expected a whole number"),
        ("target = 3", "'target' in options.toml is 3, expected text in quotes"),
        ("target = ['3', 5]", 'expected text in quotes, as "...", or a list of such'),
        ("out = ['a', 'b']", "expected text in quotes"),
        ("bounds = [0]", "expected a list of 2, each a number"),
        ("size = 0", "greater than or equal to 1|range"),
        ("size =", "options.toml is no TOML"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(config: str, said: str) -> None:
    result = run("image", "three.png", config=config)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == Exit.USAGE and result.stdout == ""
    assert any(each in line for each in said.split("|")), line
    assert "--config" in line and line.startswith("relprop: invalid value for ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read (No such file"),
        (b"\xff\xfe", "is no TOML: it is not UTF-8"),
        (b"x = " + b"[" * 5000, "is no TOML: maximum recursion"),
    ],
)
def test_a_file_that_cannot_be_read(content: bytes | None, said: str) -> None:
    if content is not None:
        Path("it.toml").write_bytes(content)
    result = run("models", "--config", "it.toml")
    assert result.exit_code == Exit.USAGE and said in result.stderr
