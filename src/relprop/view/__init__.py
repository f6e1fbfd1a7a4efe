"""Showing relevance: colours, pictures, pages. Plain numpy and pillow; nothing here knows about models."""

from __future__ import annotations

from relprop.view.colours import COLOUR_MAPS, ColourMap, colour_map
from relprop.view.legend import Legend
from relprop.view.page import Picture, Section, page

__all__ = ["COLOUR_MAPS", "ColourMap", "Legend", "Picture", "Section", "colour_map", "page"]
