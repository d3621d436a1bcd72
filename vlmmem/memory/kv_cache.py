"""Memory of the KV cache: multi-head, grouped-query and multi-query attention, full or windowed.

Each layer keeps one key and one value vector a token and KV head. Sources: multi-query attention arXiv
1911.02150, grouped-query attention arXiv 2305.13245, the sliding window arXiv 2310.06825; the split over
GPUs as in vLLM's `ModelConfig.get_num_kv_heads` (vllm/config/model.py).
"""

from math import ceil

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.model import Model
from vlmmem.workload import check_positive

__all__ = ["cached_tokens", "kv_bytes_per_token", "kv_cache_bytes", "kv_heads_per_rank"]


def kv_heads_per_rank(model: str | Model, tp: int = 1) -> int:
    """KV heads that one GPU of a tensor-parallel group of `tp` GPUs keeps.

    The query heads must divide evenly over the GPUs. KV heads divide too; where there are fewer KV heads
    than GPUs, each GPU keeps a copy of one: max(1, KV heads / tp).

    Args:
        model: a model or its name.
        tp: GPUs of the tensor-parallel group, 1 or more.

    Raises:
        InputError: `tp` is not a positive integer, or does not divide the heads evenly.

    >>> [kv_heads_per_rank("llama-3.1-70b", tp) for tp in (1, 4, 8, 16)]
    [8, 2, 1, 1]
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("tp", tp)
    if not _splits(model, tp):
        possible = ", ".join(str(gpus) for gpus in range(1, model.heads) if _splits(model, gpus))
        raise InputError(
            f"tp: {tp} GPUs cannot split {model.heads} heads and {model.kv_heads} KV heads of {model.id} "
            f"evenly; possible are {possible} and {model.heads}"
        )
    return max(1, model.kv_heads // tp)


def kv_bytes_per_token(model: str | Model, kv_dtype: str | Format = "bf16", tp: int = 1) -> int:
    """Bytes that one more token of one sequence adds on one GPU, while every sliding window has room.

    2 x layers x KV heads of the GPU x head_dim x bits / 8, rounded up to whole bytes.

    Args:
        model: a model or its name.
        kv_dtype: the number format of keys and values, or its name.
        tp: GPUs of the tensor-parallel group.

    Raises:
        InputError: `kv_dtype` is not a format that caches are kept in, or `tp` does not divide the heads.

    Published values: LLaMA-2 13B 819,200 B, Llama-3.1-70B 327,680 B.

    >>> kv_bytes_per_token("llama-2-13b"), kv_bytes_per_token("llama-3.1-70b")
    (819200, 327680)
    """
    model = find_model(model) if isinstance(model, str) else model
    number = find_format(kv_dtype) if isinstance(kv_dtype, str) else kv_dtype
    if not number.kv_cache:
        raise InputError(f"kv_dtype: a KV cache is not kept in {number.id}; bf16, fp16, fp8 and q8_0 are such formats")
    elements = 2 * model.layers * kv_heads_per_rank(model, tp) * model.head_dim
    return ceil(elements * number.bits / 8)


def cached_tokens(model: str | Model, context: int) -> int:
    """Tokens that a layer keeps of a sequence of `context` tokens: all, or those in its sliding window.

    Engines keep a margin above the window; that belongs to the engine, not to the model.

    >>> cached_tokens("mistral-7b", 32_768), cached_tokens("llama-3.1-8b", 32_768)
    (4096, 32768)
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("context", context)
    return context if model.sliding_window is None else min(context, model.sliding_window)


def kv_cache_bytes(
    model: str | Model, context: int, batch: int = 1, kv_dtype: str | Format = "bf16", tp: int = 1
) -> int:
    """Bytes of the KV cache on one GPU: bytes a token x tokens kept x sequences.

    Args:
        model: a model or its name.
        context: tokens of each sequence, prompt and answer together. It may exceed the model's positions.
        batch: sequences held at once.
        kv_dtype: the number format of keys and values, or its name.
        tp: GPUs of the tensor-parallel group.

    Raises:
        InputError: an argument is not a positive integer, or as `kv_bytes_per_token` says.

    >>> kv_cache_bytes("llama-2-13b", context=8192, batch=10)
    67108864000
    """
    check_positive("batch", batch)
    return kv_bytes_per_token(model, kv_dtype, tp) * cached_tokens(model, context) * batch


def _splits(model: Model, tp: int) -> bool:
    if model.heads % tp:
        return False
    return model.kv_heads % tp == 0 or tp % model.kv_heads == 0
