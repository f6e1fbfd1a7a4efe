"""The report of relprop.check: what was recognised, which rule applied, where relevance is lost."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from relprop.conservation import Conservation, OperationFlow

WIDTH = 100  # of the lines that name the rules


@dataclass(frozen=True)
class Report:
    """A table of operations in forward order. `ok`: everything that relevance flows through is understood."""

    operations: tuple[OperationFlow, ...]
    unsupported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rules: str = ""
    score: float = float("nan")
    relevance: float = float("nan")

    @property
    def ok(self) -> bool:
        return not self.unsupported

    @property
    def conservation(self) -> Conservation:
        return Conservation(self.score, self.relevance, self.operations)

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells: number, module, operation, kind, rule, relevance in, relevance out, lost to."""
        return [
            (
                str(op.index),
                op.module or "-",
                op.function,
                op.kind,
                op.rule or "-",
                f"{op.received:+.5g}" if self.ok else "",
                f"{op.passed:+.5g}" if self.ok else "",
                ", ".join(f"{cause} {amount:+.3g}" for cause, amount in op.absorbed.items() if cause != "rounding"),
            )
            for op in self.operations
        ]

    def _repr_html_(self) -> str:
        """The report in a notebook: what is not supported, or the balance; then the table."""
        from relprop.view.tables import balance, fragment, notes, table

        columns = ("#", "module", "operation", "kind", "rule", "in", "out", "lost to")
        heading = "Every operation is supported" if self.ok else f"Not supported: {len(self.unsupported)}"
        told = balance(self.conservation, self.rules) if self.ok else notes(self.unsupported)
        return fragment([told, notes(self.notes), table(columns, self.rows(), right=(0, 5, 6))], heading)

    def __str__(self) -> str:
        header = ("#", "module", "operation", "kind", "rule", "in", "out", "lost to")
        table = [header, *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
        lines.insert(1, "  ".join("-" * w for w in widths))
        if self.ok:
            lines += ["", *_wrapped(f"rules: {self.rules}"), str(self.conservation)]
        else:
            lines += ["", f"unsupported ({len(self.unsupported)}):", *(f"  - {u}" for u in self.unsupported)]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    """A rule map of many entries in lines that can be read."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
