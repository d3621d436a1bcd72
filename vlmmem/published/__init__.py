"""The accepted export: every figure with its verdict, as committed data, and the key of what it was computed from.

The command line answers from here, at the cost of reading a file, as long as the key is that of the package's own code
and data; otherwise the figures are judged anew. So an answer is never older than the package that gives it.
"""

import json
import os
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FOLDER = os.path.dirname(__file__)
KEY = "key.txt"
PRESENTATION = (
    "accuracy",
    "catalog/processors.json",
    "charts.py",
    "cli",
    "coverage.py",
    "engines",
    "grid.py",
    "images",
    "ledger/lines",
    "measured",
    "notebook.py",
    "published",
    "readers",
    "sphinx",
)
"""Rooms of the package that compute no figure; a change in them leaves the key as it is."""


def _sources(package: str) -> "Iterator[str]":
    for folder, folders, files in os.walk(package):
        inside = "" if folder == package else os.path.relpath(folder, package).replace(os.sep, "/") + "/"
        folders[:] = sorted(name for name in folders if inside + name not in PRESENTATION)
        for name in sorted(files):
            if name.endswith((".py", ".json")) and inside + name not in PRESENTATION:
                yield os.path.join(folder, name)


def key(package: str = os.path.dirname(FOLDER)) -> str:
    """The checksum of every file of the package that a figure can depend on, names and contents."""
    check = 0
    for path in _sources(package):
        with open(path, "rb") as file:
            content = file.read()
        check = crc32(content, crc32(os.path.relpath(path, package).replace(os.sep, "/").encode(), check))
    return f"{check:08x}"


def accepted(folder: str = FOLDER) -> "list[dict[str, Any]] | None":
    """The accepted figures as JSON, or None where the package has changed since they were accepted."""
    try:
        with open(os.path.join(folder, KEY), encoding="ascii") as file:
            if file.read().strip() != key():
                return None
        with open(os.path.join(folder, "figures.json"), encoding="utf-8") as file:
            figures: list[dict[str, Any]] = json.load(file)
    except (OSError, ValueError):
        return None
    return figures
