"""Notebooks: what each result shows there, also where the notebook isn't trusted; bars; nothing popped up."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import relprop
from relprop import progress, zoo
from relprop.evaluate import pixel_flipping
from relprop.methods import IntegratedGradients, Occlusion, SmoothGrad
from relprop.progress import telling, told
from relprop.results import Comparison, Explanations
from relprop.view.inline import inlined

# Elements and properties that JupyterLab 4.6 leaves in the output of a notebook that isn't trusted
# (@jupyterlab/apputils, sanitizer.ts), as far as they stand here.
ELEMENTS = {
    "a", "b", "bdi", "br", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "h2", "h3", "img", "p", "pre",
    "section", "small", "span", "summary", "table", "tbody", "td", "th", "thead", "tr",
}  # fmt: skip
PROPERTIES = {
    "align-items", "background", "border", "border-bottom", "border-collapse", "border-radius", "box-sizing", "color",
    "cursor", "display", "flex", "flex-wrap", "float", "font", "font-size", "font-weight", "gap", "height",
    "grid-template-columns", "justify-content", "line-height", "margin", "margin-right", "max-height", "max-width",
    "min-width", "opacity", "outline", "overflow", "overflow-x", "padding", "text-align", "vertical-align",
    "white-space", "width", "word-break",
}  # fmt: skip
# What it takes away, and what is only a nicety.
NICETIES = {"font-variant-numeric", "overflow-wrap", "image-rendering", "outline-offset", "unicode-bidi"}


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def images(self) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag == "img"]

    @property
    def properties(self) -> set[str]:
        said = [part for _, attributes in self.elements for part in attributes.get("style", "").split(";")]
        return {part.partition(":")[0].strip() for part in said if ":" in part}


def pixels(image: dict[str, str]) -> np.ndarray[Any, Any]:
    """(height, width, 3) of a picture that stands in a page."""
    kind, _, content = image["src"].partition(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


@pytest.fixture(scope="module")
def explainer() -> relprop.Explainer:
    return relprop.Explainer(zoo.load("mnist-cnn"), bounds=(-1.0, 1.0))


@pytest.fixture(scope="module")
def digit() -> Tensor:
    return zoo.digits()[0][30:31]


@pytest.fixture(scope="module")
def text() -> relprop.TextAttribution:
    entry = zoo.text_entry("reviews-en")
    found = relprop.explain_text(
        entry.build(), entry.tokenizer, "Not bad at all, but <b>far</b> too zzyx.", labels=entry.labels
    )
    assert isinstance(found, relprop.TextAttribution)
    return found


@pytest.fixture(scope="module")
def results(explainer: relprop.Explainer, digit: Tensor, text: relprop.TextAttribution) -> dict[str, Any]:
    """One of each kind of result."""
    vit = relprop.explain(zoo.load("mnist-vit"), digit, attention=True)
    methods = {"lrp": explainer, "random values": lambda x, target: torch.rand(x.shape)}
    one = explainer(digit)
    return {
        "attribution": one,
        "of several": explainer(torch.cat([digit, digit])),
        "of a vector": relprop.explain(nn.Linear(12, 2).eval(), torch.randn(1, 12)),
        "text": text,
        "comparison": explainer.compare(digit, ["epsilon", "epsilon-plus-flat"], methods=["gradient"]),
        "targets": explainer(digit, targets=[3, 8]),
        "texts": Explanations([text, text]),
        "conservation": one.conservation,
        "report": explainer.check(digit),
        "flow": vit.flow(),
        "heads": vit.flow().heads(),
        "measurement": pixel_flipping(explainer.model, digit, methods, region=14, steps=2, random_orders=0),
    }


KINDS = (
    "attribution", "of several", "of a vector", "text", "comparison", "targets", "texts", "conservation", "report",
    "flow", "heads", "measurement",
)  # fmt: skip


@pytest.fixture(params=KINDS)
def shown(request: pytest.FixtureRequest, results: dict[str, Any]) -> str:
    """What IPython would send to the notebook of one result."""
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    bundle, _ = formatter.format(results[request.param])
    assert set(bundle) == {"text/plain", "text/html"} and bundle["text/plain"]
    html: str = bundle["text/html"]
    return html


class TestEveryResult:
    def test_it_runs_and_fetches_nothing(self, shown: str) -> None:
        reader = Reader(shown)
        assert not {tag for tag, _ in reader.elements} & {"script", "link", "iframe", "object", "input", "form"}
        for _, attributes in reader.elements:
            assert not any(name.startswith("on") for name in attributes)
            for name in ("src", "href"):
                assert attributes.get(name, "data:image/").startswith("data:image/")
        assert "url(" not in shown and "@import" not in shown

    def test_its_style_holds_for_nothing_else(self, shown: str) -> None:
        reader = Reader(shown)
        assert {tag for tag, _ in reader.elements} <= ELEMENTS  # no <style>, which would hold for the whole notebook
        assert not any("id" in attributes for _, attributes in reader.elements)

    def test_all_that_matters_survives_where_it_is_not_trusted(self, shown: str) -> None:
        reader = Reader(shown)
        assert reader.properties <= PROPERTIES | NICETIES
        assert "display" in reader.properties or "text-align" in reader.properties
        assert reader.images or "relevance" in reader.text
        assert all(image["alt"] or image["class"] == "sample" for image in reader.images)

    def test_letters_have_the_colour_of_the_page(self, shown: str) -> None:
        """Dark or light: a colour of letters is said only on a ground of its own."""
        for _, attributes in Reader(shown).elements:
            style = attributes.get("style", "").replace(" ", "")
            colours = re.findall(r"(?:^|;)color:([^;]+)", style)
            assert set(colours) <= {"inherit"} or "background:rgba" in style


class TestPictures:
    def test_the_map_is_the_one_of_to_pil(self, results: dict[str, Any]) -> None:
        given, heat = Reader(results["attribution"]._repr_html_()).images
        assert np.array_equal(pixels(heat), np.asarray(results["attribution"].to_pil(0)))
        assert pixels(given).shape == (224, 224, 3)

    def test_maps_are_as_large_as_they_are_shown(self, results: dict[str, Any]) -> None:
        for image in Reader(results["comparison"]._repr_html_()).images:
            height, width, _ = pixels(image).shape
            assert f"width: {width}px; height: auto" in image["style"] and height == width == 224

    def test_figures_are_those_of_the_result(self, results: dict[str, Any]) -> None:
        one = results["attribution"]
        said = Reader(one._repr_html_()).text
        assert f"{float(one.score[0]):+.4g}" in said and f"{float(one.total[0]):+.4g}" in said

    def test_a_comparison_has_a_map_of_each_with_its_name_and_sum(self, results: dict[str, Any]) -> None:
        compared = results["comparison"]
        assert isinstance(compared, Comparison) and isinstance(compared, dict)
        reader = Reader(compared._repr_html_())
        for (name, each), image in zip(compared.items(), reader.images[1:], strict=True):
            assert f"{name}: sum {float(each.total[0]):+.4g}" in reader.text
            assert np.array_equal(pixels(image), np.asarray(each.to_pil(0)))

    def test_of_a_large_batch_the_first_ten_are_compared(self, explainer: relprop.Explainer) -> None:
        compared = explainer.compare(zoo.digits()[0][:12], ["epsilon"])
        reader = Reader(compared._repr_html_())
        assert len(reader.images) == 20 and "The first 10 of 12 samples." in reader.text

    def test_what_has_no_picture_is_said_in_words(self, digit: Tensor) -> None:
        bad = relprop.Attribution(torch.full((1, 1, 2, 2), torch.nan), torch.ones(1))
        for several in (Comparison(bad=bad), Explanations([bad])):
            assert "NaN or infinity" in several._repr_html_()

    def test_the_flow_is_the_drawing_of_its_file(self, results: dict[str, Any], tmp_path: Path) -> None:
        """As an image: JupyterLab leaves of a drawing in the page only its words, all of them."""
        still = Reader(results["flow"]._repr_html_()).images[0]
        results["flow"].save(tmp_path / "flow.svg", legend=False)
        kind, _, content = still["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert base64.b64decode(content) == (tmp_path / "flow.svg").read_bytes()

    def test_nothing_pops_up(self, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        pyplot = pytest.importorskip("matplotlib.pyplot")
        monkeypatch.setattr(pyplot, "show", lambda *_: pytest.fail("a window was opened"))
        monkeypatch.setattr(Image.Image, "show", lambda *_: pytest.fail("a window was opened"))
        assert isinstance(results["attribution"].to_pil(0), Image.Image)
        assert results["attribution"].plot().axes and not pyplot.get_fignums()
        results["measurement"]._repr_html_()
        assert not pyplot.get_fignums()


class TestTables:
    def test_the_balance_and_the_operations_that_took_something_up(self, results: dict[str, Any]) -> None:
        balance = results["conservation"]
        said = Reader(balance._repr_html_()).text
        for value in (balance.score, balance.relevance, balance.difference, *balance.absorbed.values()):
            assert f"{value:+.4g}" in said
        lossy = [op for op in balance.operations if abs(op.difference) > 1e-4]
        assert lossy and all(op.module in said for op in lossy)

    def test_the_report_has_every_operation(self, results: dict[str, Any]) -> None:
        report = results["report"]
        html = report._repr_html_()
        assert html.count("<tr") == len(report.operations) + 1 and report.rules in html

    def test_what_is_not_supported_is_said(self) -> None:
        class Decomposed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.linalg.svd(x)[1]

        said = Reader(relprop.check(Decomposed().eval(), torch.randn(1, 3, 3))._repr_html_()).text
        assert "Not supported: 1" in said and "linalg_svd" in said

    def test_a_measurement_has_its_tables_and_its_curves(
        self, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader = Reader(results["measurement"]._repr_html_())
        assert len(reader.images) == 1 and pixels(reader.images[0]).shape[1] > 500
        for table in results["measurement"].tables():
            assert all(cell in reader.text for row in table.rows for cell in row)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        without = Reader(results["measurement"]._repr_html_())
        assert not without.images and 'pip install "relprop[plot]"' in without.text

    def test_words_keep_their_colour_and_line(self, text: relprop.TextAttribution) -> None:
        words = {
            attributes["title"].split(":")[0]: attributes.get("style", "")
            for tag, attributes in Reader(text._repr_html_()).elements
            if tag == "span" and "title" in attributes
        }
        assert list(words)[:3] == ["Not", "bad", "at"]
        for word in text.words:
            if abs(word.relevance) > 0.1 * abs(text.strongest[0].relevance):
                line = "solid" if word.relevance > 0 else "dashed"
                assert f"border-bottom: 2px {line}" in words[word.text] and "background:rgba(" in words[word.text]


class TestInline:
    @pytest.mark.parametrize(
        ("style", "expected"),
        [
            (".a { color: red; }", "color: red"),
            (".a p { margin: 0; } p { margin: 1px; }", "margin: 0"),  # more classes win, wherever they stand
            (".a > p { margin: 0; }", ""),
            (".a > div > p.b { margin: 0; }", "margin: 0"),
            ("p.b.c { margin: 0; }", ""),
            ("p { margin: 0; margin-left: 1px; } .b { margin: 2px; }", "margin-left: 1px; margin: 2px"),
            (".b:hover { margin: 0; } @media print { .b { margin: 0; } }", ""),
            ("p, i { top: 0; }", "top: 0"),
        ],
    )
    def test_what_holds_stands_on_the_element(self, style: str, expected: str) -> None:
        made = inlined('<div class="a"><div><br><p class="b">x &amp; &#39;</p></div></div>', style)
        found = re.search(r'<p class="b"(?: style="([^"]*)")?>x &amp; &#39;</p>', made)
        assert found is not None and (found[1] or "") == expected if ".a {" not in style else expected in made

    def test_its_own_style_goes_last(self) -> None:
        assert inlined('<p style="top: 1px">', "p { top: 0; }") == '<p style="top: 0; top: 1px">'


class Notebook:
    """What a notebook shows of what is displayed and updated, in order."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, content: dict[str, str], raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.shown.append(content)
        return SimpleNamespace(update=lambda content, raw: self.shown.append(content))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    made = Notebook()
    display = SimpleNamespace(display=made.display)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    return made


