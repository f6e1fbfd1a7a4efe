"""Checks built pages: every internal link and anchor leads somewhere, nothing is fetched from another host."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that make a browser load something when the page opens.
LOADING = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "image": "href",
    "img": "src",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
FOREIGN = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")
LOADING_RELATIONS = {"icon", "modulepreload", "preconnect", "prefetch", "preload", "stylesheet"}


@dataclass
class Page(HTMLParser):
    """What a page loads, where it links to, and its anchors."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "link":
            loading = bool(LOADING_RELATIONS & set(given.get("rel", "").split()))
            (self.loads if loading else self.links).append(given.get("href", ""))
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif LOADING.get(tag, "-") in given:
            self.loads.append(given[LOADING[tag]])
        if "srcset" in given:
            self.loads += [part.split()[0] for part in given["srcset"].split(",")]


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(out: Path) -> tuple[list[str], set[str]]:
    """(what is wrong, one sentence each; the addresses outside that pages link to) of the pages below `out`."""
    out = out.resolve()
    pages = {path: read(path) for path in sorted(out.rglob("*.html"))}
    found = [] if pages else [f"{out}: there are no pages"]
    outside = set()
    for path, page in pages.items():
        where = path.relative_to(out)
        for address in page.loads:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                found.append(f"{where}: loads {address} from another host")
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if parts.scheme in ("http", "https"):
                    outside.add(address)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or "//" in parts.path:  # a browser counts the empty part as a folder
                found.append(f"{where}: {address} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{where}: {address} has no such anchor")
    for path in sorted(out.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        if FOREIGN.search(text):
            found.append(f"{path.relative_to(out)}: loads something from another host")
    return found, outside


def check(out: Path) -> int:
    """Prints what is wrong and which pages outside are linked to; 1 if anything is wrong."""
    found, outside = problems(out)
    for address in sorted(outside):
        print(f"outside: {address}")
    for each in found:
        print(each, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[1])))
