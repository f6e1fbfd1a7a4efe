"""Pictures of how relevance flows through a Transformer: their figures, what they show, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from test_latent import RULES, TOKENS, Attention, Encoder, encoder, sentence
from torch import Tensor, nn

import relprop
from relprop.attribution import Attribution
from relprop.errors import InvalidFile, InvalidInput, NonFinite
from relprop.view.flow import Flow, Heads
from relprop.view.flow_sheet import MOST_COLUMNS, WIDEST, flow_sheet, heads_sheet

SVG = "{http://www.w3.org/2000/svg}"
RED, BLUE = "#b2182b", "#2166ac"
WORDS = ("the", "film", "is", "wonderful", "재미있다", "<b>&amp;")


@pytest.fixture(scope="module")
def explained() -> Attribution:
    found: Attribution = relprop.explain(encoder("by hand"), sentence(), 1, rules=RULES["cp-lrp"], attention=True)
    return found


@pytest.fixture
def flow(explained: Attribution) -> Flow:
    return explained.flow(0, tokens=WORDS)


def made(tokens: int = 5, blocks: int = 2, heads: int = 2) -> Flow:
    """A flow without relevance, to be filled."""
    return Flow(
        states=np.zeros((blocks + 1, tokens)),
        passed=tuple(np.zeros((heads, tokens, tokens)) for _ in range(blocks)),
        elsewhere=np.zeros((blocks, tokens)),
        tokens=tuple(f"w{place}" for place in range(tokens)),
        blocks=tuple(f"blocks.{place}" for place in range(blocks)),
        claim="class 1",
        score=2.0,
    )


# Its figures


def test_its_states_and_messages_are_those_of_the_explanation(explained: Attribution) -> None:
    flow = explained.flow(2)
    assert flow.states.shape == (3, TOKENS) and flow.messages.shape == (2, TOKENS, TOKENS)
    assert isinstance(explained.relevance, Tensor)
    assert flow.states[0] == pytest.approx(explained.relevance[2].numpy(), abs=0)
    for place, relevance in enumerate(explained.layers.values()):
        assert flow.states[place + 1] == pytest.approx(relevance[2].sum(-1).numpy(), abs=0)
    for place, passed in enumerate(explained.attention.values()):
        assert flow.messages[place] == pytest.approx(passed[2].sum(0).numpy(), abs=1e-15)
        assert replace(flow, head=1).messages[place] == pytest.approx(passed[2, 1].numpy(), abs=0)


def test_what_leaves_a_state_is_what_it_kept_and_what_it_passed(explained: Attribution) -> None:
    flow = explained.flow(0)
    passed = flow.messages * (1 - np.eye(TOKENS))
    assert flow.kept + passed.sum(-1) == pytest.approx(flow.states[1:], abs=1e-12)


def test_of_one_head_what_is_kept_is_what_it_passed_to_its_own_token(flow: Flow) -> None:
    one = replace(flow, head=0)
    assert one.kept == pytest.approx(np.stack([np.diag(each[0]) for each in flow.passed]), abs=0)


def test_heads_are_the_sums_of_what_they_passed(explained: Attribution) -> None:
    values = explained.flow(1).heads().values
    expected = torch.stack([heads[1] for heads in explained.heads.values()]).numpy()
    assert values == pytest.approx(expected, abs=1e-15)


def test_tokens_that_are_merged_add_up(flow: Flow) -> None:
    joined = flow.merged([[0], [1, 2], [3, 4, 5]], ["a", "b", "c"])
    assert joined.tokens == ("a", "b", "c")
    assert joined.states.sum(1) == pytest.approx(flow.states.sum(1), abs=1e-12)
    assert joined.messages[1, 2, 1] == pytest.approx(flow.messages[1, 3:, 1:3].sum(), abs=1e-15)
    # What passed within a word stayed on it.
    within = flow.messages[:, 3:, 3:].sum((1, 2)) - np.einsum("bii->b", flow.messages[:, 3:, 3:])
    assert joined.kept[:, 2] == pytest.approx(flow.kept[:, 3:].sum(1) + within, abs=1e-12)


def test_cross_attention_is_no_part_of_what_a_token_keeps() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
            self.decoder = nn.TransformerDecoder(layer, 2)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            return self.head(self.decoder(x, memory)[:, -1])

    torch.manual_seed(0)
    model = Decoder().double().eval()
    given = torch.randn(1, 4, 8, dtype=torch.float64), torch.randn(1, 3, 8, dtype=torch.float64)
    found = relprop.explain(model, given, 0, attention=True)
    with pytest.raises(InvalidInput, match=r"attends 2 times.*flow\(part='decoder.layers'\)"):
        found.flow()
    flow = found.flow(part="decoder")
    crossed = [passed[0].sum((0, 2)).numpy() for name, passed in found.attention.items() if "multihead" in name]
    assert flow.elsewhere == pytest.approx(np.stack(crossed), abs=1e-15) and np.abs(flow.elsewhere).max() > 0
    taken = flow.messages.sum(-1) - np.einsum("bii->bi", flow.messages) + flow.elsewhere
    assert flow.kept == pytest.approx(flow.states[1:] - taken, abs=1e-15)
    assert flow.states[0] == pytest.approx(found.relevance[0][0].sum(-1).numpy(), abs=0)
    assert any("cross attention" in note for note in flow.notes)


class Patches(nn.Module):
    """Pictures (batch, 1, 8, 12) as 2 x 3 patches of 4 x 4, after tokens for no patch."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, extra, 8)) if extra else None
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 8, batch_first=True) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.first is not None:
            tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]


