"""What the notebooks display: sentences whose numbers depend on parameters, and tables of verdicts."""

from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from vlmmem.errors import InputError
from vlmmem.units import rounded

if TYPE_CHECKING:
    from vlmmem.ledger import Figure

_HEADINGS = ("Where", "Documented", "Recomputed", "Verdict", "Use instead")


def recomputed(figure: "Figure") -> str | None:
    """The recomputed value at the precision and in the unit of the documented one; None where there is none.

    >>> from vlmmem import figure
    >>> recomputed(figure("footprint:13b-activations"))
    '9.2 GB'
    """
    ends = figure.computed_range
    if ends is None:
        return None
    try:
        decimals = figure.printed.decimals
    except InputError:
        decimals = 0
    digits = [rounded(end, decimals) for end in dict.fromkeys(ends)]
    gap = "" if figure.unit in ("", "%", "×", "x") else " "
    return "-".join(digits) + gap + figure.unit


class VerdictTable:
    """Figures beside their recomputed values and verdicts.

    The book renders the Markdown, whose roles lead to the ledger; JupyterLab and GitHub show the HTML.
    """

    def __init__(self, figures: "Iterable[Figure]") -> None:
        self.figures = tuple(figures)

    def _rows(self, documented: Callable[["Figure"], str], verdict: str) -> list[tuple[str, ...]]:
        return [
            (
                " · ".join(filter(None, (f"L{item.line}", item.cell))),
                documented(item),
                recomputed(item) or "",
                " ".join(filter(None, (verdict.format(item.verdict), item.convention))),
                item.correct or "",
            )
            for item in self.figures
        ]

    @property
    def _plain(self) -> list[tuple[str, ...]]:
        return self._rows(lambda item: item.documented, "{}")

    def markdown(self) -> str:
        """The table in MyST Markdown."""
        rows = self._rows(lambda item: f"{{fig}}`{item.documented} <{item.id}>`", "{{verdict}}`{}`")
        cells = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in rows]
        lines = ["| " + " | ".join(row) + " |" for row in (_HEADINGS, *cells)]
        return "\n".join([lines[0], "| :--- | :--- | :--- | :--- | :--- |", *lines[1:]])

    def html(self) -> str:
        """The table in plain HTML."""
        head = "".join(f"<th>{escape(text)}</th>" for text in _HEADINGS)
        body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>\n" for row in self._plain)
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"

    def __repr__(self) -> str:
        rows = [_HEADINGS, *self._plain]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/markdown": self.markdown(), "text/html": self.html(), "text/plain": repr(self)}


def verdict_table(figures: "Iterable[Figure]") -> VerdictTable:
    """A table of figures: documented, recomputed, verdict, convention, and what to use instead."""
    return VerdictTable(figures)


class Sentence:
    """Markdown that a cell computed."""

    def __init__(self, markdown: str) -> None:
        self.markdown = markdown

    def __repr__(self) -> str:
        return self.markdown

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}


def say(markdown: str) -> Sentence:
    """A sentence whose numbers the cell computed; the last expression of the cell displays it.

    >>> say("The cache takes 62.5 GiB.")
    The cache takes 62.5 GiB.
    """
    return Sentence(markdown)
