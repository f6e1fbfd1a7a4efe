"""The table of architectures, as text and in docs/en/architectures.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from relprop.errors import InvalidFile, InvalidInput
from relprop.models.families.measure import Finding
from relprop.view.files import write_whole

BEGIN, END = "<!-- table: made by python -m relprop.models.families -->", "<!-- end of table -->"

_COLUMNS = (
    "architecture",
    "`model_type`",
    "rules",
    "operations",
    "output",
    "eager = sdpa",
    "AttnLRP",
    "CP-LRP",
    "at the input",
    "rest",
)
_RIGHT = {"operations", "eager = sdpa", "AttnLRP", "CP-LRP", "at the input"}


def markdown(findings: Sequence[Finding]) -> str:
    """The table of what is explained, and below it that of what is refused."""
    explained = [finding for finding in findings if not finding.error]
    refused = [finding for finding in findings if finding.error]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    lines = [f"{len(explained)} architectures explained, {len(refused)} refused; {packages}.", ""]
    lines += _table(_COLUMNS, [_cells(finding) for finding in explained])
    if refused:
        rows = [(f.family.title, f"`{f.family.name}`", f.error.replace("|", "\\|")) for f in refused]
        lines += ["", *_table(("refused", "`model_type`", "error"), rows)]
    return "\n".join(lines)


def require_place(path: Path, only: str | None) -> None:
    """Raises, before anything is measured, what `write` would afterwards."""
    if only is not None:
        raise InvalidInput("the document's table holds all architectures: leave --only away with --write")
    _parts(path)


def write(path: Path, findings: Sequence[Finding]) -> None:
    """Puts the table in its place in a document. Raises InvalidFile for a document without that place."""
    before, after = _parts(path)
    write_whole(path, f"{before}{BEGIN}\n\n{markdown(findings)}\n\n{END}{after}".encode())


def _parts(path: Path) -> tuple[str, str]:
    """What stands before and after the table."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InvalidFile(f"{path.name!r} has no place for the table. Write two lines into it: {BEGIN} and {END}")
    return before, after


def _cells(finding: Finding) -> tuple[str, ...]:
    family = finding.family
    return (
        family.title,
        "" if family.build else f"`{family.name}`",
        finding.rules.removeprefix("auto: "),
        str(finding.operations),
        "same" if finding.same_output else "**differs**",
        _digits(finding.same_attention),
        _digits(finding.taylor),
        _digits(finding.constant),
        f"{finding.share:.0%}",
        finding.lost_to,
    )


def _digits(difference: float) -> str:
    return "" if math.isnan(difference) else f"{difference:.0e}" if difference else "0"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["--:" if column in _RIGHT else ":--" for column in columns]
    return [f"| {' | '.join(row)} |" for row in (columns, rule, *rows)]
