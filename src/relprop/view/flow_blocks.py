"""From an explanation to the flow through its blocks: which modules those are, their tokens and what they passed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from relprop.attribution import Attribution, named
from relprop.errors import InvalidInput
from relprop.view.flow import Flow, place_of

Array = NDArray[np.float64]

_MOST_EXTRA = 8  # tokens beside the patches: one for the class, one for distillation, registers


@dataclass(frozen=True)
class _Block:
    """A block of a Transformer by its module's name, with the names of the attention within, in the order it runs."""

    name: str
    attention: tuple[str, ...]

    @property
    def container(self) -> str:
        """The name of what holds the block and its kin: "encoder.layers" for "encoder.layers.0"."""
        return self.name.rpartition(".")[0]


def flow(
    attribution: Attribution,
    index: int,
    *,
    tokens: Sequence[str] | None = None,
    token: int | str | None = None,
    head: int | None = None,
    part: str | None = None,
    least: float = 0.1,
) -> Flow:
    """The flow of sample `index`. Arguments and errors as for `Attribution.flow`."""
    blocks = _chosen(_blocks(attribution), part)
    states = [_state(attribution, block, index) for block in blocks]
    counts = {block.name: len(state) for block, state in zip(blocks, states, strict=True)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in {name!r}" for name, count in counts.items())
        raise InvalidInput(
            f"the blocks differ in their number of tokens ({listed}), so no column leads through all of them. The "
            "figures of each are in attribution.layers and attribution.attention"
        )
    size = len(states[0])
    passed = tuple(_passed(attribution, block.attention[0], index, size) for block in blocks)
    _refuse_crowded(blocks, part)
    row, names, doubts = _input(attribution, index, size, blocks[0].container)
    if tokens is not None:
        names = tuple(map(str, tokens))
        if isinstance(tokens, str) or len(names) != size:
            raise InvalidInput(f"tokens= has {len(names)} names, and the blocks have {size} tokens: give one for each")
    return Flow(
        states=np.stack([row, *states]),
        passed=passed,
        elsewhere=np.stack([_elsewhere(attribution, block, index, size) for block in blocks]),
        tokens=names,
        blocks=tuple(block.name for block in blocks),
        claim=attribution._claim(index),
        score=float(attribution.score[index]),
        rules=attribution.rules,
        token=None if token is None else place_of(token, names, "token"),
        head=head,
        least=least,
        notes=(*attribution.notes, *_notes(blocks), *doubts),
    )


def _blocks(attribution: Attribution) -> list[_Block]:
    """The blocks in the order they run, each with its attention. Raises InvalidInput where they can't be told."""
    if not attribution.attention:
        raise InvalidInput(
            "this explanation holds no attention; explain with attention=True, as relprop.explain(model, x, "
            "attention=True), a model that has some; a text's explanation that was saved and loaded has none"
        )
    within: dict[str, list[str]] = {}
    for name in attribution.attention:
        again = re.fullmatch(r"(.+) \d+", name)
        if again and again[1] in attribution.attention:
            raise InvalidInput(
                f"the module {again[1]!r} attends more than once in a forward pass, as where blocks share their "
                "weights: the relevance at its outputs is summed over the runs, so there is none for each row. The "
                "figures of each run are in attribution.attention"
            )
        within.setdefault(_block_of(name, attribution), []).append(name)
    return [_Block(block, tuple(names)) for block, names in within.items()]


def _block_of(attention: str, attribution: Attribution) -> str:
    """The name of the block around an attention: of the numbered modules whose relevance is known, and that hold the
    least attention, the outermost."""
    holding = {
        name: sum(f"{each}.".startswith(f"{name}.") for each in attribution.attention)
        for name in attribution.layers
        if f"{attention}.".startswith(f"{name}.")
    }
    numbered = {name: count for name, count in holding.items() if name[-1].isdigit()} or holding
    if not numbered:
        raise InvalidInput(
            f"the attention in {attention!r} stands in no block whose relevance is known; name the modules that "
            'hold it, as relprop.explain(model, x, attention=True, layers=["encoder.block*"])'
        )
    return min(numbered, key=lambda name: (numbered[name], len(name)))


def _chosen(blocks: list[_Block], part: str | None) -> list[_Block]:
    """The blocks of one part of the model. Raises InvalidInput where there are several and none was chosen."""
    containers = list(dict.fromkeys(block.container for block in blocks))
    if part is not None:
        fitting = [each for each in containers if part == each or part in each.split(".")]
        if len(fitting) != 1:
            raise InvalidInput(
                f"part={part!r} fits {len(fitting)} lists of blocks; they are {', '.join(map(repr, containers))}: "
                "write one of them, or a name in one alone"
            )
        blocks = [block for block in blocks if block.container == fitting[0]]
    elif len(containers) > 1:
        raise InvalidInput(
            f"the model has {len(containers)} lists of blocks; write which to show: "
            + " or ".join(f"part={_short(each, containers)!r}" for each in containers)
        )
    return blocks


def _refuse_crowded(blocks: Sequence[_Block], part: str | None) -> None:
    """InvalidInput for a block with several attentions, but for a decoder's, which attends to itself first, then to the
    encoder's tokens."""
    block = next((block for block in blocks if len(block.attention) > (1 if part is None else 2)), None)
    if block is None:
        return
    inner = re.match(r"(?:\w+\.)*?(?=\d+\.)", block.attention[-1].removeprefix(f"{block.name}."))
    if inner:
        pattern = f"{block.name}.{inner[0]}*"
        advice = f'the blocks are inside it: explain(model, x, attention=True, layers=["{pattern}"])'
    else:
        advice = f"it is a decoder's, whose own tokens the first attends to: flow(part={block.container!r})"
    raise InvalidInput(
        f"{block.name!r} attends {len(block.attention)} times ({', '.join(map(repr, block.attention))}), and between "
        f"two rows there is room for one attention. Perhaps {advice}"
    )


def _short(container: str, containers: Sequence[str]) -> str:
    """The shortest thing to write for one of the containers: a part of its name that no other has."""
    others = {each for other in containers if other != container for each in other.split(".")}
    return next((each for each in container.split(".") if each not in others), container)


def _state(attribution: Attribution, block: _Block, index: int) -> Array:
    """(tokens,): the relevance at the block's output, summed over its width; also from (tokens, batch, width)."""
    relevance, batch = attribution.layers[block.name], len(attribution)
    queries = attribution.attention[block.attention[0]].shape[-2]
    if relevance.ndim == 3 and relevance.shape[0] == batch:
        return _array(relevance[index].sum(-1))
    if relevance.ndim == 3 and relevance.shape[:2] == (queries, batch):
        return _array(relevance[:, index].sum(-1))
    raise InvalidInput(
        f"the output of the block {block.name!r} has the shape {tuple(relevance.shape)}, not (batch, tokens, width), "
        "so there is no row of tokens to show"
    )


def _passed(attribution: Attribution, name: str, index: int, tokens: int) -> Array:
    """(heads, queries, keys) of an attention in which every token may look at every other."""
    passed = attribution.attention[name]
    if len(passed) != len(attribution) or passed.shape[-2:] != (tokens, tokens):
        queries, keys = passed.shape[-2:]
        raise InvalidInput(
            f"the attention {name!r} goes from {queries} queries to {keys} keys, and the block has {tokens} tokens, as "
            "where it looks at windows: that can't be drawn between rows of tokens. The figures are in "
            f"attribution.attention[{name!r}]"
        )
    return _array(passed[index])


def _elsewhere(attribution: Attribution, block: _Block, index: int, tokens: int) -> Array:
    """(tokens,): what the block's further attention took from each token."""
    taken = np.zeros(tokens)
    for name in block.attention[1:]:
        passed = attribution.attention[name]
        if len(passed) != len(attribution) or passed.shape[-2] != tokens:
            raise InvalidInput(f"the attention {name!r} has {passed.shape[-2]} queries for {tokens} tokens")
        taken += _array(passed[index].sum((0, 2)))
    return taken


def _input(
    attribution: Attribution, index: int, tokens: int, container: str
) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """(relevance, names, notes): the input's relevance by token, NaN where it isn't by token, what the tokens are
    called, and what leaves this open."""
    numbered = tuple(map(str, range(tokens)))
    members = named(attribution.relevance)
    of_decoder = any(each.startswith("decoder") for each in container.split("."))
    own = [relevance for name, relevance in members if name.startswith("decoder") == of_decoder]
    given = own or [relevance for _, relevance in members]
    rows = [_by_token(relevance, index, len(attribution), tokens) for relevance in given]
    found = [(row, numbered) for row in rows if row is not None]
    for relevance in [] if found else given:
        extra = _beside_patches(relevance, tokens)
        if extra is not None:
            names = ("class token", *("extra token",) * (extra - 1))[:extra]
            found.append((_by_patch(relevance[index], tokens, extra), (*names, *numbered[extra:])))
    if len(found) == 1:
        return *found[0], ()
    doubts = (f"{len(found)} inputs have {tokens} tokens, so it is open which of them this is",) if found else ()
    return np.full(tokens, np.nan), numbered, doubts


def _by_token(relevance: Tensor, index: int, batch: int, tokens: int) -> Array | None:
    """Of token ids (batch, tokens), or of sequences (batch, tokens, features) or (tokens, batch, features)."""
    if relevance.shape[:2] == (batch, tokens) and relevance.ndim in (2, 3):
        return _array(relevance[index].reshape(tokens, -1).sum(-1))
    if relevance.shape[:2] == (tokens, batch) and relevance.ndim == 3:
        return _array(relevance[:, index].sum(-1))
    return None


def _beside_patches(relevance: Tensor, tokens: int) -> int | None:
    """How many tokens stand for no patch of a picture (batch, channels, height, width) that square patches tile."""
    if relevance.ndim != 4:
        return None
    height, width = relevance.shape[-2:]
    for extra in range(min(_MOST_EXTRA, tokens - 1) + 1):
        side = math.isqrt(height * width // (tokens - extra))
        if side > 1 and side * side * (tokens - extra) == height * width and height % side == width % side == 0:
            return extra
    return None


def _by_patch(relevance: Tensor, tokens: int, extra: int) -> Array:
    """(tokens,): the relevance of each patch, row by row, after the tokens that stand for none."""
    _, height, width = relevance.shape
    side = math.isqrt(height * width // (tokens - extra))
    patches = _array(relevance.sum(0)).reshape(height // side, side, width // side, side).sum((1, 3))
    return np.concatenate([np.zeros(extra), patches.ravel()])


def _notes(blocks: Sequence[_Block]) -> tuple[str, ...]:
    notes = []
    if any(len(block.attention) > 1 for block in blocks):
        notes.append("what cross attention passed to the other part of the model is not drawn")
    numbers = [int(block.name.rpartition(".")[2]) for block in blocks if block.name.rpartition(".")[2].isdigit()]
    if len(numbers) == len(blocks) and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        notes.append(f"other modules stand between the blocks ({', '.join(block.name for block in blocks)})")
    return tuple(notes)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array
