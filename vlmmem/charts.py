"""Altair charts that draw everywhere: in JupyterLab, on GitHub and in the book, and the same on every machine.

An output carries the Vega-Lite specification, from which the book draws the interactive chart, and the finished SVG,
which JupyterLab and GitHub show. Nothing is loaded from elsewhere, and nothing in an output is random.
"""

import json
import os
import re
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from altair import TopLevelMixin

VEGALITE = "6.4"
"""Vega-Lite release that the locked vl-convert carries and the locked Altair writes for."""

MIME = "application/vnd.vegalite.v6+json"
"""Media type of the specification. Altair's own ends in ``.json``, which nbformat rejects."""

# vl-convert carries Liberation Sans, so the widths it measures, and with them the SVG, do not depend on the fonts of
# the machine; readers without that font see Arial or Helvetica, which have the same widths.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"

# Okabe and Ito's palette without its yellow, which is too faint on white; told apart by colour-blind readers too.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#a8518a", "#56b4e9", "#e69f00", "#4d4d4d")

UNDRAWN = "VLMMEM_CHARTS_UNDRAWN"
"""Environment variable of the kernels of a build: pages draw the still picture themselves, and whoever draws first
waits a second for the engine to start."""

_INK = "#222832"
_COUNTED = re.compile(r"\b(?:clip|gradient_)\d+\b")
_AXIS = {
    "labelFontSize": 13,
    "titleFontSize": 13,
    "titleFontWeight": "normal",
    "labelColor": _INK,
    "titleColor": _INK,
    "domainColor": "#6b7280",
    "tickColor": "#6b7280",
    "gridColor": "#e3e6ea",
    "labelLimit": 200,
    "titlePadding": 8,
}


def theme() -> dict[str, Any]:
    """The look of every chart: light, labels that a phone still shows legibly, strong contrast.

    >>> theme()["config"]["axis"]["labelFontSize"]
    13
    """
    return {
        "config": {
            "font": FONT,
            "background": "white",
            "padding": 6,
            "view": {"continuousWidth": 520, "continuousHeight": 300, "discreteWidth": 520, "stroke": None},
            "axis": _AXIS,
            "header": {"labelFontSize": 13, "titleFontSize": 13, "labelColor": _INK, "titleColor": _INK},
            "legend": {
                "labelFontSize": 13,
                "titleFontSize": 13,
                "titleFontWeight": "normal",
                "labelColor": _INK,
                "titleColor": _INK,
                "labelLimit": 260,
                # Above the plot, where a narrow screen leaves the plot its whole width.
                "orient": "top",
                "direction": "horizontal",
                "columns": 3,
                "symbolType": "square",
            },
            "title": {"fontSize": 15, "fontWeight": "bold", "color": _INK, "anchor": "start", "offset": 10},
            "range": {"category": list(PALETTE)},
            "mark": {"color": PALETTE[0]},
            "line": {"strokeWidth": 2.5},
            "point": {"size": 70, "filled": True},
            "rule": {"strokeWidth": 1.5},
            "text": {"fontSize": 13, "color": _INK},
        }
    }


def specification(chart: "TopLevelMixin", alt: str) -> dict[str, Any]:
    """The chart's Vega-Lite specification in the project's look.

    Args:
        chart: an Altair chart.
        alt: what the chart shows, in words, for readers who do not see it.

    Raises:
        ValueError: where ``alt`` is empty.
    """
    import altair  # noqa: ICN001 - alt is the text beside a chart here

    if not alt.strip():
        raise ValueError("a chart needs alt: one sentence that says what it shows")
    themes = altair.theme
    if "vlmmem" not in themes.names():
        themes.register("vlmmem", enable=False)(lambda: cast("themes.ThemeConfig", theme()))
    with themes.enable("vlmmem"):
        spec = chart.to_dict()
    return {**spec, "description": alt}


def svg(spec: Mapping[str, Any]) -> str:
    """The chart, drawn: an SVG that carries its description as its title."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(dict(spec), vl_version=VEGALITE)
    # Vega numbers clips and gradients through the life of the process, so a second drawing would differ from the first.
    numbers: dict[str, str] = {}
    for name in _COUNTED.findall(drawn):
        numbers.setdefault(name, name.rstrip("0123456789") + str(len(numbers)))
    drawn = _COUNTED.sub(lambda match: numbers[match[0]], drawn)
    opening, bracket, rest = drawn.partition(">")
    title = escape(str(spec.get("description", "")), quote=False)
    return f'{opening} role="img"{bracket}<title>{title}</title>{rest}'


def bundle(chart: "TopLevelMixin", alt: str) -> dict[str, Any]:
    """The output of a cell that shows the chart: specification, SVG and words, by media type."""
    spec = specification(chart, alt)
    drawn = {} if os.environ.get(UNDRAWN) else {"image/svg+xml": svg(spec)}
    return {MIME: spec, **drawn, "text/plain": f"Chart: {alt}"}


def show(chart: "TopLevelMixin", *, alt: str) -> None:
    """Display the chart as the output of the running cell.

    Args:
        chart: an Altair chart; give it a height, and leave its width to the page.
        alt: what the chart shows, in words, for readers who do not see it.
    """
    from IPython.display import display

    display(bundle(chart, alt), raw=True)


def html(spec: Mapping[str, Any]) -> str:
    """The chart as a piece of a page: the specification for the page's script, and a still picture until it has run."""
    from hashlib import sha256

    # A script element ends at the first "</", wherever it stands.
    text = json.dumps(spec, sort_keys=True, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    name = "chart-" + sha256(text.encode()).hexdigest()[:12]
    alt = escape(str(spec.get("description", "")))
    still = b64encode(svg(spec).encode()).decode()
    return (
        f'<figure class="vlmmem-chart" id="{name}" role="group" aria-label="{alt}">'
        f'<img class="vlmmem-chart-still" alt="{alt}" src="data:image/svg+xml;base64,{still}">'
        f'<script type="application/json">{text}</script></figure>'
    )
