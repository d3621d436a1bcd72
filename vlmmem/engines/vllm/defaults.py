"""What vLLM sets where its user leaves a setting open, by release and GPU: that of `vllm serve`.

Source: vllm/engine/arg_utils.py at v0.5.5, v0.6.3, v0.7.3, v0.8.0, v0.8.5, v0.9.2, v0.10.2, v0.11.0, v0.14.0, v0.19.0,
v0.22.0 and v0.28.0; vllm/config.py, SchedulerConfig.__post_init__; vllm/config/cache.py; vllm/platforms/cuda.py.
"""

from vlmmem.catalog import find_format
from vlmmem.engines.gpus import BLACKWELL, HOPPER, is_one_of
from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.generation import uses_v1
from vlmmem.engines.vllm.pages import attention_block
from vlmmem.formats import Format
from vlmmem.layers import LatentCache
from vlmmem.model import Model
from vlmmem.record import replace

__all__ = ["complete"]

_GIB = 2**30
_IMAGE_TOKENS = 5120
"""The least batch of an image model in V0 (_MULTIMODAL_MODEL_MAX_NUM_BATCHED_TOKENS)."""


_UNLIMITED = 999
"""Images that a prompt may hold by default in V1: vllm/config/multimodal.py, MultiModalConfig.get_limit_per_prompt."""


def complete(model: Model, release: Release, settings: Settings) -> Settings:
    """The settings with every field that vLLM would fill in: what `vllm serve` starts with.

    Filled are `sequences` (max_num_seqs), `batch_tokens` (max_num_batched_tokens), `utilization`, `block_size` (that of
    attention layers), `kv_dtype`, `images` (limit_mm_per_prompt: 1 in V0, 999 in V1), and `gpu_bytes` where a GPU is
    named. `weights` stays None where the checkpoint decides. `options` keep what the user gave. Complete settings stay
    as they are.

    >>> from vlmmem import find_gpu, find_model
    >>> gpu = find_gpu("h100-80gb")
    >>> found = complete(find_model("llama-3.1-8b"), Release("0.19", (0, 19)), Settings(8192, gpu=gpu))
    >>> found.sequences, found.batch_tokens, found.utilization, found.block_size
    (1024, 8192, 0.9, 16)
    """
    kv_dtype = _kv_dtype(model, release, settings.kv_dtype)
    known = replace(settings, kv_dtype=kv_dtype, gpu_bytes=settings.total_bytes)
    v1 = uses_v1(model, release, known)
    sequences, batch = _batch(model, release, known, v1)
    utilization = settings.utilization
    if utilization is None:
        utilization = 0.92 if release.since("0.20") else 0.9
    images = settings.images
    if images is None:
        images = 0 if model.vision is None else _UNLIMITED if v1 and release.since("0.8.5") else 1
    block = settings.block_size if settings.block_size is not None else _block_size(model, release, known, v1)
    filled = replace(
        known, sequences=sequences, batch_tokens=batch, utilization=utilization, images=images, block_size=block
    )
    return replace(filled, block_size=attention_block(model, release, filled)) if v1 else filled


def _kv_dtype(model: Model, release: Release, asked: Format | None) -> Format:
    """The format of the KV cache: what is asked, else that in which the model runs; float32 checkpoints run in 16 bits.

    With a sparse indexer fp8 means fp8_ds_mla, and in 0.11 so did no word at all. Since 0.14 a checkpoint's own word
    for its cache counts (vllm/utils/torch_utils.py, `resolve_kv_cache_dtype_string`).

    Source: vllm/config.py, `_get_and_verify_dtype`; vllm/model_executor/models/config.py, DeepseekV32ForCausalLM,
    v0.11.0 to v0.19.0; vllm/model_executor/layers/attention/mla_attention.py, v0.19.0.
    """
    indexed = any(
        isinstance(cache, LatentCache) and cache.what == "indexer"
        for layer in model.decoder.layers
        for cache in layer.caches
    )
    if indexed and release.since("0.11") and (asked.id == "fp8" if asked is not None else not release.since("0.12")):
        return find_format("fp8_ds_mla")
    if asked is not None:
        return asked
    own = "" if model.quantization is None else model.quantization.kv_cache
    if own and release.since("0.14"):
        return find_format(own)
    return find_format("fp16" if model.dtype == "fp16" else "bf16")


