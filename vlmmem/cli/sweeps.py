"""The command over grids: sweep."""

import argparse
import sys
from typing import TYPE_CHECKING

from vlmmem.cli.answers import count, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmmem.grid import Grid

__all__ = ["COMMANDS"]

OWN = "own"
"""The word for the model's own number format."""

_MOST_VALUES = 10**6


def counts(text: str) -> "Sequence[int]":
    """Counts from an argument such as 1,2,4 or 1024:131072:1024 (first, last, step)."""
    found: list[int] = []
    for piece in text.split(","):
        ends = [count(each) for each in piece.split(":")]
        if len(ends) > 3:
            raise argparse.ArgumentTypeError(f"{piece[:40]!r} is no range; FIRST:LAST or FIRST:LAST:STEP is needed")
        first, last, step = ends[0], ends[min(1, len(ends) - 1)], ends[2] if len(ends) == 3 else 1
        if last < first:
            raise argparse.ArgumentTypeError(f"{piece[:40]!r} is no range; the last value is below the first")
        if len(found) + (last - first) // step >= _MOST_VALUES:
            raise argparse.ArgumentTypeError(
                f"{piece[:40]!r} makes more than {_MOST_VALUES:,} values; fewer are needed"
            )
        found += range(first, last + 1, step)
    return found


def _words(text: str) -> list[str]:
    found = [each.strip() for each in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} has an empty name; names with commas between them are needed")
    return found


def _arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="MODEL",
        help="catalogue name, file, folder or hub id, as estimate takes it; again for more models",
    )
    sub.add_argument("--gpu", type=_words, default=[], metavar="GPU,...", help="GPUs, to tell whether a point fits")
    numbers = "values such as 1,2,4 or FIRST:LAST:STEP"
    sub.add_argument("--context", type=counts, default=[4096], metavar="N,...", help=f"tokens (4096); {numbers}")
    sub.add_argument("--batch", type=counts, default=[1], metavar="N,...", help="sequences at once (1)")
    sub.add_argument("--weights", type=_words, default=[OWN], metavar="F,...", help=f"number formats ({OWN})")
    sub.add_argument("--kv-dtype", type=_words, default=[OWN], metavar="F,...", help=f"formats of the cache ({OWN})")
    sub.add_argument("--tp", type=counts, default=[1], metavar="N,...", help="GPUs that split each layer (1)")
    sub.add_argument("--pp", type=counts, default=[1], metavar="N,...", help="groups of GPUs that split the layers (1)")
    sub.add_argument("-o", "--output", metavar="FILE", help=".csv or .parquet; without it CSV is printed")


def _sweep(options: argparse.Namespace) -> int:
    from vlmmem.errors import InputError
    from vlmmem.grid import sweep
    from vlmmem.readers import open_model
    from vlmmem.workload import Parallelism

    if len(options.tp) * len(options.pp) > _MOST_VALUES:
        raise InputError(f"--tp, --pp: more than {_MOST_VALUES:,} combinations; fewer are needed")
    grid = sweep(
        [open_model(name) for name in options.model],
        options.gpu,
        options.context,
        options.batch,
        weights=[None if name == OWN else name for name in options.weights],
        kv_dtypes=[None if name == OWN else name for name in options.kv_dtype],
        parallelism=[Parallelism(tp, pp) for tp in options.tp for pp in options.pp],
    )
    for each in grid.skipped:
        where = f"{each['model']}, weights {each['weights']}, KV cache {each['kv_dtype']}, tp {each['tp']}"
        print(f"left out: {where}, pp {each['pp']}: {each['reason']}", file=sys.stderr)
    if not len(grid):
        raise InputError(f"no point is left: {grid.skipped[0]['reason']}")
    if options.output is not None:
        grid.write(options.output)
        if not options.json:
            say(f"{options.output}: {len(grid):,} points")
            return 0
    if options.json:
        told = {"points": len(grid), "skipped": list(grid.skipped), "file": options.output}
        say({**told, "rows": list(grid.rows())} if options.output is None else told)
    else:
        _print(grid)
    return 0


def _print(grid: "Grid") -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(grid.columns)
    writer.writerows(row.values() for row in grid.rows())


COMMANDS = {"sweep": (_arguments, _sweep)}
