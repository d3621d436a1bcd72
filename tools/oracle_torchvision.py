"""Let torchvision be imported where its compiled part does not fit PyTorch: a build for CUDA beside one for CPU.

It registers shapes for two operators that do not exist then, and transformers imports it wherever it is installed.
Nothing of the oracle uses them.
"""

from pathlib import Path
from typing import Any

_KEPT: list[Any] = []


def define_missing_operators() -> None:
    """Define the two operators, where the compiled part cannot be loaded. To be called before transformers is."""
    from importlib.util import find_spec

    spec = find_spec("torchvision")
    if _KEPT or spec is None or spec.origin is None:
        return
    import torch

    try:
        torch.ops.load_library(str(Path(spec.origin).parent / "_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
