"""The errors of other tools on the measured runs, beside ours: one reading of what each says."""

from collections.abc import Iterable, Mapping
from typing import Any

from vlmmem.accuracy.priced import Prediction, settings_of
from vlmmem.accuracy.statistics import mean_absolute
from vlmmem.catalog import find_model
from vlmmem.measured import Run, runs

__all__ = ["OURS", "peer_errors", "reading"]

OURS = "vlmmem"

_FIGURES = ("weights", "activation_peak", "kv_tokens given the pool", "kv_pool", "max_concurrency", "total")
"""The figures that others speak of, in the order of a table."""


def reading(said: Mapping[str, Any], run: Run) -> dict[str, float]:
    """What a tool's answer says of the figures of a run.

    A tool that prices no engine is read as its user would: the pool is what its weights leave of the budget, tokens and
    sequences follow from its cache of a token.

    Args:
        said: the answer for one GPU, in bytes: weights, activations, kv_bytes_per_token, kv_pool, total.
        run: the run.
    """
    found: dict[str, float] = {}
    weights, token = said.get("weights"), said.get("kv_bytes_per_token")
    if "error" in said or run.catalogue is None:
        return found
    settings, _ = settings_of(run, find_model(run.catalogue))
    if weights:
        found["weights"] = weights
    if said.get("activations"):
        found["activation_peak"] = said["activations"]
    pool = said.get("kv_pool")
    if pool is None and weights and run.gpu_total is not None and run.utilization is not None:
        pool = run.gpu_total.bytes * run.utilization - weights
    if pool is not None:
        found["kv_pool"] = max(0.0, pool)
    if token:
        printed = run.get("kv_pool")
        if printed is not None:
            found["kv_tokens given the pool"] = printed.bytes / token
        if pool is not None:
            found["max_concurrency"] = max(0.0, pool) / (token * settings.context)
    total = said.get("total")
    if total is None and weights and token:
        total = weights + token * settings.context * (run.batch or 1)
    if total is not None:
        found["total"] = total * settings.tp * settings.pp
    return found


def peer_errors(
    stored: Mapping[str, Mapping[str, Mapping[str, Any]]], of: Iterable[Prediction]
) -> dict[str, dict[str, tuple[float, int]]]:
    """Each tool's mean absolute error of each figure, and of how many runs, ours first.

    Args:
        stored: each run's answers, tool by tool, as tools/peers.py keeps them.
        of: our predictions, whose runs and figures are compared; runs that no tool was asked about are left out.
    """
    known = {run.id: run for run in runs()}
    sizes: dict[str, dict[str, list[float]]] = {}
    for item in of:
        if item.run not in stored or item.quantity not in _FIGURES:
            continue
        run = known[item.run]
        if item.quantity in ("kv_pool", "max_concurrency") and (run.gpu_total is None or run.utilization is None):
            continue  # without the budget no other tool has an answer
        answers = {OURS: item.predicted}
        for tool, said in stored[item.run].items():
            given = reading(said, run).get(item.quantity)
            if given is not None:
                answers[tool] = given
        for tool, value in answers.items():
            sizes.setdefault(tool, {}).setdefault(item.quantity, []).append(value / item.measured - 1)
    return {
        tool: {name: (mean_absolute(found[name]), len(found[name])) for name in _FIGURES if name in found}
        for tool, found in sizes.items()
    }
