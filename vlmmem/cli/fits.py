"""The command over what fits: fit."""

import argparse
from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, say
from vlmmem.cli.estimates import asked, engine_settings, workload_arguments

if TYPE_CHECKING:
    from vlmmem.capacity import Fit
    from vlmmem.workload import Parallelism

__all__ = ["COMMANDS"]


def _fit_arguments(sub: argparse.ArgumentParser) -> None:
    workload_arguments(sub)
    sub.add_argument("--gpu", metavar="GPU", required=True, help="the GPU; exit code 1 where the workload does not fit")


def _fit(options: argparse.Namespace) -> int:
    from vlmmem.capacity import fit

    model, workload, parallelism, defaults = asked(options)
    found = fit(
        model,
        options.gpu,
        workload,
        parallelism,
        weights=options.weights,
        kv_dtype=options.kv_dtype,
        engine=options.engine,
        settings=engine_settings(options, workload.context),
    )
    if options.weights is None:
        defaults.append(f"weights {found.footprint.weights}")
    if options.kv_dtype is None:
        defaults.append(f"KV cache {found.footprint.kv_dtype}")
    if options.json:
        say({**found.json(), "defaults": defaults})
    else:
        say(_told(found, defaults))
    return 0 if found.fits else 1


def _told(found: "Fit", defaults: "list[str]") -> str:
    from vlmmem.capacity import MOST_GPUS, ORDER
    from vlmmem.units import show_both

    footprint, workload = found.footprint, found.footprint.workload
    model, gpu = footprint.model, footprint.gpu
    assert gpu is not None
    total = footprint.needed
    name = model.id or model.architecture
    asked_for = f"{workload.batch:,} x {workload.context:,} tokens on {_gpus(footprint.parallelism)} {gpu.name}"
    answer = "fits" if found.fits else "does not fit"
    facts = [
        (name, f"{asked_for}: {answer}, {show_both(total)} of {show_both(gpu.memory_bytes)}"),
        (
            "largest batch",
            f"not one sequence of {workload.context:,} tokens fits"
            if found.largest_batch is None
            else f"{found.largest_batch:,} sequences of {workload.context:,} tokens",
        ),
        ("largest context", _context(found)),
        (
            "fewest GPUs",
            f"more than {MOST_GPUS} {gpu.name}" if found.fewest is None else f"{_gpus(found.fewest)} {gpu.name}",
        ),
    ]
    lines = [columns(facts), ""]
    head = ("GPU", "memory", "fewest")
    rows = [
        (each.gpu.id, show_both(each.gpu.memory_bytes), f"more than {MOST_GPUS}")
        if each.parallelism is None
        else (each.gpu.id, show_both(each.gpu.memory_bytes), _gpus(each.parallelism))
        for each in found.holders
    ]
    lines += [columns([head, *rows]), ""]
    if found.changes:
        titles = ("what to change", "option", "saves on one GPU", "enough")
        body = [
            (each.what, each.option, show_both(each.saves) if each.saves else "", "yes" if each.fits else "no")
            for each in found.changes
        ]
        lines += [columns([titles, *body]), f"({ORDER})", ""]
    lines += [f"note: {note}" for note in footprint.notes]
    lines.append("defaults: " + ", ".join(defaults))
    return "\n".join(lines)


def _context(found: "Fit") -> str:
    batch = found.footprint.workload.batch
    if found.largest_context is None:
        return f"none: {batch:,} sequences do not fit, whatever their length"
    end = ", all positions of the model" if found.context_is_whole else ""
    return f"{found.largest_context:,} tokens{end}, for {batch:,} sequences"


def _gpus(split: "Parallelism") -> str:
    """How many GPUs, and how they share the model."""
    how = f" (tp {split.tp}" + (f", pp {split.pp})" if split.pp > 1 else ")")
    return f"{split.gpus}{how if split.gpus > 1 else ''}"


COMMANDS = {"fit": (_fit_arguments, _fit)}
