"""A model of one's own in the app: from Python and from the command line."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor, nn
from typer.testing import CliRunner

import relprop
import relprop.app
from relprop import zoo
from relprop.app import serving, web
from relprop.cli import app as command_line
from relprop.cli.console import Exit
from relprop.errors import InvalidInput, TrainingMode
from relprop.text import Encoding, TextExplainer

INK = np.random.default_rng(0).integers(0, 256, 784, dtype=np.uint8).tobytes()


def colour_network(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()


def photo(size: tuple[int, int] = (50, 40)) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def client_of(model: Any, **options: Any) -> TestClient:
    app = relprop.app.create(model, zoo=False, **options)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def model_told(client: TestClient) -> dict[str, Any]:
    (told,) = client.get("/api/about").json()["models"]
    return dict(told)


def asked(client: TestClient, what: dict[str, Any], name: str = "your model", **more: Any) -> dict[str, Any]:
    answer = client.post("/api/explain", json={"model": name, "input": what, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def uploaded(client: TestClient, picture: Image.Image) -> dict[str, str]:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    kept = client.post("/api/pictures", content=buffer.getvalue(), headers={"content-type": "image/png"}).json()
    return {"picture": kept["picture"]}


def heat(told: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(told["values"]), "<f4").reshape(told["height"], told["width"])


def require_same(found: dict[str, Any], attribution: relprop.Attribution) -> None:
    assert isinstance(attribution.relevance, Tensor)
    relevance = attribution.relevance[0].double()
    shown = relevance.sum(0) if relevance.dim() == 3 else relevance.reshape(-1, relevance.shape[-1])
    np.testing.assert_array_equal(heat(found["sheets"][0]["heat"]), shown.numpy().astype("<f4"))
    assert found["sheets"][0]["score"] == float(attribution.score[0])


# Pictures


def test_pictures_go_through_the_preprocessing_that_is_given() -> None:
    model = colour_network()

    def preprocess(picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(picture.convert("RGB").resize((16, 12)), dtype=np.float32))
        return (pixels.permute(2, 0, 1)[None] / 255 - 0.5) / 0.25

    client = client_of(model, preprocess=preprocess, labels=["a", "b", "c"], bounds=(-2.0, 2.0))
    told = model_told(client)
    assert (told["name"], told["kind"], told["labels"]) == ("your model", "picture", ["a", "b", "c"])
    assert "epsilon-gamma-box" in told["presets"]
    found = asked(client, uploaded(client, photo()), target="c", questions=[{"rules": "epsilon-gamma-box"}])
    x = preprocess(photo())
    require_same(found, relprop.explain(model, x, 2, rules="epsilon-gamma-box", bounds=(-2.0, 2.0)))
    seen = Image.open(io.BytesIO(base64.b64decode(found["picture"]["src"].split(",")[1])))
    assert seen.tobytes() == photo().resize((16, 12)).tobytes()


def test_an_input_shape_is_enough_for_pictures() -> None:
    model = colour_network()
    client = client_of(model, input_shape=(3, 40, 50), bounds=(-1.0, 1.0))
    told = model_told(client)
    assert (told["kind"], told["input"], told["layers"]) == ("picture", [3, 40, 50], ["0", "5"])
    found = asked(client, uploaded(client, photo()), questions=[{"rules": "epsilon"}])
    x = torch.from_numpy(np.array(photo(), dtype=np.float32)).permute(2, 0, 1)[None] / 255 * 2 - 1
    require_same(found, relprop.explain(model, x.contiguous(), rules="epsilon"))


def test_a_picture_is_cut_to_the_proportions_of_the_input() -> None:
    client = client_of(colour_network(), input_shape=(3, 20, 20))
    picture = Image.new("RGB", (90, 30), "red")
    picture.paste("blue", (30, 0, 60, 30))
    shown = asked(client, uploaded(client, picture))["picture"]
    seen = np.array(Image.open(io.BytesIO(base64.b64decode(shown["src"].split(",")[1]))))
    assert (seen[:, 2:-2] == (0, 0, 255)).all()


def test_channels_may_come_last() -> None:
    model = nn.Sequential(_ChannelsFirst(), colour_network()).eval()
    client = client_of(model, input_shape=(40, 50, 3))
    found = asked(client, uploaded(client, photo()), questions=[{"rules": "epsilon"}])
    x = torch.from_numpy(np.array(photo(), dtype=np.float32))[None] / 255
    relevance = relprop.explain(model, x, rules="epsilon").relevance
    np.testing.assert_array_equal(heat(found["sheets"][0]["heat"]), relevance[0].double().sum(-1).numpy().astype("<f4"))
    seen = Image.open(io.BytesIO(base64.b64decode(found["picture"]["src"].split(",")[1])))
    assert seen.tobytes() == photo().tobytes()


class _ChannelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def test_small_grey_inputs_are_drawn() -> None:
    model = colour_network(1)
    client = client_of(model, input_shape=(1, 28, 28), bounds=(-1.0, 3.0))
    assert model_told(client)["kind"] == "digit"
    found = asked(client, {"digit": base64.b64encode(INK).decode()}, questions=[{"rules": "deep-taylor"}])
    ink = torch.frombuffer(bytearray(INK), dtype=torch.uint8).float().reshape(1, 1, 28, 28)
    x = -1.0 + ink / 255 * 4.0
    require_same(found, relprop.explain(model, x, rules="deep-taylor", bounds=(-1.0, 3.0)))


# Series


@pytest.mark.parametrize(("shape", "sent"), [((6,), 6), ((6,), (1, 6)), ((2, 9), (2, 9))])
def test_series(shape: tuple[int, ...], sent: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    client = client_of(model, input_shape=shape, name="series")
    assert (model_told(client)["kind"], model_told(client)["input"]) == ("series", list(shape))
    values = torch.randn(sent, generator=torch.Generator().manual_seed(0))
    found = asked(client, {"values": values.tolist()}, "series", target=1)
    require_same(found, relprop.explain(model, values.reshape(1, *shape), 1))
    assert found["picture"] is None
    assert found["sheets"][0]["kind"] == "series"


def test_series_of_another_length_are_told() -> None:
    client = client_of(nn.Linear(6, 2).eval(), input_shape=(6,))
    for values in ([1.0] * 5, [[1.0] * 3] * 2):
        answer = client.post("/api/explain", json={"model": "your model", "input": {"values": values}})
        assert answer.status_code == 422
        assert "shape (6,)" in answer.json()["error"]


# Texts


class _Bag(nn.Module):
    labels = ("no", "yes")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.linear = nn.Embedding(40, 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(self.embedding(ids).sum(1))


def split(text: str) -> Encoding:
    found = [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    words = tuple(text[start:end] for start, end in found)
    count = len(words)
    ids = tuple(sum(map(ord, word)) % 40 for word in words)
    return Encoding(text, ids, words, tuple(found), (False,) * count, (False,) * count, tuple(range(count)))


def test_texts_go_through_the_tokenizer_that_is_given() -> None:
    model = _Bag().eval()
    client = client_of(model, tokenizer=split, language="fr", name="bag of words")
    told = model_told(client)
    assert (told["kind"], told["language"], told["labels"]) == ("text", "fr", ["no", "yes"])
    found = asked(client, {"text": "un très bon film"}, "bag of words", target="yes")
    attribution = TextExplainer(model, split)("un très bon film", "yes")
    assert [word["relevance"] for word in found["sheets"][0]["words"]] == [word.relevance for word in attribution.words]
    assert found["sheets"][0]["language"] == "fr"


# Scores


@pytest.mark.parametrize(
    ("end", "chances"),
    [
        (nn.Softmax(1), lambda z: z.softmax(0)),
        (nn.LogSoftmax(1), lambda z: z.softmax(0)),
        (nn.Sigmoid(), lambda z: z.sigmoid()),
    ],
    ids=["softmax", "log_softmax", "sigmoid"],
)
def test_scores_are_those_before_what_squashes_them(end: nn.Module, chances: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    inner = nn.Linear(6, 4).eval()
    client = client_of(nn.Sequential(inner, end).eval(), input_shape=(6,))
    scores = asked(client, {"values": [3.0, -2, 1, 0, 5, 1]})["scores"]
    logits = inner(torch.tensor([[3.0, -2, 1, 0, 5, 1]]))[0].detach()
    assert [each["index"] for each in scores] == logits.argsort(descending=True).tolist()
    assert [each["score"] for each in scores] == [float(logits[each["index"]]) for each in scores]
    expected = chances(logits)
    for each in scores:
        assert each["probability"] == pytest.approx(float(expected[each["index"]]), rel=1e-6)


def test_a_single_score_has_no_probability() -> None:
    client = client_of(nn.Linear(6, 1).eval(), input_shape=(6,))
    (score,) = asked(client, {"values": [1.0] * 6})["scores"]
    assert (score["index"], score["name"], score["probability"]) == (0, "0", None)


# What goes wrong


def test_a_model_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("nothing\nworks")

    client = client_of(Fails().eval(), input_shape=(6,))
    answer = client.post("/api/explain", json={"model": "your model", "input": {"values": [1.0] * 6}})
    assert answer.status_code == 500
    assert "ValueError: nothing works" in answer.json()["error"]
    assert "Traceback" in caplog.text


def test_labels_that_do_not_fit_are_told() -> None:
    client = client_of(nn.Linear(6, 3).eval(), input_shape=(6,), labels=["a", "b"])
    answer = client.post("/api/explain", json={"model": "your model", "input": {"values": [1.0] * 6}})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_target")
    assert "2 class names for 3 scores" in answer.json()["error"]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: relprop.app.create(nn.Linear(2, 2).eval()), InvalidInput, "what does 'your model' read"),
        (lambda: relprop.app.create(nn.Linear(2, 2), input_shape=(2,)), TrainingMode, "eval"),
        (lambda: relprop.app.create(labels=["a"]), InvalidInput, "of which model"),
        (lambda: relprop.app.create(zoo=False), InvalidInput, "no model to serve"),
        (lambda: relprop.app.create(nn.Linear(2, 2).eval(), input_shape=()), InvalidInput, "shape of one sample"),
        (lambda: relprop.app.create(nn.Linear(2, 2).eval(), input_shape=(5, 9, 9)), InvalidInput, "1 channel"),
        (lambda: relprop.app.create(nn.Linear(2, 2).eval(), input_shape=(2,), name="<b>"), InvalidInput, "no name"),
        (
            lambda: relprop.app.create([relprop.app.Model(nn.Linear(2, 2))], labels=["a"]),
            InvalidInput,
            "into the Model",
        ),
        (
            lambda: relprop.app.create(
                [relprop.app.Model(nn.Linear(2, 2).eval(), "x"), relprop.app.Model(nn.Linear(2, 2).eval(), "x")]
            ),
            InvalidInput,
            "must differ",
        ),
    ],
)
def test_what_cannot_be_served_is_told_at_once(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


# Several


def test_a_dict_names_the_models() -> None:
    first, second = nn.Linear(4, 2).eval(), nn.Linear(4, 3).eval()
    client = TestClient(
        relprop.app.create({"first": first, "second": second}, input_shape=(4,)), base_url="http://localhost"
    )
    names = [model["name"] for model in client.get("/api/about").json()["models"]]
    assert names[:2] == ["first", "second"]
    assert set(names[2:]) == set(zoo.names())
    for name, model in (("first", first), ("second", second)):
        require_same(
            asked(client, {"values": [1.0, 2, 3, 4]}, name), relprop.explain(model, torch.tensor([[1.0, 2, 3, 4]]))
        )


def test_a_list_has_models_with_what_belongs_to_each() -> None:
    models = [
        relprop.app.Model(nn.Linear(4, 2).eval(), "numbers", input_shape=(4,), labels=["x", "y"], summary="two"),
        relprop.app.Model(_Bag().eval(), "words", tokenizer=split),
    ]
    app = relprop.app.create(models, zoo=False)
    told = TestClient(app, base_url="http://localhost").get("/api/about").json()["models"]
    assert [(each["name"], each["kind"], each["labels"]) for each in told] == [
        ("numbers", "series", ["x", "y"]),
        ("words", "text", ["no", "yes"]),
    ]
    assert told[0]["summary"] == "two"


def test_a_model_of_the_zoos_name_takes_its_place() -> None:
    app = relprop.app.create(nn.Linear(4, 2).eval(), name="mnist-cnn", input_shape=(4,))
    names = [each["name"] for each in TestClient(app, base_url="http://localhost").get("/api/about").json()["models"]]
    assert sorted(names) == sorted(zoo.names())
    assert names[0] == "mnist-cnn"


# A server


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        app = web.create([], True, "127.0.0.1")
        with pytest.raises(InvalidInput, match=f"the port {port} is taken"), serving.running(app, port=port):
            pass


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1", "a b"])
def test_an_address_there_is_not_is_told(host: str) -> None:
    app = web.create([], True, host)
    with pytest.raises(InvalidInput, match="--host"), serving.running(app, host):
        pass


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://127.0.0.1:80/"),
        ("::1", "http://[::1]:80/"),
        ("name", "http://name:80/"),
    ],
)
def test_the_address_is_one_that_a_browser_takes(host: str, address: str) -> None:
    assert serving.address_of(host, 80) == address


def test_a_server_beyond_the_loopback_warns(capsys: pytest.CaptureFixture[str]) -> None:
    serving._greet("http://127.0.0.1:80/", "0.0.0.0")
    assert "everyone who reaches this machine" in capsys.readouterr().err
    serving._greet("http://127.0.0.1:80/", "127.0.0.1")
    assert capsys.readouterr().err == ""


def test_it_serves_from_a_notebook_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where an event loop runs already; Ctrl-C, as an interrupt of the kernel, ends it."""
    answers: list[int] = []

    def interrupt() -> None:
        while not (found := re.search(r"http://\S+", capsys.readouterr().out)):
            time.sleep(0.05)
        answers.append(httpx.get(found.group(), timeout=30).status_code)
        os.kill(os.getpid(), signal.SIGINT)

    async def cell() -> None:
        relprop.app.serve(nn.Linear(4, 2).eval(), input_shape=(4,), zoo=False, port=0, open_browser=False)

    threading.Thread(target=interrupt).start()
    loop = asyncio.new_event_loop()  # as a notebook's, which leaves Ctrl-C to the cell
    loop.run_until_complete(cell())
    loop.close()
    assert answers == [200]


