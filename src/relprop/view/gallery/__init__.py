"""Reports: a set of explained pictures or texts as one HTML file, to sort, filter and compare."""

from __future__ import annotations

from relprop.view.gallery.gallery import Gallery, write_gallery
from relprop.view.gallery.item import Balance, Entry, Figures, Item

__all__ = ["Balance", "Entry", "Figures", "Gallery", "Item", "write_gallery"]
