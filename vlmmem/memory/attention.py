"""Memory of attention scores: the matrix that standard attention writes out, and what FlashAttention keeps instead.

Standard attention holds a score for every pair of tokens and every head, n T^2 elements a sequence; FlashAttention
goes through the keys block by block and keeps one 32-bit number a row and head, n T of them (arXiv 2205.14135,
section 3.1: O(N^2) and O(N) beyond the inputs and the output). KV heads do not matter: every query head has scores.

`attention_benchmark_bytes` is what the paper measured (appendix E.6, table 21): the forward and the backward pass of
one attention layer, in MB of 2^20 B, printed without the fraction. It gives each of the sixteen printed cells:

- standard: 4 score matrices and 10 tensors of the queries' shape, all 16-bit;
- flash: 13 such tensors and 2 statistics a row of 32 bits; up to 256 tokens 11 such tensors, for there is no sum over
  blocks to be kept in 32 bits.
"""

from vlmmem.errors import InputError
from vlmmem.workload import check_positive

__all__ = ["attention_benchmark_bytes", "attention_scores_bytes", "attention_statistics_bytes"]

_ACTIVATION, _FLOAT32 = 2, 4
_KERNELS = ("standard", "flash")

# What the printed cells of table 21 are made of.
_STANDARD_MATRICES, _STANDARD_TENSORS = 4, 10
_FLASH_TENSORS, _FLASH_TENSORS_ONE_BLOCK, _FLASH_STATISTICS = 13, 11, 2
_ONE_BLOCK = 256


def attention_scores_bytes(heads: int, context: int, batch: int = 1, bytes_per_element: int = 2) -> int:
    """Bytes of one score matrix of one layer: heads x context^2 x batch x bytes of an element.

    Standard attention holds two at least: the scores, and their softmax.

    Args:
        heads: query heads.
        context: tokens of each sequence, all of them in the pass.
        batch: sequences in the pass.
        bytes_per_element: bytes of a score.

    Raises:
        InputError: an argument is not a positive integer.

    Source: arXiv 2205.14135, section 2.2; the coefficient a s^2 b of arXiv 2205.05198, section 4.1.

    >>> attention_scores_bytes(heads=40, context=8192)
    5368709120
    """
    _positive(heads=heads, context=context, batch=batch, bytes_per_element=bytes_per_element)
    return heads * context**2 * batch * bytes_per_element


def attention_statistics_bytes(heads: int, context: int, batch: int = 1) -> int:
    """Bytes of what FlashAttention keeps of one layer's scores: one 32-bit number a row, 4 x heads x context x batch.

    The number is the logarithm of the row's sum of exponentials; the first version kept two, a maximum and a sum.

    Args:
        heads: query heads.
        context: tokens of each sequence.
        batch: sequences in the pass.

    Raises:
        InputError: an argument is not a positive integer.

    Source: arXiv 2205.14135, algorithm 1; PyTorch's kernel saves this tensor (tests/oracle/saved.json).

    >>> attention_statistics_bytes(heads=40, context=8192)
    1310720
    """
    _positive(heads=heads, context=context, batch=batch)
    return _FLOAT32 * heads * context * batch


def attention_benchmark_bytes(
    context: int, kernel: str = "flash", *, heads: int = 8, head_dim: int = 64, batch: int = 16
) -> int:
    """Bytes of a forward and a backward pass of one attention layer, as the FlashAttention paper measured them.

    The default shapes are the paper's.

    Args:
        context: tokens of each sequence.
        kernel: "standard" (PyTorch's attention at the time) or "flash".
        heads: query heads, as many KV heads.
        head_dim: width of a head.
        batch: sequences.

    Raises:
        InputError: a count is not a positive integer, or the kernel is neither of the two.

    Source: arXiv 2205.14135, appendix E.6 and table 21.

    >>> attention_benchmark_bytes(2048, "standard") / 2**20, attention_benchmark_bytes(2048, "flash") / 2**20
    (4416.0, 418.0)
    """
    _positive(context=context, heads=heads, head_dim=head_dim, batch=batch)
    if kernel not in _KERNELS:
        raise InputError(f"kernel: {kernel!r} was given; {' and '.join(_KERNELS)} were measured")
    tensor = _ACTIVATION * heads * head_dim * context * batch
    if kernel == "standard":
        return _STANDARD_MATRICES * attention_scores_bytes(heads, context, batch) + _STANDARD_TENSORS * tensor
    tensors = _FLASH_TENSORS_ONE_BLOCK if context <= _ONE_BLOCK else _FLASH_TENSORS
    return tensors * tensor + _FLASH_STATISTICS * attention_statistics_bytes(heads, context, batch)


def _positive(**counts: int) -> None:
    for name, value in counts.items():
        check_positive(name, value)