# The command line


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "mine.pt2"
    torch.export.save(torch.export.export(colour_network(), (torch.zeros(1, 3, 20, 30),)), str(path))
    path.with_name("labels.txt").write_text("one\ntwo\nthree\n")
    return path


@pytest.fixture(scope="module")
def served(program: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of `relprop serve` with a program, and the process."""
    options = ["--labels", "labels.txt", "--mean", "0.5,0.4,0.3", "--std", "0.5", "--port", "0", "--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-m", "relprop", "serve", "--model", program.name, *options, "--threads", "1"],
        cwd=program.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", first)
    assert found, first + process.communicate()[1]
    yield found.group(), process
    process.kill()


def test_a_program_is_served_beside_the_zoo(served: tuple[str, Any], program: Path) -> None:
    address, _ = served
    with httpx.Client(base_url=address, timeout=60) as client:
        models = {model["name"]: model for model in client.get("/api/about").json()["models"]}
        assert set(models) == {"mine.pt2", *zoo.names()}
        assert models["mine.pt2"]["labels"] == ["one", "two", "three"]
        buffer = io.BytesIO()
        photo((30, 20)).save(buffer, "PNG")
        kept = client.post("/api/pictures", content=buffer.getvalue(), headers={"content-type": "image/png"}).json()
        body = {
            "model": "mine.pt2",
            "input": {"picture": kept["picture"]},
            "target": "two",
            "questions": [{"rules": "epsilon-gamma-box"}],
        }
        found = client.post("/api/explain", json=body).json()
    mean, std = torch.tensor([0.5, 0.4, 0.3])[:, None, None], torch.tensor([0.5])[:, None, None]
    x = ((torch.from_numpy(np.array(photo((30, 20)), dtype=np.float32)) / 255).permute(2, 0, 1) - mean) / std
    model = relprop.load_program(program)
    bounds = ((0 - mean) / std, (1 - mean) / std)
    require_same(found, relprop.explain(model, x[None].contiguous(), 1, rules="epsilon-gamma-box", bounds=bounds))
    seen = Image.open(io.BytesIO(base64.b64decode(found["picture"]["src"].split(",")[1])))
    assert seen.tobytes() == photo((30, 20)).tobytes()


def test_ctrl_c_ends_it(served: tuple[str, subprocess.Popen[str]]) -> None:
    _, process = served
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Stopped." in out
    assert err == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--model", "nowhere.pt2"], Exit.ERROR, "no file 'nowhere.pt2'"),
        (["--model", "mnist-cnn"], Exit.USAGE, "served anyway"),
        (["--labels", "x.txt"], Exit.USAGE, "--labels"),
        (["--port", "99999"], Exit.USAGE, "port"),
        (["--threads", "0"], Exit.USAGE, "threads"),
        (["--model", "."], Exit.ERROR, "config.json"),
        (["--model", ".", "--size", "5"], Exit.USAGE, "--size"),
        (["--host", "no.such.host.invalid", "--no-browser"], Exit.ERROR, "--host"),
    ],
)
def test_wrong_options_are_told_in_a_line(
    options: list[str], code: Exit, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command_line, ["serve", *options], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == code, result.output
    assert words in result.output


def test_without_fastapi_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise relprop.errors.MissingExtra('the app needs fastapi: pip install "relprop[app]"')

    monkeypatch.setattr(relprop.app, "_room", missing)
    result = CliRunner().invoke(command_line, ["serve"])
    assert result.exit_code == Exit.MISSING_EXTRA
    assert 'pip install "relprop[app]"' in result.output


# Hugging Face


def test_a_folder_of_hugging_face_is_served(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from huggingface_models import bert, wordpiece

    from relprop.cli.serve import _own
    from relprop.models.huggingface_folder import load_folder

    bert("BertForSequenceClassification", id2label={0: "NO", 1: "YES"}).save_pretrained(tmp_path / "mine")
    wordpiece().save_pretrained(tmp_path / "mine")
    client = client_of(**_own(str(tmp_path / "mine"), None, None, None, None, None))
    assert (model_told(client)["name"], model_told(client)["labels"]) == ("mine", ["NO", "YES"])
    found = asked(client, {"text": "The film is great."}, "mine", target="YES")
    attribution = relprop.explain_text(*load_folder(tmp_path / "mine"), "The film is great.", target="YES")
    told = found["sheets"][0]
    assert [word["relevance"] for word in told["words"]] == [word.relevance for word in attribution.words]
    assert [token["text"] for token in told["tokens"] if token["start"] is None] == ["[CLS]", "[SEP]"]
    logits = attribution.output.logits[0]
    assert [each["score"] for each in found["scores"]] == sorted(logits.tolist(), reverse=True)


def test_pipelines_bring_what_belongs_to_them() -> None:
    transformers = pytest.importorskip("transformers")
    from huggingface_models import bert, vit, wordpiece

    reads = bert("BertForSequenceClassification", id2label={0: "NO", 1: "YES"}).float()
    texts = transformers.pipeline("text-classification", model=reads, tokenizer=wordpiece())
    client = client_of(texts, name="texts")
    found = asked(client, {"text": "The film is great."}, "texts")
    attribution = relprop.explain_text(texts, "The film is great.")
    assert [w["relevance"] for w in found["sheets"][0]["words"]] == [word.relevance for word in attribution.words]

    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    pictures = transformers.pipeline("image-classification", model=vit().float(), image_processor=processor)
    client = client_of(pictures, name="pictures")
    found = asked(client, uploaded(client, photo()), "pictures", questions=[{"rules": "epsilon"}])
    require_same(found, relprop.explain(pictures, photo(), rules="epsilon"))