def terminal(monkeypatch: pytest.MonkeyPatch, kind: str = "xterm-256color") -> io.StringIO:
    """stderr from now on."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    return stream


Work = Callable[[Any], Any]


def works() -> Iterator[Any]:
    """Long work of every kind, with progress=... as given, and how many steps it has."""
    model, x = zoo.load("mnist-mlp"), zoo.digits()[0][:4]
    linear, signal = nn.Linear(6, 2).eval(), torch.randn(2, 6)
    entry = zoo.text_entry("reviews-en")
    reader = entry.build()
    yield "batches", 4, lambda p: list(relprop.Explainer(model).batches(x, batch=2, progress=p))
    yield "texts", 2, lambda p: relprop.explain_text(reader, entry.tokenizer, ["Good.", "Bad."], progress=p)
    for method in (IntegratedGradients, SmoothGrad, Occlusion):
        steps = (
            {"steps": 3} if method is IntegratedGradients else {"samples": 3} if method is SmoothGrad else {"patch": 2}
        )
        yield method.name, 3, lambda p, m=method, s=steps: relprop.explain(linear, signal, method=m(progress=p, **s))
    given = {"lrp": relprop.Explainer(model)}
    flipped = {"region": 14, "steps": 1, "random_orders": 0, "batch_size": 2}
    yield "pixels", 4, lambda p: pixel_flipping(model, x, given, progress=p, **flipped)


WORKS = {name: (count, work) for name, count, work in works()}


@pytest.mark.parametrize("name", WORKS)
class TestProgress:
    def test_a_function_is_told_each_step(self, name: str) -> None:
        count, work = WORKS[name]
        seen: list[tuple[int, int]] = []
        work(lambda done, total: seen.append((done, total)))
        assert seen[-1] == (count, count) and [done for done, _ in seen] == sorted({done for done, _ in seen})

    def test_a_terminal_has_a_bar_that_goes(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        count, work = WORKS[name]
        stream = terminal(monkeypatch)
        work(True)
        sent = stream.getvalue()
        assert f"{count} of {count}" in sent and sent.endswith("\r\x1b[K") and "\n" not in sent

    def test_a_notebook_has_one_bar_and_nothing_of_it_is_left(self, name: str, notebook: Notebook) -> None:
        count, work = WORKS[name]
        work(True)
        assert (
            f"{count} of {count}" in notebook.shown[-2]["text/html"]
            and "<script" not in notebook.shown[-2]["text/html"]
        )
        assert notebook.shown[-1] == {"text/plain": "", "text/html": ""}

    def test_elsewhere_and_unasked_there_is_nothing(self, name: str, capfd: pytest.CaptureFixture[str]) -> None:
        for asked in (True, False, None):
            if not (name == "batches" and asked is None):
                WORKS[name][1](asked)
        assert capfd.readouterr() == ("", "")


def test_the_bar_goes_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), telling(True, "dividing") as tell:
        tell(1, 3)
        raise ZeroDivisionError
    assert "1 of 3" in stream.getvalue() and stream.getvalue().endswith("\r\x1b[K")


def test_a_dumb_terminal_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch, "dumb")
    assert list(told([1, 2], True, "counting")) == [1, 2] and stream.getvalue() == ""


def test_a_notebook_that_runs_shows_pictures_and_no_bar_that_is_left() -> None:
    """Cells run by a kernel, as by nbconvert --execute."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    made = nbformat.v4.new_notebook()
    made.cells = [
        nbformat.v4.new_code_cell(code)
        for code in (
            "import relprop\nfrom relprop import zoo\nexplainer = relprop.Explainer(zoo.load('mnist-mlp'))\n"
            "explainer(zoo.digits()[0][:1])",
            "len(list(explainer.batches(zoo.digits()[0][:6], batch=2, progress=True)))",
            "explainer(zoo.digits()[0][:1]).to_pil()",
        )
    ]
    nbclient.NotebookClient(made, timeout=120, kernel_name="python3").execute()
    first, second, third = (cell.outputs for cell in made.cells)
    assert first[-1]["data"]["text/html"].startswith('<div class="relprop"')
    assert [each.get("data", {}).get("text/html") for each in second] == ["", None]
    assert second[-1]["data"]["text/plain"] == "3" and not any(each.output_type == "stream" for each in second)
    assert "image/png" in third[-1]["data"]
