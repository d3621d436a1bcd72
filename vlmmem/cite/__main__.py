"""The maintainer's commands behind ``make check``, ``make fix`` and ``make accept``."""

import sys
from pathlib import Path

from vlmmem.cite import book, export
from vlmmem.cite.typed import find_typed, find_typed_in_ledger
from vlmmem.errors import InputError


def _check(root: Path) -> list[str]:
    problems = book.ledger_problems()
    if problems:
        return problems
    problems = book.check(root)
    for path in book.pages(root):
        problems += find_typed(path.read_text(encoding="utf-8"), str(path.relative_to(root)))
    problems += find_typed_in_ledger()
    return problems + [f"{line}; 'make accept REASON=...' accepts it" for line in export.changes(root)]


def main(arguments: list[str] | None = None) -> int:
    """``check`` prints what does not hold (exit code 1), ``fix`` rewrites values, ``accept REASON`` the export."""
    words = sys.argv[1:] if arguments is None else arguments
    root = Path.cwd()
    try:
        match words:
            case ["check"]:
                problems = _check(root)
                print(*problems, sep="\n", end="\n" if problems else "")
                print(f"{len(problems)} problems" if problems else "every figure stands as declared")
                return 1 if problems else 0
            case ["fix"]:
                print(*(book.fix(root) or ["nothing to rewrite"]), sep="\n")
                return 0
            case ["accept", reason]:
                print(*(export.accept(root, reason) or ["nothing changed"]), sep="\n")
                return 0
        raise InputError("one of 'check', 'fix', 'accept REASON' is needed")
    except InputError as error:
        print(f"vlmmem: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
