"""Style that lies on the elements themselves, for notebooks: a <style> element is taken out of an untrusted one, as by
JupyterLab and GitHub, and in a trusted one it would hold for the whole page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from html.parser import HTMLParser

Element = tuple[str, frozenset[str]]  # its name and classes
Path = tuple[Element, ...]  # from the outermost element

_VOID = ("br", "hr", "img", "input", "meta", "wbr")


def inlined(markup: str, style: str) -> str:
    """The HTML with each element's style from `style` as its attribute.

    `style` has selectors of element names and classes, with spaces and > in between; others, and media, are left out.
    """
    writer = _Writer(_rules(style))
    writer.feed(markup)
    writer.close()
    return "".join(writer.written)


@dataclass(frozen=True)
class _Compound:
    """What one element must be; `child`: the element right within the one before."""

    tag: str
    classes: frozenset[str]
    child: bool

    def fits(self, element: Element) -> bool:
        return self.tag in ("", element[0]) and self.classes <= element[1]


@dataclass(frozen=True)
class _Rule:
    selector: tuple[_Compound, ...]
    declarations: tuple[tuple[str, str], ...]

    @property
    def weight(self) -> tuple[int, int]:
        """What wins where several rules hold, as in CSS: classes, then element names."""
        return sum(len(each.classes) for each in self.selector), sum(each.tag != "" for each in self.selector)

    def holds(self, path: Path) -> bool:
        """Whether the last element of the path is meant."""
        return self.selector[-1].fits(path[-1]) and _leads(self.selector, path)


def _leads(selector: tuple[_Compound, ...], path: Path) -> bool:
    if len(selector) == 1:
        return True
    above = path[:-1]
    lengths = [len(above)] if selector[-1].child else range(len(above), 0, -1)
    return any(
        above[:length] and selector[-2].fits(above[length - 1]) and _leads(selector[:-1], above[:length])
        for length in lengths
    )


@lru_cache(maxsize=8)
def _rules(style: str) -> tuple[_Rule, ...]:
    """The rules in the order of their weight."""
    style = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}|/\*.*?\*/", "", style, flags=re.DOTALL)
    found = []
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
        parts = (part.partition(":") for part in body.split(";"))
        declarations = tuple((name.strip(), value.strip()) for name, _, value in parts if value)
        found += [_Rule(_selector(each), declarations) for each in selectors.split(",") if ":" not in each]
    return tuple(sorted(found, key=lambda rule: rule.weight))


def _selector(text: str) -> tuple[_Compound, ...]:
    made: list[_Compound] = []
    child = False
    for part in text.split():
        if part == ">":
            child = True
            continue
        tag, *classes = part.split(".")
        made.append(_Compound(tag, frozenset(classes), child))
        child = False
    return tuple(made)


class _Writer(HTMLParser):
    """Writes what it reads, with styles."""

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        super().__init__(convert_charrefs=False)
        self.rules = rules
        self.path: Path = ()
        self.written: list[str] = []
        self.declared: dict[Path, dict[str, str]] = {}  # what holds for elements at a path: rows of a table share it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        path = (*self.path, (tag, frozenset((given.get("class") or "").split())))
        self.written.append(self._styled(self.get_starttag_text() or "", path, given.get("style")))
        if tag not in _VOID:
            self.path = path

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.written.append(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        self.path = self.path[:-1]
        self.written.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.written.append(data)

    def handle_entityref(self, name: str) -> None:
        self.written.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.written.append(f"&#{name};")

    def _declared(self, path: Path) -> dict[str, str]:
        declared: dict[str, str] = {}
        for rule in self.rules:
            if rule.holds(path):
                for name, value in rule.declarations:
                    declared.pop(name, None)  # what is said later also stands later: margin-right after margin
                    declared[name] = value
        return declared

    def _styled(self, text: str, path: Path, own: str | None) -> str:
        """The start tag with the declarations that hold for it, the element's own last."""
        if path not in self.declared:
            self.declared[path] = self._declared(path)
        declared = self.declared[path]
        if not declared:
            return text
        said = "; ".join([*(f"{name}: {value}" for name, value in declared.items()), *([own] if own else [])])
        bare = text if own is None else re.sub(r'\sstyle="[^"]*"', "", text, count=1)
        return f'{bare[:-1]} style="{escape(said)}">'
