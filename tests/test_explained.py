"""Every figure of the ledger stands on a page that explains it, by a role, in a table or in what a cell displays."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from vlmmem.ledger import ERRATA, Ledger, load

from .conftest import ROOT

LISTS = {"ledger.md", "errata.md", "disagreements.md"}
"""Pages that show every figure, or every erratum, without explaining one."""


def pages(root: Path) -> list[Path]:
    """Prose, and the notebooks with what their cells displayed."""
    return [*root.glob("notebooks/*.ipynb"), *(path for path in root.glob("book/*.md") if path.name not in LISTS)]


def unexplained(ledger: Ledger, texts: Iterable[str]) -> list[str]:
    """Ids of the figures that stand nowhere in these texts."""
    quoted: set[str] = set()
    for text in texts:
        quoted.update(re.findall(r"<(\w+:[a-z0-9.-]+?)(?:\.(?:computed|correct|says))?>", text))
        for name in re.findall(r"\{figure-table\} ([\w-]+)", text):
            quoted.update(item.id for item in ledger.table(name))
    return [item.id for item in ledger.figures if item.id not in quoted]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in pages(ROOT)]


def test_every_figure_stands_on_a_page(texts: list[str]) -> None:
    assert unexplained(load(), texts) == []


def test_a_figure_that_stands_nowhere_is_told(texts: list[str]) -> None:
    figure = next(item for item in load().figures if item.verdict in ERRATA and item.table is None)
    without = [text.replace(f"<{figure.id}", "<other:id") for text in texts]
    assert unexplained(load(), without) == [figure.id]


def test_a_list_of_all_figures_explains_none() -> None:
    assert not {path.name for path in pages(ROOT)} & LISTS
    assert unexplained(load(), ["{ledger}", "footprint:13b-total"]) == [item.id for item in load().figures]
    assert "footprint:13b-total" not in unexplained(load(), ["{fig}`x <footprint:13b-total.computed>`"])
    assert {item.id for item in load().table("weights")}.isdisjoint(unexplained(load(), ["```{figure-table} weights"]))
