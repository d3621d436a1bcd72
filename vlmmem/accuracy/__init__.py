"""How far the engines' rules are off: each measured run priced, the errors in a table, the ranges that they give."""

from vlmmem.accuracy.intervals import coverage, covered, interval, ranges, width
from vlmmem.accuracy.peers import peer_errors
from vlmmem.accuracy.predictions import Prediction, Unpriced, predict, predictions, settings_of
from vlmmem.accuracy.table import LEFT_OUT, Line, Target, Verdict, reasons, table, targets, verdicts

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
