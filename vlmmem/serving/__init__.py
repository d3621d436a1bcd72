"""Serving simulated: who holds which slots of the KV cache, and which slots of a batch work, step by step.

Everything is deterministic: the only randomness is `random.Random(seed).random()`, whose sequence Python promises to
keep.
"""

from vlmmem.serving.batching import Batching, continuous_batching, exponential_factor, static_batching
from vlmmem.serving.blocks import BlockPool
from vlmmem.serving.lengths import LENGTHS, Lengths, Request, draw_requests
from vlmmem.serving.occupancy import MEASURED, Measured, Occupancy, kv_occupancy, live_tokens

__all__ = [
    "LENGTHS",
    "MEASURED",
    "Batching",
    "BlockPool",
    "Lengths",
    "Measured",
    "Occupancy",
    "Request",
    "continuous_batching",
    "draw_requests",
    "exponential_factor",
    "kv_occupancy",
    "live_tokens",
    "static_batching",
]
