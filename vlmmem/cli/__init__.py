"""The command line: ``vlmmem COMMAND``.

Exit codes: 0 done; 1 the answer is no; 2 the call or its input is wrong, told in one line on standard error.
Each command's module is imported when the command is called.
"""

import argparse
import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from vlmmem.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["COMMANDS", "main"]

WIDTH = 100
"""Columns of a help text. Asking the terminal would import what doubles the time of a short answer."""

_OBJECTS_BEFORE_A_SEARCH = 100_000

COMMANDS = {
    "estimate": ("estimates", "the memory of a model under a workload, term by term"),
    "fit": ("fits", "largest batch and context, fewest GPUs, which GPUs, and what to change where it does not fit"),
    "sweep": ("sweeps", "a grid of estimates as CSV or Parquet"),
    "figures": ("ledger", "every figure of the ledger"),
    "figure": ("ledger", "one figure, with formula, convention, sources and right value"),
    "explain": ("ledger", "which conventions print a published value, the likeliest first"),
    "cite": ("ledger", "a citation of the verified value"),
    "coverage": ("ledger", "whether every number of the documents is accounted for, and your copy the same"),
    "image-tokens": ("images", "tokens and pixels of an image or a video"),
    "measured": ("measured", "what real engines printed; with add, a start-up log to a run of yours"),
    "accuracy": ("accuracy", "how far the engines' rules are off from what real engines printed"),
    "models": ("catalogue", "the catalogue's models"),
    "gpus": ("catalogue", "the catalogue's GPUs"),
    "formats": ("catalogue", "the catalogue's number formats"),
    "measure": ("measure", "build the model with random weights, run it, and record its memory"),
}
"""Each command: the module whose own COMMANDS hold its arguments and its function, and what it answers."""


def _help(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=WIDTH)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> "NoReturn":
        raise InputError(f"{message}; '{self.prog} --help' shows what is right")


def _parser(asked: str) -> argparse.ArgumentParser:
    """The parser; of the commands only the one that is asked for gets its arguments."""
    from vlmmem import __version__

    parser = _Parser(
        prog="vlmmem",
        formatter_class=_help,
        description="GPU memory of language and vision-language models, figure by figure.",
    )
    parser.add_argument("--version", action="version", version=f"vlmmem {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="vlmmem")
    for name, (room, text) in COMMANDS.items():
        if asked not in ("", name):
            continue  # each parser takes a millisecond, and this call is for one of them
        sub = commands.add_parser(name, help=text, description=text, formatter_class=_help)
        if name == asked:
            sub.add_argument("--json", action="store_true", help="print JSON; sizes in bytes")
            arguments, run = import_module(f"vlmmem.cli.{room}").COMMANDS[name]
            arguments(sub)
            sub.set_defaults(run=run)
    return parser


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command. Returns the exit code."""
    # A short run makes many objects and hardly a cycle: looking for those takes a tenth of its time.
    gc.set_threshold(_OBJECTS_BEFORE_A_SEARCH)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal without the sign × gets its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        options = _parser(next((each for each in given if each in COMMANDS), "")).parse_args(given)
        code: int = options.run(options)
        print(end="", flush=True)
    except InputError as error:
        print("vlmmem: error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # whoever read the output has seen enough
        _no_more_output()
        return 0
    except OSError as error:
        _no_more_output()
        print(f"vlmmem: error: the output cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # what a shell gives a command that was interrupted
    return code


def _no_more_output() -> None:
    """Let what is still buffered go nowhere: Python would try it again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
