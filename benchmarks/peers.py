"""Other libraries for LRP, if they are installed, each with the rules that one of our presets stands for."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import Bottleneck, without_in_place

Score = Callable[[Tensor], Tensor]
EPS = 1e-6
INSTALL = {
    "captum": 'pip install "relprop[peers]"',
    "autolrp": 'pip install "relprop[peers]"',
    "zennit": "pip install --no-deps zennit (alone, it brings torchvision along)",
}


@dataclass(frozen=True)
class Peer:
    """One rule set of one library; `prepare(model, score)` gives the function from x to relevance."""

    library: str
    preset: str
    prepare: Callable[[nn.Module, Score], Callable[[Tensor], Tensor]]
    skips_additions: bool = False  # those written as `a + b`, without a word; other differences are of convention

    @property
    def title(self) -> str:
        return f"{self.library}: {self.preset}"


def installed(libraries: Sequence[str], presets: Sequence[str]) -> list[Peer]:
    """The rule sets of these libraries that can be imported and stand beside one of these presets."""
    return [
        peer
        for peer in _PEERS
        if peer.library in libraries and peer.preset in presets and importlib.util.find_spec(peer.library) is not None
    ]


def versions() -> dict[str, str]:
    """The version of each peer, "not installed" without it."""
    found = {}
    for library in INSTALL:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def _captum(conv_rule: str) -> Callable[..., Callable[[Tensor], Tensor]]:
    """Captum: rules are attributes of the layers, which it takes away after every call."""

    def prepare(model: nn.Module, score: Score) -> Callable[[Tensor], Tensor]:
        rules = importlib.import_module("captum.attr._utils.lrp_rules")
        lrp = importlib.import_module("captum.attr").LRP(without_in_place(model))
        ruled = (nn.Linear, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
        convolutions: list[Any] = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        others: list[Any] = [m for m in model.modules() if isinstance(m, ruled)]

        def run(x: Tensor) -> Tensor:
            for module in convolutions:
                module.rule = rules.EpsilonRule(EPS) if conv_rule == "EpsilonRule" else getattr(rules, conv_rule)()
            for module in others:
                module.rule = rules.EpsilonRule(EPS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                relevance: Tensor = lrp.attribute(x.detach(), target=1)
            return relevance.detach()

        return run

    return prepare


def _autolrp(config: Callable[[Any], Any]) -> Callable[..., Callable[[Tensor], Tensor]]:
    def prepare(model: nn.Module, score: Score) -> Callable[[Tensor], Tensor]:
        autolrp = importlib.import_module("autolrp")
        chosen = config(autolrp)

        def run(x: Tensor) -> Tensor:
            wrapped = autolrp.tensor(x)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                total: Any = score(model(wrapped)).sum()
                total.lrp(config=chosen)
            # It begins with a relevance of one; shares of the sum go to the samples by their scores.
            relevance: Tensor = wrapped.relevance * total.detach().as_subclass(Tensor)
            return relevance

        return run

    return prepare


def _conv(rule: Any) -> Callable[[Any], Any]:
    """autolrp's configuration with this rule on convolutions, epsilon elsewhere."""
    return lambda autolrp: autolrp.LRPConfig(rule={**autolrp.BASE, "ConvolutionBackward": rule}, eps=EPS)


def _zennit(composite: str, needs_box: bool = False) -> Callable[..., Callable[[Tensor], Tensor]]:
    def prepare(model: nn.Module, score: Score) -> Callable[[Tensor], Tensor]:
        zennit = _import_zennit()
        options = {"low": -1.0, "high": 1.0} if needs_box else {}
        canonizers = [zennit.canonizers.SequentialMergeBatchNorm(), _bottleneck_canonizer(zennit)]
        chosen = getattr(zennit.composites, composite)(canonizers=canonizers, **options)

        def seed(output: Tensor) -> Tensor:
            """The score as relevance of the outputs that it is made of."""
            with torch.enable_grad():
                leaf = output.detach().requires_grad_()
                (weight,) = torch.autograd.grad(score(leaf).sum(), leaf)
            return weight * output

        def run(x: Tensor) -> Tensor:
            with zennit.attribution.Gradient(model, chosen, attr_output=seed) as attributor:
                relevance: Tensor = attributor(x)[1]
            return relevance.detach()

        return run

    return prepare


def _import_zennit() -> Any:
    """Zennit; where torchvision is missing, empty classes stand in for the two that it merely names when imported."""
    names = ["torchvision", "torchvision.models", "torchvision.models.resnet"]
    if importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("zennit")
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[names[-1]].__dict__.update(Bottleneck=type("Bottleneck", (), {}), BasicBlock=type("Block", (), {}))
    try:
        return importlib.import_module("zennit")
    finally:
        for name in names:
            del sys.modules[name]


def _bottleneck_canonizer(zennit: Any) -> Any:
    """What Zennit's users write for a ResNet of their own: its addition as a module that rules can be given to."""

    def forward(block: Any, x: Tensor) -> Tensor:
        identity = x if block.downsample is None else block.downsample(x)
        out = block.relu(block.bn1(block.conv1(x)))
        out = block.relu(block.bn2(block.conv2(out)))
        out = block.bn3(block.conv3(out))
        out = block.sum_of_branches(torch.stack([identity, out], dim=-1))
        return block.relu(out)  # type: ignore[no-any-return]

    def attributes(name: str, module: nn.Module) -> dict[str, Any] | None:
        if not isinstance(module, Bottleneck):
            return None
        return {"forward": types.MethodType(forward, module), "sum_of_branches": zennit.layer.Sum()}

    return zennit.canonizers.AttributeCanonizer(attributes)


_ALPHA2_BETA1 = ("alpha_beta", {"alpha": 2.0, "beta": 1.0})
_PEERS = (
    Peer("captum", "epsilon", _captum("EpsilonRule"), skips_additions=True),
    Peer("captum", "epsilon-plus", _captum("Alpha1_Beta0_Rule")),
    Peer("captum", "attn-lrp", _captum("EpsilonRule"), skips_additions=True),
    Peer("autolrp", "epsilon", _autolrp(lambda autolrp: autolrp.LRPConfig(eps=EPS))),
    Peer("autolrp", "epsilon-plus", _autolrp(_conv("zplus"))),
    Peer("autolrp", "gamma", _autolrp(_conv(("gamma", {"gamma": 0.25})))),
    Peer("autolrp", "epsilon-alpha2-beta1", _autolrp(_conv(_ALPHA2_BETA1))),
    Peer("autolrp", "attn-lrp", _autolrp(lambda autolrp: autolrp.LRPConfig.attnlrp())),
    Peer("autolrp", "cp-lrp", _autolrp(lambda autolrp: autolrp.LRPConfig.cplrp())),
    Peer("zennit", "epsilon-plus", _zennit("EpsilonPlus")),
    Peer("zennit", "epsilon-plus-flat", _zennit("EpsilonPlusFlat")),
    Peer("zennit", "epsilon-gamma-box", _zennit("EpsilonGammaBox", needs_box=True)),
    Peer("zennit", "epsilon-alpha2-beta1", _zennit("EpsilonAlpha2Beta1")),
)
