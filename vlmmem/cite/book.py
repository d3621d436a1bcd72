"""The texts of this book that carry figures, and the ledger's own notes: checked and rewritten by the same rules."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmmem import coverage
from vlmmem.cite.console import check_console, fix_console
from vlmmem.cite.expression import evaluate
from vlmmem.cite.prose import check_text, fix_text
from vlmmem.errors import InputError
from vlmmem.ledger import FOLDER, load
from vlmmem.ledger.conventions import conventions

PAGES = ("README.md", "CONTRIBUTING.md", "book/**/*.md", "notebooks/*.md")
"""Where the project's prose stands, below its root."""
_NOTES = ("note", "correct")


def pages(root: Path) -> list[Path]:
    """Every page of prose below the root, once, in order."""
    found = {path: None for pattern in PAGES for path in sorted(root.glob(pattern))}
    return list(found)


def ledger_files(folder: Path = FOLDER) -> list[Path]:
    """Every data file of the ledger."""
    return sorted(folder.glob("*/*.json"))


def as_data(content: object) -> str:
    """The one way in which a ledger file is written, so that rewriting a value changes that value only."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _notes(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for entry in content["figures"]:
        for name in _NOTES:
            if isinstance(entry.get(name), str):
                yield entry, name


def check(root: Path, folder: Path = FOLDER) -> list[str]:
    """One line for every role whose readable value is not what its origin gives, pages and ledger notes alike."""
    problems = []
    for path in pages(root):
        text, where = _read(path), str(path.relative_to(root))
        problems += check_text(text, where) + check_console(text, where)
    for path in ledger_files(folder):
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        where = f"{path.parent.name}/{path.name}"
        if text != as_data(content):
            problems.append(f"{where}: not in the ledger's layout; 'make fix' rewrites it")
        for entry, name in _notes(content):
            problems += [
                line.replace(":1:", f": {name}:", 1) for line in check_text(entry[name], f"{where}: {entry['id']}")
            ]
    return problems


def fix(root: Path, folder: Path = FOLDER) -> list[str]:
    """Rewrite every readable value from its origin. Returns the files that changed.

    Raises InputError where the ledger cannot be read: every value would look as if it had no origin.
    """
    load.cache_clear()
    load()
    changed = []
    # A note may quote another entry, and a page both: the ledger first, until it rests.
    while again := _fix_ledger(folder):
        changed += again
        load.cache_clear()
        evaluate.cache_clear()
    for path in pages(root):
        text = _read(path)
        right = fix_console(fix_text(text))
        if right != text:
            path.write_bytes(right.encode())
            changed.append(str(path.relative_to(root)))
    return list(dict.fromkeys(changed))


def _read(path: Path) -> str:
    """The text with its line ends as they are, so that a rewritten value changes nothing else."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise InputError(f"{path.name}: is not UTF-8; save it as UTF-8") from None


def _fix_ledger(folder: Path) -> list[str]:
    changed = []
    for path in ledger_files(folder):
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        for entry, name in _notes(content):
            entry[name] = fix_text(entry[name])
        if as_data(content) != text:
            path.write_text(as_data(content), encoding="utf-8")
            changed.append(f"{path.parent.name}/{path.name}")
    return changed


def ledger_texts() -> Iterator[tuple[str, str]]:
    """Every text of the ledger that the book shows, with the place where it stands."""
    for item in load().figures:
        yield f"{item.where}: note", item.note_text
        yield f"{item.where}: correct", item.correct_text or ""
        yield f"{item.where}: cost", (item.cost_given or {}).get("case", "")
    for convention in conventions().values():
        yield f"conventions.json: {convention.id}: title", convention.title
        yield f"conventions.json: {convention.id}: reason", convention.reason


def ledger_problems() -> list[str]:
    """Every way in which the ledger does not hold or does not account for its documents, one line each."""
    try:
        accounted = coverage.accounts(quotations=coverage.quotations_of)
        return [*load().check(), *(problem for account in accounted for problem in account.problems)]
    except InputError as error:
        return [str(error)]
