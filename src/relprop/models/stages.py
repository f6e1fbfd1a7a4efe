"""Stages: the parts of a model, called one after the other, that are computed again instead of kept."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from torch import nn

from relprop.errors import InvalidInput
from relprop.models.prepare import Model, named_modules

Segments = Literal["auto"] | Sequence[str]

_LISTS = (nn.ModuleList, nn.Sequential)

# With fewer stages than these, those that hold a list of blocks are taken apart.
_ENOUGH = 8


@dataclass(frozen=True, eq=False)
class Stage:
    """Modules that are called one after the other, each with what the one before returned; mostly it is one."""

    name: str
    modules: tuple[nn.Module, ...]


def stages(model: Model, segments: Segments) -> list[Stage]:
    """The stages that are asked for. "auto": the blocks that stand in a model's lists, and in a Sequential of simple
    layers runs of them, cut where tensors are small. Or names of modules, or patterns; of modules inside one another
    the outermost counts. Raises InvalidInput where there are none."""
    if segments == "auto":
        found = _automatic(model)
        if not found:
            raise InvalidInput(
                'segments="auto" looks for the blocks in the Sequentials and ModuleLists of a model, and found none. '
                'Name the modules to compute again: segments=["encoder", "decoder"]'
            )
        return found
    if isinstance(segments, str) and not any(c in segments for c in "*?["):
        segments = [segments]
    elif isinstance(segments, str):
        raise InvalidInput(f'segments: got {segments!r}, expected "auto" or a list such as [{segments!r}]')
    if not isinstance(segments, Sequence) or not segments or not all(isinstance(name, str) for name in segments):
        raise InvalidInput(f'segments: got {segments!r}, expected "auto" or names of modules such as ["layer1.*"]')
    return _named(model, segments)


def _named(model: Model, names: Sequence[str]) -> list[Stage]:
    modules = {name: module for module, name in named_modules(model) if name}
    chosen: dict[str, nn.Module] = {}
    for name in names:
        only = name if name in modules else _first_name(model, name, modules)
        fitting = [only] if only is not None else fnmatch.filter(modules, name)
        if not fitting:
            raise InvalidInput(f"segments: the model has no module named {name!r}. {_instead(name, list(modules))}")
        chosen.update({each: modules[each] for each in fitting})
    return [Stage(name, (module,)) for name, module in chosen.items() if not _within(name, chosen)]


def _first_name(model: Model, name: str, modules: dict[str, nn.Module]) -> str | None:
    """The name under which a module is listed that a model has under this name too; None if it has none."""
    try:
        found = model.get_submodule(name) if isinstance(model, nn.Module) else None
    except AttributeError:
        return None
    return next((each for each, module in modules.items() if module is found), None)


def _instead(name: str, modules: list[str]) -> str:
    """Names to write instead of one that there isn't: those like it, or else the outermost."""
    if not modules:
        return "It has none"
    close = difflib.get_close_matches(name, modules, n=3)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    first = sorted(modules, key=lambda each: each.count("."))[:5]
    return f"Its modules are {', '.join(map(repr, first))}{', ...' if len(modules) > len(first) else ''}"


def _within(name: str, others: dict[str, nn.Module]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:i]) in others for i in range(1, len(parts)))


def _automatic(model: Model) -> list[Stage]:
    if not isinstance(model, nn.Module):
        return []
    names = {id(module): name for module, name in named_modules(model)}
    parts = [part for part in _parts(model) if len(part) > 1 or not _simple(part[0])]
    while len(parts) < _ENOUGH and any(_holds_blocks(part) for part in parts):
        parts = [each for part in parts for each in (_parts(part[0]) if _holds_blocks(part) else [part])]
        parts = [part for part in parts if len(part) > 1 or not _simple(part[0])]
    known = [part for part in parts if id(part[0]) in names]
    return [Stage(names[id(part[0])], tuple(part)) for part in known]


def _parts(module: nn.Module) -> list[list[nn.Module]]:
    """The parts of the outermost lists in a module, in order."""
    if _calls_in_order(module):
        return [inner for run in _runs(list(module.children())) for inner in _unpacked(run)]
    if isinstance(module, _LISTS):
        return [inner for child in module.children() for inner in _unpacked([child])]
    return [part for child in module.children() for part in _parts(child)]


def _unpacked(run: list[nn.Module]) -> list[list[nn.Module]]:
    """A run of layers as it is; a list of blocks in place of a block, part by part."""
    only = run[0] if len(run) == 1 else None
    nested = isinstance(only, _LISTS) and any(not _simple(child) for child in only.children())
    return _parts(only) if only is not None and nested else [run]


def _holds_blocks(part: list[nn.Module]) -> bool:
    """Whether there is a list of several blocks, which are no simple layers, in a stage."""
    lists = [m for m in part[0].modules() if isinstance(m, _LISTS)] if len(part) == 1 else []
    return any(sum(not _simple(child) for child in each.children()) > 1 for each in lists)


def _calls_in_order(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _simple(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _affine(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return _simple(module) and weight is not None and weight.dim() > 1


def _runs(children: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """The children of a Sequential: blocks one by one; simple layers in runs that begin with an affine one, and end
    after a pooling, or when they hold the square root of all affine ones. So nothing that folds is torn apart."""
    longest = max(2, isqrt(sum(map(_affine, children))))
    run: list[nn.Module] = []
    for child in children:
        pooled = bool(run) and "Pool" in type(run[-1]).__name__
        full = _affine(child) and (pooled or sum(map(_affine, run)) >= longest)
        if run and (full or not _simple(child) or not _simple(run[-1])):
            yield run
            run = []
        run.append(child)
    if run:
        yield run
