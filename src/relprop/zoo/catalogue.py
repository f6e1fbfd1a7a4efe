"""The models of the zoo, by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from torch import nn

from relprop.errors import InvalidInput
from relprop.zoo import imagenet, mnist, sentiment
from relprop.zoo.entries import Entry, PictureEntry, TextEntry

_ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*mnist.ENTRIES, *imagenet.ENTRIES, *sentiment.ENTRIES)}


def names() -> tuple[str, ...]:
    """The names of all models, those included whose extra is not installed (see `Entry.available`)."""
    return tuple(_ENTRIES)


def entry(name: str) -> Entry:
    """What the zoo says of the model `name`; raises `InvalidInput` where there is no such model."""
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = get_close_matches(str(name).lower(), _ENTRIES, n=1)
    advice = f"did you mean {close[0]!r}? " if close else ""
    raise InvalidInput(f"the zoo has no model {name!r}; {advice}It has: {', '.join(_ENTRIES)}")


def picture_entry(name: str) -> PictureEntry:
    """As `entry`, of a model that looks at pictures; raises `InvalidInput` for the others."""
    found = entry(name)
    if not isinstance(found, PictureEntry):
        raise InvalidInput(f"the zoo's {name} reads text, not pictures; {_advice(PictureEntry)}")
    return found


def text_entry(name: str) -> TextEntry:
    """As `entry`, of a model that reads text; raises `InvalidInput` for the others."""
    found = entry(name)
    if not isinstance(found, TextEntry):
        raise InvalidInput(f"the zoo's {name} looks at pictures, not at text; {_advice(TextEntry)}")
    return found


def load(name: str) -> nn.Module:
    """The trained model `name`, in eval mode, with its class names as the attribute `labels`.

    Raises `InvalidInput` where there is no such model, `MissingExtra` where it needs a package that is not
    installed, `InvalidFile` where its weights are damaged.
    """
    return entry(name).build()


def card(name: str) -> str:
    """The model card of `name`, as Markdown: origin, training, measured figures, intended use, limits, licence."""
    path = Path(__file__).parent / "cards" / f"{entry(name).name}.md"
    return path.read_text(encoding="utf-8")


def _advice(kind: type[Entry]) -> str:
    other = "relprop text" if kind is PictureEntry else "relprop image"
    fitting = ", ".join(each.name for each in _ENTRIES.values() if isinstance(each, kind))
    return f"use `{other}`, or one of: {fitting}"
