"""What LRP of a Transformer costs, against one gradient: CPU time and peak memory.

    python benchmarks/attention.py [--repeats 5] [--layers 6] [--tokens 256] [--batch 8]

Process CPU time; the cases of a row are interleaved, and medians are printed. "gradient" is one forward and one
backward pass to the input of the same model, with parameters that require gradients, as an ordinary model's do, and
without ("frozen"). Memory is what a case adds to the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch
from timing import gradient, medians, peak_added
from torch import Tensor, nn

import relprop


class Attention(nn.Module):
    """Attention written out, as "eager" implementations have it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        y: Tensor = x + self.mlp(self.norms[1](x))
        return y


class Classifier(nn.Module):
    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(x).mean(1))
        return scores


def encoder(layers: int, width: int, heads: int, norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, activation="gelu", batch_first=True, norm_first=norm_first
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


WIDTH, HEADS = 384, 6
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "nn.TransformerEncoder, post-norm": lambda layers: encoder(layers, WIDTH, HEADS, False),
    "nn.TransformerEncoder, pre-norm": lambda layers: encoder(layers, WIDTH, HEADS, True),
    "attention written out": lambda layers: nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(layers))),
}


def build(name: str, options: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = Classifier(MODELS[name](options.layers), WIDTH).eval()
    return model, torch.randn(options.batch, options.tokens, WIDTH)


def time_of(name: str, options: argparse.Namespace) -> None:
    model, x = build(name, options)
    frozen = build(name, options)[0].requires_grad_(False)
    explainers = {rules: relprop.Explainer(model, rules) for rules in ("attn-lrp", "cp-lrp")}
    of_frozen = relprop.Explainer(frozen, "attn-lrp")
    taken = medians(
        {
            "gradient": lambda: gradient(model, x),
            **{rules: (lambda e=explainer: e(x, 1)) for rules, explainer in explainers.items()},
            "gradient, frozen": lambda: gradient(frozen, x),
            "attn-lrp, frozen": lambda: of_frozen(x, 1),
        },
        options.repeats,
    )
    unit = taken["gradient"]
    print(
        f"{name:33s} gradient {unit:.2f} s, attn-lrp {taken['attn-lrp'] / unit:.2f}, cp-lrp "
        f"{taken['cp-lrp'] / unit:.2f}, frozen attn-lrp {taken['attn-lrp, frozen'] / taken['gradient, frozen']:.2f}"
    )


def memory_of(name: str, options: argparse.Namespace) -> None:
    size = [f"--{key}={getattr(options, key)}" for key in ("layers", "tokens", "batch", "threads")]
    added = {}
    for case in ("gradient", "attn-lrp"):
        command = [sys.executable, __file__, *size, f"--model={name}", f"--memory={case}"]
        added[case] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ratio = added["attn-lrp"] / added["gradient"]
    print(f"{name:33s} gradient adds {added['gradient']:.0f} MiB, attn-lrp {added['attn-lrp']:.0f} MiB, {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repeats", 5), ("layers", 6), ("tokens", 256), ("batch", 8), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--memory", choices=("gradient", "attn-lrp"), help="print what this case adds, in MiB")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        model, x = build(options.model[0], options)
        explainer = relprop.Explainer(model, "attn-lrp")
        case = (lambda: gradient(model, x)) if options.memory == "gradient" else (lambda: explainer(x, 1))
        print(peak_added(case))
        return
    for name in options.model or MODELS:
        time_of(name, options)
        memory_of(name, options)


if __name__ == "__main__":
    main()
