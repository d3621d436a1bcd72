"""vLLM: what others than PyTorch take of a GPU, and what the CUDA graphs take.

NCCL's buffers, modules that kernels are loaded into and workspaces of libraries are not in vLLM's code: their figures
were measured, by release, GPUs and their number, and stand in constants.json with the spread they showed.
"""

from fractions import Fraction
from math import ceil
from typing import Any

from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.budget import counts_graphs
from vlmmem.engines.vllm.generation import uses_v1
from vlmmem.engines.vllm.profile import activation_peak, constants, kept_bytes, second_runner
from vlmmem.engines.vllm.sources import runner_source
from vlmmem.model import Model
from vlmmem.terms import Term
from vlmmem.units import BYTES, exact

__all__ = ["CAPTURED", "captured", "captured_share", "cuda_graphs", "kind_of", "non_torch", "printed_peak", "size_of"]

_GIB = BYTES["GiB"]
_LARGE = 70 * _GIB
_WHERE = "vlmmem/engines/vllm/constants.json"


CAPTURED = 51
"""Sizes of batches that are captured where nothing bounds them: 1, 2, 4, 8 to 256 by 8, and to 512 by 16."""


def captured(settings: Settings) -> int:
    """How many sizes of batches V1 captures: those up to twice max_num_seqs and 512.

    Source: vllm/config/vllm.py (vllm/config.py): `_set_cudagraph_sizes`.

    >>> captured(Settings(8192, sequences=1024)), captured(Settings(8192, sequences=2))
    (51, 3)
    """
    most = min(2 * (settings.sequences or 256), 512)
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)]
    return max(1, len([size for size in sizes if size <= most]))


def captured_share(settings: Settings, *, v1: bool) -> Fraction:
    """The share of all sizes that is captured. V0 has those of 1, 2, 4 and by 8 up to max_num_seqs and 256.

    >>> captured_share(Settings(8192, sequences=1), v1=False), captured_share(Settings(8192, sequences=256), v1=True)
    (Fraction(1, 35), Fraction(1, 1))
    """
    if v1:
        return Fraction(captured(settings), CAPTURED)
    sizes = [1, 2, 4, *range(8, 257, 8)]
    return Fraction(max(1, len([size for size in sizes if size <= (settings.sequences or 256)])), len(sizes))


def kind_of(settings: Settings) -> str:
    """How GPUs share the work: one, tensor or pipeline."""
    if settings.tp > 1:
        return "tensor"
    return "pipeline" if settings.pp > 1 else "one"


def _row(rows: list[dict[str, Any]], release: Release, kind: str, size: str) -> dict[str, Any]:
    """The row of the newest release that is not newer, of these GPUs.

    Small GPUs without a row of their own have the oldest of the kind: what grew since is buffers for NVLink.
    """
    alike = [row for row in rows if row["kind"] == kind] or rows
    fits = [row for row in alike if row["gpu"] == size and release.since(row["since"])]
    if fits:
        return fits[-1]
    return alike[0] if size == "small" else next((row for row in alike if row["gpu"] == size), alike[0])


def size_of(settings: Settings) -> str:
    """Whether the GPU has 70 GiB or more: large, else small."""
    total = settings.total_bytes
    return "small" if total is not None and total < _LARGE else "large"


def non_torch(release: Release, settings: Settings) -> Term:
    """What others than PyTorch hold more after the profile run than when the worker began.

    Args:
        release: vLLM's release.
        settings: how it is started, complete: the GPU, its number and how they share the work count.

    >>> non_torch(Release("0.19", (0, 19)), Settings(8192, tp=2)).bytes > 2 * 2**30
    True
    """
    row = _row(constants()["non_torch"], release, kind_of(settings), size_of(settings))
    size = round(exact(row["gib"]) * _GIB)
    low, high = row["spread"]
    formula = f"{row['gib']} GiB, measured {low} to {high} in {len(row['records'])} runs since {row['since']} = {size}"
    return Term("runtime:non_torch", size, formula, row["basis"], _WHERE)


def cuda_graphs(model: Model, release: Release, settings: Settings) -> Term:
    """What capturing the CUDA graphs takes: so much for each layer of a stage, and a constant; 0 where it is eager.

    Since 0.20 the pool is less by an estimate of this.

    Args:
        model: the model.
        release: vLLM's release.
        settings: how it is started, complete.

    >>> from vlmmem import find_model
    >>> cuda_graphs(find_model("llama-3.1-8b"), Release("0.19", (0, 19)), Settings(8192, eager=True)).bytes
    0
    """
    v1 = uses_v1(model, release, settings)
    if settings.eager:
        return Term("runtime:graphs", 0, "eager: 0", "derived", runner_source(release, "capture_model", v1=v1))
    kind = "V1" if v1 else "V0"
    rows = [row for row in constants()["graphs"] if row["engine"] == kind] or constants()["graphs"]
    fits = [row for row in rows if release.since(row["since"])] or rows[:1]
    row = fits[-1]
    layers = -(-model.layers // settings.pp)
    whole = (exact(row["gib"]) + exact(row["gib_a_layer"]) * layers) * _GIB
    share = captured_share(settings, v1=v1)
    size = max(0, ceil(whole * share))
    shown = f"{share.numerator} / {share.denominator} of the sizes"
    formula = f"({row['gib']} GiB + {layers} x {row['gib_a_layer']} GiB) x {shown} = {size}"
    return Term("runtime:graphs", size, formula, row["basis"], _WHERE)


def printed_peak(model: Model, release: Release, settings: Settings) -> int:
    """What the log calls peak activation, in bytes.

    Since 0.27 that is another sum: what of the peak PyTorch gave back after the profile run, and the estimate of the
    CUDA graphs; what it kept counts with the weights as "consumed memory". The pool is the same.

    Args:
        model: the model.
        release: vLLM's release.
        settings: how it is started, complete.

    Source: vllm/v1/worker/gpu_worker.py, v0.27.0, `determine_available_memory`; vllm/utils/mem_utils.py,
    `transient_peak_headroom`.

    >>> from vlmmem import find_model
    >>> model, settings = find_model("qwen2.5-3b"), Settings(8192, sequences=256, batch_tokens=2048, eager=True)
    >>> old, new = Release("0.26", (0, 26)), Release("0.27", (0, 27))
    >>> printed_peak(model, old, settings) - printed_peak(model, new, settings) == 8320 * 1024
    True
    """
    peak = activation_peak(model, release, settings).bytes
    if not release.since("0.27"):
        return peak
    given_back = peak - kept_bytes(model, release, settings)
    if not counts_graphs(release, settings, second=second_runner(model, release, settings)):
        return given_back
    return given_back + cuda_graphs(model, release, settings).bytes
