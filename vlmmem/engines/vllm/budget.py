"""What vLLM leaves for the KV cache: its share of the GPU less weights, the profile run's peak and what others hold.

By release:

- V0: total x gpu_memory_utilization less what the profile run took of the GPU; since 0.6.4 told apart as weights, peak
  of PyTorch, and the rise of what is not PyTorch's (vllm/worker/worker.py, `determine_num_available_blocks`);
- V1 before 0.9.1: all that is not PyTorch's counts, what other programs and the driver hold with it;
- since 0.9.1: only its rise since the worker began; the share must be free at the start (v0.9.2,
  vllm/v1/worker/gpu_worker.py);
- since 0.10.2 `kv_cache_memory_bytes` sets the pool and skips all this;
- since 0.16 the share is rounded up to a byte (vllm/v1/worker/utils.py, `request_memory`);
- since 0.20 an estimate of the CUDA graphs is taken off, unless eager (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS); the
  second model runner, which is the default for more and more models since 0.22, answers 0 until 0.29
  (vllm/v1/worker/gpu/model_runner.py, `profile_cudagraph_memory`; vllm issue 49224).
"""

from fractions import Fraction
from math import ceil

from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.sources import source
from vlmmem.errors import InputError
from vlmmem.terms import Term
from vlmmem.units import exact

__all__ = ["counts_graphs", "kv_pool", "requested_bytes"]


def requested_bytes(release: Release, settings: Settings) -> int:
    """The share of the GPU that vLLM takes, in bytes: total x gpu_memory_utilization.

    Raises:
        InputError: no GPU is named, or no utilization is set.

    >>> requested_bytes(Release("0.19", (0, 19)), Settings(8192, gpu_bytes=85_028_896_768, utilization=0.95))
    80777451930
    """
    total = settings.total_bytes
    if total is None:
        raise InputError("vllm: which GPU, is needed: it takes a share of the GPU's memory, whatever the model needs")
    share = settings.utilization
    if share is None:
        raise InputError("vllm: its share of the GPU is not set; a number above 0 and up to 1 is needed")
    # As a double, the way vLLM multiplies.
    product = Fraction(total * share)
    return ceil(product) if release.since("0.16") else int(product)


def counts_graphs(release: Release, settings: Settings, *, second: bool = False) -> bool:
    """Whether the estimate of the CUDA graphs is taken off the pool; `second` is the second model runner.

    >>> counts_graphs(Release("0.19", (0, 19)), Settings(8192)), counts_graphs(Release("0.20", (0, 20)), Settings(8192))
    (False, True)
    """
    if second and not release.since("0.29"):
        return False
    if settings.eager or (settings.gpu is not None and settings.gpu.vendor == "AMD"):
        return False
    asked = settings.option("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS")
    if asked is not None and release.since("0.19"):
        return str(asked) not in ("0", "False")
    return release.since("0.20")


def _profiler(release: Release, *, v1: bool) -> str:
    """Where the worker measures what is left."""
    if v1:
        return source(release, "vllm/v1/worker/gpu_worker.py", "determine_available_memory")
    return source(release, "vllm/worker/worker.py", "determine_num_available_blocks")


def kv_pool(
    release: Release,
    settings: Settings,
    weights: tuple[Term, ...],
    peak: Term,
    non_torch: Term,
    graphs: Term,
    *,
    v1: bool,
    second: bool = False,
) -> Term:
    """The pool of the KV cache on one GPU: "Available KV cache memory", or V0's "the rest of the memory".

    Args:
        release: vLLM's release.
        settings: complete settings.
        weights: what the loaded model takes, in parts.
        peak: what PyTorch's peak rises by in the profile run.
        non_torch: what others than PyTorch take meanwhile.
        graphs: the CUDA graphs.
        v1: whether the V1 engine starts.
        second: whether the second model runner does.
    """
    given = settings.option("kv_cache_memory_bytes")
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int) or given <= 0:
            raise InputError(f"kv_cache_memory_bytes: {given!r} was given; a positive number of bytes is needed")
        return Term("kv_cache", given, f"kv_cache_memory_bytes = {given:,}", "assumed", _profiler(release, v1=v1))
    requested = requested_bytes(release, settings)
    total = settings.total_bytes or 0
    rounding = "ceil" if release.since("0.16") else "floor"
    parts = [(f"{rounding}({total:,} x {exact(settings.utilization or 0)})", requested)]
    parts += [("weights", -sum(term.bytes for term in weights)), ("activation peak", -peak.bytes)]
    parts.append(("non-torch", -non_torch.bytes))
    if counts_graphs(release, settings, second=second):
        parts.append(("CUDA graphs", -graphs.bytes))
    if v1 and not release.since("0.9.1") and settings.used_bytes:
        parts.append(("held by others", -settings.used_bytes))
    left = sum(value for _, value in parts)
    formula = parts[0][0] + "".join(f" - {-value:,} ({name})" for name, value in parts[1:])
    # What the profile gives is fitted in part; the sum is the engine's own.
    basis = "assumed" if "assumed" in {peak.basis, non_torch.basis, graphs.basis} else "derived"
    return Term("kv_cache", max(0, left), formula, basis, _profiler(release, v1=v1))
