"""Results on disk, a line of JSON for each part that was measured: what a later run of other parts doesn't lose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.curves import Point
from benchmarks.machine import Stamp
from benchmarks.measure import Latency, Row
from benchmarks.messages import Messages
from benchmarks.startup import Startup

Item = TypeVar("Item")
_SECTIONS: dict[str, Any] = {
    "case": Row,
    "curve": Point,
    "latency": Latency,
    "startup": Startup,
    "messages": Messages,
}


@dataclass(frozen=True)
class Part(Generic[Item]):
    """One case, curve or table, with what measured it."""

    section: str
    name: str
    stamp: Stamp
    items: tuple[Item, ...]


class Store:
    """The latest result of each part; measured again, a part replaces what was there before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts: dict[tuple[str, str], Part[Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                self._keep(_part(json.loads(line)))

    def add(self, section: str, name: str, stamp: Stamp, items: Sequence[Any]) -> None:
        self._keep(Part(section, name, stamp, tuple(items)))
        lines = [json.dumps(_rounded(asdict(part)), separators=(",", ":")) for part in self._parts.values()]
        self.path.write_text("\n".join(lines) + "\n")

    def parts(self, section: str) -> list[Part[Any]]:
        return [part for part in self._parts.values() if part.section == section]

    def _keep(self, part: Part[Any]) -> None:
        self._parts[part.section, part.name] = part


def _rounded(value: Any) -> Any:
    """The same with its floats to five digits, more than any of these times has."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _part(found: dict[str, Any]) -> Part[Any]:
    kind = _SECTIONS[found["section"]]
    items = tuple(kind(**item) for item in found["items"])
    return Part(found["section"], found["name"], Stamp(**found["stamp"]), items)
