"""From what the user calls a model to something whose functions can be seen, without changing it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from relprop.errors import TrainingMode, UnsupportedModel
from relprop.models.keras import KerasNetwork, is_keras, refuse_keras, sublayers
from relprop.models.scikit import is_estimator

Model = Callable[..., Any]
_SEQUENCES = (nn.ModuleList, nn.Sequential)


def prepare(model: Any) -> Model:
    """The model inside wrappers that hide its functions; UnsupportedModel for what can't be traced."""
    while True:
        inner = _inside(model)
        if inner is None:
            break
        model = inner
    if is_estimator(model):
        raise UnsupportedModel(
            f"got scikit-learn's {type(model).__name__}; make a network of it first: "
            f"relprop.models.from_sklearn(estimator)"
        )
    if is_keras(model):
        refuse_keras(model)
        return KerasNetwork(model)
    if isinstance(model, (str, PathLike)):
        raise UnsupportedModel(
            f"got {str(model)!r}, a name, which can't be called. Load the model first: relprop.zoo.load(name), "
            "relprop.load_program(path), or with transformers "
            "AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)"
        )
    if isinstance(model, torch.export.ExportedProgram):
        raise UnsupportedModel("got an ExportedProgram; give its module: relprop.explain(program.module(), x)")
    if not callable(model):
        raise UnsupportedModel(
            f"got {type(model).__name__}, which can't be called. Give an nn.Module, or a function of tensors; a state "
            "dict must first be loaded into its model: model.load_state_dict(...)"
        )
    if isinstance(model, type):
        raise UnsupportedModel(f"got the class {model.__name__}; write {model.__name__}(...) to make a model of it")
    _refuse_opaque("", model)
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            _refuse_opaque(name, module)
    prepared: Model = model
    return prepared


def _inside(model: Any) -> Any:
    """One wrapper less, or None."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return model.module
    compiled = getattr(model, "_orig_mod", None)
    if compiled is not None:
        return compiled
    return getattr(model, "_torchdynamo_orig_callable", None)


def _refuse_opaque(name: str, module: Any) -> None:
    place = f"module {name!r}" if name else "the model"
    if isinstance(module, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise UnsupportedModel(
            f"{place} is TorchScript, whose functions can't be seen from outside. Give the original model, or export "
            "it: torch.export.save(torch.export.export(model, (x,)), 'model.pt2') and relprop.load_program('model.pt2')"
        )
    home = type(module).__module__
    if ".quantized" in home and ("torch.ao.nn" in home or "torch.nn" in home):
        raise UnsupportedModel(
            f"{place} is quantised ({type(module).__name__}): its integer arithmetic has no relevance rules. Explain "
            "the floating-point model it was made from"
        )


def refuse_training(model: Model) -> None:
    """TrainingMode if the model, or a part of it, is in training mode. Keras' layers don't heed the flag."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.fx.GraphModule):
        return
    training = [name for module, name in named_modules(model) if module.training and not is_keras(module)]
    if not training:
        return
    which = "the model is" if "" in training else f"the modules {', '.join(map(repr, training[:5]))} are"
    raise TrainingMode(f"{which} in training mode, where scores are not the ones it decides with. Write model.eval()")


def rehoused(model: Model) -> Model:
    """The model with modules of its own, for hooks that only one thread meets, around the same tensors. A function, and
    a model of Keras, stay as they are; UnsupportedModel where a module can't be copied."""
    if not isinstance(model, nn.Module) or isinstance(model, KerasNetwork):
        return model
    held = (
        t for part in model.modules() for kept in (vars(part), part._parameters, part._buffers) for t in kept.values()
    )
    try:
        return copy.deepcopy(model, {id(t): t for t in held if isinstance(t, torch.Tensor)})
    except Exception as error:
        raise UnsupportedModel(
            f"this method needs a copy of the model's modules, and they can't be copied ({error}). Take another, such "
            "as method='integrated_gradients'"
        ) from error


def named_modules(model: Model) -> list[tuple[nn.Module, str]]:
    """Each module with its dotted name: torch's, Keras' for Keras layers, wrappers by torch.compile left out."""
    found: list[tuple[nn.Module, str]] = []
    if isinstance(model, nn.Module):
        _name("", model, found, set())
    return found


def _name(name: str, module: nn.Module, found: list[tuple[nn.Module, str]], seen: set[int]) -> None:
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, KerasNetwork):
        _name(name, module.model, found, seen)
        return
    found.append((module, name))
    for part, child in sublayers(module) if is_keras(module) else module._modules.items():
        if child is not None:
            _name(".".join(p for p in (name, part) if p and p != "_orig_mod"), child, found, seen)


def module_names(model: Model) -> dict[int, str]:
    """id of each module -> its dotted name."""
    return {id(module): name for module, name in named_modules(model)}


def parts_of_sequences(model: Model) -> dict[str, nn.Module]:
    """By name, the modules that stand in a ModuleList or Sequential: among them are a Transformer's blocks."""
    modules = named_modules(model)
    lists = tuple(f"{name}." if name else "" for module, name in modules if isinstance(module, _SEQUENCES))
    return {
        name: module
        for module, name in modules
        if name and any(name.startswith(each) and "." not in name.removeprefix(each) for each in lists)
    }


def blocks(parts: Iterable[str], attention: Sequence[str]) -> list[str]:
    """Of modules in lists, the blocks of a Transformer: the outermost ones with attention in them.

    attention: the names of the modules that attend. What is alone in its list, with a list of blocks inside, is
    the whole Transformer, and no block of it.
    """
    holding = [name for name in parts if any(f"{place}.".startswith(f"{name}.") for place in attention)]

    def within(name: str) -> list[str]:
        return [other for other in holding if other.startswith(f"{name}.")]

    alone = Counter(name.rpartition(".")[0] for name in holding)
    holding = [name for name in holding if alone[name.rpartition(".")[0]] > 1 or not within(name)]
    return [name for name in holding if not any(name.startswith(f"{other}.") for other in holding)]
