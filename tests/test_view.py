"""What a picture of relevance may be relied on to show."""

from __future__ import annotations

import base64
import dataclasses
import io
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from relprop.attribution import Attribution
from relprop.errors import InvalidInput, MissingExtra, NonFinite
from relprop.view import COLOUR_MAPS, Legend, Picture, Section, colour_map, page
from relprop.view.colours import STEPS

DIVERGING = [name for name, made in COLOUR_MAPS.items() if made.diverging]
POSITIVE = [name for name, made in COLOUR_MAPS.items() if not made.diverging]
CENTRE = {"coldnhot": (0, 0, 0), "gray": (0, 0, 0), "hot": (0, 0, 0)}
NASTY = "<script>alert('1')</script> \"&\" \x00]]>"


def explained(relevance: Tensor, **other: Any) -> Attribution:
    return Attribution(relevance, relevance.reshape(len(relevance), -1).sum(1), **other)


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def images() -> Attribution:
    torch.manual_seed(0)
    relevance = torch.randn(3, 3, 8, 8)
    relevance[:, :, 0] = 0
    return explained(relevance, inputs=torch.rand(3, 3, 8, 8), target=torch.tensor([0, 1, 2]), labels=("cat", "dog"))


class TestColours:
    @pytest.mark.parametrize("name", list(COLOUR_MAPS))
    def test_zero_has_exactly_the_middle_colour(self, name: str) -> None:
        assert colour_map(name).colour(0.0) == CENTRE.get(name, (255, 255, 255))

    @pytest.mark.parametrize("name", DIVERGING)
    def test_opposite_values_have_mirrored_colours(self, name: str) -> None:
        made = colour_map(name)
        values = np.random.default_rng(0).uniform(-1, 1, 1000)
        mirrored = dataclasses.replace(made, table=made.table[::-1])
        assert np.array_equal(made(-values), mirrored(values))
        assert made.table.shape == (2 * STEPS + 1, 3)

    @pytest.mark.parametrize("name", DIVERGING)
    @pytest.mark.parametrize("size", [0.1, 0.4, 0.75, 1.0, 3.0])
    def test_positive_is_red_and_negative_is_blue(self, name: str, size: float) -> None:
        red, _, blue = colour_map(name).colour(size)
        assert red > blue
        red, _, blue = colour_map(name).colour(-size)
        assert blue > red

    def test_the_default_has_the_published_colours(self) -> None:
        made = colour_map("RdBu_r")
        assert made.colour(1.0) == (103, 0, 31)
        assert made.colour(0.6) == (214, 96, 77)
        assert made.colour(-0.2) == (209, 229, 240)
        assert made.colour(-1.0) == (5, 48, 97)

    @pytest.mark.parametrize("name", POSITIVE)
    def test_a_map_for_positive_values_refuses_negative_ones(self, name: str) -> None:
        made = colour_map(name)
        with pytest.raises(InvalidInput, match="diverging"):
            made([0.5, -0.1])
        assert made.colour(-1e-9) == made.colour(0.0)
        assert sorted(map(sum, made.table.tolist())) == list(map(sum, made.table.tolist()))

    def test_an_unknown_map_is_an_error_that_lists_the_known(self) -> None:
        with pytest.raises(InvalidInput, match=r"RdBu_r, bwr, seismic, coldnhot, gray, hot"):
            colour_map("viridis")


