"""Architectures by family: which of them are explained, measured on small random networks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from relprop.errors import InvalidInput
from relprop.models.families.family import Family, Task, randomise
from relprop.models.families.plain import PLAIN
from relprop.models.families.text import DECODERS, ENCODERS, PAIRS
from relprop.models.families.vision import BOTH, PICTURES, SOUNDS

FAMILIES = {family.name: family for family in (*ENCODERS, *DECODERS, *PAIRS, *PICTURES, *SOUNDS, *BOTH, *PLAIN)}

__all__ = ["FAMILIES", "Family", "Task", "chosen", "randomise"]


def chosen(names: Sequence[str] | None = None) -> list[Family]:
    """The families of these names, or all. Raises InvalidInput for a name that there is not."""
    for name in names or ():
        if name not in FAMILIES:
            close = difflib.get_close_matches(name, FAMILIES, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise InvalidInput(f"there is no family {name!r}.{hint} The families are: {', '.join(FAMILIES)}")
    return list(FAMILIES.values()) if names is None else [FAMILIES[name] for name in names]
