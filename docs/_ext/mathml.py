"""Formulas as MathML, which browsers render themselves: no script, no font, nothing to fetch."""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

logger = getLogger(__name__)

# The converter numbers the lines of align, and knows no aligned.
UNNUMBERED = re.compile(r"\\(begin|end)\{(?:aligned|align|split)\}")
ACCENT = re.compile(r'<mover>((?:(?!<mover>).)*?<mo stretchy="false">&#x(?:0007E|0005E|000AF);</mo></mover>)')


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(mathml(node, "block"))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def mathml(node: nodes.Element, display: str) -> str:
    """The markup of a formula; what can't be converted is a warning, which stops the build."""
    latex = UNNUMBERED.sub(r"\\\1{align*}", node.astext())
    try:
        markup = convert(latex, display=display)
    except Exception as error:
        logger.warning("%r can't be written as MathML: %s", latex, error, location=node)
        return ""
    if "<mi>\\" in markup or "<mi>&</mi>" in markup:
        logger.warning("%r can't be written as MathML: a command in it is unknown", latex, location=node)
    return ACCENT.sub(r'<mover accent="true">\1', markup)
