"""What every command says: JSON or a table, and counts read from arguments."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["columns", "count", "say"]


def count(text: str) -> int:
    """A count from an argument; argparse makes one line of the complaint."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no count; a whole number above zero is needed")
    return number


def say(value: object) -> None:
    """Print a text as it is, anything else as JSON."""
    print(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def columns(rows: "Iterable[Sequence[str]]") -> str:
    """Rows of cells as lines, each column as wide as its widest cell."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
