"""Architectures of Hugging Face and torch, from small random networks: same output, and the oracle's relevance."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.modified_gradient import in_double, relevance
from torch import Tensor, nn
from typer.testing import CliRunner

import relprop
from relprop.errors import InvalidFile, InvalidInput, MissingExtra, UnsupportedFunction
from relprop.models.families import FAMILIES, Family, chosen
from relprop.models.families.family import transformers
from relprop.models.families.measure import (
    ATTENTION_RULES,
    Finding,
    difference,
    load_oracle,
    measured,
    plain_output,
    same_values,
    without_stabiliser,
)
from relprop.models.families.table import BEGIN, END, markdown, write

pytest.importorskip("transformers")

ORACLE = Path(__file__).parent / "oracle" / "modified_gradient.py"
NAMES = list(FAMILIES)
# Those that know from the mask alone where a text begins and ends (GPT-2 counts positions over the padding).
PADDED = ("bert", "distilbert", "roberta", "albert", "deberta-v2", "electra", "modernbert", "t5", "bart")
BEGUN = ("gpt_neox", "opt", "bloom", "llama", "mistral", "qwen3", "gemma2")
EXPERTS = [name for name, family in FAMILIES.items() if family.experts]


def explained(family: Family, model: nn.Module, inputs: dict[str, Any], rules: Any = "auto") -> relprop.Attribution:
    attribution: relprop.Attribution = relprop.explain(model, inputs, family.task.target, rules=rules)
    return attribution


def parts_of(attribution: relprop.Attribution) -> dict[str, Tensor]:
    assert isinstance(attribution.relevance, dict)
    return attribution.relevance


@functools.cache
def implementations(name: str) -> tuple[str | None, ...]:
    return FAMILIES[name].implementations()


@functools.cache
def in_float64(name: str, attention: str | None) -> tuple[nn.Module, dict[str, Any]]:
    model = FAMILIES[name].network(attention)
    return model, FAMILIES[name].inputs(model)


@pytest.mark.parametrize("name", NAMES)
def test_relevance_is_input_times_modified_gradient(name: str) -> None:
    target = FAMILIES[name].task.target
    with in_double():
        expected = {softmax: relevance(*in_float64(name, implementations(name)[0]), target, softmax=softmax)
                    for softmax in ATTENTION_RULES}  # fmt: skip
        for attention in implementations(name):
            model, inputs = in_float64(name, attention)
            for softmax, rule in ATTENTION_RULES.items():
                attribution = explained(FAMILIES[name], model, inputs, without_stabiliser(rule))
                assert difference(parts_of(attribution), expected[softmax]) <= 1e-8, (attention, softmax)
            assert same_values(attribution.output, plain_output(model, inputs))
    assert all(bool(part.any()) for part in expected["taylor"].values())


@pytest.mark.parametrize("name", NAMES)
def test_explained_as_it_is(name: str) -> None:
    family = FAMILIES[name]
    model = family.network(implementations(name)[-1], torch.float32)
    inputs = family.inputs(model, torch.float32)
    attribution = explained(family, model, inputs)
    assert same_values(attribution.output, plain_output(model, inputs))
    assert all(bool(torch.isfinite(part).all()) for part in parts_of(attribution).values())


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_arrive_is_accounted_for(name: str) -> None:
    with in_double():
        report = relprop.check(*in_float64(name, implementations(name)[-1]), FAMILIES[name].task.target)
    assert report.ok
    found = report.conservation
    amounts = [amount for operation in report.operations for amount in operation.absorbed.values()]
    size = abs(found.score) + sum(map(abs, amounts))
    assert found.score == pytest.approx(found.relevance + sum(amounts), abs=1e-9 * size)


@pytest.mark.parametrize("name", PADDED + BEGUN)
def test_padding_changes_nothing(name: str) -> None:
    family = FAMILIES[name]
    with in_double():
        model = family.network()
        inputs = family.inputs(model)
        kept = inputs["attention_mask"][1].bool()
        assert int((~kept).sum()) == 2
        alone = {key: value[1:] if "decoder" in key else value[1:, kept] for key, value in inputs.items()}
        together = parts_of(explained(family, model, inputs))
        apart = parts_of(explained(family, model, alone))
    for key in apart:
        found = together[key][1:] if "decoder" in key else together[key][1:, kept]
        torch.testing.assert_close(found, apart[key], rtol=1e-8, atol=1e-10)
    assert together["input_ids"][1, ~kept].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", EXPERTS)
def test_ways_to_multiply_by_experts_share_alike(name: str) -> None:
    family = FAMILIES[name]
    found = []
    for way in ("eager", "batched_mm", "grouped_mm"):
        model: Any = family.network(dtype=torch.float32)
        model.set_experts_implementation(way)
        inputs = family.inputs(model, torch.float32)
        found.append(parts_of(explained(family, model, inputs)))
    assert difference(found[1], found[0]) <= 1e-4
    assert difference(found[2], found[0]) <= 1e-4


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_a_cache_in_the_output_changes_nothing(name: str) -> None:
    family = FAMILIES[name]
    model = family.network(dtype=torch.float32)
    inputs = family.inputs(model, torch.float32)
    assert plain_output(model, inputs).past_key_values is not None
    cached, without = explained(family, model, inputs), explained(family, model, {**inputs, "use_cache": False})
    assert difference(parts_of(cached), parts_of(without)) == 0


def test_the_oracle_tells_a_wrong_rule() -> None:
    family = FAMILIES["llama"]
    with in_double():
        model = family.network()
        inputs = family.inputs(model)
        found = {name: parts_of(explained(family, model, inputs, without_stabiliser(rule)))
                 for name, rule in ATTENTION_RULES.items()}  # fmt: skip
        expected = relevance(model, inputs, family.task.target, softmax="taylor")
    assert difference(found["constant"], expected) > 0.1
    assert difference(found["taylor"], expected) <= 1e-8


def test_biases_and_norms_are_random() -> None:
    model = FAMILIES["bert"].network()
    for name, parameter in model.named_parameters():
        assert float(parameter.detach().std()) > 0.05, name


def test_measured() -> None:
    finding = measured(FAMILIES["gpt2"], load_oracle(ORACLE))
    assert not finding.error
    assert finding.rules == "auto: attn-lrp"
    assert finding.same_output
    assert max(finding.taylor, finding.constant, finding.same_attention) <= 1e-8
    assert finding.operations > 20


class _Strange(nn.Module):
    def forward(self, src: Tensor, padding: Tensor) -> Tensor:
        return torch.linalg.qr(src).Q.sum((1, 2))[:, None]


def test_a_refusal_is_a_finding() -> None:
    strange = dataclasses.replace(FAMILIES["torch-encoder"], name="strange", title="Strange", build=_Strange)
    finding = measured(strange)
    with pytest.raises(UnsupportedFunction, match="linalg_qr"):
        model = strange.network()
        relprop.explain(model, strange.inputs(model))
    assert finding.error.startswith("UnsupportedFunction: 1 function would lose relevance: - torch.linalg_qr")
    text = markdown([finding])
    assert text.startswith("0 architectures explained, 1 refused")
    assert "| Strange | `strange` | UnsupportedFunction: " in text


def test_the_table_takes_its_place_in_a_document(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    finding = Finding(
        FAMILIES["bert"], rules="auto: attn-lrp", operations=12, same_output=True, share=0.5, taylor=2e-16
    )
    write(path, [finding])
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| BERT | `bert` | attn-lrp | 12 | same |  | 2e-16 |  | 50% |  |" in text
    path.write_text("no place", encoding="utf-8")
    with pytest.raises(InvalidFile, match="no place for the table"):
        write(path, [finding])


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(InvalidInput, match=r"no family 'lama'. Did you mean 'llama'"):
        chosen(["lama"])


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r'pip install "relprop\[huggingface\]"'):
        transformers()
    with pytest.raises(MissingExtra):
        measured(FAMILIES["bert"])


def test_command(tmp_path: Path) -> None:
    from relprop.models.families.__main__ import app

    run = CliRunner().invoke(app, ["--only", "torch-encoder"])
    assert run.exit_code == 0
    assert "| nn.TransformerEncoder |" in run.stdout
    assert CliRunner().invoke(app, ["--only", "nothing"]).exit_code != 0
    assert CliRunner().invoke(app, ["--oracle", str(tmp_path / "none.py")]).exit_code != 0
    assert CliRunner().invoke(app, ["--only", "bert", "--write", str(tmp_path / "none.md")]).exit_code != 0
