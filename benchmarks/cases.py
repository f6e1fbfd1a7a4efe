"""The cases: a network, its input, the score that is explained, and the presets that apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from benchmarks import networks, sequences

Group = Literal["small", "pictures", "recurrent", "Transformers"]
Score = Callable[[Tensor], Tensor]

BOUNDS = (-1.0, 1.0)
BOUNDED = ("epsilon", "epsilon-plus", "epsilon-plus-flat", "gamma", "epsilon-gamma-box", "epsilon-alpha2-beta1")
COMPARED = ("epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1", "attn-lrp", "cp-lrp")
BESIDE = ("epsilon-alpha2-beta1-flat", "deep-taylor", "w-square")


@dataclass(frozen=True)
class Case:
    """A network and what is asked of it.

    x: makes the input that is timed; small: one like it, for comparing peers' relevance in float64.
    presets: in every turn; beside: in the first two turns only. target: as relprop takes it; score: the same as a
    function of the output. recorded: the first preset is timed with compile="graph" as well. peers: the other
    libraries tried, by the rules of these presets (`compared`).
    """

    name: str
    group: Group
    build: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    small: Callable[[], Tensor]
    presets: tuple[str, ...]
    beside: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    target: int | Score = 1
    peers: tuple[str, ...] = ()
    compared: tuple[str, ...] = COMPARED
    quick: bool = False
    recorded: bool = False

    def score(self, output: Tensor) -> Tensor:
        """The explained score of each sample, (batch,)."""
        return output[:, self.target] if isinstance(self.target, int) else self.target(output)


def _area(output: Tensor) -> Tensor:
    return output[:, 1].mean((1, 2))


def _next_token(output: Tensor) -> Tensor:
    return output[:, -1, 11]


def _picture(name: str, build: Callable[[], nn.Module], **options: object) -> Case:
    size, small = partial(networks.picture, 4, 3, 224), partial(networks.picture, 1, 3, 64)
    every = {"presets": BOUNDED, "beside": BESIDE, "bounds": BOUNDS, "peers": ("captum", "autolrp", "zennit")}
    return Case(name, "pictures", build, size, small, **{**every, **options})  # type: ignore[arg-type]


def _lenet(batch: int) -> Case:
    x, small = partial(networks.picture, batch, 1, 28), partial(networks.picture, 2, 1, 28)
    return Case(
        *(f"lenet-{batch}", "small", networks.lenet, x, small, BOUNDED, BESIDE, BOUNDS),
        peers=("captum", "autolrp", "zennit"),
        compared=BOUNDED,
        quick=True,
        recorded=True,
    )


def _pixels(batch: int) -> Tensor:
    return networks.picture(batch, 1, 28).flatten(1)


def _mlp() -> Case:
    presets, beside = ("epsilon", "epsilon-plus-flat", "gamma"), ("deep-taylor", "w-square")
    x, small = partial(_pixels, 256), partial(_pixels, 2)
    peers = ("captum", "autolrp", "zennit")
    return Case(
        *("mlp-256", "small", networks.mlp, x, small, presets, beside, BOUNDS),
        peers=peers,
        compared=presets,
        quick=True,
        recorded=True,
    )


def _recurrent(cell: str, steps: int, batch: int) -> Case:
    build = {"lstm": sequences.lstm, "gru": sequences.gru, "rnn": sequences.rnn}[cell]
    x, small = partial(sequences.signal, batch, steps, 128), partial(sequences.signal, 1, 10, 128)
    middle = (steps, batch) == (100, 64) and cell != "rnn"
    peers = ("captum", "autolrp") if middle else ()
    return Case(
        *(f"{cell}-{steps}x{batch}", "recurrent", build, x, small, ("epsilon",)),
        peers=peers,
        quick=middle,
        recorded=(cell, steps, batch) == ("lstm", 25, 1),
    )


def _encoder(name: str, build: Callable[[], nn.Module], tokens: int, batch: int, quick: bool = False) -> Case:
    x, small = partial(sequences.signal, batch, tokens, 384), partial(sequences.signal, 1, 10, 384)
    presets, beside, peers = ("attn-lrp", "cp-lrp"), ("attn-lrp-vit",), ("captum", "autolrp")
    return Case(name, "Transformers", build, x, small, presets, beside, peers=peers, quick=quick)


def _gpt2() -> Case:
    x, small = partial(sequences.signal, 1, 128, 768), partial(sequences.signal, 1, 10, 768)
    return Case(
        *("gpt2-128", "Transformers", sequences.gpt2, x, small),
        presets=("attn-lrp", "cp-lrp"),
        target=_next_token,
        peers=("captum", "autolrp"),
    )


_CASES = (
    _mlp(),
    _lenet(256),
    _lenet(1),
    _picture("vgg16", networks.vgg16),
    _picture("vgg16-bn", networks.vgg16_bn, beside=(), peers=("zennit",)),
    _picture("resnet50", networks.resnet50, quick=True),
    _picture("efficientnet-lite0", networks.efficientnet_lite0, peers=("captum", "autolrp")),
    _picture("convnext-tiny", networks.convnext_tiny, peers=("captum", "autolrp")),
    _picture("unet", networks.unet, target=_area, peers=("captum", "autolrp")),
    *(_recurrent(cell, steps, batch) for cell in ("lstm", "gru") for steps in (25, 100, 400) for batch in (1, 64, 256)),
    _recurrent("rnn", 100, 64),
    _encoder("transformer-128", sequences.encoder, 128, 8, quick=True),
    _encoder("transformer-512", sequences.encoder, 512, 4),
    _encoder("transformer-eager-128", sequences.encoder_written_out, 128, 8),
    _gpt2(),
)
CASES: dict[str, Case] = {case.name: case for case in _CASES}
