"""What the notebooks display: sentences whose numbers depend on parameters, and tables of verdicts."""

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from vlmmem.errors import InputError
from vlmmem.units import rounded

if TYPE_CHECKING:
    from vlmmem.ledger import Figure

_HEADINGS = ("Documented", "Recomputed", "Verdict", "Convention", "Use instead")


def recomputed(figure: "Figure") -> str | None:
    """The recomputed value at the precision and in the unit of the documented one; None where there is none.

    >>> from vlmmem import figure
    >>> recomputed(figure("footprint:activations-13b"))  # doctest: +SKIP
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


def _cells(figure: "Figure") -> tuple[str, ...]:
    return (
        figure.documented,
        recomputed(figure) or "",
        figure.verdict,
        figure.convention or "",
        figure.correct or "",
    )


class VerdictTable:
    """Figures beside their recomputed values and verdicts.

    The book renders the Markdown, whose roles lead to the ledger; JupyterLab and GitHub show the HTML.
    """

    def __init__(self, figures: "Iterable[Figure]") -> None:
        self.figures = tuple(figures)

    @property
    def _names(self) -> list[str]:
        """What each figure is of: its row and column, or its section."""
        return [" · ".join(filter(None, (item.row, item.column))) or item.section for item in self.figures]

    def markdown(self) -> str:
        """The table in MyST Markdown."""

        def cell(text: str) -> str:
            return text.replace("|", "\\|").replace("\n", " ")

        rows = [f"| Figure | {' | '.join(_HEADINGS)} |", f"| :--- | ---: | ---: | :--- | :--- | :--- |"]
        for name, item in zip(self._names, self.figures, strict=True):
            _, value, verdict, convention, _ = _cells(item)
            correct = item.correct_markup or ""
            rows.append(
                f"| {cell(name)} | {{fig}}`{item.documented} <{item.id}>` | {cell(value)} | {{verdict}}`{verdict}`"
                f" | {cell(convention)} | {cell(correct)} |"
            )
        return "\n".join(rows)

    def html(self) -> str:
        """The table in plain HTML."""
        head = "".join(f"<th>{escape(text)}</th>" for text in ("Figure", *_HEADINGS))
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in (name, *_cells(item))) + "</tr>\n"
            for name, item in zip(self._names, self.figures, strict=True)
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"

    def __repr__(self) -> str:
        rows = [("Figure", *_HEADINGS), *((name, *_cells(item)) for name, item in zip(self._names, self.figures, strict=True))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
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

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}


def say(markdown: str) -> Sentence:
    """A sentence whose numbers the cell computed; the last expression of the cell displays it.

    >>> say("The cache takes 62.5 GiB.")
    The cache takes 62.5 GiB.
    """
    return Sentence(markdown)
