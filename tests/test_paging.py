"""Token slots by hand, and by the worked examples of arXiv 2309.06180."""

from collections.abc import Callable

import pytest

from vlmmem.errors import InputError
from vlmmem.memory.paging import (
    BLOCK_TOKENS,
    blocks_needed,
    last_block_waste,
    power_of_two,
    reserved_slots,
    shared_blocks,
)


def test_the_default_block_is_vllms() -> None:
    assert BLOCK_TOKENS == 16
    # vLLM's own walk through its engine (blog, 2025-09-05): a prefill of 17 tokens takes two blocks.
    assert blocks_needed(17) == 2
    assert (last_block_waste(17), last_block_waste(16), last_block_waste(1)) == (15, 0, 15)


@pytest.mark.parametrize(
    ("tokens", "block", "blocks", "waste"),
    # Figure 6: blocks of 4; the prompt of 7 takes two, the ninth token a third.
    [(7, 4, 2, 1), (8, 4, 2, 0), (9, 4, 3, 3), (1, 4, 1, 3), (5, 1, 5, 0)],
)
def test_blocks(tokens: int, block: int, blocks: int, waste: int) -> None:
    assert (blocks_needed(tokens, block), last_block_waste(tokens, block)) == (blocks, waste)


@pytest.mark.parametrize(("tokens", "power"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (25, 32), (2048, 2048)])
def test_powers_of_two(tokens: int, power: int) -> None:
    # 25 and 32 are the example of section 6.1.
    assert power_of_two(tokens) == power


def test_the_slots_of_figure_3() -> None:
    # Request A: 7 prompt tokens, 1 written, 2 to come, 2,038 never used; request B: 3, 1, 1 and 507.
    assert reserved_slots("max", 7, 3, 2048) == 7 + 1 + 2 + 2038
    assert reserved_slots("max", 3, 2, 512) == 3 + 1 + 1 + 507
    assert reserved_slots("oracle", 7, 3, 2048) == 10


def test_the_power_of_two_is_the_answers() -> None:
    assert reserved_slots("pow2", 100, 25, 2048) == 132
    assert reserved_slots("pow2", 100, 1500, 2048) == 2048
    assert reserved_slots("pow2", 1, 1024, 1025) == 1025


def test_a_request_may_be_as_long_as_allowed() -> None:
    assert reserved_slots("oracle", 1, 2047, 2048) == 2048
    with pytest.raises(InputError) as caught:
        reserved_slots("oracle", 2, 2047, 2048)
    assert str(caught.value) == "longest: 2048 tokens are allowed, and the request has 2049"


def test_the_two_samples_of_figure_8() -> None:
    # Blocks of 4, a prompt of 7 in two blocks; the first sample to write copies the second, the other keeps it.
    assert shared_blocks(2, 7, 0, block=4) == 2
    assert shared_blocks(2, 7, 1, block=4) == 3
    assert shared_blocks(2, 7, 2, block=4) == 5
    assert shared_blocks(1, 7, 1, block=4) == blocks_needed(8, 4)


def test_a_prefix_of_full_blocks_is_never_copied() -> None:
    # inference, lines 137 to 139: two requests, two blocks in common and one each.
    assert shared_blocks(2, 32, 1) == 4
    assert shared_blocks(3, 32, 17) == 2 + 3 * 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: blocks_needed(0), "tokens: 0 was given; a positive integer is needed"),
        (lambda: blocks_needed(1, 0), "block: 0 was given; a positive integer is needed"),
        (lambda: power_of_two(0), "tokens: 0 was given; a positive integer is needed"),
        (lambda: reserved_slots("best", 1, 1, 9), "rule: 'best' is not known; max, pow2 or oracle is needed"),
        (lambda: reserved_slots("max", 0, 1, 9), "prompt: 0 was given; a positive integer is needed"),
        (lambda: reserved_slots("max", 1, 0, 9), "answer: 0 was given; a positive integer is needed"),
        (lambda: reserved_slots("max", 1, 1, True), "longest: True was given; a positive integer is needed"),
        (lambda: shared_blocks(0, 1, 1), "sequences: 0 was given; a positive integer is needed"),
        (lambda: shared_blocks(2, 0, 1), "prefix: 0 was given; a positive integer is needed"),
        (lambda: shared_blocks(2, 1, -1), "own: -1 was given; 0 or a positive integer is needed"),
        (lambda: shared_blocks(2, 1, 1.0), "own: 1.0 was given; 0 or a positive integer is needed"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == words
