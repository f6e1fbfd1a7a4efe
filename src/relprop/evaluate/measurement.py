"""What a measurement is: a title, curves or figures; printed, as Markdown, and saved as a picture or JSON."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from relprop.errors import InvalidFile, MissingExtra
from relprop.view.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

RANDOM = "random"  # the floor that every order is compared with


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns; the first column names the row, the others hold figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = (self.columns, *self.rows)
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        padded = [
            "  ".join([line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([self.title, "", *(line.rstrip() for line in padded)])

    def to_markdown(self) -> str:
        marks = (":--", *("--:" for _ in self.columns[1:]))
        lines = ["| " + " | ".join(line) + " |" for line in (self.columns, marks, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


@dataclass(frozen=True)
class Curves:
    """Curves over the same steps, one for each name.

    Attributes:
        title: what was measured, and on how many samples.
        steps: where the curves are known, as numbers of deletions.
        values: for each name one value per step.
        areas: for each name one value per sample, the mean of the sample's own curve over the steps.
        x_label, y_label: what the axes mean.
    """

    title: str
    steps: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    areas: dict[str, tuple[float, ...]]
    x_label: str
    y_label: str

    @classmethod
    def of(cls, title: str, samples: dict[str, Tensor], x_label: str, y_label: str) -> Curves:
        """The mean curves over the samples, 0 if there are none; `samples`: for each name (samples, steps)."""
        steps = next(iter(samples.values())).shape[1]
        return cls(
            title,
            tuple(range(steps)),
            {name: tuple((each.sum(0) / max(1, len(each))).tolist()) for name, each in samples.items()},
            {name: tuple(each.mean(1).tolist()) for name, each in samples.items()},
            x_label,
            y_label,
        )

    def table(self) -> Table:
        """A row for each curve."""
        rows = tuple((name, *(f"{value:.3g}" for value in curve)) for name, curve in self.values.items())
        return Table(self.title, (self.x_label, *map(str, self.steps)), rows)


def with_error(values: Sequence[float], digits: int = 3) -> str:
    """The mean over the samples and its standard error, as "0.531 ± 0.012"; of one sample the value alone."""
    mean = f"{fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {stdev(values) / math.sqrt(len(values)):.{digits}f}"


def leads(areas: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """How far the first name's mean is above that of each other, with the standard error of the paired difference.

    areas: for each name one value per sample, the same samples for all; the first name itself gets a dash.
    """
    first, *others = areas
    return {first: "-"} | {
        name: with_error([a - b for a, b in zip(areas[first], areas[name], strict=True)]) for name in others
    }


class Measurement(ABC):
    """The result of a measurement; `print` shows its tables."""

    @abstractmethod
    def tables(self) -> tuple[Table, ...]:
        """All figures, as texts."""

    def curves(self) -> tuple[Curves, ...]:
        """What a picture of it shows, side by side; nothing where there are tables only."""
        return ()

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def _repr_html_(self) -> str:
        """The curves, where matplotlib is installed, and the tables, in a notebook."""
        from relprop.view.tables import chart, fragment, notes, table

        parts = []
        if self.curves():
            try:
                from relprop.evaluate.figure import drawn

                parts.append(chart(drawn(self.curves(), "png"), "The curves of the tables below"))
            except MissingExtra as error:
                parts.append(notes([f"No picture of the curves: {error}"]))
        for each in self.tables():
            parts.append(table(each.columns, each.rows, range(1, len(each.columns)), each.title))
        return fragment(parts)

    def to_markdown(self) -> str:
        """The tables in Markdown."""
        return "\n\n".join(table.to_markdown() for table in self.tables()) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """All figures, in full precision, as JSON can hold them."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the curves as .png or .svg, or all figures as .json or .md; the file appears complete or not at all.

        Raises InvalidFile for another ending or a place that can't be written, MissingExtra for a picture without
        matplotlib.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in (".png", ".svg"):
            if not self.curves():
                raise InvalidFile(f"{path.name!r} would be a picture, but there are no curves: save as .json or .md.")
            from relprop.evaluate.figure import drawn

            content = drawn(self.curves(), suffix[1:])
        elif suffix == ".json":
            content = (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()
        elif suffix == ".md":
            content = self.to_markdown().encode()
        else:
            raise InvalidFile(
                f"{path.name!r} does not say what to save: use one of the endings .png, .svg for a picture, .json or "
                ".md for the figures."
            )
        write_whole(path, content)
