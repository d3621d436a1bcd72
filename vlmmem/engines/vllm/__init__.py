"""vLLM: what it takes of each GPU, and what it prints of that, by release.

The weights, the profile run's peak, memory outside PyTorch and CUDA graphs leave the KV cache's pool; the pool's pages
and groups give the tokens and the concurrency that the log prints.
"""

from vlmmem.engines.releases import Release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.defaults import complete
from vlmmem.engines.vllm.kv_cache import kv_capacity
from vlmmem.errors import InputError
from vlmmem.model import Model

__all__ = ["RELEASES", "complete", "kv_capacity", "reserve"]

RELEASES = ("0.8", "0.19")
"""The releases whose code was read, in order."""


def reserve(model: Model, release: Release, settings: Settings) -> Reservation:
    """What vLLM takes of the fullest GPU.

    Raises:
        InputError: the GPU is missing, or vLLM does not run the model so.
    """
    raise InputError(f"vllm {release.version}: not there yet")
