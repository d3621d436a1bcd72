"""TensorRT-LLM: a share of what is free once model and buffers stand, by release and backend.

    tokens = int(free_gpu_memory_fraction x free / bytes of a token), blocks = ceil(tokens / tokens_per_block)

- C++ runtime (an engine of TensorRT; the default before v1.0): free is what cudaMemGetInfo says after weights, the
  execution context, runtime buffers and the decoder (cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp,
  calculateMaxNumBlocks; since v0.20 calculateFreeMemBytes). Printed: "Memory usage when calculating max tokens in paged
  kv cache: total: 79.10 GiB, available: 70.48 GiB", "Number of blocks in KV cache primary pool: 4060",
  "[MemUsageChange] Allocated 63.44 GiB for max tokens in paged KV cache (259840)".
- PyTorch backend (the default since v1.0): a prefill of max_num_tokens is run with a small cache; free is the GPU's
  total less the peak of PyTorch and what lies outside it (tensorrt_llm/_torch/pyexecutor/_util.py, _cal_max_memory).

free_gpu_memory_fraction is 0.9 by default; tokens_per_block 64, and 32 since v0.18. Every layer holds every token
unless max_attention_window is given, which is not priced here. TensorRT's activations are a figure of the engine that
was built (trtllm-build prints it): the prefill's peak stands in for them.
"""

from math import ceil

from vlmmem.catalog import find_format
from vlmmem.engines.releases import Release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import StateCache
from vlmmem.memory import cache_sizes, likely_peak_bytes, runtime_allowance, runtime_bytes
from vlmmem.model import Model
from vlmmem.parallelism import gpu_shares, stage_part
from vlmmem.terms import Term
from vlmmem.units import exact
from vlmmem.workload import Parallelism, Workload

__all__ = ["RELEASES", "kv_capacity", "reserve"]

RELEASES = ("0.13", "0.18", "0.20", "1.0", "1.1")
"""The releases whose code or documentation was read."""

_MANAGER = "https://github.com/NVIDIA/TensorRT-LLM/blob/v{}/cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp"
_UTIL = "https://github.com/NVIDIA/TensorRT-LLM/blob/v{}/tensorrt_llm/_torch/pyexecutor/_util.py"
_MEMORY = "https://nvidia.github.io/TensorRT-LLM/reference/memory.html"
_TAGS = {"0.13": "0.13.0", "0.18": "0.18.2", "0.20": "0.20.0", "1.0": "1.0.0", "1.1": "1.1.0"}

_FRACTION = 0.9  # KvCacheConfig::kDefaultGpuMemFraction
_BATCH_TOKENS, _SEQUENCES = 8192, 2048  # BuildConfig's defaults, max_num_tokens and max_batch_size


def _tokens_per_block(release: Release, settings: Settings) -> int:
    return settings.block_size or (32 if release.since("0.18") else 64)


def _backend(release: Release, settings: Settings) -> str:
    given = settings.option("backend")
    if given is None:
        return "pytorch" if release.since("1.0") else "tensorrt"
    if given not in ("pytorch", "tensorrt"):
        raise InputError(f"backend: {str(given)[:40]!r} was given; pytorch or tensorrt is needed")
    return str(given)


def _number(model: Model, settings: Settings) -> Format:
    if settings.kv_dtype is not None:
        return settings.kv_dtype
    asked = "" if model.quantization is None else model.quantization.kv_cache
    return find_format(asked or ("bf16" if model.dtype == "fp32" else model.dtype))


def _cell(model: Model, settings: Settings) -> int:
    """Bytes of a token on the GPU of a stage that holds most."""
    number = _number(model, settings)
    stages = (stage_part(model, settings.pp, stage).layers for stage in range(settings.pp))
    cell = max(sum(size for _, size in cache_sizes(model, number, settings.tp, layers=each).growing) for each in stages)
    if not cell:
        raise InputError(
            f"{model.id}: no layer keeps keys and values of a token; TensorRT-LLM's pool is of such layers"
        )
    return cell


def kv_capacity(model: Model, release: Release, settings: Settings, pool_bytes: int) -> tuple[int, int, float]:
    """Tokens, blocks and sequences of the whole context that a pool of so many bytes holds.

    Args:
        model: the model.
        release: of TensorRT-LLM.
        settings: how it is started; `block_size` is tokens_per_block.
        pool_bytes: the share of the free memory that the pool gets.

    Raises:
        InputError: the pool is too small for a token.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines.releases import find_release
    >>> release = find_release("tensorrt-llm", RELEASES, "0.13")
    >>> found = kv_capacity(find_model("llama-2-7b"), release, Settings(4096), int(0.9 * 21.89 * 2**30))
    >>> found[1]  # a log of that release, of a model of the same cache, printed 631
    631
    """
    block = _tokens_per_block(release, settings)
    tokens = pool_bytes // _cell(model, settings)
    limit = settings.option("max_tokens")
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        tokens = min(tokens, limit)
    if tokens <= 0:
        raise InputError(
            "tensorrt-llm: model and buffers leave no room for a KV cache; a larger GPU, or more, is needed"
        )
    blocks = ceil(tokens / block)
    return blocks * block, blocks, blocks * block / settings.context


