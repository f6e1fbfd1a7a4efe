"""The benchmark suite runs, measures what it says, and compares us with peers that follow the same rule."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import relprop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as suite
from benchmarks import memory
from benchmarks.bounds import verdicts
from benchmarks.cases import CASES, Case
from benchmarks.curves import CURVES, Point, exponent
from benchmarks.machine import Stamp
from benchmarks.measure import Latency, Row, latency, measure
from benchmarks.messages import Messages
from benchmarks.methods import Comparison, Subject, methods
from benchmarks.peers import Peer
from benchmarks.report import render
from benchmarks.startup import EXPLAIN, HELP, Startup
from benchmarks.store import Store
from benchmarks.timing import in_turns, quartiles

STAMP = Stamp("2000-01-01 00:00 UTC", "0000000", 1, "python -m benchmarks", "a processor, torch 2.0.0")


def without_biases(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def built() -> nn.Module:
        model = build()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.data.zero_()
        return model

    return built


def peer(case: Case, title: str) -> Peer:
    """The peer's method on this case; skips the test where it is not installed."""
    library = title.split(":")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    found = methods(case)[title].peer
    assert found is not None
    return found


def test_a_tiny_selection_runs_and_is_written_down(tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    suite.main(["--cases", "lenet-1", "--repeats", "1", "--quick", "--no-peers", "--seconds", "1", "--out", str(out)])
    page = out.read_text()
    for heading in ("# What an explanation costs", "## Small"):
        assert heading in page
    assert "## Bounds" not in page
    for name in methods(CASES["lenet-1"]):
        assert (f"| lenet-1 | {name} |" in page) == (":" not in name)
    assert "--out" not in page and str(tmp_path) not in page
    parts = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert [part["name"] for part in parts] == ["lenet-1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cases", "lenet-1", "vgg61*"], "--cases vgg61* matches nothing; there is mlp-256, lenet-256, lenet-1, "),
        (["--cases", "curve-lstm", "--no-curves"], "--cases curve-lstm matches nothing"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["--threads", "-2"], "--threads must be at least 1, not -2"),
        (["--seconds", "nan"], "--seconds must be at least 1, not nan"),
        (["--out", "nowhere/results.md"], "the folder of --out does not exist: nowhere"),
        (["--out", "results.jsonl"], "--out must be the name of a Markdown file"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        suite.main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_list_is_of_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    suite.main(["--list", "--cases", "lenet-*", "curve-*", "startup"])
    curves = [curve.name for curve in CURVES]
    assert capsys.readouterr().out.split("\n") == ["lenet-256", "lenet-1", *curves, "startup", ""]


def test_latencies_are_of_single_calls() -> None:
    found = latency(CASES["lenet-1"], calls=5)
    assert next(each for each in found if each.method == "gradient").ratio == 1.0
    assert all(0 < each.median <= each.p90 and each.calls == 5 for each in found)
    assert {"epsilon", "epsilon, recorded"} <= {each.method for each in found}


def test_every_section_of_the_page_is_written(tmp_path: Path) -> None:
    store, curve = Store(tmp_path / "results.jsonl"), CURVES[1]
    points = [
        Point(curve.name, curve.quantity, size, action, cpu, 1.0)
        for size in (25, 50, 100)
        for action, cpu in (("gradient", size / 1e3), ("epsilon", size**2 / 1e4))
    ]
    store.add("curve", curve.name, STAMP, points)
    ways = (("epsilon", 1.6), ("epsilon, recorded", 1.4))
    store.add("latency", "latency", STAMP, [Latency("lenet-1", way, 5, 0.002, 0.003, ratio) for way, ratio in ways])
    store.add("startup", "startup", STAMP, [Startup(HELP, 3, 0.35, 0.3), Startup(EXPLAIN, 3, 2.5, 2.2, 0.4, 0.2)])
    store.add("messages", "messages", STAMP, [Messages(60, 25, 256, 0.001, 0.05)])
    page = render(store, replace(STAMP, date="2000-01-02 00:00 UTC"))
    assert "| p | 1.00 | 2.00 |" in page and "Grows faster than linearly, and than the gradient: epsilon." in page
    assert "| latency at batch 1, epsilon, step by step | lenet-1 | 1.5 | 1.60 | not met: 1.60 |" in page
    assert "| latency at batch 1, epsilon, recorded | lenet-1 | 1.5 | 1.40 | met |" in page
    # By what the look-up adds in processor time, so that putting imports off hides nothing.
    assert "processor time |  | 0.15 s | 0.20 | not met: 0.20 s |" in page
    assert f"| start-up, `{HELP}`, wall |  | 0.4 s | 0.35 | met |" in page
    assert f"| `{HELP}` | 0.35 | 0.30 |  |  | 3 |" in page
    assert "| 60 | 25 | 256 | 1.00 | 50.0 | 50 |" in page
    for part in (curve.name, "latency", "startup", "messages"):
        assert f"{part}: 2000-01-01 00:00 UTC, commit 0000000, 1 thread(s), a processor, torch 2.0.0" in page


def test_parts_measured_again_replace_only_themselves(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.jsonl")
    store.add("case", "a", STAMP, [Row("a", "small", "epsilon", "gradient", turns=1)])
    store.add("case", "b", STAMP, [Row("b", "small", "epsilon", "gradient", turns=1)])
    store.add("case", "a", STAMP, [Row("a", "small", "epsilon", "gradient", turns=2)])
    again = Store(store.path)
    assert {part.name: part.items[0].turns for part in again.parts("case")} == {"a": 2, "b": 1}


@pytest.mark.parametrize("name", ["mlp-256", "lenet-256", "lstm-25x1", "gru-25x1", "rnn-100x64", "transformer-128"])
def test_every_method_of_ours_explains_the_case(name: str) -> None:
    # measure raises where relevance is missing, or is not that of the model's score.
    case = replace(CASES[name], x=CASES[name].small)
    rows = measure(case, repeats=1, seconds=0.0, with_memory=False, with_peers=False)
    assert [row.method for row in rows][:2] == ["forward", "gradient"]
    assert {*case.presets, *case.beside} <= {row.method for row in rows}
    assert all(row.cpu is not None and row.cpu[1] > 0 for row in rows)


@pytest.mark.parametrize("name", ["vgg16-bn", "resnet50", "efficientnet-lite0", "convnext-tiny", "unet", "gpt2-128"])
def test_activations_of_big_networks_neither_die_nor_explode(name: str) -> None:
    case = CASES[name]
    with torch.no_grad():
        score = case.build()(case.small())
    assert 0.05 < float(score.std()) < 50


def test_frozen_shares_the_weights_but_not_their_gradients() -> None:
    subject = Subject(CASES["lenet-1"])
    for ordinary, frozen in zip(subject.model.parameters(), subject.frozen.parameters(), strict=True):
        assert ordinary.requires_grad and not frozen.requires_grad
        assert ordinary.data_ptr() == frozen.data_ptr()


@pytest.mark.parametrize(
    "title",
    [
        "captum: epsilon",
        "zennit: epsilon-plus",
        "zennit: epsilon-plus-flat",
        "zennit: epsilon-gamma-box",
        "zennit: epsilon-alpha2-beta1",
    ],
)
def test_peers_with_the_same_rule_find_the_same_relevance(title: str) -> None:
    case = CASES["lenet-256"]
    assert Comparison(case).deviation(peer(case, title)) < 1e-4


@pytest.mark.parametrize("title", ["autolrp: epsilon", "autolrp: epsilon-plus", "autolrp: epsilon-alpha2-beta1"])
def test_autolrp_finds_the_same_relevance_without_biases(title: str) -> None:
    case = replace(CASES["lenet-256"], build=without_biases(CASES["lenet-256"].build))
    assert Comparison(case).deviation(peer(case, title)) < 1e-4


def test_captum_is_told_to_be_wrong_about_functional_additions() -> None:
    case = CASES["resnet50"]
    assert Comparison(case).deviation(peer(case, "captum: epsilon")) > 1


@pytest.mark.parametrize(
    ("name", "title", "note"),
    [("lenet-1", "autolrp: epsilon", "differs: "), ("resnet50", "captum: epsilon", "wrong: off by a factor of ")],
)
def test_other_conventions_differ_and_overlooked_additions_are_wrong(name: str, title: str, note: str) -> None:
    case = replace(CASES[name], x=CASES[name].small, presets=("epsilon",), beside=(), compared=("epsilon",))
    peer(case, title)
    rows = measure(case, repeats=1, seconds=1.0, with_memory=False, with_peers=True)
    assert next(row for row in rows if row.method == title).note.startswith(note)


def test_a_peer_that_refuses_a_case_says_so_in_its_row() -> None:
    case = replace(CASES["lstm-100x64"], x=CASES["lstm-100x64"].small)
    peer(case, "captum: epsilon")
    rows = measure(case, repeats=1, seconds=0.0, with_memory=False, with_peers=True)
    row = next(row for row in rows if row.method == "captum: epsilon")
    assert row.note.startswith("refuses: TypeError") and row.cpu is None


def test_times_are_of_one_call_and_ratios_of_the_same_turn() -> None:
    calls = {"unit": 0, "beside": 0}

    def count(name: str, size: int) -> None:
        calls[name] += 1
        sum(range(size))

    actions = {"unit": lambda: count("unit", 400_000), "beside": lambda: count("beside", 1_600_000)}
    taken = in_turns(actions, {"unit": None, "beside": 2}, repeats=5, seconds=0.0, unit="unit")
    assert len(taken["beside"].cpu) == 2 and len(taken["unit"].cpu) == 3
    assert taken["unit"].ratios(taken["unit"]) == [1.0] * 3
    assert 2 < quartiles(taken["beside"].ratios(taken["unit"]))[1] < 8


@pytest.mark.skipif(not memory.measurable(), reason="only Linux tells the peak of a process")
def test_memory_of_a_gradient_is_at_least_what_autograd_keeps() -> None:
    # The outputs of both linear layers' activations, 256 x 512 floats each, and the input's gradient.
    least = (2 * 256 * 512 + 256 * 784) * 4 / 2**20
    added = memory.added("mlp-256", ["gradient"])
    assert least < added["gradient"].first < 50 * least
    assert least < added["gradient"].further < 50 * least


def test_bounds_are_judged_by_the_median() -> None:
    rows = [
        Row("vgg16", "pictures", "gradient", "gradient", memory=400.0, memory_ratio=1.0, ratio=(1.0, 1.0, 1.0)),
        Row("vgg16", "pictures", "epsilon", "gradient", memory=700.0, memory_ratio=1.75, ratio=(0.9, 1.1, 1.3)),
        Row("vgg16", "pictures", "gamma", "gradient", memory=500.0, memory_ratio=1.25, ratio=(1.7, 1.9, 2.0)),
        Row("lenet-256", "small", "epsilon", "gradient", memory=9.0, memory_ratio=9.0, ratio=(9.0, 9.0, 9.0)),
    ]
    assert {(each.what, each.text) for each in verdicts(rows, [], [])} == {
        ("processor time, epsilon", "met"),
        ("processor time, gamma", "not met: 1.90"),
        ("peak memory added, epsilon", "not met: 1.75"),
        ("peak memory added, gamma", "met"),
    }


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [2, 5, 11, 40]
    assert exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_what_is_measured_is_what_a_user_gets() -> None:
    case = CASES["lenet-1"]
    subject = Subject(case)
    for name in (*case.presets, *case.beside):
        found = methods(case)[name].prepare(subject)(subject.x)
        fresh = relprop.explain(case.build(), case.x(), case.target, rules=name, bounds=case.bounds)
        torch.testing.assert_close(found.relevance, fresh.relevance)
