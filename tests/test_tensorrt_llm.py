"""TensorRT-LLM: blocks and tokens against what real runs printed. Each log is quoted by its figures, with its place."""

import pytest

from vlmmem import find_format, find_gpu, find_model
from vlmmem.engines import Settings, reserve
from vlmmem.engines import tensorrt_llm as engine
from vlmmem.engines.releases import find_release
from vlmmem.errors import InputError

GIB = 2**30

# version, a model with that cache, its format, GiB printed as available, tokens per block, blocks, GiB allocated
LOGS = [
    # github.com/NVIDIA/TensorRT-LLM/issues/2268: Qwen1.5-7B (32 layers x 32 KV heads x 128), available: 21.89 GiB
    ("0.13", "llama-2-7b", "fp16", 21.89, 64, 631, None),
    # nvidia.github.io/TensorRT-LLM/reference/memory.html: a 7B engine of 6,695 MiB with an 8-bit cache
    ("0.13", "llama-2-7b", "fp8", 70.48, 64, 4060, 63.44),
    # Llama-3.1-8B in FP8 on an RTX 5090, trtllm-serve: available: 17.83 GiB, blocks 8219, 32 tokens
    ("0.18", "llama-3.1-8b", "fp8", 17.83, 32, 8219, 16.05),
]


@pytest.mark.parametrize(("version", "model", "cache", "available", "block", "blocks", "allocated"), LOGS)
def test_blocks_of_the_printed_memory(
    version: str, model: str, cache: str, available: float, block: int, blocks: int, allocated: float | None
) -> None:
    release = find_release("tensorrt-llm", engine.RELEASES, version)
    settings = Settings(4096, kv_dtype=find_format(cache))
    shape = find_model(model)
    # the printed figure is rounded: half of its last digit either way
    low, high = (
        engine.kv_capacity(shape, release, settings, int(0.9 * (available + off) * GIB))[1] for off in (-0.005, 0.005)
    )
    assert low <= blocks <= high
    assert engine._tokens_per_block(release, settings) == block
    if allocated is not None:
        size = blocks * block * engine._cell(shape, settings)
        assert size / GIB == pytest.approx(allocated, abs=0.006)


def test_one_block_less_would_not_do() -> None:
    """The planted fault: rounding down gives 630 for the first log."""
    tokens = int(0.9 * 21.89 * GIB) // engine._cell(find_model("llama-2-7b"), Settings(4096))
    assert tokens // 64 == 630


def test_tokens_of_the_pytorch_backend() -> None:
    # Qwen3-Reranker-0.6B on an H100: Allocated 68.69 GiB for max tokens in paged KV cache (643136)
    found = reserve(find_model("qwen3-0.6b"), "tensorrt-llm@1.0", Settings(40960, gpu=find_gpu("h100-80gb")))
    assert found.kv_tokens is not None
    assert found.kv_tokens / 643_136 == pytest.approx(1, abs=0.03)
    assert found.kv_tokens % 32 == 0
    assert dict(found.settings)["backend"] == "pytorch"


def test_the_command() -> None:
    settings = Settings(8192, gpu=find_gpu("h200"), tp=2, utilization=0.8, batch_tokens=4096, sequences=64)
    words = " ".join(reserve(find_model("llama-3.1-70b"), "tensorrt-llm@1.0", settings).command)
    assert words.startswith("trtllm-serve meta-llama/")
    assert "--kv_cache_free_gpu_memory_fraction 0.8" in words
    assert "--tp_size 2 --max_batch_size 64 --max_num_tokens 4096" in words
    assert not reserve(find_model("llama-3.1-8b"), "tensorrt-llm@0.13", Settings(8192, gpu=find_gpu("h200"))).command


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (Settings(8192), "a GPU is needed"),
        (Settings(8192, gpu=find_gpu("t4")), "leave no room"),
        (Settings(8192, gpu=find_gpu("h200"), options=(("backend", "cuda"),)), "pytorch or tensorrt is needed"),
    ],
)
def test_bad_input_is_one_line(settings: Settings, line: str) -> None:
    with pytest.raises(InputError, match=line):
        reserve(find_model("llama-3.1-8b"), "tensorrt-llm@1.0", settings)
