"""How far the engines' rules are off: each measured run priced, the errors in a table, the ranges that they give.

A name's module is imported when it is first used: the range of an estimate needs no measured run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmmem.accuracy.intervals import coverage, covered, interval, ranges, width
    from vlmmem.accuracy.lines import LEFT_OUT, Line, Target, Verdict, reasons, table, targets, verdicts
    from vlmmem.accuracy.peers import peer_errors
    from vlmmem.accuracy.priced import Prediction, Unpriced, predict, predictions, settings_of

__all__ = [
    "LEFT_OUT",
    "Line",
    "Prediction",
    "Target",
    "Unpriced",
    "Verdict",
    "coverage",
    "covered",
    "interval",
    "peer_errors",
    "predict",
    "predictions",
    "ranges",
    "reasons",
    "settings_of",
    "table",
    "targets",
    "verdicts",
    "width",
]

_HOMES = {
    "intervals": ("coverage", "covered", "interval", "ranges", "width"),
    "peers": ("peer_errors",),
    "priced": ("Prediction", "Unpriced", "predict", "predictions", "settings_of"),
    "lines": ("LEFT_OUT", "Line", "Target", "Verdict", "reasons", "table", "targets", "verdicts"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"vlmmem.accuracy.{_HOME[name]}"), name)
    globals()[name] = found
    return found
