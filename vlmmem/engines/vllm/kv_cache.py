"""vLLM's KV cache: pages, groups of layers, blocks, tokens and concurrency, by release."""

from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.model import Model

__all__ = ["kv_capacity"]


def kv_capacity(
    model: Model, release: Release, settings: Settings, pool_bytes: int
) -> tuple[int | None, int | None, float | None]:
    """Tokens, blocks and maximum concurrency as the log prints them, given the pool of one GPU in bytes."""
    raise InputError(f"vllm {release.version}: not there yet")
