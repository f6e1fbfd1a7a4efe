"""Sheets: one explanation as the plain values that the viewer draws."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import relprop
from relprop.attribution import Attribution
from relprop.errors import InvalidInput, NonFinite
from relprop.view.sheet import encoded, heat, palette, sheet, short_name


def made(relevance: Tensor, **more: Any) -> Attribution:
    """An explanation of class 1 with this relevance."""
    score = relevance.double().flatten(1).sum(1).float() + 0.5
    return Attribution(relevance, score, target=torch.ones(len(relevance), dtype=torch.int64), rules="epsilon", **more)


def values(told: dict[str, Any]) -> np.ndarray[Any, Any]:
    found = np.frombuffer(base64.b64decode(told["values"]), "<f4")
    return found.reshape(told["height"], told["width"])


@pytest.mark.parametrize(
    ("shape", "kind", "map_shape"),
    [
        ((3, 4, 5), "picture", (4, 5)),
        ((1, 4, 5), "picture", (4, 5)),
        ((6, 5, 3), "picture", (6, 5)),
        ((7,), "series", (1, 7)),
        ((2, 7), "series", (2, 7)),
    ],
)
def test_channels_are_summed_and_vectors_are_a_row(
    shape: tuple[int, ...], kind: str, map_shape: tuple[int, int]
) -> None:
    relevance = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    told = sheet(made(relevance), 1)
    summed = relevance[1].double()
    if len(shape) == 3:
        summed = summed.sum(-1 if shape == (6, 5, 3) else 0)
    assert told["kind"] == kind
    np.testing.assert_array_equal(values(told["heat"]), summed.numpy().reshape(map_shape).astype("<f4"))
    assert told["limit"] == float(summed.abs().max())
    assert told["total"] == float(relevance[1].double().sum())


def test_a_sheet_is_plain_json() -> None:
    told = sheet(made(torch.randn(1, 3, 4, 4)), model="mine", picture=Image.new("RGB", (4, 4), "red"))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["model"], told["title"], told["target"]) == ("mine", "epsilon", {"index": 1, "name": "1"})
    shown = Image.open(io.BytesIO(base64.b64decode(told["picture"]["src"].split(",")[1])))
    assert shown.getpixel((0, 0)) == (255, 0, 0)


def test_the_percentile_of_full_colour_is_that_of_to_pil() -> None:
    relevance = torch.arange(1.0, 1001.0).reshape(1, 1, 20, 50)
    assert sheet(made(relevance), clip=90)["limit"] == float(np.percentile(np.arange(1.0, 1001.0), 90))
    assert sheet(made(relevance))["limit"] == 1000


def test_the_target_has_its_name_and_a_function_has_none() -> None:
    assert sheet(made(torch.ones(1, 2), labels=("cat", "dog")))["target"] == {"index": 1, "name": "dog"}
    function = Attribution(torch.ones(1, 2), torch.tensor([2.0]))
    assert sheet(function)["target"] is None
    assert sheet(function)["claim"] == "the score"


def test_where_relevance_went_is_told_once_it_is_known() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    attribution = relprop.explain(model, torch.randn(1, 4))
    assert sheet(attribution)["absorbed"] == {}
    absorbed = attribution.conservation.absorbed
    assert "bias" in absorbed
    assert sheet(attribution)["absorbed"] == absorbed


@pytest.mark.parametrize(
    ("method", "signed"), [("gradient", False), ("smoothgrad", False), ("gradient_x_input", True), ("occlusion", True)]
)
def test_other_methods_do_not_redistribute_and_some_have_no_sign(method: str, signed: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    told = sheet(relprop.explain(model, torch.randn(1, 4), method=method))
    assert (told["method"], told["title"], told["rules"]) == (method, method, "")
    assert (told["redistributes"], told["absorbed"], told["signed"]) == (False, None, signed)


def test_names_are_short() -> None:
    assert short_name("auto: epsilon-plus-flat") == "epsilon-plus-flat"
    assert short_name("['conv': Gamma(gamma=0.25, eps=1e-06)]") == "custom rules"
    assert short_name("Gamma(gamma=0.25, eps=1e-06)") == "Gamma(gamma=0.25, eps=1e-06)"
    assert short_name("lime (samples=500)", "lime") == "lime"


def test_a_layer_shows_its_strongest_channels() -> None:
    at = torch.zeros(1, 12, 2, 3)
    at[0, :, 0, 0] = torch.tensor([1.0, -9, 3, 8, -2, 5, 7, -6, 4, 10, 0, -11])
    told = sheet(made(torch.ones(1, 1, 4, 4), layers={"conv": at}), layer="conv")
    assert [each["index"] for each in told["channels"]] == [11, 9, 1, 3, 6, 7, 5, 8]
    assert [each["sum"] for each in told["channels"]] == [-11, 10, -9, 8, 7, -6, 5, 4]
    np.testing.assert_array_equal(values(told["channels"][0]["heat"]), at[0, 11].numpy())
    assert told["total"] == 10.0
    assert told["absorbed"] == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_an_error(bad: float) -> None:
    relevance = torch.ones(1, 1, 2, 2)
    relevance[0, 0, 0, 0] = bad
    with pytest.raises(NonFinite):
        sheet(made(relevance))
    with pytest.raises(NonFinite):
        sheet(Attribution(torch.ones(1, 2), torch.tensor([bad])))


def test_what_the_viewer_cannot_show_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="volume"):
        sheet(made(torch.ones(1, 2, 3, 4, 5)))
    with pytest.raises(InvalidInput, match="there are 2: a, b"):
        sheet(Attribution({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, torch.ones(1)))
    with pytest.raises(InvalidInput, match="no relevance of the layer 'conv'"):
        sheet(made(torch.ones(1, 2)), layer="conv")
    with pytest.raises(IndexError):
        sheet(made(torch.ones(1, 2)), 1)


def test_the_palette_is_that_of_pictures() -> None:
    from relprop.view.colours import colour_map

    colours = np.frombuffer(base64.b64decode(palette()), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(colours, colour_map("RdBu_r")(np.linspace(-1.0, 1.0, len(colours))))


def test_maps_and_pictures_come_back() -> None:
    array = np.array([[1.5, -2.0, 1e-30], [0.0, 3e38, -1e-8]])
    np.testing.assert_array_equal(values(heat(array)), array.astype("<f4"))
    picture = Image.effect_noise((7, 5), 60)
    told = encoded(picture)
    shown = Image.open(io.BytesIO(base64.b64decode(told["src"].removeprefix("data:image/png;base64,"))))
    assert (told["width"], told["height"]) == (7, 5)
    assert shown.tobytes() == picture.tobytes()
