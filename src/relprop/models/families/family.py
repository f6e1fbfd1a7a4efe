"""Families: architectures of Hugging Face and torch as small random networks, whose biases and norms are random too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import MissingExtra
from relprop.targets import Target

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a family's network is asked: its head, what it reads, and which of its scores is explained.

    head: the name after AutoModelFor, or a class of transformers.
    inputs: makes the network's named inputs from its configuration.
    """

    head: str
    inputs: Callable[[Any], Inputs]
    target: Target = None


@dataclass(frozen=True)
class Family:
    """One architecture.

    name: its model_type in transformers. settings: what makes its configuration small, by that configuration's names.
    experts: whether it is a mixture of experts whose matrix products transformers can compute in several ways.
    build: makes the network where it is none of transformers'.
    """

    name: str
    title: str
    task: Task
    settings: Mapping[str, Any] = field(default_factory=dict)
    experts: bool = False
    build: Callable[[], nn.Module] | None = None

    def implementations(self) -> tuple[str | None, ...]:
        """The implementations of attention that can be asked for; (None,) if there is no choice."""
        if self.build is not None:
            return (None,)
        return ("eager", "sdpa") if getattr(self._made(None), "_supports_sdpa", False) else ("eager",)

    def network(self, attention: str | None = None, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, with random parameters. attention: one of `implementations`."""
        torch.manual_seed(seed)
        model: Any = self._made(attention) if self.build is None else self.build()
        if self.experts and dtype == torch.float64:  # torch multiplies grouped matrices in float32 at most
            model.set_experts_implementation("eager")
        randomise(model)
        network: nn.Module = model.to(dtype).eval()
        return network

    def inputs(self, model: nn.Module, dtype: torch.dtype = torch.float64, seed: int = 1) -> Inputs:
        """Named inputs of two samples; token ids have padding."""
        torch.manual_seed(seed)
        made = self.task.inputs(getattr(model, "config", None))
        return {
            name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in made.items()
        }

    def _made(self, attention: str | None) -> nn.Module:
        hub = transformers()
        config = hub.AutoConfig.for_model(self.name, **self.settings)
        options = {} if attention is None else {"attn_implementation": attention}
        auto = getattr(hub, f"AutoModelFor{self.task.head}" if self.task.head else "AutoModel", None)
        if auto is not None:
            model: nn.Module = auto.from_config(config, **options)
            return model
        of_class: nn.Module = getattr(hub, self.task.head)._from_config(config, **options)
        return of_class


def transformers() -> Any:
    """The package transformers, with no word of its own; raises `MissingExtra` without it."""
    try:
        hub = import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            f"the package transformers is needed for Hugging Face's architectures and can't be imported ({error}): "
            'pip install "relprop[huggingface]"'
        ) from error
    hub.logging.set_verbosity_error()
    return hub


def randomise(model: nn.Module) -> None:
    """Parameters of a size at which everything matters, biases and the scales of norms included.

    As networks are initialised, biases are 0, norms scale by 1 and attention is nearly uniform: what a wrong rule gets
    wrong would not show.
    """
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if not parameter.is_floating_point():
                    continue
                if parameter.dim() < 2:
                    parameter.add_(0.2 * torch.randn_like(parameter))
                else:
                    parameter.normal_(std=_deviation(module, parameter))
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)


def _deviation(module: nn.Module, weight: Tensor) -> float:
    """What keeps values at the size that they have."""
    if isinstance(module, nn.Embedding):
        return 0.7
    if isinstance(module, nn.modules.conv._ConvNd):  # activations and gates between them make values smaller
        return float(2 * weight[0].numel() ** -0.5)
    return float(weight.shape[-1] ** -0.5)
