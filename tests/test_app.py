"""The app's answers are the Python API's, to the last bit."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

import relprop
import relprop.app
from relprop import zoo
from relprop.app.answering import SLOW
from relprop.app.asking import LIMITS
from relprop.app.web import STATIC, VIEWER
from relprop.rulebook import RULES, rule_of
from relprop.rules import Epsilon, Gamma, ZBox
from relprop.text import TextExplainer
from relprop.view.panels import with_limits
from relprop.view.style import Style

DIGITS = ("mnist-mlp", "mnist-cnn", "mnist-vit")
PHOTO = "efficientnet-lite0"
CLIP = 99.5

photos = pytest.mark.skipif(not zoo.entry(PHOTO).available, reason="needs relprop[photos]")
korean = pytest.mark.skipif(not zoo.entry("reviews-ko").available, reason="needs relprop[korean]")
TEXTS = [
    pytest.param("reviews-en", "Not bad at all, but qzxv far too long.", id="lstm"),
    pytest.param("reviews-en-transformer", "A warm, funny film with unbelievable actors!", id="transformer"),
    pytest.param("reviews-ko", "기대 안 했는데 생각보다 재밌었어요 ㅋㅋㅋㅋ", id="korean", marks=korean),
]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(relprop.app.create(), base_url="http://127.0.0.1:7860")


@pytest.fixture(scope="module")
def about(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/about").json()
    return found


def drawn(index: int) -> bytes:
    """The pixels of a digit of the zoo, as a drawing is sent."""
    pixels: bytes = ((zoo.digits()[0][index] + 1) * 127.5).round().byte().numpy().tobytes()
    return pixels


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def digit(index: int = 30) -> dict[str, str]:
    return {"digit": encoded(drawn(index))}


def asked(client: TestClient, model: str, what: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/api/explain", json={"model": model, "input": what, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def heat(told: dict[str, Any]) -> np.ndarray[Any, Any]:
    values = np.frombuffer(base64.b64decode(told["values"]), dtype="<f4")
    return values.reshape(told["height"], told["width"])


def summed(relevance: torch.Tensor) -> np.ndarray[Any, Any]:
    """What a heatmap shows of relevance (1, channels, height, width)."""
    return relevance[0].double().sum(0).numpy().astype("<f4")


def explainer_of(name: str) -> relprop.Explainer:
    entry = zoo.picture_entry(name)
    return relprop.Explainer(zoo.load(name), bounds=entry.bounds, labels=entry.labels)


def require_same(told: dict[str, Any], attribution: relprop.Attribution, clip: float | None = None) -> None:
    """A sheet says what the attribution does."""
    assert isinstance(attribution.relevance, torch.Tensor)
    np.testing.assert_array_equal(heat(told["heat"]), summed(attribution.relevance))
    assert told["score"] == float(attribution.score[0])
    assert told["total"] == float(attribution.relevance.double().sum())
    assert attribution.target is not None
    assert told["target"] == {"index": int(attribution.target[0]), "name": attribution.label(0)}
    assert told["notes"] == list(attribution.notes)
    style = Style(clip=clip)
    assert told["limit"] == with_limits(attribution._samples(0, style), style)[0].limit


# Digits


@pytest.mark.parametrize("target", [None, 5, "8"])
@pytest.mark.parametrize("rules", ["auto", "epsilon", "epsilon-gamma-box"])
@pytest.mark.parametrize("model", DIGITS)
def test_a_drawing_gets_the_values_of_the_python_api(client: TestClient, model: str, rules: str, target: Any) -> None:
    found = asked(client, model, digit(), target=target, questions=[{"rules": rules}])
    entry = zoo.picture_entry(model)
    attribution = relprop.explain(
        zoo.load(model), zoo.digits()[0][30:31], target, rules=rules, bounds=entry.bounds, labels=entry.labels
    )
    require_same(found["sheets"][0], attribution)
    assert found["sheets"][0]["rules"] == attribution.rules


def test_a_drawing_is_shown_as_the_model_saw_it(client: TestClient) -> None:
    picture = asked(client, "mnist-cnn", digit(7))["picture"]
    shown = Image.open(io.BytesIO(base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"))))
    assert (picture["width"], picture["height"]) == shown.size == (28, 28)
    assert shown.tobytes() == drawn(7)


def test_an_empty_drawing_is_explained(client: TestClient) -> None:
    found = asked(client, "mnist-cnn", {"digit": encoded(bytes(784))})
    x = torch.full((1, 1, 28, 28), -1.0)
    require_same(found["sheets"][0], relprop.explain(zoo.load("mnist-cnn"), x))


def test_scores_are_the_models_and_probabilities_their_softmax(client: TestClient) -> None:
    scores = asked(client, "mnist-cnn", digit())["scores"]
    logits = zoo.load("mnist-cnn")(zoo.digits()[0][30:31])[0].detach()
    assert [each["index"] for each in scores] == logits.argsort(descending=True).tolist()
    assert [each["score"] for each in scores] == [float(logits[each["index"]]) for each in scores]
    chances = logits.double().softmax(0)
    assert [each["probability"] for each in scores] == [float(chances[each["index"]]) for each in scores]


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "guided_backprop", "occlusion", "smoothgrad"])
def test_other_methods_have_the_values_of_the_python_api(client: TestClient, method: str) -> None:
    found = asked(client, "mnist-cnn", digit(), target=3, questions=[{"method": method}])["sheets"][0]
    require_same(found, relprop.explain(zoo.load("mnist-cnn"), zoo.digits()[0][30:31], 3, method=method))
    assert (found["method"], found["title"], found["rules"]) == (method, method, "")
    assert found["redistributes"] is False
    assert found["absorbed"] is None


def test_rules_of_ones_own_are_the_python_apis(client: TestClient) -> None:
    rows = [["first", "ZBox()"], ["conv", "Gamma(0.5)"], ["linear1", "Epsilon(eps=0.25)"], ["linear", "Epsilon(1e-3)"]]
    found = asked(client, "mnist-cnn", digit(), target=3, questions=[{"rules": rows}])["sheets"][0]
    rules = relprop.RuleMap(
        [("first", ZBox(-1.0, 1.0)), ("conv", Gamma(0.5)), ("linear1", Epsilon(0.25)), ("linear", Epsilon(1e-3))]
    )
    require_same(found, _by(rules))
    assert found["title"] == "custom rules"


def _by(rules: Any) -> relprop.Attribution:
    model = zoo.load("mnist-cnn")
    found: relprop.Attribution = relprop.explain(model, zoo.digits()[0][30:31], 3, rules=rules, bounds=(-1.0, 1.0))
    return found


def test_a_single_rule_goes_everywhere(client: TestClient) -> None:
    found = asked(client, "mnist-cnn", digit(), target=3, questions=[{"rules": "Gamma(0.1)"}])["sheets"][0]
    require_same(found, _by(Gamma(0.1)))


def test_rules_of_ones_own_stay_right_however_many_were_asked_before(client: TestClient) -> None:
    for gamma in range(20):
        found = asked(client, "mnist-mlp", digit(), questions=[{"rules": f"Gamma({gamma / 10})"}])["sheets"][0]
    model = zoo.load("mnist-mlp")
    require_same(found, relprop.explain(model, zoo.digits()[0][30:31], rules=Gamma(1.9), bounds=(-1.0, 1.0)))


def test_a_comparison_explains_one_decision_and_tells_which_question_fails(client: TestClient) -> None:
    questions: list[dict[str, Any]] = [
        {"rules": "epsilon"},
        {"rules": "no-such-preset"},
        {"method": "gradient"},
        {"rules": [["conv", "Pass()"], ["affine", "Zero()"]]},
        {"rules": "deep-taylor"},
        {"rules": "epsilon"},
    ]
    sheets = asked(client, "mnist-cnn", digit(), questions=questions)["sheets"]
    explainer, x = explainer_of("mnist-cnn"), zoo.digits()[0][30:31]
    compared = explainer.compare(x, ["epsilon", "deep-taylor"])
    require_same(sheets[0], compared["epsilon"])
    require_same(sheets[2], relprop.explain(explainer.model, x, method="gradient"))
    require_same(sheets[4], compared["deep-taylor"])
    assert sheets[5] == sheets[0]
    assert "no preset 'no-such-preset'" in sheets[1]["error"]
    assert "Pass()" in sheets[3]["error"]


@pytest.mark.parametrize("layer", ["conv1", "conv2", "linear1"])
def test_a_layer_has_the_relevance_at_its_output(client: TestClient, layer: str) -> None:
    question = {"rules": "epsilon-plus", "layer": layer}
    found = asked(client, "mnist-cnn", digit(), questions=[question, {"rules": "epsilon-plus"}])["sheets"]
    explainer = relprop.Explainer(zoo.load("mnist-cnn"), "epsilon-plus")
    at = explainer(zoo.digits()[0][30:31], layers=[layer]).layers[layer][0]
    assert found[0]["layer"] == layer
    assert found[0]["total"] == float(at.double().sum())
    maps = at.double().numpy() if at.dim() == 3 else at.double().numpy()[None, None]
    np.testing.assert_array_equal(heat(found[0]["heat"]), maps.sum(0).astype("<f4"))
    sums = maps.sum((1, 2))
    strongest = np.argsort(-np.abs(sums), kind="stable")[:8].tolist() if at.dim() == 3 else []
    assert [each["index"] for each in found[0]["channels"]] == strongest
    for each in found[0]["channels"]:
        assert each["sum"] == float(sums[each["index"]])
        np.testing.assert_array_equal(heat(each["heat"]), maps[each["index"]].astype("<f4"))
    assert found[1]["layer"] is None
    assert (found[1]["heat"]["width"], found[1]["channels"]) == (28, [])


def test_the_table_of_operations_is_the_attributions_balance(client: TestClient) -> None:
    body = {"model": "mnist-cnn", "input": digit(), "target": 3, "question": {"rules": "epsilon-plus-flat"}}
    told = client.post("/api/operations", json=body).json()
    attribution = relprop.explain(zoo.load("mnist-cnn"), zoo.digits()[0][30:31], 3, rules="epsilon-plus-flat")
    balance = attribution.conservation
    assert told["absorbed"] == balance.absorbed
    assert [
        (o["name"], o["function"], o["rule"], o["received"], o["passed"], o["lost"]) for o in told["operations"]
    ] == [(o.module, o.function, o.rule, o.received, o.passed, dict(o.absorbed)) for o in balance.operations]


# Photographs


@photos
def test_a_photograph_gets_the_values_of_the_python_api(client: TestClient) -> None:
    found = asked(client, PHOTO, {"picture": "cat"}, questions=[{"rules": "epsilon-gamma-box"}, {"rules": "epsilon"}])
    entry, explainer = zoo.picture_entry(PHOTO), explainer_of(PHOTO)
    photo = zoo.photos()["cat"]
    compared = explainer.compare(entry.preprocess(photo), ["epsilon-gamma-box", "epsilon"])
    for told, attribution in zip(found["sheets"], compared.values(), strict=True):
        require_same(told, attribution, CLIP)
    seen = Image.open(io.BytesIO(base64.b64decode(found["picture"]["src"].split(",")[1])))
    assert seen.convert("RGB").tobytes() == entry.display(photo).tobytes()


@photos
def test_the_twenty_best_classes_are_told_and_the_target_besides(client: TestClient) -> None:
    scores = asked(client, PHOTO, {"picture": "cat"}, target="espresso")["scores"]
    logits = zoo.load(PHOTO)(zoo.picture_entry(PHOTO).preprocess(zoo.photos()["cat"]))[0].detach()
    order = logits.argsort(descending=True)
    espresso = zoo.entry(PHOTO).labels.index("espresso")
    assert [each["index"] for each in scores] == [*order[:20].tolist(), espresso]
    assert scores[-1]["name"] == "espresso"
    assert [each["score"] for each in scores] == [float(logits[each["index"]]) for each in scores]


def _marked(size: tuple[int, int] = (300, 260)) -> Image.Image:
    """A picture in which up, down, left and right differ."""
    picture = Image.radial_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(picture).rectangle((20, 10, 90, 60), fill=(200, 40, 10))
    return picture


def _file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    data = Image.Exif()
    data[0x0112] = 6
    return _file(_marked(), "JPEG", exif=data)


def _transparent() -> bytes:
    picture = _marked().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return _file(picture, "PNG")


UPLOADS = {
    "png": lambda: _file(_marked(), "PNG"),
    "jpeg turned by its EXIF data": _turned,
    "transparent": _transparent,
    "palette": lambda: _file(_marked().convert("P"), "PNG"),
    "cmyk": lambda: _file(_marked().convert("CMYK"), "JPEG"),
    "grey": lambda: _file(_marked().convert("L"), "PNG"),
    "webp": lambda: _file(_marked(), "WEBP", lossless=True),
    "gif, the first of two": lambda: _file(
        _marked(), "GIF", save_all=True, append_images=[Image.new("RGB", (300, 260))]
    ),
    "bmp": lambda: _file(_marked(), "BMP"),
}


@photos
@pytest.mark.parametrize("kind", UPLOADS)
def test_an_upload_gets_the_values_of_its_file(client: TestClient, kind: str) -> None:
    content = UPLOADS[kind]()
    kept = client.post("/api/pictures", content=content, headers={"content-type": "application/octet-stream"}).json()
    found = asked(client, PHOTO, {"picture": kept["picture"]}, questions=[{"rules": "epsilon"}])["sheets"][0]
    x = zoo.picture_entry(PHOTO).preprocess(Image.open(io.BytesIO(content)))
    require_same(found, relprop.Explainer(zoo.load(PHOTO), "epsilon", labels=zoo.entry(PHOTO).labels)(x), CLIP)
    preview = Image.open(io.BytesIO(client.get(f"/api/pictures/{kept['picture']}").content))
    assert preview.size == (kept["width"], kept["height"])
    assert preview.size == ((260, 300) if "turned" in kind else (300, 260))


def test_a_preview_is_at_most_1024_pixels_wide(client: TestClient) -> None:
    kept = client.post(
        "/api/pictures", content=_file(_marked((3000, 1500)), "PNG"), headers={"content-type": "image/png"}
    ).json()
    assert (kept["width"], kept["height"]) == (3000, 1500)
    answer = client.get(f"/api/pictures/{kept['picture']}")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (1024, 512)


def test_a_picture_of_a_digit_can_be_shown_to_a_digit_model(client: TestClient) -> None:
    picture = Image.frombytes("L", (28, 28), drawn(30))
    content = _file(picture.resize((280, 280)), "PNG")
    kept = client.post("/api/pictures", content=content, headers={"content-type": "image/png"}).json()
    found = asked(client, "mnist-cnn", {"picture": kept["picture"]})
    x = zoo.picture_entry("mnist-cnn").preprocess(Image.open(io.BytesIO(content)))
    require_same(found["sheets"][0], relprop.explain(zoo.load("mnist-cnn"), x))


# Texts


@pytest.mark.parametrize(("model", "text"), TEXTS)
@pytest.mark.parametrize("question", [{}, {"rules": "gamma"}, {"method": "gradient"}, {"method": "gradient_x_input"}])
def test_a_text_gets_the_values_of_the_python_api(
    client: TestClient, model: str, text: str, question: dict[str, str]
) -> None:
    found = asked(client, model, {"text": text}, target="positive", questions=[question])
    told, entry = found["sheets"][0], zoo.text_entry(model)
    explainer = TextExplainer(
        zoo.load(model),
        entry.tokenizer,
        question.get("rules", "auto"),
        method=question.get("method", "lrp"),
        labels=entry.labels,
    )
    attribution = explainer(text, "positive")
    assert told["text"] == text
    assert told["language"] == entry.language
    assert [(w["text"], w["start"], w["end"], w["relevance"], w["known"]) for w in told["words"]] == [
        (w.text, w.start, w.end, w.relevance, not w.unknown) for w in attribution.words
    ]
    assert all(text[w["start"] : w["end"]] == w["text"] for w in told["words"])
    assert [(t["text"], t["relevance"]) for t in told["tokens"]] == [(t.token, t.relevance) for t in attribution.tokens]
    assert told["special"] == sum(t.relevance for t in attribution.special)
    assert sum(t["relevance"] for t in told["tokens"] if t["start"] is None) == told["special"]
    assert told["score"] == float(attribution.score[0])
    assert told["total"] == float(attribution.relevance.double().sum())
    assert told["limit"] == attribution.passage().limit
    assert told["signed"] is attribution.has_sign
    assert told["target"] == {"index": 1, "name": "positive"}
    assert [each["score"] for each in found["scores"]] == sorted(attribution.output[0].tolist(), reverse=True)


def test_a_text_says_what_is_no_word_of_the_vocabulary(client: TestClient) -> None:
    told = asked(client, "reviews-en", {"text": "qzxv vzqx"})["sheets"][0]
    assert [word["known"] for word in told["words"]] == [False, False]
    assert any("vocabulary" in note for note in told["notes"])


# Files


@pytest.mark.parametrize("kind", ["png", "svg", "html", "npz"])
@pytest.mark.parametrize("question", [{}, {"rules": "epsilon"}, {"method": "gradient"}])
def test_a_download_of_a_drawing_is_what_save_writes(
    client: TestClient, kind: str, question: dict[str, str], tmp_path: Path
) -> None:
    answer = client.post(
        f"/api/download/{kind}", json={"model": "mnist-cnn", "input": digit(), "target": 3, "question": question}
    )
    explainer = explainer_of("mnist-cnn")
    if "method" in question:
        (attribution,) = explainer.compare(zoo.digits()[0][30:31], methods=[question["method"]], target=3).values()
    else:
        attribution = explainer.compare(zoo.digits()[0][30:31], [question.get("rules", "auto")], 3).popitem()[1]
    attribution.save(tmp_path / f"x.{kind}")
    assert answer.content == (tmp_path / f"x.{kind}").read_bytes()
    name = "gradient" if "method" in question else question.get("rules", "epsilon-plus-flat")
    assert answer.headers["content-disposition"] == f'attachment; filename="mnist-cnn_3_{name}.{kind}"'


@pytest.mark.parametrize("kind", ["png", "svg", "html", "npz"])
def test_a_download_of_a_text_is_what_save_writes(client: TestClient, kind: str, tmp_path: Path) -> None:
    text = "Not bad at all!"
    body = {"model": "reviews-en", "input": {"text": text}, "target": "positive", "question": {}}
    answer = client.post(f"/api/download/{kind}", json=body)
    entry = zoo.text_entry("reviews-en")
    attribution = TextExplainer(zoo.load("reviews-en"), entry.tokenizer, labels=entry.labels)(text, "positive")
    attribution.save(tmp_path / f"x.{kind}")
    assert answer.content == (tmp_path / f"x.{kind}").read_bytes()


@photos
def test_a_download_of_a_photograph_has_the_colours_of_its_sheet(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/api/download/svg", json={"model": PHOTO, "input": {"picture": "cat"}, "question": {}})
    x = zoo.picture_entry(PHOTO).preprocess(zoo.photos()["cat"])
    explainer_of(PHOTO)(x).save(tmp_path / "x.svg", clip=CLIP)
    assert answer.content == (tmp_path / "x.svg").read_bytes()


def test_a_download_of_a_layer_shows_the_layer(client: TestClient, tmp_path: Path) -> None:
    question = {"rules": "epsilon", "layer": "conv2"}
    body = {"model": "mnist-cnn", "input": digit(), "question": question}
    shown = Image.open(io.BytesIO(client.post("/api/download/png", json=body).content))
    of_input = Image.open(
        io.BytesIO(client.post("/api/download/png", json={**body, "question": {"rules": "epsilon"}}).content)
    )
    assert shown.tobytes() != of_input.tobytes()
    (tmp_path / "x.npz").write_bytes(client.post("/api/download/npz", json=body).content)
    loaded = relprop.load(tmp_path / "x.npz")
    explained = relprop.Explainer(zoo.load("mnist-cnn"), "epsilon")(zoo.digits()[0][30:31], layers=["conv2"])
    assert torch.equal(loaded.layers["conv2"], explained.layers["conv2"])


# What the page is told


def test_about_lists_what_there_is(about: dict[str, Any]) -> None:
    assert {model["name"] for model in about["models"]} == set(zoo.names())
    assert about["version"] == relprop.__version__
    assert about["limits"] == LIMITS
    for model in about["models"]:
        entry = zoo.entry(model["name"])
        assert model["available"] is entry.available
        assert model["summary"] == entry.summary
        if entry.available:
            assert tuple(model["labels"]) == entry.labels
            assert {"lrp", "gradient"} <= set(model["methods"])
            assert {"lime", "kernel_shap", *model["methods"]} >= SLOW


def test_the_palette_is_red_for_and_blue_against(about: dict[str, Any]) -> None:
    colours = np.frombuffer(base64.b64decode(about["palette"]), np.uint8).reshape(511, 3).astype(int)
    assert (colours[255] == 255).all()
    assert (colours[:255, 2] > colours[:255, 0]).all()
    assert (colours[256:, 0] > colours[256:, 2]).all()


@pytest.mark.parametrize("model", [*DIGITS, "reviews-en", "reviews-en-transformer"])
def test_every_preset_and_layer_that_is_offered_can_be_asked_for(
    client: TestClient, about: dict[str, Any], model: str
) -> None:
    told = next(each for each in about["models"] if each["name"] == model)
    assert told["rules_default"] in told["presets"]
    what = digit() if model in DIGITS else {"text": "Not bad at all!"}
    questions = [{"rules": preset} for preset in told["presets"]]
    questions += [{"rules": "epsilon", "layer": layer} for layer in told["layers"]]
    for first in range(0, len(questions), LIMITS["questions"]):
        for sheet in asked(client, model, what, questions=questions[first : first + LIMITS["questions"]])["sheets"]:
            assert "error" not in sheet, sheet


@photos
def test_the_layers_of_a_photographs_model_are_its_blocks_and_convolutions(about: dict[str, Any]) -> None:
    told = next(each for each in about["models"] if each["name"] == PHOTO)
    names = dict(zoo.load(PHOTO).named_modules())
    assert set(told["layers"]) <= set(names)
    blocks = [layer for layer in told["layers"] if re.fullmatch(r"_blocks\.\d+", layer)]
    assert blocks == sorted(blocks, key=lambda name: int(name.split(".")[1]))
    assert len(blocks) == len(names["_blocks"])  # type: ignore[arg-type]


def test_the_samples_can_be_explained(client: TestClient, about: dict[str, Any]) -> None:
    samples = about["samples"]
    images, labels = zoo.digits()
    sent = {
        encoded(((image + 1) * 127.5).round().byte().numpy().tobytes()): int(n)
        for image, n in zip(images, labels, strict=True)
    }
    assert len(samples["digits"]) == 30
    assert all(sent[each["digit"]] == each["label"] for each in samples["digits"])
    assert [(each["language"], each["text"]) for each in samples["texts"]] == zoo.reviews()
    for each in samples["pictures"]:
        preview = Image.open(io.BytesIO(client.get(f"/api/pictures/{each['picture']}").content))
        assert preview.size == (each["width"], each["height"])


def test_every_rule_is_told_with_its_parameters(about: dict[str, Any]) -> None:
    told = {each["name"]: each for each in about["rules"]}
    assert set(told) == set(RULES) >= {"Zero", "Epsilon", "Gamma", "AlphaBeta", "ZPlus", "ZBox", "WSquare", "Flat"}
    assert told["Gamma"]["parameters"][0] == {"name": "gamma", "default": 0.25}
    assert told["Epsilon"]["parameters"][1] == {
        "name": "bias",
        "default": "absorb",
        "choices": ["absorb", "distribute"],
    }
    assert told["Epsilon"]["formula"].startswith("R_i = sum_j z_ij / (z_j + eps s(z_j)) R_j")
    assert {each["name"] for each in about["selectors"]} == set(relprop.rulemap.WORDS)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_read_as_it_is_written(name: str) -> None:
    kind = RULES[name]
    example = kind(-1.0, 1.0) if name == "ZBox" else kind()  # type: ignore[call-arg]
    read = rule_of(repr(example))
    assert type(read) is kind
    assert repr(read) == repr(example)


@pytest.mark.parametrize(
    "text",
    [
        *("Gamma", "Gamma(", "gamma(0.25)", "__import__('os')", "Gamma(open('x'))", "Gamma(*x)", "Epsilon(1e999)"),
        *("Gamma(**{})", "Gamma(gamma=0.25, gamma=1)"),
    ],
)
def test_nothing_but_rules_is_read_as_a_rule(text: str) -> None:
    with pytest.raises(relprop.errors.InvalidRule):
        rule_of(text)


def test_the_page_and_the_viewer_are_served_and_nothing_beside_them(client: TestClient) -> None:
    assert client.get("/").content == (STATIC / "index.html").read_bytes()
    assert client.head("/").status_code == 200
    assert client.get("/static/app.js").content == (STATIC / "app.js").read_bytes()
    assert client.get("/viewer/viewer.js").content == (VIEWER / "viewer.js").read_bytes()
    assert client.get("/viewer/viewer.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/viewer/viewer.css").headers["content-type"] == "text/css; charset=utf-8"
    for path in (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/static/../web.py",
        "/static/%2e%2e/web.py",
        "/viewer/",
        "/viewer/__init__.py",
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"].endswith(".")


def test_an_extra_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(zoo.entry(PHOTO)), "available", property(lambda self: self.extra is None))
    monkeypatch.setattr(zoo, "photos", _no_photos)
    client = TestClient(relprop.app.create(), base_url="http://localhost")
    about = client.get("/api/about").json()
    told = next(model for model in about["models"] if model["name"] == PHOTO)
    assert told["available"] is False
    assert 'pip install "relprop[photos]"' in told["missing"]
    assert about["samples"]["pictures"] == []
    answer = client.post("/api/explain", json={"model": PHOTO, "input": {"picture": "cat"}})
    assert (answer.status_code, answer.json()["error"]) == (501, told["missing"])


def _no_photos() -> Any:
    raise relprop.errors.MissingExtra("photos")


def test_without_fastapi_the_door_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("relprop.app.") and name != "relprop.app.own"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(relprop.errors.MissingExtra, match=r'pip install "relprop\[app\]"'):
        relprop.app.create()
