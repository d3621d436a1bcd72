"""Token slots of the KV cache that a request holds, by the way its memory is reserved; in tokens, not bytes.

A slot keeps the keys and values of one token (`kv_bytes_per_token` bytes). Rules and worked examples are those of
arXiv 2309.06180: section 3.1 (one contiguous chunk a request), section 4.2 and 4.3 (blocks), section 4.4 and figure 8
(sharing with copy-on-write), section 6.1 (reservations); the default block size of 16 tokens stands in section 7.2 and
in vLLM's vllm/config/cache.py (`CacheConfig.DEFAULT_BLOCK_SIZE`).
"""

from vlmmem.errors import InputError
from vlmmem.workload import check_positive

__all__ = ["BLOCK_TOKENS", "blocks_needed", "last_block_waste", "power_of_two", "reserved_slots", "shared_blocks"]

BLOCK_TOKENS = 16
"""Tokens of one block, vLLM's default."""


def blocks_needed(tokens: int, block: int = BLOCK_TOKENS) -> int:
    """Blocks that hold `tokens` tokens: only the last one may have room left.

    >>> blocks_needed(17), blocks_needed(32)
    (2, 2)
    """
    check_positive("tokens", tokens)
    check_positive("block", block)
    return -(-tokens // block)


def last_block_waste(tokens: int, block: int = BLOCK_TOKENS) -> int:
    """Slots of the last block that hold no token yet, from 0 to `block` - 1.

    >>> last_block_waste(17), last_block_waste(32)
    (15, 0)
    """
    return blocks_needed(tokens, block) * block - tokens


def power_of_two(tokens: int) -> int:
    """The smallest power of two that is at least `tokens`.

    >>> power_of_two(25), power_of_two(32)
    (32, 32)
    """
    check_positive("tokens", tokens)
    return 1 << (tokens - 1).bit_length()


def reserved_slots(rule: str, prompt: int, answer: int, longest: int) -> int:
    """Slots that a contiguous chunk is reserved with when a request starts.

    Args:
        rule: "max" reserves the longest sequence that the server allows; "pow2" the prompt and the answer's length
            rounded up to a power of two; "oracle" the length that the request will really have, which nobody knows
            beforehand. They are Orca (Max), (Pow2) and (Oracle) of arXiv 2309.06180, section 6.1.
        prompt: tokens of the prompt.
        answer: tokens that will be generated.
        longest: tokens of the longest sequence allowed, prompt and answer together.

    Raises:
        InputError: another rule, a length that is not a positive integer, or a request longer than `longest`.

    >>> [reserved_slots(rule, 161, 338, 2048) for rule in ("max", "pow2", "oracle")]
    [2048, 673, 499]
    """
    for field, value in (("prompt", prompt), ("answer", answer), ("longest", longest)):
        check_positive(field, value)
    if prompt + answer > longest:
        raise InputError(f"longest: {longest} tokens are allowed, and the request has {prompt + answer}")
    if rule == "max":
        return longest
    if rule == "pow2":
        return min(longest, prompt + power_of_two(answer))
    if rule == "oracle":
        return prompt + answer
    raise InputError(f"rule: {rule!r} is not known; max, pow2 or oracle is needed")


def shared_blocks(sequences: int, prefix: int, own: int, block: int = BLOCK_TOKENS) -> int:
    """Physical blocks of sequences that share a prefix, with copy-on-write.

    The full blocks of the prefix stand once. Its last block, if partly filled, is copied by every sequence that writes
    into it but the last, which finds itself the only owner: in the end each has its own.

    Args:
        sequences: sequences that share, at least 1.
        prefix: tokens that they have in common.
        own: tokens that each has written after the prefix; 0 where none has written yet.
        block: tokens of one block.

    >>> shared_blocks(2, prefix=7, own=1, block=4), 2 * blocks_needed(8, block=4)
    (3, 4)
    """
    check_positive("sequences", sequences)
    check_positive("prefix", prefix)
    if type(own) is not int or own < 0:
        raise InputError(f"own: {own!r} was given; 0 or a positive integer is needed")
    if own == 0:
        return blocks_needed(prefix, block)
    full = prefix // block
    return full + sequences * (blocks_needed(prefix + own, block) - full)
