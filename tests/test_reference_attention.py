"""Reference figures of LXT 2.1, the implementation by AttnLRP's authors, for the families that it and relprop share.

golden/lxt_*.npz hold small models (weights, token ids) and what LXT 2.1 under transformers 4.52.4 gives each token, in
float64, as gradient x input of its patched classes ("eager" attention): for AttnLRP, and for CP-LRP where LXT has it.
LXT adds 1e-10 to denominators of activations; rotary tables and some softmaxes are in single precision in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relprop
from relprop import RuleMap
from relprop.rules import Half, SignalTakesAll, Zero

transformers = pytest.importorskip("transformers")

GOLDEN = Path(__file__).parent / "golden"
SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", SHAPE),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", SHAPE),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 4}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, "head_dim": 4, "sliding_window": 4}),
}  # fmt: skip
RULES = {
    "attn_lrp": RuleMap([("affine", Zero()), ("attention", Half()), ("gated", Half())]),
    "cp_lrp": RuleMap([("affine", Zero()), ("attention", SignalTakesAll()), ("gated", SignalTakesAll())]),
}
# LXT has no CP-LRP for BERT.
CASES = [(name, method) for name in MODELS for method in RULES if (name, method) != ("bert", "cp_lrp")]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("name", "method"), CASES)
def test_the_authors_implementation_gives_the_same(name: str, method: str, attention: str) -> None:
    with np.load(GOLDEN / f"lxt_{name}.npz") as data:
        golden = {key: torch.from_numpy(data[key]) for key in data.files}
    kind, config, options = MODELS[name]
    model = getattr(transformers, kind)(getattr(transformers, config)(**options, attn_implementation=attention))
    model = model.double().eval()
    model.load_state_dict({key.removeprefix("w."): value for key, value in golden.items() if key.startswith("w.")})

    def score(output: Any) -> torch.Tensor:
        logits: torch.Tensor = output.logits
        return logits[:, 1] if name == "bert" else logits[:, -1, 5]

    found = relprop.explain(model, {"input_ids": golden["ids"]}, score, rules=RULES[method])
    expected = golden[method]
    # Where the model itself computes in single precision, fused and eager attention differ by that much.
    tolerance = 1e-6 if name in ("llama", "qwen2", "qwen3", "gemma3") else 1e-8
    assert torch.allclose(found.score, golden["score"], rtol=tolerance, atol=tolerance)
    error = (found.relevance["input_ids"] - expected).abs().max() / expected.abs().max()
    assert float(error) < tolerance
