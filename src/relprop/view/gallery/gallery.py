"""A report: many explained inputs as one HTML file, complete in itself, written as they come."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sized
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO

from relprop.errors import InvalidFile, InvalidInput, RelpropError
from relprop.progress import Progress, telling
from relprop.view.files import write_whole
from relprop.view.gallery.item import Balance, Entry, Item, balances, entry_of
from relprop.view.gallery.page import Contents, article, page
from relprop.view.gallery.words import Words, checked_language, in_language
from relprop.view.sheet import Sheet, sheet

BITS = (32, 16)


class Gallery:
    """A report that grows input by input; the file is written when it is closed, even after an error or Ctrl-C.

        with Gallery("report.html", title="Test set") as gallery:
            for name, x in inputs:
                gallery.add(Item(name, explainer.compare(x, ["epsilon", "gamma"])))

    The page sorts and filters, shows every value under the pointer and needs no network; without JavaScript it shows
    the same pictures and figures, still. What was added waits in a temporary file, so that memory doesn't fill up.

    Attributes:
        entries: the figures of each input so far.
        failures: (name, why) of each input that could not be explained.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        title: Words = "",
        introduction: Words = "",
        language: str = "en",
        bits: int = 32,
        causes: bool = True,
    ) -> None:
        """path: the file to write, ending in .html.

        title, introduction: texts; {"en": ..., "ko": ...} where they differ by language.
        language: of the page when it opens, "en" or "ko"; a reader can switch.
        bits: 32 keeps the values behind the maps as they are; 16 halves their size, with a relative error of at most
            0.05 %, which the page says. Scores and sums are exact in both.
        causes: whether to look where relevance went that didn't reach the input, which costs as much as explaining
            once more.

        Raises InvalidInput for options that can't be met, InvalidFile where there is no folder for the page.
        """
        self.path = Path(path)
        if self.path.suffix.lower() not in (".html", ".htm"):
            raise InvalidInput(f"{self.path.name!r}: a report is a page; give it a name ending in .html")
        if not self.path.parent.is_dir():
            raise InvalidFile(f"{path} can't be written: there is no folder {self.path.parent}; make it first")
        if bits not in BITS:
            raise InvalidInput(f"bits={bits!r}: values are stored with 32 bits or with 16")
        self.title, self.introduction, self.language = title, introduction, checked_language(language)
        self.bits, self.causes = bits, causes
        self.entries: list[Entry] = []
        self.failures: list[tuple[str, str]] = []
        self._waiting: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open until the page is written
        self._places: list[tuple[int, int]] = []  # where each article is in that file

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(interrupted=kind is not None)

    @property
    def balances(self) -> list[Balance]:
        """The means of each method in each group, as the page's table has them."""
        return balances(self.entries)

    def add(self, item: Item) -> Entry:
        """Adds an input with its explanations; returns its figures. Raises RelpropError for what can't be shown."""
        sheets = {title: self._sheet(item, title) for title in item.explanations}
        entry = entry_of(item, sheets)
        content = article(len(self.entries), item, entry, sheets, self.language, self.bits).encode()
        self._waiting.seek(0, 2)
        self._places.append((self._waiting.tell(), len(content)))
        self._waiting.write(content)
        self.entries.append(entry)
        return entry

    def fail(self, name: str, why: str | Exception) -> None:
        """Names an input that could not be explained, and says why."""
        self.failures.append((name, " ".join(str(why).split())))

    def close(self, interrupted: bool = False) -> None:
        """Writes the page, if anything is in it. Raises InvalidFile where it can't be written."""
        if self._waiting.closed:
            return
        with self._waiting:
            if self.entries or self.failures:
                write_whole(self.path, b"".join(page(self._contents(interrupted), self._article)))

    def _contents(self, interrupted: bool) -> Contents:
        return Contents(
            self.title,
            self.introduction,
            self.language,
            self.entries,
            self.failures,
            rounded=self.bits < 32,
            interrupted=interrupted,
        )

    def _article(self, index: int) -> bytes:
        start, length = self._places[index]
        self._waiting.seek(start)
        return self._waiting.read(length)

    def _sheet(self, item: Item, title: str) -> Sheet:
        explanation = item.explanations[title]
        if self.causes:
            explanation.conservation  # noqa: B018 - asked for, so that the sheet tells the causes
        return sheet(explanation, model=item.model, title=title, clip=item.clip, language=item.language)


def write_gallery(
    path: str | PathLike[str],
    items: Iterable[Item],
    *,
    title: Words = "",
    introduction: Words = "",
    language: str = "en",
    bits: int = 32,
    causes: bool = True,
    progress: bool | Progress | None = False,
) -> Gallery:
    """Writes a report of the items, which may be made as they are asked for; returns the closed Gallery.

    path, title, introduction, language, bits, causes: as for `Gallery`. progress: True for a bar, or called with (items
    done, items in all or None) after each. An item that can't be shown is named in the page, and the rest goes on; what
    is raised while an item is made ends the work, once the page of those before it is written.
    """
    total = len(items) if isinstance(items, Sized) else None
    gallery = Gallery(path, title=title, introduction=introduction, language=language, bits=bits, causes=causes)
    with gallery, telling(progress, "explaining") as tell:
        for done, item in enumerate(items, start=1):
            try:
                gallery.add(item)
            except RelpropError as error:
                gallery.fail(in_language(item.name, language), error)
            tell(done, total)
    return gallery
