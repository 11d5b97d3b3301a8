"""Formulas as MathML, which browsers draw themselves: no script, no remote fonts."""

from html import escape

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

BARS = {r"\lVert": "‖", r"\rVert": "‖", r"\lvert": "|", r"\rvert": "|"}
"""Signs that the converter does not know in other sizes."""


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_drawn(node.astext(), "inline"))
    raise nodes.SkipNode


def displayed(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_drawn(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def _drawn(latex: str, display: str) -> str:
    """The formula; one that the converter does not know stands there as it was written, and the build fails."""
    drawn = convert(latex, display=display)
    for name, sign in BARS.items():
        drawn = drawn.replace(name, sign)
    if "\\" in drawn:
        raise ValueError(f"a command of the formula is unknown: {escape(latex)}")
    return drawn


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
