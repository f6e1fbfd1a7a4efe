"""Batches: explaining a dataset, as many samples at a time as memory allows."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.attribution import Attribution
from relprop.errors import InvalidInput, InvalidTarget, RelpropError
from relprop.inputs import Inputs
from relprop.targets import Target

if TYPE_CHECKING:
    from relprop.explainer import Explainer

Progress = Callable[[int, "int | None"], None]

# What an explanation takes beside what is kept, as a part of that, and in tensors as large as the largest of it: what a
# rule computes with on its way back, and what the allocator holds on to. The most that was measured, nearly.
BESIDE, WORKING = 0.25, 16

# How much of the memory is planned for.
PLANNED = 0.8

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


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
    total = len(data) if isinstance(data, Sized) else None
    if total == 0:
        raise InvalidInput("data holds no samples")
    samples = _samples(data, target, total)

    def generate() -> Iterator[Attribution]:
        plan = _Plan(explainer, limit)
        with _told(progress) as tell:
            done = 0
            for group in _groups(samples, plan.size if batch is None else lambda _: batch):
                found = _explained(explainer, group, layers, attention)
                if batch is None:
                    plan.learn(group)
                yield found
                done += len(group)
                tell(done, total if _per_sample(data) else None)

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
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", memory.lower()) if isinstance(memory, str) else None
    if found is None or float(found[1]) == 0:
        raise InvalidInput(f'memory: got {memory!r}, expected a size such as "4 GiB", or a number of bytes')
    return int(float(found[1]) * _UNITS[found[2] or ""])


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
        f"sample {sample.index} alone takes about {need.sample / 2**20:.0f} MiB, and the weights that rules prepare "
        f"{need.once / 2**20:.0f} MiB; with a reserve, {memory / 2**20:.0f} MiB are too little. Give more memory=, or "
        'take Explainer(..., segments="auto"), which needs less'
    )


# ---- data


def _samples(data: Any, target: Any, total: int | None) -> Iterator[_Sample]:
    """The samples one by one, with what is to be explained of each."""
    each = _target_of_each(target, total if _per_sample(data) else None)
    for index, item in enumerate(_items(data)):
        x, label = item if _is_pair(item) else (item, None)
        if isinstance(target, str) and target == "label":
            if label is None:
                raise InvalidTarget(
                    f'target="label" needs data of (sample, label) pairs; sample {index} is a {type(item).__name__}'
                )
            yield _Sample(index, x, _form(x, index), int(label))
        else:
            yield _Sample(index, x, _form(x, index), each(index))


def _target_of_each(target: Any, total: int | None) -> Callable[[int], Any]:
    if isinstance(target, Tensor) and target.dim() > 0:
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


def _per_sample(data: Any) -> bool:
    """Whether the length of data counts samples, and not batches."""
    return not _is_loader(data)


def _is_loader(data: Any) -> bool:
    return isinstance(data, torch.utils.data.DataLoader) and data.batch_sampler is not None


def _items(data: Any) -> Iterator[Any]:
    if isinstance(data, (str, Mapping)):
        raise InvalidInput(
            f"data: got a {type(data).__name__}, expected a tensor (samples, ...), or a list, Dataset or DataLoader of "
            "samples or of (sample, label) pairs"
        )
    if _is_loader(data):
        for part in data:
            yield from _unbatched(part)
    elif isinstance(data, Iterable):
        yield from data
    elif isinstance(data, torch.utils.data.Dataset) and isinstance(data, Sized):
        yield from (data[index] for index in range(len(data)))
    else:
        raise InvalidInput(f"data: got a {type(data).__name__}, which is no collection of samples")


def _unbatched(part: Any) -> Iterator[Any]:
    """The samples of a DataLoader's batch."""
    if isinstance(part, Mapping):
        size = len(next(iter(part.values())))
        yield from ({key: value[i] for key, value in part.items()} for i in range(size))
    elif isinstance(part, (tuple, list)):
        yield from zip(*part, strict=True)
    else:
        yield from part


def _is_pair(item: Any) -> bool:
    """Whether this is (sample, label)."""
    if not (isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], (Tensor, Mapping))):
        return False
    label = item[1]
    return isinstance(label, int) or (isinstance(label, Tensor) and label.dim() == 0 and not label.is_floating_point())


def _form(x: Any, index: int) -> object:
    if isinstance(x, Tensor):
        return x.shape, x.dtype
    if isinstance(x, Mapping):
        return tuple((key, _form(value, index)) for key, value in x.items())
    if isinstance(x, (tuple, list)):
        return tuple(_form(each, index) for each in x)
    raise InvalidInput(f"sample {index} holds a {type(x).__name__}, expected a tensor, or a tuple or dict of them")


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
            raise _named(f"sample {group[0].index}", error) from error
        for sample in group:
            try:
                again(sample)
            except Exception as alone:
                raise _named(f"sample {sample.index}", alone) from error
        raise _named(f"samples {group[0].index} to {group[-1].index}, together", error) from error


def _named(which: str, error: Exception) -> RelpropError:
    kind = type(error) if isinstance(error, RelpropError) else RelpropError
    return kind(f"{which}: {error}")


@contextlib.contextmanager
def _told(progress: bool | Progress) -> Iterator[Progress]:
    """What to call with (samples done, samples in all): the caller's own, or a bar on a terminal."""
    if callable(progress):
        yield progress
        return
    if not progress or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    import typer

    with typer.progressbar(length=1, label="explaining", file=sys.stderr) as bar:

        def tell(done: int, total: int | None) -> None:
            bar.length = total or done + 1
            bar.update(done - bar.pos)

        yield tell
