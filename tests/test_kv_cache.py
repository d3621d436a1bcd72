"""KV cache: published bytes a token, the split over GPUs, the sliding window."""

from dataclasses import replace

import pytest

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.memory import cached_tokens, kv_bytes_per_token, kv_cache_bytes, kv_heads_per_rank

# Bytes a token in 16 bits: 2 x layers x KV heads x head width x 2, as papers and engines print them.
PUBLISHED = {
    "llama-2-13b": 819_200,
    "llama-2-7b": 524_288,
    "llama-2-70b": 327_680,
    "llama-3.1-8b": 131_072,
    "llama-3.1-70b": 327_680,
    "llama-3.1-405b": 516_096,
    "mistral-7b": 131_072,
    "qwen2-72b": 327_680,
    "opt-30b": 1_376_256,
    "llama-1-30b": 1_597_440,
    "gpt-3-175b": 4_718_592,
    "phi-2": 327_680,
    "llava-1.6-34b": 245_760,
}


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_published_bytes_a_token(name: str, size: int) -> None:
    assert kv_bytes_per_token(name) == size
    assert kv_bytes_per_token(find_model(name), find_format("fp16")) == size


def test_a_multi_query_model_keeps_one_head() -> None:
    model = replace(find_model("llama-3.1-8b"), kv_heads=1)
    assert kv_bytes_per_token(model) == 131_072 // 8


@pytest.mark.parametrize(
    ("kv_dtype", "size"),
    [("fp32", 1_638_400), ("fp8", 409_600), ("int8", 409_600), ("int4", 204_800), ("q8_0", 435_200)],
)
def test_other_formats(kv_dtype: str, size: int) -> None:
    assert kv_bytes_per_token("llama-2-13b", kv_dtype) == size


def test_a_part_of_a_byte_counts_whole() -> None:
    # 2 x 1 layer x 1 head x 5 elements in 4 bits are 5 bytes; with 3 in 34/32 bytes 6.375, so 7.
    model = replace(find_model("phi-2"), layers=1, heads=1, kv_heads=1, head_dim=5)
    assert kv_bytes_per_token(model, "int4") == 5
    assert kv_bytes_per_token(replace(model, head_dim=3), "q8_0") == 7


@pytest.mark.parametrize(
    ("model", "tp", "heads"),
    [
        ("llama-3.1-70b", 1, 8),
        ("llama-3.1-70b", 2, 4),
        ("llama-3.1-70b", 8, 1),
        ("llama-3.1-70b", 16, 1),
        ("llama-3.1-70b", 64, 1),
        ("llama-2-13b", 5, 8),
        ("llama-2-13b", 40, 1),
        ("llava-1.6-34b", 56, 1),
    ],
)
def test_kv_heads_of_one_gpu(model: str, tp: int, heads: int) -> None:
    assert kv_heads_per_rank(model, tp) == heads
    assert kv_heads_per_rank(find_model(model), tp) == heads


def test_one_gpu_unless_told() -> None:
    assert kv_heads_per_rank("llama-3.1-70b") == 8
    assert kv_cache_bytes("llama-2-13b", 1) == 819_200


def test_the_split_shows_in_the_bytes() -> None:
    assert kv_bytes_per_token("llama-3.1-70b", tp=8) == 40_960
    # More GPUs than KV heads: each keeps a copy of one.
    assert kv_bytes_per_token("llama-3.1-70b", tp=16) == 40_960
    assert kv_cache_bytes("llama-3.1-70b", context=4096, tp=4) == 335_544_320


@pytest.mark.parametrize(
    ("model", "tp", "message"),
    [
        (
            "llama-2-13b",
            3,
            (
                "tp: 3 GPUs cannot split 40 heads and 40 KV heads of llama-2-13b evenly; "
                "possible are 1, 2, 4, 5, 8, 10, 20 and 40"
            ),
        ),
        (
            "llava-1.6-34b",
            7,
            ("tp: 7 GPUs cannot split 56 heads and 8 KV heads of llava-1.6-34b evenly; possible are 1, 2, 4, 8 and 56"),
        ),
        ("llama-2-13b", 0, "tp: 0 was given; a positive integer is needed"),
        ("llama-2-13b", -2, "tp: -2 was given; a positive integer is needed"),
        ("llama-2-13b", 2.0, "tp: 2.0 was given; a positive integer is needed"),
        ("llama-2-13b", True, "tp: True was given; a positive integer is needed"),
    ],
)
def test_impossible_splits(model: str, tp: int, message: str) -> None:
    for call in (kv_heads_per_rank, lambda name, gpus: kv_bytes_per_token(name, tp=gpus)):
        with pytest.raises(InputError) as caught:
            call(model, tp)
        assert str(caught.value) == message


def test_the_worked_example_of_the_documents() -> None:
    assert kv_cache_bytes("llama-2-13b", context=8192, batch=10) == 67_108_864_000
    assert kv_cache_bytes("llama-3.1-70b", context=4096) == 1_342_177_280
    assert kv_cache_bytes("llama-3.1-70b", 4096, 32, "fp8") == 21_474_836_480


def test_the_window_bounds_what_is_kept() -> None:
    assert cached_tokens("mistral-7b", 4095) == 4095
    assert cached_tokens("mistral-7b", 4096) == 4096
    assert cached_tokens(find_model("mistral-7b"), 4097) == 4096
    assert cached_tokens("llama-3.1-8b", 131_072) == 131_072
    assert kv_cache_bytes("mistral-7b", context=32_768) == 131_072 * 4096


@pytest.mark.parametrize(("context", "batch", "field"), [(0, 1, "context"), (1, 0, "batch"), (1.5, 1, "context")])
def test_sizes_are_positive_integers(context: int, batch: int, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: .* was given; a positive integer is needed$"):
        kv_cache_bytes("llama-2-13b", context, batch)


def test_a_cache_is_not_kept_in_a_weight_format() -> None:
    with pytest.raises(InputError) as caught:
        kv_bytes_per_token("llama-2-13b", "gptq-4bit")
    assert str(caught.value) == (
        "kv_dtype: a KV cache is not kept in gptq-4bit; bf16, fp16, fp8 and q8_0 are such formats"
    )


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"^model 'llama-9' is not in the catalogue; known are "):
        kv_cache_bytes("llama-9", 1)
    with pytest.raises(InputError, match=r"^format 'fp3' is not in the catalogue; known are "):
        kv_cache_bytes("llama-2-7b", 1, kv_dtype="fp3")
