"""Quantities typed by hand fail the build: every number with a unit comes from the ledger or from code.

The pages' sources are read by ``make check``; here the same rule meets the text as it is rendered, which also holds
what directives, substitutions and the ledger's notes put there.
"""

import re
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util import logging

from vlmmem.sphinx.roles import COMPUTED

if TYPE_CHECKING:
    from sphinx.application import Sphinx

logger = logging.getLogger(__name__)

GENERATED = "vlmmem_generated"
"""Attribute of nodes whose text a directive took from the ledger or from code."""

ENTRY = "vlmmem_entry"
"""Attribute of blocks that came from the ledger: file and entry, which a complaint names instead of page and line."""

_HIDDEN = (nodes.literal, nodes.literal_block, nodes.comment, nodes.image)
_GAP = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for a computed value, so that the words on either side of it do not run together."""


def _is_output(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Element) and ("cell_output" in node.get("classes", ()) or bool(node.get(GENERATED)))


def _text(node: nodes.Node) -> str:
    """The typed text of a block; a gap where something computed, or no prose at all, stands."""
    from vlmmem.cite.typed import formula_text

    if isinstance(node, nodes.math | nodes.math_block):
        return formula_text(node.astext())
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, _HIDDEN) or _is_output(node):
        return _GAP
    if isinstance(node, nodes.raw):
        return re.sub(r"<[^>]*>", " ", node.astext()) if node.get("format") == "html" else _GAP
    if isinstance(node, nodes.Element) and COMPUTED in node.get("classes", ()):
        return _GAP
    return "".join(_text(child) for child in node.children)


def _blocks(node: nodes.Node) -> list[nodes.Element]:
    """The blocks of running text below a node: paragraphs, titles, captions, terms and raw HTML."""
    if not isinstance(node, nodes.Element) or isinstance(node, _HIDDEN) or _is_output(node):
        return []
    if isinstance(node, nodes.TextElement | nodes.raw | nodes.math_block):
        return [node]
    return [block for child in node.children for block in _blocks(child)]


def _place(block: nodes.Element, page: str) -> str | tuple[str, int]:
    """Page and line of a block, or the entry of the ledger that it came from."""
    if ENTRY in block:
        return str(block[ENTRY])
    node, below = block, 0
    while not node.line and node.parent is not None:
        if isinstance(node, nodes.row) and isinstance(node.parent, nodes.tbody):
            # MyST gives a line to the table only; its rows stand one a line, below the heading and the ruler.
            below = 2 + node.parent.index(node)
        node = node.parent
    return page, (node.line or 0) + below


def check(app: "Sphinx", doctree: nodes.document) -> None:
    """Warn, with page and line, of every typed quantity."""
    from vlmmem.cite.typed import typed_quantities

    page = app.env.docname
    for block in _blocks(doctree):
        for quantity in typed_quantities(_text(block)):
            logger.warning(
                "typed quantity %r; take it from the ledger with {fig} or compute it with {calc}",
                quantity,
                location=_place(block, page),
                type="vlmmem",
                subtype="typed",
            )


def setup(app: "Sphinx") -> None:
    """Check each page as it is read."""
    app.connect("doctree-read", check)
