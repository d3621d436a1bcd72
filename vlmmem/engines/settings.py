"""Settings: how an engine is started."""

from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.record import record
from vlmmem.workload import check_positive

__all__ = ["Settings"]


@record(frozen=True, slots=True)
class Settings:
    """How an engine is started on GPUs that are all alike. What is None is left to the engine's own default.

    `context` is the longest sequence, prompt and answer together (vLLM's max_model_len, SGLang's context-length,
    llama.cpp's n_ctx of one sequence). `gpu_bytes` is what the engine sees as the GPU's total memory, in bytes: less
    than the vendor's figure; without it the catalogue's figure of `gpu` counts. `used_bytes` of it are taken by others
    before the engine starts. `sequences` (max_num_seqs, max-running-requests, parallel) and `batch_tokens`
    (max_num_batched_tokens, chunked-prefill-size, n_batch) bound a step. `utilization` is the share of the GPU that
    the engine may take (gpu_memory_utilization, mem-fraction-static, free_gpu_memory_fraction). `images` are the
    images that a prompt may hold. `eager` starts without CUDA graphs. `options` are (name, value) pairs of the
    engine's own flags, under its own names, such as ("n_ubatch", 512).
    """

    context: int
    gpu: Gpu | None = None
    gpu_bytes: int | None = None
    used_bytes: int | None = None
    tp: int = 1
    pp: int = 1
    sequences: int | None = None
    batch_tokens: int | None = None
    utilization: float | None = None
    weights: Format | None = None
    kv_dtype: Format | None = None
    block_size: int | None = None
    images: int | None = None
    image_size: tuple[int, int] | None = None
    eager: bool = False
    options: tuple[tuple[str, int | float | str | bool], ...] = ()

    def __post_init__(self) -> None:
        for field in ("context", "tp", "pp"):
            check_positive(field, getattr(self, field))
        for field in ("gpu_bytes", "sequences", "batch_tokens", "block_size"):
            if getattr(self, field) is not None:
                check_positive(field, getattr(self, field))
        share = self.utilization
        if share is not None and (type(share) not in (int, float) or not 0 < share <= 1):
            raise InputError(f"utilization: {share!r} was given; a share above 0 and up to 1 is needed")

    @property
    def total_bytes(self) -> int | None:
        """What the engine sees as the GPU's memory; None where no GPU is named."""
        if self.gpu_bytes is not None or self.gpu is None:
            return self.gpu_bytes
        return self.gpu.cuda_memory_bytes or self.gpu.memory_bytes

    def option(self, name: str) -> int | float | str | bool | None:
        """The value of one of the engine's own flags, None where it is left to the engine."""
        return dict(self.options).get(name)
