"""What real engines printed, as data: runs with their source and evidence, and readers of the engines' logs."""

from vlmmem.measured.records import add_run, read_runs, runs, write_runs
from vlmmem.measured.run import QUANTITIES, SPLITS, Quantity, Run, run_of
from vlmmem.measured.split import split_of

__all__ = [
    "QUANTITIES",
    "SPLITS",
    "Quantity",
    "Run",
    "add_run",
    "read_runs",
    "run_of",
    "runs",
    "split_of",
    "write_runs",
]
