"""Whether a model fits, and on how many GPUs."""

from vlmmem.catalog import find_gpu, find_model
from vlmmem.footprint import estimate
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.model import Model
from vlmmem.parallelism import tensor_parallel_sizes
from vlmmem.workload import Parallelism, Workload

NODE = 8
"""GPUs that one server joins by a fast link, as a rule; tensor parallelism stays within it."""


def fewest_gpus(
    model: str | Model,
    gpu: str | Gpu,
    workload: Workload,
    *,
    weights: str | Format | None = None,
    most: int = NODE,
) -> int | None:
    """The least tensor-parallel size with which a model and its workload fit on GPUs of one kind.

    Args:
        model: a model or its name.
        gpu: the GPU or its name; its memory as the driver states it.
        workload: sequences and their length.
        weights: number format of the weights; None is that in which the model was published.
        most: GPUs at most.

    Returns:
        The number of GPUs, one that splits heads and MLP evenly, or None where ``most`` of them do not suffice.

    >>> fewest_gpus("llama-3.1-70b", "a100-80gb", Workload(4096)), fewest_gpus("gpt-3-175b", "t4", Workload(2048))
    (2, None)
    """
    model = find_model(model) if isinstance(model, str) else model
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    for tp in tensor_parallel_sizes(model, most):
        if estimate(model, workload, Parallelism(tp=tp), gpu, weights=weights).fits:
            return tp
    return None