class TestPicture:
    def test_one_sample_fills_the_picture_and_small_ones_are_enlarged(self) -> None:
        assert explained(torch.ones(1, 1, 28, 28)).to_pil().size == (224, 224)
        assert explained(torch.ones(1, 3, 224, 224)).to_pil().size == (224, 224)
        assert explained(torch.ones(1, 3, 300, 500)).to_pil().size == (500, 300)
        assert explained(torch.ones(1, 3, 30, 50)).to_pil(scale=2).size == (100, 60)
        assert explained(torch.ones(1, 12, 1000)).to_pil().size == (1000, 72)
        assert explained(torch.ones(1, 10)).to_pil().size == (320, 32)
        assert explained(torch.ones(1)).to_pil().size == (32, 32)

    def test_every_value_becomes_a_square_of_its_colour(self) -> None:
        heat = torch.tensor([[[1.0, 0.0], [-1.0, 0.5]]])
        drawn = pixels(explained(heat).to_pil(scale=3))
        made = colour_map("RdBu_r")
        assert np.array_equal(drawn, np.repeat(np.repeat(made(heat[0].numpy()), 3, 0), 3, 1))
        assert drawn[0, 3].tolist() == [255, 255, 255]

    def test_channels_are_summed_wherever_they_stand(self) -> None:
        torch.manual_seed(2)
        heat = torch.randn(1, 3, 6, 7)
        first = explained(heat).to_pil()
        assert np.array_equal(pixels(first), pixels(explained(heat.permute(0, 2, 3, 1)).to_pil()))
        assert np.array_equal(pixels(first), pixels(explained(heat.sum(1)).to_pil()))

    def test_no_relevance_gives_a_blank_picture(self) -> None:
        nothing = explained(torch.zeros(1, 3, 8, 8))
        assert (pixels(nothing.to_pil()) == 255).all()
        assert (pixels(nothing.to_pil(clip=99, cmap="hot")) == 0).all()
        assert (pixels(nothing.to_pil(legend=True))[20:200, 20:200] == 255).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_tiny_relevance_shows_as_well_as_large(self, dtype: torch.dtype) -> None:
        heat = torch.tensor([[[1.0, -0.5], [0.0, 0.25]]], dtype=torch.float64)
        small = heat * (1e-300 if dtype == torch.float64 else 2.0**-12)
        assert np.array_equal(pixels(explained(heat).to_pil()), pixels(explained(small.to(dtype)).to_pil()))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_relevance_that_is_not_finite_is_an_error(self, value: float) -> None:
        attribution = explained(torch.tensor([[[1.0, value]]]))
        with pytest.raises(NonFinite):
            attribution.to_pil()
        assert "NaN or infinity" in attribution._repr_html_()

    def test_the_limit_is_each_samples_own_or_shared_or_given(self) -> None:
        two = explained(torch.tensor([[[1.0, 0.5]], [[4.0, -2.0]]]))
        full, none = colour_map("RdBu_r").colour(1.0), (255, 255, 255)
        corner = two.to_pil(0).getpixel
        assert corner((0, 0)) == full
        assert two.to_pil(0, limit="batch").getpixel((0, 0)) == colour_map("RdBu_r").colour(0.25)
        assert two.to_pil(1, limit="batch").getpixel((0, 0)) == full
        assert two.to_pil(0, limit=0.5).getpixel((0, 0)) == full
        assert two.to_pil(0, limit=1e9).getpixel((0, 0)) == none
        assert two.to_pil(0, limit="batch", clip=1).getpixel((0, 0)) == full

    def test_clipping_gives_full_colour_to_more_and_blanks_nothing(self) -> None:
        heat = torch.linspace(0, 1, 100).reshape(1, 10, 10)
        full = list(colour_map("RdBu_r").colour(1.0))
        assert (pixels(explained(heat).to_pil(scale=1)) == full).all(-1).sum() == 1
        assert (pixels(explained(heat).to_pil(scale=1, clip=50)) == full).all(-1).sum() == 50
        lonely = torch.zeros(1, 10, 10)
        lonely[0, 3, 3] = 1
        assert explained(lonely).to_pil(scale=1, clip=50).getpixel((3, 3)) == tuple(full)

    def test_several_samples_make_a_grid(self, images: Attribution) -> None:
        assert images.to_pil().size == (2 * 224 + 3 * 12, 2 * 224 + 3 * 12)
        drawn = pixels(images.to_pil())
        assert np.array_equal(drawn[12:236, 12:236], pixels(images.to_pil(0)))
        assert np.array_equal(drawn[12:236, 248:472], pixels(images[1].to_pil()))
        assert np.array_equal(drawn[248:472, 12:236], pixels(images.to_pil(-1)))

    def test_each_channel_has_a_panel_and_all_share_a_limit(self) -> None:
        heat = torch.tensor([1.0, -0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
        drawn = explained(heat).to_pil(channels="each")
        colours = [drawn.getpixel((12 + 100 + place * 236, 100)) for place in range(3)]
        assert colours == [colour_map("RdBu_r").colour(value) for value in (1.0, -0.5, 0.0)]

    def test_a_volume_is_a_row_of_at_most_sixteen_slices(self) -> None:
        few = explained(torch.randn(1, 2, 5, 8, 8)).to_pil(scale=1)
        many = explained(torch.randn(1, 2, 50, 8, 8)).to_pil(scale=1)
        assert few.size[0] == 12 + 5 * (8 + 12)
        assert many.size[0] == 12 + 16 * (8 + 12)

    def test_several_inputs_stand_side_by_side(self) -> None:
        parts = {"photo": torch.randn(2, 3, 8, 8), "age": torch.randn(2, 4)}
        attribution = Attribution(parts, torch.ones(2))
        assert attribution.to_pil(0).width == 12 + 224 + 12 + 4 * 32 + 12
        assert attribution.to_pil().height > 2 * 224
        assert Attribution(tuple(parts.values()), torch.ones(2)).to_pil(0).size == attribution.to_pil(0).size

    def test_more_dimensions_than_a_volume_has_are_an_error(self) -> None:
        with pytest.raises(InvalidInput, match="at most"):
            explained(torch.ones(1, 2, 2, 2, 2, 2)).to_pil()

    def test_a_sample_that_is_not_there_is_an_error(self, images: Attribution) -> None:
        with pytest.raises(IndexError):
            images.to_pil(3)

    @pytest.mark.parametrize(
        "choice",
        [
            {"cmap": "viridis"},
            {"clip": 0},
            {"clip": 101},
            {"clip": float("nan")},
            {"limit": 0.0},
            {"limit": float("inf")},
            {"limit": "all"},
            {"limit": 1.0, "clip": 99.0},
            {"overlay": 0},
            {"overlay": 1.5},
            {"overlay": True},
            {"image": Image.new("RGB", (8, 8))},
            {"scale": 0},
            {"scale": 1.5},
            {"channels": "max"},
            {"cmap": "gray"},
            {"overlay": 0.5, "image": Image.new("RGB", (8, 8))},
            {"overlay": 0.5, "image": [Image.new("RGB", (8, 9))] * 3},
        ],
        ids=lambda choice: ", ".join(choice),
    )
    def test_a_choice_that_cannot_be_met_is_an_error(self, images: Attribution, choice: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            images.to_pil(**choice)


class TestOverlay:
    def test_where_there_is_no_relevance_the_input_shows(self) -> None:
        values = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]]) * 7 - 3
        heat = torch.tensor([[[[0.0, 0.0], [1.0, -0.5]]]])
        drawn = pixels(explained(heat, inputs=values).to_pil(scale=1, overlay=0.6)).astype(int)
        assert drawn[0].tolist() == [[0, 0, 0], [255, 255, 255]]
        made = colour_map("RdBu_r")
        for column, (value, grey) in enumerate([(1.0, 127.5), (-0.5, 63.75)]):
            opacity = 0.6 * abs(value)
            expected = np.array(made.colour(value)) * opacity + grey * (1 - opacity)
            assert np.abs(drawn[1, column] - expected).max() <= 1.5

    def test_a_given_picture_may_be_finer_than_the_relevance(self) -> None:
        photo = Image.effect_noise((64, 64), 50)
        nothing = explained(torch.zeros(1, 3, 8, 8))
        drawn = pixels(nothing.to_pil(overlay=0.5, image=photo, scale=8))
        assert np.array_equal(drawn[..., 0], np.asarray(photo))

    def test_what_is_no_picture_can_not_lie_under_one(self) -> None:
        with pytest.raises(InvalidInput, match="picture"):
            explained(torch.ones(1, 5), inputs=torch.ones(1, 5)).to_pil(overlay=0.5)
        with pytest.raises(InvalidInput, match="image="):
            explained(torch.ones(1, 3, 8, 8)).to_pil(overlay=0.5)

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (5, 8, 8), (8, 8, 3), (8, 8), (2, 4, 8, 8)])
    @pytest.mark.parametrize("channels", ["sum", "each"])
    def test_every_shape_of_picture_can(self, shape: tuple[int, ...], channels: str) -> None:
        attribution = explained(torch.randn(2, *shape), inputs=torch.randn(2, *shape))
        plain = attribution.to_pil(channels=channels)
        overlaid = attribution.to_pil(channels=channels, overlay=0.5)
        assert plain.size == overlaid.size
        assert not np.array_equal(pixels(plain), pixels(overlaid))


