"""The command over what real engines printed: it lists the runs, and turns a log into one."""

import argparse
from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, say
from vlmmem.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from vlmmem.measured import Quantity, Run

__all__ = ["COMMANDS"]

_OWN = "measured.json"
_SHOWN = ("weights", "kv_pool", "activation_peak", "kv_tokens", "total")


def _arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", nargs="?", choices=("add",), help="add: read a log; without it the runs are listed")
    sub.add_argument("log", nargs="?", help="with add: the log's file, - for standard input")
    sub.add_argument("--engine", metavar="NAME", help="runs of this engine alone; with add: whose log it is")
    sub.add_argument(
        "--model", metavar="NAME", help="runs of this model alone; with add: the model, where the log lacks it"
    )
    sub.add_argument("--gpu", metavar="NAME", help="runs on this GPU alone; with add: the GPU, where the log lacks it")
    sub.add_argument("--version", metavar="RELEASE", help="with add: the engine's release, where the log lacks it")
    sub.add_argument("--runs", metavar="FILE", help="list the runs of this file of yours")
    sub.add_argument("-o", "--output", metavar="FILE", help=f"with add: the file that keeps your runs ({_OWN})")


def _shown(quantity: "Quantity | None") -> str:
    from vlmmem.units import show

    if quantity is None:
        return "-"
    return f"{quantity.value:,} {quantity.unit}" if quantity.dimension != "bytes" else show(quantity.bytes, "GiB", 2)


def _printed(quantity: "Quantity") -> str:
    """A figure as the log has it, and in bytes."""
    value = f"{quantity.value:,}" if quantity.decimals is None else f"{quantity.value:,.{quantity.decimals}f}"
    at = f" of {quantity.context:,} tokens" if quantity.context else ""
    return f"{value} {quantity.unit}{at}" + (f", {quantity.bytes:,} B" if quantity.dimension == "bytes" else "")


def _json(run: "Run") -> "dict[str, Any]":
    """A run as its file has it, and the sizes again in bytes."""
    sizes = {name: quantity.bytes for name, quantity in run.measured if quantity.dimension == "bytes"}
    return run.json() | {"bytes": sizes}


def _keep(found: "Iterable[Run]", options: argparse.Namespace) -> "list[Run]":
    from vlmmem.catalog import find_model

    kept = [run for run in found if options.engine in (None, run.engine)]
    if options.engine and not kept:
        raise InputError(
            f"--engine: no run of {options.engine[:40]!r}; one of {_names(run.engine for run in found)} is needed"
        )
    if options.model:
        word = options.model.lower()
        try:
            word_id = find_model(options.model).id
        except InputError:
            word_id = ""
        kept = [run for run in kept if (word_id and run.catalogue == word_id) or word in run.model.lower()]
        if not kept:
            raise InputError(f"--model: no run of {options.model[:60]!r}; 'vlmmem measured' lists all")
    if options.gpu:
        kept = [run for run in kept if options.gpu.lower().replace("-", " ") in (run.gpu or "").lower()]
        if not kept:
            raise InputError(f"--gpu: no run on {options.gpu[:60]!r}; 'vlmmem measured' lists all")
    return kept


def _names(words: "Iterable[str]") -> str:
    return ", ".join(dict.fromkeys(words))


def _list(options: argparse.Namespace) -> int:
    from vlmmem.measured import read_runs, runs

    found = _keep(read_runs(options.runs) if options.runs else runs(), options)
    if options.json:
        say([_json(run) for run in found])
        return 0
    head = ("run", "engine", "GPU", *(name.replace("_", " ") for name in _SHOWN), "used for")
    body = (
        (
            run.id,
            run.engine + (f"@{run.version}" if run.version else ""),
            f"{run.gpus or '?'} x {run.gpu or '?'}",
            *(_shown(run.get(name)) for name in _SHOWN),
            run.split,
        )
        for run in found
    )
    say(columns([head, *body]))
    return 0


def _add(options: argparse.Namespace) -> int:
    import sys

    from vlmmem.measured import add_run
    from vlmmem.measured.logs import LARGEST, read_log, read_log_file

    if options.runs:
        raise InputError("--runs is given with add; -o names the file that keeps your runs")
    given = {name: getattr(options, name) for name in ("engine", "model", "gpu", "version")}
    if options.log == "-":
        run = read_log(sys.stdin.buffer.read(LARGEST + 1), "standard input", **given)
    else:
        run = read_log_file(options.log, **given)
    output = options.output or _OWN
    run = add_run(output, run)
    if options.json:
        say(_json(run))
        return 0
    settings = (
        *("version", "model", "catalogue", "gpu", "gpus", "tp", "pp", "context", "batch_tokens", "sequences"),
        *("utilization", "dtype", "quantization", "kv_dtype", "eager"),
    )
    rows = [(name, str(getattr(run, name))) for name in settings if getattr(run, name) is not None]
    rows += [(name.replace("_", " "), _printed(quantity)) for name, quantity in run.measured]
    say(columns([("engine", run.engine), *rows]))
    for note in (*(run.notes.split("; ") if run.notes else ()), *([run.why] if run.why else ())):
        say(f"note: {note}")
    say(f"{output}: {run.id} is kept")
    return 0


def _measured(options: argparse.Namespace) -> int:
    if options.action is None:
        for name in ("output", "version"):
            if getattr(options, name):
                raise InputError(f"--{name} is given without add; 'vlmmem measured add LOG' reads a log")
        return _list(options)
    if not options.log:
        raise InputError("add: no log is named; 'vlmmem measured add LOG' reads one")
    return _add(options)


COMMANDS = {"measured": (_arguments, _measured)}
