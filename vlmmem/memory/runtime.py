"""Memory of the runtime: driver context, libraries, communication buffers."""

from vlmmem.catalog import find_runtime
from vlmmem.hardware import Runtime
from vlmmem.workload import check_positive

__all__ = ["runtime_allowance", "runtime_bytes"]


def runtime_allowance(tp: int = 1, pp: int = 1) -> Runtime:
    """The measured allowance that stands for a GPU of such a group, with its source.

    Args:
        tp: GPUs that split each layer.
        pp: groups of GPUs that split the layers.

    Raises:
        InputError: `tp` or `pp` is not a positive integer.

    >>> runtime_allowance(tp=2).id, runtime_allowance(pp=2).id, runtime_allowance().id
    ('tensor', 'pipeline', 'one-gpu')
    """
    check_positive("tp", tp)
    check_positive("pp", pp)
    if tp > 1:
        return find_runtime("tensor")
    return find_runtime("pipeline" if pp > 1 else "one-gpu")


def runtime_bytes(tp: int = 1, pp: int = 1) -> int:
    """Bytes that one GPU holds for driver, libraries and buffers, beside weights, cache and activations.

    Measured on H100s under vLLM 0.19; on another GPU or engine it is an assumption.

    Args:
        tp: GPUs that split each layer.
        pp: groups of GPUs that split the layers.

    Raises:
        InputError: `tp` or `pp` is not a positive integer.

    >>> runtime_bytes()
    816043786
    """
    allowance = runtime_allowance(tp, pp)
    return allowance.context_bytes + allowance.workspace_bytes
