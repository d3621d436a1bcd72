"""The maintainer's commands behind ``make check``, ``make fix`` and ``make accept``."""

import sys
from pathlib import Path

from vlmmem.cite import book, export
from vlmmem.cite.typed import find_typed, find_typed_file
from vlmmem.errors import InputError


def _check(root: Path) -> list[str]:
    problems = book.ledger_problems()
    if problems:
        return problems
    problems = book.check(root)
    for path in book.pages(root):
        problems += find_typed_file(path, str(path.relative_to(root)))
    for where, text in book.ledger_texts():
        problems += find_typed(text, where)
    changed = export.changes()
    problems += [f"{line}; 'make accept REASON=...' accepts it" for line in changed]
    if not changed and export.stale_key():
        problems.append("vlmmem/published/key.txt: not the package's key; 'make fix' rewrites it")
    return problems


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
                changed = book.fix(root) + (["vlmmem/published/key.txt"] if export.refresh_key() else [])
                print(*(changed or ["nothing to rewrite"]), sep="\n")
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
