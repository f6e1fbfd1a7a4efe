"""Occlusion: how far the score falls when a part of the input is taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from relprop.errors import InvalidInput
from relprop.inputs import input_name
from relprop.methods.base import Method
from relprop.methods.baseline import Baseline, baseline_values
from relprop.methods.evaluation import Evaluation, Used
from relprop.methods.plain import Change, Key
from relprop.methods.windows import Sizes, Window, windows
from relprop.progress import Progress, told


@dataclass(frozen=True, eq=False)
class Occlusion(Method):
    """R_i = f(x) - f(x with the window around i replaced by the baseline), the mean over the windows that cover i
    (Zeiler and Fergus 2014). Every value of a window gets the whole difference. Needs no gradient.

    patch, stride: of the windows; by default an eighth of a picture's side, all channels together; one word; one time
    step, all features together; one value of a vector; side by side. A number counts positions; a tuple gives a size
    for each dimension of a sample, as (channels, height, width). baseline: a number or an input of the same form; for
    token ids a number fills the embedding's output, a tensor of ids is embedded. progress: True for
    a bar, or a function of (done, total).

    Each window is one forward pass.
    """

    name: ClassVar[str] = "occlusion"
    patch: Sizes = None
    stride: Sizes = None
    baseline: Baseline = 0.0
    progress: bool | Progress | None = field(default=None, repr=False)

    def explain(self, evaluation: Evaluation) -> list[Tensor]:
        facts = evaluation.facts
        base = baseline_values(evaluation, self.baseline)
        work = [
            (used, w) for used in facts.used for w in windows(sample_shape(evaluation, used), self.patch, self.stride)
        ]
        drops = [torch.zeros(used.shape).to(facts.values[used.keys[0]]) for used in facts.used]
        counts = [torch.zeros_like(r) for r in drops]
        of = {used.place: i for i, used in enumerate(facts.used)}
        for used, window in told(work, self.progress, self.name):
            drop = facts.score - evaluation.score(_without(used, window, base))
            place, i = (slice(None), *window), of[used.place]
            drops[i][place] += drop.reshape(-1, *[1] * len(window)).to(drops[i])
            counts[i][place] += 1
        return [total / count for total, count in zip(drops, counts, strict=True)]


def sample_shape(evaluation: Evaluation, used: Used) -> tuple[int, ...]:
    """The shape of one sample of an input. Raises InvalidInput where token ids are rearranged before an embedding."""
    if used.tokens:
        for key in used.keys:
            found = tuple(evaluation.facts.values[key].shape[:-1])
            if found != used.shape:
                raise InvalidInput(
                    f"{input_name(used.key)} holds token ids of shape {used.shape}, which reach an embedding as "
                    f"{found}; a token can't be taken away there. Rearrange them after the embedding"
                )
    return used.shape[1:]


def _without(used: Used, window: Window, base: dict[Key, Tensor]) -> Change:
    def change(key: Key, value: Tensor) -> Tensor:
        if key not in used.keys:
            return value
        changed = value.clone()
        place = (slice(None), *window)
        changed[place] = base[key][place]
        return changed

    return change
