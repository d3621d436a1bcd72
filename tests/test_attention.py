"""Attention scores: every cell that the FlashAttention paper prints of its memory, and the errors."""

from collections.abc import Callable

import pytest

from vlmmem.errors import InputError
from vlmmem.memory import attention_benchmark_bytes, attention_scores_bytes, attention_statistics_bytes

# arXiv 2205.14135, table 21: MB by tokens, one attention layer of 8 heads of 64, 16 sequences.
TABLE_21 = {
    "standard": {128: 36, 256: 104, 512: 336, 1024: 1184, 2048: 4416, 4096: 17024},
    "flash": {
        128: 22,
        256: 44,
        512: 104,
        1024: 209,
        2048: 418,
        4096: 836,
        8192: 1672,
        16384: 3344,
        32768: 6688,
        65536: 13376,
    },
}
A100_40GB_MIB = 40_960


@pytest.mark.parametrize(("kernel", "context"), [(name, tokens) for name in TABLE_21 for tokens in TABLE_21[name]])
def test_each_cell_that_the_paper_measured(kernel: str, context: int) -> None:
    assert attention_benchmark_bytes(context, kernel) // 2**20 == TABLE_21[kernel][context]


def test_the_paper_ran_out_of_memory_where_the_rule_does() -> None:
    last = max(TABLE_21["standard"])
    assert attention_benchmark_bytes(last, "standard") < A100_40GB_MIB * 2**20
    assert attention_benchmark_bytes(2 * last, "standard") > A100_40GB_MIB * 2**20


def test_a_second_block_of_tokens_brings_a_sum_in_32_bits() -> None:
    one, two = (attention_benchmark_bytes(tokens, heads=1, head_dim=16, batch=1) for tokens in (256, 257))
    assert (one, two) == (256 * (11 * 32 + 8), 257 * (13 * 32 + 8))


def test_other_shapes_than_the_papers() -> None:
    # 4 matrices of 2 heads x 3^2, and 10 tensors of 2 heads x 5, for 7 sequences, all of 2 bytes.
    assert attention_benchmark_bytes(3, "standard", heads=2, head_dim=5, batch=7) == 2 * 7 * (
        4 * 2 * 9 + 10 * 2 * 5 * 3
    )
    assert attention_benchmark_bytes(3, heads=2, head_dim=5, batch=7) == 7 * (11 * 2 * 2 * 5 * 3 + 2 * 4 * 2 * 3)
    assert attention_benchmark_bytes(1, heads=1, head_dim=1, batch=1) == 11 * 2 + 2 * 4


def test_scores_are_quadratic_and_statistics_are_not() -> None:
    assert attention_scores_bytes(3, 5) == 3 * 25 * 2
    assert attention_scores_bytes(3, 5, 7, 4) == 3 * 25 * 7 * 4
    assert attention_scores_bytes(1, 1, 1, 1) == 1
    assert attention_statistics_bytes(3, 5) == 3 * 5 * 4
    assert attention_statistics_bytes(3, 5, 7) == 3 * 5 * 7 * 4
    assert attention_statistics_bytes(1, 1) == 4


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: attention_scores_bytes(0, 1), "heads: 0 was given; a positive integer is needed"),
        (lambda: attention_scores_bytes(1, 0), "context: 0 was given; a positive integer is needed"),
        (lambda: attention_scores_bytes(1, 1, 0), "batch: 0 was given; a positive integer is needed"),
        (lambda: attention_scores_bytes(1, 1, 1, 0), "bytes_per_element: 0 was given; a positive integer is needed"),
        (lambda: attention_statistics_bytes(1, -1), "context: -1 was given; a positive integer is needed"),
        (lambda: attention_benchmark_bytes(1, head_dim=0), "head_dim: 0 was given; a positive integer is needed"),
        (lambda: attention_benchmark_bytes(1, "paged"), "kernel: 'paged' was given; standard and flash were measured"),
    ],
)
def test_errors(call: Callable[[], int], line: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == line