class TestLegend:
    @pytest.mark.parametrize("name", list(COLOUR_MAPS))
    def test_says_what_each_colour_means(self, name: str) -> None:
        meanings = {text: colour for colour, text in Legend("cat", 0.5, name).entries}
        made = colour_map(name)
        assert f"{made.positive}: evidence for cat" in meanings
        assert meanings[f"{made.zero}: no relevance"] == made.colour(0.0)
        assert (f"{made.negative}: evidence against cat" in meanings) is made.diverging
        assert any("evidence against" in text for text in meanings) is made.diverging

    def test_says_the_limit_with_its_figure(self) -> None:
        assert Legend("cat", 0.125).ticks == ("-0.125", "0", "+0.125")
        assert Legend("cat", 0.125, "hot").ticks == ("0", "+0.125")
        assert "0.125" in Legend("cat", 0.125).scale
        assert "own" in Legend("cat", None).scale

    def test_is_drawn_below_the_picture_and_grows_with_its_words(self, images: Attribution) -> None:
        plain, short = images.to_pil(0), images.to_pil(0, legend=True)
        assert short.height > plain.height + 60
        wordy = explained(torch.ones(1, 4, 4), target=torch.tensor([0]), labels=("a long name " * 30,))
        assert wordy.to_pil(legend=True).height > explained(torch.ones(1, 4, 4)).to_pil(legend=True).height + 60
        explained(torch.ones(1, 4, 4), target=torch.tensor([0]), labels=("x" * 100_000,)).to_pil(legend=True)