def _batch(model: Model, release: Release, settings: Settings, v1: bool) -> tuple[int, int]:
    """max_num_seqs and max_num_batched_tokens."""
    context = settings.context
    if v1:
        sequences, tokens = _v1_batch(release, settings)
        if settings.batch_tokens is not None:
            tokens = settings.batch_tokens
        elif release.since("0.14"):
            tokens = max(tokens, _whole_item(model, release))
            # Never more than all sequences together hold.
            tokens = min(tokens, (settings.sequences or sequences) * context)
        if settings.sequences is not None:
            sequences = settings.sequences
        elif release.since("0.9.2"):
            sequences = min(sequences, tokens)
        return sequences, tokens
    sequences = settings.sequences if settings.sequences is not None else 256
    if settings.batch_tokens is not None:
        return sequences, settings.batch_tokens
    chunked = bool(settings.option("enable_chunked_prefill"))
    if settings.option("enable_chunked_prefill") is None:
        chunked = _v0_chunked(model, release, context)
    least = 2048 if release.since("0.6.6") or not chunked else 512
    tokens = least if chunked else max(context, 2048)
    if model.vision is not None and release.since("0.6"):
        tokens = max(tokens, _IMAGE_TOKENS)
    return sequences, tokens


def _whole_item(model: Model, release: Release) -> int:
    """Tokens of the largest image or video that must be in one batch: of Gemma 4 where it looks at images both ways.

    The larger models do; those with layers that share keys and values do not.

    Source: vllm/engine/arg_utils.py, `_get_min_mm_batched_tokens`; vllm/model_executor/models/gemma4_mm.py, v0.22.0: 32
    frames of 70 tokens, each with 2 of its frame and 6 of its time.
    """
    shares = any(layer.kind == "shared" for layer in model.decoder.layers)
    whole = model.architecture.startswith("gemma4") and model.vision is not None and not shares
    return 32 * (70 + 2 + 6) if whole and release.since("0.22") else 0


def _v0_chunked(model: Model, release: Release, context: int) -> bool:
    """V0 prefills in chunks above a context of 32,768 tokens, but not for images, latent attention or windows."""
    latent = any(isinstance(cache, LatentCache) for layer in model.decoder.layers for cache in layer.caches)
    if model.vision is not None or (latent and release.since("0.7")) or model.sliding_window is not None:
        return False
    return context > 32768 and release.since("0.5")


def _v1_batch(release: Release, settings: Settings) -> tuple[int, int]:
    """What V1's server takes on this GPU: max_num_seqs and max_num_batched_tokens."""
    memory = settings.total_bytes or 0
    name = settings.gpu.id if settings.gpu is not None else ""
    large = memory >= 70 * _GIB
    if release.since("0.28") and memory >= 160 * _GIB:
        return 1024, 16384
    # A100 counts as small since 0.9 (pull request 17885).
    if large and not (release.since("0.9") and "a100" in name):
        return 1024, 8192
    return (256 if release.since("0.8.5") else 1024), 2048


def _block_size(model: Model, release: Release, settings: Settings, v1: bool) -> int:
    """16 tokens; of latent attention what its kernel on this GPU needs.

    Source: vllm/platforms/cuda.py, `check_and_update_config`, v0.8.0 to v0.17.0: FlashMLA 64 on Hopper, CUTLASS 128 on
    Blackwell, since v0.16.0 FlashInfer 64. Since v0.18.0 it is the least that the first kernel of
    `_get_backend_priorities` has, 16 where it has that: FlashAttention on Hopper (not in 8 bits, where FlashMLA has
    64), FlashInfer with 32 on Blackwell.
    """
    caches = [cache for layer in model.decoder.layers for cache in layer.caches if isinstance(cache, LatentCache)]
    if not caches or not release.since("0.8") or model.architecture == "minicpm3":
        return 16
    if any(cache.what == "indexer" for cache in caches):
        return 64
    if is_one_of(settings.gpu, BLACKWELL):
        if release.since("0.18"):
            return 32
        if release.since("0.16"):
            return 64
        return 128 if v1 and release.since("0.10.2") else 16
    if is_one_of(settings.gpu, HOPPER):
        narrow = settings.kv_dtype is not None and settings.kv_dtype.bits <= 8
        return 64 if narrow or not release.since("0.18") else 16
    return 16