@pytest.mark.parametrize(("extra", "names"), [(0, ()), (1, ("class token",)), (2, ("class token", "extra token"))])
def test_patches_have_the_relevance_of_their_pixels(extra: int, names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    found = relprop.explain(Patches(extra).eval(), torch.randn(2, 1, 8, 12), 3, attention=True)
    flow = found.flow(1)
    assert flow.tokens == (*names, *map(str, range(extra, extra + 6)))
    pixels = found.relevance[1, 0]
    assert flow.states[0, extra + 5] == pytest.approx(float(pixels[4:, 8:].sum()), rel=1e-5)
    assert flow.states[0, extra + 1] == pytest.approx(float(pixels[:4, 4:8].sum()), rel=1e-5)
    assert (flow.states[0, :extra] == 0).all()


def test_the_batch_may_come_second() -> None:
    class Turned(nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Tensor) -> Tensor:
            if self.encoder.layers[0].self_attn.batch_first:
                return self.encoder(x)[:, 0]
            return self.encoder(x.transpose(0, 1))[0]

    torch.manual_seed(0)
    model, same = Turned(True).double().eval(), Turned(False).double().eval()
    same.load_state_dict(model.state_dict())
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    flows = [relprop.explain(each, x, 2, attention=True).flow(1) for each in (model, same)]
    assert flows[0].states == pytest.approx(flows[1].states, abs=1e-12)
    assert flows[0].messages == pytest.approx(flows[1].messages, abs=1e-12)


# What it shows


def shapes(svg: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{kind}"))


def titles(svg: str, kind: str) -> dict[str, ElementTree.Element]:
    """The shapes that say what they are when pointed at."""
    named = {}
    for shape in shapes(svg, kind):
        title = shape.find(f"{SVG}title")
        if title is not None:
            named[title.text or ""] = shape
    return named


def saved(flow: Flow | Heads, folder: Path, ending: str = "svg") -> str:
    flow.save(folder / f"made.{ending}")
    return (folder / f"made.{ending}").read_text(encoding="utf-8")


def test_every_state_has_a_cell_and_every_word_a_column(flow: Flow, tmp_path: Path) -> None:
    svg = saved(flow, tmp_path)
    cells = titles(svg, "rect")
    assert len(cells) == 3 * TOKENS
    for row, name in enumerate(("input", "block 1", "block 2")):
        for token, word in enumerate(WORDS):
            value = flow.states[row, token]
            cell = cells[f"{word}, {name}: {value:+.4g}"]
            assert cell.get("fill") == (RED if value > 0 else BLUE)
            assert float(cell.get("fill-opacity", "nan")) == pytest.approx(
                abs(value) / np.abs(flow.states).max(), abs=6e-4
            )
    written = [label.text for label in shapes(svg, "text")]
    assert set(WORDS) <= set(written)
    for row in flow.states:
        assert f"sum {row.sum():+.4g}" in written


def test_lines_say_who_passed_what_to_whom(tmp_path: Path) -> None:
    flow = made()
    flow.passed[1][0, 4, 2] = -0.75
    flow.passed[1][1, 4, 2] = -0.25
    flow.passed[0][0, 1, 3] = 0.5
    flow.states[2, 0] = 2.0
    lines = titles(saved(flow, tmp_path), "path")
    assert set(lines) == {"block 2, w4 to w2: -1", "block 1, w1 to w3: +0.5", "block 2, w0: +2"} | {
        # The states of w1 and w4 have no relevance, and yet they passed some.
        "block 1, w1: -0.5",
        "block 2, w4: +1",
    }
    strong, weak = lines["block 2, w4 to w2: -1"], lines["block 1, w1 to w3: +0.5"]
    assert (strong.get("stroke"), weak.get("stroke")) == (BLUE, RED)
    assert strong.get("stroke-dasharray") and not weak.get("stroke-dasharray")
    assert float(strong.get("stroke-width", "0")) == pytest.approx(2 * float(weak.get("stroke-width", "0")), abs=0.11)
    assert float(strong.get("stroke-width", "0")) == WIDEST

    # From the upper row to the lower, from the query's column to the key's.
    def ends(line: ElementTree.Element) -> list[float]:
        return [float(each) for each in re.findall(r"[\d.]+", line.get("d", ""))]

    x, y, end_x, end_y = ends(strong)
    assert x > end_x and y < end_y
    x, y, end_x, end_y = ends(weak)
    assert x < end_x and y < end_y


def test_the_legend_tells_the_colours_that_there_are() -> None:
    flow = made()
    flow.states[:] = flow.passed[0][0, 1, 3] = 1.0
    assert not any("blue" in entry.text for entry in flow_sheet(flow).legend)
    flow.passed[1][0, 1, 3] = -1.0
    assert any("blue, dashed: evidence against class 1" in entry.text for entry in flow_sheet(replace(flow)).legend)


def test_weak_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    flow = made()
    flow.passed[0][0, 0] = [0.0, 1.0, 0.3, -0.29, 0.0]
    svg = saved(replace(flow, least=0.3), tmp_path)
    assert {title for title in titles(svg, "path") if " to " in title} == {
        "block 1, w0 to w1: +1",
        "block 1, w0 to w2: +0.3",
    }
    assert "Lines left out: 1, each with less than 30% of the widest." in svg
    assert "Lines left out" not in saved(replace(flow, least=0.0), tmp_path)


def test_of_one_token_the_rest_is_faint(flow: Flow, tmp_path: Path) -> None:
    svg = saved(flow.of("wonderful"), tmp_path)
    for title, line in titles(svg, "path").items():
        own = "wonderful" in title
        assert (line.get("stroke") in (RED, BLUE)) == own
    strengths = {title: float(cell.get("fill-opacity", "nan")) for title, cell in titles(svg, "rect").items()}
    own = [value for title, value in strengths.items() if title.startswith("wonderful")]
    assert max(own) == 1.0
    assert max(value for title, value in strengths.items() if not title.startswith("wonderful")) < 0.2
    assert "In colour: what goes by way of &#x27;wonderful&#x27;" in svg
    assert flow.of(3).token == flow.of("wonderful").token == flow.of(-3).token == 3


def test_an_input_without_tokens_has_dotted_cells(flow: Flow, tmp_path: Path) -> None:
    flow.states[0] = np.nan
    svg = saved(flow, tmp_path)
    assert sum("not by token" in title for title in titles(svg, "rect")) == TOKENS
    assert "dotted frame" in svg and "nan" not in svg
    assert flow.to_pil().width > 200


def test_no_relevance_at_all_is_a_picture_too() -> None:
    sheet = flow_sheet(made())
    assert sheet.strokes == [] and {box.share for box in sheet.boxes} == {0.0}
    assert "No colour: no relevance." in [entry.text for entry in sheet.legend]
    assert {box.share for box in heads_sheet(made().heads()).boxes} == {0.0}


def test_many_tokens_are_added_up_where_they_are_weak() -> None:
    flow = made(tokens=300)
    flow.states[:] = np.random.default_rng(0).standard_normal((3, 300)) * 1e-3
    strong = [0, 7, 150, 151, 299]
    flow.states[1, strong] = 1.0
    sheet = flow_sheet(replace(flow, token=42))
    columns = [label.text for label in sheet.labels if label.text in flow.tokens or label.text == "…"]
    assert len(columns) <= MOST_COLUMNS
    assert {f"w{place}" for place in (*strong, 42)} <= set(columns)
    shown = sum(box.share for box in sheet.boxes if ", block 1:" in box.said and box.strength == 1)
    assert shown * np.abs(flow.states[:, 42]).max() == pytest.approx(flow.states[1, 42])
    hidden = 300 - sum(column != "…" for column in columns)
    assert any(f"{hidden} tokens of little relevance" in entry.text for entry in sheet.legend)


def test_a_row_of_merged_tokens_has_the_same_sum() -> None:
    flow = made(tokens=200)
    flow.states[:] = np.random.default_rng(0).standard_normal((3, 200))
    sums = [label.text for label in flow_sheet(flow).labels if label.text.startswith("sum")]
    assert sums == [f"sum {row.sum():+.4g}" for row in flow.states]


@pytest.mark.parametrize(("tokens", "blocks"), [(2, 1), (12, 6), (64, 12), (500, 12)])
def test_pictures_stay_within_a_page(tokens: int, blocks: int) -> None:
    flow = made(tokens, blocks)
    flow.states[:] = 1.0
    image = flow.to_pil()
    assert 400 <= image.width <= 1400 and image.height <= 1400
    assert flow.to_pil(legend=False).height < image.height


def test_words_are_not_drawn_over_each_other() -> None:
    flow = replace(made(6), tokens=("incomprehensibilities",) * 6)
    labels = [label for label in flow_sheet(flow).labels if label.text.startswith("inc")]
    assert all(label.upright for label in labels)
    flow = replace(made(6), tokens=WORDS)
    labels = [label for label in flow_sheet(flow).labels if label.text in WORDS]
    assert len(labels) == 6 and not any(label.upright for label in labels)


def test_pages_hold_all_of_it_without_scripts(flow: Flow, tmp_path: Path) -> None:
    html = saved(flow, tmp_path, "html")
    assert "<script" not in html and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "&lt;b&gt;&amp;amp;" in html and "<b>&amp;" not in html
    assert "color-scheme: light dark" in html and 'fill="currentColor"' in html
    assert "red, solid: evidence for class 1" in html and "blue, dashed: evidence against class 1" in html
    assert "data:image/svg+xml" in flow._repr_html_() and "blue, dashed: evidence against class 1" in flow._repr_html_()
    assert "red, solid" not in re.sub(r"<title>.*?</title>", "", saved_without_legend(flow, tmp_path))


def saved_without_legend(flow: Flow, folder: Path) -> str:
    flow.save(folder / "bare.html", legend=False)
    return (folder / "bare.html").read_text(encoding="utf-8")


def test_heads_have_a_cell_each_where_blocks_have_fewer_too(tmp_path: Path) -> None:
    flow = made(tokens=3, blocks=2, heads=3)
    few = np.zeros((2, 3, 3))
    few[1, 0, 2] = -0.5
    heads = replace(flow, passed=(few, flow.passed[1])).heads()
    assert np.isnan(heads.values[0, 2]) and heads.values[0, 1] == -0.5
    cells = titles(saved(heads, tmp_path), "rect")
    assert len(cells) == 5 and cells["block 1, head 1: -0.5"].get("fill") == BLUE
    heads.save(tmp_path / "heads.png")
    assert heads.to_pil().mode == "RGB" and "data:image/svg+xml" in heads._repr_html_()


def test_a_file_of_another_kind_is_refused(flow: Flow, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"\.png, \.svg, \.html"):
        flow.save(tmp_path / "flow.jpg")
    with pytest.raises(InvalidFile, match="no folder"):
        flow.save(tmp_path / "none" / "flow.png")


# What it refuses


def refused(model: nn.Module, x: Tensor, message: str, **options: object) -> None:
    found = relprop.explain(model.eval(), x, 0, attention=True)
    with pytest.raises(InvalidInput, match=message):
        found.flow(**options)  # type: ignore[arg-type]


def test_an_explanation_without_attention_is_refused() -> None:
    found = relprop.explain(encoder("fused"), sentence(), 0)
    with pytest.raises(InvalidInput, match="attention=True"):
        found.flow()


def test_a_block_that_runs_several_times_is_refused() -> None:
    class Shared(Encoder):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.pieces(ids)
            for _ in range(2):
                x = self.blocks[0](x, None)
            return self.head(x[:, 0])

    refused(Shared("module", blocks=1), sentence(), "more than once")


def test_blocks_that_differ_in_their_tokens_are_refused() -> None:
    class Pyramid(Encoder):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.blocks[0](self.pieces(ids), None)
            x = self.blocks[1](x.unflatten(1, (-1, 2)).mean(2), None)
            return self.head(x[:, 0])

    refused(Pyramid("by hand"), sentence(), r"6 in 'blocks.0', 3 in 'blocks.1'.*attribution.layers")


def test_attention_within_windows_is_refused() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention("by hand")

        def forward(self, x: Tensor) -> Tensor:
            return x + self.attention(x.unflatten(1, (2, 3)).flatten(0, 1), None).reshape(x.shape)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 8), nn.Sequential(Windows(), Windows()), nn.Flatten(), nn.Linear(48, 2))
    found = relprop.explain(model.eval(), sentence(), 0, attention=True, layers=["1.*"])
    with pytest.raises(InvalidInput, match="3 queries to 3 keys, and the block has 6 tokens"):
        found.flow()


