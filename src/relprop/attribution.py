"""What an explanation is: relevance and what it explains; summing, checking, showing and saving it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.conservation import Conservation, OperationFlow
from relprop.errors import InvalidFile, InvalidInput, RelpropError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from relprop.view.flow import Flow
    from relprop.view.page import Section
    from relprop.view.panels import Sample
    from relprop.view.style import Style

Tensors = Tensor | tuple[Tensor, ...] | dict[str, Tensor]

LRP = "lrp"  # among the methods, the one that redistributes the score
PICTURES = (".png", ".svg", ".html")
MOST_IN_NOTEBOOK = 10


@dataclass(eq=False, repr=False)
class Attribution:
    """The relevance of every input value for a score, sample by sample.

    Attributes:
        relevance: (batch, ...), shaped like the input, or a tuple or dict of such for several inputs; for token ids
            (batch, tokens).
        score: (batch,), the value that was explained.
        target: (batch,) int64, the explained class of each sample; None where a callable or a seed was explained.
        output: what the model returned, detached; None if it was not kept.
        inputs: the inputs that were explained, in the structure of `relevance`; None if they were not kept.
        rules: the preset or rules that redistributed the score.
        labels: class names, by index.
        layers: relevance inside the network, by module name, each (batch, ...).
        attention: relevance that attention passed from each token to each, by the name of its module, each
            (batch, heads, queries, keys), if it was asked for. An entry is what came to the query's output by way of
            this key, before attention weights and values share it: over the keys it sums to the relevance of the head's
            output there.
        notes: what a reader of the result should know, as sentences.
        trace_flow: runs the explanation once more and returns what each operation received and passed on; called when
            `conservation` is first asked for, then let go.
        known_operations: what it returned, or what a file held; None until then.
    """

    relevance: Tensors
    score: Tensor
    target: Tensor | None = None
    output: Any = None
    inputs: Tensors | None = None
    rules: str = ""
    labels: tuple[str, ...] | None = None
    layers: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trace_flow: Callable[[], tuple[OperationFlow, ...]] | None = None
    known_operations: tuple[OperationFlow, ...] | None = field(default=None, init=False)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.score)

    def __getitem__(self, index: int | slice) -> Attribution:
        """One sample, or some, as an Attribution of its own, still with a batch dimension.

        Figures per operation are sums over the batch, so only the whole batch keeps them.
        """
        size = len(self)
        chosen = index if isinstance(index, slice) else slice(_position(index, size), _position(index, size) + 1)
        if len(range(size)[chosen]) == 0:
            raise IndexError(f"{index} selects none of the {size} samples")
        rows = torch.arange(size)[chosen]

        def narrowed(tensor: Tensor) -> Tensor:
            return tensor[rows.to(tensor.device)] if tensor.ndim and len(tensor) == size else tensor

        part = Attribution(
            relevance=_map(narrowed, self.relevance),
            score=narrowed(self.score),
            target=None if self.target is None else narrowed(self.target),
            output=_map(narrowed, self.output),
            inputs=_map(narrowed, self.inputs),
            rules=self.rules,
            labels=self.labels,
            layers=_map(narrowed, self.layers),
            attention=_map(narrowed, self.attention),
            notes=self.notes,
        )
        if len(part) == size:
            part.trace_flow, part.known_operations = self.trace_flow, self.known_operations
        return part

    def __iter__(self) -> Iterator[Attribution]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        shapes = _map(lambda tensor: tuple(tensor.shape), self.relevance)
        return (
            f"Attribution(relevance={shapes}, target={_few([self.label(i) for i in range(len(self))])}, "
            f"score={_few(_figures(self.score))}, total={_few(_figures(self._sums()))}, rules={self.rules!r})"
        )

    # What it says

    @property
    def total(self) -> Tensor:
        """(batch,): the sum of relevance over all values of all inputs, added up in double precision."""
        return self._sums().to(self.score)

    @property
    def conservation(self) -> Conservation:
        """Where the relevance went, overall and operation by operation, summed over the batch.

        The first access costs one more explanation; `total` and `is_conservative` cost nothing.
        """
        if self.known_operations is None and self.trace_flow is not None:
            self.known_operations = tuple(self.trace_flow())
            self.trace_flow = None  # it holds the whole recorded forward pass
        return Conservation(
            score=float(self.score.detach().cpu().double().sum()),
            relevance=float(self._sums().sum()),
            operations=self.known_operations or (),
            redistributes=self.method == LRP,
        )

    @property
    def method(self) -> str:
        """What computed it: "lrp", or the name of another method, as in relprop.methods."""
        from relprop.methods import METHODS

        name = self.rules.split(" ")[0]
        return name if name in METHODS else LRP

    def is_conservative(self, tol: float = 1e-3) -> bool:
        """Whether in every sample the relevance sums to the score, up to `tol` times |score|.

        Definition 1 of Montavon et al. 2017, "Explaining nonlinear classification decisions with deep Taylor
        decomposition".
        """
        score = self.score.detach().cpu().double()
        least = torch.finfo(torch.float64).tiny
        return bool(((self._sums() - score).abs() <= tol * score.abs().clamp(min=least)).all())

    def is_positive(self, tol: float = 0.0) -> bool:
        """Whether no relevance is below -`tol`; definition 2 of the same paper."""
        return all(bool((part >= -tol).all()) for _, part in named(self.relevance))

    def is_consistent(self, tol: float = 1e-3) -> bool:
        """Whether it is conservative up to `tol` and positive; definition 3 of the same paper."""
        return self.is_conservative(tol) and self.is_positive()

    @property
    def heads(self) -> dict[str, Tensor]:
        """(batch, heads), by the name of the attention module: the relevance that passed through each head."""
        return {name: passed.sum((-2, -1)) for name, passed in self.attention.items()}

    def label(self, index: int = 0) -> str:
        """The name of the class explained in sample `index`, or its number; "score" where no class was."""
        index = _position(index, len(self))
        if self.target is None:
            return "score"
        target = int(self.target[index])
        return self.labels[target] if self.labels is not None and 0 <= target < len(self.labels) else str(target)

    # Showing it

    def to_pil(
        self,
        index: int | None = None,
        *,
        cmap: str = "RdBu_r",
        clip: float | None = None,
        limit: float | str | None = None,
        overlay: float | None = None,
        image: Image.Image | Sequence[Image.Image] | None = None,
        scale: int | None = None,
        channels: str = "sum",
        legend: bool = False,
    ) -> Image.Image:
        """The heatmap of sample `index`, or of all samples in one picture.

        Pictures (channels, height, width), with the channels first or last, are summed over their channels; flat
        samples are shown as they are, vectors as a strip, volumes as a row of slices. Several inputs stand side by
        side.

        Args:
            index: which sample; None for all.
            cmap: RdBu_r, bwr, seismic or coldnhot; for relevance that is nowhere negative also gray or hot.
            clip: the percentile of |R| that gets full colour, as 99.5, instead of the largest |R|.
            limit: the |R| that gets full colour, so that several pictures share a scale; "batch" for the largest of all
                samples; None for the largest of each.
            overlay: opacity in (0, 1] of the strongest relevance over the input in grey; where there is none, the input
                shows.
            image: what to lay it over instead of the input, in any resolution; for several samples a list.
            scale: how many pixels wide a value is; by default enough for 224 pixels on the shorter side.
            channels: "sum", or "each" for a map of every channel (up to 16).
            legend: adds what the colours mean.

        Raises:
            InvalidInput: an option that can't be met, or negative relevance in a map without colours for it.
            NonFinite: relevance that is NaN or infinite.
        """
        from relprop.view.image import picture
        from relprop.view.style import Style

        style = Style(cmap, clip, limit, overlay, image, scale, channels, legend)
        return picture(self._samples(index, style), style)

    def plot(self, ax: Any = None, index: int = 0, **style: Any) -> Any:
        """Sample `index` as a matplotlib figure, which is returned and not shown; on the axes `ax` if given.

        `style` as for `to_pil`. Raises MissingExtra without matplotlib.
        """
        from relprop.view.figure import figure
        from relprop.view.style import Style

        chosen = Style(**style)
        return figure(self._samples(index, chosen)[0], chosen, ax)

    def flow(
        self,
        index: int = 0,
        *,
        tokens: Sequence[str] | None = None,
        token: int | str | None = None,
        head: int | None = None,
        part: str | None = None,
        least: float = 0.1,
    ) -> Flow:
        """How the relevance of sample `index` flows through a Transformer, if it was explained with attention=True.

        Its `states` and `messages` are the figures; `to_pil()`, `save("flow.svg")` and a notebook show them: a row for
        each block, a column for each token, lines for what attention passed from one to another. Its `heads()` show
        what passed through each head.

        Args:
            tokens: what to write below the columns; by default their numbers, and "class token" before patches.
            token: the token whose flow is shown in colour, by its number or name; None for all.
            head: the attention head whose lines are shown; None for their sum.
            part: which blocks, where there are several lists of them: "encoder" or "decoder".
            least: lines of less than this share of the widest are not drawn.

        Raises:
            InvalidInput: nothing was collected, or the blocks don't stand in rows of tokens: windows, shared weights.
            NonFinite: relevance that is NaN or infinite.
        """
        from relprop.view.flow_blocks import flow

        place = _position(index, len(self))
        return flow(self, place, tokens=tokens, token=token, head=head, part=part, least=least)

    def _repr_html_(self) -> str:
        """The heatmaps in a notebook: the first ten samples, without scripts."""
        from relprop.view.page import fragment
        from relprop.view.style import Style
        from relprop.view.svg import clean

        try:
            shown = self[:MOST_IN_NOTEBOOK]
            note = f"The first {len(shown)} of {len(self)} samples." if len(shown) < len(self) else ""
            return fragment(shown._sections(None, Style(legend=True)), note)
        except RelpropError as error:
            return f"<pre>{clean(repr(self))}</pre><p>{clean(str(error))}</p>"

    # Keeping it

    def save(self, path: str | PathLike[str], index: int | None = None, **style: Any) -> None:
        """Writes a file of the kind that its ending names; it appears complete or not at all.

        .png, .svg and .html are pictures, with a legend unless legend=False; `index` and `style` as for `to_pil`. .npz
        and .safetensors hold the whole explanation, for `load`; of `output` only a plain tensor, and figures per
        operation if `conservation` was asked for before. Raises InvalidFile where that can't be done.
        """
        from relprop.view.archive import write
        from relprop.view.files import WRITERS, write_whole

        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in (*PICTURES, *WRITERS):
            raise InvalidFile(
                f"{path.name!r} does not say what to save: use one of the endings {', '.join(PICTURES)} for a picture, "
                f"{' or '.join(WRITERS)} for the figures."
            )
        if suffix in PICTURES:
            write_whole(path, self._drawn(suffix, index, style))
            return
        if style:
            raise InvalidInput(f"{', '.join(style)}: only for pictures, and {path.name!r} holds figures. Leave it out.")
        write(self if index is None else self[index], path)

    def _drawn(self, suffix: str, index: int | None, style: dict[str, Any]) -> bytes:
        """The content of a picture file."""
        from relprop.view.page import page
        from relprop.view.style import Style
        from relprop.view.svg import document

        style = {"legend": True, **style}
        if suffix == ".png":
            buffer = io.BytesIO()
            self.to_pil(index, **style).save(buffer, "PNG", optimize=True)
            return buffer.getvalue()
        chosen = Style(**style)
        if suffix == ".svg":
            return document(self._samples(index, chosen), chosen).encode()
        return page("What was relevant", self._sections(index, chosen)).encode()

    def _sums(self) -> Tensor:
        """(batch,) float64 on the processor: the sum of relevance of each sample."""
        parts = [part.detach().cpu().double().reshape(len(self), -1).sum(1) for _, part in named(self.relevance)]
        return torch.stack(parts).sum(0)

    def _samples(self, index: int | None, style: Style) -> tuple[Sample, ...]:
        """What the pictures show of one sample, or of all."""
        from relprop.view.panels import Sample, panels, with_image, with_limits

        indices = range(len(self)) if index is None else [_position(index, len(self))]
        sums = self._sums()
        values = dict(named(self.inputs)) if self.inputs is not None else {}
        made = []
        for i in indices:
            shown = tuple(
                panel
                for name, part in named(self.relevance)
                for panel in panels(_array(part[i]), _array(values[name][i]) if name in values else None, style, name)
            )
            made.append(Sample(self._claim(i), float(self.score[i]), float(sums[i]), shown))
        if style.image is not None:
            images = list(style.image) if isinstance(style.image, Sequence) else [style.image]
            if len(images) != len(made):
                raise InvalidInput(f"{len(made)} samples are shown and image= has {len(images)}: give one for each.")
            made = [
                dataclasses.replace(sample, panels=with_image(sample.panels, picture))
                for sample, picture in zip(made, images, strict=True)
            ]
        if style.limit == "batch" and index is not None:  # the same scale as in the picture of all samples
            everything = self._samples(None, dataclasses.replace(style, overlay=None, image=None))
            return (dataclasses.replace(made[0], limit=everything[0].limit),)
        return with_limits(made, style)

    def _sections(self, index: int | None, style: Style) -> list[Section]:
        """What an HTML page shows of one sample, or of all."""
        from relprop.view.panels import input_picture
        from relprop.view.sections import section

        indices = range(len(self)) if index is None else [_position(index, len(self))]
        facts = self._facts()
        sections = []
        for i, sample in zip(indices, self._samples(index, style), strict=True):
            photo = input_picture(_array(self.inputs[i])) if isinstance(self.inputs, Tensor) else None
            sections.append(section(sample, style, photo, facts))
        return sections

    def _facts(self) -> list[tuple[str, str]]:
        """What a page says in words besides the figures of each sample."""
        from relprop.view.legend import number

        facts = [("rules", self.rules)] if self.rules else []
        if self.known_operations is not None and len(self) == 1:
            facts += [(f"taken up by: {cause}", number(amount)) for cause, amount in self.conservation.absorbed.items()]
        return facts + [("note", note) for note in self.notes]

    def _claim(self, index: int) -> str:
        """What positive relevance in a sample speaks for, on one line."""
        label = " ".join(self.label(index).split())
        if self.target is None:
            return "the score"
        return f"class {label}" if label == str(int(self.target[index])) else label


def load(path: str | PathLike[str]) -> Any:
    """Reads what was saved as .npz, .safetensors or, of texts, .json; nothing in the file is executed.

    Returns an Attribution, or a TextAttribution (a list of them where several were saved). The tensors come back on the
    processor. Raises InvalidFile for a file that is missing, damaged or something else.
    """
    from relprop.view import archive, files

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*files.READERS, ".json"):
        raise InvalidFile(
            f"{path.name!r} names no explanation: those are in files ending in .npz, .safetensors or .json."
        )
    of_text = suffix == ".json" or (suffix == ".npz" and "text" in files.read(path, "relprop explanation")[1])
    if not of_text:
        return archive.read(path)
    from relprop.text.archive import load as load_text

    return load_text(path)


def named(members: Tensors) -> list[tuple[str, Tensor]]:
    """(name, tensor) of each input; a single one has no name."""
    if isinstance(members, Tensor):
        return [("", members)]
    if isinstance(members, Mapping):
        return list(members.items())
    return [(f"input {place}", tensor) for place, tensor in enumerate(members)]


def _map(change: Callable[[Tensor], Any], value: Any) -> Any:
    """`value` with every tensor in it changed: tuples, lists, mappings and dataclasses keep their form."""
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: _map(change, getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return {name: _map(change, member) for name, member in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(change, member) for member in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_map(change, member) for member in value)
    return value


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return array


def _position(index: int, size: int) -> int:
    """`index` counted from the start. Raises IndexError beyond the batch."""
    if not -size <= index < size:
        raise IndexError(f"there is no sample {index}: the batch has {size}")
    return index % size


def _figures(values: Tensor) -> list[str]:
    return [f"{value:+.4g}" for value in values.detach().cpu().double().tolist()]


def _few(words: Sequence[str], most: int = 4) -> str:
    """The words, or the first few of them and how many there are."""
    listed = ", ".join(words[:most])
    return listed if len(words) <= most else f"{listed}, ... ({len(words)})"