def reserve(model: Model, release: Release, settings: Settings) -> Reservation:
    """What TensorRT-LLM takes of the fullest GPU when it starts.

    Args:
        model: what it serves.
        release: of TensorRT-LLM.
        settings: `context` is max_seq_len, `batch_tokens` max_num_tokens (8,192), `sequences` max_batch_size (2,048),
            `utilization` free_gpu_memory_fraction (0.9), `block_size` tokens_per_block. Options: backend (pytorch,
            tensorrt), max_tokens.

    Raises:
        InputError: no GPU is named, model and buffers leave nothing, or the GPUs cannot split the model.

    >>> from vlmmem import find_gpu, find_model
    >>> from vlmmem.engines.releases import find_release
    >>> found = reserve(
    ...     find_model("qwen3-0.6b"),
    ...     find_release("tensorrt-llm", RELEASES, "1.0"),
    ...     Settings(40960, gpu=find_gpu("h100-80gb")),
    ... )
    >>> 0.97 < found.kv_tokens / 643_136 < 1.03  # printed: Allocated 68.69 GiB for ... paged KV cache (643136)
    True
    """
    total = settings.total_bytes
    if total is None:
        raise InputError("tensorrt-llm: its pool depends on the GPU's memory; a GPU is needed, such as --gpu h100-80gb")
    backend, fraction = _backend(release, settings), settings.utilization or _FRACTION
    batch_tokens = settings.batch_tokens or _BATCH_TOKENS
    number = _number(model, settings)
    shares = gpu_shares(
        model,
        Workload(settings.context),
        Parallelism(settings.tp, settings.pp),
        weights=settings.weights,
        kv_dtype=number,
    )
    weights = max(share.weights for share in shares)
    activations = likely_peak_bytes(model, batch_tokens)
    outside = runtime_bytes(settings.tp, settings.pp) + (settings.used_bytes or 0)
    free = total - weights - activations - outside
    budget = int(exact(fraction) * max(0, free))
    tokens, blocks, concurrency = kv_capacity(model, release, settings, budget)
    block, cell = _tokens_per_block(release, settings), _cell(model, settings)
    pool = tokens * cell
    tag = _TAGS[release.version]
    manager = (_UTIL if backend == "pytorch" else _MANAGER).format(tag)
    terms = (
        Term(
            "weights",
            weights,
            f"{model.parameters:,} parameters on {settings.tp * settings.pp} GPUs",
            "derived",
            manager,
        ),
        Term(
            "activations",
            activations,
            f"a prefill of {batch_tokens:,} tokens, by Llama's closed form with this model's tensors",
            "assumed",
            _MEMORY,
        ),
        Term(
            "kv_cache",
            pool,
            f"{blocks:,} blocks x {block} tokens x {cell:,} B, of {free:,} B free x {fraction}",
            "derived",
            manager,
        ),
        Term(
            "runtime:non_torch",
            outside,
            f"{outside:,} B of context, libraries and communication, as measured under vLLM 0.19",
            "assumed",
            runtime_allowance(settings.tp, settings.pp).sources[0].address,
        ),
    )
    notes = [release.note] if release.note else []
    if backend == "tensorrt":
        notes.append(
            "activations are a figure of the built engine (trtllm-build prints it); a prefill stands in for them"
        )
    if any(limit is not None for limit, _ in cache_sizes(model, number).growing):
        notes.append("layers with a sliding window hold every token unless max_attention_window is given")
    if any(isinstance(each, StateCache) for layer, _ in model.decoder.alike() for each in layer.caches):
        notes.append("the pool of recurrent states is not in it")
    return Reservation(
        "tensorrt-llm",
        release.version,
        terms,
        kv_tokens=tokens,
        kv_blocks=blocks,
        max_concurrency=concurrency,
        printed=(("total", total), ("available", free), ("kv_pool", pool), ("max_tokens", tokens)),
        settings=(
            ("backend", backend),
            ("free_gpu_memory_fraction", fraction),
            ("max_num_tokens", batch_tokens),
            ("max_batch_size", settings.sequences or _SEQUENCES),
            ("tokens_per_block", block),
        ),
        command=_command(model, release, settings, backend),
        notes=tuple(notes),
    )


def _command(model: Model, release: Release, settings: Settings, backend: str) -> tuple[str, ...]:
    """The words that start it so; flags of https://nvidia.github.io/TensorRT-LLM/0.18.2/commands/trtllm-serve.html.

    Before v0.18 there is no trtllm-serve for a model of the hub: an engine is built and run by Triton.
    """
    if not release.since("0.18"):
        return ()
    words = ["trtllm-serve", model.hub_id or model.folder or model.id]
    if backend == "pytorch" and not release.since("1.0"):
        words += ["--backend", "pytorch"]
    if backend == "tensorrt" and release.since("1.0"):
        words += ["--backend", "tensorrt"]
    words += ["--max_seq_len", str(settings.context)]
    given = (
        ("--tp_size", settings.tp if settings.tp > 1 else None),
        ("--pp_size", settings.pp if settings.pp > 1 else None),
        ("--max_batch_size", settings.sequences),
        ("--max_num_tokens", settings.batch_tokens),
        ("--kv_cache_free_gpu_memory_fraction", settings.utilization),
    )
    for flag, value in given:
        if value is not None:
            words += [flag, str(value)]
    return tuple(words)
