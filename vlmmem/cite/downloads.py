"""The errata and the disagreements as files to download: what the pages show, a row an entry."""

import csv
import io
import json
from typing import Any

from vlmmem.ledger import CAUSES, Figure, load
from vlmmem.ledger.errata import defects, disagreements

__all__ = ["DOWNLOADS", "disagreement_rows", "download", "errata_rows"]

DOWNLOADS = ("errata.csv", "errata.json", "disagreements.csv", "disagreements.json")
"""Every file's name."""


def _place(item: Figure) -> dict[str, Any]:
    names = ("id", "document", "line", "section", "table", "row", "column", "documented", "verdict")
    return {name: getattr(item, name) for name in names}


def errata_rows() -> list[dict[str, Any]]:
    """A row an erratum, in the order of the page: the dearest defect first, its entries together."""
    rows = []
    for number, defect in enumerate(defects(load()), 1):
        for item in defect.figures:
            cost = item.cost.json() if item.cost else {}
            rows.append(
                {
                    "defect": number,
                    **_place(item),
                    "right": item.correct,
                    "cause": item.cause,
                    "cause_means": CAUSES[item.cause or ""],
                    "why": item.note,
                    "cost_bytes": cost.get("bytes"),
                    "cost_gpus": cost.get("gpus"),
                    "cost_gpu": cost.get("gpu"),
                    "cost_case": cost.get("case"),
                    "sources": list(item.sources),
                }
            )
    return rows


def disagreement_rows() -> list[dict[str, Any]]:
    """A row a side, the sides of one disagreement together."""
    return [
        {
            "disagreement": number,
            "subject": each.title or None,
            **_place(item),
            "breaks": item.breaks,
            "against": [name for name in item.against if name in {side.id for side in each.figures}],
            "stands": item in each.standing,
            "right": item.correct,
            "why": item.note,
            "sources": list(item.sources),
        }
        for number, each in enumerate(disagreements(load()), 1)
        for item in each.figures
    ]


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ; ".join(map(str, value))
    text = "" if value is None else str(value)
    # A spreadsheet would take a printed formula for one of its own.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not text.lstrip("-").isdigit() else text


def download(name: str) -> str:
    """The text of one of the files.

    >>> download("errata.csv").partition(",")[0]
    'defect'
    """
    rows = errata_rows() if name.startswith("errata") else disagreement_rows()
    if name.endswith(".json"):
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows[0] if rows else ())
    table.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()
