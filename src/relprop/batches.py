"""Batches: explaining a dataset, as many samples at a time as memory allows."""

from __future__ import annotations

import contextlib
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from relprop.attribution import Attribution
from relprop.errors import InvalidInput, InvalidTarget, RelpropError
from relprop.inputs import Inputs
from relprop.progress import Progress, telling
from relprop.targets import Target

if TYPE_CHECKING:
    from relprop.explainer import Explainer

# What an explanation takes beside what is kept, as a part of that, and in tensors as large as the largest of it: what a
# rule computes with on its way back, and what the allocator holds on to. The most that was measured, nearly.
BESIDE, WORKING = 0.25, 16

# How much of the memory is planned for.
PLANNED = 0.8

_UNITS = {"b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True)
class Need:
    """Bytes that an explanation takes: for each sample, and once, for weights that rules prepare."""

    sample: int
    once: int

    @classmethod
    def of(cls, kept: int, largest: int, once: int) -> Need:
        """From the bytes that one sample's explanation keeps, and those of the largest value among them."""
        return cls(int((1 + BESIDE) * kept) + WORKING * largest, once)

    def fitting(self, memory: int) -> int:
        """How many samples fit; 0 if not even one does."""
        return max(0, int(PLANNED * memory) - self.once) // max(self.sample, 1)


@dataclass(frozen=True)
class _Sample:
    """One sample, what is to be explained of it, and its form, which the samples of a batch have in common."""

    index: int
    x: Any
    form: object
    target: Any


def batches(
    explainer: Explainer,
    data: Any,
    target: Target | None = None,
    *,
    memory: str | int | None = None,
    batch: int | None = None,
    progress: bool | Progress = False,
    layers: Sequence[str] = (),
    attention: bool = False,
) -> Iterator[Attribution]:
    """As Explainer.batches, which see."""
    if batch is not None and memory is not None:
        raise InvalidInput("give memory=... to choose the size of batches by it, or batch=... samples, not both")
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise InvalidInput(f"batch: got {batch!r}, expected a number of samples, such as 16")
    if batch is None and explainer.method is not None:
        raise InvalidInput(
            f"memory is known for LRP alone; with method={explainer.method.name!r} give batch=..., such as batch=16"
        )
    limit = 0 if batch is not None else _bytes(memory) if memory is not None else available() // 2
    _require_collection(data)
    total = _count(data)
    if total == 0:
        raise _empty()
    samples = _samples(data, target, total)

    def generate() -> Iterator[Attribution]:
        plan = _Plan(explainer, limit)
        with telling(progress, "explaining samples") as tell:
            done = 0
            for group in _groups(samples, plan.size if batch is None else lambda _: batch):
                found = _explained(explainer, group, layers, attention)
                if batch is None:
                    plan.learn(group)
                yield found
                done += len(group)
                tell(done, total)
            if not done:
                raise _empty()

    return generate()


# ---- memory


def available() -> int:
    """Bytes of memory that are free for this process, by Linux' own account. Raises InvalidInput elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        raise InvalidInput(
            'how much memory is free is known on Linux only; give memory=..., such as memory="4 GiB", or batch=...'
        ) from None
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def _bytes(memory: str | int) -> int:
    """4 * 2 ** 30 for "4 GiB"."""
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    text = memory.strip().lower() if isinstance(memory, str) else ""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise InvalidInput(
            f'memory: got {memory!r}, a size without a unit; write "{text} GiB", or a number of bytes as an int'
        )
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]i?)b?|(b))", text)
    size = int(float(found[1]) * _UNITS[found[2] or found[3]]) if found is not None else 0
    if size == 0:
        raise InvalidInput(f'memory: got {memory!r}, expected a size such as "4 GiB", or a number of bytes')
    return size


class _Plan:
    """How many samples of each form are explained at a time."""

    def __init__(self, explainer: Explainer, memory: int) -> None:
        self.explainer, self.memory = explainer, memory
        self.before = _process("VmRSS")
        self.needs: dict[object, Need] = {}

    def size(self, sample: _Sample) -> int:
        if sample.form not in self.needs:
            x, target = _stacked([sample])
            with _naming([sample]):
                self.needs[sample.form] = self.explainer._need(x, target)
        size = self.needs[sample.form].fitting(self.memory)
        if size == 0:
            raise _too_little(sample, self.needs[sample.form], self.memory)
        return size

    def learn(self, group: list[_Sample]) -> None:
        """Where the peak of the process' memory shows that a batch took less than was planned, plan for more, but for
        no more than twice as many at once."""
        need, peak = self.needs[group[0].form], _process("VmHWM")
        if len(group) == need.fitting(self.memory) and peak:
            taken = max(0, peak - self.before - need.once) // len(group)
            self.needs[group[0].form] = Need(min(need.sample, max(taken, need.sample // 2)), need.once)


def _process(field: str) -> int:
    """Bytes that this process holds in memory (VmRSS), or has held at most (VmHWM); 0 where that isn't known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _too_little(sample: _Sample, need: Need, memory: int) -> InvalidInput:
    return InvalidInput(
        f"sample {sample.index} alone takes about {_size(need.sample)}, and the weights that rules prepare "
        f"{_size(need.once)}; with a reserve, {_size(memory)} are too little. Give more memory=, or take "
        'Explainer(..., segments="auto"), which needs less'
    )


def _size(count: int) -> str:
    """1536 bytes as "1.5 KiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


# ---- data


def _samples(data: Any, target: Any, total: int | None) -> Iterator[_Sample]:
    """The samples one by one, with what is to be explained of each."""
    each = _target_of_each(target, total)
    labelled = isinstance(target, str) and target == "label"
    for index, item in enumerate(_items(data)):
        if labelled:
            x, label = _pair(item, index)
        else:
            x, label = item[0] if _has_label(item) else item, None
        if isinstance(x, (tuple, list)) and len(x) == 1:  # as those of TensorDataset(x)
            x = x[0]
        form = _form(x, index)
        yield _Sample(index, x, form, _class(label, index) if labelled else each(index))


def _target_of_each(target: Any, total: int | None) -> Callable[[int], Any]:
    if isinstance(target, (Tensor, np.ndarray)) and target.ndim > 0:
        target = target.tolist()
    if not isinstance(target, (list, tuple)):
        return lambda index: target
    if total is not None and len(target) != total:
        raise InvalidTarget(f"got {len(target)} targets for {total} samples; give one for all, or one for each")

    def of(index: int) -> Any:
        if index >= len(target):
            raise InvalidTarget(f"got {len(target)} targets, and data has more samples; give one for each")
        return target[index]

    return of


def _count(data: Any) -> int | None:
    """How many samples there are, if that is known; of a DataLoader, whose length counts batches, only whether none."""
    try:
        count = len(data)
    except TypeError:  # a generator has no length, nor has a DataLoader of a stream, though it is Sized
        return None
    return count if count == 0 or not _is_loader(data) else None


def _empty() -> InvalidInput:
    return InvalidInput("data holds no samples")


def _is_loader(data: Any) -> bool:
    return isinstance(data, torch.utils.data.DataLoader) and data.batch_sampler is not None


def _is_indexed(data: Any) -> bool:
    """Whether this is a Dataset that is asked by index."""
    return isinstance(data, torch.utils.data.Dataset) and isinstance(data, Sized)


def _require_collection(data: Any) -> None:
    """InvalidInput for what is no collection of samples."""
    if isinstance(data, Tensor) and data.dim() == 0:
        raise InvalidInput("data: got a tensor of one value, expected a tensor (samples, ...)")
    if isinstance(data, (str, os.PathLike, Mapping)) or not (isinstance(data, Iterable) or _is_indexed(data)):
        raise InvalidInput(
            f"data: got a {type(data).__name__}, expected a tensor (samples, ...), or a list, Dataset or DataLoader of "
            "samples or of (sample, label) pairs"
        )


def _items(data: Any) -> Iterator[Any]:
    if _is_loader(data):
        default = data.collate_fn is torch.utils.data.default_collate
        for part in data:
            yield from _unbatched(part, default)
    elif isinstance(data, Iterable):
        yield from data
    else:
        yield from (data[index] for index in range(len(data)))


def _unbatched(part: Any, default: bool) -> list[Any]:
    """The samples of a DataLoader's batch. Of torch's default collation, a list holds parts; of a function of the
    user's, one within the batch may hold samples as well."""
    readings = []
    for columns in (False,) if default else (False, True):
        with contextlib.suppress(_Uneven):
            readings.append(_split(part, columns))
    if not readings:
        raise InvalidInput(
            f"a batch of the DataLoader holds {_described(part)}, which can't be split into samples: of all parts the "
            "first dimension must be the batch's, and equally long"
        )
    if len({_described(reading) for reading in readings}) > 1:
        raise InvalidInput(
            f"a batch of the DataLoader holds {_described(part)}, where a list may be of samples, or of several inputs "
            "of each. Let collate_fn stack samples to one tensor, and return several inputs as a dict"
        )
    return readings[0]


class _Uneven(Exception):
    """Parts of a batch that aren't of the same number of samples."""


def _split(part: Any, columns: bool, outermost: bool = True) -> list[Any]:
    """The samples of a part of a batch. columns: whether a list within it is taken for one of samples, where it can be;
    else only one of plain values is."""
    if isinstance(part, (Tensor, np.ndarray)) and part.ndim > 0:
        return list(part)
    if isinstance(part, Mapping):
        return [dict(zip(part, values, strict=True)) for values in _split(tuple(part.values()), columns)]
    if not isinstance(part, (tuple, list)) or not part:
        raise _Uneven
    plain = not any(isinstance(each, (Tensor, np.ndarray, Mapping, tuple, list)) for each in part)
    alike = len({(type(each), getattr(each, "ndim", None)) for each in part}) == 1
    if plain or (columns and alike and not outermost):
        return list(part)
    found = [_split(each, columns, False) for each in part]
    if len({len(each) for each in found}) > 1:
        raise _Uneven
    return list(zip(*found, strict=True))


def _described(part: Any) -> str:
    """The shapes of tensors in a batch, as they stand in it, and what is in between."""
    if isinstance(part, (Tensor, np.ndarray)):
        return str(tuple(part.shape))
    if isinstance(part, Mapping):
        return "{" + ", ".join(f"{key!r}: {_described(each)}" for key, each in part.items()) + "}"
    if isinstance(part, (tuple, list)):
        return "[" + ", ".join(map(_described, part)) + "]"
    return type(part).__name__


def _pair(item: Any, index: int) -> tuple[Any, Any]:
    """(sample, label), where labels are asked for."""
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
    raise InvalidTarget(
        f'target="label" needs data of (sample, label) pairs; sample {index} is a {type(item).__name__}{size}'
    )


def _has_label(item: Any) -> bool:
    """Whether this is (sample, label), and not a sample of two inputs, where labels aren't asked for."""
    if not (isinstance(item, (tuple, list)) and len(item) == 2):
        return False
    label = item[1]
    if isinstance(label, (Tensor, np.ndarray)):
        return label.ndim == 0 and not (isinstance(label, Tensor) and label.is_floating_point())
    return isinstance(label, (str, Number, np.generic)) or hasattr(label, "__index__")


def _class(label: Any, index: int) -> int | str:
    """The class that a label means: an index or a name."""
    if isinstance(label, str):
        return label
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    try:
        return operator.index(label)
    except TypeError:
        shown = f"of shape {tuple(label.shape)}" if isinstance(label, Tensor) else repr(label)
        raise InvalidTarget(
            f"sample {index}: the label {shown} is no class: expected an index or a class name"
        ) from None


def _form(x: Any, index: int) -> object:
    if isinstance(x, Tensor):
        return x.shape, x.dtype
    if isinstance(x, Mapping):
        return tuple((key, _form(value, index)) for key, value in x.items())
    if isinstance(x, (tuple, list)):
        return tuple(_form(each, index) for each in x)
    raise InvalidInput(
        f"sample {index} holds a {type(x).__name__}, expected a tensor, or a tuple or dict of them"
        + ("; write torch.from_numpy(array)" if isinstance(x, np.ndarray) else "")
    )


def _groups(samples: Iterable[_Sample], size: Callable[[_Sample], int]) -> Iterator[list[_Sample]]:
    """Samples in order, in groups of one form and of at most this size."""
    group: list[_Sample] = []
    for sample in samples:
        if group and (len(group) >= size(group[0]) or sample.form != group[0].form):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _stacked(group: Sequence[_Sample]) -> tuple[Inputs, Target | None]:
    """The input and the target of a batch."""

    def stack(parts: list[Any]) -> Any:
        first = parts[0]
        if isinstance(first, Tensor):
            return torch.stack(parts)
        if isinstance(first, Mapping):
            return {key: stack([part[key] for part in parts]) for key in first}
        return tuple(stack(list(column)) for column in zip(*parts, strict=True))

    targets = [sample.target for sample in group]
    alike = all(target is targets[0] for target in targets) and not isinstance(targets[0], int)
    return stack([sample.x for sample in group]), targets[0] if alike else targets


# ---- explaining


def _explained(explainer: Explainer, group: list[_Sample], layers: Sequence[str], attention: bool) -> Attribution:
    x, target = _stacked(group)
    with _naming(group, lambda one: explainer(*_stacked([one]), layers=layers, attention=attention)):
        found: Attribution = explainer(x, target, layers=layers, attention=attention)
    return found


@contextlib.contextmanager
def _naming(group: list[_Sample], again: Callable[[_Sample], object] | None = None) -> Iterator[None]:
    """Say in an error which sample it is about; where there are several, by trying them one by one."""
    try:
        yield
    except Exception as error:
        if again is None or len(group) == 1:
            raise _named(f"sample {group[0].index}", error, _hint(group[0], error)) from error
        for sample in group:
            try:
                again(sample)
            except Exception as alone:
                raise _named(f"sample {sample.index}", alone, _hint(sample, alone)) from error
        raise _named(f"samples {group[0].index} to {group[-1].index}, together", error) from error


def _named(which: str, error: Exception, hint: str = "") -> RelpropError:
    kind = type(error) if isinstance(error, RelpropError) else RelpropError
    return kind(f"{which}: {error}" if not hint else f"{which}: {str(error).rstrip('.')}. {hint}")


def _hint(sample: _Sample, error: Exception) -> str:
    """What to look at where a model can't take a sample, or makes something else of it than scores: its shape."""
    if isinstance(error, RelpropError) and "the model returned shape" not in str(error):
        return ""
    last = sample.x[-1] if isinstance(sample.x, (tuple, list)) else None
    labelled = isinstance(last, Tensor) and last.numel() == 1
    return f"Samples are given without the batch's dimension; this one has shape {_shape(sample.x)}" + (
        '. If its last tensor is a label, write target="label", or give [x for x, _ in data]' if labelled else ""
    )


def _shape(x: Any) -> object:
    if isinstance(x, Tensor):
        return tuple(x.shape)
    return {key: _shape(each) for key, each in x.items()} if isinstance(x, Mapping) else tuple(map(_shape, x))
