"""How commands end, what a terminal sees of them, and what a shell completes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from relprop import methods, presets, rules, zoo
from relprop.cli import app, completion, image
from relprop.cli.console import EPILOG, Exit
from relprop.view.colours import colour_map

COMMAND = (sys.executable, "-c", "import sys; sys.argv[0] = 'relprop'; from relprop.cli import main; main()")
ESCAPE = "\x1b["


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    digit = zoo.digits()[0][30, 0]
    Image.fromarray(((digit + 1) * 127.5).round().byte().numpy()).save("three.png")


def on_a_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code, and all that the terminal was sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    variables = {**os.environ, "TERM": "xterm-256color", **environment}
    with subprocess.Popen([*COMMAND, *arguments], env=variables, **streams) as process:  # type: ignore[call-overload]
        os.close(slave)
        sent = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # as Linux tells the end
                break
            if not part:
                break
            sent += part
    os.close(master)
    return process.returncode, sent.decode()


def without_colour(sent: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", sent)


class TestExitCodes:
    def test_each_is_told_in_the_help(self) -> None:
        assert all(re.search(rf"\b{int(code)} ", EPILOG) for code in Exit)

    @pytest.mark.parametrize("flags", [(), ("--json",), ("--verbose",)])
    def test_a_bug_is_one_line_that_says_so(self, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("seven\nlines")

        monkeypatch.setattr(image, "_each", broken)
        result = CliRunner().invoke(app, ["image", "three.png", *flags])
        *trace, line = result.stderr.splitlines()
        assert result.exit_code == Exit.BUG and result.stdout == ""
        assert "this is a bug of relprop, please report it (ZeroDivisionError: seven lines)" in line
        assert ("Traceback (most recent call last):" in trace) is ("--verbose" in flags) is bool(trace)

    def test_too_little_memory_is_no_bug(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hungry(*_: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

        monkeypatch.setattr(image, "_each", hungry)
        result = CliRunner().invoke(app, ["image", "three.png"])
        assert result.exit_code == Exit.ERROR and "not enough memory" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("image",), "relprop: missing argument 'PATH' (see relprop image --help)"),
            (("paint",), "relprop: no such command 'paint' (see relprop --help)"),
            (("image", "three.png", "--colour", "red"), "no such option: --colour"),
            (("check", "--size", "0"), "'--size'"),
            (("image", "three.png", "--out", "map.jpg"), "--out: 'map.jpg' names no kind of file"),
        ],
    )
    def test_wrong_usage_is_one_line(self, arguments: tuple[str, ...], said: str) -> None:
        result = CliRunner().invoke(app, arguments, prog_name="relprop")
        (line,) = result.stderr.splitlines()
        assert result.exit_code == Exit.USAGE and said in line and result.stdout == ""

    def test_with_json_an_error_is_the_same_line_and_stdout_stays_empty(self) -> None:
        arguments = ["check", "--model", "nix", "--json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == Exit.ERROR and result.stdout == ""
        assert result.stderr == CliRunner().invoke(app, arguments[:-1]).stderr

    def test_who_leaves_early_ends_it_quietly(self) -> None:
        for arguments in (["models"], ["rules", "--json"], ["check"]):
            with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                assert process.stdout is not None and process.stderr is not None
                process.stdout.close()
                said = process.stderr.read()
                process.wait()
            assert said == b"" and process.returncode == Exit.NO_READER

    def test_an_interrupt_is_one_line_and_leaves_no_half_of_a_file(self, tmp_path: Path) -> None:
        pictures = ["three.png"] * 400
        arguments = [*COMMAND, "image", *pictures, "--model", "mnist-cnn", "--out", "maps/"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob("maps/*.png"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            said, told = process.communicate()
        assert (process.returncode, said, told) == (Exit.INTERRUPTED, "", "relprop: interrupted\n")
        made = list((tmp_path / "maps").iterdir())
        assert 3 <= len(made) < 400 and {path.suffix for path in made} == {".png"}
        for path in made:
            Image.open(path).load()

    def test_names_that_would_steer_a_terminal_are_not_repeated(self) -> None:
        result = CliRunner().invoke(app, ["image", "\x1b[2J\n.png"])
        assert result.exit_code == Exit.ERROR and "\x1b" not in result.stderr and len(result.stderr.splitlines()) == 1


class TestTerminal:
    TEXT = ("text", "Not bad at all!", "--model", "reviews-en")

    def test_words_and_errors_are_painted(self) -> None:
        assert "38;5" in on_a_terminal(*self.TEXT)[1]
        code, sent = on_a_terminal("image", "nix.png")
        assert code == Exit.ERROR and sent.endswith("\x1b[0m\r\n") and f"{ESCAPE}31mrelprop: nix.png: there is" in sent

    @pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_without_colour_there_are_signs(self, environment: dict[str, str]) -> None:
        sent = on_a_terminal(*self.TEXT, **environment)[1]
        assert "Not[+] bad[+++] at all[+]![-]" in sent
        assert not re.search(r"\x1b\[[0-9;]*(3|4|9|10)[0-9][;m]", sent)  # any colour of letters or ground
        assert f"{ESCAPE}31m" not in on_a_terminal("image", "nix.png", **environment)[1]

    def test_a_dumb_terminal_gets_letters_only(self) -> None:
        assert "\x1b" not in on_a_terminal("image", "three.png", "three.png", TERM="dumb")[1]

    def test_colour_can_be_asked_for_in_a_pipe(self) -> None:
        made = [
            subprocess.run(
                [*COMMAND, *self.TEXT], env={**os.environ, **more}, capture_output=True, text=True, check=True
            )
            for more in ({}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"})
        ]
        assert ["\x1b[4;" in each.stdout for each in made] == [False, True, False]
        assert [each.stdout.count("[+++]") > 0 for each in made] == [True, False, True]

    def test_a_bar_shows_while_several_are_explained_and_goes(self) -> None:
        code, sent = on_a_terminal("image", "three.png", "three.png", "nix.png", "--model", "mnist-mlp")
        shown = without_colour(sent)
        assert code == Exit.SOME_FAILED
        assert re.search(r"explaining pictures  ━+─+  1 of 3\r", shown)
        bar, rest = shown.split("3 of 3\r")
        assert "relprop: nix.png: there is no such file" in bar and rest.startswith("\x1b[Kthree.png (mnist-mlp)")

    def test_there_is_no_bar_for_one_nor_in_a_pipe(self) -> None:
        assert "explaining" not in on_a_terminal("image", "three.png")[1]
        variables = {**os.environ, "FORCE_COLOR": "1"}
        arguments = [*COMMAND, "image", "three.png", "three.png", "--model", "mnist-mlp"]
        made = subprocess.run(arguments, env=variables, capture_output=True, text=True, check=True)
        assert made.stderr == ""


def completed(line: str) -> list[str]:
    """What bash is offered at the end of the line."""
    words = line.split(" ")
    variables = {"_RELPROP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = subprocess.run(COMMAND, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return result.stdout.split("\n")[:-1]


class TestCompletion:
    def test_the_names_are_all_there(self) -> None:
        assert {*completion.PICTURE_MODELS, *completion.TEXT_MODELS} == set(zoo.names())
        assert all(isinstance(zoo.entry(name), zoo.PictureEntry) for name in completion.PICTURE_MODELS)
        assert completion.PRESETS[0] == presets.AUTO and set(completion.PRESETS[1:]) == set(presets.PRESETS)
        told = [getattr(rules, name) for name in rules.__all__]
        kinds = {each.__name__ for each in told if isinstance(each, type) and issubclass(each, rules.Rule)}
        assert set(completion.RULES) == kinds - {"Rule", "ProductRule"}
        assert set(completion.METHODS) == {"lrp", *methods.METHODS}
        assert all(colour_map(name).name == name for name in completion.COLOUR_MAPS)

    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("relprop ex", ["export"]),
            ("relprop image --model mnist-c", ["mnist-cnn"]),
            ("relprop image --rules epsilon-a", ["epsilon-alpha2-beta1", "epsilon-alpha2-beta1-flat"]),
            ("relprop text --method lrp,gradient_", ["lrp,gradient_x_input"]),
            ("relprop text --model reviews-en --target p", ["positive"]),
            ("relprop image --model mnist-vit --target ", list("0123456789")),
            ("relprop image --labels names.txt --target b", ["blue", "brown"]),
            ("relprop image --model mod", ["models/"]),
            ("relprop image --model models/", ["models/mine.pt2"]),
            ("relprop rules ZB", ["ZBox"]),
        ],
    )
    def test_values_are_offered(self, line: str, offered: list[str], tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("blue\nred\nbrown\n")
        (tmp_path / "models").mkdir()
        for name in ("mine.pt2", "notes.md"):
            (tmp_path / "models" / name).touch()
        assert completed(line) == offered

    def test_the_labels_of_the_zoo_are_its_own(self) -> None:
        for name in (*completion.PICTURE_MODELS[:3], *completion.TEXT_MODELS):
            assert completion._labels({"model": name}) == zoo.entry(name).labels

    def test_it_does_not_wait_for_torch(self) -> None:
        code = (
            "import os, sys\n"
            "from relprop.cli import app\n"
            "try: app(prog_name='relprop')\n"
            "except SystemExit: pass\n"
            "print('torch' in sys.modules, 'numpy' in sys.modules, file=sys.stderr)"
        )
        variables = {"_RELPROP_COMPLETE": "complete_bash", "COMP_WORDS": "relprop image --rules ", "COMP_CWORD": "3"}
        made = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        assert "epsilon-plus-flat" in made.stdout and made.stderr == "False False\n"

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_a_script_for_each_shell(self, shell: str) -> None:
        result = subprocess.run(
            COMMAND,
            env={**os.environ, "_RELPROP_COMPLETE": f"source_{shell}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "_RELPROP_COMPLETE" in result.stdout and "relprop" in result.stdout


def test_measurements_are_json_too() -> None:
    from relprop.evaluate.__main__ import app as measurements

    arguments = ["pixels", "--model", "mnist-mlp", "--region", "14", "--steps", "1", "--explanations", "epsilon"]
    result = CliRunner().invoke(measurements, [*arguments, "--json", "--out", "figures.json"])
    told = json.loads(result.stdout)
    assert result.exit_code == Exit.OK and result.stderr == ""
    assert told.pop("written") == ["figures.json"] and told == json.loads(Path("figures.json").read_text())
    wrong = CliRunner().invoke(measurements, ["pixels", "--region", "no"], prog_name="python -m relprop.evaluate")
    assert wrong.exit_code == Exit.USAGE and "(see python -m relprop.evaluate pixels --help)" in wrong.stderr
