"""Charts in the book: the specification of a stored output becomes a figure that the page's script draws."""

from collections.abc import Sequence
from typing import Any, ClassVar

from docutils import nodes

from vlmmem import charts

CHART = "vlmmem-chart-node"
"""Class of the node that holds a chart, by which a page is known to need the script that draws it."""


class VegaLite:
    """Renderer of myst-nb for Vega-Lite specifications (entry point ``myst_nb.mime_renderers``)."""

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = (
        ("html", charts.MIME, 1),
        # Tables of verdicts: the Markdown carries roles that lead to the ledger, the HTML is for GitHub.
        ("html", "text/markdown", 2),
    )

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[nodes.Element] | None:
        """The figure, or None for any other media type."""
        if data.mime_type != charts.MIME:
            return None
        return [nodes.raw("", charts.html(data.content), format="html", classes=["output", CHART])]