def texts(document: str) -> str:
    return " ".join(ET.fromstring(document).itertext())


class TestSvg:
    @pytest.mark.parametrize("relevance", [torch.randn(3, 3, 8, 8), torch.randn(3, 5), torch.randn(3, 200)])
    def test_is_valid_with_title_description_and_legend_in_words(self, relevance: Tensor, tmp_path: Path) -> None:
        attribution = explained(relevance, target=torch.tensor([0, 0, 0]), labels=(NASTY,))
        attribution.save(tmp_path / "a.svg")
        text = (tmp_path / "a.svg").read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert [child.tag.rpartition("}")[2] for child in root[:2]] == ["title", "desc"]
        assert "<script" not in text
        assert "<script>alert('1')</script>" in texts(text)
        assert "red: evidence for" in texts(text)
        assert "blue: evidence against" in texts(text)

    def test_holds_the_very_pixels_of_the_picture(self, images: Attribution, tmp_path: Path) -> None:
        images.save(tmp_path / "a.svg", index=0, legend=False)
        image = next(ET.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}image"))
        assert "pixelated" in image.attrib["style"]
        stored = Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2])))
        assert np.array_equal(np.asarray(stored.convert("RGB")), pixels(images.to_pil(0)))

    def test_features_are_bars_in_proportion(self, tmp_path: Path) -> None:
        explained(torch.tensor([[1.0, -0.5, 0.0]])).save(tmp_path / "a.svg", legend=False)
        bars = [
            rect
            for rect in ET.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}rect")
            if len(rect) and rect[0].tag.endswith("title")
        ]
        assert [float(bar.attrib["height"]) for bar in bars] == [60.0, 30.0, 0.0]
        assert float(bars[0].attrib["y"]) < float(bars[1].attrib["y"]) == 60.0
        assert bars[0][0].text == "0: +1"

    def test_bars_refuse_negative_values_in_a_positive_map(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="diverging"):
            explained(torch.tensor([[1.0, -0.5]])).save(tmp_path / "a.svg", cmap="hot")
        assert not list(tmp_path.iterdir())


