"""Which of vLLM's two engines starts: V0, or V1, which took its place between 0.8 and 0.11."""

from vlmmem.engines.gpus import BEFORE_AMPERE, HOPPER, is_one_of
from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.layers import KeyValueCache, StateCache
from vlmmem.model import Model

__all__ = ["V0_ONLY", "uses_v1"]

V0_ONLY = ("mllama",)
"""Architectures that only V0 ran; the registry of 0.11 names 0.10.2 as the last release that has them."""


def uses_v1(model: Model, release: Release, settings: Settings) -> bool:
    """Whether the V1 engine serves the model.

    V1 is an option before 0.8, the default from there, and alone from 0.11. Between, V0 starts on GPUs before Ampere
    (until 0.10), with a KV cache of 8 bits that FlashAttention 3 does not read, in 32 bits (until 0.9), for models with
    states (until 0.9.2), for pipelines, and for models that only V0 runs.

    Args:
        model: what is served.
        release: vLLM's release.
        settings: `kv_dtype`, `weights`, `gpu` and `pp` count, and the option VLLM_USE_V1, which overrides the rule.

    Source: vllm/engine/arg_utils.py, `_is_v1_supported_oracle`, at v0.8.0, v0.8.5, v0.9.2 and v0.10.2.

    >>> from vlmmem import find_gpu, find_model
    >>> from vlmmem.engines.releases import parse_version
    >>> model, settings = find_model("llama-3.1-8b"), Settings(2048, gpu=find_gpu("t4"))
    >>> [uses_v1(model, Release(version, parse_version(version)), settings) for version in ("0.7", "0.9.2", "0.11")]
    [False, False, True]
    """
    chosen = settings.option("VLLM_USE_V1")
    if release.since("0.11"):
        return True
    if chosen is not None:
        return bool(chosen) and str(chosen) != "0"
    if not release.since("0.8"):
        return False
    gpu = settings.gpu.id if settings.gpu is not None else ""
    caches = [cache for layer in model.decoder.layers for cache in layer.caches]
    crossed = any(isinstance(cache, KeyValueCache) and cache.states is not None for cache in caches)
    if crossed or model.architecture in V0_ONLY:
        return False
    if not release.since("0.9.2") and any(isinstance(cache, StateCache) for cache in caches):
        return False
    if not release.since("0.10.1") and gpu in BEFORE_AMPERE:
        return False
    if settings.pp > 1 and not release.since("0.10"):
        return False
    narrow = settings.kv_dtype is not None and settings.kv_dtype.bits <= 8
    if narrow and not release.since("0.10") and not (release.since("0.8.5") and is_one_of(settings.gpu, HOPPER)):
        return False
    quantised = settings.weights is not None and settings.weights.id
    return not (quantised == "fp32" and not release.since("0.9.2"))