def test_blocks_inside_a_part_of_a_sequence_are_found_by_name() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(20, 8), stack, nn.Flatten(), nn.Linear(48, 2))
    found = relprop.explain(model.eval(), sentence(), 0, attention=True, layers=["1.layers.*"])
    assert found.flow().blocks == ("1.layers.0", "1.layers.1")


def test_attention_outside_of_any_block_is_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pieces, self.attention = nn.Embedding(20, 8), Attention("fused")

        def forward(self, ids: Tensor) -> Tensor:
            return self.attention(self.pieces(ids), None)[:, 0]

    refused(Bare(), sentence(), "stands in no block.*layers=")


def test_several_lists_of_blocks_need_a_choice() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pieces = nn.Embedding(20, 8)
            self.inner = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return self.inner(self.pieces(ids), self.pieces(ids[:, :4]))[:, -1]

    torch.manual_seed(0)
    model = Whole()
    refused(model, sentence(), "part='encoder' or part='decoder'")
    refused(model, sentence(), "fits 0 lists of blocks", part="nowhere")
    found = relprop.explain(model.eval(), sentence(), 0, attention=True)
    assert found.flow(part="encoder").states.shape == (3, 6)
    assert found.flow(part="decoder").blocks == ("inner.decoder.layers.0", "inner.decoder.layers.1")
    assert np.isnan(found.flow(part="decoder").states[0]).all()


