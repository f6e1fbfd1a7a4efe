"""Prints of a cell as they were written: myst-nb's own merging starts a new line wherever the kernel sent a part."""

from __future__ import annotations

from myst_nb.core import render
from nbformat import NotebookNode
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    if not hasattr(render, "coalesce_streams"):
        raise AttributeError("myst_nb.core.render has no coalesce_streams any more: see whether this is still needed")
    render.coalesce_streams = joined
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """All parts of each stream (stdout, stderr) in one output, where the first of them was."""
    kept: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] in streams:
            streams[output["name"]]["text"] += output["text"]
            continue
        kept.append(output)
        if output["output_type"] == "stream":
            streams[output["name"]] = output
    return kept