class Reader(HTMLParser):
    """Collects the tags, and checks that they close in order."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def assert_harmless(text: str) -> Reader:
    """No scripts, no handlers, nothing fetched from elsewhere, every picture described."""
    read = Reader(text)
    names = {tag for tag, _ in read.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "b"})
    assert not any(name.startswith("on") for _, attrs in read.tags for name in attrs)
    assert "http" not in text.replace("http://www.w3.org", "")
    for image in read.all("img"):
        assert image["alt"]
        assert (image["src"] or "").startswith("data:image/")
    return read


class TestHtml:
    def test_a_notebook_shows_the_heatmaps_in_words_too(self, images: Attribution) -> None:
        text = images._repr_html_()
        assert len(assert_harmless(text).all("img")) == 6
        for said in ("cat", "dog", "class 2", "score", "sum of relevance", "red: evidence for dog"):
            assert said in text
        assert "color: inherit" in text
        assert "background: transparent" in text

    def test_a_notebook_shows_ten_samples_and_says_so(self) -> None:
        many = explained(torch.randn(12, 1, 4, 4))
        assert len(Reader(many._repr_html_()).all("img")) == 10
        assert "first 10 of 12" in many._repr_html_()
        assert "first" not in many[:10]._repr_html_()

    def test_names_are_escaped(self, tmp_path: Path) -> None:
        attribution = Attribution(
            {NASTY: torch.randn(1, 3, 8, 8), "<b>": torch.randn(1, 4)},
            torch.ones(1),
            target=torch.tensor([0]),
            labels=(NASTY,),
            rules=NASTY,
            notes=(NASTY,),
        )
        attribution.save(tmp_path / "a.html")
        for text in (attribution._repr_html_(), (tmp_path / "a.html").read_text(encoding="utf-8")):
            assert_harmless(text)
            assert "\x00" not in text

    def test_what_can_not_be_drawn_is_said(self) -> None:
        assert "at most" in explained(torch.ones(1, 2, 2, 2, 2, 2))._repr_html_()

    def test_a_saved_page_stands_by_itself(self, images: Attribution, tmp_path: Path) -> None:
        images.save(tmp_path / "a.html", overlay=0.6)
        text = (tmp_path / "a.html").read_text(encoding="utf-8")
        read = assert_harmless(text)
        assert read.all("html") == [{"lang": "en"}]
        assert len(read.all("section")) == 3
        assert "prefers-color-scheme: dark" in text
        assert "the input in grey: no relevance" in text

    def test_a_gallery_of_sections(self) -> None:
        photo = Picture(Image.new("RGB", (28, 28)), "a seven", "")
        section = Section(
            NASTY, photo, [("class", NASTY), ("score", "+3.1")], [photo, photo, photo], Legend(NASTY, 0.5, "coldnhot")
        )
        text = page(NASTY, [section, Section("empty")], introduction=NASTY)
        read = assert_harmless(text)
        assert text.startswith("<!doctype html>")
        assert len(read.all("section")) == 2
        assert len(read.all("img")) == 4
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all("meta")
        assert "pixelated" in text
        assert "blue to cyan: evidence against" in text


class TestPlot:
    def test_without_matplotlib_the_error_names_the_extra(
        self, images: Attribution, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtra, match=r'pip install "relprop\[plot\]"'):
            images.plot()

    def test_a_figure_is_returned_and_pyplot_is_left_alone(self, images: Attribution) -> None:
        figures = pytest.importorskip("matplotlib.figure")
        before = "matplotlib.pyplot" in sys.modules
        drawn = images.plot(index=1)
        assert isinstance(drawn, figures.Figure)
        assert ("matplotlib.pyplot" in sys.modules) is before
        assert drawn._repr_png_().startswith(b"\x89PNG")  # in a notebook that has no pyplot
        axes = drawn.axes[0]
        assert np.array_equal(np.asarray(axes.images[0].get_array()), pixels(images.to_pil(1, scale=1)))
        assert axes.get_title().startswith("dog")
        assert "evidence against dog" in drawn.axes[-1].get_ylabel()
        drawn.savefig(io.BytesIO())

    def test_given_axes_are_drawn_on(self, images: Attribution) -> None:
        figures = pytest.importorskip("matplotlib.figure")
        mine = figures.Figure()
        axes = mine.add_subplot()
        assert images.plot(axes, 0, overlay=0.5) is mine
        assert len(axes.images) == 1
        with pytest.raises(InvalidInput, match="ax"):
            images.plot(axes, channels="each")

    def test_features_are_bars_and_inputs_stand_side_by_side(self) -> None:
        pytest.importorskip("matplotlib.figure")
        drawn = Attribution((torch.randn(1, 3, 8, 8), torch.randn(1, 6)), torch.ones(1)).plot()
        assert len(drawn.axes[0].images) == 1
        assert len(drawn.axes[1].patches) == 6


def test_korean_class_names_are_drawn_with_letters_where_the_system_has_them() -> None:
    """Fails if every letter outside of Latin becomes the same empty box."""
    from relprop.view import layout

    if layout._wide_font() is None:
        pytest.skip("no font with Korean letters on this system")

    def picture(name: str) -> Image.Image:
        attribution = Attribution(torch.ones(1, 4, 4), torch.ones(1), torch.tensor([0]), labels=(name,))
        return attribution.to_pil(legend=True)

    assert picture("고양이").tobytes() != picture("강아지").tobytes()
