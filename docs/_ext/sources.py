"""Pages of sources lead back to what is documented: viewcode takes one module's name for all of a file's objects."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BACK = re.compile(r'(<a class="viewcode-back" href="[^"#]*#)([^"]*)(">.*?</a>)')


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Leads each link back to the documented object of that name, and leaves out those of objects that have none."""
    if not page.startswith("_modules/"):
        return
    documented = {entry[0] for entry in app.env.get_domain("py").get_objects()}

    def mended(match: re.Match[str]) -> str:
        place = match[2]
        if place not in documented:
            name = place.rpartition(".")[2]
            same = [each for each in documented if each.rpartition(".")[2] == name]
            if len(same) != 1:
                return ""
            place = same[0]
        return match[1] + place + match[3]

    context["body"] = BACK.sub(mended, context["body"])