def test_inputs_of_one_length_are_not_mistaken_for_each_other() -> None:
    class Both(Encoder):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
            x = self.pieces(first) + self.pieces(second)
            for block in self.blocks:
                x = block(x, None)
            return self.head(x[:, 0])

    found = relprop.explain(Both("fused").eval(), (sentence(), sentence().flip(1)), 0, attention=True)
    flow = found.flow()
    assert np.isnan(flow.states[0]).all() and any("2 inputs have 6 tokens" in note for note in flow.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "nowhere"}, r"no token 'nowhere'; there are '0', '1'"),
        ({"token": 6}, "token=0 to token=5"),
        ({"token": 1.5}, "write the token itself or its index"),
        ({"token": "b", "tokens": list("abbbcd")}, "'b' stands at 1, 2, 3; write which, as token=1"),
        ({"tokens": ["a"]}, "has 1 names, and the blocks have 6 tokens"),
        ({"tokens": "abcdef"}, "tokens="),
        ({"head": 2}, "head=0 to head=1"),
        ({"least": 1.0}, "least=1.0"),
    ],
)
def test_mistakes_are_told(explained: Attribution, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message) if "=" in message else message):
        explained.flow(**options)  # type: ignore[arg-type]


def test_relevance_that_is_not_finite_has_no_picture() -> None:
    flow = made()
    flow.states[1, 0] = np.inf
    with pytest.raises(NonFinite):
        replace(flow)


def test_a_sample_beyond_the_batch_is_an_index_error(explained: Attribution) -> None:
    with pytest.raises(IndexError):
        explained.flow(3)


# In the documentation


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parent.parent / "docs" / "en" / "flow.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/en/flow.md", "exec"), names)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"flow.png", "flow-word.png", "heads.png", "head.png", "digit.svg", "digits.npz"}
