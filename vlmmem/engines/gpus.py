"""What engines ask of a GPU by its generation, and the workspace that cuBLAS takes of it."""

from vlmmem.hardware import Gpu

__all__ = ["BEFORE_AMPERE", "BLACKWELL", "CUBLAS_SOURCE", "HOPPER", "cublas_workspace_bytes", "is_one_of"]

BEFORE_AMPERE = ("t4", "v100-16gb", "v100-32gb", "p100", "rtx-2080-ti")
HOPPER = ("h100", "h200", "h20", "h800", "gh200")
BLACKWELL = ("b200", "b300", "gb200", "gb300")
"""Ids of the catalogue, or how they begin, by generation."""

CUBLAS_SOURCE = "https://github.com/pytorch/pytorch/blob/v2.3.1/aten/src/ATen/cuda/CublasHandlePool.cpp"
_WORKSPACE, _WIDE_WORKSPACE = (4096 * 2 + 16 * 8) * 2**10, 4096 * 8 * 2**10


def is_one_of(gpu: Gpu | None, generation: tuple[str, ...]) -> bool:
    """Whether a GPU is of a generation; False where none is named.

    >>> from vlmmem import find_gpu
    >>> is_one_of(find_gpu("h100-80gb"), HOPPER), is_one_of(find_gpu("a100-80gb"), HOPPER), is_one_of(None, HOPPER)
    (True, False, False)
    """
    return gpu is not None and gpu.id.startswith(generation)


def cublas_workspace_bytes(gpu: Gpu | None, *wide: tuple[str, ...]) -> int:
    """Bytes that cuBLAS takes out of PyTorch's allocator with the first product.

    ":4096:2:16:8" in KiB, 8.1 MiB, and 32 MiB on generations whose workspace is wide: Hopper's, and Blackwell's since
    PyTorch asks for compute capability 10, too.

    Args:
        gpu: the GPU; without one the narrow workspace counts.
        wide: generations with a wide workspace.

    Source: PyTorch v2.3.1, aten/src/ATen/cuda/CublasHandlePool.cpp, getChosenWorkspaceSize.

    >>> from vlmmem import find_gpu
    >>> cublas_workspace_bytes(find_gpu("h100-80gb"), HOPPER), cublas_workspace_bytes(find_gpu("a100-80gb"), HOPPER)
    (33554432, 8519680)
    """
    return _WIDE_WORKSPACE if any(is_one_of(gpu, generation) for generation in wide) else _WORKSPACE
