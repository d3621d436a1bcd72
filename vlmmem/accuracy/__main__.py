"""python -m vlmmem.accuracy write: the ranges of estimates from the runs; check says whether they are fresh."""

import sys

from vlmmem.accuracy.intervals import stale, write
from vlmmem.accuracy.priced import predictions


def main(arguments: list[str]) -> int:
    """Write or check. Returns the exit code."""
    found, _ = predictions()
    if arguments == ["write"]:
        write(found)
        return 0
    if arguments == ["check"]:
        problems = stale(found)
        print("\n".join(problems) or "the ranges are fresh")
        return bool(problems)
    print("python -m vlmmem.accuracy write | check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
