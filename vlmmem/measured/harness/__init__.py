"""The measuring harness: a model of transformers built from its config's fields, run, and its memory written down.

``measure(asked)`` builds the class with random weights (nothing is fetched), sends a prompt through it and then token
by token, and counts on a GPU, on the CPU or under fake tensors. PyTorch and transformers are the extra `transformers`.
"""

from vlmmem.measured.harness.comparison import Difference, differences
from vlmmem.measured.harness.devices import DEVICES
from vlmmem.measured.harness.passes import Asked, Measurement, ask, measure
from vlmmem.measured.harness.written import check_place, run_of_measurement

__all__ = [
    "DEVICES",
    "Asked",
    "Difference",
    "Measurement",
    "ask",
    "check_place",
    "differences",
    "measure",
    "run_of_measurement",
]
